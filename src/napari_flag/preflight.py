"""What stands against a prediction, said before it starts: one answer for dock, command line and notebook.

`check` only compares numbers and what `look_at` has read before, so that a dock can ask it at any time; the
picture itself is read once, in the job that opens the slide, and later taken from the cache.
"""

from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakKeyDictionary, finalize

import numpy as np

from napari_flag import keys
from napari_flag.errors import PREDICT_ANYWAY, UserError, insist
from napari_flag.formatting import TYPED, counted_of, percent, resolution
from napari_flag.slides.lattice import (
    FEWEST_PLACED,
    MIRRORED,
    MISPLACED,
    astray,
    estimate_mpp,
    mirrored,
    misplaced,
)
from napari_flag.slides.resolution import agrees, reduced, unknown_scale
from napari_flag.slides.slide import Slide
from napari_flag.slides.spots import Spots, SpotTable
from napari_flag.slides.tiles import COARSEST
from napari_flag.slides.tissue import Colours, find_tissue, read_colours

if TYPE_CHECKING:
    from napari_flag.model.checkpoint import Checkpoint


# Limits of colour.  Measured on five her2st sections, a Visium section and three simulated slides, each
# also pale, strong, cream and dim: dark .10 at most, chroma .54 and eosin-like .98 at least, brown and red 0.
DARK_SHARE: Final = 0.5
GREY_CHROMA: Final = 0.25
BROWN_SHARE: Final = 0.35
UNLIKE_SHARE: Final = 0.5
MARKS_SHARE: Final = 0.015
LEAST_STAINED: Final = 0.005
"""Share of stained pixels below which colour says nothing."""


@dataclass(frozen=True, slots=True)
class Look:
    """What one look at the picture of a slide tells: its colours, and whether the simulator made it."""

    colours: Colours
    simulated: bool


@dataclass(frozen=True, slots=True)
class Preflight:
    """What stands against a prediction, a sentence each.

    Parameters
    ----------
    blocking
        Why it cannot start, the first to be put right first.
    warnings
        What to know before believing it; recorded with the prediction.
    insistable
        Whether weights or spots are refused unless the person insists, or were but for insisting.
    """

    blocking: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    insistable: bool = False

    def refuse(self) -> None:
        """Raise the first of what is blocking as a `UserError`."""
        if self.blocking:
            raise UserError(self.blocking[0])


_LOOKS: Final[WeakKeyDictionary[Any, Look]] = WeakKeyDictionary()
"""By the slide's reader, which a slide shares with itself at another µm/px and lives as long as the slide."""


def look_at(slide: Slide) -> Look:
    """Read the colours and the origin of a slide, once; for a job, since a slide without pyramid is slow.

    Parameters
    ----------
    slide
        Best with a pyramid: its coarsest level of 512 px or more is read.
    """
    look = _LOOKS.get(slide.reader)
    if look is None:
        look = Look(read_colours(slide), _is_simulated(slide))
        _LOOKS[slide.reader] = look
    return look


def check(
    slide: Slide,
    spots: SpotTable | Spots | None = None,
    checkpoint: "Checkpoint | None" = None,
    *,
    look: Look | None = None,
    force: bool = False,
    scale: float = 1.0,
) -> Preflight:
    """Return what stands against predicting `spots` of `slide` with `checkpoint`.

    Parameters
    ----------
    slide
        Open.
    spots
        Spots or their table; None before they are known, and for a grid.
    checkpoint
        The weights; None before they are known.
    look
        What `look_at` returned; None takes what it found before, if anything, and reads nothing.
    force
        Whether the person insists on weights made for simulated slides, or on spots that look misplaced.
    scale
        Level-0 px per px of the full-resolution slide, where `spots` are given without the table, which
        says it.
    """
    look = _LOOKS.get(slide.reader) if look is None else look
    array = spots.spots if isinstance(spots, SpotTable) else spots
    scale = spots.image_scale if isinstance(spots, SpotTable) else scale
    suggested = suggested_mpp(array)
    right = None if suggested is None else suggested * scale  # µm/px is given for the full-resolution slide
    blocking = [unknown_scale(slide.path.name, right)] if slide.mpp is None else []
    if checkpoint is not None:
        blocking += too_coarse(slide, array, checkpoint.encoder, scale)
    warnings = [] if look is None else picture_doubts(slide.path.name, look.colours)
    wrong, said = placed(array)
    warnings += said
    if wrong is not None:
        (warnings if force else blocking).append((_WRONG_ANYWAY if force else _WRONG).format(wrong))
    foreign = look is not None and not look.simulated and _knows_only_simulated(checkpoint)
    if foreign and checkpoint is not None:
        names = (checkpoint.name, slide.path.name)
        if force:
            warnings.append(_INSISTED.format(*names))
        else:
            blocking.append(_REFUSED.format(*names))
    return Preflight(tuple(blocking), tuple(warnings), foreign or wrong is not None)


# --- scale ---------------------------------------------------------------------------------------


def suggested_mpp(spots: Spots | None) -> float | None:
    """Return the µm/px that the spots' array suggests, None where it cannot say."""
    if spots is None or spots.laid or spots.array is None or spots.pitch_um is None:
        return None
    key = (id(spots.xy), id(spots.array), spots.pitch_um, spots.lattice)
    if key not in _SUGGESTED:
        found: float | None = None
        with suppress(UserError):
            found = estimate_mpp(spots)
        _SUGGESTED[key] = (spots.array, found)  # no other array has its id as long as it is kept
        finalize(spots.xy, _SUGGESTED.pop, key, None)
    return _SUGGESTED[key][1]


_SUGGESTED: Final[dict[tuple[object, ...], tuple[object, float | None]]] = {}
"""What was fitted to spots that are alive: docks ask at every change, and 50,000 spots take .1 s."""


def too_coarse(slide: Slide, spots: Spots | None, encoder: str, scale: float = 1.0) -> list[str]:
    """Return why `encoder` cannot have tiles of so coarse a picture; the limit is that of `slides.tiles`.

    `scale` is level-0 px per px of the full-resolution slide, for which a person gives the µm/px.
    """
    mpp = slide.mpp
    if mpp is None:
        return []
    from napari_flag.encoders.registry import find_encoder  # loads torch, as any checkpoint has done before

    try:
        wanted = find_encoder(encoder).mpp
    except UserError as error:
        return [str(error)]
    limit = COARSEST * wanted
    if mpp <= limit:
        return []
    read = (
        f"the model reads tiles at {resolution(wanted, TYPED)} and takes pictures up to "
        f"{resolution(limit, TYPED, unit=False)}"
    )
    stated = f"{slide.path.name} has {resolution(mpp, TYPED)} ({slide.mpp_source or 'as stated'})"
    suggested = suggested_mpp(spots)
    if suggested is None:
        return [
            f"{stated}, which is too coarse: {read}; open the full-resolution slide, or set µm/px if that "
            "number is wrong."
        ]
    if agrees(mpp, suggested):
        return [f"{reduced(mpp)}, and {read}; open the full-resolution slide."]
    right = resolution(suggested, TYPED, unit=False)
    if suggested > limit:
        return [
            f"{slide.path.name} is too coarse both at the {resolution(mpp, TYPED)} stated and at the "
            f"{right} that the spots' array suggests: {read}; open the full-resolution slide."
        ]
    given = resolution(suggested * scale, TYPED, unit=False)
    setting = "it" if scale == 1 else f"µm/px of the full-resolution slide to {given}"
    return [
        f"{stated}, but the spots' array suggests {right}, and {read}; if {right} is right, "
        f"set {setting} (Estimate in step 1, --mpp {given} on the command line), else open the "
        "full-resolution slide."
    ]


# --- places of spots ------------------------------------------------------------------------------

_WRONG: Final = f"The spots cannot be right: {{0}}; check the table, or {insist(PREDICT_ANYWAY)}."
_WRONG_ANYWAY: Final = (
    f"{MISPLACED}{{0}}): this is predicted anyway, as was insisted on, and genes may stand in other places "
    "than they belong."
)


def placed(spots: Spots | None) -> tuple[str | None, tuple[str, ...]]:
    """Return why places and array of spots cannot both be right, and what else is said of them.

    Kept as long as the spots: half a million take seconds, so the job that reads a table asks first.
    """
    if spots is None or spots.laid:
        return None, ()
    key = (id(spots.xy), id(spots.array), id(spots.ids), spots.lattice)
    if key not in _PLACED:
        wrong = misplaced(spots)
        said = () if wrong else (MIRRORED if mirrored(spots) else None, astray(spots))
        _PLACED[key] = ((spots.array, spots.ids), wrong, tuple(filter(None, said)))
        finalize(spots.xy, _PLACED.pop, key, None)
    return _PLACED[key][1:]


_PLACED: Final[dict[tuple[object, ...], tuple[object, str | None, tuple[str, ...]]]] = {}
"""Of spots that are alive, as `_SUGGESTED`."""


LEAST_ON_TISSUE: Final = 0.75
"""Share of spots on tissue below which their positions are doubted: on five sections of her2st all are, and
with x and y exchanged, or in µm, .14 to .83."""
CORNER: Final = 0.25
"""Part of the picture, from its corner, in which all spots at another scale lie, and a region seldom."""
LITTLE: Final = 0.1
"""Share of the box around the tissue that they then take up at most."""


def off_tissue(slide: Slide, spots: Spots) -> tuple[str, ...]:
    """Return a sentence where spots of a table lie beside the tissue, or in its corner, as at another scale.

    It finds the tissue, and so is for a job.  Of a grid, and where no tissue is found, nothing is said.
    """
    if spots.laid or len(spots) < FEWEST_PLACED:
        return ()
    tissue = find_tissue(slide)
    if not tissue.mask.any():
        return ()
    on = int(tissue.contains(spots.xy).sum())
    if on < LEAST_ON_TISSUE * len(spots):
        return (
            f"{counted_of(len(spots) - on, len(spots), 'spot')} do not lie on the tissue that is found on "
            f"{slide.path.name}; check that the table is of this picture, in its pixels, x before y.",
        )
    box = np.ptp(np.argwhere(tissue.mask), axis=0) * tissue.downsample
    share = float(np.prod(np.ptp(spots.xy, axis=0)) / max(np.prod(box), 1.0))
    if spots.array is not None or share > LITTLE or (spots.xy > CORNER * np.array(slide.size)).any():
        return ()
    return (
        f"The spots take up {percent(share)} of the tissue of {slide.path.name}, in the corner of the "
        "picture where a table in other pixels, or in µm, would put them; check its unit.",
    )


# --- simulated tissue ----------------------------------------------------------------------------

_REFUSED: Final = (
    'The weights "{0}" know only simulated slides and {1} is none, so their numbers would mean nothing; '
    f"choose other weights, or {insist(PREDICT_ANYWAY)}."
)
_INSISTED: Final = (
    'The weights "{0}" know only simulated slides and {1} is none: this is predicted anyway, as was '
    "insisted on, and the numbers mean nothing about this tissue."
)


def _knows_only_simulated(checkpoint: "Checkpoint | None") -> bool:
    """Return whether the card states that the weights saw no real tissue (``tissue: "none: …"``)."""
    tissue = "" if checkpoint is None else str(checkpoint.card.get(keys.CARD_TISSUE) or "")
    return tissue.partition(":")[0].strip().casefold() == keys.NO_TISSUE


def _is_simulated(slide: Slide) -> bool:
    """Return whether the simulator wrote the slide's file, by the TIFF's Software tag, whatever its name."""
    import tifffile

    from napari_flag.slides.formats.tiff import FAULTS

    try:
        with tifffile.TiffFile(slide.path) as tiff:
            return str(tiff.pages.first.tags.valueof("Software", "")).startswith(keys.SIMULATOR)
    except FAULTS:  # a JPEG, a folder of DICOM, a slide in memory
        return False


# --- stain ---------------------------------------------------------------------------------------


def picture_doubts(name: str, colours: Colours) -> list[str]:
    """Return a sentence where the picture called `name` does not look like H&E, or has marks drawn on it."""
    if colours.dark > DARK_SHARE:
        return [
            f"{percent(colours.dark)} of {name} is dark, as in fluorescence and not in a bright-field scan "
            "of H&E, which the model needs; choose the H&E picture of this section."
        ]
    if colours.stained < LEAST_STAINED:
        return []
    if colours.chroma < GREY_CHROMA:
        return [
            f"{name} is grey, so hematoxylin and eosin cannot be separated and the model sees a stain "
            "it does not know; choose the picture in colour."
        ]
    found = []
    if colours.brown > BROWN_SHARE:
        found.append(
            f"{percent(colours.brown)} of the stained tissue of {name} is brown, as in immunohistochemistry "
            "(DAB) and not in H&E, which the model needs; choose the H&E picture of this section."
        )
    elif colours.eosin_like < UNLIKE_SHARE:
        found.append(
            f"Only {percent(colours.eosin_like)} of what is stained in {name} has colours of hematoxylin and "
            "eosin, so this may be another stain; choose the H&E picture of this section."
        )
    if colours.red_marks > MARKS_SHARE:
        found.append(
            f"{percent(colours.red_marks)} of what looks stained in {name} is drawn in red, as a frame of "
            "fiducial marks is, and counts as tissue; lay a grid inside a drawn region, or open the "
            "picture without marks."
        )
    return found
