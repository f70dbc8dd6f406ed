import json
import re
import sys
from dataclasses import replace

import anndata
import numpy as np
import pandas as pd
import pytest
from PIL import Image
from tests.fakes import add_draws, fake_prediction

import napari_flag as nf
from napari_flag import keys
from napari_flag.cli import main
from napari_flag.cli.analyse import NAMES
from napari_flag.errors import UserError
from napari_flag.exports.formats import FORMATS, export
from napari_flag.prediction_file import provenance, read_prediction, slide_size, write_prediction
from napari_flag.progress import Step, finish
from napari_flag.slides.file_identity import content_hash
from napari_flag.statistics.scoring_rules import NAMES as NAMES_OF_SCORES


def test_compare_prints_the_scores_and_what_did_not_match(files, capsys):
    assert main(["compare", "predicted.h5ad", "measured.h5ad"]) == 0
    out = capsys.readouterr().out
    assert "fake: 49 spots and 8 genes compared" in out
    for metric in ("PCC", "MSE", "GSC", "SSC", "cPCC", "amplitude"):
        assert f"\n  {metric}" in out
    assert "4 first-ring neighbours on the square array" in out


def test_compare_asks_for_more_draws_or_prints_the_proper_scores(files, capsys):
    assert main(["compare", "predicted.h5ad", "measured.h5ad"]) == 0
    out = capsys.readouterr().out
    assert "need 8 joint draws and this prediction holds one draw" in out
    assert "VS-space" not in out
    write_prediction(add_draws(read_prediction(files / "predicted.h5ad"), 9), files / "predicted.h5ad")
    assert main(["compare", "predicted.h5ad", "measured.h5ad", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["draws"]
    assert main(["compare", "predicted.h5ad", "measured.h5ad"]) == 0
    out = capsys.readouterr().out
    assert "mean of the first 8 draws" in out
    assert "need 8 joint draws" not in out
    lines = {line.split()[0]: line for line in out.splitlines() if line.startswith("  ")}
    assert lines["SSC"].endswith(f"{found['SSC']:.3f}")
    for score in NAMES_OF_SCORES:
        low, high = found["proper_scores"]["intervals_95"][score]
        places = 4 if score in ("CRPS", "VS-gene", "VS-space") else 3
        assert lines[score].split(maxsplit=2)[1:] == [
            f"{found['proper_scores'][score]:.{places}f}",
            f"[{low:.{places}f}, {high:.{places}f}]",
        ]


def test_json_goes_to_stdout_and_nothing_else_does(files, capsys):
    assert main(["compare", "predicted.h5ad", "measured.h5ad", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["X"]["PCC"] > 0.5
    assert result["sample"]["PCC"] > 0.5
    assert result["measured"] == "measured.h5ad"


@pytest.mark.slow
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
    assert "napari-flag compare predicted.h5ad --measured measured.h5ad --out new" in page
    assert main(line) == 0, "the same command may be repeated"


@pytest.mark.slow
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
        ("missing.h5ad", "measured.h5ad", "There is no file or folder missing.h5ad"),
        ("measured.h5ad", "predicted.h5ad", "measured.h5ad has no positions"),
        ("predicted.h5ad", "predicted.h5ad", "its counts are draws and no measurement"),
        ("notes.txt", "measured.h5ad", "not an h5ad file"),
    ):
        assert main(["compare", predicted, measured]) == 2
        text = capsys.readouterr().err
        assert said in text
        assert len(text.splitlines()) == 1


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


def test_genes_to_export_may_be_named_as_people_call_them(files):
    line = ["export", "predicted.h5ad", "--to", "h5ad", "--genes", "HER2", "vim", "--out", "out"]
    assert main(line) == 0
    assert list(read_prediction(files / "out" / "fake.h5ad").var_names) == ["ERBB2", "VIM"]


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
        (["--to", "csv", "--genes", "NOSUCH"], "NOSUCH is not among the"),
        (["--to", "csv", "--out", "full"], "already exists"),
        (["--to", "spatialdata", "--out", "full", "--overwrite"], "was not written by napari-flag"),
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


@pytest.mark.parametrize(
    "formats",
    [["h5ad"], ["geojson", "ome-tiff"], pytest.param(["spatialdata"], marks=pytest.mark.slow)],
)
def test_an_export_replaces_that_of_the_same_command_and_no_other_unasked(files, capsys, formats):
    line = ["export", "predicted.h5ad", "--out", "out", "--to", *formats, "--genes", "ESR1", "ERBB2"]
    assert main(line) == 0
    assert main(line) == 0
    assert main([*line[:4], "--genes", *line[-2:], "--to", *formats, "--keep-names"]) == 2
    assert "is not a result of this very command" in capsys.readouterr().err
    assert main([*line, "TP53"]) == 2, "other genes"
    assert main([*line, "TP53", "--overwrite"]) == 0
    assert main(line) == 2, "what is there is of the other now"


def test_an_export_of_a_prediction_that_was_made_anew_replaces_nothing_unasked(files, capsys):
    line = ["export", "predicted.h5ad", "--out", "out", "--to", "geojson"]
    assert main(line) == 0
    before = (files / "out" / "fake.geojson").read_bytes()
    adata = read_prediction(files / "predicted.h5ad")
    adata.X = adata.X + 1
    write_prediction(adata, files / "predicted.h5ad")
    assert main(line) == 2
    assert "not a result of this very command on the files as they are now" in capsys.readouterr().err
    assert (files / "out" / "fake.geojson").read_bytes() == before
    assert main([*line, "--overwrite"]) == 0
    assert main(line) == 0


def test_a_csv_states_no_command_and_is_replaced_only_when_asked(files, capsys):
    line = ["export", "predicted.h5ad", "--to", "csv", "--out", "out"]
    assert main(line) == 0
    assert main(line) == 2
    said = capsys.readouterr().err
    assert "already exists; choose another place" in said
    assert "very command" not in said
    assert main([*line, "--overwrite"]) == 0


def test_an_export_is_no_result_of_the_command_that_predicted(files):
    """Cut to some genes, it was taken for the finished prediction of that command."""
    adata = read_prediction(files / "predicted.h5ad")
    adata.uns[keys.PROVENANCE] |= {keys.COMMAND: "napari-flag predict a.svs", keys.COMMAND_HASH: "f" * 64}
    write_prediction(adata, files / "predicted.h5ad")
    assert main(["export", "predicted.h5ad", "--to", "h5ad", "geojson", "--out", "out"]) == 0
    made = provenance(read_prediction(files / "out" / "fake.h5ad"))
    assert made[keys.COMMAND] == "napari-flag predict a.svs"
    assert made[keys.COMMAND_HASH] not in ("f" * 64, "")
    assert ("f" * 64) not in (files / "out" / "fake.geojson").read_text()
    place = files / "again.h5ad"
    finish(export(adata, [(FORMATS[0], place)]))
    assert keys.COMMAND_HASH not in provenance(read_prediction(place))


@pytest.mark.slow
def test_a_report_replaces_that_of_the_same_command_and_no_other_unasked(files, capsys):
    (files / "mine.gmt").write_text("MINE\tours\tESR1\tERBB2\tTP53\n")
    line = ["report", "predicted.h5ad", "--out", "out", "--gene-sets", "mine.gmt", "--set", "MINE"]
    assert main(line) == 0
    assert main(line) == 0
    assert main(line[:4]) == 2
    said = capsys.readouterr().err
    assert "fake_report.html already exists and is not a result of this very command" in said
    compare = ["compare", "predicted.h5ad", "measured.h5ad", "--out", "out"]
    assert main([*compare, "--overwrite"]) == 0
    assert main(compare) == 0
    assert main(line) == 2, "the page is of compare now"
    assert main([*line, "--overwrite"]) == 0
    assert main(compare) == 2, "the page is of report now"
    assert "fake_report.html already exists and is not" in capsys.readouterr().err


def test_counts_that_look_scaled_are_exported_only_with_force_which_the_file_records(files, capsys):
    counts = anndata.read_h5ad(files / "measured.h5ad")
    counts.X = counts.X * 10
    counts.write_h5ad(files / "scaled.h5ad")
    line = ["export", "predicted.h5ad", "--to", "h5ad", "--measured", "scaled.h5ad", "--out", "out"]
    assert main(line) == 2
    assert "were scaled" in capsys.readouterr().err
    assert main([*line, "--force"]) == 0
    written = read_prediction(files / "out" / "fake.h5ad")
    assert any("as was insisted on" in notice for notice in written.uns[keys.PROVENANCE][keys.NOTICES])


def test_spots_that_are_mixed_up_are_used_only_with_force_which_the_result_says(files, capsys):
    mixed = read_prediction(files / "predicted.h5ad")
    mixed.obsm[keys.SPATIAL] = np.random.default_rng(0).permutation(mixed.obsm[keys.SPATIAL])
    write_prediction(mixed, files / "mixed.h5ad")
    for line in (
        ["compare", "mixed.h5ad", "measured.h5ad"],
        ["report", "mixed.h5ad", "--out", "report"],
        ["export", "mixed.h5ad", "--to", "h5ad", "--out", "out"],
    ):
        assert main(line) == 2
        assert "ids and positions are mixed up); take the file" in capsys.readouterr().err
        assert main([*line, "--force"]) == 0
        said = capsys.readouterr()
        assert line[0] != "compare" or "The spots look wrong" in said.out + said.err
    assert "The spots look wrong" in (files / "report" / "fake_report.html").read_text("utf-8")
    written = provenance(read_prediction(files / "out" / "fake.h5ad"))
    assert any("The spots look wrong" in notice for notice in written[keys.NOTICES])
    assert main(["compare", "out/fake.h5ad", "measured.h5ad"]) == 0, "insisted on before"


def cancelled(*_, **__):
    yield Step("Writing", 0)
    raise KeyboardInterrupt


def test_a_cancelled_export_names_what_is_written_and_how_it_goes_on(files, capsys, monkeypatch):
    line = ["export", "predicted.h5ad", "--out", "out", "--to"]
    with monkeypatch.context() as patch:
        formats = [replace(known, write=cancelled) if known.name == "csv" else known for known in FORMATS]
        patch.setattr("napari_flag.exports.formats.FORMATS", tuple(formats))
        assert main([*line, "csv"]) == 130
        assert capsys.readouterr().err.splitlines()[-1] == "cancelled, nothing was written"
        line += ["h5ad", "geojson", "csv"]
        assert main(line) == 130
    assert capsys.readouterr().err.splitlines()[-1] == (
        "cancelled with fake.h5ad, fake.geojson written in out; the same command with --overwrite writes "
        "all of it"
    )
    assert main([*line, "--overwrite"]) == 0


def test_a_compare_cancelled_in_its_report_names_what_is_written_and_goes_on(files, capsys, monkeypatch):
    monkeypatch.setattr("napari_flag.report.write_report", cancelled)
    line = ["compare", "predicted.h5ad", "measured.h5ad", "--out", "out"]
    assert main(line) == 130
    names = ["fake_scores.json", "fake_genes.csv", "fake_genes_sample.csv"]
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith(f"cancelled with {', '.join(names)} written in out;")
    assert sorted(path.name for path in (files / "out").iterdir()) == sorted(names)


def test_every_export_checks_its_formats_first(monkeypatch, tmp_path):
    def missing():
        raise UserError("not installed")

    formats = [replace(known, check=missing) for known in FORMATS]
    work = export(fake_prediction(), [(known, tmp_path / known.name) for known in formats])
    with pytest.raises(UserError, match="not installed"):
        next(work)


@pytest.fixture
def labels(files):
    """Spots of the fake, the upper four rows tumour, the others fat."""
    names = read_prediction(files / "predicted.h5ad").obs_names
    rows = [f"{name},{'tumour' if row < 28 else 'fat'}" for row, name in enumerate(names)]
    (files / "labels.csv").write_text("\n".join(["Barcode,pathology", *rows]))
    return files


def test_an_export_says_how_many_spots_the_labels_name(labels, capsys):
    line = ["export", "predicted.h5ad", "--to", "csv", "--labels", "labels.csv"]
    assert main([*line, "--out", "whole"]) == 0
    assert "spots are labelled" not in capsys.readouterr().err
    (labels / "labels.csv").write_text("\n".join((labels / "labels.csv").read_text().split("\n")[:-9]))
    assert main([*line, "--out", "part"]) == 0
    assert "Only 40 of 49 spots are labelled by labels.csv" in capsys.readouterr().err


@pytest.mark.slow
def test_compare_prints_and_writes_how_far_domains_agree_with_labels(labels, capsys):
    line = ["compare", "predicted.h5ad", "measured.h5ad", "--labels", "labels.csv", "--out", "scores"]
    assert main(line) == 0
    out = capsys.readouterr().out
    scores = json.loads((labels / "scores" / "fake_scores.json").read_text())
    assert scores["labels"] == "labels.csv"
    found = scores["label_agreement"]
    assert (found["spots"], found["labels"]) == (49, ["fat", "tumour"])
    assert re.search(r"49 of \d+ spots are labelled\.", out)
    for key, word in ((keys.DOMAIN, "prediction"), (keys.DOMAIN + keys.OF_MEASURED, "truth")):
        assert 0 <= found[key]["nmi"] <= 1
        stated = f"ARI {found[key]['ari']:.3f}, NMI {found[key]['nmi']:.3f}"
        assert f"Domains of the {word} to the labels: {stated}" in out
    page = (labels / "scores" / "fake_report.html").read_text("utf-8")
    assert f"<td>{found[keys.DOMAIN]['ari']:.3f}</td>" in page
    assert "--labels labels.csv --out scores" in page
    assert main(line) == 0, "the same command may be repeated"
    assert main([*line[:3], "--out", "scores"]) == 2, "without labels it is another comparison"


def test_compare_counts_the_gene_sets_of_a_file_in_the_domains(files, capsys):
    adata = read_prediction(files / "predicted.h5ad")
    genes = [str(gene) for gene in adata.var_names]
    lines = ["\t".join(["FIRST", "ours", *genes[:5]]), "\t".join(["SMALL", "ours", *genes[:2]])]
    (files / "mine.gmt").write_text("\n".join(lines), "utf-8")
    line = ["compare", "predicted.h5ad", "measured.h5ad", "--gene-sets", "mine.gmt"]
    assert main(line) == 0
    out = capsys.readouterr().out
    assert "fewer than 5 genes here: SMALL (2)" in out
    assert main([*line, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["gene_sets"]
    assert found["skipped"] == {"SMALL": 2}
    assert f"Gene sets in {len(found['domains'])} domain" in out
    assert f"Of {found['whole']['tested']} pairs of gene set" in out


@pytest.mark.slow
def test_a_report_names_the_gene_sets_it_was_made_with(files, capsys):
    (files / "none.gmt").write_text("SMALL\tours\tERBB2\n", "utf-8")
    assert main(["report", "predicted.h5ad", "--out", "page", "--gene-sets", "none.gmt"]) == 0
    page = (files / "page" / "fake_report.html").read_text("utf-8")
    assert "--gene-sets none.gmt" in page
    assert "SMALL (1)" in page
    assert main(["report", "predicted.h5ad", "--out", "new", "--gene-sets", "missing.gmt"]) == 2
    assert "missing.gmt cannot be read" in capsys.readouterr().err


@pytest.mark.slow
def test_the_heat_map_of_a_set_goes_into_the_page_and_beside_it(files, capsys):
    genes = [str(gene) for gene in read_prediction(files / "predicted.h5ad").var_names]
    lines = ["\t".join(["First/../one", "ours", *genes[:5]]), "\t".join(["Second", "ours", *genes[3:8]])]
    (files / "mine.gmt").write_text("\n".join(lines), "utf-8")
    line = ["compare", "predicted.h5ad", "measured.h5ad", "--gene-sets", "mine.gmt"]
    assert main([*line, "--set", "first/../one"]) == 2
    assert "give --out DIR" in capsys.readouterr().err
    assert main([*line, "--set", "first/../one", "--out", "out"]) == 0
    picture, drawing = sorted((files / "out").glob("fake_first_.._one-*"))
    assert (picture.suffix, drawing.suffix) == (".png", ".svg")
    assert "5 of 5 genes" in drawing.read_text("utf-8")
    assert (
        main(["report", "predicted.h5ad", "--out", "page", "--gene-sets", "mine.gmt", "--set", "None"]) == 2
    )
    assert "There is no gene set None among the 2" in capsys.readouterr().err
    assert main(["report", "predicted.h5ad", "--out", "page", "--gene-sets", "mine.gmt"]) == 0
    page = (files / "page" / "fake_report.html").read_text("utf-8")
    assert "A gene set in the domains" in page
    assert [path.name for path in (files / "page").iterdir()] == ["fake_report.html"]


def test_json_alone_holds_them_too(labels, capsys):
    line = ["compare", "predicted.h5ad", "measured.h5ad", "--labels", "labels.csv", "--json"]
    assert main(line) == 0
    assert set(json.loads(capsys.readouterr().out)["label_agreement"]) >= {"domain", "domain_measured"}


@pytest.mark.slow
def test_report_and_export_take_labels(labels):
    assert main(["report", "predicted.h5ad", "--labels", "labels.csv", "--out", "page"]) == 0
    page = (labels / "page" / "fake_report.html").read_text("utf-8")
    assert "tumour" in page
    assert "to the labels" in page
    line = ["export", "predicted.h5ad", "--to", "h5ad", "--labels", "labels.csv", "--out", "out"]
    assert main(line) == 0
    written = read_prediction(labels / "out" / "fake.h5ad").obs
    assert written[keys.LABEL].value_counts().to_dict() == {"tumour": 28, "fat": 21}
    assert keys.DOMAIN in written


@pytest.mark.parametrize("command", ["compare", "report", "export"])
def test_labels_of_another_slide_are_one_sentence(files, capsys, command):
    (files / "labels.tsv").write_text("spot\tlabel\nelsewhere\tfat\n")
    more = {"compare": ["measured.h5ad"], "report": ["--out", "."], "export": ["--to", "h5ad", "--out", "x"]}
    assert main([command, "predicted.h5ad", *more[command], "--labels", "labels.tsv"]) == 2
    text = capsys.readouterr().err
    assert "choose the labels of this slide" in text
    assert len(text.splitlines()) == 1


@pytest.mark.slow
def test_what_the_file_carries_decides_whether_there_are_scores(files, capsys):
    assert main(["report", "predicted.h5ad", "--out", "pages"]) == 0
    page = (files / "pages" / "fake_report.html").read_text("utf-8")
    assert "How good it is" in page
    assert "napari-flag report predicted.h5ad --out pages" in page

    adata = read_prediction(files / "predicted.h5ad")
    del adata.layers[keys.MEASURED]
    write_prediction(adata, files / "alone.h5ad")
    assert main(["report", "alone.h5ad", "--out", "pages/alone"]) == 0
    page = (files / "pages" / "alone" / "fake_report.html").read_text("utf-8")
    assert "How good it is" not in page
    assert "cannot say how good" in page


def test_a_prediction_cut_to_genes_that_were_not_measured_is_reported_without_scores(files, capsys):
    adata = read_prediction(files / "predicted.h5ad")
    adata.layers[keys.MEASURED][:, 4:] = np.nan
    write_prediction(adata, files / "partly.h5ad")
    genes = [str(gene) for gene in adata.var_names[4:]]
    assert main(["export", "partly.h5ad", "--to", "h5ad", "--out", "cut", "--genes", *genes]) == 0
    assert main(["report", "cut/fake.h5ad", "--out", "pages"]) == 0
    page = (files / "pages" / "fake_report.html").read_text("utf-8")
    assert "How good it is" not in page
    assert "cannot say how good" in page


def test_a_report_is_not_replaced_unasked(files, capsys):
    (files / "fake_report.html").write_text("mine")
    assert main(["report", "predicted.h5ad", "--out", "."]) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert main(["report", "predicted.h5ad", "--out", ".", "--overwrite"]) == 2
    assert "was not written by napari-flag" in capsys.readouterr().err
    assert (files / "fake_report.html").read_text() == "mine"


def test_an_export_is_named_after_a_hash_where_the_slide_may_be_named_after_a_patient(files, capsys):
    adata = read_prediction(files / "predicted.h5ad")
    adata.uns[keys.PROVENANCE] |= {keys.SLIDE_NAME: "Smith_John", keys.SLIDE_HASH: "0123456789abcdef" * 4}
    write_prediction(adata, files / "predicted.h5ad")
    line = ["export", "predicted.h5ad", "--to", "csv", "--out", "out"]
    assert main(line) == 0
    assert "so results call it anonymous-01234567; keep its name with --keep-names" in capsys.readouterr().err
    assert main([*line, "--keep-names"]) == 0
    assert "patient" not in capsys.readouterr().err
    written = sorted(path.name for path in (files / "out").iterdir())
    assert written == ["Smith_John_expression.csv", "anonymous-01234567_expression.csv"]


def test_an_export_with_another_slide_of_the_same_size_is_warned_of(files, capsys):
    adata = read_prediction(files / "predicted.h5ad")
    Image.new("RGB", slide_size(adata), "white").save(files / "fake.png")
    adata.uns[keys.PROVENANCE][keys.SLIDE_HASH] = content_hash(files / "fake.png")
    write_prediction(adata, files / "predicted.h5ad")
    line = ["export", "predicted.h5ad", "--to", "spatialdata", "--out", "out", "--slide", "fake.png"]
    line += ["--overwrite"]
    assert main(line) == 0
    assert "is not the file" not in capsys.readouterr().err
    Image.new("RGB", slide_size(adata), "pink").save(files / "fake.png")
    assert main(line) == 0
    assert "Note: fake.png is not the file that this prediction was made on" in capsys.readouterr().err


OURS = ["predicted.h5ad", "measured.h5ad"]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (["export", OURS[0], "--to", "csv", "--slide", "C9.tif"], "--slide is the image of"),
        (["export", OURS[0], "--to", "csv", "--force"], "nothing looks wrong here"),
        (["export", OURS[0], "--to", "csv", "--unit", "counts"], "--unit is for files of other programs"),
        (["report", OURS[0], "--unit", "counts"], "--unit is for files of other programs"),
        (["compare", *OURS, "--unit", "counts"], "--unit is for files of other programs"),
        (["compare", *OURS, "--spots", OURS[1]], "--spots names rows of another program's file"),
        (["compare", *OURS, "--alignment", "a.csv"], "names its counts by spot; leave --alignment out"),
        (
            ["compare", OURS[0], "same.h5ad", "--measured", OURS[1], "--alignment", "a.csv"],
            "names its counts by spot; leave --alignment out",
        ),
        (["report", OURS[0], "--set", "NOSUCH"], "There is no gene set NOSUCH"),
        (["compare", *OURS, "--set", "NOSUCH"], "There is no gene set NOSUCH"),
        (["export", OURS[0], "--to", "csv", "--genes", "notagene"], "notagene is not among"),
        (["export", OURS[0], "--to", "csv", "--genes", "no/genes.txt"], "There is no file no/genes.txt"),
    ],
)
def test_what_would_have_no_effect_or_is_not_there_is_refused_before_any_work(
    files, monkeypatch, capsys, line, said
):
    from napari_flag.analysis import compare, spatial
    from napari_flag.report import findings

    def no_work(*_, **__):
        raise AssertionError("work began")

    (files / "same.h5ad").write_bytes((files / OURS[0]).read_bytes())
    monkeypatch.setattr(compare, "comparing", no_work)
    monkeypatch.setattr(findings, "gather", no_work)
    monkeypatch.setattr(spatial, "gene_moran", no_work)
    assert main([*line, "--out", "new/out"]) == 2
    text = capsys.readouterr().err
    assert said in text
    assert len(text.splitlines()) == 1
    assert not (files / "new").exists()


def test_overwrite_without_a_folder_is_refused(files, capsys):
    assert main(["compare", *OURS, "--overwrite"]) == 2
    assert "give --out DIR too" in capsys.readouterr().err


def test_genes_to_export_are_named_or_in_a_file(files):
    (files / "genes.txt").write_text("HER2, ESR1\n")
    line = ["export", "predicted.h5ad", "--to", "csv", "--out", "out", "--genes", "genes.txt"]
    assert main(line) == 0
    table = pd.read_csv(files / "out" / "fake_expression.csv")
    assert list(table.columns[-2:]) == ["ERBB2", "ESR1"]


def test_an_export_scores_the_gene_sets_given_in_formats_that_hold_them(files, capsys):
    genes = [str(gene) for gene in read_prediction(files / "predicted.h5ad").var_names]
    (files / "own.gmt").write_text("\t".join(["OWN", "", *genes[:3]]))
    line = ["export", "predicted.h5ad", "--out", "out", "--gene-sets", "own.gmt", "--to"]
    assert main([*line, "h5ad"]) == 0
    assert list(read_prediction(files / "out" / "fake.h5ad").obsm[keys.GENE_SETS].columns) == ["OWN"]
    assert main([*line, "h5ad"]) == 0, "the same command may be repeated"
    assert main(["export", "predicted.h5ad", "--out", "out", "--to", "h5ad"]) == 2, "without, it is another"
    capsys.readouterr()
    assert main([*line, "csv"]) == 2
    assert "leave --gene-sets out" in capsys.readouterr().err
    place = nf.export(files / "predicted.h5ad", files / "api.h5ad", gene_sets="own.gmt", progress=False)
    assert list(read_prediction(place).obsm[keys.GENE_SETS].columns) == ["OWN"]


@pytest.mark.slow
def test_json_of_report_and_compare_names_the_files_written(files, capsys):
    for line in (["report", OURS[0]], ["compare", *OURS]):
        folder = files / line[0]
        assert main([*line, "--out", str(folder), "--json"]) == 0
        written = json.loads(capsys.readouterr().out)["written"]
        assert sorted(written) == sorted(map(str, folder.iterdir()))


@pytest.mark.slow
def test_a_heat_map_of_its_own_may_be_replaced(files, capsys):
    (files / "mine.gmt").write_text("MINE\tours\tESR1\tERBB2\tTP53\n")
    line = ["report", OURS[0], "--gene-sets", "mine.gmt", "--set", "MINE", "--out", "out"]
    assert main(line) == 0
    assert main([*line, "--overwrite"]) == 0
    (files / "out" / "fake_MINE.png").write_bytes(b"mine")
    assert main([*line, "--overwrite"]) == 2
    assert "was not written by napari-flag" in capsys.readouterr().err
