"""Self-contained HTML report of a prediction: scores, maps, structure and provenance."""

from napari_flag.report.page import report_name, write_report

__all__ = ["report_name", "write_report"]
