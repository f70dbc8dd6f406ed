"""``napari-flag demo``: the bundled slide, predicted, beside its truth."""

import argparse

from napari_flag.cli import arguments

DESCRIPTION = """\
Opens napari on a bundled synthetic H&E slide, predicts it with weights made for such slides, and
shows prediction beside truth. Without a display it writes the screenshot and says where.
"""


def add_commands(commands: arguments.Commands) -> None:
    """Add ``demo``."""
    parser = arguments.add_command(
        commands,
        "demo",
        run,
        summary="open the bundled synthetic slide, predict it, and show prediction beside truth",
        description=DESCRIPTION,
    )
    parser.add_argument(
        "--screenshot",
        metavar="PNG",
        type=arguments.path,
        help="write a picture of the window here and close it again",
    )


def run(args: argparse.Namespace) -> int:
    """Show the demo."""
    from napari_flag.widgets.demo_window import run_demo

    return int(run_demo(screenshot=args.screenshot))
