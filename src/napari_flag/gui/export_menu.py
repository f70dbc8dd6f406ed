"""Menu commands that save what a viewer's docks share."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import napari.viewer
from qtpy.QtWidgets import QFileDialog, QMessageBox

from napari_flag.exports.formats import FORMATS, Format, export, place_of
from napari_flag.gui.jobs import Job
from napari_flag.gui.session import Session

if TYPE_CHECKING:
    from anndata import AnnData


NOTHING = "There is no prediction to save yet; predict first, or open a prediction."


def export_prediction(viewer: napari.viewer.Viewer) -> Job | None:
    """Ask for a format, a place and, where a gene set is chosen, which genes; save in the background.

    Returns
    -------
    Job or None
        The work begun; None where there is nothing to save or the user changed their mind.
    """
    from napari.utils.notifications import show_error

    session = Session.of(viewer)
    if session.adata is None:
        show_error(NOTHING)
        return None
    asked = _ask_place(session.adata)
    if asked is None:
        return None
    genes = _ask_genes(session.adata, session.gene_set, session.gene_set_name)
    return start_export(session.adata, *asked, genes)


def start_export(adata: "AnnData", wanted: Format, path: Path, genes: tuple[str, ...] | None) -> Job:
    """Save `adata` at `path` in a thread, and say so when it is done or what went wrong."""
    from napari.utils.notifications import show_error, show_info

    job = Job(export(adata, [(wanted, path)], genes=genes), "Export prediction")
    job.finished.connect(lambda _: show_info(f"Saved {path}."))
    job.failed.connect(lambda error: show_error(str(error)))
    return job.start()


def _ask_place(adata: "AnnData") -> tuple[Format, Path] | None:
    """Return format and path chosen, the format's suffix added where it was left out."""
    filters = {f"{known.summary} (*{known.suffix})": known for known in FORMATS}
    start = place_of(adata, FORMATS[0], Path()).name
    name, chosen = QFileDialog.getSaveFileName(None, "Export prediction", start, ";;".join(filters))
    if not name:
        return None
    wanted = filters[chosen]
    path = Path(name)
    ending = f".{wanted.suffix.rsplit('.', 1)[-1]}"
    if path.name == start:  # the name offered, of whatever format
        path = place_of(adata, wanted, path.parent)
    elif not path.name.endswith(ending):
        path = path.with_name(path.name + (wanted.suffix if wanted.suffix.startswith(".") else ending))
    return wanted, path


def _ask_genes(adata: "AnnData", genes: tuple[str, ...], name: str) -> tuple[str, ...] | None:
    """Return the genes to save; None means all, which is not asked about where no set is chosen."""
    known = set(adata.var_names)
    chosen = tuple(gene for gene in genes if gene in known)
    if not chosen or len(chosen) == adata.n_vars:
        return None
    box = QMessageBox(QMessageBox.Icon.Question, "Export prediction", "Which genes should be saved?")
    every: Any = box.addButton(f"All {adata.n_vars}", QMessageBox.ButtonRole.AcceptRole)
    some: Any = box.addButton(
        f"The {len(chosen)} of {name or 'the gene set'}", QMessageBox.ButtonRole.AcceptRole
    )
    box.setDefaultButton(every)
    box.exec()
    return chosen if box.clickedButton() is some else None
