"""Train every method on the same sections with the same number of operations, and tabulate what they score.

    nice python benchmarks/equal_budgets.py training/configs/her2st.toml --data DATA --run runs/her2st \
        --test C2 C3 C4 C5 --seeds 0 1 2 --budget 20 --authors HER2ST --out docs/results/equal_budgets.md

``--budget`` counts the operations of a training in TFLOP, matrix products alone, by the same counter for all:
a machine's speed and what else it does change nothing.  What one step takes is counted on the fold's training
sections, and steps are as many as the budget pays; of FLAG both stages are lengthened or shortened alike.
Of methods that see one slide a step it is the mean over the training slides, each of which they draw alike.
It is counted with the first seed; later ones take as many steps.
With ``--train-without B4`` every method is trained a second time without B4, within the same budget, and the
tables let each stand with its better training set.
The tile encoder of a fold is shared, and floors are solved in closed form; neither counts.  A point of the
grid (section, method, seed, training set) is one process and one JSON file of ``evaluate``'s form in
RUN/equal_budgets; what is there is not computed again.  Predictions stay there too, in a folder per seed, for
``benchmarks/domains.py``.
"""

import argparse
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, cast

from torch.utils.flop_counter import FlopCounterMode

from flag_training.cohort import Cohort
from flag_training.config import FitConfig, RunConfig, describes_method, read_config
from flag_training.evaluate import Plan, fold_cohort, folds_of, keep, score_fold
from flag_training.methods import Method
from flag_training.methods.floors import LEARNED_FLOORS, WRITTEN
from flag_training.methods.graph_diffusion import WindowDiffusion
from flag_training.methods.histogene import HisToGene
from flag_training.methods.published import read_method
from flag_training.methods.regression import Regression
from flag_training.methods.stflow import StFlow
from flag_training.methods.triplex import Triplex
from flag_training.paper_table import AUTHORS
from flag_training.result_tables import read_results, results_of
from flag_training.stages.fit import fit
from napari_flag.cli import main as napari_flag
from napari_flag.cli.terminal import watch
from napari_flag.errors import UserError
from napari_flag.files import ending, place_in, write_json
from napari_flag.progress import finish

FLAG: Final = "FLAG"
BASELINES: Final = Path("training/configs/baselines")
TERA: Final = 1e12
PROBED: Final = 4
"""Steps whose operations are counted, beyond one."""
WINDOWS_PROBED: Final = 64
"""The same of methods that train on tissue windows, which differ in size."""
SLIDE_A_STEP: Final = (HisToGene, Regression, StFlow, Triplex)
"""Methods whose step takes one training slide, each as likely: slides differ in size."""
FLAG_PROBED: Final = 2


@dataclass(frozen=True, slots=True)
class Paid:
    """What a budget pays for.

    Parameters
    ----------
    steps
        Name of a stage → its steps; empty of a closed form.
    operations
        Floating-point operations of all of them, matrix products alone.
    """

    steps: dict[str, int]
    operations: float


def operations_of(method: Any, cohort: Cohort, steps: int) -> int:
    """Return the operations of training `method` for `steps` steps."""
    short = replace(method, training=replace(method.training, steps=steps))
    with FlopCounterMode(display=False) as counter:
        finish(short.fit(cohort, 0))
    return int(counter.get_total_flops())


def operations_of_a_step(method: Any, cohort: Cohort) -> float:
    """Return the operations that a step of training `method` takes in the mean."""
    if isinstance(method, SLIDE_A_STEP):
        alone = [keep(cohort, [slide.entry.name]) for slide in cohort.slides]
        each = [operations_of(method, one, 2) - operations_of(method, one, 1) for one in alone]
        return sum(each) / len(each)
    probed = WINDOWS_PROBED if isinstance(method, WindowDiffusion) else PROBED
    return (operations_of(method, cohort, 1 + probed) - operations_of(method, cohort, 1)) / probed


def within(method: Any, cohort: Cohort, budget: float) -> Paid:
    """Return how many steps of `method` `budget` operations pay, one at least; a floor has none."""
    if not hasattr(method, "training"):
        return Paid({}, 0.0)
    each = operations_of_a_step(method, cohort)
    steps = max(1, round(budget / each))
    return Paid({"training": steps}, steps * each)


def trained_for(method: Any, paid: Paid) -> Method:
    """Return `method` with the steps that are paid; a floor as it is."""
    if not paid.steps:
        return cast("Method", method)
    return cast("Method", replace(method, training=replace(method.training, steps=paid.steps["training"])))


def flag_operations(config: RunConfig, cohort: Cohort) -> tuple[float, float]:
    """Return the operations of one step of FLAG's graph branches, and of one of its score loop."""

    def count(branch: int, score: int) -> int:
        short = replace(config.fit, branch_steps=branch, score_steps=score)
        with tempfile.TemporaryDirectory() as folder, FlopCounterMode(display=False) as counter:
            finish(fit(cohort, replace(config, fit=short), Path(folder)))
        return int(counter.get_total_flops())

    least = count(1, 1)
    branch = (count(1 + FLAG_PROBED, 1) - least) / FLAG_PROBED
    return branch, (count(1, 1 + FLAG_PROBED) - least) / FLAG_PROBED


def flag_within(config: RunConfig, cohort: Cohort, budget: float) -> Paid:
    """Return the steps of FLAG's two stages, both multiplied so that they take `budget` operations."""
    branch, score = flag_operations(config, cohort)
    values: FitConfig = config.fit
    share = budget / (values.branch_steps * branch + values.score_steps * score)
    branches, scores = (max(1, round(share * n)) for n in (values.branch_steps, values.score_steps))
    return Paid({"branch_steps": branches, "score_steps": scores}, branches * branch + scores * score)


def points_of(args: argparse.Namespace) -> list[tuple[str, str, int, tuple[str, ...]]]:
    """Return section, method, seed and what else is left out of every point; floors take the first seed."""
    return [
        (section, method, seed, removed)
        for seed in args.seeds
        for section in args.test
        for removed in dict.fromkeys(((), tuple(name for name in args.train_without if name != section)))
        for method in args.methods
        if seed == args.seeds[0] or method not in WRITTEN
    ]


def is_flag(method: str) -> bool:
    """Return whether `method` is FLAG, or the config of a run that trains it in another form."""
    return method == FLAG or (ending(method) == ".toml" and not describes_method(Path(method)))


def folder_of(args: argparse.Namespace) -> Path:
    """Return where results of this budget are."""
    folder: Path = args.run / "equal_budgets" / f"{args.budget:g}_TFLOP"
    return folder


def predictions_of(args: argparse.Namespace, seed: int, removed: tuple[str, ...] = ()) -> Path:
    """Return the folder with the predictions of a seed, of what was trained without `removed`."""
    return folder_of(args) / "predictions" / f"seed_{seed}{_without(removed)}"


def file_of(
    args: argparse.Namespace, section: str, method: str, seed: int, removed: tuple[str, ...] = ()
) -> Path:
    """Return the file of a point."""
    return place_in(folder_of(args), f"{section}_{Path(method).stem}_{seed}{_without(removed)}", ".json")


def _without(removed: tuple[str, ...]) -> str:
    return f"_without_{'_'.join(removed)}" if removed else ""


def paid_before(
    args: argparse.Namespace, section: str, method: str, seed: int, removed: tuple[str, ...]
) -> Paid | None:
    """Return what the budget pays for, as an earlier seed of the point has counted it; None if none has."""
    for earlier in range(seed):
        place = file_of(args, section, method, earlier, removed)
        if place.exists():
            counted = read_results(place)
            return Paid(dict(counted["steps"]), float(counted["operations"]))
    return None


def measure(
    args: argparse.Namespace, section: str, method: str, seed: int, removed: tuple[str, ...] = ()
) -> dict[str, Any]:
    """Train without `section` and `removed`, and score `section`; the file of the point is written whole."""
    flag = is_flag(method)
    config = read_config(Path(method) if flag and method != FLAG else args.config)
    config = replace(config, fit=replace(config.fit, seed=seed))
    if not flag:
        config = replace(config, prior=None)  # which FLAG's frames read alone
    plan = Plan(test=(section,), train_without=removed, once=bool(removed), seeds=(seed,), flag=flag)
    (fold,) = folds_of(config, plan)
    cohort = watch(fold_cohort(config, args.data, args.run, plan, fold))
    names = [slide.entry.name for slide in cohort.slides]
    rest = keep(cohort, [name for name in names if name not in (section, *removed)])
    paid = paid_before(args, section, method, seed, removed)
    if flag:
        without = config.without((*fold.left_out, *removed))
        paid = paid or flag_within(without, rest, args.budget * TERA)
        config = replace(config, fit=replace(config.fit, **paid.steps))
    else:
        name, given = read_method(method)
        kind = "floor" if name in LEARNED_FLOORS else "published"
        paid = paid or within(given, rest, args.budget * TERA)
        plan = replace(plan, methods={name: (kind, trained_for(given, paid))})
    kept = predictions_of(args, seed, removed)
    started = time.process_time()
    outcome = watch(score_fold(cohort, config, args.run, plan, fold, kept))
    if method != FLAG:  # with which controls and landmarks of a section stand, once
        records = [record for record in outcome.records if record.kind not in ("control", "landmark")]
        outcome = replace(outcome, records=tuple(records))
    results = results_of(outcome, plan, command_of(args)) | {
        "budget": args.budget * TERA,
        "operations": paid.operations,
        "steps": paid.steps,
        "process_s": round(time.process_time() - started, 1),
    }
    write_json(results, file_of(args, section, method, seed, removed))
    return results


def command_of(args: argparse.Namespace) -> str:
    """Return the command, as another machine would give it."""
    words = ["python", "benchmarks/equal_budgets.py", args.config, "--data", "DATA", "--run", args.run]
    words += ["--test", *args.test, "--seeds", *args.seeds, "--budget", f"{args.budget:g}"]
    if args.train_without:
        words += ["--train-without", *args.train_without]
    return shlex.join(str(word) for word in words)


def run_grid(args: argparse.Namespace, argv: Sequence[str]) -> int:
    """Compute what is missing, a process per point, and write the table of all."""
    folder_of(args).mkdir(parents=True, exist_ok=True)
    for section, method, seed, removed in points_of(args):
        place = file_of(args, section, method, seed, removed)
        if not place.exists():
            sys.stderr.write(f"{place.stem}\n")
            point = ["--point", section, method, str(seed), *removed]
            subprocess.run([sys.executable, __file__, *argv, *point], check=True)
    files = [str(file_of(args, *point)) for point in points_of(args)]
    title = f"{', '.join(args.test)} left out in turn, {args.budget:g} TFLOP of training each"
    authors = ["--authors", args.authors] if args.authors else []
    out = ["--out", str(args.out)] if args.out else []
    return napari_flag(["tables", *files, "--title", title, *authors, *out])


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("config", type=Path, nargs="?", help="a training config with its sections")
    parser.add_argument("--data", type=Path, help="folder of its data")
    parser.add_argument("--run", type=Path, help="run folder with tile encoders and features")
    parser.add_argument("--test", nargs="+", default=["C2", "C3", "C4", "C5"], help="sections to score")
    parser.add_argument(
        "--train-without", nargs="+", default=[], metavar="SECTION",
        help="train every method a second time without these, so that each has its better training set",
    )  # fmt: skip
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--budget", type=float, default=20.0, metavar="TFLOP", help="of a training")
    parser.add_argument(
        "--methods",
        nargs="+",
        default=[FLAG, *map(str, sorted(BASELINES.glob("*.toml"))), *WRITTEN],
        help="FLAG, files of training/configs/baselines, floors by name (default: all of these); or configs "
        "of runs that train FLAG in another form, such as those of training/configs/ablations",
    )
    parser.add_argument("--authors", choices=tuple(AUTHORS), help="cohort whose published numbers to add")
    parser.add_argument("--out", type=Path, help="page of tables (default: print it)")
    parser.add_argument("--point", nargs="+", help=argparse.SUPPRESS)  # section, method, seed, what to remove
    args = parser.parse_args(argv)
    if args.config and not (args.data and args.run):
        parser.error("say where data and run folder are: --data FOLDER --run FOLDER")
    return args


def main(argv: Sequence[str]) -> int:
    """Run the grid, or one point of it."""
    args = parse(argv)
    if args.config is None:  # as `make bench` runs it
        print("Skipped: give a config, its data and a run folder (see the head of this file).")
        return 0
    try:
        if args.point:
            section, method, seed, *removed = args.point
            print(measure(args, section, method, int(seed), tuple(removed))["steps"])
            return 0
        return run_grid(args, argv)
    except UserError as error:
        sys.stderr.write(f"{error}\n")
        return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
