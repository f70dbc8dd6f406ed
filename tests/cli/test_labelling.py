import json

import pytest

from napari_flag import keys
from napari_flag.cli import main
from napari_flag.prediction_file import read_prediction


@pytest.fixture
def labels(files):
    """Spots of the fake, the upper four rows tumour, the others fat."""
    names = read_prediction(files / "predicted.h5ad").obs_names
    rows = [f"{name},{'tumour' if row < 28 else 'fat'}" for row, name in enumerate(names)]
    (files / "labels.csv").write_text("\n".join(["Barcode,pathology", *rows]))
    return files


def test_compare_prints_and_writes_how_far_domains_agree_with_labels(labels, capsys):
    line = ["compare", "predicted.h5ad", "measured.h5ad", "--labels", "labels.csv", "--out", "scores"]
    assert main(line) == 0
    out = capsys.readouterr().out
    scores = json.loads((labels / "scores" / "fake_scores.json").read_text())
    assert scores["labels"] == "labels.csv"
    found = scores["label_agreement"]
    assert (found["spots"], found["labels"]) == (49, ["fat", "tumour"])
    for key, word in ((keys.DOMAIN, "prediction"), (keys.DOMAIN + keys.OF_MEASURED, "truth")):
        assert 0 <= found[key]["nmi"] <= 1
        stated = f"ARI {found[key]['ari']:.3f}, NMI {found[key]['nmi']:.3f}"
        assert f"Domains of the {word} to the labels: {stated}" in out
    page = (labels / "scores" / "fake_report.html").read_text("utf-8")
    assert f"<td>{found[keys.DOMAIN]['ari']:.3f}</td>" in page
    assert "--out scores --labels labels.csv" in page
    assert main(line) == 0, "the same command may be repeated"
    assert main([*line[:3], "--out", "scores"]) == 2, "without labels it is another comparison"


def test_json_alone_holds_them_too(labels, capsys):
    line = ["compare", "predicted.h5ad", "measured.h5ad", "--labels", "labels.csv", "--json"]
    assert main(line) == 0
    assert set(json.loads(capsys.readouterr().out)["label_agreement"]) >= {"domain", "domain_measured"}


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
