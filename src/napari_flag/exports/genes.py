"""Which genes an export holds."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from napari_flag.errors import UserError

if TYPE_CHECKING:
    from anndata import AnnData

NAMED = 5
"""Unknown genes named in the error; more would not help."""


def choose_genes(adata: "AnnData", genes: Sequence[str] | None) -> "AnnData":
    """Return `adata` with `genes` only, in the order asked for; None keeps all.

    Raises
    ------
    UserError
        When a gene is not in `adata`, or none is named.
    """
    if genes is None:
        return adata
    known = set(adata.var_names)
    unknown = [gene for gene in genes if gene not in known]
    if unknown or not genes:
        named = ", ".join(unknown[:NAMED]) + (", …" if len(unknown) > NAMED else "")
        raise UserError(
            f"The prediction has no gene {named or 'in an empty list'}; it holds {adata.n_vars} genes, "
            f"such as {adata.var_names[0]}, spelt as the symbols of its var_names."
        )
    return adata[:, list(dict.fromkeys(genes))].copy()
