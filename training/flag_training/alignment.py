"""FLAG's alignment loss: pull the transformer's gene tokens towards a frozen gene foundation model.

Training only.  The foundation model is a static table, gene symbol → vector; genes without a vector
are masked.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from flag_training.config import FitConfig
from napari_flag.errors import UserError


class Alignment(nn.Module):
    """-mean cosine between projected tokens and gene vectors; 0 when switched off.

    Parameters
    ----------
    targets
        (G, z) gene vectors, rows of absent genes NaN; None switches the loss off.
    width
        Width of the tokens.
    """

    def __init__(self, targets: Tensor | None, width: int) -> None:
        super().__init__()
        self.targets: Tensor | None
        self.register_buffer("targets", targets, persistent=False)
        self.projector: nn.Module = nn.Identity()
        if targets is not None:
            hidden = 4 * width
            self.projector = nn.Sequential(
                nn.Linear(width, hidden),
                nn.SiLU(),
                nn.Linear(hidden, hidden),
                nn.SiLU(),
                nn.Linear(hidden, targets.shape[1]),
            )

    @classmethod
    def load(cls, config: FitConfig, genes: tuple[str, ...], width: int) -> "Alignment":
        """Read the gene vectors that `config` names.

        Raises
        ------
        UserError
            When the file cannot be read, or knows none of the genes.
        """
        if config.alignment_targets is None:
            return cls(None, width)
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            vectors: dict[str, Any] = load_file(config.alignment_targets)
        except (OSError, SafetensorError) as error:
            raise UserError(
                f"The gene vectors {config.alignment_targets} cannot be read ({error}); check the "
                "path, or remove alignment_targets from the config."
            ) from error
        known = [gene for gene in genes if gene in vectors]
        if not known:
            raise UserError(
                f"The gene vectors {config.alignment_targets} know none of the {len(genes)} genes; "
                "check that they are keyed by gene symbol."
            )
        targets = torch.full((len(genes), vectors[known[0]].numel()), torch.nan)
        for row, gene in enumerate(genes):
            if gene in vectors:
                targets[row] = vectors[gene].float().flatten()
        return cls(targets, width)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return the loss of (b, G, width) `tokens`."""
        if self.targets is None:
            return tokens.new_zeros(())
        known = ~self.targets.isnan().any(1)
        projected = self.projector(tokens[:, known])
        return -F.cosine_similarity(projected, self.targets[known], dim=2).mean()
