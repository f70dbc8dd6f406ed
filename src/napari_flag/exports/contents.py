"""Contents of an export: the prediction with its structure, restricted to the requested genes."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from napari_flag import keys
from napari_flag.analysis.spatial import FEWEST_SPOTS
from napari_flag.analysis.structure import (
    FEWEST_MEMBERS,
    RANKED,
    GeneSets,
    ranked_domains,
    score_sets,
    write_structure,
)
from napari_flag.analysis.truth import dense
from napari_flag.files import write_table
from napari_flag.formatting import counted, whole
from napari_flag.prediction_file import sharing
from napari_flag.progress import Step, Steps

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData


def with_structure(adata: "AnnData", sets: GeneSets | None = None) -> Steps["AnnData"]:
    """Return a shallow copy of `adata` with Moran's I, domains, markers and scores; those it has are kept.

    Parameters
    ----------
    adata
        A prediction; not changed.
    sets
        Gene sets that the scores are of, whatever scores there are; None keeps these, or takes the bundled
        sets.
    """
    copy = sharing(adata)
    has, few = keys.STRUCTURE in copy.uns, copy.n_obs < FEWEST_SPOTS
    if few and not has:
        notice = f"{whole(copy.n_obs)} spots are too few for Moran's I and domains, which are left out."
        yield Step("Finding structure", 0, None, notice=notice)
    elif not has:
        yield from write_structure(copy, sets)
    if sets is None:
        return copy
    if few or has:
        yield Step("Scoring gene sets", 0, None)
        copy.obsm[keys.GENE_SETS] = score_sets(copy, sets)
    if copy.obsm[keys.GENE_SETS].shape[1] == 0:
        notice = (
            f"None of the {counted(len(sets), 'gene set')} given has {FEWEST_MEMBERS} genes predicted here, "
            "so no spot has a score of one; give a GMT file of the symbols that the prediction has."
        )
        yield Step("Scoring gene sets", 0, None, notice=notice)
    return copy


def choose_genes(adata: "AnnData", genes: Sequence[str] | None) -> "AnnData":
    """Return `adata` with the symbols `genes` only, in the order given; None keeps all.

    Tables of genes in ``uns`` are cut too; what was computed from all genes stays as it is.
    """
    if genes is None:
        return adata
    chosen = adata[:, list(genes)].copy()
    for suffix in ("", keys.OF_MEASURED):
        _cut(chosen, keys.MORAN + suffix, keys.MARKERS + suffix)
    return chosen


def _cut(adata: "AnnData", moran: str, markers: str) -> None:
    """Leave in the two tables only the genes of `adata`."""
    import pandas as pd

    kept = set(adata.var_names)
    table = adata.uns.get(moran)
    if isinstance(table, pd.DataFrame):
        adata.uns[moran] = table[table.index.isin(kept)]
    groups = ranked_domains(adata.uns.get(markers))
    if groups is not None:  # else another program's, and left as it is
        whole: dict[str, Any] = adata.uns[markers]
        names = whole["names"]
        rows = {group: np.flatnonzero([gene in kept for gene in names[group]]) for group in groups}
        cut = dict(whole)
        for column in RANKED:
            record = whole[column]
            cut[column] = np.empty(len(rows[groups[0]]) if groups else 0, dtype=record.dtype)
            for group in groups:
                cut[column][group] = record[group][rows[group]]
        adata.uns[markers] = cut


_PLACES: Final = ("spot", "x_px", "y_px")
"""The first columns of `expression_table`: the id of a spot and its centre."""


def expression_table(adata: "AnnData") -> "pd.DataFrame":
    """Return spot id, centre (level-0 px), ``obs`` columns, and predicted log2(count + 1).

    Columns of ``obs`` that are called as another of these are left out (`clashing_columns`).
    """
    import pandas as pd

    xy, left_out = np.asarray(adata.obsm[keys.SPATIAL], float), clashing_columns(adata)
    columns = (list(adata.obs_names), xy[:, 0], xy[:, 1])
    table = pd.DataFrame(dict(zip(_PLACES, columns, strict=True)))
    for name in adata.obs:
        if str(name) not in left_out:
            table[name] = adata.obs[name].to_numpy()
    return pd.concat([table, pd.DataFrame(dense(adata.X), columns=list(adata.var_names))], axis=1)


def clashing_columns(adata: "AnnData") -> tuple[str, ...]:
    """Return the columns of ``obs`` that are called as the id of a spot, its centre or a gene."""
    taken = {*_PLACES, *map(str, adata.var_names)}
    return tuple(str(name) for name in adata.obs if str(name) in taken)


def known_columns(adata: "AnnData") -> set[str]:
    """Return all columns that `expression_table` of a prediction, or of part of its genes, may have."""
    found = {key + end for key in (keys.DOMAIN, keys.LABEL) for end in ("", keys.OF_MEASURED)}
    return {*_PLACES, *map(str, adata.obs), *found, *map(str, adata.var_names)}


def write_csv(adata: "AnnData", path: Path) -> Steps[None]:
    """Write `expression_table`: a row per spot, a column per gene.

    Raises
    ------
    UserError
        When the file cannot be written.
    """
    yield Step("Writing the table", 0, adata.n_obs)
    write_table(expression_table(adata), path)
