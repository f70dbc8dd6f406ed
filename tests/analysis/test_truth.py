import numpy as np
import pytest
from anndata import AnnData
from scipy import sparse
from tests.fakes import counts_for, fake_prediction

from napari_flag import keys
from napari_flag.analysis import truth
from napari_flag.errors import UserError


@pytest.fixture
def prediction():
    return fake_prediction(n_spots=36, n_genes=6)


def test_spots_match_by_id_and_genes_by_symbol_in_any_order(prediction):
    measured = counts_for(prediction)
    expected = measured.X.toarray()
    shuffled = measured[np.random.default_rng(1).permutation(36)].copy()
    shuffled = shuffled[:, list(measured.var_names[::-1])].copy()
    match = truth.match_names(prediction, shuffled)
    np.testing.assert_array_equal(truth.shared_counts(shuffled, match), expected)


def test_what_is_on_one_side_only_is_listed(prediction):
    measured = counts_for(prediction)[1:, :5].copy()
    measured.obs_names = [*measured.obs_names[:-1], "elsewhere"]
    left = truth.find_unmatched(prediction, measured)
    assert left.spots_only_predicted == ("0_0", "5_5")
    assert left.spots_only_measured == ("elsewhere",)
    assert left.genes_only_predicted == (prediction.var_names[5],)
    assert left.genes_only_measured == ()


def test_no_common_spot_says_the_slide_is_likely_wrong_and_shows_both_namings(prediction):
    measured = counts_for(prediction)
    measured.obs_names = [f"AAAC{i}-1" for i in range(36)]
    with pytest.raises(UserError, match=r"'0_0'.*'AAAC0-1'.*another slide"):
        truth.match_names(prediction, measured)


def test_two_common_spots_are_too_few(prediction):
    with pytest.raises(UserError, match="Only 2 of 36"):
        truth.match_names(prediction, counts_for(prediction)[:2].copy())


def test_no_common_gene_shows_both_namings(prediction):
    measured = counts_for(prediction)
    measured.var_names = [f"ENSG{i}" for i in range(6)]
    with pytest.raises(UserError, match=r"ERBB2.*ENSG0.*gene symbols"):
        truth.match_names(prediction, measured)


def test_a_prediction_given_as_measured_is_refused(prediction):
    with pytest.raises(UserError, match="itself a prediction"):
        truth.match_names(prediction, prediction)


def test_a_gene_listed_twice_counts_where_it_stands_first(prediction):
    measured = counts_for(prediction)
    twice = AnnData(sparse.hstack([measured.X, measured.X[:, :1] * 7]).tocsr())
    twice.obs_names = measured.obs_names
    twice.var_names = [*measured.var_names, measured.var_names[0]]
    match = truth.match_names(prediction, twice)
    np.testing.assert_array_equal(truth.shared_counts(twice, match), measured.X.toarray())


@pytest.mark.parametrize(
    ("value", "said"), [(2.32, "2.32.*normalised"), (-1.0, "-1.*not a whole"), (np.nan, "empty")]
)
def test_values_that_are_no_counts_are_refused(prediction, value, said):
    measured = counts_for(prediction)
    measured.X = measured.X.toarray()
    measured.X[3, 2] = value
    match = truth.match_names(prediction, measured)
    with pytest.raises(UserError, match=said):
        truth.shared_counts(measured, match)


def test_measured_is_laid_beside_with_gaps_where_nothing_was_measured(prediction):
    measured = counts_for(prediction)[1:, :5].copy()
    truth.attach_measured(prediction, measured)
    layer = prediction.layers[keys.MEASURED]
    np.testing.assert_allclose(layer[1:, :5], np.log2(measured.X.toarray() + 1), rtol=1e-6)
    assert np.isnan(layer[0]).all()
    assert np.isnan(layer[:, 5]).all()
