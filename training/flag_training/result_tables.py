"""Scores of ``napari-flag evaluate`` → JSON and Markdown; nothing here is typed by hand."""

import json
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from flag_training.evaluate import (
    DRAWS,
    DRAWS_SHUFFLED,
    ONE_DRAW,
    ONE_FACTOR,
    SHUFFLED,
    TURNED,
    Comparison,
    Outcome,
    Plan,
    Record,
    X,
)
from flag_training.methods.floors import READING_LEVELS
from flag_training.scoring import COMPARED, COVERAGE, OF_DRAWS, OF_X, Difference, called, is_better
from napari_flag import formatting
from napari_flag.analysis.scores import EXPECTATION, METRICS, PROPER, STRUCTURE
from napari_flag.errors import UserError
from napari_flag.files import parse_json, read_text
from napari_flag.formatting import as_code, first_of, in_markdown
from napari_flag.statistics.bootstrap import UNKNOWN, Interval
from napari_flag.statistics.scoring_rules import FEWEST_DRAWS

KINDS: Final = {
    "FLAG": "FLAG",
    "rival": "Rivals: draws that need no network",
    "control": "Controls",
    "floor": "Floors on the same features",
    "published": "Published methods on the same features",
    "image-blind": "Blind to the image",
    "landmark": "Landmarks that have seen the truth: no predictions",
}
_FOR_CARD: Final[dict[str, tuple[str, ...]]] = {
    X: OF_X,
    DRAWS: (*PROPER, *STRUCTURE),
    SHUFFLED: EXPECTATION,
    DRAWS_SHUFFLED: (*PROPER, *STRUCTURE),
}
"""What of FLAG a data card states, and its metrics."""
WRITTEN_FROM: Final = "Written by `napari-flag tables` from:"
"""Line at the head of a page, before the commands of its scores; `exports.replacing` knows pages by it."""
_LARGEST: Final = 1e12
"""Beyond any score, and any number of draws."""
_SLACK: Final = 1e-6
"""Of rounding, beyond what a score can be."""
_BOUNDS: Final = {
    **dict.fromkeys(("PCC", "cPCC", "GSC", "SSC"), (-1.0, 1.0)),
    **dict.fromkeys(COVERAGE, (0.0, 1.0)),
    **dict.fromkeys(("MSE", "amplitude", "spread/error", *PROPER), (0.0, _LARGEST)),
}
"""Metric → the least and the most that its formula gives; fair scores are estimates and may be below 0."""


def results_of(outcome: Outcome, plan: Plan, command: str) -> dict[str, Any]:
    """Return what the JSON file holds.

    ``records`` and ``comparisons`` have everything; ``levels`` names patients of whose sections counts alone
    were read, by section and training; ``scores`` is what ``train --metrics`` puts on a data
    card: section → what was scored → metric, mean over seeds, trained on all other sections.
    """
    card: dict[str, dict[str, dict[str, float | None]]] = defaultdict(dict)
    same = defaultdict(list)
    for record in outcome.records:
        if record.kind == "FLAG" and record.training == "all others" and record.method in _FOR_CARD:
            same[record.section, record.method].append(record)
    for (section, method), group in same.items():
        card[section][method] = {name: _plain(_score_of(group, name)) for name in _FOR_CARD[method]}
    return {
        "command": command,
        "split": _split(plan),
        "test": list(plan.test),
        "unseen": list(plan.unseen),
        "seed": plan.seeds[0],
        "seeds": list(plan.seeds),
        "draws": FEWEST_DRAWS,
        "levels": {section: dict(known) for section, known in outcome.levels.items()},
        "scores": dict(card),
        "records": [_without_nan(asdict(record)) for record in outcome.records],
        "comparisons": [_without_nan(asdict(comparison)) for comparison in outcome.comparisons],
    }


def _split(plan: Plan) -> str:
    left = "whole patients" if plan.by_patient else "sections"
    return f"{left} left out {'together' if plan.together else 'one by one'}"


def read_results(path: Path) -> dict[str, Any]:
    """Read a file of ``napari-flag evaluate``; records and comparisons come back as such.

    Raises
    ------
    UserError
        When the file is missing, or something else.
    """
    try:
        results: dict[str, Any] = parse_json(read_text(path))
        json.dumps(results, ensure_ascii=False).encode()  # halves of characters cannot be written
        results["records"] = [Record(**_with_nan(record)) for record in results["records"]]
        results["comparisons"] = [Comparison(**_with_nan(one)) for one in results["comparisons"]]
        _refuse_kinds(results)
    except OSError as error:
        raise UserError(f"The scores {path} cannot be read ({error.strerror}); check the path.") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{path} holds no scores as this version of napari-flag evaluate writes them; give a JSON file "
            "of evaluate, or evaluate again."
        ) from error
    return results


def read_several(paths: Sequence[Path]) -> list[dict[str, Any]]:
    """Read files that stand in one table or on one card, each answer once.

    Files of one command may state the same answer, such as a floor: what a file before it states is left out.

    Raises
    ------
    UserError
        As `read_results`, or when two files state other numbers of one answer, or a file only what others do.
    """
    stated: dict[tuple[object, ...], tuple[Path, Record | Comparison]] = {}
    found = []
    for path in paths:
        results, new, before = read_results(path), 0, None
        for kind in ("records", "comparisons"):
            kept: list[Record | Comparison] = []
            for one in results[kind]:
                answer = _answer_of(one)
                other, same = stated.setdefault(answer, (path, one))
                if same is one:
                    kept.append(one)
                elif _without_nan(asdict(same)) != _without_nan(asdict(one)):
                    raise UserError(
                        f"{other} and {path} state other numbers of one answer ({_described(one)}), so they "
                        "cannot stand in one table; leave one of them out, or give one run another name."
                    )
                else:
                    before = other
            new += len(kept)
            results[kind] = kept
        if before is not None and not new:
            raise UserError(f"{path} states nothing that {before} does not; give each score once.")
        found.append(results)
    return found


def _answer_of(one: Record | Comparison) -> tuple[object, ...]:
    """Return what numbers are of: all that a record or a comparison says but its numbers."""
    if isinstance(one, Record):
        return (Record, one.run, one.kind, one.method, one.training, one.section, one.seed)
    return (Comparison, one.run, one.training, one.section, one.seed, one.kind, one.rival, one.rival_training)


def _described(one: Record | Comparison) -> str:
    of = f"{one.method} of {one.run}" if isinstance(one, Record) else f"{one.run} against {one.rival}"
    return first_of([f"{of}, trained on {one.training}, section {one.section}, seed {one.seed}"], 1)


def _refuse_kinds(results: Mapping[str, Any]) -> None:
    """Raise a `TypeError` or `KeyError` where something in scores is of another kind, or is lacking."""
    records, comparisons = results["records"], results["comparisons"]
    levels = results.get("levels", {})
    lists = [results[name] for name in ("test", "unseen", "seeds")]
    lists += [patients for known in levels.values() for patients in known.values()]
    texts = [results["command"], results["split"], *results["test"], *results["unseen"]]
    texts += [*levels, *results["scores"]]
    texts += [text for r in records for text in (r.run, r.method, r.training, r.section)]
    texts += [text for c in comparisons for text in (c.run, c.training, c.section)]
    texts += [name for known in levels.values() for named in known.items() for name in (named[0], *named[1])]
    whole = [results["draws"], results["seed"], *results["seeds"]]
    whole += [one.seed for one in (*records, *comparisons)]
    numbers = [(metric, value) for record in records for metric, value in record.scores.items()]
    card = [scores for methods in results["scores"].values() for scores in methods.values()]
    numbers += [(metric, value) for scores in card for metric, value in scores.items() if value is not None]
    spans = [(metric, 2, span) for record in records for metric, span in record.intervals.items()]
    spans += [("", 3, comparison.differences[metric]) for comparison in comparisons for metric in COMPARED]
    scored = {(r.run, r.kind, r.method, r.training) for r in records}
    sound = (
        all(isinstance(held, list) for held in lists)
        and all(isinstance(text, str) for text in texts)
        and all(isinstance(number, int) and not isinstance(number, bool) for number in whole)
        and results["draws"] == FEWEST_DRAWS
        and all(_is_score(value, metric) for metric, value in numbers)
        and all(isinstance(span, tuple) and len(span) == ends for _, ends, span in spans)
        and all(_is_score(end, metric) for metric, _, span in spans for end in span)
        and not any(span[-2] > span[-1] for _, _, span in spans)
        and all(record.kind in KINDS for record in records)
        and all((c.run, c.kind, c.rival, c.rival_training) in scored for c in comparisons)
    )
    if not sound:
        raise TypeError("something in it is of another kind")


def _is_score(value: object, metric: str) -> bool:
    """Return whether `value` is a number that `metric` can be, NaN where a score is not known.

    Of what is no metric, such as a difference of two, any number that is not absurd.
    """
    if not isinstance(value, int | float) or isinstance(value, bool):
        return False
    least, most = _BOUNDS.get(metric, (-_LARGEST, _LARGEST))
    return (isinstance(value, float) and math.isnan(value)) or least - _SLACK <= value <= most + _SLACK


def is_same_table(path: Path, table: str) -> bool:
    """Return whether the file at `path` holds `table`, which does not state its command."""
    try:
        return read_text(path) == table
    except (UserError, OSError):
        return False


def metrics_of(files: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """Return a data card's metrics of sections left out: per split, what was scored, and how to repeat it.

    Parameters
    ----------
    files
        As `read_results` or `read_several` returns them.

    Raises
    ------
    UserError
        When two of them state other scores of one section.
    """
    merged: dict[str, Any] = {"command": []}
    for results in files:
        seeds = ", ".join(map(str, results["seeds"]))
        split = merged.setdefault(f"{results['split']}, seed {seeds}", {})
        for section, scores in results["scores"].items():
            if split.setdefault(section, scores) != scores:
                raise UserError(
                    f"Two of the files state other scores of section {first_of([section], 1)} left out, of "
                    "which a card has room for one; leave one of the files out."
                )
        merged["command"].append(results["command"])
    return merged


def _without_nan(value: Any) -> Any:
    """Return `value` as JSON can hold it."""
    if isinstance(value, Mapping):
        return {key: _without_nan(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(inner) for inner in value]
    return _plain(value) if isinstance(value, float) else value


def _with_nan(value: Any) -> Any:
    """Undo `_without_nan`: lists become tuples, null NaN."""
    if isinstance(value, dict):
        return {key: _with_nan(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return tuple(_with_nan(inner) for inner in value)
    return math.nan if value is None else value


def markdown(
    results: Sequence[dict[str, Any]], title: str, only: Sequence[str] = (), command: str | None = None
) -> str:
    """Return the tables of several result files as one Markdown page.

    Parameters
    ----------
    results
        From `read_results`; sections and runs may differ.
    title
        Heading.
    only
        Names of methods to show, as in their rows or as `evaluate --methods` takes them; () shows all.
    command
        The command line that makes this page, stated at its head.

    Raises
    ------
    UserError
        When none of the files scores a method named.
    """
    _refuse_unknown(results, only)
    results, only = [_neutral(result) for result in results], [in_markdown(name) for name in only]
    records = [r for result in results for r in result["records"] if _shown(r, only)]
    against = [c for result in results for c in result["comparisons"] if not only or c.rival in only]
    sections = list(dict.fromkeys(record.section for record in records))
    page = _Page(_merged(records), against, _trainings_with_levels(results))
    stated = f"The page itself: {as_code(command)}." if command else ""
    parts = [
        f"# {in_markdown(title)}",
        _header(results, sections),
        stated,
        *page.tables(sections),
        page.lead(),
    ]
    if len(sections) > 1:
        for section in sections:
            parts += [f"## {section}", *page.tables([section], "###")]
    return "\n\n".join(part for part in parts if part) + "\n"


def _neutral(result: Mapping[str, Any]) -> dict[str, Any]:
    """Return scores whose texts stand in Markdown as they are; names of methods that are known stay."""
    records = [
        replace(
            r, run=in_markdown(r.run), method=in_markdown(r.method), training=in_markdown(r.training),
            section=in_markdown(r.section),
        )
        for r in result["records"]
    ]  # fmt: skip
    comparisons = [
        replace(
            c, run=in_markdown(c.run), training=in_markdown(c.training), section=in_markdown(c.section),
            rival=in_markdown(c.rival), rival_training=in_markdown(c.rival_training),
        )
        for c in result["comparisons"]
    ]  # fmt: skip
    levels = {
        in_markdown(section): {
            in_markdown(training): [in_markdown(patient) for patient in patients]
            for training, patients in known.items()
        }
        for section, known in result.get("levels", {}).items()
    }
    texts = {
        "split": in_markdown(result["split"]),
        "unseen": [in_markdown(name) for name in result["unseen"]],
    }
    return {**result, **texts, "records": records, "comparisons": comparisons, "levels": levels}


@dataclass(frozen=True, slots=True)
class OneArray:
    """One method as the paper's table reads it, every metric from one array.

    Parameters
    ----------
    kind, method
        A key of `KINDS`, and its name, with its run where there are several.
    trained_on
        The training set, with those that single metrics stand with.
    values, spreads
        Metric → mean over sections and seeds, and the standard deviation over seeds; NaN where not known.
    sections
        Those of its values; a name says it where they are not all of the results.
    """

    kind: str
    method: str
    trained_on: str
    values: dict[str, float]
    spreads: dict[str, float]
    sections: tuple[str, ...]


def one_array(results: Sequence[dict[str, Any]], only: Sequence[str] = ()) -> list[OneArray]:
    """Return the rows of the paper's table: ``X`` and one draw of FLAG, and every method of one array.

    Parameters
    ----------
    results, only
        As `markdown`.
    """
    _refuse_unknown(results, only)
    records = _merged([r for result in results for r in result["records"] if _shown(r, only)])
    page = _Page(records, (), _trainings_with_levels(results))
    sections = list(dict.fromkeys(record.section for record in page.records))
    found = []
    for row in page._rows(_ONE_ARRAY):
        by = {metric: page.by_training[row.group][training] for metric, training in row.trainings.items()}
        values = {metric: _score_of(records, metric) for metric, records in by.items()}
        known = {metric: row.trainings[metric] for metric, value in values.items() if not math.isnan(value)}
        if known:
            spreads = {metric: _spread_of(records, metric) for metric, records in by.items()}
            scored = {metric: _scored_in(by[metric], metric) for metric in known}
            name = page._name(row.group) + _lacking(scored, sections)
            own = tuple(section for section in sections if any(section in has for has in scored.values()))
            found.append(OneArray(row.group[1], name, page._trained_on(row, known), values, spreads, own))
    return found


def _shown(record: Record, only: Sequence[str]) -> bool:
    return not only or record.method in only or record.kind in only


def _refuse_unknown(results: Sequence[dict[str, Any]], only: Sequence[str]) -> None:
    scored = {name for result in results for r in result["records"] for name in (r.method, r.kind)}
    if unknown := [name for name in only if name not in scored]:
        raise UserError(f"No file given scores {', '.join(unknown)}; they score {', '.join(sorted(scored))}.")


def _merged(records: Iterable[Record]) -> list[Record]:
    """Give the views that are turned and re-stained one name, so that they are averaged into one row."""
    return [replace(r, method=TURNED, intervals={}) if r.method.startswith(TURNED) else r for r in records]


_Group = tuple[str, str, str]
"""Run, kind, method."""


@dataclass(frozen=True, slots=True)
class _Row:
    """One line of a table: what it is called, and of each metric the training it stands with."""

    group: _Group
    trainings: dict[str, str]


@dataclass(frozen=True, slots=True)
class _Table:
    """Which answers a table shows, and what it says of them."""

    title: str
    metrics: tuple[str, ...]
    shows: Callable[[Record], bool]
    said: str


_EXPECTATIONS: Final = _Table(
    "The expectation, `X`",
    OF_X,
    lambda r: "PCC" in r.scores and "ES" not in r.scores and r.method != ONE_DRAW,
    "`X` is the best single guess of each value, judged by PCC and cPCC (higher is better) and MSE (lower is "
    "better). cPCC is PCC after each spot's mean over the genes is taken away. *In 50 %* is the share of "
    "measurements within the 50 % interval of `sd`, and so on: as named is best. *Spread/error* is the root "
    "mean square of `sd` over that of the error: 1 is calibrated.",
)
_DRAWN: Final = _Table(
    "Draws",
    OF_DRAWS,
    lambda r: "ES" in r.scores or (r.kind in ("control", "image-blind", "landmark") and "GSC" in r.scores),
    f"{FEWEST_DRAWS} draws, each one expression that could have been measured, judged by proper scores "
    "(lower is better; nothing but a better distribution lowers them) and, as means over draws, by GSC, SSC "
    "(higher is better) and amplitude (1 is that of the truth). A structure score counts as far as it is "
    "ahead of the controls: the same draws around one factor, which tells no gene apart; the training "
    "sections' own gene–gene correlations and Moran's I as constants; sections pasted without a look at the "
    "image; and tiles shuffled between spots. What has no proper scores gives one array instead of draws. "
    "The eight draws' noise is spread evenly (Latin hypercube), and ES and CRPS pair each draw with every "
    "draw, itself included, 1/(2K²): eight stand for the whole distribution, the better the fewer sources of "
    "noise it has. *Fair* scores (Ferro 2014), those of the distribution itself, are of sixteen: only draws "
    "of different eights, which are independent, are paired.",
)
_ONE_ARRAY: Final = _Table(
    "As the paper's table reads it: every metric from one array",
    METRICS,
    lambda r: r.method in (X, ONE_DRAW) if r.kind == "FLAG" else "PCC" in r.scores and "ES" not in r.scores,
    "The paper reads PCC, MSE, GSC and SSC from one array. Here they are for `X` and for one draw. GSC, SSC "
    "and amplitude of `X` are those of an expectation, which cannot have the structure of a noisy truth; PCC "
    "and MSE of a draw pay for its noise.",
)


class _Page:
    """Records and comparisons of a page; the training set of each rival is chosen over all its sections."""

    def __init__(
        self, records: Sequence[Record], comparisons: Sequence[Comparison], with_levels: Collection[str] = ()
    ) -> None:
        self.records = records
        self.comparisons = comparisons
        self.with_levels = with_levels
        self.several = len({r.run for r in records}) > 1
        self.by_training: dict[_Group, dict[str, list[Record]]] = defaultdict(lambda: defaultdict(list))
        for record in records:
            self.by_training[record.run, record.kind, record.method][record.training].append(record)

    def tables(self, sections: Sequence[str], level: str = "##") -> list[str]:
        """Return all tables over `sections`."""
        made = [self._scores(table, sections, level) for table in (_EXPECTATIONS, _DRAWN)]
        return [*made, self._against(sections, level), self._scores(_ONE_ARRAY, sections, level)]

    def _rows(self, table: _Table) -> list[_Row]:
        """Return a row per training of what is FLAG's, and one for each of the others."""
        rows = []
        for group, trainings in self.by_training.items():
            if not any(table.shows(record) for records in trainings.values() for record in records):
                continue
            if group[1] == "FLAG":
                rows += [_Row(group, dict.fromkeys(table.metrics, training)) for training in trainings]
            else:
                rows.append(_Row(group, {name: self.better_training(group, name) for name in table.metrics}))
        order = list(KINDS)
        return sorted(rows, key=lambda row: order.index(row.group[1]))

    def better_training(self, group: _Group, metric: str) -> str:
        """Return the training under which `group` is best by `metric`, mean over the sections all have.

        Of trainings that were scored in other sections, those with the most are compared.
        """
        trainings = self.by_training[group]
        scored = {training: set(_scored_in(records, metric)) for training, records in trainings.items()}
        most = max(len(sections) for sections in scored.values())
        full = {t: records for t, records in trainings.items() if len(scored[t]) == most}
        common = set.intersection(*(scored[training] for training in full))
        return _best_over(full, metric, common)[1] or next(iter(full))

    def _scores(self, table: _Table, sections: Sequence[str], level: str) -> str:
        rows = self._rows(table)
        if not rows:
            return ""
        names = [called(metric) for metric in table.metrics]
        lines = ["| method | trained on | " + " | ".join(names) + " |", "|---|---|" + "---:|" * len(names)]
        shown = ""
        for row in rows:
            cells, scored = [], {}
            for metric, training in row.trainings.items():
                records = [r for r in self.by_training[row.group][training] if r.section in sections]
                cells.append(_cell(records, metric))
                scored[metric] = _scored_in(records, metric)
            if set(cells) == {formatting.UNKNOWN}:
                continue
            if row.group[1] != shown:
                shown = row.group[1]
                lines.append(f"| **{KINDS[shown]}** |" + " |" * (len(names) + 1))
            known = {
                m: t
                for (m, t), cell in zip(row.trainings.items(), cells, strict=True)
                if cell != formatting.UNKNOWN
            }
            name = self._name(row.group) + _lacking(scored, sections)
            lines.append(f"| {name} | {self._trained_on(row, known)} | " + " | ".join(cells) + " |")
        said = [table.said] if level == "##" else []
        return "\n\n".join([f"{level} {table.title}", *said, "\n".join(lines)])

    def _trained_on(self, row: _Row, known: Mapping[str, str]) -> str:
        """Name the trainings of the metrics `known`, and whether levels of further sections were read."""
        _, kind, method = row.group
        reads = kind == "FLAG" or (kind == "rival" and method.endswith(f" around {X}"))
        if reads or (kind, method) == ("control", ONE_FACTOR) or method in READING_LEVELS:
            known = {m: f"{t} + levels" if t in self.with_levels else t for m, t in known.items()}
        return _trained_on(known)

    def _name(self, group: _Group) -> str:
        run, _, method = group
        shown = f"`{X}`{method.removeprefix(X)}" if method == X or method.startswith(f"{X},") else method
        return f"{run}: {shown}" if self.several else shown

    def _against(self, sections: Sequence[str], level: str) -> str:
        """Return FLAG's draws less each rival's, and by what they are better than every rival."""
        ours = dict.fromkeys((c.run, c.training) for c in self.comparisons if c.section in sections)
        if not ours:
            return ""
        lines = [
            "| FLAG trained on | against | " + " | ".join(map(called, COMPARED)) + " |",
            "|---|---|" + "---:|" * len(COMPARED),
        ]
        verdicts = []
        for run, training in ours:
            own = {c.section for c in self.comparisons if (c.run, c.training) == (run, training)}
            here = [section for section in sections if section in own]
            where = f"{run}: {training}" if self.several else training
            shown_where = where + _lacking(dict.fromkeys(COMPARED, here), sections)
            behind: dict[str, list[str]] = {metric: [] for metric in COMPARED}
            for group, by_section in self._differences(run, training, here):
                cells = {metric: list(found.values()) for metric, found in by_section.items()}
                name = group[2] + _lacking({m: list(found) for m, found in by_section.items()}, here)
                lines.append(
                    f"| {shown_where} | {name} | "
                    + " | ".join(_difference_cell(cells[metric], len(sections) > 1) for metric in COMPARED)
                    + " |"
                )
                for metric in COMPARED if group[1] == "rival" else ():
                    if len(cells[metric]) < len(here) or not all(high < 0 for _, _, high in cells[metric]):
                        behind[metric].append(name)
            verdicts += _verdict(where, behind, here)
        said = [
            "FLAG's draws less the other's, spot by spot: below 0, FLAG's are better. Rivals are drawn "
            "around FLAG's own `X`, and around the ring ridge (ridge in the slide's frame, with the first "
            "ring), with Gaussian noise as wide as cross-fitted residuals or as counts. A rival stands with "
            "the better of its training sets for that metric, FLAG's own parts with FLAG's. *Better* means "
            "that the paired 95 % block-bootstrap interval excludes 0 (with several seeds, of every seed). "
            "Of several sections the mean is given, and in how many FLAG is better and worse; than what was "
            "scored in some of them alone, which its name says, FLAG is not called better."
        ]
        shown = [*said, "\n".join(lines), *verdicts] if level == "##" else ["\n".join(lines)]
        return "\n\n".join([f"{level} FLAG's draws against the others", *shown])

    def _differences(
        self, run: str, training: str, sections: Sequence[str]
    ) -> list[tuple[_Group, dict[str, dict[str, Difference]]]]:
        """Return, by rival, metric and section, a difference with the span of the seeds' intervals."""
        own = [c for c in self.comparisons if (c.run, c.training) == (run, training)]
        order = list(KINDS)
        groups = dict.fromkeys((run, c.kind, c.rival) for c in own)
        found = []
        for group in sorted(groups, key=lambda group: order.index(group[1])):
            cells: dict[str, dict[str, Difference]] = {}
            for metric in COMPARED:
                chosen = training if group[1] == "FLAG" else self.better_training(group, metric)
                same = [c for c in own if (c.kind, c.rival, c.rival_training) == (*group[1:], chosen)]
                by_section = {
                    section: [c.differences[metric] for c in same if c.section == section]
                    for section in sections
                }
                cells[metric] = {
                    section: (_mean(d for d, _, _ in seeds), *_span([(low, high) for _, low, high in seeds]))
                    for section, seeds in by_section.items()
                    if seeds
                }
            found.append((group, cells))
        return found

    def lead(self) -> str:
        """Say metric by metric how far X is ahead of the best learned rival, whichever that is.

        Rivals are compared over the sections that X was scored in; one that lacks some is named instead.
        """
        learned = {group: t for group, t in self.by_training.items() if group[1] in ("floor", "published")}
        ours = {group: t for group, t in self.by_training.items() if group[1:] == ("FLAG", X)}
        if not learned or not ours:
            return ""
        every = list(dict.fromkeys(record.section for record in self.records))
        lines, absent = [], {}
        for group, trainings in ours.items():
            for training, records in trainings.items():
                for metric in EXPECTATION:
                    sections = _scored_in(records, metric)
                    own, best, which = _score_of(records, metric), math.nan, ""
                    for other, theirs in learned.items():
                        value, chosen = _best_over(theirs, metric, sections)
                        if is_better(metric, value, best):
                            best, which = value, f"{other[2]} ({chosen})"
                        most = max((_scored_in(found, metric) for found in theirs.values()), key=len)
                        if not chosen and most:
                            absent[self._name(other)] = _lacking({metric: most}, every)
                    if not which:
                        continue
                    ahead = (best - own) if metric == "MSE" else (own - best)
                    where = f"{group[0]}: {training}" if self.several else training
                    where += _lacking({metric: sections}, every)
                    shown = (formatting.score(own, metric), formatting.score(best, metric), which)
                    lines.append(
                        f"| {where} | {metric} | {' | '.join(shown)} | {formatting.difference(ahead)} |"
                    )
        head = [
            "| X trained on | metric | X | best other | which | X ahead by |",
            "|---|---|---:|---:|---|---:|",
        ]
        said = [
            "Not compared, since scored in fewer sections than `X`: "
            + "; ".join(f"{name}{mark}" for name, mark in absent.items())
            + "."
        ]
        parts = [["## `X` against the best learned method, metric by metric"]]
        parts += [said] if absent else []
        parts += [[*head, *lines]] if lines else []
        return "\n\n".join("\n".join(part) for part in parts)


def _verdict(training: str, behind: Mapping[str, Sequence[str]], sections: Sequence[str]) -> list[str]:
    """Say by which scores FLAG's draws are better than every rival in each section."""
    ahead = [called(metric) for metric, names in behind.items() if not names]
    where = f"in each of {', '.join(sections)}" if len(sections) > 1 else f"in {sections[0]}"
    sentence = f"**FLAG ({training})** has better draws than every rival {where} by "
    sentence += ", ".join(ahead) or "none of these scores"
    not_sure = [f"- by {called(name)} not than {'; '.join(names)}" for name, names in behind.items() if names]
    return ["\n".join([f"{sentence}{':' if not_sure else '.'}", *([""] if not_sure else []), *not_sure])]


def _trained_on(trainings: Mapping[str, str]) -> str:
    """Name the training that most metrics stand with, then those that stand with another."""
    if not trainings:
        return formatting.UNKNOWN
    most = Counter(trainings.values()).most_common(1)[0][0]
    others: dict[str, list[str]] = defaultdict(list)
    for metric, training in trainings.items():
        if training != most:
            others[training].append(called(metric))
    return "; ".join([most, *(f"{', '.join(names)}: {training}" for training, names in others.items())])


def _scored_in(records: Sequence[Record], metric: str) -> list[str]:
    """Return the sections in which `metric` is known."""
    return list(dict.fromkeys(r.section for r in records if not math.isnan(r.scores.get(metric, math.nan))))


def _lacking(scored: Mapping[str, Sequence[str]], sections: Sequence[str]) -> str:
    """Return what a name is followed by where metrics are not known in all of `sections`; else nothing.

    Parameters
    ----------
    scored
        Metric → the sections in which it is known.
    sections
        Those of the table.
    """
    known = {metric: tuple(s for s in sections if s in has) for metric, has in scored.items() if has}
    fewer: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for metric, has in known.items():
        if len(has) < len(sections):
            fewer[has].append(called(metric))
    if not fewer:
        return ""
    if len(fewer) == 1 and len(*fewer.values()) == len(known):
        return f" ({', '.join(*fewer)} alone)"
    parts = (f"{', '.join(names)}: {', '.join(has)} alone" for has, names in fewer.items())
    return f" ({'; '.join(parts)})"


def _best_over(
    trainings: Mapping[str, Sequence[Record]], metric: str, sections: Collection[str]
) -> tuple[float, str]:
    """Return the best mean over `sections`, and the training it is of; NaN and "" where none has them all."""
    best, which = math.nan, ""
    for training, records in trainings.items():
        here = _score_of([record for record in records if record.section in sections], metric)
        if set(sections) <= set(_scored_in(records, metric)) and is_better(metric, here, best):
            best, which = here, training
    return best, which


def _score_of(records: Sequence[Record], metric: str) -> float:
    """Return the mean over sections of the mean over seeds; NaN where nothing is known."""
    by_section: dict[str, list[float]] = defaultdict(list)
    for record in records:
        by_section[record.section].append(record.scores.get(metric, math.nan))
    return _mean(_mean(values) for values in by_section.values())


def _spread_of(records: Sequence[Record], metric: str) -> float:
    """Return the standard deviation over seeds of the mean over sections, of seeds that have all of them.

    NaN where fewer than two have.
    """
    by_seed: dict[int, list[Record]] = defaultdict(list)
    for record in records:
        by_seed[record.seed].append(record)
    sections = set(_scored_in(records, metric))
    means = [
        _score_of(same, metric) for same in by_seed.values() if set(_scored_in(same, metric)) == sections
    ]
    return float(np.std(means, ddof=1)) if len(means) > 1 else math.nan


def _cell(records: Sequence[Record], metric: str) -> str:
    """Write mean, spread over seeds, and for a single section the interval."""
    text = formatting.score(_score_of(records, metric), metric, sd=_spread_of(records, metric))
    if text == formatting.UNKNOWN or len({record.section for record in records}) > 1:
        return text
    ends = _span([record.intervals.get(metric, UNKNOWN) for record in records])
    return f"{text} {formatting.interval(ends, metric)}".strip()


def _difference_cell(differences: Sequence[Difference], several: bool) -> str:
    """Write a section's difference with its interval, or several sections' mean and how often it is sure."""
    mean = _mean(difference for difference, _, _ in differences)
    if math.isnan(mean):
        return formatting.UNKNOWN
    better = sum(high < 0 for _, _, high in differences)
    worse = sum(low > 0 for _, low, _ in differences)
    if several:
        text = f"{formatting.difference(mean)} (better in {better}"
        return text + (f", worse in {worse}" if worse else "") + f" of {len(differences)})"
    ((_, low, high),) = differences
    text = formatting.difference(mean, (low, high))
    return f"**{text}**" if better else text


def _span(intervals: Sequence[Interval]) -> Interval:
    """Return the interval from the lowest to the highest end; unknown where one of them is."""
    if not intervals or any(math.isnan(end) for ends in intervals for end in ends):
        return UNKNOWN
    return min(low for low, _ in intervals), max(high for _, high in intervals)


def _trainings_with_levels(results: Sequence[dict[str, Any]]) -> set[str]:
    """Return the trainings in which counts of sections without images were known."""
    return {
        training
        for result in results
        for by_training in result.get("levels", {}).values()
        for training, patients in by_training.items()
        if patients
    }


def _levels_said(results: Sequence[dict[str, Any]]) -> list[str]:
    """Say of which patients levels were read from counts alone, nothing where there were none."""
    found: dict[tuple[str, str], list[str]] = defaultdict(list)
    for result in results:
        for section, by_training in result.get("levels", {}).items():
            for training, patients in by_training.items():
                if section not in found[training, ", ".join(patients)]:
                    found[training, ", ".join(patients)].append(section)
    if not found:
        return []
    whose = (f"{patients} ({', '.join(names)}, {training})" for (training, patients), names in found.items())
    return [
        "*+ levels*: mean and spread of the counts of further sections, without their images, were read too: "
        f"of patients {'; '.join(whose)}. Methods without it have the training sections alone.",
    ]


def _header(results: Sequence[dict[str, Any]], sections: Sequence[str]) -> str:
    lines = [
        f"Mean over {', '.join(sections)}; ± is the standard deviation over seeds where there are several.",
        "What is not FLAG's stands with the better of its training sets for that metric, named in the second "
        "column. A name says in which sections alone it was scored where these are not all.",
        "Of a single section […] is the 95 % bootstrap interval: over blocks of neighbouring spots, of GSC, "
        "SSC and ES-map over genes; with several seeds, the span of theirs. Bold: FLAG's draws are better.",
        *_levels_said(results),
        "",
        WRITTEN_FROM,
        "",
    ]
    for result in results:
        seeds = ", ".join(str(seed) for seed in result["seeds"])
        unseen = f"; {', '.join(result['unseen'])} kept out of everything" if result["unseen"] else ""
        how = f"{result['split']}{unseen}; seeds {seeds}; {result['draws']} draws"
        line = f"- {as_code(result['command'])} ({how})"
        if line not in lines:  # one command may write several files
            lines.append(line)
    return "\n".join(lines)


def _mean(values: Iterable[float]) -> float:
    known = [value for value in values if not math.isnan(value)]
    return float(np.mean(known)) if known else math.nan


def _plain(value: float) -> float | None:
    return None if math.isnan(value) else round(float(value), 6)
