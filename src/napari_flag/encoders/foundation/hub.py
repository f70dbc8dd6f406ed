"""Locate or download weights of a foundation encoder: given file, local folder, cache, hub.

Nothing is downloaded unless `download` is called.  Tokens stay with huggingface_hub: this module
asks only whether there is one.
"""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from platformdirs import user_data_path

from napari_flag.encoders.foundation.catalogue import SAFE_FIRST, EncoderRow, Recipe
from napari_flag.errors import UserError
from napari_flag.progress import Step, Steps

FOLDER_VARIABLE: Final = "NAPARI_FLAG_ENCODERS"
"""Environment variable that names the folder of encoders; in it, a folder per encoder name."""
REPORT_EVERY_S: Final = 0.4
"""Seconds between the steps that a download reports."""
LOG_IN: Final = "log in with: hf auth login (or set HF_TOKEN)"


def encoders_folder() -> Path:
    """Return the folder in which weights of encoders are looked for, one folder per encoder name."""
    named = os.environ.get(FOLDER_VARIABLE, "").strip()
    return Path(named).expanduser() if named else user_data_path("napari-flag") / "encoders"


@dataclass(frozen=True, slots=True)
class Found:
    """Weights that are on this computer.

    Parameters
    ----------
    path
        The file.
    where
        How it was found, for a person: "given", "local folder", "Hugging Face cache".
    """

    path: Path
    where: str


@dataclass(frozen=True, slots=True)
class HuggingFace:
    """huggingface.co, or another server that speaks its protocol.

    Parameters
    ----------
    endpoint
        Address; None takes HF_ENDPOINT or https://huggingface.co.
    cache
        Folder of downloaded files; None takes the user's (HF_HUB_CACHE).
    """

    endpoint: str | None = None
    cache: Path | None = None

    def find_cached(self, repository: str, file: str) -> Path | None:
        """Return where `file` was downloaded to, None when it was not."""
        from huggingface_hub import try_to_load_from_cache

        found = try_to_load_from_cache(repository, file, cache_dir=self.cache)
        return Path(found) if isinstance(found, str) else None

    def measure(self, repository: str, file: str) -> int | None:
        """Return the size of `file` in bytes by a HEAD request; raises what huggingface_hub raises."""
        from huggingface_hub import get_hf_file_metadata, hf_hub_url

        url = hf_hub_url(repository, file, endpoint=self.endpoint)
        return get_hf_file_metadata(url, endpoint=self.endpoint).size

    def fetch(self, repository: str, file: str, on_bytes: Callable[[float], None]) -> Path:
        """Download `file` into the cache, whole or not at all; `on_bytes` may raise to stop it."""
        from huggingface_hub import hf_hub_download
        from huggingface_hub.utils import tqdm  # type: ignore[attr-defined]

        class Counter(tqdm):
            def __init__(self, *args: Any, **kwargs: Any) -> None:
                super().__init__(*args, **kwargs | {"disable": True})  # type: ignore[no-untyped-call]

            def update(self, n: float | None = 1) -> bool | None:
                on_bytes(n or 0)
                return None

        got = hf_hub_download(
            repository, file, cache_dir=self.cache, endpoint=self.endpoint, tqdm_class=Counter
        )
        return Path(got)


def has_token() -> bool:
    """Return whether huggingface_hub has a token to send, without reading it."""
    from huggingface_hub import get_token

    return get_token() is not None


def find_weights(row: EncoderRow, given: Path | None = None, hub: HuggingFace | None = None) -> Found | None:
    """Return the weights of `row` on this computer: `given`, in the local folder, in the cache.

    Raises
    ------
    UserError
        When `given` is not there, or is a folder without them.
    """
    recipe = _recipe(row)
    if given is not None:
        return Found(_find_given(row, recipe, given), "given")
    if (path := _inside(encoders_folder() / row.name, recipe)) is not None:
        return Found(path, "local folder")
    hub = hub or HuggingFace()
    for file in recipe.files:
        if (path := hub.find_cached(recipe.repository, file)) is not None:
            return Found(path, "Hugging Face cache")
    return None


def how_to_get(row: EncoderRow) -> str:
    """Return what to do to have the weights of `row` here, as the end of a sentence."""
    recipe = _recipe(row)
    ask = f"ask for access at {row.source} and {LOG_IN}, then " if row.gated else ""
    return (
        f"{ask}run: napari-flag encoders download {row.name}, or put {recipe.files[0]} into "
        f"{encoders_folder() / row.name}"
    )


def check_access(row: EncoderRow, hub: HuggingFace | None = None) -> tuple[str, int | None]:
    """Ask the hub whether this account may download `row`; return the file's name and its bytes.

    Raises
    ------
    UserError
        When it may not, the hub cannot be reached, or has no such file: which of them, and what to do.
    """
    from huggingface_hub.errors import EntryNotFoundError

    recipe, hub = _recipe(row), hub or HuggingFace()
    for file in recipe.files:
        try:
            return file, hub.measure(recipe.repository, file)
        except EntryNotFoundError:
            continue
        except _broken() as error:
            raise UserError(_refusal(row, file, error)) from error
    raise UserError(
        f"{row.source} no longer has {' or '.join(recipe.files)}; look there for the weights, and put them "
        f"into {encoders_folder() / row.name}."
    )


def download(row: EncoderRow, hub: HuggingFace | None = None) -> Steps[Path]:
    """Download the weights of `row` into the Hugging Face cache; the caller has the user's consent.

    Yields
    ------
    Steps in bytes.

    Returns
    -------
    The file.

    Raises
    ------
    UserError
        As `check_access`, or when the download breaks or the disk is full.
    """
    hub = hub or HuggingFace()
    stage = f"Downloading {row.name}"
    yield Step(stage, 0, None, "bytes")
    file, size = check_access(row, hub)
    counted = _Counted()
    pool = ThreadPoolExecutor(1, thread_name_prefix="download")
    try:
        work = pool.submit(hub.fetch, _recipe(row).repository, file, counted.add)
        while not wait([work], REPORT_EVERY_S).done:
            yield Step(stage, int(counted.done), size, "bytes")
        path = work.result()
    except _broken() as error:
        raise UserError(
            f"{file} of {row.title} could not be downloaded ({_reason(error)}); no partial file was kept, so "
            "check connection and free disk space, and try again."
        ) from error
    finally:
        counted.stopped = True
        pool.shutdown(wait=False, cancel_futures=True)
    yield Step(stage, size or int(counted.done), size, "bytes")
    return path


class _Counted:
    """Bytes that have arrived; raises in the downloading thread once it is stopped."""

    def __init__(self) -> None:
        self.done = 0.0
        self.stopped = False

    def add(self, n: float) -> None:
        if self.stopped:
            raise InterruptedError("cancelled")
        self.done += n


def _recipe(row: EncoderRow) -> Recipe:
    if row.recipe is None:
        raise UserError(
            f"The {row.name} encoder is {row.source}, so there is nothing to get; choose weights with it."
        )
    return row.recipe


def _find_given(row: EncoderRow, recipe: Recipe, given: Path) -> Path:
    if given.is_file():
        return given
    for folder in (given, given / row.name):
        if (path := _inside(folder, recipe)) is not None:
            return path
    raise UserError(
        f"There are no weights of {row.title} at {given}; give the file {recipe.files[0]} or the folder "
        "it is in."
    )


def _inside(folder: Path, recipe: Recipe) -> Path | None:
    return next((folder / f for f in (*recipe.files, *SAFE_FIRST) if (folder / f).is_file()), None)


def _refusal(row: EncoderRow, file: str, error: Exception) -> str:
    """Return why the hub refuses `file`, a sentence without the server's own text."""
    from huggingface_hub.errors import GatedRepoError

    status = getattr(getattr(error, "response", None), "status_code", None)
    if isinstance(error, GatedRepoError) and has_token():
        return (
            f"Your Hugging Face account has no access to {row.title} yet; ask for it at {row.source} "
            f"({row.licence}), and try again when it is granted."
        )
    if isinstance(error, GatedRepoError):
        return (
            f"The weights of {row.title} must be asked for, and you are not logged in to Hugging Face; ask "
            f"for access at {row.source} ({row.licence}), {LOG_IN}, and try again."
        )
    if status in (401, 403, 404):
        return (
            f"{row.source} is not open to this account, or your token is no longer valid; {LOG_IN} again, "
            "and check your access on that page."
        )
    what = "cannot be reached" if status is None else f"answers with an error ({status})"
    return (
        f"{row.source} {what}, so the weights of {row.title} cannot be had now; check the connection and try "
        f"again, or put {file} into {encoders_folder() / row.name}."
    )


def _broken() -> tuple[type[Exception], ...]:
    """Return what a broken connection raises, whichever HTTP library huggingface_hub was built on."""
    from huggingface_hub.errors import HTTPError  # type: ignore[attr-defined]

    return (HTTPError, OSError)


def _reason(error: BaseException) -> str:
    """Return what failed in a few words, without the server's own text."""
    return getattr(error, "strerror", None) or "the connection broke"
