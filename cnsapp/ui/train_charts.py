"""The curves of a run: loss and balanced accuracy, of training and validation, epoch by epoch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import plotly.graph_objects as go
import streamlit as st

from cnsapp.services.jobs import JobPointView
from cnsapp.ui.charts import ACCENT

TRAIN_COLOR = "#9AA8AB"
HEIGHT = 230
FOLD, EPOCH = "fold", "epoch"


@dataclass(frozen=True)
class Curves:
    """Epochs of one network: (epoch, value) of each curve; what is not known is left out."""

    fold: int | None
    train_loss: list[tuple[float, float]]
    validation_loss: list[tuple[float, float]]
    train_score: list[tuple[float, float]]
    validation_score: list[tuple[float, float]]

    @property
    def n_epochs(self) -> int:
        """Epochs that have a validation figure."""
        return len(self.validation_score)


def curves_of(points: Sequence[JobPointView]) -> list[Curves]:
    """Return the curves of a run's networks (one a fold), in the order in which they were begun.

    A run that was killed tells an epoch twice: the later one counts.
    """
    by_fold: dict[int | None, dict[float, dict[str, Any]]] = {}
    for point in points:
        epoch = point.values.get(EPOCH)
        if epoch is None or not _is_number(epoch) or "validation_loss" not in point.values:
            continue
        fold = point.values.get(FOLD)
        by_fold.setdefault(fold if _is_number(fold) else None, {})[float(epoch)] = point.values
    return [
        Curves(
            fold,
            _curve(epochs, "train_loss"),
            _curve(epochs, "validation_loss"),
            _curve(epochs, "train_balanced_accuracy"),
            _curve(epochs, "validation_balanced_accuracy"),
        )
        for fold, epochs in by_fold.items()
    ]


def draw_curves(curves: Curves, *, key: str) -> None:
    """Draw loss and balanced accuracy side by side."""
    left, right = st.columns(2, gap="medium")
    with left:
        _chart("Loss", curves.train_loss, curves.validation_loss, key=f"{key}_loss")
    with right:
        _chart("Balanced accuracy", curves.train_score, curves.validation_score,
               key=f"{key}_score", top=1.04)  # fmt: skip


def _chart(
    title: str,
    train: Sequence[tuple[float, float]],
    validation: Sequence[tuple[float, float]],
    *,
    key: str,
    top: float | None = None,
) -> None:
    figure = go.Figure()
    for name, curve, color in (
        ("Training", train, TRAIN_COLOR),
        ("Validation", validation, ACCENT),
    ):
        figure.add_scatter(
            x=[x for x, _ in curve], y=[y for _, y in curve], name=name, mode="lines+markers",
            line={"color": color, "width": 2}, marker={"size": 6},
            hovertemplate=f"{name}, epoch %{{x}}: %{{y:.3f}}<extra></extra>",
        )  # fmt: skip
    figure.update_layout(
        height=HEIGHT,
        margin={"l": 8, "r": 8, "t": 30, "b": 8},
        uirevision=key,
        title={"text": title, "font": {"size": 13}, "x": 0, "xanchor": "left"},
        xaxis={"title": "Epoch", "dtick": 1 if len(validation) < 14 else None, "showgrid": False,
               "rangemode": "tozero"},
        yaxis={"range": [0, top] if top else None, "rangemode": "tozero"},
        legend={"orientation": "h", "x": 1, "xanchor": "right", "y": 1.18},
    )  # fmt: skip
    st.plotly_chart(figure, key=key, config={"displayModeBar": False}, alt=f"{title} by epoch")


def _curve(epochs: dict[float, dict[str, Any]], name: str) -> list[tuple[float, float]]:
    return [
        (at, float(epochs[at][name])) for at in sorted(epochs) if _is_number(epochs[at].get(name))
    ]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
