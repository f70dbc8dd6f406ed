"""Menu commands that save what a viewer's docks share."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import napari.viewer
from napari.utils import notifications
from qtpy.QtCore import Qt
from qtpy.QtWidgets import QDialog, QFileDialog, QMessageBox, QVBoxLayout, QWidget

from napari_flag.analysis.structure import GeneSets
from napari_flag.errors import UserError
from napari_flag.exports.formats import FORMATS, Format, export, place_of
from napari_flag.exports.replacing import check_place
from napari_flag.files import ending
from napari_flag.formatting import whole
from napari_flag.gui.controls.file_filters import file_filter
from napari_flag.gui.controls.forms import may_replace, sentence_of
from napari_flag.gui.jobs import Job, Jobs, ProgressStrip
from napari_flag.gui.session import Session
from napari_flag.prediction_doubts import find_misplaced
from napari_flag.slide_identity import without_personal_names

if TYPE_CHECKING:
    from anndata import AnnData


NOTHING = "There is no prediction to save yet; predict first, or open a prediction."


def export_prediction(viewer: napari.viewer.Viewer) -> Job | None:
    """Ask for a format, a place and, where a gene set is chosen, which genes; save in the background.

    Returns
    -------
    Job or None
        The work begun; None where there is nothing to save, nothing may be written there, or the user changed
        their mind.
    """
    session = Session.of(viewer)
    if session.adata is None:
        notifications.show_error(NOTHING)
        return None
    keep = ask_keep_names(None, session.adata)
    if keep is None:
        return None
    adata, _ = without_personal_names(session.adata, keep)
    insisted = _ask_misplaced(adata)
    if insisted is None:
        return None
    asked = _ask_place(adata)
    if asked is None:
        return None
    try:
        check_place(asked[1], overwrite=True, source=None if session.result is None else session.result.file)
    except UserError as error:
        notifications.show_error(str(error))
        return None
    genes = _ask_genes(adata, session.gene_set, session.gene_set_name)
    window = getattr(session.viewer, "window", None)
    progress = ExportProgress(None if window is None else window._qt_window)
    sets = None if session.gene_sets_file is None else session.gene_sets
    return progress.start(adata, *asked, genes, sets, force=insisted)


def ask_keep_names(parent: QWidget | None, adata: "AnnData") -> bool | None:
    """Ask whether results keep a name of the slide that may be a patient's.

    Returns
    -------
    bool or None
        False without asking where the name is no such one; None where nothing is to be written.
    """
    _, said = without_personal_names(adata)
    if not said:
        return False
    box = QMessageBox(
        QMessageBox.Icon.Question, "Name of the slide", said[0].split(";")[0] + ".", parent=parent
    )
    box.setInformativeText("Anyone who receives the file can read the name in it. Keep it?")
    neutral: Any = box.addButton("Use the neutral name", QMessageBox.ButtonRole.AcceptRole)
    kept: Any = box.addButton("Keep the name", QMessageBox.ButtonRole.AcceptRole)
    box.addButton("Cancel", QMessageBox.ButtonRole.RejectRole)
    box.setDefaultButton(neutral)
    box.exec()
    return {neutral: False, kept: True}.get(box.clickedButton())


def _ask_misplaced(adata: "AnnData") -> bool | None:
    """Ask whether spots that look misplaced are written all the same; False without asking where none do.

    None where nothing is to be written.
    """
    doubt = find_misplaced(adata)
    if doubt is None:
        return False
    box = QMessageBox(QMessageBox.Icon.Warning, "Export prediction", f"{doubt}.")
    box.setInformativeText("Genes may stand in other places than they belong. Export anyway?")
    box.setStandardButtons(QMessageBox.StandardButton.Yes | QMessageBox.StandardButton.Cancel)
    box.setDefaultButton(QMessageBox.StandardButton.Cancel)
    return True if box.exec() == QMessageBox.StandardButton.Yes else None


class ExportProgress(QDialog):
    """A small window that shows an export and can cancel it; it closes when the export has ended."""

    def __init__(self, parent: QWidget | None) -> None:
        super().__init__(parent)
        self.setWindowTitle("Export prediction")
        self.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        self.setMinimumWidth(320)
        self.jobs = Jobs(self, self._on_error)
        self.strip = ProgressStrip(self.jobs, self, hide_when_idle=False)
        QVBoxLayout(self).addWidget(self.strip)

    def start(
        self,
        adata: "AnnData",
        wanted: Format,
        path: Path,
        genes: tuple[str, ...] | None,
        gene_sets: GeneSets | None,
        *,
        force: bool = False,
    ) -> Job:
        """Save `adata` at `path` in a thread, and say so when it is done or what went wrong."""
        self.show()
        return self.jobs.run(
            "export",
            export(adata, [(wanted, path)], genes=genes, gene_sets=gene_sets, force=force),
            "Export prediction",
            on_result=lambda _: self._end(f"Saved {path}."),
            on_cancelled=lambda: self._end("The export was cancelled."),
        )

    def reject(self) -> None:
        """Cancel the export, as Esc and closing the window ask; the window closes when it has ended."""
        self.strip.stop()

    def _end(self, text: str) -> None:
        notifications.show_info(text)
        self.accept()

    def _on_error(self, error: Exception) -> None:
        notifications.show_error(sentence_of(error))
        self.accept()


def _ask_place(adata: "AnnData") -> tuple[Format, Path] | None:
    """Return format and path chosen, the format's suffix added where it was left out.

    The dialog asks before the file that was named is replaced; of another that comes of it, this does.
    """
    filters = {file_filter(known.summary, known.suffix): known for known in FORMATS}
    start = place_of(adata, FORMATS[0], Path()).name
    name, chosen = QFileDialog.getSaveFileName(None, "Export prediction", start, ";;".join(filters))
    if not name:
        return None
    wanted = filters[chosen]
    path = Path(name)
    if path.name == start:  # the name offered, of whatever format
        path = place_of(adata, wanted, path.parent)
    elif ending(path) != wanted.ending:
        path = path.with_name(path.name + (wanted.suffix if wanted.suffix.startswith(".") else wanted.ending))
    return (wanted, path) if path == Path(name) or may_replace(None, path) else None


def _ask_genes(adata: "AnnData", genes: tuple[str, ...], name: str) -> tuple[str, ...] | None:
    """Return the genes to save; None means all, which is not asked about where no set is chosen."""
    known = set(adata.var_names)
    chosen = tuple(gene for gene in genes if gene in known)
    if not chosen or len(chosen) == adata.n_vars:
        return None
    box = QMessageBox(QMessageBox.Icon.Question, "Export prediction", "Which genes should be saved?")
    every: Any = box.addButton(f"All {whole(adata.n_vars)}", QMessageBox.ButtonRole.AcceptRole)
    some: Any = box.addButton(
        f"The {whole(len(chosen))} of {name or 'the gene set'}", QMessageBox.ButtonRole.AcceptRole
    )
    box.setDefaultButton(every)
    box.exec()
    return chosen if box.clickedButton() is some else None
