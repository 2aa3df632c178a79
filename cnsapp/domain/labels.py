"""What a labelling act is, and when a message from a browser is one."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cnsapp.domain.names import clean_name
from cnsapp.errors import InvalidInputError

TAKES_BACK = ("undo", "redo")
KINDS = ("label", "skip", "unsure", "clear", *TAKES_BACK)
SOURCES = (
    "human", "bulk", "review", "suggestion", "import", "second", "self", "adjudication",
)  # fmt: skip
MAX_EVENTS = 2000  # in one message: a transaction of a fraction of a second
_TOKEN = re.compile(r"[A-Za-z0-9_.:-]{8,64}")
_SHA = re.compile(r"[0-9a-f]{0,64}")
_ACTION = re.compile(r"[A-Za-z0-9_.:-]{1,80}")
_LARGEST = (
    2**53
)  # what JavaScript counts exactly; ids and numbers beyond it were garbled on the way


@dataclass(frozen=True)
class LabelAct:
    """One act on one image. `client` and `seq` name it: however often sent, it is stored once.

    Acts of one key press share `action`. An undo or redo names its act in `target`. `sha` is
    the beginning of the picture's SHA-256: an act that waited while the database was replaced must
    not fall on another picture that has got the same number.
    """

    client: str
    seq: int
    image_id: int
    kind: str
    class_id: int | None
    source: str
    action: str
    target: tuple[str, int] | None = None
    sha: str = ""

    @property
    def key(self) -> tuple[str, int]:
        """What the act is known by."""
        return (self.client, self.seq)


def read_act(raw: object) -> LabelAct:
    """Return the act that a decoded JSON object describes.

    Raises
    ------
    ValueError
        A part is missing, of the wrong type or unknown; the sentence says which.
    """
    if not isinstance(raw, Mapping):
        raise ValueError("The event is not an object.")
    kind = _one_of(raw, "kind", KINDS)
    client, seq = read_key(raw)
    return LabelAct(
        client=client,
        seq=seq,
        image_id=_whole(raw, "image_id"),
        kind=kind,
        class_id=_whole(raw, "class_id") if kind == "label" else None,
        source=_one_of(raw, "source", SOURCES),
        action=_matching(raw, "action", _ACTION),
        target=_target(raw, kind) if kind in TAKES_BACK else None,
        sha=_matching(raw, "sha", _SHA) if "sha" in raw else "",
    )


def read_key(raw: Mapping[str, Any]) -> tuple[str, int]:
    """Return the client and number that name an act; raise ValueError when they are no such."""
    return _matching(raw, "client", _TOKEN), _whole(raw, "seq")


def claimed_key(raw: object) -> tuple[str, int]:
    """Return whatever the sender called a malformed act, so that it can forget it."""
    client = raw.get("client") if isinstance(raw, Mapping) else None
    seq = raw.get("seq") if isinstance(raw, Mapping) else None
    return (
        client[:64] if isinstance(client, str) else "",
        seq if isinstance(seq, int) and not isinstance(seq, bool) else 0,
    )


def clean_annotator(name: str) -> str:
    """Return the name of who labels as it is stored; raise InvalidInputError when it is none."""
    shown = clean_name(name) if isinstance(name, str) else ""
    if not shown or len(shown) > 200 or not shown.isprintable():
        raise InvalidInputError(
            "Nobody is named as the one who labels."
            if not shown
            else "That name cannot be stored.",
            "Every label is kept with who gave it.",
            "Choose a name of at most 200 characters under “Labelling as” (commands: --annotator).",
        )
    return shown


def _target(raw: Mapping[str, Any], kind: str) -> tuple[str, int]:
    target = raw.get("target")
    if not isinstance(target, Mapping):
        direction = "takes" if kind == "undo" else "brings"
        raise ValueError(f"The {kind} does not say what it {direction} back.")
    return read_key(target)


def _whole(raw: Mapping[str, Any], name: str) -> int:
    value = raw.get(name)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 < value < _LARGEST:
        raise ValueError(f"“{name}” is not a whole number above 0.")
    return value


def _matching(raw: Mapping[str, Any], name: str, pattern: re.Pattern[str]) -> str:
    value = raw.get(name)
    if not isinstance(value, str) or pattern.fullmatch(value) is None:
        raise ValueError(f"“{name}” is missing or holds characters it may not.")
    return value


def _one_of(raw: Mapping[str, Any], name: str, known: tuple[str, ...]) -> str:
    value = raw.get(name)
    if not isinstance(value, str) or value not in known:
        raise ValueError(f"“{name}” is none of {', '.join(known)}.")
    return value
