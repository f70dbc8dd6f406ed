"""What the docks of one viewer share: the slide that is shown, its prediction and truth, gene and gene set.

A dock never talks to another dock.  It changes the session, whose signals all docks listen to;
because the session belongs to the viewer, the result is kept when a dock closes.  Which slides there are, and
which layers are whose, is kept by `Workspace`.
"""

import weakref
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from qtpy.QtCore import QObject, Signal

from napari_flag import keys
from napari_flag.analysis.pathways import bundled
from napari_flag.analysis.truth import MeasuredLayer, detach_measured, measured_layer
from napari_flag.errors import UserError
from napari_flag.gui.controls.gl_context import keep_context_of, later_in
from napari_flag.gui.settings import read_preferences
from napari_flag.gui.shortcuts import SHOW_QUANTITY, STEP
from napari_flag.gui.slide_state import Result, SlideState
from napari_flag.gui.workspace import Workspace
from napari_flag.layers.frame import Frame
from napari_flag.layers.gene_map import COLORMAPS, DEFAULT_COLORMAP, LAYER_SLOT, GeneMap, Hover
from napari_flag.layers.gene_values import Quantity
from napari_flag.layers.local_map import LocalMap, MapKind
from napari_flag.layers.overlays import DomainMap, UnlikeMap

if TYPE_CHECKING:
    from anndata import AnnData
    from napari.components import ViewerModel

    from napari_flag.slides.slide import Slide


_SESSIONS: dict[int, "Session"] = {}


def _unwrap(viewer: Any) -> Any:
    """Return the viewer itself: plugins are handed a proxy that makes every layer setter slow."""
    return getattr(viewer, "__wrapped__", viewer)


OUR_SETS: Final = "Sets that come along"
NO_PREDICTION: Final = "There is no prediction to compare yet; predict first, or open a prediction."


class Session(QObject):
    """The state that the docks of one viewer share; get it with `Session.of`.

    Attributes
    ----------
    workspace
        All slides of the viewer.
    genes_shown
        One gene, or two for an overlay (magenta, green); empty before the first.
    gene_beside
        Another gene for the second canvas (a pair that was clicked), or None: then it shows the same.
    gene_set, gene_set_name
        Genes shown together, and what they are called; empty before one is chosen.  They need not
        all be in the prediction.
    gene_sets, gene_sets_file
        Name → genes of the sets that every page, the report and exports take, and the GMT file they are from:
        None of those that come along.
    gene_order
        Genes in the order the arrow keys walk through them; the Genes dock sets it.
    gene_map
        The gene layers drawn in the viewer; follows prediction and genes by itself.
    local_map
        Where the gene clusters, in the place of the gene; follows by itself too.
    unlike_map
        The rings that say how far each spot lies from the training tissue; follows the prediction.
    domain_map
        The domains painted, which stay when the Regions page is closed, as they were chosen there.
    """

    slideChanged = Signal(object)
    """Another slide is shown: its `SlideState`, or None; `predictionChanged` follows."""
    predictionChanged = Signal(object)
    """Another prediction (AnnData) is shown, or None."""
    drawsChanged = Signal()
    """The prediction has more draws, and no more are being made."""
    genesShownChanged = Signal(list)
    """All genes now painted, the selected one first."""
    mapKindChanged = Signal(object)
    """What of the gene is painted: a `MapKind`."""
    pairChanged = Signal()
    """`gene_beside` changed."""
    geneSetChanged = Signal(tuple)
    """The genes of the new gene set; its name is `gene_set_name`."""
    geneSetsChanged = Signal()
    """Other gene sets are looked for: `gene_sets`."""
    appearanceChanged = Signal()
    """Quantity, colours or limits of the gene map changed."""
    hovered = Signal(str)
    """Spot id and values under the mouse, or an empty text beside the spots."""

    def __init__(self, viewer: "ViewerModel") -> None:
        super().__init__()
        self._viewer = weakref.ref(viewer)
        keep_context_of(viewer)
        self.workspace = Workspace(viewer)
        self.genes_shown: list[str] = []
        self.gene_beside: str | None = None
        self.gene_order: list[str] = []
        self.gene_set: tuple[str, ...] = ()
        self.gene_set_name = ""
        self.gene_sets: Mapping[str, Sequence[str]] = bundled()
        self.gene_sets_file: Path | None = None
        self._device: str | None = None
        self.gene_map = GeneMap(viewer, self._on_appearance)
        self.local_map = LocalMap(viewer, self.gene_map)
        self.unlike_map = UnlikeMap(viewer)
        self.domain_map = DomainMap(viewer)
        self._later = later_in(viewer)
        for drawn in (self.gene_map, self.local_map, self.unlike_map, self.domain_map):
            drawn.later = self._later
        self.local_map.legend.later = self.domain_map.legend.later = self._later
        self._later(lambda: self.gene_map.set_colormap(preferred_colormap()))  # napari reads all manifests
        self._unlike_of: Any = None
        self._keys_bound = False
        self._hover = Hover(viewer, self.gene_map, self.hovered.emit)
        self.workspace.currentChanged.connect(self._on_slide)
        self.workspace.moved.connect(self._follow)
        self.workspace.framed.connect(self._on_framed)
        viewer.layers.events.inserted.connect(lambda event: self._adopt(event.value))
        viewer.layers.events.removed.connect(lambda event: self.workspace.forget(event.value))
        for layer in list(viewer.layers):
            self._adopt(layer)

    @classmethod
    def of(cls, viewer: Any) -> "Session":
        """Return the session of `viewer` (a napari viewer, or a plugin proxy of one)."""
        viewer = _unwrap(viewer)
        key = id(viewer)
        if key not in _SESSIONS:
            _SESSIONS[key] = cls(viewer)
            weakref.finalize(viewer, _SESSIONS.pop, key, None)
        return _SESSIONS[key]

    @property
    def viewer(self) -> Any:
        """The napari viewer itself (not a plugin proxy), or None once it is gone."""
        return self._viewer()

    @property
    def gene(self) -> str | None:
        """The selected gene."""
        return self.genes_shown[0] if self.genes_shown else None

    @property
    def device(self) -> str:
        """What models run on, "auto" or PyTorch's name: chosen on the Predict page, else set before."""
        return read_preferences().device if self._device is None else self._device

    @device.setter
    def device(self, name: str) -> None:
        self._device = name

    # --- the slide that is shown -----------------------------------------------------------------
    @property
    def state(self) -> SlideState | None:
        """The slide that is shown, with all that is known of it; None while there is none."""
        return self.workspace.current

    @property
    def slide(self) -> "Slide | None":
        """The slide that is shown, None where there is none (e.g. an h5ad opened alone)."""
        return None if self.state is None else self.state.slide

    @property
    def adata(self) -> "AnnData | None":
        """The prediction that is shown, as docs/prediction-file.md states; None where there is none."""
        return None if self.state is None else self.state.adata

    @property
    def result(self) -> Result | None:
        """The prediction that is shown, with its name and file."""
        return None if self.state is None else self.state.shown

    @property
    def measured(self) -> "AnnData | None":
        """Raw counts attached to the prediction by `set_measured`, or None.

        What docks compare with is ``layers["measured"]``, which a prediction may also bring along itself.
        """
        return None if self.result is None else self.result.measured

    @property
    def frame(self) -> Frame:
        """How the layers of the slide that is shown are placed."""
        return Frame() if self.state is None else self.state.frame

    @property
    def layers(self) -> list[Any]:
        """The layers of the slide that is shown, the lowest first; also those that belong to no slide."""
        return self.workspace.layers

    def set_prediction(self, adata: "AnnData | None", slide: "Slide | None" = None) -> None:
        """Show `adata` in all docks; keep the gene if it has it.

        It is kept beside the predictions of its slide, which is shown.

        Parameters
        ----------
        adata
            The prediction, or None to show none.
        slide
            Its slide; None finds it (see `Workspace.state_of`).
        """
        if adata is None:
            if self.state is not None:
                self.state.shown = None
            self._repaint()
            return
        of = None if slide is None else next((s for s in self.workspace.slides if s.slide is slide), None)
        if of is None and slide is not None and self.workspace.state_of(adata) is None:
            of = self.workspace.add(slide.name, slide)
        self.show_result(self.workspace.add_result(adata, of))

    def show_result(self, state: SlideState, result: Result | None = None) -> None:
        """Show slide `state`, and of its predictions `result` (None: the one shown last)."""
        if result is not None:
            state.shown = result
        if state is self.state:
            self._repaint()
            self.workspace.listChanged.emit()
        else:
            self.workspace.show(state)

    def _on_slide(self, state: SlideState | None) -> None:
        self.slideChanged.emit(state)
        self._repaint()

    def _repaint(self) -> None:
        self.local_map.set_aside(False)
        self._paint_from(self.adata)
        self.predictionChanged.emit(self.adata)

    def _follow(self) -> None:
        """Draw in the frame that the slide now has; what is drawn was placed there already."""
        for drawn in (self.gene_map, self.local_map, self.unlike_map):
            drawn.frame = self.frame

    def _on_framed(self) -> None:
        self._follow()
        self.slideChanged.emit(self.state)

    def set_measured(
        self,
        measured: "AnnData | None",
        of: Result | None = None,
        *,
        of_slide: bool = False,
        layer: MeasuredLayer | None = None,
    ) -> None:
        """Attach raw counts to a prediction, or remove what was measured.

        Parameters
        ----------
        measured
            The counts; None removes them.
        of
            The prediction; None takes the one that is shown.
        of_slide
            Whether they came with the slide, which brings them again: the prediction counts as unchanged.
        layer
            What a worker made of `measured` (`ahead.attaching`), as long work on many spots and genes must;
            None makes it here.

        Raises
        ------
        UserError
            When there is no prediction yet, or as `truth.attach_measured`; nothing is changed then.
        """
        result = self.result if of is None else of
        if result is None:
            raise UserError(NO_PREDICTION)
        if measured is None:
            detach_measured(result.adata)
        else:
            (layer or measured_layer(result.adata, measured)).put_into(result.adata)
        result.measured = measured
        if not of_slide:
            self.workspace.changed(result.adata)
        if result is self.result:
            self._repaint()

    def _paint_from(self, adata: "AnnData | None") -> None:
        names = [] if adata is None else [str(name) for name in adata.var_names]
        known = set(names)
        kept = [gene for gene in self.genes_shown if gene in known] or names[:1]
        self.gene_map.set_prediction(adata, self.frame)
        self.local_map.refresh()
        self._unlike_of = adata
        if self.unlike_map.layer is None:  # to add a second layer would hold the window up as long again
            self._later(self._draw_unlike)
        else:
            self._draw_unlike()
        if adata is None:
            return
        if not known.issuperset(self.gene_order) or not self.gene_order:
            self.gene_order = names
        self._bind_keys()
        self.show_genes(kept)

    def _draw_unlike(self) -> None:
        self.unlike_map.set_prediction(self._unlike_of, self.frame)

    def _adopt(self, layer: Any) -> None:
        """Give a layer to its slide; a prediction that was opened from a file is shown."""
        adata = layer.metadata.get(keys.LAYER_ADATA)
        opened = layer.metadata.get(keys.LAYER_KIND) == "gene" and LAYER_SLOT not in layer.metadata
        if not opened or adata is None or self.workspace.of_layer(layer) is not None:
            self.workspace.adopt(layer)
            return
        file = layer.source.path
        state = self.workspace.add_result(adata, file=None if file is None else Path(file))
        layer.metadata[keys.LAYER_OF] = state.number
        self.workspace.adopt(layer)
        self.gene_map.set_prediction(None)  # its layers are drawn anew, around this one
        self.gene_map.adopt(layer)
        self.show_result(state)

    def preview(self, partial: Any, state: SlideState) -> None:
        """Show the gene in the spots predicted so far of a slide, where it is shown.

        Its prediction is untouched, with which the local map comes back: neighbours change with every spot.

        Parameters
        ----------
        partial
            The same AnnData at every call, NaN in the spots that are still coming.
        state
            The slide.
        """
        if state is not self.state:
            return
        self.local_map.set_aside(True)
        shown = self.gene_map.values
        if shown is None or shown.adata is not partial:
            self._paint_from(partial)
            return
        self.gene_map.reread()
        self.genesShownChanged.emit(list(self.genes_shown))

    def _on_appearance(self) -> None:
        self.local_map.refresh()
        self.appearanceChanged.emit()

    def set_map_kind(self, kind: MapKind) -> None:
        """Paint the gene itself, its local Moran's I, or the classes of it."""
        if kind is not self.local_map.kind:
            self.local_map.set_kind(kind)
            self.mapKindChanged.emit(kind)

    def select_gene(self, name: str) -> None:
        """Select gene `name`; a second gene overlaid stays unless it is the same."""
        self.show_genes([name, *(gene for gene in self.genes_shown[1:] if gene != name)])

    def show_genes(self, names: list[str]) -> None:
        """Paint `names` (one gene, or two overlaid); the first is the selected gene.

        Of genes that the prediction shown lacks, the first changes nothing and the second is left out.
        """
        self._show(list(names[:2]), beside=None)

    def show_pair(self, gene: str, beside: str) -> None:
        """Select `gene`, with `beside` in the second canvas."""
        self._show([gene], beside=beside if beside != gene else None)

    def _show(self, names: list[str], beside: str | None) -> None:
        values = self.gene_map.values
        if values is not None:  # a table may still show the numbers of the prediction before
            if names and names[0] not in values:
                return
            names = [name for name in names if name in values]
            beside = beside if beside is not None and beside in values else None
        self.genes_shown = names
        pair_before, self.gene_beside = self.gene_beside, beside
        self.gene_map.show(self.genes_shown)
        self.genesShownChanged.emit(list(self.genes_shown))
        if beside != pair_before:
            self.pairChanged.emit()

    def set_gene_set(self, name: str, genes: Iterable[str]) -> None:
        """Choose `genes` to show together, under `name`."""
        chosen = tuple(dict.fromkeys(genes))
        if (name, chosen) != (self.gene_set_name, self.gene_set):
            self.gene_set_name, self.gene_set = name, chosen
            self.geneSetChanged.emit(chosen)

    @property
    def gene_sets_name(self) -> str:
        """What the gene sets are called: their file, or those that come along."""
        return OUR_SETS if self.gene_sets_file is None else self.gene_sets_file.name

    def set_gene_sets(self, sets: Mapping[str, Sequence[str]], file: Path | None) -> None:
        """Look for the gene sets of a GMT file on every page, in the report and in exports.

        Parameters
        ----------
        sets
            Name → genes.
        file
            Where they were read from; None of those that come along (`pathways.bundled`).
        """
        self.gene_sets, self.gene_sets_file = sets, file
        self.geneSetsChanged.emit()

    def step(self, by: int) -> None:
        """Select the gene `by` places further in `gene_order`; stays at the ends."""
        if not self.gene_order:
            return
        order = self.gene_order
        here = order.index(self.gene) if self.gene in order else -by
        self.select_gene(order[min(max(here + by, 0), len(order) - 1)])

    def show_quantity(self, quantity: Quantity) -> None:
        """Show another quantity of the gene; nothing happens where the prediction does not have it."""
        values = self.gene_map.values
        if values is not None and values.why_not(quantity) is None:
            self.gene_map.set_quantity(quantity)

    def _bind_keys(self) -> None:
        """Bind what `shortcuts` lists (Up and Down are napari's for 3-D axes)."""
        viewer = self.viewer
        if viewer is None or self._keys_bound:
            return
        for key, by in STEP.items():
            viewer.bind_key(key, lambda _, by=by: self.step(by), overwrite=True)
        for key, quantity in SHOW_QUANTITY.items():
            viewer.bind_key(key, lambda _, shown=quantity: self.show_quantity(shown), overwrite=True)
        self._keys_bound = True


def preferred_colormap() -> str:
    """Return the colour map set in Preferences, or the default where none is."""
    try:
        from napari.settings import get_plugin_settings

        name = str(get_plugin_settings("napari-flag").display.colormap)
    except (ImportError, KeyError, AttributeError):  # napari before 0.9, or not installed as plugin
        return DEFAULT_COLORMAP
    return name if name in COLORMAPS else DEFAULT_COLORMAP
