"""The figures of a model on the screen: one card, the same on Train, Models and Review."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import streamlit as st

from cnsapp.domain.readiness import RECOMMENDED_PER_CLASS
from cnsapp.services.models import ModelView
from cnsapp.services.projects import ClassView
from cnsapp.ui import words
from cnsapp.ui.tables import Bar, Column, bars, class_name, swatch, table, text

CONTROL_WORDS = {
    "majority": "Always the largest class",
    "colour_only": "Colour only",
    "handmade_svm": "Hand-made features + SVM",
    "handmade_logistic": "Hand-made features + logistic regression",
    "last_layer": "Last layer + linear",
    "shuffled_labels": "Shuffled labels (must be at chance)",
}
HEAD_WORDS = {
    "linear": "linear head",
    "mlp": "small network as head",
    "kernel": "kernel head",
    "network": "whole network trained",
}
BY_WORDS = {"group": "whole groups resampled", "image": "by image (Wilson)"}
CONTROL_HELP = (
    "The same images and folds, judged by something simpler. A model that is hardly better than "
    "“colour only” has learnt the stain, not the tissue."
)


def how_scored(metrics: Mapping[str, Any]) -> str:
    """Return a sentence that says which predictions the figures are made of."""
    n, folds, groups = metrics.get("n"), metrics.get("n_folds"), metrics.get("n_groups")
    if not n:
        return "No image could be held out, so nothing is known of how good this model is."
    scheme = str(metrics.get("scheme") or "").strip()
    by = f", cut {scheme}" if scheme else ""
    from_groups = f" from {words.plural(int(groups), 'group')}" if groups else ""
    total = words.plural(int(n), "image")
    if metrics.get("score_of") == "holdout":
        return (
            f"Predictions of {total}{from_groups} that were set aside{by}: the model had not seen "
            "them" + (" or their groups." if groups else ".")
        )
    count = f" in {folds} folds" if folds else ""
    return (
        f"Out-of-fold predictions of {total}{from_groups}{count}{by}: every image was judged by a "
        "model that had not seen it" + (" or its group." if groups else ".")
    )


def headline(metrics: Mapping[str, Any], *, n_uses: int | None = None) -> None:
    """Draw the balanced accuracy with its interval and n, large; that of a test set beside it.

    `n_uses` is how often the test set was looked at by now; None: what the model has noted.
    """
    test = metrics.get("test")
    parts = [_large("Balanced accuracy", metrics)]
    if isinstance(test, Mapping):
        uses = test.get("n_uses") if n_uses is None else n_uses
        looked = f", looked at {words.times(int(uses))}" if uses else ""
        parts.append(_large(f"Locked test set{looked}", test))
    gap = "display:flex;flex-wrap:wrap;gap:.4rem 2.2rem;align-items:flex-end"
    st.html(f'<div style="{gap}">{"".join(parts)}</div>')


def _large(title: str, metrics: Mapping[str, Any]) -> str:
    value = metrics.get("balanced_accuracy")
    spread = words.interval(metrics.get("balanced_accuracy_interval"))
    n = metrics.get("n")
    rest = [
        f"95 % interval {spread}" if spread else "",
        f"n = {n:,}" if n is not None else "",
        HEAD_WORDS.get(str(metrics.get("head") or ""), ""),
    ]
    return (
        '<div class="cns-headline"><div class="cns-small cns-muted" title="Mean of the recalls of '
        f'all classes: a rare class counts as much as a common one.">{text(title)}</div>'
        f'<div class="cns-figure">{words.score(value)}</div>'
        f'<div class="cns-small cns-muted">{text(", ".join(r for r in rest if r))}</div></div>'
    )


def controls(metrics: Mapping[str, Any]) -> None:
    """Draw the model's balanced accuracy beside those of simpler things on the same folds."""
    found = metrics.get("controls")
    own = {
        "balanced_accuracy": metrics.get("balanced_accuracy"),
        "interval": metrics.get("balanced_accuracy_interval"),
    }
    rows: list[tuple[str, Any, bool]] = [("This model", own, True)]
    if isinstance(found, Mapping):
        rows += [(_control_name(str(k)), v, False) for k, v in found.items()]
    if len(rows) == 1:
        return
    st.caption("Balanced accuracy beside simpler judges", help=CONTROL_HELP)
    bars(
        [
            Bar(
                text(name),
                _value(entry) or 0.0,
                words.figure(_value(entry), _spread(entry)),
                color="#1E8CA5" if chosen else "#9AA8AB",
                chosen=chosen,
            )
            for name, entry, chosen in rows
        ]
    )


def labels_of_classes(counts: Sequence[tuple[ClassView, int]]) -> None:
    """Draw the labelled images of each class beside what is recommended."""
    if not counts:
        st.caption("The project has no classes yet. An import or the Label page makes them.")
        return
    most = max([2 * RECOMMENDED_PER_CLASS, *(n for _, n in counts)])
    bars(
        [
            Bar(class_name(c), n / most, words.number(n), c.color, RECOMMENDED_PER_CLASS / most)
            for c, n in counts
        ]
    )
    st.caption(
        f"The line marks {RECOMMENDED_PER_CLASS} images a class, the least for a fair score."
    )


def per_class(rows: Sequence[Mapping[str, Any]], colors: Mapping[int, str]) -> None:
    """Draw the figures of every class with its n; intervals where there are any."""
    spread = any(row.get("recall_interval") for row in rows)
    ends = Column("95 % interval", number=True, help=f"Of the recall, {_how_spread(rows)}")
    table(
        [
            Column("Class"),
            Column("n", number=True, help="Labelled images that were scored"),
            Column("Recall", number=True, help="Of the images labelled so, the share found"),
            *([ends] if spread else []),
            Column("Precision", number=True, help="Of the images predicted so, the share right"),
            Column("F1", number=True, help="Harmonic mean of recall and precision"),
        ],
        [
            [
                swatch(colors.get(int(row.get("class_id", 0)), "#888")) + text(row.get("name", "")),
                words.number(row.get("n")),
                words.score(row.get("recall")),
                *([words.interval(row.get("recall_interval")) or words.NONE] if spread else []),
                words.score(row.get("precision")),
                words.score(row.get("f1")),
            ]
            for row in rows
        ],
    )
    if spread:
        st.caption(f"Intervals of the recall: {_how_spread(rows)}.")


def _how_spread(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return what the intervals respect; those of older models ignored groups."""
    known = {str(row.get("recall_interval_by", "image")) for row in rows}
    return BY_WORDS["group" if known == {"group"} else "image"]


def warnings_of(model: ModelView) -> list[str]:
    """Return what weakens a model's figures, and what became of its classes, in sentences."""
    found = model.metrics.get("warnings") or []
    return [*model.told, *(str(line) for line in found)]


def _control_name(key: str) -> str:
    return CONTROL_WORDS.get(key, key.replace("_", " ").capitalize())


def _value(value: Any) -> float | None:
    if isinstance(value, Mapping):
        value = value.get("balanced_accuracy")
    return float(value) if isinstance(value, int | float) else None


def _spread(entry: Any) -> Sequence[float] | None:
    spread = entry.get("interval") if isinstance(entry, Mapping) else None
    return spread if isinstance(spread, Sequence) else None
