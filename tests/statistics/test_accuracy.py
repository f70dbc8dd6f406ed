import numpy as np
import pytest
from scipy import stats

from napari_flag.statistics import accuracy


@pytest.fixture
def pair() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    measured = rng.poisson(3.0, (40, 6)).astype(np.float64)
    return measured + rng.normal(0, 1, measured.shape), measured


def test_pearson_and_spearman_agree_with_scipy(pair):
    predicted, measured = pair
    r = [stats.pearsonr(predicted[:, g], measured[:, g])[0] for g in range(6)]
    rho = [stats.spearmanr(predicted[:, g], measured[:, g])[0] for g in range(6)]
    np.testing.assert_allclose(accuracy.gene_pearson(predicted, measured), r, atol=1e-12)
    np.testing.assert_allclose(accuracy.gene_spearman(predicted, measured), rho, atol=1e-12)


def test_a_gene_constant_in_truth_is_left_out_and_one_predicted_constant_scores_zero(pair):
    predicted, measured = (a.copy() for a in pair)
    measured[:, 0] = 2.0
    predicted[:, 1] = 0.1
    for score in (accuracy.gene_pearson, accuracy.gene_spearman, accuracy.gene_amplitude):
        values = score(predicted, measured)
        assert np.isnan(values[0])
        assert values[1] == 0.0
        assert np.isfinite(values[2:]).all()
    assert not np.isnan(accuracy.mean_over_genes(accuracy.gene_pearson(predicted, measured)))


def test_a_constant_stored_in_float32_and_shifted_is_still_constant():
    values = (np.full((50, 1), 7.3, np.float32) + np.float32(1e-7)).astype(np.float64)
    values[::2] += 4e-7
    assert accuracy.constant_genes(values).all()


def test_mean_over_genes_without_any_score_is_unknown_not_zero():
    assert np.isnan(accuracy.mean_over_genes(np.array([np.nan, np.nan])))
    assert np.isnan(accuracy.median_over_genes(np.array([np.nan])))


def test_mse_counts_every_gene(pair):
    predicted, measured = pair
    expected = ((predicted - measured) ** 2).mean()
    assert accuracy.gene_mse(predicted, measured).mean() == pytest.approx(expected)


def test_amplitude_is_the_ratio_of_variances(pair):
    _, measured = pair
    np.testing.assert_allclose(accuracy.gene_amplitude(0.5 * measured + 3, measured), 0.25)


def test_composition_forgets_whatever_is_added_to_a_whole_spot(pair):
    _, measured = pair
    depth = np.random.default_rng(1).normal(size=(40, 1))
    np.testing.assert_allclose(
        accuracy.composition(measured + depth), accuracy.composition(measured), atol=1e-12
    )


@pytest.mark.parametrize(
    ("predicted", "measured", "expected"),
    [([1.0, 2.0, 3.0], [2.0, 4.0, 6.0], 1.0), ([1.0, 1.0, 1.0], [1.0, 2.0, 3.0], 0.0)],
)
def test_pearson_of_vectors(predicted, measured, expected):
    assert accuracy.pearson(np.array(predicted), np.array(measured)) == pytest.approx(expected)


def test_pearson_with_a_constant_truth_is_unknown():
    assert np.isnan(accuracy.pearson(np.array([1.0, 2.0]), np.array([1.0, 1.0])))
