"""Spatial domains of a prediction and of its truth, and the labels that others gave the spots.

A domain is a number from 1, the largest group of the truth (of the prediction, without truth) first; 0 is a
spot without one.  Domains of the prediction are found in all its spots and genes, whatever was measured;
only their numbers, and so their colours, follow those of the truth.  Domains that a person or another program
named by words keep their names, and their numbers, which are in the order of the names.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from napari_flag import keys
from napari_flag.analysis.spatial import spot_neighbours
from napari_flag.analysis.truth import (
    MEASURED,
    PREDICTED,
    Numbers,
    extent_of,
    matrix_of,
    measured_extent,
)
from napari_flag.formatting import counted_of
from napari_flag.progress import Step, Steps, in_background
from napari_flag.slides.formats.geojson import Colour
from napari_flag.slides.formats.labels import SpotLabels, read_labels
from napari_flag.statistics import domains
from napari_flag.statistics.domains import FEWEST_SPOTS, agreement, relabel
from napari_flag.statistics.domains import Agreement as Agreement

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData


DEFAULT_METHOD: Final = "leiden"
METHOD_NAMES: Final = tuple(domains.METHODS)
LABELS: Final = "labels"
"""What others called the spots: listed and painted as domains are, but found by no method of ours."""
OF_TRUTH: Final = keys.DOMAIN + keys.OF_MEASURED
"""``obs`` column: domains of the measurement, as `keys.DOMAIN` holds those of the prediction."""
ENDS: Final = {PREDICTED: "", MEASURED: keys.OF_MEASURED}
"""Source → end of the keys of its results."""
COLUMNS: Final = {PREDICTED: keys.DOMAIN, MEASURED: OF_TRUTH, LABELS: keys.LABEL}
"""Source → ``obs`` column."""


def find_domains(adata: "AnnData", source: str, *, method: str = DEFAULT_METHOD) -> Steps[Numbers]:
    """Find the spatial domains of one source.

    Parameters
    ----------
    adata
        A prediction; not changed.
    source
        `truth.PREDICTED`, in all spots and genes, or `truth.MEASURED`, in what was measured.
    method
        "leiden" or "k-means", with the settings of `statistics.domains.METHODS`.

    Returns
    -------
    array
        (n,) int64 numbers from 1, the largest domain first; 0 where a spot was not measured.  Of more than
        `statistics.domains.MOST_SPOTS` they are learned on so many (`learned_on`).

    Raises
    ------
    UserError
        Below 10 spots, or when nothing was measured.
    """
    extent = yield from in_background("Finding neighbours", extent_of, adata, source)
    neighbours = yield from in_background("Finding neighbours", spot_neighbours, adata, extent.spots)
    values = extent.parts_of(matrix_of(adata, source))
    numbers = np.zeros(adata.n_obs, np.int64)
    numbers[extent.spots] = 1 + (
        yield from domains.find_domains(values, neighbours, method=method, seed=keys.ANALYSIS_SEED)
    )
    return numbers


def learned_on(adata: "AnnData", source: str, numbers: Numbers | None = None) -> str:
    """Return a sentence on the part of the spots that domains were learned on; "" where it is all of them.

    "" too where nothing says that napari-flag found them.

    Parameters
    ----------
    adata
        A prediction.
    source
        `truth.PREDICTED` or `truth.MEASURED`.
    numbers
        (n,) domains that may be others than those in ``obs``; None takes these.
    """
    numbers = read_domains(adata, source) if numbers is None else numbers
    spots = 0 if numbers is None else int((numbers > 0).sum())
    if spots <= domains.MOST_SPOTS or method_of(adata, source) is None:
        return ""
    return (
        f"Domains were learned on {counted_of(domains.MOST_SPOTS, spots, 'spot')} drawn at random; each "
        "other spot has the domain that it is most like."
    )


def find_all(adata: "AnnData", *, method: str | None = None) -> Steps[dict[str, Numbers]]:
    """Return the domains of every source with enough spots, numbered alike; `adata` is not changed.

    Parameters
    ----------
    adata
        A prediction.
    method
        As `domains_of`: by default domains that are there are kept.

    Returns
    -------
    dict
        Source → as `find_domains`; without those that have fewer than 10 spots and no domains.
    """
    found = {}
    measured = measured_extent(adata)
    spots = {PREDICTED: adata.n_obs, MEASURED: 0 if measured is None else len(measured.spots)}
    kept = {source for source in spots if spots[source] and _kept(adata, source, method) is not None}
    for source in spots:
        if source in kept or spots[source] >= FEWEST_SPOTS:
            found[source] = yield from domains_of(adata, source, method=method)
    if kept.issuperset(found) or (PREDICTED in kept and named_by_words(adata, PREDICTED)):
        return found
    return number_alike(found)


def domains_of(adata: "AnnData", source: str, *, method: str | None = None) -> Steps[Numbers]:
    """Return the domains of one source: those in ``obs``, or where there are none, those found now.

    Parameters
    ----------
    adata
        A prediction; not changed.
    source
        As `find_domains`.
    method
        None keeps domains that are there, and finds others by `method_of`; a name finds them by that.

    Raises
    ------
    UserError
        As `find_domains`.
    """
    kept = _kept(adata, source, method)
    if kept is not None:
        return kept
    by = method_of(adata, source, method) or DEFAULT_METHOD
    return (yield from find_domains(adata, source, method=by))


def method_of(adata: "AnnData", source: str, method: str | None = None) -> str | None:
    """Return the method of the domains that `domains_of` returns; None where nothing says who found them.

    Domains that are not there are found by the method of the other source's, or by Leiden.
    """
    if method is not None:
        return method
    if _kept(adata, source) is not None:
        return _recorded(adata, source)
    others = (_recorded(adata, other) for other in ENDS if _kept(adata, other) is not None)
    return next((name for name in others if name is not None), DEFAULT_METHOD)


def _kept(adata: "AnnData", source: str, method: str | None = None) -> Numbers | None:
    """Return the domains in ``obs``; None without any, or where `method` is to find others."""
    there = None if method is not None else read_domains(adata, source)
    return there if there is not None and there.any() else None


def _recorded(adata: "AnnData", source: str) -> str | None:
    name = str(adata.uns.get(keys.DOMAIN_METHOD + ENDS[source], ""))
    return name if name in domains.METHODS else None


def find(adata: "AnnData", source: str, method: str) -> Steps[Numbers]:
    """Find the spatial domains of one source and write them into ``obs``.

    Parameters
    ----------
    adata
        Changed: ``obs["domain"]`` of the prediction, ``obs["domain_measured"]`` of the truth, categories
        "1", "2", …, empty where a spot was not measured.  Where both are known, those of the prediction take
        the numbers of the truth's they overlap most with, whichever was found first; not where they are named
        by words.
    source, method
        As `find_domains`.

    Returns
    -------
    array
        (n,) int64, the numbers written for `source`.
    """
    found = {source: (yield from find_domains(adata, source, method=method))}
    other = MEASURED if source == PREDICTED else PREDICTED
    before = read_domains(adata, other)
    if before is not None:
        found[other] = before
    methods = {source: method, other: _recorded(adata, other)}
    keeps_names = source == MEASURED and named_by_words(adata, PREDICTED)
    for name, numbers in (found if keeps_names else number_alike(found)).items():
        found[name] = numbers
        write_domains(adata, name, numbers, methods[name])
    return found[source]


def number_alike(found: Mapping[str, Numbers]) -> dict[str, Numbers]:
    """Return domains by source; those of the prediction take the numbers of the truth's they overlap with.

    Domains that overlap with none of the truth's take the numbers after, from the largest.
    """
    if not {PREDICTED, MEASURED} <= set(found):
        return dict(found)
    measured, seen = found[MEASURED], found[PREDICTED] > 0
    numbers = np.zeros_like(found[PREDICTED])
    numbers[seen] = 1 + domains.largest_first(found[PREDICTED][seen])
    both = (numbers > 0) & (measured > 0)
    if both.any():
        renamed = dict(
            zip(numbers[both].tolist(), relabel(numbers[both], measured[both]).tolist(), strict=True)
        )
        free = max(*renamed.values(), int(measured.max()))
        for number in np.unique(numbers[seen]).tolist():
            if number not in renamed:
                free += 1
                renamed[number] = free
        numbers = np.array([renamed.get(number, 0) for number in numbers.tolist()], np.int64)
    return {**found, PREDICTED: numbers}


def write_domains(adata: "AnnData", source: str, numbers: Numbers, method: str | None = None) -> None:
    """Write domains into ``obs``, as scanpy writes clusters, and how they were found into ``uns``.

    Parameters
    ----------
    adata
        Changed; marker genes of other domains that were there go.  The very domains that are there already
        keep the names that they have by words.
    source
        `truth.PREDICTED` or `truth.MEASURED`.
    numbers
        (n,) domain of each spot from 1, 0 for none.
    method
        That found them; None where it is not known.
    """
    before = read_domains(adata, source)
    same = before is not None and np.array_equal(before, numbers)
    if not (same and named_by_words(adata, source)):
        adata.obs[COLUMNS[source]] = as_categories(numbers)
    adata.uns.pop(keys.DOMAIN_METHOD + ENDS[source], None)
    if method is not None:
        adata.uns[keys.DOMAIN_METHOD + ENDS[source]] = method
    if not same:
        adata.uns.pop(keys.STRUCTURE, None)  # which says that the markers are there
    if before is not None and not same:
        adata.uns.pop(keys.MARKERS + ENDS[source], None)


def as_categories(numbers: Numbers) -> "pd.Categorical":
    """Return domain numbers as the categories that occur, "1", "2", …, missing where the number is 0."""
    import pandas as pd

    names = [str(number) for number in range(1, int(numbers.max(initial=0)) + 1)]
    return pd.Categorical.from_codes((numbers - 1).tolist(), categories=names).remove_unused_categories()


def read_domains(adata: "AnnData", source: str) -> Numbers | None:
    """Return (n,) numbers from 1, 0 for none, of the domains or labels of `source` in ``obs``, or None.

    The number decides the order and the colour (`colour_of`) wherever they are listed and painted.
    """
    if COLUMNS[source] not in adata.obs:
        return None
    column = _column(adata, source)
    rank = _numbers_of_names(adata, source)
    numbers: Numbers = np.array([0, *(rank[str(c)] for c in column.categories)])[column.codes.to_numpy() + 1]
    return numbers


def named_by_words(adata: "AnnData", source: str) -> bool:
    """Return whether ``obs`` has domains or labels of `source` of which one is called by no number."""
    if COLUMNS[source] not in adata.obs:
        return False
    return not all(str(name).isdecimal() for name in _column(adata, source).categories)


def domain_names(adata: "AnnData", source: str, numbers: Numbers | None = None) -> tuple[str, ...]:
    """Return what the domains or labels of `source` are called, from number 1 on.

    Labels keep their names, and domains those that are words; other domains are called by their numbers.

    Parameters
    ----------
    adata
        A prediction.
    source
        `truth.PREDICTED`, `truth.MEASURED` or `LABELS`.
    numbers
        (n,) domains that may be others than those in ``obs``; None takes these.
    """
    there = read_domains(adata, source)
    numbers = there if numbers is None else numbers
    assert numbers is not None
    keeps_names = source == LABELS or named_by_words(adata, source)
    if keeps_names and there is not None and np.array_equal(numbers, there):
        return tuple(_numbers_of_names(adata, source))
    return tuple(str(number) for number in range(1, int(numbers.max(initial=0)) + 1))


def domain_title(name: str, word: str = "domain") -> str:
    """Return what a domain of this name is called where nothing else says that it is a domain (`word`)."""
    return f"{word} {name}" if name.isdecimal() else name


def _column(adata: "AnnData", source: str) -> Any:
    """Return the column as categories: a blank name is none, and 2.0 (integers of which some lack) is 2."""
    column = adata.obs[COLUMNS[source]].astype("category").cat.remove_unused_categories()
    names = [_as_name(name) for name in column.cat.categories]
    if names != list(column.cat.categories):
        column = column.astype(object).map(dict(zip(column.cat.categories, names, strict=True)))
        column = column.astype("category")
    return column.cat


def _as_name(name: object) -> str | None:
    text = str(int(name)) if isinstance(name, float) and name.is_integer() else str(name)
    return text if text.strip() else None


def _numbers_of_names(adata: "AnnData", source: str) -> dict[str, int]:
    """Return name in ``obs`` → number, ascending; domains named by numbers from 1 keep them."""
    names = [str(name) for name in _column(adata, source).categories]
    names.sort(key=lambda text: (not text.isdecimal(), len(text) * text.isdecimal(), text))
    numbers = {name: int(name) for name in names if name.isdecimal()}
    if source != LABELS and len(set(numbers.values()) - {0}) == len(names):
        return numbers
    return {name: number for number, name in enumerate(names, start=1)}


PALETTE: Final[tuple[Colour, ...]] = (
    (0, 114, 178), (213, 94, 0), (0, 158, 115), (204, 121, 167), (230, 159, 0), (86, 180, 233),
    (148, 103, 189), (140, 86, 75), (127, 127, 127), (23, 190, 207),
)  # fmt: skip
"""Of domains and labels, in turn: Okabe & Ito 2008, apart for all eyes, and four more."""


def colour_of(number: int) -> Colour:
    """Return the colour of domain, or label, `number` (from 1)."""
    return PALETTE[(number - 1) % len(PALETTE)]


def hex_colour(number: int) -> str:
    """Return the colour of domain, or label, `number` (from 1) as "#0072b2"."""
    return "#{:02x}{:02x}{:02x}".format(*colour_of(number))


def domain_agreement(adata: "AnnData") -> Agreement | None:
    """Return how far domains of prediction and truth in ``obs`` agree, or None where one is missing."""
    return agreement_of(read_domains(adata, PREDICTED), read_domains(adata, MEASURED))


def agreement_of(first: Numbers | None, second: Numbers | None) -> Agreement | None:
    """Return how far two groupings agree over the spots that have both (above 0), None without any."""
    if first is None or second is None:
        return None
    both = (first > 0) & (second > 0)
    return agreement(first[both], second[both]) if both.any() else None


def write_labels(adata: "AnnData", labels: SpotLabels) -> None:
    """Write labels of spots into ``obs["label"]``.

    Parameters
    ----------
    adata
        Changed: "label" is categorical, missing where a spot has no label.
    labels
        As `slides.formats.labels.read_labels` reads them.

    Raises
    ------
    UserError
        When no spot has a label.
    """
    import pandas as pd

    found = labels.of(list(adata.obs_names))
    adata.obs[keys.LABEL] = pd.Categorical([str(label) or None for label in found])


def label_agreement(adata: "AnnData", found: Mapping[str, Numbers] | None = None) -> dict[str, Agreement]:
    """Return how far domains agree with the labels in ``obs``; empty without labels.

    Parameters
    ----------
    adata
        A prediction.
    found
        Source → (n,) domain numbers; None takes those in ``obs``.

    Returns
    -------
    dict
        ``obs`` column of domains → agreement over the spots that have both; without the columns that are not
        there.
    """
    if keys.LABEL not in adata.obs:
        return {}
    labels = read_domains(adata, LABELS)
    agreements = {}
    for source in (PREDICTED, MEASURED):
        numbers = read_domains(adata, source) if found is None else found.get(source)
        known = agreement_of(numbers, labels)
        if known is not None:
            agreements[COLUMNS[source]] = known
    return agreements


def read_for(adata: "AnnData", path: Path) -> Steps[SpotLabels]:
    """Read the labels of `adata`'s spots, which is not changed.

    Raises
    ------
    UserError
        As `slides.formats.labels.read_labels`, and when no spot of `adata` has a label.
    """
    yield Step(f"Reading {path.name}", 0, None)
    labels = read_labels(path)
    labels.of(list(adata.obs_names))
    return labels


def find_missing(adata: "AnnData", method: str) -> Steps[None]:
    """Find the domains of every source that has none yet, so that labels can be compared with them.

    Parameters
    ----------
    adata
        Changed at the very end, as by `find`; sources with too few spots for domains are left out.
    method
        Where no source has domains; others are found by `method_of`, as reports and exports find them.
    """
    kept = {source: there for source in ENDS if (there := _kept(adata, source)) is not None}
    chosen = None if kept else method
    found = yield from find_all(adata, method=chosen)
    methods = {source: method_of(adata, source, chosen) for source in found}
    for source, numbers in found.items():
        if source not in kept or not np.array_equal(numbers, kept[source]):
            write_domains(adata, source, numbers, methods[source])


def labelled_share(labelled: npt.NDArray[np.bool_]) -> str:
    """Return how many spots are `labelled`, (n,), as a sentence without its full stop."""
    return f"{counted_of(int(labelled.sum()), len(labelled), 'spot')} are labelled"


def describe_labels(adata: "AnnData") -> str:
    """Return how many spots are labelled, and how far the domains found agree with it; "" without labels."""
    if keys.LABEL not in adata.obs:
        return ""
    found = label_agreement(adata)
    described = [
        f"{word} {found[COLUMNS[source]].described()}"
        for source, word in ((PREDICTED, "prediction"), (MEASURED, "truth"))
        if COLUMNS[source] in found
    ]
    share = labelled_share(adata.obs[keys.LABEL].notna().to_numpy())
    return f"{share}. Domains to labels: {'; '.join(described)}." if described else f"{share}."
