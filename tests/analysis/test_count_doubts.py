import numpy as np
import pytest
from scipy import sparse

from napari_flag.analysis import count_doubts


@pytest.fixture
def counts():
    """Counts of 200 spots and 60 genes, as negative binomial as real ones."""
    rng = np.random.default_rng(0)
    level = np.exp(rng.normal(1.0, 1.5, 60)) * np.exp(rng.normal(0, 0.4, (200, 1)))
    return rng.negative_binomial(2, 2 / (2 + level)).astype(np.float32)


def test_raw_counts_are_not_unlikely_however_few_they_are(counts):
    rng = np.random.default_rng(1)
    for thinned in (counts, rng.binomial(counts.astype(int), 0.1), rng.binomial(counts.astype(int), 0.001)):
        assert count_doubts.unlikely(sparse.csr_matrix(thinned)) == ()
    assert count_doubts.unlikely(counts[:, :6]) == ()
    assert count_doubts.unlikely(counts[:0]) == ()


def dense_ranks(counts):
    return np.stack([np.unique(row, return_inverse=True)[1] for row in counts])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda c: c > 0, "No measured count is above 1"),
        (lambda c: c.clip(max=10), "measured counts are 10 and none is above"),
        (lambda c: np.rint(c * 9.7) % 256, "none is above, as numbers of 8 bits"),
        (lambda c: c + 1, "No measured count is 0"),
        (lambda c: c * np.where(np.arange(200) > 0, 3, 1)[:, None], "of 200 measured spots are multiples"),
        (lambda c: np.rint(c * 3.3), "counts of 0 and none of 1"),
        (dense_ranks, "hold every number up to their highest"),
    ],
)
def test_whole_numbers_that_are_no_raw_counts_are_said(counts, change, said):
    for of in (np.asarray, sparse.csr_matrix):
        [found] = count_doubts.unlikely(of(change(counts).astype(np.float32)))
        assert said in found


def test_genes_whose_levels_are_not_the_predicted_ones_are_said(counts):
    levels = np.log2(counts + 1).mean(axis=0)
    assert count_doubts.of_genes(levels, levels) == ()
    assert count_doubts.of_genes(levels[:10], levels[9::-1]) == ()
    [exchanged] = count_doubts.of_genes(levels, np.random.default_rng(0).permutation(levels))
    assert "as if names of genes were exchanged" in exchanged
    high = np.log2(counts * 30 + 1)
    [logged] = count_doubts.of_genes(high.mean(axis=0), np.log2(np.rint(high) + 1).mean(axis=0))
    assert "as if counts had been logged before" in logged
    [empty] = count_doubts.of_genes(levels, np.where(np.arange(60) < 3, levels, 0))
    assert empty.startswith("57 of 60 genes have no count")
