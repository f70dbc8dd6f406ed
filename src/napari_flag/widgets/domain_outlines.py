"""Domains as annotations, to be written beside the regions drawn."""

from typing import Any

from napari_flag import keys
from napari_flag.slides.regions import Annotation
from napari_flag.viewer.region_numbers import PREDICTED, read_domains, write_domains


def domain_outlines(adata: Any, source: str) -> list[Annotation]:
    """Return one annotation per domain of `source`, its outline half a pitch around its spots."""
    from anndata import AnnData

    from napari_flag.exports.qupath import domain_annotations

    numbers = read_domains(adata, source)
    if numbers is None:
        return []
    seen = numbers > 0
    alone = AnnData(obs=adata.obs.loc[seen, []], obsm={keys.SPATIAL: adata.obsm[keys.SPATIAL][seen]})
    write_domains(alone, PREDICTED, numbers[seen])
    return domain_annotations(alone)
