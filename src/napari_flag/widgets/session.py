"""What the docks of one viewer share: the prediction, the slide, and the gene looked at.

A dock never talks to another dock.  It changes the session, and the session tells everyone;
because the session belongs to the viewer, the result is kept when a dock closes.
"""

import weakref
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QObject, Signal

from napari_flag import keys
from napari_flag.viewer.gene_map import COLORMAPS, DEFAULT_COLORMAP, LAYER_SLOT, GeneMap
from napari_flag.viewer.hover import Hover
from napari_flag.viewer.unlike_map import UnlikeMap

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
    gene_order
        Genes in the order the arrow keys walk through them; the Genes dock sets it.
    gene_map
        The gene layers drawn in the viewer; follows prediction and genes by itself.
    unlike_map
        The rings that say how far each spot lies from the training tissue; follows the prediction.
    """

    predictionChanged = Signal(object)
    """The new prediction (AnnData), or None when it was cleared."""
    previewArrived = Signal(object)
    """A partial prediction: an AnnData of the spots done so far, same ``var_names`` throughout."""
    geneSelected = Signal(str)
    """The gene now looked at."""
    genesShownChanged = Signal(list)
    """All genes now painted, the selected one first."""
    lookChanged = Signal()
    """Quantity, colours or limits of the gene map changed."""
    hovered = Signal(str)
    """Spot id and values under the mouse, or an empty text beside the spots."""

    def __init__(self, viewer: "ViewerModel") -> None:
        super().__init__()
        self._viewer = weakref.ref(viewer)
        self.adata: AnnData | None = None
        self.slide: Slide | None = None
        self.genes_shown: list[str] = []
        self.gene_order: list[str] = []
        self.gene_map = GeneMap(viewer, self.lookChanged.emit)
        self.gene_map.colormap = preferred_colormap()
        self.unlike_map = UnlikeMap(viewer)
        self._arrows_bound = False
        self._hover = Hover(viewer, self.gene_map, self.hovered.emit)
        viewer.layers.events.inserted.connect(lambda event: self._take_up(event.value))
        for layer in list(viewer.layers):
            self._take_up(layer)

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
        """The gene now looked at."""
        return self.genes_shown[0] if self.genes_shown else None

    def set_prediction(self, adata: "AnnData | None", slide: "Slide | None" = None) -> None:
        """Make `adata` the prediction everyone looks at; keep the gene if the new one has it.

        Parameters
        ----------
        adata
            The prediction, or None to clear it.
        slide
            Its slide; None keeps the slide already known.
        """
        self.adata = adata
        if slide is not None:
            self.slide = slide
        self._paint_from(adata)
        self.predictionChanged.emit(adata)

    def _paint_from(self, adata: "AnnData | None") -> None:
        names = [] if adata is None else [str(name) for name in adata.var_names]
        known = set(names)
        kept = [gene for gene in self.genes_shown if gene in known] or names[:1]
        self.gene_map.set_prediction(adata)
        self.unlike_map.set_prediction(adata)
        if adata is None:
            return
        if not known.issuperset(self.gene_order) or not self.gene_order:
            self.gene_order = names
        self._bind_arrows()
        self.show_genes(kept)

    def _take_up(self, layer: Any) -> None:
        """Make a prediction that was opened from a file the current one."""
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
        self.previewArrived.emit(partial)

    def select_gene(self, name: str) -> None:
        """Look at gene `name`; a second gene overlaid stays unless it is the same."""
        self.show_genes([name, *(gene for gene in self.genes_shown[1:] if gene != name)])

    def show_genes(self, names: list[str]) -> None:
        """Paint `names` (one gene, or two overlaid); the first is the gene looked at."""
        before, self.genes_shown = self.gene, list(names[:2])
        self.gene_map.show(self.genes_shown)
        if self.gene is not None and self.gene != before:
            self.geneSelected.emit(self.gene)
        self.genesShownChanged.emit(list(self.genes_shown))

    def step(self, by: int) -> None:
        """Look at the gene `by` places further in `gene_order`; stays at the ends."""
        if not self.gene_order:
            return
        order = self.gene_order
        here = order.index(self.gene) if self.gene in order else -by
        self.select_gene(order[min(max(here + by, 0), len(order) - 1)])

    def _bind_arrows(self) -> None:
        """Up and Down over the picture walk through the genes (napari uses them for 3-D axes)."""
        viewer = self.viewer
        if viewer is not None and not self._arrows_bound:
            viewer.bind_key("Up", lambda _: self.step(-1), overwrite=True)
            viewer.bind_key("Down", lambda _: self.step(1), overwrite=True)
            self._arrows_bound = True


def preferred_colormap() -> str:
    """Return the colour map set in Preferences, or the default where none is."""
    try:
        from napari.settings import get_plugin_settings

        name = str(get_plugin_settings("napari-flag").display.colormap)
    except (ImportError, KeyError, AttributeError):  # napari before 0.9, or not installed as plugin
        return DEFAULT_COLORMAP
    return name if name in COLORMAPS else DEFAULT_COLORMAP
