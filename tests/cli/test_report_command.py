from napari_flag import keys
from napari_flag.cli import main
from napari_flag.prediction_file import read_prediction, write_prediction


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


def test_a_report_is_not_replaced_unasked(files, capsys):
    (files / "fake_report.html").write_text("mine")
    assert main(["report", "predicted.h5ad", "--out", "."]) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert (files / "fake_report.html").read_text() == "mine"
    assert main(["report", "predicted.h5ad", "--out", ".", "--overwrite"]) == 0
