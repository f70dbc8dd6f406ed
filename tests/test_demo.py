import os
import sys
from pathlib import Path

import pytest

from napari_flag import demo
from napari_flag.errors import UserError


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
