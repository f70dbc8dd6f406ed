"""``napari-flag predict --manifest``: many slides, each as the command of one, and a report of all.

What a slide becomes is decided by `one_slide` alone, so a prediction made here and one made by the command of
its slide are the same file, and each recognises the other's as its own.
"""

import argparse
import math
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from napari_flag import __version__, keys
from napari_flag.cache import most_bytes, variable_of
from napari_flag.cli.one_slide import command_of, predicting, with_source
from napari_flag.cli.terminal import (
    MOST_NAMED,
    ProgressLine,
    cancelled_as,
    fingerprint,
    say,
    say_json,
    sentence_of,
)
from napari_flag.cluster import Finished, processes_of, require_version, spread
from napari_flag.discovery import discover
from napari_flag.errors import UserError
from napari_flag.exports.replacing import refuse_foreign
from napari_flag.files import make_folder, place_in, raw_cell, read_csv, write_table
from napari_flag.formatting import counted, data_size, duration, first_of, whole
from napari_flag.listing import ListedSlide, read_listing, refuse_same_names
from napari_flag.progress import Step, Steps, finish
from napari_flag.slide_identity import KEEP, without_names
from napari_flag.slides.file_identity import name_of
from napari_flag.slides.slide import name_in_results

if TYPE_CHECKING:
    from napari_flag.model.checkpoint import Checkpoint

WRITTEN: Final = "written"
KEPT: Final = "kept"
FAILED: Final = "failed"
REPORT_FILE: Final = "report.csv"
REPORT_COLUMNS: Final = ("name", "status", "seconds", "spots", "genes", "prediction", "message")
REPORT_EVERY_S: Final = 5.0
STAGE: Final = "Predicting slides"
OF_ONE_SLIDE: Final = ("spots", "measured", "alignment", "region", "image", "shapes", "table")
"""Arguments that belong to one slide, so not to a list of them."""


@dataclass(frozen=True, slots=True)
class SlideTask:
    """A slide to predict, as it is sent to a worker; paths are absolute.

    Parameters
    ----------
    name
        As listed.
    args
        The command of this slide, parsed.
    weights_sha256, version
        Of the weights and of napari-flag where the command runs; a worker must have the same.
    """

    name: str
    args: argparse.Namespace
    weights_sha256: str
    version: str = __version__


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a slide: a line of the report.

    Parameters
    ----------
    name
        As listed.
    status
        `WRITTEN`, `KEPT` (was there already, made by the same command with the same weights) or `FAILED`.
    seconds
        Spent on making it, in an earlier run where it was kept; None where that is not known.
    spots, genes
        Of the prediction; None where there is none.
    prediction
        Name of its file; empty where there is none.
    message
        Why it failed, or the notices of its prediction; it names no folder of the slide.
    """

    name: str
    status: str
    seconds: float | None = None
    spots: int | None = None
    genes: int | None = None
    prediction: str = ""
    message: str = ""


def run_many(args: argparse.Namespace) -> int:
    """Predict every slide of a list, and say what became of them; 1 where one failed."""
    started = time.monotonic()
    outcomes: list[Outcome] = []

    def so_far() -> str:
        done = sum(outcome.status != FAILED for outcome in outcomes)
        return (
            f"cancelled with {counted(done, 'slide')} predicted in {args.out}; the same command continues "
            "with the others"
        )

    with cancelled_as(so_far), ProgressLine() as line:
        finish(_predicting_all(args, outcomes), line)
    _say_outcomes(args, outcomes, time.monotonic() - started)
    return int(any(outcome.status == FAILED for outcome in outcomes))


def _predicting_all(args: argparse.Namespace, outcomes: list[Outcome]) -> Steps[None]:
    """Predict what is not there yet; `outcomes` grows as slides are done."""
    from napari_flag.encoders.registry import find_encoder
    from napari_flag.model.checkpoint import Checkpoint, find_weights

    _refuse(args)
    yield Step("Reading the list", 0)
    listed, notices = listed_slides(args.manifest, args.keep_names)
    for notice in notices:
        yield Step("Reading the list", 0, notice=notice)
    report = _Report(args.out / REPORT_FILE, [slide.name for slide in listed], outcomes)
    checkpoint = Checkpoint.load(find_weights(args.weights))
    tasks = [task_of(slide, args, checkpoint.sha256) for slide in listed]
    missing = yield from _not_there_yet(tasks, args, outcomes)
    if missing and (args.cluster is None or processes_of(args.cluster)):  # elsewhere, workers have their own
        yield from _compare_with_cache(tasks, find_encoder(checkpoint.encoder).dim)
    make_folder(args.out)
    try:
        steps = spread(
            predict_one,
            missing,
            args.cluster,
            stage=STAGE,
            unit="slides",
            names=[task.name for task in missing],
            before=len(outcomes),
            gpu=args.device.startswith("cuda"),
        )
        for step in steps:
            if not isinstance(step.partial, Finished):
                yield step
                continue
            outcome = _outcome_of(missing[step.partial.place], step.partial)
            outcomes.append(outcome)
            report.write_now_and_then()
            failed = f"{outcome.name} failed: {outcome.message}" if outcome.status == FAILED else None
            yield replace(step, partial=None, detail=outcome.name, notice=failed)
    finally:
        report.write()


def _refuse(args: argparse.Namespace) -> None:
    """Refuse what has no meaning for a list of slides."""
    for name in OF_ONE_SLIDE:
        if getattr(args, name) is not None:
            raise UserError(
                f"--{name} belongs to one slide and cannot be given together with --manifest; list slides "
                "with their spots and counts in the file, or leave --manifest out."
            )
    if isinstance(args.depth, Path):
        raise UserError(
            "--depth takes a number together with --manifest, since a file is of the spots of one slide; "
            "give the mean total count, or predict that slide alone."
        )
    if args.out is None:
        raise UserError("--manifest writes a prediction per slide; give a folder for them with --out DIR.")
    if args.out.exists() and not args.out.is_dir():
        raise UserError(
            f"{args.out} is a file, and --manifest writes a prediction per slide; give a folder with --out."
        )


def listed_slides(source: Path, keep_names: bool = False) -> tuple[tuple[ListedSlide, ...], tuple[str, ...]]:
    """Return the slides of a CSV, or those found in a folder with what belongs to them, and what to say.

    A name that looks like a patient's gives way to a neutral one, unless `keep_names`.

    Raises
    ------
    UserError
        When there is none, or two have one name.
    """
    notices: tuple[str, ...] = ()
    if source.is_dir():
        found = discover(source)
        slides = tuple(
            ListedSlide(section.name, section.slide, section.table, section.measured)
            for section in found.sections
        )
        notices = found.notices
    else:
        slides = read_listing(source)
    if not slides:
        raise UserError(
            f"{source} holds no slide; give a folder with slides, or a CSV file with a line each."
        )
    if not keep_names:
        plain = tuple(replace(one, name=name_in_results(one.image, name=one.name)) for one in slides)
        if plain != slides:
            slides = plain
            notices = (
                *notices,
                f"Names that look like a patient's are left out of results; keep them with {KEEP}.",
            )
    refuse_same_names(source, [slide.name for slide in slides])
    return slides, notices


def task_of(slide: ListedSlide, args: argparse.Namespace, weights_sha256: str) -> SlideTask:
    """Return the task of a listed slide: the command of that slide alone, with paths that hold everywhere."""
    from napari_flag.model.checkpoint import file_given

    out: Path = args.out
    own = {name: value for name, value in vars(args).items() if name not in ("run", "manifest")}
    own |= {
        "slide": slide.image.resolve(),
        "spots": _absolute(slide.spots),
        "measured": _absolute(slide.counts),
        "mpp": args.mpp if slide.mpp is None else slide.mpp,
        "genes": _absolute(args.genes) if isinstance(args.genes, Path) else args.genes,
        "out": place_in(out.resolve(), slide.name, ".h5ad"),
        "cluster": None,
    }
    if (given := file_given(args.weights)) is not None:
        own["weights"] = str(given.resolve())
    return SlideTask(slide.name, argparse.Namespace(**own), weights_sha256)


def _absolute(path: Path | None) -> Path | None:
    return None if path is None else path.resolve()


def is_done(task: SlideTask) -> bool:
    """Return whether the prediction is there, whole, of the same command and the same weights."""
    from napari_flag.prediction_file import made_by

    if not task.args.out.is_file():
        return False
    try:
        args, _ = with_source(task.args)
    except UserError:  # said when the slide is predicted
        return False
    identity = fingerprint(command_of(args))
    return made_by(args.out, {keys.COMMAND_HASH: identity, keys.WEIGHTS_HASH: task.weights_sha256})


def _not_there_yet(
    tasks: Sequence[SlideTask], args: argparse.Namespace, outcomes: list[Outcome]
) -> Steps[list[SlideTask]]:
    """Return the tasks to do; those that are done go to `outcomes`, and what is in their place is refused."""
    missing, others = [], []
    seconds = _earlier_seconds(args.out / REPORT_FILE)
    for place, task in enumerate(tasks):
        yield Step("Looking at earlier results", place, len(tasks), "slides")
        if not args.overwrite and is_done(task):
            found = _outcome_in(task, KEPT)
            outcomes.append(replace(found, seconds=seconds.get((found.name, found.prediction))))
        else:
            missing.append(task)
            others += [task.args.out.name] if task.args.out.exists() and not args.overwrite else []
    if others:
        raise UserError(
            f"{counted(len(others), 'file')} in {args.out} ({_some(others)}) are no results of this very "
            "command and these weights; give another --out, or add --overwrite to make all of them again."
        )
    if outcomes:
        kept = f"{whole(len(outcomes))} of {whole(len(tasks))} slides have their predictions already; kept."
        yield Step("Looking at earlier results", len(tasks), len(tasks), "slides", notice=kept)
    return missing


def _some(names: Iterable[str]) -> str:
    return first_of(list(names), MOST_NAMED)


def _outcome_in(task: SlideTask, status: str) -> Outcome:
    """Return what the prediction of a task that is done says of itself."""
    from napari_flag.prediction_file import size_and_notices

    out: Path = task.args.out
    spots, genes, notices = size_and_notices(out) or (None, None, ())
    return Outcome(task.name, status, None, spots, genes, out.name, " ".join(notices))


def _earlier_seconds(report: Path) -> dict[tuple[str, str], float]:
    """Return the seconds that an earlier report states, by name and file of a prediction."""
    try:
        rows = read_csv(report)[1]
    except (OSError, UserError):
        return {}
    found = {}
    for row in rows:
        with suppress(TypeError, ValueError):  # nothing, or no number, where a line was changed by hand
            seconds = float(row.get("seconds") or "")
            name, prediction = (raw_cell(row.get(key) or "") for key in ("name", "prediction"))
            if math.isfinite(seconds):
                found[name, prediction] = seconds
    return found


def _compare_with_cache(tasks: Sequence[SlideTask], dim: int) -> Steps[None]:
    """Say where the features of the slides whose spots are listed are more than is kept of all slides."""
    from napari_flag.slides.spot_tables import count_spots

    spots, most = 0, most_bytes("features")
    for place, task in enumerate(tasks):
        yield Step("Counting spots", place, len(tasks), "slides")
        spots += (task.args.spots and count_spots(task.args.spots)) or 0
    size = 4 * dim * spots
    if size > most:
        said = (
            f"Features of these slides take about {data_size(size)}, and {data_size(most)} of all slides are "
            "kept: predicted once more, with another seed or panel, their tiles are encoded anew. Set "
            f"{variable_of('features')}={math.ceil(1.1 * size / 1e9)} in the environment to keep all."
        )
        yield Step("Counting spots", len(tasks), len(tasks), "slides", notice=said)


# --- on a worker ---------------------------------------------------------------------------------


def predict_one(task: SlideTask) -> Steps[Outcome]:
    """Predict one slide; whatever goes wrong with it is in what is returned."""
    started = time.monotonic()
    result = Outcome(task.name, FAILED)
    try:
        checkpoint = _checked(task)
        if not task.args.overwrite and is_done(task):  # by a worker that ended before it could say so
            return _outcome_in(task, WRITTEN)
        written = yield from predicting(task.args, checkpoint)
    except Exception as error:  # noqa: BLE001 - one slide never stops the others
        files = [value for value in vars(task.args).values() if isinstance(value, Path)]
        message = without_names(sentence_of(error), files, task.args.keep_names)
        return replace(result, seconds=_since(started), message=message)
    adata = written.adata
    notices = adata.uns[keys.PROVENANCE].get(keys.NOTICES, ())
    return replace(
        result,
        status=WRITTEN,
        seconds=_since(started),
        spots=adata.n_obs,
        genes=adata.n_vars,
        prediction=written.out.name,
        message=" ".join(str(notice) for notice in notices),
    )


def _checked(task: SlideTask) -> "Checkpoint":
    """Return the weights, which like the program must be those of the command."""
    from napari_flag.model.checkpoint import Checkpoint, find_weights

    require_version(task.version)
    checkpoint = Checkpoint.load(find_weights(task.args.weights))
    if checkpoint.sha256 != task.weights_sha256:
        raise UserError(
            f"The weights {name_of(Path(task.args.weights))} that a worker has are not those of the command; "
            "give --weights a file that all workers can read."
        )
    return checkpoint


def _since(started: float) -> float:
    return round(time.monotonic() - started, 2)


# --- what became of them -------------------------------------------------------------------------


def _outcome_of(task: SlideTask, finished: Finished[Outcome]) -> Outcome:
    """Return what became of a slide, its file looked at from here."""
    out: Path = task.args.out
    for left in out.parent.glob(f".{out.name}.*.part"):  # of a worker that was killed as it wrote
        left.unlink(missing_ok=True)
    outcome = finished.result
    if outcome is None:
        return Outcome(task.name, FAILED, message=finished.lost)
    if outcome.status == WRITTEN and not out.is_file():
        return replace(
            outcome,
            status=FAILED,
            prediction="",
            message=f"A worker wrote {out.name} where it is not seen from here; give an --out, and "
            "slides, on a file system that all workers share.",
        )
    return outcome


class _Report:
    """The report of a run, in the order of the list; written as slides are done."""

    def __init__(self, path: Path, order: Sequence[str], outcomes: Sequence[Outcome]) -> None:
        self._path = path
        self._order = {name: place for place, name in enumerate(order)}
        self._outcomes = outcomes
        self._written_at = -float("inf")
        refuse_foreign(path)

    def write_now_and_then(self) -> None:
        """Write where the last time is a while ago, so that a run that is killed has its report."""
        if time.monotonic() - self._written_at > REPORT_EVERY_S:
            self.write()

    def write(self) -> None:
        """Write the lines of all slides that are done."""
        import pandas as pd

        rows = [asdict(one) for one in sorted(self._outcomes, key=lambda one: self._order[one.name])]
        table = pd.DataFrame(rows, columns=list(REPORT_COLUMNS))
        write_table(table.astype({"spots": "Int64", "genes": "Int64"}), self._path)
        self._written_at = time.monotonic()


def _say_outcomes(args: argparse.Namespace, outcomes: Sequence[Outcome], seconds: float) -> None:
    number = {status: sum(one.status == status for one in outcomes) for status in (WRITTEN, KEPT, FAILED)}
    report = args.out / REPORT_FILE
    if args.json:
        found: dict[str, Any] = {"out": str(args.out), "report": str(report), **number}
        found |= {"seconds": round(seconds, 1), "slides": [asdict(one) for one in outcomes]}
        say_json(found | {"use": keys.RESEARCH_USE_ONLY})
        return
    kept = f", {whole(number[KEPT])} kept from before" if number[KEPT] else ""
    failed = [one.name for one in outcomes if one.status == FAILED]
    faults = f", {whole(len(failed))} failed ({_some(failed)})" if failed else ""
    say(
        f"Wrote {counted(number[WRITTEN], 'prediction')} in {args.out} in {duration(seconds)}{kept}{faults}; "
        f"{report} says what became of each. {keys.RESEARCH_USE_ONLY}"
    )
