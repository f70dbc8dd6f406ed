"""Python ends without a crash when a window with the FLAG area was open."""

import subprocess
import sys

import pytest

SCRIPT = """
import time
import napari
import numpy as np
from qtpy.QtWidgets import QApplication
from napari_flag.gui.area import open_area

viewer = napari.Viewer(show=False)
viewer.window._qt_window.show()
area = open_area(viewer)
area.show_page("Genes")
viewer.add_image(np.zeros((60, 60, 3), np.uint8), rgb=True)
end = time.monotonic() + 1.5
while time.monotonic() < end:
    QApplication.processEvents()
viewer.close()
print("closed")
"""


@pytest.mark.slow
def test_a_process_with_the_area_open_ends_with_code_0():
    ended = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=300)
    assert ended.stdout.splitlines()[-1:] == ["closed"], ended.stderr
    assert ended.returncode == 0, ended.stderr[-2000:]
