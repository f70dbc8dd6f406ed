import errno
from types import SimpleNamespace

import anndata
import numpy as np
import psutil
import pytest
from shapely import box
from tests.fakes import fake_prediction

from napari_flag import keys, prediction_file
from napari_flag.errors import UserError
from napari_flag.prediction_file import (
    is_prediction,
    read_prediction,
    read_regions,
    write_prediction,
    write_regions,
)
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


@pytest.mark.parametrize(
    ("spoil", "fault"),
    [
        (lambda a: a.uns[keys.PROVENANCE].pop(keys.UNITS), "unit"),
        (lambda a: a.obsm.pop(keys.SPATIAL), "spot centres"),
        (lambda a: a.X.__setitem__((0, 0), np.nan), "missing"),
        (lambda a: a.uns[keys.PROVENANCE].update({keys.TRAINING_SLIDES: 5}), "should be a list of texts"),
        (lambda a: a.uns[keys.PROVENANCE].update({keys.MPP: "half"}), "should be a number"),
        (lambda a: a.uns[keys.PROVENANCE].update({keys.SLIDE_WIDTH: np.inf}), "should be a number"),
        (lambda a: a.uns[keys.PROVENANCE].update({keys.READ_FROM: "a.h5ad"}), "should be a group"),
    ],
)
def test_what_breaks_the_contract_is_named(prediction, tmp_path, spoil, fault):
    assert prediction_file.find_fault(prediction) is None
    spoil(prediction)
    assert fault in prediction_file.find_fault(prediction)
    with pytest.raises(ValueError, match="not a prediction"):
        prediction_file.write_prediction(prediction, tmp_path / "out.h5ad")


def test_draws_and_spread_are_optional_and_their_lack_is_said(prediction, tmp_path):
    assert prediction_file.why_less(prediction) is None
    del prediction.layers[keys.SAMPLE]
    assert prediction_file.find_fault(prediction) is None
    assert prediction_file.why_less(prediction) == (
        "This prediction holds no draws, so scores of draws are left out."
    )
    prediction_file.write_prediction(prediction, tmp_path / "out.h5ad")
    assert keys.SAMPLE not in prediction_file.read_prediction(tmp_path / "out.h5ad").layers


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
