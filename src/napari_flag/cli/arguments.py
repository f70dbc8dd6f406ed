"""What the commands' arguments share: types that explain themselves, and help as it is written."""

import argparse
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


def plain_help(make: Callable[..., argparse.ArgumentParser], **kwargs: Any) -> Any:
    """Build a parser whose description keeps its lines and that takes no abbreviations."""
    return make(formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False, **kwargs)


def add_command(
    commands: Commands,
    name: str,
    run: Callable[[argparse.Namespace], int],
    *,
    summary: str,
    description: str = "",
) -> argparse.ArgumentParser:
    """Add the command `name`, which `run` carries out, and return its parser."""
    text = f"{summary[0].upper()}{summary[1:]}.\n\n{description}".strip()
    parser: argparse.ArgumentParser = plain_help(
        commands.add_parser, name=name, help=summary, description=text
    )
    parser.set_defaults(run=run)
    return parser


def add_json(parser: argparse.ArgumentParser) -> None:
    """Add ``--json``."""
    parser.add_argument("--json", action="store_true", help="print JSON to stdout instead of text")


def path(text: str) -> Path:
    """Read a path; ``~`` is the home folder."""
    return Path(text).expanduser()


def positive(text: str) -> float:
    """Read a number above 0, with a decimal point or comma."""
    try:
        value = float(text.replace(",", "."))
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value > 0):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0, such as 0.5")
    return value


def at_least(least: int) -> Callable[[str], int]:
    """Return a type for whole numbers from `least` on."""

    def whole(text: str) -> int:
        if not text.isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from {least} on")
        return int(text)

    return whole
