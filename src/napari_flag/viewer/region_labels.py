"""What a pathologist, or another method, called the spots, beside the domains.  Holds no Qt."""

from pathlib import Path
from typing import TYPE_CHECKING

from napari_flag import keys
from napari_flag.progress import Step, Steps
from napari_flag.slides.labels import SpotLabels, read_labels
from napari_flag.viewer.region_numbers import COLUMNS, MEASURED, PREDICTED, find, read_domains, sources

if TYPE_CHECKING:
    from anndata import AnnData


def read_for(adata: "AnnData", path: Path) -> Steps[SpotLabels]:
    """Read the labels of `adata`'s spots, which is not changed.

    Raises
    ------
    UserError
        As `slides.labels.read_labels`, and when no spot of `adata` has a label.
    """
    yield Step(f"Reading {path.name}", 0, None)
    labels = read_labels(path)
    labels.of(list(adata.obs_names))
    return labels


def find_missing(adata: "AnnData", method: str) -> Steps[None]:
    """Find the domains of every source that has none yet, so that labels can be held against them."""
    for source in sources(adata):
        if read_domains(adata, source) is None:
            yield from find(adata, source, method)


def told_agreement(adata: "AnnData") -> str:
    """Return how many spots are labelled, and how far the domains found agree with it; "" without labels."""
    from napari_flag.structure import label_agreement

    if keys.LABEL not in adata.obs:
        return ""
    labelled = int(adata.obs[keys.LABEL].notna().sum())
    found = label_agreement(adata)
    told = [
        f"{word} ARI {found[COLUMNS[source]].ari:.2f}, NMI {found[COLUMNS[source]].nmi:.2f}"
        for source, word in ((PREDICTED, "prediction"), (MEASURED, "truth"))
        if COLUMNS[source] in found
    ]
    counted = f"{labelled:,} of {adata.n_obs:,} spots are labelled"
    return f"{counted}. Domains to labels: {'; '.join(told)}." if told else f"{counted}."
