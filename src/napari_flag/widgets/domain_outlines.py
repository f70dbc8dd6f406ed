"""Domains, or labels, as annotations, to be written beside the regions drawn."""

from dataclasses import replace
from typing import Any

from napari_flag import keys
from napari_flag.slides.regions import Annotation
from napari_flag.viewer.region_numbers import LABELS, PREDICTED, domain_names, read_domains, write_domains


def domain_outlines(adata: Any, source: str) -> list[Annotation]:
    """Return one annotation per domain, or label, of `source`, its outline half a pitch around its spots."""
    from anndata import AnnData

    from napari_flag.exports.qupath import domain_annotations

    numbers = read_domains(adata, source)
    if numbers is None:
        return []
    seen = numbers > 0
    alone = AnnData(obs=adata.obs.loc[seen, []], obsm={keys.SPATIAL: adata.obsm[keys.SPATIAL][seen]})
    write_domains(alone, PREDICTED, numbers[seen])
    found = domain_annotations(alone)
    if source != LABELS:
        return found
    seen_labels = [domain_names(adata, source)[number - 1] for number in sorted(set(numbers[seen].tolist()))]
    return [
        replace(annotation, name=name, classification=name)
        for annotation, name in zip(found, seen_labels, strict=True)
    ]
