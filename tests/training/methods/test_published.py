import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.training.conftest import share_of_the_means_error

from flag_training.cohort import Cohort
from flag_training.methods import blinded, pooled
from flag_training.methods.bleep import Bleep, contrastive_loss
from flag_training.methods.floors import LEARNED_FLOORS, WRITTEN
from flag_training.methods.graph_diffusion import FlagDiffusion, JointDiffusion, NodeDiffusion
from flag_training.methods.histogene import HisToGene
from flag_training.methods.learning import Descent
from flag_training.methods.published import PUBLISHED, read_baseline, read_method
from flag_training.methods.regression import Regression
from flag_training.methods.stem import Stem
from flag_training.methods.stflow import StFlow
from flag_training.methods.triplex import Triplex
from napari_flag.errors import UserError
from napari_flag.methods import bleep
from napari_flag.methods.predictor import open_method
from napari_flag.methods.stflow import Edges, starting_noise
from napari_flag.methods.triplex import Layout
from napari_flag.model.checkpoint import Checkpoint, save_checkpoint
from napari_flag.model.graph import Places
from napari_flag.model.samplers import SamplerSettings
from napari_flag.progress import finish

CONFIGS = Path(__file__).parents[3] / "training" / "configs" / "baselines"
WINDOWS = {
    "window_um": 1300.0, "kernel_um": 200.0, "width": 16, "blocks": 1, "head_width": 4, "batch": 2,
    "solver_steps": 10, "samples": 8,
}  # fmt: skip
GENES = {"heads": 4, "gene_blocks": 2, "mlp_ratio": 2.0, "tap": 1, "projector": 8}
SMALL = {
    "HisToGene": HisToGene(32, 2, 4, 64, 0.1, 16, Descent(30, 4e-3)),
    "BLEEP": Bleep(32, 0.1, 1.0, 10, 108, Descent(30, 4e-3)),
    "TRIPLEX": Triplex(32, 4, 2.0, 0.1, 1, 2, 0.3, Descent(30, 4e-3)),
    "Stem": Stem(16, 2, 1, 2.0, 64, 20, 4, Descent(200, 1e-2, ema=0.9)),
    "STFlow": StFlow(32, 4, 2, 0.1, 4, 5, 2, Descent(40, 5e-3, clip=1.0)),
    "regression": Regression(32, 4, 1, 0.1, Descent(30, 6e-3, ema=0.9)),
    "node-only diffusion": NodeDiffusion(**WINDOWS, training=Descent(120, 1e-2, clip=1.0, ema=0.9)),
    "joint diffusion": JointDiffusion(**WINDOWS, training=Descent(120, 1e-2, clip=1.0, ema=0.9)),
    "FLAG, published form": FlagDiffusion(**WINDOWS, **GENES, training=Descent(400, 4e-3, clip=1.0, ema=0.9)),
}


QUICK = {"HisToGene", "BLEEP"}
QUICK_FIRST = [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in PUBLISHED]
"""All methods; those that take seconds to fit are fitted in the slow tier."""

WIDER = {"width": 32, "head_width": 8}
OVERFITTING = {
    "HisToGene": ({"dropout": 0.0}, 200, 0.02),
    "BLEEP": ({"dropout": 0.0, "neighbours": 1, "temperature": 0.1, "batch": 12}, 200, 0.02),
    "TRIPLEX": ({"dropout": 0.0}, 200, 0.02),
    "Stem": ({"samples": 16}, 500, 0.05),
    "STFlow": ({"dropout": 0.0}, 200, 0.02),
    "regression": ({"dropout": 0.0}, 200, 0.02),
    "node-only diffusion": (WIDER, 300, 0.1),
    "joint diffusion": (WIDER, 300, 0.1),
    "FLAG, published form": (WIDER, 400, 0.25),
}
"""Values that do not average a tiny set away, steps, and what share of the mean's error may be left.

None is left by most, .03 by diffusion of windows and .16 by the published form.
"""


@pytest.fixture(scope="module")
def rest(cohort):
    return Cohort(cohort.slides[:3], cohort.features[:3], cohort.genes)


@pytest.fixture(scope="module")
def predictors(rest):
    """Fitted when they are first asked for: some take long."""

    class Fitted(dict):
        def __missing__(self, name):
            return self.setdefault(name, finish(SMALL[name].fit(rest, 0)))

    return Fitted()


@pytest.mark.parametrize("name", QUICK_FIRST)
def test_a_published_method_beats_the_slide_mean(name, predictors, rest, cohort):
    slide = cohort.slides[3]
    found = predictors[name](blinded(slide), cohort.features[3][0].numpy())
    mean = pooled(rest)[1].mean(0)
    assert found.shape == slide.expression.shape
    assert found.dtype == np.float32
    assert ((found - slide.expression) ** 2).mean() < 0.75 * ((mean - slide.expression) ** 2).mean()


@pytest.mark.parametrize("name", [*QUICK_FIRST, *WRITTEN])
def test_a_weights_file_predicts_what_was_scored(name, predictors, rest, cohort, tmp_path):
    """The same X and draws in memory and from the file, whose card and header name the method."""
    fitted = predictors[name] if name in SMALL else finish(LEARNED_FLOORS[name].fit(rest, 0))
    path = tmp_path / "weights.safetensors"
    save_checkpoint(
        path,
        fitted.network,
        {},
        encoder="uni",
        genes=cohort.genes,
        card={"encoder": {"fingerprint": "f"}},
        method=fitted.method,
    )
    opened = open_method(Checkpoint.load(path))
    slide, features = blinded(cohort.slides[3]), cohort.features[3][0].numpy()
    encoded, ids, rows = opened.encode(features, slide.graph(features)), slide.spots.ids, np.arange(36)
    np.testing.assert_allclose(
        finish(encoded.expectation(rows, ids)).mean, fitted(slide, features), atol=1e-5
    )
    assert opened.sampler == fitted.predictor.sampler
    if opened.sampler is not None:
        settings = SamplerSettings(draws=2, steps=opened.sampler.steps)
        ours, theirs = (
            finish(each.draw(rows, ids, settings)) for each in (encoded, fitted.encode(slide, features))
        )
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.slow
@pytest.mark.parametrize("name", PUBLISHED)
def test_a_learned_method_overfits_a_tiny_set(name, tiny):
    changed, steps, bar = OVERFITTING[name]
    values = replace(SMALL[name], **changed)
    values = replace(values, training=replace(values.training, steps=steps, decay=0.0))
    found = finish(values.fit(tiny, 0))(blinded(tiny.slides[0]), tiny.features[0][0].numpy())
    assert share_of_the_means_error(found, tiny) < bar


@pytest.mark.slow
@pytest.mark.parametrize("name", ["Stem", "STFlow"])
def test_a_sampler_draws_the_same_each_time_it_is_asked(name, predictors, cohort):
    asked = blinded(cohort.slides[3]), cohort.features[3][0].numpy()
    np.testing.assert_array_equal(predictors[name](*asked), predictors[name](*asked))


def test_bleep_answers_with_the_mean_of_the_spots_nearest_to_a_tile():
    """An image head that passes tiles on, a bank of six spots, two of them averaged."""
    rng = np.random.default_rng(0)
    network = bleep.Bleep(bleep.BleepSizes(features=4, genes=3, width=4, dropout=0.1, neighbours=2, bank=6))
    for parameter in network.image.block.parameters():
        torch.nn.init.zeros_(parameter)
    torch.nn.init.eye_(network.image.project.weight)
    torch.nn.init.zeros_(network.image.project.bias)
    held = rng.normal(size=(6, 4))
    bank = held / np.linalg.norm(held, axis=1, keepdims=True)
    expression = rng.uniform(0, 5, (6, 3))
    network.bank_embedding.copy_(torch.from_numpy(bank))
    network.bank_expression.copy_(torch.from_numpy(expression))
    tiles = rng.normal(size=(7, 4))
    normed = (tiles - tiles.mean(1, keepdims=True)) / tiles.std(1, keepdims=True)
    cosine = normed / np.linalg.norm(normed, axis=1, keepdims=True) @ bank.T
    nearest = np.argsort(-cosine, axis=1)[:, :2]
    assert len(np.unique(nearest)) > 2
    with torch.no_grad():
        found = network.eval().expect(torch.from_numpy(tiles).float(), None)
    np.testing.assert_allclose(found, expression[nearest].mean(1), rtol=0, atol=1e-6)


def test_bleeps_bank_holds_the_training_spots_on_the_unit_sphere(predictors, rest):
    network = predictors["BLEEP"].network
    np.testing.assert_array_equal(network.bank_expression, pooled(rest)[1])
    np.testing.assert_allclose(network.bank_embedding.norm(dim=1), 1, rtol=1e-5)


def test_the_contrastive_loss_prefers_pairs_that_belong_together():
    spots = torch.eye(6) * 4
    assert contrastive_loss(spots, spots, 1.0) < contrastive_loss(spots.roll(1, 0), spots, 1.0)


def test_histogene_refuses_a_slide_larger_than_its_tables(rest):
    with pytest.raises(UserError, match="set positions higher"):
        finish(replace(SMALL["HisToGene"], positions=4).fit(rest, 0))


def test_triplex_sees_the_five_by_five_places_around_a_spot(cohort):
    layout = Layout.of(cohort.slides[0].places)
    assert layout.around[:, 12].tolist() == list(range(36))  # itself in the centre
    assert layout.present.sum(1).tolist()[0] == 9  # a corner has three by three
    inner = 2 * 6 + 2
    assert layout.around[inner, 13] == inner + 1
    assert layout.present[inner].all()


def test_stflow_edges_do_not_change_when_the_slide_is_turned_and_mirrored(cohort):
    slide = cohort.slides[0]
    long = slide.spots.xy * np.array([1.0, 1.7])  # no frame is preferred on a square
    turn = np.array([[np.cos(0.7), -np.sin(0.7)], [-np.sin(0.7), -np.cos(0.7)]])
    straight, turned = (Edges.of(Places(xy * slide.mpp, slide.pitch_um), 4) for xy in (long, long @ turn))
    np.testing.assert_allclose(straight.frames[..., 2], turned.frames[..., 2], atol=1e-4)
    inner = 2 * 6 + 2  # four neighbours, no ties
    one = sorted(np.round(straight.frames[inner].flatten(0, 1).numpy(), 3).tolist())
    other = sorted(np.round(turned.frames[inner].flatten(0, 1).numpy(), 3).tolist())
    np.testing.assert_allclose(one, other, atol=2e-3)


def test_stflow_starts_from_half_zeros_and_more():
    noise = starting_noise(*torch.rand(2, 200, 200, generator=torch.Generator().manual_seed(0)))
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


def test_a_method_is_named_or_read_from_its_file():
    assert read_method("ridge") == ("ridge", LEARNED_FLOORS["ridge"])
    assert read_method(str(CONFIGS / "bleep.toml"))[0] == "BLEEP"


@pytest.mark.parametrize("given", ["one factor", "alphabet"])
def test_a_method_that_no_weights_file_holds_is_refused(given):
    with pytest.raises(UserError, match="can be written as weights; give a file such as"):
        read_method(given)


def test_a_missing_package_is_named_before_anything_is_trained(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch_geometric", None)
    with pytest.raises(UserError, match=r"napari-flag\[bench\]"):
        read_method(str(CONFIGS / "joint_diffusion.toml"))


def test_a_missing_baseline_file_is_named(tmp_path):
    with pytest.raises(UserError, match="cannot be read"):
        read_baseline(tmp_path / "none.toml")
