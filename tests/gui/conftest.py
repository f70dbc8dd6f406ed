import pytest
from napari.components import ViewerModel
from qtpy.QtWidgets import QWidget
from tests.fakes import fake_prediction
from tests.gui.two_slides import NamedSlide, named

from napari_flag import workspace_file
from napari_flag.gui.session import Session
from napari_flag.layers import raster, slide_layers


@pytest.fixture(autouse=True, scope="module")
def _coarse_spots():
    """Paint spots 16 px wide: what a window does with a map does not depend on its pixels, its time does."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(raster, "FINEST_DISC_PX", 16)
        yield


@pytest.fixture(autouse=True)
def _kept_apart(tmp_path, monkeypatch):
    """Keep workspaces of tests out of the user's cache."""
    monkeypatch.setattr(workspace_file, "autosave_folder", lambda: tmp_path / "kept")


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


@pytest.fixture
def adatas():
    """Predictions of two slides of one size, with the same spot ids."""
    return [named(fake_prediction(25, seed=seed), name) for seed, name in ((0, "A"), (1, "B"))]


@pytest.fixture
def slides(adatas):
    return [
        NamedSlide(adata, name, seed) for seed, (adata, name) in enumerate(zip(adatas, "AB", strict=True))
    ]


@pytest.fixture
def two_slides(qapp, viewer, slides):
    """The session of a viewer with the slides A and B, of which B is shown."""
    session = Session.of(viewer)
    for slide in slides:
        slide_layers.add_slide(viewer, slide)
    return session
