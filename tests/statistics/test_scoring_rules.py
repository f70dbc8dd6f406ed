"""Proper scores of draws agree with the library scoringrules, and are proper."""

import numpy as np
import pytest
import scoringrules
from scipy import sparse

from napari_flag.progress import finish
from napari_flag.statistics.scoring_rules import MOST_GENES, NAMES, proper_scores, scoring_draws

N, G, K = 12, 5, 8


@pytest.fixture
def case() -> tuple[list[np.ndarray], np.ndarray, sparse.csr_array]:
    """Eight draws of twelve spots on a line, each next to the one before and after."""
    random = np.random.default_rng(3)
    truth = random.gamma(2.0, 2.0, (N, G))
    draws = [truth + random.normal(0.3, 1.5, (N, G)) for _ in range(K)]
    line = sparse.csr_array(np.eye(N, k=1) + np.eye(N, k=-1))
    return draws, truth, line


def test_crps_is_that_of_scoringrules(case):
    draws, truth, line = case
    stacked = np.stack(draws, axis=-1)  # (n, G, K)
    expected = scoringrules.crps_ensemble(truth, stacked, estimator="nrg", backend="numpy")
    assert proper_scores(draws, truth, line).means()["CRPS"] == pytest.approx(expected.mean(), rel=1e-10)


def test_energy_scores_of_spots_and_of_maps_are_those_of_scoringrules(case):
    draws, truth, line = case
    found = proper_scores(draws, truth, line)
    by_spot = scoringrules.es_ensemble(
        truth, np.stack(draws, axis=1), backend="numpy"
    )  # members on the axis before the last
    by_gene = scoringrules.es_ensemble(truth.T, np.stack([draw.T for draw in draws], axis=1), backend="numpy")
    np.testing.assert_allclose(found.by_spot["ES"], by_spot, rtol=1e-10)
    np.testing.assert_allclose(found.by_gene["ES-map"], by_gene, rtol=1e-10)


def test_variogram_score_over_genes_is_that_of_scoringrules_over_the_number_of_ordered_pairs(case):
    draws, truth, line = case
    found = proper_scores(draws, truth, line).by_spot["VS-gene"]
    expected = scoringrules.vs_ensemble(truth, np.stack(draws, axis=1), p=0.5, backend="numpy")
    np.testing.assert_allclose(found, expected / G**2, rtol=1e-10)


def test_variogram_score_over_space_is_that_of_scoringrules_over_the_first_ring(case):
    draws, truth, line = case
    found = proper_scores(draws, truth, line)
    stacked = np.stack([draw.T for draw in draws], axis=1)  # (G, K, n)
    weights = np.broadcast_to((line.toarray() > 0).astype(float), (G, N, N))
    expected = scoringrules.vs_ensemble(truth.T, stacked, w=weights, p=0.5, backend="numpy")
    assert found.means()["VS-space"] == pytest.approx(expected.mean() / line.nnz, rel=1e-10)


def fair_means(draws, truth, graph, block=1):
    return finish(scoring_draws(draws, truth, graph, block=block)).means()


def mean_and_error(rows, name):
    """Return the mean of a score and the standard error of that mean."""
    values = [row[name] for row in rows]
    return np.mean(values), np.std(values) / len(values) ** 0.5


def test_fair_scores_of_few_draws_are_those_of_many_on_average_and_plain_ones_are_not():
    random = np.random.default_rng(5)
    line = sparse.csr_array(np.eye(40, k=1) + np.eye(40, k=-1))
    truth, centre = random.normal(0, 1, (40, 6)), random.normal(0, 1, (40, 6))

    def drawn(k):
        return [centre + random.normal(0, 1, (40, 6)) for _ in range(k)]

    many = [fair_means(drawn(40), truth, line) for _ in range(30)]
    fair = [fair_means(drawn(3), truth, line) for _ in range(80)]
    plain = [proper_scores(drawn(3), truth, line).means() for _ in range(80)]
    for name in ("CRPS", "ES", "VS-gene", "VS-space"):
        mean, error = mean_and_error(fair, name)
        of_many, error_of_many = mean_and_error(many, name)
        assert mean == pytest.approx(of_many, abs=4 * np.hypot(error, error_of_many))
        assert mean_and_error(plain, name)[0] > of_many + 4 * error


def test_fair_scores_of_blocks_that_share_their_noise_are_those_of_many_draws_and_vary_less():
    random = np.random.default_rng(6)
    line = sparse.csr_array(np.eye(40, k=1) + np.eye(40, k=-1))
    truth, centre = random.normal(0, 1, (40, 6)), random.normal(0, 1, (40, 6))

    def opposite():
        """Two draws on opposite sides of the centre, as evenly spread as two can be."""
        away = random.normal(0, 1, (40, 6))
        return [centre + away, centre - away]

    def alone(k):
        return [centre + random.normal(0, 1, (40, 6)) for _ in range(k)]

    many = [fair_means(alone(40), truth, line) for _ in range(30)]
    paired = [fair_means([*opposite(), *opposite()], truth, line, block=2) for _ in range(120)]
    believed = [fair_means([*opposite(), *opposite()], truth, line) for _ in range(120)]
    single = [fair_means(alone(4), truth, line) for _ in range(120)]
    for name in ("CRPS", "ES", "VS-gene", "VS-space"):
        mean, error = mean_and_error(paired, name)
        of_many, error_of_many = mean_and_error(many, name)
        assert mean == pytest.approx(of_many, abs=4 * np.hypot(error, error_of_many))
    assert mean_and_error(believed, "ES")[0] < mean_and_error(many, "ES")[0] - 0.05
    assert np.std([row["ES"] for row in paired]) < np.std([row["ES"] for row in single])


def test_fair_scores_need_two_whole_blocks(case):
    draws, truth, line = case
    with pytest.raises(ValueError, match="8 draws are not two or more blocks of 8"):
        fair_means(draws, truth, line, block=8)
    with pytest.raises(ValueError, match="blocks of 3"):
        fair_means(draws, truth, line, block=3)


def test_the_fair_crps_is_that_of_scoringrules(case):
    draws, truth, line = case
    expected = scoringrules.crps_ensemble(truth, np.stack(draws, axis=-1), estimator="fair", backend="numpy")
    assert fair_means(draws, truth, line)["CRPS"] == pytest.approx(expected.mean(), rel=1e-10)


def test_no_false_distribution_scores_better_than_the_true_one_on_average():
    """Same means, but wrong spread, wrong correlation of genes, or wrong correlation of spots."""
    random = np.random.default_rng(0)
    n, genes = 300, 6
    line = sparse.csr_array(np.eye(n, k=1) + np.eye(n, k=-1))

    def field() -> np.ndarray:
        shared = random.normal(size=(n + 2, genes)) @ (0.5 + 0.5 * np.eye(genes))
        return shared[:-2] + shared[1:-1] + shared[2:]

    totals = {"true": [], "too narrow": [], "genes apart": [], "spots apart": []}
    for _ in range(6):
        truth = field()
        cases = {
            "true": [field() for _ in range(8)],
            "too narrow": [0.4 * field() for _ in range(8)],
            "genes apart": [np.stack([field()[:, g] for g in range(genes)], 1) for _ in range(8)],
            "spots apart": [field()[random.permutation(n)] for _ in range(8)],
        }
        for name, draws in cases.items():
            totals[name].append(proper_scores(draws, truth, line).means())
    mean = {name: {s: np.mean([row[s] for row in rows]) for s in NAMES} for name, rows in totals.items()}
    assert all(mean["true"][score] < mean["too narrow"][score] for score in NAMES)
    assert mean["true"]["ES"] < mean["genes apart"]["ES"]
    assert mean["true"]["VS-gene"] < 0.9 * mean["genes apart"]["VS-gene"]
    assert mean["true"]["VS-space"] < 0.9 * mean["spots apart"]["VS-space"]


def test_a_spot_without_neighbours_has_no_weight_in_the_score_over_space(case):
    draws, truth, line = case
    alone = line.toarray()
    alone[0] = 0
    alone[:, 0] = 0
    found = proper_scores(draws, truth, sparse.csr_array(alone))
    without = proper_scores([d[1:] for d in draws], truth[1:], sparse.csr_array(alone[1:, 1:]))
    assert found.means()["VS-space"] == pytest.approx(without.means()["VS-space"])
    assert np.isnan(proper_scores(draws, truth, sparse.csr_array((N, N))).means()["VS-space"])


def test_pairs_of_very_many_genes_are_not_scored():
    wide = np.zeros((2, MOST_GENES + 1))
    pair = sparse.csr_array(np.array([[0.0, 1.0], [1.0, 0.0]]))
    found = proper_scores([wide, wide], wide, pair).means()
    assert np.isnan(found["VS-gene"])
    assert found["CRPS"] == found["ES-map"] == 0


def test_draws_of_other_spots_are_refused(case):
    draws, truth, line = case
    with pytest.raises(ValueError, match="same spots"):
        proper_scores([draws[0][1:]], truth, line)
    with pytest.raises(ValueError, match="same spots"):
        proper_scores([], truth, line)
