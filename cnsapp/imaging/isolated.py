"""Read a file where a native crash, a hang or a memory blow-up takes nothing down but itself.

Called like the functions of `cnsapp.imaging.reader`, from any number of threads; the work is done
by the reading processes of one pool, which all threads of this process share.
"""

from __future__ import annotations

import atexit
import os
import threading
from pathlib import Path
from typing import Any

from cnsapp.imaging.decoded import ImageFacts
from cnsapp.imaging.limits import Limits
from cnsapp.imaging.reader import DEFAULT_LIMITS, DEFAULT_RULE, ReadResult, SampleRange
from cnsapp.imaging.reading_pool import Readers
from cnsapp.imaging.reading_process import Answer
from cnsapp.imaging.rule import ReadingRule

_shared: list[Readers] = []
_sharing = threading.Lock()


def readers() -> Readers:
    """Return the pool that all threads of this process share; it ends with the process."""
    with _sharing:
        if not _shared:
            _shared.append(Readers())
            atexit.register(_shared[0].close)
        return _shared[0]


def call(operation: str, path: Path, **arguments: Any) -> Answer:
    """Run an operation in the shared pool; see `Readers.call`."""
    return readers().call(operation, path, **arguments)


def read_image(
    path: Path,
    rule: ReadingRule = DEFAULT_RULE,
    limits: Limits = DEFAULT_LIMITS,
    *,
    strict: bool = False,
) -> ReadResult:
    """Return what `cnsapp.imaging.reader.read_image` returns, decoded in another process.

    Raises
    ------
    UnreadableImageError, WindowMissingError
        As there; also when the decoder crashes, takes too long or takes too much memory.
    StoreError
        No process can be started.
    """
    answer = readers().call("read", path, rule=rule, limits=limits, strict=strict)
    assert answer.array is not None
    return ReadResult(answer.array, facts_from_json(answer.facts))


def read_facts(
    path: Path, rule: ReadingRule, limits: Limits, *, strict: bool = False
) -> ImageFacts:
    """Return the facts of `read_image`, and leave the pixels in the other process; errors alike."""
    return facts_from_json(
        readers().call("facts", path, rule=rule, limits=limits, strict=strict).facts
    )


def check_header(path: Path, limits: Limits = DEFAULT_LIMITS) -> None:
    """Do what `cnsapp.imaging.reader.check_header` does; errors as `read_image`."""
    readers().call("check_header", path, limits=limits)


def read_sample_range(
    path: Path, limits: Limits = DEFAULT_LIMITS, rule: ReadingRule = DEFAULT_RULE
) -> SampleRange | None:
    """Return what `cnsapp.imaging.reader.read_sample_range` returns; errors as `read_image`."""
    facts = readers().call("sample_range", path, rule=rule, limits=limits).facts
    return SampleRange(**facts) if facts else None


def look_at(
    path: Path,
    rule: ReadingRule,
    limits: Limits,
    *,
    root: Path,
    sha256: str,
    seen: str | None = None,
    strict: bool = False,
) -> ImageFacts:
    """Decode a file wholly and write its thumbnails; the pixels stay in the other process.

    Parameters
    ----------
    root, sha256
        The data folder, and the hash of the file: they say where the thumbnails go.
    seen
        Sign in their names; None: how the rule touches this file.
    strict
        Do not fall back on a default window where the rule names none.

    Raises
    ------
    UnreadableImageError, WindowMissingError, StoreError
        As `read_image`.
    OSError
        The thumbnails cannot be written.
    """
    answer = readers().call(
        "look_at", path, rule=rule, limits=limits,
        root=Path(os.path.abspath(root)), sha256=sha256, seen=seen, strict=strict,
    )  # fmt: skip
    return facts_from_json(answer.facts)


def facts_from_json(stored: dict[str, Any]) -> ImageFacts:
    """Return the facts that `ImageFacts.as_json` gave."""
    window = stored.get("window")
    return ImageFacts(**{**stored, "window": None if window is None else tuple(window)})
