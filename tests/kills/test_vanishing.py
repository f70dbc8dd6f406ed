"""A slide whose file is cut short or deleted while it is predicted, in a process of its own."""

import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from tests.slide_files import picture, pyramid_tiff

from napari_flag.prediction_file import read_prediction

ROOT = Path(__file__).parents[2]
SIDE, PITCH = 8, 293
"""Spots along a side of the array, and px between them (200 µm)."""
READING = "Reading tiles"
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def pixels():
    return picture(PITCH * (SIDE + 1), PITCH * (SIDE + 1))


def spots(path):
    rows = ["x\ty\tnew_x\tnew_y\tpixel_x\tpixel_y\tselected"]
    places = np.argwhere(np.ones((SIDE, SIDE))) + 1
    rows += [f"{x}\t{y}\t{x}\t{y}\t{PITCH * x}\t{PITCH * y}\t1" for x, y in places]
    path.write_text("\n".join(rows) + "\n")
    return path


def predict(folder, slide, weights, when_reading):
    """Predict `slide`, calling `when_reading` once tiles are read; return (exit code, lines said)."""
    words = [
        "predict", slide, "--spots", spots(folder / "spots.tsv"), "--weights", weights,
        "--out", folder / "out.h5ad", "--device", "cpu",
    ]  # fmt: skip
    process = subprocess.Popen(
        [sys.executable, "-m", "napari_flag", *map(str, words)],
        cwd=folder,
        env=os.environ
        | {"XDG_CACHE_HOME": str(folder / "cache"), "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    late = threading.Timer(600, process.kill)
    late.start()
    said = []
    for line in process.stdout:
        if READING in line and not any(READING in before for before in said):
            when_reading()
        said.append(line)
    code = process.wait()
    late.cancel()
    assert any(READING in line for line in said), said
    return code, said


def test_a_slide_cut_short_while_it_is_read_ends_in_one_sentence(tmp_path, pixels, tiny_weights):
    slide = pyramid_tiff(tmp_path / "C9.tif", pixels, mpp=0.683)
    code, said = predict(tmp_path, slide, tiny_weights, lambda: os.truncate(slide, 5000))
    assert code == 2, "".join(said)
    assert "Traceback" not in "".join(said)
    assert "C9.tif" in said[-1]
    assert not (tmp_path / "out.h5ad").exists()


def test_a_slide_deleted_while_it_is_read_ends_in_one_sentence_or_in_a_whole_result(
    tmp_path, pixels, tiny_weights
):
    """On Linux and macOS what is open can still be read after it was deleted."""
    if sys.platform == "win32":
        pytest.skip("a file that is open cannot be deleted on Windows")
    slide = pyramid_tiff(tmp_path / "C9.tif", pixels, mpp=0.683)
    code, said = predict(tmp_path, slide, tiny_weights, slide.unlink)
    assert "Traceback" not in "".join(said)
    if code == 0:
        assert read_prediction(tmp_path / "out.h5ad").n_obs == SIDE * SIDE
    else:
        assert code == 2, "".join(said)
        assert not (tmp_path / "out.h5ad").exists()
