"""The command line: thin commands over the rooms before it.

Loads neither torch nor Qt; each command loads what it needs when it runs.
"""

from napari_flag.cli.main import main

__all__ = ["main"]
