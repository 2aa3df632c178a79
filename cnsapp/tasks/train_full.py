"""Fine-tune the whole network: epochs that survive a killed worker."""

from __future__ import annotations

from typing import Any

from cnsapp.bootstrap import App
from cnsapp.errors import CnsError
from cnsapp.jobs.context import JobContext


def run_full(app: App, job: JobContext) -> dict[str, Any]:
    """Train and return ``{"model_id", "metrics"}``."""
    del app, job
    raise CnsError("The full model is not there yet.", "", "Use the quick model.")
