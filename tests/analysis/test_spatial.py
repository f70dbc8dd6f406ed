import numpy as np
import pytest
from scipy.sparse import csr_matrix
from tests.fakes import fake_prediction

from napari_flag import keys
from napari_flag.analysis.scores import scoring_section
from napari_flag.analysis.spatial import score_spatially
from napari_flag.progress import finish


def test_ssc_is_that_of_the_section_scores():
    adata = fake_prediction(100, n_genes=20)
    scores = finish(score_spatially(adata))
    before = finish(scoring_section(adata))
    assert scores.ssc == pytest.approx(before.overall["SSC"])
    assert scores.measured[3] == pytest.approx(before.genes[scores.genes[3]].moran_measured)


def test_without_truth_there_is_still_a_ranking_with_q():
    scores = finish(score_spatially(fake_prediction(64, n_genes=6, measured=False)))
    assert scores.measured is None
    assert np.isnan(scores.ssc)
    assert np.isfinite(scores.predicted).all()
    assert ((scores.q >= 0) & (scores.q <= 1)).all()
    table = scores.table()
    assert list(table.columns) == ["gene", "moran_predicted", "q_predicted"]
    assert table.moran_predicted.is_monotonic_decreasing


def test_spots_and_genes_that_were_not_measured_are_left_out_of_the_comparison_only():
    adata = fake_prediction(100, n_genes=8)
    adata.layers[keys.MEASURED][:20] = np.nan
    adata.layers[keys.MEASURED][:, 2] = np.nan
    scores = finish(score_spatially(adata))
    assert (scores.spots, scores.spots_measured) == (100, 80)
    assert np.isfinite(scores.predicted).all()
    assert np.flatnonzero(np.isnan(scores.measured)).tolist() == [2]
    assert scores.ssc == pytest.approx(
        finish(score_spatially(adata[20:, [0, 1, 3, 4, 5, 6, 7]].copy())).ssc, abs=1e-9
    )


def test_a_gene_constant_in_truth_has_no_moran_there_and_does_not_count():
    adata = fake_prediction(64, n_genes=6)
    adata.layers[keys.MEASURED][:, 1] = 0
    scores = finish(score_spatially(adata))
    assert np.isnan(scores.measured[1])
    assert np.isfinite(scores.ssc)


def test_permutations_give_q_of_their_own():
    adata = fake_prediction(49, n_genes=5)
    by_permutation = finish(score_spatially(adata, permutations=19))
    assert by_permutation.permutations == 19
    assert by_permutation.q.min() >= 1 / 20
    assert np.array_equal(by_permutation.predicted, finish(score_spatially(adata)).predicted)


def test_more_genes_than_are_read_at_once_and_sparse_values_give_the_same():
    adata = fake_prediction(36, n_genes=600)
    adata.layers[keys.MEASURED][:4] = np.nan
    dense = finish(score_spatially(adata))
    last = finish(score_spatially(adata[:, 500:].copy()))
    assert np.allclose(dense.measured[500:], last.measured, equal_nan=True)
    assert np.allclose(dense.predicted_there[500:], last.predicted_there)
    adata.X = csr_matrix(adata.X)
    sparse = finish(score_spatially(adata))
    assert np.allclose(sparse.predicted, dense.predicted)
    assert sparse.ssc == pytest.approx(dense.ssc)
