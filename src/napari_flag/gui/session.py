"""What the docks of one viewer share: prediction, truth, slide, selected gene and gene set.

A dock never talks to another dock.  It changes the session, whose signals all docks listen to;
because the session belongs to the viewer, the result is kept when a dock closes.
"""

import weakref
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QObject, Signal

from napari_flag import keys
from napari_flag.analysis.truth import attach_measured
from napari_flag.errors import UserError
from napari_flag.gui.controls.gl_context import keep_context_of
from napari_flag.gui.shortcuts import SHOW_QUANTITY, STEP
from napari_flag.layers.gene_map import COLORMAPS, DEFAULT_COLORMAP, LAYER_SLOT, GeneMap, Hover
from napari_flag.layers.gene_values import Quantity
from napari_flag.layers.local_map import LocalMap, MapKind
from napari_flag.layers.overlays import UnlikeMap
from napari_flag.layers.slide_layers import follow_slides

if TYPE_CHECKING:
    from anndata import AnnData
    from napari.components import ViewerModel

    from napari_flag.slides.slide import Slide


_SESSIONS: dict[int, "Session"] = {}


def _unwrap(viewer: Any) -> Any:
    """Return the viewer itself: plugins are handed a proxy that makes every layer setter slow."""
    return getattr(viewer, "__wrapped__", viewer)


class Session(QObject):
    """The state that the docks of one viewer share; get it with `Session.of`.

    Attributes
    ----------
    adata
        The current prediction as in CONTRIBUTING, "The prediction file", or None.
    slide
        The slide it was made from, or None (e.g. an h5ad opened alone).
    genes_shown
        One gene, or two for an overlay (magenta, green); empty before the first.
    gene_beside
        Another gene for the second canvas (a pair that was clicked), or None: then it shows the same.
    gene_set, gene_set_name
        Genes shown together, and what they are called; empty before one is chosen.  They need not
        all be in the prediction.
    measured
        Raw counts attached to the prediction by `set_measured`, or None.  What docks compare with is
        ``layers["measured"]``, which a prediction may also bring along itself.
    gene_order
        Genes in the order the arrow keys walk through them; the Genes dock sets it.
    gene_map
        The gene layers drawn in the viewer; follows prediction and genes by itself.
    local_map
        Where the gene clusters, in the place of the gene; follows by itself too.
    unlike_map
        The rings that say how far each spot lies from the training tissue; follows the prediction.
    """

    predictionChanged = Signal(object)
    """The new prediction (AnnData), or None when it was cleared."""
    genesShownChanged = Signal(list)
    """All genes now painted, the selected one first."""
    mapKindChanged = Signal(object)
    """What of the gene is painted: a `MapKind`."""
    pairChanged = Signal()
    """`gene_beside` changed."""
    geneSetChanged = Signal(tuple)
    """The genes of the new gene set; its name is `gene_set_name`."""
    appearanceChanged = Signal()
    """Quantity, colours or limits of the gene map changed."""
    hovered = Signal(str)
    """Spot id and values under the mouse, or an empty text beside the spots."""

    def __init__(self, viewer: "ViewerModel") -> None:
        super().__init__()
        self._viewer = weakref.ref(viewer)
        keep_context_of(viewer)
        self.adata: AnnData | None = None
        self.slide: Slide | None = None
        self.genes_shown: list[str] = []
        self.gene_beside: str | None = None
        self.gene_order: list[str] = []
        self.gene_set: tuple[str, ...] = ()
        self.gene_set_name = ""
        self.measured: AnnData | None = None
        self.gene_map = GeneMap(viewer, self._on_appearance)
        self.gene_map.colormap = preferred_colormap()
        self.local_map = LocalMap(viewer, self.gene_map)
        self.unlike_map = UnlikeMap(viewer)
        self._keys_bound = False
        self._hover = Hover(viewer, self.gene_map, self.hovered.emit)
        viewer.layers.events.inserted.connect(lambda event: self._adopt(event.value))
        viewer.layers.events.removed.connect(lambda event: self._follow_slide(event.value))
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

    def set_prediction(self, adata: "AnnData | None", slide: "Slide | None" = None) -> None:
        """Make `adata` the prediction that all docks show; keep the gene if the new one has it.

        Parameters
        ----------
        adata
            The prediction, or None to clear it.
        slide
            Its slide; None keeps the slide already known.
        """
        if adata is not self.adata:
            self.measured = None  # it was attached to the prediction before
        self.adata = adata
        if slide is not None:
            self.slide = slide
        self._paint_from(adata)
        self.predictionChanged.emit(adata)

    def set_measured(self, measured: "AnnData | None") -> None:
        """Attach raw counts to the prediction, or remove what was measured.

        Raises
        ------
        UserError
            When there is no prediction yet, or as `matching.attach_measured`; nothing is changed then.
        """
        if self.adata is None:
            raise UserError("There is no prediction to compare yet; predict first, or open a prediction.")
        if measured is None:
            self.adata.layers.pop(keys.MEASURED, None)
        else:
            attach_measured(self.adata, measured)
        self.measured = measured
        self.set_prediction(self.adata)

    def _paint_from(self, adata: "AnnData | None") -> None:
        names = [] if adata is None else [str(name) for name in adata.var_names]
        known = set(names)
        kept = [gene for gene in self.genes_shown if gene in known] or names[:1]
        self.gene_map.set_prediction(adata)
        self.local_map.refresh()
        self.unlike_map.set_prediction(adata)
        if adata is None:
            return
        if not known.issuperset(self.gene_order) or not self.gene_order:
            self.gene_order = names
        self._bind_keys()
        self.show_genes(kept)

    def _follow_slide(self, layer: Any) -> None:
        """Place the prediction on a slide that was opened, or in its own µm once the slide was removed."""
        if keys.LAYER_SLIDE in layer.metadata:
            follow_slides(self.viewer)

    def _adopt(self, layer: Any) -> None:
        """Make a prediction that was opened from a file the current one."""
        self._follow_slide(layer)
        adata = layer.metadata.get(keys.LAYER_ADATA)
        if layer.metadata.get(keys.LAYER_KIND) != "gene" or adata is None or adata is self.adata:
            return
        if LAYER_SLOT not in layer.metadata:
            self.set_prediction(None)
            self.gene_map.adopt(layer)
            self.set_prediction(adata)

    def preview(self, partial: Any) -> None:
        """Show the spots predicted so far; the prediction itself is untouched."""
        self._paint_from(partial)

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
        """Paint `names` (one gene, or two overlaid); the first is the selected gene."""
        self._show(list(names[:2]), beside=None)

    def show_pair(self, gene: str, beside: str) -> None:
        """Select `gene`, with `beside` in the second canvas."""
        self._show([gene], beside=beside if beside != gene else None)

    def _show(self, names: list[str], beside: str | None) -> None:
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
