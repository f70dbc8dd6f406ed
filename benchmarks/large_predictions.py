"""Maps and statistics of large predictions, without a window.

    python -m benchmarks.large_predictions [--spots 50000] [--genes 1000] [--bins] [--what maps]

What the window computes at a click is given in ms of processor time, the longest of `CLICKS` genes.  Jobs
yield steps, between which they can be cancelled: given are their processor time and the longest time between
two steps.  Times are of processor, so they hold on a busy machine too.  Memory is the largest of the process
so far.  ``--bins`` makes touching bins on a square lattice, as of Visium HD, with nothing measured.
"""

import argparse
import resource
import sys
import time
from collections.abc import Callable
from typing import Any, Final

import numpy as np
from anndata import AnnData
from benchmarks.gene_click import make_prediction

from napari_flag import keys
from napari_flag.analysis.coexpression import correlate
from napari_flag.analysis.domains import find_domains
from napari_flag.analysis.spatial import find_classes, score_spatially
from napari_flag.analysis.truth import PREDICTED
from napari_flag.formatting import whole
from napari_flag.layers import ahead
from napari_flag.layers.gene_values import Contrast, GeneValues, Quantity
from napari_flag.layers.local_map import local_numbers, neighbours_of
from napari_flag.layers.overlays import hover_part
from napari_flag.layers.raster import Thumbnails, colour_table, raster_of
from napari_flag.progress import Steps

CLICKS: Final = 20
HEAT_MAP_GENES: Final = 200
WHAT: Final = ("maps", "structure", "moran", "domains")


def main() -> None:
    """Make a prediction and print a row per action."""
    parser = argparse.ArgumentParser(description="Time maps and statistics of a large prediction.")
    parser.add_argument("--spots", type=int, default=50_000)
    parser.add_argument("--genes", type=int, default=1_000)
    parser.add_argument("--bins", action="store_true", help="touching bins and no measurement")
    parser.add_argument("--what", nargs="+", choices=WHAT, default=WHAT)
    args = parser.parse_args()
    adata = make_bins(args.spots, args.genes) if args.bins else make_prediction(args.spots, args.genes)
    print(f"{whole(adata.n_obs)} spots × {whole(adata.n_vars)} genes, {gigabytes():.1f} GB before anything\n")
    print("| action | ms the window waits | s of processor | longest without a step, s | GB |")
    print("|---|---:|---:|---:|---:|", flush=True)
    job("prepare maps", ahead.prepare(adata))
    actions: dict[str, Callable[[AnnData], None]] = {
        "maps": maps,
        "structure": structure,
        "moran": lambda one: job("Moran's I of all genes", score_spatially(one)),
        "domains": lambda one: job("domains (Leiden)", find_domains(one, PREDICTED)),
    }
    for name in args.what:
        actions[name](adata)


def maps(adata: AnnData) -> None:
    """Time what clicks and the mouse ask for."""
    values, raster, small = GeneValues(adata), raster_of(adata), Thumbnails.of(adata)
    colours = colour_table("magma")
    clicked = np.random.default_rng(1).choice(adata.n_vars, CLICKS, replace=False)
    genes = [values.genes[place] for place in clicked]

    def switch(gene: str) -> None:
        values.limits(gene, Quantity.PREDICTED, Contrast())
        raster.paint(values.values(gene, Quantity.PREDICTED))

    def picture(gene: str) -> None:
        limits = values.limits(gene, Quantity.PREDICTED, Contrast())
        small.paint(values.values(gene, Quantity.PREDICTED), limits, colours)

    def hover(gene: str) -> None:
        spot = raster.spot_at(raster.lookup.shape[0] // 2, raster.lookup.shape[1] // 2) or 0
        values.values(gene, Quantity.PREDICTED)[spot]
        hover_part(adata, spot)

    click("switch genes", switch, genes)
    click("hover", hover, genes)
    click("small map of a gene", picture, genes)
    click("list of genes, by variance", lambda _: values.ranked(), genes[:3])
    seen, neighbours = neighbours_of(adata, Quantity.PREDICTED)

    def local(gene: str) -> None:
        one = values.values(gene, Quantity.PREDICTED)[seen].astype(np.float64)
        raster.paint(local_numbers(adata, Quantity.PREDICTED, one))

    click("local Moran's I of a gene", local, genes[:5])
    column = values.values(genes[0], Quantity.PREDICTED)[seen].astype(np.float64)
    job("classes of a gene (999 permutations)", find_classes([(0, column, neighbours.weights)]))


def structure(adata: AnnData) -> None:
    """Time the heat map of the most variable genes."""
    genes = GeneValues(adata).ranked()[:HEAT_MAP_GENES]
    job(f"heat map of {len(genes)} genes", correlate(adata, genes))


def click(name: str, act: Callable[[str], Any], genes: list[str]) -> None:
    """Print the longest of one action per gene."""
    longest = 0.0
    for gene in genes:
        started = time.thread_time()
        act(gene)
        longest = max(longest, time.thread_time() - started)
    print(f"| {name} | {longest * 1e3:.0f} | | | {gigabytes():.1f} |", flush=True)


def job(name: str, steps: Steps[Any]) -> None:
    """Print what a job takes, and its longest stretch between two steps."""
    started = before = time.process_time()
    longest, at, where = 0.0, "", ""
    while True:
        try:
            step = next(steps)
        except StopIteration:
            step = None
        now = time.process_time()
        if now - before > longest:
            longest, at = now - before, where
        before = now
        if step is None:
            break
        where = f"{step.stage} {step.done}"
    print(
        f"| {name} | | {before - started:.1f} | {longest:.2f} ({at}) | {gigabytes():.1f} |",
        flush=True,
    )


def make_bins(number: int, genes: int) -> AnnData:
    """Make touching bins with a smooth pattern per gene, in float32, a draw, and nothing measured."""
    side = int(np.ceil(np.sqrt(number)))
    rows, columns = np.divmod(np.arange(number), side)
    rng = np.random.default_rng(0)
    waves = rng.normal(0, 9.0, (2, genes)).astype(np.float32)
    place = (np.column_stack([rows, columns]) / side).astype(np.float32)
    x = 1 + np.sin(place @ waves + rng.uniform(0, 6.28, genes).astype(np.float32))
    adata = AnnData(x.astype(np.float32, copy=False))
    adata.var_names = [f"G{gene}" for gene in range(genes)]
    adata.obs_names = [f"{row}_{column}" for row, column in zip(rows, columns, strict=True)]
    adata.obs[keys.ARRAY_ROW], adata.obs[keys.ARRAY_COL] = rows, columns
    adata.obsm[keys.SPATIAL] = np.column_stack([columns, rows]) * 16.0 + 8.0
    adata.uns[keys.PROVENANCE] = {
        keys.MPP: 0.5,
        keys.SPOT_DIAMETER_UM: 8.0,
        keys.LATTICE: "square",
        keys.SLIDE_NAME: "bins",
        keys.UNITS: keys.EXPRESSION_UNITS,
        keys.DRAWS: 0,
        keys.WEIGHTS_NAME: "benchmark",
    }
    return adata


def gigabytes() -> float:
    """Return the most memory this process has had, in GB."""
    scale = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale / 1e9


if __name__ == "__main__":
    main()
