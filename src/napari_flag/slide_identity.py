"""Which slide a prediction was made on, and what results call a slide whose name may be a patient's.

A prediction identifies its slide by the hash of its content (`slides.file_identity.content_hash`) and by
name and size; nothing else of the file goes into it.  Files of earlier versions have name and size alone.
"""

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from napari_flag import keys
from napari_flag.errors import UserError
from napari_flag.foreign_prediction import is_foreign
from napari_flag.formatting import px
from napari_flag.prediction_file import (
    UNNAMED,
    output_name,
    provenance,
    sharing,
    slide_hash,
    slide_name,
    slide_size,
    trained_on,
)
from napari_flag.slides.file_identity import content_hash, name_of, neutral_name, why_personal

if TYPE_CHECKING:
    from anndata import AnnData

    from napari_flag.slides.slide import Slide


# --- which slide -------------------------------------------------------------------------------
def is_made_on(adata: "AnnData", slide: "Slide") -> bool:
    """Return whether `adata` was predicted on `slide`: by name and size, else by content.

    A file of the same name and size with another content counts, since a slide may have been written anew;
    `doubt_about` then says so.  A name or size that `adata` does not state fits any slide.
    """
    named = slide_name(adata) == UNNAMED or same_name(slide_name(adata), slide.name)
    if named and slide_size(adata) in (None, tuple(slide.size)):
        return True
    return has_content_of(adata, slide.path)


def same_name(one: str, other: str) -> bool:
    """Return whether two names of slides are the same: letters in any case."""
    return one.casefold() == other.casefold()


def refuse_other_size(adata: "AnnData", slide: "Slide") -> None:
    """Raise a `UserError` where `slide` is not as large as the one `adata` was predicted on."""
    wanted = slide_size(adata)
    if wanted is not None and tuple(slide.size) != wanted:
        raise UserError(
            f"{slide.path.name} has {px(slide.size)}, but the prediction was made on a slide of "
            f"{px(wanted)}; give the slide that was predicted."
        )


def are_of_one_slide(one: "AnnData", other: "AnnData") -> bool:
    """Return whether two predictions state the same slide: its content, or its name and size."""
    if slide_hash(one) is not None and slide_hash(one) == slide_hash(other):
        return True
    return same_name(slide_name(one), slide_name(other)) and slide_size(one) == slide_size(other)


def belongs_on(adata: "AnnData", slide: "Slide", *, by_place: bool = False) -> bool:
    """Return whether `adata` is to be drawn on `slide`: spots of another slide must never be.

    Parameters
    ----------
    adata
        A prediction.
    slide
        Must have the name and the size that `adata` records, or its content (`is_made_on`).
    by_place
        Whether a prediction that records no slide belongs on it if all its spots lie on it.
    """
    if provenance(adata) and slide_size(adata) is not None:
        return is_made_on(adata, slide)
    return by_place and keys.SPATIAL in adata.obsm and lies_on(adata, slide)


def belongs_with(adata: "AnnData", other: "AnnData") -> bool:
    """Return whether two predictions are of one slide, which is not at hand.

    Another program's, which may record no slide, has the same spots at the same places.
    """
    if is_foreign(adata) or is_foreign(other):
        return _same_spots(adata, other)
    if not are_of_one_slide(adata, other):
        return False
    return slide_size(adata) is not None or adata.obs_names.equals(other.obs_names)


def lies_on(adata: "AnnData", slide: "Slide") -> bool:
    """Return whether all spots of `adata` lie on `slide`."""
    xy = np.asarray(adata.obsm[keys.SPATIAL], np.float64)[:, :2]
    return bool(((xy >= 0) & (xy < np.asarray(slide.size))).all())


def _same_spots(one: "AnnData", other: "AnnData") -> bool:
    """Return whether two predictions have the same spots at the same places, to the pixel."""
    if not one.obs_names.equals(other.obs_names):
        return False
    here, there = (np.asarray(adata.obsm[keys.SPATIAL], np.float64)[:, :2] for adata in (one, other))
    return bool(np.abs(here - there).max(initial=0.0) <= 1.0)


def has_content_of(adata: "AnnData", path: Path) -> bool:
    """Return whether the file at `path` is the one that `adata` was predicted on, whatever its name."""
    stated = slide_hash(adata)
    return stated is not None and stated == content_hash(path)


def doubt_about(adata: "AnnData", slide: "Slide") -> str | None:
    """Return a sentence where the content of `slide` is not that of the slide `adata` was predicted on."""
    stated, found = slide_hash(adata), content_hash(slide.path)
    if stated is None or found is None or stated == found:
        return None
    return (
        f"{slide.path.name} is not the file that this prediction was made on (its content is another), so "
        "the spots may lie elsewhere on the tissue; open the slide that was predicted, or predict this one."
    )


# --- what it is called -------------------------------------------------------------------------
def without_personal_names(adata: "AnnData", keep: bool = False) -> "tuple[AnnData, tuple[str, ...]]":
    """Return a prediction under neutral names where those of its slide and weights may be a patient's.

    Parameters
    ----------
    adata
        A prediction; not changed.
    keep
        Leave all names as they are.

    Returns
    -------
    renamed
        `adata` itself where nothing is replaced; otherwise one that shares its arrays.  Its weights, the
        slides that they were trained on, and files named in notices have no names that may be a patient's
        either.
    notices
        What was replaced by what and how to keep it, a sentence each.
    """
    if keep:
        return adata, ()
    said, renamed, name = [], adata, output_name(adata)
    if (why := why_personal(name)) is not None:
        called = neutral_name_of(adata)
        renamed = renamed_to(adata, called)
        said.append(
            f"The name of the slide looks like a patient's ({why}), so results call it {called}; keep its "
            f"name with {KEEP}."
        )
    weights = str(provenance(renamed).get(keys.WEIGHTS_NAME, ""))
    if (why := why_personal(weights)) is not None:
        renamed = with_weights_called(renamed, called := neutral_weights(renamed))
        said.append(
            f"The name of the weights looks like a patient's ({why}), so results call them {called}; keep "
            f"their name with {KEEP}."
        )
    stated = {key: replaced(provenance(renamed)[key], str) for key in _NAMING if key in provenance(renamed)}
    source = str(dict(stated.get(keys.READ_FROM, {})).get(keys.READ_FILE, ""))
    neutral = {source: neutral_name(None) + "".join(Path(source).suffixes[-1:])}
    plain = {
        key: replaced(value, lambda text: without_files(_with_neutral(text, neutral)))
        for key, value in stated.items()
    }
    if keys.TRAINING_SLIDES in stated:
        stated[keys.TRAINING_SLIDES] = sections = _listed(stated[keys.TRAINING_SLIDES])
        plain[keys.TRAINING_SLIDES] = kept = [neutral_name(None) if why_personal(s) else s for s in sections]
        if kept != sections:
            said.append(
                "Names of slides that the weights were trained on look like patients', so they are left out; "
                f"keep them with {KEEP}."
            )
    if plain != stated:
        renamed = sharing(renamed, {keys.PROVENANCE: {**provenance(renamed), **plain}})
    return renamed, tuple(said)


_NAMING: Final = (keys.NOTICES, keys.READ_FROM, keys.TRAINING_SLIDES)
"""Entries of the provenance in which other files may be named."""


def without_folders(text: str, path: Path) -> str:
    """Return a sentence that names files without the folders that `path` lies in, or the home folder."""
    absolute = {folder for base in (path.absolute(), path.resolve()) for folder in base.parents}
    whole = {str(folder) for folder in (*absolute, Path.home()) if len(folder.parts) > 1}
    given = {str(folder) for folder in path.parents if folder.parts and not folder.is_absolute()}
    for folder in sorted(whole | given, key=len, reverse=True):
        text = re.sub(rf"(?<![\w./\\-]){re.escape(folder)}[/\\]", "", text)
        if folder in whole:
            text = re.sub(rf"(?<![\w./\\-]){re.escape(folder)}(?![\w-])", "its folder", text)
    return text


def without_names(text: str, files: Iterable[Path], keep: bool = False) -> str:
    """Return a sentence as results may hold it: files without folders, and without a patient's name.

    Parameters
    ----------
    text
        A notice or an error.
    files
        The inputs, which it may name.  Their names, and those of what lies beside them and of the folders
        they lie in, are replaced whole where they may be a patient's, whatever signs they hold; another file
        is recognised by the form of the word.
    keep
        Leave out folders alone.
    """
    given = list(files)
    for file in given:
        text = without_folders(text, file)
    if keep:
        return text
    names = {
        path.name: name_of(path) if path in given or path.is_file() else neutral_name(None)
        for path in _named_in(text, given)
    }
    return without_files(_with_neutral(text, names))


def _named_in(text: str, files: Iterable[Path]) -> set[Path]:
    """Return which of files, of what lies beside them and of their folders a sentence names."""
    near: set[Path] = set()
    for file in files:
        near |= {file, *file.absolute().parents}
        with suppress(OSError):
            near |= set(file.absolute().parent.iterdir())
    stems = {path: path.name.removesuffix("".join(path.suffixes[-2:])) for path in near}
    return {path for path, stem in stems.items() if stem and stem.casefold() in text.casefold()}


def _with_neutral(text: str, names: Mapping[str, str]) -> str:
    """Return a text with names of files replaced by others, also where they stand without their ending."""
    forms: dict[str, str] = {}
    for name, neutral in names.items():
        if why_personal(name) is None:
            continue
        forms[name.casefold()] = neutral
        end = "".join(Path(neutral).suffixes)
        if why_personal(stem := name.removesuffix(end)) is not None:
            forms[stem.casefold()] = neutral.removesuffix(end)
    longest_first = sorted(map(re.escape, forms), key=len, reverse=True) or [r"(?!)"]
    pattern = re.compile(rf"(?<![^\W_])(?:{'|'.join(longest_first)})(?![^\W_])", re.IGNORECASE)
    return pattern.sub(lambda found: forms[found[0].casefold()], text)


KEEP: Final = "--keep-names (in the docks, where they ask)"
_FILE: Final = re.compile(r"[^\s\"'“”()]+\.[A-Za-z]\w{0,7}\b")
"""A word of a sentence that may name a file."""


def without_files(text: str) -> str:
    """Return a sentence without names of files that may be a patient's, as far as their form tells."""
    return _FILE.sub(lambda found: word_without_name(found[0]), text)


def _listed(stated: Any) -> list[str]:
    return [stated] if isinstance(stated, str) else [str(each) for each in stated]


def neutral_weights(adata: "AnnData") -> str:
    """Return a neutral name of the weights of a prediction, by their hash."""
    return neutral_name(str(provenance(adata).get(keys.WEIGHTS_HASH, "")))


def with_weights_called(adata: "AnnData", called: str) -> "AnnData":
    """Return a prediction whose weights have another name wherever theirs stood."""
    made = dict(provenance(adata))
    names = {str(made[keys.WEIGHTS_NAME]): called}
    for key in (keys.NOTICES, keys.COMMAND):
        if key in made:
            made[key] = replaced(made[key], lambda text: _with_neutral(text, names))
    return sharing(adata, {keys.PROVENANCE: made | {keys.WEIGHTS_NAME: called}})


def neutral_name_of(adata: "AnnData") -> str:
    """Return a neutral name by the slide's content; of earlier versions, by its picture or the spots."""
    digest = slide_hash(adata)
    if digest is None:
        pictures = [
            np.asarray(picture)
            for library in dict(adata.uns.get(keys.SPATIAL, {})).values()
            for picture in dict(dict(library).get("images", {})).values()
        ]
        known = pictures[0] if pictures else np.asarray(adata.obsm[keys.SPATIAL])
        digest = hashlib.sha256(np.ascontiguousarray(known).tobytes()).hexdigest()
    return neutral_name(digest)


def renamed_to(adata: "AnnData", neutral: str) -> "AnnData":
    """Return a prediction whose slide is called `neutral` wherever its name stood."""
    names = {output_name(adata), slide_name(adata)} - {UNNAMED, neutral}
    forms = {form for name in names for form in (name, json.dumps(name)[1:-1])}
    longest_first = sorted(map(re.escape, forms), key=len, reverse=True) or [r"(?!)"]
    pattern = re.compile(rf"(?<![^\W_])(?:{'|'.join(longest_first)})(?![^\W_])", re.IGNORECASE)

    def put(text: str) -> str:
        return pattern.sub(neutral, text)

    made = dict(provenance(adata))
    for key in (keys.NOTICES, keys.COMMAND, keys.READ_FROM, keys.REGIONS, keys.MPP_SOURCE):
        if key in made:
            made[key] = replaced(made[key], put)
    if keys.TRAINING_SLIDES in made and trained_on(adata):  # is still to be seen
        made[keys.TRAINING_SLIDES] = [*map(put, _listed(made[keys.TRAINING_SLIDES]))]
    if keys.SLIDE_NAME in made:
        made[keys.SLIDE_NAME] = neutral
    libraries = {
        put(str(name)): {key: replaced(value, put) for key, value in dict(library).items()}
        for name, library in dict(adata.uns.get(keys.SPATIAL, {})).items()
    }
    return sharing(adata, {keys.PROVENANCE: made, **({keys.SPATIAL: libraries} if libraries else {})})


def replaced(value: Any, put: Callable[[str], str]) -> Any:
    """Return provenance with every text in it, at any depth, put through `put`."""
    if isinstance(value, str):
        return put(value)
    if isinstance(value, Mapping):
        return {name: replaced(inner, put) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [replaced(inner, put) for inner in value]
    if isinstance(value, np.ndarray) and value.dtype.kind in "OUT":
        return [replaced(inner, put) for inner in value.ravel().tolist()]
    return value


def word_without_name(word: str) -> str:
    """Return a word; where it may hold a patient's name, a neutral one with its ending."""
    number = re.fullmatch(r"-?(\d*\.\d+(e[-+]?\d+)?|\d{1,6})", word, re.IGNORECASE)
    if number is not None or why_personal(word) is None:
        return word
    return neutral_name(None) + "".join(Path(word).suffixes[-1:])
