"""What long work tells and asks while nobody listens: nothing happens, and it goes on."""

from __future__ import annotations


def ignore(_done: float, _total: int, _name: str) -> None:
    """Take the progress of something and leave it at that."""


def go_on() -> None:
    """Answer whether to stop: no."""
