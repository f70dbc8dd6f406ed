"""What a learned residual can win in proper scores, on simulated slides whose distribution is known.

Draws from the exact distribution, and from less: its Gaussian of one covariance, independent genes of the
same variances, depth and counting alone, counting alone.  All know the true expectation, so that what is left
between the rows is the residual's.  Rows share their random numbers.  Prints Markdown.

    python -m benchmarks.simulated_ceiling --out docs/results/simulated_ceiling.md
"""

import argparse
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from flag_training.scoring import called
from flag_training.simulated import CohortModel, SimulatedSlide
from napari_flag.formatting import difference, score
from napari_flag.progress import finish
from napari_flag.simulation.expression import TISSUES, Depth, GeneModel, KnownExpression, generated_genes
from napari_flag.statistics.neighbours import array_graph
from napari_flag.statistics.scoring_rules import scoring_draws

SETTINGS: Final[dict[str, dict[str, Any]]] = {
    "one Gaussian residual (`own_to_tissue=0`)": {"own_to_tissue": 0.0},
    "as `generated_genes` has it": {},
    "strong context (`own_to_tissue=1, on_off=3, factors=3, shared=0.9, residual=0.8, mean_count=10`)": {
        "own_to_tissue": 1.0,
        "on_off": 3,
        "factors": 3,
        "shared": 0.9,
        "residual": 0.8,
        "mean_count": 10.0,
    },
}
COLUMNS: Final = ("ES fair", "ES", "ES-map", "CRPS", "VS-gene", "VS-space")


def rivals(known: KnownExpression, shares: npt.NDArray[np.float64]) -> Iterator[tuple[str, KnownExpression]]:
    """Yield the exact distribution and lesser ones."""
    genes = known.genes
    common = np.einsum("tgr,t->g", genes.loadings**2, shares / shares.sum()).astype(np.float32)
    yield "exact", known
    yield "one Gaussian", replace(known, genes=genes.one_gaussian(shares))
    yield "independent genes", replace(known, genes=_apart(genes, genes.own_variance + common))
    alone = replace(known, genes=_apart(genes, np.zeros_like(common)))
    yield "depth and counting alone", alone
    yield "counting alone", replace(alone, depth=Depth(spread=0.0, lost=0.0))


def _apart(genes: GeneModel, variance: npt.NDArray[np.float32]) -> GeneModel:
    nothing = np.zeros((len(TISSUES), len(genes), 1), np.float32)
    return replace(genes, loadings=nothing, own_variance=variance, on_off=0)


def scores(made: SimulatedSlide, known: KnownExpression, draws: int, seed: int) -> list[float]:
    """Return `COLUMNS` of one slide: the fair energy score, then scores of the draws as they are."""
    spots, truth = made.slide.spots, made.slide.expression.astype(np.float64)
    drawn = [np.log2(known.draw(np.random.default_rng([seed, k])) + 1) for k in range(draws)]
    graph = array_graph(spots.array, spots.lattice)
    fair, found = (finish(scoring_draws(drawn, truth, graph, block=each)).means() for each in (1, None))
    return [fair["ES"], *(found[name] for name in COLUMNS[1:])]


def table(model: CohortModel, slides: int, draws: int) -> str:
    """Return the rows of one setting: each rival's difference from the exact draws, ± its standard error."""
    made = [model.slide(k) for k in range(slides)]
    shares = np.bincount(np.concatenate([m.known.tissue for m in made]), minlength=len(TISSUES)) * 1.0
    found: dict[str, list[list[float]]] = {}
    for number, one in enumerate(made):
        sys.stderr.write(f"slide {number + 1} of {slides}\n")
        for name, known in rivals(one.known, shares):
            found.setdefault(name, []).append(scores(one, known, draws, number))
    exact = np.array(found.pop("exact"))
    lines = [f"| draws from | {' | '.join(map(called, COLUMNS))} |", f"|---|{'---:|' * len(COLUMNS)}"]
    lines.append(f"| the exact distribution | {' | '.join(map(score, exact.mean(axis=0), COLUMNS))} |")
    for name, values in found.items():
        away = np.array(values) - exact
        error = away.std(axis=0, ddof=1) / np.sqrt(slides)
        cells = (difference(mean, error=one) for mean, one in zip(away.mean(axis=0), error, strict=True))
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Write the table of every setting."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--slides", type=int, default=100)
    parser.add_argument("--genes", type=int, default=100)
    parser.add_argument("--draws", type=int, default=8)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    command = f"--slides {args.slides} --genes {args.genes} --draws {args.draws}"
    out = "--out docs/results/simulated_ceiling.md"
    text = [
        "# What there is to learn about the residual, on simulated slides",
        f"Written by `python -m benchmarks.simulated_ceiling {command} {out}`.",
        "Every row knows the true expectation of ln rate; they differ in what they say about the rest. The "
        "first is the mean score of draws from the exact distribution, the others the difference from it, ± "
        "the standard error over slides; above 0 is worse. *Fair ES* is that of the distribution, "
        "whatever the number of draws; the others are as in [statistics](../statistics.md), of "
        f"{args.draws} draws, with 1 / 2K², which favours draws that vary too little. In the first table, "
        "one Gaussian is the exact distribution, and its row is what chance does.",
    ]
    for name, values in SETTINGS.items():
        text += [f"## {name[0].upper()}{name[1:]}"]
        text += [table(CohortModel(generated_genes(args.genes, **values)), args.slides, args.draws)]
    args.out.write_text("\n\n".join(text) + "\n", "utf-8")


if __name__ == "__main__":
    main()
