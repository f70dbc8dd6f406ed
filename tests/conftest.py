"""Settings of every test, and one small slide with weights that tests of predicting share.

Encoding a tile takes most of a second on a slow core, so the features of the shared spots are computed once
and then read from `feature_cache`.  What a fixture needs is imported in it: most tests need no PyTorch.
"""

import gc
import os

# Small tensors gain nothing from threads, and threads that wait for each other on busy cores cost minutes.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# numba, which squidpy's statistics use, would set PyTorch's threads anew: all training after it took tenfold
os.environ.setdefault("NUMBA_NUM_THREADS", "1")

import pytest

LONGEST_FIRST = ("gui", "training", "report", "cli")
"""Folders whose files take longest; with the many short ones last, all processes end at about one time."""


def pytest_collection_modifyitems(items):
    def place(item):
        folder = item.nodeid.split("/")[1]
        return LONGEST_FIRST.index(folder) if folder in LONGEST_FIRST else len(LONGEST_FIRST)

    items.sort(key=place)


@pytest.fixture(scope="module", autouse=True)
def garbage_of_a_module_is_searched_once():
    """What is loaded, and what files before it made, would be searched over and over: most of the time."""
    yield
    gc.collect()
    gc.freeze()


def pytest_unconfigure():
    """Libraries that count their objects at exit would call the frozen ones leaks, over hundreds of lines."""
    gc.unfreeze()


@pytest.fixture(scope="session")
def tiny_weights(tmp_path_factory):
    """Path of a weights file of the real architecture."""
    from tests.tiny_weights import write_tiny_weights

    return write_tiny_weights(tmp_path_factory.mktemp("weights") / "tiny.safetensors")


@pytest.fixture(scope="session")
def tiny_checkpoint(tiny_weights):
    from napari_flag.model.checkpoint import Checkpoint

    return Checkpoint.load(tiny_weights)


@pytest.fixture(scope="session")
def tiny_slide(tmp_path_factory):
    """1500 × 1200 px, with a file: features of a slide without one are not cached."""
    from tests.fakes import FakeSlide

    slide = FakeSlide(width=1500, height=1200, mpp=0.683)
    slide.path = tmp_path_factory.mktemp("slide") / "fake.svs"
    slide.path.touch()
    return slide


@pytest.fixture(scope="session")
def tiny_spots():
    """Nine spots of `tiny_slide`, three rows by three, 293 px = 200 µm apart."""
    import numpy as np

    from napari_flag.slides.spots import Spots

    rows, columns = np.divmod(np.arange(9), 3)
    return Spots(
        ids=tuple(f"{c}x{r}" for r, c in zip(rows, columns, strict=True)),
        xy=np.stack([columns, rows], 1) * 293.0 + 200,
        diameter_um=100.0,
        pitch_um=200.0,
        lattice="square",
        array=np.stack([rows, columns], 1),
    )


@pytest.fixture(scope="session")
def feature_cache(tmp_path_factory):
    return tmp_path_factory.mktemp("features")
