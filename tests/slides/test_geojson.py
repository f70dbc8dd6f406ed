import json

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
