import numpy as np
import pytest

from napari_flag.statistics import accuracy, bootstrap, coexpression, moran, neighbours


@pytest.fixture
def scene():
    rng = np.random.default_rng(3)
    xy = np.array([(c, r) for r in range(13) for c in range(14)], float)
    truth = np.sin(xy @ rng.normal(0, 0.4, (2, 10))) + rng.normal(0, 0.3, (182, 10))
    return xy, truth + rng.normal(0, 0.5, truth.shape), truth


def test_blocks_hold_about_root_n_neighbouring_spots(scene):
    xy, *_ = scene
    block = bootstrap.neighbouring_blocks(xy)
    sizes = np.bincount(block)
    assert 10 <= len(sizes) <= 20
    assert sizes.min() >= 8
    within = max(np.ptp(xy[block == b], axis=0).max() for b in range(len(sizes)))
    assert within <= 6


def test_intervals_hold_the_score_and_repeat_with_the_seed(scene):
    xy, predicted, truth = scene
    block = bootstrap.neighbouring_blocks(xy)
    low, high = bootstrap.pcc_interval(predicted, truth, block, np.random.default_rng(0))
    again = bootstrap.pcc_interval(predicted, truth, block, np.random.default_rng(0))
    assert (low, high) == again
    assert low < accuracy.mean_over_genes(accuracy.gene_pearson(predicted, truth)) < high
    low, high = bootstrap.mse_interval(predicted, truth, block, np.random.default_rng(0))
    assert low < ((predicted - truth) ** 2).mean() < high


def test_a_block_draw_is_pearson_of_the_drawn_spots(scene):
    """The sums over blocks give what gathering the drawn spots and correlating them would."""
    xy, predicted, truth = scene
    block = bootstrap.neighbouring_blocks(xy)
    blocks = block.max() + 1
    times = np.random.default_rng(7).multinomial(blocks, np.full(blocks, 1 / blocks), 40)
    means = []
    for row in times:
        spots = np.concatenate([np.repeat(np.flatnonzero(block == b), row[b]) for b in range(blocks)])
        spots = np.concatenate([np.tile(np.flatnonzero(block == b), row[b]) for b in range(blocks)])
        means.append(accuracy.gene_pearson(predicted[spots], truth[spots]).mean())
    expected = np.percentile(means, bootstrap.LEVEL)
    ours = bootstrap.pcc_interval(predicted, truth, block, np.random.default_rng(7), draws=40)
    np.testing.assert_allclose(ours, expected, atol=1e-9)


def test_a_gene_draw_is_gsc_of_the_drawn_genes_without_self_pairs(scene):
    _, predicted, truth = scene
    p, m = coexpression.gene_correlations(predicted), coexpression.gene_correlations(truth)
    times = np.random.default_rng(7).multinomial(10, np.full(10, 0.1), 40)
    draws = []
    for row in times:
        genes = np.repeat(np.arange(10), row)
        i, j = np.triu_indices(10, 1)
        i, j = genes[i], genes[j]
        pairs = i != j
        draws.append(np.corrcoef(p[i, j][pairs], m[i, j][pairs])[0, 1])
    ours = bootstrap.gsc_interval(p, m, np.zeros(10, bool), np.random.default_rng(7), draws=40)
    np.testing.assert_allclose(ours, np.percentile(draws, bootstrap.LEVEL), atol=1e-9)


def test_ssc_interval_holds_the_score(scene):
    xy, predicted, truth = scene
    weights = neighbours.nearest_graph(xy, 4)
    p, m = moran.moran_i(predicted, weights), moran.moran_i(truth, weights)
    nobody = np.zeros(10, bool)
    low, high = bootstrap.ssc_interval(p, m, nobody, np.random.default_rng(0))
    assert low <= moran.spatial_structure_correlation(p, m, nobody) <= high


def test_constant_genes_follow_the_rules_of_the_score(scene):
    xy, predicted, truth = scene
    block = bootstrap.neighbouring_blocks(xy)
    without = bootstrap.pcc_interval(predicted[:, 1:], truth[:, 1:], block, np.random.default_rng(0))
    truth[:, 0] = 1.0
    left_out = bootstrap.pcc_interval(predicted, truth, block, np.random.default_rng(0))
    np.testing.assert_allclose(left_out, without, atol=1e-9)
    nothing = bootstrap.pcc_interval(np.zeros_like(truth), truth, block, np.random.default_rng(0))
    assert nothing == (0.0, 0.0)


def test_a_mean_draw_is_the_weighted_mean_of_the_drawn_blocks():
    random = np.random.default_rng(5)
    values, weights = random.normal(size=30), random.integers(0, 5, 30).astype(float)
    block = np.repeat(np.arange(6), 5)
    times = np.random.default_rng(7).multinomial(6, np.full(6, 1 / 6), 40)
    means = [
        np.average(np.concatenate([np.tile(values[block == b], row[b]) for b in range(6)]),
                   weights=np.concatenate([np.tile(weights[block == b], row[b]) for b in range(6)]))
        for row in times
    ]  # fmt: skip
    ours = bootstrap.mean_interval(values, weights, block, np.random.default_rng(7), draws=40)
    np.testing.assert_allclose(ours, np.percentile(means, bootstrap.LEVEL), atol=1e-12)


def test_the_names_of_blocks_do_not_matter_to_a_mean():
    values, ones = np.random.default_rng(5).normal(size=30), np.ones(30)
    block = np.repeat(np.arange(6), 5)
    expected = bootstrap.mean_interval(values, ones, block, np.random.default_rng(0))
    assert bootstrap.mean_interval(values, ones, 7 * block + 3, np.random.default_rng(0)) == expected


def test_a_small_steady_difference_is_seen_where_both_intervals_overlap():
    """Spots differ a lot, and in each the second score is a little higher."""
    random = np.random.default_rng(2)
    a = random.normal(5, 3, 200)
    b = a + random.normal(0.2, 0.3, 200)
    ones, block = np.ones(200), np.arange(200) // 10
    low_a, high_a = bootstrap.mean_interval(a, ones, block, np.random.default_rng(0))
    low_b, _ = bootstrap.mean_interval(b, ones, block, np.random.default_rng(0))
    assert low_a < low_b < high_a
    low, high = bootstrap.mean_interval(a - b, ones, block, np.random.default_rng(0))
    assert low < (a - b).mean() < high < 0
    back = bootstrap.mean_interval(b - a, ones, block, np.random.default_rng(0))
    np.testing.assert_allclose(back, (-high, -low))


def test_two_scores_that_differ_by_chance_are_not_distinguished():
    random = np.random.default_rng(4)
    ones, block = np.ones(400), np.arange(400) // 20
    held = 0
    for _ in range(40):
        a, b = random.normal(size=(2, 400))
        low, high = bootstrap.mean_interval(a - b, ones, block, random)
        held += low <= 0 <= high
    assert held >= 32


def test_a_score_that_is_not_defined_has_no_interval():
    ones, block = np.ones(40), np.arange(40) // 5
    nothing = np.full(40, np.nan)
    assert np.isnan(bootstrap.mean_interval(nothing, ones, block, np.random.default_rng(0))).all()
    assert np.isnan(bootstrap.mean_interval(ones, 0 * ones, block, np.random.default_rng(0))).all()
    assert np.isnan(bootstrap.mean_interval(ones, ones, block // 4, np.random.default_rng(0))).all()


def test_too_few_blocks_give_no_interval():
    xy = np.array([[0.0, 0.0], [1.0, 0.0], [2.0, 0.0]])
    values = np.arange(6.0).reshape(3, 2)
    block = np.zeros(3, np.int64)
    assert len(np.unique(bootstrap.neighbouring_blocks(xy))) < bootstrap.FEWEST_BLOCKS
    assert np.isnan(bootstrap.pcc_interval(values, values, block, np.random.default_rng(0))).all()
    assert np.isnan(bootstrap.mse_interval(values, values, block, np.random.default_rng(0))).all()
