"""The slides of the workspace as a list, and the predictions of the slide that is shown."""

import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from qtpy.QtCore import QPoint, QSize, Qt
from qtpy.QtGui import QCloseEvent
from qtpy.QtWidgets import (
    QAbstractItemView,
    QFileDialog,
    QHBoxLayout,
    QHeaderView,
    QLabel,
    QMenu,
    QMessageBox,
    QPushButton,
    QTreeWidget,
    QTreeWidgetItem,
    QVBoxLayout,
    QWidget,
)

from napari_flag.formatting import UNKNOWN, counted, whole
from napari_flag.gui.controls.file_filters import ALL_FILES, OPENED_FILES, WORKSPACE_FILES
from napari_flag.gui.controls.forms import Choice, ask_open, ask_save, plain_label
from napari_flag.gui.keeping import regions_of
from napari_flag.gui.session import Session
from napari_flag.gui.slide_state import Result, SlideState

if TYPE_CHECKING:
    from napari_flag.gui.predict.predict_dock import PredictDock


ROWS: Final = 4
"""Slides seen at once; more are scrolled."""
RESTORE: Final = "Restore last workspace"
HINT: Final = "Drag slides, folders or predictions (.h5ad) into the picture, or open them here."

PREDICT_ALL: Final = "Predict every slide that has no prediction yet, one after the other"
NOTHING_LEFT: Final = "Every slide has a prediction, or one is on its way; Predict expression makes another"


class SlideList(QWidget):
    """Lists slides and what is known of them; a click shows one.

    Parameters
    ----------
    session
        Of the viewer.
    predict
        The Predict dock, which queues predictions.
    """

    def __init__(self, session: Session, predict: "PredictDock") -> None:
        super().__init__()
        self._session, self._predict = session, predict
        self._workspace = session.workspace
        self.list = QTreeWidget()
        self.list.setAccessibleName("Slides")
        self.list.setColumnCount(2)
        self.list.setHeaderHidden(True)
        self.list.setRootIsDecorated(False)
        self.list.setUniformRowHeights(True)
        self.list.setStyleSheet("QTreeView::item { padding: 2px; }")
        self.list.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
        self.list.setContextMenuPolicy(Qt.ContextMenuPolicy.CustomContextMenu)
        self.list.setTextElideMode(Qt.TextElideMode.ElideMiddle)
        header: Any = self.list.header()
        header.setStretchLastSection(False)
        header.setSectionResizeMode(0, QHeaderView.ResizeMode.Stretch)
        header.setSectionResizeMode(1, QHeaderView.ResizeMode.ResizeToContents)
        self.hint = plain_label(HINT)
        self.result = Choice(name="Prediction shown", tooltip="Predictions of this slide; none is replaced")
        self._results = QWidget()
        row = QHBoxLayout(self._results)
        row.setContentsMargins(0, 0, 0, 0)
        row.addWidget(QLabel("Prediction"))
        row.addWidget(self.result.native, 1)
        self.open = QPushButton("Open…")
        self.open.setToolTip(
            "Open slides (SVS, NDPI, MRXS, TIFF, OME-TIFF, DICOM, JPEG, PNG), a folder, predictions, "
            "tables, regions or a workspace.\n"
            "A slide without a pyramid gets one in the cache the first time."
        )
        menu = QMenu(self.open)
        menu.addAction("Files…", self._ask_files)
        menu.addAction("Folder…", self._ask_folder)
        self.restore_too: Any = menu.addAction(RESTORE, self._restore)
        self.open.setMenu(menu)
        self.save = QPushButton("Save workspace…")
        self.save.setToolTip("Save slides, predictions and regions as one workspace that reopens all of it")
        self.save.clicked.connect(self._ask_save)
        self.restore = QPushButton(RESTORE)
        self.restore.clicked.connect(self._restore)
        self.predict_all = QPushButton("Predict all")
        self.buttons = QHBoxLayout()
        for button in (self.open, self.restore, self.save, self.predict_all):
            self.buttons.addWidget(button)
        box = QVBoxLayout(self)
        box.setContentsMargins(0, 0, 0, 0)
        box.setSpacing(3)
        for widget in (self.hint, self.list):
            box.addWidget(widget)
        box.addLayout(self.buttons)
        box.addWidget(self._results)
        self.list.currentItemChanged.connect(self._on_item)
        self.list.itemClicked.connect(self._on_item)
        self.list.customContextMenuRequested.connect(self._show_menu)
        self.result.changed.connect(self._on_result)
        self.predict_all.clicked.connect(predict.predict_all)
        self._followed = (
            self._workspace.listChanged,
            session.predictionChanged,
            predict.keeper.lastChanged,
        )
        for signal in self._followed:
            signal.connect(self.refresh)
        self.refresh()

    # --- what is shown ---------------------------------------------------------------------------
    def refresh(self) -> None:
        """List the slides as they are now."""
        states = self._workspace.slides
        blocked = self.list.blockSignals(True)
        if self._numbers() != [state.number for state in states]:
            self.list.clear()
            for state in states:
                item = QTreeWidgetItem()
                item.setData(0, Qt.ItemDataRole.UserRole, state.number)
                self.list.addTopLevelItem(item)
        for row, state in enumerate(states):
            line: Any = self.list.topLevelItem(row)
            self._write(line, state)
            if state is self._session.state:
                self.list.setCurrentItem(line)
        if self._session.state is None:
            self.list.setCurrentItem(None)
        self.list.blockSignals(blocked)
        self.list.setVisible(bool(states))
        self.hint.setVisible(not states)
        height = self.list.sizeHintForRow(0) if states else 0
        self.list.setFixedHeight(min(len(states), ROWS) * height + 2 * self.list.frameWidth() + 2)
        self._show_results()
        self.predict_all.setVisible(len(states) > 1)
        left = bool(self._predict.unpredicted)
        self.predict_all.setEnabled(left)
        self.predict_all.setToolTip(PREDICT_ALL if left else NOTHING_LEFT)
        self.save.setVisible(bool(states))
        self._offer_last(bool(states))

    def _offer_last(self, beside_others: bool) -> None:
        """Offer the workspace that was kept last: in the menu of *Open…* where there is no room beside it."""
        keeper = self._predict.keeper
        last = keeper.last
        self.restore.setVisible(last is not None and not beside_others)
        self.restore_too.setVisible(last is not None and beside_others)
        for each in (self.restore, self.restore_too):
            each.setEnabled(not keeper.restoring)
        if last is not None:
            kept = (
                time.strftime("%d %B, %H:%M", time.localtime(last.stat().st_mtime)) if last.exists() else ""
            )
            self.restore.setToolTip(f"Bring back what was open and not saved ({kept})")

    def _numbers(self) -> list[int]:
        items = (self.list.topLevelItem(row) for row in range(self.list.topLevelItemCount()))
        return [item.data(0, Qt.ItemDataRole.UserRole) for item in items if item is not None]

    def _write(self, item: QTreeWidgetItem, state: SlideState) -> None:
        item.setText(0, state.name)
        item.setText(1, describe(state))
        where = "Its slide is not open: right-click to choose it" if state.slide is None else state.slide.path
        item.setToolTip(0, str(where))
        font = item.font(0)
        font.setBold(state is self._session.state)
        item.setFont(0, font)

    def _show_results(self) -> None:
        state = self._session.state
        results = [] if state is None else state.results
        self._results.setVisible(bool(results))
        shown = self._session.result
        none = [("none shown", UNKNOWN)] if results and shown is None else []
        self.result.offer(
            [*none, *((result.label, result) for result in results)],
            select=UNKNOWN if shown is None else shown,
        )

    # --- from the person -------------------------------------------------------------------------
    def _ask_files(self) -> None:
        names, _ = QFileDialog.getOpenFileNames(self, "Open", "", f"{OPENED_FILES};;{ALL_FILES}")
        self._predict.opener.open(Path(name) for name in names)

    def _ask_folder(self) -> None:
        name = QFileDialog.getExistingDirectory(self, "Open folder")
        if name:
            self._predict.opener.open([Path(name)])

    def _ask_slide(self, state: SlideState) -> None:
        path = ask_open(self, f"Slide of {state.name}", OPENED_FILES)
        if path is not None:
            self._predict.opener.open_slide_of(state, path)

    def _ask_save(self) -> None:
        path = ask_save(self, "Save workspace", "workspace.json", WORKSPACE_FILES)
        if path is not None:
            self._predict.keeper.save_workspace(path)

    def _restore(self) -> None:
        self._predict.keeper.restore(self._predict.opener.open)
        self.refresh()

    def _state_of(self, item: QTreeWidgetItem | None) -> SlideState | None:
        number = None if item is None else item.data(0, Qt.ItemDataRole.UserRole)
        return next((state for state in self._workspace.slides if state.number == number), None)

    def _on_item(self, item: QTreeWidgetItem | None, *_: object) -> None:
        state = self._state_of(item)
        if state is not None:
            self._workspace.show(state)

    def _on_result(self, result: object) -> None:
        if isinstance(result, Result) and self._session.state is not None:
            self._session.show_result(self._session.state, result)

    def _show_menu(self, at: QPoint) -> None:
        state = self._state_of(self.list.itemAt(at))
        if state is not None:
            menu = QMenu(self)
            menu.addAction("Show", lambda: self._workspace.show(state))
            if state.slide is None:
                menu.addAction("Choose its slide…", lambda: self._ask_slide(state))
            menu.addAction("Remove from the workspace", lambda: self.remove(state))
            viewport = self.list.viewport()
            assert viewport is not None
            menu.popup(viewport.mapToGlobal(at))

    def remove(self, state: SlideState) -> None:
        """Take a slide out of the workspace; asks where that loses unsaved predictions or drawn regions."""
        unsaved, drawn, lost = len(state.unsaved), len(regions_of(self._session, state)), []
        if unsaved:
            which = "is" if unsaved == 1 else "are"
            lost.append(f"{counted(unsaved, 'prediction')} of {state.name} that {which} not saved")
        if drawn:
            lost.append(f"{counted(drawn, 'region')} drawn on {state.name}")
        if lost:
            asked = QMessageBox.question(
                self,
                "Remove from the workspace",
                f"This also removes {' and '.join(lost)}. Remove the slide?",
            )
            if asked != QMessageBox.StandardButton.Yes:
                return
        self._workspace.remove(state)

    def closeEvent(self, event: QCloseEvent | None) -> None:
        """Follow the workspace no longer."""
        for signal in self._followed:
            with suppress(TypeError, RuntimeError):  # closed before
                signal.disconnect(self.refresh)
        super().closeEvent(event)

    def sizeHint(self) -> QSize:
        """Return no more than the rows need."""
        return QSize(360, super().sizeHint().height())


def describe(state: SlideState) -> str:
    """Return what the line of a slide says beside its name."""
    if state.status:
        return state.status
    if state.layer is None and state.slide is not None:
        return f"{_predictions(state)}, click to show".lstrip(", ")
    if state.results:
        return _predictions(state)
    if state.table is not None:
        return counted(len(state.table.spots), "spot")
    return "no slide" if state.slide is None else "no spots yet"


def _predictions(state: SlideState) -> str:
    unsaved, several = len(state.unsaved), len(state.results) > 1
    if not state.results:
        return ""
    count = counted(len(state.results), "prediction") + ("" if state.slide is not None else ", no slide")
    if not unsaved:
        return count
    return f"{count}, {whole(unsaved)} not saved" if several else f"{count}, not saved"
