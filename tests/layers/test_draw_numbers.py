import numpy as np
import pytest
from tests.fakes import fake_prediction

from napari_flag import keys
from napari_flag.analysis.draws import MEAN, TRUTH, compare_draws, gene_between, layer_of
from napari_flag.progress import finish
from napari_flag.statistics.accuracy import gene_pearson
from napari_flag.statistics.coexpression import gene_correlations, gene_structure_correlation
from napari_flag.statistics.moran import spatial_structure_correlation


@pytest.fixture
def adata():
    """Four draws: the same smooth pattern under noise of their own."""
    adata = fake_prediction(144, n_genes=12)
    rng = np.random.default_rng(0)
    for number in range(1, 5):
        noise = rng.normal(0, 1.0, adata.shape)
        adata.layers[layer_of(number)] = (adata.X + noise).astype(np.float32)
    return adata


def test_draws_are_held_against_the_truth_and_against_each_other(adata):
    numbers = finish(compare_draws(adata))
    assert numbers.against == TRUTH
    assert numbers.table["draw"].tolist() == ["1", "2", "3", "4"]
    truth = adata.layers[keys.MEASURED].astype(np.float64)
    second = gene_pearson(adata.layers["sample_2"].astype(np.float64), truth).mean()
    assert numbers.table.PCC[1] == pytest.approx(second)
    pairs = [(i, j) for i in range(1, 5) for j in range(i + 1, 5)]
    between = [
        gene_pearson(*(adata.layers[layer_of(k)].astype(np.float64) for k in (j, i))).mean() for i, j in pairs
    ]
    assert numbers.between["PCC"] == pytest.approx(np.mean(between))
    together = [gene_correlations(adata.layers[layer_of(k)]) for k in range(1, 5)]
    none = np.zeros(adata.n_vars, bool)
    gsc = [gene_structure_correlation(together[j - 1], together[i - 1], none) for i, j in pairs]
    assert numbers.between["GSC"] == pytest.approx(np.mean(gsc))
    ssc = [spatial_structure_correlation(numbers.moran[j - 1], numbers.moran[i - 1], none) for i, j in pairs]
    assert numbers.between["SSC"] == pytest.approx(np.mean(ssc))
    assert numbers.moran.shape == (4, 12)


def test_without_truth_draws_are_held_against_the_mean(adata):
    del adata.layers[keys.MEASURED]
    numbers = finish(compare_draws(adata))
    assert numbers.against == MEAN
    expected = gene_pearson(adata.layers["sample"].astype(np.float64), adata.X.astype(np.float64)).mean()
    assert numbers.table.PCC[0] == pytest.approx(expected)


def test_one_draw_has_nothing_to_be_held_against(adata):
    for number in (2, 3, 4):
        del adata.layers[layer_of(number)]
    assert finish(compare_draws(adata)).between == {}
    assert np.isnan(gene_between(adata, "VIM"))


def test_genes_and_spots_never_measured_are_left_out(adata):
    adata.layers[keys.MEASURED][:20] = np.nan
    adata.layers[keys.MEASURED][:, 3] = np.nan
    numbers = finish(compare_draws(adata))
    assert np.isnan(numbers.moran[:, 3]).all()
    assert np.isfinite(numbers.moran[:, 0]).all()
    assert np.isfinite(numbers.table[["PCC", "GSC", "SSC"]].to_numpy()).all()


def test_a_gene_that_moves_little_correlates_between_draws(adata):
    column = list(adata.var_names).index("VIM")
    for number in range(1, 5):
        adata.layers[layer_of(number)][:, column] = adata.X[:, column]
    assert gene_between(adata, "VIM") == pytest.approx(1.0)
    assert gene_between(adata, "ESR1") < 0.98
