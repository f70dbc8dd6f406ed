"""Self-contained HTML report of a prediction: scores, maps, structure and provenance."""

from napari_flag.report.page import report_place, reporting, write_report

__all__ = ["report_place", "reporting", "write_report"]
