"""``napari-flag predict``: its arguments, and what is said at the end."""

import argparse
import time
from typing import Any, Final

from napari_flag import keys
from napari_flag.cli import terminal
from napari_flag.cli.one_slide import Written, predicting
from napari_flag.cli.terminal import say, say_json, watch
from napari_flag.cluster import processes_of, require_dask
from napari_flag.formatting import duration, whole
from napari_flag.slides.colours import COLOURS

DESCRIPTION: Final = f"""\
Of a folder with one slide (Space Ranger's output, legacy ST, HEST-1k, a SpatialData zarr, or a slide and its
tables), spots and counts are taken too. Of a SpatialData zarr, --out may be the zarr itself: the prediction
then becomes a table of it. With --manifest, the exit code is 0 when every slide has its prediction, 1 when
one failed, which DIR/report.csv says.
Writes an AnnData (h5ad): X is the expected log2(count + 1); joint draws (counts that could have been
measured) and the standard deviation of a measurement are layers. Without --spots, a grid over the
detected tissue is predicted, of the spacing and lattice of the weights' array. {keys.RESEARCH_USE_ONLY}
"""


def add_predict(commands: terminal.Commands) -> None:
    """Add ``predict``."""
    parser = terminal.add_command(
        commands,
        "predict",
        run_predict,
        summary="predict the gene expression of a slide",
        description=DESCRIPTION,
    )
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument(
        "slide",
        metavar="SLIDE",
        nargs="?",
        type=terminal.path,
        help="slide or image file, a folder with one, or a SpatialData zarr",
    )
    _add_many_arguments(parser, source)
    _add_spot_arguments(parser.add_argument_group("where"))
    _add_model_arguments(parser.add_argument_group("how"))
    parser.add_argument(
        "--out",
        metavar="OUT.h5ad",
        type=terminal.path,
        help="file to write, in a folder that is made if needed (default: <slide>_predicted.h5ad in the "
        "current folder); with --manifest a folder",
    )
    terminal.add_overwrite(parser, "OUT.h5ad")
    terminal.add_keep_names(parser)
    terminal.add_json(parser)


def _add_many_arguments(parser: argparse.ArgumentParser, source: Any) -> None:
    source.add_argument(
        "--manifest",
        metavar="CSV|FOLDER",
        type=terminal.path,
        help="predict every slide of a CSV (columns name, image, spots, counts, mpp; image must be there), "
        "or of a folder, into the folder --out, each as by its own command; run again, it continues",
    )
    parser.add_argument(
        "--cluster",
        metavar="ADDRESS|local:N",
        help="spread the slides of a manifest, or the tiles of one slide, over the workers of a Dask "
        "scheduler or over N processes of this computer (default: one after another)",
    )


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
        metavar="COUNTS",
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
        default=keys.DEFAULT_WEIGHTS,
        help="weights by name (see `napari-flag weights list`) or file (default: %(default)s)",
    )
    terminal.add_genes(group, "all of the weights")
    add(
        "--quality",
        choices=tuple(keys.STEPS_OF),
        default=keys.DEFAULT_QUALITY,
        help="solver steps where the weights do not fix them: "
        f"{', '.join(f'{name} {steps}' for name, steps in keys.STEPS_OF.items())} "
        "(default: %(default)s)",
    )
    add(
        "--depth",
        metavar="N|FILE",
        type=terminal.positive_or_path,
        help="how deep this slide is: the mean total count of the weights' genes in a spot, or raw counts of "
        "some of its spots (default: as the training slides that look most alike)",
    )
    add(
        "--draws",
        metavar="K",
        type=terminal.at_least(1, most=keys.MOST_DRAWS),
        help="joint draws to write: layers sample, sample_2, …; 8 are needed to score them, "
        "16 beside other models (default: 1, or none of a method that states an expectation only)",
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
    terminal.add_device(group, "with --cluster that of the workers; ")
    add(
        "--colours",
        choices=COLOURS,
        help="scanned: pixels as stored; srgb: converted by the slide's colour profile (default: as the "
        "weights were trained)",
    )
    add(
        "--force",
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
    from napari_flag.inputs import check_steps

    check_steps(args.quality, args.steps)
    if args.cluster is not None:  # said before anything is read
        processes_of(args.cluster)
        require_dask()
    if args.manifest is not None:
        from napari_flag.cli.many_slides import run_many

        return run_many(args)
    started = time.monotonic()
    written = watch(predicting(args))
    _report(args, written, time.monotonic() - started)
    return 0


def _report(
    args: argparse.Namespace,
    written: Written,
    seconds: float,
) -> None:
    adata, out = written.adata, written.out
    made = adata.uns[keys.PROVENANCE]
    if args.json:
        from napari_flag.analysis.truth import MEASURED, sources

        shown = {k: made.get(k) for k in (keys.WEIGHTS_NAME, keys.DEVICE, keys.DRAWS, keys.STEPS)}
        result: dict[str, Any] = {"out": str(out), "spots": adata.n_obs, "genes": adata.n_vars}
        result |= {key: value for key, value in shown.items() if value is not None}
        result |= {"seed": args.seed, "measured": MEASURED in sources(adata)}
        if keys.FAMILIARITY in made:
            result[keys.SHARE_UNLIKE] = round(float(made[keys.FAMILIARITY][keys.SHARE_UNLIKE]), 3)
        result |= {"seconds": round(seconds, 1), "replaced": written.replaced}
        result["notices"] = [str(notice) for notice in made[keys.NOTICES]]
        say_json(result | {"use": keys.RESEARCH_USE_ONLY})
        return
    instead = " (in place of the earlier result of the same command)" if written.replaced else ""
    say(
        f"Wrote {out}{instead}: {whole(adata.n_obs)} spots × {whole(adata.n_vars)} genes "
        f"in {duration(seconds)}, weights {made.get(keys.WEIGHTS_NAME, '')} "
        f"on {made.get(keys.DEVICE, args.device)}. {keys.RESEARCH_USE_ONLY}"
    )
