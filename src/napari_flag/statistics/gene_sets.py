"""Gene sets: GMT files, and scores per spot.

GMT is one set a line, separated by tabs: name, description, genes.  A line that starts with # is a comment.
"""

import re
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from napari_flag.errors import UserError
from napari_flag.files import read_text
from napari_flag.formatting import whole
from napari_flag.statistics.accuracy import FloatArray

LEVELS: Final = 25
"""Levels of mean expression within which a set is compared with other genes (scanpy's `n_bins`)."""
FEWEST_IN_LEVEL: Final = 8
"""Genes a level holds at least: below 192 genes there are fewer levels than scanpy would make."""


def read_gmt(path: Path) -> dict[str, tuple[str, ...]]:
    """Read gene sets, such as MSigDB's.

    Returns
    -------
    dict
        Name → symbols in the file's order, each once.

    Raises
    ------
    UserError
        When the file cannot be read, or a line is no gene set.
    """
    try:
        text = read_text(path)
    except OSError as fault:
        raise UserError(
            f"The gene sets in {path.name} cannot be read ({fault.strerror or fault}); check the path, and "
            "that it is a GMT text file."
        ) from fault
    found = _parse(text, path.name)
    if not found:
        raise UserError(f"{path.name} holds no gene set; give a GMT file, one set a line.")
    return found


def bundled() -> dict[str, tuple[str, ...]]:
    """Return the small sets that come with the program: known programmes of breast tissue, our naming."""
    return _parse(files("napari_flag").joinpath("data/gene_sets.gmt").read_text("utf-8"), "gene_sets.gmt")


def score(values: npt.NDArray[Any], genes: Sequence[str], members: Sequence[str]) -> FloatArray:
    """Score each spot by the mean of a set's genes over that of other genes of their level.

    scanpy's `score_genes` (after Tirosh et al. 2016), with *all* other genes of the levels that hold a
    member as reference instead of 50 drawn of each, so that nothing is random; and with levels of at least
    `FEWEST_IN_LEVEL` genes.

    Parameters
    ----------
    values
        (n, G) log2(count + 1).
    genes
        (G,) symbols.
    members
        The set; what is not among `genes` is passed over.

    Returns
    -------
    array
        (n,) float64, log2(count + 1).

    Raises
    ------
    UserError
        When no member is among `genes`, or no other gene is left to compare the set with.
    """
    inside = np.isin(np.asarray(genes, dtype=str), np.asarray(members, dtype=str))
    if not inside.any():
        raise UserError(
            f"None of the set's {whole(len(members))} genes (such as "
            f"{members[0] if members else 'none at all'}) is among the {whole(len(genes))} genes here; "
            "choose another set, or weights that predict its genes."
        )
    size = max(FEWEST_IN_LEVEL, round(len(genes) / (LEVELS - 1)))
    mean = values.mean(axis=0, dtype=np.float64)
    level = (1 + np.searchsorted(np.sort(mean), mean)) // size  # genes alike share their lowest rank
    reference = np.isin(level, level[inside]) & ~inside
    if not reference.any():
        raise UserError(
            "No gene outside the set has its level of expression, so there is nothing to hold the set "
            "against; choose a smaller set."
        )
    found: FloatArray = values[:, inside].mean(axis=1, dtype=np.float64)
    found -= values[:, reference].mean(axis=1, dtype=np.float64)
    return found


def _parse(text: str, name: str) -> dict[str, tuple[str, ...]]:
    found = {}
    # not `splitlines`, which ends a line at control characters too
    for number, line in enumerate(re.split(r"\r\n|\r|\n", text), start=1):
        if not line.strip() or line.startswith("#"):
            continue
        fields = [field.strip() for field in line.split("\t")]
        members = tuple(dict.fromkeys(gene for gene in fields[2:] if gene))
        if not fields[0] or not members:
            raise UserError(
                f"Line {number} of {name} is no gene set: it needs a name, a description and at least one "
                "gene, separated by tabs."
            )
        if fields[0] in found:
            raise UserError(f"{name} names the set {fields[0]} twice; rename or remove one of them.")
        found[fields[0]] = members
    return found
