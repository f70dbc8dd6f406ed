"""Parse the command line, run the command, and turn whatever goes wrong into one sentence."""

import argparse
import gc
import importlib
import importlib.util
import logging
import os
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

from napari_flag import __version__, keys
from napari_flag.cli import analyse, anonymise, compare, predict, resources
from napari_flag.cli.terminal import Commands, Parser, plain_help, printed, sentence_of, take_all_text
from napari_flag.errors import UserError
from napari_flag.files import of_drive

DONE: Final = 0
OUR_FAULT: Final = 1
USER_CAN_FIX: Final = 2
CANCELLED: Final = 130
TRAINING: Final = "flag_training"

COMMANDS: Final = (
    predict.add_predict,
    compare.add_compare,
    analyse.add_report,
    analyse.add_export,
    anonymise.add_anonymise,
    resources.add_demo,
    resources.add_weights,
    resources.add_encoders,
    resources.add_cache,
    resources.add_doctor,
)
"""What adds a command to the parser, in the order of the help."""

DESCRIPTION: Final = f"""\
Predict spatial gene expression from H&E slides. {keys.RESEARCH_USE_ONLY}

Exit code 0: done; 2: something you can put right, named in one sentence; 1: our fault; 130: cancelled.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code.

    Parameters
    ----------
    argv
        Arguments without the program's name; None takes them from the shell.
    """
    take_all_text()
    try:
        args = build_parser().parse_args(argv)
    except SystemExit as stop:  # argparse has printed what was wrong, or the help
        return stop.code if isinstance(stop.code, int) else USER_CAN_FIX
    logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # what it would log, our sentence says
    gc.freeze()  # what is loaded stays: the collection below need not search it
    with _drives_said_once(args.debug):
        code = _run(args)
        if code:
            gc.collect()  # closes what the failure held open, while that is listened for
        return code


def build_parser() -> argparse.ArgumentParser:
    """Return the parser with every command, those of the training package too where it is there."""
    parser: argparse.ArgumentParser = plain_help(Parser, prog="napari-flag", description=DESCRIPTION)
    parser.add_argument("--version", action="version", version=f"napari-flag {__version__}")
    parser.add_argument("--debug", action="store_true", help="show where an error came from")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for add in COMMANDS:
        add(commands)
    _add_training_commands(commands)
    _add_debug(commands)
    return parser


def _add_debug(commands: Commands) -> None:
    """Accept ``--debug`` after the command too, also after subcommands."""
    for parser in commands.choices.values():
        parser.add_argument(
            "--debug",
            action="store_true",
            default=argparse.SUPPRESS,
            help="show where an error came from",
        )
        for action in parser._actions:
            if isinstance(action, argparse._SubParsersAction):
                _add_debug(action)


def _add_training_commands(commands: Commands) -> None:
    if importlib.util.find_spec(TRAINING) is None:
        return
    if importlib.util.find_spec(f"{TRAINING}.cli") is not None:
        importlib.import_module(f"{TRAINING}.cli").add_commands(commands)


def _run(args: argparse.Namespace) -> int:
    try:
        return int(args.run(args))
    except UserError as error:
        return _say(str(error), args, USER_CAN_FIX)
    except KeyboardInterrupt as stop:
        return _say(str(stop) or "cancelled", args, CANCELLED)
    except MemoryError as error:
        return _say(sentence_of(error), args, USER_CAN_FIX)
    except BrokenPipeError:
        # The reader of our output has exited (`| head`); Python would complain again on exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE
    except Exception as error:  # noqa: BLE001 - the last stop before the user
        return _say(sentence_of(error), args, OUR_FAULT if of_drive(error) is None else USER_CAN_FIX)


@contextmanager
def _drives_said_once(debug: bool) -> Iterator[None]:
    """Leave out what is printed when a file that could not be written is closed again: our sentence says it.

    h5py hands such an error to ``sys.excepthook``, and then to ``sys.unraisablehook``.
    """
    plain, unraisable = sys.excepthook, sys.unraisablehook

    def said(error: BaseException | None) -> bool:
        return not debug and error is not None and of_drive(error) is not None

    def on_error(kind: type[BaseException], error: BaseException, trace: Any) -> None:
        if not said(error):
            plain(kind, error, trace)

    def on_unraisable(heard: Any) -> None:
        if not said(heard.exc_value):
            unraisable(heard)

    sys.excepthook, sys.unraisablehook = on_error, on_unraisable
    try:
        yield
    finally:
        sys.excepthook, sys.unraisablehook = plain, unraisable


def _say(sentence: str, args: argparse.Namespace, code: int) -> int:
    if args.debug:
        traceback.print_exc()
    print(printed(sentence), file=sys.stderr)  # noqa: T201 - this is the command line
    return code
