"""Results of `analysis` that a report shows, computed once."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from napari_flag import keys
from napari_flag.analysis.coexpression import Together, correlate, pick_unlike
from napari_flag.analysis.compare import Comparison, Section, comparing, section_of
from napari_flag.analysis.domains import (
    LABELS,
    Agreement,
    agreement_of,
    domain_names,
    find_all,
    label_agreement,
    method_of,
    read_domains,
)
from napari_flag.analysis.pathways import DomainSets, bundled, recover_domains
from napari_flag.analysis.regions import TOPS, AreaScale, Overlap, compare_rankings
from napari_flag.analysis.set_maps import SetMap, find_set, first_set, map_set, regions_of_domains
from napari_flag.analysis.spatial import gene_moran, spot_neighbours
from napari_flag.analysis.structure import rank_domains
from napari_flag.analysis.truth import (
    MEASURED,
    PREDICTED,
    Numbers,
    attach_measured,
    detach_measured,
    values_of,
)
from napari_flag.prediction_doubts import refuse_misplaced
from napari_flag.prediction_file import sharing, um_per_px
from napari_flag.progress import Steps

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData


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

    codes: Numbers
    names: tuple[str, ...]
    agreements: dict[str, Agreement]

    def to_dict(self) -> dict[str, Any]:
        """Return the numbers as JSON holds them."""
        numbers = {name: asdict(found) for name, found in self.agreements.items()}
        return {"spots": int((self.codes >= 0).sum()), "labels": list(self.names), **numbers}


def labels_of(adata: "AnnData", found: Mapping[str, Numbers]) -> Labelled | None:
    """Compare domains with ``obs["label"]``, which `domains.write_labels` writes; None without it.

    Parameters
    ----------
    adata
        A prediction.
    found
        Source → (n,) domain numbers from 1, 0 for none.
    """
    if keys.LABEL not in adata.obs:
        return None
    numbers = read_domains(adata, LABELS)
    assert numbers is not None
    return Labelled(numbers - 1, domain_names(adata, LABELS), label_agreement(adata, found))


MARKERS: Final = 8
"""Marker genes listed per domain."""
MAPS: Final = 6
"""Genes whose maps are shown."""
MOST_COMPARED: Final = 200
"""Of the most clustered genes, for maps unlike each other."""
FEWEST_GENES: Final = 3
"""A heat map or a scatter of fewer says nothing."""
MOST_GENES: Final = 2000
"""In a heat map of more, a gene is less than a pixel; the most clustered are shown."""


@dataclass(frozen=True, slots=True)
class Domain:
    """One spatial domain and what is high in it.

    Parameters
    ----------
    number
        From 1, the largest of the truth (of the prediction, without truth) first.
    name
        As `domains.domain_names`: the number, or words.
    spots
        How many.
    area
        Of these spots, mm²; NaN where µm/px is not known.
    predicted, measured
        Its leading marker genes against the rest, by prediction and by truth; the latter empty without.
    overlaps
        For each of `TOPS`, how many of the leading markers prediction and truth share where both are known.
    """

    number: int
    name: str
    spots: int
    area: float
    predicted: tuple[str, ...]
    measured: tuple[str, ...]
    overlaps: tuple[Overlap, ...]


@dataclass(frozen=True, slots=True)
class Findings:
    """Results shown in the report of one prediction.

    Parameters
    ----------
    adata
        The prediction, with ``layers["measured"]`` where there is a truth.
    comparison, section
        Scores and matched values; None without truth.
    genes
        One row per gene of the prediction: gene, moran and its q (of X, over all spots), mean; with truth
        also the table of `comparison`, NaN for genes that were not measured.
    neighbours
        Which graph Moran's I and the domains of the prediction used.
    domains, domains_measured
        (n,) int64 numbers from 1 over the spots of `adata`, 0 where a spot was not measured; None where
        there are too few spots, the latter also without truth.
    domain_methods
        Source → method of its domains, None where nothing says who found them.
    likeness
        Agreement of the two; None without truth.
    labels
        What others called the spots, where ``obs["label"]`` says it.
    together
        Correlations of the genes that cluster most; None below three genes.
    markers
        Of each domain.
    pathways
        Gene sets recovered in the truth's domains; None without truth or domains.
    set_map
        One gene set over the domains (the truth's, where there is one); None without domains.
    shown
        Genes whose maps cluster most and differ in pattern.
    """

    adata: "AnnData"
    comparison: Comparison | None
    section: Section | None
    genes: "pd.DataFrame"
    neighbours: str
    domains: Numbers | None
    domains_measured: Numbers | None
    domain_methods: dict[str, str | None]
    likeness: Agreement | None
    labels: Labelled | None
    together: Together | None
    markers: tuple[Domain, ...]
    pathways: DomainSets | None
    set_map: SetMap | None
    shown: tuple[str, ...]


def gather(
    predicted: "AnnData",
    measured: "AnnData | None",
    *,
    comparison: Comparison | None = None,
    sets: Mapping[str, Sequence[str]] | None = None,
    shown_set: str | None = None,
    force: bool = False,
) -> Steps[Findings]:
    """Compute all results that a report shows.

    Parameters
    ----------
    predicted
        A prediction; not changed.  Its domains are those in ``obs``, others are found as
        `domains.domains_of`; they are compared with ``obs["label"]`` where it has that.
    measured
        Raw counts of the same spots, or None.
    comparison
        Of the two, where it was made already.
    sets
        Gene sets to look for in the domains, name → symbols; None takes the bundled ones.
    shown_set
        Of `sets`, the one whose genes are shown; None takes the first with two genes here.
    force
        As of `analysis.compare.comparing`; without counts only of what is said there of the prediction.

    Raises
    ------
    UserError
        As `analysis.compare.comparing`.
    """
    if measured is None:
        refuse_misplaced(predicted, force)
        comparison = None
    elif comparison is None:
        comparison = yield from comparing(predicted, measured, force=force)
    adata = _with_truth(predicted, measured)
    section = None if comparison is None else section_of(adata, comparison)
    clustered = yield from gene_moran(adata)
    table = _gene_table(adata, clustered, comparison)
    found = yield from find_all(adata)
    ours, theirs = found.get(PREDICTED), found.get(MEASURED)
    ranked, of = (ours, PREDICTED) if theirs is None else (theirs, MEASURED)
    names = () if ranked is None else domain_names(adata, of, ranked)
    markers = yield from _markers(adata, ranked, names, theirs is not None)
    known = bundled() if sets is None else sets
    pathways = None if theirs is None else (yield from recover_domains(adata, theirs, known))
    shown = yield from _set_map(adata, ranked, names, known, shown_set)
    together = yield from _correlations(adata, table)
    return Findings(
        adata=adata,
        comparison=comparison,
        section=section,
        genes=table,
        neighbours=spot_neighbours(adata).description,
        domains=ours,
        domains_measured=theirs,
        domain_methods={source: method_of(adata, source) for source in found},
        likeness=agreement_of(ours, theirs),
        labels=labels_of(adata, found),
        together=together,
        markers=markers,
        pathways=pathways,
        set_map=shown,
        shown=_distinct_genes(adata, table),
    )


def _set_map(
    adata: "AnnData",
    numbers: Numbers | None,
    names: Sequence[str],
    sets: Mapping[str, Sequence[str]],
    name: str | None,
) -> Steps[SetMap | None]:
    """Average one set over the domains; one that was asked for by name must have genes here."""
    chosen, members = first_set(sets, adata) if name is None else find_set(sets, name)
    regions = {} if numbers is None else regions_of_domains(numbers, names)
    if not regions or (name is None and not set(members) & set(adata.var_names)):
        return None
    return (yield from map_set(adata, chosen, members, regions))


def _with_truth(predicted: "AnnData", measured: "AnnData | None") -> "AnnData":
    """Return a shallow copy with the truth as a layer, so that the caller's prediction is not changed."""
    adata = sharing(predicted)
    if measured is None:
        detach_measured(adata)
    else:
        attach_measured(adata, measured, force=True)  # compared already
    return adata


def _gene_table(adata: "AnnData", clustered: "pd.DataFrame", comparison: Comparison | None) -> "pd.DataFrame":
    import pandas as pd

    names = [str(gene) for gene in adata.var_names]
    table = pd.DataFrame({"gene": names, "moran": clustered["I"].to_numpy(), "q": clustered["q"].to_numpy()})
    if comparison is None:
        return table.assign(mean=values_of(adata, PREDICTED).mean(axis=0))
    compared = comparison.tables["X"].drop(columns=["moran_predicted", "moran_compared"])
    return table.merge(compared, on="gene", how="left")


def _correlations(adata: "AnnData", table: "pd.DataFrame") -> Steps[Together | None]:
    """Correlate the genes that cluster most."""
    by = _clustering(table)
    most = np.sort(np.argsort(-np.nan_to_num(by, nan=-np.inf), kind="stable")[:MOST_GENES])
    if len(most) < FEWEST_GENES:
        return None
    genes = [str(gene) for gene in table.gene.iloc[most]]
    return (yield from correlate(adata, genes, overall=float("nan")))


def _clustering(table: "pd.DataFrame") -> npt.NDArray[np.float64]:
    """Return Moran's I that genes are chosen by: of the truth, of the prediction without."""
    by: npt.NDArray[np.float64] = table["moran_measured" if "moran_measured" in table else "moran"].to_numpy()
    return by


def _distinct_genes(adata: "AnnData", table: "pd.DataFrame") -> tuple[str, ...]:
    """Choose genes for maps: those that cluster most, each with a pattern of its own.

    With truth two places are kept for the best and the worst predicted of the genes that cluster most.
    """
    truth = "moran_measured" in table
    by = _clustering(table)
    ranked = np.argsort(-np.nan_to_num(by, nan=-np.inf), kind="stable")[: int(np.isfinite(by).sum())]
    if len(ranked) <= MAPS:
        return tuple(table.gene.iloc[ranked])
    source, wanted = (MEASURED, MAPS - 2) if truth else (PREDICTED, MAPS)
    chosen = pick_unlike(adata, source, ranked[:MOST_COMPARED], wanted)
    if truth:
        clear = [column for column in ranked[: max(len(ranked) // 4, MAPS)] if column not in chosen]
        clear.sort(key=lambda column: float(np.nan_to_num(-table.pcc.iloc[column])))
        chosen += [clear[0], clear[-1]]
    return tuple(table.gene.iloc[chosen])


def _markers(
    adata: "AnnData", numbers: Numbers | None, names: Sequence[str], with_truth: bool
) -> Steps[tuple[Domain, ...]]:
    """Rank the genes of each domain by the prediction and, where domains are the truth's, by the truth."""
    if numbers is None:
        return ()
    predicted = yield from rank_domains(adata, PREDICTED, numbers)
    measured = (yield from rank_domains(adata, MEASURED, numbers)) if with_truth else {}
    scale = AreaScale.of(adata, um_per_px(adata))
    domains = []
    for number, table in predicted.items():
        spots = int((numbers == number).sum())
        ours = tuple(table.gene[:MARKERS])
        name = names[number - 1]
        domain = Domain(number, name, spots, scale.of_spots(spots), ours, measured=(), overlaps=())
        if (truth := measured.get(number)) is not None:
            overlaps = yield from compare_rankings(adata, table, truth, numbers == number)
            shared = tuple(found for k, found in zip(TOPS, overlaps, strict=True) if k < len(truth))
            domain = replace(domain, measured=tuple(truth.gene[:MARKERS]), overlaps=shared)
        domains.append(domain)
    return tuple(domains)
