"""HEST-1k (Jaume et al. 2024): samples by id, from a local folder or, with consent, from the hub.

A folder is laid out as the hub has it: ``st/ID.h5ad``, ``wsis/ID.tif`` and ``HEST_v*.csv``.  µm per
pixel is the metadata's ``pixel_size_um_estimated``: what the images state themselves is often a
screen's resolution (the whole kidney cohort says 0.353 where the spots' pitch gives 0.757).
"""

import re
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from flag_training.store.sources import SlideSource
from napari_flag.errors import UserError
from napari_flag.files import read_csv
from napari_flag.progress import Step, Steps

HUB: Final = "MahmoodLab/hest"
METADATA: Final = "HEST_v1_1_0.csv"
"""The metadata that is downloaded; a folder may hold a newer one."""
NEEDED: Final = ("id", "patient", "species", "organ", "st_technology", "pixel_size_um_estimated")
FACTS: Final = (
    "organ",
    "st_technology",
    "disease_state",
    "oncotree_code",
    "subseries",
    "license",
    "dataset_title",
)
"""Columns kept with the slide."""
_POLL_S: Final = 0.3


@dataclass(frozen=True, slots=True)
class HestSamples:
    """Which samples a cohort takes.

    Parameters
    ----------
    first, last
        Ends of a run of ids with one prefix; those the metadata knows are taken.
    ids
        Or the ids themselves.
    samples
        How many there must be; None checks nothing.
    """

    first: str = ""
    last: str = ""
    ids: tuple[str, ...] = ()
    samples: int | None = None


def find_metadata(folder: Path) -> Path:
    """Return the newest metadata table in a HEST folder.

    Raises
    ------
    UserError
        When there is none: ids, patients and µm/px are never guessed.
    """
    found = [
        p for place in (folder, folder / "metadata", folder / "assets") for p in place.glob("HEST_v*.csv")
    ]
    if not found:
        raise UserError(
            f"{folder} has no HEST metadata ({METADATA}), which says which samples a cohort has, their "
            f"patients and µm per pixel; download it from huggingface.co/datasets/{HUB} into that "
            "folder, or add --download."
        )
    return max(found, key=lambda p: [int(n) for n in re.findall(r"\d+", p.stem)])


def read_metadata(path: Path) -> dict[str, dict[str, str]]:
    """Return HEST's metadata: id → column → text."""
    try:
        rows = read_csv(path)[1]
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error}); download it again.") from error
    lacking = [column for column in NEEDED if not rows or column not in rows[0]]
    if lacking:
        raise UserError(
            f"{path.name} lacks the columns {', '.join(lacking)}, so it is no HEST metadata; download "
            f"{METADATA} from huggingface.co/datasets/{HUB}."
        )
    return {row["id"]: {key: (value or "").strip() for key, value in row.items() if key} for row in rows}


def choose_ids(wanted: HestSamples, metadata: dict[str, dict[str, str]]) -> tuple[str, ...]:
    """Return the ids of a cohort as the metadata has them.

    Raises
    ------
    UserError
        When the metadata lacks ids, or has another number of them than the cohort says.
    """
    if wanted.ids:
        unknown = [name for name in wanted.ids if name not in metadata]
        if unknown:
            raise UserError(
                f"HEST's metadata has no {', '.join(unknown[:5])}; check the ids, or get newer metadata."
            )
        return wanted.ids
    prefix, first = _parts(wanted.first)
    other, last = _parts(wanted.last)
    if prefix != other:
        raise UserError(f"{wanted.first} to {wanted.last} is no run of ids; give two with one prefix.")
    found = sorted(
        (name for name in metadata if _parts(name)[0] == prefix and first <= _parts(name)[1] <= last),
        key=lambda name: _parts(name)[1],
    )
    if wanted.samples is not None and len(found) != wanted.samples:
        raise UserError(
            f"HEST's metadata has {len(found)} samples from {wanted.first} to {wanted.last}, where the "
            f"cohort has {wanted.samples}; use the metadata of HEST-1k 1.1 ({METADATA})."
        )
    return tuple(found)


def hest_sources(
    ids: Sequence[str], metadata: dict[str, dict[str, str]], folder: Path, species: str
) -> tuple[SlideSource, ...]:
    """Return the slides `ids` of a HEST folder.

    Raises
    ------
    UserError
        When a sample is of another species, or its µm/px is not known.
    """
    found = []
    several = len({metadata[name].get("dataset_title") for name in ids}) > 1
    for name in ids:
        row = metadata[name]
        if row["species"] != species:
            raise UserError(
                f"{name} is of {row['species']}, and this cohort of {species}; genes of the two do not "
                "match, so leave it out of the cohort."
            )
        mpp = _number(row["pixel_size_um_estimated"])
        if mpp is None:
            raise UserError(
                f"HEST's metadata does not say the µm per pixel of {name}; leave it out of the cohort."
            )
        found.append(
            SlideSource(
                name=name,
                patient=_patient(row, several),
                image=folder / "wsis" / f"{name}.tif",
                spots=folder / "st" / f"{name}.h5ad",
                mpp=mpp,
                mpp_source="HEST's pixel_size_um_estimated",
                pitch_um=_number(row.get("inter_spot_dist", "")),
                diameter_um=_number(row.get("spot_diameter", "")),
                level_0=True,
                facts=tuple((key, row[key]) for key in FACTS if row.get(key)),
            )
        )
    return tuple(found)


def download_hest(names: Sequence[str], folder: Path, endpoint: str | None = None) -> Steps[None]:
    """Download files of HEST-1k into `folder`; complete files are kept, incomplete ones resumed.

    Parameters
    ----------
    names
        Files as the hub names them: ``st/SPA119.h5ad``.
    folder
        Where they go, under the same names.
    endpoint
        Address of the hub; None takes huggingface.co, or what ``HF_ENDPOINT`` says.

    Raises
    ------
    UserError
        When there is no network, no access, or no such file.
    """
    for number, name in enumerate(names):
        step = Step(f"Downloading {name}", number, len(names), "files")
        yield step
        if (folder / name).exists():
            continue
        fetched = _in_background(partial(_fetch, name, folder, endpoint))
        while not wait([fetched], timeout=_POLL_S).done:
            yield step
        fetched.result()


def _in_background(work: Callable[[], None]) -> "Future[None]":
    """Run `work` in a thread that does not outlive the program, as those of an executor would."""
    future: Future[None] = Future()

    def run() -> None:
        try:
            work()
            future.set_result(None)
        except BaseException as error:  # noqa: BLE001 - raised again where the result is read
            future.set_exception(error)

    threading.Thread(target=run, daemon=True, name="hest-download").start()
    return future


def _fetch(name: str, folder: Path, endpoint: str | None) -> None:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, GatedRepoError, HfHubHTTPError

    try:
        hf_hub_download(HUB, name, repo_type="dataset", local_dir=folder, endpoint=endpoint)
    except GatedRepoError as error:
        raise UserError(
            "HEST-1k is gated and this account has no access to it; ask for it on "
            f"huggingface.co/datasets/{HUB}, then log in with: hf auth login"
        ) from error
    except EntryNotFoundError as error:
        raise UserError(
            f"The hub could not give {name} of {HUB}; check the network and the sample's id."
        ) from error
    except (HfHubHTTPError, OSError) as error:
        message = str(error).splitlines()[0]
        raise UserError(
            f"{name} could not be downloaded ({message}); check the network and run this again."
        ) from error


def _patient(row: dict[str, str], several: bool) -> str | None:
    """Return the patient, with the study where a cohort has several; None where HEST does not say."""
    study = f"{row.get('dataset_title', '')}: " if several else ""
    return f"{study}{row['patient']}" if row["patient"] else None


def _parts(name: str) -> tuple[str, int]:
    match = re.fullmatch(r"([A-Za-z]+)(\d+)", name)
    return (match[1], int(match[2])) if match else (name, -1)


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if value > 0 else None
