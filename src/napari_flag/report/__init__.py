"""One self-contained HTML page that says how good a prediction is, what it shows, and how it was made."""

from napari_flag.report.page import report_name, write_report

__all__ = ["report_name", "write_report"]
