"""``napari-flag predict``: from a slide to a prediction file."""

import argparse
import shlex
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from napari_flag import keys
from napari_flag.cli import terminal
from napari_flag.cli.terminal import (
    ProgressLine,
    Words,
    check_place,
    fingerprint,
    recorded,
    say,
    say_json,
    write_or_rescue,
)
from napari_flag.errors import UserError
from napari_flag.formatting import whole
from napari_flag.progress import Step, Steps, finish
from napari_flag.slides.colours import COLOURS

if TYPE_CHECKING:
    from anndata import AnnData

    from napari_flag.discovery import FoundSection


DESCRIPTION: Final = f"""\
Of a folder with one slide (Space Ranger's output, legacy ST, HEST-1k, a SpatialData zarr, or a slide and its
tables), spots and counts are taken too. Of a SpatialData zarr, --out may be the zarr itself: the prediction
then becomes a table of it.
Writes an AnnData (h5ad): X is the expected log2(count + 1); joint draws (counts that could have been
measured) and the standard deviation of a measurement are layers. Without --spots, a grid over the
detected tissue is predicted, of the spacing and lattice of the weights' array. {keys.RESEARCH_USE_ONLY}
"""
DEFAULT_WEIGHTS: Final = "her2st"
"""Named here too so that --help need not load the model; a test holds both equal."""


def add_predict(commands: terminal.Commands) -> None:
    """Add ``predict``."""
    parser = terminal.add_command(
        commands,
        "predict",
        run_predict,
        summary="predict the gene expression of a slide",
        description=DESCRIPTION,
    )
    parser.add_argument(
        "slide",
        metavar="SLIDE",
        type=terminal.path,
        help="slide or image file, a folder with one, or a SpatialData zarr",
    )
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
        help="replace OUT.h5ad if napari-flag wrote it; without this, only an earlier result of the very "
        "same command is replaced",
    )
    terminal.add_keep_names(parser)
    terminal.add_json(parser)


def _add_spot_arguments(group: "argparse._ArgumentGroup") -> None:
    add = group.add_argument
    add(
        "--spots",
        metavar="TABLE",
        type=terminal.path,
        help="spots: ST table (.tsv, .csv), Space Ranger folder, or h5ad; measured counts in it are attached",
    )
    add(
        "--measured",
        metavar="FILE",
        type=terminal.path,
        help="measured raw counts of these spots, stored in the layer measured of the prediction; a "
        "Visium HD, Xenium or CosMx folder is pooled into the spots predicted",
    )
    add_alignment(group)
    for name, what in (
        ("image", "H&E image"),
        ("shapes", "shapes that are spots"),
        ("table", "table of counts"),
    ):
        add(f"--{name}", metavar="NAME", help=f"the {what} of a SpatialData zarr (default: the only one)")
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


def add_alignment(group: Any) -> None:
    """Add ``--alignment``."""
    group.add_argument(
        "--alignment",
        metavar="CSV",
        type=terminal.path,
        help="3 × 3 matrix from pixels of the H&E to pixels of the Xenium or CosMx image, as Xenium Explorer "
        "exports it (default: the one beside the measurement)",
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
        help="solver steps: fast 6, balanced 10, best 20, where the weights do not fix them "
        "(default: %(default)s)",
    )
    add(
        "--depth",
        metavar="N|FILE",
        help="how deep this slide is: the mean total count of the weights' genes in a spot, or raw counts of "
        "some of its spots (default: as the training slides that look most alike)",
    )
    add(
        "--draws",
        metavar="K",
        type=terminal.at_least(1, most=keys.MOST_DRAWS),
        help="joint draws to write: layers sample, sample_2, …; 8 are needed to score them "
        "(default: 1, or none of a method that states an expectation only)",
    )
    add("--samples", action=_Refused, nargs="?", help=argparse.SUPPRESS)
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
        help="the same seed gives the same draws; X does not depend on it (default: %(default)s)",
    )
    add(
        "--device",
        default="auto",
        help="auto, cpu, cuda, cuda:1 or mps (default: %(default)s, the fastest there is)",
    )
    add(
        "--colours",
        choices=COLOURS,
        help="scanned: pixels as stored; srgb: converted by the slide's colour profile (default: as the "
        "weights were trained)",
    )
    add(
        "--force",
        "--anyway",
        dest="anyway",
        action="store_true",
        help="predict all the same with weights made for simulated slides, with spots that look misplaced, "
        "or with counts that look scaled or mixed up; it is recorded",
    )


class _Refused(argparse.Action):
    """``--samples``, which earlier versions had."""

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, option: Any = None
    ) -> None:
        parser.error(
            "--samples is not taken any more, since X no longer depends on it; ask for draws with --draws K."
        )


def run_predict(args: argparse.Namespace) -> int:
    """Predict, write, and say what was written."""
    from napari_flag.inputs import predict_inputs, prepare
    from napari_flag.model.checkpoint import Checkpoint, find_weights
    from napari_flag.prediction_file import made_by
    from napari_flag.slides.slide import name_in_results

    started = time.monotonic()
    said = take_from_folder(args)
    out: Path = args.out or Path(f"{name_in_results(args.slide, args.keep_names)}_predicted.h5ad")
    command = command_of(args)
    identity = fingerprint(command)
    back = _goes_back(args, out)
    with ProgressLine() as line:
        for sentence in said:
            line.notice(sentence)
        checkpoint = Checkpoint.load(find_weights(args.weights))
        replaces = not back and check_place(
            out, args.overwrite, lambda: made_by(out, identity, checkpoint.sha256)
        )
        preparing = prepare(
            args.slide,
            checkpoint,
            spots=args.spots,
            measured=args.measured,
            alignment=args.alignment,
            mpp=args.mpp,
            spacing_um=args.spacing,
            diameter_um=args.diameter,
            region=args.region,
            genes=args.genes,
            anyway=args.anyway,
        )
        inputs = finish(preparing, line)
        inputs = replace(inputs, notices=tuple(dict.fromkeys((*said, *inputs.notices))))
        with inputs.slide:
            predicting = predict_inputs(
                inputs,
                checkpoint,
                quality=args.quality,
                depth=_known_depth(args.depth),
                draws=args.draws,
                steps=args.steps,
                seed=args.seed,
                device=args.device,
                colours=args.colours,
                anyway=args.anyway,
                keep_names=args.keep_names,
            )
            adata = finish(predicting, line)
        line(Step("Writing", 0, 1, "files"))
        adata.uns[keys.PROVENANCE] |= {
            keys.COMMAND: recorded(command, args.keep_names),
            keys.COMMAND_HASH: identity,
        }
        if back:
            out = finish(_written_back(adata, args), line)
        else:
            write_or_rescue(adata, out)
    _report(args, adata, out, replaces, time.monotonic() - started)
    return 0


def _goes_back(args: argparse.Namespace, out: Path) -> bool:
    """Return whether the prediction becomes a table of the zarr it is made from; refuse another folder."""
    from napari_flag.exports.spatial_data import PREDICTED, check_free, check_installed
    from napari_flag.slides.formats import spatial_data

    if not out.is_dir():
        return False
    of_store = spatial_data.element_of(args.slide, spatial_data.IMAGES)
    if of_store is None or of_store[0].path.resolve() != out.resolve():
        raise UserError(
            f"{out} is a folder, and a prediction can only become a table of the SpatialData zarr that is "
            "predicted; give --out an .h5ad."
        )
    check_installed()
    check_free(args.slide, PREDICTED, overwrite=args.overwrite, with_shapes=_spots_in_zarr(args) is None)
    return True


def _spots_in_zarr(args: argparse.Namespace) -> Path | None:
    """Return the table or shapes of the slide's own zarr that spots were read from; None for others."""
    from napari_flag.slides.formats import spatial_data

    spots: Path | None = args.spots
    if spots is None or spatial_data.element_of(spots, spatial_data.TABLES, spatial_data.SHAPES) is None:
        return None
    return spots if spots.parents[1].resolve() == args.slide.parents[1].resolve() else None


def _written_back(adata: "AnnData", args: argparse.Namespace) -> Steps[Path]:
    """Make the prediction a table of its zarr; if that fails, it is kept as h5ad."""
    from napari_flag.exports.spatial_data import add_prediction
    from napari_flag.prediction_file import output_name

    try:
        return (yield from add_prediction(adata, args.slide, _spots_in_zarr(args), overwrite=args.overwrite))
    except UserError as error:
        kept = Path(f"{output_name(adata)}_predicted.h5ad")
        write_or_rescue(adata, kept)
        raise UserError(f"{str(error).split(';')[0]}; the prediction was kept as {kept}.") from error


def _known_depth(given: str | None) -> "float | AnnData | None":
    """Return the depth that ``--depth`` gives: a number as it is, a file as the counts in it."""
    if given is None:
        return None
    try:
        return float(given)
    except ValueError:
        from napari_flag.slides.spot_tables import read_measured

        return read_measured(Path(given).expanduser())


def take_from_folder(args: argparse.Namespace) -> tuple[str, ...]:
    """Put the slide, spots and counts of the folder given in place of the folder.

    What was given by --spots or --measured stays; with other spots the folder's counts are not theirs.

    Returns
    -------
    What was taken and why, and what was not; nothing where a slide was given.

    Raises
    ------
    UserError
        When the folder holds no slide, or several.
    """
    from napari_flag.discovery import discover
    from napari_flag.slides.formats import spatial_data

    folder: Path = args.slide
    elements = {name: getattr(args, name) for name in ("image", "shapes", "table")}
    if spatial_data.is_store(folder):
        chosen = spatial_data.choose(folder, **elements)
        args.slide = chosen.image
        args.spots = chosen.spots if args.spots is None else args.spots
        return (f"{folder.name}: {chosen.why}.",)
    for name, value in elements.items():
        if value is not None:
            raise UserError(
                f"--{name} names an element of a SpatialData zarr, and {folder} is none; leave it out."
            )
    if not folder.is_dir() or spatial_data.element_of(folder, spatial_data.IMAGES) is not None:
        return ()
    found = discover(folder)
    if not found.sections:
        reason = f" ({found.notices[0].rstrip('.')})" if found.notices else ""
        raise UserError(f"{folder} holds no slide to predict{reason}; give the slide file itself.")
    if len(found.sections) > 1:
        names = [section.slide.name for section in found.sections]
        more = ", …" if len(names) > 8 else ""
        raise UserError(
            f"{folder} holds {len(names)} slides ({', '.join(names[:8])}{more}); choose one, e.g.: "
            f"{_command_for(found.sections[0])}"
        )
    section = found.sections[0]
    args.slide = section.slide
    if args.spots is None:
        args.spots = section.table
        args.measured = section.measured if args.measured is None else args.measured
    return (section.why, *found.notices)


def _command_for(section: "FoundSection") -> str:
    words = ["napari-flag", "predict", str(section.slide)]
    words += [] if section.table is None else ["--spots", str(section.table)]
    words += [] if section.measured is None else ["--measured", str(section.measured)]
    return shlex.join(words)


def _report(
    args: argparse.Namespace,
    adata: "AnnData",
    out: Path,
    replaced: bool,
    seconds: float,
) -> None:
    made = adata.uns[keys.PROVENANCE]
    if args.json:
        shown = {k: made.get(k) for k in (keys.WEIGHTS_NAME, keys.DEVICE, keys.DRAWS, keys.STEPS)}
        result: dict[str, Any] = {"out": str(out), "spots": adata.n_obs, "genes": adata.n_vars}
        result |= {key: value for key, value in shown.items() if value is not None}
        result |= {"seed": args.seed, "measured": keys.MEASURED in adata.layers}
        if keys.FAMILIARITY in made:
            result[keys.SHARE_UNLIKE] = round(float(made[keys.FAMILIARITY][keys.SHARE_UNLIKE]), 3)
        result |= {"seconds": round(seconds, 1), "replaced": replaced}
        result["notices"] = [str(notice) for notice in made[keys.NOTICES]]
        say_json(result | {"use": keys.RESEARCH_USE_ONLY})
        return
    instead = " (in place of the earlier result of the same command)" if replaced else ""
    say(
        f"Wrote {out}{instead}: {whole(adata.n_obs)} spots × {whole(adata.n_vars)} genes "
        f"in {whole(seconds)} s, weights {made.get(keys.WEIGHTS_NAME, '')} "
        f"on {made.get(keys.DEVICE, args.device)}. {keys.RESEARCH_USE_ONLY}"
    )


def command_of(args: argparse.Namespace) -> Words:
    """Return the command line that makes the same numbers: its options, in a fixed order."""
    words: list[str | Path] = ["napari-flag", "predict", args.slide]
    for name in ("spots", "measured", "alignment", "mpp", "spacing", "diameter", "region", "weights", "genes",
                 "quality", "depth", "draws", "steps", "seed", "colours"):  # fmt: skip
        value = getattr(args, name)
        if value is not None:
            words += [f"--{name}", _word(value)]
    words += ["--force"] if args.anyway else []
    return [*words, "--keep-names"] if args.keep_names else words


def _word(value: object) -> str | Path:
    """Return a value as a word; names of files that may be something else too count as files."""
    if isinstance(value, Path):
        return value
    if isinstance(value, str) and Path(value).expanduser().exists():
        return Path(value)
    return f"{value:g}" if isinstance(value, float) else str(value)
