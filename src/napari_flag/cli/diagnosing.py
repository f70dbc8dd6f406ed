"""``napari-flag doctor``: is everything there, and what will it run on."""

import argparse
from dataclasses import asdict

from napari_flag.cli import arguments
from napari_flag.cli.terminal import say, say_columns, say_json

SIGNS = {"good": "ok", "warning": "note", "bad": "FAIL"}


def add_commands(commands: arguments.Commands) -> None:
    """Add ``doctor``."""
    parser = arguments.add_command(
        commands,
        "doctor",
        run,
        summary="check that everything is there, and what it will run on",
        description="Exit code 0: predictions will run; 2: something needs putting right.",
    )
    parser.add_argument(
        "--gated",
        nargs="*",
        metavar="ENCODER",
        help="also ask huggingface.co whether this account may download these encoders (all that must be "
        "asked for, when none is named); needs the network",
    )
    arguments.add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Run all checks and print them; 2 when one is bad."""
    from napari_flag.doctor import examine

    findings = list(examine(args.gated))
    bad = sum(finding.state == "bad" for finding in findings)
    if args.json:
        say_json([asdict(finding) for finding in findings])
    else:
        say_columns([[SIGNS[f.state], f.what, f.sentence] for f in findings])
        say()
        say(f"{bad} to put right." if bad else "Everything needed to predict is there.")
    return 2 if bad else 0
