"""Commands of the training package, added to ``napari-flag``.  Heavy imports wait for the command."""

import argparse
import shlex
import sys
from pathlib import Path
from typing import Any


def add_commands(commands: "argparse._SubParsersAction[Any]") -> None:
    """Add ``train``."""
    parser = commands.add_parser(
        "train",
        help="train weights from a config",
        description="Train weights: tile encoder, mean head, gene transformer. Every stage is kept "
        "in the run folder; a killed run goes on from there.",
    )
    parser.add_argument("config", type=Path, metavar="CONFIG.toml", help="values of the run")
    parser.add_argument(
        "--data", type=Path, required=True, metavar="DIR", help="folder the config's files are in"
    )
    parser.add_argument(
        "--run", type=Path, dest="folder", metavar="DIR", help="run folder (default: runs/NAME)"
    )
    parser.add_argument("--out", type=Path, metavar="FILE.safetensors", help="weights file to write")
    parser.add_argument(
        "--leave-out", nargs="+", default=[], metavar="SECTION", help="sections not to train on"
    )
    parser.add_argument("--seed", type=int, help="seed (default: the config's)")
    parser.set_defaults(run=run_train)


def run_train(arguments: argparse.Namespace) -> int:
    """Run ``napari-flag train``."""
    from dataclasses import replace

    from flag_training.config import read_config
    from flag_training.fit import train
    from napari_flag.cli.terminal import ProgressLine
    from napari_flag.progress import finish

    config = read_config(arguments.config).without(tuple(arguments.leave_out))
    if arguments.seed is not None:
        config = replace(config, fit=replace(config.fit, seed=arguments.seed))
    command = shlex.join(["napari-flag", *sys.argv[1:]])
    config = replace(config, card=config.card | {"command": command})
    run = arguments.folder or Path("runs") / config.name
    out = arguments.out or run / f"{config.name}.safetensors"
    with ProgressLine() as line:
        finish(train(config, arguments.data, run, out), line)
    sys.stdout.write(f"Wrote {out}.\n")
    return 0
