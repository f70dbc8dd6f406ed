"""How wide should draws be?  Scores of eight draws against scores that do not depend on their number.

Residuals are fitted to the cross-fitted expectation that a finished training left in its run folder, narrowed
by several factors, and draws around it are scored on the same left-out sections: eight draws that share their
noise evenly with 1/(2K²), as tables score them, and sixteen independent ones with 1/(2K(K − 1)), which has no
bias.  Prints Markdown.

    python benchmarks/draw_width.py --data DATA --run runs/her2st --out docs/results/draw_width.md
"""

import argparse
from itertools import combinations
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import torch

from flag_training.cohort import Cohort, TrainingSlide, load_cohort
from flag_training.config import read_config
from flag_training.run_folders import states_folder
from flag_training.stages.denoising import counts_of
from flag_training.stages.fit import tile_encoder
from flag_training.stages.latents import ResidualModel, fit_latents, scaled
from flag_training.stages.spread import draws_of
from napari_flag.model.diffusion import TOGETHER
from napari_flag.progress import finish
from napari_flag.statistics.neighbours import find_neighbours
from napari_flag.statistics.scoring_rules import proper_scores

FloatArray = npt.NDArray[np.float64]
CONFIG: Final = Path(__file__).parents[1] / "training" / "configs" / "her2st.toml"
WIDTHS: Final = (0.0, 0.3, 0.6, 0.8, 1.0)
COLUMNS: Final = ("ES", "CRPS", "VS-gene", "VS-space", "ES corrected", "CRPS corrected", "amplitude")
INDEPENDENT: Final = 16


def row(model: ResidualModel, slide: TrainingSlide, expected: FloatArray) -> list[float]:
    """Return `COLUMNS` of one section."""
    spots, truth = slide.spots, slide.expression.astype(np.float64)
    weights = find_neighbours(spots.xy, spots.array, spots.lattice).weights
    evenly = draws_of(model, expected, spots.ids, range(TOGETHER), 0)
    official = proper_scores(evenly, truth, weights).means()
    blocks = range(0, TOGETHER * INDEPENDENT, TOGETHER)  # a block each, so that they are independent
    alone = np.stack(draws_of(model, expected, spots.ids, blocks, 0))
    pairs = list(combinations(range(INDEPENDENT), 2))
    between = [np.linalg.norm(alone[a] - alone[b], axis=1).mean() for a, b in pairs]
    apart = [np.abs(alone[a] - alone[b]).mean() for a, b in pairs]
    energy = np.linalg.norm(alone - truth, axis=2).mean() - np.mean(between) / 2
    crps = np.abs(alone - truth).mean() - np.mean(apart) / 2
    amplitude = np.median(alone.var(1) / truth.var(0))
    return [*(float(official[name]) for name in COLUMNS[:4]), float(energy), float(crps), float(amplitude)]


def table(cohort: Cohort, crossfit: npt.NDArray[np.float32]) -> str:
    """Return a row of `COLUMNS` for each width, a mean over sections."""
    expression = np.concatenate([slide.expression for slide in cohort.slides])
    expected = (expression - crossfit).astype(np.float64)
    counts = torch.cat([counts_of(slide.expression) for slide in cohort.slides])
    model = finish(fit_latents(counts, torch.from_numpy(expected), 1, 0)).model
    ends = np.cumsum([len(slide.spots) for slide in cohort.slides])[:-1]
    parts = np.split(expected, ends)
    lines = [f"| width | {' | '.join(COLUMNS)} |", f"|---:|{'---:|' * len(COLUMNS)}"]
    for width in WIDTHS:
        narrowed = scaled(model, width)
        rows = [row(narrowed, slide, part) for slide, part in zip(cohort.slides, parts, strict=True)]
        lines.append(f"| {width:g} | {' | '.join(f'{value:.4f}' for value in np.mean(rows, axis=0))} |")
    return "\n".join(lines)


def main() -> None:
    """Write the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    config = read_config(CONFIG)
    net = finish(tile_encoder(config, args.data, args.run))
    cohort = finish(load_cohort(config, args.data, args.run, net))
    crossfit = np.load(states_folder(args.run, config) / "crossfit.npy")
    text = [
        "# How wide draws should be",
        "Written by `python benchmarks/draw_width.py --data DATA --run runs/her2st --out "
        "docs/results/draw_width.md` after `napari-flag train training/configs/her2st.toml`.",
        "The composition residual's standard deviation, times *width*, around the cross-fitted expectation "
        "of the five training sections, mean over sections; no network. The first four scores are of eight "
        "draws with evenly spread noise and 1/(2K²); *corrected* are of sixteen independent draws with "
        "1/(2K(K − 1)), which is the score of the distribution itself. Lower is better; amplitude 1 is that "
        "of the truth.",
        table(cohort, crossfit),
    ]
    args.out.write_text("\n\n".join(text) + "\n", "utf-8")


if __name__ == "__main__":
    main()
