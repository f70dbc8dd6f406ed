r"""Where does the time of a prediction go?  Each stage beside its floor, in turns in one run.

A floor is the least that the stage has to do with the same libraries: the stored picture decoded once; the
products of the encoder and of the gene transformer, as bare matrix products of the same shapes; a copy of the
texture that a switch of genes fills.  The encoder is held to a floor of its own arithmetic: bare products in
32-bit floats; in 8-bit integers its own convolutions and nothing else, which a faster library may beat.
Times are processor seconds over all threads, the least of the rounds, so that what else runs on the machine
counts as little as it can; the machine's load is printed all the same.

    python -m benchmarks.stages --write
    python -m benchmarks.stages --slide C5.jpg --spots C5_selection.tsv --mpp 0.683
"""

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import torch
from benchmarks.int8 import encoders_of
from benchmarks.tables import machine, write_between

from napari_flag.encoders.embedded import CHANNELS, STRIDES, TILE_PX, EmbeddedEncoder, IntegerNet
from napari_flag.encoders.features import BATCH_CPU
from napari_flag.inputs import prepare
from napari_flag.methods.flag import FlagPredictor
from napari_flag.model.checkpoint import Checkpoint, find_weights
from napari_flag.model.config import FlagConfig
from napari_flag.model.gene_dit import MOST_GENES
from napari_flag.model.graph import Places, build_graph
from napari_flag.model.samplers import SamplerSettings, evaluations
from napari_flag.progress import finish
from napari_flag.simulation import demo_slide, demo_table
from napari_flag.slides.slide import Slide
from napari_flag.slides.tiles import read_tiles, tile_window

FREQUENCIES: Final = 64
"""Inputs of the embedding of the noise level."""


class Product(NamedTuple):
    """`batch` products of (m, k) by (k, n) matrices."""

    batch: int
    m: int
    k: int
    n: int

    @property
    def flops(self) -> int:
        """Multiplications and additions."""
        return 2 * self.batch * self.m * self.k * self.n


def encoder_products(tiles: int, side: int = TILE_PX // 2) -> list[Product]:
    """Return the products of the embedded encoder's network on `tiles` of `side` px at half resolution."""
    found, width = [], 3
    for channels, stride in zip(CHANNELS, STRIDES, strict=True):
        side = -(-side // stride)
        found.append(Product(1, tiles * side * side, 9 * width, channels))
        width = channels
    return found


def transformer_products(config: FlagConfig, rows: int) -> list[Product]:
    """Return the products of one evaluation of the denoiser for `rows` = spots × draws.

    What does not depend on the noise level (the embedding of a spot's context) is not among them.
    """
    genes, width, heads = config.genes, config.width, config.heads
    tokens, each, hidden = rows * genes, width // heads, round(config.mlp_ratio * width)
    seen = config.summaries if config.summaries and genes > MOST_GENES else genes
    block = [
        Product(1, rows, width, 6 * width),
        Product(1, tokens, width, 3 * width),
        Product(rows * heads, genes, each, seen),
        Product(rows * heads, genes, seen, each),
        Product(1, tokens, width, width),
        Product(1, tokens, width, hidden),
        Product(1, tokens, hidden, width),
    ]
    if seen != genes:  # the summaries look at all genes: one set of weights, for keys and for values
        block += [Product(rows * heads, seen, each, genes)] + 2 * [Product(rows * heads, seen, genes, each)]
    outside = [
        Product(1, rows, FREQUENCIES, width),
        Product(1, rows, width, width),
        Product(1, tokens, 2, width),
        Product(1, tokens, width, width),
        Product(1, rows, width, 2 * width),
        Product(1, tokens, width, 1),
    ]
    scaling = 6 * [Product(1, rows, genes, genes)] if config.covariance else []
    return outside + config.blocks * block + scaling


def bare(products: Sequence[Product]) -> Callable[[], None]:
    """Return a function that makes `products` and nothing else, into memory that is there."""
    shapes = dict.fromkeys(products)
    parts = {
        p: (torch.randn(p.batch, p.m, p.k), torch.randn(p.batch, p.k, p.n), torch.empty(p.batch, p.m, p.n))
        for p in shapes
    }

    def multiply() -> None:
        for product in products:
            a, b, out = parts[product]
            if product.batch == 1:
                torch.mm(a[0], b[0], out=out[0])
            else:
                torch.bmm(a, b, out=out)

    return multiply


def decoded(path: Path, level: int) -> None:
    """Decode one level of the picture at `path`, once."""
    if path.suffix.lower() in (".tif", ".tiff"):
        import tifffile

        tifffile.imread(path, level=level)
        return
    from PIL import Image

    Image.MAX_IMAGE_PIXELS = None
    with Image.open(path) as image:
        image.convert("RGB")


@dataclass(frozen=True, slots=True)
class Stage:
    """One row of the table.

    Parameters
    ----------
    name, unit
        What it does, and of what its times are.
    number
        How many units a run makes.
    ours, floor
        The stage, and the least it has to do.
    flops
        Of its floor, 0 where it multiplies nothing.
    """

    name: str
    unit: str
    number: int
    ours: Callable[[], Any]
    floor: Callable[[], Any]
    floor_name: str
    flops: int = 0


def in_turns(stages: Sequence[Stage], rounds: int) -> list[tuple[float, float]]:
    """Return the least processor seconds of each stage and of its floor, measured in turns."""
    least = [(np.inf, np.inf)] * len(stages)
    for turn in range(rounds + 1):  # the first warms up
        for place, stage in enumerate(stages):
            taken = []
            for work in (stage.ours, stage.floor):
                started = time.process_time()
                work()
                taken.append(time.process_time() - started)
            if turn:
                least[place] = min(least[place][0], taken[0]), min(least[place][1], taken[1])
    return [(float(ours), float(floor)) for ours, floor in least]


def table(stages: Sequence[Stage], times: Sequence[tuple[float, float]]) -> str:
    """Return the measured times as Markdown, with the rates of what multiplies."""
    lines = [
        "| stage | per | ours, ms | floor, ms | ours / floor | GFLOP/s, ours | floor | floor is |",
        "|---|---|---:|---:|---:|---:|---:|---|",
    ]
    for stage, (ours, floor) in zip(stages, times, strict=True):
        rates = [f"{stage.flops / seconds / 1e9:.0f}" if stage.flops else "" for seconds in (ours, floor)]
        each = [f"{1e3 * seconds / stage.number:.3g}" for seconds in (ours, floor)]
        lines.append(
            f"| {stage.name} | {stage.unit} | {each[0]} | {each[1]} | **{ours / floor:.2f}** | {rates[0]} | "
            f"{rates[1]} | {stage.floor_name} |"
        )
    return "\n".join(lines)


def stages_of(args: argparse.Namespace) -> list[Stage]:
    """Return the stages of a prediction of one slide."""
    checkpoint = Checkpoint.load(find_weights(args.weights))
    spots = demo_table() if args.slide is None else args.spots
    inputs = finish(prepare(args.slide or demo_slide(), checkpoint, spots=spots, mpp=args.mpp))
    slide = inputs.slide.in_colours(checkpoint.colours)
    xy = inputs.spots.xy[: args.tiles]
    encoder = checkpoint.build_encoder(torch.device("cpu"))
    size, mpp = encoder.tile_px, encoder.mpp
    level = tile_window(slide, size_px=size, mpp=mpp).level

    def tiles(of: Slide = slide) -> list[np.ndarray[Any, Any]]:
        return list(read_tiles(of, xy, size_px=size, mpp=mpp, batch_size=BATCH_CPU))

    batches = tiles()
    predictor = FlagPredictor.open(checkpoint)
    network, count = predictor.network, args.rows
    side = int(np.ceil(np.sqrt(count)))
    places = Places(np.stack(np.divmod(np.arange(count), side), 1) * 200.0, 200.0)
    features = np.resize(np.concatenate([encoder.encode(batch) for batch in batches]), (count, encoder.dim))
    features = (features + np.random.default_rng(0).normal(0, 0.01, features.shape)).astype(np.float32)
    seen = predictor.encode(features, build_graph(places, features))
    settings, rows = SamplerSettings(), np.arange(count)
    products = evaluations(settings) * transformer_products(network.config, count)
    switch, texture = gene_switch()
    copy = np.empty_like(texture)

    def decode() -> None:
        decoded(slide.path, level)

    of_encoder = [
        stage
        for kind, each in encoders_of(checkpoint).items()
        if kind == "float32" or IntegerNet.supported()
        for stage in encoder_stages(kind, each, batches, tiles, decode)
    ]
    return [
        Stage("read tiles", "tile", len(xy), tiles, decode, "decoding once"),
        *of_encoder,
        Stage(
            "draw",
            "spot",
            count,
            lambda: finish(seen.draw(rows, places.names, settings)),
            bare(products),
            "products",
            sum(p.flops for p in products),
        ),
        Stage("switch genes", "switch", 1, switch, lambda: np.copyto(copy, texture), "copying the texture"),
    ]


def encoder_stages(
    kind: str,
    encoder: EmbeddedEncoder,
    batches: Sequence[np.ndarray[Any, Any]],
    read: Callable[[], Sequence[np.ndarray[Any, Any]]],
    decode: Callable[[], None],
) -> list[Stage]:
    """Return encoding alone, and reading and encoding, each over a floor of the same arithmetic.

    Parameters
    ----------
    kind
        "float32" or "int8", the arithmetic of `encoder`.
    batches
        (b, 600, 600, 3) tiles, as `read` gives them.
    read, decode
        What reads all tiles, and the floor of that.
    """
    tiles = sum(len(batch) for batch in batches)
    products = [p for batch in batches for p in encoder_products(len(batch))]
    images = [torch.rand(len(batch), 3, TILE_PX // 2, TILE_PX // 2) - 0.5 for batch in batches]
    multiply = bare(products)

    def floor() -> None:
        if kind == "float32":
            multiply()
        else:
            for image in images:
                encoder._net(image)

    def both_floor() -> None:
        decode()
        floor()

    def encode(of: Sequence[np.ndarray[Any, Any]] = batches) -> None:
        for batch in of:
            encoder.encode(batch)

    name = "products" if kind == "float32" else "its convolutions"
    flops = sum(p.flops for p in products)
    both = f"decoding and {name}"
    return [
        Stage(f"encode tiles, {kind}", "tile", tiles, encode, floor, name, flops),
        Stage(f"features, {kind}", "tile", tiles, lambda: encode(read()), both_floor, both, flops),
    ]


def gene_switch(spots: int = 50_000) -> tuple[Callable[[], None], np.ndarray[Any, Any]]:
    """Return a switch of genes on a slide of so many spots, and the texture it fills."""
    from benchmarks.gene_switch import make_prediction, our_switch
    from napari.components import ViewerModel

    viewer = ViewerModel()
    switch = our_switch(make_prediction(spots), viewer)
    switch("G0")
    turns = iter(range(1, 10**6))
    texture = next(np.asarray(layer.data) for layer in viewer.layers if np.ndim(layer.data) >= 2)
    return lambda: switch(f"G{next(turns) * 7 % 200}"), texture


def main() -> None:
    """Measure, print the table, and write it into the README if asked."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--weights", default="her2st")
    parser.add_argument("--slide", type=Path, help="default: the bundled slide")
    parser.add_argument("--spots", type=Path)
    parser.add_argument("--mpp", type=float)
    parser.add_argument("--tiles", type=int, default=40, help="tiles read and encoded")
    parser.add_argument("--rows", type=int, default=80, help="spots drawn")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--write", action="store_true", help="write the table into benchmarks/README.md")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    with torch.inference_mode():
        stages = stages_of(args)
        text = table(stages, in_turns(stages, args.rounds))
    given = " ".join(word if word.startswith("-") else Path(word).name for word in sys.argv[1:])
    text = f"`python -m benchmarks.stages {given}`; {machine(args.threads)}; processor time.\n\n{text}"
    sys.stdout.write(text + "\n")
    if args.write:
        write_between("stages", text)


if __name__ == "__main__":
    main()
