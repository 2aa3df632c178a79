"""How the interface writes numbers, times, intervals, and text that comes from elsewhere."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import UTC, datetime

NONE = "–"

STATES = {  # of an image that has no class
    "none": "",
    "skip": "skipped",
    "unsure": "unsure",
    "waiting": "waits for a reader",
    "undecided": "readers undecided",
}


def number(value: float | None, digits: int = 0) -> str:
    """Return a number with thousands separators, or a dash when there is none."""
    if value is None or not math.isfinite(value):
        return NONE
    return f"{value:,.{digits}f}"


def plural(n: int, one: str, many: str | None = None) -> str:
    """Return `1 image`, `2,345 images`."""
    return f"{n:,} {one if n == 1 else many or one + 's'}"


def times(n: int) -> str:
    """Return `once`, `2 times`."""
    return "once" if n == 1 else f"{n:,} times"


def score(value: float | None) -> str:
    """Return a score between 0 and 1 with two digits, or a dash."""
    return number(value, 2)


def percent(share: float | None, digits: int = 0) -> str:
    """Return a share between 0 and 1 as a percentage, or a dash."""
    if share is None or not math.isfinite(share):
        return NONE
    return f"{100 * share:.{digits}f} %"


def interval(bounds: Sequence[float] | None) -> str:
    """Return `0.91–0.95`, or an empty text when there is no interval."""
    if bounds is None or len(bounds) != 2 or not all(map(_is_finite, bounds)):
        return ""
    return f"{bounds[0]:.2f}–{bounds[1]:.2f}"


def figure(value: float | None, bounds: Sequence[float] | None = None, n: int | None = None) -> str:
    """Return `0.93 (0.91–0.95), n = 1,200` with the parts that there are."""
    text = score(value)
    if text != NONE and interval(bounds):
        text += f" ({interval(bounds)})"
    return text if n is None else f"{text}, n = {n:,}"


def ago(moment: datetime | None, now: datetime | None = None) -> str:
    """Return how long ago a moment was, in words: `just now`, `2 min ago`, `3 days ago`."""
    if moment is None:
        return NONE
    seconds = ((now or datetime.now(UTC)) - _aware(moment)).total_seconds()
    if seconds < 45:
        return "just now"
    if seconds < 3600:
        return f"{max(1, round(seconds / 60))} min ago"
    if seconds < 86_400:
        return f"{round(seconds / 3600)} h ago"
    days = round(seconds / 86_400)
    if days < 31:
        return "yesterday" if days == 1 else f"{days} days ago"
    return _aware(moment).strftime("%d %b %Y") if days > 365 else f"{round(days / 30.4)} mo ago"


def exact(moment: datetime | None) -> str:
    """Return a moment to the second, as shown on hover."""
    return NONE if moment is None else _aware(moment).strftime("%Y-%m-%d %H:%M:%S UTC")


def duration(seconds: float | None) -> str:
    """Return a span of time: `8 s`, `3 min`, `1 h 20 min`."""
    if seconds is None or not math.isfinite(seconds) or seconds < 0:
        return NONE
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    minutes = round(seconds / 60)
    if minutes < 60:
        return f"{minutes} min"
    return f"{minutes // 60} h {minutes % 60} min" if minutes % 60 else f"{minutes // 60} h"


def size(n_bytes: float) -> str:
    """Return a file size: `320 kB`, `1.4 MB`."""
    unit = "B"
    for larger in ("kB", "MB", "GB"):
        if n_bytes < 1000:
            break
        n_bytes, unit = n_bytes / 1000, larger
    return f"{n_bytes:.0f} {unit}" if n_bytes >= 10 or unit == "B" else f"{n_bytes:.1f} {unit}"


def device(name: str) -> str:
    """Return a worker's device as people call it."""
    shown = name.strip().rstrip(".")
    return "Worker is ready" if shown in ("", "auto") else shown


def plain(text: str) -> str:
    """Return text as Markdown that shows it letter by letter: file names hold stars.

    Only what stands between two backticks stays what it is, a command to type.
    """
    parts = text.split("`")
    if len(parts) % 2 == 0:
        return _escaped(text)
    return "`".join(part if k % 2 else _escaped(part) for k, part in enumerate(parts))


def _escaped(text: str) -> str:
    return "".join("\\" + ch if ch in "\\`*_{}[]<>#$~|:" else ch for ch in text)


def _aware(moment: datetime) -> datetime:
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)


def _is_finite(value: float | None) -> bool:
    return value is not None and math.isfinite(value)
