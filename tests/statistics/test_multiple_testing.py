import numpy as np
import pytest

from napari_flag.statistics.multiple_testing import q_values


def test_q_values_are_benjamini_and_hochbergs():
    multitest = pytest.importorskip("statsmodels.stats.multitest")
    p = np.random.default_rng(0).uniform(size=50) ** 3
    np.testing.assert_allclose(q_values(p), multitest.multipletests(p, method="fdr_bh")[1])
    with_gap = np.insert(p, 7, np.nan)
    np.testing.assert_allclose(np.delete(q_values(with_gap), 7), q_values(p))
    assert np.isnan(q_values(with_gap)[7])
