import numpy as np
import pytest
import shapely
from napari.components import ViewerModel
from tests.fakes import MPP, fake_prediction

from napari_flag import keys
from napari_flag.analysis.truth import PREDICTED
from napari_flag.layers import region_shapes
from napari_flag.layers.frame import Frame
from napari_flag.layers.gene_map import GeneMap
from napari_flag.layers.region_shapes import Placement
from napari_flag.slides.formats.geojson import Annotation, read_annotations, write_annotations

RING = shapely.Polygon([(0, 0), (90, 0), (90, 90), (0, 90)], [[(30, 30), (60, 30), (60, 60), (30, 60)]])


@pytest.fixture
def viewer():
    return ViewerModel()


@pytest.fixture
def adata():
    return fake_prediction(36)


@pytest.fixture
def placement(viewer, adata):
    gene_map = GeneMap(viewer)
    gene_map.set_prediction(adata)
    gene_map.show([adata.var_names[0]])
    return Placement.of(gene_map, adata)


@pytest.fixture
def layer(viewer):
    return region_shapes.add_layer(viewer, Frame(MPP), 1000)


def box(low, high):
    return np.array([[low, low], [low, high], [high, high], [high, low]], float)


def test_world_and_pixels_are_a_scale_apart(placement):
    world = np.array([[10.0, 20.0], [0.0, 0.0]])
    assert placement.pixels(world) == pytest.approx(np.array([[20, 10], [0, 0]]) / MPP, abs=1e-6)
    assert placement.world(placement.pixels(world)) == pytest.approx(world, abs=1e-9)


def test_regions_stay_on_the_tissue_when_all_layers_are_scaled(viewer, adata, layer):
    gene_map = GeneMap(viewer)
    gene_map.set_prediction(adata)
    gene_map.show([adata.var_names[0]])
    layer.add([box(100, 200)])
    for each in viewer.layers:  # as when other µm/px are set
        each.scale, each.translate = np.asarray(each.scale) * 2, np.asarray(each.translate) * 2
    [region] = region_shapes.read_regions(viewer.layers, Placement.of(gene_map, adata))
    assert region.annotation.polygons[0].bounds == pytest.approx((100, 100, 200, 200), abs=1e-6)


def test_drawn_shapes_get_names_that_stay(viewer, layer, placement):
    layer.add([box(0, 10), box(20, 30)])
    names = [r.annotation.name for r in region_shapes.read_regions(viewer.layers, placement)]
    assert names == ["Region 1", "Region 2"]
    layer.selected_data = {0}
    layer.remove_selected()
    layer.add([box(40, 50)])
    names = [r.annotation.name for r in region_shapes.read_regions(viewer.layers, placement)]
    assert names == ["Region 2", "Region 1"]


def test_annotations_come_back_as_they_were_read(viewer, layer, placement, tmp_path):
    drawn = [
        Annotation("Front", (RING,), "Tumor", (200, 0, 0)),
        Annotation("Two", (shapely.box(0, 0, 5, 5), shapely.box(9, 9, 12, 12))),
    ]
    write_annotations(drawn, tmp_path / "in.geojson")
    region_shapes.add_annotations(layer, read_annotations(tmp_path / "in.geojson"), placement)
    regions = [r.annotation for r in region_shapes.read_regions(viewer.layers, placement)]
    assert [(a.name, a.classification, a.colour) for a in regions] == [
        ("Front", "Tumor", (200, 0, 0)),
        ("Two", "", None),
    ]
    assert regions[0].polygons[0].symmetric_difference(RING).area == pytest.approx(0, abs=1e-6)
    assert [p.area for p in regions[1].polygons] == pytest.approx([25, 9])
    write_annotations(regions, tmp_path / "out.geojson")
    again = read_annotations(tmp_path / "out.geojson")
    assert [a.name for a in again] == ["Front", "Two"]


def test_a_shape_drawn_after_an_import_is_a_region_of_its_own(viewer, layer, placement):
    region_shapes.add_annotations(layer, [Annotation("Front", (RING,), "Tumor", (200, 0, 0))], placement)
    layer.add([box(500, 600)])
    front, drawn = (r.annotation for r in region_shapes.read_regions(viewer.layers, placement))
    assert (drawn.name, drawn.classification, drawn.colour) == ("Region 1", "", None)
    assert front.polygons[0].area == pytest.approx(RING.area)


def test_shapes_of_any_other_layer_are_regions_too_and_lines_are_not(viewer, placement):
    other = viewer.add_shapes(ndim=2, name="Mine", **Frame(MPP).options())
    other.add([box(0, 10)], shape_type="ellipse")
    other.add([np.array([[0.0, 0.0], [5.0, 5.0]])], shape_type="line")
    [region] = region_shapes.read_regions(viewer.layers, placement)
    assert region.annotation.name == "Mine 1"
    assert region.annotation.polygons[0].area == pytest.approx(np.pi * 25, rel=0.01)


def test_a_region_can_be_renamed_and_removed(viewer, layer, placement):
    region_shapes.add_annotations(layer, [Annotation("Front", (RING,))], placement)
    layer.add([box(500, 600)])
    front, drawn = region_shapes.read_regions(viewer.layers, placement)
    region_shapes.rename(drawn, "Stroma")
    region_shapes.remove(front)
    [left] = region_shapes.read_regions(viewer.layers, placement)
    assert left.annotation.name == "Stroma"
    assert left.annotation.polygons[0].area == pytest.approx(100 * 100)


def test_without_a_gene_layer_the_frame_of_the_prediction_counts(viewer, adata):
    found = Placement.of(GeneMap(viewer), adata)
    assert found.pixels(np.array([[1.0, 2.0]])) == pytest.approx(np.array([[2.0, 1.0]]) / MPP)


def test_a_gene_layer_that_was_deleted_leaves_regions_in_the_frame_of_the_moved_slide(viewer, adata):
    frame = Frame(2 * MPP, ((0.0, 1.0, 300.0), (-1.0, 0.0, 40.0), (0.0, 0.0, 1.0)))
    gene_map = GeneMap(viewer)
    gene_map.set_prediction(adata, frame)
    gene_map.show([adata.var_names[0]])
    before = Placement.of(gene_map, adata).pixels(box(0, 1000))
    viewer.layers.clear()
    found = Placement.of(gene_map, adata)
    assert found.pixels(box(0, 1000)) == pytest.approx(before, abs=1e-6)
    assert found.pixels(np.array([[300.0, 40.0]])) == pytest.approx(np.zeros((1, 2)), abs=1e-9)


def drawn(viewer, adata):
    gene_map = GeneMap(viewer)
    gene_map.set_prediction(adata)
    return region_shapes.collect(viewer.layers, gene_map, adata, PREDICTED)


def test_a_drawn_region_is_the_spots_whose_centre_lies_inside(viewer, layer, adata, placement):
    xy = adata.obsm[keys.SPATIAL]
    around = shapely.Point(xy[7]).buffer(1), shapely.Point(xy[20]).buffer(1)
    region_shapes.add_annotations(layer, [Annotation("Two", around)], placement)
    [entry] = drawn(viewer, adata)
    assert np.flatnonzero(entry.region.mask).tolist() == [7, 20]


def test_an_outline_that_crosses_itself_is_a_region_of_both_its_halves(viewer, layer, adata):
    xy = adata.obsm[keys.SPATIAL]
    middle = (xy.min(axis=0) + xy.max(axis=0)) / 2
    reach = np.ptp(xy, axis=0).max()
    corners = [(-1, -1), (1, 1), (1, -1), (-1, 1)]
    layer.add([(middle + reach * np.array(corners))[:, ::-1]], shape_type="polygon")
    [entry] = drawn(viewer, adata)
    across, down = np.abs(xy - middle).T
    clear = np.abs(across - down) > 1  # not on an edge
    assert entry.region.mask[clear].tolist() == (across > down)[clear].tolist()
