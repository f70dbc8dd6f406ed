"""The generated genes' distribution is the one that is written down."""

from dataclasses import replace

import numpy as np
import pytest

from napari_flag.errors import UserError
from napari_flag.simulation import generated_genes, simulate
from napari_flag.simulation.expression import (
    TISSUES,
    Depth,
    cells_by_tissue,
    counted,
    known_expression,
    main_tissue,
    mixing,
)

PITCH_UM = 100.0
NO_DEPTH = Depth(spread=0.0, lost=0.0)


def grid(side):
    """(side², 2) places in µm on a square array."""
    rows, cols = np.divmod(np.arange(side * side), side)
    return np.column_stack([cols, rows]) * PITCH_UM


def known(genes, *, tissue=None, side=8, depth=NO_DEPTH, **values):
    """Spots over one tissue, or over each in turn."""
    where = np.arange(side * side) % len(TISSUES) if tissue is None else np.full(side * side, tissue)
    return known_expression(genes, cells_by_tissue()[where], grid(side), PITCH_UM, depth=depth, **values)


def residuals(expression, draws=1, seed=0):
    """(draws, n, G) ln rate around its expectation, of exact draws."""
    rng = np.random.default_rng(seed)
    found = [np.log(expression.draw_rates(rng)) - expression.log_rate() for _ in range(draws)]
    return np.stack(found).astype(np.float64)


def test_a_gene_is_the_same_whatever_the_number_of_genes_and_so_are_its_counts():
    few, many = generated_genes(40, seed=3), generated_genes(700, seed=3)
    assert few.names == many.names[:40]
    assert few.names[0] == "SIM0001"
    np.testing.assert_array_equal(few.made, many.made[:, :40])
    np.testing.assert_array_equal(few.loadings, many.loadings[:, :40])
    counts = [known(g, depth=Depth()).draw(np.random.default_rng(1)) for g in (few, many)]
    np.testing.assert_array_equal(counts[0], counts[1][:, :40])
    assert (generated_genes(40, seed=4).made != few.made).any()


def test_levels_are_log_normal_around_the_stated_count():
    genes = generated_genes(4000, mean_count=5.0, level_spread=0.7)
    assert np.median(genes.mean_count) == pytest.approx(5.0, rel=0.05)
    assert np.log(genes.mean_count).std() == pytest.approx(0.7, rel=0.05)
    made = cells_by_tissue() @ genes.made
    np.testing.assert_allclose(made.mean(axis=0), genes.mean_count, rtol=1e-4)


@pytest.mark.parametrize("on_off", [0, 3])
def test_draws_have_the_known_covariance_in_each_tissue(on_off):
    genes = generated_genes(12, on_off=on_off, own_to_tissue=1.0, length=0.0, residual=0.7)
    for tissue in (0, 2):
        rows = residuals(known(genes, tissue=tissue, side=100), draws=8).reshape(-1, 12)
        expected = genes.covariance(tissue)
        error = np.cov(rows.T) - expected
        assert np.abs(error).max() < 0.03 * np.diag(expected).max()
        assert np.abs(rows.mean(axis=0)).max() < 0.02
    assert np.abs(genes.covariance(0) - genes.covariance(2)).max() > 0.1


def test_tissues_share_their_covariance_where_none_is_their_own():
    genes = generated_genes(20, own_to_tissue=0.0)
    np.testing.assert_array_equal(genes.covariance(0), genes.covariance(4))


def test_factors_are_correlated_between_spots_as_far_as_stated():
    xy = grid(9)
    over = mixing(xy, PITCH_UM, 1.5)
    covariance = (over @ over.T).toarray()
    np.testing.assert_allclose(np.diag(covariance), 1.0)
    middle = 40
    away = np.linalg.norm(xy - xy[middle], axis=1) / PITCH_UM
    near = away <= 2
    np.testing.assert_allclose(covariance[middle, near], np.exp(-(away[near] ** 2) / (2 * 1.5**2)), atol=0.03)
    genes = generated_genes(1, shared=1.0, factors=1, length=1.5)
    found = residuals(known(genes, tissue=0, side=9), draws=1500)[:, :, 0]
    empirical = np.corrcoef(found.T)[middle]
    np.testing.assert_allclose(empirical, covariance[middle], atol=0.12)


def test_without_a_length_no_spot_knows_of_another():
    assert (mixing(grid(3), PITCH_UM, 0.0).toarray() == np.eye(9)).all()


def test_depth_is_heavy_tailed_as_stated_and_leaves_a_few_spots_nearly_empty():
    depth = Depth()
    values = depth.draw(mixing(grid(1000), PITCH_UM, 0.0), np.random.default_rng(0))
    assert values.mean() == pytest.approx(0, abs=2e-3)
    assert values.var() == pytest.approx(depth.variance, rel=0.01)
    centred = values - values.mean()
    assert (centred**4).mean() / values.var() ** 2 == pytest.approx(depth.kurtosis, rel=0.05)
    assert 8 < depth.kurtosis < 18
    assert np.log(np.exp(values).mean()) == pytest.approx(depth.log_mean_factor, abs=3e-3)
    assert 0.002 < (values < np.log(0.2)).mean() < 0.01


@pytest.mark.parametrize("on_off", [0, 2])
def test_counts_agree_with_their_expectation(on_off):
    genes = generated_genes(10, on_off=on_off)
    expression = known(genes, side=5, depth=Depth(), log_depth=0.4)
    rng = np.random.default_rng(5)
    counts = np.mean([expression.draw(rng) for _ in range(1500)], axis=0)
    expected = expression.expected_counts()
    np.testing.assert_allclose(counts.mean(axis=0), expected.mean(axis=0), rtol=0.03)
    np.testing.assert_allclose(counts, expected, rtol=0.25)


def test_counts_are_poisson_around_their_rate():
    rate = np.full((200_000, 2), (0.7, 9.0))
    counts = counted(rate, np.random.default_rng(0))
    np.testing.assert_allclose(counts.mean(axis=0), rate[0], rtol=0.02)
    np.testing.assert_allclose(counts.var(axis=0), rate[0], rtol=0.02)


def test_one_gaussian_has_the_mean_covariance_and_no_context():
    genes = generated_genes(15, on_off=3, own_to_tissue=0.8)
    shares = np.array([5.0, 1, 2, 0, 2])
    pooled = genes.one_gaussian(shares)
    mean = sum(share * genes.covariance(t) for t, share in enumerate(shares / shares.sum()))
    for tissue in range(len(TISSUES)):
        np.testing.assert_allclose(pooled.covariance(tissue), mean, atol=1e-5)
    exact, gaussian = (
        residuals(known(replace(g, length=0.0), tissue=0, side=200)).reshape(-1, 15) for g in (genes, pooled)
    )
    along = genes.loadings[0, :, 0].astype(np.float64)
    kurtosis = [((x - x.mean()) ** 4).mean() / x.var() ** 2 for x in (exact @ along, gaussian @ along)]
    assert kurtosis[1] == pytest.approx(3, abs=0.15)
    assert kurtosis[0] > kurtosis[1] + 0.3


def test_the_tissue_of_a_spot_is_what_makes_most_of_its_rna():
    np.testing.assert_array_equal(main_tissue(cells_by_tissue()), np.arange(len(TISSUES)))


def test_genes_follow_the_cells_that_make_them():
    genes = generated_genes(200)
    rates = known(genes, side=5).log_rate()[: len(TISSUES)]
    assert (rates.max(axis=0) - rates.min(axis=0) > np.log(3)).mean() > 0.5


@pytest.mark.parametrize("values", [{"number": 0}, {"on_off": 9}, {"shared": 1.5}, {"own_to_tissue": -0.1}])
def test_numbers_that_make_no_genes_are_refused(values):
    with pytest.raises(UserError, match="cannot be generated"):
        generated_genes(**({"number": 5} | values))


def test_a_painted_slide_takes_generated_genes_and_is_painted_the_same():
    genes = generated_genes(80)
    plain, generated = simulate(3, size_px=600), simulate(3, size_px=600, genes=genes)
    np.testing.assert_array_equal(plain.image, generated.image)
    assert plain.known is None
    assert tuple(generated.counts.var_names) == genes.names
    assert tuple(generated.counts.obs_names) == plain.spots.ids
    np.testing.assert_array_equal(generated.counts.obs, plain.counts.obs)
    visible = np.log(generated.counts.layers["visible"])
    np.testing.assert_allclose(visible, generated.known.log_rate(), atol=1e-5)
    assert generated.counts.X.sum() == pytest.approx(generated.counts.layers["rate"].sum(), rel=0.02)
    assert (np.round(generated.counts.X) == generated.counts.X).all()
