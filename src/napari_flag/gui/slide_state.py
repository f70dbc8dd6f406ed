"""What is known of one slide of a viewer: its picture, spots, counts and predictions."""

import os
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_flag import keys
from napari_flag.layers.frame import Frame, frame_of, moved_by_hand
from napari_flag.prediction_file import provenance
from napari_flag.slides.file_identity import state_of

if TYPE_CHECKING:
    from anndata import AnnData

    from napari_flag.inputs import Grid
    from napari_flag.slides.slide import Slide
    from napari_flag.slides.spots import SpotTable


@dataclass(eq=False, slots=True)
class Result:
    """A prediction of a slide.

    Parameters
    ----------
    adata
        As docs/prediction-file.md states.
    name
        Of weights, and time: "her2st · 14:32".
    file
        Where it is saved, None while it is not.
    autosave
        Where it is kept without being asked for, None while it is not.
    measured
        Raw counts attached by a person, or None; what is compared with is ``adata.layers["measured"]``.
    additions
        How often something was added to it since it came: draws, labels, domains, counts.
    in_file, in_autosave
        How many of the additions `file` and `autosave` hold.
    """

    adata: "AnnData"
    name: str
    file: Path | None = None
    autosave: Path | None = None
    measured: "AnnData | None" = None
    additions: int = 0
    in_file: int = 0
    in_autosave: int = 0
    as_filed: "tuple[Any, ...] | None" = None
    """What `file` was when it was read or saved (`state_on_disk`); None where that is not known."""

    @property
    def unsaved(self) -> bool:
        """Whether no file holds it with all that was added."""
        return self.file is None or self.in_file < self.additions

    @property
    def label(self) -> str:
        """The name, and whether it is not saved."""
        if not self.unsaved:
            return self.name
        return f"{self.name} ({'not saved' if self.file is None else 'changed, not saved'})"


@dataclass(eq=False, slots=True)
class SlideState:
    """One slide of the workspace, and all that is known of it.

    Parameters
    ----------
    number
        Which its layers record.
    name
        As it stands in the list; no other slide has it.
    slide, layer
        The slide and its picture; None where only a prediction is known, or the picture was removed.
    table
        Its spots as they were read or laid, with what came along; None before there are any.
    measured
        Raw counts to compare with, or None.
    counts_notices, counts_error
        What was said as they were read, or why they could not be; shown whenever the slide is.
    from_table, table_path, measured_path, grid
        How the Predict dock is to find them.
    given_mpp
        µm/px that a person typed, which is of the full-resolution slide; None where the µm/px are from
        elsewhere.
    results, shown
        Its predictions, the oldest first, and the one that docks show.
    status
        What happens to it: "predicting 40 %", "queued".
    """

    number: int
    name: str
    slide: "Slide | None" = None
    layer: Any = None
    table: "SpotTable | None" = None
    measured: "AnnData | None" = None
    counts_notices: tuple[str, ...] = ()
    counts_error: Exception | None = None
    from_table: bool = False
    table_path: Path | None = None
    measured_path: Path | None = None
    grid: "Grid | None" = None
    given_mpp: float | None = None
    region: Any = None
    """The layer with shapes that spots are predicted in; None for the whole tissue."""
    area: Any = None
    """The layer with shapes that a grid is laid in; None for all detected tissue."""
    results: list[Result] = field(default_factory=list)
    shown: Result | None = None
    status: str = ""
    camera: tuple[Any, float] | None = None
    visible: list[Any] = field(default_factory=list)
    """Layers to show again when the slide, or its picture, is."""
    put_aside: list[Any] = field(default_factory=list)
    """Layers a person drew, taken out of the viewer with the picture."""

    @property
    def adata(self) -> "AnnData | None":
        """The prediction that is shown."""
        return None if self.shown is None else self.shown.adata

    @property
    def frame(self) -> Frame:
        """How its layers are placed."""
        if self.slide is not None:
            moved = None if self.layer is None else moved_by_hand(self.layer, self.slide.mpp)
            return Frame(self.slide.mpp, moved, self.number)
        mpp = None if self.adata is None else frame_of(self.adata).mpp
        return Frame(mpp, None, self.number)

    @property
    def unsaved(self) -> tuple[Result, ...]:
        """Predictions that are not saved, or not with all that was added."""
        return tuple(result for result in self.results if result.unsaved)


def state_on_disk(file: Path | None) -> tuple[Any, ...] | None:
    """Return what is another as soon as a file is written anew; None where it is not there."""
    if file is None:
        return None
    try:
        return os.path.abspath(file), state_of(file)
    except OSError:
        return None


def name_for(adata: "AnnData", state: SlideState, file: Path | None, name: str) -> str:
    """Return what a prediction is called: its file, or its weights and the time."""
    weights = str(provenance(adata).get(keys.WEIGHTS_NAME, "")) or "expression"
    name = name or (file.stem if file is not None else f"{weights} · {time.strftime('%H:%M')}")
    return free_name(name, (result.name for result in state.results))


def free_name(name: str, names: Iterable[str]) -> str:
    """Return `name`, with a number where it is among `names`."""
    taken = set(names)
    return next(n for n in (name, *(f"{name} ({i})" for i in range(2, len(taken) + 3))) if n not in taken)
