"""Terminal output: results on stdout, progress and notices on stderr."""

import argparse
import hashlib
import io
import json
import math
import os
import shlex
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, NoReturn, TextIO, TypeAlias, TypeVar

from napari_flag.errors import UserError
from napari_flag.files import ending, make_folder, of_drive, utf8
from napari_flag.formatting import LINE_ENDS, first_of, legible
from napari_flag.progress import Step, Steps, TimeLeft, describe_step, finish
from napari_flag.slides.file_identity import content_hash, name_of

if TYPE_CHECKING:
    from anndata import AnnData


T = TypeVar("T")

MOST_NAMED: Final = 8
"""Files, or slides, named in a sentence."""
REDRAW_S: Final = 0.1
_LAST_STREAM: Final = 2
"""Number of stderr for the system; stdin is 0."""
_LEAST: Final = 1e-12
"""Numbers that options take lie between this and its inverse, so that no square of them runs over."""
LINE_EVERY_S: Final = 15.0
"""Seconds between lines of the same stage where the output is no terminal (a log file)."""


class ProgressLine:
    """A progress line, rewritten in place; a context manager that clears it.

    Where `stream` is no terminal, plain lines: one per stage, and one each `LINE_EVERY_S`.

    Parameters
    ----------
    stream
        Where to write; stderr.
    clock
        Seconds, monotonic.
    """

    def __init__(self, stream: TextIO | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream = sys.stderr if stream is None else stream
        self._live = self._stream.isatty()
        self._clock = clock
        self._left = TimeLeft(clock=clock)
        self._stage = ""
        self._written_at = -float("inf")
        self._drawn = False
        self._written: set[str] = set()

    def __call__(self, step: Step) -> None:
        """Show `step`."""
        left = self._left.update(step)
        if step.notice:
            self.notice(step.notice)
        now = self._clock()
        new_stage = step.stage != self._stage
        pause = REDRAW_S if self._live else LINE_EVERY_S
        if not new_stage and now - self._written_at < pause:
            return
        self._stage, self._written_at = step.stage, now
        self._draw(describe_step(step, left))

    def notice(self, sentence: str) -> None:
        """Write a notice on a line of its own, once however often it is repeated."""
        if sentence not in self._written:
            self._written.add(sentence)
            self._clean()
            self._stream.write(f"Note: {printed(sentence)}\n")
            self._stream.flush()

    @property
    def seconds(self) -> dict[str, float]:
        """Seconds spent in each stage."""
        return dict(self._left.seconds)

    def __enter__(self) -> "ProgressLine":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._clean()

    def _draw(self, text: str) -> None:
        text = printed(text)
        if self._live:
            width = shutil.get_terminal_size().columns - 1
            self._stream.write(f"\r\x1b[K{text[:width]}")
            self._drawn = True
        else:
            self._stream.write(f"{text}\n")
        self._stream.flush()

    def _clean(self) -> None:
        if self._drawn:
            self._stream.write("\r\x1b[K")
            self._stream.flush()
            self._drawn = False


def sentence_of(error: BaseException) -> str:
    """Return what to say of an error: its own sentence where the user can put it right."""
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, MemoryError):
        return (
            "This computer ran out of memory; predict a part of the slide with --region, or close "
            "other programs."
        )
    if (of_a_drive := of_drive(error)) is not None:
        return str(of_a_drive)
    what = f"{type(error).__name__}: {error}".splitlines()[0].rstrip(": .")
    return (
        f"Something went wrong inside napari-flag ({what}); please run the command again with "
        "--debug and report what it prints to the makers of napari-flag."
    )


@contextmanager
def cancelled_as(sentence: Callable[[], str]) -> Iterator[None]:
    """Say `sentence` where the command is cancelled within: what is there, and how it goes on."""
    try:
        yield
    except KeyboardInterrupt as stop:
        raise KeyboardInterrupt(sentence()) from stop


def with_written(written: Sequence[Path]) -> str:
    """Return what to say where a command that writes several files is cancelled: those that are there."""
    if not written:
        return "cancelled, nothing was written"
    names = first_of([path.name for path in written], MOST_NAMED)
    return (
        f"cancelled with {names} written in {written[0].parent}; the same command with --overwrite writes "
        "all of it"
    )


def kept_in(folder: Path) -> str:
    """Return what to say where a command that goes on from what it keeps in `folder` is cancelled."""
    return f"cancelled; what is finished is kept in {folder}, and the same command goes on from there"


def watch(work: Steps[T]) -> T:
    """Run `work` to its end under a line of progress, and return its result."""
    with ProgressLine() as line:
        return finish(work, line)


def say(text: str = "") -> None:
    """Write a line of the result to stdout."""
    sys.stdout.write(f"{printed(text)}\n")


def printed(text: str) -> str:
    """Return a text as it may go to a terminal, which would carry out what is in the name of a file."""
    return legible(text, keep=LINE_ENDS)


def say_json(value: Mapping[str, Any] | Sequence[Any]) -> None:
    """Write a result as JSON to stdout."""
    text = json.dumps(value, indent=2, ensure_ascii=not _shows_all(sys.stdout), allow_nan=False)
    if printed(text) != text:
        text = "".join(each if printed(each) == each else f"\\u{ord(each):04x}" for each in text)
    sys.stdout.write(f"{text}\n")


def take_all_text() -> None:
    """Have stdout and stderr take any character, and nothing where they are closed; likewise stdin.

    What the encoding of a terminal lacks is written as an escape: a result that is there already must not end
    in an error.  Numbers of closed streams are taken, so that no file is opened under them, which libraries
    would then print into.
    """
    closed = [name for name in ("stdin", "stdout", "stderr") if getattr(sys, name) is None]
    if closed:
        while (number := os.open(os.devnull, os.O_RDWR)) <= _LAST_STREAM:
            pass
        os.close(number)
    for name in closed:
        number = os.open(os.devnull, os.O_RDWR)
        setattr(sys, name, os.fdopen(number, "r" if name == "stdin" else "w", encoding="utf-8"))
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a notebook's is another
            stream.reconfigure(errors="backslashreplace")


def _shows_all(stream: TextIO) -> bool:
    """Return whether `stream` takes all characters as they are."""
    return (stream.encoding or "utf-8").casefold().replace("-", "").startswith("utf")


def say_columns(rows: Sequence[Sequence[str]], indent: str = "") -> None:
    """Write rows of text in aligned columns, the last one ragged."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))] if rows else []
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        say(indent + "  ".join(cells).rstrip())


Commands: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


class Parser(argparse.ArgumentParser):
    """A parser that itself refuses what it does not know, with its own usage.

    argparse leaves that to the parser at the top, whose usage names no argument of the command.
    """

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> tuple[Any, list[str]]:
        """Parse `args`; what is not known among them is an error here, so that none is left."""
        self._typed = list(args or ())
        found, unknown = super().parse_known_args(args, namespace)
        if unknown:
            known = get_close_matches(unknown[0].partition("=")[0], self._option_string_actions, 1)
            meant = f" (did you mean {known[0]}?)" if known else ""
            self.error(f"{shlex.join(unknown)} is not known here{meant}; `{self.prog} --help` lists what is")
        return found, unknown

    def error(self, message: str) -> NoReturn:
        """Print usage and `message`, and end; say so where an option has taken the word that is missing."""
        greedy = [
            option
            for action in self._actions
            for option in action.option_strings
            if action.nargs == "+" and option in self._typed
        ]
        if "required" in message and greedy:
            message += f"; {greedy[-1]} takes every word that follows it, so give what is missing before it"
        super().error(message)


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


def add_overwrite(parser: argparse.ArgumentParser, what: str) -> None:
    """Add ``--overwrite``; `what` is replaced."""
    parser.add_argument(
        "--overwrite",
        action="store_true",
        help=f"replace {what}, where napari-flag wrote what is there; without this, only an earlier result "
        "of the very same command on the same files is replaced",
    )


LISTS: Final = (".txt", ".csv", ".tsv")
"""Endings by which a word is the name of a file and no gene, also where there is no such file."""


class _Genes(argparse.Action):
    """Genes by their names, or a `Path` where the one word given names a file."""

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, option: Any = None
    ) -> None:
        genes: tuple[str, ...] | Path = tuple(values)
        if len(values) == 1:
            try:
                file = path(values[0])
            except argparse.ArgumentTypeError as error:
                raise argparse.ArgumentError(self, str(error)) from error
            there = file.exists() and not file.is_dir()
            if there or ending(file) in LISTS or len(file.parts) > 1:
                genes = file
        setattr(namespace, self.dest, genes)


def add_genes(group: Any, default: str, what: str = "keep only these genes: symbols or aliases") -> None:
    """Add ``--genes``, whose value is a tuple of names or the `Path` of a list of them; None not given."""
    group.add_argument(
        "--genes",
        nargs="+",
        action=_Genes,
        metavar="GENE",
        help=f"{what}, or one text file with one a line (default: {default})",
    )


def add_device(group: Any, what: str = "") -> None:
    """Add ``--device``; `what` says what is computed on it where that is not all."""
    group.add_argument(
        "--device",
        default="auto",
        help=f"{what}auto, cpu, cuda, cuda:1 or mps (default: auto, the fastest there is)",
    )


def add_keep_names(parser: "argparse.ArgumentParser") -> None:
    """Add ``--keep-names``."""
    parser.add_argument(
        "--keep-names",
        action="store_true",
        help="keep names of files that look like a patient's (a date, a record number, first and last name); "
        "without this, results call them anonymous-…, after the hash of their content",
    )


def path(text: str) -> Path:
    """Read a path that this system can have; ``~`` is the home folder."""
    try:
        found = Path(text).expanduser()
        os.fsencode(found)
        if "\0" in text:
            raise ValueError("a zero byte is in no name")
        found.exists()
    except (OSError, ValueError, RuntimeError) as error:  # too long a name, a loop of links, no such user
        reason = getattr(error, "strerror", None) or str(error)
        raise argparse.ArgumentTypeError(f"{text[:60]!r} is no path here ({reason.lower()})") from error
    return found


def positive(text: str) -> float:
    """Read a number above 0, with a decimal point or comma."""
    value = _number(text)
    if value is None or not (math.isfinite(value) and value > 0):
        raise argparse.ArgumentTypeError(f"{text[:60]!r} is not a number above 0, such as 0.5")
    if not _LEAST <= value <= 1 / _LEAST:
        raise argparse.ArgumentTypeError(f"{text[:60]!r} is a number that nothing here can have")
    return value


def _number(text: str) -> float | None:
    try:
        return float(text.replace(",", "."))
    except ValueError:
        return None


def positive_or_path(text: str) -> float | Path:
    """Read a number above 0, as `positive`; what is no number at all is a path."""
    return path(text) if _number(text) is None else positive(text)


def at_least(least: int, most: int | None = None) -> Callable[[str], int]:
    """Return a type for whole numbers from `least` on, up to `most` where that is given."""
    end = "on" if most is None else f"to {most}"

    def whole(text: str) -> int:
        if not text.isdecimal() or int(text) < least or (most is not None and int(text) > most):
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from {least} {end}")
        return int(text)

    return whole


Words: TypeAlias = Sequence[str | Path]
"""Words of a command line; files are paths."""


def recorded(words: Words, keep_names: bool = False) -> str:
    """Return a command line as results record it: files by their names (`file_identity.name_of`)."""
    return shlex.join(word if isinstance(word, str) else name_of(word, keep_names) for word in words)


def fingerprint(words: Words) -> str:
    """Return the SHA-256 of a command line: the same for the same command on the same files alone.

    Files count with their whole path and their content (`file_identity.content_hash`); folders with their
    path alone, since results may lie in them.
    """
    digest = hashlib.sha256()
    for word in words:
        digest.update(utf8(f"{word if isinstance(word, str) else word.resolve()}\0"))
        if isinstance(word, Path) and word.is_file():
            digest.update(f"{content_hash(word)}\0".encode())
    return digest.hexdigest()


def write_or_rescue(adata: "AnnData", path: Path) -> None:
    """Write a prediction, its folder made if needed; if that fails, keep it in the temporary folder."""
    from napari_flag.prediction_file import write_prediction

    try:
        make_folder(path.parent)
        write_prediction(adata, path)
    except UserError as error:
        folder = Path(tempfile.mkdtemp(prefix="napari-flag-"))
        rescued = folder / path.name
        try:
            write_prediction(adata, rescued)
        except UserError:
            folder.rmdir()
            raise error from None
        raise UserError(
            f"{str(error).split(';')[0]}, so the prediction was kept as {rescued}; move it to "
            "where you want it."
        ) from error
