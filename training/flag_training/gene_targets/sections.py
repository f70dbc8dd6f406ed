"""Counts of sections, from a folder of tables or from a store; which of them may be learnt from."""

import hashlib
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from flag_training.store.store import STORE_RECORD, open_store
from napari_flag.errors import UserError
from napari_flag.slides.spot_tables import read_measured

if TYPE_CHECKING:
    from anndata import AnnData


KEPT_BACK: Final = frozenset({"C6", "SPA137"})
"""Section of HER2ST (and its name in HEST) kept for independent scoring: nothing here may learn from it."""
_ENDINGS: Final = (".tsv", ".tsv.gz", ".csv", ".csv.gz", ".h5ad", ".h5")


@dataclass(frozen=True, slots=True)
class SectionFile:
    """One section whose counts can be read.

    Parameters
    ----------
    name, patient
        Section and patient.
    read
        Reads raw counts of all its genes.
    """

    name: str
    patient: str
    read: Callable[[], "AnnData"]


def patient_of(section: str) -> str:
    """Return the patient of a section named as in HER2ST: ``C5`` is of patient C."""
    return re.sub(r"[-_ ]?\d+$", "", section) or section


def find_sections(
    place: Path,
    chosen: Sequence[str] = (),
    leave_out: Sequence[str] = (),
    leave_out_patients: Sequence[str] = (),
) -> tuple[SectionFile, ...]:
    """Return the sections of `place` to read, sorted by name.

    Parameters
    ----------
    place
        A folder with one count table a section, named after it, or a store of ``napari-flag prepare``.
    chosen
        The sections; empty takes all.
    leave_out, leave_out_patients
        Sections, and patients whole, to leave out.

    Raises
    ------
    UserError
        When a named section or patient is not there, a section kept back for scoring would be
        read, or nothing remains.
    """
    found = _of_store(place) if (place / STORE_RECORD).exists() else _of_folder(place)
    unknown = {*chosen, *leave_out} - set(found)
    unknown |= set(leave_out_patients) - {section.patient for section in found.values()}
    if unknown:
        raise UserError(
            f"{place} has no section or patient {', '.join(sorted(unknown))}; it has "
            f"{', '.join(sorted(found))}."
        )
    kept = tuple(
        found[name]
        for name in sorted(chosen or found)
        if name not in leave_out and found[name].patient not in leave_out_patients
    )
    if held := KEPT_BACK & {section.name for section in kept}:
        raise UserError(
            f"Section {', '.join(sorted(held))} is kept back for independent scoring, so gene vectors "
            "must not be made from it; leave it out (--leave-out)."
        )
    if not kept:
        raise UserError(
            f"All sections of {place} are left out, so there is nothing to make gene vectors from; keep some."
        )
    return kept


def _of_folder(folder: Path) -> dict[str, SectionFile]:
    found = {}
    for ending in _ENDINGS:
        for path in sorted(folder.glob(f"*{ending}")):
            name = path.name.removesuffix(ending)
            found[name] = table_of(path, name)
    if not found:
        raise UserError(
            f"{folder} holds no count tables ({', '.join(_ENDINGS[:2])} …) and is no store of napari-flag "
            "prepare; check the path."
        )
    return found


def table_of(path: Path, name: str) -> SectionFile:
    """Return the section of one count table; the patient is part of its name."""
    return SectionFile(name, patient_of(name), lambda: read_measured(path))


def _of_store(place: Path) -> dict[str, SectionFile]:
    store = open_store(place)
    slides = [store.slide(name) for name in store.names]
    return {
        slide.name: SectionFile(slide.name, slide.patient or patient_of(slide.name), slide.counts)
        for slide in slides
    }


def counts_hash(counts: "AnnData") -> str:
    """Return the SHA-256 of spots, genes and counts, in hex, however they are stored."""
    from scipy import sparse

    values = sparse.csr_matrix(counts.X, dtype=np.float32, copy=True)
    values.sum_duplicates()
    values.eliminate_zeros()
    names = [[str(name) for name in axis] for axis in (counts.obs_names, counts.var_names)]
    digest = hashlib.sha256(json.dumps(names).encode())
    for part in (values.data, values.indices.astype(np.int64), values.indptr.astype(np.int64)):
        digest.update(part.tobytes())
    return digest.hexdigest()
