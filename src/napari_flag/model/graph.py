"""The fixed spatial graph: which spots inform which, and how.

A sparse neighbourhood in µm: each spot listens to at most `NEIGHBOURS` spots within `REACH` array
pitches.  Edges carry the distance and the likeness of the tissue (cosine of the features), as FLAG's
fixed prior C_e does.  FLAG sees no absolute coordinates; the graph carries the `Places` of its spots for
methods that do.

Neighbour lists are padded to one width, so attention over them is a gather and a softmax, on any
device, without a sparse-tensor library.
"""

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from scipy.spatial import cKDTree
from torch import Tensor

from napari_flag import scratch
from napari_flag.slides.spots import Lattice, Spots

NEIGHBOURS: Final = 18
"""Two rings of a hexagonal array; a square one has 12 spots within reach."""
REACH: Final = 2.15
"""In array pitches: the second ring although spots jitter, and no tie on a perfect lattice is cut."""
_ROWS: Final = 4096
"""Spots whose features are standardised at once."""


@dataclass(frozen=True)
class Places:
    """Where the spots of one slide lie.

    Parameters
    ----------
    xy_um
        (n, 2) float64 centres, µm.
    pitch_um
        Array pitch, µm.
    ids
        Names of the n spots, which key noise; () names them by their rows.
    array
        (n, 2) int64 (array_row, array_col) as `Spots` has them; None where the array is not known.
    lattice
        How the array is laid out.
    """

    xy_um: npt.NDArray[np.float64]
    pitch_um: float
    ids: tuple[str, ...] = ()
    array: npt.NDArray[np.int64] | None = None
    lattice: Lattice = "none"

    @classmethod
    def of(cls, spots: Spots, mpp: float, pitch_um: float) -> "Places":
        """Return the places of `spots` on a slide of `mpp` µm per level-0 pixel."""
        return cls(spots.xy * mpp, pitch_um, spots.ids, spots.array, spots.lattice)

    def __len__(self) -> int:
        return len(self.xy_um)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Names of the spots."""
        return self.ids or tuple(map(str, range(len(self))))

    @cached_property
    def grid(self) -> npt.NDArray[np.int64]:
        """(n, 2) places (row, column) on a dense grid from 0; a hexagonal array loses its stagger."""
        if self.array is not None:
            place = self.array // np.array([1, 2 if self.lattice == "hex" else 1])
        else:
            place = np.rint(self.xy_um[:, ::-1] / self.pitch_um).astype(np.int64)
        grid: npt.NDArray[np.int64] = place - place.min(0)
        return grid

    def windows(self, side_um: float) -> list[npt.NDArray[np.int64]]:
        """Return the rows of the spots in each square of `side_um`, counted from the slide's corner."""
        squares = np.floor(self.xy_um / side_um).astype(np.int64)
        _, which = np.unique(squares, axis=0, return_inverse=True)
        order = np.argsort(which.ravel(), kind="stable")
        return np.split(order, np.cumsum(np.bincount(which.ravel()))[:-1])


@dataclass(frozen=True, slots=True)
class SpotGraph:
    """Neighbour lists of one slide, and where its spots lie.

    Parameters
    ----------
    places
        Of the n spots.
    neighbours
        (n, k) int64, spot positions; padding repeats the spot itself.
    present
        (n, k) bool, False for padding.
    distance
        (n, k) float32, centre distance in array pitches (µm / pitch µm); 0 for padding.
    likeness
        (n, k) float32, cosine of the two spots' slide-standardised features; 0 for padding.
    """

    places: Places
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


def build_graph(places: Places, features: npt.NDArray[np.float32]) -> SpotGraph:
    """Connect each spot to its nearest `NEIGHBOURS` spots within `REACH` pitches.

    Parameters
    ----------
    places
        Of the n spots; distances are expressed in their pitch.
    features
        (n, d) raw features; they are standardised over these spots before they are compared.
    """
    n, xy_um, pitch_um = len(places), places.xy_um, places.pitch_um
    reach = REACH * pitch_um
    found, index = cKDTree(xy_um).query(
        xy_um, k=NEIGHBOURS + 1, distance_upper_bound=reach
    )  # (n, k + 1), itself first unless spots coincide
    found, index = np.atleast_2d(found), np.atleast_2d(index)
    own = np.arange(n)[:, None]
    present = np.isfinite(found) & (index != own)
    order = np.argsort(~present, axis=1, kind="stable")[:, :NEIGHBOURS]  # drop itself, keep nearest first
    present = np.take_along_axis(present, order, 1)
    neighbours = np.where(present, np.take_along_axis(index, order, 1), own)
    distance = np.where(present, np.take_along_axis(found, order, 1) / pitch_um, 0.0)
    return SpotGraph(
        places=places,
        neighbours=neighbours.astype(np.int64),
        present=present,
        distance=distance.astype(np.float32),
        likeness=likeness(features, neighbours, present),
    )


def likeness(
    features: npt.NDArray[np.float32], neighbours: npt.NDArray[np.int64], present: npt.NDArray[np.bool_]
) -> npt.NDArray[np.float32]:
    """Return the cosine of each spot's standardised features with its neighbours', (n, k) float32."""
    parts = [slice(start, start + _ROWS) for start in range(0, len(features), _ROWS)]
    mean = np.sum([features[rows].sum(0) for rows in parts], 0) / np.float32(len(features))
    squares = np.sum([np.square(features[rows] - mean).sum(0) for rows in parts], 0)
    spread = np.sqrt(squares / np.float32(len(features))) + np.float32(1e-6)
    unit = scratch.empty(features.shape, np.float32)
    for rows in parts:
        part = (features[rows] - mean) / spread
        unit[rows] = part / np.maximum(np.sqrt(np.einsum("nd,nd->n", part, part)), 1e-6)[:, None]
    alike = np.empty(neighbours.shape, np.float32)
    for start in range(0, len(features), 1024):  # bounded memory on Visium HD
        rows = slice(start, start + 1024)
        for column in range(neighbours.shape[1]):  # k gathers of (1024, d), never one of (1024, k, d)
            alike[rows, column] = np.einsum("nd,nd->n", unit[rows], unit[neighbours[rows, column]])
    return np.where(present, alike, 0).astype(np.float32)
