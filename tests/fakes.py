"""Stand-ins that keep the real contracts: a prediction with smooth patterns, a slide in memory."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from anndata import AnnData
from scipy import sparse

from napari_flag import keys
from napari_flag.slides.colours import SCANNED, Colours

SOME_GENES = (
    "ERBB2", "ESR1", "CD274", "MKI67", "MS4A1", "TP53", "CDH1", "VIM", "COL1A1", "CD3E",
    "CD8A", "EPCAM", "KRT19", "KRT8", "ACTA2", "PECAM1", "IGKC", "FASN", "GAPDH", "TMSB10",
)  # fmt: skip
PITCH_UM, DIAMETER_UM, MPP = 200.0, 100.0, 0.5


def fake_xy(n_spots: int) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    """(n, 2) level-0 px centres and (n, 2) array (row, col) of a square ST-like grid."""
    side = int(np.ceil(np.sqrt(n_spots)))
    rows, cols = np.divmod(np.arange(n_spots), side)
    pitch = PITCH_UM / MPP
    xy = np.column_stack([cols, rows]) * pitch + pitch
    return xy.astype(np.float64), np.column_stack([rows, cols]).astype(np.int64)


def fake_prediction(n_spots: int = 64, n_genes: int = 10, seed: int = 0, measured: bool = True) -> AnnData:
    """A prediction exactly as CONTRIBUTING describes, each gene a smooth wave over the section."""
    rng = np.random.default_rng(seed)
    xy, array = fake_xy(n_spots)
    unit = xy / xy.max()
    waves = rng.normal(0, 3.0, (2, n_genes))
    phase = rng.uniform(0, 2 * np.pi, n_genes)
    level = rng.uniform(1.0, 5.0, n_genes)
    truth = level * (1.2 + np.sin(unit @ waves + phase))
    noisy = [truth + rng.normal(0, 0.3, truth.shape) for _ in range(3)]
    x, sample, seen = (np.clip(a, 0, None).astype(np.float32) for a in noisy)
    sample = _as_counts(sample)
    genes = [SOME_GENES[i] if i < len(SOME_GENES) else f"GENE{i:05d}" for i in range(n_genes)]
    adata = AnnData(X=x)
    adata.obs_names = [f"{row}_{col}" for row, col in array]
    adata.var_names = genes
    adata.obs[keys.ARRAY_ROW], adata.obs[keys.ARRAY_COL] = array[:, 0], array[:, 1]
    adata.obsm[keys.SPATIAL] = xy
    adata.layers[keys.SAMPLE] = sample
    adata.layers[keys.SPREAD] = np.abs(rng.normal(0.4, 0.1, x.shape)).astype(np.float32)
    if measured:
        adata.layers[keys.MEASURED] = seen
    width, height = (int(v) for v in xy.max(axis=0) + PITCH_UM / MPP)
    adata.uns[keys.SPATIAL] = {
        "fake": {
            "images": {"hires": np.full((64, 64, 3), 230, np.uint8)},
            "scalefactors": {
                "spot_diameter_fullres": DIAMETER_UM / MPP,
                "tissue_hires_scalef": 64 / max(width, height),
            },
        }
    }
    adata.uns[keys.PROVENANCE] = fake_provenance(width, height)
    return adata


def add_draws(prediction: AnnData, upto: int, noise: float = 0.5, seed: int = 0) -> AnnData:
    """Give a fake prediction draws 2 to `upto`, each ``X`` under noise of its own, and return it."""
    rng = np.random.default_rng(seed)
    for number in range(2, upto + 1):
        drawn = prediction.X + rng.normal(0, noise, prediction.shape)
        prediction.layers[f"{keys.SAMPLE}_{number}"] = _as_counts(drawn)
    return prediction


def _as_counts(values: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """The log2(count + 1) of the integer counts nearest to log2(count + 1) `values`."""
    return np.log2(np.round(np.exp2(np.clip(values, 0, None)) - 1) + 1).astype(np.float32)


def counts_for(prediction: AnnData, seed: int = 0) -> AnnData:
    """Raw counts of the spots and genes of a fake prediction, sparse, near its ``layers["measured"]``."""
    rng = np.random.default_rng(seed)
    values = rng.poisson(np.exp2(prediction.layers[keys.MEASURED]) - 1 + 1e-3)
    measured = AnnData(sparse.csr_matrix(values.astype(np.float32)))
    measured.obs_names, measured.var_names = prediction.obs_names, prediction.var_names
    return measured


def fake_provenance(width: int, height: int) -> dict[str, Any]:
    """``uns["napari_flag"]`` of a fake prediction on a slide of `width` × `height` px."""
    return {
        keys.UNITS: keys.EXPRESSION_UNITS,
        keys.SLIDE_NAME: "fake",
        keys.SLIDE_WIDTH: width,
        keys.SLIDE_HEIGHT: height,
        keys.MPP: MPP,
        keys.MPP_SOURCE: "set by hand",
        keys.SPOT_DIAMETER_UM: DIAMETER_UM,
        keys.SPOT_PITCH_UM: PITCH_UM,
        keys.LATTICE: "square",
        keys.ENCODER: "embedded",
        keys.WEIGHTS_NAME: "fake-weights",
        keys.WEIGHTS_HASH: "0" * 64,
        keys.TRAINING_SLIDES: ["her2st-C2", "her2st-C3"],
        keys.DRAWS: 1,
        keys.SEED: 0,
        keys.NOT_FOR_DIAGNOSIS: keys.RESEARCH_USE_ONLY,
    }


class FakeSlide:
    """A slide in memory with the whole `Slide` contract; three levels, each half the one before.

    With a `profile`, converting to sRGB exchanges red and blue.
    """

    profile: bytes | None = None
    colours: Colours = SCANNED

    def __init__(self, width: int = 1200, height: int = 1000, mpp: float | None = MPP, seed: int = 0) -> None:
        self.pixels = _tissue(width, height, seed)
        self.path = Path("fake.svs")
        self.reader = self  # what a slide shares with itself at another µm/px
        self.name = "fake"
        self.size = (width, height)
        self.mpp = mpp
        self.mpp_source = "set by hand" if mpp else ""
        self.notices: tuple[str, ...] = ()
        self.downsamples = (1.0, 2.0, 4.0)
        self.levels = tuple((width // f, height // f) for f in (1, 2, 4))

    def __enter__(self) -> FakeSlide:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Nothing to close."""

    def read_region(self, x: int, y: int, width: int, height: int, level: int = 0) -> npt.NDArray[np.uint8]:
        """(height, width, 3) uint8; outside the slide the border is mirrored."""
        step = int(self.downsamples[level])
        rows = _mirror(y + step * np.arange(height), self.size[1])
        cols = _mirror(x + step * np.arange(width), self.size[0])
        return self.pixels[np.ix_(rows, cols)]

    def read_level(self, x: int, y: int, width: int, height: int, level: int) -> npt.NDArray[np.uint8]:
        """(height, width, 3) uint8; x, y in pixels of `level`, as napari asks for them."""
        step = int(self.downsamples[level])
        return self.read_region(x * step, y * step, width, height, level)

    def level_for(self, downsample: float) -> int:
        """The smallest level with at least one pixel per `downsample` pixels."""
        return max(i for i, d in enumerate(self.downsamples) if d <= downsample * 1.005 or i == 0)

    def thumbnail_size(self, longest: int = 2048) -> tuple[int, int]:
        """(width, height) of `thumbnail`."""
        height, width = FakeSlide.thumbnail(self, longest).shape[:2]
        return width, height

    def thumbnail(self, longest: int = 2048) -> npt.NDArray[np.uint8]:
        """The whole slide, every n-th pixel, at most `longest` px."""
        step = max(1, int(np.ceil(max(self.size) / longest)))
        return self.pixels[::step, ::step]

    def with_mpp(self, mpp: float, source: str) -> FakeSlide:
        """The same slide at another resolution."""
        other = FakeSlide.__new__(FakeSlide)
        other.__dict__.update(self.__dict__, mpp=mpp, mpp_source=source)
        return other

    def in_colours(self, colours: Colours) -> FakeSlide:
        """The same slide in other colours."""
        other = FakeSlide.__new__(FakeSlide)
        other.__dict__.update(self.__dict__, colours=colours)
        if self.profile is not None and colours != self.colours:
            other.pixels = self.pixels[..., ::-1]
        return other


@lru_cache(maxsize=8)
def _tissue(width: int, height: int, seed: int) -> npt.NDArray[np.uint8]:
    """(height, width, 3) uint8, a violet disc on glass; not to be written to, since slides share it."""
    rng = np.random.default_rng(seed)
    y, x = np.ogrid[0:height, 0:width]
    tissue = np.hypot(x - width / 2, y - height / 2) < 0.45 * min(width, height)
    base = np.where(tissue[..., None], (200, 130, 180), (243, 242, 244)).astype(np.int16)
    noise = rng.integers(-12, 12, (height, width, 1), dtype=np.int16)
    pixels = np.clip(base + noise, 0, 255).astype(np.uint8)
    pixels.flags.writeable = False
    return pixels


def _mirror(index: npt.NDArray[np.int64], size: int) -> npt.NDArray[np.int64]:
    """Reflect indices into 0 … size − 1 (edge repeated)."""
    folded = np.mod(index, 2 * size)
    return np.where(folded < size, folded, 2 * size - 1 - folded)
