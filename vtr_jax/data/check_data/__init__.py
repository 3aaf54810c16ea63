"""`vtr check-data`: what annotations and videos hold, and what is wrong with them.

report = check_data("msrvtt", "annotations/msrvtt", videos_dir="videos/msrvtt")
print(report_text(report))
report.problems        # [] where nothing is wrong
"""

from __future__ import annotations

from vtr_jax.data.check_data.check import check_data
from vtr_jax.data.check_data.report import DataReport, report_text

__all__ = ["DataReport", "check_data", "report_text"]
