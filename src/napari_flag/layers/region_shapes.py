"""Regions as napari shapes and back: names, holes and parts kept, in level-0 pixels.

A region may be several shapes: its parts, and its holes, which napari's shapes do not know.  Shapes of one
region share a ``group``; a shape without one is a region of its own.  Holds no Qt.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from napari_flag import keys
from napari_flag.analysis.domains import LABELS, colour_of, domain_names, domain_title, read_domains
from napari_flag.analysis.regions import Region
from napari_flag.analysis.truth import PREDICTED
from napari_flag.layers.frame import Frame
from napari_flag.slides.formats.geojson import Annotation, Colour, areas_of
from napari_flag.slides.spots import inside

if TYPE_CHECKING:
    from anndata import AnnData

    from napari_flag.layers.gene_map import GeneMap


FloatArray = npt.NDArray[np.float64]

LAYER_NAME: Final = "Regions"
NAME, CLASS, COLOUR, GROUP, HOLE = "name", "classification", "colour", "group", "hole"
"""Columns of the layer's features."""
EMPTY: Final = {NAME: "", CLASS: "", COLOUR: "", GROUP: "", HOLE: False}
EDGE: Final = "#ff2d2d"
"""Red, which neither H&E nor viridis has."""
FACE_ALPHA: Final = "18"
ELLIPSE_SIDES: Final = 64
EDGE_SHARE: Final = 1 / 200
"""Width of an outline as a share of the slide's longest side."""


@dataclass(frozen=True, slots=True)
class Placement:
    """Where on the slide the viewer draws.

    Parameters
    ----------
    to_px
        (3, 3) float64, takes world (y, x, 1) to level-0 px (y, x, 1).
    """

    to_px: FloatArray

    @classmethod
    def of(cls, gene_map: "GeneMap", adata: Any) -> "Placement":
        """Return the placement of what `gene_map` draws, also after its layers were moved or deleted."""
        from napari_flag.layers.frame import frame_of

        layer = gene_map.layer(gene_map.quantity)
        if gene_map.values is None:
            return cls.in_frame(frame_of(adata))
        if layer is None or gene_map.raster is None:
            return cls.in_frame(gene_map.frame)
        return cls(gene_map.raster.matrix @ affine_of(layer.world_to_data))

    @classmethod
    def in_frame(cls, frame: Frame) -> "Placement":
        """Return the placement of what is drawn on the slide of `frame`."""
        return cls(np.linalg.inv(frame.matrix).astype(np.float64))

    def pixels(self, world: FloatArray) -> FloatArray:
        """Return (k, 2) level-0 px (x, y) of (k, 2) world (y, x)."""
        placed: FloatArray = world @ self.to_px[:2, :2].T + self.to_px[:2, 2]
        return placed[:, ::-1]

    def world(self, xy: FloatArray) -> FloatArray:
        """Return (k, 2) world (y, x) of (k, 2) level-0 px (x, y)."""
        back = np.linalg.inv(self.to_px)
        placed: FloatArray = xy[:, ::-1] @ back[:2, :2].T + back[:2, 2]
        return placed


@dataclass(frozen=True, slots=True)
class DrawnRegion:
    """A region of a Shapes layer.

    Parameters
    ----------
    annotation
        Name, class, colour, and outline in level-0 px.
    layer
        The Shapes layer.
    shapes
        Positions of its shapes in the layer.
    """

    annotation: Annotation
    layer: Any
    shapes: tuple[int, ...]


def add_layer(viewer: Any, frame: Frame, longest_px: float) -> Any:
    """Add the layer that regions are drawn in and read into, and return it.

    Parameters
    ----------
    viewer
        A napari viewer.
    frame
        Of the slide.
    longest_px
        Longest side of the slide, level-0 px.
    """
    return viewer.add_shapes(
        ndim=2,
        name=LAYER_NAME,
        face_color=EDGE + FACE_ALPHA,
        edge_color=EDGE,
        edge_width=longest_px * EDGE_SHARE,
        opacity=1.0,
        features={name: np.empty(0, bool if name == HOLE else object) for name in EMPTY},
        feature_defaults=EMPTY,
        text={"string": "{name}", "color": EDGE, "size": 10, "anchor": "upper_left"},
        **frame.options(metadata={keys.LAYER_KIND: "region"}),
    )


def shapes_among(layers: Iterable[Any]) -> list[Any]:
    """Return the Shapes layers among `layers`, in their order."""
    from napari.layers import Shapes

    return [layer for layer in layers if isinstance(layer, Shapes)]


def find_layer(layers: Iterable[Any]) -> Any:
    """Return the topmost of `layers` that `add_layer` made, or None."""
    ours = [layer for layer in shapes_among(layers) if GROUP in layer.features]
    return ours[-1] if ours else None


def drop_rows_without_shape(layer: Any, row: int | None = None) -> None:
    """Mend `layer`: napari 0.9.2 keeps features and colours of a shape that was given up while drawn.

    Parameters
    ----------
    layer
        A Shapes layer.
    row
        Of the shape that is gone, where that is known; else it was the last one, as while drawing.
    """
    features, shapes = layer.features, len(layer.data)
    extra = len(features) - shapes
    if extra <= 0:
        return
    gone = [row] if row is not None and extra == 1 else list(range(shapes, shapes + extra))
    view = layer._data_view
    for name in ("_edge_color", "_face_color"):
        if len(getattr(view, name)) == shapes + extra:
            setattr(view, name, np.delete(getattr(view, name), gone, axis=0))
    set_features(layer, features.drop(index=features.index[gone]).reset_index(drop=True))


def set_features(layer: Any, features: Any) -> None:
    """Set the features of `layer`; the next shape drawn gets none of the last row's, as it would."""
    layer.features = features
    if GROUP in features:
        layer.feature_defaults = EMPTY


def read_regions(layers: Iterable[Any], placement: Placement) -> list[DrawnRegion]:
    """Return the regions of all Shapes layers among `layers`, the first layer first, each in the order drawn.

    Lines enclose nothing and are passed over.  What has no name is called by a number; in our own layer
    the name is written down, so that it stays.
    """
    found: list[DrawnRegion] = []
    for layer in shapes_among(layers):
        if not len(layer.data):
            continue
        if GROUP in layer.features:
            drop_rows_without_shape(layer)
            _write_missing_names(layer)
        for shapes in _grouped(layer):
            polygons = _outline_of(layer, shapes, placement)
            if polygons:
                found.append(DrawnRegion(_annotation(layer, shapes, polygons), layer, tuple(shapes)))
    return found


def add_annotations(layer: Any, annotations: Sequence[Annotation], placement: Placement) -> None:
    """Draw `annotations` into `layer`, which `add_layer` made; at once, since napari redraws each time."""
    import pandas as pd

    corners, edges, faces = [], [], []
    rows: list[dict[str, Any]] = []
    to_data = np.linalg.inv(affine_of(layer.data_to_world))
    taken = {str(group) for group in _column(layer, GROUP, "")}
    for annotation in annotations:
        group = next(str(n) for n in range(1, len(taken) + 2) if str(n) not in taken)
        taken.add(group)
        edge = "#{:02x}{:02x}{:02x}".format(*annotation.colour) if annotation.colour else EDGE
        for ring, hole in _rings(annotation):
            world = placement.world(np.asarray(ring.coords, np.float64)[:-1, :2])
            corners.append(world @ to_data[:2, :2].T + to_data[:2, 2])
            edges.append(edge)
            faces.append("transparent" if hole else edge + FACE_ALPHA)
            name, colour = "" if hole else annotation.name, edge if annotation.colour else ""
            values = (name, annotation.classification, colour, group, hole)
            rows.append(dict(zip(EMPTY, values, strict=True)))
    if not rows:
        return
    features = pd.concat([layer.features, pd.DataFrame(rows)[list(EMPTY)]], ignore_index=True)
    layer.add(
        corners,
        shape_type="polygon",
        edge_color=edges,
        face_color=faces,
        edge_width=layer.current_edge_width,
    )
    set_features(layer, features.astype({name: bool if name == HOLE else object for name in EMPTY}))
    layer.current_edge_color, layer.current_face_color = EDGE, EDGE + FACE_ALPHA


def _rings(annotation: Annotation) -> list[tuple[Any, bool]]:
    """Return the outlines of all parts, then of all holes, and which are holes."""
    parts = annotation.polygons
    return [(p.exterior, False) for p in parts] + [(ring, True) for p in parts for ring in p.interiors]


def rename(region: DrawnRegion, name: str) -> None:
    """Give a region another name, which is drawn at it and goes along into files."""
    if NAME not in region.layer.features:
        region.layer.features = {NAME: np.full(len(region.layer.data), "", object)}
    _set_names(region.layer, dict.fromkeys(region.shapes, name))


def remove(region: DrawnRegion) -> None:
    """Take a region out of its layer."""
    region.layer.selected_data = set(region.shapes)
    region.layer.remove_selected()


def outline(kind: str, corners: FloatArray) -> FloatArray:
    """Return the corners of a shape; napari keeps an ellipse as the corners of its box."""
    if kind != "ellipse":
        return corners
    center = corners.mean(axis=0)
    one, two = (corners[1] - corners[0]) / 2, (corners[3] - corners[0]) / 2
    angle = np.linspace(0, 2 * np.pi, ELLIPSE_SIDES, endpoint=False)
    round_: FloatArray = center + np.cos(angle)[:, None] * one + np.sin(angle)[:, None] * two
    return round_


def _outline_of(layer: Any, shapes: Sequence[int], placement: Placement) -> tuple[Any, ...]:
    """Return the polygons of one region: its parts, less its holes."""
    import shapely

    holes = _column(layer, HOLE, False)
    to_world = affine_of(layer.data_to_world)
    solid: list[Any] = []
    hollow: list[Any] = []
    for row in shapes:
        kind = layer.shape_type[row]
        if kind in ("line", "path"):
            continue
        corners = outline(kind, np.asarray(layer.data[row], np.float64)[:, -2:])
        world = corners @ to_world[:2, :2].T + to_world[:2, 2]
        polygon = shapely.make_valid(shapely.Polygon(placement.pixels(world)))
        (hollow if holes[row] is True or holes[row] == np.True_ else solid).append(polygon)
    whole = shapely.union_all(solid).difference(shapely.union_all(hollow))
    return tuple(areas_of(whole))


def _annotation(layer: Any, shapes: Sequence[int], polygons: tuple[Any, ...]) -> Annotation:
    names, classes, colours = (_column(layer, key, "") for key in (NAME, CLASS, COLOUR))
    first = shapes[0]
    name = str(names[first] or f"{layer.name} {first + 1}")
    return Annotation(name, polygons, str(classes[first] or ""), _rgb(str(colours[first] or "")))


def _rgb(text: str) -> Colour | None:
    if len(text) != 7:
        return None
    red, green, blue = (int(text[i : i + 2], 16) for i in (1, 3, 5))
    return red, green, blue


def _column(layer: Any, key: str, default: Any) -> list[Any]:
    values = layer.features[key].tolist() if key in layer.features else [default] * len(layer.data)
    return [default if value is None or value != value else value for value in values]


def _grouped(layer: Any) -> list[list[int]]:
    """Return the positions of the shapes of each region, in the order of their first shape."""
    groups: dict[str, list[int]] = {}
    for row, group in enumerate(_column(layer, GROUP, "")):
        groups.setdefault(str(group) or f"alone {row}", []).append(row)
    return list(groups.values())


def _write_missing_names(layer: Any) -> None:
    names, holes = _column(layer, NAME, ""), _column(layer, HOLE, False)
    missing = [row for row, name in enumerate(names) if not name and not holes[row]]
    if not missing:
        return
    taken, given = {str(name) for name in names}, {}
    for row in missing:
        name = next(f"Region {n}" for n in range(1, len(taken) + 2) if f"Region {n}" not in taken)
        taken.add(name)
        given[row] = name
    _set_names(layer, given)


def _set_names(layer: Any, names: dict[int, str]) -> None:
    features = layer.features.copy()
    features[NAME] = features[NAME].astype(object)
    for row, name in names.items():
        features.loc[row, NAME] = name
    set_features(layer, features)


def affine_of(function: Any) -> FloatArray:
    """Return the (3, 3) matrix of an affine `function` of two coordinates."""
    origin = np.asarray(function((0.0, 0.0)), np.float64)[-2:]
    ends = [np.asarray(function(end), np.float64)[-2:] - origin for end in ((1.0, 0.0), (0.0, 1.0))]
    matrix = np.eye(3)
    matrix[:2] = np.column_stack([*ends, origin])
    return matrix


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


def collect(
    layers: Iterable[Any], gene_map: "GeneMap", adata: "AnnData", source: str, known: Sequence[Entry] = ()
) -> list[Entry]:
    """Return the regions drawn in `layers`, then the domains, or labels, of `source`.

    Parameters
    ----------
    layers
        Of the slide that `adata` is of.
    gene_map
        What draws `adata`.
    adata
        A prediction.
    source
        Whose domains, or `LABELS`.
    known
        What was returned before for the same `adata`: the spots of an outline that did not change are not
        sought again, which takes a hundredth of a second each among 50,000.
    """
    return [*_drawn(layers, gene_map, adata, known), *_domains(adata, source)]


def _drawn(
    layers: Iterable[Any], gene_map: "GeneMap", adata: "AnnData", known: Sequence[Entry]
) -> list[Entry]:
    import shapely

    xy = np.asarray(adata.obsm[keys.SPATIAL], np.float64)[:, :2]
    entries = []
    taken: dict[str, int] = {}
    for drawn in read_regions(layers, Placement.of(gene_map, adata)):
        name, polygons = drawn.annotation.name, drawn.annotation.polygons
        polygon = polygons[0] if len(polygons) == 1 else shapely.MultiPolygon(polygons)
        mask = next((e.region.mask for e in known if e.region.polygon == polygon), None)
        region = Region(name, inside(polygons, xy) if mask is None else mask, polygon)
        taken[name] = taken.get(name, 0) + 1
        entries.append(Entry(f"drawn {name} {taken[name]}", region, drawn.annotation.colour, drawn))
    return entries


def _domains(adata: "AnnData", source: str) -> list[Entry]:
    numbers = read_domains(adata, source)
    if numbers is None:
        return []
    shown = domain_titles(adata, source)
    return [
        Entry(
            f"domain {source} {number}",
            Region(shown[number - 1], numbers == number),
            colour_of(number),
            number=number,
        )
        for number in np.unique(numbers[numbers > 0]).tolist()
    ]


def domain_titles(adata: "AnnData", source: str, *, short: bool = False) -> list[str]:
    """Return what the domains, or labels, of `source` are called, from number 1 on.

    In the list by their source, since those of two can be compared; `short` in the legend of one map.
    """
    names = domain_names(adata, source)
    if source == LABELS:
        return [domain_title(name, "Label") for name in names]
    word = "prediction" if source == PREDICTED else "truth"
    end = "" if short else f" of the {word}"
    return [f"{domain_title(name, 'Domain')}{end}" for name in names]
