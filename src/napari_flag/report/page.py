"""The HTML page of a report: one file, nothing loaded from anywhere."""

import html
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from importlib import resources
from math import isnan
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from napari_flag import __version__, keys
from napari_flag.analysis.compare import Comparison
from napari_flag.analysis.domains import hex_colour, labelled_share
from napari_flag.analysis.pathways import DomainSets
from napari_flag.analysis.scores import EXPECTATION, FEWEST_DRAWS, MEANING, STRUCTURE, DrawScores
from napari_flag.anonymous_prediction import known_provenance
from napari_flag.errors import UserError
from napari_flag.files import UNSEALED, place_in
from napari_flag.formatting import (
    UNDEFINED,
    area,
    counted,
    entry,
    entry_name,
    interval,
    legible,
    number,
    probability,
    score,
    whole,
)
from napari_flag.prediction_doubts import doubts_of
from napari_flag.prediction_file import output_name, provenance, unlike_warning
from napari_flag.progress import Step, Steps
from napari_flag.report import wording
from napari_flag.report.findings import Findings
from napari_flag.report.pictures import Picture
from napari_flag.report.wording import COLUMNS, LABELS, NO_TRUTH

if TYPE_CHECKING:
    from anndata import AnnData

_NO_SCORES: Final[dict[str, Callable[..., str]]] = {"q": probability, "mean": number}
"""Columns of the table of genes that are no scores → how they are written."""


def write_page(
    findings: Findings, pictures: Sequence[Picture], *, command: str | None, identity: str | None = None
) -> str:
    """Return the whole page.

    Parameters
    ----------
    findings, pictures
        What to say and to show.
    command, identity
        That made the report, where it was made on the command line, and the hash by which it is known again.
    """
    from napari_flag.exports.replacing import statement

    name = output_name(findings.adata)
    parts = [
        *_head(findings, name),
        *_warnings(findings),
        *_scores(findings.comparison),
        *(part for picture in pictures for part in _figure(picture, findings)),
        *_genes(findings),
        *_provenance(findings, command),
    ]
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<meta name="generator" content="napari-flag {__version__}">\n{statement(".html", identity)}\n'
        f'<meta name="{keys.CONTENT_HASH}" content="{UNSEALED}">\n'
        f"<title>{escape(name)}, predicted expression</title>\n"
        f"<style>\n{_file('page.css')}</style>\n</head>\n"
        f"<body>\n{chr(10).join(parts)}\n<script>\n{_file('page.js')}</script>\n</body>\n</html>\n"
    )


def escape(text: str) -> str:
    """Return a text of a file as it stands in the page: nothing in it is a tag, nor acts unseen."""
    return html.escape(legible(text))


def _file(name: str) -> str:
    return resources.files("napari_flag.report").joinpath(name).read_text(encoding="utf-8")


def _head(findings: Findings, name: str) -> Iterator[str]:
    made = provenance(findings.adata)
    title = "Predicted and measured expression" if findings.comparison else "Predicted expression"
    adata, comparison = findings.adata, findings.comparison
    size = f"{whole(adata.n_obs)} spots, {whole(adata.n_vars)} genes"
    if comparison is not None:
        all_of_it = (comparison.spots, comparison.genes) == adata.shape
        shared = f"{whole(comparison.spots)} spots and {whole(comparison.genes)} genes of them were"
        size += "; all were measured too" if all_of_it else f"; {shared} measured too"
    weights = f"weights {made[keys.WEIGHTS_NAME]}, " if keys.WEIGHTS_NAME in made else ""
    yield f"<h1>{escape(name)}</h1>"
    yield f'<p class="soft">{title} · {escape(weights)}{size} · {keys.EXPRESSION_UNITS}<br>'
    yield f"{keys.RESEARCH_USE_ONLY}</p>"


def _warnings(findings: Findings) -> Iterator[str]:
    """Yield warnings and notices shown above the scores."""
    if warning := unlike_warning(findings.adata):
        yield '<div class="warning" role="note"><strong>Unlike the training tissue.</strong> '
        yield f"{escape(warning)}</div>"
    for notice in findings.comparison.notices if findings.comparison else doubts_of(findings.adata):
        yield f'<div class="warning" role="note">{escape(notice)}</div>'
    if findings.comparison is None:
        yield f'<p class="note">{NO_TRUTH}</p>'


def _scores(comparison: Comparison | None) -> Iterator[str]:
    if comparison is None:
        return
    mean, drawn = comparison.scores["X"], comparison.draws
    yield '<h2 id="scores">How good it is</h2>'
    yield f"<h3>The expectation, X</h3>\n<p>{wording.EXPECTATION}</p>"
    yield from _tiles({name: mean.values[name] for name in EXPECTATION}, mean.intervals)
    if drawn.number:
        yield from _scores_of_draws(drawn)
    yield f"<p>{wording.TOGETHER}</p>\n<h3>As one array</h3>\n<p>{wording.ONE_ARRAY}</p>"
    yield '<div class="wide"><table><thead><tr><th scope="col">metric</th>'
    yield '<th scope="col">X (expectation)</th><th>95 %</th>'
    if drawn.number:
        yield '<th scope="col">one draw</th><th>95 %</th>'
        yield f'<th scope="col">{drawn.mean_of}</th>'
    yield "</tr></thead><tbody>"
    for metric in (*EXPECTATION, *STRUCTURE):
        cells = "".join(
            f"<td>{score(scores.values[metric], metric, UNDEFINED)}</td>"
            f"<td>{interval(scores.intervals.get(metric), metric)}</td>"
            for scores in comparison.scores.values()
        )
        if drawn.number:
            cells += f"<td>{score(drawn.values[metric], metric, UNDEFINED)}</td>"
        yield f'<tr><td title="{escape(MEANING[metric])}">{metric}</td>{cells}</tr>'
    yield "</tbody></table></div>"
    in_truth, predicted = mean.genes_constant_in_truth, mean.genes_predicted_constant
    yield f'<p class="soft">Moran\'s I on the {escape(comparison.neighbours)}, row-standardised. '
    yield f"{whole(in_truth)} genes are constant in the truth and left out of all but MSE; "
    yield f"{whole(predicted)} are predicted constant and score 0.</p>"


def _scores_of_draws(drawn: DrawScores) -> Iterator[str]:
    over_draws = drawn.values
    yield f"<h3>The draws</h3>\n<p>{wording.DRAWS.format(mean=drawn.mean_of)}</p>"
    yield from _tiles({name: over_draws[name] for name in STRUCTURE}, {})
    if drawn.why_not is None:
        yield f"<p>{wording.PROPER.format(number=FEWEST_DRAWS)}</p>"
        yield from _tiles(drawn.proper, drawn.intervals)
    else:
        yield f'<p class="note">{escape(drawn.why_not)}</p>'


def _tiles(values: Mapping[str, float], intervals: Mapping[str, tuple[float, float]]) -> Iterator[str]:
    """Yield a tile for each score: its name, value, interval and meaning."""
    yield '<div class="scores">'
    for metric, value in values.items():
        yield (
            f'<div class="score"><span>{metric} <span class="soft">{wording.METRICS[metric]}</span></span>'
            f"<b>{score(value, metric, UNDEFINED)}</b>"
            f'<span class="interval soft">{interval(intervals.get(metric), metric)}</span>'
            f"<small>{escape(MEANING[metric])}</small></div>"
        )
    yield "</div>"


def _figure(picture: Picture, findings: Findings) -> Iterator[str]:
    yield f'<h2 id="{picture.name}">{escape(picture.title)}</h2>'
    svg = picture.svg.replace('role="img"', f'role="img" aria-label="{escape(picture.title)}"', 1)
    yield f"<figure>{svg}<figcaption>{escape(picture.caption)}</figcaption></figure>"
    if picture.name == "domains":
        yield from _labels(findings)
        yield from _markers(findings)
        yield from _pathways(findings.pathways)


def _labels(findings: Findings) -> Iterator[str]:
    """Yield the labels of spots, and how far the domains agree with them."""
    labels = findings.labels
    if labels is None:
        return
    yield '<table class="words labels"><thead><tr><th scope="col">label</th><th>spots</th></tr></thead>'
    yield "<tbody>"
    for code, name in enumerate(labels.names):
        dot = f'<span class="dot" style="background:{hex_colour(code + 1)}"></span>'
        yield f"<tr><td>{dot}{escape(name)}</td><td>{whole(int((labels.codes == code).sum()))}</td></tr>"
    yield '</tbody></table><table class="words"><thead><tr><th scope="col">to the labels</th>'
    yield "<th>ARI</th><th>NMI</th></tr></thead><tbody>"
    for key, word in ((keys.DOMAIN, "predicted"), (keys.DOMAIN + keys.OF_MEASURED, "measured")):
        if key in labels.agreements:
            found = labels.agreements[key]
            cells = f"<td>{score(found.ari, 'ARI')}</td><td>{score(found.nmi, 'NMI')}</td>"
            yield f'<tr><th scope="row">domains, {word}</th>{cells}</tr>'
    yield f'</tbody></table><p class="soft">{labelled_share(labels.codes >= 0)}. {LABELS}</p>'


def _markers(findings: Findings) -> Iterator[str]:
    if not findings.markers:
        return
    both = any(domain.measured for domain in findings.markers)
    yield '<table class="words markers"><thead><tr><th scope="col">domain</th>'
    yield '<th scope="col">markers, predicted</th>'
    yield ('<th scope="col">markers, measured</th>' if both else "") + "</tr></thead><tbody>"
    for domain in findings.markers:
        shared = set(domain.predicted) & set(domain.measured)
        cells = [_names(domain.predicted, shared)] + ([_names(domain.measured, shared)] if both else [])
        row = "".join(f"<td>{cell}</td>" for cell in cells)
        colour = hex_colour(domain.number)
        size = counted(domain.spots, "spot") + ("" if isnan(domain.area) else f", {area(domain.area)}")
        name = f'<span class="dot" style="background:{colour}"></span>{escape(domain.name)}, {size}'
        yield f"<tr><td>{name}</td>{row}</tr>"
    yield "</tbody></table>"
    if both:
        yield '<p class="soft">Bold: among the leading markers of both.</p>'


def _pathways(pathways: DomainSets | None) -> Iterator[str]:
    """Yield the gene sets that prediction and truth have raised in each domain of the truth."""
    if pathways is None:
        return
    yield f'<h3 id="pathways">Gene sets raised in the domains</h3>\n<p>{escape(pathways.described())}</p>'
    yield '<table class="words markers"><thead><tr><th scope="col">domain</th><th scope="col">predicted</th>'
    yield '<th scope="col">measured</th><th>in both</th><th>by chance</th></tr></thead><tbody>'
    for domain, found in pathways.domains.items():
        shared = set(found.shared)
        colour = hex_colour(domain)
        dot = f'<span class="dot" style="background:{colour}"></span>'
        cells = "".join(f"<td>{_names(sets, shared)}</td>" for sets in (found.predicted, found.measured))
        counts = f"<td>{whole(len(shared))}</td><td>{number(found.chance, 1)}</td>"
        yield f"<tr><td>{dot}{escape(pathways.names[domain])}</td>{cells}{counts}</tr>"
    yield f'</tbody></table><p class="soft">{wording.PATHWAYS}</p>'


def _names(genes: Sequence[str], shared: set[str]) -> str:
    marked = (f"<b>{escape(gene)}</b>" if gene in shared else escape(gene) for gene in genes)
    return f"<i>{', '.join(marked)}</i>"


def _genes(findings: Findings) -> Iterator[str]:
    by = "moran_measured" if "moran_measured" in findings.genes else "moran"
    table = findings.genes.sort_values(by, ascending=False, kind="stable")
    columns = [column for column in COLUMNS if column in table]
    yield '<h2 id="table">All genes</h2>'
    yield f'<p class="soft">Moran\'s I on the {escape(findings.neighbours)}. Click a heading to sort.</p>'
    yield '<input id="filter" type="search" placeholder="find a gene" aria-label="find a gene">'
    yield '<div class="scroll"><table id="genes-table"><thead><tr>'
    for column in columns:
        head, meaning = COLUMNS[column]
        sorted_by = ' aria-sort="descending"' if column == by else ""
        button = f'<button type="button">{head}</button>'
        yield f'<th scope="col" title="{escape(meaning)}"{sorted_by}>{button}</th>'
    yield "</tr></thead><tbody>"
    written = [_NO_SCORES.get(column) or partial(score, metric=COLUMNS[column][0]) for column in columns[1:]]
    for row in table[columns].itertuples(index=False):
        cells = "".join(
            f'<td data-v="{value:.6g}">{write(value, unknown="")}</td>'
            for write, value in zip(written, row[1:], strict=True)
        )
        yield f"<tr><td><i>{escape(str(row[0]))}</i></td>{cells}</tr>"
    yield "</tbody></table></div>"


def _provenance(findings: Findings, command: str | None) -> Iterator[str]:
    yield '<h2 id="provenance">How it was made</h2>\n<table class="words"><tbody>'
    known, _ = known_provenance(findings.adata)
    made = {name: value for name, value in known.items() if name != keys.REGIONS}
    rows = {**_flat(made), "report: napari-flag": __version__}
    if command is not None:
        rows["report: command"] = command
    for name, value in rows.items():
        yield f'<tr><th scope="row">{escape(entry_name(name))}</th>'
        yield f"<td><code>{escape(entry(value))}</code></td></tr>"
    yield "</tbody></table>"


def _flat(values: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    """Return nested provenance as one level, names joined by a colon."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{above}{name}: ")
        else:
            flat[above + name] = value
    return flat


def report_place(folder: Path, slide: str) -> Path:
    """Return where the report of a slide goes."""
    return place_in(folder, slide, "_report.html")


def reporting(
    predicted: "AnnData",
    truth: "Steps[AnnData | None]",
    folder: Path,
    *,
    sets: Mapping[str, Sequence[str]] | None = None,
    force: bool = False,
) -> Steps[Path]:
    """Write the report of a prediction and the counts that `truth` finds (`truth.truth_of`).

    Else as `write_report`, with `sets` as of `findings.gather`.
    """
    measured = yield from truth
    return (yield from write_report(predicted, measured, folder, sets=sets, force=force))


def write_report(
    predicted: "AnnData",
    measured: "AnnData | None",
    folder: Path,
    *,
    comparison: "Comparison | None" = None,
    findings: "Findings | None" = None,
    sets: Mapping[str, Sequence[str]] | None = None,
    command: str | None = None,
    identity: str | None = None,
    force: bool = False,
) -> Steps[Path]:
    """Write one self-contained HTML page on a prediction, and return its path.

    Parameters
    ----------
    predicted
        A prediction; not changed.  Where it has ``obs["label"]``, domains are compared with that.
    measured
        Raw counts of the same spots, or None: the page then says nothing of how good it is.
    folder
        Where the page goes; it must exist.  A report of the same slide is replaced.
    comparison
        Of these two, where it was made already.
    findings
        Of these two, where they were gathered already.
    command
        What made the report, to be repeated; None where it was not the command line.
    identity
        The hash by which a repetition of that is known.
    sets, force
        As of `findings.gather`.

    Raises
    ------
    UserError
        When `predicted` is not ours or its spots look misplaced, the two do not belong together, or the page
        cannot be written.
    """
    from napari_flag.exports.replacing import refuse_foreign, refuse_inside_zarr
    from napari_flag.files import check_writable, write_text
    from napari_flag.prediction_file import find_fault
    from napari_flag.report.findings import gather
    from napari_flag.report.pictures import draw_all

    fault = find_fault(predicted)
    if fault:
        raise UserError(f"The file {fault}, so it is no prediction of napari-flag; choose one that is.")
    place = report_place(folder, output_name(predicted))
    refuse_inside_zarr(place)
    refuse_foreign(place)
    check_writable(place)
    if findings is None:
        findings = yield from gather(predicted, measured, comparison=comparison, sets=sets, force=force)
    pictures = yield from draw_all(findings)
    yield Step("Writing the report", 0, None)
    page = write_page(findings, pictures, command=command, identity=identity)
    write_text(page, place)
    return place
