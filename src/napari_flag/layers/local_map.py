"""The map of a gene's local Moran's I or of its clusters, in place of the gene's own map.  Holds no Qt."""

from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt

from napari_flag import keys
from napari_flag.formatting import probability
from napari_flag.layers.colour_bar import title_bar
from napari_flag.layers.frame import Frame
from napari_flag.layers.gene_map import DIVERGING, GeneMap
from napari_flag.layers.gene_values import Quantity
from napari_flag.layers.kept import Kept
from napari_flag.layers.legend import Legend, LegendRow
from napari_flag.layers.raster import SpotRaster
from napari_flag.layers.spot_layers import (
    SpotLayer,
    banded_colormap,
    set_colormap,
    set_limits,
    set_place,
    set_shown,
    shown_together,
)

if TYPE_CHECKING:
    from napari_flag.analysis.spatial import LocalMoran, Neighbours


CLASS_COLOURS: Final = ("#c8c8c8", "#d55e00", "#56b4e9", "#0072b2", "#e69f00")
"""Of the classes in the order of `analysis.spatial.CLASSES`; Okabe & Ito's, apart for all eyes."""

CLASS_MEANINGS: Final = (
    "not significant",
    "high among high",
    "low among high",
    "low among low",
    "high among low",
)
CLASS_ORDER: Final = (1, 3, 4, 2, 0)
"""How classes are listed: clusters, outliers, the rest."""


class MapKind(Enum):
    """What of a gene the canvas shows; the value is the word on buttons and layers."""

    EXPRESSION = "expression"
    LOCAL = "local Moran's I"
    CLASSES = "clusters"

    @property
    def meaning(self) -> str:
        """One line that explains it to a person."""
        return _MEANING[self]

    @property
    def unit(self) -> str:
        """What stands at the colour bar in place of a unit; the legend explains the clusters."""
        return "" if self is MapKind.CLASSES else "no unit"


_MEANING: Final = {
    MapKind.EXPRESSION: "The gene itself",
    MapKind.LOCAL: "Red where a spot is like its neighbours, blue where it is their opposite",
    MapKind.CLASSES: "Spots that are high among high, low among low, or outliers, where significant",
}


FloatArray: TypeAlias = npt.NDArray[np.float64]
Key: TypeAlias = tuple[str, Quantity]
"""Gene and quantity."""
Wanted: TypeAlias = tuple[Key, FloatArray, Any]
"""What to compute classes of: the key, (n,) values, and (n, n) CSR weights."""

LIMITS_PERCENTILE: Final = 99.0


@dataclass(slots=True)
class Shared:
    """What all local maps of one session share.

    Parameters
    ----------
    kind
        What is shown.
    corrected
        Whether classes are masked by q, over all spots together, instead of p.
    of
        Prediction that the classes are of.
    found
        Classes computed so far.
    maps
        The maps that show it.
    """

    kind: MapKind = MapKind.EXPRESSION
    corrected: bool = False
    of: Any = None
    found: "dict[Key, LocalMoran]" = field(default_factory=dict)
    maps: "list[LocalMap]" = field(default_factory=list)


class LocalMap(SpotLayer):
    """Draws local Moran's I of what a gene map shows, over the same spots.

    Parameters
    ----------
    viewer
        A napari viewer (the model, not a plugin proxy).
    gene_map
        Whose gene and quantity are followed; it is covered while this map is shown.
    beside
        The map of another canvas whose kind, mask and classes are shared; None for the first.
    """

    def __init__(self, viewer: Any, gene_map: GeneMap, beside: "LocalMap | None" = None) -> None:
        super().__init__(viewer)
        self.shared: Shared = Shared() if beside is None else beside.shared
        self.shared.maps.append(self)
        self._first = beside is None
        self._map = gene_map
        self._adata: Any = None
        self._painted: tuple[Any, ...] | None = None
        self._aside = False
        self.legend = Legend(viewer, "clusters")
        gene_map.hover_extra = self._class_text

    # --- what is shown ---------------------------------------------------------------------------
    @property
    def key(self) -> Key | None:
        """Gene and quantity this map is of: those of the gene map, an expression level in any case.

        None without a gene, and while this map is set aside.
        """
        if self._map.values is None or not self._map.genes or self._aside:
            return None
        quantity = self._map.quantity
        return self._map.genes[0], quantity if quantity.is_expression else Quantity.PREDICTED

    @property
    def kind(self) -> MapKind:
        """What is shown."""
        return self.shared.kind

    @property
    def corrected(self) -> bool:
        """Whether classes are those significant over all spots together (q, Benjamini–Hochberg).

        Else they are those of each spot on its own (p), as esda and GeoDa mask by default.
        """
        return self.shared.corrected

    def set_kind(self, kind: MapKind) -> None:
        """Show the gene itself, its local Moran's I, or the classes, in all canvases."""
        self.shared.kind = kind
        self._refresh_all()

    def move_to(self, frame: Frame) -> None:
        """Draw in another frame of the same slide."""
        self.frame = frame
        if self._map.raster is not None:
            self._place(self._map.raster)

    def leave(self) -> None:
        """Show nothing any more: the canvas is being closed."""
        self.shared.maps.remove(self)

    def _refresh_all(self) -> None:
        for other in self.shared.maps:
            if other is self.shared.maps[0]:
                other.refresh()
            else:  # another canvas is drawn in a turn of its own
                other.later(other.refresh)

    def set_corrected(self, corrected: bool) -> None:
        """Mask classes by q (over all spots together) or by p (each spot on its own)."""
        self.shared.corrected = corrected
        self._refresh_all()

    def set_aside(self, aside: bool) -> None:
        """Leave the place to the gene, and follow it no more, or follow it again from the next `refresh` on.

        What was computed is kept for when the gene map shows the same prediction again.
        """
        before, self._aside = self._aside, aside
        if aside and not before:
            if self.layer is not None:
                set_shown(self.layer, False)
            self.legend.clear()
            self._map.cover(False)

    def refresh(self) -> None:
        """Follow the gene map: call when its prediction, gene or quantity changed."""
        if self._aside:
            return
        with shown_together(self._viewer):
            self._refresh()

    def _refresh(self) -> None:
        values = self._map.values
        if (None if values is None else values.adata) is not self._adata:
            self._adata = None if values is None else values.adata
            if self._first:
                self.shared.of, self.shared.found = self._adata, {}
            self._painted = None
            self._rest()
            self._write_legend()
        covering = self.kind is not MapKind.EXPRESSION and self.key is not None
        if covering and self.layer is None:  # the gene stays in sight while napari adds the layer
            self._add_empty()
            self.later(self.refresh)
            return
        self._map.cover(covering)
        if not self._map.covered or self.key is None:
            self._hide()
            return
        elsewhere = self._painted is None or self.frame != self._map.frame
        if self.layer is not None and elsewhere and self._map.raster is not None:
            self._take_place(self.layer, self._map.raster)
        state = (self.kind, *self.key, id(self.found(self.key)), self.corrected)
        if state != self._painted or self.layer is None:
            self._paint(self.key)
            self._painted = state
        self._show(self.layer, bar=self.kind is not MapKind.CLASSES)
        self._make_active(self.layer, instead_of=self._gene_layer())
        self._write_legend()

    # --- classes ---------------------------------------------------------------------------------
    def neighbours(self, quantity: Quantity) -> "tuple[npt.NDArray[np.bool_], Neighbours]":
        """Return which (n,) spots the map is over, and the graph of these.

        Of the measurement, the spots of the one mask (`analysis.truth.measured_extent`), whatever the gene.
        """
        return neighbours_of(self._adata, quantity)

    def values(self, key: Key) -> FloatArray:
        """Return the values of a gene in the spots that have one."""
        assert self._map.values is not None
        seen, _ = self.neighbours(key[1])
        return self._map.values.values(*key)[seen].astype(np.float64)

    def found(self, key: Key) -> "LocalMoran | None":
        """Return the classes of a gene, if they were handed in."""
        return self.shared.found.get(key) if self._adata is self.shared.of else None

    def classes(self, key: Key) -> npt.NDArray[np.int8] | None:
        """Return the class of each spot of `neighbours`, None where they were not handed in."""
        from napari_flag.analysis.spatial import classes_of

        found = self.found(key)
        return None if found is None else classes_of(found, corrected=self.corrected)

    def numbers(self, key: Key) -> npt.NDArray[np.float32]:
        """Return what is painted of a gene: (n,) local Moran's I or class, NaN where there is none."""
        classes = self.classes(key)
        if self.kind is MapKind.CLASSES and classes is None:
            return np.full(len(self.neighbours(key[1])[0]), np.nan, np.float32)
        return local_numbers(
            self._adata, key[1], self.values(key), classes if self.kind is MapKind.CLASSES else None
        )

    def set_found(self, found: "dict[Key, LocalMoran]", of: Any) -> None:
        """Take over classes, each over the spots of `neighbours`; not of a prediction that is left by now.

        Parameters
        ----------
        found
            Key → classes.
        of
            The prediction they were computed of, as `shared.of` was then.
        """
        if of is self.shared.of:
            self.shared.found.update(found)
            self._refresh_all()

    def missing(self) -> "list[Wanted]":
        """Return what must be computed before the classes of all canvases can be shown."""
        wanted: dict[Key, Wanted] = {}
        for other in self.shared.maps:
            key = other.key
            if other._adata is not self.shared.of:
                continue
            if self.kind is MapKind.CLASSES and key is not None and key not in self.shared.found:
                _, graph = other.neighbours(key[1])
                values = other.values(key)
                if np.isfinite(values).all():  # else the gene was not measured, and has no classes
                    wanted[key] = (key, values, graph.weights)
        return list(wanted.values())

    # --- the layer -------------------------------------------------------------------------------
    def _rest(self) -> None:
        """Show nothing of the prediction before: an empty layer in the place of the next, hidden."""
        layer = self.layer
        if self._adata is None or layer is None or self._map.raster is None:
            self._remove()
            return
        set_shown(layer, False)
        self.later(self._blank)

    def _blank(self) -> None:
        """Have the resting layer show nothing, in its new place, whoever turns it on."""
        layer, raster = self.layer, self._map.raster
        if self._painted is None and layer is not None and raster is not None:
            self._take_place(layer, raster)
            layer.data = np.full(raster.lookup.shape, np.nan, np.float32)

    def _take_place(self, layer: Any, raster: SpotRaster) -> None:
        self.frame = self._map.frame
        set_place(layer, raster.options(self.frame, {keys.LAYER_ADATA: self._adata}))

    def _paint(self, key: Key) -> None:
        assert self._map.raster is not None
        layer = self.layer
        numbers = self.numbers(key)
        if self.kind is MapKind.CLASSES:
            limits = (-0.5, len(CLASS_COLOURS) - 0.5)
            set_colormap(layer, banded_colormap("clusters", CLASS_COLOURS))
        else:
            span = span_of(numbers)
            limits = (-span, span)
            set_colormap(layer, DIVERGING)
        layer.data = self._map.raster.paint(numbers)
        set_limits(layer, limits, limits)
        layer.name = f"{key[0]} · {self.kind.value} ({key[1].value})"
        # narrow: the legend of the clusters stands in the other corner
        title_bar(self._viewer, layer, key[0], self.kind.value, key[1].value, self.kind.unit)

    def _add_empty(self) -> Any:
        assert self._map.raster is not None
        self.frame = self._map.frame
        metadata = {keys.LAYER_KIND: "local", keys.LAYER_ADATA: self._adata}
        layer = self._add(
            None,
            None,
            self._map.raster,
            metadata,
            name=MapKind.LOCAL.value,
            contrast_limits=(-1, 1),
            visible=False,
        )
        layer.colorbar.box, layer.colorbar.position = True, "top_right"
        return layer

    def _gene_layer(self) -> Any:
        return self._map.layer(self._map.quantity)

    def _make_active(self, layer: Any, instead_of: Any) -> None:
        """Select the layer that is shown, so that napari's layer controls are those of it."""
        selection = self._viewer.layers.selection
        if layer is not None and selection.active in (None, instead_of):
            selection.active = layer

    def _hide(self) -> None:
        if self.layer is not None:
            set_shown(self.layer, False)
            self._make_active(self._gene_layer(), instead_of=self.layer)
        self._write_legend()

    def _write_legend(self) -> None:
        """Name and count the classes in a corner of the canvas while they are painted."""
        key = self.key
        if key is None or not self._map.covered or self.kind is not MapKind.CLASSES:
            self.legend.clear()
            return
        classes = self.classes(key)
        rows = [
            LegendRow(
                CLASS_COLOURS[number],
                CLASS_MEANINGS[number],
                None if classes is None else int(np.count_nonzero(classes == number)),
            )
            for number in CLASS_ORDER
        ]
        self.legend.show(rows, self.layer)

    def _class_text(self, spot: int) -> str | None:
        """Return the class of spot number `spot`, where classes are shown."""
        from napari_flag.analysis.spatial import CLASSES

        key = self.key
        found = None if key is None else self.found(key)
        if self.kind is not MapKind.CLASSES or found is None or key is None:
            return None
        seen, _ = self.neighbours(key[1])
        classes = self.classes(key)
        if not seen[spot] or classes is None:
            return None
        row = int(np.count_nonzero(seen[:spot]))
        number = int(classes[row])
        chance = f"p {probability(found.p[row])}, q {probability(found.q[row])}"
        return f"{CLASSES[number]}, {CLASS_MEANINGS[number]} ({chance})"


_NEIGHBOURS: Final[dict[Quantity, Kept[Any]]] = {
    quantity: Kept(f"neighbours of {quantity.value}") for quantity in Quantity
}


def neighbours_of(adata: Any, quantity: Quantity) -> "tuple[npt.NDArray[np.bool_], Neighbours]":
    """Return which (n,) spots of `adata` have values of `quantity`, and the graph of these, made once."""
    from napari_flag.analysis.spatial import source_neighbours

    if quantity is not Quantity.MEASURED:
        quantity = Quantity.PREDICTED  # one draw has all spots, too
        made_from: tuple[Any, ...] = (adata.obsm[keys.SPATIAL],)
    else:
        made_from = (adata.obsm[keys.SPATIAL], adata.layers.get(keys.MEASURED))
    found: tuple[npt.NDArray[np.bool_], Neighbours] = _NEIGHBOURS[quantity].of(
        adata, made_from, lambda: source_neighbours(adata, quantity.value)
    )
    return found


def prepare_measured(adata: Any, values: npt.NDArray[np.float32]) -> None:
    """Make what `neighbours_of` gives of the measurement before `values` are ``layers["measured"]``."""
    from anndata import AnnData

    from napari_flag.analysis.spatial import source_neighbours

    placed = AnnData(obs=adata.obs, uns=adata.uns, obsm=adata.obsm, layers={keys.MEASURED: values})
    _NEIGHBOURS[Quantity.MEASURED].of(
        adata,
        (adata.obsm[keys.SPATIAL], values),
        lambda: source_neighbours(placed, Quantity.MEASURED.value),
    )


def local_numbers(
    adata: Any, quantity: Quantity, values: FloatArray, classes: npt.NDArray[np.int8] | None = None
) -> npt.NDArray[np.float32]:
    """Return what is painted: (n,) float32 local Moran's I, NaN in spots without a value.

    Parameters
    ----------
    adata, quantity
        Prediction, and what of it.
    values
        (m,) of the spots that `neighbours_of` names.
    classes
        (m,) classes of these spots, to paint instead.
    """
    from napari_flag.analysis.spatial import local_values

    seen, graph = neighbours_of(adata, quantity)
    numbers = np.full(len(seen), np.nan, np.float32)
    numbers[seen] = local_values(values, graph.weights) if classes is None else classes
    return numbers


def span_of(numbers: npt.NDArray[np.float32]) -> float:
    """Return how far the colours of local Moran's I reach to either side of 0."""
    return float(np.nanpercentile(np.abs(numbers), LIMITS_PERCENTILE)) or 1.0
