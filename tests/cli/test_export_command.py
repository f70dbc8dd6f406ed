import json
import sys
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from tests.fakes import fake_prediction

from napari_flag.cli import main
from napari_flag.cli.analyse import NAMES
from napari_flag.errors import UserError
from napari_flag.exports.formats import FORMATS, export
from napari_flag.prediction_file import read_prediction, write_prediction


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


@pytest.mark.slow
@pytest.mark.parametrize("genes", [(), ("--genes", "ESR1", "ERBB2", "TP53")])
def test_scanpy_and_squidpy_find_the_results_where_they_put_theirs(files, genes):
    import scanpy as sc
    import squidpy as sq

    assert main(["export", "predicted.h5ad", "--to", "h5ad", "--out", "out", *genes]) == 0
    adata = sc.read_h5ad(files / "out" / "fake.h5ad")
    ours = adata.uns["moranI"].copy()
    assert set(ours.index) == set(adata.var_names)
    sq.gr.spatial_autocorr(adata, mode="moran")  # on the graph that is in the file
    theirs = adata.uns["moranI"].loc[ours.index]
    np.testing.assert_allclose(ours.I, theirs.I, atol=1e-6)
    ranked = sc.get.rank_genes_groups_df(adata, group="1")
    assert set(ranked.names) == set(adata.var_names)
    assert ranked.scores.is_monotonic_decreasing
    assert "1" in set(adata.obs["domain"])


@pytest.mark.parametrize("formats", [["h5ad"], pytest.param(["h5ad", "spatialdata"], marks=pytest.mark.slow)])
def test_domains_too_small_for_markers_are_exported_without(tmp_path, formats):
    write_prediction(fake_prediction(n_spots=16, n_genes=10), tmp_path / "small.h5ad")
    line = ["export", str(tmp_path / "small.h5ad"), "--to", *formats, "--genes", "ESR1"]
    assert main([*line, "--out", str(tmp_path)]) == 0
    adata = read_prediction(tmp_path / "fake.h5ad")
    assert "rank_genes_groups_measured" not in adata.uns
    assert list(adata.uns["moranI"].index) == ["ESR1"]


def test_too_few_spots_are_exported_without_structure(tmp_path, capsys):
    write_prediction(fake_prediction(n_spots=3), tmp_path / "few.h5ad")
    line = ["export", str(tmp_path / "few.h5ad"), "--to", "csv", "--out", str(tmp_path)]
    assert main(line) == 0
    assert "3 spots are too few" in capsys.readouterr().err


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


def test_a_format_whose_program_is_not_installed_is_refused_before_any_work(files, capsys, monkeypatch):
    """It used to compute the structure of the whole prediction first."""

    def never(*_, **__):
        raise AssertionError("computed before saying that spatialdata is not installed")

    monkeypatch.setitem(sys.modules, "spatialdata", None)
    monkeypatch.setattr("napari_flag.exports.formats.with_structure", never)
    monkeypatch.setattr("napari_flag.prediction_file.read_prediction", never)
    assert main(["export", "predicted.h5ad", "--to", "h5ad", "spatialdata", "--out", "out"]) == 2
    assert 'pip install "napari-flag[spatialdata]"' in capsys.readouterr().err
    assert not (files / "out").exists()


def test_every_export_checks_its_formats_first(monkeypatch, tmp_path):
    def missing():
        raise UserError("not installed")

    formats = [replace(known, check=missing) for known in FORMATS]
    work = export(fake_prediction(), [(known, tmp_path / known.name) for known in formats])
    with pytest.raises(UserError, match="not installed"):
        next(work)
