"""The result of a soak as JSON, as a page of the docs, and as a picture."""

import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil
from tests.soak import curve
from tests.soak.curve import LIMITS, ROUNDS, SWITCHES, UNITS, Growth, Mark
from tests.soak.window import ENCODE_EVERY, GENES, SHARES, SPOTS

from napari_flag.figures.style import COLOURS, GREY, house_style
from napari_flag.files import replacing, write_json, write_text

HOW = (
    f"{SHARES['gene']:.0%} of the switches select another gene at random, {SHARES['key']:.0%} press an arrow "
    "key over the picture, the others show another quantity, a second gene or another kind of map for a "
    "while. The page of the FLAG area changes all along, and the second canvas is opened and closed between "
    "marks. Events are handled after each switch; the window is drawn after every "
    "{frame_every}th, since drawing takes most of the time without a graphics card. In the rounds, features "
    f"are computed anew every {ENCODE_EVERY}th time and come from the cache otherwise."
)
CUT_SHORT = (
    "The run was cut short. What is loaded when a page or a kind of map is shown for the first time comes in "
    "its course, and so few marks cannot tell that from a leak: neither a flat nor a growing quantity is "
    "shown by it for a day of work."
)
MEASURED = (
    "At each mark the window is brought to the same view and to rest, and garbage is collected. Growth is "
    "the median slope between all pairs of marks (Theil and Sen) after the first "
    f"{curve.WARM_UP:.0%} of them. Where it is above its limit and no more than noise in all, the run was "
    "too short to say what it is. The limits stand in `tests/soak/curve.py`."
)


def write_result(out: Path, marks: Sequence[Mark], about: dict[str, Any]) -> None:
    """Write `out` (Markdown), and the same as ``.json`` and ``.png`` beside it."""
    about = about | {
        "computer": f"{psutil.cpu_count()} cores, {psutil.virtual_memory().total / 2**30:.0f} GB of memory, "
        f"{platform.system()}, Python {platform.python_version()}"
    }
    write_json(curve.as_json(marks, about), out.with_suffix(".json"))
    _draw(out.with_suffix(".png"), marks)
    write_text(page(marks, about, out.with_suffix(".png").name), out)


def page(marks: Sequence[Mark], about: dict[str, Any], picture: str) -> str:
    """Return the page."""
    found = curve.growths(marks)
    done, asked, frames = (about[name] for name in ("done", "asked", "frames"))
    lines = [
        "# A window in use for long",
        "",
        f'Written by `make soak ARGS="{about["arguments"]}"` ({about["computer"]}, other work beside it).',
        "",
        f"**{_said(found)}**",
        "",
    ]
    for name, what in (
        (SWITCHES, f"gene switches on a prediction of {SPOTS} spots and {GENES} genes"),
        (ROUNDS, "rounds of opening a slide, predicting it with weights of the real architecture, "
         "looking at each gene, saving the prediction and closing the slide"),
    ):  # fmt: skip
        if name in done:
            ended = "" if done[name] == asked[name] else f" of {asked[name]:,}, for which there was no time"
            seconds = [mark.seconds for mark in marks if mark.phase == name]
            lines.append(
                f"- {done[name]:,} {what}{ended}: {(seconds[-1] - seconds[0]) / 60:.0f} minutes, "
                f"{frames[name]:,} frames drawn ({frames[name] / max(done[name], 1):.2f} each)."
            )
    if done != asked:
        lines += ["", CUT_SHORT]
    how = HOW.format(frame_every=about.get("frame_every", 10))
    lines += ["", how, "", MEASURED, "", f"![What a window takes]({picture})", "", *_table(found), ""]
    return "\n".join(lines)


def _said(found: Sequence[Growth]) -> str:
    if not found:
        return "Too few marks to say anything."
    grew, unsure = _named(found, curve.GROWS), _named(found, curve.TOO_SHORT)
    if not grew and not unsure:
        return "Everything stayed flat."
    said = f"These grew: {grew}." if grew else "Nothing was seen to grow."
    return said + (f" The run was too short to say it of: {unsure}." if unsure else "")


def _named(found: Sequence[Growth], verdict: str) -> str:
    return ", ".join(f"{growth.quantity} ({growth.phase})" for growth in found if growth.verdict == verdict)


def _table(found: Sequence[Growth]) -> list[str]:
    lines = []
    for phase, unit in UNITS.items():
        rows = [growth for growth in found if growth.phase == phase]
        if not rows:
            continue
        lines += [
            "",
            f"| over the {phase} | after the warm-up | at the end | growth per {unit:,} | flat up to "
            "| growth in all | noise up to | |",
            "|---|---:|---:|---:|---:|---:|---:|---|",
        ]
        for growth in rows:
            limit = LIMITS[growth.quantity]
            verdict = growth.verdict if growth.verdict == curve.FLAT else f"**{growth.verdict}**"
            slope = (
                f"{growth.per_unit:+,.2f} | {limit.growth:,g} | {growth.over_all:+,.2f} | {limit.noise:,g}"
            )
            levels = f"{growth.first:,.0f} | {growth.last:,.0f}"
            lines.append(f"| {growth.quantity} | {levels} | {slope} | {verdict} |")
    return lines


def _draw(path: Path, marks: Sequence[Mark]) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    phases = [phase for phase in UNITS if any(mark.phase == phase for mark in marks)]
    with house_style():
        figure = Figure(figsize=(4.6 * len(phases), 1.35 * len(LIMITS)))
        FigureCanvasAgg(figure)
        grid = figure.subplots(len(LIMITS), len(phases), squeeze=False, sharex="col")
        for column, phase in enumerate(phases):
            of_phase = [mark for mark in marks if mark.phase == phase]
            after = curve.judged(marks, phase)
            for row, quantity in enumerate(LIMITS):
                axes = grid[row, column]
                done = [mark.done for mark in of_phase]
                values = [mark.values[quantity] for mark in of_phase]
                axes.plot(done, values, color=GREY, linewidth=1)
                axes.plot(
                    [mark.done for mark in after],
                    [mark.values[quantity] for mark in after],
                    color=COLOURS[0], linewidth=1.4,
                )  # fmt: skip
                axes.set_ylim(0, 1.25 * max(*values, 1))
                axes.set_title(quantity, loc="left")
            grid[-1, column].set_xlabel(phase)
            grid[-1, column].xaxis.set_major_formatter("{x:,.0f}")
        with replacing(path) as place:
            figure.savefig(place, format="png")
