"""Try values on inner validation sections: ``napari-flag sweep``.  Test sections are never read."""

import csv
import itertools
import time
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, Final

import numpy as np

from flag_training.cohort import fingerprint
from flag_training.config import RunConfig, network_of, refuse_kinds
from flag_training.evaluate import Fold, Plan, fold_cohort, folds_of, judge, keep
from flag_training.run_folders import encoder_folder, states_folder
from flag_training.scoring import FAIR, Scores, Section
from flag_training.stages.fit import fit
from napari_flag.analysis.scores import EXPECTATION, PROPER, STRUCTURE
from napari_flag.errors import UserError
from napari_flag.files import parse_toml, raw_cell, read_csv, replacing, safe_cell
from napari_flag.methods.flag import FlagPredictor
from napari_flag.model.config import FlagConfig
from napari_flag.progress import Step, Steps

Values = dict[str, Any]
_TABLES: Final = ("fit", "network", "encoder")
REPORTED: Final = (*EXPECTATION, *PROPER, *FAIR, *STRUCTURE)
"""Columns of scores: `EXPECTATION` of X, the others of the draws."""
RANKED_BY: Final = "ES fair"
"""Lower is better."""


def read_grid(vary: Sequence[str]) -> tuple[Values, ...]:
    """Return every combination of ``KEY=V1,V2,…``; keys are as in the config, e.g. ``fit.score_steps``.

    Raises
    ------
    UserError
        When a word is not of that form.
    """
    axes: dict[str, list[Any]] = {}
    for word in vary:
        key, equals, values_text = word.partition("=")
        if not equals or not values_text:
            raise UserError(f'"{word}" does not say what to vary; write e.g. fit.score_steps=100,300.')
        axes[key] = [_value(text) for text in values_text.split(",")]
    return tuple(dict(zip(axes, point, strict=True)) for point in itertools.product(*axes.values()))


def _value(text: str) -> Any:
    """Read a number or a truth value as TOML does; anything else is a string."""
    try:
        return parse_toml(f"value = {text}")["value"]
    except ValueError:
        return text


def with_values(config: RunConfig, values: Values) -> RunConfig:
    """Return `config` under other `values`.

    Raises
    ------
    UserError
        When the config has no such value, or it is of another kind.
    """
    sizes = dict(config.network)
    for key, value in values.items():
        table, _, name = key.rpartition(".")
        known = {
            "fit": [field.name for field in fields(config.fit)],
            "encoder": [field.name for field in fields(config.encoder)],
            "network": [field.name for field in fields(FlagConfig)],
        }
        if name not in known.get(table, ()):
            raise UserError(
                f"There is no value {key} to vary; it is of {', '.join(_TABLES)}, such as "
                "fit.score_steps, network.width or encoder.steps."
            )
        if table == "network":
            sizes[name] = value
            continue
        try:
            refuse_kinds(type(getattr(config, table)), {name: value}, table)
        except TypeError as error:
            raise UserError(f"{key} cannot be {value} ({error}); try other values.") from error
        config = replace(config, **{table: replace(getattr(config, table), **{name: value})})
    try:
        return replace(config, network=network_of(sizes))
    except (TypeError, ValueError) as error:
        raise UserError(f"The network cannot have the values to try ({error}); try others.") from error


def check_sections(validate: Sequence[str], unseen: Sequence[str]) -> None:
    """Refuse to choose values on sections that the outcome is tested on.

    Raises
    ------
    UserError
        When no test section is named, or one is among those to validate on.
    """
    if not unseen:
        raise UserError(
            "A sweep chooses values, so the sections that it may not see must be named; name the test "
            "sections with --unseen."
        )
    both = [name for name in validate if name in unseen]
    if both:
        raise UserError(
            f"{', '.join(both)} is kept for the test, and values chosen on it would not be tested by it; "
            "validate on other sections."
        )


def sweep(
    config: RunConfig, data: Path, run: Path, plan: Plan, grid: Sequence[Values], table: Path
) -> Steps[list[Values]]:
    """Fit and score X and draws at every point of `grid` on each section of ``plan.test``, left out in turn.

    Parameters
    ----------
    config, data, run
        As for `fit.train`; states are kept in `run`.
    plan
        Validation sections as its ``test``, test sections as its ``unseen``, and seeds.
    grid
        From `read_grid`.
    table
        CSV file with a row per point, section and seed; rows that are there are not computed again.

    Returns
    -------
    The rows.
    """
    check_sections(plan.test, plan.unseen)
    columns = [*grid[0], "section", "seed", *REPORTED, "seconds"]
    rows = _read_rows(table, columns)
    done = {_identity(row, columns) for row in rows}
    for values in grid:
        chosen = with_values(config, values)
        place = run
        if chosen.encoder != config.encoder:  # states of two encoders do not share a folder
            place = encoder_folder(run, chosen.encoder)
        for fold in folds_of(chosen, plan):
            for seed in plan.seeds:
                row = values | {"section": fold.test[0], "seed": seed}
                if _identity(row, columns) in done:
                    continue
                started = time.monotonic()
                yield Step(f"Trying {', '.join(f'{k} = {v}' for k, v in values.items())}", 0)
                scores = yield from _score(chosen, data, place, plan, fold, seed)
                seconds = {"seconds": time.monotonic() - started}
                rows.append(row | {name: round(scores[name], 5) for name in REPORTED} | seconds)
                _write_rows(table, columns, rows)
    return rows


def _score(config: RunConfig, data: Path, run: Path, plan: Plan, fold: Fold, seed: int) -> Steps[Scores]:
    cohort = yield from fold_cohort(config, data, run, plan, fold)
    rest = keep(cohort, [s.entry.name for s in cohort.slides if s.entry.name not in fold.left_out])
    without = config.without((*plan.unseen, *fold.left_out))
    without = replace(without, fit=replace(without.fit, seed=seed))
    network = yield from fit(rest, without, states_folder(run, without, fingerprint(rest)))
    names = [slide.entry.name for slide in cohort.slides]
    place = names.index(fold.test[0])
    slide, features = cohort.slides[place], cohort.features[place][0].numpy()
    predictor, section = FlagPredictor(network, cohort.genes), Section.of(slide)
    encoded = predictor.encode(features, slide.graph(features))
    seen, judged = yield from judge(predictor, encoded, section, seed)
    of_x = section.expectation(seen.mean, None).scores
    return judged.scores | {name: of_x[name] for name in EXPECTATION}


def best_first(rows: Sequence[Values], grid: Sequence[Values]) -> list[tuple[Values, Scores]]:
    """Return each point of `grid` with its mean scores over sections and seeds, best by `RANKED_BY` first."""
    found = []
    for values in grid:
        here = [row for row in rows if all(str(row[key]) == str(value) for key, value in values.items())]
        found.append(
            (values, {name: float(np.mean([float(row[name]) for row in here])) for name in REPORTED})
        )
    return sorted(found, key=lambda point: point[1][RANKED_BY])


def _identity(row: Values, columns: Sequence[str]) -> tuple[str, ...]:
    """Return what was tried, as the CSV file writes it."""
    return tuple(str(row[column]) for column in columns if column not in (*REPORTED, "seconds"))


def _read_rows(table: Path, columns: Sequence[str]) -> list[Values]:
    if not table.exists():
        return []
    names, rows = read_csv(table)
    if names != tuple(columns):
        raise UserError(
            f"{table} holds a sweep over other values ({', '.join(names)}), so this "
            "one cannot resume it; give another --out."
        )
    return [{key: raw_cell(value) for key, value in row.items()} for row in rows]


def _write_rows(table: Path, columns: Sequence[str], rows: Sequence[Values]) -> None:
    table.parent.mkdir(parents=True, exist_ok=True)
    with replacing(table) as place, place.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows([{key: safe_cell(value) for key, value in row.items()} for row in rows])
