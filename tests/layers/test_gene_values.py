import numpy as np
from scipy import sparse
from tests.fakes import fake_prediction

from napari_flag import keys
from napari_flag.analysis.truth import PREDICTED, sources
from napari_flag.layers.gene_values import Contrast, GeneValues, Quantity, sources_of


def test_difference_is_predicted_minus_measured():
    adata = fake_prediction(25)
    values = GeneValues(adata).values("ESR1", Quantity.DIFFERENCE)
    column = list(adata.var_names).index("ESR1")
    expected = adata.X[:, column] - adata.layers[keys.MEASURED][:, column]
    np.testing.assert_allclose(values, expected)


def test_prediction_and_measurement_share_their_limits():
    values = GeneValues(fake_prediction(25))
    one = values.limits("ESR1", Quantity.PREDICTED, Contrast())
    assert one == values.limits("ESR1", Quantity.MEASURED, Contrast())
    assert one == values.limits("ESR1", Quantity.SAMPLE, Contrast())


def test_limits_of_a_difference_are_centred_on_zero():
    values = GeneValues(fake_prediction(25))
    for contrast in (Contrast(), Contrast(fixed=(0.0, 3.0))):
        low, high = values.limits("ESR1", Quantity.DIFFERENCE, contrast)
        assert low == -high < 0


def test_fixed_limits_are_the_same_for_every_gene():
    values = GeneValues(fake_prediction(25))
    fixed = Contrast(fixed=(0.5, 6.0))
    assert {values.limits(gene, Quantity.PREDICTED, fixed) for gene in values.genes} == {(0.5, 6.0)}


def test_a_gene_without_variation_still_gets_an_interval():
    adata = fake_prediction(25, measured=False)
    adata.X[:, 0] = 2.0
    low, high = GeneValues(adata).limits(adata.var_names[0], Quantity.PREDICTED, Contrast())
    assert low < high


def test_what_a_prediction_lacks_is_explained():
    adata = fake_prediction(25, measured=False)
    del adata.layers[keys.SPREAD]
    values = GeneValues(adata)
    assert values.why_not(Quantity.PREDICTED) is None
    assert "no measured expression" in values.why_not(Quantity.MEASURED)
    assert values.why_not(Quantity.DIFFERENCE) == values.why_not(Quantity.MEASURED)
    assert "no spread" in values.why_not(Quantity.SPREAD)


def test_a_layer_in_which_no_spot_was_measured_is_no_measurement():
    adata = fake_prediction(25)
    adata.layers[keys.MEASURED][:] = np.nan
    values = GeneValues(adata)
    assert "no measured expression" in values.why_not(Quantity.MEASURED)
    assert values.why_not(Quantity.DIFFERENCE) == values.why_not(Quantity.MEASURED)
    assert sources_of(adata) == sources(adata) == (PREDICTED,)
    adata.layers[keys.MEASURED] = np.ones(adata.shape, np.float32)
    assert values.why_not(Quantity.MEASURED) is values.why_not(Quantity.DIFFERENCE) is None
    assert sources_of(adata) == sources(adata)
    del adata.layers[keys.MEASURED]
    assert sources_of(adata) == sources(adata)


def test_sparse_and_dense_matrices_give_the_same_values():
    dense = fake_prediction(25)
    thin = dense.copy()
    thin.X = sparse.csr_matrix(dense.X)
    for gene in dense.var_names:
        np.testing.assert_array_equal(
            GeneValues(thin).values(gene, Quantity.PREDICTED),
            GeneValues(dense).values(gene, Quantity.PREDICTED),
        )


def test_summary_leaves_missing_spots_out():
    adata = fake_prediction(25)
    adata.X[3] = np.nan
    mean, variance = GeneValues(adata).summary()
    np.testing.assert_allclose(mean, np.nanmean(adata.X, axis=0), rtol=1e-4)
    np.testing.assert_allclose(variance, np.nanvar(adata.X, axis=0), rtol=1e-3)


def test_summary_is_the_same_in_chunks_and_of_a_sparse_matrix(monkeypatch):
    adata = fake_prediction(25)
    adata.X[3, 2] = np.inf  # no number either
    whole = GeneValues(adata).summary()
    monkeypatch.setattr("napari_flag.layers.gene_values.CHUNK_NUMBERS", 70)
    thin = fake_prediction(25)
    thin.X = sparse.csr_matrix(adata.X)
    for found, expected in zip(GeneValues(thin).summary(), whole, strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert np.isfinite(whole).all()


def test_summary_follows_a_matrix_that_was_replaced():
    adata = fake_prediction(25)
    before, _ = GeneValues(adata).summary()
    adata.X = adata.X + 1
    np.testing.assert_allclose(GeneValues(adata).summary()[0], before + 1, rtol=1e-5)
