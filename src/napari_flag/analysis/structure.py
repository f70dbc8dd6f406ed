"""Moran's I, domains and markers written into a prediction, where squidpy and scanpy look for them."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import numpy as np

from napari_flag import keys
from napari_flag.analysis.domains import COLUMNS, ENDS, domain_names, find_all, method_of, write_domains
from napari_flag.analysis.regions import rank_genes
from napari_flag.analysis.spatial import FEWEST_SPOTS, gene_moran, spot_neighbours
from napari_flag.analysis.truth import (
    MEASURED,
    PREDICTED,
    Numbers,
    extent_of,
    sources,
    values_of,
)
from napari_flag.errors import UserError
from napari_flag.formatting import counted
from napari_flag.progress import Step, Steps
from napari_flag.statistics import gene_sets
from napari_flag.statistics.multiple_testing import q_values
from napari_flag.statistics.neighbours import Neighbours

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData


RANKED: Final = ("names", "scores", "logfoldchanges", "pvals", "pvals_adj")
"""Fields of scanpy's marker genes, a record of each with a field per domain."""
GeneSets: TypeAlias = Mapping[str, Sequence[str]]
"""Name → symbols."""
FEWEST_IN_DOMAIN: Final = 5
"""Smaller domains have no markers worth naming."""


def as_squidpy(table: "pd.DataFrame", genes: Sequence[str]) -> "pd.DataFrame":
    """Return a table of `moran_test` with squidpy's columns and order: highest Moran's I first."""
    import pandas as pd

    columns = {
        "I": table["I"],
        "pval_norm": table["p"],
        "var_norm": table["variance"],
        "pval_norm_fdr_bh": q_values(table["p"].to_numpy()),
    }
    found = pd.DataFrame({name: np.asarray(column) for name, column in columns.items()}, index=list(genes))
    return found.sort_values("I", ascending=False, kind="stable")


def rank_domains(adata: "AnnData", source: str, numbers: Numbers) -> "Steps[dict[int, pd.DataFrame]]":
    """Rank the genes of each domain against all other spots.

    Parameters
    ----------
    adata
        A prediction.
    source
        Whose values are ranked: `truth.PREDICTED` or `truth.MEASURED`.
    numbers
        (n,) domain of each spot from 1, 0 for none.  Domains of fewer than `FEWEST_IN_DOMAIN` spots, or of
        nearly all, are left out.

    Returns
    -------
    dict
        Number → table of `regions.rank_genes`.
    """
    ranked = {}
    for number in comparable_domains(numbers[extent_of(adata, source).spots]):
        ranked[number] = yield from rank_genes(adata, source, numbers == number)
    return ranked


def comparable_domains(numbers: Numbers) -> list[int]:
    """Return the domains from 1 that hold enough spots, and leave enough, to be compared with the rest."""
    return [
        number
        for number in np.unique(numbers[numbers > 0]).tolist()
        if FEWEST_IN_DOMAIN <= (numbers == number).sum() <= len(numbers) - FEWEST_IN_DOMAIN
    ]


def as_scanpy(ranked: "Mapping[int, pd.DataFrame]", source: str, names: Sequence[str]) -> dict[str, Any]:
    """Return the tables of `rank_domains` in the layout of scanpy's `rank_genes_groups`.

    The fields are called as the categories in ``obs`` are: `names`, from number 1 on.
    """
    ours = ("gene", "score", "difference", "p", "q")
    types = (object, np.float32, np.float32, np.float64, np.float64)
    genes = len(next(iter(ranked.values()))) if ranked else 0
    found: dict[str, Any] = {
        "params": {
            "groupby": COLUMNS[source],
            "reference": "rest",
            "method": "wilcoxon",
            "use_raw": False,
            "layer": keys.MEASURED if source == MEASURED else None,
            "corr_method": "benjamini-hochberg",
        }
    }
    for column, mine, kind in zip(RANKED, ours, types, strict=True):
        record = np.empty(genes, dtype=[(names[number - 1], kind) for number in ranked])
        for number, table in ranked.items():
            record[names[number - 1]] = table[mine].to_numpy()
        found[column] = record
    return found


def ranked_domains(stored: Any) -> tuple[str, ...] | None:
    """Return the domains of marker genes in the layout of `as_scanpy`; None of anything else.

    Other methods of scanpy leave out some of the `RANKED` fields.
    """
    if not isinstance(stored, Mapping):
        return None
    records = [record for record in map(stored.get, RANKED) if isinstance(record, np.ndarray)]
    fields = {(record.dtype.names or (), record.shape) for record in records}
    return fields.pop()[0] if len(fields) == 1 and len(records) == len(RANKED) else None


FEWEST_MEMBERS: Final = 3
"""Gene sets with fewer genes here have no score."""


def write_structure(adata: "AnnData", sets: GeneSets | None = None) -> Steps[None]:
    """Compute the structure of a prediction, and of its measurement, and write both into it.

    ``obsp["spatial_connectivities"]`` and ``uns["spatial_neighbors"]``, the graph, unweighted, as squidpy
    builds it · ``uns["moranI"]``, as squidpy's table · ``obs["domain"]``, categories "1" (the largest) to
    "D", or the words that name those that were there · ``uns["rank_genes_groups"]``, each domain against the
    rest, as scanpy's (but "logfoldchanges" is the difference of mean log2(count + 1)) ·
    ``uns["napari_flag_domains"]``, the method that found the domains, where it is known ·
    ``obsm["gene_set_scores"]`` · ``uns["napari_flag_structure"]``, how.  With
    ``layers["measured"]`` the first five are written again with "_measured" after their key (but for the
    graph), over the spots and genes that were measured; domains of it that are found now give the
    prediction's their numbers.  What too few spots were measured for is left out, Moran's I with a notice.

    Parameters
    ----------
    adata
        A prediction, or any AnnData of log2(count + 1) with ``obsm["spatial"]``; changed at the very end
        only, so that what is cancelled leaves nothing behind.
    sets
        As of `score_sets`.

    Raises
    ------
    UserError
        When there are too few spots.
    """
    neighbours = spot_neighbours(adata)
    written: dict[str, Any] = {}
    for source in sources(adata):
        extent = extent_of(adata, source)
        if source == MEASURED and len(extent.spots) < FEWEST_SPOTS:
            yield Step("Finding structure", 0, None, notice=_too_few_measured(len(extent.spots)))
            continue
        moran = yield from gene_moran(adata, source)
        names = [str(gene) for gene in adata.var_names[extent.genes]]
        written[keys.MORAN + ENDS[source]] = as_squidpy(moran, names)
    found = yield from find_all(adata)
    methods = {source: method_of(adata, source) for source in found}
    for source, numbers in found.items():
        ranked = yield from rank_domains(adata, source, numbers)
        if ranked:  # a table without domains cannot be stored as h5ad
            called = domain_names(adata, source, numbers)
            written[keys.MARKERS + ENDS[source]] = as_scanpy(ranked, source, called)
    set_scores = score_sets(adata, sets)
    written[keys.STRUCTURE] = {"neighbours": neighbours.description}
    for source, numbers in found.items():
        write_domains(adata, source, numbers, methods[source])
    adata.obsm[keys.GENE_SETS] = set_scores
    adata.uns.update(written)
    _write_graph(adata, neighbours)


def _too_few_measured(spots: int) -> str:
    return (
        f"The measurement has {counted(spots, 'spot')}, too few for Moran's I (at least {FEWEST_SPOTS}), "
        "which is left out."
    )


def score_sets(adata: "AnnData", sets: GeneSets | None = None) -> "pd.DataFrame":
    """Return the scores of gene sets in each spot: a row per spot, a column per set.

    Sets of which fewer than `FEWEST_MEMBERS` genes are predicted have none, nor has one that no other gene of
    its level is left to compare with.

    Parameters
    ----------
    adata
        A prediction; its predicted values are scored.
    sets
        Name → symbols; None takes the bundled ones.
    """
    import pandas as pd

    values = values_of(adata, PREDICTED)
    genes = [str(gene) for gene in adata.var_names]
    known = set(genes)
    scores = {}
    for name, members in (gene_sets.bundled() if sets is None else sets).items():
        if len(known & set(members)) < FEWEST_MEMBERS:
            continue
        try:
            scores[name] = gene_sets.score(values, genes, members)
        except UserError:  # a panel without other genes of its level: the table has no such column
            continue
    return pd.DataFrame(scores, index=adata.obs_names)


def _write_graph(adata: "AnnData", neighbours: Neighbours) -> None:
    from scipy import sparse

    weights = neighbours.weights
    joined = sparse.csr_matrix(
        (np.ones(weights.nnz), weights.indices.copy(), weights.indptr.copy()), shape=weights.shape
    )
    start = np.repeat(np.arange(adata.n_obs), np.diff(joined.indptr))
    xy = np.asarray(adata.obsm[keys.SPATIAL], dtype=np.float64)
    apart = joined.copy()
    apart.data = np.linalg.norm(xy[start] - xy[joined.indices], axis=1)
    adata.obsp["spatial_connectivities"], adata.obsp["spatial_distances"] = joined, apart
    adata.uns["spatial_neighbors"] = {
        "connectivities_key": "spatial_connectivities",
        "distances_key": "spatial_distances",
        "params": {"description": neighbours.description},
    }
