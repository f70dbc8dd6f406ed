r"""Eight draws by the published network and schedule, and by ours: how much faster, by what, how good.

    nice python -m benchmarks.published_speed training/configs/her2st.toml --data DATA --run runs/her2st \
        --test C2 --train-without B4 --rounds 3 --out docs/results/published_speed.json --write

Both learn from the same sections under the same features, with networks of the same width, heads and blocks,
and with as many operations: FLAG as its config says, the published form for as many steps as these pay
(counted as in `benchmarks.equal_budgets`).  Then eight draws of all spots of the section left out are made by
the published network and schedule (201 evaluations, in each of which the graph transformer sees every
window), by ours, and by the forms between, each of which differs from the one before by one cause: the factor
of a cause is the time of one over that of the next, and their product is the whole.  All forms run in turns;
a round draws the next eight.  Draws of the first two rounds are scored as `napari-flag evaluate` scores them.

Training states and rounds are kept in the run folder: what is there is not computed again.
"""

import argparse
import json
import shlex
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from benchmarks.equal_budgets import BASELINES, TERA, flag_operations, trained_for, within
from benchmarks.published_forms import Form, forms_of
from benchmarks.tables import machine, write_between
from torch import nn

from flag_training.cohort import Cohort, TrainingSlide, fingerprint
from flag_training.config import RunConfig, read_config
from flag_training.evaluate import Plan, fold_cohort, folds_of, keep
from flag_training.methods import blinded
from flag_training.methods.graph_diffusion import FlagDiffusion
from flag_training.methods.published import read_baseline
from flag_training.methods.window_training import train
from flag_training.run_folders import states_folder
from flag_training.scoring import COMPARED, SCORED, Section, called
from flag_training.stages.fit import fit
from napari_flag.cli.terminal import watch
from napari_flag.files import replacing, write_json
from napari_flag.formatting import counted, difference, score, whole
from napari_flag.keys import STEPS_OF
from napari_flag.methods.flag import FlagPredictor
from napari_flag.methods.moments import FloatArray
from napari_flag.methods.published import Published
from napari_flag.model.config import FlagConfig
from napari_flag.model.diffusion import TOGETHER
from napari_flag.model.flag import Flag
from napari_flag.model.published import PublishedFlag
from napari_flag.model.samplers import SamplerSettings

PAGE: Final = Path(__file__).parents[1] / "docs" / "results" / "published_speed.md"
HEUN_STEPS: Final = 100
"""Of the published schedule: two evaluations each, and one at the end."""


# --- training -------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class Trained:
    """Both networks, trained alike.

    Parameters
    ----------
    flag, published
        The networks.
    folder
        Of the published form's states.
    slide, features
        The section left out, with its truth, and its (n, d) features.
    described
        What tables say of the training.
    """

    flag: FlagPredictor
    published: Published
    folder: Path
    slide: TrainingSlide
    features: FloatArray
    described: dict[str, Any]


def same_size(method: FlagDiffusion, ours: FlagConfig) -> FlagDiffusion:
    """Return the published form as wide and deep as our network, with its own schedule."""
    return replace(
        method,
        width=ours.width,
        blocks=ours.context_layers,
        heads=ours.heads,
        head_width=ours.width // ours.heads,
        gene_blocks=ours.blocks,
        mlp_ratio=ours.mlp_ratio,
        solver_steps=HEUN_STEPS,
    )


def operations(config: RunConfig, rest: Cohort, folder: Path) -> float:
    """Return the operations of FLAG's training, counted once and kept in the folder of its states."""
    file = folder / "operations.json"
    if not file.exists():
        branch, score = flag_operations(config, rest)
        total = config.fit.branch_steps * branch + config.fit.score_steps * score
        write_json({"operations": total}, file)
    return float(json.loads(file.read_text("utf-8"))["operations"])


def trained(args: argparse.Namespace) -> Trained:
    """Train both on the same sections with as many operations, or read what the run folder holds."""
    config = read_config(args.config)
    absent, seed = (args.test, *args.train_without), config.fit.seed
    plan = Plan(test=(args.test,), seeds=(seed,))
    (fold,) = folds_of(config, plan)
    cohort = watch(fold_cohort(config, args.data, args.run, plan, fold))
    names = [slide.entry.name for slide in cohort.slides]
    rest = keep(cohort, [name for name in names if name not in absent])
    folder = states_folder(args.run, config.without(absent), fingerprint(rest))
    flag = FlagPredictor(watch(fit(rest, config.without(absent), folder)), cohort.genes)
    paid = operations(config.without(absent), rest, folder)
    _, given = read_baseline(BASELINES / "flag_published.toml")
    assert isinstance(given, FlagDiffusion)
    sized = same_size(given, flag.network.config)
    cost = within(sized, rest, paid * args.times)
    method = trained_for(sized, cost)
    assert isinstance(method, FlagDiffusion)
    folder = folder / f"published_{method.training.steps}"
    published = watch(train(method, rest, seed, folder))
    assert isinstance(published, Published)
    published.config = replace(published.config, solver_steps=args.heun_steps)
    described = {
        "sections": [slide.entry.name for slide in rest.slides],
        "TFLOP": {"ours": paid / TERA, "published": cost.operations / TERA},
        "published_steps": method.training.steps,
        "parameters": parameters(flag.network, published.network),
    }
    place = names.index(args.test)
    features = cohort.features[place][0].numpy()
    return Trained(flag, published, folder, cohort.slides[place], features, described)


def parameters(ours: Flag, published: PublishedFlag) -> dict[str, int]:
    """Return how many numbers each part has learnt."""
    genes = [published.condition, published.value, published.blocks, published.time, published.final]
    parts: dict[str, list[nn.Module]] = {
        "our graph encoder": [ours.spatial_encoder],
        "our gene transformer": [ours.gene_dit],
        "our mean head": [] if ours.mean_head is None else [ours.mean_head],
        "the published graph transformer": [published.graph],
        "the published gene transformer": [*genes, published.final_modulation],
    }
    found = {name: sum(p.numel() for part in own for p in part.parameters()) for name, own in parts.items()}
    found["the published gene transformer"] += published.name.numel()
    return found


# --- measuring ------------------------------------------------------------------------------------
def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Train both, draw in turns, and score."""
    torch.set_num_threads(args.threads)
    both = trained(args)
    slide = both.slide
    forms = forms_of(both.published, both.flag, blinded(slide), both.features, args.steps)
    kept = both.folder / f"draws_{args.heun_steps}_{'-'.join(map(str, args.steps))}_{args.threads}"
    seconds, draws = in_turns(forms, args.rounds, kept)
    return {
        "command": command_of(args),
        "machine": machine(args.threads),
        "section": slide.entry.name,
        "spots": len(slide.spots),
        "genes": len(both.flag.genes),
        "windows": [len(rows) for rows in slide.places.windows(both.published.config.window_um)],
        "rounds": args.rounds,
        "training": both.described,
        "forms": timed(forms, seconds),
        "scores": scored(draws, slide),
    }


def in_turns(
    forms: Sequence[Form], rounds: int, folder: Path
) -> tuple[npt.NDArray[np.float64], dict[str, FloatArray]]:
    """Draw eight of every form in turns, a round at a time; rounds that `folder` holds are not drawn again.

    Parameters
    ----------
    forms
        What to draw with.
    rounds
        Two at least, whose draws are scored together.
    folder
        Of the rounds.

    Returns
    -------
    (rounds, forms, 2) seconds and processor seconds, and (16, n, G) draws of each form that is scored.
    """
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / f"round_{turn}.npz" for turn in range(rounds)]
    if not all(file.exists() for file in files):
        for form in forms[1:]:  # warm up; the published form runs too long for its first calls to count
            form.draw(SamplerSettings())
    for turn, file in enumerate(files):
        if file.exists():
            continue
        made: dict[str, Any] = {}
        seconds = np.empty((len(forms), 2))
        for number, form in enumerate(forms):
            settings = SamplerSettings(TOGETHER, first=1 + TOGETHER * turn)
            began, used = time.perf_counter(), time.process_time()
            drawn = form.draw(settings)
            seconds[number] = time.perf_counter() - began, time.process_time() - used
            sys.stderr.write(f"round {turn + 1}, {form.name}: {seconds[number, 1]:.1f} s of processor\n")
            if form.scored:
                made[form.name] = drawn
        with replacing(file) as place, place.open("wb") as stream:
            np.savez(stream, seconds=seconds, **made)
    rows = [np.load(file) for file in files]
    first = rows[: len(SCORED) // TOGETHER]
    names = [form.name for form in forms if form.scored]
    return np.stack([row["seconds"] for row in rows]), {
        name: np.concatenate([row[name] for row in first]) for name in names
    }


def timed(forms: Sequence[Form], seconds: npt.NDArray[np.float64]) -> list[dict[str, Any]]:
    """Return what each form took, medians over rounds, and the factor of its cause on the form before.

    Factors are those of processor time; their product is the first form's time over the last's.
    """
    wall, processor = np.median(seconds, axis=0).T
    before = np.concatenate([processor[:1], processor[:-1]])
    return [
        {
            "name": form.name,
            "cause": form.cause,
            "s": wall[place],
            "cpu_s": processor[place],
            "factor": before[place] / processor[place],
            "so_far": processor[0] / processor[place],
            "rounds_cpu_s": seconds[:, place, 1].tolist(),
        }
        for place, form in enumerate(forms)
    ]


def scored(draws: dict[str, FloatArray], slide: TrainingSlide) -> list[dict[str, Any]]:
    """Return scores of (16, n, G) draws by name, and each less the first, the published form's."""
    section = Section.of(slide)
    judged = {name: section.draws(drawn) for name, drawn in draws.items()}
    published, *_ = judged.values()
    return [
        {
            "name": name,
            "scores": one.scores,
            "intervals": one.intervals,
            "less_published": {} if one is published else section.difference(one, published),
        }
        for name, one in judged.items()
    ]


# --- the page -------------------------------------------------------------------------------------
def page(found: dict[str, Any]) -> str:
    """Return both tables as Markdown: times and their causes, and scores."""
    training = found["training"]
    parts = ", ".join(f"{name} {whole(number)}" for name, number in training["parameters"].items())
    windows = ", ".join(map(str, sorted(found["windows"], reverse=True)))
    lines = [
        f"`{found['command']}`; {found['machine']}; medians of {found['rounds']} rounds.",
        "",
        f"Trained on {', '.join(training['sections'])}: ours with {training['TFLOP']['ours']:.1f} TFLOP, the "
        f"published form with {training['TFLOP']['published']:.1f} "
        f"({counted(training['published_steps'], 'step')}). Numbers learnt: {parts}. "
        f"Eight draws of the {counted(found['spots'], 'spot')} of {found['section']}, "
        f"{counted(found['genes'], 'gene')}; windows of {windows} spots.",
        "",
        "| drawn by | differs from the line above in | s | processor s | factor | so far |",
        "|---|---|---:|---:|---:|---:|",
    ]
    for row in found["forms"]:
        factor = f"{row['factor']:.2f} | {row['so_far']:.1f}" if row["cause"] else " | "
        lines.append(f"| {row['name']} | {row['cause']} | {row['s']:.1f} | {row['cpu_s']:.1f} | {factor} |")
    lines += [
        "",
        f"| draws | {' | '.join(map(called, COMPARED))} | GSC | SSC |",
        f"|---|{'---:|' * (len(COMPARED) + 2)}",
    ]
    for row in found["scores"]:
        cells = [score(row["scores"][name], name) for name in (*COMPARED, "GSC", "SSC")]
        lines.append(f"| {row['name']} | {' | '.join(cells)} |")
    for row in found["scores"][1:]:
        cells = [_difference(*row["less_published"][name]) for name in COMPARED]
        lines.append(f"| {row['name']}, less published | {' | '.join(cells)} | | |")
    return "\n".join(lines)


def _difference(mean: float, low: float, high: float) -> str:
    """Return a difference with its 95 % interval, in bold where that leaves out 0."""
    text = difference(mean, (low, high))
    return f"**{text}**" if low > 0 or high < 0 else text


def command_of(args: argparse.Namespace) -> str:
    """Return the command, as another machine would give it."""
    words = ["python", "-m", "benchmarks.published_speed", args.config, "--data", "DATA", "--run", args.run]
    words += ["--test", args.test, "--train-without", *args.train_without, "--steps", *args.steps]
    words += ["--heun-steps", args.heun_steps, "--times", f"{args.times:g}"]
    words += ["--rounds", args.rounds, "--threads", args.threads]
    return shlex.join(str(word) for word in words)


def main() -> None:
    """Measure, print the tables, and write them if asked."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("config", type=Path, nargs="?", help="a training config with its sections")
    parser.add_argument("--data", type=Path, help="folder of its data")
    parser.add_argument("--run", type=Path, help="run folder with tile encoders and features")
    parser.add_argument("--test", default="C2", help="section to leave out and draw (%(default)s)")
    parser.add_argument("--train-without", nargs="*", default=["B4"], help="sections left out as well")
    steps = [STEPS_OF["balanced"], STEPS_OF["fast"], 2]
    parser.add_argument("--steps", type=int, nargs="+", default=steps, help="our solver's (%(default)s)")
    parser.add_argument("--heun-steps", type=int, default=HEUN_STEPS, help="the published (%(default)s)")
    parser.add_argument(
        "--times", type=float, default=1.0, help="operations of its training over those of ours (%(default)s)"
    )
    parser.add_argument("--rounds", type=int, default=3, help="two at least (%(default)s)")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, help="JSON to write")
    parser.add_argument(
        "--write", action="store_true", help="write the tables into docs/results/published_speed.md"
    )
    args = parser.parse_args()
    if args.config is None:  # as `make bench` runs it
        print("Skipped: give a config, its data and a run folder (see the head of this file).")
        return
    if args.rounds * TOGETHER < len(SCORED):
        parser.error("draws of two rounds are scored: --rounds 2 at least")
    found = measure(args)
    text = page(found)
    print(text)
    if args.out is not None:
        write_json(found, args.out)
    if args.write:
        write_between("published-speed", text, PAGE)


if __name__ == "__main__":
    main()
