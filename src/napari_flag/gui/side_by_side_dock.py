"""The Side by side dock: a gene predicted beside measured, by other predictions, or on other slides."""

import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from qtpy.compat import isalive
from qtpy.QtCore import QEvent, QObject, Qt, QTimer
from qtpy.QtGui import QShowEvent
from qtpy.QtWidgets import QCheckBox, QDockWidget, QGridLayout, QHBoxLayout, QLabel, QVBoxLayout, QWidget

from napari_flag import keys
from napari_flag.analysis.scores import EXPECTATION, MEANING, SectionScores, scoring_section
from napari_flag.analysis.truth import MEASURED
from napari_flag.formatting import counted, score, whole
from napari_flag.gui.controls.forms import Choice, plain_label
from napari_flag.gui.controls.linked_canvas import LinkedCanvas
from napari_flag.gui.dock import NOTHING_YET, Dock, in_turn, single_shot
from napari_flag.gui.session import Session
from napari_flag.gui.slide_state import Result, SlideState
from napari_flag.layers.gene_map import Hover
from napari_flag.layers.gene_values import GeneValues, Quantity, sources_of
from napari_flag.layers.local_map import LocalMap
from napari_flag.layers.slide_layers import camera_of, extent_of, fit, picture_of, slide_of

OPENED_MS: Final = 400
"""By then the second canvas is there, and asks for its room."""
SETTLED_MS: Final = 250
"""By then the canvases have the size that the opened dock leaves them."""
MAIN_PX: Final = 200
"""Least width of the main canvas beside a second one: Qt takes what a smaller window lacks from it alone."""
THIS, OTHERS, ALL = "this slide", "its other predictions", "all other slides"
MOST: Final = 4
"""Other slides or predictions shown at once; more would be stamps."""


@dataclass(frozen=True, slots=True)
class Beside:
    """What one of several canvases shows.

    Parameters
    ----------
    state
        The slide.
    result
        Which of its predictions; None follows the one that the slide shows.
    quantity
        What of the gene; None follows the main canvas.
    """

    state: SlideState
    result: Result | None = None
    quantity: Quantity | None = None

    @property
    def adata(self) -> Any:
        """The prediction."""
        return self.state.adata if self.result is None else self.result.adata

    @property
    def name(self) -> str:
        """What stands above the canvas."""
        return self.state.name if self.result is None else self.result.name


class OtherMap(QWidget):
    """The gene that is shown, by another prediction or on another slide, at the zoom of the main canvas.

    Parameters
    ----------
    session
        Of the main viewer.
    beside
        What to show.
    """

    def __init__(self, session: Session, beside: Beside) -> None:
        super().__init__()
        self._session, self.beside = session, beside
        self._own: Any = None
        self.canvas = LinkedCanvas(session.viewer)
        self.canvas.gene_map.bars = beside.result is None  # the main canvas has the one of the same colours
        self.title = plain_label(beside.name)
        box = QVBoxLayout(self)
        box.setContentsMargins(0, 0, 0, 0)
        box.setSpacing(2)
        box.addWidget(self.title)
        box.addWidget(self.canvas, 1)
        self._opening = in_turn(session.viewer, self, self.canvas.open_canvas, self.refresh)

    def refresh(self) -> None:
        """Draw the prediction."""
        state, gene_map = self.beside.state, self.canvas.gene_map
        picture = state.layer
        if picture is None and state.slide is not None:  # it was not shown yet, or its picture was removed
            if self._own is None or slide_of(self._own) is not state.slide:
                self._own = picture_of(state.slide)
            picture = self._own
        same = state is self._session.state
        self.canvas.show_pictures([] if picture is None else [picture], same=same)
        gene_map.set_prediction(self.beside.adata, state.frame)
        self.show_gene()

    def show_gene(self) -> None:
        """Draw the gene, colours and limits of the main canvas; what this prediction lacks is said."""
        here, there = self.canvas.gene_map, self._session.gene_map
        self.title.setText(f"{self.beside.name}: not predicted yet")
        if here.values is None:
            return
        genes = [gene for gene in self._session.genes_shown if gene in here.values]
        missing = [gene for gene in self._session.genes_shown if gene not in here.values]
        here.cover(not genes)
        here.show(genes)
        wanted = self.beside.quantity or there.quantity
        if here.values.why_not(wanted) is None and here.quantity is not wanted:
            here.set_quantity(wanted)
        if here.colormap != there.colormap:
            here.set_colormap(there.colormap)
        if here.contrast != there.contrast:
            here.set_contrast(there.contrast)
        copy_limits(there, here)
        said = f"not in this prediction: {', '.join(missing)}" if missing else here.quantity.value
        name = "" if self.beside.quantity is Quantity.MEASURED else f"{self.beside.name}: "
        self.title.setText(f"{name}{said}")

    def close_canvas(self) -> None:
        """Disconnect, and close the canvas."""
        self._opening.stop()
        self.canvas.close_canvas()
        self.deleteLater()


class SideBySideDock(Dock):
    """Shows another quantity of the same gene at the same place, with scores; or the gene several times.

    Several are the other predictions of the slide and its truth, or other slides.

    Parameters
    ----------
    napari_viewer
        The viewer whose prediction, gene, colours and camera are shared.
    """

    def __init__(self, napari_viewer: Any) -> None:
        super().__init__(napari_viewer)
        self.scores: SectionScores | None = None
        self.others: list[OtherMap] = []
        self._open = True
        self.when_closed(self._stop)
        self.canvas = LinkedCanvas(self.session.viewer)
        self.when_closing(self.canvas.close_canvas)
        self.when_closing(lambda: self._show_others([]))
        window = getattr(self.session.viewer, "window", None)
        if window is not None:  # which is deleted with its docks; a canvas in the midst of that crashes
            window._qt_window.installEventFilter(self)
        self.local_map = LocalMap(self.canvas.model, self.canvas.gene_map, self.session.local_map)
        self.when_closed(self.local_map.leave)
        self.local_map.later = self.local_map.legend.later = self.canvas.gene_map.later
        self._hover = Hover(self.canvas.model, self.canvas.gene_map, self._on_hovered)
        self._build()
        self.listen(self.session.predictionChanged, self._soon(self._on_new_prediction))
        self.listen(self.session.slideChanged, self._soon(self._on_slide))
        self.listen(self.session.workspace.moved, self._soon(self._follow))
        self.listen(self.session.workspace.listChanged, self._offer_slides)
        self.listen(self.session.genesShownChanged, self._soon(self._on_genes))
        self.listen(self.session.appearanceChanged, self._soon(self._on_appearance))
        events = self.session.viewer.layers.events
        for emitter in (events.inserted, events.removed):
            self.listen(emitter, self._soon(self._show_pictures))
        self.quantity.changed.connect(self._on_quantity)
        self.slide.changed.connect(self._on_slide_chosen)
        self._opening = in_turn(
            self.session.viewer,
            self,
            self.canvas.open_canvas,
            self._on_slide,
            self._on_new_prediction,
        )
        self.when_closing(self._opening.stop)
        self._settle = single_shot(self, SETTLED_MS, self._fit_untouched_view)
        self._fitted: tuple[float, ...] | None = None
        self.when_closing(self._settle.stop)
        if hasattr(self.session.viewer, "canvas"):  # before napari 0.9 its size is no event
            self.listen(self.session.viewer.canvas.events.size, self.fit_later)

    def _soon(self, slot: Callable[[], None]) -> Callable[[], None]:
        """Return what calls `slot` once in the next turn, when the main canvas has what it shows."""
        waiting: list[bool] = []

        def act() -> None:
            waiting.clear()
            if self._open:
                slot()

        def soon() -> None:
            if not waiting:
                waiting.append(True)
                self.canvas.gene_map.later(act)

        return soon

    def eventFilter(self, watched: QObject | None, event: QEvent | None) -> bool:
        """Close with the window; not where a person closes it, whom napari may still ask."""
        if event is not None and event.type() == QEvent.Type.Close and not event.spontaneous():
            self.close()
        return super().eventFilter(watched, event)

    def showEvent(self, event: QShowEvent | None) -> None:
        """Fit the view to the canvases once they have their size."""
        super().showEvent(event)
        self._settle.start()

    def fit_later(self) -> None:
        """Fit the view once the canvases keep the size they have got now."""
        self._settle.start()

    @property
    def at_rest(self) -> bool:
        """Whether the canvas is there with its scores, in the size and the view it stays in."""
        return super().at_rest and not self._opening.isActive() and not self._settle.isActive()

    @property
    def followers(self) -> list[LinkedCanvas]:
        """The canvases next to the main one that show its slide at its zoom."""
        return [each.canvas for each in self.others if each.beside.state is self.session.state]

    @property
    def room_beside(self) -> list[tuple[int, int]]:
        """(height, width) px of `followers`; napari's own record of them is late for those within a dock."""
        return [(canvas.height(), canvas.width()) for canvas in self.followers]

    def _fit_untouched_view(self) -> None:
        """Fit the whole slide into both canvases, unless the person has gone to a place of their own."""
        viewer, layers = self.session.viewer, self.session.layers
        if not layers:
            return
        if self._fitted is None:
            low, high = extent_of(layers)
            centre = np.asarray(camera_of(viewer).center)[-2:]
            untouched = bool(np.abs(centre - (low + high) / 2).max() < 0.01 * (high - low).max())
        else:
            untouched = self._fitted == _view_of(viewer)
        if untouched:
            fit(viewer, layers, self.room_beside)
            self._fitted = _view_of(viewer)

    def _build(self) -> None:
        self.title = QLabel()
        self.title.setStyleSheet("font-weight: bold;")
        self.quantity = Choice(
            ((quantity.value.capitalize(), quantity) for quantity in Quantity),
            tooltip="What this canvas shows of the gene; the main canvas is unchanged",
        )
        self.slide = Choice(
            [(THIS, THIS)],
            name="Slide here",
            tooltip="Show the slide of the main canvas, the same gene as its other predictions and the "
            "measurement have it, or the gene on other slides",
        )
        self.free = QCheckBox("Line up")
        self.free.setToolTip(
            "Move this canvas alone, so that the two sections lie alike; they go together after"
        )
        self.free.toggled.connect(self._on_free)
        head = QHBoxLayout()
        head.addWidget(QLabel("Here:"))
        head.addWidget(self.slide.native, stretch=1)
        head.addWidget(self.quantity.native, stretch=1)
        head.addWidget(self.free)
        self.overall = QWidget()
        lines = QVBoxLayout(self.overall)
        lines.setContentsMargins(0, 0, 0, 0)
        lines.setSpacing(2)
        self.summary = plain_label()
        lines.addWidget(self.summary)
        line = QHBoxLayout()
        line.setSpacing(10)
        self._numbers: dict[str, QLabel] = {}
        for name in EXPECTATION:
            self._numbers[name] = QLabel()
            self._numbers[name].setToolTip(MEANING[name])
            line.addWidget(self._numbers[name])
        line.addStretch(1)
        lines.addLayout(line)
        self.gene_score = plain_label()
        self.reading = plain_label(" ")
        self.reading.setMinimumHeight(self.reading.fontMetrics().height() + 4)
        self._grid = QGridLayout()
        self._grid.setSpacing(4)
        layout = self.column()
        layout.addLayout(head)
        layout.addWidget(self.title)
        layout.addWidget(self.gene_score)
        layout.addWidget(self.overall)
        layout.addWidget(self.messages)
        layout.addWidget(self.canvas, stretch=1)
        layout.addLayout(self._grid, stretch=1)
        layout.addWidget(self.reading)
        layout.addWidget(self.strip)

    # --- slides ----------------------------------------------------------------------------------
    def _on_slide(self) -> None:
        """Show the slide of the main canvas here too, and offer the others."""
        self._offer_slides()
        self._show_pictures()
        self._follow()

    def _follow(self) -> None:
        """Draw in the frame that the slide now has."""
        values = self.canvas.gene_map.values
        if values is not None and values.adata is self.session.adata:  # another follows by itself
            self.canvas.gene_map.move_to(self.session.frame)
            self.local_map.move_to(self.session.frame)
        for other in self.others:
            if other.beside.state is self.session.state:
                other.canvas.gene_map.move_to(self.session.frame)

    def _show_pictures(self) -> None:
        state, pictures = self.session.state, []
        for layer in self.session.layers:
            if layer.metadata.get(keys.LAYER_KIND) == "slide":
                ours = state is not None and layer.metadata.get(keys.LAYER_OF) == state.number
            else:
                ours = getattr(layer, "rgb", False)
            if ours:  # not so a picture that comes just now, which no slide has yet
                pictures.append(layer)
        self.canvas.show_pictures(pictures, same=True)

    def _offer_slides(self) -> None:
        """Offer what is not shown: predictions, slides; one that is gone is not shown here any more."""
        here = self.session.state
        others = [state for state in self.session.workspace.slides if state is not here]
        chosen = self.slide.value
        several = [(OTHERS, OTHERS)] if here is not None and len(here.results) > 1 else []
        every = [(ALL, ALL)] if len(others) > 1 else []
        slides = [(state.name, state.number) for state in others]
        self.slide.offer([(THIS, THIS), *several, *slides, *every])
        self.slide.native.setVisible(bool(others or several))
        wanted = self._chosen()
        if self.slide.value != chosen or [other.beside for other in self.others] != wanted:
            self._show_others(wanted)
        for other in self.others:
            if other.beside.adata is not (
                other.canvas.gene_map.values and other.canvas.gene_map.values.adata
            ):
                other.refresh()

    def _chosen(self) -> list[Beside]:
        """Return what is to be shown in several canvases, nothing where one is enough."""
        here = self.session.state
        others = [state for state in self.session.workspace.slides if state is not here]
        if self.slide.value == ALL:
            return [Beside(state) for state in others[:MOST]]
        if self.slide.value != OTHERS:
            return [Beside(state) for state in others if state.number == self.slide.value]
        if here is None:
            return []
        truth = [result for result in here.results if MEASURED in sources_of(result.adata)][:1]
        shown = [result for result in here.results if result is not here.shown][: MOST - len(truth)]
        return [
            *(Beside(here, result) for result in shown),
            *(Beside(here, result, Quantity.MEASURED) for result in truth),
        ]

    def _on_slide_chosen(self) -> None:
        self._show_others(self._chosen())

    def _show_others(self, wanted: list[Beside]) -> None:
        for other in self.others:
            self._grid.removeWidget(other)
            other.close_canvas()
        self.others = [OtherMap(self.session, beside) for beside in wanted]
        for place, other in enumerate(self.others):
            other.canvas.resized.connect(self.fit_later)
            self._grid.addWidget(other, place // 2, place % 2)
            other.canvas.linked = not self.free.isChecked()
        self.fit_later()
        here = not wanted
        for widget in (self.canvas, self.title, self.quantity.native, self.reading, self.messages):
            widget.setVisible(here)
        self.free.setVisible(any(beside.state is not self.session.state for beside in wanted))
        self._show_overall()
        self._show_gene_score()

    def _on_free(self, free: bool) -> None:
        for other in self.others:
            other.canvas.linked = not free

    def _stop(self) -> None:
        self._open = False

    # --- from the session ------------------------------------------------------------------------
    def _on_new_prediction(self) -> None:
        self._on_prediction(self.session.adata)
        self._offer_slides()  # which prediction is another depends on the one that is shown

    @property
    def _behind(self) -> bool:
        """Whether the canvas does not show the prediction of the main canvas yet."""
        values = self.canvas.gene_map.values
        return (None if values is None else values.adata) is not self.session.adata

    def _on_prediction(self, adata: Any) -> None:
        self.messages.clear()
        self.scores = None
        self.jobs.cancel("scores")
        gene_map = self.canvas.gene_map
        gene_map.set_prediction(adata, self.session.frame)
        self.quantity.enabled = adata is not None
        if adata is None:
            self.notify(NOTHING_YET)
        elif gene_map.values is not None:
            self._offer(gene_map.values)
        self._show_overall()
        self._on_appearance()
        self._on_genes()
        if adata is not None:
            self.jobs.run(
                "scores",
                scoring_section(adata),
                "Score the section",
                on_result=self._on_scores,
            )

    def _on_scores(self, scores: SectionScores | None) -> None:
        self.scores = scores
        if scores is not None and scores.trained_on is not None:
            self.messages.add("warning", scores.trained_on)
        self._show_overall()
        self._show_gene_score()

    def _offer(self, values: GeneValues) -> None:
        """Offer what the prediction has; measured first, and if there is none, say why."""
        self.quantity.explain({q: q.meaning for q in Quantity}, {q: values.why_not(q) for q in Quantity})
        missing = values.why_not(Quantity.MEASURED)
        if missing is None:
            wanted = Quantity.MEASURED
        else:
            self.notify(missing)
            other = (Quantity.SAMPLE, Quantity.SPREAD, Quantity.PREDICTED)
            wanted = next(q for q in other if values.why_not(q) is None)
        self.quantity.select(wanted)
        self.canvas.gene_map.set_quantity(wanted)

    def _on_genes(self) -> None:
        genes = self.session.genes_shown
        if self._behind:
            return
        gene_map, other = self.canvas.gene_map, self.session.gene_beside
        shown = genes if other is None else [other]
        gene_map.show([gene for gene in shown if gene_map.values and gene in gene_map.values])
        self._follow_pair(other)
        self.local_map.refresh()
        named = " and ".join(genes) if other is None else f"{other}, beside {genes[0]}"
        self.title.setText(named if self.session.adata is not None else "")
        self._copy_limits()
        self._show_gene_score()
        for slide in self.others:
            slide.show_gene()

    def _follow_pair(self, other: str | None) -> None:
        """Show two genes of a pair in one quantity, and go back to the chosen one after."""
        gene_map = self.canvas.gene_map
        wanted = self.quantity.value if other is None else self.session.gene_map.quantity
        if gene_map.values and wanted is not gene_map.quantity and gene_map.values.why_not(wanted) is None:
            gene_map.set_quantity(wanted)
        self.quantity.enabled = other is None and self.session.adata is not None

    def _on_appearance(self) -> None:
        """Take over colours and limits of the main canvas."""
        if self._behind:
            return
        here, there = self.canvas.gene_map, self.session.gene_map
        if here.colormap != there.colormap:
            here.set_colormap(there.colormap)
        if here.contrast != there.contrast:
            here.set_contrast(there.contrast)
        if self.session.gene_beside is not None:
            self._follow_pair(self.session.gene_beside)
        self._copy_limits()
        for slide in self.others:
            slide.show_gene()

    def _copy_limits(self) -> None:
        """Show both canvases on one scale, also when the limits were dragged by hand."""
        copy_limits(self.session.gene_map, self.canvas.gene_map)

    def _on_hovered(self, text: str) -> None:
        self.reading.setText(text or " ")

    # --- from the person -------------------------------------------------------------------------
    def _on_quantity(self) -> None:
        quantity = self.quantity.value
        values = self.canvas.gene_map.values
        if values is not None and values.why_not(quantity) is None:
            self.canvas.gene_map.set_quantity(quantity)
            self.local_map.refresh()
            self._copy_limits()

    # --- scores ----------------------------------------------------------------------------------
    def _show_overall(self) -> None:
        scores = self.scores
        self.overall.setVisible(scores is not None and not self.others)
        if scores is None:
            return
        for name, label in self._numbers.items():
            label.setText(f"{name} <b>{score(scores.overall[name], name)}</b>")
        self.summary.setText(f"All {whole(scores.genes_compared)} genes:")
        self.summary.setToolTip(f"Over {counted(scores.spots, 'spot')}. Moran's I: {scores.neighbours}.")

    def _show_gene_score(self) -> None:
        gene = self.session.gene_beside or self.session.gene
        found = None if self.scores is None or gene is None else self.scores.genes.get(gene)
        self.gene_score.setVisible(found is not None and not self.others)
        if found is None:
            return
        pcc = score(found.pcc, "PCC")
        morans = (score(value, "Moran's I") for value in (found.moran_predicted, found.moran_measured))
        self.gene_score.setText(f"This gene:  PCC {pcc}   Moran's I predicted {', measured '.join(morans)}")


def _view_of(viewer: Any) -> tuple[float, ...]:
    """Return the centre and the zoom of a viewer's camera."""
    camera = camera_of(viewer)
    return (*map(float, camera.center), float(camera.zoom))


def copy_limits(there: Any, here: Any) -> None:
    """Give the gene map `here` the limits of the gene map `there`, where both show the same genes."""
    if not (here.quantity.is_expression and there.quantity.is_expression):
        return
    for slot in (0, 1):
        mine, theirs = here.layer(here.quantity, slot), there.layer(there.quantity, slot)
        if mine is None or theirs is None or here.genes != there.genes:
            continue
        if mine.contrast_limits != theirs.contrast_limits:
            mine.contrast_limits = theirs.contrast_limits


def open_second_canvas(viewer: Any, beside: QWidget) -> None:
    """Open the Side by side dock between the main canvas and `beside`, each canvas as wide as the other.

    Where it is open already it stays where the person put it; a viewer without a window has none.
    """
    window = getattr(viewer, "window", None)
    if window is None or window._qt_window.findChild(SideBySideDock) is not None:
        return
    main = window._qt_window
    second, _ = window.add_plugin_dock_widget("napari-flag", "Side by side")
    ours = beside.parentWidget()
    while ours is not None and not isinstance(ours, QDockWidget):
        ours = ours.parentWidget()
    if ours is None or ours.isFloating() or main.tabifiedDockWidgets(ours):
        return
    main.splitDockWidget(second, ours, Qt.Orientation.Horizontal)
    width, kept = ours.width(), (weakref.ref(main), weakref.ref(ours))  # what waits must not keep a window
    least = main.centralWidget().minimumWidth()
    main.centralWidget().setMinimumWidth(MAIN_PX)

    def give_back() -> None:
        """Leave the room of the second canvas to the first, where Qt would widen `beside`."""
        parts: list[Any] = [each() for each in kept]
        if _laid_out(parts[0]):
            parts[0].centralWidget().setMinimumWidth(least)
        if _laid_out(*parts):
            parts[0].resizeDocks([parts[1]], [max(width, 1)], Qt.Orientation.Horizontal)

    after = single_shot(main, SETTLED_MS, give_back)  # ends with the window
    after.timeout.connect(after.deleteLater)
    for dock in main.findChildren(SideBySideDock):
        dock.when_closing(after.start)

    canvas = weakref.ref(second)

    def share() -> None:
        """Give both canvases the same width, which is known only once both docks have theirs."""
        parts: list[Any] = [*(each() for each in kept), canvas()]
        if not _laid_out(*parts):
            return
        window, area, beside = parts
        room = window.centralWidget().width() + area.width() + beside.width() - width
        window.resizeDocks([beside, area], [max(room // 2, 1), max(width, 1)], Qt.Orientation.Horizontal)
        for dock in window.findChildren(SideBySideDock):
            dock.fit_later()

    for wait_ms in (0, OPENED_MS):  # again once the canvas is there, which asks for more
        QTimer.singleShot(wait_ms, share)


def _laid_out(window: Any, *docks: Any) -> bool:
    """Return whether `docks` are there, in the layout of `window`."""
    if not all(part is not None and isalive(part) for part in (window, *docks)):  # type: ignore[no-untyped-call]
        return False
    nowhere = Qt.DockWidgetArea.NoDockWidgetArea
    return all(not dock.isFloating() and window.dockWidgetArea(dock) != nowhere for dock in docks)
