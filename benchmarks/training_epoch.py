"""Time training at the paper's size: seconds per epoch and peak memory on HER2ST-size slides.

The cohort has 36 slides of about 380 spots, 200 genes and 1024 features, all made up from a seed.  A few
slides go through the loop that ``napari-flag train`` runs, as training/configs/paper.toml sets it, and
an epoch is what 36 would take: the first slide, which warms up, is left out, the last one includes the
step of the optimiser.  Seconds of processor time are reported next to those on the clock, since a machine
with other work to do stretches the latter.
"""

import argparse
import json
import math
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from flag_training.config import FitConfig, read_config
from flag_training.engine.devices import open_fabric, peak_memory_mb
from flag_training.engine.loop import Keeping, Schedule, log_columns, run_loop
from flag_training.engine.run_log import RunLog
from flag_training.stages.alignment import Alignment
from flag_training.stages.denoising import Denoising, Diffused, SlideBatches
from flag_training.stages.frames import FramedCohort
from napari_flag.model.config import FlagConfig
from napari_flag.model.flag import Flag
from napari_flag.model.graph import GraphTensors, Places, build_graph

SLIDES, SPOTS, GENES, FEATURES = 36, 380, 200, 1024
"""HER2ST in HEST-1k: 13,620 spots on 36 slides."""
CONFIG = Path(__file__).parents[1] / "training" / "configs" / "paper.toml"


def main() -> None:
    """Print times and memory as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--slides", type=int, default=3, help="slides measured, at least 2")
    parser.add_argument("--spots", type=int, help="spots denoised per slide (default: the config's)")
    args = parser.parse_args()
    config = read_config(CONFIG)
    fit = config.fit if args.spots is None else replace(config.fit, score_batch=args.spots)
    fabric = open_fabric(config.machine)
    torch.manual_seed(0)
    network = Flag(FlagConfig(features=FEATURES, genes=GENES, slides=args.slides, **config.network))
    objective = Denoising(network, Alignment(), 0.0)
    before = peak_memory_mb(fabric.device)
    source = batches(args.slides, network.config.components, fit)
    clock, processor = timed(objective, source, fit, args.slides, fabric)
    steps = math.ceil(SLIDES / fit.accumulate)
    results = {
        "device": str(fabric.device),
        "precision": fabric.strategy.precision.precision,
        "threads": torch.get_num_threads(),
        "million_parameters": round(
            sum(p.numel() for p in objective.parameters() if p.requires_grad) / 1e6, 1
        ),
        "spots_per_slide_encoded": SPOTS,
        "spots_per_slide_denoised": fit.score_batch,
        "slides_measured": args.slides - 1,
        "seconds_per_slide": round(clock, 2),
        "processor_seconds_per_slide": round(processor, 2),
        "extrapolated_to_slides": SLIDES,
        "optimiser_steps_per_epoch": steps,
        "seconds_per_epoch": round(clock * SLIDES, 1),
        "processor_seconds_per_epoch": round(processor * SLIDES, 1),
        "processor_seconds_to_denoise_every_spot_once": round(
            processor * SLIDES * SPOTS / fit.score_batch, 1
        ),
        "memory_before_mb": round(before),
        "peak_memory_mb": round(peak_memory_mb(fabric.device)),
    }
    print(json.dumps(results, indent=2))


def batches(slides: int, width: int, fit: FitConfig) -> SlideBatches:
    """Make up `slides` slides on a square array, with features and targets of noise."""
    rng = np.random.default_rng(0)
    xy = np.stack(np.divmod(np.arange(SPOTS), 20), 1) * 200.0
    features = [rng.normal(size=(SPOTS, width)).astype(np.float32) for _ in range(slides)]
    cohort = FramedCohort(
        features=(torch.from_numpy(np.concatenate(features)),),
        graphs=(GraphTensors.of(*(build_graph(Places(xy, 200.0), one) for one in features)),),
        targets=torch.from_numpy(rng.normal(size=(slides * SPOTS, GENES)).astype(np.float32)),
        folds=torch.zeros(slides * SPOTS, dtype=torch.long),
        slides=torch.arange(slides).repeat_interleave(SPOTS),
    )
    clean = torch.from_numpy(rng.normal(size=(1, slides * SPOTS, GENES)).astype(np.float32))
    diffused = Diffused(clean, torch.zeros(slides * SPOTS, GENES), torch.zeros(slides * SPOTS))
    return SlideBatches(cohort, diffused, Alignment(), fit.score_batch, fit.slides_per_batch, fit.seed)


def timed(objective, source, fit, slides, fabric) -> tuple[float, float]:
    """Train one step over `slides`; return seconds per slide after the first: clock, processor."""
    schedule = Schedule(
        "Training", steps=2, rate=fit.score_rate, decay=fit.score_decay, warm=fit.warm_steps,
        accumulate=slides, clip=fit.clip, ema=fit.ema, seed=fit.seed,
    )  # fmt: skip
    marks = []
    with (
        tempfile.TemporaryDirectory() as folder,
        RunLog(Path(folder), "score", log_columns(Denoising)) as log,
    ):
        keeping = Keeping(Path(folder) / "score.pt", 10**9, {}, log)
        for step in run_loop(objective, source, schedule, fabric, keeping):
            if fabric.device.type == "cuda":
                torch.cuda.synchronize()
            marks.append((time.perf_counter(), time.process_time()))
            if step.done == 1:
                break
    first, last = np.array(marks[0]), np.array(marks[-1])
    clock, processor = (last - first) / (slides - 1)
    return float(clock), float(processor)


if __name__ == "__main__":
    main()
