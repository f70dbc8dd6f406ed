"""The benchmark of clicks clicks what is in the window as it is now."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from napari_flag.gui.area import PAGES, PREDICT, SIDE_BY_SIDE

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.slow
def test_a_gene_is_clicked_on_every_page_that_takes_clicks_and_every_page_was_opened(qapp, tmp_path):
    out = tmp_path / "clicks.json"
    words = ("--spots", "200", "--genes", "60", "--clicks", "2", "--out", str(out))
    ran = subprocess.run(
        [sys.executable, "-m", "benchmarks.gene_click", *words],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert out.exists(), ran.stderr[-3000:]
    written = json.loads(out.read_text())
    assert set(written["opened"]) == {*PAGES, SIDE_BY_SIDE} - {PREDICT}
    assert {way["page"] for way in written["ways"].values()} == {"Genes", "Spatial", "Co-expression"}
    assert all(way["our_part_ms"]["median"] > 0 for way in written["ways"].values())
