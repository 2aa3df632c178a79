"""Errors that a user reads: what happened, why it matters, what to do."""

from __future__ import annotations

from typing import Any


class CnsError(Exception):
    """Something the user can understand and mend.

    Parameters
    ----------
    what
        What happened, with the value it happened to. One sentence.
    why
        Why it matters to the user. May be empty when it is obvious.
    remedy
        What to do next. One sentence in the imperative.
    """

    def __init__(self, what: str, why: str = "", remedy: str = "") -> None:
        self.what, self.why, self.remedy = what, why, remedy
        super().__init__(" ".join(part for part in (what, why, remedy) if part))


class NotFoundError(CnsError):
    """A project, image, model or job that does not exist (any more)."""


class InvalidInputError(CnsError):
    """What the user gave cannot be used as it is."""


class UnreadableImageError(CnsError):
    """A file that cannot be shown rightly; `what` is the reason that stands beside its name."""


class StoreError(CnsError):
    """The database or the data folder cannot be used."""


class Cancelled(Exception):
    """Raised inside a job when the user cancelled it; `result` says what is kept of the work."""

    def __init__(self, result: dict[str, Any] | None = None) -> None:
        self.result = result or {}
        super().__init__()


class Paused(Exception):
    """Raised inside a job when the user paused it: it waits, and goes on from what is kept."""
