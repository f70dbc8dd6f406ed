"""``napari-flag prepare``: slides and counts → a store.  Heavy imports wait for the command."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from napari_flag.cli.terminal import (
    Commands,
    add_command,
    add_device,
    add_json,
    at_least,
    path,
    positive,
)
from napari_flag.errors import UserError
from napari_flag.files import ending
from napari_flag.formatting import counted, resolution
from napari_flag.slides.colours import COLOURS, SCANNED

if TYPE_CHECKING:
    from flag_training.store.building import Encoding
    from flag_training.store.plan import CohortFile, StorePlan
    from flag_training.store.sources import SlideSource
    from flag_training.store.store import Store


DESCRIPTION: Final = """\
SOURCE is a cohort file (training/cohorts/*.toml), a Space Ranger folder (of Visium HD, one bin size;
give the full-resolution image with --image), or a folder of legacy ST (spots/, counts/, images/).

A run that was killed goes on where it was; what is finished is checked by hash and kept. With --list or
--check, SOURCE is a store."""


def add_commands(commands: Commands) -> None:
    """Add ``prepare``."""
    parser = add_command(
        commands, "prepare", run, summary="turn slides and counts into a store to train from",
        description=DESCRIPTION,
    )  # fmt: skip
    parser.add_argument("source", type=path, metavar="SOURCE", help="cohort file, folder, or store")
    where = parser.add_argument_group("where things are")
    where.add_argument("--out", type=path, metavar="STORE", help="folder of the store; created")
    where.add_argument("--data", type=path, metavar="DIR", help="folder the cohort's files are in")
    where.add_argument("--hest", type=path, metavar="DIR", help="folder of HEST-1k (st/, wsis/, HEST_v*.csv)")
    where.add_argument(
        "--download", action="store_true",
        help="agree to download what is missing: HEST-1k samples into --hest, and the encoder's weights",
    )  # fmt: skip
    where.add_argument(
        "--image", type=path, metavar="FILE", help="full-resolution image of a Space Ranger folder"
    )
    slide = parser.add_argument_group("what a folder does not say")
    slide.add_argument(
        "--mpp",
        type=positive,
        metavar="UM",
        help="µm per pixel of the full-resolution slides (default: as their files say)",
    )
    slide.add_argument(
        "--patient", metavar="NAME", help="patient of all slides of the folder (default: unknown)"
    )
    _add_features(parser)
    choices = parser.add_argument_group("splits, genes, entries")
    choices.add_argument(
        "--genes", type=at_least(1), metavar="N",
        help="choose exactly N genes as a panel of its own, hmhvgN-exact (default: the cohort's rule)",
    )  # fmt: skip
    choices.add_argument(
        "--panel-sees-all", action="store_true",
        help="let validation and test slides take part in choosing the genes, as the published code does "
        "(a leak; default: training slides of both splits)",
    )  # fmt: skip
    choices.add_argument(
        "--rebuild", nargs="+", default=[], metavar="SLIDE[/STAGE]",
        help="make these entries again, e.g. C2/features-uni",
    )  # fmt: skip
    choices.add_argument("--list", action="store_true", help="say what the store SOURCE holds")
    choices.add_argument("--check", action="store_true", help="compare every file of the store with its hash")
    add_json(parser)


def _add_features(parser: argparse.ArgumentParser) -> None:
    features = parser.add_argument_group("features")
    features.add_argument("--encoder", metavar="NAME", help="encoder of the tiles (default: no features yet)")
    features.add_argument(
        "--weights", type=path, metavar="FILE",
        help="the encoder's weights; for the embedded one a weights file, or tile_encoder_….pt of a run",
    )  # fmt: skip
    features.add_argument(
        "--views", type=at_least(1), default=4, metavar="N",
        help="the slide as it is and N - 1 turned and re-stained views (default: 4; the paper: 1)",
    )  # fmt: skip
    features.add_argument(
        "--enlarge", type=positive, metavar="TIMES",
        help="how much coarser than the encoder's µm/px a slide may be, its tiles being enlarged so much "
        "(default: the cohort file's, else 1.5)",
    )  # fmt: skip
    features.add_argument(
        "--colours", choices=COLOURS, default=SCANNED,
        help="scanned: pixels as stored; srgb: converted by each slide's colour profile, as slides predicted "
        "with the weights will be (default: scanned)",
    )  # fmt: skip
    features.add_argument(
        "--seed", type=at_least(0), default=0, metavar="N", help="draws the views (default: 0)"
    )
    add_device(features)


def run(args: argparse.Namespace) -> int:
    """Run ``napari-flag prepare``."""
    from flag_training.store.store import open_store
    from napari_flag.cli.terminal import ProgressLine, say, say_json
    from napari_flag.progress import finish

    _refuse_unused(args)
    checked = None
    with ProgressLine() as line:
        if args.list or args.check:
            store = open_store(args.source)
            checked = finish(store.check(), line) if args.check else None
        else:
            store = _build(args, line)
    description = describe(store)
    if args.json:
        say_json(description if checked is None else description | {"files_checked": checked})
        return 0
    _say(description)
    if checked is not None:
        say(f"All {checked} files are as they were written.")
    return 0


def _refuse_unused(args: argparse.Namespace) -> None:
    """Refuse options that would change nothing of this store."""
    folder, features = ("image", "mpp", "patient"), ("weights", "enlarge")
    if args.list or args.check:
        where, chosen = ("out", "data", "hest", "download"), ("genes", "panel_sees_all", "rebuild")
        made = (*where, *folder, "encoder", *features, *chosen)
        _refuse(args, made, "is for making a store, and --list and --check look at one that is there")
    if args.encoder is None:
        _refuse(args, features, "is of the features of an encoder, and none is named with --encoder")
    if ending(args.source) == ".toml":
        _refuse(args, folder, f"is for a folder, and of {args.source.name} the cohort file says it")
    else:
        _refuse(args, ("data", "hest", "panel_sees_all"), f"is for a cohort file, and {args.source} is none")


def _refuse(args: argparse.Namespace, names: Sequence[str], why: str) -> None:
    for name in names:
        if getattr(args, name) not in (None, False, []):
            raise UserError(f"--{name.replace('_', '-')} {why}; leave it out.")


def _build(args: argparse.Namespace, line: Any) -> "Store":
    from dataclasses import replace

    from flag_training.store.building import build_store
    from flag_training.store.panels import PanelRule
    from napari_flag.cli.terminal import cancelled_as, kept_in
    from napari_flag.progress import finish

    if args.out is None:
        raise UserError("prepare needs --out with the folder of the store; add it.")
    plan = _plan(args, line)
    if args.genes is not None:
        rule = replace(
            plan.panel or PanelRule(), name=f"hmhvg{args.genes}-exact", genes=args.genes, exact=True
        )
        plan = replace(plan, panel=rule)
    # Missing weights or packages are reported before any work is done.
    encoding = None if args.encoder is None else _encoding(args, plan.enlarge)
    with cancelled_as(lambda: kept_in(args.out)):
        return finish(build_store(plan, args.out, encoding, args.rebuild), line)


def _plan(args: argparse.Namespace, line: Any) -> "StorePlan":
    """Return what to prepare, from a cohort file or a folder."""
    from dataclasses import replace

    from flag_training.store.plan import StorePlan, read_cohort
    from flag_training.store.sources import HUMAN, find_sources

    if ending(args.source) == ".toml":
        cohort = read_cohort(args.source)
        if cohort.hest is not None:
            return _hest_plan(args, cohort, line)
        _refuse(args, ("hest",), f"is the folder of HEST-1k, and {cohort.name} is no cohort of it")
        if args.data is None:
            raise UserError(f"The files of {cohort.name} are searched for in a folder; name it with --data.")
        return _cohort_plan(args, cohort, [row.source(args.data) for row in cohort.slides], args.data)
    if not args.source.is_dir():
        raise UserError(f"There is no folder or cohort file {args.source}; check the path.")
    sources = find_sources(args.source, args.image)
    if args.mpp is not None:
        sources = tuple(replace(source, mpp=args.mpp, mpp_source="set by hand") for source in sources)
    if args.patient is not None:
        sources = tuple(replace(source, patient=args.patient) for source in sources)
    return StorePlan(args.source.resolve().name, HUMAN, sources, args.source)


def _hest_plan(args: argparse.Namespace, cohort: "CohortFile", line: Any) -> "StorePlan":
    from flag_training.store import hest
    from napari_flag.progress import finish

    assert cohort.hest is not None
    _refuse(
        args, ("data",), f"is of other cohorts, and the files of {cohort.name} are in the folder of --hest"
    )
    if args.hest is None:
        raise UserError(
            f"{cohort.name} is a cohort of HEST-1k; name its folder with --hest, and add --download to "
            "fill it."
        )
    if args.download:
        finish(hest.download_hest([hest.METADATA], args.hest), line)
    metadata = hest.read_metadata(hest.find_metadata(args.hest))
    ids = hest.choose_ids(cohort.hest, metadata)
    if args.download:
        names = [name for i in ids for name in (f"st/{i}.h5ad", f"wsis/{i}.tif")]
        finish(hest.download_hest(names, args.hest), line)
    sources = hest.hest_sources(ids, metadata, args.hest, cohort.species)
    return _cohort_plan(args, cohort, sources, args.hest)


def _cohort_plan(
    args: argparse.Namespace, cohort: "CohortFile", sources: "Sequence[SlideSource]", root: Path
) -> "StorePlan":
    """Return the plan of a cohort file and the command line for `sources` in `root`."""
    from flag_training.gene_targets.gene_table import read_gene_ids
    from flag_training.store.plan import StorePlan

    return StorePlan(
        name=cohort.name,
        species=cohort.species,
        sources=tuple(sources),
        root=root,
        split=cohort.split,
        panel=cohort.panel,
        panel_sees_all=args.panel_sees_all,
        enlarge=cohort.enlarge,
        gene_ids=read_gene_ids(root / cohort.gene_ids) if cohort.gene_ids else None,
    )


def _encoding(args: argparse.Namespace, enlarge: float) -> "Encoding":
    """Open the requested encoder."""
    from flag_training.store.building import Encoding, open_prepared
    from napari_flag.encoders.features import choose_device, first_batch

    device = choose_device(args.device)
    opened = open_prepared(args.encoder, device, args.weights, args.download)
    batch = first_batch(opened.encoder, device)
    coarsest = args.enlarge or enlarge
    return Encoding(opened.encoder, opened.tensors, args.views, args.seed, batch, coarsest, args.colours)


def describe(store: "Store") -> dict[str, Any]:
    """Return what a store holds, as JSON."""
    slides = []
    for name in store.names:
        slide = store.slide(name)
        slides.append(
            {
                "name": name,
                "patient": slide.patient,
                "spots": len(slide.spots),
                "genes": slide.record["genes"],
                "um_per_px": slide.mpp,
                "technology": slide.record["technology"],
                "features": {e: slide.feature_settings(e)["dim"] for e in slide.encoders},
                "labelled": slide.labels is not None,
            }
        )
    panels = sorted((store.path / "panels").glob("*.json"))
    return {
        "store": str(store.path),
        "name": store.name,
        "species": store.species,
        "slides": slides,
        "splits": store.splits(),
        "panels": {p.stem: len(store.panel(p.stem)) for p in panels},
    }


def _say(description: dict[str, Any]) -> None:
    from napari_flag.cli.terminal import say, say_columns

    slides = description["slides"]
    say(
        f"{description['store']}: {description['name']}, {counted(len(slides), 'slide')}, "
        f"{counted(sum(s['spots'] for s in slides), 'spot')}"
    )
    rows = [
        (
            s["name"], counted(s["spots"], "spot"), counted(s["genes"], "gene"), resolution(s["um_per_px"]),
            s["patient"] or "patient unknown", ", ".join(s["features"]) or "no features",
        )
        for s in slides
    ]  # fmt: skip
    say_columns(rows, indent="  ")
    for by, split in description["splits"].items():
        parts = ", ".join(f"{part} {len(split[part])}" for part in ("train", "validation", "test"))
        say(f"split by {by}: {split['unmade'] or parts}")
    for name, genes in description["panels"].items():
        say(f"panel {name}: {genes} genes")
