import json

import pandas as pd
import pytest

from napari_flag.cli import main
from napari_flag.cli.exporting import NAMES
from napari_flag.exports.formats import FORMATS
from napari_flag.results import read_prediction


def test_the_help_names_every_format(capsys):
    assert tuple(known.name for known in FORMATS) == NAMES
    assert main(["export", "--help"]) == 0
    assert all(f"\n  {name} " in capsys.readouterr().out for name in ("h5ad",))


def test_several_formats_are_written_with_the_genes_asked_for(files, capsys):
    line = ["export", "predicted.h5ad", "--to", "csv", "geojson", "h5ad", "--genes", "ESR1", "ERBB2"]
    assert main([*line, "--out", "out/new", "--json"]) == 0
    written = json.loads(capsys.readouterr().out)["written"]
    assert [path.split("/")[-1] for path in written] == ["fake_expression.csv", "fake.geojson", "fake.h5ad"]
    table = pd.read_csv(files / "out" / "new" / "fake_expression.csv")
    assert list(table.columns[-2:]) == ["ESR1", "ERBB2"]
    assert list(read_prediction(files / "out" / "new" / "fake.h5ad").var_names) == ["ESR1", "ERBB2"]


def test_measured_counts_come_along(files):
    line = ["export", "predicted.h5ad", "--to", "h5ad", "--measured", "measured.h5ad", "--out", "out"]
    assert main(line) == 0
    assert "measured" in read_prediction(files / "out" / "fake.h5ad").layers


def test_scanpy_opens_the_h5ad(files):
    import scanpy as sc

    assert main(["export", "predicted.h5ad", "--to", "h5ad", "--out", "out"]) == 0
    adata = sc.read_h5ad(files / "out" / "fake.h5ad")
    sc.pp.pca(adata, n_comps=3)
    assert adata.obsm["X_pca"].shape == (49, 3)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (["--to", "csv", "--genes", "NOSUCH"], "no gene NOSUCH"),
        (["--to", "csv", "--out", "full"], "already exists"),
        (["--to", "spatialdata", "--out", "full", "--overwrite"], "holds no zarr"),
    ],
)
def test_what_cannot_be_done_is_one_sentence(files, capsys, line, said):
    (files / "full" / "fake.zarr").mkdir(parents=True)
    (files / "full" / "fake.zarr" / "thesis.docx").write_text("mine")
    (files / "full" / "fake_expression.csv").write_text("mine")
    assert main(["export", "predicted.h5ad", "--out", "out", *line]) == 2
    text = capsys.readouterr().err.strip().splitlines()
    assert said in text[-1]
    assert (files / "full" / "fake.zarr" / "thesis.docx").read_text() == "mine"


def test_the_prediction_itself_is_never_replaced(files, capsys):
    (files / "predicted.h5ad").rename(files / "fake.h5ad")
    assert main(["export", "fake.h5ad", "--to", "h5ad", "--out", ".", "--overwrite"]) == 2
    assert "the prediction itself" in capsys.readouterr().err
