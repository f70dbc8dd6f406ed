"""A method that states an expectation and nothing else, from its network to the prediction file."""

import numpy as np
import pytest
import torch
from tests.tiny_weights import GENES

from napari_flag import keys
from napari_flag.analysis import draws
from napari_flag.encoders.embedded import DIM
from napari_flag.errors import UserError
from napari_flag.methods.expected import ExpectedSlide, ExpectingPredictor
from napari_flag.methods.floors import FloorSizes, NearestTiles, RingRidge, SlideMean
from napari_flag.methods.predictor import open_method
from napari_flag.model.checkpoint import Checkpoint, label_of, save_checkpoint
from napari_flag.model.graph import Places, build_graph
from napari_flag.model.samplers import SamplerSettings
from napari_flag.prediction import predict_slide
from napari_flag.prediction_doubts import doubts_of
from napari_flag.prediction_file import find_fault
from napari_flag.progress import finish

LEVELS = torch.arange(1.0, len(GENES) + 1)


@pytest.fixture(scope="module")
def weights(tmp_path_factory, tiny_checkpoint):
    network = SlideMean(FloorSizes(DIM, len(GENES)))
    network.get_buffer("mean").copy_(LEVELS)
    path = tmp_path_factory.mktemp("mean") / "all_alike.safetensors"
    save_checkpoint(
        path,
        network,
        tiny_checkpoint.part("encoder."),
        encoder="embedded",
        genes=GENES,
        card={keys.CARD_METHOD: "slide mean"},
        method="mean",
    )
    return Checkpoint.load(path), path


@pytest.fixture(scope="module")
def predict(weights, tiny_slide, tiny_spots, feature_cache):
    def predict(**stated):
        return finish(
            predict_slide(tiny_slide, tiny_spots, weights[0], device="cpu", cache=feature_cache, **stated)
        )

    return predict


@pytest.fixture(scope="module")
def predicted(predict):
    return predict()


def test_a_prediction_without_draws_holds_the_expectation_and_says_its_method(predicted):
    np.testing.assert_array_equal(predicted.X, np.tile(LEVELS, (9, 1)))
    assert not set(predicted.layers)
    assert find_fault(predicted) is None
    assert doubts_of(predicted) == (
        "This prediction holds no draws and no standard deviation, so scores of draws and spread and "
        "calibration are left out.",
    )
    made = predicted.uns[keys.PROVENANCE]
    assert (made[keys.METHOD], made[keys.DRAWS]) == ("slide mean", 0)
    assert not {keys.SAMPLER, keys.STEPS, keys.SEED} & set(made)


@pytest.mark.parametrize(
    ("stated", "why"),
    [({"draws": 2}, "nothing can be drawn of it; leave out"), ({"steps": 8}, "no solver steps; leave out")],
)
def test_what_it_does_not_have_is_refused_by_its_name(predict, stated, why):
    with pytest.raises(UserError, match=why) as refused:
        predict(**stated)
    assert 'The weights "all_alike" are of slide mean' in str(refused.value)


def test_no_draws_can_be_added_and_why_is_said(predicted, weights, tiny_slide):
    assert draws.why_not(predicted, tiny_slide) == draws.NO_DRAWS
    with pytest.raises(UserError, match="nothing can be drawn of it"):
        finish(draws.draw_more(draws.DrawRequest(predicted, tiny_slide, 2, weights=weights[1])))
    with pytest.raises(UserError, match="nothing can be drawn of it"):
        ExpectedSlide(predicted.X).draw(np.arange(2), ("a", "b"), SamplerSettings())


def test_weights_are_listed_with_the_name_of_their_method(weights, tiny_weights):
    assert label_of("all_alike", weights[1]) == "all_alike · slide mean"
    assert label_of("tiny", tiny_weights) == "tiny"
    assert label_of("gone", weights[1].with_name("gone.safetensors")) == "gone"


def test_a_known_depth_moves_the_expectation_to_its_total(predict):
    deeper = predict(depth=1000.0)
    assert deeper.uns[keys.PROVENANCE][keys.DEPTH] == pytest.approx(1000, rel=1e-3)
    assert (np.tile(LEVELS, (9, 1)) < deeper.X).all()


def test_counts_twice_as_high_have_twice_the_total():
    slide = ExpectedSlide(np.random.default_rng(0).uniform(0.5, 6, (20, 5)).astype(np.float32))
    rows, columns = np.arange(20), np.array([1, 3])
    twice = slide.shifted(np.log(2)).total(rows, columns)
    assert twice == pytest.approx(2 * slide.total(rows, columns), rel=1e-3)


def square(side, width, seed=0):
    rows, columns = np.divmod(np.arange(side * side), side)
    places = Places(np.stack([columns, rows], 1) * 200.0, 200.0)
    features = np.random.default_rng(seed).normal(size=(side * side, width)).astype(np.float32)
    return features, build_graph(places, features)


def test_the_nearest_tile_of_a_bank_is_answered_exactly():
    features, graph = square(20, 6)
    network = NearestTiles(FloorSizes(6, 3, bank=400, components=6, k=1))
    network.get_buffer("axes").copy_(torch.eye(6))
    network.get_buffer("bank_tiles").copy_(torch.from_numpy(features).flip(0))
    expression = torch.rand(400, 3)
    network.get_buffer("bank_expression").copy_(expression)
    found = ExpectingPredictor(network, ("A", "B", "C")).encode(features, graph).mean
    np.testing.assert_array_equal(found, expression.flip(0).numpy())


def test_the_ring_ridge_weighs_a_spot_and_its_first_ring_in_the_slide_s_frame():
    features, graph = square(7, 2)
    network = RingRidge(FloorSizes(2, 1, slides=2))
    network.get_buffer("level").copy_(torch.tensor([[2.0], [9.0]]))
    network.get_buffer("scale").copy_(torch.tensor([[0.5], [9.0]]))
    network.get_buffer("centres").copy_(torch.tensor([[0.0, 0.0], [60.0, 60.0]]))  # nothing like the second
    network.get_buffer("weight").copy_(torch.tensor([[0.0], [0.0], [1.0], [0.0]]))
    found = ExpectingPredictor(network, ("A",)).encode(features, graph).mean[:, 0]
    own = (features[:, 0] - features[:, 0].mean()) / (features[:, 0].std() + 0.2)
    inner = 3 * 7 + 3
    ring = own[[inner - 8, inner - 7, inner - 6, inner - 1, inner + 1, inner + 6, inner + 7, inner + 8]]
    assert found[inner] == pytest.approx(max(2 + 0.5 * ring.mean(), 0), abs=1e-4)


def test_nothing_below_zero_is_expected():
    network = SlideMean(FloorSizes(6, 2))
    network.get_buffer("mean").copy_(torch.tensor([-1.0, 1.0]))
    features, graph = square(3, 6)
    assert ExpectingPredictor(network, ("A", "B")).encode(features, graph).mean.min() == 0


def test_weights_that_do_not_fit_their_sizes_are_refused(weights):
    broken = Checkpoint.load(weights[1])
    broken.tensors["mean.mean"] = torch.zeros(3)
    with pytest.raises(UserError, match="do not fit the network"):
        open_method(broken)
