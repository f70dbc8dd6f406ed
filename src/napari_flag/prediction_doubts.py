"""What is to be doubted of a prediction, said wherever it is shown: places of spots, values, what it lacks.

Spots that cannot be right are refused unless a person insists, which the prediction then records.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from napari_flag import keys
from napari_flag.errors import COMPARE_ANYWAY, Doubtful, insist
from napari_flag.formatting import counted_of, first_of, length, number, score
from napari_flag.prediction_file import draw_layers, provenance, slide_size, spots_of, texts, um_per_px
from napari_flag.slides.lattice import (
    FEWEST_PLACED,
    MIRRORED,
    MISPLACED,
    OFF_PLACE,
    astray,
    mirrored,
    misplaced,
    pitch_px,
)
from napari_flag.slides.spots import Spots

if TYPE_CHECKING:
    from anndata import AnnData


_THEN: Final = ", and genes may stand in other places than they belong."
_MOST_PLACED: Final = 20_000
"""Spots whose places are looked at, spread evenly: more are not slower than these, a tenth of a second."""
_OFF_PITCH: Final = 0.2
"""Share by which the distance between spots may differ from the one stated; 4 to 7 % on her2st."""
_MOST_LOOKED_AT: Final = 1000, 250
"""Spots and genes, spread evenly, in which draws are held against ``X``: a tenth of a second."""
_FEWEST_VALUES: Final = 20
"""Values above 0 from which draws that are the same are so by no chance."""
_OFF_LEVEL: Final = 0.05, 0.25
"""How far the mean of draws may lie from that of ``X``, log2(count + 1), and as a share of it: .17 is the
most by weights that ship, .01 to .06 on her2st; ``X`` in natural logarithms is .44 off."""
_SURE: Final = 3.0
"""Standard errors by which draws lie off ``X`` through no chance."""
_FEW_DRAWS: Final = 4
"""Draws below which they do not show how far they lie from each other."""
_FEWEST_GENES: Final = 5
"""Genes from which their means say anything."""
_ALIKE: Final = 0.7
"""Correlation of the means of genes in draws and ``X`` from which they are of the same genes; .996 is the
least by weights that ship."""
_FOLLOWING: Final = 0.4
"""By how much draws rise where ``X`` rises by 1, over spots, from which they are of the same spots; 1.02 to
1.13 by weights that ship."""
_EXPLAINED: Final = 0.5
"""Share of the variance of the mean of draws over spots, without their noise, that ``X`` explains."""
_VARYING: Final = 0.15
"""Standard deviation of ``X`` over spots, log2(count + 1), from which draws can follow it."""


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
    return (*_misplaced(adata), *_of_draws(adata), *map(str, made.get(keys.NOTICES, ())), *lacking)


def wrong_in(adata: "AnnData") -> tuple[str, ...]:
    """Return what is to be said of a prediction's places and values, by whatever uses them."""
    return (*_misplaced(adata), *_negative(adata), *_of_draws(adata))


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
    said = (
        MIRRORED if mirrored(looked_at) else None,
        astray(looked_at),
        _off_pitch(spots_of(adata), um_per_px(adata)),
    )
    return tuple(sentence for sentence in said if sentence is not None)


def _off_pitch(spots: Spots, mpp: float | None) -> str | None:
    """Return a sentence where spots lie closer together, or wider apart, than is stated; else None.

    Without an array spots may lie wider apart, as a choice of them does.
    """
    if not spots.pitch_um or mpp is None or len(spots) < FEWEST_PLACED:
        return None
    found = pitch_px(spots) * mpp
    ratio = found / spots.pitch_um
    if ratio >= 1 - _OFF_PITCH and (ratio <= 1 + _OFF_PITCH or spots.array is None):
        return None
    return (
        f"Spots lie {length(found)} apart by their places and µm/px, where {length(spots.pitch_um)} are "
        "stated, so their places are no pixels of the slide or µm/px is wrong, and so are distances and "
        "areas; take the file as it was predicted, or predict again."
    )


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


# --- draws -------------------------------------------------------------------------------------
def _of_draws(adata: "AnnData") -> tuple[str, ...]:
    """Say where draws cannot be right: of something else than ``X``, all the same, or no counts."""
    names = draw_layers(adata)
    if not names:
        return ()
    some = [
        np.arange(0, size, -(-size // most)) for size, most in zip(adata.shape, _MOST_LOOKED_AT, strict=True)
    ]
    drawn = np.stack([_cut(adata.layers[name], some) for name in names])
    spread = _cut(adata.layers[keys.SPREAD], some) if keys.SPREAD in adata.layers else None
    made = provenance(adata)
    ours = keys.DRAWS in made and keys.READ_FROM not in made  # draws of earlier versions were no counts
    with np.errstate(over="ignore", invalid="ignore"):  # values beyond any count, which are far off X
        unrelated = _unrelated(_cut(adata.X, some), drawn, spread)
    said = (unrelated, _same(drawn), _no_counts(drawn, names, ours))
    return tuple(sentence for sentence in said if sentence is not None)


def _cut(values: Any, some: Sequence[npt.NDArray[np.int64]]) -> npt.NDArray[np.float64]:
    from scipy import sparse

    if sparse.issparse(values):
        return np.asarray(values.tocsr()[some[0]][:, some[1]].toarray(), np.float64)
    return np.asarray(values[np.ix_(*some)], np.float64)


def _unrelated(
    x: npt.NDArray[np.float64], drawn: npt.NDArray[np.float64], spread: npt.NDArray[np.float64] | None
) -> str | None:
    """Return a sentence where (K, n, G) draws are not those of the (n, G) expectation `x`; else None.

    Noise of a draw may be shared by all spots: what it does to the mean of a gene is seen between draws, and
    of fewer than `_FEW_DRAWS` may be as much as the `spread` of single values.
    """
    of_genes = drawn.mean(axis=1)
    if len(drawn) < _FEW_DRAWS:
        off_gene = drawn.std(axis=1).mean(axis=0) if spread is None else spread.mean(axis=0)
        off_level = off_gene.mean()
    else:
        off_gene, off_level = (
            _SURE * means.std(axis=0, ddof=1) for means in (of_genes, of_genes.mean(axis=1))
        )
    level, of_x, root = float(of_genes.mean()), float(x.mean()), np.sqrt(len(drawn))
    least, share = _OFF_LEVEL
    reasons = []
    if abs(level - of_x) > least + share * abs(of_x) + off_level / root:
        reasons.append(f"their mean is {number(level)} and that of X {number(of_x)} log2(count + 1)")
    apart = x.mean(axis=0)
    if len(apart) >= _FEWEST_GENES and apart.std() > np.sqrt((off_gene**2).mean()) / root:
        alike = _correlation(apart, of_genes.mean(axis=0))
        if alike < _ALIKE:
            reasons.append(f"their means of genes correlate with those of X by {score(alike, 'PCC')}")
    if not _follow(x, drawn):
        reasons.append("they do not follow X over the spots")
    if not reasons:
        return None
    return (
        f"The draws do not fit X ({'; '.join(reasons)}), so X or draws may be of other spots, genes or units "
        "and scores of one say nothing of the other; take the file as it was predicted, or predict again."
    )


def _correlation(one: npt.NDArray[np.float64], other: npt.NDArray[np.float64]) -> float:
    """Return Pearson's correlation; 0 where one of them is constant."""
    one, other = one - one.mean(), other - other.mean()
    size = np.sqrt((one**2).sum() * (other**2).sum())
    return float((one * other).sum() / size) if size > 0 else 0.0


def _follow(x: npt.NDArray[np.float64], drawn: npt.NDArray[np.float64]) -> bool:
    """Return whether draws rise and fall with `x` over the spots, as far as that shows.

    All genes together, each around its mean, have a slope; its error is that between draws, or of values on
    their own, three times as large for a few draws, whose noise spots may share.  Of more draws the mean,
    less its noise, has to be explained by `x` too.
    """
    centred = x - x.mean(axis=0)
    squares = float((centred**2).sum())
    if squares <= _VARYING**2 * x.size:
        return True
    around = drawn - drawn.mean(axis=1, keepdims=True)
    slopes = (around * centred).sum(axis=(1, 2)) / squares
    rest = np.sqrt(((around - slopes[:, None, None] * centred) ** 2).mean() / squares)
    few = len(drawn) < _FEW_DRAWS
    error = _SURE * rest if few else max(slopes.std(ddof=1), rest)
    if slopes.mean() + _SURE * error / np.sqrt(len(drawn)) < _FOLLOWING:
        return False
    if few:
        return True
    noise = around.var(axis=0, ddof=1).mean() / len(drawn)
    signal = (around.mean(axis=0) ** 2).mean() - noise
    return bool(signal <= noise or slopes.mean() ** 2 * squares / x.size > _EXPLAINED * signal)


def _same(drawn: npt.NDArray[np.float64]) -> str | None:
    """Return a sentence where two draws are the same in every value."""
    if (drawn[0] > 0).sum() < _FEWEST_VALUES:
        return None
    first: dict[bytes, int] = {}
    twice = [
        (at + 1, place)
        for place, values in enumerate(drawn, 1)
        if (at := first.setdefault(values.tobytes(), place - 1)) != place - 1
    ]
    if not twice:
        return None
    pairs = first_of([f"{one} and {other}" for one, other in twice], 3)
    return (
        f"Draws are the same in every value ({pairs}), so they are fewer than they seem and their spread is "
        "too small; take the file as it was predicted, or predict again."
    )


def _no_counts(drawn: npt.NDArray[np.float64], names: Sequence[str], ours: bool) -> str | None:
    """Return a sentence where draws hold no log2(count + 1) of counts; of `ours`, of whole counts."""
    below = (drawn < -1e-3).any(axis=(1, 2))
    counts = np.exp2(np.clip(drawn, 0, 60))
    rounded = np.abs(counts - np.rint(counts)) > 0.01 + 1e-5 * counts  # of 32 bits
    odd = below | (rounded.any(axis=(1, 2)) & ours)
    if not odd.any():
        return None
    of = first_of([name for name, is_odd in zip(names, odd, strict=True) if is_odd], 3)
    why = "negative values, which no log2(count + 1) is"
    if not below.any():
        why = "values that are log2(count + 1) of no whole count, as all draws of napari-flag are"
    return (
        f"Draws hold {why} (layers {of}); they are shown and scored as they are, and the file may have been "
        "changed since it was predicted."
    )
