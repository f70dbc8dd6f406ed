"""The Compare dock: how well predictions agree with the truth of a slide, overall and gene by gene."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QCheckBox, QFileDialog, QGridLayout, QHBoxLayout, QLabel, QPushButton, QWidget

from napari_flag.analysis.compare import GeneAgreement, agree
from napari_flag.analysis.models import CONTROLS, ModelComparison, comparing_beside
from napari_flag.analysis.pathways import DomainSets, describe_sets, recover_in_truth
from napari_flag.analysis.scores import EXPECTATION, FAIR, MEANING, PROPER, STRUCTURE
from napari_flag.analysis.truth import MeasuredLayer, truth_of
from napari_flag.discovery import counts_for
from napari_flag.errors import Doubtful, UserError
from napari_flag.formatting import interval, number, score, whole
from napari_flag.gui.controls.file_filters import COUNT_FILES
from napari_flag.gui.controls.forms import Choice, ShortScroll, ask_open, may_replace, plain_label
from napari_flag.gui.controls.plots import Histogram
from napari_flag.gui.controls.small_maps import MapRow
from napari_flag.gui.controls.tables import Column, NumberView, score_column
from napari_flag.gui.dock import NOTHING_YET, Dock, single_shot
from napari_flag.gui.export_menu import ask_keep_names
from napari_flag.gui.session import NO_PREDICTION
from napari_flag.gui.slide_state import Result
from napari_flag.layers.ahead import attaching
from napari_flag.prediction_file import output_name
from napari_flag.slide_identity import without_personal_names

if TYPE_CHECKING:
    from anndata import AnnData

    from napari_flag.progress import Steps


MORAN_PREDICTED: Final = score_column(
    "Moran's I",
    "Moran's I of the prediction: 1 when like spots lie together",
    key="moran_predicted",
    heading="I pred.",
)
WITH_TRUTH: Final = (
    score_column("PCC", "Pearson correlation of predicted and measured over the spots", key="pcc"),
    score_column("MSE", "Mean squared error of log2(count + 1)", key="mse"),
    MORAN_PREDICTED,
    score_column("Moran's I", "Moran's I of the measurement", key="moran_measured", heading="I true"),
)
ALONE: Final = (
    MORAN_PREDICTED,
    Column("mean_predicted", "Mean", "Mean predicted log2(count + 1)"),
    Column("spread", "Spread", "Mean standard deviation of a measurement: how unsure the model is"),
)
DRAWS: Final = "draws"
VALUES_TIP: Final = (
    "X is judged by PCC, MSE and cPCC, draws by GSC, SSC, amplitude and the proper scores: those in bold. "
    "The paper's table reads all from one array, so X and one draw have them all."
)
GENE_SETS: Final = (
    "Find the gene sets that are raised in the domains of the measurement, and how many of them the "
    "prediction has raised there too, beside what chance recovers"
)
ALL: Final = (
    "Score all predictions of this slide in one table, over the spots and genes that all of them have, "
    "beside controls that see the measurement and no image"
)
MODELS: Final = (
    score_column("PCC", f"{MEANING['PCC']}, of X"),
    score_column("cPCC", f"{MEANING['cPCC']}, of X"),
    score_column("MSE", f"{MEANING['MSE']}, of X"),
    score_column("GSC", f"{MEANING['GSC']}, of the draws", key="draws_GSC"),
    score_column("SSC", f"{MEANING['SSC']}, of the draws", key="draws_SSC"),
    score_column("CRPS", f"{MEANING['CRPS']}; {FAIR}", key="CRPS_fair", heading="fair CRPS"),
    Column("sets_shared", "Sets", "Gene sets raised in the truth's domains and here too", whole),
    Column("sets_chance", "chance", "As many by chance", partial(number, digits=1)),
)
"""Columns of all predictions."""
MODELS_PX: Final = 150
NO_DOMAINS: Final = "There are too few measured spots for domains, so no gene sets were tested."
NO_DRAWS: Final = "This file holds no draws, so X alone is scored."
VALUES: Final = (("Expectation (X)", "X"), ("One draw", "sample"), ("Draws", DRAWS))
ROWS: Final = (EXPECTATION, STRUCTURE, PROPER[:3], PROPER[3:])
"""Scores in the order shown."""
MESSAGES_PX: Final = 120
"""Height beyond which notices scroll: another model's file comes with many."""
JUDGED_BY: Final = {"X": EXPECTATION, "sample": STRUCTURE, DRAWS: (*STRUCTURE, *PROPER)}
"""Which scores are written in bold."""


class CompareDock(Dock):
    """Prediction, truth, difference and spread; metrics, and a table and histogram of all genes.

    Parameters
    ----------
    napari_viewer
        The viewer; gene and picture are shared with its other docks through `Session`.
    """

    def __init__(self, napari_viewer: Any) -> None:
        super().__init__(napari_viewer)
        self.agreement: GeneAgreement | None = None
        self._compared: tuple[tuple[int, int], ...] = ()
        self._agreement_of: AnnData | None = None
        self._refused: tuple[Result, AnnData] | None = None
        """Counts that look wrong and were not attached, and the prediction they were chosen for."""
        self._due = single_shot(self, 0, self._compare)  # a prediction and its counts may change together
        self._insisted_for: tuple[Any, Any] = (None, None)
        self._build()
        self._lay_out()
        self._connect()
        self._on_gene_sets()
        self._on_prediction()

    # --- construction ----------------------------------------------------------------------------
    def _build(self) -> None:
        self.heading = plain_label()
        self.values = Choice(
            VALUES,
            name="Scores of",
            tooltip=VALUES_TIP,
            narrow=False,
        )
        self.anyway = QCheckBox("Compare anyway")
        self.anyway.setToolTip(
            "Compare although counts or places of spots look wrong; it is said with the scores and in the "
            "report"
        )
        self.anyway.hide()
        self.scores = QWidget()
        self.numbers: dict[str, QLabel] = {}
        self.intervals: dict[str, QLabel] = {}
        self.maps = MapRow()
        self.histogram = Histogram()
        self.histogram.setFixedHeight(120)
        self.table = NumberView("Gene", width=62)
        self.counts = QPushButton("Counts…")
        self.counts.setToolTip("Choose the measured counts of this section to compare with")
        self.sets = QPushButton("Gene sets")
        self.recovered = plain_label()
        self.recovered.setVisible(False)
        self.all = QPushButton("All predictions")
        self.all.setToolTip(ALL)
        self.all.setVisible(False)
        self.models = NumberView("Prediction", width=52, names=110)
        self.models.setFixedHeight(MODELS_PX)
        self.models.setVisible(False)
        self.report = QPushButton("Report…")
        self.report.setToolTip("Write one HTML page with scores, figures, all genes and how they were made")

    def _lay_out(self) -> None:
        grid = QGridLayout(self.scores)
        grid.setContentsMargins(0, 0, 0, 0)
        grid.setVerticalSpacing(0)
        for row, names in enumerate(ROWS):
            for column, name in enumerate(names):
                self.numbers[name], self.intervals[name] = QLabel(), QLabel()
                self.intervals[name].setStyleSheet("font-size: 8pt;")
                for below, label in enumerate((self.numbers[name], self.intervals[name])):
                    label.setAlignment(Qt.AlignmentFlag.AlignCenter)
                    label.setToolTip(f"{MEANING[name]}.\nIn brackets: 95 % bootstrap interval.")
                    grid.addWidget(label, 2 * row + below, column)
        head = QHBoxLayout()
        head.addWidget(self.heading, 1)
        head.addWidget(self.values.native)
        foot = QHBoxLayout()
        foot.addWidget(self.counts)
        foot.addWidget(self.sets)
        foot.addWidget(self.all)
        foot.addWidget(self.report)
        box = self.column()
        box.addLayout(head)
        messages = ShortScroll(self.messages, MESSAGES_PX)
        for widget in (self.scores, messages, self.anyway, self.maps, self.histogram):
            box.addWidget(widget)
        box.addWidget(self.recovered)
        box.addWidget(self.models)
        box.addWidget(self.table, 1)
        box.addWidget(self.strip)
        box.addLayout(foot)

    def _connect(self) -> None:
        self.values.changed.connect(lambda _: self._show())
        self.table.chosen.connect(self.session.select_gene)
        self.table.table.layoutChanged.connect(self._on_order)
        self.maps.chosen.connect(self.session.show_quantity)
        self.anyway.toggled.connect(self._on_anyway)
        self.counts.clicked.connect(self._ask_counts)
        self.sets.clicked.connect(self.find_sets)
        self.all.clicked.connect(self.compare_all)
        self.models.chosen.connect(self._show_result)
        self.listen(self.session.workspace.listChanged, self._offer_all)
        self.report.clicked.connect(self._ask_report)
        self.listen(self.session.predictionChanged, self._on_prediction)
        self.listen(self.session.drawsChanged, lambda: self._due.start())
        self.listen(self.session.geneSetsChanged, self._on_gene_sets)
        self.listen(self.session.genesShownChanged, self._on_gene)
        self.listen(self.session.appearanceChanged, self._on_gene)

    # --- from the session ------------------------------------------------------------------------
    def _on_prediction(self) -> None:
        """Start anew; the numbers shown so far stay until the new ones are there."""
        there = self.session.adata is not None
        if self._refused is not None and self._refused[0] is not self.session.result:
            self._refused = None
        self._insist_anew()
        for widget in (self.values.native, self.table, self.counts, self.report):
            widget.setEnabled(there)
        if not there:
            self.jobs.cancel("compare")
            self.jobs.cancel("sets")
            self._forget()
        else:
            self._due.start()
        self._on_gene()

    def _insist_anew(self) -> None:
        """Clear "Compare anyway" for another prediction or other counts: insisting holds for these two."""
        for_this = (self.session.adata, self.session.measured)
        if any(one is not other for one, other in zip(for_this, self._insisted_for, strict=True)):
            blocked = self.anyway.blockSignals(True)
            self.anyway.setChecked(False)
            self.anyway.blockSignals(blocked)
            self.anyway.hide()
        self._insisted_for = for_this

    def _compare(self) -> None:
        adata = self.session.adata
        if adata is None:
            return
        self.jobs.cancel("sets")  # of the prediction or the counts before
        self.jobs.run(
            "compare",
            agree(adata, self.session.measured, force=self.anyway.isChecked()),
            "Compare",
            on_result=partial(self._on_agreement, adata),
            on_error=partial(self._on_not_compared, adata),
            on_cancelled=partial(self._on_not_compared, adata),
        )

    def _on_not_compared(self, adata: "AnnData", error: Exception | None = None) -> None:
        """Say why there is no comparison; the numbers of another prediction do not stay under this one."""
        if self._agreement_of is not adata:
            self._forget()
        if error is None:
            self.notify("Comparing was cancelled.")
        else:
            self.messages.show_error(error)

    def _forget(self) -> None:
        """Show no numbers."""
        self.agreement = self._agreement_of = None
        self._show_sets("")
        self._show()

    def _on_agreement(self, adata: "AnnData", agreement: GeneAgreement) -> None:
        self.agreement, self._agreement_of = agreement, adata
        self._show_sets("")
        self._show()
        self._offer_all()

    def _on_gene(self) -> None:
        gene = self.session.gene
        self.table.mark(gene)
        self.histogram.mark(gene)
        self.maps.show_gene(self.session.gene_map, gene)

    # --- what is shown ---------------------------------------------------------------------------
    def _show(self) -> None:
        agreement, adata = self.agreement, self.session.adata
        self.messages.clear()
        self.scores.setVisible(agreement is not None and agreement.comparison is not None)
        doubted = agreement is not None and agreement.doubted
        doubted = doubted or self._refused is not None
        self.anyway.setVisible(adata is not None and (doubted or self.anyway.isChecked()))
        self.values.native.setVisible(self.scores.isVisibleTo(self))
        self.sets.setEnabled(self.scores.isVisibleTo(self))
        self._offer_all()
        if agreement is None or adata is None:
            self.heading.setText(NOTHING_YET)
            self.table.table.set_rows((), {}, ())
            self.histogram.show_message("PCC of every gene, once there is a prediction and its truth")
            return
        comparison = agreement.comparison
        if comparison is None:
            self.heading.setText(f"{whole(adata.n_obs)} spots × {whole(adata.n_vars)} genes predicted")
            self.notify(agreement.why_not)
        else:
            self.heading.setText(
                f"{whole(comparison.spots)} spots × {whole(comparison.genes)} genes compared"
            )
            self.heading.setToolTip(f"Moran's I: {comparison.neighbours}")
            drawn = comparison.draws.number
            self.values.native.setEnabled(bool(drawn))
            self.values.native.setToolTip(VALUES_TIP if drawn else NO_DRAWS)
            for sentence in comparison.notices:
                self.messages.add("warning", sentence)
            for sentence in agreement.left_out:
                self.notify(sentence)
            self._show_scores()
        self._show_genes()
        self._on_gene()

    def _show_scores(self) -> None:
        assert self.agreement is not None
        assert self.agreement.comparison is not None
        comparison, chosen = self.agreement.comparison, self._chosen()
        if chosen == DRAWS:
            drawn = comparison.draws
            values, intervals = drawn.values | drawn.proper, drawn.intervals
            if drawn.why_not is not None:
                self.notify(drawn.why_not)
        else:
            values, intervals = comparison.scores[chosen].values, comparison.scores[chosen].intervals
        for name, label in self.numbers.items():
            written = score(values[name], name) if name in values else ""
            label.setText(f"{name} <b>{written}</b>" if name in JUDGED_BY[chosen] else f"{name} {written}")
            label.setVisible(name in values)
            ends = interval(intervals.get(name), name)
            self.intervals[name].setText(ends)
            self.intervals[name].setVisible(bool(ends))

    def _chosen(self) -> Any:
        """Return which scores are chosen; those of ``X`` where there are no draws."""
        assert self.agreement is not None
        comparison = self.agreement.comparison
        return self.values.value if comparison is None or comparison.draws.number else "X"

    def _show_genes(self) -> None:
        assert self.agreement is not None
        tables = self.agreement.tables
        chosen = self._chosen()
        table = tables.get("sample" if chosen == DRAWS else chosen, tables["X"])
        columns = WITH_TRUTH if self.agreement.comparison else ALONE
        present = [column for column in columns if column.key in table]
        genes = [str(gene) for gene in table["gene"]]
        numbers = {column.key: table[column.key].to_numpy() for column in present}
        self.table.table.set_rows(genes, numbers, present)
        first = present[0]
        label = "PCC of a gene" if first.key == "pcc" else "Moran's I of a gene, predicted"
        self.histogram.set_values(numbers[first.key], genes, label)

    # --- from the person -------------------------------------------------------------------------
    def _on_order(self) -> None:
        """Let the arrow keys over the picture follow the order of the table."""
        if self.session.adata is not None and self.table.table.rowCount() == self.session.adata.n_vars:
            self.session.gene_order = self.table.table.shown

    def _ask_counts(self) -> None:
        path = ask_open(self, "Measured counts", COUNT_FILES)
        if path is not None:
            self.read_counts(path)

    def read_counts(self, path: Path) -> None:
        """Read counts and attach them to the prediction; what does not fit is said and left out."""
        self.messages.clear()
        result = self.session.result
        if result is None:
            self.messages.show_error(UserError(NO_PREDICTION))
            return
        self.jobs.run(
            "counts",
            counts_for(result.adata, path, beside=result.file, slide=self.session.slide),
            f"Read {path.name}",
            on_result=partial(self._on_counts, result),
        )

    def _on_counts(self, result: Result, read: "tuple[AnnData, tuple[str, ...]]") -> None:
        measured, notices = read
        if result is self.session.result:
            for notice in notices:
                self.notify(notice)
        self._attach(result, measured)

    def _attach(self, result: Result, measured: "AnnData", *, force: bool = False) -> None:
        """Attach counts to the prediction they were read for, which need not be shown any more."""
        self.jobs.run(
            "counts",
            attaching(result.adata, measured, force=force),
            "Attach the counts",
            on_result=partial(self._on_attached, result, measured, force),
            on_error=partial(self._on_not_attached, result, measured),
            on_cancelled=lambda: self.notify("Attaching the counts was cancelled."),
        )

    def _on_attached(self, result: Result, measured: "AnnData", insisted: bool, layer: MeasuredLayer) -> None:
        self._refused = None
        if insisted:
            self._insisted_for = (result.adata, measured)
        self.session.set_measured(measured, result, layer=layer)

    def _on_not_attached(self, result: Result, measured: "AnnData", error: Exception) -> None:
        self._refused = None
        if result is self.session.result and isinstance(error, Doubtful):
            self._refused = (result, measured)
            self.anyway.show()
        self.messages.show_error(error)

    def _on_anyway(self, insisted: bool) -> None:
        if insisted and self._refused is not None:
            self._attach(*self._refused, force=True)
        else:
            self._due.start()

    # --- all predictions of the slide ------------------------------------------------------------
    def _all_of(self) -> tuple[tuple[int, int], ...]:
        """Return which predictions and attached counts a table of all is made of."""
        state = self.session.state
        return () if state is None else tuple((id(each), id(each.measured)) for each in state.results)

    def _offer_all(self) -> None:
        """Offer the table where there are several predictions and a truth; one of others is put away."""
        state = self.session.state
        several = state is not None and len(state.results) > 1
        self.all.setVisible(several)
        self.all.setEnabled(several and self.sets.isEnabled())
        if self._compared != self._all_of():
            self.models.setVisible(False)
        elif state is not None and state.shown is not None:
            self.models.mark(state.shown.name)

    def compare_all(self) -> None:
        """Score all predictions of the slide in one table."""
        state, adata = self.session.state, self.session.adata
        if state is None or adata is None:
            return
        made_of = self._all_of()
        self.jobs.run(
            "models",
            comparing_beside(
                {result.name: result.adata for result in state.results},
                self._truth(adata),
                sets=self.session.gene_sets,
                force=self.anyway.isChecked(),
            ),
            "Compare all predictions",
            on_result=lambda found: self._on_models(found, made_of),
            on_cancelled=lambda: self.notify("Comparing all predictions was cancelled."),
        )

    def _on_models(self, found: ModelComparison, made_of: tuple[tuple[int, int], ...]) -> None:
        self._compared = made_of
        table = found.table()
        shown = [column for column in MODELS if column.key in table and table[column.key].notna().any()]
        numbers = {column.key: table[column.key].to_numpy() for column in shown}
        self.models.table.set_rows([str(name) for name in table["model"]], numbers, shown)
        self.models.setVisible(True)
        for sentence in found.said():
            self.notify(sentence)
        self._offer_all()

    def _show_result(self, name: str) -> None:
        """Show the prediction of a row; a control has none."""
        state = self.session.state
        if state is None or name in CONTROLS:
            return
        for result in state.results:
            if result.name == name and result is not state.shown:
                self.session.show_result(state, result)

    def find_sets(self) -> None:
        """Find the gene sets of the truth's domains that the prediction recovers."""
        adata = self.session.adata
        if adata is None:
            return
        self.jobs.run(
            "sets",
            recover_in_truth(adata, self.session.gene_sets),
            "Find gene sets",
            on_result=self._on_sets,
            on_cancelled=lambda: self.notify("Finding gene sets was cancelled."),
        )

    def _on_sets(self, found: DomainSets | None) -> None:
        if found is None:
            self._show_sets(NO_DOMAINS)
        else:
            self._show_sets(found.described(), describe_sets(found.whole))

    def _on_gene_sets(self) -> None:
        """Name the gene sets that are looked for, and put away what was found of others."""
        self.sets.setToolTip(
            f"{GENE_SETS}. {self.session.gene_sets_name}: {whole(len(self.session.gene_sets))}"
        )
        self.jobs.cancel("sets")
        self.jobs.cancel("models")
        self._compared = ()
        self._show_sets("")
        self._offer_all()

    def _show_sets(self, text: str, named: str = "") -> None:
        """Write what was recovered; which sets these are is said where the pointer rests."""
        self.recovered.setText(text)
        self.recovered.setToolTip(named)
        self.recovered.setVisible(bool(text))

    def _ask_report(self) -> None:
        from napari_flag.report import report_place

        folder = QFileDialog.getExistingDirectory(self, "Folder for the report")
        adata = self.session.adata
        if folder and adata is not None and (keep := ask_keep_names(self, adata)) is not None:
            named, _ = without_personal_names(adata, keep)
            if may_replace(self, report_place(Path(folder), output_name(named))):
                self.write_report(Path(folder), keep)

    def write_report(self, folder: Path, keep_names: bool = False) -> None:
        """Write the HTML report of what is shown into `folder`."""
        from napari_flag.report import reporting

        if self.session.adata is None:
            return
        adata, said = without_personal_names(self.session.adata, keep_names)
        for sentence in said:
            self.notify(sentence)
        self.jobs.run(
            "report",
            reporting(
                adata,
                self._truth(adata),
                folder,
                sets=self.session.gene_sets,
                force=self.anyway.isChecked(),
            ),
            "Write report",
            on_result=lambda page: self.notify(f"Wrote {page}"),
            on_cancelled=lambda: self.notify("The report was cancelled; nothing was written."),
        )

    def _truth(self, adata: "AnnData") -> "Steps[AnnData | None]":
        """Find the counts to compare with, None where there are none or they could not be compared."""
        agreement = self.agreement if self._agreement_of is self.session.adata else None
        refused = agreement is not None and agreement.comparison is None
        return truth_of(adata, self.session.measured, refused=refused)
