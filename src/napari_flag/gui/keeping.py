"""Nothing is lost: workspaces are saved, kept by themselves, and brought back; closing asks once."""

import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any, Final

from napari.utils.notifications import show_error
from qtpy.QtCore import QEvent, QObject, QTimer, Signal
from qtpy.QtWidgets import QMessageBox

from napari_flag import workspace_file
from napari_flag.errors import UserError
from napari_flag.files import claim, place_in, with_ending
from napari_flag.foreign_prediction import unit_read
from napari_flag.formatting import counted
from napari_flag.gui.dock import run_all, single_shot
from napari_flag.gui.jobs import Job, Jobs
from napari_flag.gui.loading import Arrived
from napari_flag.gui.session import Session
from napari_flag.gui.slide_state import Result, SlideState
from napari_flag.layers import region_shapes
from napari_flag.prediction_file import (
    write_prediction,
    write_prediction_in_steps,
    write_regions,
    written_by,
)
from napari_flag.progress import Step, Steps, finish
from napari_flag.slides.formats.geojson import Annotation
from napari_flag.workspace_file import AUTOSAVED, WorkspaceFile, WorkspacePrediction, WorkspaceSlide

AUTOSAVE_MS: Final = 1500
"""Autosave begins this long after a change."""
SPARING: Final = 4
"""Autosave waits at least so many times as long as it took last, so that many draws are kept together."""


def regions_of(session: Session, state: SlideState) -> tuple[Annotation, ...]:
    """Return the regions drawn on a slide, in level-0 pixels."""
    layers = [*session.workspace.layers_of(state), *state.put_aside]
    placement = region_shapes.Placement.in_frame(state.frame)
    return tuple(drawn.annotation for drawn in region_shapes.read_regions(layers, placement))


def describe(session: Session, file_of: Callable[[SlideState, Result], Path | None]) -> WorkspaceFile:
    """Return the workspace of a viewer as it is written.

    Parameters
    ----------
    session
        Of the viewer.
    file_of
        Where a prediction lies; one without a file is left out.
    """
    slides, states = [], session.workspace.slides
    for state in states:
        filed = [(result, path) for result in state.results if (path := file_of(state, result)) is not None]
        shown = [place for place, (result, _) in enumerate(filed) if result is state.shown]
        slide = state.slide
        slides.append(
            WorkspaceSlide(
                name=state.name,
                slide=None if slide is None else Path(slide.path),
                um_per_px=None if slide is None else slide.mpp,
                um_per_px_source="" if slide is None else slide.mpp_source,
                table=state.table_path if state.from_table else None,
                grid=None if state.from_table else state.grid,
                measured=state.measured_path,
                predictions=tuple(
                    WorkspacePrediction(result.name, path, unit_read(result.adata) or "")
                    for result, path in filed
                ),
                shown=shown[0] if shown else None,
                regions=regions_of(session, state),
            )
        )
    current = None if session.state is None else states.index(session.state)
    return WorkspaceFile(
        tuple(slides),
        current,
        session.gene or "",
        session.gene_map.quantity.value,
        session.gene_sets_file,
    )


@dataclass(frozen=True, slots=True)
class _ToWrite:
    result: Result
    path: Path
    additions: int
    """Of the prediction as it is now; what comes while it is being written may be missing."""

    def note_autosave(self) -> None:
        self.result.autosave, self.result.in_autosave = self.path, self.additions


def _write(
    predictions: list[_ToWrite],
    workspace: WorkspaceFile,
    path: Path,
    written: Callable[[_ToWrite], None],
    *,
    asked: bool = False,
) -> Steps[Path]:
    """Write predictions, then the workspace that names them; `written` is called in the worker after each.

    What a person `asked` for is cancelled at once; what is kept by itself goes on to the end of a file.
    """
    for place, each in enumerate(predictions):
        step = Step("Saving", place, len(predictions), "predictions")
        yield step
        if asked:
            yield from write_prediction_in_steps(written_by(each.result.adata), each.path, step)
        else:
            write_prediction(written_by(each.result.adata), each.path)
        written(each)
    yield Step("Saving", len(predictions), len(predictions))
    workspace_file.write_workspace(workspace, path)
    return path


class Keeper(QObject):
    """Saves the workspace of a viewer, by itself and when asked.

    Parameters
    ----------
    session
        Of the viewer.
    jobs
        Of the dock that shows progress; saving by itself has jobs of its own and shows nothing.
    notify, show_error
        What to do with what a person is to read.
    """

    lastChanged = Signal()
    """The workspace kept by an earlier session came back, or could not be brought back."""

    def __init__(
        self,
        session: Session,
        jobs: Jobs,
        notify: Callable[[str], None],
        show_error: Callable[[Exception], None],
    ) -> None:
        super().__init__(jobs)
        self._session, self._jobs = session, jobs
        self._notify, self._show_error = notify, show_error
        self._own = Jobs(self, self._on_failed)
        self.last = workspace_file.last_autosave()
        """The workspace kept by an earlier session, until it was restored, or None."""
        self._restoring: Job | None = None
        self._file: Path | None = None
        self._release: list[Callable[[], None]] = []
        release = self._release
        self.destroyed.connect(lambda: run_all(release))
        self._works = True
        self._begun = 0.0
        self._due = single_shot(self, AUTOSAVE_MS, self.autosave)
        self._writing = Lock()
        """Of what is kept in the cache: it is written by one at a time."""

    @property
    def works(self) -> bool:
        """Whether the workspace could be kept when that was tried last."""
        return self._works

    @property
    def anything_drawn(self) -> bool:
        """Whether a slide has drawn regions."""
        return any(regions_of(self._session, state) for state in self._session.workspace.slides)

    # --- by itself -------------------------------------------------------------------------------
    def autosave_soon(self) -> None:
        """Keep the workspace a moment after the first change of several; the others do not put it off."""
        if not self._due.isActive():
            self._due.start()

    def autosave(self) -> None:
        """Keep the workspace, and the predictions that are not saved, in the cache."""
        if self._own.active:
            self._due.start()  # what changed since it began is kept after it
        elif (steps := self._keep()) is not None:
            kept = self._in_turn(steps)
            self._own.run("autosave", kept, "Keep the workspace", on_result=self._on_kept, waits=False)

    def flush(self) -> None:
        """Keep what waits to be kept, and return when it is: the window closes."""
        if not self._begin_last():
            return
        try:
            with self._writing:  # once the file that is being written is there
                if (steps := self._keep()) is not None:
                    self._on_kept(finish(steps))
        except Exception as error:  # noqa: BLE001 - said as if it came from a worker; the window closes
            self._on_failed(error)

    def hand_over(self) -> None:
        """Keep what waits to be kept in a job that outlives this: the dock closes, and the window stays."""
        if not self._begin_last() or (steps := self._keep()) is None:
            return
        job, release = Job(self._in_turn(steps), "Keep the workspace", to_end=True), self._release.copy()
        self._release.clear()
        job.failed.connect(lambda error: show_error(str(error)))
        job.ended.connect(lambda: run_all(release))
        job.start()

    def _begin_last(self) -> bool:
        """End what keeps by itself, and return whether anything waited for it.

        A viewer without layers may be one that napari has cleared to close it, so it is left as it was kept.
        """
        viewer = self._session.viewer
        if viewer is None or not len(viewer.layers) or not (self._due.isActive() or self._own.active):
            return False
        self._due.stop()
        self._own.cancel("autosave")
        return True

    def _in_turn(self, steps: Steps[Path]) -> Steps[Path]:
        with self._writing:
            return (yield from steps)

    def _keep(self) -> Steps[Path] | None:
        """Return what keeps the workspace as it is now; None where there is nothing to keep, or no place."""
        workspace, self._begun = self._session.workspace, time.monotonic()
        if not (workspace.unsaved or self.anything_drawn):
            return None
        try:
            folder, writing = self._place().parent, []
        except UserError as error:
            self._on_failed(error)
            return None
        files: dict[int, Path] = {}
        for state in workspace.slides:
            for place, result in enumerate(state.results):
                file = folder / f"{state.number}-{place}.h5ad"
                if result.unsaved:
                    files[id(result)] = file
                kept = result.autosave == file and file.exists()
                if result.unsaved and not (kept and result.in_autosave >= result.additions):
                    writing.append(_ToWrite(result, file, result.additions))
        whole = describe(self._session, lambda _, result: files.get(id(result), result.file))
        return _write(writing, whole, folder / AUTOSAVED, _ToWrite.note_autosave)

    def _place(self) -> Path:
        """Return where the workspace is kept, in a folder of this session that others leave alone."""
        if self._file is None or not self._file.parent.is_dir():
            run_all(self._release)
            self._file = workspace_file.new_autosave()
            self._release.append(claim(self._file.parent))
        return self._file

    def _on_kept(self, _: Path) -> None:
        self._works = True
        took_ms = 1000 * (time.monotonic() - self._begun)
        self._due.setInterval(max(AUTOSAVE_MS, round(SPARING * took_ms)))
        workspace_file.prune_autosaves(spare=None if self.last is None else self.last.parent)

    def _on_failed(self, error: Exception) -> None:
        if self._works:  # said once: it would come with every change
            self._works = False
            self._show_error(error)

    @property
    def restoring(self) -> bool:
        """Whether the workspace kept by an earlier session is being read."""
        return self._restoring is not None and self._restoring.running

    def restore(self, open_paths: Callable[..., Job | None]) -> None:
        """Bring back the workspace that was kept last; `open_paths` is `Opener.open`.

        Where that is cancelled, or nothing of it can be read, it can be tried again.
        """
        if self.last is None or self.restoring:
            return
        self._restoring = job = open_paths([self.last], unsaved=self.last.parent)
        if job is not None:
            job.finished.connect(self._on_restored)
            job.ended.connect(self.lastChanged)

    def _on_restored(self, arrived: Arrived) -> None:
        if arrived.opened:
            self.last = None

    # --- when asked ------------------------------------------------------------------------------
    def save_workspace(self, path: Path) -> None:
        """Save the workspace as `path`, with the predictions that are not saved in new files beside it."""
        path = with_ending(path, ".json")
        workspace, writing = self._session.workspace, []
        files: dict[int, Path] = {}
        taken = {result.file for state in workspace.slides for result in state.results}
        numbers = itertools.count(1)
        for state in workspace.slides:
            for result in state.unsaved:
                named = (place_in(path.parent, f"{path.stem}_{state.name}_{n}", ".h5ad") for n in numbers)
                file = next(file for file in named if file not in taken and not file.exists())
                files[id(result)] = file
                writing.append(_ToWrite(result, file, result.additions))
        whole = describe(self._session, lambda _, result: files.get(id(result), result.file))

        written: list[_ToWrite] = []

        def on_result(_: Path) -> None:
            for each in writing:
                workspace.saved(each.result.adata, each.path, each.additions)
            self._notify(f"Saved the workspace as {path}.")

        def on_cancelled() -> None:
            there = ", ".join(each.path.name for each in written)
            but = f"; {there} beside it stays" if there else ""
            self._notify(f"Saving was cancelled: {path.name} was not written{but}.")

        self._jobs.run(
            "save workspace",
            _write(writing, whole, path, written.append, asked=True),
            "Save workspace",
            on_result=on_result,
            on_cancelled=on_cancelled,
        )

    def save_result(self, path: Path) -> None:
        """Save the prediction that is shown as `path`, with the regions drawn on its slide."""
        state, result = self._session.state, self._session.result
        if state is None or result is None:
            return
        adata, additions = result.adata, result.additions
        write_regions(adata, regions_of(self._session, state))

        def work() -> Steps[None]:
            step = Step("Saving", 0)
            yield step
            yield from write_prediction_in_steps(written_by(adata), path, step)

        def on_result(_: None) -> None:
            self._session.workspace.saved(adata, path, additions)
            self._notify(f"Saved as {path}.")

        self._jobs.run(
            "save",
            work(),
            "Save result",
            on_result=on_result,
            on_cancelled=lambda: self._notify(f"Saving was cancelled: {path.name} was not written."),
        )


class CloseQuestion(QObject):
    """Keeps what waits to be kept when the window closes, and asks once where a person loses something.

    Parameters
    ----------
    viewer
        With a window.
    session
        Of the viewer.
    keeper
        Keeps the workspace of the viewer.
    """

    def __init__(self, viewer: Any, session: Session, keeper: Keeper) -> None:
        super().__init__(viewer.window._qt_window)
        self._session, self._keeper = session, keeper
        viewer.window._qt_window.installEventFilter(self)

    @property
    def _window(self) -> Any:
        return self.parent()

    def remove(self) -> None:
        """Ask no more."""
        self._window.removeEventFilter(self)
        self.deleteLater()

    def eventFilter(self, watched: QObject | None, event: QEvent | None) -> bool:
        """Ask before the window closes; whoever says yes is not asked by napari again."""
        if event is None or event.type() != QEvent.Type.Close:
            return super().eventFilter(watched, event)
        self._keeper.flush()
        unsaved = len(self._session.workspace.unsaved)
        loses = unsaved or (not self._keeper.works and self._keeper.anything_drawn)
        if not event.spontaneous() or not loses:
            return super().eventFilter(watched, event)
        event.ignore()
        if self.confirmed(unsaved):
            QTimer.singleShot(0, self._window.close)
        return True

    def say_loss(self, count: int) -> tuple[str, str]:
        """Return what closing with `count` predictions that are not saved loses, and what becomes of it."""
        loss = f"{counted(count, 'prediction')} {'is' if count == 1 else 'are'} not saved."
        if self._keeper.works:
            kept = "The workspace is kept all the same: next time, Restore last workspace brings it back."
            return loss, kept
        return (
            loss if count else "Drawn regions are not saved.",
            "The cache folder could not be written, so the workspace is not kept; cancel, and save it with "
            "Save workspace….",
        )

    def confirmed(self, count: int) -> bool:
        """Ask whether to close with `count` predictions that are not saved."""
        loss, kept = self.say_loss(count)
        box = QMessageBox(self._window)
        box.setIcon(QMessageBox.Icon.Question)
        box.setWindowTitle("Close napari")
        box.setText(loss)
        box.setInformativeText(kept)
        close: Any = box.addButton("Close", QMessageBox.ButtonRole.AcceptRole)
        box.addButton("Cancel", QMessageBox.ButtonRole.RejectRole)
        box.setDefaultButton(close)
        box.exec()
        return box.clickedButton() is close
