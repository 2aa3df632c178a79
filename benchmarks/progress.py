"""What a long measurement says while it goes."""

from __future__ import annotations

import sys


def say(line: str, *, again: bool = False) -> None:
    """Print progress; lines that come again and again only on a terminal."""
    if again and not sys.stderr.isatty():
        return
    print(line.ljust(60), file=sys.stderr, end="\r" if again else "\n", flush=True)
