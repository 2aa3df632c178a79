"""Charts, as few as possible."""

from __future__ import annotations

from collections.abc import Sequence

import plotly.graph_objects as go
import streamlit as st

from cnsapp.services.jobs import JobPointView

ACCENT = "#1E8CA5"
MOST_POINTS = 500
SCORE = "balanced_accuracy"


def curve_points(points: Sequence[JobPointView]) -> list[tuple[float, float]]:
    """Return (fold or epoch, balanced accuracy) of the points that carry a score."""
    found: list[tuple[float, float]] = []
    by_fold = [point for point in points if point.message.startswith("Fold")]
    for point in by_fold or points:  # the steps behind the last fold only repeat its score
        score = point.values.get(SCORE)
        if not isinstance(score, int | float) or isinstance(score, bool):
            continue
        place = next(
            (point.values[k] for k in ("epoch", "fold", "step") if k in point.values), None
        )
        at = float(place) if isinstance(place, int | float) else float(len(found) + 1)
        found.append((at, float(score)))
    return found[-MOST_POINTS:]


def score_curve(points: Sequence[tuple[float, float]], *, key: str, x_title: str) -> None:
    """Draw how the balanced accuracy went, fold by fold or epoch by epoch."""
    figure = go.Figure(
        go.Scatter(
            x=[x for x, _ in points],
            y=[y for _, y in points],
            mode="lines+markers",
            line={"color": ACCENT, "width": 2},
            marker={"size": 8},
            hovertemplate=f"{x_title} %{{x}}: %{{y:.3f}}<extra></extra>",
        )
    )
    figure.update_layout(
        height=230,
        margin={"l": 8, "r": 8, "t": 8, "b": 8},
        uirevision=key,
        xaxis={"title": x_title, "dtick": 1 if len(points) < 12 else None, "showgrid": False},
        yaxis={"title": "Balanced accuracy", "range": [0, 1.06]},
        showlegend=False,
    )
    st.plotly_chart(
        figure,
        key=key,
        config={"displayModeBar": False},
        alt="Balanced accuracy by " + x_title.lower(),
    )
