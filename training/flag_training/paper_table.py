"""The paper's table: every metric read from one array, with the numbers of FLAG's authors beside ours.

As Markdown (a section of the page of ``napari-flag tables``), CSV and LaTeX.
"""

import csv
import io
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from flag_training.result_tables import KINDS, OneArray, one_array
from napari_flag.errors import UserError
from napari_flag.files import ending, safe_cell
from napari_flag.formatting import in_markdown, legible, number, score

SHOWN: Final = ("PCC", "MSE", "GSC", "SSC")
"""Metrics of the paper's table, in its order."""
SOURCE: Final = (
    "FLAG's authors (slides of their talk, ICML 2026): HEST-1k cohort, UNI features, 200 genes (HMHVG), "
    "slides split 7:2:1, one H800"
)
NOT_ALIKE: Final = (
    "The authors' numbers are theirs and were not measured here: they are of other slides, splits and "
    "features than ours, and their published code pools PCC over the spots of all test slides. They say what "
    "was claimed, not which method is better."
)
AUTHORS: Final[dict[str, dict[str, tuple[float, float, float, float]]]] = {
    "HER2ST": {
        "HisToGene": (0.4940, 1.8459, 0.2065, -0.1549),
        "BLEEP": (0.4852, 1.1516, 0.6988, 0.1886),
        "TRIPLEX": (0.6913, 0.6559, 0.5593, 0.0708),
        "Stem": (0.5772, 0.9535, 0.8322, 0.3810),
        "STFlow": (0.7058, 0.6769, 0.7890, 0.2890),
        "FLAG": (0.6835, 0.7342, 0.8926, 0.6386),
        "FLAG without diffusion": (0.6748, 0.7864, 0.3217, 0.5685),
        "FLAG without gene alignment": (0.6682, 0.7938, 0.8713, 0.5894),
        "FLAG without spatial graph": (0.6297, 0.8499, 0.9028, 0.3399),
    },
    "KIDNEY": {
        "HisToGene": (0.2318, 1.3935, -0.0264, 0.1696),
        "BLEEP": (0.1471, 2.7602, 0.5331, 0.0889),
        "TRIPLEX": (0.3739, 1.1454, 0.4469, 0.2347),
        "Stem": (0.3443, 1.3828, 0.8451, 0.1257),
        "STFlow": (0.3145, 1.2790, 0.6857, -0.1007),
        "FLAG": (0.3917, 1.2112, 0.8713, 0.3409),
    },
    "PRAD": {
        "HisToGene": (0.2553, 1.9681, 0.3810, -0.1277),
        "BLEEP": (0.0417, 5.6868, 0.4338, 0.2897),
        "TRIPLEX": (0.5267, 1.5824, 0.5533, 0.6343),
        "Stem": (0.4025, 2.0938, 0.8216, 0.2768),
        "STFlow": (0.5337, 1.8776, 0.7228, 0.5638),
        "FLAG": (0.5853, 1.3771, 0.8775, 0.7510),
    },
}
"""Cohort → method → PCC, MSE, GSC and SSC as its authors state them; of `SOURCE`."""
AUTHORS_DIGITS: Final = 4
"""As they are written there."""


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table.

    Parameters
    ----------
    group
        Under which heading it stands: a kind of ours, or whose numbers they are.
    method, trained_on
        Which, and on what; "" where that is not known.
    values, spreads
        Metric → value, and its standard deviation over seeds; NaN where not known.
    sections
        Those that the values are of.
    theirs
        Not measured here.
    """

    group: str
    method: str
    trained_on: str
    values: dict[str, float]
    spreads: dict[str, float]
    sections: tuple[str, ...] = ()
    theirs: bool = False

    def cell(self, metric: str) -> str:
        """Write one value with its spread."""
        value = self.values[metric]
        if self.theirs:
            return number(value, AUTHORS_DIGITS)
        return score(value, metric, sd=self.spreads.get(metric, math.nan))


@dataclass(frozen=True, slots=True)
class PaperTable:
    """The table in all formats.

    Parameters
    ----------
    title
        What it is called.
    sections
        Ours are means over these.
    rows
        Ours, then the authors'.
    cohort
        Of the authors' numbers, None without.
    """

    title: str
    sections: tuple[str, ...]
    rows: tuple[Row, ...]
    cohort: str | None

    @classmethod
    def of(
        cls,
        results: Sequence[dict[str, Any]],
        title: str,
        only: Sequence[str] = (),
        cohort: str | None = None,
    ) -> "PaperTable":
        """Return the table of several result files.

        Parameters
        ----------
        results
            From `result_tables.read_results`.
        title
            Heading.
        only
            Names of methods to show; () shows all.
        cohort
            Whose numbers by the authors stand beside, a key of `AUTHORS`; None leaves them out.
        """
        ours = [_our_row(row) for row in one_array(results, only)]
        theirs = [] if cohort is None else [_their_row(cohort, method) for method in AUTHORS[cohort]]
        sections = dict.fromkeys(record.section for result in results for record in result["records"])
        return cls(title, tuple(sections), (*ours, *theirs), cohort)

    def markdown(self, level: str = "##") -> str:
        """Return the table as a section of a page."""
        head = ["method", "trained on", *SHOWN]
        lines = [_line(head), "|---|---|" + "---:|" * len(SHOWN)]
        shown = ""
        for row in self.rows:
            if row.group != shown:
                shown = row.group
                lines.append(_line([f"**{shown}**", *[""] * (1 + len(SHOWN))]))
            name = in_markdown(row.method) + (" †" if row.theirs else "")
            lines.append(_line([name, in_markdown(row.trained_on), *(row.cell(metric) for metric in SHOWN)]))
        notes = [] if self.cohort is None else [f"† {SOURCE}. {NOT_ALIKE}"]
        return "\n\n".join([f"{level} {in_markdown(self.title)}", "\n".join(lines), *notes])

    def csv(self) -> str:
        """Return a row per method, numbers to six digits; ``numbers_of`` says whose they are."""
        place = io.StringIO()
        spreads = [f"{metric}_sd" for metric in SHOWN]
        fields = ["numbers_of", "group", "method", "trained_on", *SHOWN, *spreads, "data", "source"]
        writer = csv.DictWriter(place, fields, lineterminator="\n")
        writer.writeheader()
        for row in self.rows:
            cells = {
                "numbers_of": "authors" if row.theirs else "ours",
                "group": row.group,
                "method": row.method,
                "trained_on": row.trained_on,
                **{metric: _plain(row.values[metric]) for metric in SHOWN},
                **{f"{metric}_sd": _plain(row.spreads.get(metric, math.nan)) for metric in SHOWN},
                "data": self.cohort if row.theirs else " ".join(row.sections),
                "source": SOURCE if row.theirs else "napari-flag evaluate",
            }
            writer.writerow({field: safe_cell(cell) for field, cell in cells.items()})
        return place.getvalue()

    def latex(self) -> str:
        """Return a ``table`` with a ``booktabs`` tabular, to be included in a paper."""
        columns = 2 + len(SHOWN)
        lines = [
            "% Written by napari-flag tables; needs \\usepackage{booktabs}.",
            "\\begin{table}",
            "\\centering",
            f"\\caption{{{_tex(self.title)}. {self._caption()}}}",
            f"\\begin{{tabular}}{{ll{'r' * len(SHOWN)}}}",
            "\\toprule",
            _tex_line(["method", "trained on", *SHOWN]),
        ]
        shown = ""
        for row in self.rows:
            if row.group != shown:
                shown = row.group
                lines += ["\\midrule", f"\\multicolumn{{{columns}}}{{l}}{{\\textit{{{_tex(shown)}}}}} \\\\"]
            name = _tex(row.method) + ("\\textsuperscript{\\dag}" if row.theirs else "")
            cells = (_tex(row.cell(metric)) for metric in SHOWN)
            lines.append(" & ".join([name, _tex(row.trained_on), *cells]) + " \\\\")
        return "\n".join([*lines, "\\bottomrule", "\\end{tabular}", "\\end{table}", ""])

    def _caption(self) -> str:
        said = f"Mean over {', '.join(self.sections)}; every metric is read from one array."
        more = "" if self.cohort is None else f" \\dag: {SOURCE}. {NOT_ALIKE}"
        return _tex(said) + more.replace("%", "\\%")


FORMATS: Final[dict[str, Callable[[PaperTable], str]]] = {
    ".csv": PaperTable.csv,
    ".tex": PaperTable.latex,
}
"""Ending of a file → what it holds; a page of Markdown has all tables."""


def check_ending(path: Path) -> None:
    """Refuse a file whose ending is none of the formats, before anything is read.

    Raises
    ------
    UserError
        Naming the endings that there are.
    """
    if ending(path) not in {".md", *FORMATS}:
        raise UserError(
            f"Tables cannot be written as “{path.suffix or path.name}”; end the name in .md (all tables), "
            ".csv or .tex (the paper's table)."
        )


def _our_row(row: OneArray) -> Row:
    return Row(KINDS[row.kind], row.method, row.trained_on, row.values, row.spreads, row.sections)


def _their_row(cohort: str, method: str) -> Row:
    values = dict(zip(SHOWN, AUTHORS[cohort][method], strict=True))
    return Row(f"The authors' own numbers, {cohort}", method, "", values, {}, theirs=True)


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _tex_line(cells: Sequence[str]) -> str:
    return " & ".join(_tex(cell) for cell in cells) + " \\\\"


_TEX: Final = str.maketrans(
    {
        "\\": "\\textbackslash{}", "&": "\\&", "%": "\\%", "$": "\\$", "#": "\\#", "_": "\\_", "{": "\\{",
        "}": "\\}", "~": "\\textasciitilde{}", "^": "\\textasciicircum{}", "±": "$\\pm$", "–": "--",
        "½": "$\\frac{1}{2}$", "`": "", "−": "$-$", "†": "\\dag{}",
    }
)  # fmt: skip


def _tex(text: str) -> str:
    return legible(text).translate(_TEX)


def _plain(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.6g}"
