import pytest
from napari.components import ViewerModel


@pytest.fixture
def viewer():
    return ViewerModel()  # the dock needs no window
