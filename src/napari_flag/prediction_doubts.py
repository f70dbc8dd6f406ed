"""What is to be doubted of a prediction, said wherever it is shown: places of spots, values, what it lacks.

Spots that cannot be right are refused unless a person insists, which the prediction then records.
"""

from typing import TYPE_CHECKING, Final

import numpy as np

from napari_flag import keys
from napari_flag.errors import COMPARE_ANYWAY, Doubtful, insist
from napari_flag.formatting import counted_of
from napari_flag.prediction_file import provenance, slide_size, spots_of, texts
from napari_flag.slides.lattice import MIRRORED, MISPLACED, OFF_PLACE, astray, mirrored, misplaced

if TYPE_CHECKING:
    from anndata import AnnData


_THEN: Final = ", and genes may stand in other places than they belong."
_MOST_PLACED: Final = 20_000
"""Spots whose places are looked at, spread evenly: more are not slower than these, a tenth of a second."""


def doubts_of(adata: "AnnData") -> tuple[str, ...]:
    """Return what is to be said of places that look wrong, of another program's file, and what it lacks.

    Of ours what it lacks where it says how many draws it has: its method states an expectation and nothing
    more, or the file was changed.
    """
    made = provenance(adata)
    less = why_less(adata)
    lacking = () if less is None else (less,)
    if keys.READ_FROM not in made:
        return (*wrong_in(adata), *(lacking if keys.DRAWS in made else ()))
    return (*_misplaced(adata), *map(str, made.get(keys.NOTICES, ())), *lacking)


def wrong_in(adata: "AnnData") -> tuple[str, ...]:
    """Return what is to be said of a prediction's places and values, by whatever uses them."""
    return (*_misplaced(adata), *_negative(adata))


def why_less(adata: "AnnData") -> str | None:
    """Return what a prediction does not hold and what is left out for it, a sentence; None if it is whole."""
    missing = {
        keys.SAMPLE: ("draws", "scores of draws"),
        keys.SPREAD: ("standard deviation", "spread and calibration"),
    }
    lacking = [words for layer, words in missing.items() if layer not in adata.layers]
    if not lacking:
        return None
    names, left_out = (" and ".join(word[k] for word in lacking) for k in (0, 1))
    source = provenance(adata).get(keys.READ_FROM, {})
    name = source.get(keys.READ_FILE, "This prediction")
    return f"{name} holds no {names.replace(' and ', ' and no ')}, so {left_out} are left out."


def find_misplaced(adata: "AnnData") -> str | None:
    """Return why the spots cannot be right, the beginning of a sentence; None where nothing says so.

    None too where the prediction records that it was insisted on.
    """
    notices = texts(provenance(adata).get(keys.NOTICES))
    if any(notice.startswith(MISPLACED) for notice in notices):
        return None
    return next((said.rpartition(_THEN)[0] for said in _misplaced(adata) if said.endswith(_THEN)), None)


def refuse_misplaced(adata: "AnnData", force: bool) -> None:
    """Refuse a prediction with spots that cannot be right (`find_misplaced`), unless a person insists.

    Raises
    ------
    Doubtful
        Saying why.
    """
    doubt = None if force else find_misplaced(adata)
    if doubt is not None:
        raise Doubtful(f"{doubt}; take the file as it was predicted, or {insist(COMPARE_ANYWAY)}.")


def record_misplaced(adata: "AnnData") -> None:
    """Record among the notices of a prediction that spots which cannot be right were insisted on."""
    doubt = find_misplaced(adata)
    if doubt is not None:
        made = provenance(adata)
        notices = [*texts(made.get(keys.NOTICES)), doubt + _THEN]
        adata.uns[keys.PROVENANCE] = {**made, keys.NOTICES: notices}


def _misplaced(adata: "AnnData") -> tuple[str, ...]:
    """Say where places of spots, by array and ids, cannot be right or lie mirrored or astray."""
    looked_at = spots_of(adata)
    if len(looked_at) > _MOST_PLACED:
        looked_at = looked_at.take(np.arange(0, len(looked_at), -(-len(looked_at) // _MOST_PLACED)))
    if (why := misplaced(looked_at)) is not None:
        return (f"{MISPLACED}{why}){_THEN}",)
    if (size := slide_size(adata)) is not None:
        outside = int(((looked_at.xy < 0) | (looked_at.xy > size)).any(axis=1).sum())
        if outside > OFF_PLACE * len(looked_at):
            spots = counted_of(outside, len(looked_at), "spot")
            return (f"{MISPLACED}{spots} lie outside the slide of {size[0]} × {size[1]} px){_THEN}",)
    said = (MIRRORED if mirrored(looked_at) else None, astray(looked_at))
    return tuple(sentence for sentence in said if sentence is not None)


def _negative(adata: "AnnData") -> tuple[str, ...]:
    """Return a sentence on values of ``X`` below 0, which no log2(count + 1) is."""
    from scipy import sparse

    stored = np.asarray(adata.X.data if sparse.issparse(adata.X) else adata.X)
    below = int((stored < 0).sum())
    if not below:
        return ()
    return (
        f"{counted_of(below, int(np.prod(adata.shape)), 'value')} of X are negative, which no log2(count + "
        "1) is; they are shown and scored as they are, and the file may have been changed since it was "
        "predicted.",
    )
