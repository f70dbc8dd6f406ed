"""``napari-flag figures``.  Heavy imports wait for the command."""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.figure import Figure


def add_commands(commands: "argparse._SubParsersAction[Any]") -> None:
    """Add ``figures``."""
    parser = commands.add_parser(
        "figures",
        help="draw training curves and held-out structure from run folders",
        description="Draw from run folders whatever is in them: training-dynamics curves from their logs, "
        "and, from held-out predictions that carry their truth (as evaluate leaves them), Moran's I "
        "predicted over measured, co-expression heat maps, and the calibration of the intervals.",
    )
    parser.add_argument(
        "runs", nargs="+", type=Path, metavar="RUN", help="run folders, or single logs and predictions"
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for the pictures")
    parser.add_argument(
        "--format", choices=("png", "pdf", "svg"), default="png", help="of the pictures (default: png)"
    )
    parser.set_defaults(run=run_figures)


def run_figures(arguments: argparse.Namespace) -> int:
    """Run ``napari-flag figures``."""
    from napari_flag.figures.style import house_style

    with house_style():
        drawn = draw_all(arguments.runs)
        arguments.out.mkdir(parents=True, exist_ok=True)
        for name, figure in drawn.items():
            path = arguments.out / f"{name}.{arguments.format}"
            figure.savefig(path)
            sys.stdout.write(f"Wrote {path}.\n")
    return 0


def draw_all(places: "Sequence[Path]") -> "dict[str, Figure]":
    """Return file name → picture, of everything that `places` hold.

    Raises
    ------
    UserError
        When there is nothing to draw.
    """
    from flag_training.figures.dynamics import draw_dynamics
    from flag_training.figures.sources import find_logs, find_sections
    from napari_flag.errors import UserError
    from napari_flag.figures.calibration import draw_calibration
    from napari_flag.figures.coexpression import draw_coexpression
    from napari_flag.figures.moran import draw_moran

    logs, sections = find_logs(places), find_sections(places)
    if not logs and not sections:
        raise UserError(
            "There is no training log and no held-out prediction with its truth in "
            f"{', '.join(str(place) for place in places)}; give run folders of train or evaluate."
        )
    found = {"training": draw_dynamics(logs)} if logs else {}
    if sections:
        found["moran"] = draw_moran(sections)
        found |= {f"coexpression_{section.name}": draw_coexpression(section) for section in sections}
    spread = [section for section in sections if section.spread is not None]
    return found | ({"calibration": draw_calibration(spread)} if spread else {})
