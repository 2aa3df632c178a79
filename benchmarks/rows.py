"""One measured number beside its target."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal


@dataclass(frozen=True)
class Row:
    """A figure with its unit, its target and how it was taken.

    `sense` says which side of the target is good. `value` is None when the row could not be
    measured here; `note` then says why.
    """

    name: str
    value: float | None
    unit: str
    target: float
    sense: Literal["at most", "at least"]
    note: str = ""

    @property
    def met(self) -> bool | None:
        """Whether the target is met; None when nothing was measured."""
        if self.value is None:
            return None
        return self.value <= self.target if self.sense == "at most" else self.value >= self.target

    def as_json(self) -> dict[str, Any]:
        """Return the row with its verdict."""
        return {**asdict(self), "met": self.met}


def percentile(values: list[float], share: float) -> float:
    """Return the value that `share` of the values do not exceed (nearest rank)."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, max(0, -(-int(share * 1000) * len(ordered) // 1000) - 1))]


def as_table(rows: list[Row]) -> str:
    """Return the rows as a text table, misses marked."""
    lines = [f"{'what':58} {'measured':>12} {'target':>18}  "]
    lines.append("-" * 96)
    for row in rows:
        shown = "not measured" if row.value is None else f"{row.value:,.3g} {row.unit}"
        mark = {True: "ok", False: "MISSED", None: "-"}[row.met]
        lines.append(
            f"{row.name:58} {shown:>12} {row.sense:>9} {row.target:,.3g} {row.unit:<5} {mark}"
            + (f"   ({row.note})" if row.note else "")
        )
    return "\n".join(lines)
