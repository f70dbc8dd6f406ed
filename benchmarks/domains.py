"""Domains and markers of predictions against those of the truth, and domains against a pathologist's labels.

    python benchmarks/domains.py training/configs/her2st.toml --data DATA --run runs/her2st \
        --predictions runs/her2st/held_out --out docs/results/domains.json

FLAG's held-out predictions are read; ridge, kNN and the image-blind ones are fitted anew on the same
features, on all other sections and on those without B4.  The domains' settings are the package's own.
Writes JSON, and the same as tables in Markdown.
"""

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from flag_training.cohort import Cohort
from flag_training.config import RunConfig, read_config
from flag_training.evaluate import Fold, Plan, fold_cohort, keep
from flag_training.methods import Method, blinded, controls
from flag_training.methods.controls import Pasted
from flag_training.methods.floors import LEARNED_FLOORS
from napari_flag import keys
from napari_flag.analysis.spatial import spot_neighbours
from napari_flag.analysis.truth import dense
from napari_flag.cli.terminal import ProgressLine
from napari_flag.prediction_file import read_prediction
from napari_flag.progress import finish
from napari_flag.slides.formats.labels import read_labels
from napari_flag.slides.spot_tables import read_measured
from napari_flag.statistics import gene_sets
from napari_flag.statistics.accuracy import gene_pearson, mean_over_genes
from napari_flag.statistics.domains import METHODS, Leiden, agreement, find_domains
from napari_flag.statistics.markers import differential_genes, overlap_at
from napari_flag.statistics.neighbours import Neighbours, find_neighbours
from napari_flag.statistics.pathways import PERMUTATIONS, Enrichment, enrich, recover, together

Values = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int64]
Row = dict[str, float]

TOPS: Final = (20, 50)
FEWEST_IN_DOMAIN: Final = 10
SHUFFLES: Final = 10
METHODS_BESIDE: Final[dict[str, Method]] = {
    "ridge": LEARNED_FLOORS["ridge"],
    "ridge, slide frame and first ring": LEARNED_FLOORS["ridge, slide frame and first ring"],
    "kNN, k = 10": LEARNED_FLOORS["kNN, k = 10"],
    "kNN, k = 50": LEARNED_FLOORS["kNN, k = 50"],
    "other sections pasted (blind to the image)": Pasted(),
}
EXPECTED_IN: Final = {
    "Fat": ("adipose tissue",),
    "Fibroblasts and collagen": ("connective tissue",),
    "T and NK cells": ("immune infiltrate",),
    "B and plasma cells": ("immune infiltrate",),
    "Luminal epithelium": ("invasive cancer", "cancer in situ", "breast glands"),
    "HER2 amplicon (17q12)": ("invasive cancer", "cancer in situ"),
    "Basal and myoepithelial cells": ("breast glands", "cancer in situ"),
}
"""Bundled gene set → labels where it should be highest, written down before the labels were read."""
COUNTED: Final = (*(f"overlap@{k}" for k in TOPS), "gene sets measured", "predicted", "in both", "by chance")
"""Measures that are numbers of genes or sets."""
UNSURE: Final = "undetermined"
MOST_VARIABLE: Final = 1000
WITHOUT: Final = ", without B4"


def main() -> None:
    """Measure everything and write it."""
    parser = argparse.ArgumentParser(description="Hold predicted domains and markers against the truth.")
    parser.add_argument("config", type=Path, nargs="?", default=Path("training/configs/her2st.toml"))
    parser.add_argument("--data", type=Path)
    parser.add_argument("--run", type=Path, default=Path("runs/her2st"))
    parser.add_argument(
        "--predictions", type=Path, default=Path("runs/her2st/held_out"), help="held-out h5ad"
    )
    parser.add_argument("--out", type=Path, default=Path("docs/results/domains.json"))
    args = parser.parse_args()
    if args.data is None:  # as `make bench` runs it
        print("Skipped: give --data, the folder of the her2st sections (see the head of this file).")
        return
    bench = Bench(read_config(args.config), args.data, args.run, args.predictions)
    results = {
        "command": f"python benchmarks/domains.py {args.config} --data DATA --run {args.run} "
        f"--predictions {args.predictions} --out {args.out}",
        "settings": {name: repr(method) for name, method in METHODS.items()},
        "chance_overlap": {f"@{k}": k * k / 200 for k in TOPS},
        "sections": {name: bench.section(name) for name in bench.sections()},
        "pathology": pathology(args.data),
    }
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(_rounded(results), indent=1, ensure_ascii=False) + "\n", "utf-8")
    args.out.with_suffix(".md").write_text(as_markdown(results), "utf-8")


@dataclass(frozen=True, slots=True)
class Truth:
    """What is measured of one section: values, graph, and domains by method."""

    values: Values
    genes: list[str]
    neighbours: Neighbours
    domains: dict[str, Labels]
    sets: tuple[Enrichment, ...]

    @classmethod
    def of(cls, values: Values, genes: list[str], neighbours: Neighbours) -> "Truth":
        """Find the domains of the truth."""
        domains = {name: finish(find_domains(values, neighbours, method=name)) for name in METHODS}
        sets = tuple(
            finish(enrich(values, genes, inside, None, gene_sets.bundled()))
            for inside in _regions(domains["leiden"])
        )
        return cls(values, genes, neighbours, domains, sets)

    def against(self, guess: Values) -> Row:
        """Return PCC, ARI and NMI of the domains, and shared markers and gene sets of the truth's domains."""
        row = {"PCC": mean_over_genes(gene_pearson(guess, self.values))}
        for name in METHODS:
            found = agreement(finish(find_domains(guess, self.neighbours, method=name)), self.domains[name])
            row |= {f"ARI, {name}": found.ari, f"NMI, {name}": found.nmi}
        shared: dict[int, list[float]] = {k: [] for k in TOPS}
        recovered = {}
        for number, inside in enumerate(_regions(self.domains["leiden"])):
            found = finish(
                enrich(guess, self.genes, inside, None, gene_sets.bundled(), permutations=PERMUTATIONS)
            )
            recovered[str(number)] = recover(found, self.sets[number])
            first, second = (
                list(differential_genes(v, self.genes, inside).gene) for v in (guess, self.values)
            )
            for k in TOPS:
                shared[k].append(overlap_at(first, second, k).shared)
        row |= {f"overlap@{k}": float(np.mean(shared[k])) for k in TOPS}
        sets = together(recovered)
        return row | {
            "gene sets measured": float(len(sets.measured)),
            "predicted": float(len(sets.predicted)),
            "in both": float(len(sets.shared)),
            "by chance": sets.chance,
        }


def _regions(labels: Labels) -> Iterator[npt.NDArray[np.bool_]]:
    """Yield the domains that are large enough."""
    for number in np.unique(labels):
        if (labels == number).sum() >= FEWEST_IN_DOMAIN:
            yield labels == number


class Bench:
    """The held-out sections."""

    def __init__(self, config: RunConfig, data: Path, run: Path, predictions: Path) -> None:
        self.config, self.data, self.run, self.predictions = config, data, run, predictions
        self.line = ProgressLine()

    def sections(self) -> list[str]:
        """Return the sections with a held-out prediction."""
        return sorted(path.stem for path in self.predictions.glob("*.h5ad"))

    def section(self, name: str) -> dict[str, Row]:
        """Return prediction → row of measures."""
        adata = read_prediction(self.predictions / f"{name}.h5ad")
        values = dense(adata.layers[keys.MEASURED]).astype(np.float64)
        truth = Truth.of(values, [str(gene) for gene in adata.var_names], spot_neighbours(adata))
        guess, sample = (dense(m).astype(np.float64) for m in (adata.X, adata.layers[keys.SAMPLE]))
        rows = {"FLAG, X": truth.against(guess), "FLAG, one sample": truth.against(sample)}
        rng = np.random.default_rng(0)
        dealt = [truth.against(guess[rng.permutation(len(guess))]) for _ in range(SHUFFLES)]
        rows["FLAG, X, spots shuffled (chance)"] = {
            measure: float(np.mean([row[measure] for row in dealt])) for measure in dealt[0]
        }
        plan = Plan(test=(name,), flag=False)
        cohort = finish(
            fold_cohort(self.config, self.data, self.run, plan, Fold((name,), (name,))), self.line
        )
        rows |= self.beside(name, cohort, truth)
        return rows

    def beside(self, name: str, cohort: Cohort, truth: Truth) -> dict[str, Row]:
        """Return the simpler methods' rows, and of halves of the counts against the whole's other half."""
        names = [slide.entry.name for slide in cohort.slides]
        place = names.index(name)
        slide, features = cohort.slides[place], cohort.features[place][0].numpy()
        if not np.allclose(slide.expression, truth.values, atol=1e-4):
            raise SystemExit(f"The held-out file of {name} is of other spots or genes than the run; redo it.")
        rows = {}
        for gone in ((name,), (name, "B4"))[: 1 if name == "B4" else 2]:
            rest = keep(cohort, [other for other in names if other not in gone])
            ending = "" if len(gone) == 1 else WITHOUT
            for method, fitted in METHODS_BESIDE.items():
                predictor = finish(fitted.fit(rest, 0), self.line)
                rows[method + ending] = truth.against(predictor(blinded(slide), features).astype(np.float64))
        first, second = (half.astype(np.float64) for half in controls.halves(slide, 0))
        rows["half of the counts against the other half"] = Truth.of(
            second, truth.genes, truth.neighbours
        ).against(first)
        return rows


def pathology(data: Path) -> dict[str, dict[str, object]]:
    """Hold domains of measured expression against the labels, and gene sets against the tissue they name."""
    found = {}
    for path in sorted((data / "pathology").glob("*_labeled_coordinates.tsv")):
        name = path.name.split("_")[0]
        if (data / "counts" / f"{name}.tsv.gz").exists():
            found[name] = labelled(data, name, path)
    return found


def labelled(data: Path, name: str, path: Path) -> dict[str, object]:
    """Return agreement and AUCs of one labelled section."""
    adata = read_measured(data / "counts" / f"{name}.tsv.gz")
    values = np.log2(dense(adata.X).astype(np.float64) + 1.0)
    labels = read_labels(path).of(list(adata.obs_names))
    array = np.array([[int(part) for part in spot.split("x")] for spot in adata.obs_names])
    genes = [str(gene) for gene in adata.var_names]
    panel = (data / "panel_hmhvg200.txt").read_text("utf-8").split()
    variable = np.argsort(-values.var(axis=0), kind="stable")[:MOST_VARIABLE]
    shown = {"panel of 200": [genes.index(gene) for gene in panel if gene in genes]}
    shown[f"{MOST_VARIABLE} most variable genes"] = variable.tolist()
    neighbours = find_neighbours(array[:, ::-1] * 200.0, array, "square")
    sure = (labels != UNSURE) & (labels != "")
    rows: dict[str, Row] = {}
    for what, columns in shown.items():
        for method in METHODS:
            domains = finish(find_domains(values[:, columns], neighbours, method=method))
            rows[f"{method}, {what}"] = _against_labels(domains, labels, sure)
    place_only = finish(Leiden(share=1.0).find(values[:, variable], neighbours, 0))
    rows["leiden, place alone"] = _against_labels(place_only, labels, sure)
    clusters = data / "clusters" / f"{name}-cluster-annotation.tsv.gz"
    if clusters.exists():
        theirs = read_labels(clusters).of(list(adata.obs_names))
        rows["the authors' clusters"] = _against_labels(theirs, labels, sure & (theirs != ""))
    return {
        "spots": int(sure.sum()),
        "labels": {str(label): int((labels == label).sum()) for label in np.unique(labels)},
        "domains": rows,
        "gene_sets_auc": _set_aucs(values, genes, labels, sure),
        "gene_sets_auc_at_one_depth": _set_aucs(one_depth(adata.X), genes, labels, sure),
    }


def one_depth(counts: Any) -> Values:
    """Return log2(count + 1) after scaling each spot's counts to the median total."""
    wide = dense(counts).astype(np.float64)
    total = wide.sum(axis=1, keepdims=True)
    scaled: Values = np.log2(wide / np.maximum(total, 1.0) * np.median(total) + 1.0)
    return scaled


def _against_labels(domains: npt.NDArray[Any], labels: npt.NDArray[Any], sure: npt.NDArray[np.bool_]) -> Row:
    found = agreement(domains[sure], labels[sure])
    return {"ARI": found.ari, "NMI": found.nmi, "domains": len(np.unique(domains[sure]))}


def _set_aucs(
    values: Values, genes: list[str], labels: npt.NDArray[Any], sure: npt.NDArray[np.bool_]
) -> dict[str, float]:
    """Return set → the chance that a spot of its tissue scores above one of another."""
    from scipy.stats import mannwhitneyu

    found = {}
    for name, tissue in EXPECTED_IN.items():
        inside = np.isin(labels, tissue) & sure
        if FEWEST_IN_DOMAIN <= inside.sum() <= sure.sum() - FEWEST_IN_DOMAIN:
            score = gene_sets.score(values, genes, gene_sets.bundled()[name])
            larger = mannwhitneyu(score[inside], score[sure & ~inside]).statistic
            found[name] = float(larger / inside.sum() / (sure & ~inside).sum())
    return found


def as_markdown(results: dict[str, Any]) -> str:
    """Return the tables."""
    sections = results["sections"]
    serial = [name for name in sections if name.startswith("C")]
    chance = ", ".join(f"{results['chance_overlap'][f'@{k}']:g} at {k}" for k in TOPS)
    lines = [
        "# Domains and markers, predicted against measured",
        "",
        f"Written by `{results['command']}`.",
        "",
        "Domains are found in the prediction and in the truth by the same settings "
        f"({'; '.join(f'{name}: {text}' for name, text in results['settings'].items())}; the weight of the "
        "neighbourhood was chosen on simulated noise, see docs/statistics.md). Markers are ranked (Wilcoxon, "
        "domain against rest) in the truth's Leiden domains, by prediction and by truth, and the shared ones "
        f"averaged over domains; two rankings that know nothing of each other share {chance} of 200 genes. "
        "Prediction and truth lie on one graph of neighbours, so that chance need not be 0: the row of "
        "shuffled spots says what it is. Half of the counts against the other half says what the noise of "
        "the measurement leaves to agree on. Methods are listed with the better of their training sets, by "
        "PCC; the pasted sections do not use the image, but are serial cuts of the same tumour. Gene sets: "
        "how many of the bundled ones are raised in the truth's Leiden domains, summed over domains (a set "
        "counts in each), by the truth, by the prediction and by both, beside what as many of the "
        "prediction's share with the truth after its spots were dealt to the domains at random "
        "(docs/statistics.md).",
    ]
    groups = {f"Mean over {', '.join(serial)}, each left out": serial}
    groups |= {f"{name}, left out": [name] for name in sections if name not in serial}
    for title, names in groups.items():
        lines += ["", f"## {title}", "", *_table([sections[name] for name in names])]
        if len(names) > 1:
            lines += ["", f"ARI of the Leiden domains in {', '.join(names)}: {_one_by_one(sections, names)}."]
    lines += ["", "## Measured expression against a pathologist's labels", ""]
    lines += ["ARI / NMI over the spots whose label is sure; no image of these sections is at hand.", ""]
    lines += _pathology_table(results["pathology"])
    lines += [
        "",
        "How often a spot of the tissue scores above one of another (AUC) by the bundled gene set:",
        "",
    ]
    return "\n".join([*lines, *_auc_table(results["pathology"])]) + "\n"


def _rounded(results: Any) -> Any:
    if isinstance(results, dict):
        return {name: _rounded(value) for name, value in results.items()}
    return round(results, 4) if isinstance(results, float) else results


def _table(sections: Sequence[dict[str, Row]]) -> list[str]:
    names = _better([name for name in sections[0] if all(name in section for section in sections)], sections)
    measures = list(sections[0][names[0]])
    lines = [f"| prediction | {' | '.join(measures)} |", f"|---|{'---:|' * len(measures)}"]
    for name in names:
        means = [float(np.mean([section[name][measure] for section in sections])) for measure in measures]
        cells = [f"{m:.{1 if t in COUNTED else 3}f}" for t, m in zip(measures, means, strict=True)]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines


def _one_by_one(sections: dict[str, dict[str, Row]], names: list[str]) -> str:
    """Return FLAG's and its nearest rival's ARI, section by section: means of four hide much."""
    results = [sections[name] for name in names]
    fair = [name for name in _better(list(results[0]), results) if name.split(",")[0] in ("ridge", "kNN")]
    rival = max(fair, key=lambda name: float(np.mean([rows[name]["ARI, leiden"] for rows in results])))
    return "; ".join(
        f"{name} " + " ".join(f"{rows[name]['ARI, leiden']:.2f}" for rows in results)
        for name in ("FLAG, X", rival)
    )


def _better(names: list[str], sections: Sequence[dict[str, Row]]) -> list[str]:
    """Keep of each method the training set with the higher mean PCC."""

    def pcc(name: str) -> float:
        return float(np.mean([section[name]["PCC"] for section in sections]))

    plain = [name for name in names if not name.endswith(WITHOUT)]
    return [max((n for n in (name, name + WITHOUT) if n in names), key=pcc) for name in plain]


def _pathology_table(found: dict[str, Any]) -> list[str]:
    rows = list(next(iter(found.values()))["domains"])
    lines = [f"| domains | {' | '.join(found)} | mean |", f"|---|{'---:|' * (len(found) + 1)}"]
    for row in rows:
        pairs = [results["domains"].get(row) for results in found.values()]
        known = [pair for pair in pairs if pair]
        cells = [f"{pair['ARI']:.2f} / {pair['NMI']:.2f}" if pair else "–" for pair in pairs]
        mean = [float(np.mean([pair[measure] for pair in known])) for measure in ("ARI", "NMI")]
        lines.append(f"| {row} | {' | '.join(cells)} | {mean[0]:.2f} / {mean[1]:.2f} |")
    return lines


def _auc_table(found: dict[str, Any]) -> list[str]:
    lines = [f"| gene set | tissue | {' | '.join(found)} |", f"|---|---|{'---:|' * len(found)}"]
    for name, tissue in EXPECTED_IN.items():
        plain = [results["gene_sets_auc"].get(name) for results in found.values()]
        level = [results["gene_sets_auc_at_one_depth"].get(name) for results in found.values()]
        cells = ["–" if a is None else f"{a:.2f} / {b:.2f}" for a, b in zip(plain, level, strict=True)]
        lines.append(f"| {name} | {', '.join(tissue)} | {' | '.join(cells)} |")
    return lines


if __name__ == "__main__":
    main()
