"""How long switching a gene takes: our raster against Points coloured as napari-spatialdata does.

By default only the part that plugins do is timed (the setters, no GL), in a `ViewerModel` without a
window.  Points are cheap to set and dear to draw, so ``--window`` times until the picture is on the
screen, which is what a user waits for.  The two are measured in turns in one run.  Prints JSON.

    python -m benchmarks.gene_switch [--spots 5000 50000 200000] [--switches 30] [--window]
"""

import argparse
import json
import platform
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from anndata import AnnData
from napari.components import ViewerModel
from napari.utils.colormaps import ensure_colormap

from napari_flag import keys
from napari_flag.layers.gene_map import GeneMap

GENES = 200
PITCH_PX = 100.0


def make_prediction(n_spots: int) -> AnnData:
    """Make a square grid of spots with a smooth pattern per gene, and measured values."""
    rng = np.random.default_rng(0)
    side = int(np.ceil(np.sqrt(n_spots)))
    rows, cols = np.divmod(np.arange(n_spots), side)
    waves = rng.normal(0, 6 / side, (2, GENES))
    x = (np.sin(np.column_stack([rows, cols]) @ waves) + 2).astype(np.float32)
    adata = AnnData(X=x)
    adata.var_names = [f"G{i}" for i in range(GENES)]
    adata.obsm[keys.SPATIAL] = np.column_stack([cols, rows]) * PITCH_PX
    adata.layers[keys.MEASURED] = x[:, ::-1].copy()
    adata.uns[keys.PROVENANCE] = {keys.MPP: 0.5, keys.SPOT_DIAMETER_UM: 27.5}
    return adata


def our_switch(adata: AnnData, viewer: Any) -> Callable[[str], None]:
    """Return the switch of this package: limits, one gather, and the layer's setters."""
    gene_map = GeneMap(viewer)
    gene_map.set_prediction(adata)
    return lambda gene: gene_map.show([gene])


def points_switch(adata: AnnData, viewer: Any) -> Callable[[str], None]:
    """Return the switch napari-spatialdata makes: RGBA per point, set as ``face_color``."""
    layer = viewer.add_points(np.asarray(adata.obsm[keys.SPATIAL])[:, ::-1], size=55, border_width=0)
    colormap = ensure_colormap("viridis")

    def switch(gene: str) -> None:
        values = np.asarray(adata.obs_vector(gene))
        low, high = values.min(), values.max()
        layer.face_color = colormap.map((values - low) / max(high - low, 1e-9))

    return switch


def drawn(switch: Callable[[str], None], viewer: Any) -> Callable[[str], None]:
    """Return `switch` followed by drawing the canvas of `viewer`."""

    def switch_and_draw(gene: str) -> None:
        switch(gene)
        viewer.screenshot(canvas_only=True, flash=False)

    return switch_and_draw


def make_switches(adata: AnnData, *, window: bool) -> dict[str, Callable[[str], None]]:
    """Return both switches, each in a viewer of its own, with or without drawing."""
    makers = {"raster": our_switch, "points_rgba": points_switch}
    if not window:
        return {name: make(adata, ViewerModel()) for name, make in makers.items()}
    import napari

    switches = {}
    for name, make in makers.items():
        viewer = napari.Viewer()
        switch = make(adata, viewer)
        switch("G0")
        viewer.reset_view()
        switches[name] = drawn(switch, viewer)
    return switches


def measure(switches: dict[str, Callable[[str], Any]], count: int) -> dict[str, dict[str, float]]:
    """Time each of `switches` in turns; milliseconds."""
    taken: dict[str, list[float]] = {name: [] for name in switches}
    for turn in range(count + 3):
        for name, switch in switches.items():
            start = time.perf_counter()
            switch(f"G{turn * 7 % GENES}")
            taken[name].append(1e3 * (time.perf_counter() - start))
    return {
        name: {
            "median_ms": round(float(np.median(ms[3:])), 2),
            "p95_ms": round(float(np.percentile(ms[3:], 95)), 2),
        }
        for name, ms in taken.items()
    }


def main() -> None:
    """Measure and print JSON."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--spots", type=int, nargs="+", default=[5000, 50000, 200000])
    parser.add_argument("--switches", type=int, default=30)
    parser.add_argument("--window", action="store_true", help="draw, too (needs a display)")
    options = parser.parse_args()
    results = []
    for n_spots in options.spots:
        adata = make_prediction(n_spots)
        start = time.perf_counter()
        switches = make_switches(adata, window=options.window)
        switches["raster"]("G0")
        first = time.perf_counter() - start
        result: dict[str, Any] = {"spots": n_spots, "first_picture_s": round(first, 2)}
        result |= measure(switches, options.switches)
        ratio = result["points_rgba"]["median_ms"] / result["raster"]["median_ms"]
        results.append(result | {"points_over_raster": round(ratio, 2)})
    machine = platform.processor() or platform.machine()
    print(json.dumps({"machine": machine, "drawn": options.window, "results": results}))


if __name__ == "__main__":
    main()
