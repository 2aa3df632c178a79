"""Measure every row, or the groups named on the command line: `python -m benchmarks web labels`."""

from __future__ import annotations

import importlib
import json
import os
import platform
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

from benchmarks.rows import Row, as_table

GROUPS = (
    "web", "imports", "browsing", "looks", "quality", "learning", "finetuning", "evaluating",
    "label_errors", "reviewing", "explaining", "suggestions", "labels", "queueing", "annotating",
    "viewer", "accuracy",
)  # fmt: skip
RESULTS = Path("bench-results")


def commit() -> str:
    """Return the commit that is measured, marked when files differ from it."""
    run = ["git", "describe", "--always", "--dirty", "--abbrev=10"]
    return subprocess.run(run, capture_output=True, text=True, check=False).stdout.strip() or "?"


def measure(group: str) -> list[Row]:
    """Run one group's measurements."""
    rows: list[Row] = importlib.import_module(f"benchmarks.{group}").measure()
    return rows


def main(chosen: list[str]) -> int:
    """Print the table, write it as JSON, and fail when a target is missed."""
    unknown = set(chosen) - set(GROUPS)
    if unknown:
        sys.exit(f"no such group: {', '.join(sorted(unknown))}; there are {', '.join(GROUPS)}")
    rows: list[Row] = []
    for group in chosen or GROUPS:
        started = time.monotonic()
        rows += measure(group)
        print(f"[{group}: {time.monotonic() - started:.0f} s]", file=sys.stderr)
    print(as_table(rows))
    RESULTS.mkdir(exist_ok=True)
    now = datetime.now(UTC)
    report = {
        "commit": commit(),
        "at": now.isoformat(timespec="seconds"),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "python": platform.python_version(),
        "load_average": list(os.getloadavg()) if hasattr(os, "getloadavg") else None,
        "rows": [row.as_json() for row in rows],
    }
    target = RESULTS / f"bench-{now:%Y%m%dT%H%M%SZ}.json"
    target.write_text(json.dumps(report, indent=1), encoding="utf-8")
    print(f"written to {target}")
    return int(any(row.met is False for row in rows))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
