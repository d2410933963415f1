"""Pages from local files, with no server: one run's `report.html`, and many runs as table, curves, CSV and LaTeX."""

from skyloom.report.group import write_group_report
from skyloom.report.page import write_report

__all__ = ["write_group_report", "write_report"]
