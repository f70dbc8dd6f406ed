import numpy as np
import pytest
from tests.fakes import fake_prediction

from napari_flag import keys
from napari_flag.analysis.coexpression import colour_limit, correlate, sets_within
from napari_flag.analysis.scores import scoring_section
from napari_flag.errors import UserError
from napari_flag.progress import finish
from napari_flag.statistics import coexpression
from napari_flag.statistics.coexpression import gene_order


def test_correlations_are_those_of_numpy_in_the_order_of_the_truth():
    adata = fake_prediction(100, n_genes=12)
    genes = list(adata.var_names[:6])
    found = finish(correlate(adata, genes, depth=True))
    truth = np.corrcoef(adata.layers[keys.MEASURED][:, :6].T.astype(float))
    order = gene_order(truth)
    assert found.genes == tuple(genes[i] for i in order)
    assert np.allclose(found.measured, truth[np.ix_(order, order)])
    assert np.allclose(found.predicted, np.corrcoef(adata[:, list(found.genes)].X.T.astype(float)))


def test_gsc_of_all_genes_is_that_of_the_section_scores_and_is_not_computed_twice():
    adata = fake_prediction(100, n_genes=12)
    overall = finish(scoring_section(adata)).overall["GSC"]
    assert finish(correlate(adata, adata.var_names[:6])).gsc_all == pytest.approx(overall)
    assert finish(correlate(adata, adata.var_names)).gsc == pytest.approx(overall)
    assert finish(correlate(adata, adata.var_names[:6], overall=0.5)).gsc_all == 0.5


def test_a_large_prediction_is_correlated_part_by_part_with_the_same_result(monkeypatch):
    adata = fake_prediction(100, n_genes=12)
    whole = finish(correlate(adata, adata.var_names[:6]))
    monkeypatch.setattr(coexpression, "NUMBERS_AT_ONCE", 12 * 7)
    steps = []
    parts = finish(correlate(adata, adata.var_names[:6]), steps.append)
    assert sum(step.stage == "Correlating genes" for step in steps) > 14
    np.testing.assert_allclose(parts.predicted, whole.predicted, atol=1e-12)
    np.testing.assert_allclose(parts.measured, whole.measured, atol=1e-12)
    assert (parts.gsc, parts.gsc_all) == pytest.approx((whole.gsc, whole.gsc_all))


def test_without_truth_the_prediction_orders_itself():
    adata = fake_prediction(64, n_genes=8, measured=False)
    found = finish(correlate(adata, adata.var_names))
    assert found.measured is None
    assert np.isnan(found.gsc)
    assert list(found.table().columns) == ["first", "second", "predicted", "depth"]
    order = gene_order(np.corrcoef((adata.X - adata.X.mean(axis=1, keepdims=True)).T.astype(float)))
    assert found.genes == tuple(adata.var_names[order])
    both = found.triangles()
    assert np.isnan(np.diag(both)).all()
    assert np.array_equal(np.tril(both, -1), np.tril(found.predicted, -1))


def test_truth_stands_above_the_diagonal_and_prediction_below():
    adata = fake_prediction(64, n_genes=6)
    found = finish(correlate(adata, adata.var_names))
    both = found.triangles()
    assert np.array_equal(both[np.triu_indices(6, 1)], found.measured[np.triu_indices(6, 1)])
    assert np.array_equal(both[np.tril_indices(6, -1)], found.predicted[np.tril_indices(6, -1)])


def test_a_table_names_each_pair_once():
    adata = fake_prediction(64, n_genes=6)
    table = finish(correlate(adata, adata.var_names)).table()
    assert len(table) == 15
    assert len({frozenset(pair) for pair in zip(table["first"], table["second"], strict=True)}) == 15


def test_a_gene_and_spots_not_measured_change_only_what_is_compared():
    adata = fake_prediction(64, n_genes=6)
    alone = adata.copy()
    del alone.layers[keys.MEASURED]
    adata.layers[keys.MEASURED][:9] = np.nan
    adata.layers[keys.MEASURED][:, 4] = np.nan
    found, expected = (finish(correlate(a, a.var_names, depth=True)) for a in (adata, alone))
    assert (found.spots, found.spots_measured, found.genes_measured) == (64, 55, 5)
    assert found.genes[-1] == adata.var_names[4]
    order = [expected.genes.index(gene) for gene in found.genes]
    np.testing.assert_allclose(found.predicted, expected.predicted[np.ix_(order, order)])
    assert np.isnan(found.measured[-1]).all()
    assert np.isfinite(found.measured[:-1, :-1]).all()
    shown = [finish(correlate(a, a.var_names)) for a in (adata, alone)]
    order = [shown[1].genes.index(gene) for gene in shown[0].genes]
    np.testing.assert_allclose(shown[0].predicted, shown[1].predicted[np.ix_(order, order)])
    cut = adata[9:, [0, 1, 2, 3, 5]].copy()
    assert found.gsc == pytest.approx(finish(correlate(cut, cut.var_names)).gsc)
    assert found.gsc == pytest.approx(found.gsc_all)


def test_one_gene_is_not_enough_and_that_is_said():
    adata = fake_prediction(64, n_genes=6)
    with pytest.raises(UserError, match="needs two"):
        finish(correlate(adata, ["VIM", "NOT_THERE"]))


def test_sets_with_too_few_genes_here_are_not_offered():
    sets = {"many": ("ERBB2", "VIM", "NONE"), "one": ("ERBB2", "NONE"), "none": ("X", "Y")}
    assert sets_within(sets, ["ERBB2", "VIM"]) == {"many": (("ERBB2", "VIM"), 3)}


def test_gsc_has_depth_in_it_whatever_is_shown():
    adata = fake_prediction(64, n_genes=8)
    adata.X += np.linspace(0, 6, 64, dtype=np.float32)[:, None]  # deeper spots
    adata.layers[keys.MEASURED] += np.linspace(0, 6, 64, dtype=np.float32)[:, None]
    removed, kept = (finish(correlate(adata, adata.var_names, depth=depth)) for depth in (False, True))
    pairs = np.triu_indices(8, 1)
    expected = np.corrcoef(kept.predicted[pairs], kept.measured[pairs])[0, 1]
    assert removed.gsc == kept.gsc == pytest.approx(expected)
    assert removed.gsc_all == kept.gsc_all
    assert abs(removed.predicted[pairs]).mean() < kept.predicted[pairs].mean()


def test_colours_reach_to_the_99th_percentile_of_the_pairs_whatever_the_sign():
    correlations = np.full((20, 20), 0.2)
    correlations[0, 1:] = correlations[1:, 0] = -0.413
    np.fill_diagonal(correlations, 1.0)
    assert colour_limit(correlations) == pytest.approx(0.42)
    correlations[3, 4] = 0.95  # one pair of 380 does not take the colours of all others
    assert colour_limit(correlations) == pytest.approx(0.42)
    assert colour_limit(np.eye(3)) == 0.05
    assert colour_limit(np.full((2, 2), np.nan)) == 1.0


def test_each_spot_is_compared_with_its_own_mean_unless_depth_is_asked_for():
    adata = fake_prediction(64, n_genes=8)
    found = finish(correlate(adata, adata.var_names[:5]))
    shares = adata.X - adata.X.mean(axis=1, keepdims=True)
    expected = np.corrcoef(shares[:, [list(adata.var_names).index(g) for g in found.genes]].T.astype(float))
    assert np.allclose(found.predicted, expected, atol=1e-5)
