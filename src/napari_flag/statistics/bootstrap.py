"""95 % bootstrap intervals: over blocks of neighbouring spots, or over genes.

Neighbouring spots are alike, so drawing spots one by one would make intervals too narrow: whole
blocks of √n neighbours are drawn instead (Künsch 1989; √n spots a block keeps as many blocks as
spots in each).  A `Generator` is passed in, so the same seed gives the same interval.
"""

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from napari_flag.statistics.accuracy import BoolArray, FloatArray, constant_genes

Interval: TypeAlias = tuple[float, float]

LEVEL = (2.5, 97.5)
"""Percentiles of a 95 % interval."""
DRAWS = 1000
FEWEST_BLOCKS = 4
"""Below this an interval would be theatre, and none is given."""
ENTRIES_AT_ONCE = 4_000_000
"""(draws × genes) held at once, 32 MB of float64 per array."""
UNKNOWN: Interval = (float("nan"), float("nan"))


def neighbouring_blocks(xy: FloatArray) -> npt.NDArray[np.int64]:
    """Cut the spots into blocks of about √n neighbours by halving along the longer side.

    Parameters
    ----------
    xy
        (n, 2) spot centres, any unit.

    Returns
    -------
    array
        (n,) int64, the block of each spot, 0 … B − 1.
    """
    largest = max(1.0, 1.5 * np.sqrt(len(xy)))
    block = np.zeros(len(xy), dtype=np.int64)
    waiting = [np.arange(len(xy))]
    found = 0
    while waiting:
        members = waiting.pop()
        if len(members) <= largest:
            block[members] = found
            found += 1
            continue
        side = int(np.argmax(np.ptp(xy[members], axis=0)))
        order = members[np.lexsort((xy[members, 1 - side], xy[members, side]))]
        half = len(order) // 2
        waiting += [order[half:], order[:half]]
    return block


def pcc_interval(
    predicted: npt.NDArray[Any],
    measured: npt.NDArray[Any],
    block: npt.NDArray[np.int64],
    generator: np.random.Generator,
    draws: int = DRAWS,
) -> Interval:
    """Interval of the mean over genes of Pearson's r, drawing blocks of spots.

    Parameters
    ----------
    predicted, measured
        (n, G) log2(count + 1), or `composition` of it for cPCC.
    block
        (n,) from `neighbouring_blocks`.
    generator
        Draws the blocks.
    draws
        How often they are drawn.
    """
    if len(np.unique(block)) < FEWEST_BLOCKS:
        return UNKNOWN
    centred_p = predicted.astype(np.float64) - predicted.mean(axis=0, dtype=np.float64)
    centred_m = measured.astype(np.float64) - measured.mean(axis=0, dtype=np.float64)
    constant, left_out = constant_genes(predicted), constant_genes(measured)
    sums = [
        _sum_by_block(part, block)
        for part in (centred_p, centred_m, centred_p**2, centred_m**2, centred_p * centred_m)
    ]
    spots = np.bincount(block).astype(np.float64)
    times = _draw(len(spots), generator, draws)
    rows = max(1, ENTRIES_AT_ONCE // max(1, predicted.shape[1]))
    means = [
        _mean_r(times[start : start + rows], spots, sums, constant, left_out)
        for start in range(0, draws, rows)
    ]
    return percentiles(np.concatenate(means))


def _mean_r(
    times: FloatArray,
    spots: FloatArray,
    sums: list[FloatArray],
    constant: BoolArray,
    left_out: BoolArray,
) -> FloatArray:
    n = (times @ spots)[:, None]
    p, m, pp, mm, pm = (times @ part for part in sums)
    var_p, var_m = pp - p * p / n, mm - m * m / n
    # A draw can miss the few spots where a gene varies: it is then constant in that draw.
    flat_p = constant | (var_p <= 1e-10 * np.maximum(pp, 1e-12))
    flat_m = left_out | (var_m <= 1e-10 * np.maximum(mm, 1e-12))
    scale = np.sqrt(np.where(flat_p | flat_m, 1.0, var_p * var_m))
    r = np.where(flat_p, 0.0, (pm - p * m / n) / scale)
    known = (~flat_m).sum(axis=1)
    total = np.where(flat_m, 0.0, r).sum(axis=1)
    mean: FloatArray = np.where(known > 0, total / np.maximum(known, 1), np.nan)
    return mean


def mse_interval(
    predicted: npt.NDArray[Any],
    measured: npt.NDArray[Any],
    block: npt.NDArray[np.int64],
    generator: np.random.Generator,
    draws: int = DRAWS,
) -> Interval:
    """Interval of the mean over spots and genes of the squared error, drawing blocks of spots."""
    error = predicted.astype(np.float64) - measured.astype(np.float64)
    by_spot = (error * error).mean(axis=1)
    return mean_interval(by_spot, np.ones(len(by_spot)), block, generator, draws)


def mean_interval(
    values: FloatArray,
    weights: FloatArray,
    block: npt.NDArray[np.int64],
    generator: np.random.Generator,
    draws: int = DRAWS,
) -> Interval:
    """Interval of a weighted mean, drawing blocks.

    Parameters
    ----------
    values, weights
        (m,) a value of each spot or gene, and what it weighs in the mean.  Of the differences between two
        scores of the same spots the interval is that of the difference, paired: one is better where it
        excludes 0.
    block
        (m,) from `neighbouring_blocks` for spots; ``np.arange(m)`` draws one by one, as for genes.
    generator
        Draws the blocks.
    draws
        How often they are drawn.
    """
    blocks = len(np.unique(block))
    if blocks < FEWEST_BLOCKS or not np.isfinite(values).all():
        return UNKNOWN
    _, place = np.unique(block, return_inverse=True)
    times = _draw(blocks, generator, draws)
    weight = times @ np.bincount(place, weights=weights)
    total = times @ np.bincount(place, weights=weights * values)
    return percentiles(np.where(weight > 0, total / np.where(weight > 0, weight, 1.0), np.nan))


def gsc_interval(
    correlations_predicted: FloatArray,
    correlations_measured: FloatArray,
    left_out: BoolArray,
    generator: np.random.Generator,
    draws: int = DRAWS,
) -> Interval:
    """Interval of GSC, drawing genes; a gene drawn twice is no pair with itself.

    A pair (i, j) drawn with multiplicities m_i, m_j weighs m_i · m_j, which is the same as drawing
    the genes and dropping the self-pairs, without building each drawn matrix.
    """
    keep = np.flatnonzero(~left_out)
    if len(keep) < 3 or len(correlations_predicted) < len(left_out):
        return UNKNOWN
    chosen = np.ix_(keep, keep)
    p = correlations_predicted[chosen] - correlations_predicted[chosen].mean()
    m = correlations_measured[chosen] - correlations_measured[chosen].mean()
    np.fill_diagonal(p, 0.0)
    np.fill_diagonal(m, 0.0)
    times = _draw(len(keep), generator, draws)
    weight = times.sum(axis=1) ** 2 - (times**2).sum(axis=1)
    sums = [_quadratic(times, part) for part in (p, m, p * p, m * m, p * m)]
    return percentiles(_weighted_r(weight, *sums))


def ssc_interval(
    moran_predicted: FloatArray,
    moran_measured: FloatArray,
    left_out: BoolArray,
    generator: np.random.Generator,
    draws: int = DRAWS,
) -> Interval:
    """Interval of SSC, drawing genes."""
    keep = ~left_out
    if keep.sum() < 3:
        return UNKNOWN
    p = moran_predicted[keep] - moran_predicted[keep].mean()
    m = moran_measured[keep] - moran_measured[keep].mean()
    times = _draw(len(p), generator, draws)
    sums = [times @ part for part in (p, m, p * p, m * m, p * m)]
    return percentiles(_weighted_r(times.sum(axis=1), *sums))


def _weighted_r(
    weight: FloatArray, p: FloatArray, m: FloatArray, pp: FloatArray, mm: FloatArray, pm: FloatArray
) -> FloatArray:
    """Pearson's r from weighted sums: NaN where truth has no spread, 0 where only ours has none."""
    weight = np.maximum(weight, 1.0)
    var_p, var_m = pp / weight - (p / weight) ** 2, mm / weight - (m / weight) ** 2
    # 1e-10 is the square of the range below which `neighbours.ALIKE` calls values alike.
    flat_p, flat_m = var_p <= 1e-10, var_m <= 1e-10
    scale = np.sqrt(np.where(flat_p | flat_m, 1.0, var_p * var_m))
    r: FloatArray = np.where(flat_p, 0.0, (pm / weight - p * m / weight**2) / scale)
    r[flat_m] = np.nan
    return r


def percentiles(draws: FloatArray) -> Interval:
    """Return the 2.5th and 97.5th percentile of the draws that have a value."""
    known = draws[np.isfinite(draws)]
    if len(known) == 0:
        return UNKNOWN
    low, high = np.percentile(known, LEVEL)
    return float(low), float(high)


def _draw(count: int, generator: np.random.Generator, draws: int) -> FloatArray:
    """Return (draws, count) float64: how often each was drawn, with replacement."""
    return generator.multinomial(count, np.full(count, 1 / count), draws).astype(np.float64)


def _sum_by_block(values: FloatArray, block: npt.NDArray[np.int64]) -> FloatArray:
    total = np.zeros((int(block.max()) + 1, values.shape[1]))
    np.add.at(total, block, values)
    return total


def _quadratic(times: FloatArray, matrix: FloatArray) -> FloatArray:
    """Return (draws,) m'Am for each row m of `times`."""
    value: FloatArray = ((times @ matrix) * times).sum(axis=1)
    return value
