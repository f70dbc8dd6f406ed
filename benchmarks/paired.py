"""Pair FLAG's held-out predictions with those of every other method, spot by spot.

    python -m benchmarks.paired runs/her2st/equal_budgets/2_TFLOP/predictions/seed_2 \
        runs/her2st/equal_budgets/2_TFLOP/predictions/seed_0/C?_{ridge,kNN}*.h5ad \
        --out docs/results/equal_budgets_paired.json

Takes prediction files as ``benchmarks.domains`` does: one of each method and section, with the section's
truth in one of them.  What is given is FLAG's score less the other's on the same spots and genes, with the
95 % interval of a bootstrap over blocks of neighbouring spots: the squared error of ``X``, and, of methods
that draw, the proper scores of eight draws and those of the distribution.  FLAG is *better* in a section
where the interval lies below 0.  Writes JSON, and the same as a table in Markdown.
"""

import argparse
import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from benchmarks.domains import FLAG, read_sections

from flag_training.cohort import SlideEntry, TrainingSlide
from flag_training.scoring import COMPARED, FAIR, SCORED, Difference, Judged, Section
from napari_flag import keys
from napari_flag.analysis.truth import dense
from napari_flag.errors import UserError
from napari_flag.formatting import UNKNOWN, difference
from napari_flag.prediction_file import layer_of, provenance, spots_of, um_per_px
from napari_flag.statistics import bootstrap

if TYPE_CHECKING:
    from anndata import AnnData

ERROR: Final = "MSE of X"
SHOWN: Final = (ERROR, *(metric for metric in COMPARED if metric not in FAIR))

Found = dict[str, dict[str, dict[str, Difference]]]
"""Section → method → measure → FLAG's less the method's, low, high."""


def section_of(adata: "AnnData") -> Section:
    """Return what the scores of a prediction that carries its truth need."""
    truth = np.asarray(dense(adata.layers[keys.MEASURED]), np.float32)
    entry = SlideEntry("section", "", "", "")
    return Section.of(TrainingSlide(entry, spots_of(adata), um_per_px(adata) or 1.0, truth))


def draws_of(section: Section, adata: "AnnData") -> Judged | None:
    """Return the scored draws of a prediction; None where it has none, or too few."""
    names = [layer_of(number) for number, _ in enumerate(SCORED, start=1)]
    if not set(names) <= set(adata.layers):
        return None
    return section.draws(np.stack([np.asarray(dense(adata.layers[name]), np.float32) for name in names]))


def errors_of(section: Section, adata: "AnnData") -> np.ndarray[Any, np.dtype[np.float64]]:
    """Return (n,) the mean squared error of ``X`` in each spot."""
    away = dense(adata.X).astype(np.float64) - section.slide.expression
    return np.asarray((away**2).mean(axis=1))


def pairs_of(predictions: "Mapping[str, AnnData]") -> dict[str, dict[str, Difference]]:
    """Return method → measure → FLAG's score less its, of one section.

    Raises
    ------
    UserError
        When FLAG is not among them.
    """
    if FLAG not in predictions:
        raise UserError(f"There is no prediction of FLAG beside {', '.join(predictions)}; give one too.")
    section = section_of(predictions[FLAG])
    drawn = {name: draws_of(section, adata) for name, adata in predictions.items()}
    errors = {name: errors_of(section, adata) for name, adata in predictions.items()}
    ours, alike = drawn[FLAG], np.ones(len(section.blocks))
    found = {}
    for name in predictions:
        if name == FLAG:
            continue
        away, random = errors[FLAG] - errors[name], np.random.default_rng(section.seed)
        ends = bootstrap.mean_interval(away, alike, section.blocks, random)
        found[name] = {ERROR: (float(away.mean()), *ends)}
        if ours is not None and (theirs := drawn[name]) is not None:
            found[name] |= section.difference(ours, theirs)
    return found


def measure(paths: Sequence[Path]) -> dict[str, Any]:
    """Return what the JSON file holds."""
    by_section = read_sections(paths)
    seeds = {
        int(provenance(predictions[FLAG])[keys.SEED])
        for predictions in by_section.values()
        if FLAG in predictions
    }
    found: Found = {section: pairs_of(predictions) for section, predictions in by_section.items()}
    return {"seeds": sorted(seeds), "sections": found}


def as_markdown(results: dict[str, Any]) -> str:
    """Return the page: a row per method, the mean over sections, and in how many FLAG is better and worse."""
    found: Found = results["sections"]
    sections, seeds = ", ".join(found), ", ".join(map(str, results["seeds"]))
    lines = [
        f"# FLAG less every other method, paired, on {sections}",
        "",
        f"Written by `{results['command']}`, of predictions with seed {seeds}.",
        "",
        "FLAG's score less the other's on the same spots and genes, mean over the sections: below 0, FLAG "
        "is better. Beside it: in how many sections the 95 % interval of a bootstrap over blocks of "
        "neighbouring spots lies below 0 (better), and in how many above (worse). The "
        f"proper scores are of eight draws; a method that does not draw has {UNKNOWN}.",
        "",
        "| against | " + " | ".join(SHOWN) + " |",
        "|---|" + "---:|" * len(SHOWN),
    ]
    methods = dict.fromkeys(name for of in found.values() for name in of)
    for name in methods:
        cells = [
            _cell([of[name][metric] for of in found.values() if metric in of.get(name, {})])
            for metric in SHOWN
        ]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _cell(found: Sequence[Difference]) -> str:
    if not found:
        return UNKNOWN
    better = sum(high < 0 for _, _, high in found)
    worse = sum(low > 0 for _, low, _ in found)
    mean = float(np.mean([value for value, _, _ in found]))
    of = f"better in {better}" + (f", worse in {worse}" if worse else "") + f" of {len(found)}"
    return f"{difference(mean)} ({of})"


def main(argv: Sequence[str] | None = None) -> int:
    """Pair what is given, and write it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("predictions", type=Path, nargs="*", help="prediction files, or folders of them")
    parser.add_argument("--out", type=Path, default=Path("docs/results/equal_budgets_paired.json"))
    args = parser.parse_args(argv)
    if not args.predictions:  # as `make bench` runs it
        print("Skipped: give prediction files of sections with their truth (see the head of this file).")
        return 0
    named = shlex.join(str(path) for path in args.predictions)
    command = f"python -m benchmarks.paired {named} --out {args.out}"
    try:
        results = {"command": command, **measure(args.predictions)}
    except UserError as error:
        raise SystemExit(str(error)) from error
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n", "utf-8")
    args.out.with_suffix(".md").write_text(as_markdown(results), "utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
