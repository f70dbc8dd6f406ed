r"""Time the tile encoder in 8-bit integers against float32, and score what is predicted with either.

Both are timed on the same tiles in alternation; a section that the weights have not seen is predicted from
the features of both, with the same noise.

    python -m benchmarks.int8 --weights runs/without_C2.safetensors --slide DATA/images/C2.jpg \
        --spots DATA/spots/C2_selection.tsv --measured DATA/counts/C2.tsv.gz --mpp 0.683 --write
"""

import argparse
import copy
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from benchmarks.quality_cost import measured_values
from benchmarks.tables import machine, write_between

from napari_flag.encoders.embedded import EmbeddedEncoder, IntegerNet, TileNet
from napari_flag.formatting import score
from napari_flag.inputs import Inputs, prepare
from napari_flag.keys import STEPS_OF
from napari_flag.methods.predictor import EncodedSlide, open_method
from napari_flag.model.checkpoint import Checkpoint
from napari_flag.model.graph import Places, build_graph
from napari_flag.model.samplers import SamplerSettings
from napari_flag.progress import finish
from napari_flag.slides.lattice import pitch_of
from napari_flag.slides.tiles import read_tiles
from napari_flag.statistics.accuracy import composition, gene_mse, gene_pearson, mean_over_genes
from napari_flag.statistics.neighbours import find_neighbours
from napari_flag.statistics.scoring_rules import FEWEST_DRAWS, NAMES, proper_scores

BATCH: Final = 4
ROUNDS: Final = 9
LEARNED: Final = slice(-800, None)
"""Features of the network; those before are stain and texture, which both compute alike."""


def encoders_of(checkpoint: Checkpoint) -> dict[str, EmbeddedEncoder]:
    """Return the encoder of some weights in float32 and in integers."""
    net = TileNet()
    net.load_state_dict(checkpoint.part("encoder."))
    return {"float32": EmbeddedEncoder(net), "int8": EmbeddedEncoder(net, integers=True)}


def milliseconds(kinds: Mapping[str, Callable[[], Any]], tiles: int) -> dict[str, float]:
    """Return processor milliseconds per tile of each, medians of alternating rounds."""
    taken: dict[str, list[float]] = {name: [] for name in kinds}
    for turn in range(ROUNDS + 1):
        for name, work in kinds.items():
            started = time.process_time()
            work()
            if turn:
                taken[name].append(time.process_time() - started)
    return {name: 1e3 * statistics.median(times) / tiles for name, times in taken.items()}


def encoded(checkpoint: Checkpoint, inputs: Inputs, features: npt.NDArray[np.float32]) -> EncodedSlide:
    """Return the slide as the weights see it."""
    slide, spots = inputs.slide, inputs.spots
    assert slide.mpp is not None
    pitch = pitch_of(spots, slide.mpp)
    return open_method(checkpoint).encode(features, build_graph(Places.of(spots, slide.mpp, pitch), features))


def measure(args: argparse.Namespace) -> str:
    """Return the result as Markdown."""
    checkpoint = Checkpoint.load(args.weights)
    inputs = finish(prepare(args.slide, checkpoint, spots=args.spots, measured=args.measured, mpp=args.mpp))
    assert inputs.measured is not None
    encoders = encoders_of(checkpoint)
    first = encoders["float32"]
    reading = read_tiles(
        inputs.slide, inputs.spots.xy, size_px=first.tile_px, mpp=first.mpp, batch_size=BATCH
    )
    batches = list(reading)
    with torch.inference_mode():
        image = (torch.rand(BATCH, 3, 300, 300) - 0.5) * 4
        half = copy.deepcopy(first._net).bfloat16()
        convolving = {name: (lambda net=each._net: net(image)) for name, each in encoders.items()}
        convolving["bfloat16"] = lambda: half(image.bfloat16())
        encoding = {name: (lambda each=each: each.encode(batches[0])) for name, each in encoders.items()}
        times = [milliseconds(kinds, BATCH) for kinds in (convolving, encoding)]
    features = {name: np.concatenate([each.encode(b) for b in batches]) for name, each in encoders.items()}
    spread = features["float32"].std(0)[LEARNED]
    error = (features["int8"] - features["float32"]).std(0)[LEARNED] / spread.clip(1e-12)
    rows, columns, truth = measured_values(inputs.measured, inputs.spots.ids, checkpoint.genes)
    ids, kept = [inputs.spots.ids[row] for row in rows], inputs.spots.take(rows)
    graph = find_neighbours(kept.xy, kept.array, kept.lattice).weights
    settings = SamplerSettings(draws=FEWEST_DRAWS, steps=STEPS_OF["balanced"], seed=args.seed)
    x: dict[str, npt.NDArray[np.float64]] = {}
    scores: dict[str, dict[str, float]] = {}
    for name, values in features.items():
        slide = encoded(checkpoint, inputs, values)
        x[name] = np.asarray(finish(slide.expectation(rows, ids)).mean, np.float64)[:, columns]
        drawn = [draw[:, columns] for draw in finish(slide.draw(rows, ids, settings))]
        scores[name] = {
            "PCC of X": mean_over_genes(gene_pearson(x[name], truth)),
            "MSE of X": mean_over_genes(gene_mse(x[name], truth)),
            "cPCC of X": mean_over_genes(gene_pearson(composition(x[name]), composition(truth))),
        }
        of_draws = proper_scores(drawn, truth, graph).means()
        scores[name] |= {f"{rule} of {FEWEST_DRAWS} draws": of_draws[rule] for rule in NAMES}
        sys.stderr.write(f"{name}: {scores[name]}\n")
    inputs.slide.close()
    lines = [
        f"Section {args.slide.stem}, {len(rows)} spots, {checkpoint.name}; "
        f"{machine(torch.get_num_threads())}; processor time.",
        "",
        "| | float32 | int8 | |",
        "|---|---:|---:|---:|",
    ]
    for part, taken in zip(("convolutions", "whole encoder"), times, strict=True):
        ratio = f"{taken['float32'] / taken['int8']:.2f} ×"
        ratio += f" (bfloat16 {taken['bfloat16']:.1f})" if "bfloat16" in taken else ""
        lines.append(f"| {part}, ms a tile | {taken['float32']:.1f} | {taken['int8']:.1f} | {ratio} |")
    for name in scores["int8"]:
        both = (score(scores[kind][name], name.split(" of ")[0]) for kind in ("float32", "int8"))
        lines.append(f"| {name} | {' | '.join(both)} | |")
    change = np.abs(x["int8"] - x["float32"])
    lines += [
        f"| error of a learned feature over its spread, median | | {np.median(error):.3f} | |",
        f"| change of X in log2(count + 1), mean and largest | | {change.mean():.3f}, {change.max():.3f} | |",
    ]
    return "\n".join(lines)


def main() -> None:
    """Print the result, and write it into the README if asked."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    for name in ("weights", "slide", "spots", "measured"):
        parser.add_argument(f"--{name}", type=Path)
    parser.add_argument("--mpp", type=float)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--write", action="store_true", help="write the table into benchmarks/README.md")
    args = parser.parse_args()
    if None in (args.weights, args.slide, args.spots, args.measured):
        sys.stdout.write("A measured section that the weights have not seen is needed; see --help.\n")
        return
    if not IntegerNet.supported():
        sys.stdout.write("This processor has no convolutions in 8-bit integers.\n")
        return
    torch.set_num_threads(args.threads)
    text = measure(args)
    sys.stdout.write(text + "\n")
    if args.write:
        write_between("int8", text)


if __name__ == "__main__":
    main()
