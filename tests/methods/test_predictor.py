"""A second method goes through the same chain as FLAG."""

from dataclasses import replace

import numpy as np
import pytest
from shapely.geometry import box
from tests.fake_method import LEVELS, SD, Level
from tests.tiny_weights import GENES

from napari_flag import keys
from napari_flag.analysis.draws import Draw, DrawRequest, count, draw_more, keep
from napari_flag.errors import UserError
from napari_flag.methods import predictor
from napari_flag.methods.flag import FlagPredictor
from napari_flag.methods.predictor import open_method
from napari_flag.model.checkpoint import Checkpoint, find_weights, save_checkpoint
from napari_flag.prediction import predict_slide
from napari_flag.prediction_file import layer_of
from napari_flag.progress import finish
from napari_flag.sampling import Preview


@pytest.fixture(scope="module")
def weights(tmp_path_factory, tiny_checkpoint):
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(predictor.METHODS, "level", Level.open)
        path = tmp_path_factory.mktemp("level") / "level.safetensors"
        tensors = tiny_checkpoint.part("encoder.")
        save_checkpoint(path, Level(), tensors, encoder="embedded", genes=GENES, card={}, method="level")
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
    def on_step(step):
        if isinstance(step.partial, Preview):
            previews.append(step.partial.values[step.partial.rows])

    return predict(on_step)


def test_another_method_predicts_through_the_same_chain(whole, previews):
    np.testing.assert_array_equal(whole.X, np.tile(LEVELS, (9, 1)))
    np.testing.assert_array_equal(np.concatenate(previews), whole.X)
    np.testing.assert_array_equal(whole.layers[keys.SPREAD], np.full(whole.shape, SD, np.float32))
    counts = np.exp2(whole.layers[keys.SAMPLE]) - 1
    np.testing.assert_allclose(counts, counts.round(), atol=1e-3)
    assert (whole.layers[keys.SAMPLE] != whole.X).any()
    made = whole.uns[keys.PROVENANCE]
    assert (made[keys.METHOD], made[keys.DRAWS]) == ("level", 1)


def test_a_region_gives_another_method_the_draws_of_the_whole(predict, whole):
    part = predict(region=[box(700, 0, 900, 900)])
    assert part.n_obs == 3
    np.testing.assert_array_equal(part.layers[keys.SAMPLE], whole[part.obs_names].layers[keys.SAMPLE])


@pytest.fixture(scope="module")
def eight(predict):
    return predict(draws=8, seed=7)


def test_the_expectation_depends_on_neither_seed_nor_draws(whole, eight):
    np.testing.assert_array_equal(eight.X, whole.X)
    np.testing.assert_array_equal(eight.layers[keys.SPREAD], whole.layers[keys.SPREAD])
    assert (eight.layers[keys.SAMPLE] != whole.layers[keys.SAMPLE]).any()


def test_eight_draws_at_once_are_those_made_one_by_one(predict, eight):
    assert eight.uns[keys.PROVENANCE][keys.DRAWS] == 8
    for number in range(1, 9):
        one = predict(first_draw=number, seed=7)
        assert set(one.layers) == {layer_of(number), keys.SPREAD}
        np.testing.assert_array_equal(one.layers[layer_of(number)], eight.layers[layer_of(number)])


def test_more_draws_than_a_prediction_holds_are_refused(predict):
    with pytest.raises(UserError, match="at most 32 draws, but 33"):
        predict(draws=2, first_draw=32)


def test_further_draws_go_on_with_those_that_a_larger_prediction_would_hold(
    predict, eight, weights, tiny_slide, feature_cache
):
    one = predict(seed=7)
    request = DrawRequest(one, tiny_slide, 8, device="cpu", weights=weights, cache=feature_cache)
    finish(draw_more(request), lambda step: isinstance(step.partial, Draw) and keep(one, step.partial))
    assert count(one) == 8
    for number in range(1, 9):
        np.testing.assert_array_equal(one.layers[layer_of(number)], eight.layers[layer_of(number)])


def test_weights_that_come_with_the_plugin_are_flags():
    assert isinstance(open_method(Checkpoint.load(find_weights("demo"))), FlagPredictor)


def test_weights_of_a_method_that_is_not_here_are_refused_in_one_sentence(tiny_checkpoint):
    with pytest.raises(UserError) as refused:
        open_method(replace(tiny_checkpoint, method="crystal ball"))
    message = str(refused.value)
    assert "crystal ball" in message
    assert "it has: flag, " in message
    assert message.count(". ") == 0
