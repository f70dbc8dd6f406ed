"""The same work by peers and by us, in turns in one process: the same answer, and how long each takes.

    xvfb-run -a -s "-screen 0 1280x800x24" python -m benchmarks.peers --write

* **Tiles and features**: LazySlide's ``feature_extraction`` with our encoder as its model, and
  ``encoders.features.extract_features``, of the same tiles of one slide (`benchmarks.large_slide`), read as
  they are stored and, at another µm/px, resampled.
* **Moran's I** of 200 genes at 5,000 spots: squidpy's ``spatial_autocorr`` and ``statistics.moran``
  (`benchmarks.moran`).
* **Another gene on the map**: napari-spatialdata's list of genes and ours (`benchmarks.gene_switch`), from
  the choice to one frame drawn, each in a window of its own on the same display.

Each part is a process of its own, on one thread.  A round that is not counted comes first; then both in
turns.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import numpy as np
from benchmarks.tables import write_between

from napari_flag.formatting import whole

HERE: Final = Path(__file__).resolve().parents[1]
RESULTS: Final = HERE / "docs" / "results" / "peers.md"
ONE_THREAD: Final = {f"{name}_NUM_THREADS": "1" for name in ("OMP", "OPENBLAS", "MKL", "NUMBA")}
TILES: Final = 36
SWITCHES: Final = 5
"""Switches of genes a round."""
SPOTS: Final = (5000, 50_000)
COLOURS: Final = 256
"""Of a colour map, between which values are read off."""
MISREAD: Final = 1 / (COLOURS - 1)
"""Largest error of a value read off its colour, as a share of the limits: to the next colour of the map."""
OFF_MAP: Final = 0.02
"""A colour as far as this from all of a map, in RGB of 0 to 1, is none of it."""


def in_turns(theirs: Callable[[], Any], ours: Callable[[], Any], rounds: int) -> dict[str, Any]:
    """Run both in turns; return medians of seconds and of processor seconds of each."""
    spent: list[list[tuple[float, float]]] = []
    for turn in range(rounds + 1):  # the first warms up
        taken = []
        for work in (theirs, ours):
            began, used = time.perf_counter(), time.process_time()
            work()
            taken.append((time.perf_counter() - began, time.process_time() - used))
        if turn:
            spent.append(taken)
    wall, processor = np.median(np.array(spent), axis=0).T  # each (theirs, ours)
    return {"theirs_s": wall[0], "ours_s": wall[1], "theirs_cpu_s": processor[0], "ours_cpu_s": processor[1]}


def row(work: str, peer: str, found: dict[str, Any], same: str) -> dict[str, Any]:
    """Return one row of the table."""
    return {"work": work, "peer": f"{peer} {version(peer)}", "same": same} | found


# --- tiles and features --------------------------------------------------------------------------
def features(rounds: int) -> list[dict[str, Any]]:
    """Compare the features of tiles, as stored and resampled."""
    from benchmarks.large_slide import write_large_slide

    with tempfile.TemporaryDirectory() as name:
        rows = []
        for mpp, how in ((0.683, "as stored"), (0.5, "resampled")):
            slide = write_large_slide(Path(name) / f"{mpp}.tif", 8000, 8000, mpp)
            found, same = features_of(slide, mpp, rounds)
            rows.append(row(f"features of {TILES} tiles, {how}", "lazyslide", found, same))
    return rows


def features_of(path: Path, mpp: float, rounds: int) -> tuple[dict[str, Any], str]:
    """Time both on one slide; return how far their features lie apart too."""
    import lazyslide
    import torch
    import wsidata
    from wsidata.io import add_tiles

    from napari_flag.encoders.features import extract_features
    from napari_flag.lazyslide import Model
    from napari_flag.progress import finish
    from napari_flag.slides.slide import open_slide

    torch.set_num_threads(1)
    encoder = Model(mpp=mpp, device="cpu").encoder
    side, pitch = encoder.tile_px * encoder.mpp / mpp, round(200 / mpp)
    across = round(TILES**0.5)
    rows, columns = np.divmod(np.arange(TILES), across)
    corners = 2000 + np.stack([columns, rows], 1) * pitch
    seen: dict[str, Any] = {}

    def theirs() -> None:
        wsi = wsidata.open_wsi(str(path))
        spec = wsidata.TileSpec.from_wsidata(wsi, tile_px=encoder.tile_px, slide_mpp=mpp, mpp=encoder.mpp)
        seen["side"] = spec.base_width
        add_tiles(wsi, "tiles", corners, spec, np.zeros(len(corners), int))
        lazyslide.tl.feature_extraction(wsi, encoder, device="cpu", pbar=False)
        seen["theirs"] = np.asarray(wsi.tables[f"{encoder.name}_tiles"].X)
        wsi.close()

    def ours() -> None:
        with tempfile.TemporaryDirectory() as folder, open_slide(path, mpp=mpp) as slide:
            work = extract_features(
                slide,
                corners + side / 2,
                encoder.model,
                encoder_hash="",
                device=torch.device("cpu"),
                cache=Path(folder),
            )
            seen["ours"] = finish(work)

    found = in_turns(theirs, ours, rounds)
    spread = seen["ours"].std(0) + 1e-6
    apart = np.abs(seen["theirs"] - seen["ours"])
    same = (
        f"largest difference {apart.max():.1e}, median {np.median(apart / spread):.1e} of a feature's spread"
    )
    return found, same


# --- Moran's I -----------------------------------------------------------------------------------
def moran(rounds: int) -> list[dict[str, Any]]:
    """Compare Moran's I, in closed form and with permutations."""
    from benchmarks.moran import GENES, PERMUTATIONS, ROWS, section, squidpy_and_ours

    values, weights = section(GENES)
    rows = []
    for permutations in (0, PERMUTATIONS):
        theirs, ours = squidpy_and_ours(values, weights, permutations)
        apart = float(np.abs(theirs() - ours()).max())
        found = in_turns(theirs, ours, rounds)
        tested = f", {permutations} permutations" if permutations else ""
        work = f"Moran's I, {GENES} genes at {whole(ROWS * 100)} spots{tested}"
        rows.append(row(work, "squidpy", found, f"largest difference {apart:.1e}"))
    return rows


# --- another gene on the map ---------------------------------------------------------------------
def window(rounds: int) -> list[dict[str, Any]]:
    """Compare a switch of genes, drawn."""
    return [switch_of(spots, rounds) for spots in SPOTS]


def switch_of(spots: int, rounds: int) -> dict[str, Any]:
    """Compare a switch of genes of so many spots."""
    import napari
    from benchmarks.gene_switch import drawn, make_prediction, our_switch

    adata = make_prediction(spots)
    genes = iter(f"G{turn * 7 % 200}" for turn in range(1, 10**6))
    their_viewer, choose = spatial_data_switch(adata)
    our_viewer = napari.Viewer()
    show = our_switch(adata, our_viewer)
    switches = []
    for viewer, switch in ((their_viewer, choose), (our_viewer, show)):
        switch("G0")
        alone(viewer)
        switches.append(drawn(switch, viewer))
    theirs, ours = switches
    found = in_turns(lambda: theirs(next(genes)), lambda: ours(next(genes)), SWITCHES * rounds)
    errors = []
    for gene in ("G8", "G9"):
        choose(gene)
        show(gene)
        errors.append((misread_of_points(adata, gene, their_viewer), misread_of_map(adata, gene, our_viewer)))
    same = said_of(*np.max(errors, axis=0).tolist())
    for viewer in (their_viewer, our_viewer):
        viewer.close()
    return row(f"another gene of {whole(spots)} spots, drawn", "napari-spatialdata", found, same)


def misread_of_points(adata: Any, gene: str, viewer: Any) -> float:
    """Return `misread` of their points, which have the colours of viridis from least to largest value."""
    import matplotlib

    layer = viewer.layers["spots"]
    values, places = adata[:, gene].X.ravel(), adata.obsm["spatial"]
    point, spot = np.lexsort(np.asarray(layer.data).T), np.lexsort(places[:, ::-1].T)
    if not np.allclose(layer.data[point], places[spot][:, ::-1]):
        return float("inf")
    limits = (float(values.min()), float(values.max()))
    return misread(values[spot], np.asarray(layer.face_color)[point], matplotlib.colormaps["viridis"], limits)


def misread_of_map(adata: Any, gene: str, viewer: Any) -> float:
    """Return `misread` of the pixels of our map at the spots' centres, by the layer's colours and limits."""
    from napari_flag import keys

    layer = next(layer for layer in viewer.layers if np.ndim(layer.data) == 2)
    um = adata.obsm["spatial"][:, ::-1] * adata.uns[keys.PROVENANCE][keys.MPP]
    row, column = np.rint((um - layer.translate) / layer.scale).astype(int).T
    low, high = layer.contrast_limits
    shown = np.clip((layer.data[row, column] - low) / (high - low), 0.0, 1.0)
    return misread(adata[:, gene].X.ravel(), layer.colormap.map(shown), layer.colormap.map, (low, high))


def misread(values: Any, colours: Any, colormap: Callable[[Any], Any], limits: tuple[float, float]) -> float:
    """Return the largest error of values that are read off their colours.

    Parameters
    ----------
    values
        (n,) as they are; what is beyond the limits has the colour of the limit.
    colours
        (n, 4) of the same spots.
    colormap
        Takes (m,) 0–1 to (m, 4).
    limits
        Of the values between which the map is spread.

    Returns
    -------
    The error as a share of the limits' distance; infinite where a colour is none of the map.
    """
    from scipy.spatial import cKDTree

    scale = np.linspace(0.0, 1.0, COLOURS)
    apart, nearest = cKDTree(np.asarray(colormap(scale))[:, :3]).query(np.asarray(colours)[:, :3])
    if apart.max() > OFF_MAP:
        return float("inf")
    low, high = limits
    return float(np.abs(scale[nearest] - np.clip((values - low) / (high - low), 0.0, 1.0)).max())


def said_of(theirs: float, ours: float) -> str:
    """Return whether the colours of all spots stand for their values in both viewers, and how nearly."""
    follow = "follow" if max(theirs, ours) <= MISREAD else "do not follow"
    return (
        f"colours of all spots {follow} the values: off by {theirs:.1e} (theirs) and {ours:.1e} of the limits"
    )


def alone(viewer: Any) -> None:
    """Give the canvas all of a window of one size, and the layer all of the canvas."""
    from qtpy.QtWidgets import QDockWidget

    for dock in viewer.window._qt_window.findChildren(QDockWidget):
        dock.hide()
    viewer.window.resize(1000, 700)
    viewer.reset_view()


def spatial_data_switch(adata: Any) -> tuple[Any, Callable[[str], None]]:
    """Return a viewer of napari-spatialdata that shows `adata`, and its switch of genes."""
    import geopandas
    import napari
    import shapely
    from napari_spatialdata import Interactive
    from napari_spatialdata._view import QtAdataViewWidget
    from spatialdata import SpatialData
    from spatialdata.models import ShapesModel, TableModel

    places = adata.obsm["spatial"]
    circles = geopandas.GeoDataFrame({"radius": np.full(len(places), 27.5)}, geometry=shapely.points(places))
    table = adata.copy()
    table.uns.clear()
    table.obs["region"], table.obs["spot"] = "spots", np.arange(len(places))
    table.obs["region"] = table.obs["region"].astype("category")
    parsed = TableModel.parse(table, region="spots", region_key="region", instance_key="spot")
    sdata = SpatialData(shapes={"spots": ShapesModel.parse(circles)}, tables={"table": parsed})
    opened = Interactive(sdata, headless=True)
    opened.add_element("spots", "global", view_element_system=True)
    viewer = napari.current_viewer()
    for _ in range(200):  # it adds layers in a thread
        napari.qt.get_qapp().processEvents()
        if viewer.layers:
            break
        time.sleep(0.05)
    viewer.layers.selection.active = viewer.layers["spots"]
    dock = viewer.window._qt_window.findChildren(QtAdataViewWidget)[0]
    return viewer, lambda gene: dock.var_widget._onAction((gene,))


# --- all -----------------------------------------------------------------------------------------
PARTS: Final = {"features": features, "moran": moran, "window": window}


def table(rows: list[dict[str, Any]]) -> str:
    """Return the rows as Markdown."""
    heads = ["work", "peer", *2 * ["theirs, s", "ours, s", "theirs / ours"], "same answer"]
    heads[5] = f"processor: {heads[5]}"
    lines = [f"| {' | '.join(heads)} |", "|---|---" + 6 * "|---:" + "|---|"]
    for found in rows:
        cells = []
        for kind in ("", "cpu_"):
            theirs, ours = found[f"theirs_{kind}s"], found[f"ours_{kind}s"]
            cells += [f"{theirs:.3g}", f"{ours:.3g}", f"**{theirs / ours:.1f}**"]
        lines.append(f"| {found['work']} | {found['peer']} | {' | '.join(cells)} | {found['same']} |")
    return "\n".join(lines)


def main() -> None:
    """Measure each part in a process of its own, print the table, and write it if asked."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--write", action="store_true", help="write the table into docs/results/peers.md")
    parser.add_argument("--only", choices=PARTS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.only:
        warnings.simplefilter("ignore")
        found = PARTS[args.only](args.rounds)
        sys.stdout.write("\n" + json.dumps(found))
        sys.stdout.flush()
        os._exit(0)  # a window that nobody closes
    for part in args.parts:
        words = ["-m", "benchmarks.peers", "--rounds", str(args.rounds), "--only", part]
        env = os.environ | ONE_THREAD
        child = subprocess.run(
            [sys.executable, *words], cwd=HERE, env=env, stdout=subprocess.PIPE, check=True
        )
        text = described(json.loads(child.stdout.splitlines()[-1]), part, args.rounds)
        sys.stdout.write(text + "\n\n")
        if args.write:
            write_between(part, text, RESULTS)


def described(rows: list[dict[str, Any]], part: str, rounds: int) -> str:
    """Return the table of a part under what it was measured by and on."""
    counted = SWITCHES * rounds if part == "window" else rounds
    versions = ", ".join(f"{name} {version(name)}" for name in ("napari", "numpy", "torch"))
    return (
        f"`python -m benchmarks.peers --rounds {rounds} --parts {part}`; {platform.machine()}, "
        f"{os.cpu_count()} cores, 1 thread, load {os.getloadavg()[0]:.1f}; {versions}; medians of {counted}."
        f"\n\n{table(rows)}"
    )


if __name__ == "__main__":
    main()
