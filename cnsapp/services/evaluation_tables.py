"""The figures of an evaluation as tables: one row a figure, for files, and points of curves."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from math import isfinite
from typing import Any

from cnsapp.domain.resampling import Interval
from cnsapp.services.evaluation import Evaluated
from cnsapp.services.tables import safe_cell

HEAD = ("section", "item", "figure", "value", "low", "high", "n", "n_groups", "interval_by")


@dataclass(frozen=True)
class Figure:
    """One figure with all that belongs to it; `value` None is undefined, never zero."""

    section: str
    item: str
    figure: str
    value: float | int | str | None
    interval: Interval | None = None
    n: int | None = None
    n_groups: int | None = None
    interval_by: str = ""

    def cells(self) -> list[Any]:
        """Return the row of a file, in the order of `HEAD`."""
        low, high = self.interval or (None, None)
        by = self.interval_by if self.interval else ""
        return [
            self.section, self.item, self.figure, self.value, low, high, self.n, self.n_groups, by,
        ]  # fmt: skip


def all_figures(found: Evaluated) -> list[Figure]:
    """Return every figure of an evaluation."""
    parts = (overall, by_class, confusion, areas, calibrated, abstaining, sliced)
    return [figure for part in parts for figure in part(found)]


def overall(found: Evaluated) -> list[Figure]:
    """Return the figures of all classes together, and of the organ systems."""
    s = found.scores
    groups, by = s.n_groups, s.interval_by

    def row(item: str, name: str, value: float | None, spread: Interval | None, n: int) -> Figure:
        return Figure("overall", item, name, value, spread, n, groups, by)

    rows = [
        row("all", "balanced accuracy", s.balanced_accuracy, s.interval, s.n),
        row("all", "accuracy", s.accuracy, s.accuracy_interval, s.n),
        row("all", "macro F1", s.macro_f1, s.macro_f1_interval, s.n),
        row("all", "top-2 accuracy", s.top2, s.top2_interval, s.n),
        row("all", "Cohen's kappa", s.kappa, s.kappa_interval, s.n),
        row("all", "Matthews correlation", s.mcc, s.mcc_interval, s.n),
    ]
    h = s.systems
    if h is not None:
        rows += [
            row("systems", "balanced accuracy", h.balanced_accuracy, h.interval, s.n),
            row("systems", "accuracy", h.accuracy, h.accuracy_interval, s.n),
            row("systems", "share of errors within the system", h.within, h.within_interval,
                h.n_errors),
        ]  # fmt: skip
    return rows


def by_class(found: Evaluated) -> list[Figure]:
    """Return recall, precision and F1 of each class."""
    rows = []
    for name, c in zip(found.names, found.scores.per_class, strict=True):
        for figure, value, spread, n in (
            ("recall", c.recall, c.recall_interval, c.n),
            ("precision", c.precision, c.precision_interval, c.n_predicted),
            ("F1", c.f1, c.f1_interval, c.n),
        ):
            rows.append(Figure("class", name, figure, value, spread, n, c.n_groups, c.interval_by))
    return rows


def confusion(found: Evaluated) -> list[Figure]:
    """Return the cells of the confusion matrix: label, prediction, images."""
    return [
        Figure("confusion", label, said, count, n=sum(counts))
        for label, counts in zip(found.names, found.scores.confusion, strict=True)
        for said, count in zip(found.names, counts, strict=True)
    ]


def areas(found: Evaluated) -> list[Figure]:
    """Return the areas under the curves of each class, and their means."""
    c = found.curves
    rows = [
        Figure("curves", "mean", "AUC", c.macro_auc, c.macro_auc_interval, c.n, c.n_groups,
               c.interval_by),
        Figure("curves", "mean", "average precision", c.macro_ap, c.macro_ap_interval, c.n,
               c.n_groups, c.interval_by),
    ]  # fmt: skip
    for name, one in zip(found.names, c.per_class, strict=True):
        for figure, value, spread in (
            ("AUC", one.auc, one.auc_interval),
            ("average precision", one.ap, one.ap_interval),
        ):
            rows.append(
                Figure("curves", name, figure, value, spread, one.n, c.n_groups, c.interval_by)
            )
    return rows


def calibrated(found: Evaluated) -> list[Figure]:
    """Return the calibration before and after temperature, with the bins."""
    rows = []
    for item, r in (("before temperature", found.before), ("after temperature", found.after)):
        rows += [
            Figure("calibration", item, "expected calibration error", r.ece, n=r.n),
            Figure("calibration", item, "Brier score", r.brier, r.brier_interval, r.n, r.n_groups,
                   r.interval_by),
        ]  # fmt: skip
        rows += [
            Figure("calibration", f"{item}, confidence {b.low:.3f} to {b.high:.3f}", figure, value,
                   spread, b.n, r.n_groups, r.interval_by)
            for b in r.bins
            for figure, value, spread in (
                ("mean confidence", b.confidence, None), ("share right", b.right, b.interval),
            )
        ]  # fmt: skip
    return [*rows, Figure("calibration", "all", "temperature", found.temperature)]


def abstaining(found: Evaluated) -> list[Figure]:
    """Return what is left when the model answers only when sure."""
    a = found.abstention
    rows = [Figure("abstain", "all", "AURC", a.aurc, n=a.n)]
    asked = [(f"from {row.threshold:g}", row) for row in a.by_threshold]
    asked += [(f"for accuracy {goal:g}", row) for goal, row in a.wanted if row is not None]
    for item, row in asked:
        rows += [
            Figure("abstain", item, "threshold", row.threshold),
            Figure("abstain", item, "coverage", row.coverage, n=a.n),
            Figure("abstain", item, "accuracy", row.accuracy, row.interval, row.n, a.n_groups,
                   a.interval_by),
        ]  # fmt: skip
    rows += [
        Figure("abstain", f"for accuracy {goal:g}", "threshold", None, n=a.n)
        for goal, row in a.wanted
        if row is None
    ]
    return rows


def sliced(found: Evaluated) -> list[Figure]:
    """Return the figures of each slice."""
    rows = []
    for s in found.slices or []:
        item = f"{found.by}: {'not noted' if s.value is None else s.value}"
        rows += [
            Figure("slice", item, "balanced accuracy", s.balanced_accuracy, s.interval, s.n,
                   s.n_groups, s.interval_by),
            Figure("slice", item, "accuracy", s.accuracy, s.accuracy_interval, s.n, s.n_groups,
                   s.interval_by),
            Figure("slice", item, "difference from the rest", s.difference, s.difference_interval,
                   s.n, s.n_groups, s.interval_by),
            Figure("slice", item, "p", s.p, n=s.n),
            Figure("slice", item, "p after Holm", s.p_holm, n=s.n),
            Figure("slice", item, "verdict", s.verdict, n=s.n),
        ]  # fmt: skip
    return rows


def as_csv(figures: Iterable[Figure]) -> str:
    """Return figures as CSV; an undefined one is an empty cell."""
    return _csv(HEAD, (figure.cells() for figure in figures))


def points_csv(found: Evaluated) -> str:
    """Return the points of the ROC and precision-recall curves as CSV."""
    rows = [
        (name, curve, x, y)
        for name, one in zip(found.names, found.curves.per_class, strict=True)
        for curve, points in (("roc", one.roc), ("pr", one.pr))
        for x, y in points
    ]
    return _csv(("class", "curve", "x", "y"), rows)


def as_json(found: Evaluated) -> dict[str, Any]:
    """Return an evaluation as plain data, with null where a figure is undefined."""
    made: dict[str, Any] = json.loads(json.dumps(asdict(found)), parse_constant=lambda _: None)
    return made


def _csv(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    target = io.StringIO()
    writer = csv.writer(target, lineterminator="\n")
    writer.writerow(head)
    for row in rows:
        writer.writerow([_cell(value) for value in row])
    return target.getvalue()


def _cell(value: Any) -> Any:
    if isinstance(value, float):
        return f"{value:.6g}" if isfinite(value) else ""
    if isinstance(value, str):
        return safe_cell(value)
    return "" if value is None else value
