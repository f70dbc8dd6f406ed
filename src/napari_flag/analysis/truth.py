"""What was measured of a prediction: matching spots and genes, and the one mask that every analysis uses.

A prediction holds its measurement in ``layers["measured"]``, NaN where nothing was measured.  Whatever
compares the two cuts both to one `Extent`; whatever describes the prediction alone uses all its spots and
genes.
"""

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt

from napari_flag import keys
from napari_flag.analysis import count_doubts
from napari_flag.analysis.count_doubts import FEWEST_DOUBTED
from napari_flag.errors import COMPARE_ANYWAY, Doubtful, UserError, insist
from napari_flag.formatting import counted, counted_of, number, whole
from napari_flag.prediction_file import provenance
from napari_flag.progress import Step, Steps
from napari_flag.slides.formats.counts import MOST_COUNT, REPEATED, RESOLUTIONS
from napari_flag.slides.lattice import lattice_of
from napari_flag.slides.spots import libraries_among, refuse_repeated, typical_pitch, why_none_shared
from napari_flag.statistics.accuracy import FloatArray as FloatArray

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData


Numbers: TypeAlias = npt.NDArray[np.int64]

FEWEST_SPOTS: Final = 3
"""A correlation needs three."""
GENES_AT_ONCE: Final = 512
"""Genes widened at a time: 5,000 spots of them are 20 MB."""
PREDICTED, MEASURED = "predicted", "measured"
"""The two sources of values; also the ends of the columns of `RegionNumbers.genes`."""


@dataclass(frozen=True, slots=True, eq=False)
class Extent:
    """The spots and genes of a prediction that a source has values for.

    Parameters
    ----------
    spots, genes
        (n,) and (G,) int64, rows and columns of the prediction in ascending order.
    """

    spots: Numbers
    genes: Numbers

    def cut(self, matrix: Any) -> FloatArray:
        """Return the (n, G) float64 values of a (spots, genes) matrix of the prediction, dense or sparse."""
        return dense(matrix[_as_slice(self.spots)][:, _as_slice(self.genes)]).astype(np.float64)

    def parts_of(self, matrix: Any) -> "CutInParts":
        """Return what `cut` does, for parts of spots that are cut when they are asked for."""
        from scipy import sparse

        return CutInParts(self, matrix.tocsr() if sparse.issparse(matrix) else matrix)

    def is_all_of(self, adata: "AnnData") -> bool:
        """Return whether no spot and no gene of `adata` is left out."""
        return bool(len(self.spots) == adata.n_obs and len(self.genes) == adata.n_vars)


@dataclass(frozen=True, slots=True, eq=False)
class CutInParts:
    """The values of a matrix over an extent, (n, G), read in parts of spots; nothing is kept.

    Parameters
    ----------
    extent
        The spots and genes.
    matrix
        (spots, genes) of the prediction, dense or sparse by rows.
    """

    extent: Extent
    matrix: Any

    @property
    def shape(self) -> tuple[int, int]:
        """(n, G)."""
        return len(self.extent.spots), len(self.extent.genes)

    def __getitem__(self, spots: slice) -> FloatArray:
        """Return the float64 values of some spots in a row."""
        return Extent(self.extent.spots[spots], self.extent.genes).cut(self.matrix)


def _as_slice(places: Numbers) -> Numbers | slice:
    """Return ascending places without a gap as a slice, which takes no copy; others as they are."""
    if len(places) and len(places) == places[-1] - places[0] + 1 and (np.diff(places) == 1).all():
        return slice(int(places[0]), int(places[-1]) + 1)
    return places


def extent_of(adata: "AnnData", source: str) -> Extent:
    """Return the spots and genes that `source` has values for.

    Parameters
    ----------
    adata
        A prediction.
    source
        `PREDICTED`, all spots and genes, or `MEASURED`, as `measured_extent`.

    Raises
    ------
    UserError
        When nothing was measured.
    """
    if source == PREDICTED:
        return Extent(np.arange(adata.n_obs), np.arange(adata.n_vars))
    found = measured_extent(adata)
    if found is None:
        raise UserError(
            "The measured layer of this prediction is empty, so there is nothing to compare it with; "
            "choose the counts of the same section."
        )
    return found


def measured_extent(adata: "AnnData") -> Extent | None:
    """Return which spots and genes were measured: the one mask behind every score; None where none was.

    A gene was measured where any spot has a value of it; a spot, where it has a value of each of those genes.
    """
    return _extent_in(adata.layers[keys.MEASURED]) if keys.MEASURED in adata.layers else None


def _extent_in(layer: Any) -> Extent | None:
    """Return the `measured_extent` of a (spots, genes) layer."""
    cells, genes = np.zeros(layer.shape[0], np.int64), np.zeros(layer.shape[1], bool)
    for part in gene_parts(layer.shape[1]):
        known = np.isfinite(dense(layer[:, part]))
        cells += known.sum(axis=1)
        genes[part] = known.any(axis=0)
    found = Extent(np.flatnonzero(cells == genes.sum()), np.flatnonzero(genes))
    return found if len(found.spots) and len(found.genes) else None


def gene_parts(n_genes: int) -> Iterator[slice]:
    """Cut the genes into parts of `GENES_AT_ONCE`, which bounds memory."""
    for start in range(0, n_genes, GENES_AT_ONCE):
        yield slice(start, min(start + GENES_AT_ONCE, n_genes))


def sources(adata: "AnnData") -> tuple[str, ...]:
    """Return which sources `adata` has: the measurement where there is a `measured_extent`."""
    return (PREDICTED,) if measured_extent(adata) is None else (PREDICTED, MEASURED)


def matrix_of(adata: "AnnData", source: str) -> Any:
    """Return the (spots, genes) matrix of a source, dense or sparse: ``X`` or ``layers["measured"]``."""
    return adata.X if source == PREDICTED else adata.layers[keys.MEASURED]


def values_of(adata: "AnnData", source: str) -> FloatArray:
    """Return the (n, G) float64 values of a source over its `extent_of`."""
    return extent_of(adata, source).cut(matrix_of(adata, source))


@dataclass(frozen=True, slots=True)
class Unmatched:
    """What could not be compared: names found on one side only."""

    spots_only_predicted: tuple[str, ...]
    spots_only_measured: tuple[str, ...]
    genes_only_predicted: tuple[str, ...]
    genes_only_measured: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Match:
    """Positions of shared spots and genes: ``predicted[rows, columns]`` ~ ``measured[...]``."""

    rows: npt.NDArray[np.int64]
    columns: npt.NDArray[np.int64]
    measured_rows: npt.NDArray[np.int64]
    measured_columns: npt.NDArray[np.int64]


def match_names(predicted: "AnnData", measured: "AnnData", fewest: int = FEWEST_SPOTS) -> Match:
    """Match spots by id and genes by symbol; a gene listed twice counts where it stands first.

    Parameters
    ----------
    predicted, measured
        Whose names are matched.
    fewest
        Spots that must match.

    Raises
    ------
    UserError
        When no or too few spots match (likely another slide), or no gene does.
    """
    if keys.PROVENANCE in measured.uns:
        raise UserError(
            "The measured file is itself a prediction of napari-flag; give measured counts (h5ad, "
            "Space Ranger folder or ST table) as the second file."
        )
    refuse_repeated(measured.obs_names, "The measured table")
    first = ~measured.var_names.duplicated()
    found_rows = measured.obs_names.get_indexer(predicted.obs_names)
    found_genes = measured.var_names[first].get_indexer(predicted.var_names)
    rows, columns = np.flatnonzero(found_rows >= 0), np.flatnonzero(found_genes >= 0)
    if len(rows) < fewest:
        raise UserError(_too_few_spots(predicted, measured, len(rows)))
    if measured.n_vars == 0:
        raise UserError("The measured table has no genes; give one with counts of the predicted genes.")
    if len(columns) == 0 and (missed := _in_other_letters(predicted, measured)):
        theirs, ours = missed[0]
        raise UserError(
            f"The predicted genes (such as {ours}) are in the measured table in other letters (such as "
            f"{theirs}), which may mean another species; give a table with the symbols of the prediction."
        )
    if len(columns) == 0:
        raise UserError(
            f"None of the predicted genes (such as {predicted.var_names[0]}) is in the measured "
            f"table, whose genes are named like {measured.var_names[0]}; give a table with gene "
            "symbols."
        )
    position = np.flatnonzero(first)
    return Match(rows, columns, found_rows[rows], position[found_genes[columns]])


def _in_other_letters(predicted: "AnnData", measured: "AnnData") -> list[tuple[str, str]]:
    """Return (measured, predicted) symbols that differ in capital and small letters only."""
    there = {str(name) for name in measured.var_names}
    folded = {name.casefold(): name for name in sorted(there)}
    genes = [str(gene) for gene in predicted.var_names]
    return [
        (folded[gene.casefold()], gene) for gene in genes if gene not in there and gene.casefold() in folded
    ]


def other_letters(predicted: "AnnData", measured: "AnnData") -> str | None:
    """Return a sentence on genes that were not matched since their letters differ in case; None for none."""
    missed = _in_other_letters(predicted, measured)
    if not missed:
        return None
    theirs, ours = missed[0]
    return (
        f"The measured table has {counted(len(missed), 'predicted gene')} in other letters (such as {theirs} "
        f"for {ours}), left out of the comparison; write symbols alike to compare them."
    )


def repeated_genes(measured: "AnnData", match: Match) -> str | None:
    """Return a sentence on matched genes that the measured table lists more than once; None for none."""
    again = measured.var_names.duplicated(keep=False)
    if REPEATED in measured.var:
        again = again | measured.var[REPEATED].to_numpy(bool)
    twice = measured.var_names[match.measured_columns][again[match.measured_columns]]
    if not len(twice):
        return None
    return (
        f"{counted(len(twice), 'gene')} {'is' if len(twice) == 1 else 'are'} listed more than once in the "
        f"measured table (such as {twice[0]}); the first of each was used."
    )


def _too_few_spots(predicted: "AnnData", measured: "AnnData", shared: int) -> str:
    names = f"predicted spots are named like {predicted.obs_names[0]!r}"
    if measured.n_obs:
        names += f", measured ones like {measured.obs_names[0]!r}"
    if shared == 0:
        spots, genes = ([str(name) for name in index] for index in (predicted.obs_names, predicted.var_names))
        if why := why_none_shared(spots, measured, genes):
            return f"No spot of the prediction is in the measured table, {why}."
        return (
            f"No spot of the prediction is in the measured table ({names}), so it is most likely "
            "of another slide; choose the table of the slide that was predicted."
        )
    return (
        f"Only {counted_of(shared, predicted.n_obs, 'predicted spot')} are in the measured table, too few to "
        f"compare (at least {FEWEST_SPOTS}), so it is most likely of another slide; choose the "
        "table of the slide that was predicted."
    )


def shared_counts(measured: "AnnData", match: Match) -> FloatArray:
    """Return (n, G) raw counts of what is shared; refuse what cannot be raw counts."""
    block = measured.X[match.measured_rows][:, match.measured_columns]
    counts = dense(block).astype(np.float64)
    if not np.isfinite(counts).all():
        raise UserError(
            "The measured table has empty cells where counts should be; give raw counts, 0 where "
            "nothing was found."
        )
    if counts.max(initial=0) > MOST_COUNT:
        raise UserError(
            f"The measured table holds {counts.max():.4g} where a count should be, more than a spot has of "
            f"any gene (up to {whole(MOST_COUNT)}), so it is damaged; give the table of raw counts as it was "
            "measured."
        )
    odd = (counts < 0) | (counts != np.rint(counts))
    if odd.any():
        raise UserError(
            f"The measured table holds {counts[odd][0]:.4g}, which is not a whole count, so it was "
            "already normalised or logged; give the raw counts."
        )
    if counts.size and not counts.any():
        raise UserError(
            "The measured table holds only zeros for these spots and genes, so nothing was measured; give "
            "the table of raw counts."
        )
    return counts


def doubts_about(predicted: "AnnData", measured: "AnnData", match: Match) -> tuple[str, ...]:
    """Return why matched counts may be wrong though they are well-formed, each the beginning of a sentence.

    Parameters
    ----------
    predicted, measured
        As `match_names` takes them; places are compared where both have ``obsm["spatial"]``.
    match
        What was matched.
    """
    found = [
        _turned_ids(predicted, measured, match),
        _shifted_ids(predicted, measured, match),
        _other_places(predicted, measured, match),
        count_doubts.scaled(measured.X),
    ]
    return tuple(doubt for doubt in found if doubt is not None)


INSISTED: Final = "; they were used all the same, as was insisted on."
"""How a notice on doubtful counts ends that were used; `attach_measured` records it in the provenance."""


def refuse_doubts(predicted: "AnnData", measured: "AnnData", match: Match, force: bool) -> tuple[str, ...]:
    """Refuse what `doubts_about` finds; return as notices what was insisted on, now or by `attach_measured`.

    Raises
    ------
    Doubtful
        The first doubt, unless `force`.
    """
    if _ATTACHED in measured.uns:
        return insisted_on(predicted)
    doubts = doubts_about(predicted, measured, match)
    if doubts and not force:
        raise Doubtful(f"{doubts[0]}; give the raw counts of this section, or {insist(COMPARE_ANYWAY)}.")
    return tuple(f"{doubt}{INSISTED}" for doubt in doubts)


_BY_PLACE: Final = re.compile(r"(\d+)x(\d+)")
_PLACE: Final = re.compile(r"(\d{1,9})[x_](\d{1,9})", re.ASCII)
_ATTACHED: Final = "attached"
"""``uns`` key of counts that are those of a prediction's own layer."""
TURNED: Final = 0.9
"""Share of the spots, predicted or measured, that are found with row and column exchanged where a table is
written so; of another section of the same array about half are."""
ASTRAY: Final = 0.3
"""Pitches between a predicted and a measured spot of one id, in the median, from which they are others."""
SHIFTED: Final = 0.95
"""Share of the spots, predicted and measured, that are found with ids counted from another number where a
table is written so."""
CLEARLY: Final = 0.03
"""Share of the spots by which such ids have to find more than they do as they are written."""
STEPS: Final = ((-1, -1), (-1, 0), (-1, 1), (0, -1), (0, 1), (1, -1), (1, 0), (1, 1))
"""Steps from a spot to those around it on a square array."""
STEPS_OF_HEX: Final = (*((a, b) for a in (-1, 1) for b in (-1, 1)), (-2, 0), (2, 0), (0, -2), (0, 2))
"""The same on a hexagonal one, whichever of the two numbers is the row."""
TURNED_DEGREES: Final = 5.0
"""Turn of measured against predicted places that no registration of one picture needs."""
SAME_SCALE: Final = 0.005
"""Relative difference of scales that jitter of spots explains."""
SCALE_SLACK: Final = 0.05
"""Relative difference of scales that is worth a sentence."""


def _turned_ids(predicted: "AnnData", measured: "AnnData", match: Match) -> str | None:
    parts = [_BY_PLACE.fullmatch(str(name)) for name in predicted.obs_names]
    turned = [f"{part[2]}x{part[1]}" for part in parts if part is not None]
    there = int(measured.obs_names.isin(turned).sum())
    if there < max(len(match.rows) + 1, TURNED * min(predicted.n_obs, measured.n_obs)):
        return None
    return (
        f"The measured table has {whole(there)} of the predicted spots with row and column exchanged and "
        f"{whole(len(match.rows))} as they are, so its ids seem to be written row × column"
    )


def _shifted_ids(predicted: "AnnData", measured: "AnnData", match: Match) -> str | None:
    """Return a doubt where ids that are places in an array (10x13) fit better if counted from another one."""
    fewest, most = sorted((predicted.n_obs, measured.n_obs))
    enough = max(SHIFTED * most, len(match.rows) + CLEARLY * most)
    if fewest < max(FEWEST_DOUBTED, enough):
        return None
    here, there = _written_places(predicted.obs_names), _written_places(measured.obs_names)
    if here is None or there is None:
        return None
    known = {(first, second) for first, second in there.tolist()}
    shared = {
        step: sum((first + step[0], second + step[1]) in known for first, second in here.tolist())
        for step in (STEPS_OF_HEX if lattice_of(here) == "hex" else STEPS)
    }
    step = max(shared, key=lambda each: shared[each])
    if shared[step] < enough:
        return None
    return (
        f"The measured table has {whole(shared[step])} of the predicted spots if its ids are moved by "
        f"{whole(-step[0])} and {whole(-step[1])}, and {whole(len(match.rows))} as they are, so its ids seem "
        "to be counted from another number"
    )


def _written_places(names: "pd.Index") -> Numbers | None:
    """Return (n, 2) what ids like 10x13 and 10_13 state, None where one is written otherwise."""
    parts = [_PLACE.fullmatch(str(name)) for name in names]
    stated = [(int(part[1]), int(part[2])) for part in parts if part is not None]
    return np.array(stated, np.int64).reshape(-1, 2) if len(stated) == len(parts) else None


@dataclass(frozen=True, slots=True, eq=False)
class _Places:
    """Where matched spots lie by prediction and by measurement, as far as both state it.

    Parameters
    ----------
    here, there
        (n, 2) float64, predicted and measured.
    unplaced
        Matched spots for which the measured table has no finite place.
    """

    here: FloatArray
    there: FloatArray
    unplaced: int

    @property
    def flat(self) -> bool:
        """Whether the measured ones are one point or on one line."""
        return bool(np.linalg.matrix_rank(self.there - self.there.mean(axis=0)) < 2)

    def fit(self) -> tuple[FloatArray, FloatArray]:
        """Return the (3, 2) affine from measured to predicted places, and (n,) how far it misses them."""
        design = np.column_stack([self.there, np.ones(len(self.there))])
        found: FloatArray = np.asarray(np.linalg.lstsq(design, self.here, rcond=None)[0], np.float64)
        apart: FloatArray = np.linalg.norm(design @ found - self.here, axis=1)
        return found, apart


def _places(predicted: "AnnData", measured: "AnnData", match: Match) -> _Places | None:
    """Return the places of matched spots; None where one side states none, or for too few spots."""
    if keys.SPATIAL not in measured.obsm or keys.SPATIAL not in predicted.obsm:
        return None
    here = np.asarray(predicted.obsm[keys.SPATIAL], np.float64)[match.rows][:, :2]
    there = np.asarray(measured.obsm[keys.SPATIAL], np.float64)[match.measured_rows][:, :2]
    if len(here) < FEWEST_DOUBTED or there.shape[1] < 2:
        return None
    finite = np.isfinite(there).all(axis=1)
    return _Places(here[finite], there[finite], int((~finite).sum()))


def _other_places(predicted: "AnnData", measured: "AnnData", match: Match) -> str | None:
    places = _places(predicted, measured, match)
    if places is None or len(places.here) < FEWEST_DOUBTED or places.flat:
        return None
    found, apart = places.fit()
    pitch = typical_pitch(places.here)
    if np.median(apart) > ASTRAY * pitch:
        return (
            "Spots of the same id lie elsewhere in the measured table "
            f"({number(np.median(apart) / pitch, 1)} spots away, "
            "in the median), so ids and counts seem to be mixed up"
        )
    (xx, xy), (yx, yy) = found[:2].tolist()
    by_place = all(_PLACE.fullmatch(str(name)) for name in predicted.obs_names)
    if by_place and min(xy, yx) > 10 * max(abs(xx), abs(yy)):
        return (
            "Spots of the same id lie with x and y exchanged in the measured table, so its ids, or its "
            "positions, seem to be written the other way round"
        )
    if xx * yy - xy * yx < 0:
        return (
            "Spots of the same id lie mirrored in the measured table, so its ids or positions are wrong, or "
            "either picture was flipped"
        )
    turned = math.degrees(math.atan2(xy - yx, xx + yy))
    if abs(turned) > TURNED_DEGREES:
        return (
            f"Spots of the same id lie turned by {number(abs(turned), 0)}° in the measured table, so its ids "
            "or positions are wrong, or either picture was turned"
        )
    away = np.median(places.here - _scale(found) * places.there, axis=0) / pitch
    if np.linalg.norm(away) <= ASTRAY:
        return None
    return (
        f"All spots lie elsewhere in the measured table by the same way (x {number(-away[0], 1)} and y "
        f"{number(-away[1], 1)} spots), so its ids are counted from another number, or its positions are of "
        "another slide or part of it"
    )


def _scale(found: FloatArray) -> float:
    """Return predicted px per unit of the measured table; 1 for what the fit cannot tell from it."""
    scale = float(np.sqrt(abs(np.linalg.det(found[:2]))))
    return 1.0 if abs(scale - 1.0) <= SAME_SCALE else scale


def remarks_on(predicted: "AnnData", measured: "AnnData", match: Match) -> tuple[str, ...]:
    """Return sentences on what matched counts may be wrong by and may well be right by, which is not refused.

    Parameters
    ----------
    predicted, measured, match
        As `doubts_about` takes them.
    """
    found = [libraries_among(measured.obs_names.astype(str)), *_place_remarks(predicted, measured, match)]
    return tuple(said for said in (*found, *count_doubts.unlikely(measured.X)) if said is not None)


def _place_remarks(predicted: "AnnData", measured: "AnnData", match: Match) -> list[str]:
    places = _places(predicted, measured, match)
    if places is None:
        return []
    said = []
    if places.unplaced:
        spots = counted_of(places.unplaced, len(match.rows), "matched spot")
        said.append(
            f"{spots} have no position in the measured table, so they are matched by their ids alone."
        )
    if len(places.here) < FEWEST_DOUBTED:
        return said
    if places.flat:
        return [
            *said,
            "The positions in the measured table are all in one place or on one line, so they are not "
            "theirs, and spots are matched by their ids alone.",
        ]
    scale = _scale(places.fit()[0])
    known = (*measured.uns.get(RESOLUTIONS, ()), 1.0)
    if all(abs(scale / each - 1.0) > SCALE_SLACK for each in known):
        said.append(
            f"Positions in the measured table are {1 / scale:.3g} times those of the prediction, which is "
            "right where they count in another image or in µm; check that it is of this slide."
        )
    return said


def find_unmatched(predicted: "AnnData", measured: "AnnData") -> Unmatched:
    """List the names found on one side only, in the order of their table."""

    def only(here: "pd.Index", there: "pd.Index") -> tuple[str, ...]:
        return tuple(str(name) for name in here[~here.isin(there)])

    return Unmatched(
        spots_only_predicted=only(predicted.obs_names, measured.obs_names),
        spots_only_measured=only(measured.obs_names, predicted.obs_names),
        genes_only_predicted=only(predicted.var_names, measured.var_names),
        genes_only_measured=only(measured.var_names, predicted.var_names),
    )


def dense(values: Any) -> npt.NDArray[Any]:
    """Return an array whether `values` is sparse or not."""
    from scipy import sparse

    return np.asarray(values.toarray() if sparse.issparse(values) else values)


@dataclass(frozen=True, slots=True, eq=False)
class MeasuredLayer:
    """What was measured, as a prediction holds it.

    Parameters
    ----------
    values
        (spots, genes) float32 of the prediction: log2(count + 1), NaN where nothing was measured.
    insisted
        What looked wrong and was insisted on, as notices.
    known
        The measured layer that the prediction held already, where it says the same; else None.
    """

    values: npt.NDArray[np.float32]
    insisted: tuple[str, ...] = ()
    known: Any = None

    def put_into(self, predicted: "AnnData") -> None:
        """Make it ``layers["measured"]`` of the prediction it was made for, which records the notices.

        What was computed of another measurement goes, as in `detach_measured`.
        """
        if self.known is None or predicted.layers.get(keys.MEASURED) is not self.known:
            _drop_derived(predicted)
        predicted.layers[keys.MEASURED] = self.values
        if self.insisted or insisted_on(predicted):  # of these counts, no longer of those before
            made = provenance(predicted)
            others = [str(notice) for notice in made.get(keys.NOTICES, ())]
            others = [notice for notice in others if not notice.endswith(INSISTED)]
            predicted.uns[keys.PROVENANCE] = {**made, keys.NOTICES: [*others, *self.insisted]}


def measured_layer(predicted: "AnnData", measured: "AnnData", *, force: bool = False) -> MeasuredLayer:
    """Return log2(count + 1) of what was measured over the spots and genes of a prediction.

    Parameters
    ----------
    predicted
        The prediction; it is not changed.
    measured
        Raw counts, rows named by spot id.
    force
        Take counts that look wrong as well.

    Raises
    ------
    UserError
        As `match_names`, `shared_counts` and `refuse_doubts`.
    """
    match = match_names(predicted, measured)
    counts = shared_counts(measured, match)
    insisted = refuse_doubts(predicted, measured, match, force)
    values = np.full(predicted.shape, np.nan, dtype=np.float32)
    values[np.ix_(match.rows, match.columns)] = np.log2(counts + 1.0)
    known = predicted.layers[keys.MEASURED] if _holds(predicted, values) else None
    return MeasuredLayer(values, insisted, known)


def attach_measured(predicted: "AnnData", measured: "AnnData", *, force: bool = False) -> tuple[str, ...]:
    """Put log2(count + 1) of what was measured into ``layers["measured"]``, NaN elsewhere.

    Parameters
    ----------
    predicted
        The prediction; changed in place.  What was computed of another measurement goes, as in
        `detach_measured`.
    measured
        Raw counts, rows named by spot id.
    force
        Attach counts that look wrong as well, and record so among the notices of the prediction.

    Returns
    -------
    What was insisted on, as notices.

    Raises
    ------
    UserError
        As `measured_layer`; `predicted` is then unchanged.
    """
    layer = measured_layer(predicted, measured, force=force)
    layer.put_into(predicted)
    return layer.insisted


def detach_measured(adata: "AnnData") -> None:
    """Remove what was measured, and what was computed of it: its Moran's I, domains and markers."""
    adata.layers.pop(keys.MEASURED, None)
    _drop_derived(adata)


def _drop_derived(adata: "AnnData") -> None:
    for key in (keys.DOMAIN_METHOD, keys.MORAN, keys.MARKERS):
        adata.uns.pop(key + keys.OF_MEASURED, None)
    adata.uns.pop(keys.STRUCTURE, None)  # which says that all of it was written
    if keys.DOMAIN + keys.OF_MEASURED in adata.obs:
        del adata.obs[keys.DOMAIN + keys.OF_MEASURED]


def _holds(adata: "AnnData", layer: FloatArray) -> bool:
    """Return whether the measured layer of `adata` is `layer` over the extent of either."""
    here, there = measured_extent(adata), _extent_in(layer)
    if here is None or there is None:
        return False
    if not np.array_equal(here.spots, there.spots) or not np.array_equal(here.genes, there.genes):
        return False
    parts = [Extent(here.spots, here.genes[part]) for part in gene_parts(len(here.genes))]
    return all(np.array_equal(part.cut(adata.layers[keys.MEASURED]), part.cut(layer)) for part in parts)


def insisted_on(predicted: "AnnData") -> tuple[str, ...]:
    """Return what looked wrong about the attached counts of a prediction, as the notices that record it."""
    notices = (str(notice) for notice in provenance(predicted).get(keys.NOTICES, ()))
    return tuple(notice for notice in notices if notice.endswith(INSISTED))


def _counts_over(adata: "AnnData", extent: Extent) -> "AnnData":
    """Return the raw counts behind ``layers["measured"]``, log2(count + 1), over an extent."""
    from anndata import AnnData

    # float32 holds log2(count + 1) to a ten-thousandth of a count, so rounding brings counts back
    found = AnnData(np.rint(np.exp2(extent.cut(adata.layers[keys.MEASURED])) - 1.0))
    found.uns[_ATTACHED] = True
    found.obs_names, found.var_names = adata.obs_names[extent.spots], adata.var_names[extent.genes]
    return found


def truth_of(
    adata: "AnnData", attached: "AnnData | None" = None, *, refused: bool = False
) -> "Steps[AnnData | None]":
    """Return the counts that a prediction is judged by, None where there are none.

    Parameters
    ----------
    adata
        A prediction; not changed.
    attached
        Raw counts that were attached to it, which come first; None takes those of its layer, over
        `measured_extent`.
    refused
        Leave out those of its layer, which could not be compared.
    """
    if attached is not None:
        return attached
    if refused or keys.MEASURED not in adata.layers:
        return None
    yield Step("Reading the measurement", 0)
    extent = measured_extent(adata)
    return None if extent is None else _counts_over(adata, extent)
