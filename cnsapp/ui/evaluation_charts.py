"""The charts of an evaluation. Colours follow the classes, dashes tell apart what shares one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import plotly.graph_objects as go
import streamlit as st

from cnsapp.domain.abstaining import Abstention
from cnsapp.domain.calibration import Reliability
from cnsapp.domain.slices import Slice
from cnsapp.services.evaluation import Evaluated
from cnsapp.ui.charts import ACCENT

MARGIN = {"l": 8, "r": 8, "t": 8, "b": 8}
SECOND = "#E69F00"  # beside the accent, told apart by colour-blind eyes
QUIET = "#8A9598"
DASHES = ("solid", "dash", "dot", "dashdot", "longdash")
PETROL = {  # little to much, on either ground
    "light": [[0, "#FDFDFC"], [0.02, "#E8F3F5"], [0.5, "#55A1B1"], [1, "#073D4A"]],
    "dark": [[0, "#161C1D"], [0.02, "#1B2A2E"], [0.5, "#14586A"], [1, "#1B7A90"]],
}


def recall_chart(found: Evaluated) -> None:
    """Draw the recall of each class with its interval, and the balanced accuracy as a line."""
    rows = list(zip(found.names, found.colors, found.scores.per_class, strict=True))[::-1]
    figure = go.Figure()
    mean = found.scores.balanced_accuracy
    if mean is not None:
        _line_at(figure, mean, f"balanced accuracy {mean:.2f}")
    for name, color, c in rows:
        if c.recall is None:
            figure.add_annotation(
                x=0.01, y=_short(name), text="undefined: n = 0", showarrow=False, xanchor="left",
                font={"size": 12, "color": QUIET},
            )  # fmt: skip
        figure.add_scatter(
            x=[c.recall],
            y=[_short(name)],
            error_x=_error(c.recall, c.recall_interval),
            mode="markers",
            marker={"color": color, "size": 10},
            hovertemplate=f"{_escaped(name)}: %{{x:.3f}}, n = {c.n:,}<extra></extra>",
        )
    _shares(figure, "Recall, with 95 % interval", 90 + 34 * len(rows))
    _draw(figure, "evaluation_recall", "Recall of each class with its interval", "recall")


def confusion_chart(found: Evaluated) -> None:
    """Draw the confusion matrix: shares of the label's images as colours, counts as numbers."""
    counts = found.scores.confusion
    share = [[n / sum(row) if sum(row) else None for n in row] for row in counts]
    names = [_short(name, 18) for name in found.names]
    light = st.context.theme.type != "dark"
    figure = go.Figure(
        go.Heatmap(
            z=share,
            x=names,
            y=names,
            customdata=counts,
            text=[[f"{n:,}" if n else "" for n in row] for row in counts],
            texttemplate="%{text}" if len(names) <= 25 else None,
            zmin=0,
            zmax=1,
            xgap=1,
            ygap=1,
            colorscale=PETROL["light" if light else "dark"],
            colorbar={"title": {"text": "Share of label", "side": "right"}, "thickness": 10},
            hovertemplate="labelled %{y}, predicted %{x}<br>%{customdata:,} images, "
            "%{z:.1%} of the label<extra></extra>",
        )
    )
    figure.update_layout(
        height=min(720, 190 + 42 * len(names)),
        margin=MARGIN,
        xaxis={"title": "Predicted", "showgrid": False, "tickangle": -40},
        yaxis={"title": "Label", "autorange": "reversed", "showgrid": False},
    )
    _draw(figure, "evaluation_confusion", "Confusion matrix", "confusion")


def curve_chart(found: Evaluated, kind: str) -> None:
    """Draw the ROC (`roc`) or precision-recall (`pr`) curves of all classes."""
    figure = go.Figure()
    seen: dict[str, int] = {}
    for name, color, one in zip(found.names, found.colors, found.curves.per_class, strict=True):
        points = one.roc if kind == "roc" else one.pr
        value = one.auc if kind == "roc" else one.ap
        if value is None:
            continue
        if kind == "pr":  # the precision holds from the recall before it on
            points = [(0.0, points[0][1]), *points]
        seen[color] = seen.get(color, -1) + 1
        figure.add_scatter(
            x=[x for x, _ in points],
            y=[y for _, y in points],
            mode="lines",
            name=f"{_escaped(_short(name, 16))} {value:.2f}",
            line={
                "color": color,
                "width": 2,
                "dash": DASHES[seen[color] % len(DASHES)],
                "shape": "linear" if kind == "roc" else "vh",
            },
            hovertemplate="(%{x:.3f}, %{y:.3f})<extra>" + _escaped(name) + "</extra>",
        )
    if kind == "roc":
        figure.add_scatter(
            x=[0, 1], y=[0, 1], mode="lines", name="chance 0.50", hoverinfo="skip",
            line={"color": QUIET, "width": 1, "dash": "dot"},
        )  # fmt: skip
    x, y = (
        ("False positive rate", "True positive rate") if kind == "roc" else ("Recall", "Precision")
    )
    figure.update_layout(
        height=430,
        margin=MARGIN,
        xaxis={"title": x, "range": [-0.01, 1.01], "dtick": 0.2},
        yaxis={"title": y, "range": [-0.01, 1.03], "dtick": 0.2},
        legend={"orientation": "h", "y": -0.2, "x": 0, "yanchor": "top"},
    )
    _draw(figure, f"evaluation_{kind}", f"{y} by {x.lower()}, one class against the rest", kind)


def reliability_chart(before: Reliability, after: Reliability) -> None:
    """Draw how often answers of each confidence are right, before and after temperature."""
    figure = go.Figure()
    figure.add_scatter(
        x=[0, 1], y=[0, 1], mode="lines", name="as it should be", hoverinfo="skip",
        line={"color": QUIET, "width": 1, "dash": "dot"},
    )  # fmt: skip
    for name, r, color, symbol in (
        ("before temperature", before, SECOND, "diamond"),
        ("after temperature", after, ACCENT, "circle"),
    ):
        bins = [b for b in r.bins if b.n]
        figure.add_scatter(
            x=[b.confidence for b in bins],
            y=[b.right for b in bins],
            customdata=[b.n for b in bins],
            error_y={
                "array": [_up(b.right, b.interval) for b in bins],
                "arrayminus": [_down(b.right, b.interval) for b in bins],
                "thickness": 1,
                "width": 3,
            },
            mode="lines+markers",
            name=name,
            line={"color": color, "width": 1.5},
            marker={"color": color, "size": 8, "symbol": symbol},
            hovertemplate="confidence %{x:.3f}: %{y:.3f} right, n = %{customdata:,}<extra></extra>",
        )
    figure.update_layout(
        height=430,
        margin=MARGIN,
        xaxis={"title": "Confidence of the answer", "range": [-0.01, 1.02], "dtick": 0.2},
        yaxis={"title": "Share of right answers", "range": [-0.01, 1.03], "dtick": 0.2},
        legend={"orientation": "h", "y": -0.2, "x": 0, "yanchor": "top"},
    )
    _draw(figure, "evaluation_reliability", "Reliability diagram", "reliability")


def risk_chart(found: Abstention) -> None:
    """Draw the share of wrong answers against the share of images that are answered."""
    figure = go.Figure(
        go.Scatter(
            x=[x for x, _ in found.curve],
            y=[y for _, y in found.curve],
            mode="lines",
            line={"color": ACCENT, "width": 2},
            hovertemplate="%{x:.1%} answered: %{y:.1%} of them wrong<extra></extra>",
            showlegend=False,
        )
    )
    goals = [(goal, row) for goal, row in found.wanted if row is not None and row.accuracy]
    figure.add_scatter(
        x=[row.coverage for _, row in goals],
        y=[1 - (row.accuracy or 0) for _, row in goals],
        text=[f"{goal:.0%}" for goal, _ in goals],
        customdata=[row.threshold for _, row in goals],
        mode="markers+text",
        textposition="top left",
        marker={"color": SECOND, "size": 9, "symbol": "diamond"},
        hovertemplate="accuracy %{text} from confidence %{customdata:.3f} on, %{x:.1%} answered"
        "<extra></extra>",
        showlegend=False,
    )
    top = max([0.02, *(y for _, y in found.curve)])
    figure.update_layout(
        height=430,
        margin=MARGIN,
        xaxis={
            "title": "Share of images that are answered, surest first",
            "range": [0, 1.02],
            "tickformat": ".0%",
        },
        yaxis={
            "title": "Share of wrong answers",
            "range": [0, min(1.02, top * 1.15)],
            "tickformat": ".0%",
        },
    )
    _draw(figure, "evaluation_risk", "Share of wrong answers by coverage", "risk-coverage")


def slice_chart(slices: Sequence[Slice], whole: float | None) -> None:
    """Draw the balanced accuracy of each slice with its interval, and that of all as a line."""
    rows = [s for s in slices if s.balanced_accuracy is not None][:30][::-1]
    figure = go.Figure()
    if whole is not None:
        _line_at(figure, whole, f"all images {whole:.2f}")
    for s in rows:
        name = "not noted" if s.value is None else s.value
        differs = s.p_holm is not None and s.p_holm < 0.05
        figure.add_scatter(
            x=[s.balanced_accuracy],
            y=[_short(name)],
            error_x=_error(s.balanced_accuracy, s.interval),
            mode="markers",
            marker={
                "color": SECOND if differs else ACCENT,
                "size": 10,
                "symbol": "diamond" if differs else "circle",
            },
            hovertemplate=f"{_escaped(name)}: %{{x:.3f}}, n = {s.n:,}<extra></extra>",
        )
    _shares(figure, "Balanced accuracy, with 95 % interval", 90 + 30 * len(rows))
    _draw(figure, "evaluation_slices", "Balanced accuracy of each slice", "slices")


def _shares(figure: go.Figure, title: str, height: int) -> None:
    figure.update_layout(
        height=height,
        margin={**MARGIN, "t": 26},
        showlegend=False,
        xaxis={"title": title, "range": [-0.02, 1.02], "dtick": 0.2},
        yaxis={"type": "category", "showgrid": True, "automargin": True},
    )


def _line_at(figure: go.Figure, x: float, text: str) -> None:
    figure.add_vline(
        x=x, line={"color": QUIET, "width": 1, "dash": "dash"}, annotation_text=text,
        annotation_position="top left" if x > 0.5 else "top right",
        annotation_font={"size": 12, "color": QUIET}, annotation_yshift=18,
    )  # fmt: skip


def _draw(figure: go.Figure, key: str, alt: str, file: str) -> None:
    """Draw a chart whose toolbar saves it as SVG, sharp at any size in print."""
    config: dict[str, Any] = {
        "displaylogo": False,
        "modeBarButtonsToRemove": ["select2d", "lasso2d", "autoScale2d", "zoomIn2d", "zoomOut2d"],
        "toImageButtonOptions": {"format": "svg", "filename": file},
    }
    figure.update_layout(uirevision=key)
    st.plotly_chart(figure, key=key, config=config, alt=alt)


def _error(value: float | None, interval: tuple[float, float] | None) -> dict[str, Any] | None:
    if value is None or interval is None:
        return None
    return {
        "array": [_up(value, interval)],
        "arrayminus": [_down(value, interval)],
        "thickness": 1.5,
        "width": 4,
    }


def _up(value: float | None, interval: tuple[float, float] | None) -> float:
    return 0.0 if value is None or interval is None else max(0.0, interval[1] - value)


def _down(value: float | None, interval: tuple[float, float] | None) -> float:
    return 0.0 if value is None or interval is None else max(0.0, value - interval[0])


def _short(name: str, most: int = 26) -> str:
    return _escaped(name if len(name) <= most else name[: most - 1] + "…")


def _escaped(name: str) -> str:
    """Return a name as Plotly shows it letter by letter."""
    return name.replace("&", "&amp;").replace("<", "&lt;").replace("%{", "% {")
