"""Tables in the layouts that squidpy and scanpy write and read."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt
from scipy import sparse

from napari_flag import keys
from napari_flag.analysis.compare import spot_neighbours
from napari_flag.analysis.truth import dense
from napari_flag.errors import UserError
from napari_flag.progress import Step, Steps
from napari_flag.slides.formats.labels import SpotLabels
from napari_flag.statistics import gene_sets
from napari_flag.statistics.domains import FEWEST_SPOTS, Agreement, agreement, find_domains, relabel
from napari_flag.statistics.local_moran import CLASSES, local_moran
from napari_flag.statistics.markers import differential_genes
from napari_flag.statistics.moran import moran_test, q_values
from napari_flag.statistics.neighbours import Neighbours

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData


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
    if "p_permuted" in table:
        columns |= {"pval_sim": table["p_permuted"], "pval_sim_fdr_bh": table["q"]}
    found = pd.DataFrame({name: np.asarray(column) for name, column in columns.items()}, index=list(genes))
    return found.sort_values("I", ascending=False, kind="stable")


def as_scanpy(
    values: npt.NDArray[np.float64], genes: Sequence[str], labels: npt.NDArray[np.int64], layer: str | None
) -> dict[str, Any]:
    """Rank the genes of each domain against the rest, in the layout of scanpy's `rank_genes_groups`.

    Parameters
    ----------
    values
        (n, G) log2(count + 1).
    genes
        (G,) symbols.
    labels
        (n,) domains from 0; those of fewer than `FEWEST_IN_DOMAIN` spots, or of all, are left out.
    layer
        Name of the layer the values are from; None is ``X``.
    """
    columns = ("names", "scores", "logfoldchanges", "pvals", "pvals_adj")
    ours = ("gene", "score", "difference", "p", "q")
    types = (object, np.float32, np.float32, np.float64, np.float64)
    ranked = {
        str(number + 1): differential_genes(values, genes, labels == number)
        for number in np.unique(labels)
        if FEWEST_IN_DOMAIN <= (labels == number).sum() <= len(labels) - FEWEST_IN_DOMAIN
    }
    found: dict[str, Any] = {
        "params": {
            "groupby": keys.DOMAIN + (keys.OF_MEASURED if layer == keys.MEASURED else ""),
            "reference": "rest",
            "method": "wilcoxon",
            "use_raw": False,
            "layer": layer,
            "corr_method": "benjamini-hochberg",
        }
    }
    for column, mine, kind in zip(columns, ours, types, strict=True):
        record = np.empty(len(genes) if ranked else 0, dtype=[(name, kind) for name in ranked])
        for name, table in ranked.items():
            record[name] = table[mine].to_numpy()
        found[column] = record
    return found


FEWEST_MEMBERS: Final = 3
"""Gene sets with fewer genes here have no score."""

Labels = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Settings:
    """What to compute; the defaults are those of every report.

    Parameters
    ----------
    method
        Of the domains, a name of `domains.METHODS`.
    permutations
        Of Moran's I; 0 leaves its permutation p-values out.
    local_genes
        Genes whose local Moran's I is written.
    sets
        Gene sets to score, name → symbols; None takes the bundled ones.
    seed
        Of permutations and domains.
    """

    method: str = "leiden"
    permutations: int = 0
    local_genes: tuple[str, ...] = ()
    sets: Mapping[str, Sequence[str]] | None = None
    seed: int = 0


@dataclass(frozen=True, slots=True)
class _Layer:
    """Some spots and genes of one matrix, and their graph."""

    values: npt.NDArray[np.float64]
    rows: npt.NDArray[np.int64]
    genes: tuple[str, ...]
    neighbours: Neighbours


def write_structure(adata: "AnnData", settings: Settings | None = None) -> Steps[None]:
    """Compute the structure of a prediction, and of the truth beside it, and write both into it.

    ``obsp["spatial_connectivities"]`` and ``uns["spatial_neighbors"]``, the graph, unweighted, as squidpy
    builds it · ``uns["moranI"]``, as squidpy's table · ``obs["domain"]``, categories "1" (the largest) to
    "D" · ``uns["rank_genes_groups"]``, each domain against the rest, as scanpy's (but "logfoldchanges" is
    the difference of mean log2(count + 1)) · ``obsm["gene_set_scores"]`` · ``obsm["local_moran_I"]`` and
    ``obsm["local_moran_class"]`` of the genes asked for · ``uns["napari_flag_structure"]``, how.  With
    ``layers["measured"]`` the first four stand a second time with "_measured" after their key (but for the
    graph), over the spots and genes that were measured; its domains then give the prediction's their
    numbers.

    Parameters
    ----------
    adata
        A prediction, or any AnnData of log2(count + 1) with ``obsm["spatial"]``; changed at the very end
        only, so that what is cancelled leaves nothing behind.
    settings
        What to compute.

    Raises
    ------
    UserError
        When there are too few spots, or a local gene is not there.
    """
    chosen = settings or Settings()
    absent = [gene for gene in chosen.local_genes if gene not in adata.var_names]
    if absent:
        raise UserError(
            f"Local Moran's I was asked of {absent[0]}, which is not among the {adata.n_vars} genes here; "
            "choose genes of the table."
        )
    whole = _layer(adata, adata.X)
    moran = yield from moran_test(
        whole.values, whole.neighbours.weights, permutations=chosen.permutations, seed=chosen.seed
    )
    labels = yield from _domains(whole, chosen)
    written: dict[str, Any] = {keys.MORAN: as_squidpy(moran, whole.genes)}
    obs: dict[str, Any] = {}
    if keys.MEASURED in adata.layers:
        truth = _layer(adata, adata.layers[keys.MEASURED])
        moran = yield from moran_test(
            truth.values, truth.neighbours.weights, permutations=chosen.permutations, seed=chosen.seed
        )
        written[keys.MORAN + keys.OF_MEASURED] = as_squidpy(moran, truth.genes)
        theirs = yield from _domains(truth, chosen)
        labels = _numbered_like(labels, theirs, truth.rows)
        obs[keys.DOMAIN + keys.OF_MEASURED] = _categories(theirs, truth.rows, adata.n_obs)
        yield Step("Finding marker genes", 0, 2, "tables")
        markers = as_scanpy(truth.values, truth.genes, theirs, keys.MEASURED)
        written |= {keys.MARKERS + keys.OF_MEASURED: markers} if has_groups(markers) else {}
    obs[keys.DOMAIN] = _categories(labels, whole.rows, adata.n_obs)
    yield Step("Finding marker genes", 1, 2, "tables")
    markers = as_scanpy(whole.values, whole.genes, labels, None)
    written |= {keys.MARKERS: markers} if has_groups(markers) else {}
    obsm = yield from _local(adata, whole, chosen)
    obsm[keys.GENE_SETS] = _set_scores(adata, whole, chosen)
    written[keys.STRUCTURE] = {
        "neighbours": whole.neighbours.description,
        "domains": chosen.method,
        "permutations": chosen.permutations,
        "seed": chosen.seed,
    }
    for name, column in obs.items():
        adata.obs[name] = column
    for name, table in obsm.items():
        adata.obsm[name] = table
    adata.uns.update(written)
    _write_graph(adata, whole.neighbours)


def write_labels(adata: "AnnData", labels: SpotLabels) -> dict[str, Agreement]:
    """Write what others called the spots into ``obs["label"]``, and hold the domains against it.

    Parameters
    ----------
    adata
        Changed: "label" is categorical, missing where a spot has no label.
    labels
        As `slides.labels.read_labels` reads them.

    Returns
    -------
    dict
        ``obs`` column of domains, as `write_structure` writes them → agreement over the spots that have both;
        without the columns that are not there.

    Raises
    ------
    UserError
        When no spot has a label.
    """
    import pandas as pd

    found = labels.of(list(adata.obs_names))
    adata.obs[keys.LABEL] = pd.Categorical([str(label) or None for label in found])
    return label_agreement(adata)


def label_agreement(adata: "AnnData") -> dict[str, Agreement]:
    """Hold the domains in ``obs`` against the labels there, as `write_labels` does; empty without labels."""
    if keys.LABEL not in adata.obs:
        return {}
    labelled = ~adata.obs[keys.LABEL].isna().to_numpy()
    labels = adata.obs[keys.LABEL].astype(str).to_numpy()
    agreements = {}
    for name in (keys.DOMAIN, keys.DOMAIN + keys.OF_MEASURED):
        if name in adata.obs:
            known = labelled & ~adata.obs[name].isna().to_numpy()
            if known.any():
                domains = adata.obs[name].astype(str).to_numpy()
                agreements[name] = agreement(domains[known], labels[known])
    return agreements


def has_groups(markers: Mapping[str, Any]) -> bool:
    """Tell whether any domain is in a table of `as_scanpy`; one without cannot be stored as h5ad."""
    return bool(markers["names"].dtype.names)


def _layer(adata: "AnnData", matrix: Any) -> _Layer:
    """Return the spots and genes of a matrix that hold numbers."""
    values = dense(matrix).astype(np.float64)
    known = np.isfinite(values)
    rows, columns = np.flatnonzero(known.any(axis=1)), np.flatnonzero(known.any(axis=0))
    return _Layer(
        values[np.ix_(rows, columns)],
        rows,
        tuple(str(gene) for gene in adata.var_names[columns]),
        spot_neighbours(adata, rows),
    )


def _domains(layer: _Layer, settings: Settings) -> Steps[Labels]:
    if len(layer.rows) < FEWEST_SPOTS:
        return np.zeros(len(layer.rows), dtype=np.int64)
    return (
        yield from find_domains(layer.values, layer.neighbours, method=settings.method, seed=settings.seed)
    )


def _numbered_like(labels: Labels, theirs: Labels, rows: npt.NDArray[np.int64]) -> Labels:
    """Return predicted domains numbered by the measured ones they overlap most with, where measured."""
    unseen = np.setdiff1d(np.unique(labels), np.unique(labels[rows]))
    renamed = np.full(int(labels.max()) + 1, -1, dtype=np.int64)
    renamed[labels[rows]] = relabel(labels[rows], theirs)
    renamed[unseen] = max(int(renamed.max()), int(theirs.max())) + 1 + np.arange(len(unseen))
    return renamed[labels]


def _categories(labels: Labels, rows: npt.NDArray[np.int64], n: int) -> "pd.Categorical":
    import pandas as pd

    codes = np.full(n, -1, dtype=np.int64)
    codes[rows] = labels
    names = [str(number + 1) for number in range(int(labels.max(initial=0)) + 1)]
    return pd.Categorical.from_codes(codes.tolist(), categories=names).remove_unused_categories()


def _local(adata: "AnnData", layer: _Layer, settings: Settings) -> Steps[dict[str, "pd.DataFrame"]]:
    import pandas as pd

    if not settings.local_genes:
        return {}
    strength, classes = {}, {}
    for gene in settings.local_genes:
        column = layer.values[:, layer.genes.index(gene)]
        found = yield from local_moran(column, layer.neighbours.weights, seed=settings.seed)
        strength[gene] = found.I
        classes[gene] = pd.Categorical.from_codes(found.classes.tolist(), categories=list(CLASSES))
    return {
        keys.LOCAL_MORAN: pd.DataFrame(strength, index=adata.obs_names),
        keys.LOCAL_CLASS: pd.DataFrame(classes, index=adata.obs_names),
    }


def _set_scores(adata: "AnnData", layer: _Layer, settings: Settings) -> "pd.DataFrame":
    import pandas as pd

    sets = gene_sets.bundled() if settings.sets is None else settings.sets
    known = set(layer.genes)
    scores = {}
    for name, members in sets.items():
        if len(known & set(members)) < FEWEST_MEMBERS:
            continue
        try:
            scores[name] = gene_sets.score(layer.values, layer.genes, members)
        except UserError:  # a panel without other genes of its level: the table has no such column
            continue
    return pd.DataFrame(scores, index=adata.obs_names)


def _write_graph(adata: "AnnData", neighbours: Neighbours) -> None:
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
