"""Scores of ``napari-flag evaluate`` → JSON and Markdown; nothing here is typed by hand."""

import json
import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import numpy as np

from flag_training.evaluate import SHUFFLED, TURNED, Plan, Record
from napari_flag.analysis.scores import METRICS
from napari_flag.errors import UserError

KINDS: Final = {
    "FLAG": "FLAG",
    "floor": "Floors on the same features",
    "published": "Published methods on the same features",
    "image-blind": "Blind to the image",
    "landmark": "Landmarks that have seen the truth: no predictions",
}
_CALIBRATION: Final = ("coverage_50", "coverage_80", "coverage_95", "spread/error")
_LOWER_IS_BETTER: Final = "MSE"
_FOR_CARD: Final = ("X", "sample", SHUFFLED, "mean head")


def results_of(records: Sequence[Record], plan: Plan, command: str, samples: int) -> dict[str, Any]:
    """Return what the JSON file holds.

    ``records`` has everything; ``scores`` is what ``train --metrics`` puts on a data card: section → what
    was scored → metric, mean over seeds, trained on all other sections.
    """
    card: dict[str, dict[str, dict[str, float | None]]] = defaultdict(dict)
    for record in records:
        chosen = [r for r in records if _key(r) == _key(record) and r.section == record.section]
        if record.kind == "FLAG" and record.training == "all others" and record.method in _FOR_CARD:
            card[record.section][record.method] = {
                metric: _plain(_mean(r.scores.get(metric, math.nan) for r in chosen)) for metric in METRICS
            }
    return {
        "command": command,
        "split": _split(plan),
        "test": list(plan.test),
        "unseen": list(plan.unseen),
        "seed": plan.seeds[0],
        "seeds": list(plan.seeds),
        "samples": samples,
        "scores": dict(card),
        "records": [
            asdict(record) | {"scores": {k: _plain(v) for k, v in record.scores.items()}}
            for record in records
        ],
    }


def _split(plan: Plan) -> str:
    left = "whole patients" if plan.by_patient else "sections"
    return f"{left} left out {'together' if plan.together else 'one by one'}"


def read_results(path: Path) -> dict[str, Any]:
    """Read a file of ``napari-flag evaluate``; records come back as `Record`.

    Raises
    ------
    UserError
        When the file is missing, or something else.
    """
    try:
        results: dict[str, Any] = json.loads(path.read_text("utf-8"))
        results["records"] = [
            Record(**(r | {"scores": {k: math.nan if v is None else v for k, v in r["scores"].items()}}))
            for r in results["records"]
        ]
    except OSError as error:
        raise UserError(f"The scores {path} cannot be read ({error.strerror}); check the path.") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{path} holds no scores of napari-flag evaluate; give the JSON file that it wrote."
        ) from error
    return results


def markdown(results: Sequence[dict[str, Any]], title: str, only: Sequence[str] = ()) -> str:
    """Return the tables of several result files as one Markdown page.

    Parameters
    ----------
    results
        From `results_of` or `read_results`; sections and runs may differ.
    title
        Heading.
    only
        Names of methods to show; () shows all.
    """
    records = [r for result in results for r in result["records"] if not only or r.method in only]
    sections = list(dict.fromkeys(r.section for r in records))
    rows = _rows(records)
    parts = [f"# {title}", _header(results, sections), _table(rows, sections)]
    parts += [_lead(rows), _calibration(rows)]
    if len(sections) > 1:
        parts += [f"## {section}\n\n{_table(rows, [section])}" for section in sections]
    return "\n\n".join(part for part in parts if part) + "\n"


_Key = tuple[str, str, str, str]
_Rows = dict[_Key, list[Record]]


def _key(record: Record) -> _Key:
    return record.run, record.kind, record.method, record.training


def _rows(records: Sequence[Record]) -> _Rows:
    """Group records by row; of what is not FLAG, only the better training set stays."""
    rows: _Rows = defaultdict(list)
    for record in records:
        rows[_key(_merged(record))].append(record)
    best: dict[tuple[str, str, str], _Key] = {}
    for key, group in rows.items():
        if key[1] != "FLAG":
            rival = best.get(key[:3])
            if rival is None or _score_of(group, "PCC") > _score_of(rows[rival], "PCC"):
                best[key[:3]] = key
    order = list(KINDS)
    shown = [key for key in rows if key[1] == "FLAG" or best[key[:3]] == key]
    return {key: rows[key] for key in sorted(shown, key=lambda key: order.index(key[1]))}


def _merged(record: Record) -> Record:
    """Average the views that are turned and re-stained into one row."""
    if not record.method.startswith(TURNED):
        return record
    return Record(
        record.run, record.kind, TURNED, record.training, record.section, record.seed, record.scores
    )


def _score_of(records: Sequence[Record], metric: str) -> float:
    """Return the mean over sections of the mean over seeds; NaN where nothing is known."""
    by_section: dict[str, list[float]] = defaultdict(list)
    for record in records:
        by_section[record.section].append(record.scores.get(metric, math.nan))
    return _mean(_mean(values) for values in by_section.values())


def _spread_of(records: Sequence[Record], metric: str) -> float:
    """Return the standard deviation over seeds of the mean over sections; NaN for one seed."""
    seeds = dict.fromkeys(record.seed for record in records)
    means = [_score_of([r for r in records if r.seed == seed], metric) for seed in seeds]
    return float(np.std(means, ddof=1)) if len(means) > 1 else math.nan


def _table(rows: _Rows, sections: Sequence[str]) -> str:
    several = len({key[0] for key in rows}) > 1
    lines = [
        "| method | trained on | " + " | ".join(METRICS) + " |",
        "|---|---|" + "---:|" * len(METRICS),
    ]
    shown = ""
    for (run, kind, method, training), records in rows.items():
        here = [record for record in records if record.section in sections]
        if not here:
            continue
        if kind != shown:
            lines.append(f"| **{KINDS[kind]}** |" + " |" * (len(METRICS) + 1))
            shown = kind
        name = f"{run}: {method}" if several else method
        cells = [_cell(_score_of(here, metric), _spread_of(here, metric)) for metric in METRICS]
        lines.append(f"| {name} | {training} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cell(value: float, spread: float = math.nan) -> str:
    if math.isnan(value):
        return "–"
    return f"{value:.3f}" if math.isnan(spread) else f"{value:.3f} ± {spread:.3f}"


def _lead(rows: _Rows) -> str:
    """Say metric by metric how far X is ahead of the best learned rival, whichever that is."""
    rivals = {key: group for key, group in rows.items() if key[1] in ("floor", "published")}
    ours = {key: group for key, group in rows.items() if key[1:3] == ("FLAG", "X")}
    if not rivals or not ours:
        return ""
    lines = ["## X against the best learned rival, metric by metric", ""]
    lines += [
        "| X trained on | metric | X | best rival | which | X ahead by |",
        "|---|---|---:|---:|---|---:|",
    ]
    for (run, _, _, training), group in ours.items():
        for metric in METRICS[:5]:
            sign = -1 if metric == _LOWER_IS_BETTER else 1
            scores = {key: _score_of(records, metric) for key, records in rivals.items()}
            known = {key: value for key, value in scores.items() if not math.isnan(value)}
            best = max(known, key=lambda key: sign * known[key])
            own = _score_of(group, metric)
            lead = f"{sign * (own - known[best]):+.3f}"
            which = f"{best[2]} ({best[3]})"
            result = training if len({key[0] for key in ours}) == 1 else f"{run}: {training}"
            lines.append(f"| {result} | {metric} | {own:.3f} | {known[best]:.3f} | {which} | {lead} |")
    return "\n".join(lines)


def _calibration(rows: _Rows) -> str:
    ours = {key: group for key, group in rows.items() if key[1:3] == ("FLAG", "X")}
    known = {key: group for key, group in ours.items() if _CALIBRATION[0] in group[0].scores}
    if not known:
        return ""
    lines = [
        "## Calibration of X ± z · sd",
        "",
        "| run | trained on | within 50 % | within 80 % | within 95 % | spread ÷ error |",
        "|---|---|---:|---:|---:|---:|",
    ]
    for (run, _, _, training), group in known.items():
        cells = [_cell(_score_of(group, name), _spread_of(group, name)) for name in _CALIBRATION]
        lines.append(f"| {run} | {training} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _header(results: Sequence[dict[str, Any]], sections: Sequence[str]) -> str:
    lines = [
        f"Mean over {', '.join(sections)}; ± is the standard deviation over seeds where there are several.",
        "Floors and published methods stand with the better of their training sets (by PCC), named in the "
        "second column.",
        "MSE: lower is better. Amplitude: 1 is that of the truth.",
        "",
        "Written by `napari-flag tables` from:",
        "",
    ]
    for result in results:
        seeds = ", ".join(str(seed) for seed in result["seeds"])
        unseen = f"; {', '.join(result['unseen'])} kept out of everything" if result["unseen"] else ""
        lines.append(
            f"- `{result['command']}` ({result['split']}{unseen}; seeds {seeds}; {result['samples']} samples)"
        )
    return "\n".join(lines)


def _mean(values: Iterable[float]) -> float:
    known = [value for value in values if not math.isnan(value)]
    return float(np.mean(known)) if known else math.nan


def _plain(value: float) -> float | None:
    return None if math.isnan(value) else round(float(value), 4)
