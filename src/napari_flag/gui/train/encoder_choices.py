"""Step 3 of the Train dock: which encoders there are to choose from, and why one cannot be chosen."""

from pathlib import Path
from typing import TypeAlias

from napari_flag.errors import UserError
from napari_flag.fitting import TRAINED_HERE

EncoderChoice: TypeAlias = tuple[str, str, str, str | None]
"""What to call an encoder, its name in `FitSettings`, what to know of it, and why it cannot be chosen."""


def list_encoders() -> tuple[EncoderChoice, ...]:
    """Return the encoders that can be named: of weights, foundation encoders, and one trained here."""
    from napari_flag.encoders.foundation.hub import find_weights, how_to_get
    from napari_flag.encoders.registry import list_encoders as every
    from napari_flag.model.checkpoint import list_weights

    found: list[EncoderChoice] = [
        (
            f"of the weights {name}",
            name,
            "Kept as it is; features that predictions made are used again.",
            None,
        )
        for name, path in list_weights()
        if _has_encoder(path)
    ]
    for row in every():
        if row.recipe is None:
            continue
        here = find_weights(row)
        why_not = None if here else f"{row.title} is not on this computer; {how_to_get(row)}"
        found.append((row.title, row.name, f"{row.licence}; {here.where if here else 'not here'}.", why_not))
    found.append(
        (
            "trained on these sections",
            TRAINED_HERE,
            "Trained from scratch for each section left out, which saw none of it: takes hours.",
            None,
        )
    )
    return tuple(found)


def _has_encoder(path: Path) -> bool:
    """Return whether weights that can be read carry their encoder; those of a foundation encoder do not."""
    from napari_flag.model.checkpoint import Checkpoint

    try:
        return Checkpoint.load(path).encoder == "embedded"
    except UserError:
        return False
