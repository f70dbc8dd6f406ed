"""The Regions dock: draw or find regions, and see which genes tell them apart."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from napari_flag import keys
from napari_flag.analysis.domains import LABELS, find, read_domains
from napari_flag.analysis.pathways import RegionSets, find_region_sets
from napari_flag.analysis.regions import AreaScale, BoolArray, RegionNumbers, compare_regions
from napari_flag.analysis.set_maps import SetMap, first_set, map_set, named_apart
from napari_flag.analysis.truth import MEASURED, PREDICTED
from napari_flag.errors import UserError
from napari_flag.exports.qupath import domain_annotations, region_measurements
from napari_flag.formatting import whole
from napari_flag.gui.controls.file_filters import REGION_FILES, TABLE_FILES
from napari_flag.gui.controls.forms import ask_open, ask_save
from napari_flag.gui.controls.plots import ask_figure_path
from napari_flag.gui.dock import NOTHING_YET, Dock, ViewerWatch, single_shot
from napari_flag.gui.regions.choices import DomainChoice, LabelReader, RegionList
from napari_flag.gui.regions.results import NO_SET, RegionResults
from napari_flag.gui.slide_state import SlideState
from napari_flag.layers import region_shapes
from napari_flag.layers.local_map import MapKind
from napari_flag.layers.overlays import Paint
from napari_flag.layers.region_history import RegionHistory, history_of
from napari_flag.layers.region_shapes import Entry, collect, domain_titles
from napari_flag.prediction_file import slide_size
from napari_flag.progress import one_step
from napari_flag.slides.formats.geojson import Annotation, read_annotations, write_annotations

if TYPE_CHECKING:
    from anndata import AnnData

REST: Final = ""
"""Key of all spots outside the chosen region."""


@dataclass(frozen=True, slots=True, eq=False)
class _Compared:
    """A region and what it is compared with: spots of a prediction; None is the rest of the section."""

    adata: "AnnData"
    region: BoolArray
    other: BoolArray | None

    def is_as(self, asked: "_Compared") -> bool:
        """Return whether the same spots of the same prediction are compared."""
        return self.adata is asked.adata and all(
            np.array_equal(one, two)  # type: ignore[arg-type]  # None is as None
            for one, two in ((self.region, asked.region), (self.other, asked.other))
        )


class RegionsDock(Dock):
    """Regions drawn, read and found; their means and differential genes; gene sets raised in them.

    Parameters
    ----------
    napari_viewer
        The viewer; region, gene and gene set are shared with its other docks through `Session`.
    """

    def __init__(self, napari_viewer: Any) -> None:
        super().__init__(napari_viewer)
        self._viewer = self.session.viewer
        self.domains = self.session.domain_map
        self.numbers: RegionNumbers | None = None
        self._compared: _Compared | None = None
        self._key: str | None = None
        self._scale: AreaScale | None = None
        self._listed_of: Any = None
        self._layers_listed: Any = None
        self._filled = False
        self._due = single_shot(self, 0, self._compare)
        self._build()
        self._lay_out()
        self._watch = ViewerWatch(self, self._viewer)
        self._connect()
        self._on_gene_sets()
        self._on_prediction()

    # --- construction ----------------------------------------------------------------------------
    def _build(self) -> None:
        self.regions = RegionList()
        self.labels = LabelReader(self, self.session, self.jobs, self.messages)
        self.choice = DomainChoice()
        self.choice.paint.select(self.domains.paint)
        self.results = RegionResults()

    def _lay_out(self) -> None:
        box = self.column()
        box.addWidget(self.regions, 2)
        box.addWidget(self.messages)
        box.addWidget(self.choice.form.native)
        box.addWidget(self.choice.agreement)
        box.addWidget(self.choice.to_labels)
        box.addWidget(self.results, 5)
        box.addWidget(self.strip)
        self.setMinimumWidth(320)

    def _connect(self) -> None:
        self._watch.layersChanged.connect(self._on_layers)
        self._watch.shapesEdited.connect(self._on_edited)
        self.regions.chosen.connect(self._on_chosen)
        self.regions.drawRequested.connect(self._draw)
        self.regions.undoRequested.connect(self.undo)
        self.regions.redoRequested.connect(self.redo)
        self.regions.importRequested.connect(self._ask_import)
        self.regions.exportRequested.connect(self._ask_export)
        self.regions.removeRequested.connect(self._remove)
        self.regions.renamed.connect(self._rename)
        self.choice.against.changed.connect(lambda _: self._due.start())
        self.choice.search.changed.connect(lambda _: self.find_domains())
        self.choice.labels.changed.connect(lambda _: self.labels.ask(self.choice.method.value))
        self.labels.labelled.connect(self._on_labelled)
        self.labels.compared.connect(self._on_compared)
        self.choice.source.changed.connect(lambda _: self._on_source())
        self.choice.paint.changed.connect(lambda _: self._paint())
        self.results.geneChosen.connect(self.session.select_gene)
        self.results.setChosen.connect(self._on_set)
        self.results.setsRequested.connect(self.ask_sets)
        self.results.saveRequested.connect(self._ask_save)
        self.results.mapRequested.connect(self._map_set)
        self.results.figureRequested.connect(self._ask_figure)
        self.listen(self.session.predictionChanged, self._on_prediction)
        self.listen(self.session.slideChanged, self._on_layers)
        self.listen(self.session.geneSetChanged, lambda _: self._map_set())
        self.listen(self.session.geneSetsChanged, self._on_gene_sets)
        self.listen(self.session.genesShownChanged, self._on_gene)
        self.listen(self.session.mapKindChanged, self._on_map_kind, always=True)
        on_mouse, callbacks = clicks(self._on_click), self._viewer.mouse_drag_callbacks
        callbacks.append(on_mouse)
        self.when_closed(lambda: callbacks.remove(on_mouse))

    # --- from the session and the viewer ---------------------------------------------------------
    def _on_prediction(self) -> None:
        """List the regions for a new prediction; those drawn stay, on the tissue they were drawn on."""
        adata = self.session.adata
        self._scale = None
        self.setEnabled(adata is not None)
        self.messages.clear()
        if adata is None:
            self.notify(NOTHING_YET)
        self.choice.enable(self.session.adata)
        self._read()
        self._paint()

    def _on_layers(self) -> None:
        """List the regions anew where layers with shapes came, went or were renamed, or the µm/px changed."""
        adata = self.session.adata
        shapes = [(id(layer), layer.name) for layer in region_shapes.shapes_among(self._slide_layers())]
        state = (shapes, None if adata is None else self.session.frame.mpp)
        if state != self._layers_listed:
            self._layers_listed = state
            self._read()

    def _read(self) -> None:
        """List the regions anew; the one chosen stays chosen, with the spots it now has."""
        self._enable_steps()
        adata = self.session.adata
        known = self.regions.entries if adata is self._listed_of else ()
        self._listed_of = adata
        entries = (
            []
            if adata is None
            else collect(self._slide_layers(), self.session.gene_map, adata, self.choice.shown, known)
        )
        self.regions.show_entries(entries, self._key, self._area_scale() if entries else None)
        self._offer(entries)
        self._map_set()
        if adata is not None:
            self._due.start()

    def _on_edited(self) -> None:
        """List the regions as they are drawn now, and choose the one that was not there before."""
        same = self._listed_of is self.session.adata
        before = {entry.key for entry in self.regions.entries}
        self._read()
        drawn = [entry.key for entry in self.regions.entries if entry.drawn is not None]
        new = [key for key in drawn if key not in before]
        if same and len(new) == 1:
            self.regions.choose(new[0])

    def _offer(self, entries: Sequence[Entry]) -> None:
        """Offer the other regions to compare with."""
        rest = ("Rest of the section", REST)
        self.choice.against.offer([rest, *((entry.region.name, entry.key) for entry in entries)])

    def _on_chosen(self, entry: Entry | None) -> None:
        self._key = None if entry is None else entry.key
        self._due.start()

    def _on_gene(self) -> None:
        self.results.mark(self.session.gene)
        if self.domains.paint is Paint.FILLED and self._filled:
            self.choice.paint.value = Paint.RINGS  # or they would hide the gene

    def _on_map_kind(self, kind: MapKind) -> None:
        """Leave the spots, and the legend, to the clusters of a gene."""
        if kind is MapKind.CLASSES and self.choice.paint.value is not Paint.HIDDEN:
            self.choice.paint.value = Paint.HIDDEN

    def _on_click(self, position: Any) -> None:
        """Choose the domain that was clicked on, unless a shape is being drawn."""
        active = self._viewer.layers.selection.active
        if str(getattr(active, "mode", "pan_zoom")) == "pan_zoom":
            number = self.domains.number_at(position)
            if number:
                self.regions.choose(f"domain {self.choice.shown} {number}")

    # --- comparing -------------------------------------------------------------------------------
    def _compare(self) -> None:
        """Compare the chosen region with the rest, or with the other."""
        adata, entry = self.session.adata, self.regions.current
        self.messages.clear()
        if adata is None or entry is None:
            self.jobs.cancel("compare")
            self._show(None)
            return
        other = next((e for e in self.regions.entries if e.key == self.choice.against.value), None)
        if other is not None and other.key == entry.key:
            self.notify("A region is compared with another, or with the rest; choose one.")
            self._show(None)
            return
        compared = _Compared(adata, entry.region.mask, None if other is None else other.region.mask)
        self.jobs.run(
            "compare",
            compare_regions(adata, compared.region, compared.other),
            "Compare regions",
            on_result=partial(self._show, compared=compared),
            on_error=self._on_failed,
            on_cancelled=partial(self._on_cancelled, compared),
        )

    def _on_failed(self, error: Exception) -> None:
        self._show(None)
        self.messages.show_error(error)

    def _on_cancelled(self, wanted: "_Compared") -> None:
        """Keep the numbers shown, unless they are of other regions or of another prediction."""
        if self._compared is not None and not self._compared.is_as(wanted):
            self._show(None)
        self.notify("Comparing was cancelled; choose the region again to start it.")

    def _show(self, numbers: RegionNumbers | None, compared: "_Compared | None" = None) -> None:
        self.numbers, self._compared = numbers, compared
        self.results.show_numbers(numbers)
        self.results.mark(self.session.gene, scroll=False)
        self._test_sets()

    def _test_sets(self) -> None:
        """Test the gene sets in the regions that are compared."""
        compared = self._compared
        if compared is None or compared.adata is not self.session.adata:
            self.jobs.cancel("sets")
            return
        self.jobs.run(
            "sets",
            find_region_sets(compared.adata, compared.region, compared.other, self.session.gene_sets),
            "Test gene sets",
            on_result=self._on_sets,
            on_cancelled=lambda: self.notify("Testing gene sets was cancelled."),
        )

    def _on_sets(self, found: RegionSets) -> None:
        self.results.show_sets(found)

    # --- domains ---------------------------------------------------------------------------------
    def find_domains(self) -> None:
        """Find the domains of what is chosen, list and paint them."""
        adata = self.session.adata
        if adata is None:
            return
        self.jobs.run(
            "domains",
            find(adata, self.choice.shown, self.choice.method.value),
            "Find domains",
            on_result=lambda _: self._on_found(adata),
            on_cancelled=lambda: self.notify("Finding domains was cancelled."),
        )

    def _on_found(self, adata: Any) -> None:
        self.session.workspace.changed(adata)
        self._on_domains()

    def _on_domains(self) -> None:
        self.choice.paint.select(Paint.FILLED)
        self._read()
        self._paint()

    def _on_labelled(self) -> None:
        """List and paint the labels that were read."""
        self.choice.enable(self.session.adata)
        self.choice.source.value = LABELS
        self._on_domains()

    def _on_compared(self) -> None:
        """Say how far domains agree with the labels, and list and paint domains where they are shown."""
        if self.choice.shown == LABELS:
            self.choice.show_agreement(self.session.adata)
        else:
            self._read()
            self._paint()

    def _on_source(self) -> None:
        """Keep the domain of the same number chosen: those of the two sources are numbered alike."""
        kind, _, number = (self._key or "").rpartition(" ")
        if kind in (f"domain {PREDICTED}", f"domain {MEASURED}") and self.choice.shown != LABELS:
            self._key = f"domain {self.choice.shown} {number}"
        self.choice.search.enabled = self.choice.shown != LABELS
        self._read()
        self._paint()

    def _paint(self) -> None:
        adata, paint = self.session.adata, self.choice.paint.value
        numbers = None if adata is None else read_domains(adata, self.choice.shown)
        clusters = self.session.local_map.kind is MapKind.CLASSES
        if clusters and numbers is not None and paint is not Paint.HIDDEN:
            self.session.set_map_kind(MapKind.EXPRESSION)
        self._filled = False
        shown = self.choice.shown
        names = None if adata is None or numbers is None else domain_titles(adata, shown, short=True)
        gene_map = self.session.gene_map
        of_these = gene_map.values is not None and gene_map.values.adata is adata
        raster = gene_map.raster if of_these else None
        self.domains.show(adata, numbers, paint, self.session.frame, names, raster)
        self._filled = True
        self.choice.show_agreement(self.session.adata)

    # --- regions ---------------------------------------------------------------------------------
    def _layer(self) -> Any:
        assert self.session.state is not None
        return region_shapes.find_layer(self._slide_layers()) or self._add_layer(self.session.state)

    def _slide_layers(self) -> list[Any]:
        """Return the layers of the slide that is shown."""
        return self.session.layers

    def _add_layer(self, state: SlideState) -> Any:
        """Add a layer to draw regions in to a slide that is predicted."""
        assert state.adata is not None
        longest = float(np.max(slide_size(state.adata) or state.adata.obsm[keys.SPATIAL]))
        return region_shapes.add_layer(self._viewer, state.frame, longest)

    def _area_scale(self) -> AreaScale:
        """Return what areas are computed with; the pitch is sought once for a prediction and µm/px."""
        mpp = self.session.frame.mpp
        if self._scale is None or self._scale.um_per_px != mpp:
            self._scale = AreaScale.of(self.session.adata, mpp)
        return self._scale

    # --- undo and redo ---------------------------------------------------------------------------
    def _histories(self) -> list[RegionHistory]:
        """Return the history of each Shapes layer of the slide."""
        found = [history_of(layer) for layer in region_shapes.shapes_among(self._slide_layers())]
        for history in found:
            if self._on_step not in history.moved:
                history.moved.append(self._on_step)
                self.when_closed(partial(history.moved.remove, self._on_step))
        return found

    def _enable_steps(self) -> None:
        found = self._histories()
        self.regions.enable_steps(
            undo=any(history.can_undo for history in found), redo=any(history.can_redo for history in found)
        )

    def _on_step(self) -> None:
        """List the regions after an undo or redo, by a button or a key over the picture."""
        self._read()

    def undo(self) -> None:
        """Take back the last change of the layer that was changed last."""
        found = [history for history in self._histories() if history.can_undo]
        if found:
            max(found, key=lambda history: history.stamp).undo()

    def redo(self) -> None:
        """Do again what was taken back last."""
        found = [history for history in self._histories() if history.can_redo]
        if found:
            max(found, key=lambda history: history.stamp).redo()

    def _draw(self, mode: str) -> None:
        layer = self._layer()
        self._viewer.layers.selection.active = layer
        if not layer.visible:
            layer.visible = True
        layer.mode = mode

    def _rename(self, entry: Entry, name: str) -> None:
        if entry.drawn is not None and name:
            with history_of(entry.drawn.layer).one_step():
                region_shapes.rename(entry.drawn, name)
            self._key = f"drawn {name} 1"
        self._read()

    def _remove(self, entry: Entry) -> None:
        if entry.drawn is not None:
            with history_of(entry.drawn.layer).one_step():
                region_shapes.remove(entry.drawn)
            self._read()

    def _ask_import(self) -> None:
        path = ask_open(self, "Regions", REGION_FILES)
        if path is not None:
            self.import_regions(path)

    def import_regions(self, path: Path) -> None:
        """Draw the regions of a GeoJSON file on the slide that is shown; those drawn before stay."""
        state = self.session.state
        if state is None or self.session.adata is None:
            return
        self.messages.clear()
        self.jobs.run(
            f"import {path} {state.number}",
            one_step("Reading regions", read_annotations, path),
            f"Read {path.name}",
            on_result=partial(self._on_imported, state),
            on_cancelled=lambda: self.notify("Importing regions was cancelled."),
        )

    def _on_imported(self, state: SlideState, found: Sequence[Annotation]) -> None:
        """Draw regions that were read on their slide, unseen where another is shown by now."""
        workspace, shown = self.session.workspace, state is self.session.state
        if state not in workspace.slides or state.adata is None:  # taken out meanwhile
            return
        layer = region_shapes.find_layer(workspace.layers_of(state)) or self._add_layer(state)
        if shown:
            placement = region_shapes.Placement.of(self.session.gene_map, state.adata)
        else:
            placement = region_shapes.Placement.in_frame(state.frame)
            if layer.visible:
                layer.visible = False
                state.visible.append(layer)
        with history_of(layer).one_step():
            region_shapes.add_annotations(layer, found, placement)
        if shown:
            self._read()

    def _ask_export(self) -> None:
        path = ask_save(self, "Regions", "regions.geojson", REGION_FILES)
        if path is not None:
            self.export_regions(path)

    def export_regions(self, path: Path) -> None:
        """Write all regions listed, domains with the outline of their spots."""
        adata = self.session.adata
        if adata is None:
            return
        scale = self._area_scale()
        drawn = [
            replace(
                entry.drawn.annotation,
                measurements=region_measurements(entry.region.spots, scale.of_region(entry.region)),
            )
            for entry in self.regions.entries
            if entry.drawn is not None
        ]
        self.jobs.run(
            "export",
            domain_annotations(adata, self.choice.shown, scale),
            "Export regions",
            on_result=lambda found: self.write_file(path, lambda: write_annotations([*drawn, *found], path)),
            on_cancelled=lambda: self.notify("Exporting regions was cancelled; nothing was written."),
        )

    # --- gene sets and tables --------------------------------------------------------------------
    def _on_set(self, name: str) -> None:
        if name in self.session.gene_sets:
            self.session.set_gene_set(name, self.session.gene_sets[name])

    def _on_gene_sets(self) -> None:
        sets = self.session.gene_sets
        self.results.show_sets_of(f"{self.session.gene_sets_name}: {whole(len(sets))}")
        self._test_sets()
        self._map_set()

    def _map_set(self) -> None:
        """Show the gene set that is chosen over the regions listed, where that is in sight."""
        adata = self.session.adata
        if not self.results.map_in_sight:
            return
        if adata is None or not self.regions.entries:
            self.jobs.cancel("set map")
            self.results.show_no_map(NO_SET)
            return
        name, genes = self.session.gene_set_name, self.session.gene_set
        if not genes:
            name, genes = first_set(self.session.gene_sets, adata)
        masks = named_apart((_short_name(entry), entry.region.mask) for entry in self.regions.entries)
        self.jobs.run(
            "set map",
            map_set(adata, name, genes, masks),
            "Draw heat map",
            on_result=self._on_map,
            on_error=lambda error: self.results.show_no_map(str(error)),
        )

    def _on_map(self, found: SetMap) -> None:
        self.results.show_map(found)
        self.results.set_map.mark(self.session.gene)

    def _ask_figure(self) -> None:
        path = ask_figure_path(self, "gene_set.png")
        if path is not None:
            self.save_figure(path)

    def save_figure(self, path: Path) -> None:
        """Save the heat map of the gene set that is shown (.png, .svg)."""
        from napari_flag.figures.heat_maps import save_set_map

        shown = self.results.set_map.shown
        if shown is not None:
            self.write_file(path, lambda: save_set_map(path, shown))

    def _ask_save(self) -> None:
        path = ask_save(self, "Table of genes", "region_genes.csv", TABLE_FILES)
        if path is not None:
            self.save_table(path)

    def save_table(self, path: Path) -> None:
        """Save the numbers of all genes, prediction and truth."""
        from napari_flag.files import write_table

        def write() -> None:
            if self.numbers is None or self._due.isActive() or self.jobs.running("compare"):
                raise UserError("The regions chosen are not compared yet; wait for it, or choose them again.")
            write_table(self.numbers.genes, path)

        self.write_file(path, write)


def _short_name(entry: Entry) -> str:
    """Return a region's name, a domain's without whose it is: it stands below a column."""
    return entry.region.name if entry.drawn is not None else entry.region.name.partition(" of the ")[0]


def clicks(on_click: Callable[[Any], None]) -> Callable[[Any, Any], Iterator[None]]:
    """Return a napari mouse callback that calls `on_click` with where it was clicked, unless dragged."""

    def callback(_viewer: Any, event: Any) -> Iterator[None]:
        dragged = False
        yield
        while event.type == "mouse_move":
            dragged = True
            yield
        if not dragged:
            on_click(event.position)

    return callback
