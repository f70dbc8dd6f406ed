"""Weights from a person's own measured sections: what is asked, what comes back, and the way into training.

Sections are found and looked at here, so that what is wrong with one of them is said before anything is
computed, and also where the packages that training needs are missing.  `load_training` leads to them.
"""

import csv
import importlib
import importlib.util
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol, cast

from napari_flag.discovery.folders import discover
from napari_flag.errors import UserError
from napari_flag.files import check_writable, ending, safe_cell, write_whole
from napari_flag.formatting import TYPED, counted, resolution, score
from napari_flag.inputs import read_table, settle_scale, with_given_scale
from napari_flag.keys import DEFAULT_WEIGHTS
from napari_flag.listing import COLUMNS, read_listing, refuse_same_names
from napari_flag.model.checkpoint import Checkpoint, find_weights
from napari_flag.preflight import suggested_mpp, too_coarse
from napari_flag.progress import Step, Steps, finish
from napari_flag.slides.colours import Colours
from napari_flag.slides.file_identity import name_of, neutral_name, why_personal
from napari_flag.slides.slide import Slide, name_in_results, open_slide
from napari_flag.slides.spot_tables import read_measured
from napari_flag.slides.spots import SpotTable, matched

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData


NO_PATIENT: Final = "not stated"
"""Patient of sections whose patient is not known; they count as of one."""
TRAINED_HERE: Final = "new"
"""Encoder of those who want one trained on their own sections."""
FEWEST: Final = 2
MOST_SCORED: Final = 8
"""Sections left out in turn; of more, so many evenly."""
GENES: Final = 200
"""Size of the panel that is chosen."""
SECTIONS_FILE: Final = "sections.csv"
PANEL_FILE: Final = "genes.txt"
MODULE: Final = "flag_training.own_sections"
NEEDED: Final = ("flag_training", "lightning_fabric", "scanpy")
"""What fitting imports besides the package itself; `napari-flag[training]` brings all of it."""

FINDING: Final = "Looking at sections"
CHOOSING: Final = "Choosing genes"
ENCODING: Final = "Encoding tiles"
SCORING: Final = "Scoring sections left out"
FITTING: Final = "Fitting all sections"
"""Stages, in order."""


@dataclass(frozen=True, slots=True)
class MeasuredSection:
    """A section that a person measured.

    Parameters
    ----------
    name, patient
        The section, and whose it is (`NO_PATIENT` where that is not known).
    image, spots
        As `slides.slide.open_slide` and `slides.spot_tables.read_spots` take them.
    counts
        Raw counts, where they are in a file of their own; None where `spots` has them.
    mpp
        µm per pixel of the full-resolution slide (`inputs.with_given_scale`) where it is stated by hand; None
        takes the image's, else the table's.
    """

    name: str
    patient: str
    image: Path
    spots: Path
    counts: Path | None = None
    mpp: float | None = None


@dataclass(frozen=True, slots=True)
class SectionLook:
    """What a look at a section's files found.

    Parameters
    ----------
    section
        The section, its µm/px settled.
    spots, genes
        How many spots have counts, and of how many genes; 0 where they could not be read.
    mpp, mpp_source
        µm per level-0 pixel of its image, which may be smaller than the full-resolution slide, and where
        that came from.
    problem
        Why it cannot be trained on, as one sentence; None where it can.
    doubts
        What to make sure of before training on it.
    """

    section: MeasuredSection
    spots: int = 0
    genes: int = 0
    mpp: float | None = None
    mpp_source: str = ""
    problem: str | None = None
    doubts: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class FitSettings:
    """How weights are fitted.

    Parameters
    ----------
    encoder
        An encoder of ``napari-flag encoders list``, weights (name or file) whose encoder is taken, or
        `TRAINED_HERE`, which trains one on these sections, and from scratch for each that is left out.
    genes
        Symbols to predict, or a file of them, one a line; None chooses `GENES` of high mean and variance.
    diffusion
        Whether to train the gene transformer too.
    seed
        Seeds everything.
    device
        "auto", "cpu", "cuda", …; where tiles are encoded.
    colours
        "scanned", or "srgb" to convert pixels by each slide's colour profile, as slides predicted with the
        weights will be; None takes those that the encoder's weights were trained on, else as scanned.
    keep_names
        Whether names that look like a patient's stay (see `named_in_results`).
    """

    encoder: str = DEFAULT_WEIGHTS
    genes: tuple[str, ...] | Path | None = None
    diffusion: bool = False
    seed: int = 0
    device: str = "auto"
    colours: Colours | None = None
    keep_names: bool = False

    def command(self, source: str, out: Path, leave_out: Sequence[str] = ()) -> str:
        """Return the command that fits the same weights, with files by their names alone."""
        words = ["napari-flag", "fit", source, "--out", out.name]
        if self.genes is not None:
            panel = name_of(self.genes, self.keep_names) if isinstance(self.genes, Path) else PANEL_FILE
            words += ["--genes", panel]
        if self.encoder != DEFAULT_WEIGHTS:
            words += ["--encoder", name_of(Path(self.encoder), self.keep_names)]
        if leave_out:
            words += ["--leave-out", *leave_out]
        if self.diffusion:
            words += ["--diffusion"]
        if self.colours is not None:
            words += ["--colours", self.colours]
        if self.seed:
            words += ["--seed", str(self.seed)]
        if self.keep_names:
            words += ["--keep-names"]
        return shlex.join(words)


@dataclass(frozen=True, slots=True)
class Fitted:
    """Weights that were fitted and written.

    Parameters
    ----------
    weights
        The file.
    scores
        A row per section left out, kind and method, a column per metric (see `summary`).
    card
        The data card in the file.
    genes
        The panel.
    sections
        Names of the sections trained on.
    page
        Markdown page of the scores; ``scores.json`` and ``sections.csv`` are beside it.
    """

    weights: Path
    scores: "pd.DataFrame"
    card: dict[str, Any]
    genes: tuple[str, ...]
    sections: tuple[str, ...]
    page: Path


class Unsaved(Protocol):
    """Weights that were fitted, scored and not yet written."""

    @property
    def scores(self) -> "pd.DataFrame":
        """As of `Fitted`."""
        ...

    def save(self, out: Path, run: Path | None = None, source: str | None = None) -> Steps[Fitted]:
        """Write the weights and their scores; see `flag_training.own_sections`."""
        ...


def why_no_training() -> str | None:
    """Return why nothing can be fitted here, with what to install, as one sentence; None where it can."""
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if not missing:
        return None
    return (
        f"Fitting weights needs packages that are not installed ({', '.join(missing)}); run: "
        'pip install "napari-flag[training]", then start again.'
    )


def require_training() -> None:
    """Raise a `UserError` that says what to install where a package that fitting needs is missing."""
    if reason := why_no_training():
        raise UserError(reason)


def load_training() -> Any:
    """Return the module that fits; loaded when it is needed, since it takes seconds.

    Raises
    ------
    UserError
        As `require_training`.
    """
    require_training()
    from napari_flag.encoders.foundation.architectures import load_triton_apart

    load_triton_apart()  # else the import can end a napari whose window was drawn
    return importlib.import_module(MODULE)


# --- finding sections ----------------------------------------------------------------------------


def find_sections(
    source: str | Path, mpp: float | None = None
) -> tuple[tuple[MeasuredSection, ...], tuple[str, ...]]:
    """Return the sections of a folder, or of a CSV file that lists them; their files are not read.

    Parameters
    ----------
    source
        A folder as `discovery.folders.discover` understands it, or a CSV with the header `COLUMNS`.
    mpp
        µm per pixel of the full-resolution slides, where a list does not state it; None takes the images'.

    Returns
    -------
    sections
        By name.
    notices
        What was not taken and why.

    Raises
    ------
    UserError
        When there is no such file or folder, a line names no file, or two sections have one name.
    """
    source = Path(source).expanduser()
    sections, notices = _listed(source, mpp) if source.is_file() else _found(source, mpp)
    refuse_same_names(source, [section.name for section in sections])
    return sections, notices


def why_too_few(sections: Sequence[MeasuredSection]) -> str | None:
    """Return why these are too few to fit, as one sentence; None where they are enough."""
    if len(sections) >= FEWEST:
        return None
    return (
        f"There {'is' if len(sections) == 1 else 'are'} {counted(len(sections), 'section')} with measured "
        f"counts to train on, and {FEWEST} are needed, so that one can be left out and scored: weights that "
        f"were never scored are not made; add sections, or list them in a CSV with the columns "
        f"{', '.join(COLUMNS)}."
    )


def named_in_results(
    sections: Sequence[MeasuredSection], keep: bool = False
) -> tuple[tuple[MeasuredSection, ...], tuple[str, ...]]:
    """Return sections under the names that weights, scores and lists of sections give them.

    Parameters
    ----------
    sections
        As they are called by their files, or by a person's list.
    keep
        Leave all names as they are.

    Returns
    -------
    renamed
        In their order; a name that looks like a patient's is replaced by one after the hash of the image,
        and a patient's by a number.
    notices
        What was replaced and how to keep it.
    """
    personal = [section for section in sections if has_personal_name(section)]
    if keep or not personal:
        return tuple(sections), ()
    patients = sorted({section.patient for section in personal if why_personal(section.patient)})
    numbers = {patient: f"{neutral_name(None)}-{n}" for n, patient in enumerate(patients, start=1)}
    renamed: list[MeasuredSection] = []
    for section in sections:
        name = name_in_results(section.image, name=section.name)
        if name != section.name:
            taken = {other.name for other in renamed}
            several = (name, *(f"{name}-{n}" for n in range(2, len(taken) + 3)))
            name = next(free for free in several if free not in taken)
        renamed.append(replace(section, name=name, patient=numbers.get(section.patient, section.patient)))
    said = (
        f"Names of {counted(len(personal), 'section')} or of their patients look like a patient's, so "
        "weights and scores call them anonymous-…; keep the names with --keep-names, or with the tick "
        "below the sections."
    )
    return tuple(renamed), (said,)


def has_personal_name(section: MeasuredSection) -> bool:
    """Whether the name of a section or of its patient looks like a patient's."""
    return any(why_personal(name) for name in (section.name, section.patient))


def sections_scored(sections: int) -> int:
    """Return how many of so many sections are left out in turn."""
    return len(range(0, sections, _every(sections)))


def to_score(names: Sequence[str]) -> tuple[str, ...]:
    """Return the names of the sections that are left out in turn."""
    return tuple(names[:: _every(len(names))])


def _every(sections: int) -> int:
    return max(-(-sections // MOST_SCORED), 1)


def write_list(sections: Iterable[MeasuredSection], path: Path) -> None:
    """Write sections as a list that `find_sections` reads, with whole paths."""
    check_writable(path)

    def write(place: Path) -> None:
        with place.open("w", newline="", encoding="utf-8") as file:
            rows = csv.writer(file)
            rows.writerow(COLUMNS)
            for section in sections:
                patient = "" if section.patient == NO_PATIENT else section.patient
                files = [section.image, section.spots, section.counts]
                cells = [
                    section.name,
                    patient,
                    *("" if one is None else str(one.resolve()) for one in files),
                    "" if section.mpp is None else f"{section.mpp:.12g}",
                ]
                rows.writerow(map(safe_cell, cells))

    write_whole(path, write)


def _found(folder: Path, mpp: float | None) -> tuple[tuple[MeasuredSection, ...], tuple[str, ...]]:
    found = discover(folder)
    sections, notices = [], list(found.notices)
    for section in found.sections:
        if section.table is None:
            notices.append(
                f"{section.slide.name} has no table of spots of its name, so it is left out; put the table "
                "beside it, or list the files in a CSV."
            )
            continue
        sections.append(
            MeasuredSection(section.name, NO_PATIENT, section.slide, section.table, section.measured, mpp)
        )
    return tuple(sections), tuple(notices)


def _listed(path: Path, mpp: float | None) -> tuple[tuple[MeasuredSection, ...], tuple[str, ...]]:
    return tuple(
        MeasuredSection(
            row.name,
            row.patient or NO_PATIENT,
            row.image,
            cast(Path, row.spots),  # `spots_needed` sees to it
            row.counts,
            mpp if row.mpp is None else row.mpp,
        )
        for row in read_listing(path, spots_needed=True)
    ), ()


def encoder_of(name: str) -> str:
    """Return the registry's name of the encoder that `FitSettings.encoder` stands for.

    Raises
    ------
    UserError
        When there is neither an encoder nor weights of that name.
    """
    from napari_flag.encoders.registry import list_encoders

    if name == TRAINED_HERE:
        return "embedded"
    if name in {row.name for row in list_encoders() if row.recipe is not None}:
        return name
    return Checkpoint.load(find_weights(name)).encoder


# --- looking at them -----------------------------------------------------------------------------


def look_at_all(sections: Sequence[MeasuredSection], encoder: str) -> Steps[tuple[SectionLook, ...]]:
    """Look at every section, as `look_at`; each look is the ``partial`` of a step as well."""
    looks = []
    for place, section in enumerate(sections):
        yield Step(FINDING, place, len(sections), "sections", detail=section.name)
        looks.append(look_at(section, encoder))
        yield Step(FINDING, place + 1, len(sections), "sections", partial=looks[-1])
    return tuple(looks)


def look_at(section: MeasuredSection, encoder: str = "embedded") -> SectionLook:
    """Read a section's image, spots and counts, and say what is wrong with them.

    Parameters
    ----------
    section
        The section.
    encoder
        Name of the encoder, which limits how coarse the image may be.
    """
    try:
        slide = open_slide(section.image)
        with slide:
            if section.mpp is not None:
                slide = slide.with_mpp(section.mpp)
            return _look(section, slide, encoder)
    except UserError as error:
        return SectionLook(section, problem=_of(section, str(error)))


def _look(section: MeasuredSection, slide: Slide, encoder: str) -> SectionLook:
    table, counts = _read(section, slide)
    if section.mpp is not None:
        slide = with_given_scale(slide, section.mpp, table)
    slide, doubts = settle_scale(slide, table)
    spots = table.spots
    look = SectionLook(
        replace(section, mpp=None if slide.mpp is None else slide.mpp * table.image_scale),
        counts.n_obs,
        counts.n_vars,
        slide.mpp,
        slide.mpp_source,
        None,
        tuple(_of(section, doubt) for doubt in doubts),
    )
    if slide.mpp is None:
        suggested = suggested_mpp(spots)
        hint = ""
        if suggested is not None:
            right = resolution(suggested * table.image_scale, TYPED, unit=False)
            hint = f", which the spots' array suggests to be {right}"
        return replace(
            look,
            problem=f"{section.name}: {section.image.name} does not say how many µm a pixel is wide, and "
            f"that is never guessed; state µm/px in the table{hint} (column mpp of a list, --mpp).",
        )
    if spots.pitch_um is None:
        return replace(
            look,
            problem=f"{section.name}: {section.spots.name} does not say how far its spots are apart, so no "
            "neighbours are known; use a table with array coordinates.",
        )
    if coarse := too_coarse(slide, spots, encoder, table.image_scale):
        return replace(look, problem=_of(section, coarse[0]), doubts=())
    return look


def _read(section: MeasuredSection, slide: Slide) -> "tuple[SpotTable, AnnData]":
    """Return the spots that have counts, and these."""
    table = finish(read_table(section.spots, slide))
    if section.counts is not None:
        table = matched(table, read_measured(section.counts), section.counts)
    elif table.measured is None and ending(section.spots) == ".h5ad":
        read_measured(section.spots)  # which says why there are none
    if table.measured is None:
        raise UserError(
            f"There are no measured counts with {section.spots.name}, so nothing can be learnt from it; "
            "leave the section out, or name its counts (column counts of a list)."
        )
    return table, table.measured


def _of(section: MeasuredSection, sentence: str) -> str:
    """Name the section at the head of a sentence that does not, and no button of the Predict dock."""
    sentence = sentence.replace("Estimate in step 1, ", "")
    return sentence if section.name in sentence else f"{section.name}: {sentence}"


# --- scores --------------------------------------------------------------------------------------

HELD_OUT: Final = "section"
"""Column of the section that was left out."""
OURS: Final = "FLAG"
"""Kind of what these weights gave: as an expectation, the same with its tiles shuffled, and as draws."""
X, SHUFFLED, DRAWS = "X", "X, tiles shuffled", "draws"
_RIVALS: Final = ("floor", "image-blind")
SHOWN: Final = (OURS, "control", "rival", "floor", "image-blind")
"""Kinds of methods in the order shown; landmarks that have seen the truth are left out."""


def summary(scores: "pd.DataFrame") -> "pd.DataFrame":
    """Return the mean over sections of each method, indexed by (kind, method), these weights first.

    Parameters
    ----------
    scores
        Of `Fitted`.
    """
    shown = scores[scores["kind"].isin(SHOWN)]
    means = shown.drop(columns=HELD_OUT).groupby(["kind", "method"], sort=False).mean()
    order = sorted(means.index, key=lambda row: SHOWN.index(row[0]))
    return means.loc[order]


def verdict(scores: "pd.DataFrame") -> tuple[str, str]:
    """Say in a sentence what the scores mean: ("notice" or "warning", sentence).

    Parameters
    ----------
    scores
        Of `Fitted`.
    """
    means = summary(scores)["PCC"]
    ours, shuffled = float(means[OURS, X]), float(means[OURS, SHUFFLED])
    rivals = means[[row for row in means.index if row[0] in _RIVALS]].dropna()
    kind, best = rivals.idxmax()
    sections = counted(scores[HELD_OUT].nunique(), "section")
    said = (
        f"On {sections} left out, X has PCC {score(ours, 'PCC')}, with the tiles shuffled between spots "
        f"{score(shuffled, 'PCC')}; the best simple method ({best}) has {score(float(rivals.max()), 'PCC')}"
    )
    if not ours > shuffled:  # NaN as well
        return (
            "warning",
            f"{said}: these weights learnt nothing from the picture; do not use them.",
        )
    if float(rivals.max()) > ours:
        blind = ", though it does not even look at the image" if kind == "image-blind" else ""
        return "warning", f"{said}{blind}, so it is ahead: believe these weights no further than it."
    return "notice", f"{said}. Sections of another patient may be predicted less well."
