"""Spatial domains of a prediction and of its truth, and the labels that others gave the spots."""

from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from napari_flag import keys
from napari_flag.analysis.truth import MEASURED, PREDICTED, Numbers, known_of, sources, values_of
from napari_flag.progress import Step, Steps
from napari_flag.slides.formats.labels import SpotLabels, read_labels

if TYPE_CHECKING:
    from anndata import AnnData

    from napari_flag.statistics.domains import Agreement


LABELS: Final = "labels"
"""What others called the spots: listed and painted as domains are, but found by no method of ours."""
OF_TRUTH: Final = keys.DOMAIN + keys.OF_MEASURED
"""``obs`` column: domains of the measurement, as `keys.DOMAIN` holds those of the prediction."""
COLUMNS: Final = {PREDICTED: keys.DOMAIN, MEASURED: OF_TRUTH, LABELS: keys.LABEL}
"""Source → ``obs`` column."""


def find(adata: "AnnData", source: str, method: str) -> Steps[Numbers]:
    """Find the spatial domains of one source and write them into ``obs``.

    Parameters
    ----------
    adata
        Changed: ``obs["domain"]`` of the prediction, ``obs["domain_measured"]`` of the truth, categories
        "1", "2", … from the largest domain, empty where a spot was not measured.
    source
        `PREDICTED` or `MEASURED`.
    method
        "leiden" or "k-means", with the settings all reports use.

    Returns
    -------
    array
        (n,) int64 numbers from 1, 0 where a spot was not measured.
    """
    from napari_flag.analysis.compare import spot_neighbours
    from napari_flag.statistics.domains import find_domains

    rows, columns = known_of(adata, source)
    values = values_of(adata, source, rows, columns)
    labels = yield from find_domains(values, spot_neighbours(adata, rows), method=method)
    numbers = np.zeros(adata.n_obs, np.int64)
    numbers[rows] = labels + 1
    other = read_domains(adata, MEASURED if source == PREDICTED else PREDICTED)
    if other is not None:
        numbers = _numbered_like(numbers, other)
    write_domains(adata, source, numbers)
    return numbers


def _numbered_like(numbers: Numbers, other: Numbers) -> Numbers:
    """Give domains the numbers, and so the colours, of those of the other source they overlap most with."""
    from napari_flag.statistics.domains import relabel

    seen = (numbers > 0) & (other > 0)
    if not seen.any():
        return numbers
    renamed = dict(zip(numbers[seen].tolist(), relabel(numbers[seen], other[seen]).tolist(), strict=True))
    free = max(*renamed.values(), int(other.max()))
    for number in np.unique(numbers[numbers > 0]).tolist():
        if number not in renamed:
            free += 1
            renamed[number] = free
    return np.array([renamed.get(number, 0) for number in numbers.tolist()], np.int64)


def write_domains(adata: "AnnData", source: str, numbers: Numbers) -> None:
    """Write (n,) domain numbers, 0 for none, into ``obs``, as scanpy writes clusters."""
    import pandas as pd

    names = [str(number) for number in range(1, int(numbers.max(initial=0)) + 1)]
    written = pd.Categorical.from_codes((numbers - 1).tolist(), categories=names)
    adata.obs[COLUMNS[source]] = written


def read_domains(adata: "AnnData", source: str) -> Numbers | None:
    """Return (n,) numbers from 1, 0 for none, of the domains or labels of `source` in ``obs``, or None."""
    if COLUMNS[source] not in adata.obs:
        return None
    column = adata.obs[COLUMNS[source]].astype("category").cat
    rank = {text: number for number, text in enumerate(domain_names(adata, source), start=1)}
    numbers: Numbers = np.array([0, *(rank[str(c)] for c in column.categories)])[column.codes.to_numpy() + 1]
    return numbers


def domain_names(adata: "AnnData", source: str) -> tuple[str, ...]:
    """Return what the domains or labels are called in ``obs``, in the order of `read_domains`' numbers."""
    names = adata.obs[COLUMNS[source]].astype("category").cat.categories.astype(str)
    return tuple(sorted(names, key=lambda text: (not text.isdecimal(), len(text) * text.isdecimal(), text)))


def domain_agreement(adata: "AnnData") -> "Agreement | None":
    """Return how far domains of prediction and truth agree, over spots that have both, or None."""
    from napari_flag.statistics.domains import agreement

    both = [read_domains(adata, source) for source in (PREDICTED, MEASURED)]
    if both[0] is None or both[1] is None:
        return None
    seen = (both[0] > 0) & (both[1] > 0)
    return agreement(both[0][seen], both[1][seen]) if seen.any() else None


def read_for(adata: "AnnData", path: Path) -> Steps[SpotLabels]:
    """Read the labels of `adata`'s spots, which is not changed.

    Raises
    ------
    UserError
        As `slides.labels.read_labels`, and when no spot of `adata` has a label.
    """
    yield Step(f"Reading {path.name}", 0, None)
    labels = read_labels(path)
    labels.of(list(adata.obs_names))
    return labels


def find_missing(adata: "AnnData", method: str) -> Steps[None]:
    """Find the domains of every source that has none yet, so that labels can be held against them."""
    for source in sources(adata):
        if read_domains(adata, source) is None:
            yield from find(adata, source, method)


def told_agreement(adata: "AnnData") -> str:
    """Return how many spots are labelled, and how far the domains found agree with it; "" without labels."""
    from napari_flag.analysis.structure import label_agreement

    if keys.LABEL not in adata.obs:
        return ""
    labelled = int(adata.obs[keys.LABEL].notna().sum())
    found = label_agreement(adata)
    told = [
        f"{word} ARI {found[COLUMNS[source]].ari:.2f}, NMI {found[COLUMNS[source]].nmi:.2f}"
        for source, word in ((PREDICTED, "prediction"), (MEASURED, "truth"))
        if COLUMNS[source] in found
    ]
    counted = f"{labelled:,} of {adata.n_obs:,} spots are labelled"
    return f"{counted}. Domains to labels: {'; '.join(told)}." if told else f"{counted}."
