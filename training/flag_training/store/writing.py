"""Write the stages of one slide: its tables at once, its features in chunks that survive a kill."""

import csv
import hashlib
import io
import itertools
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from flag_training.cohort import View, encode_views
from flag_training.store.reading import SlideTables
from flag_training.store.sources import SlideSource
from flag_training.store.store import (
    FEATURES,
    SLIDE_RECORD,
    TABLES,
    StoredSlide,
    describe_file,
    read_record,
    write_record,
)
from napari_flag import keys
from napari_flag.encoders.registry import Encoder
from napari_flag.errors import UserError
from napari_flag.files import replacing, safe_cell, sha256_of
from napari_flag.model.graph import Places, build_graph
from napari_flag.progress import Step, Steps
from napari_flag.slides.colours import SCANNED, Colours
from napari_flag.slides.formats.counts import GENE_IDS
from napari_flag.slides.slide import Slide

CHUNK: Final = 64
"""Fewest spots between two saves: at a second a tile and view, a kill costs minutes, not hours."""
MOST_CHUNKS: Final = 512
_DIGITS: Final = 32
"""Of the hash in a chunk's name."""


def write_tables(
    folder: Path, source: SlideSource, read: SlideTables, root: Path, kept: Mapping[str, Any]
) -> Steps[None]:
    """Write spots, genes, counts and graph of a slide, and the record that makes them count.

    Parameters
    ----------
    folder
        The slide's folder in the store.
    source, read
        Where it came from and what was read.
    root
        Folder that the recorded paths of sources are relative to.
    kept
        Stages of features that are there already; those made of other spots are dropped.
    """
    from scipy import sparse

    yield Step(f"Writing {source.name}", 0)
    labels = read.labels or ("",) * len(read.spots)
    array = read.spots.array
    places = [("", "")] * len(labels) if array is None else array.tolist()
    rows = [
        (name, repr(float(x)), repr(float(y)), row, col, label)
        for name, (x, y), (row, col), label in zip(read.spots.ids, read.spots.xy, places, labels, strict=True)
    ]
    genes = zip(read.counts.var_names, read.counts.var[GENE_IDS], strict=True)
    _write_csv(folder / "spots.csv", ("id", "x", "y", "array_row", "array_col", "label"), rows)
    _write_csv(folder / "genes.csv", ("symbol", "ensembl"), list(genes))
    values = sparse.csr_matrix(read.counts.X)
    values.sort_indices()
    folder.mkdir(parents=True, exist_ok=True)
    with replacing(folder / "counts.npz") as place, place.open("wb") as stream:
        sparse.save_npz(stream, values)
    yield Step(f"Writing {source.name}", len(labels), len(labels))
    assert read.spots.pitch_um is not None  # read_tables refuses a slide without
    graph = build_graph(
        Places.of(read.spots, read.mpp, read.spots.pitch_um), np.zeros((len(labels), 1), np.float32)
    )
    neighbours = graph.neighbours.astype(np.int32)
    with replacing(folder / "graph.npz") as place, place.open("wb") as stream:
        np.savez_compressed(stream, neighbours=neighbours, present=graph.present, distance=graph.distance)
    record = _describe(source, read) | {"sources": (yield from _hash_sources(source, root))}
    files = {}
    for name in ("spots.csv", "genes.csv", "counts.npz", "graph.npz"):
        files[name] = yield from describe_file(folder / name)
    spots_hash = files["spots.csv"]["sha256"]
    still = {
        stage: made
        for stage, made in kept.items()
        if made["settings"]["spots"] == spots_hash and made["settings"]["mpp"] == read.mpp
    }
    for stage in kept.keys() - still.keys():
        (folder / f"{stage}.npy").unlink(missing_ok=True)
    record["stages"] = {TABLES: {"files": files}, **still}
    write_record(folder / SLIDE_RECORD, record)


def _describe(source: SlideSource, read: SlideTables) -> dict[str, Any]:
    spots = read.spots
    return {
        "name": source.name,
        "patient": source.patient,
        "technology": read.technology,
        "facts": dict(source.facts),
        "mpp": read.mpp,
        "mpp_source": read.mpp_source,
        "array": {"pitch_um": spots.pitch_um, "diameter_um": spots.diameter_um, "lattice": spots.lattice},
        "spots": len(spots),
        "genes": read.counts.n_vars,
        "labelled": read.labels is not None,
        "notices": list(read.notices),
    }


def _hash_sources(source: SlideSource, root: Path) -> Steps[list[dict[str, Any]]]:
    sources = []
    for path in source.files():
        described = yield from describe_file(path, f"Hashing the files of {source.name}")
        sources.append({"path": relative(path, root), **described})
    return sources


def relative(path: Path, root: Path) -> str:
    """Return `path` as a store records it: relative to `root` where it lies in it."""
    try:
        return path.resolve().relative_to(root.resolve()).as_posix()
    except ValueError:
        return path.name


def _write_csv(path: Path, header: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows([[safe_cell(cell) for cell in row] for row in rows])
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as place:
        place.write_text(text.getvalue(), "utf-8")


@dataclass(frozen=True, slots=True)
class FeatureTask:
    """Requested features of one slide.

    Parameters
    ----------
    encoder
        What encodes.
    views
        How tiles are seen; the first is the slide as it is.
    batch_size
        Tiles at a time.
    coarsest
        How much coarser than the encoder's µm/px a slide may be.
    colours
        Of the pixels.
    """

    encoder: Encoder
    views: tuple[View, ...]
    batch_size: int
    coarsest: float
    colours: Colours = SCANNED

    @property
    def stage(self) -> str:
        """Name of the stage, and of its file without ending."""
        return f"{FEATURES}{self.encoder.name}"

    def settings(self, slide: StoredSlide) -> dict[str, Any]:
        """Return all that features depend on; other settings make other features."""
        encoder = self.encoder
        return {
            "encoder": encoder.name,
            "fingerprint": encoder.fingerprint,
            "tile_px": encoder.tile_px,
            "um_per_px": encoder.mpp,
            "dim": encoder.dim,
            "views": [[v.quarters, v.mirrored, list(v.log_gain)] for v in self.views],
            "spots": slide.record["stages"][TABLES]["files"]["spots.csv"]["sha256"],
            "mpp": slide.mpp,
            **({} if self.colours == SCANNED else {keys.COLOURS: self.colours}),
        }


def write_features(stored: StoredSlide, image: Slide, task: FeatureTask) -> Steps[None]:
    """Encode a slide chunk by chunk; finished chunks of a killed run are checked and kept.

    Raises
    ------
    UserError
        When a chunk is damaged, or chunks were made with other settings.
    """
    parts = stored.folder / f"{task.stage}.parts"
    settings = task.settings(stored)
    rebuild = f"start these features again with: napari-flag prepare … --rebuild {stored.name}/{task.stage}"
    if (parts / "settings.json").exists():
        if read_record(parts / "settings.json", rebuild) != settings:
            raise UserError(
                f"The unfinished {task.stage} of {stored.name} were begun with other settings (encoder "
                f"weights, views, colours or spots); {rebuild}"
            )
    else:
        write_record(parts / "settings.json", settings)
    n = len(stored.spots)
    size = max(CHUNK, -(-n // (MOST_CHUNKS * CHUNK)) * CHUNK)
    files = []
    for start in range(0, n, size):
        files.append(
            (yield from _chunk(stored, image, task, parts, slice(start, min(start + size, n)), rebuild))
        )
        yield Step(f"Encoding {stored.name}", min(start + size, n), n)
    final = stored.folder / f"{task.stage}.npy"
    shape = (len(task.views), n, task.encoder.dim)
    header = {"descr": "<f4", "fortran_order": False, "shape": shape}
    with replacing(final) as place, place.open("wb") as stream:
        np.lib.format.write_array_header_1_0(stream, header)
        for view, number in itertools.product(range(len(task.views)), range(len(files))):
            stream.write(np.load(files[number])[view].astype("<f4").data)
            yield Step(f"Joining the features of {stored.name}", number + 1, len(files), "chunks")
    stages = dict(stored.record["stages"])
    stages[task.stage] = {
        "settings": settings,
        "weights": task.encoder.weights,  # beside what the device computes in, which the settings state
        "files": {final.name: (yield from describe_file(final))},
    }
    write_record(stored.folder / SLIDE_RECORD, {**stored.record, "stages": stages})
    shutil.rmtree(parts)


def _chunk(
    stored: StoredSlide, image: Slide, task: FeatureTask, parts: Path, rows: slice, rebuild: str
) -> Steps[Path]:
    """Return the file of one chunk, encoding it if it is not there; its name ends in its hash."""
    begin = f"{rows.start:08d}-"
    there = sorted(parts.glob(f"{begin}*.npy"))
    for path in there:
        if path.stem.removeprefix(begin) != sha256_of(path)[:_DIGITS]:
            raise UserError(f"The chunk {path.name} of {task.stage} of {stored.name} is damaged; {rebuild}")
    if there:
        return there[0]
    xy = stored.spots.xy[rows]
    steps = encode_views(image, xy, task.encoder, task.views, task.batch_size, task.coarsest)
    block = yield from _counted(steps, f"Encoding {stored.name}", rows.start, len(stored.spots))
    stream = io.BytesIO()
    np.save(stream, block)
    content = stream.getvalue()
    path = parts / f"{begin}{_digest(content)}.npy"
    with replacing(path) as place:
        place.write_bytes(content)
    return path


def _counted(
    steps: Steps[npt.NDArray[np.float32]], stage: str, before: int, total: int
) -> Steps[npt.NDArray[np.float32]]:
    """Run `steps`, counting on from `before`."""
    while True:
        try:
            step = next(steps)
        except StopIteration as stop:
            block: npt.NDArray[np.float32] = stop.value
            return block
        yield Step(stage, before + step.done, total, notice=step.notice)


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:_DIGITS]


def forget(folder: Path, record: Mapping[str, Any], stage: str) -> None:
    """Remove what a slide has of one stage, so that it alone is made again."""
    shutil.rmtree(folder / f"{stage}.parts", ignore_errors=True)
    stages = dict(record["stages"])
    for name in stages.pop(stage, {"files": ()})["files"]:
        (folder / name).unlink(missing_ok=True)
    write_record(folder / SLIDE_RECORD, {**record, "stages": stages})
