import csv
import threading
from dataclasses import replace

import numpy as np
import pytest
import torch
from tests.training.conftest import make_config

from flag_training.cohort import SectionLevel
from flag_training.engine.loop import Draw, Held
from flag_training.stages.alignment import Alignment
from flag_training.stages.denoising import (
    Denoising,
    Diffused,
    HeldOut,
    SlideBatches,
    counts_of,
    diffused_around,
    split_validation,
)
from flag_training.stages.fit import fit
from flag_training.stages.frames import assign_folds, frame, levels_of, remember
from flag_training.stages.latents import ResidualModel, Slides, draw_latents
from napari_flag.errors import UserError
from napari_flag.model.config import FlagConfig
from napari_flag.model.flag import Flag
from napari_flag.progress import finish


def make_network(**sizes):
    torch.manual_seed(0)
    stated = {"patients": 2} | make_config().network | sizes
    network = Flag(FlagConfig(features=8, genes=5, slides=4, members=3, **stated))
    for parameter in network.parameters():  # no layer may be silent
        torch.nn.init.normal_(parameter, std=0.2)
    return network


@pytest.fixture(scope="module")
def framed(cohort):
    network = make_network()
    remember(network, cohort, levels_of(cohort))
    return frame(network, cohort, assign_folds(cohort.slides))


class PlaceTargets(torch.nn.Module):
    """Stands for alignment: the targets of spots are their places, and it remembers who asked."""

    def __init__(self):
        super().__init__()
        self.readers = []

    def targets(self, rows):
        self.readers.append(threading.current_thread().name)
        return ((rows[:, None].float(), torch.ones(len(rows), 1)),)

    def forward(self, tokens, targets):
        return targets[0][0].mean() + 0 * tokens.sum()


def diffused_of(framed):
    """Two draws of each spot, its targets and their negatives; levels and depths tell which spot it is."""
    place = torch.arange(len(framed.targets), dtype=torch.float32)
    return Diffused(torch.stack([framed.targets, -framed.targets]), place[:, None].expand(-1, 5), -place)


def batches_of(framed, slides, spots=16):
    return SlideBatches(framed, diffused_of(framed), PlaceTargets(), spots, slides, seed=3)


def draw(epoch=0, number=0, process=0, processes=1):
    return Draw(epoch, number, 10 * epoch + number, process, processes)


def test_an_epoch_visits_every_slide_once_in_an_order_of_its_own(framed):
    source = batches_of(framed, slides=1)
    assert source.batches == 4
    orders = [
        [int(framed.slides[source.draw(draw(epoch, number)).level[0, 0].int()]) for number in range(4)]
        for epoch in range(6)
    ]
    assert all(sorted(order) == [0, 1, 2, 3] for order in orders)
    assert len({tuple(order) for order in orders}) > 1


def test_a_batch_holds_whole_slides_and_some_of_their_spots(framed):
    batch = batches_of(framed, slides=3).draw(draw())
    assert len(batch.features) == 3 * 36
    assert len(batch.rows) == 16 == len(batch.rows.unique())
    last = batches_of(framed, slides=3).draw(draw(number=1))
    assert len(last.features) == 36


def test_what_is_denoised_is_one_of_the_draws_of_each_row_at_its_own_level_and_depth(framed):
    source = batches_of(framed, slides=1)
    batch = source.draw(draw())
    places = source._slides(draw())[batch.rows]
    torch.testing.assert_close(batch.clean.abs(), framed.targets[places].abs())
    signs = {
        bool((clean == target).all())
        for clean, target in zip(batch.clean, framed.targets[places], strict=True)
    }
    assert signs == {True, False}  # draws of a spot take turns
    assert torch.equal(batch.level, places[:, None].expand(-1, 5).float())
    assert torch.equal(batch.depth, -places.float())


def test_a_batch_carries_the_targets_of_the_alignment_of_its_spots(framed):
    source = batches_of(framed, slides=2)
    batch = source.draw(draw(process=1, processes=2))
    places = source._slides(draw())[batch.rows]
    ((vectors, weights),) = batch.targets
    assert torch.equal(vectors[:, 0], places.float())
    assert len(weights) == batch.spots == 8


def test_neighbours_stay_those_of_the_slide(framed):
    source = batches_of(framed, slides=2)
    batch = source.draw(draw())
    members = source._slides(draw())
    seen = members[batch.graph.neighbours]
    assert (framed.slides[seen] == framed.slides[members][:, None]).all()
    graph = framed.graphs[0]
    assert torch.equal(seen, graph.neighbours[members])
    assert torch.equal(batch.graph.present, graph.present[members])


def test_processes_share_out_the_batch_of_one(framed):
    source = batches_of(framed, slides=1, spots=7)
    whole = source.draw(draw())
    parts = [source.draw(draw(process=process, processes=2)) for process in range(2)]
    assert [part.spots for part in parts] == [4, 3]
    assert sum(part.share for part in parts) == pytest.approx(1)
    for name in ("rows", "noise", "sigma", "clean", "level", "depth"):
        shared = torch.empty_like(getattr(whole, name))
        shared[0::2], shared[1::2] = getattr(parts[0], name), getattr(parts[1], name)
        assert torch.equal(shared, getattr(whole, name)), name


def test_more_processes_than_spots_are_refused(framed):
    with pytest.raises(UserError, match="cannot be shared out to 9 processes"):
        batches_of(framed, slides=1, spots=8).draw(draw(processes=9))


def test_half_precision_barely_moves_the_loss(framed):
    objective = Denoising(make_network(), Alignment(), 0.5).eval()
    batch = batches_of(framed, slides=0).draw(draw())
    tiny = replace(batch, sigma=torch.full_like(batch.sigma, 0.02))  # where half precision blurs most
    for case in (batch, tiny):
        whole, _ = objective(Held(case))
        with torch.autocast("cpu", torch.bfloat16):
            half, _ = objective(Held(case))
        assert half.item() == pytest.approx(whole.item(), rel=0.03)


def test_only_the_transformer_and_the_encoder_of_the_context_learn(framed):
    network = make_network()
    objective = Denoising(network, Alignment(), 0.5)
    loss, parts = objective(Held(batches_of(framed, slides=0).draw(draw())))
    loss.backward()
    moved = {name.split(".")[0] for name, p in network.named_parameters() if p.grad is not None}
    assert moved == {"gene_dit", "spatial_encoder"}
    assert all(p.grad is not None for p in objective.parameters() if p.requires_grad)  # as DDP needs
    assert set(parts) == set(Denoising.parts)


def test_without_diffusion_noise_changes_nothing_and_every_parameter_still_learns(framed):
    objective = Denoising(make_network(diffusion=False), Alignment(), 0.5).eval()
    batch = batches_of(framed, slides=0).draw(draw())
    loss, _ = objective(Held(batch))
    other, _ = objective(Held(replace(batch, noise=-batch.noise, sigma=2 * batch.sigma)))
    assert loss == other
    loss.backward()
    assert all(p.grad is not None for p in objective.parameters() if p.requires_grad)


def test_without_the_graph_a_spot_does_not_see_its_neighbours(cohort):
    network = make_network(spatial_graph=False)
    remember(network, cohort, levels_of(cohort))
    framed = frame(network, cohort, assign_folds(cohort.slides))
    assert not any(graph.present.any() for graph in framed.graphs)
    assert np.array_equal(framed.graphs[0].ring_mean(framed.features[0]), framed.features[0])


@pytest.fixture(scope="module")
def of_a_slide(cohort):
    """Counts of a slide, a log-rate and a unit of its residuals, and draws of its latents."""
    counts = counts_of(cohort.slides[1].expression)
    latent = torch.full(counts.shape, 2.0, dtype=torch.float64)
    model = ResidualModel.start(5)
    return (
        counts,
        latent,
        model,
        draw_latents(model, counts, latent, Slides.alike([36]), 3, torch.Generator().manual_seed(0)),
    )


def test_with_a_mean_head_composition_is_denoised_and_depth_is_known(of_a_slide):
    counts, latent, model, latents = of_a_slide
    unit = torch.full((5,), 0.5)
    found = diffused_around(latent, unit, model, counts, make_network(), torch.Generator(), 0, latents)
    torch.testing.assert_close(found.clean, 2 * latents.residual)
    torch.testing.assert_close(found.level, latent.float())
    torch.testing.assert_close(found.depth.diff(), latents.depth.float().diff())
    assert found.depth.median() == pytest.approx(0, abs=0.05)  # around the slide's median, as draws have it
    assert found.depth.std() > 0.05


def test_without_a_mean_head_all_of_the_log_rate_is_denoised(of_a_slide):
    counts, latent, model, latents = of_a_slide
    network = make_network(mean_head=False, covariance=False)
    found = diffused_around(
        latent - 1, torch.full((36, 5), 0.5), model, counts, network, torch.Generator(), 0, latents
    )
    rate = (latent - 1).float() + 0.5 * found.clean  # as sampling puts them together
    torch.testing.assert_close(rate, (latents.latent + latents.depth[:, None]).float() + latents.residual)
    assert (found.depth == 0).all()
    seen = torch.log(counts + 0.5).float()
    assert np.corrcoef(rate.mean(0).flatten(), seen.flatten())[0, 1] > 0.9


def test_latents_that_are_not_there_yet_are_drawn(of_a_slide):
    counts, latent, model, latents = of_a_slide
    found = diffused_around(
        latent, torch.ones(5), model, counts, make_network(), torch.Generator().manual_seed(0), 3
    )
    torch.testing.assert_close(found.clean, latents.residual)


def test_counts_are_whole_numbers_again():
    counts = np.array([[0, 1, 7, 100_000]])
    assert counts_of(np.log2(counts + 1).astype(np.float32)).tolist() == counts.tolist()


def names(cohort):
    return [slide.entry.name for slide in cohort.slides]


def test_named_sections_are_held_out(cohort):
    training, held_out = split_validation(cohort, make_config(validation=("C3",)).fit)
    assert names(training) == ["B4", "C2", "C4"]
    assert names(held_out) == ["C3"]
    assert torch.equal(held_out.features[0], cohort.features[2])


def test_a_share_is_drawn_by_the_seed(cohort):
    def drawn(seed):
        return names(split_validation(cohort, make_config(validation_share=0.3, seed=seed).fit)[1])

    assert drawn(0) == drawn(0)
    assert {len(drawn(seed)) for seed in range(4)} == {1}
    assert len({drawn(seed)[0] for seed in range(12)}) > 1


def test_nothing_is_held_out_unless_asked(cohort):
    training, held_out = split_validation(cohort, make_config().fit)
    assert names(training) == names(cohort)
    assert not held_out.slides


def test_sections_that_are_not_there_or_all_of_them_are_refused(cohort):
    with pytest.raises(UserError, match=r"names C9 for validation, but the run has B4"):
        split_validation(cohort, make_config(validation=("C9", "C2")).fit)
    with pytest.raises(UserError, match="none is left to train on"):
        split_validation(cohort, make_config(validation=tuple(names(cohort))).fit)


@pytest.mark.parametrize("form", [{}, {"mean_head": False, "covariance": False}], ids=["residual", "proper"])
def test_a_look_is_repeatable_and_tells_better_parameters_from_worse(cohort, form):
    network = make_network(**form)
    remember(network, cohort, levels_of(cohort))
    held_out = split_validation(cohort, make_config(validation=("C3",)).fit)[1]
    look = HeldOut(network, ResidualModel.start(5), held_out, 10, torch.device("cpu"))
    learning = torch.nn.ModuleDict({"gene_dit": network.gene_dit, "spatial_encoder": network.spatial_encoder})
    loud = look(learning)
    assert look(learning) == loud
    torch.nn.init.zeros_(network.gene_dit.final.weight)
    torch.nn.init.zeros_(network.gene_dit.final.bias)
    assert look(learning) < loud


@pytest.mark.slow
def test_a_held_out_section_contributes_to_nothing(cohort, tmp_path):
    """Whatever its expression, the trained network is the same; the same change to another section is seen.

    Compared to 1e-4, as runs of one seed are: sums are added in another order where the memory or the
    threads at hand are others, and a kernel's weights are the inverse of such sums.
    """
    config = make_config(9, validation=("C3",), patience=0, check_every=2, branch_steps=1, score_steps=2)
    config = replace(config, network=config.network | {"graph_share": 0.0})
    found = {}
    for name in ("", "C3", "C4"):
        slides = [
            replace(slide, expression=np.flip(slide.expression, 1).copy())
            if slide.entry.name == name
            else slide
            for slide in cohort.slides
        ]
        folder = tmp_path / f"changed {name}"
        others = tuple(
            SectionLevel.of(slide.entry.name, slide.entry.patient, slide.expression) for slide in slides
        )
        network = finish(fit(replace(cohort, slides=tuple(slides), others=others), config, folder))
        found[name] = (
            network.get_buffer("prior_location"),
            network.get_buffer("slide_location"),
            network.get_buffer("eigenvalues"),
            network.mean_head.kernel.get_buffer("weights"),
        )
        with (folder / "score.csv").open() as file:
            assert [bool(row["validation"]) for row in csv.DictReader(file)] == [False, True]
    for plain, held_out, trained_on in zip(*found.values(), strict=True):
        torch.testing.assert_close(held_out, plain, rtol=1e-4, atol=1e-4)
        assert not torch.allclose(trained_on, plain, rtol=1e-2, atol=1e-2)
