"""Menu commands that save what a viewer's docks share."""

from pathlib import Path

import napari.viewer
from qtpy.QtWidgets import QFileDialog

from napari_flag.errors import UserError
from napari_flag.widgets.session import Session


def export_table(viewer: napari.viewer.Viewer) -> None:
    """Ask for a file and save the current prediction in it, a row per spot, a column per gene."""
    from napari.utils.notifications import show_error, show_info

    from napari_flag.results import write_table
    from napari_flag.viewer.writers import expression_table

    adata = Session.of(viewer).adata
    if adata is None:
        show_error("There is no prediction to save yet; predict first, or open a prediction.")
        return
    path, _ = QFileDialog.getSaveFileName(None, "Save expression table", "expression.csv", "Table (*.csv)")
    if not path:
        return
    try:
        write_table(expression_table(adata), Path(path))
    except UserError as error:
        show_error(str(error))
    else:
        show_info(f"Saved {path}.")
