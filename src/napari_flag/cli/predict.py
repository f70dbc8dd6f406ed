"""``napari-flag predict``: from a slide to a prediction file."""

import argparse
import shlex
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from napari_flag import inputs, keys
from napari_flag.cli import terminal
from napari_flag.cli.terminal import ProgressLine, check_place, say, say_json, write_or_rescue
from napari_flag.errors import UserError
from napari_flag.inputs import Prepared
from napari_flag.prediction_file import made_by
from napari_flag.progress import Step, Steps, finish

if TYPE_CHECKING:
    from anndata import AnnData

    from napari_flag.model.checkpoint import Checkpoint


DESCRIPTION: Final = f"""\
Writes an AnnData (h5ad): X is log2(count + 1), the mean of several joint samples; one sample and
the spread over samples are layers. Without --spots, a hexagonal grid over the detected tissue is
predicted. {keys.RESEARCH_USE_ONLY}
"""
DEFAULT_WEIGHTS: Final = "her2st"
"""Named here too so that --help need not load the model; a test holds both equal."""


@dataclass(frozen=True, slots=True)
class Rooms:
    """What `run` calls; tests hand in others that keep the same contracts."""

    load_checkpoint: "Callable[[str], Checkpoint]"
    prepare: "Callable[[argparse.Namespace, Checkpoint, ProgressLine], Prepared]"
    predict_slide: "Callable[..., Steps[AnnData]]"


def add_predict(commands: terminal.Commands) -> None:
    """Add ``predict``."""
    parser = terminal.add_command(
        commands,
        "predict",
        run_predict,
        summary="predict the gene expression of a slide",
        description=DESCRIPTION,
    )
    parser.add_argument("slide", metavar="SLIDE", type=terminal.path, help="slide or image file")
    _add_spot_arguments(parser.add_argument_group("where"))
    _add_model_arguments(parser.add_argument_group("how"))
    parser.add_argument(
        "--out",
        metavar="OUT.h5ad",
        type=terminal.path,
        help="file to write (default: <slide>_predicted.h5ad in the current folder)",
    )
    parser.add_argument(
        "--overwrite",
        action="store_true",
        help="replace OUT.h5ad whatever it is; without this, only an earlier result of the very "
        "same command is replaced",
    )
    terminal.add_json(parser)


def _add_spot_arguments(group: "argparse._ArgumentGroup") -> None:
    add = group.add_argument
    add(
        "--spots",
        metavar="TABLE",
        type=terminal.path,
        help="spots: ST table (.tsv, .csv), Space Ranger folder, or h5ad; measured counts in it come along",
    )
    add(
        "--measured",
        metavar="FILE",
        type=terminal.path,
        help="measured raw counts of these spots, stored beside the prediction for viewing",
    )
    add(
        "--mpp",
        metavar="UM",
        type=terminal.positive,
        help="µm per pixel of the full-resolution slide (default: as the file says)",
    )
    add(
        "--spacing",
        metavar="UM",
        type=terminal.positive,
        help="centre-to-centre distance of the grid in µm (default: as the weights were trained); "
        "with --spots: of the table's array",
    )
    add(
        "--diameter",
        metavar="UM",
        type=terminal.positive,
        help="diameter of a spot in µm (default: as the weights were trained, or the table's)",
    )
    add(
        "--region",
        metavar="GEOJSON",
        type=terminal.path,
        help="predict only inside these polygons (QuPath GeoJSON, level-0 pixels); the numbers "
        "are those of the whole slide",
    )


def _add_model_arguments(group: "argparse._ArgumentGroup") -> None:
    add = group.add_argument
    add(
        "--weights",
        metavar="NAME|FILE",
        default=DEFAULT_WEIGHTS,
        help="weights by name (see `napari-flag weights list`) or file (default: %(default)s)",
    )
    add(
        "--genes",
        metavar="FILE",
        type=terminal.path,
        help="keep only these genes: symbols or aliases, one a line (default: all of the weights)",
    )
    add(
        "--quality",
        choices=("fast", "balanced", "best"),
        default="balanced",
        help="solver steps: fast 6, balanced 10, best 20 (default: %(default)s)",
    )
    add(
        "--samples",
        metavar="K",
        type=terminal.at_least(1),
        help="joint samples to average (default: the weights' choice); fewer keep more spread, "
        "more are closer on average",
    )
    add(
        "--steps",
        metavar="N",
        type=terminal.at_least(2),
        help="solver steps (default: by --quality)",
    )
    add(
        "--seed",
        metavar="S",
        type=terminal.at_least(0),
        default=0,
        help="the same seed gives the same numbers (default: %(default)s)",
    )
    add(
        "--device",
        default="auto",
        help="auto, cpu, cuda, cuda:1 or mps (default: %(default)s, the fastest there is)",
    )


def run_predict(args: argparse.Namespace, rooms: Rooms | None = None) -> int:
    """Predict, write, and say what was written."""
    rooms = _rooms() if rooms is None else rooms
    started = time.monotonic()
    out: Path = args.out or Path(f"{inputs.slide_stem(args.slide)}_predicted.h5ad")
    command = command_of(args)
    with ProgressLine() as line:
        checkpoint = rooms.load_checkpoint(args.weights)
        replaces = check_place(out, args.overwrite, lambda: made_by(out, command, checkpoint.sha256))
        prepared = rooms.prepare(args, checkpoint, line)
        with prepared.slide:
            adata = finish(
                rooms.predict_slide(
                    prepared.slide,
                    prepared.spots,
                    checkpoint,
                    region=prepared.region,
                    genes=prepared.genes,
                    quality=args.quality,
                    samples=args.samples,
                    steps=args.steps,
                    seed=args.seed,
                    device=args.device,
                ),
                line,
            )
        line(Step("Writing", 0, 1, "files"))
        told = _finish_prediction(adata, prepared, command)
        write_or_rescue(adata, out)
    _report(args, adata, out, told, replaces, time.monotonic() - started)
    return 0


def _finish_prediction(adata: "AnnData", prepared: Prepared, command: str) -> tuple[str, ...]:
    """Lay the measured expression beside and complete the provenance; return all notices."""
    from napari_flag.analysis.truth import attach_measured

    said = [*prepared.notices]
    if prepared.measured is not None:
        try:
            attach_measured(adata, prepared.measured)
        except UserError as error:  # e.g. a region without measured spots
            said.append(f"No measured values were laid beside the prediction: {error}")
    made = adata.uns[keys.PROVENANCE]
    made[keys.COMMAND] = command
    told = tuple(dict.fromkeys((*said, *(str(n) for n in made.get(keys.NOTICES, ())))))
    made[keys.NOTICES] = list(told)
    return told


def _report(
    args: argparse.Namespace,
    adata: "AnnData",
    out: Path,
    notices: tuple[str, ...],
    replaced: bool,
    seconds: float,
) -> None:
    made = adata.uns[keys.PROVENANCE]
    if args.json:
        shown = {k: made.get(k) for k in (keys.WEIGHTS_NAME, keys.DEVICE, keys.SAMPLES, keys.STEPS)}
        result: dict[str, Any] = {"out": str(out), "spots": adata.n_obs, "genes": adata.n_vars}
        result |= {key: value for key, value in shown.items() if value is not None}
        result |= {"seed": args.seed, "measured": keys.MEASURED in adata.layers}
        if keys.FAMILIARITY in made:
            result[keys.SHARE_UNLIKE] = round(float(made[keys.FAMILIARITY][keys.SHARE_UNLIKE]), 3)
        result |= {"seconds": round(seconds, 1), "replaced": replaced, "notices": list(notices)}
        say_json(result | {"use": keys.RESEARCH_USE_ONLY})
        return
    instead = " (in place of the earlier result of the same command)" if replaced else ""
    say(
        f"Wrote {out}{instead}: {adata.n_obs:,} spots × {adata.n_vars:,} genes in {seconds:.0f} s, "
        f"weights {made.get(keys.WEIGHTS_NAME, '')} on {made.get(keys.DEVICE, args.device)}. "
        f"{keys.RESEARCH_USE_ONLY}"
    )


def command_of(args: argparse.Namespace) -> str:
    """Return the command line that makes the same numbers: what was asked, in a fixed order."""
    words = ["napari-flag", "predict", str(args.slide)]
    for name in ("spots", "measured", "mpp", "spacing", "diameter", "region", "weights", "genes",
                 "quality", "samples", "steps", "seed"):  # fmt: skip
        value = getattr(args, name)
        if value is not None:
            words += [f"--{name}", f"{value:g}" if isinstance(value, float) else str(value)]
    return shlex.join(words)


def _rooms() -> Rooms:
    from napari_flag.model.checkpoint import Checkpoint, find_weights
    from napari_flag.prediction import predict_slide

    return Rooms(
        load_checkpoint=lambda name: Checkpoint.load(find_weights(name)),
        prepare=inputs.prepare,
        predict_slide=predict_slide,
    )
