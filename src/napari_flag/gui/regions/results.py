"""What tells a region apart, in tables: genes and gene sets, of prediction, truth or both."""

from collections.abc import Sequence
from functools import partial
from typing import Any, Final

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QHBoxLayout, QLabel, QPushButton, QTabWidget, QVBoxLayout, QWidget

from napari_flag.analysis.pathways import RegionSets, describe_skipped
from napari_flag.analysis.regions import RegionNumbers
from napari_flag.analysis.set_maps import SetMap
from napari_flag.analysis.truth import MEASURED, PREDICTED
from napari_flag.formatting import counted, number, probability, score, whole
from napari_flag.gui.controls.forms import Choice, plain_label
from napari_flag.gui.controls.set_map import SetMapView
from napari_flag.gui.controls.tables import Column, NumberView

BOTH: Final = "both"
WORDS: Final = {PREDICTED: "prediction", MEASURED: "truth"}
SHORT: Final = {PREDICTED: "", MEASURED: "true"}
"""What stands in a heading where both are shown."""
RANK_ONLY: Final = "False discovery rate (Wilcoxon). Neighbours are alike, so it ranks and proves nothing"
NO_SET: Final = (
    "Find domains or draw regions, and choose a set on the tab Gene sets, to see its genes in them."
)
NO_GENES: Final = "Choose or draw a region to see which genes tell it from the rest."


class RegionResults(QWidget):
    """Tables of one comparison of regions."""

    geneChosen = Signal(str)
    setChosen = Signal(str)
    setsRequested = Signal()
    saveRequested = Signal()
    mapRequested = Signal()
    """The heat map of a gene set came into sight."""
    figureRequested = Signal()

    def __init__(self) -> None:
        super().__init__()
        self._numbers: RegionNumbers | None = None
        self._found: RegionSets | None = None
        self.shown = Choice(name="Show numbers of")
        self.shown.changed.connect(lambda _: self._fill())
        self.save = QPushButton("Save…")
        self.save.setToolTip("Save the table of genes, prediction and truth (CSV)")
        self.save.clicked.connect(self.saveRequested)
        self.summary = plain_label(NO_GENES)
        self.genes = NumberView("Gene", width=52)
        self.genes.chosen.connect(self.geneChosen)
        self.sets = NumberView("Gene set", width=58)
        self.sets.chosen.connect(self.setChosen)
        self.recovered = plain_label()
        self.origin = plain_label()
        self.file = QPushButton("Gene sets…")
        self.file.setToolTip("Read gene sets from a GMT file, e.g. of MSigDB")
        self.file.clicked.connect(self.setsRequested)
        self.reading = plain_label()
        self.set_map = SetMapView()
        self.set_map.geneClicked.connect(self.geneChosen)
        self.set_map.cellHovered.connect(lambda text: self.reading.setText(text or self._set_shown()))
        self.figure = QPushButton("Figure…")
        self.figure.setToolTip("Save the heat map (PNG or SVG)")
        self.figure.clicked.connect(self.figureRequested)
        self._lay_out()
        self.show_no_map(NO_SET)
        self.show_numbers(None)

    def _lay_out(self) -> None:
        head = QHBoxLayout()
        head.addWidget(QLabel("Numbers of"))
        head.addWidget(self.shown.native, 1)
        head.addWidget(self.save)
        sets = QWidget()
        below = QVBoxLayout(sets)
        below.setContentsMargins(0, 0, 0, 0)
        below.addWidget(self.recovered)
        below.addWidget(self.sets, 1)
        foot = QHBoxLayout()
        foot.addWidget(self.origin, 1)
        foot.addWidget(self.file)
        below.addLayout(foot)
        self.tabs = QTabWidget()
        self.tabs.addTab(self.genes, "Genes")
        self.tabs.addTab(sets, "Gene sets")
        self._map_tab = QWidget()
        under = QVBoxLayout(self._map_tab)
        under.setContentsMargins(0, 0, 0, 0)
        under.addWidget(self.set_map, 1)
        foot = QHBoxLayout()
        foot.addWidget(self.reading, 1)
        foot.addWidget(self.figure)
        under.addLayout(foot)
        self.tabs.addTab(self._map_tab, "Heat map")
        self.tabs.currentChanged.connect(lambda _: self.mapRequested.emit() if self.map_in_sight else None)
        box = QVBoxLayout(self)
        box.setContentsMargins(0, 0, 0, 0)
        box.setSpacing(4)
        box.addLayout(head)
        box.addWidget(self.summary)
        box.addWidget(self.tabs, 1)

    # --- what is shown ---------------------------------------------------------------------------
    def show_numbers(self, numbers: RegionNumbers | None) -> None:
        """Show one comparison, or none; what was found of gene sets is of another and goes."""
        self._numbers, self._found = numbers, None
        at_hand = [] if numbers is None else list(numbers.rankings)
        choices = [*([BOTH] if len(at_hand) > 1 else []), *at_hand]
        self.shown.offer(("prediction and truth" if c == BOTH else WORDS[c], c) for c in choices)
        self.shown.enabled = len(choices) > 1
        self.save.setEnabled(numbers is not None)
        self._fill()

    def show_sets(self, found: RegionSets) -> None:
        """Show the gene sets tested in the regions that are compared."""
        self._found = found
        self._fill_sets(self._sources())

    def show_sets_of(self, origin: str) -> None:
        """Say where the gene sets come from."""
        self.origin.setText(origin)

    @property
    def map_in_sight(self) -> bool:
        """Whether the heat map of a gene set is the tab that is shown."""
        return self.tabs.currentWidget() is self._map_tab

    def show_map(self, found: SetMap) -> None:
        """Show a gene set over the regions."""
        self.set_map.set_map(found)
        self.figure.setEnabled(True)
        self.reading.setText(self._set_shown())

    def show_no_map(self, why: str) -> None:
        """Say in place of the heat map why there is none."""
        self.set_map.shown = None
        self.set_map.show_message(why)
        self.figure.setEnabled(False)
        self.reading.setText("")

    def _set_shown(self) -> str:
        shown = self.set_map.shown
        return "" if shown is None else f"{shown.described}, less the section's mean, depth removed"

    def mark(self, gene: str | None, *, scroll: bool = True) -> None:
        """Select the row of `gene`; without `scroll` the clearest genes stay in sight."""
        self.genes.mark(gene, scroll=scroll)
        self.set_map.mark(gene)

    def _sources(self) -> tuple[str, ...]:
        choice = self.shown.value
        return (PREDICTED, MEASURED) if choice == BOTH else (choice,) if choice else ()

    def _fill(self) -> None:
        numbers = self._numbers
        if numbers is None:
            self.summary.setText(NO_GENES)
            self.genes.table.set_rows((), {}, ())
            self._fill_sets(())
            return
        self.summary.setText(_summary(numbers))
        sources = self._sources()
        columns = gene_columns(sources)
        table = numbers.genes
        by_score = next(i for i, c in enumerate(columns, 1) if c.key.startswith("difference"))
        self.genes.table.set_rows(
            [str(gene) for gene in table["gene"]],
            {c.key: table[c.key].to_numpy() for c in columns},
            columns,
            sort_by=None if self.genes.table.columnCount() == 1 + len(columns) else (by_score, True),
        )
        self._fill_sets(sources)

    def _fill_sets(self, sources: Sequence[str]) -> None:
        enriched = {} if self._found is None else self._found.enriched
        first = enriched.get(sources[0]) if sources else None
        self.recovered.setText("" if first is None or self._found is None else self._found.described())
        self.recovered.setToolTip("" if first is None else f"{CHANCE} {describe_skipped(first.skipped)}")
        self.recovered.setVisible(bool(self.recovered.text()))
        if first is None:
            self.sets.table.set_rows((), {}, ())
            return
        columns, numbers = [], {}
        names = [str(name) for name in first.table["set"]]
        if len(sources) == 1:
            columns.append(Column("size", "Size", "Genes of the set among those here", whole))
            numbers["size"] = first.table["size"].to_numpy()
        tables = {source: enriched[source].table.set_index("set").reindex(names) for source in sources}
        for key, heading, meaning, write in _SET_COLUMNS:
            for source, table in tables.items():
                title = f"{heading} {SHORT[source]}".strip() if len(sources) > 1 else heading
                column = Column(f"{key}_{source}", title, f"{meaning} ({WORDS[source]})", write)
                columns.append(column)
                numbers[column.key] = table[key].to_numpy()
        by_q = next(i for i, c in enumerate(columns, 1) if c.key.startswith("q_"))
        self.sets.table.set_rows(names, numbers, columns, sort_by=(by_q, False))


_SET_COLUMNS: Final[tuple[tuple[str, str, str, Any], ...]] = (
    (
        "auc",
        "AUC",
        "How often a gene of the set is raised more than another; 0.5 by chance",
        partial(score, metric="AUC"),
    ),
    (
        "q",
        "q",
        "False discovery rate (rank sum). It ranks: co-expressed genes make it small",
        probability,
    ),
)
CHANCE: Final = (
    "Chance is what the truth shares with as many sets of the prediction after its spots were dealt to the "
    "regions at random."
)


def gene_columns(sources: Sequence[str]) -> list[Column]:
    """Return the columns of the table of genes: means and difference, then the false discovery rate."""
    columns = []
    several = len(sources) > 1
    for key, heading, meaning, write in (
        ("inside", "In", "Mean log2(count + 1) inside the region", number),
        ("outside", "Out", "Mean log2(count + 1) outside", number),
        ("difference", "Δ", "Mean inside less mean outside", number),
        (
            "q",
            "q",
            RANK_ONLY,
            probability,
        ),
    ):
        if several and key in ("inside", "outside"):
            continue  # 340 px hold the columns of the difference; the means are those of one source
        for source in sources:
            end = f" {SHORT[source]}" if several else ""
            columns.append(
                Column(f"{key}_{source}", f"{heading}{end}".strip(), f"{meaning} ({WORDS[source]})", write)
            )
    return columns


def _summary(numbers: RegionNumbers) -> str:
    inside, outside = numbers.spots[PREDICTED]
    sentences = [f"{counted(inside, 'spot')} against {whole(outside)}."]
    if numbers.overlaps:
        parts = [f"{o.shared} of the first {o.of} (chance {number(o.chance, 1)})" for o in numbers.overlaps]
        seen = sum(numbers.spots[MEASURED])
        over = "" if seen == inside + outside else f" over the {counted(seen, 'measured spot')}"
        sentences.append(f"Raised genes shared by prediction and truth{over}: {', '.join(parts)}.")
    return " ".join(sentences)
