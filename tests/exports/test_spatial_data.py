"""The zarr is opened by SpatialData and squidpy themselves."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
from tests.fakes import DIAMETER_UM, MPP, FakeSlide, fake_prediction

from napari_flag import keys
from napari_flag.errors import UserError
from napari_flag.exports.contents import with_structure
from napari_flag.exports.formats import export, find_format
from napari_flag.exports.spatial_data import (
    CHUNK_PX,
    MICROMETRES,
    PICTURE,
    SPOTS,
    TABLE,
    add_prediction,
    with_valid_names,
    write_spatial_data,
)
from napari_flag.progress import finish

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def written(predicted, tmp_path_factory):
    """The zarr without the slide; tests only read it."""
    import spatialdata

    path = tmp_path_factory.mktemp("zarr") / "fake.zarr"
    finish(write_spatial_data(predicted, path))
    return spatialdata.read_zarr(path)


def test_the_table_annotates_circles_of_the_true_radius(written, prediction):
    from spatialdata import join_spatialelement_table

    circles = written.shapes[SPOTS]
    np.testing.assert_allclose(circles.radius, DIAMETER_UM / MPP / 2)
    np.testing.assert_allclose(
        np.column_stack([circles.geometry.x, circles.geometry.y]), prediction.obsm["spatial"]
    )
    joined, table = join_spatialelement_table(
        sdata=written, spatial_element_names=SPOTS, table_name=TABLE, how="inner"
    )
    assert list(joined[SPOTS].index) == list(table.obs_names) == list(prediction.obs_names)
    np.testing.assert_array_equal(table.X, prediction.X)
    np.testing.assert_array_equal(table.layers[keys.SPREAD], prediction.layers[keys.SPREAD])


def test_micrometres_are_a_coordinate_system_of_their_own(written, prediction):
    from spatialdata import transform

    in_um = transform(written.shapes[SPOTS], to_coordinate_system=MICROMETRES)
    np.testing.assert_allclose(in_um.radius, DIAMETER_UM / 2)
    np.testing.assert_allclose(in_um.geometry.x, prediction.obsm["spatial"][:, 0] * MPP)


def test_without_micrometres_there_are_only_pixels(prediction, tmp_path):
    import spatialdata

    del prediction.uns[keys.PROVENANCE][keys.MPP]
    finish(write_spatial_data(prediction, tmp_path / "fake.zarr"))
    assert spatialdata.read_zarr(tmp_path / "fake.zarr").coordinate_systems == ["global"]


def test_the_small_picture_lies_under_the_spots(written, prediction):
    from spatialdata import get_extent

    extent = get_extent(written[PICTURE])
    np.testing.assert_allclose(extent["x"][1], prediction.uns[keys.PROVENANCE][keys.SLIDE_WIDTH], rtol=0.01)


def test_squidpy_works_on_the_table(written):
    """Slow for squidpy's import."""
    import squidpy as sq

    table = written.tables[TABLE].copy()
    sq.gr.spatial_neighbors_grid(table, n_neighs=4)
    sq.gr.spatial_autocorr(table, mode="moran")
    assert set(table.uns["moranI"].index) == set(table.var_names)
    assert table.uns["moranI"].I.iloc[0] > 0.5


def test_structure_goes_along_without_a_warning_of_zarr(prediction, tmp_path, recwarn):
    import spatialdata

    del prediction.obs[keys.DOMAIN]
    complete = finish(with_structure(prediction))
    finish(write_spatial_data(complete, tmp_path / "fake.zarr"))
    assert not [warning for warning in recwarn if "V3 specification" in str(warning.message)]
    table = spatialdata.read_zarr(tmp_path / "fake.zarr").tables[TABLE]
    assert list(table.obs[keys.DOMAIN]) == list(complete.obs[keys.DOMAIN])
    assert set(table.uns["moranI"].index) == set(prediction.var_names)
    markers = table.uns["markers"]
    assert list(markers[markers.domain == "1"].gene) == list(complete.uns[keys.MARKERS]["names"]["1"])


@pytest.mark.parametrize("markers", [1, {"params": {"method": "logreg"}}])
def test_marker_genes_in_another_layout_do_not_stop_it(prediction, tmp_path, markers):
    import spatialdata

    prediction.uns[keys.MARKERS] = markers
    finish(write_spatial_data(prediction, tmp_path / "a.zarr"))
    assert spatialdata.read_zarr(tmp_path / "a.zarr").tables[TABLE].uns[keys.MARKERS] == markers


def test_the_slide_becomes_a_pyramid(prediction, tmp_path):
    import spatialdata

    width, height = 2100, 1100  # two levels, the first of several chunks
    prediction.uns[keys.PROVENANCE] |= {keys.SLIDE_WIDTH: width, keys.SLIDE_HEIGHT: height}
    slide = FakeSlide(width, height)
    steps = []
    finish(write_spatial_data(prediction, tmp_path / "fake.zarr", slide), steps.append)
    picture = spatialdata.read_zarr(tmp_path / "fake.zarr")[PICTURE]
    shapes = [picture[level].image.shape for level in picture.children]
    assert shapes == [(3, height, width), (3, height // 2, width // 2)]
    np.testing.assert_array_equal(picture["scale0"].image.to_numpy(), slide.pixels.transpose(2, 0, 1))
    assert steps[-1].total == -(-width // CHUNK_PX) * -(-height // CHUNK_PX)


def test_cancelled_it_leaves_nothing(prediction, tmp_path):
    work = write_spatial_data(prediction, tmp_path / "fake.zarr", FakeSlide(1500, 1500))
    while next(work).stage != "Writing the SpatialData zarr":
        pass
    work.close()
    assert not list(tmp_path.iterdir())


def test_without_spatialdata_one_sentence_says_what_to_install(prediction, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "spatialdata", None)
    with pytest.raises(UserError, match=r"napari-flag\[spatialdata\]"):
        finish(write_spatial_data(prediction, tmp_path / "fake.zarr"))


# --- a prediction as a table of the store it was made from ------------------------------------------


@pytest.fixture
def foreign(tmp_path):
    """A store with an image, spots and their table that this package did not write."""
    from tests.slides import test_spatial_data as stores

    images, shapes, tables, _ = stores.elements()
    return stores.write(tmp_path / "P3.zarr", images=images, shapes=shapes, tables=tables)


def state_of(store, besides=()):
    """Every file below the elements of a store and its bytes, but for those of `besides`."""
    files = [
        path
        for kind in ("images", "shapes", "tables")
        for path in (store / kind).rglob("*")
        if path.is_file()
    ]
    named = {path.relative_to(store).as_posix(): path.read_bytes() for path in files}
    return {
        name: content
        for name, content in named.items()
        if not name.startswith(tuple(besides)) and name.count("/") > 1
    }


def for_spots(store, spots):
    """A prediction of the spots of a store."""
    from napari_flag.slides.slide import open_slide
    from napari_flag.slides.spot_tables import read_spots

    with open_slide(store) as slide:
        table = read_spots(spots, slide=slide)
    adata = fake_prediction(len(table.spots), 5)
    adata.obs_names, adata.obsm[keys.SPATIAL] = list(table.spots.ids), table.spots.xy
    return adata


def test_a_prediction_becomes_a_table_of_its_store_and_nothing_else_changes(foreign):
    import spatialdata

    before = state_of(foreign)
    adata = for_spots(foreign, foreign / "tables/table")
    place = finish(add_prediction(adata, foreign / "images/he", foreign / "tables/table"))
    assert place == foreign / "tables/predicted"
    assert state_of(foreign, ["tables/predicted/"]) == before
    held = spatialdata.read_zarr(foreign)
    assert set(held.tables) == {"table", "predicted"}
    joined, table = spatialdata.join_spatialelement_table(
        sdata=held, spatial_element_names="spots", table_name="predicted", how="inner", match_rows="left"
    )
    truth = held.tables["table"].obs.set_index("spot_id")
    names = dict(zip(held.tables["table"].obs.spot_id, held.tables["table"].obs_names, strict=True))
    assert [names[i] for i in joined["spots"].index] == list(table.obs_names)
    np.testing.assert_array_equal(table.X, adata[table.obs_names].X)
    assert len(truth) == len(table)


IN_NAPARI = """
import json, os, sys, time
import napari, numpy as np, spatialdata
from napari_spatialdata import Interactive
from qtpy.QtWidgets import QApplication

store, *elements = sys.argv[1:]
viewer = napari.Viewer(show=False)
shown = Interactive(spatialdata.read_zarr(store), headless=True)
for element in elements:
    shown.add_element(element, "global")
    until = time.monotonic() + 120  # it is read in a thread
    while element not in viewer.layers and time.monotonic() < until:
        QApplication.processEvents()
        time.sleep(0.02)
image, points = viewer.layers
print(json.dumps({
    "types": [type(layer).__name__ for layer in viewer.layers],
    "tables": list(points.metadata["table_names"]),
    "centres": np.array([points.data_to_world(place) for place in points.data]).tolist(),
    "corner": list(image.data_to_world((0, 0, 0))[:2]),
}), flush=True)
os._exit(0)
"""
"""Opens elements of a store in napari-spatialdata and prints what lies where, (row, column) of the world."""


def test_napari_spatialdata_opens_the_store_with_the_prediction_on_the_image(foreign):
    from tests.slides.test_spatial_data import IMAGE_TO_GLOBAL

    pytest.importorskip("napari_spatialdata")
    adata = for_spots(foreign, foreign / "tables/table")
    finish(add_prediction(adata, foreign / "images/he", foreign / "tables/table"))
    command = [sys.executable, "-W", "ignore", "-c", IN_NAPARI, str(foreign), "he", "spots"]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True)
    shown = json.loads(ran.stdout.splitlines()[-1])
    assert shown["types"] == ["Image", "Points"]
    assert sorted(shown["tables"]) == ["predicted", "table"]
    px = np.column_stack([adata.obsm["spatial"], np.ones(adata.n_obs)])
    there = (px @ IMAGE_TO_GLOBAL.T)[:, [1, 0]]
    order = np.lexsort(there.T), np.lexsort(np.array(shown["centres"]).T)
    np.testing.assert_allclose(np.array(shown["centres"])[order[1]], there[order[0]], atol=1e-6)
    np.testing.assert_allclose(shown["corner"], (IMAGE_TO_GLOBAL @ [0, 0, 1])[[1, 0]], atol=2)


def test_the_circles_of_a_grid_lie_where_the_image_does(foreign, prediction):
    import spatialdata
    from tests.slides.test_spatial_data import IMAGE_TO_GLOBAL

    before = state_of(foreign)
    finish(add_prediction(prediction, foreign / "images/he", None))
    assert state_of(foreign, ["tables/predicted/", "shapes/predicted_spots/"]) == before
    held = spatialdata.read_zarr(foreign)
    placed = spatialdata.transform(held.shapes["predicted_spots"], to_coordinate_system="global")
    xy = np.column_stack([prediction.obsm[keys.SPATIAL], np.ones(prediction.n_obs)]) @ IMAGE_TO_GLOBAL.T
    np.testing.assert_allclose(placed.geometry.x, xy[:, 0])
    np.testing.assert_allclose(placed.geometry.y, xy[:, 1])


def test_an_earlier_prediction_is_replaced_only_when_asked_and_a_table_of_another_never(foreign):
    import spatialdata

    image, spots = foreign / "images/he", foreign / "tables/table"
    adata = for_spots(foreign, spots)
    finish(add_prediction(adata, image, spots))
    with pytest.raises(UserError, match="--overwrite"):
        finish(add_prediction(adata, image, spots))
    again = adata.copy()
    again.X = adata.X + 1
    finish(add_prediction(again, image, spots, overwrite=True))
    np.testing.assert_array_equal(spatialdata.read_zarr(foreign).tables["predicted"].X, again.X)
    shutil.rmtree(foreign / "tables/predicted")
    shutil.copytree(spots, foreign / "tables/predicted")
    with pytest.raises(UserError, match="already has a table or shapes predicted; rename it first"):
        finish(add_prediction(adata, image, spots, overwrite=True))


def test_a_store_that_cannot_be_written_is_as_before(foreign, monkeypatch):
    from spatialdata import SpatialData

    image, spots = foreign / "images/he", foreign / "tables/table"
    adata = for_spots(foreign, spots)
    finish(add_prediction(adata, image, spots))
    before = state_of(foreign)

    def full(self, place, **_):
        (place / "tables" / "predicted").mkdir(parents=True)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(SpatialData, "write", full)
    with pytest.raises(UserError, match="no space left on device"):
        finish(add_prediction(adata, image, spots, overwrite=True))
    assert state_of(foreign) == before


def test_an_export_never_replaces_a_store_of_someone_else(prediction, tmp_path):
    from tests.slides import test_spatial_data as stores

    images, shapes, tables, _ = stores.elements()
    shapes["annotations"] = stores.circles_of(stores.spots_px(), **{"global": np.eye(3)})
    store = stores.write(tmp_path / "P3.zarr", images=images, shapes=shapes, tables=tables)
    before = state_of(store)
    with pytest.raises(UserError, match=r"P3\.zarr holds images/he, shapes/annotations, .* no export wrote"):
        finish(write_spatial_data(prediction, store))
    assert state_of(store) == before


def test_names_that_spatialdata_refuses_are_changed_and_said(prediction, tmp_path):
    import spatialdata

    named = prediction.copy()
    named.obs["cell type"], named.obs["cell_type"], named.obs["Cell_Type"] = "a", "b", "c"
    named.uns["my notes"], named.uns["__x"] = "d", "e"
    named.uns[keys.PROVENANCE] = {**named.uns[keys.PROVENANCE], "..": "f"}
    exporting = export(named, [(find_format("spatialdata"), tmp_path / "a.zarr")])
    notice = next(exporting).notice  # before any work
    finish(exporting)
    assert "“cell type” as cell_type_2, “Cell_Type” as Cell_Type_3" in notice
    table = spatialdata.read_zarr(tmp_path / "a.zarr").tables[TABLE]
    kept = {name: table.obs[name].iloc[0] for name in ("cell_type", "cell_type_2", "Cell_Type_3")}
    assert kept == {"cell_type": "b", "cell_type_2": "a", "Cell_Type_3": "c"}
    assert (table.uns["my_notes"], table.uns["x__x"]) == ("d", "e")
    assert table.uns[keys.PROVENANCE]["unnamed__"] == "f"
    assert "cell type" in named.obs, "the prediction is as it was"
    same, nothing = with_valid_names(prediction)
    assert same is prediction
    assert nothing == ()
