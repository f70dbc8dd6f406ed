"""Measure whether joint node–edge diffusion fails as genes are added, where FLAG does not, and why.

Panels of growing size are nested and chosen on training sections only; every point of the grid gets the same
number of operations (``--budget``, as in ``equal_budgets.py``), with several seeds.  A step of FLAG's gene
transformer takes the more operations the more genes there are, so that the same budget pays fewer; *FLAG, as
many steps* gets the steps of the joint form instead, whatever they take.  Ridge
and the training mean stand beside.  A grid point (method, genes, seed) is one process and one JSON file of
``--run``; what is there is not computed again, a training that was stopped goes on, and files of other
settings are refused.  Beside scores of held-out slides stand measures of why: how the correlations of spots
spread, how steep the edges' score is, what each method loses, and what true correlations handed as edges are
worth.  A simulated slide that is scored is of a patient of its own, and each seed simulates its own cohort.

    nice python benchmarks/gene_dimension.py --run runs/genes_simulated --simulated 64
    nice python benchmarks/gene_dimension.py --run runs/genes_her2st --config training/configs/her2st.toml \
        --data DATA --validate C4 --test C5
    python benchmarks/gene_dimension.py --run runs/genes_simulated --figures docs/images
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import islice, product
from pathlib import Path
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from matplotlib.figure import Figure
from torch.utils.flop_counter import FlopCounterMode

from flag_training.cohort import Cohort, TrainingSlide
from flag_training.config import RunConfig, read_config
from flag_training.engine.loop import Held
from flag_training.evaluate import Plan, draw, fold_cohort, folds_of, keep
from flag_training.figures import draw_dynamics, find
from flag_training.methods import Method, blinded
from flag_training.methods.floors import Ridge, SlideMean
from flag_training.methods.graph_diffusion import (
    FlagDiffusion,
    JointDiffusion,
    NodeDiffusion,
    OracleDiffusion,
    WindowDiffusion,
)
from flag_training.methods.learning import Descent
from flag_training.methods.method import FloatArray
from flag_training.methods.tissue_windows import TrainingWindows, batches, padded
from flag_training.methods.window_losses import (
    Centre,
    NoisyWindows,
    correlations_of,
    held_out_loss,
    spot_correlation,
)
from flag_training.methods.window_training import cut, train, untrained, windows_of
from flag_training.scoring import score
from flag_training.simulated import CohortModel
from flag_training.store.panels import PanelRule, select_panel
from napari_flag import formatting
from napari_flag.cli.terminal import watch
from napari_flag.errors import UserError
from napari_flag.figures.style import COLOURS, house_style
from napari_flag.files import write_json, write_text
from napari_flag.methods.drawn import DrawnSlide
from napari_flag.methods.windowed import Joint, WindowNetwork
from napari_flag.model.diffusion import keyed_uniforms
from napari_flag.model.published import sigma_at
from napari_flag.progress import finish
from napari_flag.simulation.expression import generated_genes
from napari_flag.slides.spot_tables import read_measured

Wide: TypeAlias = npt.NDArray[np.float64]

GENES: Final = (50, 100, 200, 400, 800)
JOINT: Final = "joint"
AS_MANY: Final = "FLAG, as many steps"
ORACLE: Final = "oracle edges"
FLOORS: Final[dict[str, Method]] = {"training mean": SlideMean(), "ridge": Ridge()}
METHODS: Final = ("node-only", JOINT, "joint, published edges", "FLAG", ORACLE, AS_MANY, *FLOORS)
TERA: Final = 1e12
COUNTED: Final = 16
"""Batches over which the operations of a step are averaged."""
STARTS: Final = 16
"""Denoised at t = 1 and averaged for X: pure noise says nothing of a spot, so what it is denoised to is what
the network expects there."""
TIMES: Final = (0.05, 0.2, 0.35, 0.5, 0.65, 0.8, 0.95)
SHOWN_TIMES: Final = (0.05, 0.35, 0.65, 0.95)
"""Of these, at which the steepness of the edges' score is drawn."""
COLUMNS: Final = ("PCC", "MSE", "GSC", "SSC")
"""The first two of X; the others of the draws, rounded to counts."""
FIRST_TEST: Final = 1000
"""Number of the first simulated slide that is scored; training slides are numbered from 0."""
FIRST_VALIDATED: Final = 500
VALIDATED: Final = 2
SETTINGS: Final = (
    *("simulated", "spots", "tests", "validate", "test", "budget", "rate", "width", "blocks"),
    *("solver_steps", "draws", "unscaled"),
)
"""Options that make a result; files in which they differ are not of one grid."""
WINDOW_PITCHES: Final = 7.0
KERNEL_PITCHES: Final = 0.75
"""Of HER2ST, the published 2048 and 224 px."""


@dataclass(frozen=True, slots=True)
class Point:
    """One of the grid: a method, how many genes, and a seed."""

    method: str
    genes: int
    seed: int

    @property
    def name(self) -> str:
        """Of its file and folder."""
        return f"{self.method.replace(', ', '_').replace(' ', '_')}_{self.genes}_{self.seed}"


def form_of(method: str, pitch_um: float, steps: int, args: argparse.Namespace) -> WindowDiffusion:
    """Return a method with its values, the same wherever methods share them."""
    common: dict[str, Any] = {
        "window_um": WINDOW_PITCHES * pitch_um,
        "kernel_um": KERNEL_PITCHES * pitch_um,
        "width": args.width,
        "blocks": args.blocks,
        "head_width": args.width // 4,
        "batch": 4,
        "solver_steps": args.solver_steps,
        "samples": args.draws,
        "training": Descent(steps, args.rate, decay=0.01, clip=1.0, ema=0.99),
        "scaled": not args.unscaled,
    }
    genes = {"heads": 4, "gene_blocks": args.blocks + 1}
    made: dict[str, Callable[[], WindowDiffusion]] = {
        "node-only": lambda: NodeDiffusion(**common),
        "joint": lambda: JointDiffusion(**common),
        "joint, published edges": lambda: JointDiffusion(**common, centre="sum"),
        "FLAG": lambda: FlagDiffusion(**common, **genes),
        AS_MANY: lambda: FlagDiffusion(**common, **genes),
        ORACLE: lambda: OracleDiffusion(**common),
    }
    return made[method]()


@dataclass(frozen=True, slots=True)
class Parts:
    """Slides to train on, to validate on and to score."""

    train: Cohort
    validate: Cohort
    test: Cohort


def one_per_patient(model: CohortModel, slides: int, first: int) -> Cohort:
    """Return simulated slides from number `first` on, each of another patient."""
    numbers = [first + place * model.slides_per_patient for place in range(slides)]
    found = [finish(model.cohort(1, number)).cohort for number in numbers]
    each = [(cohort.slides[0], cohort.features[0]) for cohort in found]
    return Cohort(tuple(slide for slide, _ in each), tuple(views for _, views in each), model.genes.names)


def read_parts(args: argparse.Namespace, genes: int, seed: int) -> Parts:
    """Return the slides with the first `genes` genes of the panel; simulated ones are drawn from `seed`."""
    if args.simulated > FIRST_VALIDATED:
        raise UserError(
            f"{args.simulated} slides cannot be trained on, since those from number {FIRST_VALIDATED} on are "
            f"validated on or scored; give --simulated {FIRST_VALIDATED} at most."
        )
    if args.simulated:
        model = CohortModel(generated_genes(genes), seed=seed, spots=args.spots)
        return Parts(
            finish(model.cohort(args.simulated)).cohort,
            one_per_patient(model, VALIDATED, FIRST_VALIDATED),
            one_per_patient(model, args.tests, FIRST_TEST),
        )
    config = replace(read_config(args.config), prior=None)
    names = [entry.name for entry in config.slides]
    absent = [name for name in (*args.validate, *args.test) if name not in names]
    if absent or not args.test or not args.validate or set(args.validate) & set(args.test):
        raise UserError(
            f"Sections to validate on and to score must be different ones of the config, which has "
            f"{', '.join(names)}; name them with --validate and --test."
        )
    rest = [name for name in names if name not in (*args.validate, *args.test)]
    config = replace(config, panel=str(panel_of(args, config, rest, genes)))
    plan = Plan(test=tuple(args.test), together=True)
    fold = folds_of(config, plan)[0]
    cohort = watch(fold_cohort(config, args.data, args.encoders or args.run, plan, fold))
    return Parts(keep(cohort, rest), keep(cohort, args.validate), keep(cohort, args.test))


def panel_of(args: argparse.Namespace, config: RunConfig, train_on: Sequence[str], genes: int) -> Path:
    """Return the file of the first `genes` genes of a panel that was chosen on the sections `train_on`.

    The panel is chosen once per run and training set, of the most genes that are asked for, highest mean
    first, so that each size holds the smaller ones.  Genes that a section to be scored does not list are left
    out.
    """
    chosen_on = f"panel_{'_'.join(train_on)}"
    whole, part = (args.run.absolute() / f"{chosen_on}{size}.txt" for size in ("", f"_{genes}"))
    if not whole.exists():
        counts = {
            entry.name: read_measured(args.data / (entry.counts or entry.spots)) for entry in config.slides
        }
        common = set.intersection(*(set(each.var_names) for each in counts.values()))
        rule = PanelRule(genes=max(*GENES, *args.genes), exact=True)
        panel = select_panel({name: counts[name] for name in train_on}, rule, common)
        write_text("\n".join(panel) + "\n", whole)
    names = whole.read_text("utf-8").split()
    if len(names) < genes:
        raise UserError(
            f"The panel of {args.run} has {len(names)} genes and {genes} were asked for; use another --run."
        )
    if not part.exists():
        write_text("\n".join(names[:genes]) + "\n", part)
    return part


def operations(form: WindowDiffusion, network: WindowNetwork, cohort: Cohort) -> int:
    """Return the floating-point operations of a step of training, matrix products alone, on average."""
    pairs = zip(cohort.slides, cohort.features, strict=True)
    graphs = [graph for slide, views in pairs for graph in cut(form, network, slide, views[0])]
    objective, counts = form.objective(network, cohort.genes), []
    for batch in islice(batches(graphs, form.batch, torch.Generator().manual_seed(0)), COUNTED):
        noisy = NoisyWindows.draw(padded(batch), torch.Generator().manual_seed(0))
        with FlopCounterMode(display=False) as counter:
            loss, _ = objective(Held(noisy))
            torch.autograd.backward(loss)
        counts.append(counter.get_total_flops())
    return round(float(np.mean(counts)))


def paid_steps(args: argparse.Namespace, parts: Parts, method: str) -> tuple[int, int]:
    """Return the steps that the budget pays of a method, one at least, and the operations of one."""
    form = form_of(method, parts.train.slides[0].pitch_um, 1, args)
    each = operations(form, untrained(form, parts.train, 0), parts.train)
    if method == AS_MANY:
        return paid_steps(args, parts, JOINT)[0], each
    return max(1, round(args.budget * TERA / each)), each


def measure(args: argparse.Namespace, point: Point) -> dict[str, Any]:
    """Train and score one grid point; the result is kept in a file of ``--run``."""
    parts = read_parts(args, point.genes, point.seed)
    by = measure_floor if point.method in FLOORS else measure_diffusion
    result = asdict(point) | {"settings": settings_of(args)} | by(args, point, parts)
    write_json(result, args.run / f"{point.name}.json")
    return result


def measure_floor(args: argparse.Namespace, point: Point, parts: Parts) -> dict[str, Any]:
    """Fit and score a floor, of which no draws are made."""
    fitted = finish(FLOORS[point.method].fit(parts.train, point.seed))
    scores = []
    for slide, views in zip(parts.test.slides, parts.test.features, strict=True):
        encoded = fitted.encode(blinded(slide), views[0].numpy())
        found = finish(encoded.expectation(np.arange(len(slide.spots)), slide.spots.ids))
        scores.append(scored(found.mean, None, slide, point, args))
    return {"scores": scores}


def measure_diffusion(args: argparse.Namespace, point: Point, parts: Parts) -> dict[str, Any]:
    """Train and score a diffusion over windows, and measure why it scores so."""
    steps, count = paid_steps(args, parts, point.method)
    form = form_of(point.method, parts.train.slides[0].pitch_um, steps, args)
    started = time.process_time(), time.perf_counter()
    folder = args.run / point.name
    every = max(1, steps // 20)
    training = train(form, parts.train, point.seed, folder, parts.validate, every, settings_of(args))
    network = watch(training)
    fitted = form.fitted(network, parts.train)
    trained = time.process_time(), time.perf_counter()
    scores = []
    for slide, views in zip(parts.test.slides, parts.test.features, strict=True):
        seen = slide if point.method == ORACLE else blinded(slide)
        encoded = fitted.encode(seen, views[0].numpy())
        drawn = finish(draw(fitted.predictor, encoded, slide, args.draws, point.seed)).draws
        scores.append(scored(expected(encoded, point.seed), drawn, slide, point, args))
    sampling = time.process_time() - trained[0]
    windows = windows_of(form, network, parts.test)
    result = {
        "steps": steps,
        "operations_per_step": count,
        "training_process_s": round(trained[0] - started[0], 1),
        "training_wall_s": round(trained[1] - started[1], 1),
        "sampling_process_s": round(sampling, 1),
        "scores": scores,
        "times": list(TIMES),
        "spot_loss": held_out_loss(network, windows, form.correlated, TIMES).tolist(),
        "loss": held_out_objective(form, network, windows, parts.train.genes),
        "correlations": {
            name: spread_of(windows, centre) for name, centre in (("Pearson", "mean"), ("published", "sum"))
        },
    }
    if isinstance(network, Joint):
        result["edge_score"] = [edge_gain(network, windows, form.correlated, t) for t in TIMES]
    return result


def settings_of(args: argparse.Namespace) -> dict[str, Any]:
    """Return the options that make a result."""
    return {name: getattr(args, name) for name in SETTINGS} | {"config": args.config and args.config.stem}


@torch.inference_mode()
def expected(slide: DrawnSlide, seed: int) -> FloatArray:
    """Return the (n, G) log2(count + 1) that a network expects: the mean of `STARTS` denoised at t = 1."""
    network, names = slide.network, slide.places.names
    assert isinstance(network, WindowNetwork)
    assert slide.groups is not None
    total = np.zeros((len(names), network.genes))
    for rows, start in product(slide.groups, range(STARTS)):
        ids = [names[row] for row in rows]

        def noise(what: str, width: int | None = None, start: int = start, ids: list[str] = ids) -> Wide:
            return keyed_uniforms(seed, start, ids, width or network.genes, f"expected {what}")

        window = network.window(slide.seen, rows)
        state, t = network.start(noise, window), torch.ones(1)
        clean = state[0] + sigma_at(t) ** 2 * network.scores(state, t, window)[0]
        total[rows] += clean[0].numpy()
    found: FloatArray = np.maximum(total / STARTS, 0).astype(np.float32)
    return found


def held_out_objective(
    form: WindowDiffusion, network: WindowNetwork, windows: Sequence[TrainingWindows], genes: Sequence[str]
) -> dict[str, float]:
    """Return what training minimises, on `windows` at random times, and its parts."""
    objective, rows = form.objective(network, genes).eval(), []
    draws = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for window, _ in product(windows, range(8)):
            whole, parts = objective(Held(NoisyWindows.draw(window, draws)))
            rows.append({"all": float(whole)} | {name: float(part) for name, part in parts.items()})
    return {name: float(np.mean([row[name] for row in rows])) for name in rows[0]}


def scored(
    x: FloatArray, drawn: FloatArray | None, slide: TrainingSlide, point: Point, args: argparse.Namespace
) -> dict[str, Any]:
    """Return the scores of a section over all genes and over those of the smallest panel."""
    sizes = {"all": point.genes, "smallest panel": min(*GENES, *args.genes)}
    found = {name: scores_of(x, drawn, slide, genes) for name, genes in sizes.items()}
    return {"section": slide.entry.name} | found


def scores_of(x: FloatArray, drawn: FloatArray | None, slide: TrainingSlide, genes: int) -> dict[str, float]:
    """Return `COLUMNS` of the first `genes` genes of the (n, G) expectation and the (K, n, G) draws."""
    truth = replace(slide, expression=slide.expression[:, :genes])
    of_x = score(x[:, :genes], truth)
    found = {name: of_x[name] for name in COLUMNS[:2]}
    if drawn is None:
        return found
    of_draws = [score(each[:, :genes], truth) for each in drawn]
    return found | {name: float(np.mean([each[name] for each in of_draws])) for name in COLUMNS[2:]}


def spread_of(windows: Sequence[TrainingWindows], centre: Centre) -> dict[str, float]:
    """Return mean and standard deviation of the correlations of spots of one window."""
    every = correlations_of(windows, centre)
    return {"mean": float(every.mean()), "sd": float(every.std())}


def edge_gain(
    network: Joint, windows: Sequence[TrainingWindows], centre: Centre, t: float
) -> dict[str, float]:
    """Return how much the edges' score changes per change of the edges, and what a Gaussian's does.

    The first is the root mean square over directions of the network's derivative, by one random direction
    per window; the second 1 / (2v + σ²), v the variance of the correlations, which are symmetric where their
    noise is not: (i, j) and (j, i) are two measurements of one correlation.
    """
    changes, total = 0.0, 0
    draws = torch.Generator().manual_seed(0)
    for each in windows:
        noisy = NoisyWindows.draw(each, draws, t)
        clean = spot_correlation(each.expression, each.present, centre)
        direction = torch.randn(clean.shape, generator=draws)
        direction = (direction + direction.transpose(1, 2)) / 2 * each.pairs
        length = direction.square().sum((1, 2), keepdim=True).sqrt().clamp_min(1e-12)

        def edge_score(edges: torch.Tensor, noisy: NoisyWindows = noisy) -> torch.Tensor:
            state = noisy.spots_at_t, edges
            return network.scores(state, noisy.t, noisy.windows)[1]

        with torch.no_grad():
            _, change = torch.func.jvp(edge_score, (noisy.edges_at_t(clean),), (direction / length,))
        changes += float((change * each.pairs).square().sum())
        total += int(each.pairs.any((1, 2)).sum())  # not those of a single spot
    variance = spread_of(windows, centre)["sd"] ** 2
    sigma = float(sigma_at(torch.tensor(t)))
    return {"network": float(np.sqrt(changes / max(total, 1))), "Gaussian": 1 / (2 * variance + sigma**2)}


def read_results(run: Path) -> list[dict[str, Any]]:
    """Return what is there of the grid."""
    return [json.loads(path.read_text()) for path in sorted(run.glob("*_*_*.json"))]


def _by_size(
    results: Sequence[dict[str, Any]], method: str, value: Callable[[dict[str, Any]], float]
) -> tuple[list[int], npt.NDArray[np.float64], npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return numbers of genes, and mean, least and most of `value` over seeds and sections."""
    sizes = sorted({each["genes"] for each in results if each["method"] == method})
    rows = [
        [value(each) for each in results if each["method"] == method and each["genes"] == size]
        for size in sizes
    ]
    low, mean, high = (np.array([reduce(row) for row in rows]) for reduce in (np.min, np.mean, np.max))
    return sizes, mean, low, high


def _score(name: str, of: str) -> Callable[[dict[str, Any]], float]:
    return lambda each: float(np.nanmean([section[of][name] for section in each["scores"]]))


def _has(results: Sequence[dict[str, Any]], method: str, name: str = "PCC") -> bool:
    return any(each["method"] == method and name in each["scores"][0]["all"] for each in results)


def _panel(axes: Any, sizes: Sequence[int], title: str, label: str) -> Any:
    axes.set_title(title, loc="left")
    axes.set_xscale("log", base=2)
    axes.set_xticks(sizes, [str(size) for size in sizes])
    axes.minorticks_off()
    axes.set_xlabel("genes")
    axes.set_ylabel(label)
    return axes


def _line(axes: Any, found: tuple[Any, ...], colour: str, label: str) -> None:
    sizes, mean, low, high = found
    axes.plot(sizes, mean, "o-", color=colour, markersize=4, label=label)
    axes.fill_between(sizes, low, high, color=colour, alpha=0.15, linewidth=0)


def draw_scores(results: Sequence[dict[str, Any]]) -> Figure:
    """Draw every score against the number of genes: of all genes, and of those of the smallest panel."""
    figure, sizes = Figure(figsize=(11, 5.2)), sorted({each["genes"] for each in results})
    methods = [method for method in METHODS if _has(results, method)]
    for row, of in zip(figure.subplots(2, len(COLUMNS)), ("all", "smallest panel"), strict=True):
        for axes, name in zip(row, COLUMNS, strict=True):
            _panel(axes, sizes, f"{name}, {'all' if of == 'all' else f'the same {sizes[0]}'} genes", name)
            for colour, method in zip(COLOURS, methods, strict=False):
                if _has(results, method, name):
                    _line(axes, _by_size(results, method, _score(name, of)), colour, method)
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(methods))
    return figure


def table_of(results: Sequence[dict[str, Any]]) -> str:
    """Return a Markdown table: scores of every method by number of genes, means over sections and seeds."""
    sizes = sorted({each["genes"] for each in results})
    lines = ["| score | method | " + " | ".join(f"{size} genes" for size in sizes) + " |"]
    lines.append("|---|---|" + "---:|" * len(sizes))

    def row(
        name: str, method: str, value: Callable[[dict[str, Any]], float], write: Callable[[float], str]
    ) -> None:
        known, mean, *_ = _by_size(results, method, value)
        cells = dict(zip(known, map(write, mean), strict=True))
        shown = [cells.get(size, formatting.UNKNOWN) for size in sizes]
        lines.append(f"| {name} | {method} | {' | '.join(shown)} |")

    for method in METHODS:
        if any(each["method"] == method and "steps" in each for each in results):
            row("steps", method, lambda each: float(each["steps"]), formatting.whole)
    for name in COLUMNS:
        for method in METHODS:
            if _has(results, method, name):
                row(name, method, _score(name, "all"), partial(formatting.score, metric=name))
    return "\n".join(lines)


def draw_mechanism(results: Sequence[dict[str, Any]]) -> Figure:
    """Draw spread of correlations, steepness of the edges' score, losses and oracle gain against genes."""
    results = [each for each in results if each["method"] not in FLOORS]
    figure, sizes = Figure(figsize=(14, 5.2)), sorted({each["genes"] for each in results})
    spread, middle, steep, loss, whole, summed, gain, after = figure.subplots(2, 4).ravel()
    _panel(spread, sizes, "Spread of spot–spot correlations", "standard deviation").set_yscale("log")
    _panel(middle, sizes, "What they are on average", "1 − mean").set_yscale("log")
    seen = {(each["genes"], each["seed"]): each["correlations"] for each in results}  # alike for all methods
    for colour, name in zip(COLOURS, ("Pearson", "published"), strict=False):
        sd, mean = (
            [np.mean([of[name][what] for (genes, _), of in seen.items() if genes == size]) for size in sizes]
            for what in ("sd", "mean")
        )
        spread.plot(sizes, sd, "o-", color=colour, label=name)
        middle.plot(sizes, [1 - each for each in mean], "o-", color=colour, label=name)
    _panel(steep, sizes, "Steepness of the edges' score", "change per change of edges").set_yscale("log")
    joint = [each for each in results if each["method"] == "joint"]
    for colour, when in zip(COLOURS, SHOWN_TIMES, strict=False):
        place = TIMES.index(when)
        of_network, of_gaussian = (
            _by_size(joint, "joint", lambda each, kind=kind, place=place: each["edge_score"][place][kind])
            for kind in ("network", "Gaussian")
        )
        _line(steep, of_network, colour, f"t = {when}")
        steep.plot(*of_gaussian[:2], ":", color=colour)
    steep.set_xlabel("genes (dotted: of a Gaussian)")
    _panel(loss, sizes, "Spots' loss, noisy true edges", "more than node-only's")
    _panel(whole, sizes, "All that training minimises", "more than node-only's")
    _panel(summed, sizes, "The same, times the genes", "more than node-only's")
    _panel(gain, sizes, "PCC beside node-only's", "difference")
    _panel(after, sizes, "MSE beside node-only's", "difference")
    plain = {(each["genes"], each["seed"]): each for each in results if each["method"] == "node-only"}
    paired = [each for each in results if (each["genes"], each["seed"]) in plain]
    for axes, value in (
        (loss, lambda each: float(np.mean(each["spot_loss"]))),
        (whole, lambda each: each["loss"]["all"]),
        (summed, lambda each: each["loss"]["all"] * each["genes"]),
        (gain, _score("PCC", "all")),
        (after, _score("MSE", "all")),
    ):
        axes.axhline(0, color="grey", linewidth=0.8)
        for colour, method in zip(COLOURS[1:], METHODS[1:], strict=False):

            def away(each: dict[str, Any], value: Callable[..., float] = value) -> float:
                return value(each) - value(plain[each["genes"], each["seed"]])

            if any(each["method"] == method for each in paired):
                _line(axes, _by_size(paired, method, away), colour, method)
    for axes in (spread, steep, loss):
        axes.legend()
    return figure


def draw_all(args: argparse.Namespace) -> list[Path]:
    """Write the three figures, and return their files."""
    results = read_results(args.run)
    if not results:
        raise UserError(f"{args.run} holds no result to draw; run the benchmark with --run {args.run} first.")
    refuse_mixed(results, results[0]["settings"], args.run)
    args.figures.mkdir(parents=True, exist_ok=True)
    size = min(each["genes"] for each in results)
    shown = [Point(method, size, min(each["seed"] for each in results)) for method in METHODS]
    trained = [point for point in shown if (args.run / point.name).exists()]
    found = {point: find([args.run / point.name]) for point in trained}
    for unread in (sentence for each in found.values() for sentence in each.unread):
        print(unread, file=sys.stderr)
    logs = [
        replace(log, name=f"{point.method}, {size} genes")
        for point, each in found.items()
        for log in each.logs
    ]
    with house_style():
        drawn = {
            "gene_dimension_scores": draw_scores(results),
            "gene_dimension_mechanism": draw_mechanism(results),
        } | ({"gene_dimension_training": draw_dynamics(logs)} if logs else {})
        paths = [args.figures / f"{name}.png" for name in drawn]
        for path, figure in zip(paths, drawn.values(), strict=True):
            figure.savefig(path)
    return paths


def refuse_mixed(results: Sequence[dict[str, Any]], settings: dict[str, Any], run: Path) -> None:
    """Refuse results of other settings, which are not of the same grid."""
    for each in results:
        known = each.get("settings", {})
        if differ := sorted(name for name in settings if known.get(name) != settings[name]):
            raise UserError(
                f"{run} holds results of another {', '.join(differ)}; use another --run, or the same options."
            )


def run_grid(args: argparse.Namespace, argv: Sequence[str]) -> None:
    """Compute what is missing, a process per grid point."""
    args.run.mkdir(parents=True, exist_ok=True)
    refuse_mixed(read_results(args.run), settings_of(args), args.run)
    for genes in args.genes:
        for seed in args.seeds:
            for method in args.methods:
                point = Point(method, genes, seed)
                if (args.run / f"{point.name}.json").exists():
                    continue
                sys.stderr.write(f"{point.name}\n")
                which = ["--point", method, str(genes), str(seed)]
                subprocess.run([sys.executable, __file__, *argv, *which], check=True)


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--run", type=Path, required=True, help="results, training states and logs")
    parser.add_argument(
        "--simulated", type=int, default=0, metavar="SLIDES", help="train on simulated slides"
    )
    parser.add_argument("--spots", type=int, default=300, help="of a simulated slide")
    parser.add_argument("--tests", type=int, default=4, help="simulated slides to score")
    parser.add_argument("--config", type=Path, help="a training config whose sections to use instead")
    parser.add_argument("--data", type=Path, help="folder of its data")
    parser.add_argument("--encoders", type=Path, help="run folder with its tile encoders and features")
    parser.add_argument("--validate", nargs="+", default=[], help="sections to validate on")
    parser.add_argument("--test", nargs="+", default=[], help="sections to score")
    parser.add_argument("--genes", type=int, nargs="+", default=list(GENES))
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--budget", type=float, default=20.0, metavar="TFLOP", help="of a training")
    parser.add_argument("--rate", type=float, default=1e-3, help="learning rate")
    parser.add_argument("--width", type=int, default=48, help="of the networks; a multiple of 4")
    parser.add_argument("--blocks", type=int, default=2, help="of the graph transformer")
    parser.add_argument("--solver-steps", type=int, default=20)
    parser.add_argument("--draws", type=int, default=8)
    parser.add_argument("--unscaled", action="store_true", help="networks without scaling, as published")
    parser.add_argument(
        "--figures",
        type=Path,
        metavar="FOLDER",
        help="draw what is there and print its table, compute nothing",
    )
    parser.add_argument("--point", nargs=3, metavar=("METHOD", "GENES", "SEED"), help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if not args.figures and not args.simulated and not (args.config and args.data):
        parser.error("say what to train on: --simulated SLIDES, or --config FILE --data FOLDER")
    return args


def main(argv: Sequence[str]) -> int:
    """Run the grid, one point of it, or draw the figures."""
    args = parse(argv)
    try:
        if args.figures:
            print(*draw_all(args), table_of(read_results(args.run)), sep="\n")
        elif args.point:
            method, genes, seed = args.point
            print(json.dumps(measure(args, Point(method, int(genes), int(seed)))["scores"]))
        else:
            run_grid(args, argv)
    except UserError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
