"""What others called the spots, and how far the domains of a report agree with it."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from napari_flag import keys
from napari_flag.analysis.compare import Comparison, comparing, spot_neighbours
from napari_flag.analysis.structure import FEWEST_IN_DOMAIN
from napari_flag.analysis.truth import attach_measured, dense
from napari_flag.figures.section import Section, section_of
from napari_flag.progress import Step, Steps
from napari_flag.statistics.coexpression import gene_correlations
from napari_flag.statistics.domains import FEWEST_SPOTS, Agreement, agreement, find_domains, relabel
from napari_flag.statistics.markers import Overlap, differential_genes, overlap_at
from napari_flag.statistics.moran import moran_test
from napari_flag.statistics.neighbours import Neighbours

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData


Labels = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Labelled:
    """Labels of spots.

    Parameters
    ----------
    codes
        (n,) int64, which of `names` each spot is, −1 where it has none.
    names
        Of the labels.
    agreements
        Key of domains in ``obs`` (`keys.DOMAIN`, with `keys.OF_MEASURED` those of the truth) → agreement
        over the spots that have both.
    """

    codes: Labels
    names: tuple[str, ...]
    agreements: dict[str, Agreement]

    def to_dict(self) -> dict[str, Any]:
        """Return the numbers as JSON holds them."""
        told = {name: asdict(found) for name, found in self.agreements.items()}
        return {"spots": int((self.codes >= 0).sum()), "labels": list(self.names), **told}


def labels_of(adata: "AnnData", domains: Labels | None, measured: Labels | None) -> Labelled | None:
    """Hold domains against ``obs["label"]``, which `structure.write_labels` writes; None without it.

    Parameters
    ----------
    adata
        A prediction.
    domains, measured
        (n,) int64 of prediction and truth, −1 where there is none; None for what was not found.
    """
    if keys.LABEL not in adata.obs:
        return None
    column = adata.obs[keys.LABEL].astype("category").cat.remove_unused_categories().cat
    codes = column.codes.to_numpy().astype(np.int64)
    agreements = {}
    for name, numbers in ((keys.DOMAIN, domains), (keys.DOMAIN + keys.OF_MEASURED, measured)):
        known = codes >= 0 if numbers is None else (codes >= 0) & (numbers >= 0)
        if numbers is not None and known.any():
            agreements[name] = agreement(numbers[known], codes[known])
    return Labelled(codes, tuple(str(name) for name in column.categories), agreements)


TOPS: Final = (20, 50)
"""How far down the two rankings of marker genes are compared."""
MARKERS: Final = 8
"""Marker genes listed per domain."""
MAPS: Final = 6
"""Genes whose maps are shown."""
ALIKE: Final = 0.7
"""Genes whose values correlate this much over the spots would show the same map twice."""
MOST_LOOKED_AT: Final = 200
"""Of the most clustered genes, for maps unlike each other."""


@dataclass(frozen=True, slots=True)
class Domain:
    """One spatial domain and what is high in it.

    Parameters
    ----------
    number
        From 1, the largest of the truth (of the prediction, without truth) first.
    spots
        How many.
    predicted, measured
        Its leading marker genes against the rest, by prediction and by truth; the latter empty without.
    overlaps
        For each of `TOPS`, how many of the leading markers prediction and truth share.
    """

    number: int
    spots: int
    predicted: tuple[str, ...]
    measured: tuple[str, ...]
    overlaps: tuple[Overlap, ...]


@dataclass(frozen=True, slots=True)
class Findings:
    """What a report says of one prediction.

    Parameters
    ----------
    adata
        The prediction, with ``layers["measured"]`` where there is a truth.
    comparison, section
        Scores and matched values; None without truth.
    genes
        One row per gene: gene, moran and its q (of X), mean; with truth also the table of `comparison`.
    neighbours
        Which graph Moran's I and the domains used.
    domains, domains_measured
        (n,) int64 over the spots of `adata`, −1 where not looked at; the latter None without truth.
    likeness
        Agreement of the two; None without truth.
    labels
        What others called the spots, where ``obs["label"]`` says it.
    markers
        Of each domain.
    shown
        Genes whose maps tell the most.
    """

    adata: "AnnData"
    comparison: Comparison | None
    section: Section | None
    genes: "pd.DataFrame"
    neighbours: str
    domains: Labels | None
    domains_measured: Labels | None
    likeness: Agreement | None
    labels: Labelled | None
    markers: tuple[Domain, ...]
    shown: tuple[str, ...]


def gather(
    predicted: "AnnData",
    measured: "AnnData | None",
    *,
    seed: int = 0,
    comparison: Comparison | None = None,
) -> Steps[Findings]:
    """Compute all that a report says.

    Parameters
    ----------
    predicted
        A prediction; not changed.  Domains are held against ``obs["label"]`` where it has that.
    measured
        Raw counts of the same spots, or None.
    seed
        Of bootstrap and domains.
    comparison
        Of the two, where it was made already.

    Raises
    ------
    UserError
        As `comparison.comparing`.
    """
    if measured is None:
        comparison = None
    elif comparison is None:
        comparison = yield from comparing(predicted, measured, seed=seed)
    adata = _beside(predicted, measured)
    section = None if comparison is None else section_of(adata, comparison)
    rows = np.arange(adata.n_obs) if section is None else section.rows
    neighbours = spot_neighbours(adata, rows)
    guess = dense(adata.X)[rows].astype(np.float64) if section is None else section.predicted
    names = [str(gene) for gene in adata.var_names] if section is None else list(section.genes)
    found = yield from moran_test(guess, neighbours.weights)
    table = _gene_table(names, guess, found, comparison)
    ours, theirs = yield from _domains(guess, section, neighbours, seed)
    markers = yield from _markers(ours if theirs is None else theirs, guess, section, names)
    found_in = _over_all(ours, rows, adata.n_obs), _over_all(theirs, rows, adata.n_obs)
    return Findings(
        adata=adata,
        comparison=comparison,
        section=section,
        genes=table,
        neighbours=neighbours.description,
        domains=found_in[0],
        domains_measured=found_in[1],
        likeness=None if ours is None or theirs is None else agreement(ours, theirs),
        labels=labels_of(adata, *found_in),
        markers=markers,
        shown=_telling(table, guess if section is None else section.truth),
    )


def _domains(
    guess: npt.NDArray[np.float64], section: Section | None, neighbours: Neighbours, seed: int
) -> Steps[tuple[Labels | None, Labels | None]]:
    """Return domains of prediction and truth, numbered alike; None for what there is none of."""
    if len(guess) < FEWEST_SPOTS:
        return None, None
    ours = yield from find_domains(guess, neighbours, seed=seed)
    if section is None:
        return ours, None
    theirs = yield from find_domains(section.truth, neighbours, seed=seed)
    return relabel(ours, theirs), theirs


def _beside(predicted: "AnnData", measured: "AnnData | None") -> "AnnData":
    """Return a shallow copy with the truth beside, so that the caller's prediction is not changed."""
    from anndata import AnnData

    layers = {name: layer for name, layer in predicted.layers.items() if name != keys.MEASURED}
    adata = AnnData(
        X=predicted.X, obs=predicted.obs.copy(), var=predicted.var.copy(), uns=dict(predicted.uns),
        obsm=dict(predicted.obsm), layers=layers,
    )  # fmt: skip
    if measured is not None:
        attach_measured(adata, measured)
    return adata


def _gene_table(
    names: list[str], guess: npt.NDArray[np.float64], found: "pd.DataFrame", comparison: Comparison | None
) -> "pd.DataFrame":
    import pandas as pd

    if comparison is None:
        table = pd.DataFrame({"gene": names, "mean": guess.mean(axis=0), "moran": found["I"].to_numpy()})
    else:
        table = comparison.tables["X"].rename(columns={"moran_predicted": "moran"})
    table["q"] = found["q"].to_numpy()
    return table


def _telling(table: "pd.DataFrame", values: npt.NDArray[np.float64]) -> tuple[str, ...]:
    """Choose genes for maps: those that cluster most, each with a pattern of its own.

    With truth two places are kept for the best and the worst predicted of the genes that cluster most.

    Parameters
    ----------
    table
        One row per gene.
    values
        (n, G) the truth, or the prediction where there is none.
    """
    truth = "moran_measured" in table
    by = table["moran_measured" if truth else "moran"].to_numpy()
    ranked = np.argsort(-np.nan_to_num(by, nan=-np.inf), kind="stable")
    if len(ranked) <= MAPS:
        return tuple(table.gene.iloc[ranked])
    chosen = _unlike(ranked[:MOST_LOOKED_AT], values, MAPS - 2 if truth else MAPS)
    if truth:
        clear = [column for column in ranked[: max(len(ranked) // 4, MAPS)] if column not in chosen]
        clear.sort(key=lambda column: float(np.nan_to_num(-table.pcc.iloc[column])))
        chosen += [clear[0], clear[-1]]
    return tuple(table.gene.iloc[chosen])


def _unlike(ranked: npt.NDArray[np.int64], values: npt.NDArray[np.float64], count: int) -> list[int]:
    """Return the first `count` genes of `ranked` that correlate less than `ALIKE` with those before them."""
    among = gene_correlations(values[:, ranked])
    places: list[int] = []
    for place in range(len(ranked)):
        if len(places) < count and all(among[place, other] < ALIKE for other in places):
            places.append(place)
    places += [place for place in range(len(ranked)) if place not in places][: count - len(places)]
    return [int(ranked[place]) for place in places]


def _over_all(labels: Labels | None, rows: npt.NDArray[Any], n: int) -> Labels | None:
    if labels is None:
        return None
    whole = np.full(n, -1, dtype=np.int64)
    whole[rows] = labels
    return whole


def _markers(
    labels: Labels | None, guess: npt.NDArray[np.float64], section: Section | None, names: list[str]
) -> Steps[tuple[Domain, ...]]:
    found = []
    for number, inside in _regions(labels):
        yield Step("Finding marker genes", number, None, "domains")
        ours = list(differential_genes(guess, names, inside).gene)
        yield Step("Finding marker genes of the truth", number, None, "domains")
        theirs = [] if section is None else list(differential_genes(section.truth, names, inside).gene)
        shared = tuple(overlap_at(ours, theirs, k) for k in TOPS if k < len(names)) if theirs else ()
        found.append(
            Domain(number, int(inside.sum()), tuple(ours[:MARKERS]), tuple(theirs[:MARKERS]), shared)
        )
    return tuple(found)


def _regions(labels: Labels | None) -> Iterator[tuple[int, npt.NDArray[np.bool_]]]:
    if labels is None or labels.max() == 0:
        return
    for number in np.unique(labels):
        inside = labels == number
        if inside.sum() >= FEWEST_IN_DOMAIN:
            yield int(number) + 1, inside
