"""What several readings of one image come to: decided, in dispute, or waiting for a reader."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Vote = int | Literal["skip", "unsure"]
State = Literal["decided", "undecided", "waiting", "skip", "unsure"]


@dataclass(frozen=True)
class ConsensusRule:
    """How a project makes one label of several readings.

    Attributes
    ----------
    kind
        `latest`: the last word by anyone stands. `majority`: independent readings are counted.
    readers
        Readings that `majority` waits for, 2 or more; `latest` does not look at it.

    Raises
    ------
    ValueError
        Another kind, or fewer than 2 readers.
    """

    kind: Literal["latest", "majority"] = "latest"
    readers: int = 2

    def __post_init__(self) -> None:
        if self.kind not in ("latest", "majority"):
            raise ValueError(f"kind {self.kind!r} is neither latest nor majority")
        if self.kind == "majority" and self.readers < 2:
            raise ValueError(f"{self.readers} readers cannot form a majority: 2 or more are needed")


@dataclass(frozen=True)
class Decision:
    """What an image is called by the rule.

    Attributes
    ----------
    state
        `decided` (then, and only then, `class_id` is set); `undecided`: enough readings, no
        majority, an adjudicator is needed; `waiting`: readings are missing. Only by the rule
        `latest`: `skip` and `unsure`, when that is the last word.
    class_id
        The class, or None.
    n_votes
        Readings there are: class or unsure, one an annotator. A skip is none.
    disputed
        Two annotators named different classes, whatever was decided.
    """

    state: State
    class_id: int | None
    n_votes: int
    disputed: bool


def decide(
    votes: Mapping[str, Vote], rule: ConsensusRule, *, adjudicated: int | None = None
) -> Decision:
    """Return what the readings of one image come to.

    By the rule `majority` an image waits until it has `rule.readers` readings; then the class that
    more than half of the readings name is the label. Being unsure is a reading that names no
    class, so that one sure and one unsure reader do not make a majority; a skip is no reading.

    Parameters
    ----------
    votes
        What each annotator says now: class id, `skip` or `unsure`; in the order in which they said
        it (the rule `latest` takes the last).
    rule
        The project's rule.
    adjudicated
        Class that somebody with the last word has given: it decides, whatever the votes.

    Raises
    ------
    ValueError
        A vote is neither a class id nor `skip` nor `unsure`.
    """
    for annotator, vote in votes.items():
        if isinstance(vote, bool) or not (isinstance(vote, int) or vote in ("skip", "unsure")):
            raise ValueError(f"{annotator!r} gave {vote!r}: no class id, skip or unsure")
    named = Counter(vote for vote in votes.values() if isinstance(vote, int))
    n_votes = sum(vote != "skip" for vote in votes.values())
    state, class_id = _outcome(votes, named, n_votes, rule)
    if adjudicated is not None:
        state, class_id = "decided", adjudicated
    return Decision(state, class_id, n_votes, disputed=len(named) > 1)


def _outcome(
    votes: Mapping[str, Vote], named: Counter[int], n_votes: int, rule: ConsensusRule
) -> tuple[State, int | None]:
    if rule.kind == "latest":
        if not votes:
            return "waiting", None
        last = list(votes.values())[-1]
        return ("decided", last) if isinstance(last, int) else (last, None)
    if n_votes < rule.readers:
        return "waiting", None
    for class_id, n in named.most_common(1):
        if 2 * n > n_votes:
            return "decided", class_id
    return "undecided", None
