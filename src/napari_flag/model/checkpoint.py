"""One safetensors file = weights + method + sizes + genes + encoder + data card.

What does not fit is refused: a file of another kind, of a newer format, or with another encoder.
"""

import json
import math
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar

from platformdirs import user_data_path

from napari_flag import keys
from napari_flag.errors import UserError
from napari_flag.files import ending, files_ending, parse_json, place_in, sha256_of, write_whole
from napari_flag.formatting import counted, entry, entry_name, first_of, legible, score, whole
from napari_flag.keys import DEFAULT_WEIGHTS
from napari_flag.slides.colours import Colours, colours_of

if TYPE_CHECKING:
    import torch

    from napari_flag.encoders.registry import Encoder
    from napari_flag.model.out_of_distribution import OutOfDistributionScore


T = TypeVar("T")
Module = TypeVar("Module", bound="torch.nn.Module")

FORMAT: Final = 2
"""Version of the header; a file of another is refused."""
FLAG: Final = "flag"
"""Name of the method where the header names none, as in weights written before there were others."""
_FLAG_CALLED: Final = "FLAG"
"""What people call it."""
COMMON_SIZE: Final = 10_000
"""Up to which a header may count anything, layers, widths or steps; beyond, some tensor must be as long."""
MISFIT: Final = (
    ArithmeticError, AssertionError, AttributeError, LookupError, MemoryError, RuntimeError, TypeError,
    ValueError,
)  # fmt: skip
"""What building a network from sizes that a file states, or filling it, may raise."""
_KEY: Final = "napari_flag"
"""Key of the header in the file's metadata."""
_ENCODER: Final = "encoder."
_SCORE: Final = "familiarity."
"""Prefixes of tensors that are not the method's own."""
_ABOVE_0: Final = (
    "bandwidth", "eigenvalues", "feature_spread", "length", "lift", "prior_scale", "scale", "slide_scale",
    "spread",
)  # fmt: skip
"""Last names of buffers that are widths; below or at 0 a network would predict, and mean nothing."""
_FROM_0: Final = ("sd_factor", "spread")
"""FLAG's own factors of what is drawn, by their whole names, which are 0 where nothing varies."""
_LENGTHS: Final[dict[str, tuple[float, float]]] = {
    "pitch_um": (0.1, 1e5), "diameter_um": (0.1, 1e5), keys.MPP: (1e-3, 1e3),
}  # fmt: skip
"""Lengths that a card may state of training slides: from a tenth of a micrometre to a decimetre; of a pixel
from a nanometre to a millimetre."""
_DEEPEST: Final = 32
"""Lists and tables within each other in a card."""
_LARGEST: Final = 10**20
"""Whole numbers of a card lie below: seeds of 64 bits do."""
_NO_TEXT: Final = re.compile("[\0\ud800-\udfff]")
"""Zero bytes and halves of characters, which no prediction can hold."""
_NO_SCORE: Final = "none: these weights cannot say how far a slide lies from their training tissue"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Weights read from a file, with their sizes, genes and data card.

    Parameters
    ----------
    name
        The file's name without its suffix.
    sha256
        Of the whole file.
    genes
        Gene symbols in the order of the model's outputs.
    card
        The data card: title, method (what it is called; FLAG without), tissue, patients, sections,
        section_sha256 (`keys.CARD_HASHES`),
        array {technology, pitch_um, diameter_um, lattice} and um_per_px (`trained_array`), colours, encoder
        {name, licence, fingerprint of a foundation encoder}, split, seed, command, command_sha256,
        held_out_scores, licence, not_for, and the sampler {solver, steps}.
    config
        Sizes of the network (for FLAG, `FlagConfig` as a dict); ``features`` is the length of a feature
        vector, whatever the method.
    encoder
        Name of the encoder the features must come from.
    tensors
        Parameters under ``<method>.…``; for encoders stored with the weights, ``encoder.…``; where the
        weights can score how far a slide lies from their training tissue, ``familiarity.…``.
    method
        A name in `methods.predictor.METHODS`.
    file
        Where they were read from.
    """

    name: str
    sha256: str
    genes: tuple[str, ...]
    card: dict[str, Any]
    config: dict[str, Any]
    encoder: str
    tensors: "dict[str, torch.Tensor]" = field(repr=False)
    method: str = FLAG
    file: Path = Path()

    @classmethod
    def load(cls, path: Path | str) -> "Checkpoint":
        """Read and check the weights file `path`.

        Raises
        ------
        UserError
            When it is not there, not a safetensors file, damaged, not ours, or of another format.
        """
        path = Path(path)
        found = cls.look(path)
        tensors = _read(path, _tensors_of)
        if broken := next((key for key, tensor in tensors.items() if not _is_sound(key, tensor)), None):
            raise UserError(
                f"{path} holds values that are not numbers in {broken[:80]}, so it predicts nothing; "
                "get the file again."
            )
        return replace(found, tensors=tensors)

    @classmethod
    def look(cls, path: Path) -> "Checkpoint":
        """Read and check all of a weights file but its tensors, which needs no torch.

        Raises
        ------
        UserError
            As `load`, where the header shows it.
        """
        header, names = _read(path, _header_of)
        made_in = first_of([header.get("format", "")], 1)
        if _is_whole(header.get("format")) and header["format"] > FORMAT:
            raise UserError(
                f"{path} was made by a newer napari-flag (format {made_in}, this one "
                f"reads {FORMAT}); update napari-flag."
            )
        if _is_whole(header.get("format")) and header["format"] < FORMAT:
            raise UserError(
                f"{path} was made by an earlier napari-flag (format {made_in}, this one reads "
                f"{FORMAT}), whose expectation was sharpened and whose draws were no counts; get the weights "
                "again, or train them again with napari-flag train."
            )
        missing = sorted(name for name, fits in _HEADER.items() if not fits(header.get(name)))
        if missing or not names:
            raise UserError(
                f"{path} holds no napari-flag weights (its header lacks "
                f"{', '.join(missing) or 'tensors'}); choose a file made by "
                "napari-flag train."
            )
        if fault := _fault_of(header["card"]) or _fault_of_sizes(header["config"], header["genes"]):
            raise UserError(
                f"{path} cannot be right: {fault}; get the file again, or train the weights again."
            )
        return cls(
            name=path.stem,
            sha256=sha256_of(path),
            genes=tuple(header["genes"]),
            card=_with_score_entry(header["card"], names),
            config=header["config"],
            encoder=header["encoder"],
            tensors={},
            method=str(header.get("method", FLAG)),
            file=path,
        )

    @property
    def colours(self) -> Colours:
        """Colours of the training slides, which the slides predicted get too."""
        return colours_of(self.card.get(keys.COLOURS), f'The card of the weights "{self.name}"')

    @property
    def method_name(self) -> str:
        """What the method is called, such as "FLAG", "FLAG without graph" or "TRIPLEX"."""
        return _method_name(self.card, self.method)

    def restore(
        self, build: "Callable[[dict[str, Any]], Module]", device: "torch.device | str" = "cpu"
    ) -> "Module":
        """Return the network that `build` makes of these sizes, with these parameters, ready on `device`.

        Raises
        ------
        UserError
            When the parameters do not fit the network of this version.
        """
        from napari_flag.encoders.foundation.state_dicts import refuse_other_kinds

        own = self.part(f"{self.method}.")
        try:
            with no_larger_than(self.config, own):
                network = build(self.config)
            refuse_other_kinds(network, own)
            network.load_state_dict(own)
            _refuse_no_widths(network)
        except MISFIT as error:
            said = legible((str(error).splitlines() or [type(error).__name__])[0][:200])
            raise UserError(
                f'The weights "{self.name}" do not fit the network of this napari-flag version '
                f"({said}); get matching weights or update napari-flag."
            ) from error
        return network.eval().to(device)

    def build_encoder(self, device: "torch.device | str" = "cpu") -> "Encoder":
        """Return the encoder these weights were trained on, ready on `device`.

        Raises
        ------
        UserError
            When it is a foundation encoder whose weights are not on this computer (how to get
            them), or are not those this model was trained with.
        """
        from napari_flag.encoders.registry import build_encoder, find_encoder, open_encoder

        row = find_encoder(self.encoder)
        if row.recipe is None:
            return build_encoder(self.encoder, self.part(_ENCODER), device)
        encoder = open_encoder(self.encoder, device)
        if encoder.weights != _encoder_fingerprint(self.card):
            raise UserError(
                f'The weights "{self.name}" were trained with another version of {row.title} than the one '
                f"on this computer ({encoder.weights[:12]}…), so its features would mean something "
                "else; get the version they name, or train again with this one."
            )
        return encoder

    def build_out_of_distribution_score(self) -> "OutOfDistributionScore | None":
        """Return what scores how far a slide lies from the training tissue; None where weights lack it.

        Raises
        ------
        UserError
            When these weights have a part of it, or one for other features.
        """
        from napari_flag.model.out_of_distribution import OutOfDistributionScore

        tensors = self.part(_SCORE)
        return OutOfDistributionScore.from_tensors(tensors, self.config["features"]) if tensors else None

    def part(self, prefix: str) -> "dict[str, torch.Tensor]":
        """Return the tensors whose keys start with `prefix`, by the rest of their keys."""
        return {k.removeprefix(prefix): v for k, v in self.tensors.items() if k.startswith(prefix)}


def _is_names(value: object) -> bool:
    """Return whether `value` is a list of texts, each once."""
    if not isinstance(value, list) or not value or not all(isinstance(name, str) for name in value):
        return False
    return len(set(value)) == len(value) and not any(map(_NO_TEXT.search, value))


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


_HEADER: Final[dict[str, Callable[[object], bool]]] = {
    "card": lambda value: isinstance(value, dict),
    "config": lambda value: isinstance(value, dict),
    "encoder": lambda value: isinstance(value, str),
    "format": _is_whole,
    "genes": _is_names,
}
"""What the header must hold, and of what kind."""


def _fault_of(card: dict[str, Any]) -> str | None:
    """Return why no data card states what this one does; None where nothing is wrong."""
    waiting: list[tuple[Any, int]] = [(card, 0)]
    while waiting:
        value, depth = waiting.pop()
        if depth > _DEEPEST:
            return f"its data card is nested more than {_DEEPEST} levels deep"
        if isinstance(value, dict | list):
            parts = (*value, *value.values()) if isinstance(value, dict) else value
            waiting += [(part, depth + 1) for part in parts]
        elif isinstance(value, str) and _NO_TEXT.search(value):
            return f"its data card holds a text with a zero byte or half a character ({first_of([value], 1)})"
        elif _is_whole(value) and not -_LARGEST < value < _LARGEST:
            return f"its data card states the number {first_of([value], 1)}"
    for name in ("sections", keys.CARD_HASHES):
        stated = card.get(name)
        listed = stated if isinstance(stated, list) else [stated or ""]
        if not all(isinstance(each, str) for each in listed):
            return f"its data card states {entry_name(name)} that are no list of texts"
    array = card.get("array")
    for name, (least, most) in _LENGTHS.items():
        table = card if name == keys.MPP else array if isinstance(array, dict) else {}
        for each in _listed(table.get(name), int | float):
            if not least <= each <= most:
                return f"its data card states {each:g} as {entry_name(name)}, which no slide has"
    return None


def _fault_of_sizes(config: dict[str, Any], genes: list[str]) -> str | None:
    """Return why no network of these sizes has as many genes as are named."""
    stated = config.get("genes", len(genes))
    if stated == len(genes):
        return None
    return f"it names {counted(len(genes), 'gene')}, and its network has {first_of([stated], 1)}"


def _refuse_no_widths(network: "torch.nn.Module") -> None:
    """Raise a ValueError where what scales or divides in `network` is not above 0."""
    for name, buffer in network.named_buffers():
        if name in _FROM_0:
            wrong = buffer < 0
        elif name.rpartition(".")[2] in _ABOVE_0:
            wrong = buffer <= 0
        else:
            continue
        if bool(wrong.any()):
            raise ValueError(f"{name} is a width, and not above 0")


def _is_sound(key: str, tensor: "torch.Tensor") -> bool:
    """Return whether values are numbers; spreads of the score are infinite where a feature never varies."""
    if not tensor.is_floating_point():
        return True
    return not bool(tensor.isnan().any() if key.startswith(_SCORE) else (~tensor.isfinite()).any())


@contextmanager
def no_larger_than(config: dict[str, Any], tensors: "dict[str, torch.Tensor]") -> Iterator[None]:
    """Stop a network from being built that states larger sizes, or has more parameters, than its file holds.

    Parameters
    ----------
    config
        Its sizes, as a file states them.
    tensors
        What its file holds.

    Raises
    ------
    ValueError
        At the first that is one too many.
    """
    from torch.nn.modules import module

    values = sum(tensor.numel() for tensor in tensors.values())
    left = [2 * len(tensors) + 1_000, 2 * values + 50_000_000]  # what is not stored is built too

    def count(_module: Any, _name: str, parameter: Any) -> None:
        if parameter is None:
            return
        left[0] -= 1
        left[1] -= parameter.numel()
        if min(left) < 0:
            raise ValueError("it states a larger network than its tensors are of")

    def widest(value: object) -> int:
        if isinstance(value, dict | list):
            return max(map(widest, value.values() if isinstance(value, dict) else value), default=0)
        return abs(value) if isinstance(value, int) else 0

    sides = [side for tensor in tensors.values() for side in tensor.shape]
    if widest(config) > max(COMMON_SIZE, len(tensors), *sides, 0):
        raise ValueError(f"it states a size of {whole(widest(config))}")
    handles = [
        module.register_module_parameter_registration_hook(count),
        module.register_module_buffer_registration_hook(count),
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _method_name(card: dict[str, Any], method: str) -> str:
    return str(card.get(keys.CARD_METHOD) or (_FLAG_CALLED if method == FLAG else method))


def _with_score_entry(card: dict[str, Any], names: list[str]) -> dict[str, Any]:
    """Return the card; of weights without an out-of-distribution score it says so."""
    if any(name.startswith(_SCORE) for name in names):
        return card
    return card | {keys.CARD_SCORE: _NO_SCORE}


def describe_entries(card: dict[str, Any]) -> list[tuple[str, str]]:
    """Return (name, text) of each entry of a data card, for a person to read.

    Tables within tables are indented, a row each.  The training values are left out: they are many, and
    stay in the file.
    """
    return [
        row
        for key, value in card.items()
        if key != "values"
        for row in _rows(key, value, _scores if key == keys.CARD_HELD_OUT else entry)
    ]


def _rows(
    name: str, value: object, write: Callable[[object], str], indent: str = ""
) -> Iterator[tuple[str, str]]:
    shown = indent + entry_name(name)
    if not isinstance(value, dict) or not any(isinstance(inner, dict) for inner in value.values()):
        yield shown, write(value)
        return
    yield shown, ""
    for key, inner in value.items():
        several = inner if isinstance(inner, list | tuple) else [inner]
        for each in several:
            yield from _rows(key, each, write, indent + "  ")


def _scores(value: object) -> str:
    """Say what sections left out scored; what is no table of scores as any entry."""
    if not isinstance(value, dict):
        return entry(value)
    known = {metric: math.nan if held is None else held for metric, held in value.items()}
    return ", ".join(
        f"{entry_name(metric)} {score(held, metric) if isinstance(held, int | float) else entry(held)}"
        for metric, held in known.items()
    )


class SavedNetwork(Protocol):
    """A network that knows its own sizes, such as `Flag`."""

    @property
    def config(self) -> Any:
        """Its sizes, a dataclass with a field ``features``."""
        ...

    def state_dict(self) -> "dict[str, torch.Tensor]":
        """Return its tensors."""
        ...


def save_checkpoint(
    path: Path,
    network: SavedNetwork,
    encoder_tensors: "dict[str, torch.Tensor]",
    *,
    encoder: str,
    genes: tuple[str, ...],
    card: dict[str, Any],
    out_of_distribution: "OutOfDistributionScore | None" = None,
    method: str = FLAG,
) -> None:
    """Write a weights file, whole or not at all.

    Parameters
    ----------
    path
        The file.
    network
        The trained network.
    encoder_tensors
        Of the encoder stored with the weights; empty for a foundation encoder.
    encoder
        Name of the encoder.
    genes
        In the order of the outputs.
    card
        The data card; for a foundation encoder ``card["encoder"]["fingerprint"]``, the SHA-256 of its
        weights, must be there.
    out_of_distribution
        What lets the weights score how far a slide lies from their training tissue.
    method
        A name in `methods.predictor.METHODS`.
    """
    from safetensors.torch import save

    if not encoder_tensors and not _encoder_fingerprint(card):
        raise ValueError(f"neither tensors nor the fingerprint of the encoder {encoder} were given")

    tensors = {f"{method}.{k}": v.contiguous() for k, v in network.state_dict().items()}
    tensors |= {f"{_ENCODER}{k}": v.contiguous() for k, v in encoder_tensors.items()}
    if out_of_distribution is not None:
        tensors |= {f"{_SCORE}{k}": v.contiguous() for k, v in out_of_distribution.tensors().items()}
    header = {
        "format": FORMAT,
        "genes": list(genes),
        "card": card,
        "config": asdict(network.config),
        "encoder": encoder,
        "method": method,
    }

    def write(place: Path) -> None:
        place.write_bytes(save(tensors, metadata={_KEY: json.dumps(header)}))

    path.parent.mkdir(parents=True, exist_ok=True)
    write_whole(path, write)


def _encoder_fingerprint(card: dict[str, Any]) -> str:
    """Return the SHA-256 of the weights of the foundation encoder a card names, "" where it names none."""
    encoder = card.get("encoder")
    return str(encoder.get("fingerprint", "")) if isinstance(encoder, dict) else ""


def list_weights() -> list[tuple[str, Path]]:
    """Return (name, file) of the bundled weights, the default first, then of those imported."""
    bundled = Path(str(resources.files("napari_flag"))) / "weights"
    found = sorted(bundled.glob("*.safetensors"), key=lambda p: (p.stem != DEFAULT_WEIGHTS, p.stem))
    imported = files_ending(weights_folder(), ".safetensors")
    return [(path.stem, path) for path in (*found, *imported)]


def label_of(name: str, path: Path) -> str:
    """Return what the weights `name` are listed as: other methods and forms of FLAG by their name, too."""
    try:
        found = Checkpoint.look(path)
    except UserError:
        return name  # what is wrong with it is said when it is chosen
    return name if found.method_name == _FLAG_CALLED else f"{name} · {found.method_name}"


def list_labels() -> list[tuple[str, Path]]:
    """Return (label, file) of all weights, as `list_weights` orders them."""
    return [(label_of(name, path), path) for name, path in list_weights()]


def weights_folder() -> Path:
    """Return the folder of imported weights."""
    return user_data_path("napari-flag") / "weights"


def file_given(name_or_path: str | Path) -> Path | None:
    """Return the weights file that is named by its path; None for the name of listed weights, or of none.

    A file or folder that is called like listed weights does not take their place.
    """
    if str(name_or_path) in {name for name, _ in list_weights()}:
        return None
    path = Path(name_or_path).expanduser()
    return path if path.is_file() else None


@dataclass(frozen=True, slots=True)
class TrainedArray:
    """What a card states of the arrays that weights were trained on; of sections that differ, several values.

    Parameters
    ----------
    technology
        In words, "" where it is not stated.
    pitches_um, diameters_um
        Distances between spots and diameters, ascending and distinct; none where they are not stated.
    mpps
        µm per level-0 pixel of the slides, likewise.
    lattices
        How rows are arranged, by name.
    """

    technology: str = ""
    pitches_um: tuple[float, ...] = ()
    diameters_um: tuple[float, ...] = ()
    mpps: tuple[float, ...] = ()
    lattices: tuple[str, ...] = ()


def trained_array(card: Mapping[str, Any]) -> TrainedArray:
    """Return what a card states of the training slides' arrays, as one value or as a list of several."""
    stated = card.get("array")
    array: Mapping[str, Any] = stated if isinstance(stated, Mapping) else {}
    return TrainedArray(
        ", ".join(_listed(array.get("technology"), str)),
        _lengths(array.get("pitch_um")),
        _lengths(array.get("diameter_um")),
        _lengths(card.get(keys.MPP)),
        tuple(sorted(set(_listed(array.get("lattice"), str)))),
    )


def _lengths(value: object) -> tuple[float, ...]:
    return tuple(sorted({float(each) for each in _listed(value, int | float) if 0 < each < float("inf")}))


def _listed(value: object, kind: Any) -> list[Any]:
    several = value if isinstance(value, list | tuple) else [value]
    return [each for each in several if isinstance(each, kind) and not isinstance(each, bool)]


def card_of(path: Path) -> dict[str, Any]:
    """Return the data card in a weights file; an empty one where `path` holds no weights."""
    try:
        return Checkpoint.look(path).card
    except UserError:
        return {}


def check_name(path: Path) -> None:
    """Refuse, before any work, a weights file whose name does not end in ``.safetensors``.

    Raises
    ------
    UserError
        Saying what to end it in.
    """
    if ending(path) != ".safetensors":
        raise UserError(
            f"Weights cannot be written as “{path.suffix or path.name}”; end the name of {path} in "
            ".safetensors, by which every command knows them."
        )


def find_weights(name_or_path: str | Path = DEFAULT_WEIGHTS) -> Path:
    """Return the weights file called `name_or_path`.

    Raises
    ------
    UserError
        When there is none; never takes others in their place.
    """
    for name, path in list_weights():
        if name == str(name_or_path):
            return path
    if (file := file_given(name_or_path)) is not None:
        return file
    known = ", ".join(name for name, _ in list_weights()) or "none"
    raise UserError(
        f'There are no weights called "{name_or_path}" and no such file; choose one of: {known}, '
        "or give the path of a .safetensors file."
    )


def free_place(name: str) -> Path:
    """Return where imported weights called `name` go; refuse a name that is taken.

    Capitals make no other name: Windows and macOS keep one file of the two.
    """
    place = place_in(weights_folder(), name, ".safetensors")
    taken = {known.casefold(): known for known, _ in list_weights()}.get(place.stem.casefold())
    if taken is not None:
        raise UserError(f'There are already weights called "{taken}"; rename the file and import it again.')
    return place


@lru_cache(maxsize=1)
def encoder_of(path: Path, device: str) -> "Encoder":
    """Return the encoder of a weights file as `Checkpoint.build_encoder` does; the last one is kept.

    A worker that is sent the tiles of a slide part by part loads it once.
    """
    return Checkpoint.load(path).build_encoder(device)


def import_weights(path: Path) -> Path:
    """Check the weights file `path` and copy it to the user's weights folder; return the copy."""
    target = free_place(Checkpoint.load(path).name)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        write_whole(target, lambda place: shutil.copyfile(path, place))
    except OSError as error:
        raise UserError(
            f"The weights could not be copied to {target.parent} ({error.strerror}); make that "
            "folder writable, or name the file itself instead."
        ) from error
    return target


def _read(path: Path, use: Callable[[Path], T]) -> T:
    """Return what `use` reads of a weights file."""
    from safetensors import SafetensorError

    if not path.is_file():
        raise UserError(f"There is no weights file {path}; check the path.")
    try:
        return use(path)
    except (SafetensorError, OSError, ValueError, TypeError, KeyError, MemoryError) as error:
        raise UserError(
            f"{path} cannot be read as weights: it is damaged or not a safetensors file "
            f"({error}); get the file again."
        ) from error


def _header_of(path: Path) -> tuple[dict[str, Any], list[str]]:
    """Return our header, {} where there is none, and the names of the tensors."""
    from safetensors import safe_open

    with safe_open(path, framework="numpy") as file:
        header = parse_json((file.metadata() or {}).get(_KEY, "{}"))
        return header if isinstance(header, dict) else {}, list(file.keys())


def _tensors_of(path: Path) -> "dict[str, torch.Tensor]":
    from safetensors.torch import load_file

    return load_file(path)
