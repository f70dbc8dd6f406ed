"""Regions drawn on a slide: GeoJSON in level-0 pixels, as QuPath reads and writes it."""

import json
import uuid
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import numpy as np

from napari_flag.errors import UserError
from napari_flag.files import parse_json, read_text, replacing
from napari_flag.formatting import whole

if TYPE_CHECKING:
    from shapely import Polygon


Colour: TypeAlias = tuple[int, int, int]
SAMPLED: Final = 200
"""Sides of outlines whose crossings are counted."""
MOST_CROSSINGS: Final = 5_000
"""Of all outlines of a file with themselves: repairing them takes four seconds, and nobody draws them."""
_COMPARED: Final = 500_000
"""Pairs of sides compared at once."""


@dataclass(frozen=True, slots=True)
class Annotation:
    """One region as a person outlined and named it.

    Parameters
    ----------
    name
        What it is called; "" when the person gave none.
    polygons
        Its parts, (x, y) in level-0 pixels; holes stay holes.
    classification
        QuPath's class ("Tumor"), "" for none.
    colour
        Red, green, blue, each 0–255, or None.
    measurements
        Name → number, written along for QuPath; what a file says of them is not read.
    """

    name: str
    polygons: "tuple[Polygon, ...]"
    classification: str = ""
    colour: Colour | None = None
    measurements: Mapping[str, float] = field(default_factory=dict)


def read_annotations(path: str | Path) -> list[Annotation]:
    """Read regions with their names and classes.

    Parameters
    ----------
    path
        GeoJSON: a FeatureCollection, a list of features, one feature, or a bare geometry.  Points
        and lines are skipped, self-intersecting outlines are made valid.

    Raises
    ------
    UserError
        When the file is no GeoJSON or outlines no area.
    """
    path = Path(path).expanduser()
    content = _read_json(path)
    try:
        found = annotations_in(content)
    except ValueError as error:
        raise UserError(
            f"{path.name} is JSON but not GeoJSON as QuPath writes it ({error}); export the regions "
            "again as GeoJSON."
        ) from error
    if not found:
        raise UserError(
            f"{path.name} outlines no area (points and lines do not count); draw a polygon, "
            "rectangle or ellipse and export it again."
        )
    return found


def annotations_in(content: Any) -> list[Annotation]:
    """Return the regions of GeoJSON that was parsed already; those without an area are left out.

    Raises
    ------
    ValueError
        When `content` is no GeoJSON.
    """
    from shapely.errors import ShapelyError

    try:
        features = [(_shape(geometry), properties) for geometry, properties in _features(content)]
        _refuse_tangles(geometry for geometry, _ in features)
        found = [_annotation(*feature) for feature in features]
    except (
        AttributeError, TypeError, LookupError, ArithmeticError, RecursionError, ShapelyError,
    ) as error:  # fmt: skip
        raise ValueError(str(error)) from error
    return [annotation for annotation in found if annotation.polygons]


def collection_of(annotations: Iterable[Annotation]) -> dict[str, Any]:
    """Return regions as a GeoJSON FeatureCollection."""
    return {"type": "FeatureCollection", "features": [as_feature(a) for a in annotations]}


def read_regions(path: str | Path) -> list["Polygon"]:
    """Read the polygons of `read_annotations`, (x, y) in level-0 pixels, without their names.

    Raises
    ------
    UserError
        When the file is no GeoJSON or outlines no area.
    """
    return [polygon for annotation in read_annotations(path) for polygon in annotation.polygons]


def write_annotations(annotations: Iterable[Annotation], path: str | Path) -> None:
    """Write regions as GeoJSON that QuPath imports as annotations, with names, classes and colours.

    Parameters
    ----------
    annotations
        The regions, (x, y) in level-0 pixels; one of several parts becomes one MultiPolygon.
    path
        The file, usually ending in ``.geojson``; replaced if it exists.

    Raises
    ------
    UserError
        When the file cannot be written.
    """
    path = Path(path).expanduser()
    with replacing(path) as place:
        place.write_text(json.dumps(collection_of(annotations), ensure_ascii=False), encoding="utf-8")


def as_feature(annotation: Annotation) -> dict[str, Any]:
    """Return one GeoJSON feature in the schema that QuPath exports itself."""
    from shapely.geometry import MultiPolygon, mapping

    parts = annotation.polygons
    properties: dict[str, Any] = {"objectType": "annotation", "isLocked": False}
    if annotation.name:
        properties["name"] = annotation.name
    if annotation.classification:
        properties["classification"] = {"name": annotation.classification}
    if annotation.colour is not None:  # QuPath draws by the class's colour where there is a class
        owner = properties.get("classification", properties)
        owner["color"] = list(annotation.colour)
    if annotation.measurements:
        properties["measurements"] = dict(annotation.measurements)
    return {
        "type": "Feature",
        "id": str(uuid.uuid4()),
        "geometry": mapping(parts[0] if len(parts) == 1 else MultiPolygon(parts)),
        "properties": properties,
    }


def _read_json(path: Path) -> Any:
    try:
        return parse_json(read_text(path))
    except FileNotFoundError as error:
        raise UserError(f"There is no file {path}; check the path.") from error
    except (OSError, ValueError) as error:
        raise UserError(
            f"{path.name} is not GeoJSON ({error}); export the regions as GeoJSON, e.g. from QuPath."
        ) from error


def _features(content: Any) -> Iterator[tuple[Any, Mapping[str, Any]]]:
    """Yield (geometry, properties) of every feature in `content`."""
    if isinstance(content, list):
        for item in content:
            yield from _features(item)
    elif "features" in content:
        yield from _features(content["features"])
    elif "geometry" in content:
        if content["geometry"] is not None:
            yield content["geometry"], content.get("properties") or {}
    elif "type" in content and ("coordinates" in content or "geometries" in content):
        yield content, {}
    else:
        raise ValueError("no features and no geometry in it")


def _annotation(drawn: Any, properties: Mapping[str, Any]) -> Annotation:
    kind = properties.get("classification")
    kind = {"name": kind} if isinstance(kind, str) else kind or {}
    name = kind.get("name") or ": ".join(kind.get("names") or ())  # QuPath 0.5 lists derived classes
    return Annotation(
        name=str(properties.get("name") or ""),
        polygons=tuple(_polygons(drawn)),
        classification=str(name),
        colour=_colour(properties) or _colour(kind),
    )


def _colour(holder: Mapping[str, Any]) -> Colour | None:
    """Return the colour of an object or a class: "color" as a list, "colorRGB" packed before 0.3."""
    if "color" in holder:
        red, green, blue = (int(value) for value in list(holder["color"])[:3])
        return red, green, blue
    if "colorRGB" in holder:
        packed = int(holder["colorRGB"])  # Java's signed 32-bit ARGB
        return (packed >> 16) & 255, (packed >> 8) & 255, packed & 255
    return None


def _shape(geometry: Any) -> Any:
    from shapely.geometry import shape

    return shape(geometry)


def _polygons(drawn: Any) -> Iterator["Polygon"]:
    import shapely

    yield from areas_of(shapely.make_valid(drawn))


def _refuse_tangles(drawn: Iterable[Any]) -> None:
    """Refuse geometries whose outlines cross themselves so often that repairing them would take hours."""
    import shapely

    crossings = 0.0
    for geometry in drawn:
        if not shapely.is_valid(geometry):
            crossings += _crossings(geometry)
        if crossings > MOST_CROSSINGS:
            raise ValueError(
                f"its outlines cross themselves at least {whole(crossings)} times, so they have no inside"
            )


def _crossings(geometry: Any) -> float:
    """Return about how often sides of all outlines of a geometry cross, by `SAMPLED` of them against all."""
    import shapely

    corners = [shapely.get_coordinates(ring) for ring in _rings(geometry)]
    if not corners:
        return 0.0
    begin, end = (np.concatenate(parts) for parts in ([c[:-1] for c in corners], [c[1:] for c in corners]))
    some = np.unique(np.linspace(0, len(begin) - 1, min(SAMPLED, len(begin))).astype(np.int64))
    together = max(1, _COMPARED // len(begin))
    found = 0
    with np.errstate(all="ignore"):
        side = end - begin
        for first in range(0, len(some), together):
            one = some[first : first + together, None]
            to_x, to_y = (begin[:, axis] - begin[one, axis] for axis in (0, 1))
            x, y = side[one, 0], side[one, 1]
            across = x * side[:, 1] - y * side[:, 0]
            here = (to_x * side[:, 1] - to_y * side[:, 0]) / across
            there = (to_x * y - to_y * x) / across
            found += int(((here > 0) & (here < 1) & (there > 0) & (there < 1)).sum())
    return found * len(begin) / len(some) / 2


def _rings(geometry: Any) -> Iterator[Any]:
    if geometry.geom_type == "Polygon":
        yield geometry.exterior
        yield from geometry.interiors
    for part in getattr(geometry, "geoms", ()):
        yield from _rings(part)


def areas_of(geometry: Any) -> Iterator["Polygon"]:
    """Yield the polygons of a geometry that have an area; lines and points are left out."""
    if geometry.geom_type == "Polygon":
        if geometry.area > 0:
            yield geometry
    else:
        for part in getattr(geometry, "geoms", ()):
            yield from areas_of(part)
