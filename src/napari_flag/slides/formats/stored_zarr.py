"""Zarrs, checked before zarr opens them: how their values were coded, and what their chunks unpack to.

zarr decodes each chunk with whatever codecs the metadata names, the one that unpickles among them, and to
whatever size the chunk itself states.  Whatever reads a zarr asks `refuse_unsafe` first, and `refuse_bombs`
before values are read.
"""

import math
import os
import re
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np

from napari_flag.errors import UserError
from napari_flag.files import parse_json, read_text, refuse_special, refuse_special_in
from napari_flag.formatting import data_size, first_of, whole

CODECS: Final = frozenset(
    {"bytes", "transpose", "vlen-utf8", "vlen-bytes", "sharding_indexed", "zstd", "gzip", "blosc", "crc32c"}
)
"""Codecs of zarr 3 that zarr, anndata, SpatialData and writers of OME-Zarr use; none runs code of a file."""
COMPRESSORS: Final = frozenset({"blosc", "zstd", "gzip", "zlib", "lz4"})
"""Compressors of zarr 2 that they use, as numcodecs calls them."""
FILTERS: Final = frozenset({"vlen-utf8", "vlen-bytes"})
"""Filters of zarr 2 that they use."""
UNPACKS: Final = frozenset({"zstd", "gzip", "blosc"})
"""Codecs of zarr 3 whose output may be far larger than their input."""
MOST_CHUNKS: Final = 2**22
"""Chunks of one array: an image of 800,000 pixels a side in tiles of 512 has 2.4 million."""
MOST_TEXT: Final = 2**28
"""Bytes of texts in one chunk, whose size is stated nowhere else; the ids of 11 million bins take 220 MB."""
MOST_IN_FILE: Final = 2 * 2**31
"""Bytes of one file of chunks that are looked at; a chunk of blosc may have 2 GB."""
DEFLATES: Final = 1032
"""Bytes that deflate can pack in one."""
_PIECE: Final = 2**20
_KEY: Final = re.compile(r"c|(c[./])?\d+([./]\d+)*")
"""Where the chunks of an array lie below it, by both versions of zarr."""
_SMALL: Final = 2**20
"""Bytes by which a chunk may be larger than it is stated to be, for checksums and what small ones take."""


def refuse_unsafe(folder: Path) -> None:
    """Refuse a zarr, or a part of one, that holds what must not be read; only its metadata are read.

    Parameters
    ----------
    folder
        The zarr, or the folder of a group or an array in it.

    Raises
    ------
    UserError
        When something in it is a pipe or a device, or a link to a folder; when an array names a codec
        that is not in `CODECS`, `COMPRESSORS` and `FILTERS`, or states more chunks than a slide can have.
    """
    refuse_special_in(folder)
    for parent, _, names in os.walk(folder):
        for name in names:
            if name.casefold() in ("zarr.json", ".zarray", ".zmetadata"):
                path = Path(parent, name)
                try:
                    _refuse_nodes(_parsed(path), name.casefold())
                except (ValueError, TypeError, AttributeError) as error:
                    raise UserError(
                        f"{path} could not be read as part of a zarr ({error}), so it is damaged or of an "
                        "unknown kind; write the zarr again with current spatialdata or anndata."
                    ) from error


def _parsed(path: Path) -> Any:
    try:
        return parse_json(read_text(path))
    except OSError as error:
        raise ValueError(str(error)) from error


def _refuse_nodes(stated: Any, name: str) -> None:
    """Check what one file of metadata states: a node, or all nodes below a group at once."""
    if not isinstance(stated, Mapping):
        raise ValueError("it holds no metadata")
    if name == ".zmetadata":
        for key, node in dict(stated.get("metadata") or {}).items():
            if str(key).rpartition("/")[2] == ".zarray":
                _refuse_v2(node)
    elif name == ".zarray":
        _refuse_v2(stated)
    else:
        _refuse_v3(stated)


def _refuse_v3(node: Mapping[str, Any]) -> None:
    for inner in dict((node.get("consolidated_metadata") or {}).get("metadata") or {}).values():
        # a group of zarr 3 may hold the metadata of arrays of zarr 2
        _refuse_v2(inner) if inner.get("zarr_format") == 2 else _refuse_v3(inner)
    if node.get("node_type") == "group" or "codecs" not in node:
        return
    _refuse_codecs(node["codecs"])
    chunks = (node.get("chunk_grid") or {}).get("configuration", {}).get("chunk_shape")
    _refuse_many(node.get("shape"), chunks)


def _refuse_codecs(codecs: Any, in_shard: bool = False) -> None:
    names = [codec if isinstance(codec, str) else str(codec.get("name")) for codec in codecs]
    if strange := [name for name in names if name not in CODECS]:
        raise _strange(strange)
    if sum(name in UNPACKS for name in names) > 1:
        raise ValueError("it is compressed more than once")
    for codec in codecs:
        if isinstance(codec, Mapping) and codec.get("name") == "sharding_indexed":
            inner = codec.get("configuration") or {}
            if in_shard or len(names) > 1:
                raise ValueError("it has shards in shards, or shards that are coded")
            _refuse_codecs(inner.get("codecs", ()), in_shard=True)
            index = list(inner.get("index_codecs", ()))
            named = [part.get("name") for part in index]
            if named not in (["bytes"], ["bytes", "crc32c"]) or "big" in str(index[0]):
                raise ValueError("its shards have an index that is coded")


def _refuse_v2(node: Mapping[str, Any]) -> None:
    compressor, filters = node.get("compressor"), node.get("filters") or ()
    named = [] if compressor is None else [str(compressor.get("id"))]
    strange = [name for name in named if name not in COMPRESSORS]
    filtered = [str(part.get("id")) for part in filters]
    strange += [name for name in filtered if name not in FILTERS]
    if strange:
        raise _strange(strange)
    if len(filtered) > 1:
        raise ValueError("its texts are coded more than once")
    _refuse_many(node.get("shape"), node.get("chunks"))


def _refuse_many(shape: Any, chunks: Any) -> None:
    """Check how many chunks an array states: lists of them are made before any is looked for."""
    if not isinstance(shape, list) or not isinstance(chunks, list) or len(shape) != len(chunks):
        raise ValueError("it states no shape, or one without chunks")
    numbers = [*shape, *chunks]
    if any(type(n) is not int for n in numbers) or min(shape, default=0) < 0 or min(chunks, default=1) < 1:
        raise ValueError("it states a shape that is none")
    counts = [-(-side // step) for side, step in zip(shape, chunks, strict=True)]
    most = max(math.prod(counts), max(counts, default=1))
    if most > MOST_CHUNKS:
        raise ValueError(f"it states {whole(most)} chunks, where up to {whole(MOST_CHUNKS)} are read")


def _strange(names: list[str]) -> ValueError:
    return ValueError(f"it names the codec {first_of(names, 1)}, which is not used for slides and tables")


# --- what chunks unpack to -----------------------------------------------------------------------


def refuse_bombs(array: Any, chunks: "Iterator[tuple[int, ...]] | None" = None) -> None:
    """Check what chunks of an array unpack to, by their headers or by unpacking them piece by piece.

    Parameters
    ----------
    array
        A `zarr.Array` in a folder.
    chunks
        Places of the chunks, or with shards of these, that are to be read; None takes all.

    Raises
    ------
    ValueError
        When one unpacks to more than the array states of it.
    """
    root = getattr(array.store, "root", None)
    if root is None:
        return
    folder = Path(root) / array.path
    most = _bytes_of_chunk(array)
    for path in _chunk_files(folder, array, chunks):
        for piece in _pieces(path, array, most):
            _refuse_piece(piece, array, most, path.relative_to(folder).as_posix())


def _bytes_of_chunk(array: Any) -> int:
    size = getattr(array.dtype, "itemsize", 0)
    kind = getattr(array.dtype, "kind", "T")
    if kind in "OT" or not size:
        return MOST_TEXT
    return int(np.prod([float(side) for side in array.chunks])) * int(size) + _SMALL


def _chunk_files(folder: Path, array: Any, chunks: "Iterator[tuple[int, ...]] | None") -> Iterator[Path]:
    if chunks is not None:
        places = (folder / array.metadata.encode_chunk_key(place) for place in chunks)
        yield from (place for place in places if place.exists())
        return
    for parent, _, names in os.walk(folder):
        for name in names:
            path = Path(parent, name)
            if _KEY.fullmatch(path.relative_to(folder).as_posix()):
                yield path


def _pieces(path: Path, array: Any, most: int) -> Iterator[bytes]:
    """Yield the chunks that a file holds, packed: itself, or those of a shard."""
    size = path.stat().st_size
    inside = getattr(array, "shards", None)
    if size > (MOST_IN_FILE if inside else most):
        raise ValueError(f"{path.name} has {data_size(size)}, where chunks of {data_size(most)} are stated")
    refuse_special(path)
    if not array.compressors:
        return
    with path.open("rb") as stream:
        if not inside:
            yield stream.read()
            return
        coded = array.metadata.codecs[0]
        count = int(np.prod([a // b for a, b in zip(array.shards, array.chunks, strict=True)]))
        length = 16 * count + 4 * (len(coded.index_codecs) - 1)
        if size < length:
            raise ValueError(f"{path.name} is too short for the index of a shard")
        stream.seek(0 if str(getattr(coded.index_location, "value", "")) == "start" else size - length)
        index = np.frombuffer(stream.read(16 * count), "<u8").reshape(count, 2)
        for begin, held in index[(index != 2**64 - 1).any(axis=1)].tolist():
            if begin + held > size or held > most:
                raise ValueError(f"{path.name} is a shard whose chunks lie outside it")
            stream.seek(begin)
            yield stream.read(held)


def _refuse_piece(piece: bytes, array: Any, most: int, name: str) -> None:
    for codec in array.compressors:
        kind = str(getattr(codec, "codec_id", type(codec).__name__)).casefold().removesuffix("codec")
        if not _fits(piece, kind, most):
            raise ValueError(
                f"its chunk {name} unpacks to more than the {data_size(most)} that are stated of it"
            )


def _fits(piece: bytes, kind: str, most: int) -> bool:
    """Return whether a packed chunk unpacks to at most `most` bytes; damage is left to the codec."""
    if kind == "blosc":
        stated, packed = (int.from_bytes(piece[at : at + 4], "little") for at in (4, 12))
        return stated <= most and packed <= len(piece)
    if kind == "lz4":
        return int.from_bytes(piece[:4], "little") <= most
    if kind == "zstd":
        return _zstd_fits(piece, most)
    if kind in ("gzip", "zlib"):
        return len(piece) * DEFLATES <= most or _deflate_fits(piece, most)
    return True


def _zstd_fits(piece: bytes, most: int) -> bool:
    import imagecodecs

    # of a single frame the header states all; others are unpacked into a place of that size
    stated = _zstd_stated(piece)
    if stated is not None:
        return stated <= most
    try:
        imagecodecs.zstd_decode(piece, out=most)
    except RuntimeError as error:
        return "too small" not in str(error)
    return True


def _zstd_stated(piece: bytes) -> int | None:
    """Return the size that a frame of zstd states; None without one, or with more than one frame."""
    if piece[:4] != b"\x28\xb5\x2f\xfd" or len(piece) < 6:
        return None
    flags = piece[4]
    single, wide = flags >> 5 & 1, (0, 2, 4, 8)[flags >> 6]
    at = 5 + (not single) + (0, 1, 2, 4)[flags & 3]
    wide = wide or single
    if not wide:
        return None
    stated = int.from_bytes(piece[at : at + wide], "little") + (256 if wide == 2 else 0)
    at, last = at + wide, False
    while not last:
        head = int.from_bytes(piece[at : at + 3], "little")
        if at + 3 > len(piece):
            return None
        last, kind, size = bool(head & 1), head >> 1 & 3, head >> 3
        at += 3 + (1 if kind == 1 else size)
    return stated if at + (4 if flags & 4 else 0) >= len(piece) else None


def _deflate_fits(piece: bytes, most: int) -> bool:
    """Unpack gzip or zlib, all that follow each other in a chunk, a piece at a time without keeping any."""
    seen = 0
    while piece:
        unpacker = zlib.decompressobj(32 + zlib.MAX_WBITS)
        try:
            while piece and not unpacker.eof:
                seen += len(unpacker.decompress(piece, _PIECE))
                if seen > most:
                    return False
                piece = unpacker.unconsumed_tail
            piece = unpacker.unused_data
        except zlib.error:
            return True
    return True
