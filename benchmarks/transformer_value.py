"""From how many slides on the gene transformer is worth something, on simulated cohorts.

Cohorts of growing size are simulated without pictures (`flag_training.simulated`), with residuals that
depend on the tissue and are no Gaussian; FLAG is fitted to each as ``napari-flag train`` does, and draws of
further slides, one of each of as many patients it has not seen, get fair scores with the transformer and
with it silenced.  Slides of one patient share level, depth and stain, so errors are over patients.
Beside them stands the exact distribution, which knows tissue, patient and depth of the slide.  Resumable:
what is done is read from ``--run``, where genes, slides, steps and patients are in the names of the files.

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
from scipy import stats

from flag_training.config import FitConfig, RunConfig
from flag_training.scoring import JUDGED, SCORED
from flag_training.simulated import CohortModel, SimulatedSlide
from flag_training.stages.fit import fit
from flag_training.stages.tile_encoder import TileEncoderConfig
from napari_flag.cli.terminal import watch
from napari_flag.files import write_json
from napari_flag.formatting import difference, score, whole
from napari_flag.methods.flag import FlagPredictor
from napari_flag.model.diffusion import TOGETHER
from napari_flag.model.samplers import SamplerSettings
from napari_flag.progress import finish
from napari_flag.simulation.expression import generated_genes
from napari_flag.statistics.neighbours import array_graph
from napari_flag.statistics.scoring_rules import scoring_draws

CONTEXT: Final[dict[str, Any]] = {
    "own_to_tissue": 1.0, "on_off": 3, "factors": 3, "shared": 0.9, "residual": 0.8, "mean_count": 10.0,
}  # fmt: skip
"""Residuals of which one Gaussian loses most (``docs/results/simulated_ceiling.md``)."""
FIRST_TEST: Final = 1000
"""Number of the first slide scored, the first of its patient; training slides are numbered from 0."""
FEWEST_PATIENTS: Final = 2
"""Of fewer no spread is known."""


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


def scored_slides(model: CohortModel, tests: int) -> list[int]:
    """Return the numbers of the slides scored, each of another patient."""
    return [FIRST_TEST + number * model.slides_per_patient for number in range(tests)]


def fit_folder(run: Path, model: CohortModel, slides: int, steps: int) -> Path:
    """Return where the states of a fit are."""
    return run / f"fit_{len(model.genes)}_genes_{slides}_slides_{steps}_steps"


def result_file(run: Path, model: CohortModel, slides: int, tests: int, steps: int) -> Path:
    """Return the file of a cohort's scores; other settings have another."""
    folder = fit_folder(run, model, slides, steps).name.removeprefix("fit_")
    return run / f"{folder}_{tests}_patients.json"


def measure(model: CohortModel, slides: int, tests: int, steps: int, run: Path) -> dict[str, Any]:
    """Fit on `slides` slides and score one of each of `tests` other patients; kept in a file of `run`."""
    place = result_file(run, model, slides, tests, steps)
    if place.exists():
        return dict(json.loads(place.read_text()))
    started = time.perf_counter()
    cohort = finish(model.cohort(slides)).cohort
    folder = fit_folder(run, model, slides, steps)
    network = watch(fit(cohort, config(steps), folder))
    seconds = time.perf_counter() - started
    predictor = FlagPredictor(network, cohort.genes)
    found: dict[str, list[list[float]]] = {"transformer": [], "silenced": [], "exact": []}
    patients = []
    for number, scored in enumerate(scored_slides(model, tests)):
        made = model.slide(scored)
        patients.append(made.slide.entry.patient)
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
        "patients": patients,
        "scores": found,
        "spread": json.loads((folder / "spread.json").read_text()),
    }
    write_json(result, place)
    return result


def over_patients(values: npt.ArrayLike, patients: list[str]) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Return the mean over patients of (slides, k) `values`, and half the width of its 95 % interval.

    Student's t, of as many values as there are patients, each the mean over its slides; NaN of fewer than 2.
    """
    by_slide, whose = np.asarray(values, np.float64), np.array(patients)
    by_patient = np.stack([by_slide[whose == one].mean(0) for one in dict.fromkeys(patients)])
    n = len(by_patient)
    if n < FEWEST_PATIENTS:
        return by_patient.mean(0), np.full(by_patient.shape[1], np.nan)
    error = by_patient.std(0, ddof=1) / np.sqrt(n)
    return by_patient.mean(0), stats.t.ppf(0.975, n - 1) * error


def table(results: list[dict[str, Any]]) -> str:
    """Return one row per cohort: the silenced transformer's scores, and differences from them."""
    lines = [
        f"| slides | spots | composition | draws | {' | '.join(JUDGED)} |",
        f"|---:|---:|---:|---|{'---:|' * len(JUDGED)}",
    ]
    for result in results:
        silenced, patients = np.array(result["scores"]["silenced"]), result["patients"]
        level, _ = over_patients(silenced, patients)
        size = f"{result['slides']} | {whole(result['spots'])} | {result['spread']['composition']}"
        lines.append(f"| {size} | silenced | {' | '.join(map(score, level, JUDGED))} |")
        for name in ("transformer", "exact"):
            away = over_patients(np.array(result["scores"][name]) - silenced, patients)
            cells = (difference(mean, error=half) for mean, half in zip(*away, strict=True))
            lines.append(f"| | | | {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Write the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[4, 16, 64])
    parser.add_argument("--tests", type=int, default=8, help="patients scored, a slide of each")
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
        f"({', '.join(f'`{key}={value}`' for key, value in CONTEXT.items())}); slides of {args.tests} "
        "patients not seen, one of each, get fair scores (`docs/statistics.md`). *Silenced*: the same "
        "network, drawing from its Gaussian; below are differences from it, ± half the width of the 95 % "
        "interval over patients (Student's t); below 0 is better. "
        "*Exact* knows tissue, patient and depth of the slide. *Composition* is the factor of the residual's "
        f"width that was chosen on left-out slides. Fit: {', '.join(f'{k} {v}' for k, v in kept.items())}.",
        table(results),
    ]
    args.out.write_text("\n\n".join(text) + "\n", "utf-8")


if __name__ == "__main__":
    main()
