"""A cohort file: which slides, how they are split, and which genes are chosen.  Values only."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flag_training.store.hest import HestSamples
from flag_training.store.panels import PanelRule
from flag_training.store.sources import HUMAN, SlideSource
from flag_training.store.splits import PAPER_SHARES, Shares
from napari_flag.errors import UserError
from napari_flag.files import parse_toml, read_text
from napari_flag.slides.tiles import COARSEST


@dataclass(frozen=True, slots=True)
class SlideRow:
    """One slide of a cohort that is listed file by file; paths are relative to the data folder.

    Parameters
    ----------
    name, image, spots
        As in `SlideSource`.
    patient, counts, labels, mpp, mpp_from_spots, pitch_um, diameter_um
        As in `SlideSource`, where they are known.
    """

    name: str
    image: str
    spots: str
    patient: str | None = None
    counts: str | None = None
    labels: str | None = None
    mpp: float | None = None
    mpp_from_spots: bool = False
    pitch_um: float | None = None
    diameter_um: float | None = None

    def source(self, data: Path) -> SlideSource:
        """Return the slide with its files in the folder `data`."""
        return SlideSource(
            name=self.name,
            patient=self.patient,
            image=data / self.image,
            spots=data / self.spots,
            counts=data / self.counts if self.counts else None,
            labels=data / self.labels if self.labels else None,
            mpp=self.mpp,
            mpp_source="the cohort file",
            mpp_from_spots=self.mpp_from_spots,
            pitch_um=self.pitch_um,
            diameter_um=self.diameter_um,
        )


@dataclass(frozen=True, slots=True)
class SplitRule:
    """How slides are split.

    Parameters
    ----------
    shares
        Train : validation : test.
    seed
        Draws both splits.
    for_test
        Slides that are only ever tested on; their gene names are not read either.
    """

    shares: Shares = PAPER_SHARES
    seed: int = 0
    for_test: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class CohortFile:
    """What a cohort file says.

    Parameters
    ----------
    name
        Of the cohort.
    species
        Every slide's.
    hest
        Samples of HEST-1k; or None,
    slides
        with the slides listed here.
    split, panel
        Values.
    enlarge
        How much coarser than the encoder's µm/px a slide may be, where that is more than 1.5.
    gene_ids
        Ensembl ids and symbols (a ``features.tsv.gz`` of Space Ranger, or what else
        `gene_table.read_gene_ids` reads), relative to the data folder, where the counts have symbols only.
    """

    name: str
    species: str = HUMAN
    hest: HestSamples | None = None
    slides: tuple[SlideRow, ...] = ()
    split: SplitRule = field(default_factory=SplitRule)
    panel: PanelRule = field(default_factory=PanelRule)
    enlarge: float = COARSEST
    gene_ids: str | None = None


@dataclass(frozen=True, slots=True)
class StorePlan:
    """All that a store is made of, but its features.

    Parameters
    ----------
    name, species
        Of the cohort.
    sources
        Its slides.
    root
        Folder that recorded paths are relative to.
    split, panel
        Rules; no panel is chosen where that is None.
    panel_sees_all
        Let validation and test slides take part in choosing the genes, as the published code does.
    enlarge
        How much coarser than the encoder's µm/px a slide may be.
    gene_ids
        Symbol → Ensembl id, for counts with symbols only.
    """

    name: str
    species: str
    sources: tuple[SlideSource, ...]
    root: Path
    split: SplitRule = field(default_factory=SplitRule)
    panel: PanelRule | None = None
    panel_sees_all: bool = False
    enlarge: float = COARSEST
    gene_ids: Mapping[str, str] | None = None


def read_cohort(path: Path) -> CohortFile:
    """Read the cohort file `path`.

    Raises
    ------
    UserError
        When it is missing, not TOML, or has unknown or missing values.
    """
    try:
        return _cohort(parse_toml(read_text(path)))
    except OSError as error:
        raise UserError(
            f"The cohort file {path} cannot be read ({error.strerror}); check the path."
        ) from error
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"The cohort file {path} does not describe a cohort ({error}); compare it with "
            "training/cohorts/her2st.toml."
        ) from error


def _cohort(values: dict[str, Any]) -> CohortFile:
    hest = values.pop("hest", None)
    rows = values.pop("slides", [])
    if (hest is None) == (not rows):
        raise ValueError("it needs either [hest] or [[slides]]")
    split = SplitRule(**_tuples(values.pop("split", {})))
    if len(split.shares) != 3 or min(split.shares) < 0 or split.shares[0] <= 0:
        raise ValueError("split.shares are three numbers, the first above 0")
    return CohortFile(
        hest=None if hest is None else HestSamples(**_tuples(hest)),
        slides=tuple(SlideRow(**row) for row in rows),
        split=split,
        panel=PanelRule(**values.pop("panel", {})),
        **values,
    )


def _tuples(values: Mapping[str, Any]) -> dict[str, Any]:
    return {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}
