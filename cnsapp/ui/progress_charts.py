"""The charts of the view “Progress”: labels a day, and how the guesses got better with labels."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, time, timedelta

import numpy as np
import plotly.graph_objects as go
import streamlit as st

from cnsapp.services.progress import DayCount, LearningCurve
from cnsapp.ui.charts import ACCENT

MOST_DAYS = 60  # before the last one
# told apart by colour-blind eyes, after Okabe and Ito
PEOPLE = ("#1E8CA5", "#E69F00", "#CC79A7", "#009E73", "#D55E00", "#56B4E9", "#8A9598")
MARGIN = {"l": 8, "r": 8, "t": 8, "b": 8}
PLAIN = {"displayModeBar": False}


def days_chart(days: Sequence[DayCount]) -> None:
    """Draw the labels of each day, stacked by person; days without labels are gaps."""
    last = days[-1].day
    shown = [day for day in days if day.day > last - timedelta(days=MOST_DAYS)]
    figure = go.Figure()
    for k, who in enumerate(sorted({day.annotator for day in shown})):
        mine = [day for day in shown if day.annotator == who]
        figure.add_bar(
            x=[day.day for day in mine],
            y=[day.n for day in mine],
            name=who,
            marker={"color": PEOPLE[k % len(PEOPLE)]},
            hovertemplate="%{x|%d %b %Y}: %{y:,} labels<extra>" + _escaped(who) + "</extra>",
            width=0.8 * 86_400_000,  # milliseconds: a lone day is no broad block
        )
    first = min(shown[0].day, last - timedelta(days=13))
    half = timedelta(hours=12)  # bars stand on midnight
    ends = [datetime.combine(first, time()) - half, datetime.combine(last, time()) + half]
    figure.update_layout(
        height=230,
        margin=MARGIN,
        barmode="stack",
        showlegend=len(figure.data) > 1,
        legend={"orientation": "h", "y": 1.15, "x": 0},
        xaxis={
            "type": "date", "tickformat": "%d %b", "showgrid": False,
            "range": ends,
        },
        yaxis={"title": "Labels a day", "rangemode": "tozero"},
    )  # fmt: skip
    st.plotly_chart(figure, key="progress_days", config=PLAIN, alt="Labels a day, by person")


def curve_chart(found: LearningCurve) -> None:
    """Draw the points with their intervals, and the fitted curve with its band."""
    points = found.points
    n = np.array([point.n_labels for point in points], float)
    value = np.array([point.value for point in points])
    figure = go.Figure()
    if found.fit is not None:
        ahead = np.geomspace(n.min(), 2 * n.max(), 80)
        low, high = found.fit.band(ahead)
        figure.add_scatter(
            x=[*ahead, *ahead[::-1]],
            y=[*np.clip(high, 0, 1), *np.clip(low[::-1], 0, 1)],
            fill="toself",
            fillcolor="rgba(30,140,165,.16)",
            line={"width": 0},
            hoverinfo="skip",
            name="90 % band of the curve",
        )
        figure.add_scatter(
            x=ahead, y=found.fit.at(ahead), mode="lines", line={"color": ACCENT, "width": 2},
            hoverinfo="skip", name="fitted curve",
        )  # fmt: skip
    above = [p.interval[1] - p.value if p.interval else 0 for p in points]
    below = [p.value - p.interval[0] if p.interval else 0 for p in points]
    figure.add_scatter(
        x=n,
        y=value,
        mode="markers",
        marker={"color": ACCENT, "size": 8},
        error_y={"array": above, "arrayminus": below, "thickness": 1, "width": 3},
        hovertemplate="%{x:,} labels: %{y:.3f}<extra></extra>",
        name="quick models, 95 % interval",
    )
    bottom = max(0.0, float(min(value.min() - max(below), 0.5)) - 0.05)
    figure.update_layout(
        height=300,
        margin=MARGIN,
        legend={"orientation": "h", "y": 1.12, "x": 0},
        xaxis={"title": "Labels that the quick model learnt from", "rangemode": "tozero"},
        yaxis={"title": "Balanced accuracy", "range": [bottom, 1.02]},
    )
    st.plotly_chart(
        figure, key="progress_curve", config=PLAIN, alt="Balanced accuracy by number of labels"
    )


def _escaped(name: str) -> str:
    """Return a name as Plotly's hover text shows it letter by letter."""
    return name.replace("&", "&amp;").replace("<", "&lt;").replace("%{", "% {")
