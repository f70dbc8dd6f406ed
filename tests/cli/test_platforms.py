"""Measured sections of other platforms on the command line, in folders made by `tests.platform_files`."""

import json

import anndata
import numpy as np
import pytest
import spatialdata
from tests.cli.test_predict_command import model as model  # the fake model
from tests.foreign_files import write_deepspot_like
from tests.platform_files import GENES, visium_hd
from tests.slides import test_spatial_data as stores

import napari_flag as nf
from napari_flag import keys
from napari_flag.cli import main
from napari_flag.errors import UserError
from napari_flag.prediction_file import read_prediction, write_prediction
from napari_flag.progress import Step

pytestmark = pytest.mark.slow


def test_predict_on_a_visium_hd_run_pools_its_finest_bins(model, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    truth = visium_hd(tmp_path / "P2")
    assert main(["predict", "P2", "--spacing", "100", "--diameter", "55", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    said = " ".join(result["notices"])
    assert "P2_tissue_image.tif is the full-resolution image" in said
    assert "100 % of the counts of square_002um lie on the tissue" in said
    adata = anndata.read_h5ad(result["out"])
    measured = adata[:, [g for g in adata.var_names if g in GENES]].layers[keys.MEASURED]
    whole = np.flatnonzero(np.isfinite(measured).all(1))
    order = [GENES.index(g) for g in adata.var_names if g in GENES]
    for row in whole[:5]:
        expected = truth.in_disc(adata.obsm["spatial"][row] * 0.5, 55.0)[order]
        np.testing.assert_allclose(measured[row], np.log2(expected + 1), rtol=1e-6)


def test_compare_pools_a_visium_hd_run_into_the_spots_of_a_prediction(model, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    visium_hd(tmp_path / "P2")
    slide = "P2/fake.tif"  # the name that the fake model gives its slide
    (tmp_path / "P2/P2_tissue_image.tif").rename(slide)
    assert main(["predict", slide, "--spacing", "100", "--diameter", "55", "--out", "P2/P2.h5ad"]) == 0
    capsys.readouterr()
    assert main(["compare", "P2/P2.h5ad", "P2", "--json"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["genes"] == 4
    assert "on the tissue of" in err
    said: list[str] = []
    found = nf.compare("P2/P2.h5ad", "P2", progress=lambda step: said.append(step.notice or ""))
    assert found.genes == 4
    assert any("on the tissue of" in notice for notice in said)


@pytest.fixture
def zarr(model, tmp_path, monkeypatch):
    """A SpatialData zarr with one image, its spots and their table, in the current folder."""
    monkeypatch.chdir(tmp_path)
    images, shapes, tables, _ = stores.elements()
    return stores.write(tmp_path / "P3.zarr", images=images, shapes=shapes, tables=tables)


def test_predict_on_a_spatialdata_zarr_finds_image_spots_and_counts(zarr, capsys):
    assert main(["predict", "P3.zarr", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["out"] == "P3_he_predicted.h5ad"
    assert (result["spots"], result["measured"]) == (30, True)
    assert "he is the H&E image (the only one); spots are the shapes spots" in result["notices"][0]
    truth = spatialdata.read_zarr(zarr).tables["table"]
    adata = anndata.read_h5ad(result["out"])
    genes = [gene for gene in truth.var_names if gene in adata.var_names]
    expected = np.log2(truth[adata.obs_names, genes].X.toarray() + 1)
    np.testing.assert_allclose(adata[:, genes].layers[keys.MEASURED], expected, rtol=1e-6)


def test_a_spatialdata_zarr_gives_the_same_spots_and_counts_in_python_as_on_the_command_line(zarr):
    found = nf.predict("P3.zarr", progress=False)
    assert main(["predict", "P3.zarr", "--out", "out.h5ad"]) == 0
    written = read_prediction("out.h5ad")
    assert found.n_obs == 30
    assert list(found.obs_names) == list(written.obs_names)
    np.testing.assert_array_equal(found.layers[keys.MEASURED], written.layers[keys.MEASURED])
    notices = found.uns[keys.PROVENANCE][keys.NOTICES]
    assert list(notices) == list(written.uns[keys.PROVENANCE][keys.NOTICES])
    with pytest.raises(UserError, match="no image another to take"):
        nf.predict(zarr, image="another")


def test_a_prediction_goes_back_into_its_zarr_and_replaces_that_of_the_same_command(zarr, capsys):
    command = ["predict", "P3.zarr", "--out", "P3.zarr"]
    assert main(command) == 0
    assert "Wrote P3.zarr/tables/predicted" in capsys.readouterr().out
    held = spatialdata.read_zarr(zarr)
    assert held.tables["predicted"].n_obs == 30
    assert set(held.tables) == {"table", "predicted"}
    assert main(command) == 0
    assert "(in place of the earlier result of the same command)" in capsys.readouterr().out
    assert main([*command, "--seed", "1"]) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert main([*command, "--seed", "1", "--overwrite"]) == 0
    assert main(command) == 2, "the table is of the other now"


def test_a_prediction_that_its_zarr_does_not_take_is_kept_under_a_name_that_is_free(
    zarr, capsys, monkeypatch
):
    def refused(*_, **__):
        yield Step("Writing the zarr", 0)
        raise UserError("P3.zarr is full; free some space.")

    monkeypatch.setattr("napari_flag.exports.spatial_data.add_prediction", refused)
    kept = []
    for _ in range(2):
        assert main(["predict", "P3.zarr", "--out", "P3.zarr"]) == 2
        kept.append(capsys.readouterr().err.splitlines()[-1].rpartition("was kept as ")[2].rstrip("."))
    assert kept[1] == kept[0].replace("_predicted.h5ad", "_predicted_2.h5ad")
    for name in kept:
        assert read_prediction(zarr.parent / name).n_obs == 30


def test_several_elements_are_asked_for_and_taken_when_named(zarr, capsys):
    held = spatialdata.read_zarr(zarr)
    held["again"] = stores.elements()[0]["he"]
    held.write_element("again")
    assert main(["predict", "P3.zarr"]) == 2
    assert "2 colour images (again, he)" in capsys.readouterr().err
    assert main(["predict", "P3.zarr", "--image", "again", "--out", "other.h5ad", "--json"]) == 0
    assert "again is the H&E image (as chosen)" in capsys.readouterr().out


def test_elements_of_what_is_no_zarr_are_refused(zarr, capsys):
    assert main(["predict", "P3.zarr/images/he", "--image", "he"]) == 2
    assert "image (--image) names an element of a SpatialData zarr" in capsys.readouterr().err


def test_several_models_share_one_measurement_pooled_into_their_spots(model, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    visium_hd(tmp_path / "P2")
    slide = "P2/fake.tif"  # the name that the fake model gives its slide
    (tmp_path / "P2/P2_tissue_image.tif").rename(slide)
    assert main(["predict", slide, "--spacing", "100", "--diameter", "55", "--out", "P2/P2.h5ad"]) == 0
    ours = nf.read_prediction("P2/P2.h5ad")
    numbered = ours.copy()
    numbered.obs_names = [str(row) for row in range(ours.n_obs)]
    write_deepspot_like(numbered, tmp_path / "P2/deepspot.h5ad")
    capsys.readouterr()
    assert main(["compare", "P2/P2.h5ad", "P2/deepspot.h5ad", "--measured", "P2", "--json"]) == 0
    out, err = capsys.readouterr()
    found = json.loads(out)
    assert "on the tissue of" in err
    assert list(found["models"]) == ["P2", "deepspot"]
    assert main(["compare", "P2/P2.h5ad", "P2", "--json"]) == 0
    alone = json.loads(capsys.readouterr().out)
    assert found["models"]["P2"]["X"]["PCC"] == pytest.approx(alone["X"]["PCC"])

    moved = ours.copy()
    moved.obsm["spatial"] = moved.obsm["spatial"] + 90.0
    write_prediction(moved, tmp_path / "P2/moved.h5ad")
    assert main(["compare", "P2/P2.h5ad", "P2/moved.h5ad", "--measured", "P2"]) == 2
    assert "Spots of one name lie in different places" in capsys.readouterr().err
