"""Reports for people: the table for the terminal, one debate as text, and one self-contained page for a run."""

from vivavoce.report.comparison import table
from vivavoce.report.report import write_report

__all__ = ["table", "write_report"]
