"""All regions of one viewer in a list: drawn, read from files, domains and labels.  Holds no Qt."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_flag import keys
from napari_flag.slides.regions import Colour
from napari_flag.viewer.domain_map import colour_of
from napari_flag.viewer.region_numbers import LABELS, PREDICTED, domain_names, mask_of, read_domains
from napari_flag.viewer.region_shapes import DrawnRegion, Placement, read_regions
from napari_flag.viewer.selection import Region

if TYPE_CHECKING:
    from anndata import AnnData

    from napari_flag.viewer.gene_map import GeneMap


@dataclass(frozen=True, slots=True, eq=False)
class Entry:
    """One line of the list.

    Parameters
    ----------
    key
        The same for the same region, however often the list is read anew.
    region
        Name and spots, of the current prediction.
    colour
        Its colour, None for that of all drawn regions.
    drawn
        Its shapes; None for a domain or label.
    number
        Of a domain or label; 0 for a drawn region.
    """

    key: str
    region: Region
    colour: Colour | None = None
    drawn: DrawnRegion | None = None
    number: int = 0


def collect(viewer: Any, gene_map: "GeneMap", adata: "AnnData", source: str) -> list[Entry]:
    """Return the regions drawn in `viewer`, then the domains, or labels, of `source`."""
    return [*_drawn(viewer, gene_map, adata), *_domains(adata, source)]


def _drawn(viewer: Any, gene_map: "GeneMap", adata: "AnnData") -> list[Entry]:
    import shapely

    xy = np.asarray(adata.obsm[keys.SPATIAL], np.float64)[:, :2]
    entries = []
    taken: dict[str, int] = {}
    for drawn in read_regions(viewer, Placement.of(gene_map, adata)):
        told = drawn.annotation
        polygon = told.polygons[0] if len(told.polygons) == 1 else shapely.MultiPolygon(told.polygons)
        region = Region(told.name, mask_of(told.polygons, xy), polygon)
        taken[told.name] = taken.get(told.name, 0) + 1
        entries.append(Entry(f"drawn {told.name} {taken[told.name]}", region, told.colour, drawn))
    return entries


def _domains(adata: "AnnData", source: str) -> list[Entry]:
    numbers = read_domains(adata, source)
    if numbers is None:
        return []
    names = domain_names(adata, source)
    if source == LABELS:
        told = [f"Label {name}" if name.isdecimal() else name for name in names]
    else:
        word = "prediction" if source == PREDICTED else "truth"
        told = [f"Domain {number} of the {word}" for number in range(1, len(names) + 1)]
    return [
        Entry(
            f"domain {source} {number}",
            Region(told[number - 1], numbers == number),
            colour_of(number),
            number=number,
        )
        for number in np.unique(numbers[numbers > 0]).tolist()
    ]
