import pytest
from napari.components import ViewerModel
from qtpy.QtWidgets import QWidget


@pytest.fixture
def viewer():
    """A viewer without a window, which docks do not need."""
    return ViewerModel()


@pytest.fixture
def undock():
    """Return a function that closes a dock as napari does: by taking its parent away."""

    def close(dock):
        parent = QWidget()
        dock.setParent(parent)
        dock.setParent(None)

    return close
