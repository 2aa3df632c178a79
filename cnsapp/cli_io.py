"""What the commands share: opening the app, printing, and waiting for a job with its progress."""

from __future__ import annotations

import getpass
import json
import sys
import time
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cnsapp.errors import CnsError

if TYPE_CHECKING:
    from cnsapp.bootstrap import App
    from cnsapp.services.jobs import JobView

JsonFlag = Annotated[
    bool, typer.Option("--json", help="Print one JSON value on stdout and nothing else.")
]
ProjectName = Annotated[str, typer.Option("--project", help="Name of the project.")]
Annotator = Annotated[str | None, typer.Option(help="Who labels; your login name when not named.")]


def opened() -> App:
    """Open the installation that CNS_HOME names, making it when it is not there."""
    from cnsapp.bootstrap import open_app

    return open_app()


def say(text: str) -> None:
    """Print a line for the person, on stderr."""
    sys.stderr.write(text.rstrip("\n") + "\n")


def out(text: str) -> None:
    """Print a line of the result, on stdout."""
    sys.stdout.write(text + "\n")


def answer(value: Any, lines: Sequence[str], as_json: bool) -> None:
    """Print the result: JSON for programs, or lines for people."""
    if as_json:
        out(json.dumps(value, ensure_ascii=False, default=_plain, allow_nan=False))
        return
    for line in lines:
        out(line)


def who(annotator: str | None) -> str:
    """Return the annotator named, or the login name."""
    if annotator:
        return annotator
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):
        return "command line"


def table(rows: Sequence[Sequence[object]], head: Sequence[str]) -> list[str]:
    """Return the lines of a plain table with aligned columns."""
    cells = [list(head), *([str(cell) for cell in row] for row in rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(head))]
    return [
        "  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in cells
    ]


class Progress:
    """A line on stderr that moves: in place on a terminal, now and then in a log."""

    def __init__(self) -> None:
        self._live = sys.stderr.isatty()
        self._last = ""
        self._next = 0.0
        self._width = 0

    def show(self, fraction: float | None, message: str) -> None:
        """Show how far the work is."""
        text = message if fraction is None else f"{fraction:4.0%}  {message}"
        if text == self._last or (not self._live and time.monotonic() < self._next):
            return
        self._last, self._next = text, time.monotonic() + 5
        if self._live:
            shown = text[:100]
            sys.stderr.write("\r" + shown.ljust(self._width))
            self._width = len(shown)
            sys.stderr.flush()
        else:
            say(text)

    def count(self, done: float, total: int, name: str) -> None:
        """Show progress that is counted in files."""
        if total:
            self.show(done / total, f"{int(done)} of {total}  {name}")
        else:
            self.show(None, f"{done} files found so far")

    def close(self) -> None:
        """End the line."""
        if self._live and self._last:
            sys.stderr.write("\r" + " " * self._width + "\r")


def finish(app: App, job_id: int) -> JobView:
    """Wait for a job with its progress on stderr; Ctrl+C cancels the job.

    A job that somebody paused is returned as it is, with a word on stderr.

    Raises
    ------
    CnsError
        The job failed or was cancelled; the reason is the sentence.
    """
    from cnsapp.services import jobs

    progress = Progress()
    try:
        job = jobs.wait_for_job(
            app, job_id=job_id, on_change=lambda j: progress.show(j.progress, j.message)
        )
    except KeyboardInterrupt:
        jobs.cancel_job(app.store, job_id=job_id)
        raise
    finally:
        progress.close()
    if job.is_paused:
        say(f"Job {job_id} is paused at {job.progress:.0%}. `resume {job_id}` lets it go on.")
        return job
    if job.state != "done":
        raise CnsError(f"Job {job_id} {job.state}.", job.error or "")
    return job


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    return str(value)
