"""Predict spatial gene expression from H&E slides, keeping its structure (FLAG, ICML 2026).

Importing this package loads neither torch nor Qt; each room loads what it needs on use.
"""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("napari-flag")
except PackageNotFoundError:  # a source tree that was never installed
    __version__ = "0+unknown"

__all__ = ["__version__"]
