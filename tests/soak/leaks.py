"""Leaks made on purpose: a soak that does not find them would find no other."""

import os
import threading
from collections.abc import Callable
from typing import Any

_KEPT: list[Any] = []


def _layer(window: Any) -> None:
    """Leave a layer in the viewer once in 20 steps."""
    _KEPT.append(None)
    if len(_KEPT) % 20 == 0:
        window.viewer.add_points([[0, 0]], visible=False)


def _handle(window: Any) -> None:
    _KEPT.append(os.open(os.devnull, os.O_RDONLY))


def _thread(window: Any) -> None:
    wait = threading.Event()
    threading.Thread(target=wait.wait, daemon=True).start()
    _KEPT.append(wait)


def _memory(window: Any) -> None:
    _KEPT.append(b"x" * 2**20)


LEAKS: dict[str | None, Callable[[Any], None]] = {
    "layers": _layer, "handles": _handle, "threads": _thread, "memory": _memory,
}  # fmt: skip
"""What leaks → what is done after each step."""
