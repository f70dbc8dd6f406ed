"""What speaks against counts by their values alone: what was done to them that leaves whole numbers."""

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from napari_flag.formatting import counted_of, number, whole

FEWEST_DOUBTED: Final = 20
"""Spots from which their totals or their places say whether counts are wrong."""
EVEN: Final = 0.005
"""Coefficient of variation of totals per spot below which counts were scaled to one: real ones have .2."""
MOST_LOOKED_AT: Final = 1_000
"""Spots whose counts are looked at, spread evenly."""
TELLING: Final = 10
"""Genes found in a spot from which its counts say whether it was scaled; and values expected from which their
absence says something."""
FEWEST_GENES: Final = 20
"""Genes from which they say by their zeros whether counts are raw."""
FEWEST_LEVELS: Final = 50
"""Genes from which they say so by their levels."""
PILED: Final = 20
"""Values at the maximum, twice those one below it, from which counts were cut off there."""
BYTE: Final = 255
"""The largest number of eight bits, beyond which counts begin at 0 again."""
UNRELATED: Final = 0.2
"""Rank correlation of the levels of predicted and measured genes below which their names seem exchanged: with
weights of one patient of her2st it is .26 and more on every section, with names exchanged within .15 of 0."""
RELATED: Final = 0.5
"""The same from which a range of levels can be compared."""
LEVEL: Final = 0.4
"""Range of the levels of measured genes, over that of predicted ones, below which they seem logged before:
.58 and more on her2st, .33 on the section of the weights where it is logged twice."""


def scaled(counts: Any) -> str | None:
    """Return the beginning of a sentence where all counts, or all totals of spots, were scaled; else None.

    Parameters
    ----------
    counts
        (spots, genes), dense or sparse.
    """
    from scipy import sparse

    values = np.asarray(counts.data if sparse.issparse(counts) else counts).ravel()
    values = values[: 10**6]
    found = values[(values > 0) & (values == np.rint(values))].astype(np.int64)
    unit = int(np.gcd.reduce(found)) if len(found) else 1
    if unit > 1 and len(found) >= FEWEST_DOUBTED and len(np.unique(found[:10_000])) > 1:
        return f"All counts of the measured table are multiples of {whole(unit)}, so they were scaled"
    totals = np.asarray(counts.sum(axis=1), np.float64).ravel()
    totals = totals[totals > 0]  # an empty spot stays empty
    if len(totals) >= FEWEST_DOUBTED and 0 < totals.std() + 1e-9 <= EVEN * totals.mean():
        total = whole(totals.mean())
        return f"All spots of the measured table have the same total ({total}), so counts were scaled to it"
    return None


def unlikely(counts: Any) -> tuple[str, ...]:
    """Return sentences on whole numbers that are unlikely to be raw counts though they may be.

    None of them is so on any section of her2st, nor on a Visium section.

    Parameters
    ----------
    counts
        (spots, genes) whole numbers, dense or sparse.
    """
    from scipy import sparse

    if min(counts.shape) == 0 or counts.shape[0] < FEWEST_DOUBTED:
        return ()
    step = -(-counts.shape[0] // MOST_LOOKED_AT)
    rows = sparse.csr_matrix(counts[::step])
    rows.eliminate_zeros()
    why = next(filter(None, (_cut_off(rows), _without_zeros(rows), _without_ones(rows), _ranks(rows))), None)
    if why is None:
        return ()
    return (f"{why}; check that they are the raw counts as they were measured.",)


def _cut_off(rows: Any) -> str | None:
    values = rows.data
    top = float(values.max(initial=0.0))
    highest, below = int((values == top).sum()), int((values == top - 1).sum())
    if top == 1:
        doubled = highest**2 / (2 * np.prod(rows.shape))  # counts of 2 by Poisson's law, if all were alike
        only = "No measured count is above 1, as if it said only whether a gene was found"
        return only if doubled > TELLING else None
    if top > 1 and highest >= max(PILED, 2 * below):
        return f"{whole(highest)} measured counts are {whole(top)} and none is above, as if they were cut off"
    high = int((values >= BYTE - BYTE // 8).sum())
    if BYTE - 8 < top <= BYTE and high > TELLING:
        return (
            f"{whole(high)} measured counts are just below {BYTE + 1} and none is above, as numbers of 8 bits"
        )
    return None


def _without_zeros(rows: Any) -> str | None:
    if rows.shape[1] < FEWEST_GENES or rows.nnz < np.prod(rows.shape):
        return None
    return "No measured count is 0, as if a number had been added to all of them"


def _without_ones(rows: Any) -> str | None:
    """Return a doubt where most spots have no count of 1, or only multiples of a number."""
    spots = [part for part in _by_spot(rows) if TELLING <= len(part) < rows.shape[1]]
    if len(spots) < FEWEST_DOUBTED:
        return None
    multiples = sum(int(np.gcd.reduce(part)) > 1 for part in spots)
    if 2 * multiples > len(spots):
        return (
            f"The counts of {counted_of(multiples, len(spots), 'measured spot')} are multiples of a number, "
            "as if they were scaled"
        )
    without = sum(int(part.min()) > 1 for part in spots)
    if 2 * without > len(spots):
        return (
            f"{counted_of(without, len(spots), 'measured spot')} have counts of 0 and none of 1, as if they "
            "were scaled"
        )
    return None


def _ranks(rows: Any) -> str | None:
    spots = [part for part in _by_spot(rows) if part.max(initial=0) > TELLING]
    full = sum(len(np.unique(part)) == part.max() for part in spots)
    if len(spots) < FEWEST_DOUBTED or 2 * full <= len(spots):
        return None
    return (
        f"{counted_of(full, len(spots), 'measured spot')} hold every number up to their highest, as ranks do "
        "and counts do not"
    )


def _by_spot(rows: Any) -> list[npt.NDArray[np.int64]]:
    """Return the counts above 0 of each spot."""
    return np.split(rows.data.astype(np.int64), rows.indptr[1:-1])


def of_genes(predicted: npt.NDArray[np.float64], measured: npt.NDArray[np.float64]) -> tuple[str, ...]:
    """Return sentences on the measured genes of a prediction, by their levels.

    Parameters
    ----------
    predicted, measured
        (G,) means over the spots of log2(count + 1).
    """
    if len(measured) < FEWEST_GENES:
        return ()
    found = measured > 0
    said = []
    if 2 * found.sum() < len(found):
        genes = counted_of(int((~found).sum()), len(found), "gene")
        said.append(f"{genes} have no count in any measured spot; check that the table is whole.")
    x, y = predicted[found], measured[found]
    if len(x) < FEWEST_LEVELS or not np.ptp(x) > 0 or not np.ptp(y) > 0:
        return tuple(said)
    from scipy import stats

    related = float(stats.spearmanr(x, y)[0])
    if related < UNRELATED:
        said.append(
            "Genes that are predicted high are not those that were measured high (rank correlation "
            f"{number(related)} over {whole(len(x))} genes), as if names of genes were exchanged; check them "
            "in both files."
        )
    elif related > RELATED and y.std() < LEVEL * x.std():
        said.append(
            f"Measured genes differ in their levels by {number(y.std() / x.std())} of what is predicted, as "
            "if counts had been logged before; check that they are the raw counts as they were measured."
        )
    return tuple(said)
