"""Run STPath's network with random weights in LazySlide on a HER2ST section, for `other-models.md`.

    pip install lazyslide
    python docs/run_lazyslide.py DATA OUT [SECTION]

DATA is a folder with the HER2ST files.  Writes SECTION.tif, a pyramid, and SECTION_lazyslide.zarr into OUT.
STPath's own weights and GigaPath are behind forms, so the weights are random and the features are projected
mean colours: nothing is learned, but LazySlide calls the network and writes the zarr as it always does.
"""

import json
import sys
from pathlib import Path

import lazyslide as zs
import numpy as np
import pandas as pd
import shapely
import tifffile
import torch
import wsidata
from lazyslide_models.feature_prediction.stpath import STPath
from lazyslide_models.feature_prediction.stpath._constants import N_ORGANS, N_TECH
from lazyslide_models.feature_prediction.stpath._model import STFM
from lazyslide_models.feature_prediction.stpath._vocab import load_gene_vocab
from PIL import Image
from wsidata.io import add_features, add_tiles, add_tissues

TILE_PX, MPP = 224, 0.67
GIGAPATH_DIM, VOCABULARY = 1536, 38_982
Image.MAX_IMAGE_PIXELS = None


def main(data: Path, out: Path, section: str = "C5") -> None:
    """Write the slide, run the network on its spots, and write what LazySlide writes."""
    out.mkdir(parents=True, exist_ok=True)
    image = np.asarray(Image.open(data / "images" / f"{section}.jpg").convert("RGB"))
    slide = out / f"{section}.tif"
    with tifffile.TiffWriter(slide) as tiff:
        options = {"tile": (256, 256), "photometric": "rgb", "compression": "jpeg", "metadata": None}
        tiff.write(image, **options)
        tiff.write(image[::4, ::4], subfiletype=1, **options)
    spots = pd.read_csv(data / "spots" / f"{section}_selection.tsv", sep="\t")
    xy = spots.loc[spots["selected"] == 1, ["pixel_x", "pixel_y"]].to_numpy(float)
    genes = (data / "panel_hmhvg200.txt").read_text(encoding="utf-8").split()

    wsi = wsidata.open_wsi(str(slide))
    spec = wsidata.TileSpec.from_wsidata(wsi, tile_px=TILE_PX, slide_mpp=MPP, mpp=MPP)
    add_tissues(wsi, "tissues", [shapely.box(0, 0, image.shape[1], image.shape[0])])
    corners = np.round(xy - spec.base_width / 2).astype(int)
    add_tiles(wsi, "tiles", corners, spec, np.zeros(len(xy), int))
    add_features(wsi, "gigapath_tiles", "tiles", _mean_colours(image, xy))
    model = _random_stpath(out, genes)
    zs.tl.feature_prediction(wsi, model, feature_key="gigapath_tiles", device="cpu", pbar=False)
    wsi.write(str(out / f"{section}_lazyslide.zarr"))


def _mean_colours(image: np.ndarray, xy: np.ndarray) -> np.ndarray:
    """Return mean and spread of each tile's colours, standardised and projected to GigaPath's length."""
    half = TILE_PX // 2
    centres = xy.round().astype(int)
    tiles = [image[max(y - half, 0) : y + half, max(x - half, 0) : x + half] for x, y in centres]
    colours = np.array([[*tile.mean((0, 1)), *tile.std((0, 1))] for tile in tiles])
    colours = (colours - colours.mean(0)) / colours.std(0)
    projection = np.random.default_rng(0).normal(size=(colours.shape[1], GIGAPATH_DIM))
    return (colours @ projection).astype(np.float32)


def _random_stpath(folder: Path, genes: list[str]) -> STPath:
    """Return STPath with random weights and a vocabulary of the right length that begins with `genes`."""
    vocabulary, weights = folder / "vocabulary.json", folder / "random_stpath.pth"
    names = [*genes, *(f"FILL{k}" for k in range(VOCABULARY - len(genes)))]
    vocabulary.write_text(
        json.dumps({name: f"ENSG{k:011d}" for k, name in enumerate(names)}), encoding="utf-8"
    )
    torch.manual_seed(0)
    tokens = load_gene_vocab(str(vocabulary)).n_tokens
    torch.save(STFM(n_genes=tokens, n_tech=N_TECH, n_organs=N_ORGANS).state_dict(), weights)
    return STPath(genes=genes, model_path=str(weights), gene_voc_path=str(vocabulary))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), *sys.argv[3:])
