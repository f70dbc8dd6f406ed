"""Measured sections of other platforms on the command line, in folders made by `tests.platform_files`."""

import json

import anndata
import numpy as np
from tests.cli.test_predict_command import model as model  # the fake model
from tests.platform_files import GENES, visium_hd

from napari_flag import keys
from napari_flag.cli import main


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
