"""A model beside simpler methods, and under other stains: what was computed, or a way to ask."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go
import streamlit as st

from cnsapp.services import controls
from cnsapp.services.controls import ControlsView
from cnsapp.services.models import ModelView
from cnsapp.ui import frame, words
from cnsapp.ui.charts import ACCENT
from cnsapp.ui.frame import Here
from cnsapp.ui.job_view import job_progress, show_outcome
from cnsapp.ui.tables import Column, table, text

GREY, WARM = "#9AA8AB", "#C2703D"
CURVES = {"stain": ("Stain", ACCENT, "circle"), "brightness": ("Brightness", WARM, "diamond")}
WHAT = (
    "The same images and folds, judged by something simpler: the commonest class, colour alone, "
    "colour and texture described by hand with classic classifiers, and a plain probe on the "
    "network's last layer. Shuffled labels show what is reached where there is nothing to learn."
)


def draw(here: Here, model: ModelView) -> None:
    """Draw what is known of a model beside simpler methods."""
    found = controls.controls_view(here.app.store, model=model)
    if not found.detail:
        st.caption(WHAT)
    if found.state in ("waiting", "running") and found.job is not None:
        job_progress(found.job.id)
    elif found.state in ("failed", "stopped") and found.job is not None:
        show_outcome(found.job)
    if found.detail:
        _beside(model, found)
    if found.stain_shift is not None:
        _shift(found.stain_shift, key=f"stain_shift_{model.id}")
    if found.state not in ("waiting", "running"):
        _ask(here, model, again=found.state == "done")


def _ask(here: Here, model: ModelView, *, again: bool) -> None:
    label = "Check again" if again else "Check against simpler methods"
    pressed = st.button(
        label,
        key=f"controls_ask_{model.id}",
        type="tertiary" if again else "secondary",
        icon=":material/balance:",
        help="Takes a minute or some, in the background; a training goes first.",
    )
    if pressed:
        with frame.guard():
            controls.queue_controls(
                here.app.store, model_id=model.id, requested_by=here.annotator or "", again=again
            )
            st.rerun()


def _beside(model: ModelView, found: ControlsView) -> None:
    """Draw the scores with their intervals, and in words what they mean."""
    st.markdown("**Beside simpler methods**", help=WHAT)
    own = {
        "balanced_accuracy": model.metrics.get("balanced_accuracy"),
        "interval": model.metrics.get("balanced_accuracy_interval"),
        "n": model.metrics.get("n"),
    }
    rows = [("This model", own), *((controls.TITLES[k], v) for k, v in found.detail.items())]
    chance = (found.detail.get("shuffled_labels") or {}).get("chance")
    _bars(rows, chance, key=f"controls_bars_{model.id}")
    for line in found.warnings:
        st.markdown(f":material/info: {frame.plain(line)}")
    if not found.warnings and found.state == "done":
        st.markdown(
            ":material/check: On these images the model is better than every simpler method, "
            "beyond what chance explains."
        )
    for line in found.notes:
        st.caption(frame.plain(line))
    with st.expander("Figures", key=f"controls_table_{model.id}"):
        _table(rows)


def _bars(rows: Sequence[tuple[str, Mapping[str, Any]]], chance: float | None, *, key: str) -> None:
    names = [name for name, _ in rows]
    values = [row.get("balanced_accuracy") or 0.0 for _, row in rows]
    spreads = [row.get("interval") or [v, v] for v, (_, row) in zip(values, rows, strict=True)]
    figure = go.Figure(
        go.Bar(
            x=values,
            y=names,
            orientation="h",
            marker={"color": [ACCENT] + [GREY] * (len(rows) - 1)},
            error_x={
                "type": "data",
                "array": [max(b[1] - v, 0) for v, b in zip(values, spreads, strict=True)],
                "arrayminus": [max(v - b[0], 0) for v, b in zip(values, spreads, strict=True)],
                "thickness": 1.5,
                "width": 4,
                "color": "#5B6B70",
            },
            customdata=[[row.get("n") or 0, *b] for (_, row), b in zip(rows, spreads, strict=True)],
            hovertemplate=(
                "%{y}: %{x:.3f} (%{customdata[1]:.3f}–%{customdata[2]:.3f}), "
                "n = %{customdata[0]:,}<extra></extra>"
            ),
        )
    )
    if chance:
        figure.add_vline(x=chance, line={"dash": "dot", "width": 1, "color": "#7A8A8E"})
        figure.add_annotation(
            x=chance, y=1.0, yref="paper", yanchor="bottom", text="chance", showarrow=False,
            font={"size": 11},
        )  # fmt: skip
    figure.update_layout(
        height=60 + 34 * len(rows),
        margin={"l": 8, "r": 8, "t": 20, "b": 8},
        uirevision=key,
        bargap=0.35,
        xaxis={"title": "Balanced accuracy, 95 % interval", "range": [0, 1.0]},
        yaxis={"autorange": "reversed", "automargin": True, "ticksuffix": "  "},
        showlegend=False,
    )
    st.plotly_chart(
        figure, key=key, config={"displayModeBar": False},
        alt="Balanced accuracy of the model and of simpler methods, with intervals",
    )  # fmt: skip


def _table(rows: Sequence[tuple[str, Mapping[str, Any]]]) -> None:
    table(
        [
            Column("Method"),
            Column("Balanced accuracy", number=True),
            Column("95 % interval", number=True),
            Column("n", number=True),
            Column("The model less this", number=True, help="On the same images, paired"),
            Column("95 % interval", number=True, help="Includes 0: no difference is shown"),
            Column("Seconds", number=True, help="All folds, without the features"),
        ],
        [
            [
                text(name),
                words.score(row.get("balanced_accuracy")),
                words.interval(row.get("interval")) or words.NONE,
                words.number(row.get("n")),
                _signed(row.get("difference")),
                _signed_interval(row.get("difference_interval")),
                words.number(row.get("seconds"), 1),
            ]
            for name, row in rows
        ],
    )


def _signed(value: float | None) -> str:
    return words.NONE if value is None else f"{value:+.2f}".replace("-", "−")


def _signed_interval(bounds: list[float] | None) -> str:
    if not bounds:
        return words.NONE
    return f"{_signed(bounds[0])} to {_signed(bounds[1])}"


def _shift(found: Mapping[str, Any], *, key: str) -> None:
    """Draw how the score falls when images are stained or lit otherwise."""
    st.markdown(
        "**Under other stains and light**",
        help="Images of the model's own score, each judged by what had not seen it, after their "
        "dyes or their brightness and contrast were changed at random. 1 is up to ±50 %.",
    )
    if found.get("why_not"):
        st.caption(frame.plain(str(found["why_not"])))
        return
    figure = go.Figure()
    for kind, (name, color, symbol) in CURVES.items():
        points = found["curves"].get(kind) or []
        scored = [p for p in points if p.get("balanced_accuracy") is not None]
        spread = [p["interval"] or [p["balanced_accuracy"]] * 2 for p in scored]
        figure.add_scatter(
            x=[p["strength"] + (0.006 if kind == "brightness" else -0.006) for p in scored],
            y=[p["balanced_accuracy"] for p in scored],
            name=name,
            mode="lines+markers",
            line={"color": color, "width": 2},
            marker={"size": 8, "symbol": symbol},
            error_y={
                "type": "data",
                "array": [max(b[1] - p["balanced_accuracy"], 0)
                          for p, b in zip(scored, spread, strict=True)],
                "arrayminus": [max(p["balanced_accuracy"] - b[0], 0)
                               for p, b in zip(scored, spread, strict=True)],
                "thickness": 1, "width": 4,
            },
            customdata=[[p["strength"], *b] for p, b in zip(scored, spread, strict=True)],
            hovertemplate=(
                f"{name} %{{customdata[0]:.2f}}: %{{y:.3f}} "
                "(%{customdata[1]:.3f}–%{customdata[2]:.3f})<extra></extra>"
            ),
        )  # fmt: skip
    figure.update_layout(
        height=260,
        margin={"l": 8, "r": 8, "t": 8, "b": 8},
        uirevision=key,
        xaxis={"title": "Strength of the change", "tickvals": found["strengths"]},
        yaxis={"title": "Balanced accuracy", "range": [0, 1.06]},
        legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
    )
    st.plotly_chart(
        figure, key=key, config={"displayModeBar": False},
        alt="Balanced accuracy under changes of stain and of brightness, by strength",
    )  # fmt: skip
    st.caption(_fall(found))
    if found.get("note"):
        st.caption(frame.plain(str(found["note"])))


def _fall(found: Mapping[str, Any]) -> str:
    """Say in words how far the score falls."""
    groups = f" of {words.plural(found['n_groups'], 'group')}" if found.get("n_groups") else ""
    parts = []
    for kind, (name, _, _) in CURVES.items():
        points = found["curves"].get(kind) or []
        if len(points) < 3:
            continue
        values = [words.score(points[i].get("balanced_accuracy")) for i in (0, 2, -1)]
        parts.append(f"{name.lower()}: {values[0]}, at half strength {values[1]}, at full "
                     f"{values[2]}")  # fmt: skip
    return f"n = {found['n']:,} images{groups}. {'; '.join(parts).capitalize()}."
