"""Every keyboard shortcut, in one place: `Session` binds them, *Keyboard shortcuts* lists them."""

from dataclasses import dataclass
from typing import Final

from napari_flag.viewer.gene_values import Quantity

STEP: Final = {"Up": -1, "Down": 1}
"""Key over the picture → how many places to walk in the list of genes."""

SHOW_QUANTITY: Final = {f"Alt-{number}": quantity for number, quantity in enumerate(Quantity, start=1)}
"""Key over the picture → what to show of the gene."""

DRAW: Final = {"Alt-Left": -1, "Alt-Right": 1}
"""Key over the picture → how many joint draws to go on; bound by the Samples dock."""


@dataclass(frozen=True, slots=True)
class Shortcut:
    """One shortcut as a person reads it.

    Parameters
    ----------
    key
        The key as it is written on a keyboard.
    where
        Where the cursor must be.
    does
        What happens.
    """

    key: str
    where: str
    does: str


PICTURE: Final = "picture"
SHORTCUTS: Final = (
    Shortcut("↑  ↓", "picture, search of Genes", "Look at the gene before or after in the list"),
    Shortcut("Enter", "search of Genes, Spatial", "Look at the first gene found"),
    *(
        Shortcut(key.replace("-", "+"), PICTURE, f"Show the gene as: {quantity.value}")
        for key, quantity in SHOW_QUANTITY.items()
    ),
    Shortcut("Alt+←  Alt+→", PICTURE, "Show the joint draw before or after (Samples dock open)"),
    Shortcut("Esc", "every dock with long work", "Cancel what is running"),
)
