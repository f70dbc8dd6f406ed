import numpy as np
import pytest
from tests.fakes import fake_prediction

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
