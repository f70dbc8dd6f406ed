import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from napari_flag import demo, keys
from napari_flag.analysis.compare import comparing
from napari_flag.errors import UserError
from napari_flag.inputs import predict_inputs, prepare
from napari_flag.model.checkpoint import Checkpoint, find_weights
from napari_flag.prediction import predict_slide
from napari_flag.progress import finish
from napari_flag.simulation import simulate
from napari_flag.simulation.programmes import GENES
from napari_flag.simulation.simulator import DEMO_SEED, write_simulated
from napari_flag.slides.slide import open_slide
from napari_flag.slides.spot_tables import read_measured


@pytest.fixture
def nowhere(monkeypatch):
    """A machine without a display."""
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)


def test_a_display_is_seen_where_there_is_one(monkeypatch, nowhere):
    assert not demo.has_display()
    monkeypatch.setenv("WAYLAND_DISPLAY", "wayland-0")
    assert demo.has_display()


def test_an_existing_display_is_used_as_it_is(monkeypatch, nowhere):
    monkeypatch.setenv("DISPLAY", ":77")
    monkeypatch.setattr(demo.shutil, "which", lambda _: pytest.fail("looked for Xvfb"))
    with demo.some_display():
        assert os.environ["DISPLAY"] == ":77"


def test_without_display_and_xvfb_it_says_what_to_install(monkeypatch, nowhere):
    monkeypatch.setattr(demo.shutil, "which", lambda _: None)
    with pytest.raises(UserError, match="install xvfb"), demo.some_display():
        pass


def test_a_server_that_does_not_start_is_reported(monkeypatch, nowhere, tmp_path):
    broken = tmp_path / "Xvfb"
    broken.write_text("#!/bin/sh\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setattr(demo.shutil, "which", lambda _: str(broken))
    with pytest.raises(UserError, match="did not start"), demo.some_display():
        pass
    assert "DISPLAY" not in os.environ


@pytest.mark.skipif(demo.shutil.which("Xvfb") is None, reason="Xvfb is not installed")
def test_a_virtual_display_answers_and_is_gone_afterwards(nowhere):
    with demo.some_display():
        number = os.environ["DISPLAY"].removeprefix(":")
        socket = Path(f"/tmp/.X11-unix/X{number}")
        assert socket.exists()
    assert "DISPLAY" not in os.environ
    assert not socket.exists()


def scores_of(prediction, counts):
    return finish(comparing(prediction, counts)).scores["X"].values


@pytest.mark.slow
def test_the_demo_weights_know_tissue_they_have_not_seen(tmp_path):
    made = simulate(33, size_px=900)
    write_simulated(tmp_path, "unseen", made)
    checkpoint = Checkpoint.load(find_weights(demo.WEIGHTS))
    with open_slide(tmp_path / "unseen.tif") as slide:
        predicted = finish(predict_slide(slide, made.spots, checkpoint, cache=tmp_path, steps=4))
    scores = scores_of(predicted, made.counts)
    assert scores["PCC"] > 0.4
    assert scores["GSC"] > 0.5


def test_the_demo_weights_know_the_simulated_genes_and_not_the_bundled_slide():
    checkpoint = Checkpoint.load(find_weights(demo.WEIGHTS))
    card = checkpoint.card
    assert checkpoint.genes == GENES
    assert f"sim{DEMO_SEED}" not in card["sections"]
    assert all(name.startswith("sim") for name in card["sections"])
    assert "real tissue" in card["not_for"]


@pytest.mark.slow
def test_the_demo_predicts_its_slide_well():
    files = demo.demo_files()
    checkpoint = Checkpoint.load(files.weights)
    inputs = finish(prepare(files.slide, checkpoint, spots=files.table))
    with inputs.slide:
        predicted = finish(predict_inputs(inputs, checkpoint))
    assert predicted.layers[keys.MEASURED].shape == predicted.shape
    scores = scores_of(predicted, read_measured(files.table))
    assert scores["PCC"] > 0.6
    assert scores["GSC"] > 0.8


@pytest.mark.slow
def test_without_a_display_the_demo_writes_its_picture_and_says_where(tmp_path, nowhere):
    picture = tmp_path / "demo.png"
    command = [sys.executable, "-m", "napari_flag", "demo", "--screenshot", str(picture)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr
    assert str(picture) in done.stdout
    with Image.open(picture) as image:
        assert image.width > 1000
        assert np.asarray(image.convert("RGB")).std() > 20
