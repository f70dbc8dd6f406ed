"""Matplotlib style of all figures: axes, fonts, and palettes safe for colour-blind readers."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from napari_flag.analysis.domains import hex_colour

COLOURS: Final = (*(hex_colour(number) for number in range(1, 7)), "#000000")
"""Okabe & Ito 2008, as of domains, without the yellow that white paper swallows."""
GREY: Final = "#8a8a8a"
SEQUENTIAL: Final = "viridis"
DPI: Final = 200

_STYLE: Final[Any] = {
    "font.size": 9.0,
    "axes.titlesize": 10.0,
    "axes.titleweight": "bold",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": False,
    "legend.frameon": False,
    "legend.fontsize": 8.0,
    "figure.constrained_layout.use": True,
    "savefig.dpi": DPI,
    "text.parse_math": False,
}


_INKED: Final = (
    "text.color",
    "axes.labelcolor",
    "axes.edgecolor",
    "axes.titlecolor",
    "xtick.color",
    "ytick.color",
)


@contextmanager
def house_style(ink: str = "black") -> Iterator[None]:
    """Draw in the house style, whatever the reader's own matplotlibrc says.

    Parameters
    ----------
    ink
        Colour of text and axes.
    """
    import matplotlib as mpl

    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(_STYLE)
        mpl.rcParams.update(dict.fromkeys(_INKED, ink))
        yield


@contextmanager
def as_written() -> Iterator[None]:
    """Draw names of genes, sets and slides as they are, also with a "$"; for what is not in house style.

    Matplotlib decides when a text is made whether it is a formula.
    """
    import matplotlib as mpl

    with mpl.rc_context({"text.parse_math": False}):
        yield
