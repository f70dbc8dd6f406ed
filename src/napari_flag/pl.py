"""Pictures of a prediction in notebooks and scripts, as ``nf.pl``; grammar as in scanpy and squidpy.

    import napari_flag as nf

    nf.pl.gene(prediction, "ERBB2")                       # the expectation, over the H&E
    nf.pl.gene(prediction, "ERBB2", layer="difference")   # predicted − measured
    nf.pl.side_by_side(prediction, ["ERBB2", "CD8A"])     # prediction above, measurement below
    nf.pl.moran(prediction, "ERBB2", clusters=True)
    nf.pl.moran_scatter(prediction)
    nf.pl.coexpression(prediction)

Every function takes a prediction (AnnData) or its file, draws into `ax` or a figure of its own, and returns
the axes; ``show=True`` opens a window where there is one.  Genes may be aliases (``"HER2"``).  All of it is
what docks, figures and the report draw, from the same numbers.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

from napari_flag import keys
from napari_flag.api import prediction_of
from napari_flag.errors import UserError
from napari_flag.progress import finish

if TYPE_CHECKING:
    import numpy.typing as npt
    from anndata import AnnData
    from matplotlib.axes import Axes

    from napari_flag.layers.gene_values import GeneValues, Quantity
    from napari_flag.slides.slide import Slide


__all__ = ["coexpression", "gene", "moran", "moran_scatter", "side_by_side"]

Drawn = TypeVar("Drawn")
DIFFERENCE: Final = "difference"
"""Name of what is shown beside the layers of the file: ``X`` − ``layers["measured"]``."""
GENES_SHOWN: Final = 50
"""How many of the most variable genes a heat map shows where none are named, as the Co-expression page."""


def gene(
    prediction: "AnnData | str | Path",
    gene: str,
    *,
    layer: str | None = None,
    slide: "Slide | None" = None,
    cmap: str = "viridis",
    vmin: float | None = None,
    vmax: float | None = None,
    ax: "Axes | None" = None,
    show: bool | None = None,
) -> "Axes":
    """Draw one gene over the H&E, spots at their true diameter.

    Parameters
    ----------
    prediction
        Of `predict` or `read_prediction`, or its h5ad.
    gene
        Symbol or alias.
    layer
        None is ``X``, the expectation; "sample", "sample_2" … a draw; "measured"; "sd" the standard deviation
        of a measurement; "difference" predicted − measured.
    slide
        Its slide, for a sharper H&E; None takes the small picture in the file.
    cmap
        Of expression and standard deviation; a difference is red and blue.
    vmin, vmax
        Ends of the colours, log2(count + 1); None takes the 1st and 99th percentile of prediction and
        measurement together.  Give both or neither.
    ax
        Where to draw; None makes a figure.
    show
        True shows it now.

    Raises
    ------
    UserError
        When the gene or the layer is not in the prediction, or one of `vmin` and `vmax` is missing.
    """
    from napari_flag.figures.gene_figure import SIZE, draw_genes
    from napari_flag.layers.gene_values import Contrast

    if (vmin is None) != (vmax is None):
        raise UserError("Only one end of the colours was given; give vmin and vmax, or neither.")
    prediction = prediction_of(prediction)
    [symbol] = _symbols(prediction, gene)
    values, quantity = _quantity(prediction, layer)
    limits = None if vmin is None or vmax is None else (vmin, vmax)
    ax = _axes(ax, SIZE)
    draw_genes(ax, values, [symbol], quantity, colormap=cmap, contrast=Contrast(fixed=limits), slide=slide)
    return _shown(ax, show)


def side_by_side(
    prediction: "AnnData | str | Path", genes: str | Sequence[str], *, show: bool | None = None
) -> "npt.NDArray[Any]":
    """Draw genes as predicted and, below, as measured, each gene in one colour scale.

    Parameters
    ----------
    prediction
        Predicted with a table that has counts, or with ``measured=``; or its h5ad.
    genes
        One symbol or alias, or several.
    show
        True shows it now.

    Returns
    -------
    (2, G) array of axes: predicted, measured.

    Raises
    ------
    UserError
        When a gene is not in the prediction, or nothing was measured.
    """
    import matplotlib.pyplot as plt
    import numpy as np

    from napari_flag.figures.spot_maps import draw_gene_maps

    prediction = prediction_of(prediction)
    symbols = _symbols(prediction, genes)
    _quantity(prediction, keys.MEASURED)
    figure = draw_gene_maps(prediction, symbols, plt.figure(layout="constrained"))
    return _shown(np.array(figure.axes, object).reshape(2, len(symbols)), show)


def moran(
    prediction: "AnnData | str | Path",
    gene: str,
    *,
    layer: str | None = None,
    clusters: bool = False,
    slide: "Slide | None" = None,
    ax: "Axes | None" = None,
    show: bool | None = None,
) -> "Axes":
    """Draw local Moran's I of one gene, or its HH, LL, HL and LH clusters.

    Parameters
    ----------
    prediction
        Of `predict` or `read_prediction`, or its h5ad.
    gene
        Symbol or alias.
    layer
        None is ``X``; "sample" …, or "measured".
    clusters
        The significant spots instead: p ≤ 0.05 in each spot, 999 conditional permutations.
    slide
        Its slide, for a sharper H&E.
    ax
        Where to draw; None makes a figure.
    show
        True shows it now.

    Raises
    ------
    UserError
        When the gene or layer is not there, or there are too few spots to test.
    """
    from napari_flag.analysis.spatial import classes_of, find_classes
    from napari_flag.figures.gene_figure import SIZE, draw_local
    from napari_flag.layers.local_map import MapKind, local_numbers, neighbours_of

    prediction = prediction_of(prediction)
    [symbol] = _symbols(prediction, gene)
    values, quantity = _quantity(prediction, layer)
    if not quantity.is_expression:
        raise UserError(
            f"Local Moran's I is of an expression level, not of “{layer}”; choose X (layer=None), a draw or "
            f"“{keys.MEASURED}”."
        )
    seen, graph = neighbours_of(prediction, quantity)
    column = values.values(symbol, quantity)[seen].astype("float64")
    classes = None
    if clusters:
        found = finish(find_classes([(symbol, column, graph.weights)]))
        classes = classes_of(found[symbol], corrected=False)
    numbers = local_numbers(prediction, quantity, column, classes)
    kind = MapKind.CLASSES if clusters else MapKind.LOCAL
    ax = _axes(ax, SIZE)
    draw_local(ax, prediction, (symbol, quantity), numbers, kind, slide=slide)
    return _shown(ax, show)


def moran_scatter(
    prediction: "AnnData | str | Path", *, ax: "Axes | None" = None, show: bool | None = None
) -> "Axes":
    """Draw Moran's I of every gene, one draw over measured, with SSC, the identity and names.

    A draw and not ``X``: an expectation is smoother than any measurement (see `docs/statistics.md`).

    Parameters
    ----------
    prediction
        With ``layers["measured"]``, or its h5ad.
    ax
        Where to draw; None makes a figure.
    show
        True shows it now.

    Raises
    ------
    UserError
        When nothing was measured, or the file holds no draw.
    """
    from napari_flag.analysis.compare import section_of
    from napari_flag.figures.agreement import SIZE, fill_named_moran

    prediction = prediction_of(prediction)
    for layer in (keys.MEASURED, keys.SAMPLE):
        _quantity(prediction, layer)
    ax = _axes(ax, SIZE)
    fill_named_moran(ax, section_of(prediction))
    return _shown(ax, show)


def coexpression(
    prediction: "AnnData | str | Path",
    genes: str | Sequence[str] | None = None,
    *,
    depth: bool = False,
    ax: "Axes | None" = None,
    show: bool | None = None,
) -> "Axes":
    """Draw correlations between genes: below the diagonal predicted, above it measured where it was.

    Parameters
    ----------
    prediction
        Of `predict` or `read_prediction`, or its h5ad.
    genes
        Symbols or aliases; None takes the 50 most variable.
    depth
        Leave in how deeply each spot was sequenced, which makes all genes correlate.
    ax
        Where to draw; None makes a figure.
    show
        True shows it now.

    Raises
    ------
    UserError
        When a gene is not in the prediction, or fewer than two are named.
    """
    from napari_flag.analysis.coexpression import correlate
    from napari_flag.figures.heat_maps import SIZE, fill_triangles
    from napari_flag.layers.gene_values import GeneValues

    prediction = prediction_of(prediction)
    if genes is None:
        symbols = list(GeneValues(prediction).ranked()[:GENES_SHOWN])
    else:
        symbols = _symbols(prediction, genes)
    together = finish(correlate(prediction, symbols, depth=depth))
    ax = _axes(ax, SIZE)
    fill_triangles(ax, together)
    return _shown(ax, show)


def _symbols(prediction: "AnnData", names: str | Sequence[str]) -> list[str]:
    """Return the genes of the prediction that `names` mean; a `UserError` says why there is none."""
    from napari_flag.gene_names import symbols_of

    return symbols_of([str(gene) for gene in prediction.var_names], names)


def _quantity(prediction: "AnnData", layer: str | None) -> "tuple[GeneValues, Quantity]":
    """Return the values of the prediction, and what of them `layer` names."""
    from napari_flag.layers.gene_values import GeneValues, Quantity

    values = GeneValues(prediction)
    known = {None: Quantity.PREDICTED, keys.MEASURED: Quantity.MEASURED, keys.SPREAD: Quantity.SPREAD}
    known |= {DIFFERENCE: Quantity.DIFFERENCE, keys.SAMPLE: Quantity.SAMPLE}
    draw = layer is not None and layer.startswith(keys.SAMPLE) and layer in prediction.layers
    quantity = Quantity.SAMPLE if draw else known.get(layer)
    if quantity is None:
        offered = sorted({*prediction.layers, DIFFERENCE})
        raise UserError(
            f"The prediction has no layer “{layer}”; choose X (layer=None) or one of {', '.join(offered)}."
        )
    reason = values.why_not(quantity)
    if reason is not None:
        raise UserError(reason)
    if draw and layer is not None:
        values.set_sample(layer)
    return values, quantity


def _axes(ax: "Axes | None", size: tuple[float, float]) -> "Axes":
    from matplotlib.text import Text

    if ax is None:
        import matplotlib.pyplot as plt

        ax = plt.figure(figsize=size, layout="constrained").subplots()
    for text in ax.findobj(Text):  # was there before the names that are drawn in it
        text.set_parse_math(False)
    return ax


def _shown(axes: Drawn, show: bool | None) -> Drawn:
    if show:
        import matplotlib.pyplot as plt

        plt.show()
    return axes
