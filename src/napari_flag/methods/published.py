"""FLAG as its authors published it: predicting with it, and their checkpoints read under our names."""

import re
from collections.abc import Mapping
from typing import Final

import torch
from torch import Tensor

from napari_flag.methods.windowed import WindowNetwork, Windows, WindowSizes
from napari_flag.model.published import (
    PublishedConfig,
    PublishedFlag,
    State,
    sigma_at,
)

_NAMES: Final = (
    (r"^graph_backbone\.", "graph."),
    (r"^gene_joint_embed\.gene_name_ebd$", "name"),
    (r"^gene_joint_embed\.gene_count_ebd\.", "value."),
    (r"^time_embed\.", "time."),
    (r"^node2gene\.", "condition."),
    (r"^projectors\.0\.", "projector."),
    (r"^final_layer\.linear\.", "final."),
    (r"^final_layer\.adaLN_modulation\.", "final_modulation."),
    (r"\.attn\.qkv\.", ".qkv."),
    (r"\.attn\.proj\.", ".out."),
    (r"\.mlp\.fc1\.", ".mlp.0."),
    (r"\.mlp\.fc2\.", ".mlp.2."),
    (r"\.adaLN_modulation\.", ".modulation."),
    (r"\bx_in\.", "spots_in."),
    (r"\be_in\.", "edges_in."),
    (r"\bt_in\.", "time."),
    (r"\bx_out\.", "spots_out."),
    (r"\be_out\.", "edges_out."),
    (r"\.to_q\.", ".query."),
    (r"\.to_k\.", ".key."),
    (r"\.to_v\.", ".value."),
    (r"\.to_e_mul\.", ".edge_scale."),
    (r"\.to_e_add\.", ".edge_shift."),
    (r"\.to_x_out\.0\.", ".spot_out."),
    (r"\.to_e_out\.0\.", ".edge_out."),
    (r"\.cx\.cx_q_mul\.", ".of_features.scale_query."),
    (r"\.cx\.cx_k_mul\.", ".of_features.scale_key."),
    (r"\.cx\.cx_q_add\.", ".of_features.shift_query."),
    (r"\.cx\.cx_k_add\.", ".of_features.shift_key."),
    (r"\.cx\.cx_out_mul\.", ".of_features.scale_out."),
    (r"\.cx\.cx_out_add\.", ".of_features.shift_out."),
    (r"\.ce\.ce_mul\.", ".of_edges.scale."),
    (r"\.ce\.ce_add\.", ".of_edges.shift."),
    (r"\.ce\.ce_out_mul\.", ".of_edges.scale_out."),
    (r"\.ce\.ce_out_add\.", ".of_edges.shift_out."),
    (r"\.ff_x\.0\.", ".spot_feed.norm."),
    (r"\.ff_x\.1\.proj\.", ".spot_feed.open."),
    (r"\.ff_x\.3\.", ".spot_feed.close."),
    (r"\.ff_e\.0\.", ".edge_feed.norm."),
    (r"\.ff_e\.1\.proj\.", ".edge_feed.open."),
    (r"\.ff_e\.3\.", ".edge_feed.close."),
    (r"\.ga_x_norm\.", ".norm_spots."),
    (r"\.ga_e_norm\.", ".norm_edges."),
    (r"\.ff_x_norm\.", ".norm_spot_feed."),
    (r"\.ff_e_norm\.", ".norm_edge_feed."),
    (r"\.to_gb\.", ".modulation."),
    (r"\.z_fuse\.", ".window."),
    (r"\.pool_cx\.", ".pool_features."),
    (r"\.pool_ce\.", ".pool_edges."),
)
"""Names of parameters in a published checkpoint, as patterns → what they are called here, in this order."""
_UNUSED: Final = re.compile(r"^label_embed\.")
"""Parameters that the published network holds and never computes with."""


def our_names(published: Mapping[str, Tensor], config: PublishedConfig) -> dict[str, Tensor]:
    """Return the parameters of a published checkpoint under our names, those left out that compute nothing.

    Parameters
    ----------
    published
        A state dict of the published code.
    config
        Its sizes.
    """
    found = {}
    for name, tensor in published.items():
        if _UNUSED.match(name) or not tensor.numel():
            continue
        ours = name
        for pattern, replacement in _NAMES:
            ours = re.sub(pattern, replacement, ours)
        if not config.adaptive and "pool_" in ours:  # made, but only adaptive norms pool
            continue
        found[ours] = tensor
    return found


class Published(WindowNetwork):
    """The published FLAG over windows of a slide that do not overlap, as its authors test it."""

    def __init__(self, config: WindowSizes) -> None:
        super().__init__(config)
        self.network = PublishedFlag(self.sizes)

    def scores(self, state: State, t: Tensor, windows: Windows) -> State:
        """Return the score of the spots."""
        return (self.denoised(state[0], t, windows)[0],)

    def denoised(
        self, x: Tensor, t: Tensor, windows: Windows, *, align: bool = False
    ) -> tuple[Tensor, Tensor]:
        """Return the score of (b, n, G) `x`; with `align` also what is aligned.

        Returns
        -------
        (b, n, G) score, 0 in padding, and the (N, G, target) vectors of all N spots, or none.
        """
        sigma = sigma_at(t)
        seen, found, aligned = self.spots.into(x, sigma), torch.zeros_like(x), [x.new_zeros(0)]
        for number, part in enumerate(windows.parts()):  # the network takes one window
            of_window = seen[number, part], t[number], windows.features[number, part]
            if align:
                found[number, part], vectors = self.network(*of_window)
                aligned.append(vectors)
            else:
                found[number, part] = self.network.score(*of_window)
        return self.spots.score(found, x, sigma), torch.cat(aligned[1:] or aligned)
