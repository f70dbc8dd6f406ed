"""What others called the spots, and how far the domains of a report agree with it."""

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from napari_flag import keys
from napari_flag.statistics.domains import Agreement, agreement

if TYPE_CHECKING:
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
