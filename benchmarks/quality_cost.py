r"""What do more solver steps buy, in proper scores?  The curve behind `fast`, `balanced` and `best`.

Eight draws of a section that the weights were not trained on, with as many solver steps as asked for and the
same noise each time, against its measured counts.  Differences are to the most steps, spot by spot (gene by
gene for ES-map), with the standard error of their mean.

    python -m benchmarks.quality_cost --weights runs/without_C5.safetensors --slide images/C5.jpg \
        --spots spots/C5_selection.tsv --measured counts/C5.tsv.gz --mpp 0.683 --write
"""

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from benchmarks.tables import write_between

from napari_flag import formatting
from napari_flag.analysis.truth import match_names, shared_counts
from napari_flag.encoders.features import extract_features
from napari_flag.inputs import prepare
from napari_flag.keys import STEPS_OF
from napari_flag.methods.predictor import open_method
from napari_flag.model.checkpoint import Checkpoint
from napari_flag.model.graph import Places, build_graph
from napari_flag.model.samplers import SamplerSettings
from napari_flag.progress import finish
from napari_flag.slides.lattice import pitch_of
from napari_flag.statistics.neighbours import find_neighbours
from napari_flag.statistics.scoring_rules import FEWEST_DRAWS, NAMES, ProperScores, proper_scores

STEPS: Final = (2, 3, 4, 5, 6, 8, 10, 20)


def difference(found: ProperScores, finest: ProperScores, name: str) -> tuple[float, float]:
    """Return the mean of `found` - `finest` in the score `name`, and its standard error.

    Spots, and genes, count as independent, which neighbouring spots are not: it is too small.
    """
    apart = found.values(name) - finest.values(name)
    weights = found.weights(name) * np.isfinite(apart)
    weights = weights / weights.sum()
    apart = np.nan_to_num(apart)
    mean = float(weights @ apart)
    return mean, float(np.sqrt((weights**2) @ (apart - mean) ** 2))


def measure(args: argparse.Namespace) -> list[dict[str, Any]]:
    """Return steps, processor seconds, scores and differences, a dict for each number of steps."""
    checkpoint = Checkpoint.load(args.weights)
    inputs = finish(prepare(args.slide, checkpoint, spots=args.spots, measured=args.measured, mpp=args.mpp))
    slide, spots = inputs.slide, inputs.spots
    assert slide.mpp is not None
    assert inputs.measured is not None
    predictor, device = open_method(checkpoint), torch.device("cpu")
    encoder = checkpoint.build_encoder(device)
    features = finish(
        extract_features(
            slide.in_colours(checkpoint.colours), spots.xy, encoder, encoder_hash=encoder.fingerprint,
            device=device,
        )
    )  # fmt: skip
    pitch = pitch_of(spots, slide.mpp)
    encoded = predictor.encode(features, build_graph(Places.of(spots, slide.mpp, pitch), features))
    slide.close()
    rows, columns, truth = measured_values(inputs.measured, spots.ids, predictor.genes)
    ids = [spots.ids[row] for row in rows]
    kept = spots.take(rows)
    graph = find_neighbours(kept.xy, kept.array, kept.lattice).weights
    scores: dict[int, ProperScores] = {}
    seconds: dict[int, float] = {}
    for steps in args.steps:
        started = time.process_time()
        settings = SamplerSettings(draws=FEWEST_DRAWS, steps=steps, seed=args.seed)
        drawn = finish(encoded.draw(rows, ids, settings))
        seconds[steps] = time.process_time() - started
        scores[steps] = proper_scores([draw[:, columns] for draw in drawn], truth, graph)
        sys.stderr.write(f"{steps} steps: {seconds[steps]:.1f} s, {scores[steps].means()}\n")
    finest = scores[max(args.steps)]
    return [
        {
            "steps": steps,
            "s": seconds[steps],
            "scores": scores[steps].means(),
            "difference": {name: difference(scores[steps], finest, name) for name in NAMES},
        }
        for steps in args.steps
    ]


def measured_values(
    measured: Any, ids: tuple[str, ...], genes: tuple[str, ...]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Return the spots and genes that were measured, and log2(count + 1) of them."""
    import pandas as pd
    from anndata import AnnData

    names = AnnData(obs=pd.DataFrame(index=list(ids)), var=pd.DataFrame(index=list(genes)))
    match = match_names(names, measured)
    counts = np.asarray(shared_counts(measured, match), np.float64)
    return match.rows, match.columns, np.log2(counts + 1)


def table(found: list[dict[str, Any]]) -> str:
    """Return the curve as Markdown."""
    names = {steps: name for name, steps in STEPS_OF.items()}
    lines = [
        f"| steps | quality | processor s | {' | '.join(NAMES)} |",
        f"|---:|---|---:|{'---:|' * len(NAMES)}",
    ]
    for row in found:
        cells = []
        for name in NAMES:
            mean, error = row["difference"][name]
            value = formatting.score(row["scores"][name], name)
            away = f" ({formatting.difference(mean, error=error)})"
            cells.append(value if row is found[-1] else value + away)
        quality = names.get(row["steps"], "")
        lines.append(f"| {row['steps']} | {quality} | {row['s']:.1f} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Print the curve, and write it into the README if asked."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--slide", type=Path)
    parser.add_argument("--spots", type=Path)
    parser.add_argument("--measured", type=Path)
    parser.add_argument("--mpp", type=float)
    parser.add_argument("--steps", type=int, nargs="+", default=STEPS)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="JSON to write")
    parser.add_argument(
        "--write",
        action="store_true",
        help="write the table into benchmarks/README.md, between the markers of this slide",
    )
    args = parser.parse_args()
    if None in (args.weights, args.slide, args.spots, args.measured):
        sys.stdout.write("A measured section that the weights have not seen is needed; see --help.\n")
        return
    args.steps = sorted(args.steps)
    found = measure(args)
    text = table(found)
    sys.stdout.write(text + "\n")
    if args.out is not None:
        args.out.write_text(json.dumps(found, indent=1) + "\n", "utf-8")
    if args.write:
        write_between(f"quality-cost {args.slide.stem}", text)


if __name__ == "__main__":
    main()
