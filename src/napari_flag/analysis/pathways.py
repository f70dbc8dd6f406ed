"""Gene sets raised in regions and domains, and how many of the measurement's a prediction recovers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from napari_flag.analysis.domains import domain_names, domains_of
from napari_flag.analysis.regions import BoolArray
from napari_flag.analysis.structure import comparable_domains
from napari_flag.analysis.truth import (
    MEASURED,
    PREDICTED,
    Extent,
    Numbers,
    extent_of,
    matrix_of,
    measured_extent,
)
from napari_flag.formatting import counted, number, probability, whole
from napari_flag.progress import Steps
from napari_flag.statistics.domains import FEWEST_SPOTS as FEWEST_FOR_DOMAINS
from napari_flag.statistics.gene_sets import bundled as bundled
from napari_flag.statistics.gene_sets import read_gmt as read_gmt
from napari_flag.statistics.markers import FEWEST_SPOTS
from napari_flag.statistics.pathways import (
    FEWEST_GENES,
    PERMUTATIONS,
    Enrichment,
    Recovery,
    enrich,
    recover,
    together,
)

if TYPE_CHECKING:
    from anndata import AnnData


NAMED: Final = 12
"""Sets named in a sentence."""


@dataclass(frozen=True, slots=True, eq=False)
class RegionSets:
    """Gene sets raised in one region against another.

    Parameters
    ----------
    enriched
        Source → `Enrichment`: of the prediction over all its spots and genes, of the truth over what was
        measured; without the truth where fewer than two spots inside, or outside, were measured.
    recovery
        Of the spots and genes that both have; None without truth.
    """

    enriched: dict[str, Enrichment]
    recovery: Recovery | None

    def described(self) -> str:
        """Return how many sets prediction and truth share, in a sentence; "" without truth."""
        return "" if self.recovery is None else describe_recovery(self.recovery)


@dataclass(frozen=True, slots=True, eq=False)
class DomainSets:
    """Gene sets recovered in the domains of the measurement, each against the rest.

    Parameters
    ----------
    domains
        Number → `Recovery`.
    names
        Number → what the domain is called: its number, or words.
    whole
        All domains as one; its sets are called "1: Proliferation".
    skipped
        Set → its genes here, of those with too few to be tested.
    """

    domains: dict[int, Recovery]
    names: dict[int, str]
    whole: Recovery
    skipped: dict[str, int]

    def to_dict(self) -> dict[str, Any]:
        """Return the numbers as JSON holds them."""
        by_domain = {self.names[number]: found.to_dict() for number, found in self.domains.items()}
        return {"domains": by_domain, "whole": self.whole.to_dict(), "skipped": self.skipped}

    def described(self) -> str:
        """Return what was recovered over all domains, and which sets were not tested, in sentences."""
        over = f"Gene sets in {counted(len(self.domains), 'domain')}, each against the rest, added up."
        return f"{over} {describe_recovery(self.whole)} {describe_skipped(self.skipped)}".strip()


def find_region_sets(
    adata: "AnnData", inside: BoolArray, outside: BoolArray | None, sets: Mapping[str, Sequence[str]]
) -> Steps[RegionSets]:
    """Test gene sets in a region, by prediction and truth, and count those that both have raised.

    Parameters
    ----------
    adata
        A prediction, with ``layers["measured"]`` or without.
    inside, outside
        (n,) bool; None takes all other spots.
    sets
        Name → genes.

    Raises
    ------
    UserError
        As `regions.compare_regions`.
    """
    rest = ~inside if outside is None else outside
    measured = measured_extent(adata)
    if measured is not None and min(inside[measured.spots].sum(), rest[measured.spots].sum()) < FEWEST_SPOTS:
        measured = None
    everything = extent_of(adata, PREDICTED)
    if measured is None:
        alone = yield from _enrich(adata, PREDICTED, everything, inside, rest, sets, 0)
        return RegionSets({PREDICTED: alone}, None)
    ours, theirs = yield from _of_both(adata, measured, inside, rest, sets)
    shown = ours
    if not measured.is_all_of(adata):
        shown = yield from _enrich(adata, PREDICTED, everything, inside, rest, sets, 0)
    return RegionSets({PREDICTED: shown, MEASURED: theirs}, recover(ours, theirs))


def recover_domains(
    adata: "AnnData", numbers: Numbers, sets: Mapping[str, Sequence[str]]
) -> Steps[DomainSets | None]:
    """Count, for each domain against the rest, the gene sets that prediction and truth have both raised.

    Parameters
    ----------
    adata
        A prediction with its truth; both are cut to what was measured.
    numbers
        (n,) domain of each spot from 1, 0 for none; of those that `structure.comparable_domains` names.
        Those of the truth in ``obs`` keep names that are words.
    sets
        Name → genes.

    Returns
    -------
    DomainSets or None
        None without truth or domains.
    """
    extent = measured_extent(adata)
    if extent is None:
        return None
    found: dict[int, Recovery] = {}
    skipped: dict[str, int] = {}
    for domain in comparable_domains(numbers[extent.spots]):
        inside = numbers == domain
        ours, theirs = yield from _of_both(adata, extent, inside, ~inside, sets)
        found[domain], skipped = recover(ours, theirs), ours.skipped
    if not found:
        return None
    called = domain_names(adata, MEASURED, numbers)
    names = {domain: called[domain - 1] for domain in found}
    whole = together({names[domain]: recovery for domain, recovery in found.items()})
    return DomainSets(found, names, whole, skipped)


def recover_in_truth(adata: "AnnData", sets: Mapping[str, Sequence[str]]) -> Steps[DomainSets | None]:
    """Count, for each domain of the truth, the gene sets that prediction and truth have both raised.

    Parameters
    ----------
    adata
        A prediction with its truth; not changed.
    sets
        Name → genes.

    Returns
    -------
    DomainSets or None
        As `recover_domains`; None too where too few spots were measured for domains.
    """
    extent = measured_extent(adata)
    if extent is None or len(extent.spots) < FEWEST_FOR_DOMAINS:
        return None
    numbers = yield from domains_of(adata, MEASURED)
    return (yield from recover_domains(adata, numbers, sets))


def describe_recovery(found: Recovery) -> str:
    """Return how many of the truth's sets are recovered, beside chance, in a sentence."""
    if not found.tested:
        return f"No gene set has {FEWEST_GENES} genes here, so none was tested."
    tested = f"{counted(found.tested, 'pair')} of gene set and domain"
    raised = (
        f"{whole(len(found.measured))} raised in the truth, {whole(len(found.predicted))} in the prediction"
    )
    if not found.measured or not found.predicted:
        return f"Of {tested} {raised}."
    chance = f"chance {number(found.chance, 1)}, p {probability(found.p)}"
    return f"Of {tested} {raised}, {whole(len(found.shared))} in both ({chance})."


def describe_sets(found: Recovery) -> str:
    """Return which sets both have raised, and which one of them alone, in a sentence each; "" without any."""
    only_truth = [name for name in found.measured if name not in found.shared]
    only_predicted = [name for name in found.predicted if name not in found.shared]
    groups = {"both": found.shared, "the truth alone": only_truth, "the prediction alone": only_predicted}
    return " ".join(f"In {where}: {_listed(names)}." for where, names in groups.items() if names)


def describe_skipped(skipped: Mapping[str, int]) -> str:
    """Return which sets were not tested, in a sentence; "" where all were."""
    if not skipped:
        return ""
    named = _listed([f"{name} ({genes})" for name, genes in skipped.items()])
    return f"Not tested, with fewer than {FEWEST_GENES} genes here: {named}."


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more


def _of_both(
    adata: "AnnData", extent: Extent, inside: BoolArray, rest: BoolArray, sets: Mapping[str, Sequence[str]]
) -> Steps[tuple[Enrichment, Enrichment]]:
    ours = yield from _enrich(adata, PREDICTED, extent, inside, rest, sets, PERMUTATIONS)
    theirs = yield from _enrich(adata, MEASURED, extent, inside, rest, sets, 0)
    return ours, theirs


def _enrich(
    adata: "AnnData",
    source: str,
    extent: Extent,
    inside: BoolArray,
    rest: BoolArray,
    sets: Mapping[str, Sequence[str]],
    permutations: int,
) -> Steps[Enrichment]:
    names = [str(gene) for gene in adata.var_names[extent.genes]]
    values = extent.cut(matrix_of(adata, source))
    a, b = inside[extent.spots], rest[extent.spots]
    return (yield from enrich(values, names, a, b, sets, permutations=permutations))
