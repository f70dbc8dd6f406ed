"""A second method, written here in 40 lines, goes through the same chain as FLAG."""

import json
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from safetensors import safe_open
from shapely.geometry import box
from tests.tiny_weights import GENES

from napari_flag import keys
from napari_flag.analysis.draws import Draw, DrawRequest, draw_more
from napari_flag.encoders.embedded import DIM
from napari_flag.errors import UserError
from napari_flag.methods import predictor
from napari_flag.methods.flag import FlagPredictor
from napari_flag.methods.predictor import open_method
from napari_flag.model.checkpoint import Checkpoint, find_weights, save_checkpoint
from napari_flag.model.diffusion import keyed_noise
from napari_flag.prediction import predict_slide
from napari_flag.progress import finish
from napari_flag.sampling import Preview

LEVELS = np.arange(1, len(GENES) + 1, dtype=np.float32)
SD = 0.25


@dataclass(frozen=True)
class Sizes:
    features: int = DIM


class Level(torch.nn.Module):
    """Expects every gene at its own level, everywhere; draws have a spread of `SD` around it."""

    config = Sizes()
    device = torch.device("cpu")
    genes = GENES

    def __init__(self):
        super().__init__()
        self.register_buffer("levels", torch.from_numpy(LEVELS))

    @classmethod
    def open(cls, checkpoint, device):
        made = cls()
        made.load_state_dict(checkpoint.part("level."))
        return made

    def encode(self, features, graph):
        assert len(features) == len(graph)
        return self

    def draw(self, rows, ids, settings):
        drawn = []
        for number in range(settings.samples):
            drawn.append(self.levels.numpy() + SD * keyed_noise(settings.seed, number, ids, len(GENES)))
            yield (number + 1) / settings.samples
        return np.stack(drawn)

    def expectation(self, rows, draws):
        return np.tile(self.levels.numpy(), (len(rows), 1))

    def spread(self, rows, draws):
        return np.full((len(rows), len(GENES)), SD, np.float32)


@pytest.fixture(scope="module")
def weights(tmp_path_factory, tiny_checkpoint):
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(predictor.METHODS, "level", Level.open)
        path = tmp_path_factory.mktemp("level") / "level.safetensors"
        tensors = tiny_checkpoint.part("encoder.")
        card = {"sampler": {"samples": 3}}
        save_checkpoint(path, Level(), tensors, encoder="embedded", genes=GENES, card=card, method="level")
        yield path


@pytest.fixture(scope="module")
def predict(weights, tiny_slide, tiny_spots, feature_cache):
    checkpoint = Checkpoint.load(weights)

    def run(on_step=None, **options):
        work = predict_slide(tiny_slide, tiny_spots, checkpoint, device="cpu", cache=feature_cache, **options)
        return finish(work, on_step)

    return run


@pytest.fixture(scope="module")
def previews():
    return []


@pytest.fixture(scope="module")
def whole(predict, previews):
    return predict(lambda step: isinstance(step.partial, Preview) and previews.append(step.partial.values))


def test_another_method_predicts_through_the_same_chain(whole, previews):
    np.testing.assert_array_equal(whole.X, np.tile(LEVELS, (9, 1)))
    np.testing.assert_array_equal(np.concatenate(previews), whole.X)
    np.testing.assert_array_equal(whole.layers[keys.SPREAD], np.full(whole.shape, SD, np.float32))
    assert 0 < np.abs(whole.layers[keys.SAMPLE] - whole.X).max() < 6 * SD
    made = whole.uns[keys.PROVENANCE]
    assert (made[keys.METHOD], made[keys.SAMPLES]) == ("level", 3)


def test_a_region_gives_another_method_the_draws_of_the_whole(predict, whole):
    part = predict(region=[box(700, 0, 900, 900)])
    assert part.n_obs == 3
    np.testing.assert_array_equal(part.layers[keys.SAMPLE], whole[part.obs_names].layers[keys.SAMPLE])


def test_a_method_that_knows_its_spread_states_it_for_a_single_sample(predict):
    one = predict(samples=1)
    np.testing.assert_array_equal(one.layers[keys.SPREAD], np.full(one.shape, SD, np.float32))


def test_further_draws_of_another_method_are_its_draws_and_not_its_expectation(
    whole, weights, tiny_slide, feature_cache
):
    request = DrawRequest(whole, tiny_slide, 2, device="cpu", weights=weights, cache=feature_cache)
    found = []
    finish(draw_more(request), lambda step: isinstance(step.partial, Draw) and found.append(step.partial))
    assert [draw.number for draw in found] == [2]
    second = found[0].values
    assert 0 < np.abs(second - whole.X).max() < 6 * SD
    assert not np.allclose(second, whole.layers[keys.SAMPLE])


def test_weights_written_before_headers_named_a_method_are_flags():
    path = find_weights("demo")
    with safe_open(path, framework="pt") as file:
        assert "method" not in json.loads(file.metadata()["napari_flag"])
    assert isinstance(open_method(Checkpoint.load(path)), FlagPredictor)


def test_weights_of_a_method_that_is_not_here_are_refused_in_one_sentence(tiny_checkpoint):
    with pytest.raises(UserError) as refused:
        open_method(replace(tiny_checkpoint, method="crystal ball"))
    message = str(refused.value)
    assert "crystal ball" in message
    assert "it has: flag" in message
    assert message.count(". ") == 0
