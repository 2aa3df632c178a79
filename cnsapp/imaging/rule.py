"""How a project reads its files: fixed once, kept with each model, the same in every step.

Everything that a picture depends on beside its bytes stands here: the intensity windows of deep
samples, which page of a stack, which channels in which colours, and what lies behind transparency.
`ReadingRule.seen` condenses what of it a given file is touched by, so that a change of the rule
makes exactly the thumbnails, features and models stale that it changes.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass, replace
from typing import Any

from cnsapp.errors import InvalidInputError

MAX_CHANNELS = 6
WHITE = "#FFFFFF"
FIRST, MAX = "first", "max"
WINDOWS_FROM = ("range", "percentile", "fixed")
COLOR = re.compile(r"#[0-9A-F]{6}")


@dataclass(frozen=True)
class Channel:
    """A channel of a stack and the colour it is shown in.

    Parameters
    ----------
    index
        Which channel, from 0.
    color
        "#RRGGBB": the colour of a sample at or above `high`.
    low, high
        The window: black and full colour; None: the project's window of the file's sample kind.
    """

    index: int
    color: str
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class ReadingRule:
    """What a project has fixed about reading its images.

    Parameters
    ----------
    windows
        (sample kind, black, white) for each kind the project has fixed. Kinds: uint16, uint32,
        int8, int16, int32, float. A kind that is not named uses its default.
    page
        Of a stack of pages or planes: "first", "max" (maximum projection) or a number from 1.
    channels
        Up to 6 channels that are laid over each other, light adding to light; none: a file of
        colours as its colours, of other channels the first in gray. They concern files with more
        than one channel that are not plain colour pictures.
    background
        "#RRGGBB" behind transparency.
    windows_from
        How the window of a sample kind is found at its first import: "range" (of the data),
        "percentile" (0.1 to 99.9 over a sample of the files), or "fixed" (only as set by hand).
    """

    windows: tuple[tuple[str, float, float], ...] = ()
    page: str = FIRST
    channels: tuple[Channel, ...] = ()
    background: str = WHITE
    windows_from: str = "range"

    def window(self, kind: str) -> tuple[float, float] | None:
        """Return (black, white) that the project fixed for a sample kind, or None."""
        return next(((low, high) for name, low, high in self.windows if name == kind), None)

    def with_window(self, kind: str, low: float, high: float) -> ReadingRule:
        """Return a rule that also fixes this kind."""
        others = tuple(row for row in self.windows if row[0] != kind)
        return replace(self, windows=tuple(sorted((*others, (kind, float(low), float(high))))))

    def checked(self) -> ReadingRule:
        """Return the rule itself; raise InvalidInputError when a part of it cannot be used."""
        for kind, low, high in self.windows:
            _check_window(f"The window of {kind} samples", low, high)
        if self.page not in (FIRST, MAX) and not re.fullmatch(r"[1-9][0-9]{0,5}", self.page):
            raise InvalidInputError(
                f"There is no page “{self.page}”.", "", "Say first, max, or a number from 1."
            )
        if len(self.channels) > MAX_CHANNELS:
            raise InvalidInputError(
                f"{len(self.channels)} channels cannot be shown at once: {MAX_CHANNELS} can.",
                "More colours than that cannot be told apart.",
                "Switch some of them off.",
            )
        for channel in self.channels:
            _check_color(channel.color)
            if channel.low is not None and channel.high is not None:
                _check_window(f"The window of channel {channel.index + 1}", channel.low,
                              channel.high)  # fmt: skip
        _check_color(self.background)
        if self.windows_from not in WINDOWS_FROM:
            raise InvalidInputError(
                f"There is no way “{self.windows_from}” of finding a window.",
                "",
                f"Choose one of: {', '.join(WINDOWS_FROM)}.",
            )
        return self

    def seen(self, facts: dict[str, Any]) -> str:
        """Return a sign of how the rule touches a file with these facts; "" when it does not.

        Two rules with the same sign for a file give the same picture of it. `facts` are those of
        `ImageFacts.as_json`: `samples`, `pages`, `channels`, `alpha`.
        """
        parts: dict[str, Any] = {}
        several = int(facts.get("channels", 1)) > 1
        if several and self.channels:
            parts["channels"] = [[c.index, c.color, c.low, c.high] for c in self.channels]
        kind = str(facts.get("samples", "uint8"))
        if kind != "uint8":
            window = self.window(kind)
            parts["window"] = list(window) if window else None
        if int(facts.get("pages", 1)) > 1 and self.page != FIRST:
            parts["page"] = self.page  # a later page may be of another kind than the first
            parts["windows"] = self.windows
            parts["background"] = self.background
        if facts.get("alpha") and self.background != WHITE:
            parts["background"] = self.background
        if not parts or parts == {"window": None}:
            return ""
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]

    def as_json(self) -> dict[str, Any]:
        """Return the rule as it is stored with a project and with a model."""
        return {
            "windows": {kind: [low, high] for kind, low, high in self.windows},
            "page": self.page,
            "channels": [
                {"index": c.index, "color": c.color, "low": c.low, "high": c.high}
                for c in self.channels
            ],
            "background": self.background,
            "windows_from": self.windows_from,
        }

    @classmethod
    def from_json(cls, stored: dict[str, Any] | None) -> ReadingRule:
        """Return the rule stored by `as_json`; the default rule for None or an empty one."""
        stored = stored or {}
        windows = stored.get("windows", {})
        return cls(
            windows=tuple(sorted((k, float(v[0]), float(v[1])) for k, v in windows.items())),
            page=str(stored.get("page", FIRST)),
            channels=tuple(Channel(**channel) for channel in stored.get("channels", [])),
            background=str(stored.get("background", WHITE)),
            windows_from=str(stored.get("windows_from", "range")),
        )


def _check_color(color: str) -> None:
    if not COLOR.fullmatch(color):
        raise InvalidInputError(f"“{color}” is no colour.", "", "Give it as #RRGGBB.")


def _check_window(what: str, low: float, high: float) -> None:
    if not low < high or not (abs(low) < float("inf") and abs(high) < float("inf")):
        raise InvalidInputError(
            f"{what} from {low:g} to {high:g} has no extent.",
            "",
            "White must be a larger number than black.",
        )
