"""The one legend of categorical maps, on the canvas: name and number of spots on the colour.  Holds no Qt."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from napari_flag.formatting import whole

KEY: Final = "napari_flag_legend"
"""Begins the names of our lines among the overlays of a canvas."""
BOX: Final = "#16181df0"
"""Behind the last row, which stands for no class."""
INK: Final = ("#000000", "#ffffff")
"""Of the text, which stands on the colour of its class: written in that colour, blue is not legible."""
POSITION: Final = "top_left"
FONT_SIZE: Final = 8.0
"""Points."""
MOST_ROWS: Final = 16
"""More would hide the tissue; the rest is counted in a last row."""


@dataclass(frozen=True, slots=True)
class LegendRow:
    """One class of a map.

    Parameters
    ----------
    colour
        "#rrggbb".
    name
        What a person calls it.
    spots
        How many have it; None while that is being computed.
    """

    colour: str
    name: str
    spots: int | None

    @property
    def text(self) -> str:
        """The line on the canvas."""
        return f"{self.name}  {'…' if self.spots is None else whole(self.spots)}"


class Legend:
    """Lines in a corner of the canvas, in sight while the layer they explain is.

    Parameters
    ----------
    viewer
        A napari viewer (the model, not a plugin proxy).
    name
        Tells several legends of one canvas apart.
    """

    def __init__(self, viewer: Any, name: str) -> None:
        self._viewer = viewer
        self._name = name
        self._layer: Any = None
        self.later: Callable[[Callable[[], Any]], Any] = lambda act: act()
        """As of `SpotLayers`."""
        self.rows: tuple[LegendRow, ...] = ()
        self._written: list[tuple[str, str]] = []
        viewer.layers.events.removed.connect(self._on_removed)

    def show(self, rows: Sequence[LegendRow], layer: Any) -> None:
        """Explain `layer` by `rows`, in this order; no rows take the legend away."""
        if layer is not self._layer:
            if self._layer is not None:
                self._layer.events.visible.disconnect(self._on_visible)
            if layer is not None:
                layer.events.visible.connect(self._on_visible)
            self._layer = layer
        self.rows = tuple(rows)
        self._draw()

    def clear(self) -> None:
        """Take the legend away."""
        self.show((), None)

    @property
    def visible(self) -> bool:
        """Whether it is on the canvas."""
        return bool(self.rows) and self._layer is not None and bool(self._layer.visible)

    def _draw(self, new: int = 0) -> None:
        """Write the lines; overlays are hidden, not deleted: napari takes 25 ms and more to make one.

        So each new line comes in a turn of its own, `new` of them now.
        """
        lines = _lines(self.rows) if self.visible else []
        unfinished = len(lines) > len(self._written) + new
        lines = lines[: len(self._written) + new]
        for place, (text, colour) in enumerate(lines):
            overlay = self._overlay(place, text, colour)
            if self._written[place] != (text, colour):
                overlay.text, overlay.color, overlay.box_color = text, ink_on(colour), colour
                self._written[place] = (text, colour)
            if not overlay.visible:
                overlay.visible = True
        overlays = overlays_of(self._viewer)
        for place in range(len(lines), len(self._written)):
            if overlays[self._key(place)].visible:
                overlays[self._key(place)].visible = False
        if unfinished:
            self.later(lambda: self._draw(1))

    def _overlay(self, place: int, text: str, colour: str) -> Any:
        from napari.components.overlays import TextOverlay

        overlays = overlays_of(self._viewer)
        if place == len(self._written):
            overlays[self._key(place)] = TextOverlay(
                text=text,
                color=ink_on(colour),
                font_size=FONT_SIZE,
                position=POSITION,
                box=True,
                box_color=colour,
                visible=True,
            )
            self._written.append((text, colour))
        return overlays[self._key(place)]

    def _key(self, place: int) -> str:
        return f"{KEY} {self._name} {place}"

    def _on_visible(self, event: Any = None) -> None:
        self._draw()

    def _on_removed(self, event: Any) -> None:
        if self._layer is not None and event.value is self._layer:
            self.clear()


def _lines(rows: Sequence[LegendRow]) -> list[tuple[str, str]]:
    """Return text of each line, and the colour that it stands on."""
    lines = [(row.text, row.colour) for row in rows[:MOST_ROWS]]
    if len(rows) > MOST_ROWS:
        lines.append((f"and {len(rows) - MOST_ROWS} more, listed in the dock", BOX))
    return lines


def ink_on(colour: str) -> str:
    """Return black or white, whichever is read better on `colour` ("#rrggbb" or "#rrggbbaa")."""
    return max(INK, key=lambda ink: contrast(ink, colour))


def contrast(one: str, other: str) -> float:
    """Return the contrast of two colours as WCAG 2 defines it: 1 the same, 21 black on white."""
    darker, lighter = sorted((_luminance(one), _luminance(other)))
    return (lighter + 0.05) / (darker + 0.05)


def _luminance(colour: str) -> float:
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def overlays_of(viewer: Any) -> Any:
    """Return the overlays of a viewer's canvas by name; napari 0.9 moved them to the canvas."""
    return viewer.canvas.overlays if hasattr(viewer, "canvas") else viewer._overlays
