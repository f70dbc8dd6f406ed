import numpy as np
import pytest

from napari_flag.statistics import coexpression as co


@pytest.fixture
def tissue() -> np.ndarray:
    rng = np.random.default_rng(0)
    return rng.normal(size=(60, 3)) @ rng.normal(size=(3, 15)) + rng.normal(size=(60, 15))


def test_correlations_are_numpys(tissue):
    np.testing.assert_allclose(co.gene_correlations(tissue), np.corrcoef(tissue.T), atol=1e-12)


def test_spots_that_come_in_parts_give_what_they_give_together(tissue):
    drifting = tissue + np.linspace(0, 500, len(tissue))[:, None]  # the first part is far from the mean
    drifting[:, 3] = 2.5
    found = co.GeneCorrelations(15)
    for part in (slice(0, 1), slice(1, 20), slice(20, 20), slice(20, 60)):
        found.add(drifting[part].astype(np.float32))
    expected = co.gene_correlations(drifting.astype(np.float32))
    np.testing.assert_allclose(found.table(), expected, atol=1e-10)
    varying = np.delete(drifting.astype(np.float32).astype(float), 3, axis=1)
    there = np.delete(np.delete(found.table(), 3, axis=0), 3, axis=1)
    np.testing.assert_allclose(there, np.corrcoef(varying.T), atol=1e-10)
    assert np.flatnonzero(found.constant).tolist() == [3]


def test_a_constant_gene_correlates_zero_with_every_other(tissue):
    tissue[:, 4] = 1.5
    correlations = co.gene_correlations(tissue)
    assert (np.delete(correlations[4], 4) == 0).all()
    assert np.isfinite(correlations).all()


def test_gsc_of_truth_with_itself_is_one_and_each_pair_counts_once(tissue):
    truth = co.gene_correlations(tissue)
    assert len(co.upper_triangle(truth)) == 15 * 14 // 2
    nobody = np.zeros(15, bool)
    assert co.gene_structure_correlation(truth, truth, nobody) == pytest.approx(1.0)


def test_gsc_leaves_out_what_is_constant_in_truth_and_counts_what_is_predicted_constant(tissue):
    predicted = tissue + np.random.default_rng(1).normal(0, 0.5, tissue.shape)
    measured = tissue.copy()
    measured[:, 2] = 0.0
    left_out = np.arange(15) == 2
    kept = np.delete(np.arange(15), 2)
    whole = co.gene_structure_correlation(
        co.gene_correlations(predicted), co.gene_correlations(measured), left_out
    )
    without = co.gene_structure_correlation(
        co.gene_correlations(predicted[:, kept]),
        co.gene_correlations(measured[:, kept]),
        np.zeros(14, bool),
    )
    assert whole == pytest.approx(without)
    predicted[:, 5] = 1.0
    silenced = co.gene_structure_correlation(
        co.gene_correlations(predicted), co.gene_correlations(measured), left_out
    )
    assert silenced < whole


def test_a_one_factor_prediction_has_no_gene_structure_whatever_float32_rounds(tissue):
    depth = tissue.mean(axis=1, keepdims=True)
    one_factor = (depth * np.linspace(0.2, 3, 15) + 4).astype(np.float32)
    gsc = co.gene_structure_correlation(
        co.gene_correlations(one_factor), co.gene_correlations(tissue), np.zeros(15, bool)
    )
    assert gsc == 0.0


def test_gsc_of_two_genes_is_unknown():
    two = np.eye(2)
    assert np.isnan(co.gene_structure_correlation(two, two, np.zeros(2, bool)))


def test_genes_that_rise_together_stand_together_and_the_order_does_not_depend_on_theirs():
    rng = np.random.default_rng(0)
    factors = rng.normal(size=(300, 3))
    which = np.repeat(np.arange(3), 8)
    shuffled = rng.permutation(24)
    values = (factors[:, which] + rng.normal(0, 0.5, (300, 24)))[:, shuffled]
    order = co.gene_order(co.gene_correlations(values))
    assert sorted(order) == list(range(24))
    groups = which[shuffled][order]
    assert (np.diff(groups) != 0).sum() == 2


def test_the_order_of_leaves_is_at_least_as_smooth_as_the_plain_tree(monkeypatch):
    correlations = co.gene_correlations(np.random.default_rng(1).normal(size=(40, 60)))

    def length(order: np.ndarray) -> float:
        return float((1 - correlations[order[:-1], order[1:]]).sum())

    best = length(co.gene_order(correlations))
    monkeypatch.setattr(co, "MOST_OPTIMAL", 2)
    assert best < length(co.gene_order(correlations))


def test_one_or_two_genes_need_no_tree():
    assert co.gene_order(np.eye(2)).tolist() == [0, 1]
