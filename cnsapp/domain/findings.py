"""What a look through the data found: how serious it is, in words, with figures and images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

HIGH, MEDIUM, LOW = "high", "medium", "low"
SEVERITIES = (HIGH, MEDIUM, LOW)
MOST_IMAGES = 1000  # that a finding lists
LEVEL = 0.05  # of the tests, after the correction for their number


@dataclass(frozen=True)
class Finding:
    """One thing that may be wrong.

    Attributes
    ----------
    kind
        `different labels`, `worse group`, `odd images`, `unknown images`, `shortcut`,
        `inseparable`, `drift` or `shift`.
    severity
        `high`: the scores or labels are likely wrong. `medium`: look before you trust them.
        `low`: good to know.
    title, sentence, advice
        In plain words: a heading; what was found, with n; what it may mean and what to do.
    figures
        Plain data; every estimate with its n and an interval or a p-value, but for shares of pairs:
        all were counted, and pairs of one picture are not independent.
    image_ids
        Images to look at, the most telling first, at most 1,000.
    n_images
        How many there are in all.
    """

    kind: str
    severity: str
    title: str
    sentence: str
    advice: str
    figures: dict[str, Any] = field(default_factory=dict)
    image_ids: list[int] = field(default_factory=list)
    n_images: int = 0

    def as_json(self) -> dict[str, Any]:
        """Return the finding as plain data."""
        return asdict(self)

    @classmethod
    def from_json(cls, said: Mapping[str, Any]) -> Finding:
        """Return a finding that was stored."""
        return cls(**said)


@dataclass
class Report:
    """What one look through the data came to.

    Attributes
    ----------
    findings
        Unsorted.
    checked
        Every test that was made, also where nothing was found: `{part, name, n, ...}`.
    not_told
        What could not be said, and why: `{part, reason}`.
    """

    findings: list[Finding] = field(default_factory=list)
    checked: list[dict[str, Any]] = field(default_factory=list)
    not_told: list[dict[str, str]] = field(default_factory=list)

    def cannot_tell(self, part: str, reason: str) -> None:
        """Note what could not be said."""
        self.not_told.append({"part": part, "reason": reason})


def by_severity(findings: Sequence[Finding]) -> list[Finding]:
    """Return findings, the most serious first; of equals those of more images."""
    return sorted(findings, key=lambda f: (SEVERITIES.index(f.severity), -f.n_images, f.title))


def plural(n: int, word: str) -> str:
    """Return `1 image`, `2,000 images`."""
    return f"{n:,} {word}{'' if n == 1 else 's'}"


def p_words(p: float) -> str:
    """Return `p = 0.012` or `p < 0.001`."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.2g}"
