from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from flag_training.cohort import Cohort
from flag_training.methods import blinded, pooled
from flag_training.methods.bleep import Bleep, contrastive_loss
from flag_training.methods.histogene import HisToGene
from flag_training.methods.learning import Descent
from flag_training.methods.published import PUBLISHED, read_baseline
from flag_training.methods.regression import Regression
from flag_training.methods.stem import Stem
from flag_training.methods.stflow import StFlow, _Edges, starting_noise
from flag_training.methods.triplex import Triplex, _Layout
from napari_flag.errors import UserError
from napari_flag.progress import finish

CONFIGS = Path(__file__).parents[3] / "training" / "configs" / "baselines"
SMALL = {
    "HisToGene": HisToGene(32, 2, 4, 64, 0.1, 16, Descent(30, 4e-3)),
    "BLEEP": Bleep(32, 0.1, 1.0, 10, 108, Descent(30, 4e-3)),
    "TRIPLEX": Triplex(32, 4, 2.0, 0.1, 1, 2, 0.3, Descent(30, 4e-3)),
    "Stem": Stem(16, 2, 1, 2.0, 64, 20, 4, Descent(200, 1e-2, ema=0.9)),
    "STFlow": StFlow(32, 4, 2, 0.1, 4, 5, Descent(40, 5e-3, clip=1.0)),
    "regression": Regression(32, 4, 1, 0.1, Descent(30, 6e-3, ema=0.9)),
}


@pytest.fixture(scope="module")
def rest(cohort):
    return Cohort(cohort.slides[:3], cohort.features[:3], cohort.genes)


@pytest.fixture(scope="module")
def predictors(rest):
    return {name: finish(method.fit(rest, 0)) for name, method in SMALL.items()}


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_method_beats_the_slide_mean(name, predictors, rest, cohort):
    slide = cohort.slides[3]
    found = predictors[name](blinded(slide), cohort.features[3][0].numpy())
    mean = pooled(rest)[1].mean(0)
    assert found.shape == slide.expression.shape
    assert found.dtype == np.float32
    assert ((found - slide.expression) ** 2).mean() < 0.75 * ((mean - slide.expression) ** 2).mean()


@pytest.mark.parametrize("name", ["Stem", "STFlow"])
def test_a_sampler_draws_the_same_each_time_it_is_asked(name, predictors, cohort):
    asked = blinded(cohort.slides[3]), cohort.features[3][0].numpy()
    np.testing.assert_array_equal(predictors[name](*asked), predictors[name](*asked))


def test_bleep_answers_with_means_of_training_spots(predictors, rest, cohort):
    found = predictors["BLEEP"](blinded(cohort.slides[3]), cohort.features[3][0].numpy())
    seen = pooled(rest)[1]
    assert (found >= seen.min(0) - 1e-6).all()
    assert (found <= seen.max(0) + 1e-6).all()


def test_the_contrastive_loss_prefers_pairs_that_belong_together():
    spots = torch.eye(6) * 4
    assert contrastive_loss(spots, spots, 1.0) < contrastive_loss(spots.roll(1, 0), spots, 1.0)


def test_histogene_refuses_a_slide_larger_than_its_tables(rest):
    with pytest.raises(UserError, match="set positions higher"):
        finish(replace(SMALL["HisToGene"], positions=4).fit(rest, 0))


def test_triplex_sees_the_five_by_five_places_around_a_spot(cohort):
    layout = _Layout.of(cohort.slides[0])
    assert layout.around[:, 12].tolist() == list(range(36))  # itself in the centre
    assert layout.present.sum(1).tolist()[0] == 9  # a corner has three by three
    inner = 2 * 6 + 2
    assert layout.around[inner, 13] == inner + 1
    assert layout.present[inner].all()


def test_stflow_edges_do_not_change_when_the_slide_is_turned_and_mirrored(cohort):
    slide = cohort.slides[0]
    long = slide.spots.xy * np.array([1.0, 1.7])  # no frame is preferred on a square
    turn = np.array([[np.cos(0.7), -np.sin(0.7)], [-np.sin(0.7), -np.cos(0.7)]])
    straight, turned = (
        _Edges.of(replace(slide, spots=replace(slide.spots, xy=xy)), 4) for xy in (long, long @ turn)
    )
    np.testing.assert_allclose(straight.frames[..., 2], turned.frames[..., 2], atol=1e-4)
    inner = 2 * 6 + 2  # four neighbours, no ties
    one = sorted(np.round(straight.frames[inner].flatten(0, 1).numpy(), 3).tolist())
    other = sorted(np.round(turned.frames[inner].flatten(0, 1).numpy(), 3).tolist())
    np.testing.assert_allclose(one, other, atol=2e-3)


def test_stflow_starts_from_half_zeros_and_more():
    noise = starting_noise((200, 200), torch.Generator().manual_seed(0))
    counts = torch.expm1(noise)
    zero = (noise == 0).float().mean().item()
    assert zero == pytest.approx(0.5 + 0.5 / (1 + np.exp(0.1)), abs=0.01)  # half, and NB's own zeros
    assert counts.mean().item() == pytest.approx(0.5 * np.exp(0.1), abs=0.03)


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.toml")), ids=lambda p: p.stem)
def test_the_configs_name_every_value(path):
    name, method = read_baseline(path)
    assert isinstance(method, PUBLISHED[name])


def test_every_published_method_has_a_config():
    assert {read_baseline(path)[0] for path in CONFIGS.glob("*.toml")} == set(PUBLISHED)


@pytest.mark.parametrize(
    "text", ["", "method = 'BLEEP'", "method = 'Alphabet'\n[values]\n[training]\nsteps=1\nrate=1", "= 3"]
)
def test_a_baseline_file_that_says_too_little_is_refused(text, tmp_path):
    path = tmp_path / "some.toml"
    path.write_text(text)
    with pytest.raises(UserError, match="does not describe one of"):
        read_baseline(path)


def test_a_missing_baseline_file_is_named(tmp_path):
    with pytest.raises(UserError, match="cannot be read"):
        read_baseline(tmp_path / "none.toml")
