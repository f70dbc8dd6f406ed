"""Regions drawn on a slide: GeoJSON in level-0 pixels, as QuPath reads and writes it."""

import json
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt

from napari_flag.errors import UserError
from napari_flag.files import parse_json, read_text, replacing
from napari_flag.formatting import whole
from napari_flag.slides.spots import FARTHEST

if TYPE_CHECKING:
    from shapely import Polygon


Colour: TypeAlias = tuple[int, int, int]
SAMPLED: Final = 200
"""Sides of outlines whose crossings are counted."""
MOST_CROSSINGS: Final = 5_000
"""Of all outlines of a file with themselves: repairing them takes four seconds, and nobody draws them."""
MOST_OUTLINES: Final = 100_000
"""Of a file: as many take six seconds to read, and all cells of a slide are no regions."""
MOST_CORNERS: Final = 500_000
"""Of a file: as many take six seconds to read and to find spots in; outlines of tissue have thousands."""
_SLIGHT: Final = 0.05
"""Crossings that an outline counts which is to be repaired for another reason: `MOST_OUTLINES` of them are
refused as `MOST_CROSSINGS`."""
_COMPARED: Final = 500_000
"""Pairs of sides compared at once."""
_TOGETHER: Final = 64
"""Outlines looked for at once."""


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
        _refuse_tangles([geometry for geometry, _ in features])
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
    """Yield the polygons of a geometry, valid; parts whose boxes do not overlap are repaired one by one."""
    import shapely

    if shapely.is_valid(drawn) or drawn.geom_type not in ("MultiPolygon", "GeometryCollection"):
        yield from areas_of(drawn if shapely.is_valid(drawn) else shapely.make_valid(drawn))
    elif drawn.geom_type == "GeometryCollection":
        for part in drawn.geoms:
            yield from _polygons(part)
    else:
        for parts in _groups(list(drawn.geoms)):
            one = parts[0] if len(parts) == 1 else shapely.MultiPolygon(parts)
            yield from areas_of(one if shapely.is_valid(one) else shapely.make_valid(one))


def _groups(parts: Sequence["Polygon"]) -> list[list["Polygon"]]:
    """Return parts together whose boxes overlap, directly or by others between; in their order."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    pairs = np.concatenate([np.zeros((2, 0), np.int64), *_overlapping(parts)], axis=1)
    linked = coo_matrix((np.ones(pairs.shape[1], bool), tuple(pairs)), shape=(len(parts), len(parts)))
    groups: dict[int, list[Polygon]] = {}
    for part, group in zip(parts, connected_components(linked, directed=False)[1].tolist(), strict=True):
        groups.setdefault(group, []).append(part)
    return list(groups.values())


def _overlapping(outlines: Sequence[Any]) -> Iterator[npt.NDArray[np.int64]]:
    """Yield (2, n) which outlines have boxes that overlap in an area, each pair once; tiles have none.

    What is yielded at once is of `_TOGETHER` outlines, so that whoever counts them can stop early.
    """
    import shapely

    bounds = shapely.bounds(np.asarray(outlines, object)) if len(outlines) > 1 else np.zeros((0, 4))
    left, top, right, bottom = bounds.T
    solid = np.flatnonzero((left < right) & (top < bottom))
    boxes = shapely.box(*bounds[solid].T)
    tree = shapely.STRtree(boxes)
    for first in range(0, len(solid), _TOGETHER):
        one, other = tree.query(boxes[first : first + _TOGETHER])
        one, other = solid[one + first], solid[other]
        across = (left[one] < right[other]) & (left[other] < right[one])
        down = (top[one] < bottom[other]) & (top[other] < bottom[one])
        yield np.stack([one, other])[:, across & down & (one < other)]


def _refuse_tangles(drawn: Sequence[Any]) -> None:
    """Refuse what would take long to repair: before anything is, and by its corners alone."""
    import shapely

    geometries = np.asarray(drawn, object)
    corners = shapely.get_coordinates(geometries)
    if not (np.abs(corners) <= FARTHEST).all():
        raise ValueError(f"it has corners that are no numbers, or beyond {whole(FARTHEST)} px")
    if len(corners) > MOST_CORNERS:
        raise ValueError(
            f"it has {whole(len(corners))} corners, where up to {whole(MOST_CORNERS)} are read, so outlines "
            "have to be simplified"
        )
    outlines = int(np.sum(shapely.get_num_geometries(geometries)))
    if outlines > MOST_OUTLINES:
        raise ValueError(f"it has {whole(outlines)} outlines, where up to {whole(MOST_OUTLINES)} are read")
    crossings = 0.0
    for geometry in geometries[~shapely.is_valid(geometries)]:
        crossings += max(_crossings(geometry), _SLIGHT)
        if crossings > MOST_CROSSINGS:
            raise ValueError(
                f"its outlines cross themselves at least {whole(crossings)} times, so they have no inside"
            )


def _crossings(geometry: Any) -> float:
    """Return about how often outlines of a geometry cross, touch, lie on each other and overlap."""
    import shapely

    polygons = [part for part in _flat(geometry) if part.geom_type == "Polygon" and not part.is_empty]
    corners = [
        shapely.get_coordinates(ring) for part in polygons for ring in (part.exterior, *part.interiors)
    ]
    if not corners:
        return 0.0
    found = 0.0
    for ring in corners:
        found += len(ring) - 1 - len(np.unique(ring[:-1], axis=0))
    for outlines in ([part.exterior for part in polygons], *(list(part.interiors) for part in polygons)):
        for pairs in _overlapping(outlines):
            found += float(pairs.shape[1])
            if found > MOST_CROSSINGS:
                return found
    return found + _meetings(corners)


def _meetings(corners: Sequence[npt.NDArray[np.float64]]) -> float:
    """Return about how often sides of outlines cross, or lie on each other, by `SAMPLED` of them against all.

    Sides that meet at their ends do not count, nor does one for each side that lies on it: tiles of a grid
    have that.
    """
    begin, end = (np.concatenate(parts) for parts in ([c[:-1] for c in corners], [c[1:] for c in corners]))
    some = np.unique(np.linspace(0, len(begin) - 1, min(SAMPLED, len(begin))).astype(np.int64))
    together = max(1, _COMPARED // len(begin))
    crossing = along = 0
    with np.errstate(all="ignore"):
        side = end - begin
        length = (side**2).sum(axis=1)
        for first in range(0, len(some), together):
            one = some[first : first + together, None]
            to_x, to_y = (begin[:, axis] - begin[one, axis] for axis in (0, 1))
            x, y = side[one, 0], side[one, 1]
            across = x * side[:, 1] - y * side[:, 0]
            here = (to_x * side[:, 1] - to_y * side[:, 0]) / across
            there = (to_x * y - to_y * x) / across
            inner, outer = (here > 0) & (here < 1), (there > 0) & (there < 1)
            crossing += int((inner & (there >= 0) & (there <= 1) | outer & (here >= 0) & (here <= 1)).sum())
            starts = (to_x * x + to_y * y) / length[one]
            ends = starts + (x * side[:, 0] + y * side[:, 1]) / length[one]
            shared = np.minimum(np.maximum(starts, ends), 1) > np.maximum(np.minimum(starts, ends), 0)
            on_it = (across == 0) & (to_x * y == to_y * x) & shared
            along += int((on_it & (np.arange(len(begin)) != one)).sum())
    each = len(begin) / len(some) / 2
    return crossing * each + max(0.0, along * each - len(begin))


def _flat(geometry: Any) -> Iterator[Any]:
    """Yield the parts of a geometry that have no parts themselves."""
    if hasattr(geometry, "geoms"):
        for part in geometry.geoms:
            yield from _flat(part)
    else:
        yield geometry


def areas_of(geometry: Any) -> Iterator["Polygon"]:
    """Yield the polygons of a geometry that have an area; lines and points are left out."""
    if geometry.geom_type == "Polygon":
        if geometry.area > 0:
            yield geometry
    else:
        for part in getattr(geometry, "geoms", ()):
            yield from areas_of(part)
