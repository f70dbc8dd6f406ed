"""``napari-flag sweep``.  Heavy imports wait for the command."""

import argparse
import sys
from pathlib import Path
from typing import Any


def add_commands(commands: "argparse._SubParsersAction[Any]") -> None:
    """Add ``sweep``."""
    from flag_training.cli import add_run_arguments

    parser = commands.add_parser(
        "sweep",
        help="try values on inner validation sections",
        description="Train at every combination of values and score X on validation sections, each left out "
        "in turn. Test sections are kept out of everything. A killed sweep goes on where it was.",
    )
    add_run_arguments(parser)
    parser.add_argument(
        "--vary", nargs="+", required=True, metavar="KEY=V1,V2",
        help="values to try, e.g. fit.score_steps=100,300 network.width=64,96 samples=4,10",
    )  # fmt: skip
    parser.add_argument(
        "--validate", nargs="+", required=True, metavar="SECTION", help="sections to choose values on"
    )
    parser.add_argument(
        "--unseen", nargs="+", default=[], metavar="SECTION",
        help="test sections, kept out of everything (a store's split names its own)",
    )  # fmt: skip
    parser.add_argument("--seeds", nargs="+", type=int, metavar="N", help="seeds (default: the config's)")
    parser.add_argument("--out", type=Path, metavar="FILE.csv", help="results (default: RUN/sweep.csv)")
    parser.set_defaults(run=run_sweep)


def run_sweep(arguments: argparse.Namespace) -> int:
    """Run ``napari-flag sweep``."""
    from flag_training.cli import config_of, run_folder
    from flag_training.evaluate import Plan
    from flag_training.stored import held_out, with_store
    from flag_training.sweep import best_first, check_sections, read_grid, sweep
    from napari_flag.cli.terminal import ProgressLine
    from napari_flag.comparison import METRICS
    from napari_flag.progress import finish

    config = with_store(config_of(arguments), arguments.data)
    unseen = (*arguments.unseen, *held_out(config, arguments.data))
    check_sections(arguments.validate, unseen)
    grid = read_grid(arguments.vary)
    seeds = tuple(arguments.seeds or [config.fit.seed])
    plan = Plan(tuple(arguments.validate), unseen=unseen, seeds=seeds)
    run = run_folder(arguments, config.name)
    table = arguments.out or run / "sweep.csv"
    with ProgressLine() as line:
        rows = finish(sweep(config, arguments.data, run, plan, grid, table), line)
    sys.stdout.write("  ".join(f"{name:>9}" for name in METRICS) + "\n")
    for values, scores in best_first(rows, grid):
        told = ", ".join(f"{key} = {value}" for key, value in values.items())
        sys.stdout.write("  ".join(f"{scores[name]:9.3f}" for name in METRICS) + f"  {told}\n")
    sys.stdout.write(f"Every row is in {table}.\n")
    return 0
