import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("removing_layers.py")


@pytest.mark.slow
def test_napari_outlives_cancel_and_the_deletion_of_a_map_with_a_colour_bar(qapp):
    """In a process of its own: before, the redraw after the removal ended it with a segmentation fault."""
    path = os.pathsep.join([str(SCRIPT.parents[3]), *sys.path])
    ended = subprocess.run(
        [sys.executable, str(SCRIPT), "cancel", "delete"],
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert ended.returncode == 0, ended.stderr[-2000:]
    assert ended.stdout.splitlines() == ["cancel: still there", "delete: still there"]
