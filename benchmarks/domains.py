"""Domains, markers and gene sets of predictions against the truth's, and domains against labels.

    python -m benchmarks.domains runs/her2st/held_out --data DATA --out docs/results/domains.json

Takes prediction files of any method and of any number of sections, or folders of them: `evaluate` leaves
those of FLAG and of every method that it trained in RUN/held_out/NAME/seed_N, or where --predictions says,
and `predict --weights FILE` writes them too, from weights trained without the section (`train --leave-out C5
--method ridge`).  A section's truth is
that of the first of its files that carries one (`predict --measured`).  Methods are listed as the files name
them, a second of one name (kNN with another k) with the name of its weights.  With --data, the folder of the
her2st sections, measured expression is also compared with the pathologist's labels.  The domains' settings
are the package's own.  Writes JSON, and the same as tables in Markdown; with --keep, what OUT has of methods
whose files are not given stays there, so that one method can be measured again.
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from flag_training.methods import controls
from napari_flag import keys
from napari_flag.analysis.domains import DEFAULT_METHOD, find_domains
from napari_flag.analysis.pathways import recover_domains
from napari_flag.analysis.regions import TOPS, compare_rankings
from napari_flag.analysis.structure import rank_domains
from napari_flag.analysis.truth import (
    MEASURED,
    PREDICTED,
    Numbers,
    dense,
    extent_of,
    matrix_of,
    measured_extent,
)
from napari_flag.errors import UserError
from napari_flag.formatting import UNKNOWN, number, score
from napari_flag.model.checkpoint import FLAG as WRITTEN_FLAG
from napari_flag.prediction_file import output_name, provenance, read_prediction, trained_on
from napari_flag.progress import finish
from napari_flag.slides.formats.labels import read_labels
from napari_flag.slides.spot_tables import read_measured
from napari_flag.statistics import domains as in_values
from napari_flag.statistics import gene_sets
from napari_flag.statistics.accuracy import gene_pearson, mean_over_genes
from napari_flag.statistics.domains import METHODS, Leiden, agreement
from napari_flag.statistics.neighbours import find_neighbours
from napari_flag.statistics.pathways import together

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

Values = npt.NDArray[np.float64]
Row = dict[str, float]

FEWEST_OF_TISSUE: Final = 10
"""Spots of a labelled tissue, and of all others, that an AUC needs."""
SHUFFLES: Final = 10
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
FLAG: Final = "FLAG"
HALVES: Final = "half of the counts against the other half"
SHUFFLED: Final = "spots shuffled (chance)"


def main() -> None:
    """Measure everything and write it."""
    parser = argparse.ArgumentParser(description="Hold predicted domains and markers against the truth.")
    parser.add_argument("predictions", type=Path, nargs="*", help="prediction files, or folders of them")
    parser.add_argument("--data", type=Path, help="folder of the her2st sections, for the labels")
    parser.add_argument("--out", type=Path, default=Path("docs/results/domains.json"))
    parser.add_argument("--keep", action="store_true", help="keep what OUT has of methods that are not given")
    args = parser.parse_args()
    if not args.predictions:  # as `make bench` runs it
        print("Skipped: give prediction files of sections with their truth (see the head of this file).")
        return
    if args.keep and args.data is not None:
        parser.error("--keep leaves what is said of labels as it is; leave --data out")
    if args.keep and not args.out.is_file():
        parser.error(f"--keep needs {args.out}, which is not there; leave it out")
    named = " ".join(str(path) for path in args.predictions)
    data = "" if args.data is None else " --data DATA"
    command = f"python -m benchmarks.domains {named}{data} --out {args.out}"
    try:
        results = {"command": command, **measure(args.predictions, args.data)}
        if args.keep:
            results = renewed(json.loads(args.out.read_text("utf-8")), results)
    except UserError as error:
        raise SystemExit(str(error)) from error
    results = _rounded(results)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n", "utf-8")
    args.out.with_suffix(".md").write_text(as_markdown(results), "utf-8")


def renewed(before: dict[str, Any], now: dict[str, Any]) -> dict[str, Any]:
    """Return `before` with the rows of the methods of `now`.

    Raises
    ------
    UserError
        When `before` is of other sections, genes or settings.
    """
    if any(before[name] != now[name] for name in ("settings", "genes")) or set(now["sections"]) - set(
        before["sections"]
    ):
        raise UserError("What --out holds is of other sections, genes or settings; leave --keep away.")
    rows = {
        section: of
        | {name: row for name, row in now["sections"].get(section, {}).items() if _is_method(name)}
        for section, of in before["sections"].items()
    }
    named = {_method_in(name): None for of in now["sections"].values() for name in of if _is_method(name)}
    again = {"command": f"{now['command']} --keep", "methods": list(named)}
    earlier = [
        part | {"methods": kept}
        for part in before.get("again", [])
        if (kept := [name for name in part["methods"] if name not in named])
    ]
    return before | {"again": [*earlier, again], "sections": rows}


def _is_method(row: str) -> bool:
    return row != HALVES and not row.endswith(SHUFFLED)


def _method_in(row: str) -> str:
    return row.removesuffix(", X").removesuffix(", one draw")


def measure(paths: Sequence[Path], data: Path | None) -> dict[str, Any]:
    """Return what the JSON file holds."""
    by_section = read_sections(paths)
    genes = {adata.n_vars for predictions in by_section.values() for adata in predictions.values()}
    return {
        "settings": {name: repr(method) for name, method in METHODS.items()},
        "genes": max(genes),
        "chance_overlap": {f"@{k}": k * k / max(genes) for k in TOPS},
        "sections": {name: section_rows(predictions) for name, predictions in by_section.items()},
        "pathology": {} if data is None else pathology(data),
    }


def read_sections(paths: Sequence[Path]) -> "dict[str, dict[str, AnnData]]":
    """Return section → method → prediction over the spots and genes that all of its files and its truth have.

    One that is the same in all spots, as the slide mean, has no domains and is left out.

    Raises
    ------
    UserError
        When a file is no prediction, a section has no truth or two files of one method, or a method was
        trained on the section.
    """
    files = [file for path in paths for file in (sorted(path.glob("*.h5ad")) if path.is_dir() else [path])]
    found: dict[str, dict[str, AnnData]] = {}
    for file in files:
        adata = read_prediction(file)
        if not np.ptp(dense(adata.X), axis=0).any():
            continue
        section, method = output_name(adata), _method_of(adata)
        others, weights = found.setdefault(section, {}), provenance(adata).get(keys.WEIGHTS_HASH)
        if method in others and weights != provenance(others[method]).get(keys.WEIGHTS_HASH):
            method = f"{method}, {provenance(adata)[keys.WEIGHTS_NAME]}"
        if method in others:
            raise UserError(
                f"{file} is a second prediction of {section} by {method}; give one file of each method and "
                "section."
            )
        if trained_on(adata):
            raise UserError(
                f"{file} was predicted with weights that were trained on {section}, so it says nothing of "
                "new tissue; train them without it (train --leave-out)."
            )
        found[section][method] = adata
    return {section: _over_the_same(section, predictions) for section, predictions in sorted(found.items())}


def _method_of(adata: "AnnData") -> str:
    """Return what the file calls its method; earlier files of FLAG name it as the header of weights does."""
    method = str(provenance(adata).get(keys.METHOD, FLAG))
    return FLAG if method == WRITTEN_FLAG else method


def _over_the_same(section: str, predictions: "dict[str, AnnData]") -> "dict[str, AnnData]":
    """Return predictions cut to what all have, each with the section's truth, FLAG first."""
    truths = [adata for adata in predictions.values() if measured_extent(adata) is not None]
    if not truths:
        raise UserError(
            f"No prediction of {section} carries its measurement; predict one of them with --measured, or "
            "give files that evaluate wrote."
        )
    extent = extent_of(truths[0], MEASURED)
    spots, genes = truths[0].obs_names[extent.spots], truths[0].var_names[extent.genes]
    for adata in predictions.values():
        spots, genes = spots[spots.isin(adata.obs_names)], genes[genes.isin(adata.var_names)]
    truth = truths[0][spots, genes].layers[keys.MEASURED]
    cut = {}
    for name in sorted(predictions, key=lambda method: method != FLAG):
        cut[name] = predictions[name][spots, genes].copy()
        cut[name].layers[keys.MEASURED] = truth
    return cut


def section_rows(predictions: "dict[str, AnnData]") -> dict[str, Row]:
    """Return prediction → row of measures, with the landmarks that the first of them gives."""
    first = next(iter(predictions.values()))
    truth, values = Truth.of(first), dense(first.layers[keys.MEASURED])
    rows = {}
    for name, adata in predictions.items():
        rows[f"{name}, X"] = truth.against(adata.X)
        if keys.SAMPLE in adata.layers:
            rows[f"{name}, one draw"] = truth.against(adata.layers[keys.SAMPLE])
    guess, rng = dense(first.X), np.random.default_rng(0)
    dealt = [truth.against(guess[rng.permutation(len(guess))]) for _ in range(SHUFFLES)]
    rows[f"{next(iter(predictions))}, X, {SHUFFLED}"] = {
        measure: float(np.mean([row[measure] for row in dealt])) for measure in dealt[0]
    }
    one, other = controls.halved(values.astype(np.float64), 0)
    half = first.copy()
    half.layers[keys.MEASURED] = other
    rows[HALVES] = Truth.of(half).against(one)
    return rows


@dataclass(frozen=True, slots=True)
class Truth:
    """What is measured of one section, its domains by method, and their markers of the Leiden domains."""

    adata: "AnnData"
    domains: dict[str, Numbers]
    markers: "dict[int, pd.DataFrame]"

    @classmethod
    def of(cls, adata: "AnnData") -> "Truth":
        """Find the domains of the truth of `adata`, all of whose spots and genes were measured."""
        domains = {name: finish(find_domains(adata, MEASURED, method=name)) for name in METHODS}
        return cls(adata, domains, finish(rank_domains(adata, MEASURED, domains[DEFAULT_METHOD])))

    def against(self, guess: Any) -> Row:
        """Return PCC, ARI and NMI of the domains, and shared markers and gene sets of the truth's domains."""
        adata = self.adata.copy()
        adata.X = guess
        values = (dense(matrix_of(adata, source)).astype(np.float64) for source in (PREDICTED, MEASURED))
        row = {"PCC": mean_over_genes(gene_pearson(*values))}
        for name, numbers in self.domains.items():
            found = agreement(finish(find_domains(adata, PREDICTED, method=name)), numbers)
            row |= {f"ARI, {name}": found.ari, f"NMI, {name}": found.nmi}
        leiden = self.domains[DEFAULT_METHOD]
        ranked = finish(rank_domains(adata, PREDICTED, leiden))
        shared = [
            [top.shared for top in finish(compare_rankings(adata, ranked[number], table, leiden == number))]
            for number, table in self.markers.items()
        ]
        means = np.mean(shared, axis=0) if shared else np.full(len(TOPS), np.nan)
        row |= {f"overlap@{k}": float(mean) for k, mean in zip(TOPS, means, strict=True)}
        recovered = finish(recover_domains(adata, leiden, gene_sets.bundled()))
        sets = together({}) if recovered is None else recovered.whole
        return row | {
            "gene sets measured": float(len(sets.measured)),
            "predicted": float(len(sets.predicted)),
            "in both": float(len(sets.shared)),
            "by chance": sets.chance,
        }


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
            domains = finish(in_values.find_domains(values[:, columns], neighbours, method=method))
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
        if FEWEST_OF_TISSUE <= inside.sum() <= sure.sum() - FEWEST_OF_TISSUE:
            score = gene_sets.score(values, genes, gene_sets.bundled()[name])
            larger = mannwhitneyu(score[inside], score[sure & ~inside]).statistic
            found[name] = float(larger / inside.sum() / (sure & ~inside).sum())
    return found


def as_markdown(results: dict[str, Any]) -> str:
    """Return the tables."""
    sections = results["sections"]
    chance = ", ".join(f"{results['chance_overlap'][f'@{k}']:g} at {k}" for k in TOPS)
    lines = [
        "# Domains, markers and gene sets, predicted against measured",
        "",
        f"Written by `{results['command']}`{_again(results)}.",
        "",
        "Domains are found in the prediction and in the truth by the same settings "
        f"({'; '.join(f'{name}: {text}' for name, text in results['settings'].items())}; the weight of the "
        "neighbourhood was chosen on simulated noise, see docs/statistics.md). Markers are ranked (Wilcoxon, "
        "domain against rest) in the truth's Leiden domains, by prediction and by truth, and the shared ones "
        f"averaged over domains; two rankings that know nothing of each other share {chance} of "
        f"{results['genes']} genes. Prediction and truth lie on one graph of neighbours, so that chance need "
        "not be 0: the row of shuffled spots says what it is. Half of the counts against the other half says "
        "what the noise of the measurement leaves to agree on. Gene sets: how many of the bundled ones are "
        "raised in the truth's Leiden domains, summed over domains (a set counts in each), by the truth, by "
        "the prediction and by both, beside what as many of the prediction's share with the truth after its "
        "spots were dealt to the domains at random (docs/statistics.md).",
    ]
    groups = {f"Mean over {', '.join(sections)}": list(sections)} if len(sections) > 1 else {}
    for title, names in (groups | {name: [name] for name in sections}).items():
        lines += ["", f"## {title}", "", *_table([sections[name] for name in names])]
        if len(names) > 1:
            lines += ["", f"ARI of the Leiden domains in {', '.join(names)}: {_one_by_one(sections, names)}."]
    if not results["pathology"]:
        return "\n".join(lines) + "\n"
    lines += ["", "## Measured expression against a pathologist's labels", ""]
    lines += ["ARI / NMI over the spots whose label is sure; no image of these sections is at hand.", ""]
    lines += _pathology_table(results["pathology"])
    lines += [
        "",
        "How often a spot of the tissue scores above one of another (AUC) by the bundled gene set:",
        "",
    ]
    return "\n".join([*lines, *_auc_table(results["pathology"])]) + "\n"


def _again(results: dict[str, Any]) -> str:
    said = [
        f"of {', '.join(f'*{name}*' for name in part['methods'])} by `{part['command']}`"
        for part in results.get("again", [])
    ]
    return f", the rows {', '.join(said)}" if said else ""


def _rounded(results: Any) -> Any:
    if isinstance(results, dict):
        return {name: _rounded(value) for name, value in results.items()}
    return round(results, 4) if isinstance(results, float) else results


def _table(sections: Sequence[dict[str, Row]]) -> list[str]:
    names = [name for name in sections[0] if all(name in section for section in sections)]
    measures = list(sections[0][names[0]])
    lines = [f"| prediction | {' | '.join(measures)} |", f"|---|{'---:|' * len(measures)}"]
    for name in names:
        means = [float(np.mean([section[name][measure] for section in sections])) for measure in measures]
        cells = [
            number(mean, 1) if measure in COUNTED else score(mean, measure)
            for measure, mean in zip(measures, means, strict=True)
        ]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines


def _one_by_one(sections: dict[str, dict[str, Row]], names: list[str]) -> str:
    """Return the ARI of each method's X, section by section: means of several hide much."""
    results = [sections[name] for name in names]
    methods = [name for name in results[0] if name.endswith(", X") and all(name in rows for rows in results)]
    return "; ".join(
        f"{name} " + " ".join(score(rows[name]["ARI, leiden"], "ARI") for rows in results) for name in methods
    )


def _pathology_table(found: dict[str, Any]) -> list[str]:
    rows = list(next(iter(found.values()))["domains"])
    lines = [f"| domains | {' | '.join(found)} | mean |", f"|---|{'---:|' * (len(found) + 1)}"]
    for row in rows:
        pairs = [results["domains"].get(row) for results in found.values()]
        known = [pair for pair in pairs if pair]
        cells = [_both(pair["ARI"], pair["NMI"], "ARI") if pair else UNKNOWN for pair in pairs]
        mean = [float(np.mean([pair[measure] for pair in known])) for measure in ("ARI", "NMI")]
        lines.append(f"| {row} | {' | '.join(cells)} | {_both(*mean, 'ARI')} |")
    return lines


def _both(first: float, second: float, metric: str) -> str:
    return f"{score(first, metric)} / {score(second, metric)}"


def _auc_table(found: dict[str, Any]) -> list[str]:
    lines = [f"| gene set | tissue | {' | '.join(found)} |", f"|---|---|{'---:|' * len(found)}"]
    for name, tissue in EXPECTED_IN.items():
        plain = [results["gene_sets_auc"].get(name) for results in found.values()]
        level = [results["gene_sets_auc_at_one_depth"].get(name) for results in found.values()]
        cells = [UNKNOWN if a is None else _both(a, b, "AUC") for a, b in zip(plain, level, strict=True)]
        lines.append(f"| {name} | {', '.join(tissue)} | {' | '.join(cells)} |")
    return lines


if __name__ == "__main__":
    main()
