import re
import time

import numpy as np
import pytest
from scipy import sparse
from tests.fakes import add_draws, fake_prediction

from napari_flag import keys
from napari_flag.errors import Doubtful
from napari_flag.exports.formats import export, find_format
from napari_flag.prediction_doubts import (
    doubts_of,
    find_misplaced,
    record_misplaced,
    refuse_misplaced,
    why_less,
)
from napari_flag.prediction_file import draw_layers, layer_of
from napari_flag.progress import finish


@pytest.fixture
def prediction():
    return fake_prediction(n_spots=36, n_genes=6)


def test_what_a_prediction_lacks_is_said_where_it_states_its_draws(prediction):
    assert why_less(prediction) is None
    assert doubts_of(prediction) == ()
    del prediction.layers[keys.SAMPLE]
    assert why_less(prediction) == "This prediction holds no draws, so scores of draws are left out."
    assert doubts_of(prediction) == (why_less(prediction),)
    del prediction.uns[keys.PROVENANCE][keys.DRAWS]
    assert doubts_of(prediction) == ()


@pytest.mark.parametrize(
    ("places", "said"),
    [
        (lambda xy: np.random.default_rng(0).permutation(xy), "ids and positions are mixed up"),
        (lambda xy: np.full_like(xy, 500.0), "share their place with another"),
        (lambda xy: xy * 1e6, "36 of 36 spots lie outside the slide of"),
        (lambda xy: xy[:, ::-1].copy(), "lies mirrored on the picture"),
    ],
)
def test_places_that_cannot_be_right_are_said_and_refused_where_not_insisted_on(prediction, places, said):
    refuse_misplaced(prediction, force=False)
    prediction.obsm[keys.SPATIAL] = places(prediction.obsm[keys.SPATIAL])
    assert said in doubts_of(prediction)[0]
    if "mirrored" in said:  # which a picture may be too
        assert find_misplaced(prediction) is None
        return
    with pytest.raises(Doubtful, match=said):
        refuse_misplaced(prediction, force=False)
    refuse_misplaced(prediction, force=True)
    record_misplaced(prediction)
    refuse_misplaced(prediction, force=False)
    assert said in doubts_of(prediction)[0]


def test_an_export_says_what_is_wrong_in_places_and_values(prediction, tmp_path):
    prediction.X[0, 0] = -1.0
    prediction.obsm[keys.SPATIAL] = prediction.obsm[keys.SPATIAL][:, ::-1].copy()
    said = []
    finish(
        export(prediction, [(find_format("csv"), tmp_path / "a.csv")]),
        lambda step: said.append(step.notice or ""),
    )
    assert any("lies mirrored" in notice for notice in said)
    assert any("are negative" in notice for notice in said)


def changed(prediction, change):
    """Put every draw through `change`."""
    for name in draw_layers(prediction):
        prediction.layers[name] = change(prediction.layers[name]).astype(np.float32)


def of_x(change):
    return lambda a: setattr(a, "X", change(np.asarray(a.X)).astype(np.float32))


UNFIT = "The draws do not fit X"
SHUFFLED = np.random.default_rng(1).permutation(49)


@pytest.mark.parametrize("number", [1, 2, 8])
@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda a: changed(a, lambda draw: draw + 5), f"{UNFIT} \\(their mean is"),
        (lambda a: changed(a, lambda draw: np.roll(draw, 3, axis=1)), "their means of genes correlate"),
        (lambda a: changed(a, lambda draw: draw[SHUFFLED]), "they do not follow X over the spots"),
        (of_x(lambda x: x[SHUFFLED]), "they do not follow X over the spots"),
        (of_x(lambda x: x * 10), f"{UNFIT} \\(their mean is"),
        (of_x(lambda x: np.exp2(x) - 1), f"{UNFIT} \\(their mean is"),
        (lambda a: changed(a, lambda draw: draw - 1), "Draws hold negative values"),
        (lambda a: changed(a, lambda draw: draw + 0.3), "log2.count . 1. of no whole count"),
    ],
)
def test_draws_that_have_nothing_to_do_with_x_are_said(number, spoil, said):
    prediction = add_draws(fake_prediction(n_spots=49, n_genes=8), number)
    assert doubts_of(prediction) == ()
    spoil(prediction)
    [first, *_] = [doubt for doubt in doubts_of(prediction) if re.search(said, doubt)]
    assert first.endswith(".")


def test_x_in_natural_logarithms_is_seen_beside_some_draws():
    prediction = add_draws(fake_prediction(n_spots=49, n_genes=8), 8)
    prediction.X = prediction.X * np.float32(np.log(2))
    assert UNFIT in doubts_of(prediction)[0]


def test_draws_in_the_opposite_order_of_spots_are_seen_though_patterns_are_alike():
    prediction = add_draws(fake_prediction(n_spots=49, n_genes=8), 8)
    changed(prediction, lambda draw: draw[::-1])
    assert "do not follow X over the spots" in doubts_of(prediction)[0]


def test_draws_that_are_the_same_are_said():
    prediction = add_draws(fake_prediction(n_spots=49, n_genes=8), 4)
    prediction.layers[layer_of(4)] = prediction.layers[layer_of(2)]
    assert doubts_of(prediction)[0].startswith("Draws are the same in every value (2 and 4)")


def test_draws_of_an_earlier_version_need_be_no_counts():
    prediction = fake_prediction(n_spots=49, n_genes=8)
    changed(prediction, lambda draw: draw + 0.1)
    assert "of no whole count" in doubts_of(prediction)[0]
    del prediction.uns[keys.PROVENANCE][keys.DRAWS]
    assert doubts_of(prediction) == ()


@pytest.mark.parametrize("number", [1, 3, 8])
@pytest.mark.parametrize("seed", range(8))
def test_draws_whose_noise_all_spots_share_are_nothing_to_doubt(number, seed):
    rng = np.random.default_rng(seed)
    prediction = add_draws(fake_prediction(n_spots=49, n_genes=20, seed=seed), number)
    prediction.layers[keys.SPREAD] = np.full(prediction.shape, 1.0, np.float32)
    for name in draw_layers(prediction):
        shared = np.clip(
            prediction.X + rng.normal(0, 0.7, 20) + rng.normal(0, 0.7, prediction.shape), 0, None
        )
        prediction.layers[name] = np.log2(np.rint(np.exp2(shared))).astype(np.float32)
    assert doubts_of(prediction) == ()


def test_sparse_draws_of_many_spots_and_genes_are_looked_at_in_moments():
    prediction = add_draws(fake_prediction(n_spots=4900, n_genes=300), 2)
    for name in draw_layers(prediction):
        prediction.layers[name] = sparse.csr_matrix(prediction.layers[name])
    before = time.process_time()
    assert doubts_of(prediction) == ()
    assert time.process_time() - before < 5


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda a: a.obsm.__setitem__(keys.SPATIAL, a.obsm[keys.SPATIAL] / 2), "lie 100 µm apart"),
        (lambda a: a.uns[keys.PROVENANCE].update({keys.MPP: 5.0}), "lie 2 mm apart"),
        (lambda a: a.uns[keys.PROVENANCE].update({keys.SPOT_PITCH_UM: 55.0}), "where 55 µm are stated"),
    ],
)
def test_places_that_contradict_the_distance_between_spots_are_said(prediction, spoil, said):
    spoil(prediction)
    assert said in doubts_of(prediction)[0]
    assert find_misplaced(prediction) is None, "which may be said of µm/px that a person gave"


def test_a_choice_of_spots_may_lie_wider_apart_than_spots_do(prediction):
    chosen = prediction[::3].copy()
    assert doubts_of(chosen) == ()
    del chosen.obs[keys.ARRAY_ROW]
    assert doubts_of(chosen) == ()
