"""Dialogs offer every file that its reader takes, and all from one place."""

import re
import sys
from fnmatch import fnmatchcase
from pathlib import Path

import pytest
from qtpy.QtWidgets import QFileDialog

import napari_flag
from napari_flag.discovery.kinds import ENDINGS, PICTURE_ENDINGS, VENDOR_ENDINGS
from napari_flag.gui.controls import file_filters
from napari_flag.gui.controls.file_filters import ALL_FILES, file_filter
from napari_flag.gui.controls.forms import FileField, ask_open

GUI = Path(napari_flag.__file__).parent / "gui"


def patterns(filters):
    return re.search(r"\(([^)]*)\)", filters)[1].split()


def offered(name, filters):
    return any(fnmatchcase(name, pattern) for pattern in patterns(filters))


def test_no_other_module_of_the_window_spells_a_filter():
    spelt = {p.name for p in GUI.rglob("*.py") if re.search(r"\(\*(\.|\)|\{)", p.read_text("utf-8"))}
    assert spelt == {"file_filters.py"}


@pytest.mark.parametrize("ending", ENDINGS)
def test_whatever_can_be_opened_is_offered(ending):
    assert offered(f"a{ending}", file_filters.OPENED_FILES)


@pytest.mark.parametrize(
    ("filters", "names"),
    [
        (file_filters.COUNT_FILES, ["c.csv", "c.txt", "tx_file.csv.gz", "transcripts.parquet", "m.mtx.gz"]),
        (file_filters.SPOT_FILES, ["s.tsv", "s.txt.gz", "o.h5ad", "tissue_positions.parquet"]),
        (file_filters.LABEL_FILES, ["l.txt", "l.txt.gz", "l.csv"]),
        (file_filters.REGION_FILES, ["r.geojson", "r.json"]),
    ],
)
def test_whatever_a_reader_takes_is_offered(filters, names):
    assert [name for name in names if not offered(name, filters)] == []


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="other systems compare without case")
def test_endings_in_upper_case_are_offered_too():
    assert file_filter("Weights", ".safetensors") == "Weights (*.safetensors *.SAFETENSORS)"
    assert offered("SELECTION.TSV", file_filters.SPOT_FILES)
    assert offered("A.CSV.GZ", file_filters.LABEL_FILES)


def test_every_dialog_that_opens_offers_all_files_last(qtbot, monkeypatch, tmp_path):
    asked = []
    monkeypatch.setattr(QFileDialog, "getOpenFileName", lambda *given: asked.append(given[2:]) or ("", ""))
    field = FileField("Spot table", file_filters.SPOT_FILES)
    field.set_path(tmp_path / "a.tsv")
    field.choose_file()
    assert field.path == tmp_path / "a.tsv"
    assert ask_open(None, "Weights", file_filters.WEIGHT_FILES) is None
    assert [start for start, _ in asked] == [str(tmp_path), ""]
    assert all(filters.endswith(f";;{ALL_FILES}") for _, filters in asked)


def test_the_manifest_offers_every_slide_that_can_be_opened():
    text = (GUI.parent / "napari.yaml").read_text("utf-8")
    assert [end for end in (*VENDOR_ENDINGS, *PICTURE_ENDINGS, ".dcm") if f'"*{end}"' not in text] == []
