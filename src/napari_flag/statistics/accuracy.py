"""How close predicted expression is to measured expression, gene by gene.

Every array is (n spots, G genes), log2(count + 1).  A gene that is constant in truth has no
correlation and comes back as NaN, so that averages can leave it out and count it; a gene predicted
constant scores 0, so that a constant prediction is not left out of the mean.
"""

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

FloatArray: TypeAlias = npt.NDArray[np.float64]
BoolArray: TypeAlias = npt.NDArray[np.bool_]

ROUNDING = 1e-6
"""Values (relative to the largest, at least 1) closer than this are one value stored in float32."""


def constant_genes(values: npt.NDArray[Any]) -> BoolArray:
    """Return (G,) bool: which genes are the same in every spot, up to float32 rounding."""
    low = values.min(axis=0).astype(np.float64)
    high = values.max(axis=0).astype(np.float64)
    largest = np.maximum(np.maximum(np.abs(low), np.abs(high)), 1.0)
    constant: BoolArray = (high - low) <= ROUNDING * largest
    return constant


def pearson(predicted: FloatArray, measured: FloatArray, tolerance: float = ROUNDING) -> float:
    """Correlate two vectors (m,): NaN if `measured` is constant, 0 if only `predicted` is.

    `tolerance` is the range below which a vector counts as constant.
    """
    if len(measured) < 2 or np.ptp(measured) <= tolerance:
        return float("nan")
    if np.ptp(predicted) <= tolerance:
        return 0.0
    a = predicted - predicted.mean()
    b = measured - measured.mean()
    return float(a @ b / np.sqrt((a @ a) * (b @ b)))


def gene_pearson(predicted: npt.NDArray[Any], measured: npt.NDArray[Any]) -> FloatArray:
    """Return (G,) Pearson's r of each gene across the spots, by the rules of this module."""
    a = predicted.astype(np.float64) - predicted.mean(axis=0, dtype=np.float64)
    b = measured.astype(np.float64) - measured.mean(axis=0, dtype=np.float64)
    left_out, constant = constant_genes(measured), constant_genes(predicted)
    scale = np.sqrt((a * a).sum(axis=0) * (b * b).sum(axis=0))
    scale[left_out | constant] = 1.0
    r: FloatArray = (a * b).sum(axis=0) / scale
    r[constant] = 0.0
    r[left_out] = np.nan
    return r


def gene_spearman(predicted: npt.NDArray[Any], measured: npt.NDArray[Any]) -> FloatArray:
    """Return (G,) Spearman's rank correlation of each gene, ties sharing their mean rank."""
    from scipy.stats import rankdata

    r = gene_pearson(rankdata(predicted, axis=0), rankdata(measured, axis=0))
    left_out, constant = constant_genes(measured), constant_genes(predicted)
    r[constant] = 0.0
    r[left_out] = np.nan
    return r


def gene_mse(predicted: npt.NDArray[Any], measured: npt.NDArray[Any]) -> FloatArray:
    """Return (G,) mean over spots of (predicted − measured)²; constant genes count too."""
    error = predicted.astype(np.float64) - measured.astype(np.float64)
    mse: FloatArray = (error * error).mean(axis=0)
    return mse


def gene_amplitude(predicted: npt.NDArray[Any], measured: npt.NDArray[Any]) -> FloatArray:
    """Return (G,) var(predicted) / var(measured); NaN where truth is constant.

    PCC, GSC and SSC are blind to it: below 1 the map is flatter than the tissue.
    """
    left_out = constant_genes(measured)
    variance = measured.var(axis=0, dtype=np.float64)
    variance[left_out] = 1.0
    ratio: FloatArray = predicted.var(axis=0, dtype=np.float64) / variance
    ratio[constant_genes(predicted)] = 0.0
    ratio[left_out] = np.nan
    return ratio


def composition(values: npt.NDArray[Any]) -> FloatArray:
    """Subtract from each spot its mean over the genes: what remains when depth is taken away.

    PCC of this is the cPCC of the reports.  Ours, not the paper's.
    """
    wide = values.astype(np.float64)
    centred: FloatArray = wide - wide.mean(axis=1, keepdims=True)
    return centred


def mean_over_genes(scores: FloatArray) -> float:
    """Average the genes that have a score; NaN if none has."""
    known = scores[~np.isnan(scores)]
    return float(known.mean()) if len(known) else float("nan")


def median_over_genes(scores: FloatArray) -> float:
    """Median of the genes that have a score; NaN if none has."""
    known = scores[~np.isnan(scores)]
    return float(np.median(known)) if len(known) else float("nan")
