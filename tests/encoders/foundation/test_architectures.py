import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("building_under_a_window.py")


@pytest.mark.slow
def test_napari_outlives_the_first_foundation_encoder_under_a_window_drawn_in_software(qapp):
    """In a process of its own: triton and Mesa each brought an LLVM, and the import ended the process."""
    ended = subprocess.run(
        [sys.executable, str(SCRIPT)],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert ended.returncode == 0, ended.stderr[-2000:]
    assert ended.stdout.splitlines()[-1] == "still there"
