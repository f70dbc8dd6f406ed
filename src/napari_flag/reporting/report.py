"""Write the report of one slide."""

from pathlib import Path
from typing import TYPE_CHECKING

from napari_flag.errors import UserError
from napari_flag.progress import Step, Steps

if TYPE_CHECKING:
    from anndata import AnnData

    from napari_flag.comparison import Comparison
    from napari_flag.reporting.findings import Findings


def report_name(slide: str) -> str:
    """Return the file name of the report of a slide."""
    return f"{slide}_report.html"


def write_report(
    predicted: "AnnData",
    measured: "AnnData | None",
    folder: Path,
    *,
    seed: int = 0,
    comparison: "Comparison | None" = None,
    findings: "Findings | None" = None,
    command: str | None = None,
) -> Steps[Path]:
    """Write one self-contained HTML page on a prediction, and return its path.

    Parameters
    ----------
    predicted
        A prediction; not changed.  Where it has ``obs["label"]``, domains are held against that.
    measured
        Raw counts of the same spots, or None: the page then says nothing of how good it is.
    folder
        Where the page goes; it must exist.  A report of the same slide is replaced.
    seed
        Of the bootstrap and the domains; the same gives the same page.
    comparison
        Of these two with this seed, where it was made already.
    findings
        Of these two with this seed, where they were gathered already.
    command
        What made the report, to be repeated; None where it was not the command line.

    Raises
    ------
    UserError
        When `predicted` is not ours, the two do not belong together, or the page cannot be written.
    """
    from napari_flag.comparison import slide_name
    from napari_flag.reporting.findings import gather
    from napari_flag.reporting.page import write_page
    from napari_flag.reporting.pictures import draw_all
    from napari_flag.results import check_writable, find_fault, write_whole

    fault = find_fault(predicted)
    if fault:
        raise UserError(f"The file {fault}, so it is no prediction of napari-flag; choose one that is.")
    place = folder / report_name(slide_name(predicted))
    check_writable(place)
    if findings is None:
        findings = yield from gather(predicted, measured, seed=seed, comparison=comparison)
    pictures = yield from draw_all(findings)
    yield Step("Writing the report", 0, None)
    page = write_page(findings, pictures, seed=seed, command=command)
    write_whole(place, lambda part: part.write_text(page, encoding="utf-8"))
    return place
