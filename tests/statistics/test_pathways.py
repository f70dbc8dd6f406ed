"""Gene sets tested among the genes of a panel, and the sets that two sources share beside chance."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import mannwhitneyu

from napari_flag.errors import UserError
from napari_flag.progress import finish
from napari_flag.statistics.markers import differential_genes, rank_sum_scores, wilcoxon
from napari_flag.statistics.multiple_testing import q_values
from napari_flag.statistics.pathways import FEWEST_GENES, enrich, recover, together

GENES = [f"G{g}" for g in range(60)]
SETS = {
    "raised": GENES[:8],
    "other": GENES[20:28],
    "half": [*GENES[4:8], *GENES[40:44]],
    "few": [*GENES[50:54], "elsewhere"],
    "all": GENES,
}


def section(seed=0, raised=slice(0, 8), depth=0.0):
    """80 spots, of which the first 30 are the region; all genes share the spot's depth."""
    rng = np.random.default_rng(seed)
    inside = np.arange(80) < 30
    values = rng.normal(3, 1.0, (80, 60))
    values[inside] += depth
    values[inside, raised] += 1.5
    return values, inside


def test_a_set_is_tested_as_the_rank_sum_of_its_genes_among_the_others():
    values, inside = section()
    found = finish(enrich(values, GENES, inside, None, SETS))
    order = differential_genes(values, GENES, inside).set_index("gene").score
    p = []
    for row in found.table.itertuples():
        members = order.index.isin(SETS[row.set])
        theirs = mannwhitneyu(
            order[members], order[~members], alternative="greater", method="asymptotic", use_continuity=False
        )
        assert row.p == pytest.approx(theirs.pvalue)
        assert row.auc == pytest.approx(theirs.statistic / members.sum() / (~members).sum())
        p.append(theirs.pvalue)
    assert found.table.q.to_numpy() == pytest.approx(q_values(np.array(p)))
    assert found.table.genes[0].split(", ") == [gene for gene in order.index if gene in SETS["raised"]]


def test_depth_that_raises_every_gene_raises_no_set():
    values, inside = section(depth=4.0)
    assert finish(enrich(values, GENES, inside, None, SETS)).raised()[0] == "raised"
    flat, _ = section(raised=slice(0, 0), depth=4.0)
    assert (differential_genes(flat, GENES, inside).q < 1e-6).all()
    assert finish(enrich(flat, GENES, inside, None, SETS)).raised() == ()


def test_sets_with_too_few_genes_here_or_all_of_them_are_skipped_and_named():
    values, inside = section()
    found = finish(enrich(values, GENES, inside, None, SETS))
    assert found.skipped == {"few": FEWEST_GENES - 1, "all": 60}
    assert set(found.table["set"]) == {"raised", "other", "half"}


def test_no_set_at_all_gives_an_empty_table():
    values, inside = section()
    found = finish(enrich(values, GENES, inside, None, {"few": GENES[:2]}, permutations=9))
    assert len(found.table) == 0
    assert found.raised() == ()
    assert recover(found, found).tested == 0


def test_a_prediction_that_raises_the_same_genes_recovers_the_set_and_one_that_does_not_none():
    truth, inside = section(0)
    theirs = finish(enrich(truth, GENES, inside, None, SETS))
    assert theirs.raised()[0] == "raised"
    right = finish(enrich(section(1)[0], GENES, inside, None, SETS, permutations=199))
    wrong_values, _ = section(1, raised=slice(20, 28))
    wrong = finish(enrich(wrong_values, GENES, inside, None, SETS, permutations=199))
    assert recover(right, theirs).shared[0] == "raised"
    found = recover(wrong, theirs)
    assert found.predicted == ("other",)
    assert (found.shared, found.p) == ((), 1.0)


def test_chance_calls_as_many_sets_of_a_prediction_whose_spots_were_dealt_at_random():
    rng = np.random.default_rng(0)
    sets = {f"S{s}": [f"G{g}" for g in range(6 * s, 6 * s + 6)] for s in range(10)}
    truth, inside = section(0, raised=slice(0, 18))
    theirs = finish(enrich(truth, GENES, inside, None, sets))
    assert len(theirs.raised()) == 3
    noise = finish(enrich(rng.normal(size=(80, 60)), GENES, inside, None, sets, permutations=499))
    called = noise.table.assign(q=np.where(np.arange(10) < 2, 0.0, 1.0))
    found = recover(replace(noise, table=called), theirs)
    assert found.predicted == tuple(noise.table["set"][:2])
    assert found.chance == pytest.approx(2 * 3 / 10, abs=0.15)  # hypergeometric: independent, equal sets
    both = np.mean(found.by_chance == 2)
    assert both == pytest.approx(3 * 2 / (10 * 9), abs=0.05)
    assert 0 < found.p <= 1


def test_chance_knows_that_sets_of_genes_that_go_together_come_together():
    rng = np.random.default_rng(1)
    sets = {f"S{s}": [f"G{g}" for g in range(6 * s, 6 * s + 6)] for s in range(10)}
    truth, inside = section(0, raised=slice(0, 18))
    theirs = finish(enrich(truth, GENES, inside, None, sets))
    programme = np.repeat(rng.normal(size=(80, 2)), (18, 42), axis=1)  # the three sets are one programme
    values = programme + 0.3 * rng.normal(size=(80, 60))
    values[inside, :18] += 2.0
    found = recover(finish(enrich(values, GENES, inside, None, sets, permutations=499)), theirs)
    assert len(found.shared) == 3
    assert found.p > 0.2  # three of three, though 1 in 120 choices of three sets of ten


def test_regions_are_added_up_dealing_by_dealing():
    values, inside = section()
    one = finish(enrich(values, GENES, inside, None, SETS, permutations=49, seed=3))
    two = finish(enrich(values, GENES, ~inside, None, SETS, permutations=49, seed=3))
    whole = together({"1": recover(one, one), "2": recover(two, two)})
    assert whole.tested == 6
    assert whole.measured[0] == "1: raised"
    assert len(whole.by_chance) == 49
    opposite = two.dealt[:, list(two.table["set"]).index("raised")]
    assert one.dealt[:, 0] == pytest.approx(-opposite, abs=1e-9)


def test_two_regions_that_share_spots_are_refused():
    values, inside = section()
    with pytest.raises(UserError, match="The regions share"):
        finish(enrich(values, GENES, inside, np.ones(80, bool), SETS))


def test_rank_sums_of_many_splits_are_those_of_each():
    rng = np.random.default_rng(0)
    values = rng.poisson(1.0, (30, 5)).astype(float)
    values[:, 4] = 2.0
    splits = rng.random((30, 3)) < 0.4
    found = rank_sum_scores(values, splits)
    for column in range(3):
        inside = splits[:, column]
        assert found[:, column] == pytest.approx(wilcoxon(values[inside], values[~inside])[0])
    assert (found[4] == 0).all()
