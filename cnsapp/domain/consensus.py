"""What an image is called when several people have read it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from cnsapp.errors import InvalidInputError

Kind = Literal["latest", "majority"]
Word = Literal["label", "skip", "unsure", "clear"]
State = Literal["none", "label", "skip", "unsure", "waiting", "undecided"]
MOST_READERS = 9


@dataclass(frozen=True)
class ConsensusRule:
    """How a project makes one label of several readings.

    Attributes
    ----------
    kind
        `latest`: the last word by anyone stands. `majority`: independent readings are counted.
    readers
        Readings that `majority` waits for, 2 to 9; `latest` does not look at it.

    Raises
    ------
    InvalidInputError
        Another kind, or a number of readers that makes no vote.
    """

    kind: Kind = "latest"
    readers: int = 2

    def __post_init__(self) -> None:
        if self.kind not in ("latest", "majority"):
            raise InvalidInputError(f"There is no label rule “{self.kind}”: latest or majority.")
        if self.kind == "majority" and not 2 <= self.readers <= MOST_READERS:
            raise InvalidInputError(
                f"{self.readers} readers an image.",
                "A vote needs at least two.",
                f"Choose 2 to {MOST_READERS} readers, or let the latest label count.",
            )

    @classmethod
    def from_json(cls, stored: Mapping[str, Any] | None) -> ConsensusRule:
        """Return the rule that a project's settings hold; the default where they hold none."""
        return cls(stored["kind"], int(stored["readers"])) if stored else cls()

    def as_json(self) -> dict[str, Any]:
        """Return the rule as it is stored."""
        return {"kind": self.kind, "readers": self.readers}


@dataclass(frozen=True)
class Vote:
    """What one person says of an image now.

    Attributes
    ----------
    state
        `label` with a class; `skip`, `unsure` or `clear` with none. `clear` takes back what they
        said: as the latest word of all it leaves the image without a label where the latest
        counts; under a majority it is as if they had not read it.
    event_id
        Orders votes in time.
    adjudicates
        Given to settle what the others left open: it decides, whatever the votes.
    """

    annotator: str
    state: Word
    class_id: int | None
    event_id: int
    adjudicates: bool = False


@dataclass(frozen=True)
class Decision:
    """What an image is called by the rule.

    Attributes
    ----------
    state
        `label` (then, and only then, `class_id` is set); `undecided`: enough readings, no majority,
        an adjudicator is needed; `waiting`: readings are missing; `skip`, `unsure`, `none`.
    decided_by
        The latest of the votes that made it so; None without any vote.
    readers
        People who gave a class.
    disputed
        Two of them gave different classes, whatever was decided.
    """

    state: State
    class_id: int | None
    decided_by: Vote | None
    readers: int
    disputed: bool


def decide(votes: Sequence[Vote], rule: ConsensusRule) -> Decision:
    """Return what the votes of all people on one image, one each, come to.

    By the rule `majority` an image waits until it has `rule.readers` readings; then the class that
    more than half of the readings name is the label. Being unsure is a reading that names no
    class, so that one sure and one unsure reader do not make a majority; a skip is no reading.
    Where nobody gave a class, the last word stands by either rule.
    """
    if not votes:
        return Decision("none", None, None, 0, False)
    classed = [vote for vote in votes if vote.state == "label"]
    readers, disputed = len(classed), len({vote.class_id for vote in classed}) > 1
    if rule.kind == "latest" or not classed:
        last = _last(votes)
        state: State = "none" if last.state == "clear" else last.state
        return Decision(state, last.class_id, last, readers, disputed)
    state, deciding = _counted(votes, classed, rule.readers)
    last = _last(deciding)
    return Decision(state, last.class_id if state == "label" else None, last, readers, disputed)


def _counted(
    votes: Sequence[Vote], classed: Sequence[Vote], needed: int
) -> tuple[State, Sequence[Vote]]:
    """Return what a count of the votes comes to, and the votes that made it so."""
    judges = [vote for vote in classed if vote.adjudicates]
    if judges:
        return "label", judges
    readings = len(classed) + sum(vote.state == "unsure" for vote in votes)
    if readings < needed:
        return "waiting", votes
    class_id, n = Counter(vote.class_id for vote in classed).most_common(1)[0]
    if 2 * n > readings:
        return "label", [vote for vote in classed if vote.class_id == class_id]
    return "undecided", votes


def _last(votes: Sequence[Vote]) -> Vote:
    return max(votes, key=lambda vote: vote.event_id)
