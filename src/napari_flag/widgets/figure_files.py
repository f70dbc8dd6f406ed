"""Writing what Qt draws to a file: PNG at print resolution, or SVG whose text stays text."""

from collections.abc import Callable
from pathlib import Path
from typing import Final

from qtpy.QtCore import QRect, QSize
from qtpy.QtGui import QColor, QImage, QPainter
from qtpy.QtSvg import QSvgGenerator
from qtpy.QtWidgets import QFileDialog, QWidget

from napari_flag.errors import UserError

FORMATS: Final = (".png", ".svg")
FILTER: Final = "Picture (*.png);;Vector graphic (*.svg)"
PNG_SCALE: Final = 3
"""Pixels of the file per pixel on the screen: about 300 dpi for a plot printed as wide as it looks."""


def save_drawing(path: Path, size: QSize, draw: Callable[[QPainter], None]) -> Path:
    """Write what `draw` paints on white paper of `size` px to `path` (.png or .svg) and return it.

    Raises
    ------
    UserError
        When the format is another, or the file cannot be written.
    """
    kind = path.suffix.lower()
    if kind not in FORMATS:
        raise UserError(f"A figure cannot be saved as “{path.suffix or path.name}”; choose .png or .svg.")
    written = _save_png(path, size, draw) if kind == ".png" else _save_svg(path, size, draw)
    if not written:
        raise UserError(f"The figure could not be saved to {path}; choose a folder you may write to.")
    return path


def _save_png(path: Path, size: QSize, draw: Callable[[QPainter], None]) -> bool:
    image = QImage(size * PNG_SCALE, QImage.Format.Format_RGB32)
    image.setDevicePixelRatio(PNG_SCALE)
    image.fill(QColor("white"))
    painter = QPainter(image)
    draw(painter)
    painter.end()
    return bool(image.save(str(path)))


def _save_svg(path: Path, size: QSize, draw: Callable[[QPainter], None]) -> bool:
    generator = QSvgGenerator()
    generator.setFileName(str(path))
    generator.setSize(size)
    generator.setViewBox(QRect(0, 0, size.width(), size.height()))
    painter = QPainter()
    if not path.parent.is_dir() or not painter.begin(generator):
        return False
    painter.fillRect(QRect(0, 0, size.width(), size.height()), QColor("white"))
    draw(painter)
    return bool(painter.end())


def ask_figure_path(parent: QWidget, suggested: str) -> Path | None:
    """Ask where to save a figure; None when the person thought better of it."""
    name, chosen = QFileDialog.getSaveFileName(parent, "Save figure", suggested, FILTER)
    if not name:
        return None
    path = Path(name)
    return path if path.suffix else path.with_suffix(".svg" if "svg" in chosen else ".png")
