"""False discovery rates of many tests at once: of Moran's I over genes, of marker genes, of gene sets."""

import numpy as np

from napari_flag.statistics.accuracy import FloatArray


def q_values(p: FloatArray) -> FloatArray:
    """Return Benjamini & Hochberg's (1995) adjusted p-values; NaN stays NaN and is not counted.

    Parameters
    ----------
    p
        (m,) p-values.

    Returns
    -------
    array
        (m,) float64 q-values in the order of `p`.
    """
    from scipy.stats import false_discovery_control

    q = np.full(len(p), np.nan)
    known = ~np.isnan(p)
    if known.any():
        q[known] = false_discovery_control(p[known], method="bh")
    return q
