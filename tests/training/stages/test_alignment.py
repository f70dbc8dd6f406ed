import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from tests.training.conftest import make_config

from flag_training.config import RunConfig, SlideEntry
from flag_training.engine.loop import Draw
from flag_training.gene_targets.contextual import write_chunk, write_manifest, write_means
from flag_training.gene_targets.gene_table import collect, write_table
from flag_training.gene_targets.geneformer import SpotVectors
from flag_training.stages.alignment import Alignment
from flag_training.stages.denoising import Diffused, SlideBatches
from flag_training.stages.fit import fit
from flag_training.stages.frames import FramedCohort
from napari_flag.errors import UserError
from napari_flag.model.graph import GraphTensors
from napari_flag.progress import finish

WIDTH = 16
GENES = tuple("ABCDE")


@pytest.fixture(scope="module")
def cohort(cohort):
    """The shared cohort with fewer counts, so that some genes are absent in some spots."""
    slides = [replace(s, expression=np.clip(s.expression - 4, 0, None)) for s in cohort.slides]
    return replace(cohort, slides=tuple(slides))


@pytest.fixture
def table(tmp_path):
    """Vectors of A to D; E has none."""
    path = tmp_path / "genes.safetensors"
    generator = torch.Generator().manual_seed(0)
    save_file({gene: torch.randn(12, generator=generator) for gene in "ABCD"}, path)
    return path


def load(cohort, **values):
    torch.manual_seed(0)
    return Alignment.load(make_config(**values).fit, GENES, WIDTH, cohort.slides)


def expression_of(cohort):
    """(N, G) expression relative to each slide, in the order of rows."""
    found = [torch.from_numpy(slide.expression) for slide in cohort.slides]
    return torch.cat([(e - e.mean(0)) / e.std(0) for e in found])


def names_only(cohort):
    """Tokens that know their gene and nothing of the spot."""
    names = torch.randn(len(GENES), WIDTH, generator=torch.Generator().manual_seed(1))
    return names.expand(sum(len(slide.spots) for slide in cohort.slides), -1, -1)


def informed(cohort):
    """Tokens that know their gene and how much of it the spot has."""
    return names_only(cohort) + expression_of(cohort)[:, :, None]


def learn(alignment, tokens, steps=50):
    """Train the projectors on the first half of the spots; return the loss on the rest."""
    rows = torch.randperm(len(tokens), generator=torch.Generator().manual_seed(2))
    seen, held_out = rows[: len(rows) // 2], rows[len(rows) // 2 :]
    optimiser = torch.optim.Adam(alignment.parameters(), lr=1e-2)
    for _ in range(steps):
        optimiser.zero_grad()
        alignment(tokens[seen], alignment.targets(seen)).backward()
        optimiser.step()
    with torch.no_grad():
        return alignment(tokens[held_out], alignment.targets(held_out)).item()


@pytest.mark.parametrize("none", [None, ""])
def test_without_targets_there_is_no_loss_and_nothing_to_learn(none):
    config = make_config(alignment_targets=none, alignment_cells=none).fit
    alignment = Alignment.load(config, GENES, WIDTH)
    assert alignment(torch.randn(2, 5, WIDTH), alignment.targets(torch.arange(2))) == 0
    assert list(alignment.parameters()) == []


def test_the_published_loss_on_a_static_table_is_met_by_the_names_of_genes_alone(cohort, table):
    alignment = load(cohort, alignment_targets=str(table))
    assert learn(alignment, names_only(cohort)) < -0.98


def test_centred_targets_cannot_be_met_without_the_spot(cohort, table):
    values = {"alignment_targets": str(table), "alignment_centred": True}
    assert learn(load(cohort, **values), names_only(cohort)) > -0.2
    assert learn(load(cohort, **values), informed(cohort)) < -0.8


@pytest.mark.parametrize("centred", [True, False])
def test_cell_targets_are_expression_weighted_means_of_the_gene_vectors(cohort, table, centred):
    alignment = load(cohort, alignment_cells=str(table), alignment_centred=centred)
    rows = torch.tensor([3, 40, 100])
    found = alignment.terms[0].targets.cells(rows)
    from safetensors.torch import load_file

    vectors = torch.stack([load_file(table)[gene] for gene in "ABCD"])
    if centred:
        slides = [torch.from_numpy(slide.expression) for slide in cohort.slides]
        amount = torch.cat([(e - e.mean(0)) / (e.std(0, correction=0) + 0.1) for e in slides])
    else:
        amount = torch.cat([torch.from_numpy(slide.expression) for slide in cohort.slides])
    expected = amount[rows][:, :4] @ vectors
    cosine = torch.nn.functional.cosine_similarity(found, expected)
    torch.testing.assert_close(cosine, torch.ones(3), atol=1e-5, rtol=0)


def test_centred_cell_targets_teach_what_the_spot_expresses(cohort, table):
    values = {"alignment_cells": str(table), "alignment_centred": True}
    assert learn(load(cohort, **values), names_only(cohort)) > -0.2
    assert learn(load(cohort, **values), informed(cohort)) < -0.8


def test_both_levels_are_averaged(cohort, table):
    tokens, rows = informed(cohort)[:20], torch.arange(20)
    both = load(cohort, alignment_targets=str(table), alignment_cells=str(table), alignment_centred=True)
    assert len(both.terms) == 2
    targets = both.targets(rows)
    parts = [term(tokens, *target) for term, target in zip(both.terms, targets, strict=True)]
    torch.testing.assert_close(both(tokens, targets), (parts[0] + parts[1]) / 2)
    assert parts[0] != parts[1]


def test_tokens_of_genes_without_vector_do_not_matter(cohort, table):
    alignment = load(cohort, alignment_targets=str(table))
    tokens, targets = informed(cohort)[:8].clone(), alignment.targets(torch.arange(8))
    before = alignment(tokens, targets)
    tokens[:, 4] += 100
    assert alignment(tokens, targets) == before


def test_tokens_of_genes_without_counts_do_not_matter_when_masked(cohort, table):
    row, gene = np.argwhere(cohort.slides[0].expression[:, :4] == 0)[0]
    rows = torch.tensor([int(row)])
    tokens = informed(cohort)[rows].clone()
    for masked in (True, False):
        alignment = load(cohort, alignment_targets=str(table), alignment_present_only=masked)
        targets = alignment.targets(rows)
        changed = tokens.clone()
        changed[:, int(gene)] += 5
        assert (alignment(changed, targets) == alignment(tokens, targets)) == masked


def test_targets_that_differ_between_spots_need_slides(table):
    config = make_config(alignment_targets=str(table), alignment_centred=True).fit
    with pytest.raises(ValueError, match="need the training slides"):
        Alignment.load(config, GENES, WIDTH)


def write_contextual_vectors(root, cohort, seed=0):
    """Vectors of B and D, as a model might: mostly the gene, a little the spot's expression."""
    generator = torch.Generator().manual_seed(seed)
    names, ways = torch.randn(2, 10, generator=generator), torch.randn(2, 10, generator=generator)
    made = {}
    for slide in cohort.slides:
        folder = root / f"{slide.entry.name}-key"
        folder.mkdir(parents=True)
        values = torch.from_numpy(slide.expression)[:, [1, 3]]
        vectors = names + 0.2 * (values - values.mean(0))[:, :, None] * ways
        spots = []
        for row in range(len(slide.spots)):
            there = torch.nonzero(values[row] > 0)[:, 0]
            places = np.array([1, 0], np.int32)[there.numpy()]  # the folder's panel is D, B
            cell = vectors[row, there].mean(0) if len(there) else torch.full((10,), torch.nan)
            spots.append(SpotVectors(places, vectors[row, there], cell))
        for number, first in enumerate(range(0, len(spots), 32)):
            write_chunk(folder / f"{number:05d}.safetensors", spots[first : first + 32])
        write_means(folder, 2, len(spots))
        stated = {"name": slide.entry.name, "genes": ["D", "B"], "missing": [], "width": 10}
        write_manifest(folder, stated | {"spots": list(slide.spots.ids)})
        made[slide.entry.name] = vectors
    return made


def test_contextual_vectors_reach_the_spots_and_genes_they_are_of(cohort, tmp_path):
    made = write_contextual_vectors(tmp_path, cohort)
    targets = load(cohort, alignment_targets=str(tmp_path)).terms[0].targets
    rows = torch.tensor([36 + 35, 0, 36, 107])  # of slides 1, 0, 1, 2
    found, weights = targets.genes(rows)
    for place, (slide, row) in enumerate([("C2", 35), ("B4", 0), ("C2", 0), ("C3", 35)]):
        expression = next(s.expression for s in cohort.slides if s.entry.name == slide)[row]
        assert weights[place].tolist() == [0, float(expression[1] > 0), 0, float(expression[3] > 0), 0]
        for gene, column in ((1, 0), (3, 1)):
            if expression[gene] > 0:
                torch.testing.assert_close(found[place, gene], made[slide][row, column], atol=2e-3, rtol=0)


def test_centred_contextual_targets_cannot_be_met_without_the_spot(cohort, tmp_path):
    write_contextual_vectors(tmp_path, cohort)
    published = {"alignment_targets": str(tmp_path)}
    centred = published | {"alignment_centred": True}
    assert learn(load(cohort, **published), names_only(cohort), steps=15) < -0.9
    assert learn(load(cohort, **centred), names_only(cohort), steps=15) > -0.25
    assert learn(load(cohort, **centred), informed(cohort), steps=15) < -0.6


def test_contextual_cell_targets_are_the_stored_ones(cohort, tmp_path):
    write_contextual_vectors(tmp_path, cohort)
    centred = {"alignment_cells": str(tmp_path), "alignment_centred": True}
    cells = load(cohort, **centred).terms[0].targets.cells(torch.arange(36))
    assert cells.nanmean(0).abs().max() < 1e-2


def test_a_batch_of_the_score_loop_carries_the_contextual_vectors_of_its_spots(cohort, tmp_path):
    """Read ahead by the loop's reader, so that the loss itself opens no file."""
    made = write_contextual_vectors(tmp_path, cohort)
    alignment = load(cohort, alignment_targets=str(tmp_path), alignment_cells=str(tmp_path))
    n = sum(len(slide.spots) for slide in cohort.slides)
    graphs = [
        slide.graph(views[0].numpy()) for slide, views in zip(cohort.slides, cohort.features, strict=True)
    ]
    features = torch.cat([views[0] for views in cohort.features])
    slides = torch.arange(4).repeat_interleave(36)
    framed = FramedCohort((features,), (GraphTensors.of(*graphs),), torch.zeros(n, 5), 0 * slides, slides)
    level = torch.arange(n, dtype=torch.float32)[:, None].expand(-1, 5)  # says which spot a row is
    diffused = Diffused(torch.zeros(1, n, 5), level, torch.zeros(n))
    batch = SlideBatches(framed, diffused, alignment, 16, 2, seed=0).draw(Draw(0, 1, 5, 1, 2))
    shutil.rmtree(tmp_path)
    places = batch.level[:, 0].int()
    (vectors, weights), (cells, known) = batch.targets
    for row, place in enumerate(places.tolist()):
        slide = cohort.slides[place // 36]
        present = slide.expression[place % 36, [1, 3]] > 0
        assert weights[row, [1, 3]].bool().tolist() == present.tolist()
        wanted = made[slide.entry.name][place % 36][torch.from_numpy(present)]
        found = vectors[row, [1, 3]][torch.from_numpy(present)]
        torch.testing.assert_close(found, wanted, atol=2e-3, rtol=0)
        if present.any():
            torch.testing.assert_close(cells[row], wanted.mean(0), atol=2e-3, rtol=0)
    loss = alignment(torch.randn(8, 5, WIDTH), batch.targets)
    assert len(places) == len(cells) == len(known) == 8
    assert -1 <= loss.item() <= 1


def test_contextual_vectors_of_a_slide_that_has_none_are_asked_for(cohort, tmp_path):
    with pytest.raises(UserError, match="no finished contextual vectors of B4"):
        load(cohort, alignment_targets=str(tmp_path))


def entries():
    return tuple(SlideEntry(name, name[0], "", "") for name in ("B4", "C2", "C3", "C4"))


def run(**fit) -> RunConfig:
    return replace(make_config(**fit), slides=entries())


def learnt_from(path, *sections):
    source = {"model": "toy", "sections": list(sections), "patients": sorted({s[0] for s in sections})}
    write_table(path, collect(GENES, {gene: np.ones(3) for gene in GENES}, source))
    return str(path)


def test_a_table_that_learnt_from_a_section_left_out_is_refused(tmp_path):
    table = learnt_from(tmp_path / "t.safetensors", "C1", "C2", "C3")
    config = run(alignment_targets=table)
    Alignment.load(config.fit, GENES, WIDTH)
    Alignment.load(config.without(("C4",)).fit, GENES, WIDTH)
    with pytest.raises(UserError, match="learnt from C2, which this run leaves out"):
        Alignment.load(config.without(("C4",)).without(("C2",)).fit, GENES, WIDTH)


def test_a_table_that_learnt_from_another_section_of_a_patient_left_out_is_refused(tmp_path):
    table = learnt_from(tmp_path / "t.safetensors", "B1", "C3")
    config = run(alignment_cells=table, alignment_centred=True)
    with pytest.raises(UserError, match="learnt from patient B"):
        Alignment.load(config.without(("B4",)).fit, GENES, WIDTH, [object()])


def test_the_name_of_the_table_may_say_what_is_left_out(tmp_path):
    learnt_from(tmp_path / "without_C2-C4.safetensors", "C3")
    learnt_from(tmp_path / "without_nothing.safetensors", "C2", "C3", "C4")
    config = run(alignment_targets=str(tmp_path / "without_{left_out}.safetensors"))
    Alignment.load(config.fit, GENES, WIDTH)
    Alignment.load(config.without(("C4",)).without(("C2",)).fit, GENES, WIDTH)
    with pytest.raises(UserError, match=r"without_C3\.safetensors cannot be read"):
        Alignment.load(config.without(("C3",)).fit, GENES, WIDTH)


@pytest.mark.slow
def test_a_network_is_fitted_with_every_kind_of_target(cohort, table, tmp_path):
    contextual = tmp_path / "contextual"
    write_contextual_vectors(contextual, cohort)
    values = {"alignment_targets": str(contextual), "alignment_cells": str(table)}
    config, without = make_config(**values, alignment_centred=True), make_config()
    form = config.network | {"mean_head": False}
    aligned, plain = (
        finish(fit(cohort, replace(each, network=form), tmp_path / name))
        for name, each in (("aligned", config), ("plain", without))
    )
    differs = [
        not torch.equal(a, b)
        for a, b in zip(aligned.gene_dit.parameters(), plain.gene_dit.parameters(), strict=True)
    ]
    assert any(differs)


@pytest.mark.slow
def test_a_fitted_network_knows_nothing_of_its_targets(cohort, fitted, table, tmp_path):
    config = make_config(alignment_targets=str(table), alignment_centred=True)
    aligned = finish(fit(cohort, config, tmp_path))
    plain = fitted.network
    assert {k: v.shape for k, v in aligned.state_dict().items()} == {
        k: v.shape for k, v in plain.state_dict().items()
    }


def test_the_alignment_loss_pulls_tokens_towards_gene_vectors(tmp_path):
    path = tmp_path / "genes.safetensors"
    generator = torch.Generator().manual_seed(0)
    save_file({gene: torch.randn(12, generator=generator) for gene in "ABC"}, path)
    config = make_config(alignment_targets=str(path)).fit
    alignment = Alignment.load(config, tuple("ABCDE"), 16)
    tokens = torch.randn(8, 5, 16, generator=generator)
    optimiser = torch.optim.Adam(alignment.parameters(), lr=1e-2)
    targets = alignment.targets(torch.arange(8))
    before = alignment(tokens, targets).item()
    for _ in range(30):
        optimiser.zero_grad()
        loss = alignment(tokens, targets)
        loss.backward()
        optimiser.step()
    assert -1 <= loss.item() < before - 0.2


def test_alignment_is_off_without_gene_vectors_and_refuses_useless_ones(tmp_path):
    off = Alignment.load(make_config().fit, tuple("AB"), 16)
    assert off(torch.randn(2, 2, 16), off.targets(torch.arange(2))) == 0
    path = tmp_path / "genes.safetensors"
    save_file({"X": torch.zeros(3)}, path)
    with pytest.raises(UserError, match="none of the 2 genes"):
        Alignment.load(make_config(alignment_targets=str(path)).fit, tuple("AB"), 16)
