"""Tissue windows as graphs of PyTorch Geometric: squares of a slide, all spots of a square connected.

The published networks see a slide square by square.  Their squares and distances are pixels of the full
resolution, which are 0.17 to 0.95 µm in the authors' cohorts; here both are µm.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor

from flag_training.cohort import TrainingSlide
from napari_flag.errors import UserError
from napari_flag.methods.windowed import Windows, window_attributes

Graph: TypeAlias = Any
"""``torch_geometric.data.Data``: `x` (n, d) features, `y` (n, G) log2(count + 1), `edge_index` (2, n²) of
every spot with every spot and itself, row after row, `edge_attr` (n², 2) as `window_attributes` gives them,
`rows` (n,) places of the spots on their slide."""


@dataclass(frozen=True, slots=True)
class TrainingWindows(Windows):
    """Padded windows, and what was measured there.

    Parameters
    ----------
    expression
        (b, n, G) log2(count + 1).
    rows
        (b, n) int64 places of the spots on their slide, −1 for padding.
    """

    expression: Tensor
    rows: Tensor

    @property
    def correlated(self) -> Tensor:
        """(b, n, n) bool: pairs of two different spots with counts; a spot without has no correlation."""
        counted = (self.expression > 0).any(2)
        return self.pairs & counted[:, :, None] & counted[:, None]


def geometric() -> Any:
    """Return the package ``torch_geometric``, with ``data``, ``loader`` and ``utils`` loaded.

    Raises
    ------
    UserError
        When it is not installed.
    """
    try:
        import torch_geometric
        import torch_geometric.data
        import torch_geometric.loader
        import torch_geometric.utils
    except ImportError as error:
        raise UserError(
            "Node-only diffusion, joint diffusion and FLAG in its published form need PyTorch Geometric, "
            'which is not installed; run: pip install "napari-flag[bench]".'
        ) from error
    return torch_geometric


def cut_windows(
    slide: TrainingSlide, features: Tensor, window_um: float, kernel_um: float
) -> tuple[Graph, ...]:
    """Cut a slide into squares without overlap, those without a spot left out.

    Parameters
    ----------
    slide
        Where its spots are, and what was measured there.
    features
        (n, d) of its spots in one view.
    window_um
        Side of the squares, which start at the origin of the slide.
    kernel_um
        Width of the distance kernel.
    """
    package = geometric()
    xy_um, expression = torch.from_numpy(slide.places.xy_um), torch.from_numpy(slide.expression)
    found = []
    for members in slide.places.windows(window_um):
        rows = torch.from_numpy(members)
        seen, near = features[rows], torch.arange(len(rows))
        found.append(
            package.data.Data(
                x=seen,
                y=expression[rows],
                edge_index=torch.cartesian_prod(near, near).T,
                edge_attr=window_attributes(xy_um[rows], seen, kernel_um).flatten(0, 1),
                rows=rows,
                num_nodes=len(rows),
            )
        )
    return tuple(found)


def batches(
    graphs: Sequence[Graph], together: int, draws: torch.Generator | None = None
) -> "torch.utils.data.DataLoader[Graph]":
    """Return PyTorch Geometric's loader of `together` windows at a time, in an order drawn by `draws`."""
    found: torch.utils.data.DataLoader[Graph] = geometric().loader.DataLoader(
        list(graphs), batch_size=together, shuffle=draws is not None, generator=draws
    )
    return found


def padded(batch: Graph) -> TrainingWindows:
    """Return a batch of the loader as padded windows."""
    utils = geometric().utils
    features, present = utils.to_dense_batch(batch.x, batch.batch)
    expression, _ = utils.to_dense_batch(batch.y, batch.batch)
    rows, _ = utils.to_dense_batch(batch.rows, batch.batch, fill_value=-1)
    attributes = utils.to_dense_adj(batch.edge_index, batch.batch, batch.edge_attr)
    return TrainingWindows(features, attributes, present, expression, rows)
