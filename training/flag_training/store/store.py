"""The store: one folder of slides ready for training, every file of it with its hash.

::

    STORE/store.json                 name, species, slides in order
          splits.json                which slides train, validate, test
          panels/NAME.txt, NAME.json genes, and how they were chosen
          encoders/NAME.safetensors  weights stored with what is trained on them, with NAME.json
          slides/SLIDE/slide.json    sources, µm/px, array, and the hash of every file in the folder
                       spots.csv     id, x, y (level-0 px, centres), array_row, array_col, label
                       genes.csv     symbol, ensembl
                       counts.npz    (n, all genes) csr float32 raw counts
                       graph.npz     neighbours (n, k), present, distance in array pitches
                       features-ENCODER.npy    (views, n, d) float32

Files are written whole or not at all, and refused when a byte has changed.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from flag_training.store.splits import PARTS, Split
from napari_flag.encoders.registry import Encoder
from napari_flag.errors import UserError
from napari_flag.files import parse_json, raw_cell, read_csv, read_text, refuse_special, replacing
from napari_flag.model.graph import Places, SpotGraph, likeness
from napari_flag.progress import Step, Steps, finish
from napari_flag.slides.formats.counts import GENE_IDS
from napari_flag.slides.spots import Spots

if TYPE_CHECKING:
    from anndata import AnnData
    from torch import Tensor

PREPARE: Final = "run napari-flag prepare again with the same source and --out"
"""How a remedy that makes something anew ends."""
_OWN: Final = "sha256"
_BLOCK: Final = 32 * 2**20
"""Bytes hashed between two steps: well under half a second from any disk worth training from."""


def write_record(path: Path, body: Mapping[str, Any]) -> None:
    """Write `body` as JSON with its own hash in it; the same body gives the same bytes."""
    content = {_OWN: _hash(body), **body}
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as place:
        place.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", "utf-8")


def read_record(path: Path, remedy: str) -> dict[str, Any]:
    """Read what `write_record` wrote.

    Parameters
    ----------
    path
        The file.
    remedy
        What to do when it is missing or damaged, as the end of a sentence.

    Raises
    ------
    UserError
        When it is missing or not what was written.
    """
    try:
        body = parse_json(read_text(path))
        recorded = body.pop(_OWN)
    except FileNotFoundError as error:
        raise UserError(f"There is no {path}; {remedy}") from error
    except (OSError, ValueError, AttributeError, KeyError) as error:
        raise UserError(f"{path} is damaged (it is no record of a store); {remedy}") from error
    if recorded != _hash(body):
        raise UserError(f"{path} is damaged (its contents do not have the hash it states); {remedy}")
    return dict(body)


def describe_file(path: Path, stage: str = "Hashing files") -> Steps[dict[str, Any]]:
    """Return ``{"bytes": …, "sha256": …}`` of a file; a pipe or a device is a `UserError`."""
    refuse_special(path)
    digest, total, done = hashlib.sha256(), path.stat().st_size, 0
    with path.open("rb") as stream:
        while block := stream.read(_BLOCK):
            digest.update(block)
            done += len(block)
            yield Step(stage, done >> 20, total >> 20, "MB")
    return {"bytes": total, "sha256": digest.hexdigest()}


def _hash(body: Mapping[str, Any]) -> str:
    canonical = json.dumps(body, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(canonical.encode()).hexdigest()


WEIGHTS: Final = "encoders"
"""Folder of a store."""
_AGAIN: Final = f"delete both and {PREPARE}."


def write_weights(store: Path, encoder: Encoder, tensors: Mapping[str, "Tensor"]) -> Steps[None]:
    """Keep `tensors`, the weights of `encoder`; nothing where everyone can get them.

    Raises
    ------
    UserError
        When the store has features of other weights of that name.
    """
    if not tensors:
        return
    from safetensors.torch import save

    path = store / WEIGHTS / f"{encoder.name}.safetensors"
    record = path.with_suffix(".json")
    if record.exists():
        if read_record(record, _AGAIN)["fingerprint"] != encoder.fingerprint:
            raise UserError(
                f"{store} holds features of other weights of the {encoder.name} encoder; give those again "
                "with --weights, or make another store."
            )
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as place:
        place.write_bytes(save({key: tensors[key].contiguous() for key in sorted(tensors)}))
    write_record(record, {"fingerprint": encoder.fingerprint, "file": (yield from describe_file(path))})


def read_weights(store: Path, name: str) -> "dict[str, Tensor]":
    """Return the weights of the encoder `name` that a store keeps; {} of one everyone can get.

    Raises
    ------
    UserError
        When they are damaged.
    """
    path = store / WEIGHTS / f"{name}.json"
    if not path.exists():
        return {}
    from safetensors.torch import load_file

    weights, recorded = path.with_suffix(".safetensors"), read_record(path, _AGAIN)["file"]
    if not weights.exists() or finish(describe_file(weights)) != recorded:
        raise UserError(f"{weights} is damaged (it does not have the hash it was stored with); {_AGAIN}")
    return dict(load_file(weights))


TABLES: Final = "tables"
"""Stage of a slide that everything but features comes from."""
FEATURES: Final = "features-"
"""Beginning of a stage of features; the encoder's name follows."""
FORMAT: Final = "napari-flag store 1"
STORE_RECORD: Final = "store.json"
SPLITS_RECORD: Final = "splits.json"
SLIDE_RECORD: Final = "slide.json"


@dataclass(frozen=True, slots=True)
class StoredSlide:
    """One slide of a store; whatever is read is checked against its hash first.

    Parameters
    ----------
    folder
        Its folder.
    name, patient
        Slide and patient; None where the patient is not known.
    mpp
        µm per level-0 pixel of the image the spots lie on.
    spots
        Spots that have counts, in order.
    labels
        One per spot, "" without; None where the slide has none.
    record
        All of ``slide.json``.
    """

    folder: Path
    name: str
    patient: str | None
    mpp: float
    spots: Spots
    labels: tuple[str, ...] | None
    record: Mapping[str, Any]

    @property
    def pitch_um(self) -> float:
        """Array pitch in µm."""
        assert self.spots.pitch_um is not None  # a slide without is not stored
        return self.spots.pitch_um

    @property
    def encoders(self) -> tuple[str, ...]:
        """Names of the encoders there are features of."""
        stages = self.record["stages"]
        return tuple(sorted(name.removeprefix(FEATURES) for name in stages if name.startswith(FEATURES)))

    def counts(self) -> "AnnData":
        """Return raw counts of all genes: csr float32, symbols, and Ensembl ids in ``gene_ids``."""
        import anndata
        from scipy import sparse

        values = sparse.load_npz(self._file(TABLES, "counts.npz"))
        genes = read_csv(self._file(TABLES, "genes.csv"))[1]
        adata = anndata.AnnData(sparse.csr_matrix(values))
        adata.obs_names = list(self.spots.ids)
        adata.var_names = [raw_cell(row["symbol"]) for row in genes]
        adata.var[GENE_IDS] = [raw_cell(row["ensembl"]) for row in genes]
        return adata

    def features(self, encoder: str) -> npt.NDArray[np.float32]:
        """Return (views, n, d) features, memory-mapped; view 0 is the slide as it is.

        Raises
        ------
        UserError
            When there are none of `encoder`, or the file is damaged.
        """
        stage = f"{FEATURES}{encoder}"
        if stage not in self.record["stages"]:
            there = ", ".join(self.encoders) or "none"
            raise UserError(
                f'{self.name} has no features of the encoder "{encoder}" (there are: {there}); '
                f"add them with: napari-flag prepare … --out {self.folder.parents[1]} --encoder {encoder}"
            )
        views: npt.NDArray[np.float32] = np.load(self._file(stage, f"{stage}.npy"), mmap_mode="r")
        return views

    def feature_settings(self, encoder: str) -> Mapping[str, Any]:
        """Return how features were made: fingerprint of the encoder, views, seed."""
        settings: Mapping[str, Any] = self.record["stages"][f"{FEATURES}{encoder}"]["settings"]
        return settings

    def encoder_weights(self, encoder: str) -> str:
        """Return the SHA-256 of the weights that made the features, whatever the device computed in."""
        stage = self.record["stages"][f"{FEATURES}{encoder}"]
        return str(stage.get("weights", stage["settings"]["fingerprint"]))  # the same in earlier versions

    def graph(self, features: npt.NDArray[np.float32] | None = None) -> SpotGraph:
        """Return the spatial graph; likeness is that of `features` (n, d), or 0 without."""
        with np.load(self._file(TABLES, "graph.npz")) as stored:
            neighbours = stored["neighbours"].astype(np.int64)
            present, distance = stored["present"], stored["distance"]
        alike = np.zeros(distance.shape, np.float32)
        if features is not None:
            alike = likeness(features, neighbours, present)
        places = Places.of(self.spots, self.mpp, self.pitch_um)
        return SpotGraph(places, neighbours, present, distance, alike)

    def files(self) -> Iterator[tuple[str, str]]:
        """Yield stage and name of every file."""
        for stage, recorded in self.record["stages"].items():
            for name in recorded["files"]:
                yield stage, name

    def check(self, stage: str, name: str) -> Steps[None]:
        """Compare a file with its hash.

        Raises
        ------
        UserError
            Naming the entry, and how to rebuild it alone.
        """
        path = self.folder / name
        recorded = self.record["stages"][stage]["files"][name]
        why = "is missing"
        if path.exists():
            found = yield from describe_file(path, f"Checking {self.name}")
            if found == recorded:
                return
            why = "is damaged (it does not have the hash it was stored with)"
        raise UserError(
            f"The entry {stage} of {self.name} cannot be used: {name} in {self.folder} {why}; rebuild "
            f"it alone with: napari-flag prepare … --rebuild {self.name}/{stage}"
        )

    def _file(self, stage: str, name: str) -> Path:
        finish(self.check(stage, name))
        return self.folder / name


@dataclass(frozen=True, slots=True)
class Store:
    """A folder that ``napari-flag prepare`` made.

    Parameters
    ----------
    path
        The folder.
    name, species
        Of the cohort.
    names
        Its slides, in the order of the cohort.
    """

    path: Path
    name: str
    species: str
    names: tuple[str, ...]

    def slide(self, name: str) -> StoredSlide:
        """Open one slide.

        Raises
        ------
        UserError
            When there is none of that name, it is not finished, or is damaged.
        """
        if name not in self.names:
            raise UserError(f'The store {self.path} has no slide "{name}"; it has {", ".join(self.names)}.')
        return open_stored(self.path / "slides" / name)

    def splits(self) -> dict[str, Any]:
        """Return both splits as they are written down: by → part → names, and ``unmade``."""
        record = read_record(self.path / SPLITS_RECORD, f"to make the splits, {PREPARE}.")
        return dict(record["splits"])

    def split(self, by: str = "slides") -> Split:
        """Return the split by "slides" or by "patients"."""
        splits = self.splits()
        if by not in splits:
            raise UserError(f'There is no split by "{by}"; choose {" or ".join(splits)}.')
        train, validation, test = (tuple(splits[by][part]) for part in PARTS)
        return Split(train, validation, test, splits[by]["unmade"])

    def panel(self, name: str) -> tuple[str, ...]:
        """Return the symbols of a panel, in its order."""
        record = self.panel_record(name)
        return tuple(gene["symbol"] for gene in record["genes"])

    def panel_record(self, name: str) -> dict[str, Any]:
        """Return a panel with its rule, the slides it saw, and Ensembl ids."""
        path = self.path / "panels" / f"{name}.json"
        if not path.exists():
            there = ", ".join(sorted(p.stem for p in path.parent.glob("*.json"))) or "none"
            raise UserError(f'The store {self.path} has no panel "{name}" (there are: {there}).')
        return read_record(path, f"delete it and {PREPARE}.")

    def check(self) -> Steps[int]:
        """Compare every file with its hash and return how many there are."""
        self.split()
        for path in sorted((self.path / "panels").glob("*.json")):
            text = path.with_suffix(".txt")
            if not text.exists() or tuple(read_text(text).split()) != self.panel(path.stem):
                raise UserError(
                    f"{text} is damaged (not the genes of {path.name}); delete both and {PREPARE}."
                )
        for path in sorted((self.path / WEIGHTS).glob("*.json")):
            read_weights(self.path, path.stem)
        checked = 0
        for name in self.names:
            slide = self.slide(name)
            for stage, file in slide.files():
                yield from slide.check(stage, file)
                checked += 1
                yield Step("Checking the store", checked, None, "files")
        return checked


def open_store(path: str | Path) -> Store:
    """Open the store in the folder `path`.

    Raises
    ------
    UserError
        When there is none, or its record is damaged.
    """
    path = Path(path).expanduser()
    record = read_record(path / STORE_RECORD, f"to make the store, {PREPARE}.")
    if record.get("format") != FORMAT:
        raise UserError(
            f"{path} is a store of another kind ({record.get('format')}) than this version reads "
            f"({FORMAT}); prepare it again into a new folder."
        )
    return Store(path, record["name"], record["species"], tuple(record["slides"]))


def open_stored(folder: Path) -> StoredSlide:
    """Open the slide in `folder`; its spots are checked, the rest when it is read."""
    remedy = f"rebuild the slide with: napari-flag prepare … --rebuild {folder.name}"
    record = read_record(folder / SLIDE_RECORD, remedy)
    if TABLES not in record["stages"]:
        raise UserError(f"The slide {folder.name} in {folder} is not finished; {PREPARE}.")
    array, mpp = record["array"], float(record["mpp"])
    bare = StoredSlide(folder, folder.name, record["patient"], mpp, _NO_SPOTS, None, record)
    rows = read_csv(bare._file(TABLES, "spots.csv"))[1]
    known = bool(rows) and rows[0]["array_row"] != ""
    spots = Spots(
        tuple(raw_cell(row["id"]) for row in rows),
        np.array([(float(row["x"]), float(row["y"])) for row in rows]).reshape(-1, 2),
        array["diameter_um"],
        array["pitch_um"],
        array["lattice"],
        np.array([(int(row["array_row"]), int(row["array_col"])) for row in rows]) if known else None,
    )
    labels = tuple(raw_cell(row["label"]) for row in rows) if record["labelled"] else None
    return StoredSlide(folder, folder.name, record["patient"], mpp, spots, labels, record)


_NO_SPOTS: Final = Spots((), np.empty((0, 2)))
