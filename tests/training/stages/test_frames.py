"""What a fit may know of the levels of sections, and what its cross-fit sees of a section left out."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from tests.training.conftest import make_config, make_slide

from flag_training.cohort import Cohort, SectionLevel
from flag_training.stages.fit import fit
from flag_training.stages.frames import (
    assign_folds,
    known_sections,
    left_out,
    levels_of,
    prior_of,
    remember,
    shares_of,
)
from napari_flag.model.config import FlagConfig
from napari_flag.model.flag import Flag
from napari_flag.progress import finish

GENES = 5


def section(name, level=3.0):
    expression = level + np.random.default_rng(len(name)).normal(0, 0.2, (20, GENES))
    return SectionLevel.of(name, name[0], expression.astype(np.float32))


@pytest.fixture(scope="module")
def with_others(cohort):
    """B4, C2, C3 and C4 with image and counts; counts alone of these."""
    return replace(cohort, others=tuple(section(name) for name in ("A1", "A2", "B1", "C1", "C2", "C3")))


def known(cohort, left_out=(), left_out_patients=(), **stated):
    config = make_config(left_out=left_out, left_out_patients=left_out_patients, **stated).fit
    return [each.name for each in known_sections(cohort, config)]


def test_counts_of_sections_that_are_trained_on_are_known_once(with_others):
    assert known(with_others) == ["A1", "A2", "B1", "C1"]
    found = levels_of(replace(with_others, others=(section("C1"),)))
    assert {patient: [each.name for each in levels] for patient, levels in found.items()} == {
        "B": ["B4"],
        "C": ["C2", "C3", "C4", "C1"],
    }


def test_counts_of_sections_and_patients_left_out_are_not_known(with_others):
    without = replace(with_others, slides=with_others.slides[2:], features=with_others.features[2:])
    assert known(without, left_out=("B4", "C2"), left_out_patients=("B",)) == ["A1", "A2", "C1"]


def test_counts_of_sections_to_stop_early_by_are_not_known_named_or_drawn(with_others):
    assert known(with_others, validation=("C3",)) == ["A1", "A2", "B1", "C1"]
    for seed in range(4):
        assert known(with_others, validation_share=0.3, seed=seed) == ["A1", "A2", "B1", "C1"]


def test_the_level_of_an_unknown_patient_is_a_mean_over_patients():
    levels = {"A": [section("A1", 1.0)], "B": [section("B1", 3.0), section("B22", 5.0)]}
    found = prior_of(levels)
    np.testing.assert_allclose(found["prior_location"], 2.5, atol=0.15)  # of 1 and 4
    assert found["patients"].shape == (2, GENES)
    a = np.log(levels["A"][0].mean + 0.05)
    b = np.mean([np.log(each.mean + 0.05) for each in levels["B"]], 0)
    drawn = found["patients"].T @ found["patients"]
    np.testing.assert_allclose(drawn.diagonal(), (b - a) ** 2 / 2, rtol=1e-3)  # as the two vary


def test_every_patient_has_the_same_share_in_a_slide_like_none():
    torch.testing.assert_close(shares_of(["B", "C", "C"]), torch.tensor([0.5, 0.25, 0.25]))


def test_a_section_left_out_has_the_residuals_of_the_others_and_a_strip_those_of_its_own(cohort):
    found = guessed(cohort).resemblance  # B4, C2, C3, C4
    torch.testing.assert_close(found.sum(1), torch.ones(4))
    assert (found.diagonal()[1:] == 0).all()
    assert found[0, 0] > 0


def test_a_gene_that_a_section_lacks_has_the_level_of_the_others():
    lacking = section("A1", 1.0)
    lacking = replace(
        lacking, **{n: np.r_[np.nan, getattr(lacking, n)[1:]] for n in ("location", "scale", "mean")}
    )
    found = prior_of({"A": [lacking], "B": [section("B1", 3.0)]})
    assert found["prior_location"][0] == pytest.approx(3, abs=0.2)
    assert found["prior_location"][1] == pytest.approx(2, abs=0.2)
    assert found["patients"][:, 0].abs().max() < 1e-6
    assert not any(values.isnan().any() for values in found.values())


def three_sections(shifts=(0.0, 1.0, 2.0), louder=(), by=4.0):
    """Three sections of one patient that look more or less alike; the counts of some are many times more."""
    made = [make_slide(f"C{n}", "C", n) for n in (2, 3, 4)]
    slides = tuple(
        replace(slide, expression=slide.expression + np.float32(by)) if slide.entry.name in louder else slide
        for slide, _ in made
    )
    return Cohort(
        slides, tuple(f + shift for (_, f), shift in zip(made, shifts, strict=True)), tuple("ABCDE")
    )


def guessed(cohort, others=()):
    cohort = replace(cohort, others=others)
    levels = levels_of(cohort)
    torch.manual_seed(0)
    sizes = {"slides": len(cohort.slides), "patients": len(levels) if len(levels) > 1 else 0}
    network = Flag(FlagConfig(features=8, genes=GENES, members=3, **sizes, **make_config().network))
    remember(network, cohort, levels)
    return left_out(network, cohort, assign_folds(cohort.slides))


@pytest.mark.parametrize("others", [(), ("A1", "C1")], ids=["alone", "with counts of others"])
@pytest.mark.parametrize("shifts", [(0.0, 0.0, 0.0), (0.0, 1.0, 2.0)], ids=["alike", "unlike"])
@pytest.mark.parametrize("name", ["C2", "C3", "C4"])
def test_what_is_guessed_of_a_section_left_out_does_not_depend_on_its_own_counts(name, shifts, others):
    others = tuple(section(each) for each in others)
    own = torch.tensor(
        [slide.entry.name == name for slide in three_sections().slides for _ in slide.spots.ids]
    )
    here, there = (guessed(three_sections(shifts, louder), others) for louder in ((), (name,)))
    torch.testing.assert_close(here.location[own], there.location[own])
    torch.testing.assert_close(here.scale[own], there.scale[own])
    assert ((there.location - here.location)[~own] > 0.1).all()
    assert bool((here.novelty[own] > 0.3).all()) == (shifts[2] > 0)


def test_what_is_guessed_of_a_strip_left_out_does_not_depend_on_its_own_counts():
    slide, features = make_slide("B4", "B", 1)
    (folds,) = assign_folds((slide,))
    out = folds == 1
    louder = slide.expression + 4 * out[:, None].astype(np.float32)
    here, there = (
        guessed(Cohort((each,), (features,), tuple("ABCDE")))
        for each in (slide, replace(slide, expression=louder))
    )
    torch.testing.assert_close(here.location[out], there.location[out])
    torch.testing.assert_close(here.scale[out], there.scale[out])
    assert ((there.location - here.location)[~out] > 0.5).all()


@pytest.mark.slow
def test_the_cross_fitted_expectation_of_a_section_does_not_depend_on_its_own_counts(tmp_path):
    """X = y − residual of all spots; only that of the other sections moves with the counts of one."""
    config, found = make_config(branch_steps=2, score_steps=1), []
    for louder in ((), ("C3",)):
        cohort = three_sections(louder=louder)
        folder = tmp_path / f"louder{len(louder)}"
        finish(fit(cohort, config, folder))
        truth = np.concatenate([slide.expression for slide in cohort.slides])
        residual = np.load(folder / "crossfit.npy")
        assert residual.shape == truth.shape
        assert residual.dtype == np.float32
        found.append(truth - residual)
    own = slice(36, 72)
    np.testing.assert_allclose(found[0][own], found[1][own], atol=1e-3)
    assert np.abs(found[0] - found[1])[:36].mean() > 0.1
