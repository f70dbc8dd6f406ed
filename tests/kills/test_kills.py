"""A handful of kills of each command; `make kills` does 200 of each."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from tests.kills.commands import COMMANDS

ROOT = Path(__file__).parents[2]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform == "win32", reason="processes cannot be forked on Windows"),
]


@pytest.mark.parametrize("name", COMMANDS)
def test_a_killed_command_leaves_whole_files_and_goes_on(name):
    words = ["-m", "tests.kills", "--kills", "3", "--commands", name, "--seed", "7"]
    ran = subprocess.run([sys.executable, *words], cwd=ROOT, capture_output=True, text=True, timeout=900)
    assert ran.returncode == 0, ran.stdout + ran.stderr[-3000:]
    assert json.loads(ran.stdout.splitlines()[-1].split("|")[2]) == 3
