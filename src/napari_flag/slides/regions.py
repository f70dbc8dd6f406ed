"""Regions drawn on a slide: GeoJSON in level-0 pixels, as QuPath reads and writes it."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_flag.errors import UserError

if TYPE_CHECKING:
    from shapely import Polygon


def read_regions(path: str | Path) -> list["Polygon"]:
    """Read polygons, (x, y) in level-0 pixels.

    Parameters
    ----------
    path
        GeoJSON: a FeatureCollection, a list of features, one feature, or a bare geometry.  Points
        and lines are skipped, outlines that cross themselves mended.

    Raises
    ------
    UserError
        When the file is no GeoJSON or outlines no area.
    """
    path = Path(path).expanduser()
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError as error:
        raise UserError(f"There is no file {path}; check the path.") from error
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise UserError(
            f"{path.name} is not GeoJSON ({error}); export the regions as GeoJSON, e.g. from QuPath."
        ) from error
    try:
        found = [polygon for g in _geometries(content) for polygon in _polygons(g)]
    except (AttributeError, TypeError, ValueError, KeyError) as error:
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


def write_regions(polygons: Iterable["Polygon"], path: str | Path, name: str = "region") -> None:
    """Write polygons, (x, y) in level-0 pixels, as GeoJSON that QuPath imports as annotations."""
    from shapely.geometry import mapping

    path = Path(path).expanduser()
    features = [
        {
            "type": "Feature",
            "geometry": mapping(polygon),
            "properties": {"objectType": "annotation", "name": f"{name} {i + 1}"},
        }
        for i, polygon in enumerate(polygons)
    ]
    collection = {"type": "FeatureCollection", "features": features}
    try:
        path.write_text(json.dumps(collection), encoding="utf-8")
    except OSError as error:
        raise UserError(
            f"{path} could not be written ({error.strerror or error}); choose another folder."
        ) from error


def _geometries(content: Any) -> Iterator[Any]:
    if isinstance(content, list):
        for item in content:
            yield from _geometries(item)
    elif "features" in content:
        yield from _geometries(content["features"])
    elif "geometry" in content:
        if content["geometry"] is not None:
            yield content["geometry"]
    elif "type" in content and ("coordinates" in content or "geometries" in content):
        yield content
    else:
        raise ValueError("no features and no geometry in it")


def _polygons(geometry: Any) -> Iterator["Polygon"]:
    import shapely
    from shapely.errors import ShapelyError
    from shapely.geometry import shape

    try:
        mended = shapely.make_valid(shape(geometry))
    except ShapelyError as error:
        raise ValueError(str(error)) from error
    yield from _areas(mended)


def _areas(geometry: Any) -> Iterator["Polygon"]:
    if geometry.geom_type == "Polygon":
        if geometry.area > 0:
            yield geometry
    else:
        for part in getattr(geometry, "geoms", ()):
            yield from _areas(part)
