"""The Co-expression dock: which genes go together, in the prediction and in the measurement."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from magicgui.widgets import CheckBox
from qtpy.QtCore import QSize, Qt, Signal
from qtpy.QtGui import QPainter, QResizeEvent
from qtpy.QtWidgets import (
    QBoxLayout,
    QCompleter,
    QHBoxLayout,
    QPushButton,
    QWidget,
)

from napari_flag.analysis.coexpression import DEPTH_SHOWN, Together, correlate, sets_within
from napari_flag.errors import UserError
from napari_flag.files import ending, write_table
from napari_flag.formatting import counted_of, score, whole
from napari_flag.gui.controls.file_filters import TABLE_FILES
from napari_flag.gui.controls.forms import Choice, ask_save, plain_label
from napari_flag.gui.controls.heat_map import HeatMap
from napari_flag.gui.controls.plots import PlotStyle, ask_figure_path, save_drawing
from napari_flag.gui.controls.tables import Column, NumberView
from napari_flag.gui.dock import NOTHING_YET, Dock
from napari_flag.gui.side_by_side_dock import open_second_canvas
from napari_flag.layers.gene_values import GeneValues
from napari_flag.progress import Step, Steps

if TYPE_CHECKING:
    from anndata import AnnData

TOP: Final = (20, 50, 100, 200, 500)
FIRST: Final = 50
"""How many of the most variable genes are shown before anything is chosen."""


def top_name(count: int) -> str:
    """Return what the `count` most variable genes are called."""
    return f"{count} most variable genes"


@dataclass(frozen=True, slots=True)
class SetsHere:
    """Gene sets as far as they are in a prediction.

    Parameters
    ----------
    genes, meanings
        Name of a set → its genes that are there, and how many these are of all.
    """

    genes: dict[str, tuple[str, ...]]
    meanings: dict[str, str]


def find_sets(sets: Mapping[str, Sequence[str]], genes: Sequence[str]) -> Steps[SetsHere]:
    """Return the sets that have two of `genes` or more."""
    yield Step("Looking for gene sets", 0)
    within = sets_within(sets, genes)
    yield Step("Looking for gene sets", len(within), len(within))
    meanings = {
        name: f"{counted_of(len(here), size, 'gene')} are in the prediction"
        for name, (here, size) in within.items()
    }
    return SetsHere({name: here for name, (here, _) in within.items()}, meanings)


class GeneSetChoice(QWidget):
    """Chooses genes to correlate; sets with fewer than two genes here are not offered."""

    chosen = Signal(str, tuple)
    """Name and genes that a person chose."""

    def __init__(self) -> None:
        super().__init__()
        self._offered: dict[str, tuple[str, ...]] = {}
        self._meanings: Mapping[str, str] = {}
        self.box = Choice(
            name="Genes shown together", tooltip="Genes to correlate; type to search among many sets"
        )
        self.box.native.setEditable(True)
        self.box.native.setInsertPolicy(self.box.native.InsertPolicy.NoInsert)
        policy = self.box.native.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon
        self.box.native.setSizeAdjustPolicy(policy)  # else Qt measures the text of every set
        completer = self.box.native.completer()
        completer.setCompletionMode(QCompleter.CompletionMode.PopupCompletion)
        completer.setFilterMode(Qt.MatchFlag.MatchContains)
        self.load = QPushButton("GMT…")
        self.load.setToolTip("Choose gene sets of your own or of MSigDB (.gmt)")
        row = QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        row.addWidget(self.box.native, 1)
        row.addWidget(self.load)
        self.box.changed.connect(self._on_chosen)

    @property
    def offered(self) -> dict[str, tuple[str, ...]]:
        """Name → genes of what can be chosen, in order."""
        return dict(self._offered)

    def set_genes(self, ranked: Sequence[str], sets: "SetsHere | None" = None) -> None:
        """Offer choices among the genes of a prediction.

        Parameters
        ----------
        ranked
            Its genes, from the most variable to the least.
        sets
            Those of gene sets that are there; None while they are sought.
        """
        numbers = [number for number in TOP if number < len(ranked)]
        self._offered = {top_name(number): tuple(ranked[:number]) for number in numbers}
        if len(ranked) <= TOP[-1]:
            self._offered[f"all {whole(len(ranked))} genes"] = tuple(ranked)
        self._meanings = {} if sets is None else sets.meanings
        self._offered |= {} if sets is None else sets.genes
        self._list()

    def show_set(self, name: str, genes: Sequence[str]) -> None:
        """Show what is chosen, without emitting `chosen`; a set that was not offered so far is added."""
        if name not in self._offered:
            self._offered[name] = tuple(genes)
            self._list()
        self.box.select(name)

    def _list(self) -> None:
        self.box.offer((name, name) for name in self._offered)
        self.box.explain(self._meanings)

    def first(self) -> tuple[str, tuple[str, ...]]:
        """Return name and genes of what is shown before anything is chosen."""
        name = top_name(FIRST)
        if name not in self._offered:
            name = next(iter(reversed([n for n in self._offered if n.startswith("all ")])))
        return name, self._offered[name]

    def _on_chosen(self, name: str) -> None:
        self.chosen.emit(name, self._offered[name])


NO_TRUTH: Final = "This prediction has no measured expression: both triangles show the prediction."
POINT: Final = "Click a cell to see both genes side by side."
PARTNERS: Final = (
    Column("predicted", "r pred.", "Correlation with the selected gene, in the prediction"),
    Column("measured", "r true", "Correlation with the selected gene, in truth"),
)
ONE, BESIDE = range(2)
ARRANGEMENTS: Final = (("One map", ONE), ("Two maps", BESIDE))
WIDE_PX: Final = 560
"""From here on two maps fit next to each other with their colour bars."""


@dataclass(frozen=True, slots=True)
class _Asked:
    """Which correlations are asked for."""

    name: str = ""
    genes: tuple[str, ...] = ()
    depth: bool = DEPTH_SHOWN


class CoexpressionDock(Dock):
    """Heat map of the correlations between genes, predicted and true; a click shows both genes' maps.

    Parameters
    ----------
    napari_viewer
        The viewer; genes, gene set and picture are shared with its other docks through `Session`.
    """

    def __init__(self, napari_viewer: Any) -> None:
        super().__init__(napari_viewer)
        self.together: Together | None = None
        self._together_of: AnnData | None = None
        self._asked = self._shown_as = _Asked()
        self._overall: float | None = None
        self._listed = ("", 0)
        self._build()
        self._lay_out()
        self._connect()
        self._on_prediction()

    # --- construction ----------------------------------------------------------------------------
    def _build(self) -> None:
        self.choice = GeneSetChoice()
        self.heading = plain_label()
        self.arrangement = Choice(
            ARRANGEMENTS,
            name="Where the truth is shown",
            tooltip="Truth above the diagonal of one map, or in a map of its own",
        )
        self.map, self.other = HeatMap(), HeatMap()
        self.other.hide()
        self.partners = NumberView("Gene", width=70)
        self.partners.setMinimumHeight(70)
        self.with_depth = CheckBox(
            value=DEPTH_SHOWN,
            text="With depth",
            tooltip="Off: each spot's mean over all genes is taken away first, which shows what goes "
            "together beyond how deeply a spot was sequenced. On: as they are. GSC has depth in it both ways",
        )
        self.reading = plain_label(POINT)
        self.reading.setMinimumHeight(self.reading.fontMetrics().height() + 4)
        self.save_figure = QPushButton("Figure…")
        self.save_figure.setToolTip("Save the heat map (PNG or SVG)")
        self.save_table = QPushButton("Table…")
        self.save_table.setToolTip("Save the correlations of all pairs (CSV)")

    def _lay_out(self) -> None:
        self._maps = QHBoxLayout()
        self._maps.setSpacing(2)
        self._maps.addWidget(self.map, 1)
        self._maps.addWidget(self.other, 1)
        foot = QHBoxLayout()
        foot.addWidget(self.with_depth.native)
        foot.addWidget(self.arrangement.native, 1)
        foot.addWidget(self.save_figure)
        foot.addWidget(self.save_table)
        box = self.column()
        box.addWidget(self.choice)
        box.addWidget(self.heading)
        box.addLayout(self._maps, 3)
        box.addWidget(self.reading)
        box.addWidget(self.partners, 2)
        box.addWidget(self.messages)
        box.addWidget(self.strip)
        box.addLayout(foot)

    def _connect(self) -> None:
        self.choice.chosen.connect(self._on_chosen)
        self.choice.load.clicked.connect(self.ask_sets)
        self.arrangement.changed.connect(lambda _: self._show())
        self.with_depth.changed.connect(lambda _: self._on_depth())
        self.partners.chosen.connect(self._on_partner)
        for heat_map in (self.map, self.other):
            heat_map.pairClicked.connect(self.show_pair)
            heat_map.pairHovered.connect(self._on_hovered)
        self.save_figure.clicked.connect(self._ask_figure)
        self.save_table.clicked.connect(self._ask_table)
        self.listen(self.session.predictionChanged, self._on_prediction)
        self.listen(self.session.geneSetChanged, self._on_gene_set)
        self.listen(self.session.geneSetsChanged, self._on_gene_sets)
        self.listen(self.session.genesShownChanged, self._on_gene)
        self.listen(self.session.pairChanged, self._on_gene)

    def resizeEvent(self, event: QResizeEvent | None) -> None:
        """Put two maps below each other where the dock is narrow."""
        super().resizeEvent(event)
        narrow = self.width() < WIDE_PX
        directions = QBoxLayout.Direction
        self._maps.setDirection(directions.TopToBottom if narrow else directions.LeftToRight)

    # --- from the session ------------------------------------------------------------------------
    def _on_prediction(self) -> None:
        adata = self.session.adata
        options = (self.arrangement.native, self.with_depth.native)
        for widget in (self.choice, *options, self.save_figure, self.save_table):
            widget.setEnabled(adata is not None)
        self.messages.clear()
        self._overall = None
        if adata is None:
            self.jobs.cancel("correlate")
            self.jobs.cancel("sets")
            self._forget()
            return
        self.choice.set_genes(self._ranked())
        self._on_gene_set()
        self._find_sets()

    def _ranked(self) -> tuple[str, ...]:
        """Return the genes of the prediction, from the most variable to the least."""
        return (self.session.gene_map.values or GeneValues(self.session.adata)).ranked()

    def _find_sets(self, origin: str = "") -> None:
        """Offer the sets that the prediction has genes of; where they are new, say how many of `origin`."""
        ranked = self._ranked()
        self.jobs.run(
            "sets",
            find_sets(self.session.gene_sets, ranked),
            "Look for gene sets",
            on_result=partial(self._on_sets, ranked, origin),
        )

    def _on_sets(self, ranked: tuple[str, ...], origin: str, found: SetsHere) -> None:
        self.choice.set_genes(ranked, found)
        self.choice.show_set(self._asked.name, self._asked.genes)
        if origin:
            self.notify(f"{whole(len(found.genes))} sets of {origin} have two or more genes here.")

    def _on_gene_set(self) -> None:
        """Correlate the gene set that all docks share; before one is chosen, the most variable genes."""
        if self.session.adata is None:
            return
        if self.session.gene_set:
            name, genes = self.session.gene_set_name, self.session.gene_set
        else:
            name, genes = self.choice.first()
        self.choice.show_set(name, genes)
        self._correlate(name, genes)

    def _on_gene(self) -> None:
        gene, beside = self.session.gene, self.session.gene_beside
        for heat_map in (self.map, self.other):
            heat_map.mark(gene, beside)
        self._show_partners()

    def _show_partners(self) -> None:
        """List how the gene goes with each other one that is shown."""
        gene, together = self.session.gene, self.together
        rows = None if together is None or gene is None else together.partners(gene)
        self.partners.setVisible(rows is not None)
        if rows is None or together is None or gene is None:
            return
        others = [place for place, name in enumerate(together.genes) if name != gene]
        if self._listed != (gene, id(together)):
            self._listed = (gene, id(together))
            self.partners.table.set_rows(
                [together.genes[place] for place in others],
                {name: row[others] for name, row in rows.items()},
                [column for column in PARTNERS if column.key in rows],
            )
        self.partners.mark(self.session.gene_beside)

    def _on_partner(self, name: str) -> None:
        if self.session.gene is not None:
            self.show_pair(self.session.gene, name)

    # --- work ------------------------------------------------------------------------------------
    def _correlate(self, name: str, genes: tuple[str, ...]) -> None:
        self.messages.clear()
        adata = self.session.adata
        self._asked = _Asked(name, genes, self.with_depth.value)
        self.jobs.run(
            "correlate",
            correlate(adata, genes, depth=self._asked.depth, overall=self._overall),
            "Correlate genes",
            on_result=partial(self._on_correlated, adata, self._asked),
            on_error=self._on_failed,
            on_cancelled=partial(self._on_cancelled, adata),
        )

    def _on_correlated(self, adata: "AnnData", asked: _Asked, together: Together) -> None:
        self.together, self._together_of, self._shown_as = together, adata, asked
        self._overall = together.gsc_all
        self._show()

    def _on_failed(self, error: Exception) -> None:
        self._forget()
        self.messages.show_error(error)

    def _on_cancelled(self, adata: "AnnData") -> None:
        """Keep the correlations shown, and say which they are; those of another prediction go."""
        if self._together_of is not adata:
            self._forget()
            self.map.show_message("Cancelled; choose another gene set, or With depth, to start again.")
            return
        self._asked = self._shown_as
        self.choice.show_set(self._asked.name, self._asked.genes)
        with self.with_depth.changed.blocked():
            self.with_depth.value = self._asked.depth

    def _forget(self) -> None:
        """Show no correlations."""
        self.together = self._together_of = None
        self._show()

    def _show(self) -> None:
        together = self.together
        truth = together is not None and together.measured is not None
        beside = truth and self.arrangement.value == BESIDE
        self.other.setVisible(beside)
        self.arrangement.enabled = truth
        self.heading.setText("" if together is None else _headline(together))
        self.reading.setText(POINT if together is not None else "")
        if together is None:
            self.map.show_message(NOTHING_YET if self.session.adata is None else "Nothing to show yet.")
            self._show_partners()
            return
        genes, limit = together.genes, together.limit
        predicted, measured = (f"{side}, {together.shown}" for side in ("predicted", "measured"))
        if beside and together.measured is not None:
            self.map.set_matrix(_without_diagonal(together.predicted), genes, "", predicted, limit)
            self.other.set_matrix(_without_diagonal(together.measured), genes, "", measured, limit)
        else:
            above = measured if truth else predicted
            self.map.set_matrix(together.triangles(), genes, predicted, above, limit)
        self._on_gene()

    # --- from the person -------------------------------------------------------------------------
    def _on_chosen(self, name: str, genes: tuple[str, ...]) -> None:
        self.session.set_gene_set(name, genes)
        if self._asked.name != name:  # it is the set of all docks already, and was cancelled here
            self._on_gene_set()

    def _on_depth(self) -> None:
        if self.session.adata is not None:
            self._correlate(self._asked.name, self._asked.genes)

    def show_pair(self, first: str, second: str) -> None:
        """Show the maps of both genes: the first on the main canvas, the second in *Side by side*."""
        self.session.show_pair(first, second)
        if first != second:
            open_second_canvas(self.session.viewer, self)

    def _on_hovered(self, text: str) -> None:
        self.reading.setText(text or POINT)

    def _on_gene_sets(self) -> None:
        if self.session.adata is not None:
            self._find_sets(self.session.gene_sets_name)

    def _ask_figure(self) -> None:
        path = ask_figure_path(self, "coexpression.png")
        if path is not None:
            self.write(path)

    def _ask_table(self) -> None:
        path = ask_save(self, "Save correlations", "coexpression.csv", TABLE_FILES)
        if path is not None:
            self.write(path)

    def write(self, path: Path) -> None:
        """Save the heat map (.png, .svg) or the table of pairs (.csv); what goes wrong is said."""

        def write() -> None:
            of_shown = self._together_of is self.session.adata and not self.jobs.running("correlate")
            if self.together is None or not of_shown:
                raise UserError("There are no correlations to save yet; predict first, or wait for them.")
            if ending(path) == ".csv":
                write_table(self.together.table(), path)
            else:
                self._save_maps(path)

        self.write_file(path, write)

    def _save_maps(self, path: Path) -> None:
        """Save the map, or both maps next to each other."""
        shown = [self.map] if self.other.isHidden() else [self.map, self.other]
        side = QSize(max(self.map.width(), 420), max(self.map.height(), 400))
        whole = QSize(side.width() * len(shown), side.height())

        def draw(painter: QPainter) -> None:
            for heat_map in shown:
                heat_map.draw(painter, side, PlotStyle.paper(), marks=False)
                painter.translate(side.width(), 0)

        save_drawing(path, whole, draw)


def _headline(together: Together) -> str:
    shown = together.shown.capitalize()
    if together.measured is None:
        return f"{shown} · {whole(len(together.genes))} genes over {whole(together.spots)} spots. {NO_TRUTH}"
    overall = "" if math.isnan(together.gsc_all) else f", {score(together.gsc_all, 'GSC')} for all"
    here = score(together.gsc, "GSC", "not defined below 3 genes")
    compared = f"{whole(together.genes_measured)} genes over {whole(together.spots_measured)} spots"
    return f"{shown} · GSC of X (with depth, as defined) {here} for these {compared}{overall}"


def _without_diagonal(correlations: Any) -> Any:
    shown = np.array(correlations)
    np.fill_diagonal(shown, np.nan)
    return shown
