"""The pictures of a report as SVG that goes into the page and takes its colours from it."""

import io
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from napari_flag.analysis.domains import PALETTE, domain_title, hex_colour, learned_on
from napari_flag.analysis.regions import TOPS
from napari_flag.analysis.truth import MEASURED, PREDICTED
from napari_flag.figures.agreement import draw_calibration, draw_named_moran, draw_overlaps
from napari_flag.figures.heat_maps import draw_set_map, draw_triangles
from napari_flag.figures.spot_maps import draw_gene_maps, draw_labels, draw_overview
from napari_flag.figures.style import house_style
from napari_flag.formatting import counted
from napari_flag.progress import Step, Steps
from napari_flag.report import wording
from napari_flag.report.findings import FEWEST_GENES, Findings

if TYPE_CHECKING:
    from matplotlib.figure import Figure


INK: Final = "#010203"
"""Stands for the page's own text colour while drawing; no figure uses it for anything else."""


@dataclass(frozen=True, slots=True)
class Picture:
    """One picture of a report.

    Parameters
    ----------
    name
        Unique in the page.
    title, caption
        What it shows, and how to read it.
    svg
        The picture itself.
    """

    name: str
    title: str
    caption: str
    svg: str


def draw_all(findings: Findings) -> Steps[tuple[Picture, ...]]:
    """Draw what `findings` allow, in the order of the page."""
    alone = findings.section is None
    maps, genes = (
        (wording.MAPS_ALONE, wording.COEXPRESSION_ALONE) if alone else (wording.MAPS, wording.COEXPRESSION)
    )
    domains = _say_domains(findings) + ("" if alone else wording.DOMAINS_MATCHED)
    figures: list[tuple[str, str, str, Callable[[Findings], Figure | None]]] = [
        ("slide", "The slide", wording.SLIDE, lambda known: draw_overview(known.adata)),
        ("genes", "Gene maps", maps, _draw_maps),
        ("moran", "Spatial pattern, gene by gene", wording.MORAN, _draw_moran),
        ("coexpression", "Co-expression", genes, _draw_coexpression),
        ("domains", "Spatial domains", domains, _draw_domains),
        ("set", "A gene set in the domains", wording.SET_MAP, _draw_set),
        ("overlap", "Marker genes of the domains", wording.OVERLAP, _draw_overlap),
        ("calibration", "Calibration of the spread", wording.CALIBRATION, _draw_calibration),
    ]
    found = []
    for done, (name, title, caption, draw) in enumerate(figures):
        yield Step("Drawing the report", done, len(figures), "pictures")
        with house_style(ink=INK):
            figure = draw(findings)
            if figure is not None:
                found.append(Picture(name, title, caption, as_svg(figure, name)))
    return tuple(found)


def as_svg(figure: "Figure", name: str) -> str:
    """Return `figure` as an SVG element: ids of its own, text in the page's colour, no fixed size.

    Parameters
    ----------
    name
        Put before every id, since all pictures share one page.
    """
    import matplotlib as mpl

    place = io.StringIO()
    with mpl.rc_context({"svg.fonttype": "path", "svg.hashsalt": name}):
        figure.savefig(place, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = place.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r'\bid="', f'id="{name}-', text)
    text = re.sub(r'(href="#|url\(#)', rf"\g<1>{name}-", text)
    text = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->", "", text, flags=re.S)
    width, height = (float(72 * side) for side in figure.get_size_inches())
    text = re.sub(r"<svg [^>]*>", _opening(width, height), text, count=1)
    return text.replace(INK, "currentColor").strip()


def _opening(width: float, height: float) -> str:
    return (
        f'<svg viewBox="0 0 {width:g} {height:g}" style="max-width:{round(width * 4 / 3)}px" role="img" '
        'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink">'
    )


def _draw_maps(findings: Findings) -> "Figure | None":
    return draw_gene_maps(findings.adata, findings.shown)


def _draw_moran(findings: Findings) -> "Figure | None":
    section = findings.section
    if section is None or not section.drawn or len(section.genes) < FEWEST_GENES:
        return None
    return draw_named_moran(section)


def _draw_coexpression(findings: Findings) -> "Figure | None":
    return None if findings.together is None else draw_triangles(findings.together)


def _say_domains(findings: Findings) -> str:
    """Return what the domains are, and how those of each source were found."""
    said = {source: wording.DOMAINS_BY[method] for source, method in findings.domain_methods.items()}
    found = {PREDICTED: findings.domains, MEASURED: findings.domains_measured}
    parts = (learned_on(findings.adata, source, found[source]) for source in said)
    thinned = "".join(f" {sentence}" for sentence in dict.fromkeys(parts) if sentence)
    if len(set(said.values())) > 1:
        return f"{wording.DOMAINS}; {'; '.join(f'{source}: {how}' for source, how in said.items())}.{thinned}"
    return ", ".join([wording.DOMAINS, *list(said.values())[:1]]) + f".{thinned}"


def _draw_domains(findings: Findings) -> "Figure | None":
    if findings.domains is None:
        return None
    shown = {"predicted": findings.domains - 1}
    if findings.domains_measured is not None and findings.likeness is not None:
        title = f"predicted   {findings.likeness.described()}"
        shown = {"measured": findings.domains_measured - 1, title: findings.domains - 1}
    if findings.labels is not None:
        shown = {"labels": findings.labels.codes, **shown}
    return draw_labels(findings.adata, shown, [hex_colour(number + 1) for number in range(len(PALETTE))])


def _draw_set(findings: Findings) -> "Figure | None":
    return None if findings.set_map is None else draw_set_map(findings.set_map)


def _draw_overlap(findings: Findings) -> "Figure | None":
    found = [domain for domain in findings.markers if domain.overlaps]
    if not found:
        return None
    tops = TOPS[: len(found[0].overlaps)]
    overlaps = {k: [domain.overlaps[i] for domain in found] for i, k in enumerate(tops)}
    return draw_overlaps(
        overlaps, [f"{domain_title(domain.name)}\n{counted(domain.spots, 'spot')}" for domain in found]
    )


def _draw_calibration(findings: Findings) -> "Figure | None":
    section = findings.section
    return None if section is None or section.spread is None else draw_calibration([section])
