"""From how many slides on the gene transformer is worth something, on simulated cohorts.

Cohorts of growing size are simulated without pictures (`flag_training.simulated`), with residuals that
depend on the tissue and are no Gaussian; FLAG is fitted to each as ``napari-flag train`` does, and draws of
further slides, of patients it has not seen, get fair scores with the transformer and with it silenced.
Beside them stands the exact distribution, which knows tissue, patient and depth of the slide.  Resumable:
what is done is read from ``--run``.

    python -m benchmarks.transformer_value --run runs/simulated --out docs/results/transformer_value.md
"""

import argparse
import json
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from flag_training.config import FitConfig, RunConfig
from flag_training.scoring import JUDGED, SCORED
from flag_training.simulated import CohortModel, SimulatedSlide
from flag_training.stages.fit import fit
from flag_training.stages.tile_encoder import TileEncoderConfig
from napari_flag.files import write_json
from napari_flag.methods.flag import FlagPredictor
from napari_flag.model.diffusion import TOGETHER
from napari_flag.model.samplers import SamplerSettings
from napari_flag.progress import Step, finish
from napari_flag.simulation.expression import generated_genes
from napari_flag.statistics.neighbours import array_graph
from napari_flag.statistics.scoring_rules import scoring_draws

CONTEXT: Final[dict[str, Any]] = {
    "own_to_tissue": 1.0, "on_off": 3, "factors": 3, "shared": 0.9, "residual": 0.8, "mean_count": 10.0,
}  # fmt: skip
"""Residuals of which one Gaussian loses most (``docs/results/simulated_ceiling.md``)."""
FIRST_TEST: Final = 1000
"""Number of the first slide scored; training slides are numbered from 0."""


def config(steps: int) -> RunConfig:
    """Return the run: a small network, without the graph branches of the mean head, which take long."""
    values = FitConfig(views=1, score_steps=steps, score_rate=5e-4, score_batch=64, slides_per_batch=4)
    sizes = {"width": 64, "blocks": 3, "graph_share": 0.0, "landmarks": 1500}
    return RunConfig("simulated", None, (), (), sizes, values, TileEncoderConfig(), {})


def scores_of(made: SimulatedSlide, drawn: list[npt.NDArray[Any]], block: int) -> list[float]:
    """Return `JUDGED` of the distribution that draws of one slide come from, so many of them at a time."""
    spots, truth = made.slide.spots, made.slide.expression.astype(np.float64)
    graph = array_graph(spots.array, spots.lattice)
    found = finish(scoring_draws(drawn, truth, graph, block=block)).means()
    return [float(found[name]) for name in JUDGED]


def measure(model: CohortModel, slides: int, tests: int, steps: int, run: Path) -> dict[str, Any]:
    """Fit on `slides` slides and score `tests` others; kept in a file of `run`."""
    place = run / f"{slides}_{steps}.json"
    if place.exists():
        return dict(json.loads(place.read_text()))
    started = time.perf_counter()
    cohort = finish(model.cohort(slides)).cohort
    network = finish(fit(cohort, config(steps), run / f"fit_{slides}_{steps}"), _say)
    seconds = time.perf_counter() - started
    predictor = FlagPredictor(network, cohort.genes)
    found: dict[str, list[list[float]]] = {"transformer": [], "silenced": [], "exact": []}
    for number in range(tests):
        made = model.slide(FIRST_TEST + number)
        features = made.features[0].numpy()
        encoded = predictor.encode(features, made.slide.graph(features))
        rows, ids = np.arange(len(features)), made.slide.spots.ids
        settings = SamplerSettings(len(SCORED))
        for name, slide in (("transformer", encoded), ("silenced", encoded.silenced())):
            drawing = slide.draw(rows, ids, settings)
            try:
                while True:
                    next(drawing)
            except StopIteration as stop:
                found[name].append(scores_of(made, list(stop.value), TOGETHER))
        exact = [np.log2(made.known.draw(np.random.default_rng([number, k])) + 1) for k in SCORED]
        found["exact"].append(scores_of(made, exact, 1))
        sys.stderr.write(f"scored slide {number + 1} of {tests}\n")
    result = {"slides": slides, "spots": sum(len(s.spots) for s in cohort.slides), "seconds": round(seconds)}
    result |= {
        "steps": steps,
        "scores": found,
        "spread": json.loads(_spread_file(run, slides, steps).read_text()),
    }
    write_json(result, place)
    return result


def _spread_file(run: Path, slides: int, steps: int) -> Path:
    return run / f"fit_{slides}_{steps}" / "spread.json"


def _say(step: Step) -> None:
    if step.done % 50 == 0:
        sys.stderr.write(f"{step.stage} {step.done}\n")


def table(results: list[dict[str, Any]]) -> str:
    """Return one row per cohort: the silenced transformer's scores, and differences from them."""
    lines = [
        f"| slides | spots | composition | draws | {' | '.join(JUDGED)} |",
        f"|---:|---:|---:|---|{'---:|' * len(JUDGED)}",
    ]
    for result in results:
        silenced = np.array(result["scores"]["silenced"])
        size = f"{result['slides']} | {result['spots']} | {result['spread']['composition']}"
        lines.append(f"| {size} | silenced | {' | '.join(f'{v:.3f}' for v in silenced.mean(0))} |")
        for name in ("transformer", "exact"):
            away = np.array(result["scores"][name]) - silenced
            error = away.std(0, ddof=1) / np.sqrt(len(away))
            cells = (f"{a:+.3f} ± {2 * e:.3f}" for a, e in zip(away.mean(0), error, strict=True))
            lines.append(f"| | | | {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Write the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[4, 16, 64])
    parser.add_argument("--tests", type=int, default=8)
    parser.add_argument("--genes", type=int, default=100)
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    model = CohortModel(generated_genes(args.genes, **CONTEXT), depth_spread=0.2)
    results = [measure(model, size, args.tests, args.steps, args.run) for size in args.sizes]
    sizes = " ".join(str(size) for size in args.sizes)
    command = f"--sizes {sizes} --tests {args.tests} --genes {args.genes} --steps {args.steps}"
    command += f" --run {args.run} --out {args.out}"
    values = asdict(replace(config(args.steps)).fit)
    kept = {name: values[name] for name in ("score_steps", "score_rate", "score_batch", "seed")}
    text = [
        "# From how many slides on the gene transformer is worth something",
        f"Written by `python -m benchmarks.transformer_value {command}`.",
        f"Simulated cohorts of {args.genes} genes whose residuals depend on the tissue and are no Gaussian "
        f"({', '.join(f'`{key}={value}`' for key, value in CONTEXT.items())}); {args.tests} further "
        "slides, of patients not seen, get fair scores (`docs/statistics.md`). *Silenced*: the same network, "
        "drawing from its Gaussian; below are differences from it, ± two standard errors over slides; below "
        "0 is better. "
        "*Exact* knows tissue, patient and depth of the slide. *Composition* is the factor of the residual's "
        f"width that was chosen on left-out slides. Fit: {', '.join(f'{k} {v}' for k, v in kept.items())}.",
        table(results),
    ]
    args.out.write_text("\n\n".join(text) + "\n", "utf-8")


if __name__ == "__main__":
    main()
