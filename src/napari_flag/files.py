"""Files read within limits, and written under a temporary name in the same folder, then renamed.

A file appears whole or not at all, and an existing one is replaced only by a whole one.  What a file says
(the name of a slide, a section, a region) becomes part of a path only through `place_in`.
"""

import csv
import ctypes
import errno
import gzip
import hashlib
import io
import json
import os
import platform
import re
import secrets
import shutil
import time
import tomllib
import unicodedata
import zlib
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

from napari_flag import keys
from napari_flag.errors import UserError
from napari_flag.formatting import data_size, legible, whole

if TYPE_CHECKING:
    import pandas as pd


_Step = TypeVar("_Step")
LONGEST_NAME: Final = 120
"""Bytes (UTF-8) of a name in a file name: with endings and the mark of an unfinished file it stays below the
255 that file systems take."""
_UNFIT: Final = re.compile(
    r'[\x00-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff<>:"/\\|?*]'
)
"""Separators of paths, what Windows forbids in names, control and direction marks, halves of characters."""
_RESERVED: Final = re.compile(r"(CON|PRN|AUX|NUL|COM[0-9¹²³]|LPT[0-9¹²³])(\.|$)", re.IGNORECASE)
"""Names that mean a device on Windows, whatever their ending."""
ZIPPED: Final = ".gz"
"""What follows the ending of a compressed file."""
_GZIP: Final = b"\x1f\x8b"
"""How a compressed file begins (RFC 1952)."""


def ending(path: str | Path) -> str:
    """Return the ending of a file's name in lower case: ``.tsv``, compressed ``.tsv.gz``; "" without one."""
    path = Path(path)
    last = path.suffix.lower()
    return f"{Path(path.stem).suffix.lower()}{last}" if last == ZIPPED else last


def is_zipped(path: Path) -> bool:
    """Return whether a file is compressed, by its ending."""
    return ending(path).endswith(ZIPPED)


def with_ending(path: Path, wanted: str) -> Path:
    """Return `path` as it is where it has the ending `wanted`, in upper or lower case, else with it added."""
    return path if ending(path) == wanted else path.with_name(f"{path.name}{wanted}")


def files_ending(folder: Path, wanted: str) -> list[Path]:
    """Return what in a folder has the ending `wanted`, by name; none where there is no such folder."""
    return sorted(path for path in folder.glob("*") if ending(path) == wanted)


def place_in(folder: Path, name: str, ending: str = "") -> Path:
    """Return the file in `folder` that is named after `name`, which may have been read from a file.

    Parameters
    ----------
    folder
        Where the file is to be.
    name
        Any text.  What cannot stand in a name on every system becomes ``_``; a name that is changed, or cut
        to `LONGEST_NAME`, ends in a hash of the whole, so that two names stay two.
    ending
        Chosen by the program, such as ``_report.html``.

    Returns
    -------
    A path directly in `folder`, never `folder` itself, above or elsewhere.
    """
    text = unicodedata.normalize("NFC", name)
    fit = _UNFIT.sub("_", text).strip(" ").rstrip(".")
    fit = re.sub(
        r"^\.+", lambda dots: "_" * len(dots[0]), fit
    )  # neither hidden, nor "..", nor a partial file
    fit = f"_{fit}" if _RESERVED.match(fit) else fit or "_"
    if fit != text or len(fit.encode()) > LONGEST_NAME:
        digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:8]
        kept = fit.encode()[: LONGEST_NAME - len(digest) - 1].decode("utf-8", "ignore").rstrip(" .")
        fit = f"{kept}-{digest}"
    return folder / f"{fit}{ending}"


MOST_BYTES: Final = 400_000_000
"""Of a file that is read whole: a dense table of 5,000 spots and 36,000 genes takes 360 MB of text."""


MOST_UNZIPPED: Final = 250
"""Bytes unzipped per byte of a compressed file: counts of which 1 in 100 is above zero give 80."""
SMALL_TEXT: Final = 2**25
"""Bytes up to which a compressed file may hold anything."""


def refuse_missing(path: Path) -> None:
    """Raise a `UserError` where there is nothing at `path`."""
    if not os.path.exists(path):  # unlike pathlib's, also where a folder above may not be read
        raise UserError(f"There is no file or folder {path}; check the path.")


def refuse_special(path: Path) -> None:
    """Raise a `UserError` where `path` is a pipe, a device or a socket: reading it may never end."""
    if path.exists() and not path.is_file() and not path.is_dir():
        raise UserError(
            f"{path} is a pipe or a device and no file, so it is not read; save what it holds as a file."
        )


def refuse_special_in(folder: Path) -> None:
    """Raise a `UserError` where a folder, such as a zarr, holds what reading it may never end of.

    That is a pipe or a device at any depth, or a link to another folder, which may hold them, or to itself.
    """
    waiting = [folder]
    while waiting:
        try:
            with os.scandir(waiting.pop()) as entries:
                held = list(entries)
        except OSError:
            continue  # what cannot be listed is said when it is read
        waiting += [Path(entry.path) for entry in held if _is_folder_in_zarr(entry)]


def _is_folder_in_zarr(entry: "os.DirEntry[str]") -> bool:
    """Return whether what a zarr holds is a folder; raise a `UserError` of a link to one, pipe or device."""
    try:
        if entry.is_dir(follow_symlinks=False):
            return True
        linked, special = entry.is_dir(), not entry.is_file()
    except OSError as error:
        raise UserError(
            f"{entry.path} cannot be looked at ({os.strerror(error.errno or 0).lower()}), so it is not read; "
            "remove it, or put the file itself in its place."
        ) from error
    if linked:
        raise UserError(
            f"{entry.path} is a link to another folder, which a zarr has no use for, so it "
            "is not read; put the folder itself in its place."
        )
    if special:
        refuse_special(Path(entry.path))
    return False


def read_bytes(path: Path, most: int = MOST_BYTES) -> bytes:
    """Return what is in a file, unzipped where its name ends in ``.gz``; never more than `most` bytes.

    Raises
    ------
    UserError
        When it holds more, or more than `MOST_UNZIPPED` of its own bytes can, is no regular file, or is not
        compressed and named so.
    OSError
        When it is missing or damaged: the caller says what it should have been.
    """
    refuse_special(path)
    zipped = is_zipped(path)
    if zipped:
        with path.open("rb") as stream:
            head = stream.read(len(_GZIP))
        if head and head != _GZIP:
            raise UserError(f"{path.name} is not gzip-compressed, as its name says; remove {ZIPPED} from it.")
    believed = max(SMALL_TEXT, MOST_UNZIPPED * path.stat().st_size) if zipped else most
    try:
        with gzip.open(path, "rb") if zipped else path.open("rb") as stream:
            data = stream.read(min(most, believed) + 1)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise OSError(errno.EIO, f"it is cut short or damaged: {error}") from error
    if believed < len(data) <= most:
        raise UserError(
            f"{path.name} takes {data_size(path.stat().st_size)} and holds more than {data_size(believed)} "
            "once unzipped, far more than ordinary text does; if that is right, give it unzipped."
        )
    if len(data) > most:
        unzipped = " once unzipped" if zipped else ""
        raise UserError(
            f"{path.name} holds more than {data_size(most)}{unzipped}, too much to read as one text; save a "
            "table of that size as .h5ad, or leave out what is not needed."
        )
    return data


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of what is in a file, in hex; read piece by piece.

    Raises
    ------
    UserError
        When it is no regular file.
    OSError
        When it cannot be read.
    """
    refuse_special(path)
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


WHOLE_BYTES: Final = 16 * 2**20
"""Files up to this size are hashed whole, so that any program's SHA-256 is the same."""
END_BYTES: Final = 2**20
BLOCK_BYTES: Final = 64 * 2**10
BLOCKS: Final = 62
"""Of a larger file: its first and last `END_BYTES`, and this many blocks spread evenly between."""


def quick_digest(path: Path, blank: int | None = None) -> "hashlib._Hash":
    """Return a digest of what is in a file, quickly whatever its size.

    It is SHA-256: of a file up to `WHOLE_BYTES` the whole of it; of a larger one its size in bytes as decimal
    text, its first and last `END_BYTES`, and `BLOCKS` blocks of `BLOCK_BYTES` between.

    Parameters
    ----------
    path
        The file.
    blank
        Where in it 64 digits count as zeros: those of its own digest (`seal`).

    Raises
    ------
    UserError
        When it is no regular file.
    OSError
        When it cannot be read.
    """
    digest = hashlib.sha256()
    refuse_special(path)
    with path.open("rb") as stream:
        size = os.fstat(stream.fileno()).st_size

        def add(start: int, length: int) -> None:
            stream.seek(start)
            data = stream.read(length)
            if blank is not None and (inside := range(max(blank, start), min(blank + 64, start + len(data)))):
                data = data[: inside.start - start] + b"0" * len(inside) + data[inside.stop - start :]
            digest.update(data)

        if size <= WHOLE_BYTES:
            add(0, WHOLE_BYTES)
            return digest
        digest.update(str(size).encode())
        add(0, END_BYTES)
        between = size - 2 * END_BYTES - BLOCK_BYTES
        for block in range(BLOCKS):
            add(END_BYTES + between * block // (BLOCKS - 1), BLOCK_BYTES)
        add(size - END_BYTES, END_BYTES)
    return digest


# --- what was changed since it was written -------------------------------------------------------
UNSEALED: Final = "0" * 64
"""Stands in a file where `seal` puts the digest of the rest."""
_SEAL: Final = re.compile(rb'content_sha256(?:" content=)?\W{1,4}([0-9a-f]{64})(?![0-9a-f])')
"""The digest as JSON, Markdown, HTML and OME-XML state it."""
ENDS: Final = 65_536
"""Bytes at either end of a file in which its marks are looked for; a PDF names its creator before a list of
its objects."""


def ends_of(path: Path) -> tuple[bytes, bytes]:
    """Return the first and the last `ENDS` bytes of a file."""
    with path.open("rb") as stream:
        head = stream.read(ENDS)
        stream.seek(max(path.stat().st_size - ENDS, 0))
        return head, stream.read(ENDS)


def seal(place: Path, at: int | None = None) -> None:
    """Have a file that is not yet in its place state the digest of the rest, by which a change is seen.

    Parameters
    ----------
    place
        A file in which `UNSEALED` stands; one in which it does not stays as it is.
    at
        Where the digits are; None finds them in a text, at its beginning or its end.
    """
    found, stated = _stated_in(place) if at is None else (at, UNSEALED)
    if found is None or stated != UNSEALED:
        return
    digest = quick_digest(place, found).hexdigest()
    with place.open("rb+") as stream:
        stream.seek(found)
        stream.write(digest.encode())


def is_sealed(path: Path, at: int | None = None) -> bool | None:
    """Return whether a file is as it was when it was sealed; None where it states no digest.

    Parameters
    ----------
    path
        The file.
    at
        As of `seal`.
    """
    found, stated = _stated_in(path) if at is None else (at, None)
    if found is None:
        return None
    if stated is None:
        with path.open("rb") as stream:
            stream.seek(found)
            stated = stream.read(64).decode("ascii", "replace")
    return quick_digest(path, found).hexdigest() == stated


def _stated_in(path: Path) -> tuple[int | None, str]:
    """Return where a text states its digest, and that; None where it does not."""
    head, tail = ends_of(path)
    if (found := _SEAL.search(head)) is not None:
        return found.start(1), found[1].decode()
    if (found := _SEAL.search(tail)) is not None:
        return path.stat().st_size - len(tail) + found.start(1), found[1].decode()
    return None, ""


_DESCRIBING: Final = ("zarr.json", ".zattrs", ".zgroup", ".zmetadata")


def seal_store(place: Path) -> None:
    """Do the same as `seal` with a zarr, or a group of one, whose attributes then state the digest."""
    file = place / ("zarr.json" if (place / "zarr.json").is_file() else ".zattrs")
    described = parse_json(file.read_bytes()) if file.is_file() else {}
    attributes = described.setdefault("attributes", {}) if file.name == "zarr.json" else described
    attributes[keys.CONTENT_HASH] = _digest_of_store(place)
    file.write_text(json.dumps(described, indent=2), encoding="utf-8")


def is_sealed_store(path: Path) -> bool | None:
    """Return whether a zarr, or a group of one, is as it was when it was sealed; None where it was not.

    Asked are the names and sizes of its files, and what is in them but in those of images.
    """
    for name in _DESCRIBING[:2]:
        try:
            described = parse_json(read_text(path / name))
            attributes = described["attributes"] if name == "zarr.json" else described
            return bool(attributes[keys.CONTENT_HASH] == _digest_of_store(path))
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return None


def _digest_of_store(folder: Path) -> str:
    refuse_special_in(folder)
    digest = hashlib.sha256()
    for file in sorted(each for each in folder.rglob("*") if each.is_file()):
        parts = file.relative_to(folder).parts
        if parts[0] in _DESCRIBING:
            continue
        digest.update(f"{parts}:{file.stat().st_size}\n".encode())
        if parts[0] != "images" or parts[-1] in _DESCRIBING:
            digest.update(quick_digest(file).digest())
    return digest.hexdigest()


def read_text(path: Path, most: int = MOST_BYTES) -> str:
    """Return the text in a file, UTF-8 with or without a byte order mark.

    Raises
    ------
    UserError
        As `read_bytes`, or when the text is in another encoding.
    OSError
        As `read_bytes`.
    """
    data = read_bytes(path, most)
    refuse_encoding(path, data)
    return data.decode("utf-8-sig")


def refuse_encoding(path: Path, data: bytes) -> None:
    """Raise a `UserError` where `data` of `path` is no UTF-8 text."""
    try:
        fits = not data.startswith((b"\xff\xfe", b"\xfe\xff")) and bool(data.decode() or True)
    except UnicodeDecodeError:
        fits = False
    if not fits or b"\0" in data:
        raise UserError(
            f"{path.name} is no UTF-8 text (spreadsheets may save Latin-1 or UTF-16); save it "
            'as text again, in a spreadsheet as "CSV UTF-8".'
        )


def read_csv(path: Path, separator: str = ",") -> tuple[tuple[str, ...], list[dict[str, str]]]:
    """Return the columns of a table, and its rows by column.

    Raises
    ------
    UserError
        As `read_text`, or when it is no such table.
    OSError
        As `read_text`.
    """
    reader = csv.DictReader(io.StringIO(read_text(path), newline=""), delimiter=separator)
    try:
        rows = list(reader)
    except csv.Error as error:
        raise UserError(f"{path} cannot be read as a CSV file ({error}); save it as UTF-8 CSV.") from error
    return tuple(reader.fieldnames or ()), rows


MOST_MARKS: Final = 5_000_000
"""Commas and opening brackets of JSON: a million corners of outlines have three million."""


def parse_json(data: str | bytes) -> Any:
    """Return what JSON holds.

    Raises
    ------
    ValueError
        When it is none, is nested deeper than Python can follow, has more than `MOST_MARKS` parts, holds a
        number too long to read, or states a name twice in one place, of which Python takes the last.
    """
    if isinstance(data, bytes):
        parts = sum(map(data.count, (b"[", b"{", b",")))
    else:
        parts = sum(map(data.count, ("[", "{", ",")))
    if parts > MOST_MARKS:
        raise ValueError(f"it has {whole(parts)} parts, where up to {whole(MOST_MARKS)} are read")
    try:
        return json.loads(data, object_pairs_hook=_each_once)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return an object of JSON; a `ValueError` names what it states twice."""
    found = dict(pairs)
    if len(found) < len(pairs):
        (name, _), *_ = Counter(name for name, _ in pairs).most_common(1)
        raise ValueError(f'it states "{legible(name[:_SHOWN])}" twice in one place')
    return found


_SHOWN: Final = 80
"""Letters of a text in a file that a message quotes."""


def parse_toml(data: str) -> dict[str, Any]:
    """Return what TOML holds.

    Raises
    ------
    ValueError
        When it is none, is nested deeper than Python can follow, or a text in it holds a zero byte,
        with which Python ends whatever asks for a file of that name.
    """
    try:
        values = tomllib.loads(data)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    waiting: list[Any] = [values]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            waiting += [*value, *value.values()]
        elif isinstance(value, list):
            waiting += value
        elif isinstance(value, str) and "\0" in value:
            shown = value.replace("\0", r"\u0000")[:_SHOWN]
            raise ValueError(f'"{shown}" holds a zero byte, which is in no name and no path')
    return values


def make_folder(folder: Path) -> None:
    """Make `folder`, and those it is to be in, where they are not there yet.

    Raises
    ------
    UserError
        When it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"The folder {folder} cannot be made ({error.strerror}); choose another place."
        ) from error


def check_writable(path: Path, *, folder_is_made: bool = False) -> None:
    """Raise a `UserError` now if `path` could not be written later; leaves nothing behind.

    Parameters
    ----------
    path
        The file to be.
    folder_is_made
        A folder that is missing will be made (`make_folder`), so only whether it can be is asked.
    """
    folder = path.parent
    if path.is_dir():
        raise UserError(f"{path} is a folder, so nothing can be written there; give a file name.")
    if folder_is_made:
        folder = next(above for above in (folder, *folder.parents) if os.path.lexists(above))
        if not folder.is_dir():
            raise UserError(f"{folder} is a file, so no folder can be made in it; choose another place.")
    if not folder.is_dir():
        raise UserError(
            f"The folder {folder} does not exist, so {path.name} cannot be written there; create "
            "it or choose another."
        )
    place = _unfinished(folder / path.name)
    try:
        place.write_bytes(b"")
    except OSError as error:
        raise unwritable(path, error) from error
    finally:
        _delete(place)


_FORMULA: Final = ("=", "+", "-", "@")
"""How a cell begins that a spreadsheet takes for a formula, and runs."""


def safe_cell(value: Any) -> Any:
    """Return a cell of a CSV; text that a spreadsheet would run as a formula gets an apostrophe before it.

    Ends of lines and other characters that act and are not seen become a sign (`legible`): to some programs a
    return alone begins another row, with a formula of its own.  Numbers stay numbers, also as text ("-1.5").
    """
    if not isinstance(value, str):
        return value
    text = legible(value)
    return f"'{text}" if _is_formula(text) else text


def raw_cell(text: str) -> str:
    """Return what `safe_cell` was given, but for the signs in it, for readers of our own tables."""
    return text[1:] if text.startswith("'") and _is_formula(text[1:]) else text


def _is_formula(text: str) -> bool:
    if not text.startswith(_FORMULA):
        return False
    try:
        float(text)
    except ValueError:
        return True
    return False


def write_table(table: "pd.DataFrame", path: Path) -> None:
    """Write a table as CSV: UTF-8, dot as decimal point, empty where there is no value, no formulas."""
    check_writable(path)
    safe = _safe(table)
    write_whole(path, lambda place: safe.to_csv(place, **_AS_CSV))


def table_digest(table: "pd.DataFrame") -> str:
    """Return the SHA-256 of the file that `write_table` writes."""
    return hashlib.sha256(_safe(table).to_csv(**_AS_CSV).encode()).hexdigest()


_AS_CSV: Final[Any] = {"index": False, "float_format": "%.6g"}


def _safe(table: "pd.DataFrame") -> "pd.DataFrame":
    safe = table.rename(columns=safe_cell)
    for place, kind in enumerate(table.dtypes):
        if getattr(kind, "kind", "O") not in "biufc":
            safe.isetitem(place, table.iloc[:, place].map(safe_cell))
    return safe


def write_json(values: Mapping[str, Any], path: Path) -> None:
    """Write JSON that any program reads (numbers that are unknown are null).

    Results, which state the hash of their command, state that of their content too (`seal`).
    """
    sealed = {keys.CONTENT_HASH: UNSEALED} if keys.COMMAND_HASH in values else {}
    text = json.dumps({**values, **sealed}, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    write_text(text, path)


def write_text(text: str, path: Path) -> None:
    """Write text as UTF-8, sealed where it has a place for that (`seal`)."""
    check_writable(path)

    def write(place: Path) -> None:
        place.write_text(text, encoding="utf-8")
        seal(place)

    write_whole(path, write)


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Call `write` with the place that `replacing` gives.

    Raises
    ------
    UserError
        When the place cannot be written or the disk is full.
    """
    with replacing(path) as place:
        write(place)


def write_whole_in_steps(
    path: Path, write: Callable[[Path], Generator[_Step, None, None]]
) -> Generator[_Step, None, None]:
    """Do the same as `write_whole` with long work; cancelled, it leaves nothing behind.

    Raises
    ------
    UserError
        When the place cannot be written or the disk is full.
    """
    with replacing(path) as place:
        yield from write(place)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a place beside `path` for a file or a folder, which then takes the place of `path` in one step.

    On failure nothing is left behind and what was at `path` is still there.  What a killed run left in this
    folder is deleted first.

    Raises
    ------
    UserError
        When the place cannot be written, the disk or the quota is full, or the drive is gone.
    """
    with unfinished(path) as place:
        yield place
        put(place, path)


@contextmanager
def unfinished(path: Path) -> Iterator[Path]:
    """Give a place beside `path` that is deleted at the end, unless it was `put` elsewhere.

    Raises
    ------
    UserError
        As `replacing`.
    """
    sweep(path.parent)
    place = _unfinished(path)
    try:
        yield place
    except UserError:
        raise
    except Exception as error:
        if (number := system_error(error)) is None:
            raise
        raise unwritable(path, OSError(number, os.strerror(number)) if number else error) from error
    finally:
        _delete(place)


_MARK: Final = re.compile(
    r"\.(?P<name>.+)\.(?P<host>[0-9a-f]{8})-(?P<pid>\d+)-[0-9a-f]{8}\.(?P<what>part|before)", re.DOTALL
)
"""A file or folder not finished, and whose it is; ``before`` is what was there, where the two could not be
exchanged in one step."""
_ABANDONED_S: Final = 7 * 24 * 3600.0
"""Age at which the unfinished files of another computer, on a shared drive, are nobody's."""
_OURS: Final[set[str]] = set()
"""Names of what this process is writing."""


def _unfinished(path: Path, what: str = "part") -> Path:
    host = zlib.crc32(platform.node().encode())
    name = f".{path.name}.{host:08x}-{os.getpid()}-{secrets.token_hex(4)}.{what}"
    _OURS.add(name)
    return path.with_name(name)


def sweep(folder: Path) -> None:
    """Delete what killed runs left unfinished in `folder`; what another process is writing stays."""
    with suppress(OSError):
        for place, found in _marked(folder):
            if _in_use(place, found):
                continue
            former = folder / found["name"]
            if found["what"] == "before" and not former.exists():
                os.replace(place, former)  # killed between two renames
            else:
                _delete(place)


def claim(folder: Path) -> Callable[[], None]:
    """Mark `folder` as one that this process uses; return what ends that, as the end of the process does.

    A folder that cannot be written is not marked.
    """
    mark = _unfinished(folder / "in_use")
    with suppress(OSError):
        mark.touch()
    return lambda: _delete(mark)


def is_claimed(folder: Path) -> bool:
    """Return whether a process that still runs uses `folder`, or is writing a file in it."""
    with suppress(OSError):
        return any(_in_use(place, found) for place, found in _marked(folder))
    return False


def _marked(folder: Path) -> list[tuple[Path, re.Match[str]]]:
    """Return what is marked in `folder` as some process', with what the mark says."""
    with os.scandir(folder) as entries:
        return [(folder / each.name, found) for each in entries if (found := _MARK.fullmatch(each.name))]


def _in_use(place: Path, mark: re.Match[str]) -> bool:
    import psutil

    if int(mark["host"], 16) != zlib.crc32(platform.node().encode()):
        return time.time() - place.lstat().st_mtime < _ABANDONED_S
    process = int(mark["pid"])
    return place.name in _OURS if process == os.getpid() else psutil.pid_exists(process)


def _delete(place: Path) -> None:
    """Delete a file or folder if it is there; where that is impossible, the next run sweeps it."""
    with suppress(OSError):
        if place.is_dir() and not place.is_symlink():
            shutil.rmtree(place, ignore_errors=True)
        else:
            place.unlink(missing_ok=True)
    _OURS.discard(place.name)


def _flush(place: Path) -> None:
    """Have a file on the disk before it replaces another; network drives and quotas refuse only here."""
    if place.is_file():
        with place.open("rb+") as stream:
            os.fsync(stream.fileno())


def put(place: Path, path: Path) -> None:
    """Move `place` to `path` on the same disk; a folder that is there is kept until the new one stands."""
    _flush(place)
    if not path.is_dir() or path.is_symlink():
        os.replace(place, path)
    elif not _exchange(place, path):
        before = _unfinished(path, "before")
        os.replace(path, before)
        try:
            os.replace(place, path)
        except OSError:
            os.replace(before, path)
            raise
        finally:
            _delete(before)


def _exchange(one: Path, other: Path) -> bool:
    """Exchange two folders in one step; False where the system or the file system cannot."""
    names = os.fsencode(one), os.fsencode(other)
    try:
        system = ctypes.CDLL(None)
        if platform.system() == "Linux":
            return bool(system.renameat2(_HERE, names[0], _HERE, names[1], _SWAP) == 0)
        if platform.system() == "Darwin":
            return bool(system.renamex_np(*names, _SWAP) == 0)
    except (AttributeError, OSError, TypeError):  # an older system
        pass
    return False


_HERE: Final = -100
"""``AT_FDCWD`` of Linux."""
_SWAP: Final = 2
"""``RENAME_EXCHANGE`` of Linux, ``RENAME_SWAP`` of macOS."""


_OF_DRIVES: Final = frozenset(
    number
    for name in ("ENOSPC", "EDQUOT", "EFBIG", "EROFS", "EACCES", "EPERM", "EIO", "ESTALE", "ENODEV", "ENXIO",
                 "ENOTCONN", "EHOSTDOWN", "EHOSTUNREACH", "ETIMEDOUT", "ENOENT", "EREMOTEIO", "EMFILE",
                 "ENFILE", "ENAMETOOLONG")
    if (number := getattr(errno, name, None)) is not None
)  # fmt: skip
"""What the system says where a drive is full, read-only or gone, or a file is: nothing that we can mend."""


def of_drive(error: BaseException) -> UserError | None:
    """Return the sentence on a drive or a file that failed within a run; None where it is a fault of ours."""
    number = system_error(error)
    if not number or number not in _OF_DRIVES:
        return None
    name = getattr(error, "filename", None)
    place = f"The file {name}" if name else "A file"
    return UserError(
        f"{place} cannot be read or written any more ({os.strerror(number).lower()}); check that it is still "
        "there, and that its drive is connected, has room and may be used, then run this again."
    )


def system_error(error: BaseException) -> int | None:
    """Return the number of the system's error that `error` states, 0 without a number, None of others.

    Libraries that write with code of their own (HDF5, safetensors) state it in the text; PyTorch states only
    that less was written than it gave.
    """
    if isinstance(error, OSError) and error.errno:
        return error.errno
    stated = re.search(r"errno = (\d+)|os error (\d+)", str(error))
    if stated:
        return int(stated[1] or stated[2])
    return 0 if isinstance(error, OSError) or _CUT_SHORT.search(str(error)) else None


_CUT_SHORT: Final = re.compile(r"requested and \d+ written|unexpected pos \d+ vs \d+|iostream error")
"""What NumPy and PyTorch say when a drive took only a part of a file."""


class Unwritable(UserError):
    """A place cannot be written; nothing that was there is lost."""


def unwritable(path: Path, error: Exception) -> Unwritable:
    """Return the sentence on a place that cannot be written."""
    number = error.errno if isinstance(error, OSError) else None
    reason = os.strerror(number).lower() if number else str(error)
    if _CUT_SHORT.search(reason):
        reason = "only a part of it could be written"
    return Unwritable(
        f"{path} cannot be written ({reason}); choose another place, or make room or get permission there."
    )
