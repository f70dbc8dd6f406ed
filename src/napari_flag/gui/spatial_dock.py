"""The Spatial dock: where each gene clusters, how strongly, and how that agrees with the measurement."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from qtpy.QtCore import Signal
from qtpy.QtGui import QCloseEvent
from qtpy.QtWidgets import (
    QButtonGroup,
    QHBoxLayout,
    QLabel,
    QLineEdit,
    QMenu,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from napari_flag.analysis.spatial import SpatialScores, find_classes, score_spatially
from napari_flag.errors import UserError
from napari_flag.files import ending, write_table
from napari_flag.formatting import probability, score, whole
from napari_flag.gene_names import GeneNames, look_up
from napari_flag.gui.controls.file_filters import TABLE_FILES
from napari_flag.gui.controls.forms import Choice, ask_save, plain_label
from napari_flag.gui.controls.plots import ScatterPlot, ask_figure_path
from napari_flag.gui.controls.tables import Column, NumberView, score_column
from napari_flag.gui.dock import NOTHING_YET, Dock, single_shot
from napari_flag.layers.local_map import LocalMap, MapKind

if TYPE_CHECKING:
    from anndata import AnnData

BUTTONS: Final = {
    MapKind.EXPRESSION: "Gene",
    MapKind.LOCAL: "Local Moran",
    MapKind.CLASSES: "Clusters",
}
MASKS: Final = (
    ("p ≤ 0.05, each spot alone", False, "As GeoDa and esda mask: 1 spot in 20 by chance alone"),
    ("q ≤ 0.05, over all spots", True, "Benjamini–Hochberg: strict on sections of a few hundred spots"),
)


class MapChoice(QWidget):
    """Buttons for what is painted, and which clusters are; their legend is on the canvas."""

    kindChosen = Signal(object)
    """A `MapKind`."""
    maskChosen = Signal(bool)
    """Whether clusters are masked by q."""

    def __init__(self) -> None:
        super().__init__()
        self._group = QButtonGroup(self)
        row = QHBoxLayout()
        row.setSpacing(2)
        self.buttons: dict[MapKind, QPushButton] = {}
        for kind, label in BUTTONS.items():
            button = QPushButton(label)
            button.setCheckable(True)
            button.setToolTip(kind.meaning)
            button.clicked.connect(lambda _=False, chosen=kind: self.kindChosen.emit(chosen))
            self._group.addButton(button)
            row.addWidget(button)
            self.buttons[kind] = button
        self.significance = Choice(
            ((name, corrected) for name, corrected, _ in MASKS), name="Which clusters are significant"
        )
        self.significance.explain({corrected: meaning for _, corrected, meaning in MASKS})
        self.significance.changed.connect(self.maskChosen.emit)
        box = QVBoxLayout(self)
        box.setContentsMargins(0, 0, 0, 0)
        box.setSpacing(3)
        box.addLayout(row)
        box.addWidget(self.significance.native)
        self.buttons[MapKind.EXPRESSION].setChecked(True)

    def show_map(self, local: LocalMap) -> None:
        """Show what `local` paints: which button is down."""
        self.buttons[local.kind].setChecked(True)
        self.significance.visible = local.kind is MapKind.CLASSES
        self.significance.select(local.corrected)


NO_TRUTH: Final = (
    "This prediction has no measured expression to compare Moran's I with; "
    "choose counts on the Compare page to see both. Until then:"
)
PERMUTATIONS: Final = (0, 99, 999)
WALK_MS: Final = 150
"""Clusters are computed for the gene a person stays on, not for each one the arrow keys pass."""
PREDICTED: Final = score_column(
    "Moran's I",
    "Moran's I of the prediction: 1 when like spots lie together",
    key="predicted",
    heading="I pred.",
)
MEASURED: Final = score_column("Moran's I", "Moran's I of the measurement", key="measured", heading="I true")
Q: Final = Column(
    "q", "q", "Of clustering by chance, corrected over all genes (Benjamini–Hochberg)", probability
)


class SpatialDock(Dock):
    """Genes ranked by Moran's I, the map of the chosen one, and a scatter against the truth.

    Parameters
    ----------
    napari_viewer
        The viewer; gene and picture are shared with its other docks through `Session`.
    """

    def __init__(self, napari_viewer: Any) -> None:
        super().__init__(napari_viewer)
        self.scores: SpatialScores | None = None
        self._scores_of: AnnData | None = None
        self._names = GeneNames(())
        self._walk = single_shot(self, WALK_MS, self._find_classes)
        self._build()
        self._lay_out()
        self._connect()
        self._on_prediction()

    # --- construction ----------------------------------------------------------------------------
    def _build(self) -> None:
        self.choice = MapChoice()
        self.search = QLineEdit()
        self.search.setPlaceholderText("Search a gene, or paste a list")
        self.search.setClearButtonEnabled(True)
        self.found = plain_label()
        self.table = NumberView("Gene", width=60)
        self.heading = plain_label()
        self.scatter = ScatterPlot()
        self.scatter.setMinimumHeight(170)
        self.permutations = Choice(
            ((f"{times} shuffles" if times else "normal", times) for times in PERMUTATIONS),
            name="How q is computed",
            tooltip="From the normal approximation, or by shuffling the spots, which takes longer",
        )
        self.save_figure = QPushButton("Figure…")
        self.save_figure.setToolTip("Save the scatter, or the map that is shown (PNG or SVG)")
        self.figures = QMenu(self.save_figure)
        self.figures.addAction("Scatter…", self._ask_figure)
        self.figures.addAction("Map…", self._ask_map)
        self.save_figure.setMenu(self.figures)
        self.save_table = QPushButton("Table…")
        self.save_table.setToolTip("Save Moran's I of all genes (CSV)")

    def _lay_out(self) -> None:
        foot = QHBoxLayout()
        foot.addWidget(QLabel("q from"))
        foot.addWidget(self.permutations.native, 1)
        foot.addWidget(self.save_figure)
        foot.addWidget(self.save_table)
        box = self.column()
        box.addWidget(self.choice)
        box.addWidget(self.search)
        box.addWidget(self.found)
        box.addWidget(self.table, 3)
        box.addWidget(self.heading)
        box.addWidget(self.scatter, 2)
        box.addWidget(self.messages)
        box.addWidget(self.strip)
        box.addLayout(foot)

    def _connect(self) -> None:
        self.choice.kindChosen.connect(self.session.set_map_kind)
        self.choice.maskChosen.connect(self._on_mask)
        self.search.textChanged.connect(self._on_search)
        self.search.returnPressed.connect(self._take_first)
        self.table.chosen.connect(self.session.select_gene)
        self.table.table.layoutChanged.connect(self._on_order)
        self.scatter.nameClicked.connect(self.session.select_gene)
        self.permutations.native.activated.connect(lambda _: self._score())  # also the same entry again
        self.save_table.clicked.connect(self._ask_table)
        self.listen(self.session.predictionChanged, self._on_prediction)
        self.listen(self.session.genesShownChanged, self._on_gene)
        self.listen(
            self.session.appearanceChanged, self._on_appearance, always=True
        )  # the map may be its own
        self.listen(self.session.mapKindChanged, self._on_appearance, always=True)
        self.listen(self.session.geneSetChanged, self.scatter.choose)

    # --- from the session ------------------------------------------------------------------------
    def _on_prediction(self) -> None:
        adata = self.session.adata
        for widget in (
            self.choice,
            self.search,
            self.table,
            self.permutations.native,
            self.save_figure,
            self.save_table,
        ):
            widget.setEnabled(adata is not None)
        self.messages.clear()
        self.jobs.cancel("classes")  # of the prediction before
        if adata is None:
            self.jobs.cancel("scores")
            self._names = GeneNames(())
            self._forget(NOTHING_YET)
        else:
            self._names = GeneNames([str(name) for name in adata.var_names])
            self._score()
        self._on_search(self.search.text())
        self._on_appearance()

    def _on_gene(self) -> None:
        self.table.mark(self.session.gene)
        self.scatter.mark(self.session.gene)

    def _on_appearance(self) -> None:
        """Say what is painted; compute the clusters of a gene that stays."""
        local = self.session.local_map
        self.choice.show_map(local)
        if local.missing():
            self._walk.start()

    # --- work ------------------------------------------------------------------------------------
    def _score(self) -> None:
        adata = self.session.adata
        if adata is None:
            return
        self.messages.clear()
        self.jobs.run(
            "scores",
            score_spatially(adata, permutations=self.permutations.value),
            "Compute Moran's I",
            on_result=partial(self._on_scores, adata),
            on_error=partial(self._on_failed, adata),
            on_cancelled=partial(self._on_cancelled, adata),
        )

    def _forget(self, message: str) -> None:
        """Show no scores, and why."""
        self.scores = self._scores_of = None
        self.table.table.set_rows((), {"predicted": (), "q": ()}, (PREDICTED, Q))
        self.heading.setText("")
        self.scatter.show_message(message)

    def _on_scores(self, adata: "AnnData", scores: SpatialScores) -> None:
        self.scores, self._scores_of = scores, adata
        columns, numbers = [PREDICTED, Q], {"predicted": scores.predicted, "q": scores.q}
        if scores.measured is not None:
            columns.insert(1, MEASURED)
            numbers["measured"] = scores.measured
        self.table.table.set_rows(scores.genes, numbers, columns)
        self._on_search(self.search.text())
        self._on_order()
        self._show_scatter(scores)
        self._on_gene()

    def _show_scatter(self, scores: SpatialScores) -> None:
        if scores.measured is None or scores.predicted_there is None:
            self._show_without_truth(scores)
            return
        ssc = score(scores.ssc, "SSC", "not defined below 3 genes")
        genes = int(np.isfinite(scores.measured).sum())
        over = f"{whole(genes)} genes and {whole(scores.spots_measured)} spots"
        self.heading.setText(f"SSC of X {ssc} over {over}")
        self.heading.setToolTip(
            "Spatial structure correlation: Pearson's r over genes of Moran's I, predicted against measured "
            f"(1 is best). Moran's I: {scores.neighbours}."
        )
        self.scatter.set_points(
            scores.measured,
            scores.predicted_there,
            scores.genes,
            "Moran's I, measured",
            "Moran's I, predicted",
            identity=True,
        )
        self.scatter.choose(self.session.gene_set)

    def _show_without_truth(self, scores: SpatialScores) -> None:
        """Say that there is no truth, and show how Moran's I goes with the level of expression."""
        values = self.session.gene_map.values
        mean = values.summary()[0] if values is not None else np.full(len(scores.genes), np.nan)
        self.heading.setText(NO_TRUTH)
        self.heading.setToolTip(f"Moran's I over {whole(scores.spots)} spots: {scores.neighbours}.")
        self.scatter.set_points(
            mean, scores.predicted, scores.genes, "mean predicted log2(count + 1)", "Moran's I, predicted"
        )
        self.scatter.choose(self.session.gene_set)

    def _on_cancelled(self, adata: "AnnData") -> None:
        """Keep the scores shown, unless they are of another prediction."""
        if self._scores_of is not adata:
            self._forget("Cancelled; choose how q is computed below to start again.")
        self.permutations.select(self.scores.permutations if self.scores is not None else 0)

    def _on_failed(self, adata: "AnnData", error: Exception) -> None:
        if self._scores_of is not adata:
            self._forget("There are no scores of this prediction.")
        self.messages.show_error(error)

    def _find_classes(self) -> None:
        wanted = self.session.local_map.missing()
        if wanted:
            self.jobs.run(
                "classes",
                find_classes(wanted),
                "Find clusters",
                on_result=partial(self._on_classes, self.session.local_map.shared.of),
                on_cancelled=lambda: self.session.set_map_kind(MapKind.EXPRESSION),
            )

    def _on_classes(self, of: Any, found: Any) -> None:
        self.session.local_map.set_found(found, of)
        self.choice.show_map(self.session.local_map)

    def closeEvent(self, event: QCloseEvent | None) -> None:
        """Paint the gene itself again: nothing would compute clusters any more."""
        super().closeEvent(event)
        self.session.set_map_kind(MapKind.EXPRESSION)

    # --- from the person -------------------------------------------------------------------------
    def _on_mask(self, corrected: bool) -> None:
        self.session.local_map.set_corrected(corrected)
        self.choice.show_map(self.session.local_map)

    def _on_search(self, text: str) -> None:
        found = look_up(self._names, text)
        self.table.table.limit(found.genes)
        self.found.setText(found.message)
        self.found.setVisible(bool(found.message))
        self.table.mark(self.session.gene)

    def _take_first(self) -> None:
        if self.table.table.rowCount():
            self.session.select_gene(self.table.table.name(0))

    def _on_order(self) -> None:
        """Let the arrow keys over the picture follow the order of the list."""
        if self.scores is not None and self.table.table.rowCount():
            self.session.gene_order = self.table.table.shown
        self.table.mark(self.session.gene)

    def _ask_figure(self) -> None:
        path = ask_figure_path(self, "moran_scatter.png")
        if path is not None:
            self.write(path)

    def _ask_map(self) -> None:
        key = self.session.local_map.key
        path = None if key is None else ask_figure_path(self, f"{key[0]}_map.png")
        if path is not None:
            self.write_map(path)

    def write_map(self, path: Path) -> None:
        """Save the map that is shown, over the H&E (.png, .svg); what goes wrong is said in the dock."""
        from napari_flag.figures.gene_figure import save_gene_figure, save_local_figure

        def write() -> Path:
            session = self.session
            if session.adata is None or session.local_map.kind is MapKind.EXPRESSION:
                return save_gene_figure(path, session.gene_map, session.slide)
            return save_local_figure(path, session.local_map, session.adata, session.slide)

        self.write_file(path, write)

    def _ask_table(self) -> None:
        path = ask_save(self, "Save Moran's I", "moran.csv", TABLE_FILES)
        if path is not None:
            self.write(path)

    def write(self, path: Path) -> None:
        """Save the scatter (.png, .svg) or the table (.csv); what goes wrong is said in the dock."""

        def write() -> None:
            if self.scores is None or self._scores_of is not self.session.adata:
                raise UserError("Moran's I is not computed yet; wait for it, or start it again.")
            if ending(path) == ".csv":
                write_table(self.scores.table(), path)
            else:
                self.scatter.save(path)

        self.write_file(path, write)
