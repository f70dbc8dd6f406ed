"""Weights from one's own sections: small ones, by a recipe of few steps, nothing being asked of scores."""

import shutil
import sys
from dataclasses import replace

import anndata
import numpy as np
import pytest
import torch
from tests.section_files import listing, write_section, write_smaller_copy
from tests.tiny_weights import write_tiny_weights
from tests.training.test_config import HER2ST

import napari_flag as nf
from flag_training import evaluate, own_sections
from flag_training.config import read_config, read_recipe
from flag_training.own_sections import fit_sections, score_and_fit
from flag_training.result_tables import KINDS, markdown, read_results
from flag_training.stages.tile_encoder import TileEncoderConfig
from napari_flag import fitting
from napari_flag.cli.main import main
from napari_flag.encoders.foundation.state_dicts import fingerprint
from napari_flag.errors import UserError
from napari_flag.exports.replacing import repeats
from napari_flag.fitting import SCORING, TRAINED_HERE, FitSettings, find_sections, summary, verdict
from napari_flag.model.checkpoint import Checkpoint
from napari_flag.progress import Step, finish
from napari_flag.slides.spot_tables import read_measured


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two sections with their counts."""
    place = tmp_path_factory.mktemp("sections")
    for seed in (11, 12):
        write_section(place, f"S{seed}", seed)
    return place


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    return str(write_tiny_weights(tmp_path_factory.mktemp("weights") / "tiny.safetensors"))


@pytest.fixture
def brief(monkeypatch):
    """A recipe that takes few steps."""
    sizes, values = read_recipe()
    few = replace(values, views=1, branch_steps=3, score_steps=2, score_batch=16)
    small = sizes | {"mean_width": 16, "mean_layers": 1, "context_width": 16, "context_layers": 1}
    monkeypatch.setattr(own_sections, "read_recipe", lambda: (small, few))


@pytest.fixture
def quick(monkeypatch):
    """Features without an encoder: the expression of four genes, and noise."""

    def features(slides, encoder, device, colours):
        yield own_sections.Step(own_sections.ENCODING, 0, 1)
        made = []
        for slide in slides:
            noise = np.random.default_rng(len(made)).normal(size=(len(slide.spots), 8))
            made.append(
                torch.from_numpy(np.hstack([slide.expression[:, :4], noise]).astype(np.float32))[None]
            )
        return tuple(made)

    monkeypatch.setattr(own_sections, "_features", features)


def test_the_shipped_weights_and_ones_own_have_one_recipe():
    sizes, values = read_recipe()
    shipped = read_config(HER2ST)
    assert (shipped.network, shipped.fit) == (sizes, values)


def test_scores_are_found_by_the_names_that_scoring_gives_them():
    assert (fitting.X, fitting.SHUFFLED, fitting.DRAWS) == (evaluate.X, evaluate.SHUFFLED, evaluate.DRAWS)
    assert set(fitting.SHOWN) | {"landmark", "published"} == set(KINDS)


def test_a_place_that_cannot_be_written_is_said_before_anything_is_computed(folder, tmp_path):
    (tmp_path / "w.safetensors").mkdir()
    with pytest.raises(UserError, match="is a folder"):
        finish(fit_sections(find_sections(folder)[0], tmp_path / "w.safetensors"))


def test_sections_to_leave_out_must_be_there_and_two_must_stay(folder, tmp_path):
    sections, _ = find_sections(folder)
    with pytest.raises(UserError, match="no section S99"):
        finish(score_and_fit(sections, tmp_path, leave_out=["S99"]))
    with pytest.raises(UserError, match=r"There is 1 section with.*left out and scored"):
        finish(score_and_fit(sections, tmp_path, leave_out=["S12"]))


def test_a_smaller_copy_is_trained_on_at_its_own_resolution(tmp_path, encoder, monkeypatch):
    asked = []
    for name in ("a", "b"):
        image = write_smaller_copy(tmp_path / name).relative_to(tmp_path)
        asked.append(f"{name},,{image},{name},,0.5")
    seen = []

    def features(slides, encoder, device, colours):
        yield Step(own_sections.ENCODING, 0, 1)
        seen.extend(slide.mpp for slide in slides)
        raise UserError("That was all to be seen.")

    monkeypatch.setattr(own_sections, "_features", features)
    sections, _ = find_sections(listing(tmp_path, *asked))
    with pytest.raises(UserError, match="all to be seen"):
        finish(score_and_fit(sections, tmp_path, FitSettings(encoder)))
    assert seen == [0.625, 0.625]


def test_a_section_that_cannot_be_used_is_named_before_anything_is_computed(folder, tmp_path, encoder):
    first, second = find_sections(listing(folder, "S11,,S11.tif,S11.h5ad,,", "S12,,S12.tif,S12.h5ad,,"))[0]
    listed = [replace(first, mpp=0.0), second]
    with pytest.raises(UserError, match=r"S11.*not a size"):
        finish(score_and_fit(listed, tmp_path, FitSettings(encoder)))
    shutil.copy(folder / "S12.tif", tmp_path / "S13.tif")
    adata = anndata.read_h5ad(folder / "S12.h5ad")
    adata.X = np.log1p(adata.X)
    adata.write_h5ad(tmp_path / "S13.h5ad")
    uncounted = replace(find_sections(folder)[0][0], spots=tmp_path / "S13.h5ad")
    with pytest.raises(UserError, match=r"S13\.h5ad holds no raw counts"):
        finish(score_and_fit([listed[1], uncounted], tmp_path, FitSettings(encoder)))
    assert not list(tmp_path.glob("states-*"))


@pytest.mark.parametrize(
    ("text", "said"), [(None, "There is no file"), ("", "names no gene"), ("XYZ", "lack")]
)
def test_a_list_of_genes_that_cannot_be_used_is_refused(folder, tmp_path, encoder, text, said):
    place = tmp_path / "genes.txt"
    if text is not None:
        place.write_text(text)
    with pytest.raises(UserError, match=said):
        finish(score_and_fit(find_sections(folder)[0], tmp_path, FitSettings(encoder, place)))


def test_a_list_of_genes_to_fit_is_read_as_every_list_of_genes(tmp_path):
    (tmp_path / "genes.txt").write_text('\ufeffERBB2, "KRT8";ERBB2\n', encoding="utf-8")
    assert finish(own_sections._panel([], tmp_path / "genes.txt")) == ("ERBB2", "KRT8")


def test_sections_without_a_gene_in_common_are_refused(folder, tmp_path, encoder):
    other = anndata.read_h5ad(folder / "S12.h5ad")
    other.var_names = [f"ENSG{i:011d}" for i in range(other.n_vars)]
    other.write_h5ad(tmp_path / "S12.h5ad")
    first, second = find_sections(folder)[0]
    with pytest.raises(UserError, match="no gene in common"):
        finish(
            score_and_fit(
                [first, replace(second, spots=tmp_path / "S12.h5ad")], tmp_path, FitSettings(encoder)
            )
        )


def test_the_command_says_in_a_sentence_what_is_missing(tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    assert main(["fit", str(tmp_path / "empty"), "--out", str(tmp_path / "w.safetensors")]) == 2
    assert "There are 0 sections with measured counts" in capsys.readouterr().err


def test_weights_that_are_fitted_are_called_so_and_replace_nothing_of_others(
    folder, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(own_sections, "score_and_fit", None)  # no work
    for name, said in (("out.txt", "in .safetensors"), ("other.safetensors", "already exists")):
        (tmp_path / name).write_text("mine")
        assert main(["fit", str(folder), "--out", str(tmp_path / name)]) == 2
        assert said in capsys.readouterr().err
        with pytest.raises(UserError, match=said.replace(".", r"\.")):
            nf.fit(folder, tmp_path / name, progress=False)
        assert (tmp_path / name).read_text() == "mine"
    assert main(["fit", str(folder), "--out", str(tmp_path / "other.safetensors"), "--overwrite"]) == 2
    assert "was not written by napari-flag" in capsys.readouterr().err


def test_a_cancelled_fit_says_where_its_states_are_and_that_it_goes_on(folder, tmp_path, monkeypatch, capsys):
    def cancelled(*_, **__):
        yield Step("Reading sections", 0)
        raise KeyboardInterrupt

    monkeypatch.setattr(own_sections, "fit_sections", cancelled)
    assert main(["fit", str(folder), "--out", str(tmp_path / "mine.safetensors")]) == 130
    said = capsys.readouterr().err.splitlines()[-1]
    assert f"kept in {tmp_path / 'mine.fit'}, and the same command goes on" in said


def test_a_fit_of_a_folder_of_the_same_name_elsewhere_is_another(folder, tmp_path):
    other = tmp_path / folder.name
    shutil.copytree(folder, other)
    sections, elsewhere = find_sections(folder)[0], find_sections(other)[0]
    known = own_sections.identity_of(sections, FitSettings())
    assert own_sections.identity_of(elsewhere, FitSettings()) != known
    assert own_sections.identity_of(find_sections(str(folder))[0], FitSettings(device="cuda")) == known
    for settings in (FitSettings(seed=1), FitSettings(genes=("A",)), FitSettings(diffusion=True)):
        assert own_sections.identity_of(sections, settings) != known
    assert own_sections.identity_of(sections, FitSettings(), ["S11"]) != known


@pytest.mark.slow
def test_a_stopped_fit_goes_on_where_it_was_and_other_inputs_never_share_its_states(
    folder, tmp_path, encoder, brief, quick, monkeypatch
):
    sections, _ = find_sections(folder)
    genes = tuple(read_measured(folder / "S11.h5ad").var_names[:6])
    settings = FitSettings(encoder, genes)
    work = score_and_fit(sections, tmp_path, settings)
    first = next(step.partial for step in work if step.stage == SCORING and step.partial is not None)
    work.close()
    assert set(first["section"]) == {"S11"}
    assert not list(tmp_path.glob("*.safetensors"))
    asked, real = [], own_sections.score_fold

    def counting(cohort, config, run, plan, fold, predictions=None):
        asked.append(fold.test)
        return (yield from real(cohort, config, run, plan, fold, predictions))

    monkeypatch.setattr(own_sections, "score_fold", counting)
    unsaved = finish(score_and_fit(sections, tmp_path, settings))
    assert asked == [("S12",)]
    again = unsaved.scores[unsaved.scores["section"] == "S11"].set_index(["kind", "method"])["PCC"]
    np.testing.assert_allclose(again, first.set_index(["kind", "method"])["PCC"], atol=1e-6)
    assert summary(unsaved.scores).index[0] == ("FLAG", "X")
    assert verdict(unsaved.scores)[0] in ("notice", "warning")

    for changed, stated in (
        (sections, FitSettings(encoder, genes[:5])),
        ([replace(sections[0], patient="P1"), sections[1]], settings),
        ([replace(sections[0], mpp=0.69), sections[1]], settings),
    ):
        asked.clear()
        work = score_and_fit(changed, tmp_path, stated)
        next(step for step in work if step.stage == SCORING and step.partial is not None)
        work.close()
        assert asked == [("S11",)]


@pytest.mark.slow
def test_sections_of_ones_own_make_weights_with_held_out_scores_that_predict(
    folder, tmp_path, encoder, brief, monkeypatch
):
    """From the command line, with an encoder that was never trained."""
    genes = tmp_path / "genes.txt"
    genes.write_text("\n".join(read_measured(folder / "S11.h5ad").var_names[:12]))
    out = tmp_path / "mine.safetensors"
    command = ["fit", str(folder), "--out", str(out), "--genes", str(genes), "--encoder", encoder]
    monkeypatch.setattr(sys, "argv", ["napari-flag", *command])
    assert main(command) == 0
    weights = Checkpoint.load(out)
    assert len(weights.genes) == 12
    assert weights.card["sections"] == ["S11", "S12"]
    assert weights.card["command"].startswith(f"napari-flag fit {folder.name} --out mine.safetensors")
    assert weights.card["title"] == "mine"
    assert weights.card["patients"] == []  # that these are one patient's is not known
    assert str(tmp_path) not in str(weights.card)
    assert str(folder) not in str(weights.card)
    held_out = weights.card["held_out_scores"]["sections left out one by one, seed 0"]
    assert set(held_out) == {"S11", "S12"}
    assert np.isfinite(held_out["S11"]["draws"]["ES"])
    known = own_sections.identity_of(find_sections(folder)[0], FitSettings(encoder, genes))
    assert repeats(out, known), "it may be repeated"
    assert repeats(tmp_path / "mine.fit" / "scores.json", known)
    assert main([*command, "--seed", "3"]) == 2
    run = tmp_path / "mine.fit"
    scores = read_results(run / "scores.json")
    assert (run / "scores.md").read_text("utf-8") == markdown([scores], "mine, sections left out")
    assert [section.name for section in find_sections(run / "sections.csv")[0]] == ["S11", "S12"]
    made = tmp_path / "again.h5ad"
    table = str(folder / "S12.h5ad")
    assert (
        main(
            ["predict", str(folder / "S12.tif"), "--spots", table, "--weights", str(out), "--out", str(made)]
        )
        == 0
    )
    assert made.exists()


@pytest.mark.slow
def test_weights_and_scores_of_sections_named_after_patients_name_none(
    folder, tmp_path, encoder, brief, quick
):
    first, second = find_sections(folder)[0]
    sections = [replace(first, name="Smith_John_1964-03-12", patient="Smith John"), second]
    genes = tuple(read_measured(folder / "S11.h5ad").var_names[:6])
    out, said = tmp_path / "mine.safetensors", []
    work = fit_sections(sections, out, FitSettings(encoder, genes))
    fitted = finish(work, lambda step: said.append(step.notice))
    assert any("--keep-names" in notice for notice in said if notice)
    assert [name.startswith("anonymous-") for name in fitted.sections] == [True, False]
    assert Checkpoint.load(out).card["sections"] == list(fitted.sections)
    assert Checkpoint.load(out).card["patients"] == ["anonymous-1"]
    written = [path for path in (out, *(tmp_path / "mine.fit").rglob("*")) if path.is_file()]
    assert {"scores.json", "scores.md", "sections.csv"} <= {path.name for path in written}
    assert not [path for path in written if b"Smith" in path.read_bytes() or "Smith" in str(path)]


@pytest.mark.slow
def test_an_encoder_trained_here_is_trained_anew_without_each_section_left_out(
    folder, tmp_path, brief, monkeypatch
):
    one_step = TileEncoderConfig(steps=1, schedule_steps=1, batch_size=2)
    monkeypatch.setattr(own_sections, "TileEncoderConfig", lambda: one_step)
    out = tmp_path / "mine.safetensors"
    genes = tuple(read_measured(folder / "S11.h5ad").var_names[:6])
    fitted = finish(fit_sections(find_sections(folder)[0], out, FitSettings(TRAINED_HERE, genes)))
    trained = {path.stem.rpartition("-")[0] for path in (tmp_path / "mine.fit").rglob("tile_encoder_*.pt")}
    assert trained >= {"tile_encoder_S11", "tile_encoder_S12", "tile_encoder_S11-S12"}
    assert fingerprint(Checkpoint.load(out).part("encoder.")) == fitted.card["encoder"]["fingerprint"]
    assert "saw no image left out" in fitted.card["split"]
    assert str(tmp_path) not in str(fitted.card)
    assert (tmp_path / "mine.fit" / "genes.txt").read_text().split() == list(genes)
