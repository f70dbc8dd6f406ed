"""The button of the Regions dock that reads what others called the spots."""

from pathlib import Path
from typing import Any, Final

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QFileDialog, QPushButton

from napari_flag.slides.labels import SpotLabels
from napari_flag.viewer.region_labels import find_missing, read_for
from napari_flag.widgets.errands import Errands
from napari_flag.widgets.forms import MessageList
from napari_flag.widgets.session import Session

TABLES: Final = "Labels (*.tsv *.csv *.txt *.tsv.gz *.csv.gz);;All files (*)"


class LabelButton(QPushButton):
    """Reads labels into ``obs["label"]``, then finds the domains they are held against.

    Parameters
    ----------
    session
        Whose prediction is labelled.
    errands, messages
        Of the dock.
    """

    labelled = Signal()
    """The labels are there."""
    compared = Signal()
    """So are the domains of all sources."""

    def __init__(self, session: Session, errands: Errands, messages: MessageList) -> None:
        super().__init__("Labels…")
        self._session, self._errands, self._messages = session, errands, messages
        self._method = ""
        self.setToolTip(
            "Read what a pathologist or a clustering called each spot:\n"
            "her2st's annotations, Loupe's CSV, or a table of spot ids and labels"
        )

    def ask(self, method: str) -> None:
        """Ask for a file and read it; `method` finds domains."""
        path, _ = QFileDialog.getOpenFileName(self, "Labels of spots", "", TABLES)
        if path:
            self.read(Path(path), method)

    def read(self, path: Path, method: str) -> None:
        """Read `path`; what was labelled before stays until it is read."""
        adata, self._method = self._session.adata, method
        if adata is None:
            return
        self._messages.clear()
        self._errands.start(
            "labels",
            read_for(adata, path),
            "Read labels",
            on_done=lambda labels: self._on_read(adata, labels),
            on_failed=self._messages.show_error,
            on_cancelled=lambda: self._messages.add("notice", "Reading labels was cancelled."),
        )

    def _on_read(self, adata: Any, labels: SpotLabels) -> None:
        from napari_flag.structure import write_labels

        if adata is None or adata is not self._session.adata:  # another prediction came in between
            return
        write_labels(adata, labels)
        self.labelled.emit()
        self._errands.start(
            "domains",
            find_missing(adata, self._method),
            "Find domains",
            on_done=lambda _: self.compared.emit(),
            on_failed=self._messages.show_error,
            on_cancelled=self._on_cancelled,
        )

    def _on_cancelled(self) -> None:
        self._messages.add("notice", "Finding domains was cancelled; the labels are there.")
        self.compared.emit()
