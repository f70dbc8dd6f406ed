"""The fixed spatial graph: which spots inform which, and how.

A sparse neighbourhood in µm: each spot listens to at most `NEIGHBOURS` spots within `REACH` array
pitches.  Edges carry the distance and the likeness of the tissue (cosine of the features), as FLAG's
fixed prior C_e does.  Positions themselves never enter: the model sees no absolute coordinates.

Neighbour lists are padded to one width, so attention over them is a gather and a softmax, on any
device, without a sparse-tensor library.
"""

from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from scipy.spatial import cKDTree
from torch import Tensor

NEIGHBOURS: Final = 18
"""Two rings of a hexagonal array; a square one has 12 spots within reach."""
REACH: Final = 2.15
"""In array pitches: the second ring although spots jitter, and no tie on a perfect lattice is cut."""


@dataclass(frozen=True, slots=True)
class SpotGraph:
    """Neighbour lists of one slide.

    Parameters
    ----------
    neighbours
        (n, k) int64, spot positions; padding repeats the spot itself.
    present
        (n, k) bool, False for padding.
    distance
        (n, k) float32, centre distance in array pitches (µm / pitch µm); 0 for padding.
    likeness
        (n, k) float32, cosine of the two spots' slide-standardised features; 0 for padding.
    """

    neighbours: npt.NDArray[np.int64]
    present: npt.NDArray[np.bool_]
    distance: npt.NDArray[np.float32]
    likeness: npt.NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.neighbours)


@dataclass(frozen=True, slots=True)
class GraphTensors:
    """A `SpotGraph`, or several concatenated, as tensors (shapes as there)."""

    neighbours: Tensor
    present: Tensor
    distance: Tensor
    likeness: Tensor

    @classmethod
    def of(cls, *graphs: SpotGraph, device: torch.device | str = "cpu") -> "GraphTensors":
        """Concatenate `graphs` into one; no edge joins two slides."""
        offsets = [0]
        for graph in graphs[:-1]:
            offsets.append(offsets[-1] + len(graph))
        return cls(
            torch.cat([torch.from_numpy(g.neighbours) + o for g, o in zip(graphs, offsets, strict=True)]).to(
                device
            ),
            torch.cat([torch.from_numpy(g.present) for g in graphs]).to(device),
            torch.cat([torch.from_numpy(g.distance) for g in graphs]).to(device),
            torch.cat([torch.from_numpy(g.likeness) for g in graphs]).to(device),
        )

    def without_edges(self) -> "GraphTensors":
        """Return the same spots, none of which sees another."""
        return replace(self, present=torch.zeros_like(self.present))

    def to(self, device: torch.device | str) -> "GraphTensors":
        """Return a copy on `device`."""
        return GraphTensors(
            self.neighbours.to(device),
            self.present.to(device),
            self.distance.to(device),
            self.likeness.to(device),
        )

    def ring_mean(self, features: Tensor, within: float = 1.5) -> Tensor:
        """Mean of (n, d) `features` over each spot's neighbours `within` so many pitches; itself if alone."""
        near = self.present & (self.distance < within)
        out = features.clone()
        total = torch.zeros_like(features)
        for column in range(near.shape[1]):  # k gathers of (n, d), never (n, k, d)
            total += near[:, column, None] * features[self.neighbours[:, column]]
        count = near.sum(1, keepdim=True)
        some = count[:, 0] > 0
        out[some] = total[some] / count[some]
        return out


def build_graph(
    xy_um: npt.NDArray[np.float64],
    features: npt.NDArray[np.float32],
    pitch_um: float,
    k: int = NEIGHBOURS,
) -> SpotGraph:
    """Connect each spot to its nearest `k` spots within `REACH` pitches.

    Parameters
    ----------
    xy_um
        (n, 2) centres in µm.
    features
        (n, d) raw features; they are standardised over these spots before they are compared.
    pitch_um
        Array pitch in µm; distances are expressed in it.
    k
        Most neighbours per spot.
    """
    n = len(xy_um)
    reach = REACH * pitch_um
    found, index = cKDTree(xy_um).query(
        xy_um, k=k + 1, distance_upper_bound=reach
    )  # (n, k + 1), itself first unless spots coincide
    found, index = np.atleast_2d(found), np.atleast_2d(index)
    own = np.arange(n)[:, None]
    present = np.isfinite(found) & (index != own)
    order = np.argsort(~present, axis=1, kind="stable")[:, :k]  # drop itself, keep nearest first
    present = np.take_along_axis(present, order, 1)
    neighbours = np.where(present, np.take_along_axis(index, order, 1), own)
    distance = np.where(present, np.take_along_axis(found, order, 1) / pitch_um, 0.0)
    return SpotGraph(
        neighbours=neighbours.astype(np.int64),
        present=present,
        distance=distance.astype(np.float32),
        likeness=likeness(features, neighbours, present),
    )


def likeness(
    features: npt.NDArray[np.float32], neighbours: npt.NDArray[np.int64], present: npt.NDArray[np.bool_]
) -> npt.NDArray[np.float32]:
    """Return the cosine of each spot's standardised features with its neighbours', (n, k) float32."""
    standardised = (features - features.mean(0)) / (features.std(0) + 1e-6)
    unit = standardised / np.maximum(np.linalg.norm(standardised, axis=1, keepdims=True), 1e-6)
    alike = np.empty(neighbours.shape, np.float32)
    for start in range(0, len(features), 4096):  # bounded memory on Visium HD
        rows = slice(start, start + 4096)
        alike[rows] = np.einsum("nd,nkd->nk", unit[rows], unit[neighbours[rows]])
    return np.where(present, alike, 0).astype(np.float32)
