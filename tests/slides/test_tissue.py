"""Tissue and regions."""

import json
import time
from pathlib import Path

import numpy as np
import pytest
import shapely
from tests import slide_files
from tests.slide_files import tissue_picture

from napari_flag.errors import UserError
from napari_flag.slides.formats.geojson import Annotation, read_regions, write_annotations
from napari_flag.slides.slide import Slide, open_slide
from napari_flag.slides.spots import grid_over
from napari_flag.slides.tissue import Tissue, find_tissue

BOX = (300, 200, 900, 800)
HER2ST = Path(__file__).parents[3] / "shared/data/her2st"


def slide_of(image: np.ndarray, folder: Path, mpp: float | None = 2.0) -> Slide:
    return open_slide(slide_files.plain_image(folder / "s.bmp", image), mpp=mpp)


def overlap(tissue: Tissue, box: tuple[int, int, int, int]) -> float:
    """Return intersection over union with `box` in level-0 pixels."""
    y, x = np.indices(tissue.mask.shape) * tissue.downsample + tissue.downsample / 2
    expected = (x >= box[0]) & (x < box[2]) & (y >= box[1]) & (y < box[3])
    return (tissue.mask & expected).sum() / (tissue.mask | expected).sum()


@pytest.mark.parametrize("mpp", [2.0, None])
def test_tissue_is_found_and_nothing_else(mpp: float | None, tmp_path: Path) -> None:
    tissue = find_tissue(slide_of(tissue_picture(1500, 1100, BOX), tmp_path, mpp))
    assert overlap(tissue, BOX) > 0.9


def test_pen_dust_and_black_borders_are_no_tissue(tmp_path: Path) -> None:
    image = tissue_picture(1500, 1100, BOX)
    image[:60] = 5  # black border
    image[:, :40] = 0
    image[100:1000, 1000:1040] = (20, 110, 60)  # green pen
    image[1000:1040, 100:1000] = (30, 40, 150)  # blue pen
    image[900:990, 1200:1300] = (15, 15, 18)  # black pen
    image[500:508, 1300:1308] = (60, 60, 60)  # dust
    assert overlap(find_tissue(slide_of(image, tmp_path)), BOX) > 0.85


def test_small_holes_are_filled_and_large_ones_kept(tmp_path: Path) -> None:
    image = tissue_picture(1500, 1100, BOX)
    glass = tissue_picture(1500, 1100, (0, 0, 1, 1))
    for left, top, size in ((350, 250, 60), (500, 400, 320)):
        image[top : top + size, left : left + size] = glass[top : top + size, left : left + size]
    tissue = find_tissue(slide_of(image, tmp_path))
    assert tissue.contains(np.array([[380, 280], [660, 560], [320, 700]])).tolist() == [
        True,
        False,
        True,
    ]
    (polygon,) = tissue.polygons()
    assert len(polygon.interiors) == 1


def test_a_blank_slide_has_no_tissue_and_no_grid(tmp_path: Path) -> None:
    for blank in (tissue_picture(800, 600, (0, 0, 1, 1)), np.full((600, 800, 3), 255, np.uint8)):
        tissue = find_tissue(slide_of(blank, tmp_path))
        assert not tissue.mask.any()
        assert tissue.polygons() == []
        with pytest.raises(UserError, match="No tissue was found"):
            grid_over(tissue, 2.0, 100, 55)


def test_tissue_that_fills_the_image_is_tissue(tmp_path: Path) -> None:
    tissue = find_tissue(slide_of(tissue_picture(1200, 900, (0, 0, 1200, 900)), tmp_path))
    assert tissue.mask.mean() > 0.95


def test_polygons_and_mask_agree() -> None:
    mask = np.zeros((60, 80), bool)
    mask[10:50, 20:70] = True
    mask[25:35, 40:50] = False
    mask[28:32, 43:47] = True
    mask[0:5, 0:5] = True
    tissue = Tissue(mask, 10.0)
    polygons = tissue.polygons()
    assert len(polygons) == 3
    assert sum(p.area for p in polygons) == pytest.approx(mask.sum() * 100, rel=0.03)
    points = np.random.default_rng(0).random((500, 2)) * (900, 700) - 50
    union = shapely.union_all(polygons)
    edge = shapely.distance(union.boundary, shapely.points(points)) > 15
    agree = shapely.contains_xy(union, *points.T) == tissue.contains(points)
    assert agree[edge].all()


@pytest.mark.slow
@pytest.mark.parametrize("section", ["B4", "C5"])
def test_spots_of_real_sections_lie_on_the_tissue_found(section: str) -> None:
    if not HER2ST.exists():
        pytest.skip("the her2st data are not beside the project")
    from napari_flag.slides.spot_tables import read_spots

    with open_slide(HER2ST / f"images/{section}.jpg", mpp=0.686) as slide:
        tissue = find_tissue(slide)
        spots = read_spots(HER2ST / f"spots/{section}_selection.tsv", slide=slide).spots
    assert tissue.contains(spots.xy).all()
    assert sum(p.area for p in tissue.polygons()) * 0.686**2 == pytest.approx(len(spots) * 200**2, rel=0.12)


SQUARE = {"type": "Polygon", "coordinates": [[[0, 0], [100, 0], [100, 50], [0, 50], [0, 0]]]}


@pytest.mark.parametrize(
    "content",
    [
        {"type": "FeatureCollection", "features": [{"type": "Feature", "geometry": SQUARE}]},
        [{"type": "Feature", "geometry": SQUARE, "properties": {"classification": None}}],
        {"type": "Feature", "geometry": SQUARE},
        SQUARE,
        {"type": "MultiPolygon", "coordinates": [SQUARE["coordinates"]]},
        {"type": "GeometryCollection", "geometries": [SQUARE, {"type": "Point", "coordinates": [1, 2]}]},
    ],
)  # fmt: skip
def test_regions_are_read_in_every_form(content: object, tmp_path: Path) -> None:
    path = tmp_path / "regions.geojson"
    path.write_text(json.dumps(content))
    (polygon,) = read_regions(path)
    assert polygon.area == 5000


def test_regions_written_are_read_again(tmp_path: Path) -> None:
    ring = shapely.Point(50, 50).buffer(40).difference(shapely.Point(50, 50).buffer(10))
    write_annotations(
        [Annotation("ring", (ring,)), Annotation("box", (shapely.box(200, 200, 300, 280),))],
        tmp_path / "r.geojson",
    )
    first, second = read_regions(tmp_path / "r.geojson")
    assert first.equals_exact(ring, 1e-9)
    assert second.area == 8000
    feature = json.loads((tmp_path / "r.geojson").read_text())["features"][0]
    assert feature["properties"]["objectType"] == "annotation"


def test_an_outline_that_crosses_itself_is_mended(tmp_path: Path) -> None:
    bow = {"type": "Polygon", "coordinates": [[[0, 0], [10, 10], [10, 0], [0, 10], [0, 0]]]}
    (tmp_path / "r.json").write_text(json.dumps(bow))
    assert sum(p.area for p in read_regions(tmp_path / "r.json")) == pytest.approx(50)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("no json", "not GeoJSON"),
        ('{"a": 1}', "not GeoJSON"),
        ("3", "not GeoJSON"),
        ('{"type": "Polygon", "coordinates": [[[0, 0], [1]]]}', "not GeoJSON"),
        ('{"type": "Point", "coordinates": [1, 2]}', "outlines no area"),
        ('{"type": "FeatureCollection", "features": []}', "outlines no area"),
    ],
)
def test_regions_that_are_none_are_refused(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "r.geojson"
    path.write_text(text)
    with pytest.raises(UserError, match=message):
        read_regions(path)


@pytest.mark.parametrize(
    "text",
    [
        "[" * 100_000,
        '{"features":' * 5_000 + "1" + "}" * 5_000,
        '{"type": "Polygon", "coordinates": [[[0, 0], [1, 1e999], [1, 0], [0, 0]]]}',
        '{"type": "Polygon", "coordinates": [[[0, 0], [1, null], [1, 0], [0, 0]]]}',
        '{"type": "Polygon", "coordinates": 5}',
        '{"type": "Nonsense", "coordinates": []}',
        '{"type": "Feature", "geometry": {"type": "Polygon", "coordinates": [[[0,0],[9,0],[9,9],[0,0]]]}, '
        '"properties": {"color": [1e999, 0, 0]}}',
        '{"type": "Feature", "geometry": {"type": "Polygon", "coordinates": [[[0,0],[9,0],[9,9],[0,0]]]}, '
        '"properties": {"color": [1]}}',
        '{"type": "Feature", "geometry": {"type": "Polygon", "coordinates": [[[0,0],[9,0],[9,9],[0,0]]]}, '
        '"properties": [1]}',
    ],
)
def test_regions_of_any_other_kind_are_refused_too(text: str, tmp_path: Path) -> None:
    path = tmp_path / "r.geojson"
    path.write_text(text)
    with pytest.raises(UserError, match=r"not GeoJSON|outlines no area"):
        read_regions(path)


def test_an_outline_that_crosses_itself_a_million_times_is_refused_at_once(tmp_path: Path) -> None:
    corners = np.random.default_rng(0).uniform(0, 1000, (3000, 2)).tolist()
    path = tmp_path / "r.geojson"
    path.write_text(json.dumps({"type": "Polygon", "coordinates": [[*corners, corners[0]]]}))
    began = time.monotonic()
    with pytest.raises(UserError, match=r"cross themselves at least [\d,]+ times"):
        read_regions(path)
    assert time.monotonic() - began < 30, "repairing it takes far longer"


@pytest.mark.parametrize(("outlines", "sides"), [(8, 199), (400, 30)])
def test_many_short_outlines_that_cross_themselves_are_refused_together(
    outlines: int, sides: int, tmp_path: Path
) -> None:
    corners = np.random.default_rng(0).uniform(0, 1000, (outlines, sides, 2)).round(1).tolist()
    tangles = [{"type": "Polygon", "coordinates": [[*each, each[0]]]} for each in corners]
    path = tmp_path / "r.geojson"
    path.write_text(json.dumps(tangles))
    began = time.process_time()
    with pytest.raises(UserError, match=r"cross themselves at least [\d,]+ times"):
        read_regions(path)
    assert time.process_time() - began < 3, "repairing them takes far longer"
    path.write_text(json.dumps(tangles[:1]))
    assert read_regions(path)


def test_json_of_millions_of_lists_is_refused_before_it_is_parsed(tmp_path: Path) -> None:
    path = tmp_path / "r.geojson"
    path.write_text("[" + "[]," * 6_000_000 + "[]]")
    began = time.process_time()
    with pytest.raises(UserError, match=r"it has 12,000,002 parts, where up to 5,000,000 are read"):
        read_regions(path)
    assert time.process_time() - began < 2


def test_a_long_outline_by_hand_is_taken(tmp_path: Path) -> None:
    angle = np.linspace(0, 2 * np.pi, 5000)
    radius = 100 + np.random.default_rng(0).normal(0, 0.5, 5000)  # a shaking hand crosses its own line
    corners = np.column_stack([radius * np.cos(angle), radius * np.sin(angle)])
    corners[-1] = corners[0]
    path = tmp_path / "r.geojson"
    path.write_text(json.dumps({"type": "Polygon", "coordinates": [corners.tolist()]}))
    assert sum(p.area for p in read_regions(path)) == pytest.approx(np.pi * 1e4, rel=0.02)


def test_a_missing_or_unwritable_file_is_reported(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="There is no file"):
        read_regions(tmp_path / "none.geojson")
    with pytest.raises(UserError, match="cannot be written"):
        write_annotations([Annotation("box", (shapely.box(0, 0, 1, 1),))], tmp_path / "none" / "r.geojson")
