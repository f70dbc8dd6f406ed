"""Changes made to files by chance: to their bytes, tables, JSON, HDF5, zarrs, tensors and TIFF tags.

Every function takes a path and a generator, and changes the file or folder at that path in place.
"""

import json
import os
import re
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

Random = np.random.Generator
Change = Callable[[Path, Random], None]

NUMBERS = (0, -1, 1, 255, 65535, 2**31 - 1, -(2**31), 2**32 - 1, 2**53, 2**63 - 1)
JUNK: tuple[Any, ...] = (
    None, True, "", "x", "\0", "../../outside", "x" * 3000, [], {}, [[]], [None], {"a": 1}, -1, 0, 1e999,
    -1e999, float("nan"), 10**30, 10**9, 0.5, "1", "nan", "μ\u202e", [1, 2, 3], {"name": {"name": []}},
)  # fmt: skip
CELLS = (
    "", "nan", "inf", "-1", "1e400", "x", "0x10", "1,5", "1.5", "999999999999999999999", "\0", '"', "=1+1",
    "None", "../x", "-0", "1e-400", "true", "a" * 500,
)  # fmt: skip


def some(values: Any, random: Random) -> Any:
    return values[int(random.integers(len(values)))]


# --- bytes ---------------------------------------------------------------------------------------


def change_bytes(path: Path, random: Random) -> None:
    data = bytearray(path.read_bytes())
    if not data:
        return
    at = int(random.integers(len(data)))
    match int(random.integers(6)):
        case 0:
            for place in random.integers(0, len(data), int(random.integers(1, 20))):
                data[place] = int(random.integers(256))
        case 1:
            del data[at:]
        case 2:
            data[at:at] = random.bytes(int(random.integers(1, 64)))
        case 3:
            data[at : at + 64] = bytes(len(data[at : at + 64]))
        case 4:
            number = some(NUMBERS, random) & (2**64 - 1)
            size = some((1, 2, 4, 8), random)
            data[at : at + size] = number.to_bytes(8, some(("little", "big"), random))[:size]
        case _:
            end = at + int(random.integers(1, 256))
            data[at:at] = data[at:end]
    path.write_bytes(data)


def change_whole(path: Path, random: Random) -> None:
    """Put a pipe in place of a file, or text that is nested without end."""
    path.unlink()
    text = some((None, "[" * 100_000, '{"a":' * 100_000, "a: " + "[" * 100_000, "- " * 100_000), random)
    if text is None:
        os.mkfifo(path)
    else:
        path.write_text(text, "utf-8")


# --- text ----------------------------------------------------------------------------------------


def change_table(path: Path, random: Random) -> None:
    text = path.read_text("utf-8")
    mark = "\t" if "\t" in text else ","
    rows = [line.split(mark) for line in text.split("\n")]
    row = int(random.integers(len(rows)))
    column = int(random.integers(len(rows[row])))
    match int(random.integers(10)):
        case 0 | 1 | 2 | 3:
            rows[row][column] = some(CELLS, random)
        case 4:
            del rows[row][column]
        case 5:
            del rows[row]
        case 6:
            rows.insert(row, list(rows[int(random.integers(len(rows)))]))
        case 7:
            rows = [[*cells[:column], *cells[column + 1 :]] for cells in rows]
        case 8:
            path.write_bytes(text.encode(some(("utf-16", "utf-16-le", "utf-32"), random)))
            return
        case _:
            rows[row][column] += "\xe4"
            path.write_bytes("\n".join(mark.join(cells) for cells in rows).encode("latin-1", "replace"))
            return
    path.write_text("\n".join(mark.join(cells) for cells in rows), "utf-8")


def repeat_line(path: Path, random: Random) -> None:
    """Repeat one line up to a million times."""
    lines = path.read_bytes().splitlines(keepends=True)
    row = int(random.integers(len(lines)))
    lines[row] *= some((2, 1000, 100_000, 1_000_000), random)
    path.write_bytes(b"".join(lines))


def add_comments(path: Path, random: Random) -> None:
    """Write thousands or millions of comments below the first line."""
    head, _, rest = path.read_bytes().partition(b"\n")
    comment = some((b"%\n", b"%" * 100 + b"\n", b"#\n", b"\n"), random)
    path.write_bytes(head + b"\n" + comment * some((10, 10_000, 1_000_000), random) + rest)


# --- JSON ----------------------------------------------------------------------------------------


def changed_json(value: Any, random: Random) -> Any:
    """Return `value` with one place in it replaced, left out or nested."""
    if isinstance(value, dict | list) and value and random.random() < 0.85:
        keys = list(value) if isinstance(value, dict) else range(len(value))
        key = some(keys, random)
        copy = dict(value) if isinstance(value, dict) else list(value)
        if random.random() < 0.1:
            del copy[key]
        else:
            copy[key] = changed_json(copy[key], random)
        return copy
    if random.random() < 0.1:
        nested: Any = value
        for _ in range(200):
            nested = [nested]
        return nested
    return some((*JUNK, *NUMBERS), random)


def change_json(path: Path, random: Random) -> None:
    value = changed_json(json.loads(path.read_text("utf-8")), random)
    path.write_text(json.dumps(value), "utf-8")


def change_outlines(path: Path, random: Random) -> None:
    """Lay parts of a region over each other, beside each other, or one ring over itself."""
    side, step = int(random.integers(1, 100)), some((0, 1, 50, 99, 100, 1000), random)
    rings = []
    for i in range(some((3, 30, 300, 3000, 30_000), random)):
        x, y = i % 200 * step, i // 200 * step
        grown = side + (i if step == 1 else 0)
        rings.append([[x, y], [x + grown, y], [x + grown, y + grown], [x, y + grown], [x, y]])
    frame = [[-9, -9], [10**6, -9], [10**6, 10**6], [-9, 10**6], [-9, -9]]
    again = [*(corner for ring in rings for corner in ring[:-1]), rings[0][0]]
    parts = some(([[ring] for ring in rings], [[frame, *rings]], [[again]]), random)
    path.write_text(json.dumps({"type": "MultiPolygon", "coordinates": parts}), "utf-8")


# --- YAML ----------------------------------------------------------------------------------------

YAML_VALUES = (
    "2026-13-01", "2026-01-02", "*a", "&a [1]", "!!int ''", "!!bool x", "!!timestamp x", "!!binary x", "{{",
    "1:99:99", "'", "[" * 500, "!!set {a, b}", "!!python/name:os.system", "? [a]", "&a [*a]", "9" * 5000,
    "{<<: {a: 1}}",
)  # fmt: skip
"""Written in place of a value; some are no YAML."""


def change_yaml(path: Path, random: Random) -> None:
    import yaml

    text = path.read_text("utf-8")
    if random.random() < 0.5:
        path.write_text(yaml.safe_dump(changed_json(yaml.safe_load(text), random)), "utf-8")
        return
    lines = text.split("\n")
    row = int(random.integers(len(lines)))
    name = lines[row].partition(":")[0]
    match int(random.integers(4)):
        case 0:
            levels = [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 9)]
            lines[:0] = ["a0: &a0 [x, x, x, x, x, x, x, x, x]", *levels]
            lines[row + 9] = f"{name}: *a8"
        case 1:
            lines.insert(row, lines[row])
        case _:
            lines[row] = f"{name}: {some(YAML_VALUES, random)}"
    path.write_text("\n".join(lines), "utf-8")


# --- HDF5 ----------------------------------------------------------------------------------------


def change_hdf5(path: Path, random: Random) -> None:
    import h5py

    with h5py.File(path, "r+") as file:
        names: list[str] = []
        file.visit(names.append)
        name = some(names, random)
        found = file[name]
        match int(random.integers(5)):
            case 0:
                del file[name]
            case 1:
                del file[name]
                file[name] = some(
                    (np.zeros(0), np.array(3), np.array([b"x"] * 3), np.full((2, 2), np.nan)), random
                )
            case 2 if len(found.attrs):
                key = some(list(found.attrs), random)
                if random.random() < 0.3:
                    del found.attrs[key]
                else:
                    found.attrs[key] = some(
                        ("x", "", -1, 2**62, np.array([9, 9]), np.array([-1, 2**60])), random
                    )
            case 3:
                file[f"{name}_"] = file[name]
                del file[name]
            case _:
                if isinstance(found, h5py.Dataset):
                    _change_dataset(file, name, random)


def _change_dataset(file: Any, name: str, random: Random) -> None:
    attributes = dict(file[name].attrs)
    values = np.asarray(file[name][()])
    if values.ndim == 0:
        values = values[None]
    flat = values.ravel().copy()
    if flat.size and flat.dtype.kind in "iu":
        info = np.iinfo(flat.dtype)
        flat[int(random.integers(flat.size))] = np.clip(some(NUMBERS, random), info.min, info.max)
    elif flat.size and flat.dtype.kind == "f":
        flat[int(random.integers(flat.size))] = some((np.nan, np.inf, -np.inf, -5.0, 1e30, 0.5), random)
    elif flat.size:
        flat[int(random.integers(flat.size))] = some((b"", b"x", b"../x", b"\xff\xfe"), random)
    values = flat.reshape(values.shape)
    match int(random.integers(6)):
        case 0:
            values = values[:-1]
        case 1:
            values = np.concatenate([values, values])
        case 2 if values.dtype.kind in "iuf":
            values = values.astype(some(("f8", "i1", "u8", "f2"), random))
    del file[name]
    file[name] = values
    file[name].attrs.update(attributes)


# --- zarr ----------------------------------------------------------------------------------------


def change_zarr(path: Path, random: Random) -> None:
    files = sorted(p for p in path.rglob("*") if p.is_file())
    chosen = some(files, random)
    kind = random.random()
    if kind < 0.1:
        chosen.unlink()
    elif kind < 0.15:
        chosen.unlink()
        os.mkfifo(chosen)
    elif kind < 0.2:
        shutil.rmtree(chosen.parent)
    elif (chosen.suffix == ".json" or chosen.name.startswith(".z")) and kind < 0.8:
        change_json(chosen, random)
    else:
        change_bytes(chosen, random)


# --- weights -------------------------------------------------------------------------------------


def change_weights(path: Path, random: Random) -> None:
    """Change the header of a safetensors file, the JSON in it, or its values."""
    data = path.read_bytes()
    (size,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + size])
    body = bytearray(data[8 + size :])
    match int(random.integers(5)):
        case 0 | 1 | 2:
            inner = json.loads(header["__metadata__"]["napari_flag"])
            header["__metadata__"]["napari_flag"] = json.dumps(changed_json(inner, random))
        case 3:
            header = changed_json(header, random)
        case _:
            at = 4 * int(random.integers(len(body) // 4))
            body[at : at + 4] = struct.pack("<f", some((np.nan, np.inf, -np.inf, 1e30), random))
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + bytes(body))


# --- TIFF ----------------------------------------------------------------------------------------


def change_tiff(path: Path, random: Random) -> None:
    """Set one field of a tag of a classic little-endian TIFF: its code, kind, count or value."""
    data = bytearray(path.read_bytes())
    entries = []
    (place,) = struct.unpack_from("<I", data, 4)
    while place and place + 2 < len(data) and len(entries) < 500:
        (number,) = struct.unpack_from("<H", data, place)
        entries += [place + 2 + 12 * k for k in range(number)]
        (place,) = struct.unpack_from("<I", data, place + 2 + 12 * number)
    entry = some(entries, random)
    field, size = some(((0, "<H"), (2, "<H"), (4, "<I"), (8, "<I")), random)
    number = some((*NUMBERS, 2, 3, 4, 7, 8, 12, len(data)), random)
    struct.pack_into(size, data, entry + field, number & (0xFFFF if size == "<H" else 0xFFFFFFFF))
    path.write_bytes(data)


def change_ome(path: Path, random: Random) -> None:
    """Set one number that the OME-XML of a TIFF states."""
    import tifffile

    xml = tifffile.tiffcomment(path)
    places = list(re.finditer(r'"(\d+)"', str(xml)))
    if place := some(places, random) if places else None:
        start, end = place.span(1)
        number = some((*NUMBERS, 10**9, 10**12, 3, 40), random)
        tifffile.tiffcomment(path, f"{xml[:start]}{number}{xml[end:]}".encode())
