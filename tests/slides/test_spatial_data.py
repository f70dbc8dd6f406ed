"""SpatialData zarrs as written by spatialdata itself, with elements and transforms as people write them."""

import json
import shutil
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from tests.slide_files import tissue_picture

from napari_flag.discovery import discover
from napari_flag.errors import UserError
from napari_flag.foreign_prediction import read_any_prediction
from napari_flag.prediction_file import slide_name, slide_size, um_per_px
from napari_flag.slides.formats.spatial_data import choose, is_store
from napari_flag.slides.slide import open_slide
from napari_flag.slides.spot_tables import read_measured, read_spots

GENES = ["ERBB2", "ESR1", "CD274", "MKI67"]
IMAGE_TO_GLOBAL = np.array([[0.0, -2.0, 3000.0], [2.0, 0.0, 50.0], [0.0, 0.0, 1.0]])  # turned and doubled
SHAPES_TO_GLOBAL = np.array([[2.0, 0.0, 100.0], [0.0, 2.0, -40.0], [0.0, 0.0, 1.0]])
WIDTH, HEIGHT = 900, 800


def affine(matrix):
    from spatialdata.transformations import Affine

    return Affine(matrix, input_axes=("x", "y"), output_axes=("x", "y"))


def spots_px():
    """Level-0 px of 30 spots on the image."""
    rows, columns = np.divmod(np.arange(30), 6)
    return np.stack([200 + 90.0 * columns + 3 * rows, 180 + 90.0 * rows], axis=1)


def table_of(region, instances, names, seed=0):
    from spatialdata.models import TableModel

    rng = np.random.default_rng(seed)
    adata = anndata.AnnData(
        sparse.csr_matrix(rng.poisson(3.0, (len(instances), len(GENES))).astype(np.float32))
    )
    adata.obs_names, adata.var_names = names, GENES
    adata.obs["region"], adata.obs["spot_id"] = pd.Categorical([region] * len(instances)), instances
    return TableModel.parse(adata, region=region, region_key="region", instance_key="spot_id")


def picture_of(pixels, **systems):
    from spatialdata.models import Image2DModel

    return Image2DModel.parse(
        pixels, dims=("y", "x", "c"), c_coords=["r", "g", "b"], scale_factors=[2],
        transformations={name: affine(matrix) for name, matrix in systems.items()},
    )  # fmt: skip


def circles_of(own, **systems):
    from spatialdata.models import ShapesModel

    return ShapesModel.parse(
        own, geometry=0, radius=25.0, index=np.arange(100, 100 + len(own)),
        transformations={name: affine(matrix) for name, matrix in systems.items()},
    )  # fmt: skip


def write(path: Path, **kinds) -> Path:
    import spatialdata

    spatialdata.SpatialData(**kinds).write(path)
    return path


def elements():
    """One image, its shapes and their table, placed by affines; rows in another order than the shapes."""
    px = np.column_stack([spots_px(), np.ones(30)])
    own = (px @ (np.linalg.inv(SHAPES_TO_GLOBAL) @ IMAGE_TO_GLOBAL).T)[:, :2]
    pixels = tissue_picture(WIDTH, HEIGHT, (120, 100, 800, 700))
    um = np.diag([0.5, 0.5, 1.0])
    order = np.random.default_rng(5).permutation(30)
    return (
        {"he": picture_of(pixels, **{"global": IMAGE_TO_GLOBAL, "um": um})},
        {"spots": circles_of(own, **{"global": SHAPES_TO_GLOBAL})},
        {"table": table_of("spots", 100 + order, [f"AAC{i:03d}-1" for i in order])},
        pixels,
    )


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    images, shapes, tables, _ = elements()
    return write(tmp_path_factory.mktemp("sd") / "P3.zarr", images=images, shapes=shapes, tables=tables)


def test_the_image_is_read_level_by_level_with_its_micrometres(store):
    pixels = elements()[-1]
    with open_slide(store) as slide:
        assert slide.path == store / "images/he"
        assert slide.name == "P3_he"
        assert slide.levels == ((WIDTH, HEIGHT), (WIDTH // 2, HEIGHT // 2))
        assert (slide.mpp, slide.mpp_source) == (0.5, "its coordinate system um")
        np.testing.assert_array_equal(slide.read_region(130, 90, 70, 60), pixels[90:150, 130:200])
        assert slide.read_region(0, 0, 40, 30, level=1).shape == (30, 40, 3)


@pytest.mark.parametrize(
    ("lost", "said"),
    [
        ("tables/table/X/indices", "could not be read as an AnnData"),
        ("tables/table/obs/spot_id", "could not be read as an AnnData"),
        ("tables/table/var/_index/c", "has rows without a name"),
        ("tables/table/zarr.json", "annotates no shapes in it; choose another table"),
    ],
)
def test_a_damaged_table_is_one_sentence(lost, said, store, tmp_path):
    copy = tmp_path / "P3.zarr"
    shutil.copytree(store, copy)
    place = copy / lost
    place.unlink() if place.is_file() else shutil.rmtree(place)
    with pytest.raises(UserError, match=said):
        read_measured(copy / "tables" / "table")


@pytest.mark.parametrize(
    ("lost", "said"),
    [("X/data", "X/data has 0 of its 1 chunks"), ("obs/spot_id", "29 rows of shapes that other rows have")],
)
def test_a_lost_chunk_which_zarr_reads_as_zeros_is_refused(lost, said, tmp_path):
    images, shapes, tables, _ = elements()
    tables["table"].obs["spot_id"] -= 100
    shapes["spots"].index -= 100
    store = write(tmp_path / "S.zarr", images=images, shapes=shapes, tables=tables)
    path = store / "tables" / "table"
    assert read_measured(path).n_obs == 30
    chunks = [each for each in (path / lost).rglob("*") if each.is_file() and each.name != "zarr.json"]
    for chunk in chunks:
        chunk.unlink()
    assert chunks
    with pytest.raises(UserError, match=said):
        read_spots(path)


@pytest.mark.parametrize("radius", [np.nan, np.inf, 1e300])
def test_a_shape_without_a_size_is_refused_when_it_is_read(radius, tmp_path):
    images, shapes, tables, _ = elements()
    store = write(tmp_path / "S.zarr", images=images, shapes=shapes, tables=tables)
    (place,) = (store / "shapes" / "spots").glob("*.parquet")
    import geopandas

    frame = geopandas.read_parquet(place)
    frame.loc[frame.index[3], "radius"] = radius
    frame.to_parquet(place)
    with pytest.raises(UserError, match="have 1 shape whose radius is no length above 0"):
        read_spots(store / "tables" / "table")


@pytest.mark.parametrize("kind", ["empty", "missing"])
def test_a_shape_without_a_place_is_refused_in_one_sentence(kind, tmp_path):
    images, shapes, tables, _ = elements()
    store = write(tmp_path / "S.zarr", images=images, shapes=shapes, tables=tables)
    (place,) = (store / "shapes" / "spots").glob("*.parquet")
    import geopandas
    import shapely

    frame = geopandas.read_parquet(place)
    places = frame.geometry.to_numpy().copy()
    places[3] = shapely.Point() if kind == "empty" else None
    frame["geometry"] = places
    frame.to_parquet(place)
    with pytest.raises(
        UserError, match=r"have 1 shape without a point or an outline|could not be read"
    ) as error:
        read_spots(store / "tables" / "table")
    assert "\n" not in str(error.value)


def test_what_spatialdata_says_of_a_store_is_one_line(tmp_path):
    images, shapes, tables, _ = elements()
    store = write(tmp_path / "S.zarr", images=images, shapes=shapes, tables=tables)
    (place,) = (store / "shapes" / "spots").glob("*.parquet")
    import geopandas

    frame = geopandas.read_parquet(place)
    frame.loc[frame.index[3], "radius"] = -1.0
    frame.to_parquet(place)
    with pytest.raises(UserError, match="could not be read as a SpatialData zarr") as error:
        read_spots(store / "tables" / "table")
    assert "\n" not in str(error.value)


def test_shapes_of_one_name_are_refused_in_one_sentence(tmp_path):
    images, shapes, tables, _ = elements()
    store = write(tmp_path / "S.zarr", images=images, shapes=shapes, tables=tables)
    (place,) = (store / "shapes" / "spots").glob("*.parquet")
    import geopandas

    frame = geopandas.read_parquet(place)
    frame.index = [7] * len(frame)
    frame.to_parquet(place)
    with pytest.raises(UserError, match=r"spots of S\.zarr names 1 shape more than once"):
        read_spots(store / "tables" / "table")


def test_an_image_whose_chunks_are_gigabytes_is_refused_before_any_is_decoded(store, tmp_path):
    copy = tmp_path / "P3.zarr"
    shutil.copytree(store, copy)
    level = copy / "images" / "he" / "s0" / "zarr.json"
    stated = json.loads(level.read_text())
    stated["shape"] = stated["chunk_grid"]["configuration"]["chunk_shape"] = [3, 40_000, 30_000]
    level.write_text(json.dumps(stated))
    with pytest.raises(UserError, match=r"in chunks of 3\.6 GB, .* where up to 268 MB"):
        open_slide(copy)


@pytest.mark.parametrize("given", ["", "tables/table", "shapes/spots"])
def test_spots_are_placed_by_the_affines_of_shapes_and_image(given, store):
    with open_slide(store) as slide:
        table = read_spots(store / given, slide=slide)
    order = [int(name[3:6]) for name in table.spots.ids]
    np.testing.assert_allclose(table.spots.xy, spots_px()[order], atol=1e-6)
    # a radius of 25 is 50 in the common system, 25 level-0 px, 12.5 µm
    assert table.spots.diameter_um == pytest.approx(25.0)
    expected = elements()[2]["table"]
    assert list(table.measured.obs_names) == list(expected.obs_names)
    np.testing.assert_array_equal(table.measured.X.toarray(), expected.X.toarray())


def test_spatialdata_places_them_there_too(store):
    import spatialdata

    held = spatialdata.read_zarr(store)
    in_global = spatialdata.transform(held.shapes["spots"], to_coordinate_system="global")
    with open_slide(store) as slide:
        ours = read_spots(store / "shapes/spots", slide=slide)
    px = ours.spots.xy[np.argsort([int(name[3:6]) for name in ours.spots.ids])]
    placed = np.column_stack([px, np.ones(30)]) @ IMAGE_TO_GLOBAL.T
    np.testing.assert_allclose(placed[:, 0], in_global.geometry.x, atol=1e-6)
    np.testing.assert_allclose(placed[:, 1], in_global.geometry.y, atol=1e-6)


def test_a_store_is_found_with_one_of_each_and_says_so(store):
    [section] = discover(store).sections
    assert section.slide == store / "images/he"
    assert section.table == store / "tables/table"
    assert section.why.count("the only one") == 3
    assert discover(store.parent).sections == (section,)


def test_counts_of_its_table_are_raw_counts(store):
    assert read_measured(store / "tables/table").X.sum() == elements()[2]["table"].X.sum()


@pytest.fixture(scope="module")
def several(tmp_path_factory):
    """Two H&E images, a fluorescence image, two sets of spots, two tables."""
    from spatialdata.models import Image2DModel

    images, shapes, tables, pixels = elements()
    images["other"] = picture_of(pixels, **{"elsewhere": np.eye(3)})
    images["dapi"] = Image2DModel.parse(np.zeros((1, 50, 60), np.uint16), dims=("c", "y", "x"))
    shapes["far"] = circles_of(spots_px(), **{"elsewhere": np.eye(3)})
    tables["of_far"] = table_of("far", np.arange(100, 130), [f"far{i}" for i in range(30)])
    folder = tmp_path_factory.mktemp("several")
    return write(folder / "P4.zarr", images=images, shapes=shapes, tables=tables)


def test_of_several_none_is_taken_and_all_are_named(several):
    with pytest.raises(UserError, match=r"2 colour images \(he, other\).*--image he"):
        choose(several)
    with pytest.raises(UserError, match=r"2 tables of counts \(of_far, table\).*--table"):
        choose(several, image="he")
    with pytest.raises(UserError, match=r"no image dapi to take \(there is he, other\); give another"):
        choose(several, image="dapi")
    found = discover(several)
    assert not found.sections
    assert "--image" in found.notices[0]


@pytest.mark.parametrize(
    ("named", "said"),
    [
        ({"shapes": "near"}, r"P4\.zarr has no shapes near \(there is far, spots\); give another --shapes"),
        ({"table": "cells"}, r"has no table cells that annotates shapes \(there is of_far, table\); give"),
        (
            {"table": "table", "shapes": "far"},
            r"The table table of P4\.zarr does not annotate far; give another --table",
        ),
    ],
)
def test_a_name_that_no_element_has_is_refused_with_those_there(several, named, said):
    with pytest.raises(UserError, match=said):
        choose(several, image="he", **named)


def test_an_element_named_is_taken(several):
    chosen = choose(several, image="other", shapes="far")
    assert (chosen.image.name, chosen.spots.name) == ("other", "of_far")
    assert "other is the H&E image (as chosen)" in chosen.why
    with open_slide(chosen.image, mpp=0.5) as slide:
        np.testing.assert_allclose(read_spots(chosen.spots, slide=slide).spots.xy, spots_px())


def test_without_a_common_coordinate_system_spots_are_refused(several):
    with (
        open_slide(several / "images/he") as slide,
        pytest.raises(UserError, match="no coordinate system in common"),
    ):
        read_spots(several / "tables/of_far", slide=slide)


def test_micrometres_that_are_not_stated_are_not_guessed(several):
    with open_slide(several / "images/other") as slide:
        assert slide.mpp is None


@pytest.fixture(scope="module")
def predicted(tmp_path_factory):
    """One image, its shapes, and four tables of them: counts, two predictions and an encoder's features."""
    images, shapes, tables, _ = elements()
    counts = tables["table"]
    for name in ("stpath", "deepspot", "uni"):
        tables[name] = counts.copy()
        tables[name].X = np.log1p(counts.X.toarray() + 0.5)
    tables["deepspot"].uns["log1p"] = {"base": None}
    tables["uni"].var_names = [str(k) for k in range(len(GENES))]
    return write(tmp_path_factory.mktemp("pr") / "P5.zarr", images=images, shapes=shapes, tables=tables)


def test_of_several_tables_the_counts_are_the_measurement_and_the_rest_are_distinguished(predicted):
    chosen = choose(predicted)
    assert chosen.spots.name == "table"
    assert "counts the table table (the only one with raw counts)" in chosen.why
    found = discover(predicted)
    assert [section.table.name for section in found.sections] == ["table"]
    assert [path.name for path in found.predictions] == ["deepspot", "stpath"]
    assert discover(predicted / "tables/table").tables == (predicted / "tables/table",)
    assert discover(predicted / "tables/stpath").predictions == (predicted / "tables/stpath",)


def test_a_prediction_of_another_program_lies_on_the_image_of_its_store(predicted):
    read = read_any_prediction(predicted / "tables/deepspot")
    with open_slide(predicted / "images/he") as slide:
        table = read_spots(predicted / "tables/table", slide=slide)
        assert (slide_name(read), slide_size(read), um_per_px(read)) == (slide.name, slide.size, slide.mpp)
    assert list(read.obs_names) == list(table.spots.ids)
    np.testing.assert_allclose(read.obsm["spatial"], table.spots.xy)


def test_other_zarrs_are_no_stores(tmp_path):
    import zarr

    zarr.open_group(tmp_path / "plain.zarr", mode="w").create_group("images")
    assert not is_store(tmp_path / "plain.zarr")
