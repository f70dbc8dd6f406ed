"""Typed values of one training run, read from a TOML file that holds values only."""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Final, Literal, TypeVar, get_args, get_origin, get_type_hints

from flag_training.stages.tile_encoder import TileEncoderConfig
from napari_flag.errors import UserError
from napari_flag.files import parse_toml, place_in, read_text
from napari_flag.formatting import first_of
from napari_flag.model.config import FlagConfig
from napari_flag.slides.colours import SCANNED, Colours, colours_of

T = TypeVar("T")
RECIPE: Final = Path(__file__).with_name("recipe.toml")
"""Sizes and values of the shipped weights, which their config extends too."""
_OF_SLIDES: Final = ("features", "genes", "slides", "patients", "members")
"""Sizes of a network that follow from what it is trained on."""
_MOST: Final = 2**32
"""Beyond any whole number of a config, seeds too."""
_KINDS: Final[dict[Any, str]] = {
    int: "a whole number, not below 0 nor absurd",
    float: "a number",
    str: "a text",
    bool: "true or false",
    tuple: "a list of texts",
    NoneType: "nothing",
}
"""What a person calls the kinds of values."""


@dataclass(frozen=True, slots=True)
class SlideEntry:
    """One training slide.

    Parameters
    ----------
    name, patient
        Section and patient; sections of one patient are cross-fitted whole.
    image, spots, counts
        Files, relative to the data folder.  Without `counts`, `spots` holds the expression.
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
    kernel_penalty, kernel_penalty_growth
        α and β of the kernel branch: the j-th principal component of expression has the penalty α (1 + β j).
    kernel_sharpness
        Median squared distance between spots, over the kernel's bandwidth.
    kernel_linear
        Weight of the kernel's linear term.
    branch_steps, branch_rate, branch_decay
        Steps, learning rate and weight decay of each graph branch.
    score_steps, score_rate, score_decay, score_batch
        The same of the gene DiT and the encoder of H_spatial; spots denoised per batch of slides.
    slides_per_batch
        Slides encoded together, whole; 0 takes all.  An epoch visits every slide once.
    accumulate
        Batches whose gradients make one step; the last step of an epoch takes those that are left.
    warm_steps, clip
        Steps of linear warm-up before the cosine decay; largest norm of a step's gradient.
    validation, validation_share
        Sections to hold out of everything for early stopping, by name or as a share of the slides (drawn
        by `seed`); neither switches it off.  Never the test sections.
    check_every, patience
        Steps between validations on those sections; validations without improvement that end the training.
    ema
        Decay of the averaged weights that are kept.
    latent_samples
        Posterior draws of each training spot's latents that the score loop learns from.
    shrinkage
        Share of the diagonal in the residual covariance.
    alignment_targets, alignment_cells, alignment_weight
        Gene vectors for FLAG's gene-level and cell-level alignment loss, and λ: a file (one vector per
        gene) or a folder (vectors per spot) of ``napari-flag gene-targets``; none, or "", switches it off.
        ``{left_out}`` in a name stands for the sections left out, joined by ``-``, or ``nothing``.
    alignment_centred
        Whether each gene's mean is subtracted from the targets (see `stages.alignment`);
        False is the published loss.
    alignment_present_only
        Whether genes without counts in a spot are masked there, as published.
    left_out, left_out_patients
        Sections, and patients whole, that `RunConfig.without` took away; not for files.
    seed
        Seeds everything.
    """

    views: int = 4
    kernel_penalty: float = 0.5
    kernel_penalty_growth: float = 0.5
    kernel_sharpness: float = 2.0
    kernel_linear: float = 0.3
    branch_steps: int = 300
    branch_rate: float = 1e-3
    branch_decay: float = 0.05
    score_steps: int = 1200
    score_rate: float = 1e-3
    score_decay: float = 0.02
    score_batch: int = 64
    slides_per_batch: int = 0
    accumulate: int = 1
    warm_steps: int = 50
    clip: float = 1.0
    validation: tuple[str, ...] = ()
    validation_share: float = 0.0
    check_every: int = 50
    patience: int = 10
    ema: float = 0.995
    latent_samples: int = 8
    shrinkage: float = 0.1
    alignment_targets: str | None = None
    alignment_cells: str | None = None
    alignment_weight: float = 0.5
    alignment_centred: bool = False
    alignment_present_only: bool = False
    left_out: tuple[str, ...] = ()
    left_out_patients: tuple[str, ...] = ()
    seed: int = 0


@dataclass(frozen=True, slots=True)
class MachineConfig:
    """Devices, precision and logs of a run; nothing here changes the objective.

    Parameters
    ----------
    accelerator
        ``"auto"`` takes CUDA where there is one, else the CPU; ``"cuda"`` or ``"cpu"`` insist.
    devices
        Processes on this machine, one device each; ``torchrun`` says it itself.
    precision
        ``"32"``, ``"bf16-mixed"`` or ``"16-mixed"``; the CPU computes in 32.
    save_every
        Steps between training states.
    tensorboard
        Whether to log for TensorBoard as well as to CSV files.
    """

    accelerator: str = "auto"
    devices: int = 1
    precision: str = "32"
    save_every: int = 100
    tensorboard: bool = False


@dataclass(frozen=True, slots=True)
class StoreConfig:
    """A store of ``napari-flag prepare`` that a run reads its slides from.

    Parameters
    ----------
    path
        Its folder, relative to the data folder.
    encoder
        Whose features to take.
    panel
        Which of its panels to predict; "" takes all genes.
    split
        By "slides" or by "patients": the validation part stops early and the test part is left out; ""
        trains on all.
    """

    path: str
    encoder: str
    panel: str = ""
    split: str = "slides"


@dataclass(frozen=True, slots=True)
class PriorConfig:
    """Counts of sections whose images are not needed.

    Parameters
    ----------
    counts
        Pattern of the files, relative to the data folder, e.g. ``counts/*.tsv.gz``; a file is named after its
        section.
    patient_letters
        How many leading letters of a section's name are its patient's.
    leave_out
        Sections whose counts are not read.
    """

    counts: str
    patient_letters: int = 1
    leave_out: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class RunConfig:
    """All of one run.

    Parameters
    ----------
    name
        Name of the weights, and of the folder of the run.
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
    prior
        Counts of further sections, without images, that say how levels differ between patients.
    card
        What the data card says beyond what the run knows itself; of another form of FLAG, such as an
        ablation, what that is called (``method``).
    machine
        What it runs on.
    colours
        Of the slides' pixels, and so of those of slides predicted with the weights: "scanned", or "srgb",
        converted by each slide's colour profile.  A store has its own.
    store
        Where the slides are instead of `slides` and `panel`; `cohort.with_store` fills them in.
    listed
        Names of all sections, before `without` took any away; not for files.
    """

    name: str
    panel: str | None
    slides: tuple[SlideEntry, ...]
    encoder_slides: tuple[str, ...]
    network: dict[str, Any]
    fit: FitConfig
    encoder: TileEncoderConfig
    card: dict[str, Any]
    machine: MachineConfig = MachineConfig()
    colours: Colours = SCANNED
    store: StoreConfig | None = None
    prior: PriorConfig | None = None
    listed: tuple[str, ...] = ()

    def number_of(self, section: str) -> int:
        """Return the place of a section among all of the run, those that were left out too."""
        return (self.listed or tuple(slide.name for slide in self.slides)).index(section)

    def without(self, sections: tuple[str, ...]) -> "RunConfig":
        """Return the run without `sections`."""
        unknown = set(sections) - {slide.name for slide in self.slides}
        if unknown:
            raise UserError(
                f"The run has no section {', '.join(sorted(unknown))} to leave out; it has "
                f"{', '.join(slide.name for slide in self.slides)}."
            )
        validation = tuple(name for name in self.fit.validation if name not in sections)
        if self.fit.validation and not validation:
            raise UserError(
                f"Leaving out {', '.join(sections)} leaves no section to stop early by; name others under "
                "validation in the config."
            )
        kept = tuple(slide for slide in self.slides if slide.name not in sections)
        removed = {slide.patient for slide in self.slides} - {slide.patient for slide in kept}
        fit = replace(
            self.fit,
            validation=validation,
            left_out=tuple(sorted({*self.fit.left_out, *sections})),
            left_out_patients=tuple(sorted({*self.fit.left_out_patients, *removed})),
        )
        return replace(
            self,
            fit=fit,
            slides=kept,
            encoder_slides=tuple(name for name in self.encoder_slides if name not in sections),
            listed=self.listed or tuple(slide.name for slide in self.slides),
        )

    def as_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return asdict(self)


def read_config(path: Path) -> RunConfig:
    """Read the TOML file `path`; it may extend another: ``extends = "../her2st.toml"``.

    Raises
    ------
    UserError
        When it is missing, not TOML, or has unknown or missing values.
    """
    values = _read_values(path)
    if "method" in values:
        raise UserError(
            f"{path} describes a method and no run; give the config of a run, and the method with --method "
            f"(or --baselines of evaluate): napari-flag train RUN.toml --method {path}."
        )
    try:
        slides = () if "store" in values else tuple(_slide_of(entry) for entry in values["slides"])
        json.dumps(_table(values, "card"), allow_nan=False)  # as the weights will state it
        config = RunConfig(
            name=values["name"],
            panel=values.get("panel"),
            slides=slides,
            encoder_slides=_plain(values.get("encoder_slides", [])),
            network=network_of(_table(values, "network")),
            fit=_fit_of(values),
            encoder=typed(TileEncoderConfig, _table(values, "encoder"), "encoder"),
            card=_table(values, "card"),
            machine=typed(MachineConfig, _table(values, "machine"), "machine"),
            colours=colours_of(values.get("colours"), f"The config {path}"),
            store=typed(StoreConfig, _table(values, "store"), "store") if "store" in values else None,
            prior=typed(PriorConfig, _table(values, "prior"), "prior") if "prior" in values else None,
        )
        _refuse_names(config)
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"The config {path} does not describe a training run ({error}); compare it with "
            "training/configs/her2st.toml."
        ) from error
    return config


def _refuse_names(config: RunConfig) -> None:
    """Raise a `TypeError` or `ValueError` where names are of another kind, or cannot be what they name."""
    for what, text in (("name", config.name), ("panel", config.panel)):
        if not isinstance(text, str) and not (what == "panel" and text is None):
            raise TypeError(f"{what} is no text")
    if place_in(Path(), config.name).name != config.name:
        raise ValueError(f'its name "{config.name}" cannot be that of a folder and of a file')
    names = [slide.name for slide in config.slides]
    if len(set(names)) < len(names):
        raise ValueError("two slides have one name")
    if not isinstance(config.encoder_slides, tuple):
        raise TypeError("encoder_slides is no list")
    unknown = [name for name in config.encoder_slides if config.store is None and name not in names]
    if unknown:
        raise ValueError(f"encoder_slides names {unknown[0]}, which is none of its slides")


def _slide_of(entry: Any) -> SlideEntry:
    return typed(SlideEntry, _mapping(entry, "an entry of slides"), "slides")


def _table(values: Mapping[str, Any], name: str) -> dict[str, Any]:
    return _mapping(values.get(name, {}), name)


def _mapping(value: Any, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise TypeError(f"{what} is no table")
    return value


def typed(kind: type[T], values: Mapping[str, Any], table: str) -> T:
    """Return the values of one table, each of the kind that it is stated to be.

    Raises
    ------
    TypeError
        When one is of another kind, lacks, or is not known.
    """
    plain = {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
    refuse_kinds(kind, plain, table)
    return kind(**plain)


def refuse_kinds(kind: type, values: Mapping[str, Any], table: str) -> None:
    """Raise a `TypeError` where a value of a table is of another kind than the field of that name."""
    hints = get_type_hints(kind)
    for name, value in values.items():
        if name in hints and not _fits(value, hints[name]):
            shown = first_of([str(value)], 1)
            raise TypeError(f"{name} under {table} is “{shown}” and should be {_described(hints[name])}")


def _described(hint: Any) -> str:
    """Return what a person calls a kind: "a number or nothing"."""
    if isinstance(hint, UnionType):
        return " or ".join(map(_described, get_args(hint)))
    if get_origin(hint) is Literal:
        return " or ".join(f'"{value}"' for value in get_args(hint))
    return _KINDS.get(get_origin(hint) or hint, str(hint))


def _fits(value: Any, hint: Any) -> bool:
    """Return whether a value is of a kind; numbers are known, whole ones neither negative nor absurd."""
    if isinstance(hint, UnionType):
        return any(_fits(value, each) for each in get_args(hint))
    if get_origin(hint) is Literal:
        return value in get_args(hint)
    if get_origin(hint) is tuple:
        return isinstance(value, tuple) and all(_fits(each, get_args(hint)[0]) for each in value)
    if hint is NoneType:
        return value is None
    if hint in (int, float):
        if isinstance(value, bool) or not isinstance(value, int | float):
            return False
        return math.isfinite(value) if hint is float else isinstance(value, int) and 0 <= value < _MOST
    return isinstance(value, hint)


def network_of(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the sizes of a network that a config states.

    Raises
    ------
    TypeError
        When one is of another kind or not known.
    ValueError
        When a width cannot be divided among its heads.
    """
    known: dict[str, Any] = {
        field.name: field.default for field in fields(FlagConfig) if field.name not in _OF_SLIDES
    }
    if unknown := [name for name in values if name not in known]:
        raise TypeError(f"network has no value {unknown[0]}")
    refuse_kinds(FlagConfig, values, "network")
    sizes = known | dict(values)
    for width, heads in (("width", "heads"), ("context_width", "context_heads")):
        if not 0 < sizes[heads] <= sizes[width] or sizes[width] % sizes[heads]:
            raise ValueError(f"{width} {sizes[width]} cannot be divided among {heads} {sizes[heads]}")
    return dict(values)


def describes_method(path: Path) -> bool:
    """Return whether the TOML file `path` describes a method (`methods.published`) and no run."""
    return "method" in _read_values(path)


def read_recipe() -> tuple[dict[str, Any], FitConfig]:
    """Return the network's sizes and the values of the fit that the shipped weights have."""
    values = _read_values(RECIPE)
    return values["network"], _fit_of(values)


def _fit_of(values: dict[str, Any]) -> FitConfig:
    return typed(FitConfig, {name: _plain(value) for name, value in _table(values, "fit").items()}, "fit")


def _plain(value: Any) -> Any:
    """Turn lists into tuples, and "" into None: how a file switches off what the one it extends names."""
    return tuple(value) if isinstance(value, list) else None if value == "" else value


def _read_values(path: Path, below: tuple[Path, ...] = ()) -> dict[str, Any]:
    """Return the values of `path` over those of the file it extends, table by table."""
    if path.resolve() in below:
        raise UserError(f"The config {path} extends itself; take extends out of one of the files.")
    try:
        values = parse_toml(read_text(path))
    except OSError as error:
        raise UserError(f"The config {path} cannot be read ({error.strerror}); check the path.") from error
    except ValueError as error:
        raise UserError(
            f"The config {path} is no TOML file that can be read ({error}); correct it there."
        ) from error
    if "extends" not in values:
        return values
    base = _read_values(path.parent / str(values.pop("extends")), (*below, path.resolve()))
    return _over(base, values)


def _over(base: dict[str, Any], values: dict[str, Any]) -> dict[str, Any]:
    merged = base | values
    for key in base.keys() & values.keys():
        if isinstance(base[key], dict) and isinstance(values[key], dict):
            merged[key] = _over(base[key], values[key])
    return merged
