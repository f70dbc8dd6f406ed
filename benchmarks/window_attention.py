"""How long the published graph transformer takes as padded tensors and by message passing over edges.

The same parameters on the same windows (`flag_training.methods.message_passing`), in turns, forward alone and
with the backward pass; the largest difference of what both return stands beside.

    nice python -m benchmarks.window_attention --out benchmarks/results/window_attention.json
"""

import argparse
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from flag_training.methods.message_passing import MessagePassingGraph
from flag_training.methods.tissue_windows import batches, cut_windows, geometric, padded
from flag_training.simulated import CohortModel
from napari_flag.files import write_json
from napari_flag.model.published import PublishedConfig, PublishedGraph, fourier_features
from napari_flag.simulation.expression import generated_genes


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Time both forms on the windows of one simulated slide."""
    made = CohortModel(generated_genes(args.genes), spots=args.spots).slide(0)
    graphs = cut_windows(made.slide, made.features[0], args.window_um, args.kernel_um)
    config = PublishedConfig(
        args.genes, made.features.shape[2], args.width, args.blocks, 48, adaptive=True, edge_conditions=2
    )
    torch.manual_seed(0)
    ours, twin = PublishedGraph(config).eval(), MessagePassingGraph(config).eval()
    twin.load_state_dict(ours.state_dict())
    loaded = list(batches(graphs, args.together))
    dense = [padded(batch) for batch in loaded]
    times = [fourier_features(torch.full((len(each),), 0.5), args.width) for each in dense]
    noise = [torch.randn(each.pairs.shape) for each in dense]
    inside = [each.present[:, :, None] & each.present[:, None] for each in dense]

    def with_padding() -> list[torch.Tensor]:
        work = zip(dense, noise, times, strict=True)
        return [
            ours(each.expression, edges, when, each.features, each.attributes, each.present)[0][each.present]
            for each, edges, when in work
        ]

    def with_messages() -> list[torch.Tensor]:
        work = zip(loaded, noise, inside, times, strict=True)
        return [twin.pass_messages(each.y, edges[here], when, each)[0] for each, edges, here, when in work]

    with torch.no_grad():
        both = zip(with_padding(), with_messages(), strict=True)
        apart = max(float((a - b).abs().max()) for a, b in both)
    found: dict[str, Any] = {
        "values": {name: value for name, value in vars(args).items() if name != "out"},
        "windows": [int(graph.num_nodes) for graph in graphs],
        "torch": torch.__version__,
        "torch_geometric": geometric().__version__,
        "threads": torch.get_num_threads(),
        "processor": platform.processor() or platform.machine(),
        "largest difference of what the spots get": apart,
    }
    for name, forms in {
        "forward": (_forward(with_padding), _forward(with_messages)),
        "forward and backward": (_backward(with_padding), _backward(with_messages)),
    }.items():
        seconds = np.array([[_seconds(form) for form in forms] for _ in range(args.rounds + 1)])[1:]
        found[name] = {
            form: {"median_s": round(float(np.median(each)), 4), "rounds_s": np.round(each, 4).tolist()}
            for form, each in zip(("padded", "message passing"), seconds.T, strict=True)
        }
    return found


def _forward(form: Callable[[], list[torch.Tensor]]) -> Callable[[], None]:
    def work() -> None:
        with torch.no_grad():
            form()

    return work


def _backward(form: Callable[[], list[torch.Tensor]]) -> Callable[[], None]:
    return lambda: torch.autograd.backward(sum(each.square().mean() for each in form()))


def _seconds(work: Callable[[], None]) -> float:
    """Return the processor time of `work` in this process: other programs may run beside it."""
    started = time.process_time()
    work()
    return time.process_time() - started


def main() -> None:
    """Print the table, and write the numbers."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--genes", type=int, default=200)
    parser.add_argument("--spots", type=int, default=300)
    parser.add_argument("--window-um", type=float, default=800.0)
    parser.add_argument("--kernel-um", type=float, default=150.0)
    parser.add_argument("--width", type=int, default=96)
    parser.add_argument("--blocks", type=int, default=2)
    parser.add_argument("--together", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    found = measure(args)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    write_json(found, args.out)
    print("| | padded | message passing |\n|---|---:|---:|")
    for name in ("forward", "forward and backward"):
        cells = (f"{found[name][form]['median_s']:.2f} s" for form in ("padded", "message passing"))
        print(f"| {name} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
