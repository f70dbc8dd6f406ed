import errno
import os
from types import SimpleNamespace

import anndata
import h5py
import numpy as np
import pandas as pd
import psutil
import pytest
from scipy import sparse
from shapely import box
from tests.fakes import MPP, PITCH_UM, FakeSlide, add_draws, fake_prediction

from napari_flag import keys, prediction_file
from napari_flag.errors import UserError
from napari_flag.exports.formats import export, find_format, place_of
from napari_flag.exports.qupath import spot_features
from napari_flag.prediction_file import (
    drawn_diameter_px,
    is_prediction,
    read_prediction,
    read_regions,
    sharing,
    write_prediction,
    write_regions,
)
from napari_flag.progress import finish
from napari_flag.slide_identity import without_personal_names
from napari_flag.slides.formats.geojson import Annotation


@pytest.fixture
def prediction():
    return fake_prediction(n_spots=25, n_genes=6)


def test_a_prediction_comes_back_as_it_was_written(prediction, tmp_path):
    made = prediction.uns[keys.PROVENANCE]
    made["sections"] = ("a", "b")
    made["none"] = None
    made["nested"] = {"steps": 10, "none": None}
    prediction_file.write_prediction(prediction, tmp_path / "out.h5ad")
    back = prediction_file.read_prediction(tmp_path / "out.h5ad")
    np.testing.assert_array_equal(back.X, prediction.X)
    assert back.X.dtype == np.float32
    assert list(back.obs_names) == list(prediction.obs_names)
    assert list(back.var_names) == list(prediction.var_names)
    for layer in (keys.SAMPLE, keys.SPREAD, keys.MEASURED):
        np.testing.assert_array_equal(back.layers[layer], prediction.layers[layer])
    np.testing.assert_array_equal(back.obsm[keys.SPATIAL], prediction.obsm[keys.SPATIAL])
    again = back.uns[keys.PROVENANCE]
    assert again[keys.TRAINING_SLIDES] == made[keys.TRAINING_SLIDES]
    assert again[keys.DRAWS] == 1
    assert again["sections"] == ["a", "b"]
    assert again["nested"] == {"steps": 10}
    assert "none" not in again
    assert made["none"] is None, "the prediction in memory is not changed"


def with_what_scanpy_adds(adata):
    """Return a prediction with components, gene-gene and spot-spot matrices, and all its genes as raw."""
    rng = np.random.default_rng(3)
    adata.raw = adata.copy()
    adata.obsm["X_pca"], adata.varm["PCs"] = rng.normal(size=(25, 2)), rng.normal(size=(6, 2))
    adata.varp["correlation"], adata.obsp["connectivities"] = np.eye(adata.n_vars), np.eye(adata.n_obs)
    return adata


def assert_has_what_scanpy_adds(found, wanted):
    for name in ("obsm", "varm", "obsp", "varp"):
        held = getattr(wanted, name)
        assert set(getattr(found, name)) >= set(held), name
        for key in held:
            np.testing.assert_array_equal(getattr(found, name)[key], held[key])
    np.testing.assert_array_equal(found.raw.X, wanted.raw.X)
    assert list(found.raw.var_names) == list(wanted.raw.var_names)


def test_components_and_raw_values_that_scanpy_adds_are_there_after_saving(prediction, tmp_path):
    wanted = with_what_scanpy_adds(prediction)
    for _ in range(2):
        write_prediction(wanted, tmp_path / "out.h5ad")
        wanted = read_prediction(tmp_path / "out.h5ad")
        assert_has_what_scanpy_adds(wanted, prediction)


def test_components_and_raw_values_that_scanpy_adds_are_there_under_a_neutral_name(prediction):
    prediction.uns[keys.PROVENANCE][keys.SLIDE_NAME] = "Smith_John"
    renamed, _ = without_personal_names(with_what_scanpy_adds(prediction))
    assert renamed.uns[keys.PROVENANCE][keys.SLIDE_NAME] != "Smith_John"
    assert_has_what_scanpy_adds(renamed, prediction)


@pytest.mark.parametrize("to", ["h5ad", pytest.param("spatialdata", marks=pytest.mark.slow)])
def test_components_and_raw_values_that_scanpy_adds_are_exported(prediction, tmp_path, to):
    place = place_of(with_what_scanpy_adds(prediction), find_format(to), tmp_path)
    finish(export(prediction, [(find_format(to), place)]))
    table = place if to == "h5ad" else place / "tables" / "table"
    assert_has_what_scanpy_adds(read_prediction(table), prediction)


def test_what_is_added_to_an_anndata_that_shares_another_is_not_added_to_that(prediction):
    shared = sharing(with_what_scanpy_adds(prediction), {"log1p": "other"})
    assert shared.uns["log1p"] == "other"
    assert np.shares_memory(shared.X, prediction.X)
    shared.obs["label"], shared.var["I"], shared.uns["new"] = "a", 0.5, 1
    shared.layers["more"], shared.varm["more"] = shared.X, shared.varm["PCs"]
    shared.obsp["more"] = shared.obsp["connectivities"]
    assert not {"label", "I", "new", "more"} & {
        *prediction.obs, *prediction.var, *prediction.uns, *prediction.layers, *prediction.varm,
        *prediction.obsp,
    }  # fmt: skip
    assert "log1p" not in prediction.uns


def test_draws_of_earlier_versions_and_other_models_need_not_be_counts(prediction, tmp_path):
    prediction.layers[keys.SAMPLE] = prediction.X + 0.1
    prediction_file.write_prediction(prediction, tmp_path / "out.h5ad")
    back = prediction_file.read_prediction(tmp_path / "out.h5ad")
    np.testing.assert_array_equal(back.layers[keys.SAMPLE], prediction.layers[keys.SAMPLE])


def test_scanpy_takes_the_values_for_logarithms_to_the_base_2_in_its_fold_changes(prediction, tmp_path):
    scanpy = pytest.importorskip("scanpy")
    prediction.uns.pop("log1p", None)  # as of earlier versions
    prediction_file.write_prediction(prediction, tmp_path / "out.h5ad")
    for adata in (
        scanpy.read_h5ad(tmp_path / "out.h5ad"),
        prediction_file.read_prediction(tmp_path / "out.h5ad"),
    ):
        adata.obs["half"] = ["a"] * 12 + ["b"] * 13
        adata.obs["half"] = adata.obs["half"].astype("category")
        scanpy.tl.rank_genes_groups(adata, "half", method="t-test")
        found = scanpy.get.rank_genes_groups_df(adata, "a").set_index("names").loc[adata.var_names]
        first, second = (np.exp2(adata.X[rows].mean(axis=0)) - 1 for rows in (slice(12), slice(12, None)))
        np.testing.assert_allclose(found.logfoldchanges, np.log2(first / second), atol=1e-4)


@pytest.mark.slow
def test_scanpy_and_squidpy_open_the_file(prediction, tmp_path):
    scanpy = pytest.importorskip("scanpy")
    prediction_file.write_prediction(prediction, tmp_path / "out.h5ad")
    adata = scanpy.read_h5ad(tmp_path / "out.h5ad")
    library = adata.uns["spatial"]["fake"]
    assert library["scalefactors"]["spot_diameter_fullres"] > 0
    import matplotlib as mpl

    mpl.use("Agg")
    with pytest.warns(FutureWarning):
        scanpy.pl.spatial(adata, color=adata.var_names[0], show=False)
    squidpy = pytest.importorskip("squidpy", exc_type=ImportError)
    squidpy.gr.spatial_neighbors(adata, coord_type="grid", n_neighs=4)
    squidpy.gr.spatial_autocorr(adata, mode="moran", show_progress_bar=False)
    assert len(adata.uns["moranI"]) == adata.n_vars


def test_a_file_appears_whole_or_not_at_all(prediction, tmp_path, monkeypatch):
    out = tmp_path / "out.h5ad"
    out.write_text("what was there before")

    def full_disk(self, place, **_):
        place.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(anndata.AnnData, "write_h5ad", full_disk)
    with pytest.raises(UserError, match=r"out\.h5ad cannot be written \(no space left on device\)"):
        prediction_file.write_prediction(prediction, out)
    assert out.read_text() == "what was there before"
    assert list(tmp_path.iterdir()) == [out]


def test_a_file_that_is_not_there_a_folder_and_other_files_give_one_sentence(tmp_path):
    with pytest.raises(UserError, match="There is no file"):
        prediction_file.read_prediction(tmp_path / "missing.h5ad")
    with pytest.raises(UserError, match="is a folder"):
        prediction_file.read_prediction(tmp_path)
    (tmp_path / "counts.tsv").write_text("a\tb\n")
    with pytest.raises(UserError, match=r"counts\.tsv is not an h5ad file"):
        prediction_file.read_prediction(tmp_path / "counts.tsv")


def test_a_truncated_prediction_gives_one_sentence(prediction, tmp_path):
    path = tmp_path / "out.h5ad"
    prediction_file.write_prediction(prediction, path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(UserError, match="damaged, incomplete"):
        prediction_file.read_prediction(path)


@pytest.mark.parametrize("write", ["write_h5ad", "write_zarr"])
def test_a_prediction_larger_than_the_free_memory_is_refused_before_it_is_read(
    prediction, tmp_path, monkeypatch, write
):
    path = tmp_path / ("out.h5ad" if write == "write_h5ad" else "out.zarr")
    prediction_file.write_prediction(prediction, tmp_path / "first.h5ad")
    getattr(anndata.read_h5ad(tmp_path / "first.h5ad"), write)(path)
    values = sum(layer.nbytes for layer in (prediction.X, *prediction.layers.values()))
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=20 * values))
    assert read_prediction(path).shape == prediction.shape
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=values))
    monkeypatch.setattr(anndata, "read_h5ad", None)  # reading it would fail in another way
    monkeypatch.setattr(anndata, "read_zarr", None)
    said = f"^Reading {path.name} with all its draws needs about .* of memory while .* are free; close other"
    with pytest.raises(UserError, match=said):
        read_prediction(path)


def test_an_h5ad_from_someone_else_is_refused(tmp_path):
    path = tmp_path / "other.h5ad"
    anndata.AnnData(np.ones((4, 3), np.float32)).write_h5ad(path)
    with pytest.raises(UserError, match="not written by napari-flag"):
        prediction_file.read_prediction(path)


def with_picture(adata, picture, factor=0.5):
    """Give a prediction a picture as scanpy keeps it."""
    adata.uns[keys.SPATIAL] = {
        "C5": {"images": {"hires": picture}, "scalefactors": {"tissue_hires_scalef": factor}}
    }


def as_texts(adata, layer):
    adata.layers[layer] = adata.layers[layer].astype("S5")


def as_frame(adata):
    return pd.DataFrame(adata.obsm[keys.SPATIAL], index=adata.obs_names, columns=["x", "y"])


def twice(frame, column):
    frame.insert(0, column, 0, allow_duplicates=True)


@pytest.mark.parametrize("picture", [np.full((4, 4, 3), 0.5, np.float32), np.full((4, 4, 4), 200, np.int64)])
def test_a_picture_is_one_of_any_kind_of_numbers_that_pictures_have(prediction, picture):
    with_picture(prediction, picture)
    assert prediction_file.find_fault(prediction) is None


def test_marker_genes_of_a_record_per_field_are_stored(prediction, tmp_path):
    prediction.uns[keys.MARKERS] = {"names": np.zeros(3, [("1", object), ("2", object)])}
    assert prediction_file.find_fault(prediction) is None


@pytest.mark.parametrize(
    ("spoil", "fault"),
    [
        (lambda a: a.uns[keys.PROVENANCE].pop(keys.UNITS), "unit"),
        (lambda a: a.obsm.pop(keys.SPATIAL), "spot centres"),
        (lambda a: a.X.__setitem__((0, 0), np.nan), "missing"),
        (lambda a: a.uns[keys.PROVENANCE].update({keys.TRAINING_SLIDES: 5}), "should be a list of texts"),
        (lambda a: a.uns[keys.PROVENANCE].update({keys.MPP: "half"}), "should be a number"),
        (lambda a: a.uns[keys.PROVENANCE].update({keys.SLIDE_WIDTH: np.inf}), "should be a number"),
        (lambda a: a.uns[keys.PROVENANCE].update({keys.SLIDE_WIDTH: -5}), "should be a number from 0 on"),
        (lambda a: a.uns[keys.PROVENANCE].update({keys.SPOT_DIAMETER_UM: -5.0}), "should be a number from 0"),
        (lambda a: a.uns[keys.PROVENANCE].update({keys.DRAWS: -5}), "should be a number from 0 on"),
        (lambda a: a.uns[keys.PROVENANCE].update({keys.READ_FROM: "a.h5ad"}), "should be a group"),
        (
            lambda a: a.uns[keys.PROVENANCE].update({keys.FAMILIARITY: {keys.UNLIKE_WARNING: "/home/x"}}),
            "should be a text without a path",
        ),
        (lambda a: a.uns[keys.PROVENANCE].update({keys.SLIDE_HASH: "/../../x"}), "64 hexadecimal digits"),
        (lambda a: a.uns[keys.PROVENANCE].update({keys.SLIDE_HASH: ["a" * 64]}), "64 hexadecimal digits"),
        (lambda a: a.uns[keys.PROVENANCE].update({keys.WEIGHTS_HASH: 5}), "64 hexadecimal digits"),
        (
            lambda a: a.uns[keys.PROVENANCE].update({keys.TRAINING_HASHES: ["a" * 64, "A" * 64]}),
            "64 hexadecimal digits",
        ),
        (lambda a: a.layers[keys.SPREAD].__setitem__((0, 0), np.nan), 'not numbers in layers["sd"]'),
        (lambda a: a.layers[keys.SPREAD].__setitem__((0, 0), -1), "which no standard deviation is"),
        (lambda a: a.uns.__setitem__(keys.SPATIAL, "none"), "should be a group of pictures"),
        (lambda a: a.uns.__setitem__(keys.SPATIAL, {"C5": "none"}), "no group of pictures and scale factors"),
        (lambda a: with_picture(a, np.zeros(5, np.uint8)), "that is none in colour"),
        (lambda a: with_picture(a, np.full((4, 4, 3), "a")), "that is none in colour"),
        (lambda a: with_picture(a, np.zeros((4, 4, 3), np.uint8), "half"), "should be a number above 0"),
        (lambda a: a.obs.__setitem__(keys.ARRAY_ROW, 10**9), "no rows and columns of an array"),
        (lambda a: a.obs.__setitem__(keys.ARRAY_COL, "left"), "no rows and columns of an array"),
        (lambda a: a.layers["sample_3"].__setitem__((0, 0), np.nan), 'not numbers in layers["sample_3"]'),
        (lambda a: as_texts(a, "sample_3"), 'not numbers in layers["sample_3"]'),
        (lambda a: as_texts(a, "sample"), 'not numbers in layers["sample"]'),
        (lambda a: a.layers[keys.MEASURED].__setitem__((0, 0), np.inf), 'not numbers in layers["measured"]'),
        (lambda a: as_texts(a, keys.MEASURED), 'not numbers in layers["measured"]'),
        (lambda a: setattr(a, "X", a.X.astype(np.complex64)), "not numbers"),
        (lambda a: a.obsm.__setitem__(keys.SPATIAL, sparse.csr_matrix(a.obsm[keys.SPATIAL])), "spot centres"),
        (lambda a: a.obsm.__setitem__(keys.SPATIAL, as_frame(a)), "spot centres"),
        (lambda a: a.uns[keys.PROVENANCE].update({keys.MPP: 1e-308}), "should be a number from 1e-06 to"),
        (lambda a: a.uns[keys.PROVENANCE].update({keys.MPP: 1e300}), "should be a number from 1e-06 to"),
        (lambda a: a.uns[keys.PROVENANCE].update({keys.SPOT_PITCH_UM: 1e300}), "should be a number from"),
        (lambda a: with_picture(a, np.zeros((0, 0, 3), np.uint8)), "that is none in colour"),
        (lambda a: with_picture(a, np.full((4, 4, 3), 1e300)), "that is none in colour"),
        (lambda a: with_picture(a, np.full((4, 4, 3), np.nan)), "that is none in colour"),
        (lambda a: with_picture(a, np.zeros((4, 4, 3), np.uint8), 1e-300), "should be a number above 0"),
        (lambda a: a.obs.__setitem__(keys.DISTANCE, "far"), 'else than numbers in obs["training_distance"]'),
        (
            lambda a: a.uns[keys.PROVENANCE].update(more=h5py.Reference()),
            'uns["napari_flag"]["more"] that is',
        ),
        (lambda a: a.uns.update(more={"at": h5py.RegionReference()}), 'uns["more"]["at"] that is neither'),
        (lambda a: a.uns.update(more=h5py.Empty("f4")), 'uns["more"] that is neither'),
        (lambda a: a.uns.update(more=np.array([h5py.Reference()], object)), 'uns["more"] that is neither'),
        (lambda a: a.uns.update(more=np.zeros(3, [("a", "f4", (2,))])), 'uns["more"] that is neither'),
        (lambda a: twice(a.obs, keys.ARRAY_ROW), "names a column of obs or var twice"),
    ],
)
def test_what_breaks_the_contract_is_named(prediction, tmp_path, spoil, fault):
    add_draws(prediction, 3)
    prediction.layers[keys.MEASURED][1, 1] = np.nan  # was not measured
    assert prediction_file.find_fault(prediction) is None
    spoil(prediction)
    assert fault in prediction_file.find_fault(prediction)
    with pytest.raises(ValueError, match="not a prediction"):
        prediction_file.write_prediction(prediction, tmp_path / "out.h5ad")


def test_draws_are_optional(prediction, tmp_path):
    del prediction.layers[keys.SAMPLE]
    assert prediction_file.find_fault(prediction) is None
    prediction_file.write_prediction(prediction, tmp_path / "out.h5ad")
    assert keys.SAMPLE not in prediction_file.read_prediction(tmp_path / "out.h5ad").layers


@pytest.mark.parametrize("lost", ["X", "obsm/spatial", "layers/sample", "layers/sd"])
def test_a_table_of_a_zarr_without_its_chunks_is_refused(lost, prediction, tmp_path):
    prediction.write_zarr(tmp_path / "t.zarr")
    prediction_file.read_prediction(tmp_path / "t.zarr")
    for part in (tmp_path / "t.zarr" / lost).rglob("*"):
        if part.is_file() and not part.name.startswith(".z") and part.suffix != ".json":
            part.unlink()
    with pytest.raises(UserError, match="damaged, incomplete"):
        prediction_file.read_prediction(tmp_path / "t.zarr")


def test_what_a_prediction_states_is_read_from_it(prediction):
    made = prediction.uns[keys.PROVENANCE]
    made |= {keys.MPP: 0.5, keys.SPOT_DIAMETER_UM: 55.0, keys.SLIDE_NAME: "C5", keys.LATTICE: "hex"}
    made |= {keys.SLIDE_WIDTH: 900, keys.SLIDE_HEIGHT: 700}
    assert prediction_file.slide_name(prediction) == "C5"
    assert prediction_file.slide_size(prediction) == (900, 700)
    assert prediction_file.um_per_px(prediction) == 0.5
    assert prediction_file.spot_diameter_px(prediction) == 110.0
    assert prediction_file.stated_lattice(prediction) == "hex"
    spots = prediction_file.spots_of(prediction)
    assert (spots.ids, spots.diameter_um, spots.lattice) == (tuple(prediction.obs_names), 55.0, "hex")
    np.testing.assert_array_equal(spots.xy, prediction.obsm[keys.SPATIAL])


def test_an_anndata_that_states_nothing_has_nothing_invented_for_it():
    plain = anndata.AnnData(np.ones((4, 3), np.float32))
    assert prediction_file.provenance(plain) == {}
    assert prediction_file.slide_name(plain) == prediction_file.UNNAMED
    assert prediction_file.stated_lattice(plain) == "none"
    assert not prediction_file.trained_on(plain)
    for read in ("slide_size", "um_per_px", "spot_diameter_px", "array_coordinates", "unlike_warning"):
        assert getattr(prediction_file, read)(plain) is None


def test_the_spot_diameter_of_another_program_is_that_of_its_scale_factors():
    plain = anndata.AnnData(np.ones((4, 3), np.float32))
    plain.uns[keys.SPATIAL] = {"slide": {"scalefactors": {"spot_diameter_fullres": 89.0}}}
    assert prediction_file.spot_diameter_px(plain) == 89.0


def test_spots_of_unknown_diameter_are_drawn_alike_wherever_they_are_drawn(prediction):
    assert drawn_diameter_px(prediction) == prediction_file.spot_diameter_px(prediction)
    del prediction.uns[keys.PROVENANCE][keys.SPOT_DIAMETER_UM], prediction.uns[keys.SPATIAL]
    diameter = drawn_diameter_px(prediction)
    assert diameter == 0.55 * PITCH_UM / MPP
    corners = np.array(next(spot_features(prediction))["geometry"]["coordinates"][0])
    assert np.ptp(corners[:, 0]) == pytest.approx(diameter, rel=0.05)
    prediction_file.add_thumbnail(prediction, FakeSlide())
    factors = prediction.uns[keys.SPATIAL]["fake"]["scalefactors"]
    assert factors["spot_diameter_fullres"] == diameter


def test_array_coordinates_are_known_for_all_spots_or_for_none(prediction):
    prediction.obs[keys.ARRAY_ROW] = np.arange(25.0)
    prediction.obs[keys.ARRAY_COL] = 2 * np.arange(25.0)
    array = prediction_file.array_coordinates(prediction)
    assert array.dtype == np.int64
    np.testing.assert_array_equal(array[:, 1], 2 * np.arange(25))
    prediction.obs.loc[prediction.obs_names[3], keys.ARRAY_ROW] = np.nan
    assert prediction_file.array_coordinates(prediction) is None


@pytest.mark.parametrize(
    ("name", "among"), [("C2", True), ("b4", True), ("2", False), ("C5", False), ("", False)]
)
def test_section_names_match_whole_parts_only(name, among):
    assert prediction_file.is_among(name, ["her2st-C2", "B4"]) is among


def test_a_prediction_states_whether_its_weights_were_trained_on_its_slide(prediction):
    prediction.uns[keys.PROVENANCE] |= {keys.SLIDE_NAME: "C5", keys.TRAINING_SLIDES: ["her2st-C5"]}
    assert prediction_file.trained_on(prediction)
    prediction.uns[keys.PROVENANCE][keys.TRAINING_SLIDES] = ["her2st-C4"]
    assert not prediction_file.trained_on(prediction)
    prediction.uns[keys.PROVENANCE] |= {keys.SLIDE_HASH: "ab12", keys.TRAINING_HASHES: ["cd34"]}
    assert not prediction_file.trained_on(prediction)
    prediction.uns[keys.PROVENANCE][keys.TRAINING_HASHES] = ["ab12", "cd34"]
    assert prediction_file.trained_on(prediction).startswith("C5 is among the sections")
    del prediction.uns[keys.PROVENANCE][keys.SLIDE_HASH]
    assert not prediction_file.trained_on(prediction)


def outlined():
    ring = box(0, 0, 100, 80).difference(box(10, 10, 20, 20))
    return [
        Annotation("Tumour ä", (ring, box(200, 0, 210, 10)), "Tumor", (255, 0, 128)),
        Annotation("", (box(5, 5, 6, 6),)),
    ]


def test_regions_travel_with_the_file_of_a_prediction(tmp_path):
    adata = fake_prediction(9)
    assert read_regions(adata) == []
    write_regions(adata, outlined())
    write_prediction(adata, tmp_path / "p.h5ad")
    for read in (read_prediction(tmp_path / "p.h5ad"), anndata.read_h5ad(tmp_path / "p.h5ad")):
        back = read_regions(read)
        assert [a.name for a in back] == ["Tumour ä", ""]
        assert (back[0].classification, back[0].colour) == ("Tumor", (255, 0, 128))
        for mine, yours in zip(outlined(), back, strict=True):
            assert all(p.equals(q) for p, q in zip(mine.polygons, yours.polygons, strict=True))
    write_regions(adata, [])
    assert keys.REGIONS not in adata.uns[keys.PROVENANCE]


def test_regions_that_are_no_geojson_are_refused_in_a_sentence():
    adata = fake_prediction(9)
    for text in ("{", '{"a": 1}', "[1]", '{"type": "Polygon", "coordinates": "x"}'):
        adata.uns[keys.PROVENANCE][keys.REGIONS] = text
        with pytest.raises(UserError, match="draw them again"):
            read_regions(adata)


def test_a_prediction_is_distinguished_from_other_h5ad_files_by_its_header(tmp_path):
    write_prediction(fake_prediction(9), tmp_path / "p.h5ad")
    anndata.AnnData(np.zeros((2, 2), np.float32)).write_h5ad(tmp_path / "o.h5ad")
    (tmp_path / "t.h5ad").write_text("no hdf5")
    assert [is_prediction(tmp_path / f"{name}.h5ad") for name in "pot"] == [True, False, False]


def test_names_of_files_that_are_no_unicode_are_stored_with_a_sign(tmp_path):
    adata, odd = fake_prediction(9), os.fsdecode(b"s\xff.png")
    adata.uns[keys.PROVENANCE] |= {keys.NOTICES: [f"{odd} has no colour profile."], keys.WEIGHTS_NAME: odd}
    write_prediction(adata, tmp_path / "p.h5ad")
    made = read_prediction(tmp_path / "p.h5ad").uns[keys.PROVENANCE]
    assert made[keys.NOTICES] == ["s\ufffd.png has no colour profile."]
    assert made[keys.WEIGHTS_NAME] == "s\ufffd.png"
