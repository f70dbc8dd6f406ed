"""Commands of the training package, added to ``napari-flag``.  Heavy imports wait for the command."""

import argparse
import json
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flag_training.gene_targets import commands as gene_targets
from flag_training.prepare import command as prepare

if TYPE_CHECKING:
    from flag_training.config import RunConfig


def add_commands(commands: "argparse._SubParsersAction[Any]") -> None:
    """Add ``prepare``, ``train``, ``evaluate`` and ``gene-targets``."""
    prepare.add_commands(commands)
    gene_targets.add_commands(commands)
    parser = commands.add_parser(
        "train",
        help="train weights from a config",
        description="Train weights: tile encoder, mean head, gene transformer. Every stage is kept "
        "in the run folder; a killed run goes on from there.",
    )
    _add_run_arguments(parser)
    parser.add_argument("--out", type=Path, metavar="FILE.safetensors", help="weights file to write")
    parser.add_argument(
        "--leave-out", nargs="+", default=[], metavar="SECTION", help="sections not to train on"
    )
    parser.add_argument(
        "--metrics", type=Path, metavar="FILE.json", help="held-out scores to state on the data card"
    )
    parser.add_argument(
        "--use-previous",
        action="store_true",
        help="where a training state is damaged, go on from the one saved before it",
    )
    parser.set_defaults(run=run_train)
    parser = commands.add_parser(
        "evaluate",
        help="score sections that were not trained on",
        description="Leave each section out in turn, train on the rest and score it: X, one sample, "
        "the mean head and the kernel branch alone, and X with the tiles shuffled between spots.",
    )
    _add_run_arguments(parser)
    parser.add_argument("--test", nargs="+", required=True, metavar="SECTION", help="sections to score")
    parser.add_argument(
        "--unseen", nargs="+", default=[], metavar="SECTION", help="sections kept out of everything"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="FILE.json", help="scores to write")
    parser.set_defaults(run=run_evaluate)


def _add_run_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("config", type=Path, metavar="CONFIG.toml", help="values of the run")
    parser.add_argument(
        "--data", type=Path, required=True, metavar="DIR", help="folder the config's files are in"
    )
    parser.add_argument(
        "--run", type=Path, dest="folder", metavar="DIR", help="run folder (default: runs/NAME)"
    )
    parser.add_argument("--seed", type=int, help="seed (default: the config's)")


def run_train(arguments: argparse.Namespace) -> int:
    """Run ``napari-flag train``."""
    from dataclasses import replace

    from flag_training.devices import is_first_process
    from flag_training.fit import train
    from flag_training.stored import held_out, with_store
    from napari_flag.cli.terminal import ProgressLine
    from napari_flag.progress import finish

    config = with_store(_config(arguments), arguments.data)
    config = config.without((*arguments.leave_out, *held_out(config, arguments.data)))
    card = config.card | {"command": _command(arguments)}
    if arguments.metrics is not None:
        told = json.loads(arguments.metrics.read_text("utf-8"))
        kinds = ("X", "sample", "X, tiles shuffled")
        card["metrics"] = {
            f"{section}, by weights trained without it": {kind: scores[kind] for kind in kinds}
            for section, scores in told["scores"].items()
        } | {"command": told["command"]}
    config = replace(config, card=card)
    run = arguments.folder or Path("runs") / config.name
    out = arguments.out or run / f"{config.name}.safetensors"
    with ProgressLine() as line:
        work = train(config, arguments.data, run, out, use_previous=arguments.use_previous)
        finish(work, line if is_first_process() else None)
    if is_first_process():
        sys.stdout.write(f"Wrote {out}.\n")
    return 0


def run_evaluate(arguments: argparse.Namespace) -> int:
    """Run ``napari-flag evaluate``."""
    from flag_training.evaluate import evaluate, rounded
    from napari_flag.cli.terminal import ProgressLine
    from napari_flag.progress import finish

    config = _config(arguments)
    run = arguments.folder or Path("runs") / config.name
    with ProgressLine() as line:
        work = evaluate(config, arguments.data, run, tuple(arguments.test), tuple(arguments.unseen))
        found = rounded(finish(work, line))
    told = {
        "command": _command(arguments),
        "seed": config.fit.seed,
        "samples": config.samples,
        "scores": found,
    }
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(told, indent=2) + "\n", "utf-8")
    sys.stdout.write(json.dumps(found, indent=2) + "\n")
    return 0


def _command(arguments: argparse.Namespace) -> str:
    """Return the command as another machine would give it: the data folder is its own."""
    told = ["DATA" if word == str(arguments.data) else word for word in sys.argv[1:]]
    return shlex.join(["napari-flag", *told])


def _config(arguments: argparse.Namespace) -> "RunConfig":
    from dataclasses import replace

    from flag_training.config import read_config

    config = read_config(arguments.config)
    if arguments.seed is None:
        return config
    return replace(config, fit=replace(config.fit, seed=arguments.seed))
