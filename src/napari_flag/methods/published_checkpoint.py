"""A checkpoint that the published FLAG code trained → a weights file to predict with."""

import math
import pickle
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final, NamedTuple

import torch
from torch import Tensor

from napari_flag import keys
from napari_flag.encoders.registry import find_encoder, open_encoder
from napari_flag.errors import UserError
from napari_flag.files import read_text, refuse_special
from napari_flag.formatting import counted, whole
from napari_flag.gene_names import names_in
from napari_flag.methods.published import Published, our_names
from napari_flag.methods.windowed import Joint, NodeOnly, WindowSizes
from napari_flag.model.checkpoint import MISFIT, no_larger_than, save_checkpoint
from napari_flag.model.published import SIGMA_MAX, SIGMA_MIN, T_MIN, PublishedConfig

NETWORK: Final = "graph_dit_repa"
"""What the published configuration calls FLAG."""
RELATIVE: Final = "graph_model"
"""What it calls the graph transformer alone, whose ``mode`` says which relative of FLAG it is."""
KERNEL_PX: Final = 224.0
"""Width of the published kernel of distance, exp(−d² / (2 · 224²)), in pixels."""


class _Form(NamedTuple):
    """A network of the published code: its class here, its name in `METHODS`, and what cards call it."""

    kind: type[Published] | type[NodeOnly]
    written: str
    title: str


_FLAG: Final = _Form(Published, "published", "FLAG as published")
_RELATIVES: Final = {
    "graph_diffusion_learned": _Form(Joint, "joint", "joint diffusion as published"),
    "graph_diffusion_fixed": _Form(NodeOnly, "node_only", "node-only diffusion as published"),
}
"""By the mode of the configuration."""
_PROCESS: Final = {"sigma_min": SIGMA_MIN, "sigma_max": SIGMA_MAX, "t_min": T_MIN}
MOST_CONFIG: Final = 2**18
"""Bytes of a configuration; those of the published code have two thousand."""
_DEEPEST: Final = 20
"""Levels of values inside values in it."""
_SHOWN: Final = 40
"""Letters of what a file says in a refusal."""
_PARTS: Final[dict[str, dict[str, Any]]] = {
    "data_config": {"crop_size": int | float, "img_encoder_name": str},
    "model_config": {"name": str},
    "sde_config": {},
    "test_config": {},
}
"""What a configuration holds that is read here, and of what kind; the last two may be left out."""
_NOT_STATED: Final = "not stated by the checkpoint"


def import_published(checkpoint: Path, config: Path, genes: Path, mpp: float, out: Path) -> None:
    """Write the weights file `out` from a checkpoint of the published code.

    Parameters
    ----------
    checkpoint
        ``torch.save`` of ``{"model": state dict, "ema": averaged parameters}``; nothing in it is run.
    config
        The YAML file that it was trained with: of FLAG, or of joint or node-only diffusion.
    genes
        Its panel, one symbol a line, in the order of training.
    mpp
        µm per pixel of the training slides: windows and the kernel of distance are in pixels.
    out
        The file.

    Raises
    ------
    UserError
        When a file is missing or holds something else, the parts do not fit each other, or the encoder is not
        on this computer.
    """
    stated = _read_config(config)
    data, model, form = stated["data_config"], stated["model_config"], _form_of(config, stated)
    panel = _read_genes(genes)
    state = _read_state(checkpoint)
    row = find_encoder(data["img_encoder_name"].lower()[:_SHOWN])
    try:
        sizes = PublishedConfig.read(model | {"node_dim": len(panel)}, gene_transformer=form is _FLAG)
        if not all(isinstance(size, bool | int | float) for size in asdict(sizes).values()):
            raise TypeError("one of them is no number")
        window_um = _positive(data["crop_size"]) * mpp
        samples = _count(stated["test_config"].get("sample_num", 8))
        windows = WindowSizes(
            sizes.features,
            asdict(sizes),
            window_um,
            samples=samples,
            kernel_um=KERNEL_PX * mpp if sizes.edge_conditions else 0.0,
        )
        with no_larger_than(asdict(windows), state):
            network = form.kind(windows)
    except MISFIT as error:
        raise UserError(
            f"The configuration {config} lacks sizes of the network ({str(error)[:200]}); give the one that "
            "the checkpoint was trained with."
        ) from error
    _check_fit(state, network, panel, row.dim, row.title)
    network.network.load_state_dict({name: t.float() for name, t in our_names(state, sizes).items()})
    card = {
        "title": f"{checkpoint.stem}, trained with the code that the authors of FLAG published",
        keys.CARD_METHOD: form.title,
        keys.CARD_TISSUE: _NOT_STATED,
        "um_per_px": mpp,
        "encoder": {
            "name": row.name,
            "licence": row.licence,
            "fingerprint": open_encoder(row.name, "cpu").weights,
        },
        "window_um": window_um,
        "sampler": {"solver": network.solver, "steps": network.config.solver_steps, "draws": samples},
        "split": _NOT_STATED,
        "licence": _NOT_STATED,
        "not_for": "diagnosis or any clinical decision",
        "values": {
            str(key): value for key, value in model.items() if isinstance(value, bool | int | float | str)
        },
    }
    save_checkpoint(out, network, {}, encoder=row.name, genes=panel, card=card, method=form.written)


def _read_config(path: Path) -> dict[str, Any]:
    import yaml

    try:
        found = _parse_yaml(read_text(path, MOST_CONFIG))
    except OSError as error:
        raise UserError(
            f"The configuration {path} cannot be read ({error.strerror}); check the path."
        ) from error
    except (yaml.YAMLError, ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        said = str(error).partition("\n")[0][:200]
        raise UserError(
            f"The configuration {path} is no YAML file of values ({said}); give the one of the training."
        ) from error
    held = found.items() if isinstance(found, Mapping) else ()
    stated: dict[str, Any] = {part: {} for part in _PARTS} | {k: v for k, v in held if v is not None}
    lacking = [part for part in _PARTS if not isinstance(stated[part], Mapping)]
    lacking += [
        f"{part}.{name}"
        for part, kinds in _PARTS.items()
        for name, kind in kinds.items()
        if part not in lacking and not isinstance(stated[part].get(name), kind)
    ]
    if lacking:
        raise UserError(
            f"The configuration {path} lacks {', '.join(lacking)}, so it is not one of the published code; "
            "give the one that the checkpoint was trained with."
        )
    process = stated["sde_config"]
    other = [name for name, value in _PROCESS.items() if process.get(name, value) != value]
    if other:
        raise UserError(
            f"The configuration {path} has another {', '.join(other)} than the published one, under which "
            "alone can be sampled; give a checkpoint trained with the published values."
        )
    return stated


def _parse_yaml(text: str) -> Any:
    """Return what YAML holds.

    Raises
    ------
    yaml.YAMLError, ArithmeticError, AttributeError, LookupError, TypeError, ValueError
        When it is none or states a value that there cannot be (a 13th month), is nested deeper than
        `_DEEPEST`, or repeats a part by its name (``*name``), by which a few letters can stand for gigabytes.
    """
    import yaml

    depth = 0
    for event in yaml.parse(text, yaml.SafeLoader):
        if isinstance(event, yaml.AliasEvent):
            raise ValueError(f"it repeats a part by its name, *{event.anchor[:_SHOWN]}; write that out")
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if depth > _DEEPEST:
            raise ValueError("it is nested too deeply")
    return yaml.safe_load(text)


def _positive(value: Any) -> float:
    """Return a number above 0; `ValueError` for what is none."""
    if not 0 < (number := float(value)) < math.inf:
        raise ValueError(f"{number:g} where a number above 0 is needed")
    return number


def _count(value: Any) -> int:
    """Return a whole number above 0; `ValueError` for what is none."""
    if not (number := _positive(value)).is_integer():
        raise ValueError(f"{number:g} where a whole number is needed")
    return int(number)


def _form_of(path: Path, stated: Mapping[str, Any]) -> _Form:
    """Return which network the configuration at `path` describes; refuse one that is not rebuilt here."""
    model, mode = stated["model_config"], str(stated.get("mode"))
    if model["name"] == NETWORK and not model.get("use_cond_e_in_attn"):
        return _FLAG
    if model["name"] != RELATIVE:
        raise UserError(
            f"The configuration {path} is of another network ({model['name'][:_SHOWN]}) than FLAG ({NETWORK} "
            f"without conditions on edges) and its relatives ({RELATIVE}), which alone can be imported; give "
            "a checkpoint of one of these with its own."
        )
    if mode not in _RELATIVES:
        raise UserError(
            f"The configuration {path} states the mode {mode[:_SHOWN]}, which says neither joint nor "
            "node-only diffusion; give the one that the checkpoint was trained with (mode: "
            f"{' or '.join(_RELATIVES)})."
        )
    return _RELATIVES[mode]


def _read_genes(path: Path) -> tuple[str, ...]:
    genes = names_in(path)
    if len(set(genes)) < len(genes):
        raise UserError(
            f"The gene list {path} names a gene twice; give the panel that the checkpoint was trained on."
        )
    return genes


def _read_state(path: Path) -> dict[str, Tensor]:
    """Return the parameters of a checkpoint, averaged ones in place of the last."""
    refuse_special(path)
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise UserError(f"There is no checkpoint {path}; check the path.") from error
    except (OSError, EOFError, RuntimeError, pickle.UnpicklingError, ValueError, KeyError) as error:
        raise UserError(
            f"{path} cannot be read as a checkpoint: it is damaged, or holds more than tensors, which is "
            'never run; save it again with torch.save({"model": …, "ema": …}) of tensors alone.'
        ) from error
    parts = [found.get(name) if isinstance(found, Mapping) else None for name in ("model", "ema")]
    state: dict[str, Tensor] = {}
    for name, part in zip(("model", "ema"), parts, strict=True):
        if not isinstance(part, Mapping) or not all(isinstance(t, Tensor) for t in part.values()):
            raise UserError(
                f'{path} holds no parameters under "{name}", so it is not a checkpoint of the published '
                "code, whose averaged weights predict; choose another file."
            )
        state |= {str(key): tensor for key, tensor in part.items()}
    return state


def _check_fit(
    state: Mapping[str, Tensor], network: Published | NodeOnly, panel: tuple[str, ...], dim: int, title: str
) -> None:
    """Refuse a checkpoint that configuration, gene list and encoder do not fit."""
    sizes = network.sizes
    wanted = {name: t.shape for name, t in network.network.state_dict().items()}
    found = {name: t.shape for name, t in our_names(state, sizes).items()}
    trained = next((shape[-1] for name, shape in found.items() if name.endswith("spots_in.0.weight")), 0)
    if trained and trained != len(panel):
        raise UserError(
            f"The checkpoint was trained on {counted(trained, 'gene')} and the list names "
            f"{whole(len(panel))}; give the panel that it was trained on, in its order."
        )
    if dim != sizes.features:
        raise UserError(
            f"The configuration has features of length {sizes.features}, and {title} makes {dim}; give the "
            "configuration whose img_encoder_name made the features."
        )
    misfit = sorted(name for name in wanted.keys() | found.keys() if wanted.get(name) != found.get(name))
    if misfit:
        raise UserError(
            f"The checkpoint does not fit the network of the configuration ({len(misfit)} parameters, such "
            f"as {misfit[0]}); give the configuration that it was trained with."
        )
