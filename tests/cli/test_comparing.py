import json

import pandas as pd

from napari_flag.cli import main


def test_compare_prints_the_scores_and_what_did_not_match(files, capsys):
    assert main(["compare", "predicted.h5ad", "measured.h5ad"]) == 0
    out = capsys.readouterr().out
    assert "fake: 49 spots and 8 genes compared" in out
    for metric in ("PCC", "MSE", "GSC", "SSC", "cPCC", "amplitude"):
        assert f"\n  {metric}" in out
    assert "4 first-ring neighbours on the square array" in out


def test_json_goes_to_stdout_and_nothing_else_does(files, capsys):
    assert main(["compare", "predicted.h5ad", "measured.h5ad", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["X"]["PCC"] > 0.5
    assert result["sample"]["PCC"] > 0.5
    assert result["measured"] == "measured.h5ad"


def test_out_writes_a_table_per_gene_the_scores_and_the_report(files):
    line = ["compare", "predicted.h5ad", "measured.h5ad", "--out", "scores/new"]
    assert main(line) == 0
    folder = files / "scores" / "new"
    assert sorted(p.name for p in folder.iterdir()) == [
        "fake_genes.csv", "fake_genes_sample.csv", "fake_report.html", "fake_scores.json"
    ]  # fmt: skip
    scores = json.loads((folder / "fake_scores.json").read_text())
    table = pd.read_csv(folder / "fake_genes.csv")
    assert table.pcc.mean().round(4) == round(scores["X"]["PCC"], 4)
    page = (folder / "fake_report.html").read_text("utf-8")
    assert f"<b>{scores['X']['PCC']:.3f}</b>" in page
    assert "napari-flag compare predicted.h5ad measured.h5ad --out scores/new" in page
    assert main(line) == 0, "the same command may be repeated"


def test_out_never_replaces_the_tables_of_another_comparison(files, capsys):
    assert main(["compare", "predicted.h5ad", "measured.h5ad", "--out", "scores"]) == 0
    before = (files / "scores" / "fake_genes.csv").read_text()
    (files / "measured.h5ad").rename(files / "other.h5ad")
    line = ["compare", "predicted.h5ad", "other.h5ad", "--out", "scores"]
    assert main(line) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert (files / "scores" / "fake_genes.csv").read_text() == before
    assert main([*line, "--overwrite"]) == 0


def test_bad_files_are_one_sentence(files, capsys):
    (files / "notes.txt").write_text("hello")
    for predicted, measured, said in (
        ("missing.h5ad", "measured.h5ad", "There is no file missing.h5ad"),
        ("measured.h5ad", "predicted.h5ad", "not written by napari-flag"),
        ("predicted.h5ad", "predicted.h5ad", "no raw counts"),
        ("notes.txt", "measured.h5ad", "not an h5ad file"),
    ):
        assert main(["compare", predicted, measured]) == 2
        text = capsys.readouterr().err
        assert said in text
        assert len(text.splitlines()) == 1
