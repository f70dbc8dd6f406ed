"""Methods by name: floors, and published ones whose values are read from TOML files."""

from pathlib import Path
from typing import Any, Final

from flag_training.methods.bleep import Bleep
from flag_training.methods.floors import LEARNED_FLOORS, WRITTEN
from flag_training.methods.graph_diffusion import (
    FlagDiffusion,
    JointDiffusion,
    NodeDiffusion,
    WindowDiffusion,
)
from flag_training.methods.histogene import HisToGene
from flag_training.methods.learning import Descent
from flag_training.methods.method import Method
from flag_training.methods.regression import Regression
from flag_training.methods.stem import Stem
from flag_training.methods.stflow import StFlow
from flag_training.methods.tissue_windows import geometric
from flag_training.methods.triplex import Triplex
from napari_flag.errors import UserError
from napari_flag.files import ending, parse_toml, read_text

PUBLISHED: Final[dict[str, Any]] = {
    "HisToGene": HisToGene,
    "BLEEP": Bleep,
    "TRIPLEX": Triplex,
    "Stem": Stem,
    "STFlow": StFlow,
    "regression": Regression,
    "node-only diffusion": NodeDiffusion,
    "joint diffusion": JointDiffusion,
    "FLAG, published form": FlagDiffusion,
}


def read_method(given: str) -> tuple[str, Method]:
    """Return name and method of the floor called `given`, or of the TOML file at that path.

    Raises
    ------
    UserError
        When there is neither, or it is a floor that no weights file holds.
    """
    if given in WRITTEN:
        return given, LEARNED_FLOORS[given]
    if ending(given) != ".toml":
        raise UserError(
            f"There is no method called {given} that can be written as weights; give a file such as "
            f"training/configs/baselines/bleep.toml, or one of: {'; '.join(WRITTEN)}."
        )
    return read_baseline(Path(given).expanduser())


def read_baseline(path: Path) -> tuple[str, Method]:
    """Return name and method that the TOML file `path` describes.

    It holds ``method`` (a key of `PUBLISHED`), the method's values under ``[values]`` and those of its
    training under ``[training]``.

    Raises
    ------
    UserError
        When the file is missing, not TOML, or has unknown or missing values, or the method needs a package
        that is not installed.
    """
    try:
        values = parse_toml(read_text(path))
        name = str(values["method"])
        method: Method = PUBLISHED[name](**values["values"], training=Descent(**values["training"]))
    except OSError as error:
        raise UserError(f"The baseline {path} cannot be read ({error.strerror}); check the path.") from error
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"The file {path} does not describe one of {', '.join(PUBLISHED)} ({error}); compare it with "
            "those of training/configs/baselines."
        ) from error
    if isinstance(method, WindowDiffusion):
        geometric()  # a missing package is named before anything is trained
    return name, method
