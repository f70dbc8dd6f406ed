"""Spots as QuPath's detections with one measurement per gene, domains as its annotations.

The schema is the one that QuPath 0.4 and later write themselves (PathObjectTypeAdapters and
ROITypeAdapters of its source): ``objectType``, ``name``, ``classification``, ``measurements`` by name,
coordinates in level-0 px, and ``isEllipse`` with a polygon whose bounding box is that of the circle.
"""

import json
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TextIO

import numpy as np
import numpy.typing as npt

from napari_flag import __version__, keys
from napari_flag.analysis.domains import LABELS, colour_of, domain_names, domain_title, read_domains
from napari_flag.analysis.regions import AreaScale
from napari_flag.analysis.truth import PREDICTED, dense
from napari_flag.exports.replacing import statement
from napari_flag.files import UNSEALED, check_writable, seal, write_whole_in_steps
from napari_flag.prediction_file import drawn_diameter_px, output_name, provenance, spots_of, um_per_px
from napari_flag.progress import Step, Steps
from napari_flag.slides.formats.geojson import Annotation, as_feature
from napari_flag.slides.lattice import pitch_px

if TYPE_CHECKING:
    from anndata import AnnData


CORNERS: Final = 16
"""Of a spot's outline where a program does not know ``isEllipse``; a multiple of 4 keeps the bounding box."""
REACH: Final = 0.51
"""Of a domain's outline around its spots, in pitches: a little over half, so that neighbours touch."""
CLOSED: Final = 0.14
"""Half of the gaps that are closed between neighbours which jitter, in pitches; her2st's need it."""
SMOOTH: Final = 0.1
"""Corners of a domain's outline that stick out by less than this share of its reach are left out."""
PIXEL_DIGITS: Final = 2
VALUE_DIGITS: Final = 4
AT_ONCE: Final = 200
"""Spots written between two progress steps."""


def write_geojson(adata: "AnnData", path: Path) -> Steps[None]:
    """Write `adata` for QuPath's "Import objects": spots as detections, domains as annotations.

    Parameters
    ----------
    adata
        A prediction; each gene of ``X`` becomes a measurement "GENE", of ``layers["sd"]`` "GENE sd".
    path
        The file, usually ending in ``.geojson``; replaced when all is written.

    Raises
    ------
    UserError
        When the file cannot be written.
    """
    check_writable(path)
    yield from write_whole_in_steps(path, lambda place: _write(adata, place))


def _write(adata: "AnnData", place: Path) -> Steps[None]:
    with place.open("w", encoding="utf-8") as file:
        stated = statement(".geojson", provenance(adata).get(keys.COMMAND_HASH))
        generator, sealed = (
            f'"generator": "napari-flag {__version__}"',
            f'"{keys.CONTENT_HASH}": "{UNSEALED}"',
        )
        head = ['"type": "FeatureCollection"', generator, stated, sealed]
        file.write(f'{{{", ".join(filter(None, head))}, "features": [\n')
        first = True
        annotations = yield from domain_annotations(adata)
        for annotation in annotations:
            first = _append(file, as_feature(annotation), first)
        for done, feature in enumerate(spot_features(adata)):
            if done % AT_ONCE == 0:
                yield Step("Writing spots for QuPath", done, adata.n_obs)
            first = _append(file, feature, first)
        file.write("\n]}\n")
    seal(place)


def _append(file: TextIO, feature: dict[str, Any], first: bool) -> bool:
    file.write("" if first else ",\n")
    file.write(json.dumps(feature, ensure_ascii=False, allow_nan=False))
    return False


def spot_features(adata: "AnnData") -> Iterator[dict[str, Any]]:
    """Yield one GeoJSON feature per spot; the same spot of the same slide has the same id each time."""
    xy = np.asarray(adata.obsm[keys.SPATIAL], float)
    radius = drawn_diameter_px(adata) / 2
    angle = np.linspace(0, 2 * np.pi, CORNERS + 1)
    rim = radius * np.column_stack([np.cos(angle), np.sin(angle)])
    rim[-1] = rim[0]
    numbers = read_domains(adata, PREDICTED)
    titles = [] if numbers is None else _titles(adata, PREDICTED)
    space = uuid.uuid5(uuid.NAMESPACE_URL, f"napari-flag/{output_name(adata)}")
    for row, (name, values) in enumerate(zip(adata.obs_names, _measurements(adata), strict=True)):
        properties: dict[str, Any] = {"objectType": "detection", "name": str(name), "measurements": values}
        number = 0 if numbers is None else int(numbers[row])
        if number:  # a spot may be in no domain
            properties["classification"] = {"name": titles[number - 1], "color": list(colour_of(number))}
        yield {
            "type": "Feature",
            "id": str(uuid.uuid5(space, str(name))),
            "geometry": {
                "type": "Polygon",
                "coordinates": [np.round(xy[row] + rim, PIXEL_DIGITS).tolist()],
                "isEllipse": True,
            },
            "properties": properties,
        }


def _measurements(adata: "AnnData") -> Iterator[dict[str, float]]:
    """Yield measurement → value of each spot; what is not a number is left out, as QuPath does."""
    tables: list[tuple[list[str], npt.NDArray[Any]]] = [(list(adata.var_names), dense(adata.X))]
    for layer, word in ((keys.SPREAD, "sd"), (keys.MEASURED, "measured")):
        if layer in adata.layers:
            tables.append(([f"{gene} {word}" for gene in adata.var_names], dense(adata.layers[layer])))
    if keys.DISTANCE in adata.obs:
        tables.append(([keys.DISTANCE], adata.obs[[keys.DISTANCE]].to_numpy()))
    for row in range(adata.n_obs):
        yield {
            name: round(float(value), VALUE_DIGITS)
            for names, values in tables
            for name, value in zip(names, values[row], strict=True)
            if np.isfinite(value)
        }


def _titles(adata: "AnnData", source: str) -> list[str]:
    """Return what QuPath calls the domains or labels of `source`, from number 1 on."""
    names = domain_names(adata, source)
    return list(names) if source == LABELS else [domain_title(name) for name in names]


def domain_annotations(
    adata: "AnnData", source: str = PREDICTED, scale: AreaScale | None = None
) -> Steps[list[Annotation]]:
    """Return one annotation per domain, or label, its outline half a pitch around its spots; none without.

    Parameters
    ----------
    adata
        A prediction.
    source
        `truth.PREDICTED`, `truth.MEASURED` or `domains.LABELS`.
    scale
        Of the areas; None takes that of `adata`.
    """
    numbers = read_domains(adata, source)
    if numbers is None:
        return []
    import shapely

    scale = AreaScale.of(adata, um_per_px(adata)) if scale is None else scale
    spots, titles = spots_of(adata), _titles(adata, source)
    pitch = pitch_px(spots)  # of where they lie, whatever µm/px says
    found: list[Annotation] = []
    seen = np.unique(numbers[numbers > 0]).tolist()
    for number in seen:
        yield Step("Outlining domains", len(found), len(seen), "domains")
        xy = spots.xy[numbers == number]
        wide = (REACH + CLOSED) * pitch
        outline = shapely.union_all(shapely.box(*(xy - wide).T, *(xy + wide).T))
        outline = outline.buffer(-CLOSED * pitch, join_style="mitre").simplify(SMOOTH * REACH * pitch)
        parts = tuple(getattr(outline, "geoms", (outline,)))
        measured = region_measurements(len(xy), scale.of_spots(len(xy)))
        title = titles[number - 1]
        found.append(Annotation(title, parts, title, colour_of(number), measured))
    return found


def region_measurements(spots: int, area_mm2: float) -> dict[str, float]:
    """Return the measurements of a region or domain for QuPath; an area that is not known is left out."""
    area = {} if np.isnan(area_mm2) else {"Area mm^2": round(area_mm2, VALUE_DIGITS)}
    return {"Spots": spots, **area}
