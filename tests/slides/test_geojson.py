import json
import time

import numpy as np
import pytest
import shapely

from napari_flag.errors import UserError
from napari_flag.slides.formats.geojson import Annotation, read_annotations, read_regions, write_annotations

RING = shapely.Polygon([(0, 0), (90, 0), (90, 90), (0, 90)], [[(30, 30), (60, 30), (60, 60), (30, 60)]])


def test_names_classes_colours_and_holes_come_back(tmp_path):
    path = tmp_path / "regions.geojson"
    drawn = [
        Annotation("Front", (RING,), "Tumor", (200, 0, 0)),
        Annotation("Two parts", (shapely.box(0, 0, 5, 5), shapely.box(9, 9, 12, 12)), colour=(1, 2, 3)),
        Annotation("", (shapely.box(0, 0, 4, 4),)),
    ]
    write_annotations(drawn, path)
    back = read_annotations(path)
    assert [(a.name, a.classification, a.colour) for a in back] == [
        ("Front", "Tumor", (200, 0, 0)),
        ("Two parts", "", (1, 2, 3)),
        ("", "", None),
    ]
    assert [sum(p.area for p in a.polygons) for a in back] == [RING.area, 34, 16]
    assert len(back[1].polygons) == 2


def test_the_file_has_the_properties_qupath_looks_for(tmp_path):
    path = tmp_path / "regions.geojson"
    write_annotations([Annotation("Front", (RING,), "Tumor", (200, 0, 0))], path)
    [feature] = json.loads(path.read_text())["features"]
    assert feature["type"] == "Feature"
    assert len(feature["id"]) == 36
    assert feature["geometry"]["type"] == "Polygon"
    assert feature["properties"] == {
        "objectType": "annotation",
        "isLocked": False,
        "name": "Front",
        "classification": {"name": "Tumor", "color": [200, 0, 0]},
    }


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ({"name": "Stroma", "colorRGB": -3670016}, ("Stroma", (200, 0, 0))),
        ({"names": ["Tumor", "Positive"], "color": [1, 2, 3]}, ("Tumor: Positive", (1, 2, 3))),
        ("Necrosis", ("Necrosis", None)),
        (None, ("", None)),
    ],
)
def test_classes_of_all_qupath_versions_are_read(tmp_path, kind, expected):
    path = tmp_path / "regions.geojson"
    box = shapely.geometry.mapping(shapely.box(0, 0, 5, 5))
    feature = {"type": "Feature", "geometry": box, "properties": {"classification": kind}}
    path.write_text(json.dumps([feature]))
    [annotation] = read_annotations(path)
    assert (annotation.classification, annotation.colour) == expected
    assert read_regions(path)[0].area == 25


def test_broken_properties_are_one_sentence(tmp_path):
    path = tmp_path / "regions.geojson"
    box = shapely.geometry.mapping(shapely.box(0, 0, 5, 5))
    path.write_text(json.dumps({"type": "Feature", "geometry": box, "properties": {"color": ["red"]}}))
    with pytest.raises(UserError, match="not GeoJSON as QuPath writes it"):
        read_annotations(path)


# --- what would take hours to repair ---------------------------------------------------------------------


def square(size: float, x: float = 0, y: float = 0) -> list[list[float]]:
    return [[x, y], [x + size, y], [x + size, y + size], [x, y + size], [x, y]]


HOSTILE = {
    "squares sharing a corner": [[square(side)] for side in range(1, 1501)],
    "equal squares": [[square(9)]] * 20_000,
    "equal holes": [[square(11, -1, -1), *[square(9)] * 20_000]],
    "a ring repeated over itself": [[square(9)[:-1] * 20_000 + [[0, 0]]]],
    "bars and stripes": [
        *([[[0, i], [9000, i], [9000, i + 0.5], [0, i + 0.5], [0, i]]] for i in range(0, 9000, 10)),
        *([[[i, 0], [i + 0.5, 0], [i + 0.5, 9000], [i, 9000], [i, 0]]] for i in range(0, 9000, 10)),
    ],
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_outlines_that_lie_on_each_other_or_overlap_without_end_are_refused_at_once(tmp_path, kind):
    path = tmp_path / "r.geojson"
    path.write_text(json.dumps({"type": "MultiPolygon", "coordinates": HOSTILE[kind]}))
    began = time.process_time()
    with pytest.raises(UserError, match=r"cross themselves at least [\d,]+ times"):
        read_regions(path)
    assert time.process_time() - began < 5, "repairing them takes far longer"


def test_more_outlines_than_regions_can_be_are_refused(tmp_path):
    path = tmp_path / "r.geojson"
    polygon = {"type": "Polygon", "coordinates": [[[0, 0], [1, 0], [0, 1], [0, 0]]]}
    path.write_text(json.dumps([polygon] * 100_001))
    with pytest.raises(UserError, match="it has 100,001 outlines, where up to 100,000 are read"):
        read_regions(path)


def test_more_corners_than_anybody_draws_are_refused_before_outlines_are_looked_at(tmp_path):
    angle = np.linspace(0, 2 * np.pi, 500_001)[:-1]
    ring = (1300 + 1000 * np.stack([np.cos(angle), np.sin(angle)], 1)).round(3).tolist()
    path = tmp_path / "many.geojson"
    path.write_text(json.dumps({"type": "Polygon", "coordinates": [[*ring, ring[0]]]}))
    with pytest.raises(UserError, match="it has 500,001 corners, where up to 500,000 are read"):
        read_regions(path)


@pytest.mark.parametrize("far", [1e308, -1e10])
def test_corners_far_beyond_any_slide_are_refused(tmp_path, far):
    path = tmp_path / "r.geojson"
    path.write_text(json.dumps({"type": "Polygon", "coordinates": [[[far, 0], [9, 9], [0, 9], [far, 0]]]}))
    with pytest.raises(UserError, match="corners that are no numbers, or beyond 1,000,000,000 px"):
        read_regions(path)


def test_tiles_of_a_grid_that_share_sides_and_corners_are_taken(tmp_path):
    tiles = [square(10, x, y) for x in range(0, 700, 10) for y in range(0, 700, 10)]
    path = tmp_path / "r.geojson"
    features = [
        {
            "type": "Feature",
            "geometry": {"type": "Polygon", "coordinates": [tile]},
            "properties": {"name": str(i)},
        }
        for i, tile in enumerate(tiles)
    ]
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    assert len(read_annotations(path)) == 4900
    path.write_text(json.dumps({"type": "MultiPolygon", "coordinates": [[tile] for tile in tiles]}))
    began = time.process_time()
    assert sum(polygon.area for polygon in read_regions(path)) == 490_000
    assert time.process_time() - began < 5


def test_parts_far_apart_are_repaired_one_by_one_and_overlapping_ones_together(tmp_path):
    bow = [[900, 0], [910, 10], [910, 0], [900, 10], [900, 0]]
    parts = [[square(10)], [square(10, 5, 5)], [bow], [square(10, 500, 500), square(2, 504, 504)]]
    path = tmp_path / "r.geojson"
    path.write_text(json.dumps({"type": "MultiPolygon", "coordinates": parts}))
    found = read_regions(path)
    whole = shapely.make_valid(shapely.MultiPolygon([shapely.Polygon(p[0], p[1:]) for p in parts]))
    assert shapely.union_all(found).equals(whole)
    assert all(polygon.is_valid for polygon in found)


def test_a_region_of_thousands_of_holes_and_islands_with_a_defect_is_taken(tmp_path):
    places = np.arange(0, 300, 5)
    holes = [square(2, float(x), float(y)) for x in places for y in places]
    bow = [[400, 0], [410, 10], [410, 0], [400, 10], [400, 0]]
    path = tmp_path / "r.geojson"
    path.write_text(
        json.dumps({"type": "MultiPolygon", "coordinates": [[square(320, -5, -5), *holes], [bow]]})
    )
    assert sum(p.area for p in read_regions(path)) == pytest.approx(320**2 - 3600 * 4 + 50)
