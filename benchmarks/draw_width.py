"""How wide should draws be?  Scores of eight draws against scores that do not depend on their number.

Residuals are fitted to the cross-fitted expectation that a finished training left in its run folder, narrowed
by several factors, and draws around it are scored on the same left-out sections: eight draws that share their
noise evenly, as tables score them, and sixteen, fairly.  Writes Markdown.

    python -m benchmarks.draw_width --data DATA --run runs/her2st --out docs/results/draw_width.md
"""

import argparse
import json
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt
import torch

from flag_training.cohort import Cohort, TrainingSlide, are_earlier, fingerprint, load_cohort
from flag_training.config import read_config
from flag_training.run_folders import trained_folder
from flag_training.scoring import JUDGED, SCORED, called
from flag_training.stages.denoising import counts_of
from flag_training.stages.fit import tile_encoder
from flag_training.stages.latents import ResidualModel, Slides, fit_latents
from flag_training.stages.spread import draws_of, noise_of
from napari_flag.formatting import score
from napari_flag.model.diffusion import TOGETHER
from napari_flag.progress import finish
from napari_flag.statistics.neighbours import find_neighbours
from napari_flag.statistics.scoring_rules import FEWEST_DRAWS, proper_scores, scoring_draws

FloatArray = npt.NDArray[np.float64]
CONFIG: Final = Path(__file__).parents[1] / "training" / "configs" / "her2st.toml"
WIDTHS: Final = (0.0, 0.3, 0.6, 0.8, 1.0)
COLUMNS: Final = (*JUDGED, *(f"{name} fair" for name in JUDGED), "amplitude")


def row(model: ResidualModel, width: float, slide: TrainingSlide, expected: FloatArray) -> list[float]:
    """Return `COLUMNS` of one section under the residuals expected of it, narrowed to `width`."""
    spots, truth = slide.spots, slide.expression.astype(np.float64)
    weights = find_neighbours(spots.xy, spots.array, spots.lattice).weights
    drawn = draws_of(model, expected, noise_of(model, spots.ids, SCORED, 0), width)
    official = proper_scores(drawn[:FEWEST_DRAWS], truth, weights).means()
    fair = finish(scoring_draws(drawn, truth, weights, block=TOGETHER)).means()
    amplitude = np.median(np.var(drawn, axis=1) / truth.var(0))
    return [*(official[name] for name in JUDGED), *(fair[name] for name in JUDGED), float(amplitude)]


def table(cohort: Cohort, crossfit: npt.NDArray[np.float32], resemblance: torch.Tensor) -> str:
    """Return a row of `COLUMNS` for each width, a mean over sections."""
    expression = np.concatenate([slide.expression for slide in cohort.slides])
    expected = (expression - crossfit).astype(np.float64)
    counts = torch.cat([counts_of(slide.expression) for slide in cohort.slides])
    sizes = [len(slide.spots) for slide in cohort.slides]
    slides = Slides(torch.arange(sum(sizes)).split(sizes), resemblance)
    model = finish(fit_latents(counts, torch.from_numpy(expected), slides, 1, 0)).model
    ends = np.cumsum(sizes)[:-1]
    parts = np.split(expected, ends)
    lines = [f"| width | {' | '.join(map(called, COLUMNS))} |", f"|---:|{'---:|' * len(COLUMNS)}"]
    for width in WIDTHS:
        rows = [
            row(model.on(seen), width, slide, part)
            for slide, part, seen in zip(cohort.slides, parts, resemblance, strict=True)
        ]
        lines.append(f"| {width:g} | {' | '.join(map(score, np.mean(rows, axis=0), COLUMNS))} |")
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
    known = are_earlier(cohort, config, args.run, net)
    folder, _ = trained_folder(args.run, config, fingerprint(cohort), known)
    crossfit = np.load(folder / "crossfit.npy")
    resemblance = torch.tensor(json.loads((folder / "spread.json").read_text())["resemblance"])
    text = [
        "# How wide draws should be",
        "Written by `python -m benchmarks.draw_width --data DATA --run runs/her2st --out "
        "docs/results/draw_width.md` after `napari-flag train training/configs/her2st.toml`.",
        "The composition residual's standard deviation, times *width*, around the cross-fitted expectation "
        "of the five training sections, mean over sections; no network. The first four scores are of eight "
        "draws with evenly spread noise, as tables score them; *fair* ones are of sixteen such draws, by "
        "pairs from different eights, which is the score of the distribution itself. The training chooses by "
        "these. Lower is better; amplitude 1 is that of the truth.",
        table(cohort, crossfit, resemblance),
    ]
    args.out.write_text("\n\n".join(text) + "\n", "utf-8")


if __name__ == "__main__":
    main()
