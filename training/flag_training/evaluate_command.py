"""``napari-flag evaluate`` and ``napari-flag tables``.  Heavy imports wait for the command."""

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flag_training.evaluate import Plan
    from flag_training.methods import Method


def add_commands(commands: "argparse._SubParsersAction[Any]") -> None:
    """Add ``evaluate`` and ``tables``."""
    from flag_training.cli import add_run_arguments

    parser = commands.add_parser(
        "evaluate",
        help="score sections that were not trained on, beside every simple method",
        description="Leave each section (or its whole patient) out in turn, train on the rest and score it: "
        "FLAG's X, one sample, its mean head alone, X with the tiles shuffled between spots, floors on the "
        "same features, methods blind to the image, and published methods where asked. No image left out "
        "is seen by the tile encoder.",
    )
    add_run_arguments(parser)
    parser.add_argument(
        "--test", nargs="+", metavar="SECTION",
        help="sections to score, each left out in turn (default: the test part of a store's split, at once)",
    )  # fmt: skip
    parser.add_argument(
        "--unseen", nargs="+", default=[], metavar="SECTION", help="sections kept out of everything"
    )
    parser.add_argument(
        "--leave-patient-out", action="store_true", help="leave out all sections of a section's patient"
    )
    parser.add_argument("--together", action="store_true", help="leave all of --test out at once")
    parser.add_argument(
        "--train-without", nargs="+", default=[], metavar="SECTION",
        help="train a second time without these, so that every method has its better training set",
    )  # fmt: skip
    parser.add_argument(
        "--once", action="store_true", help="train without the sections of --train-without only"
    )
    parser.add_argument(
        "--methods", nargs="+", metavar="NAME",
        help='what to score: FLAG, "floors", "image-blind", or names of floors (default: all of these)',
    )  # fmt: skip
    parser.add_argument(
        "--baselines", nargs="+", type=Path, default=[], metavar="FILE.toml",
        help="published methods to train too, e.g. training/configs/baselines/*.toml",
    )  # fmt: skip
    parser.add_argument(
        "--seeds", nargs="+", type=int, metavar="N", help="FLAG's seeds (default: the config's)"
    )
    parser.add_argument(
        "--reseed", nargs="+", default=[], metavar="NAME",
        help="methods that are run with every seed too, such as FLAG's nearest rival",
    )  # fmt: skip
    parser.add_argument(
        "--predictions", type=Path, metavar="DIR",
        help="where to keep FLAG's held-out predictions with their truth (default: RUN/held_out)",
    )  # fmt: skip
    parser.add_argument("--out", type=Path, required=True, metavar="FILE.json", help="scores to write")
    parser.add_argument("--json", action="store_true", help="print the scores as JSON instead of tables")
    parser.set_defaults(run=run_evaluate)
    parser = commands.add_parser(
        "tables",
        help="turn files of scores into one page of tables",
        description="Lay the scores of several files of `napari-flag evaluate` side by side as Markdown: "
        "other sections, other methods, or the runs of an ablation.",
    )
    parser.add_argument("scores", nargs="+", type=Path, metavar="FILE.json", help="files of evaluate")
    parser.add_argument("--title", default="Held-out scores", metavar="TEXT", help="heading of the page")
    parser.add_argument(
        "--only", nargs="+", default=[], metavar="NAME", help="methods to show (default: all)"
    )
    parser.add_argument("--out", type=Path, metavar="FILE.md", help="page to write (default: print it)")
    parser.set_defaults(run=run_tables)


def run_evaluate(arguments: argparse.Namespace) -> int:
    """Run ``napari-flag evaluate``."""
    from flag_training.cli import command_of, config_of, run_folder
    from flag_training.evaluate import evaluate
    from flag_training.result_tables import markdown, read_results, told_of
    from flag_training.stored import held_out, with_store
    from napari_flag.cli.terminal import ProgressLine
    from napari_flag.progress import finish
    from napari_flag.results import check_writable, write_json

    config = with_store(config_of(arguments), arguments.data)
    part = held_out(config, arguments.data)
    plan = plan_of(arguments, config.fit.seed, part)
    run = run_folder(arguments, config.name)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    check_writable(arguments.out)
    with ProgressLine() as line:
        kept = arguments.predictions or run / "held_out"
        records = finish(evaluate(config, arguments.data, run, plan, kept), line)
    told = told_of(records, plan, command_of(arguments), config.samples)
    write_json(told, arguments.out)
    shown = (
        json.dumps(told, indent=2) if arguments.json else markdown([read_results(arguments.out)], config.name)
    )
    sys.stdout.write(shown + "\n")
    return 0


def plan_of(arguments: argparse.Namespace, seed: int, part: tuple[str, ...] = ()) -> "Plan":
    """Return what the command line asks for.

    Parameters
    ----------
    arguments
        Of ``evaluate``.
    seed
        FLAG's, where none is asked for.
    part
        What is scored where no section is named: the test part of the store's split.

    Raises
    ------
    UserError
        When it names no section, or a method that there is not.
    """
    from flag_training.evaluate import Plan
    from flag_training.methods.published import read_baseline
    from napari_flag.errors import UserError

    known = known_methods()
    asked = arguments.methods or ["FLAG", "floors", "image-blind"]
    groups = {"floors": "floor", "image-blind": "image-blind"}
    strange = [name for name in asked if name != "FLAG" and name not in groups and name not in known]
    if strange:
        raise UserError(
            f"There is no method called {', '.join(strange)}; choose FLAG, floors, image-blind, or of "
            f"{'; '.join(known)}."
        )
    wanted = {groups.get(name, name) for name in asked}
    methods = {name: (kind, m) for name, (kind, m) in known.items() if wanted & {name, kind}}
    for path in arguments.baselines:
        name, method = read_baseline(path)
        methods[name] = ("published", method)
    absent = [name for name in arguments.reseed if name not in methods]
    if absent:
        raise UserError(f"{', '.join(absent)} is not among the methods scored, so it cannot be reseeded.")
    if not arguments.test and not part:
        raise UserError(
            "There is nothing to score: name sections with --test; this run has no split of a store."
        )
    return Plan(
        test=tuple(arguments.test or part),
        unseen=tuple(arguments.unseen),
        by_patient=arguments.leave_patient_out,
        together=arguments.together or not arguments.test,
        train_without=tuple(arguments.train_without),
        once=arguments.once,
        methods=methods,
        flag="FLAG" in asked,
        seeds=tuple(arguments.seeds or [seed]),
        reseeded=tuple(arguments.reseed),
    )


def known_methods() -> "dict[str, tuple[str, Method]]":
    """Return the floors and the image-blind methods: name → (kind, method)."""
    from flag_training.methods.floors import LEARNED_FLOORS
    from flag_training.methods.image_blind import IMAGE_BLIND

    floors = {name: ("floor", method) for name, method in LEARNED_FLOORS.items()}
    return floors | {name: ("image-blind", method) for name, method in IMAGE_BLIND.items()}


def run_tables(arguments: argparse.Namespace) -> int:
    """Run ``napari-flag tables``."""
    from flag_training.result_tables import markdown, read_results
    from napari_flag.results import check_writable

    page = markdown([read_results(path) for path in arguments.scores], arguments.title, arguments.only)
    if arguments.out is None:
        sys.stdout.write(page)
        return 0
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    check_writable(arguments.out)
    arguments.out.write_text(page, "utf-8")
    sys.stdout.write(f"Wrote {arguments.out}.\n")
    return 0
