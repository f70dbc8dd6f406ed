"""``napari-flag compare``, ``report`` and ``export`` of files that other programs wrote."""

import hashlib
import json

import numpy as np
import pandas as pd
import pytest
from tests.fakes import add_draws
from tests.foreign_files import write_deepspot_like, write_hest_like, write_lazyslide_like

from napari_flag import keys
from napari_flag.analysis.scores import EXPECTATION, MEANING, PROPER, STRUCTURE
from napari_flag.cli import main
from napari_flag.exports.replacing import TABLES_HASH
from napari_flag.prediction_file import read_prediction, write_prediction


@pytest.fixture
def models(files):
    """Files of three models beside ours and the measurement."""
    prediction = read_prediction(files / "predicted.h5ad")
    write_deepspot_like(prediction, files / "deepspot.h5ad")
    write_hest_like(prediction, files / "stpath.h5ad")
    return files


def test_the_help_says_of_each_metric_what_the_docks_say(capsys):
    assert main(["compare", "--help"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    for name in (*EXPECTATION, *STRUCTURE, *PROPER):
        assert f"{name} {MEANING[name]}" in text


def test_one_file_of_another_model_is_scored_and_what_it_lacks_is_said_once(models, capsys):
    assert main(["compare", "deepspot.h5ad", "measured.h5ad"]) == 0
    out, said = capsys.readouterr()
    assert "deepspot: 49 spots and 8 genes compared" in out
    assert "Note" not in out
    assert said.count("holds no draws and no standard deviation") == 1
    assert "one draw" not in out
    assert 'holds ln(count + 1), as uns["log1p"] says; it is converted' in said
    assert main(["compare", "predicted.h5ad", "measured.h5ad", "--json"]) == 0
    ours = json.loads(capsys.readouterr().out)
    assert main(["compare", "deepspot.h5ad", "measured.h5ad", "--json"]) == 0
    theirs = json.loads(capsys.readouterr().out)
    assert theirs["X"]["PCC"] == pytest.approx(ours["X"]["PCC"], abs=1e-6)
    assert "sample" not in theirs


@pytest.mark.slow
def test_a_unit_that_is_not_written_is_asked_for_in_one_sentence_by_every_command(models, capsys):
    for line in (
        ["compare", "stpath.h5ad", "measured.h5ad"],
        ["compare", "predicted.h5ad", "stpath.h5ad", "--measured", "measured.h5ad"],
        ["report", "stpath.h5ad", "--out", "out"],
        ["export", "stpath.h5ad", "--to", "csv", "--out", "out"],
    ):
        assert main(line) == 2
        text = capsys.readouterr().err
        assert "stpath.h5ad does not state the unit of its values" in text
        assert len(text.splitlines()) == 1
        assert main([*line, "--unit", "log1p"]) == 0
        capsys.readouterr()


@pytest.mark.slow
def test_report_and_export_take_another_models_file_and_leave_it_alone(models):
    before = {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in models.glob("*.h5ad")}
    line = ["compare", "stpath.h5ad", "measured.h5ad", "--unit", "log1p", "--out", "out"]
    assert main(line) == 0
    page = (models / "out" / "stpath_report.html").read_text("utf-8")
    assert "The draws" not in page
    assert "holds no draws" in page
    assert "--unit log1p" in page
    assert not (models / "out" / "stpath_genes_sample.csv").exists()
    assert main(["report", "deepspot.h5ad", "--out", "alone"]) == 0
    assert "holds no draws" in (models / "alone" / "deepspot_report.html").read_text("utf-8")
    assert main(["export", "deepspot.h5ad", "--to", "h5ad", "csv", "--out", "."]) == 2, "its own place"
    assert main(["export", "deepspot.h5ad", "--to", "h5ad", "csv", "--out", "new"]) == 0
    assert read_prediction(models / "new" / "deepspot.h5ad").shape == (49, 8)
    after = {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in models.glob("*.h5ad")}
    assert after == before


@pytest.mark.slow
def test_several_models_are_one_table_on_the_terminal_as_json_csv_and_markdown(models, capsys):
    write_prediction(add_draws(read_prediction(models / "predicted.h5ad"), 16), models / "predicted.h5ad")
    line = ["compare", "predicted.h5ad", "deepspot.h5ad", "stpath.h5ad", "--measured", "measured.h5ad"]
    line += ["--unit", "log1p"]
    assert main([*line, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert list(found["models"]) == ["predicted", "deepspot", "stpath"]
    assert main([*line, "--out", "out"]) == 0
    out = capsys.readouterr().out
    markdown = (models / "out" / "fake_models.md").read_text("utf-8")
    table = pd.read_csv(models / "out" / "fake_models.csv").set_index("model")
    written = json.loads((models / "out" / "fake_models.json").read_text("utf-8"))
    of_files = {keys.CONTENT_HASH, TABLES_HASH}  # digests, by which a change is seen
    assert {name: value for name, value in written.items() if name not in of_files} == found
    assert of_files <= written.keys()
    for name, scores in found["models"].items():
        low, high = scores["X"]["intervals_95"]["PCC"]
        pcc = f"{scores['X']['PCC']:.3f} [{low:.3f}, {high:.3f}]"
        assert any(text.split()[:1] == [name] and pcc in text for text in out.splitlines())
        assert f"| {name} | {pcc} |" in markdown
        assert table.PCC[name] == pytest.approx(scores["X"]["PCC"], rel=1e-5)
    assert "control: depth alone" in table.index
    heading = "Proper scores of draws (0 is best), fair, that is of the distribution"
    assert heading in out
    assert heading in markdown
    crps = found["models"]["predicted"]["draws"]["proper_scores"]["CRPS"]
    assert table.CRPS_fair["predicted"] == pytest.approx(crps, rel=1e-5)
    assert "49 spots and 8 genes of fake, in all models" in out
    assert main([*line, "--out", "out"]) == 0, "the same command may be repeated"
    assert main([*line, "--force", "--out", "out"]) == 2, "another command's result stays"
    assert main([*line[:-2], "--unit", "log2p1", "--out", "out"]) == 2, "deepspot.h5ad states another unit"


def test_several_models_recover_the_gene_sets_of_a_file_in_the_same_domains(models, capsys):
    genes = [str(gene) for gene in read_prediction(models / "predicted.h5ad").var_names]
    lines = ["\t".join(["FIRST", "ours", *genes[:5]]), "\t".join(["SMALL", "ours", *genes[:2]])]
    (models / "mine.gmt").write_text("\n".join(lines), "utf-8")
    line = ["compare", "predicted.h5ad", "stpath.h5ad", "--measured", "measured.h5ad", "--unit", "log1p"]
    assert main([*line, "--gene-sets", "mine.gmt", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["gene_sets"] == "mine.gmt"
    alone = ["compare", "predicted.h5ad", "measured.h5ad", "--gene-sets", "mine.gmt", "--json"]
    assert main(alone) == 0
    assert found["models"]["predicted"]["gene_sets"] == json.loads(capsys.readouterr().out)["gene_sets"]
    assert main([*line, "--gene-sets", "mine.gmt", "--out", "out"]) == 0
    said, noted = capsys.readouterr()
    assert "fewer than 5 genes here: SMALL (2)" in said + noted
    whole = found["models"]["stpath"]["gene_sets"]["whole"]
    cells = [str(len(whole[which])) for which in ("measured", "predicted", "shared")]
    assert any(text.split()[:4] == ["stpath", *cells] for text in said.splitlines())
    table = pd.read_csv(models / "out" / "fake_models.csv").set_index("model")
    assert table.sets_chance["stpath"] == pytest.approx(whole["chance"], rel=1e-5)
    assert np.isnan(table.sets_tested["control: gene means"])


@pytest.mark.slow
def test_a_zarr_of_another_program_is_compared(models, capsys):
    prediction = read_prediction(models / "predicted.h5ad")
    write_lazyslide_like(prediction, models / "C5.zarr", in_shapes=True)
    line = ["compare", "C5.zarr/shapes/tiles", "measured.h5ad", "--unit", "log1p"]
    assert main(line) == 2
    assert "spots are named like '0'" in capsys.readouterr().err
    frame = pd.DataFrame(prediction.obsm["spatial"], prediction.obs_names, ["x_px", "y_px"])
    frame.to_csv("spots.csv", index_label="id")
    assert main([*line, "--spots", "spots.csv", "--out", "out"]) == 0
    out, said = capsys.readouterr()
    assert "49 of 49 rows of tiles lie on spots of spots.csv" in said
    assert "49 spots and 8 genes compared" in out
    assert "--spots spots.csv" in (models / "out" / "tiles_report.html").read_text("utf-8")


def test_which_file_is_the_measurement_is_never_guessed(models, capsys):
    for line, said in (
        (["predicted.h5ad"], "1 file was given"),
        (["predicted.h5ad", "deepspot.h5ad", "measured.h5ad"], "3 files were given"),
        (["predicted.h5ad", "predicted.h5ad", "--measured", "measured.h5ad"], "given more than once"),
        (
            ["predicted.h5ad", "deepspot.h5ad", "--measured", "measured.h5ad", "--labels", "x"],
            "one prediction",
        ),
    ):
        assert main(["compare", *line]) == 2
        text = capsys.readouterr().err
        assert said in text
        assert len(text.splitlines()) == 1


def test_one_prediction_may_name_its_measurement_either_way(files, capsys):
    assert main(["compare", "predicted.h5ad", "measured.h5ad"]) == 0
    first = capsys.readouterr().out
    assert main(["compare", "predicted.h5ad", "--measured", "measured.h5ad"]) == 0
    assert capsys.readouterr().out == first


def test_a_comparison_replaces_results_of_its_very_command_and_of_no_other(files, capsys):
    (files / "mine.gmt").write_text("FIRST\tours\tERBB2\tGAPDH\n", "utf-8")
    line = ["compare", "predicted.h5ad", "measured.h5ad", "--out", "out"]
    assert main(line) == 0
    for options in (["--force"], ["--gene-sets", "mine.gmt"], ["--keep-names"]):
        capsys.readouterr()
        before = (files / "out" / "fake_scores.json").read_bytes()
        assert main([*line, *options]) == 2
        assert "not a result of this very command" in capsys.readouterr().err
        assert (files / "out" / "fake_scores.json").read_bytes() == before
    assert main(line) == 0


def test_what_lies_where_scores_go_and_is_nested_without_end_is_not_replaced(files, capsys):
    (files / "out").mkdir()
    (files / "out" / "fake_scores.json").write_text("[" * 100_000)
    assert main(["compare", "predicted.h5ad", "measured.h5ad", "--out", "out"]) == 2
    assert "fake_scores.json" in capsys.readouterr().err.splitlines()[-1]
    assert (files / "out" / "fake_scores.json").read_text() == "[" * 100_000
