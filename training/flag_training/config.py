"""Typed values of one training run, read from a TOML file that holds values only."""

import tomllib
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from flag_training.tile_encoder import TileEncoderConfig
from napari_flag.errors import UserError


@dataclass(frozen=True, slots=True)
class SlideEntry:
    """One training slide.

    Parameters
    ----------
    name, patient
        Section and patient; sections of one patient are cross-fitted whole.
    image, spots, counts
        Files, relative to the data folder.  Without `counts`, `spots` carries the expression.
    mpp
        µm per pixel where the image does not say it.
    """

    name: str
    patient: str
    image: str
    spots: str
    counts: str | None = None
    mpp: float | None = None


@dataclass(frozen=True, slots=True)
class FitConfig:
    """Values of the mean head and of the score loop.

    Parameters
    ----------
    views
        Feature sets per slide: the slide as it is, and views turned and re-stained as a whole.
    ridge_penalty
        On features standardised in the slide's frame, per view.
    branch_steps, branch_rate, branch_decay
        Steps, learning rate and weight decay of each graph branch.
    score_steps, score_rate, score_decay, score_batch
        The same of the gene DiT and the encoder of H_spatial; spots per step.
    ema
        Decay of the averaged weights that are kept.
    shrinkage
        Share of the diagonal in the residual covariance.
    alignment_targets, alignment_weight
        File of gene vectors (safetensors, one tensor per symbol) for FLAG's alignment loss, and λ;
        no file switches it off.
    seed
        Seeds everything.
    """

    views: int = 4
    ridge_penalty: float = 1000.0
    branch_steps: int = 200
    branch_rate: float = 1e-3
    branch_decay: float = 0.05
    score_steps: int = 1200
    score_rate: float = 1e-3
    score_decay: float = 0.02
    score_batch: int = 64
    ema: float = 0.995
    shrinkage: float = 0.1
    alignment_targets: str | None = None
    alignment_weight: float = 0.5
    seed: int = 0


@dataclass(frozen=True, slots=True)
class RunConfig:
    """All of one run.

    Parameters
    ----------
    name
        Name of the weights.
    panel
        File of gene symbols, one a line, relative to the data folder; None takes all genes.
    slides
        Training slides.
    encoder_slides
        Those whose images the tile encoder is trained on; empty takes all of them.
    network
        Sizes that differ from `FlagConfig`'s defaults.
    fit, encoder
        Values of the two trainings.
    samples
        Joint samples averaged into ``X``, chosen on inner validation sections; goes into the card.
    card
        What the data card says beyond what the run knows itself.
    """

    name: str
    panel: str | None
    slides: tuple[SlideEntry, ...]
    encoder_slides: tuple[str, ...]
    network: dict[str, Any]
    fit: FitConfig
    encoder: TileEncoderConfig
    samples: int
    card: dict[str, Any]

    def without(self, sections: tuple[str, ...]) -> "RunConfig":
        """Return the run without `sections`."""
        unknown = set(sections) - {slide.name for slide in self.slides}
        if unknown:
            raise UserError(
                f"The run has no section {', '.join(sorted(unknown))} to leave out; it has "
                f"{', '.join(slide.name for slide in self.slides)}."
            )
        return replace(
            self,
            slides=tuple(slide for slide in self.slides if slide.name not in sections),
            encoder_slides=tuple(name for name in self.encoder_slides if name not in sections),
        )

    def as_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)


def read_config(path: Path) -> RunConfig:
    """Read the TOML file `path`.

    Raises
    ------
    UserError
        When it is missing, not TOML, or has unknown or missing values.
    """
    try:
        values = tomllib.loads(path.read_text("utf-8"))
        return RunConfig(
            name=values["name"],
            panel=values.get("panel"),
            slides=tuple(SlideEntry(**entry) for entry in values["slides"]),
            encoder_slides=tuple(values.get("encoder_slides", ())),
            network=values.get("network", {}),
            fit=FitConfig(**values.get("fit", {})),
            encoder=TileEncoderConfig(**values.get("encoder", {})),
            samples=values.get("samples", 8),
            card=values.get("card", {}),
        )
    except OSError as error:
        raise UserError(f"The config {path} cannot be read ({error.strerror}); check the path.") from error
    except (tomllib.TOMLDecodeError, KeyError, TypeError) as error:
        raise UserError(
            f"The config {path} does not describe a training run ({error}); compare it with "
            "training/configs/her2st.toml."
        ) from error
