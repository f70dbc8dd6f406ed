"""Commands of the training package, added to ``napari-flag``.  Heavy imports wait for the command."""

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flag_training import evaluate_command, sweep_command
from flag_training.figures import command as figures
from flag_training.gene_targets import commands as gene_targets
from flag_training.prepare import command as prepare

if TYPE_CHECKING:
    from flag_training.config import RunConfig


def add_commands(commands: "argparse._SubParsersAction[Any]") -> None:
    """Add every command of this package."""
    prepare.add_commands(commands)
    gene_targets.add_commands(commands)
    parser = commands.add_parser(
        "train",
        help="train weights from a config",
        description="Train weights: tile encoder, mean head, gene transformer. Every stage is kept "
        "in the run folder; a killed run goes on from there.",
    )
    add_run_arguments(parser)
    parser.add_argument("--out", type=Path, metavar="FILE.safetensors", help="weights file to write")
    parser.add_argument(
        "--leave-out", nargs="+", default=[], metavar="SECTION", help="sections not to train on"
    )
    parser.add_argument(
        "--metrics",
        nargs="+",
        default=[],
        type=Path,
        metavar="FILE.json",
        help="held-out scores to state on the data card",
    )
    parser.set_defaults(run=run_train)
    evaluate_command.add_commands(commands)
    sweep_command.add_commands(commands)
    figures.add_commands(commands)


def add_run_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what every run takes: config, data, run folder, seed, and what to do with damaged states."""
    parser.add_argument("config", type=Path, metavar="CONFIG.toml", help="values of the run")
    parser.add_argument(
        "--data", type=Path, required=True, metavar="DIR", help="folder the config's files are in"
    )
    parser.add_argument(
        "--run", type=Path, dest="folder", metavar="DIR", help="run folder (default: runs/NAME)"
    )
    parser.add_argument("--seed", type=int, help="seed (default: the config's)")
    parser.add_argument(
        "--use-previous",
        action="store_true",
        help="where a training state is damaged, go on from the one saved before it",
    )


def run_train(arguments: argparse.Namespace) -> int:
    """Run ``napari-flag train``."""
    from dataclasses import replace

    from flag_training.devices import is_first_process
    from flag_training.fit import train
    from flag_training.stored import held_out, with_store
    from napari_flag.cli.terminal import ProgressLine
    from napari_flag.progress import finish

    config = with_store(config_of(arguments), arguments.data)
    config = config.without((*arguments.leave_out, *held_out(config, arguments.data)))
    card = config.card | {"command": command_of(arguments)}
    if arguments.metrics:
        card["held_out_scores"] = metrics_of(arguments.metrics)
    config = replace(config, card=card)
    run = arguments.folder or Path("runs") / config.name
    out = arguments.out or run / f"{config.name}.safetensors"
    with ProgressLine() as line:
        work = train(config, arguments.data, run, out, use_previous=arguments.use_previous)
        finish(work, line if is_first_process() else None)
    if is_first_process():
        sys.stdout.write(f"Wrote {out}.\n")
    return 0


def metrics_of(files: Sequence[Path]) -> dict[str, Any]:
    """Return what the card says of sections left out: per split, what was scored, and how to repeat it."""
    from flag_training.result_tables import read_results

    kinds = ("X", "sample", "X, tiles shuffled")
    told: dict[str, Any] = {"command": []}
    for results in map(read_results, files):
        seeds = ", ".join(map(str, results["seeds"]))
        split = told.setdefault(f"{results['split']}, seed {seeds}", {})
        for section, scores in results["scores"].items():
            split[section] = {kind: scores[kind] for kind in kinds}
        told["command"].append(results["command"])
    return told


def command_of(arguments: argparse.Namespace) -> str:
    """Return the command as another machine would give it: the data folder is its own."""
    told = ["DATA" if word == str(arguments.data) else word for word in sys.argv[1:]]
    return shlex.join(["napari-flag", *told])


def run_folder(arguments: argparse.Namespace, name: str) -> Path:
    """Return the folder of the run `name`, its damaged states replaced if that was asked."""
    from flag_training.checkpointing import use_previous

    run: Path = arguments.folder or Path("runs") / name
    for path in use_previous(run) if arguments.use_previous else ():
        sys.stderr.write(f"Note: {path} was damaged; going on from the state before it.\n")
    return run


def config_of(arguments: argparse.Namespace) -> "RunConfig":
    """Return the run that the command line names, under its seed."""
    from dataclasses import replace

    from flag_training.config import read_config

    config = read_config(arguments.config)
    if arguments.seed is None:
        return config
    return replace(config, fit=replace(config.fit, seed=arguments.seed))
