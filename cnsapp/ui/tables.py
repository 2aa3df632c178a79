"""Tables and bars as HTML: exact figures, right-aligned, that read well in both themes."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import streamlit as st

from cnsapp.services.projects import ClassView
from cnsapp.ui import words

ACCENT = "#1E8CA5"


@dataclass(frozen=True)
class Column:
    """A column: its title, whether it holds numbers, and what its title means."""

    title: str
    number: bool = False
    help: str = ""


def text(value: object) -> str:
    """Return anything as HTML that shows it letter by letter."""
    return html.escape(str(value))


def when(moment: datetime | None) -> str:
    """Return how long ago, with the exact moment on hover."""
    return f'<span title="{words.exact(moment)}">{words.ago(moment)}</span>'


def swatch(color: str) -> str:
    """Return a small square in a class's colour."""
    return f'<span class="cns-swatch" style="background:{text(color)}"></span>'


def class_name(c: ClassView) -> str:
    """Return the name of a class behind its colour."""
    return swatch(c.color) + text(c.name)


def table(columns: Sequence[Column], rows: Sequence[Sequence[str]]) -> None:
    """Draw a table; the cells are HTML already (see `text`)."""
    head = "".join(
        f'<th scope="col" class="{_tone(c)}" title="{text(c.help)}">{text(c.title)}</th>'
        for c in columns
    )
    body = "".join(
        "<tr>"
        + "".join(
            f'<td class="{_tone(column)}">{cell}</td>'
            for column, cell in zip(columns, row, strict=True)
        )
        + "</tr>"
        for row in rows
    )
    st.html(
        f'<div class="cns-wrap"><table class="cns"><thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def facts(rows: Sequence[tuple[str, str]]) -> None:
    """Draw names and values under each other; the values are HTML already."""
    body = "".join(
        f'<tr><th scope="row">{text(k)}</th><td class="long">{v}</td></tr>' for k, v in rows
    )
    st.html(f'<table class="cns facts"><tbody>{body}</tbody></table>')


@dataclass(frozen=True)
class Bar:
    """A horizontal bar: a share from 0 to 1, the text at its end, and a mark on its track."""

    name: str  # HTML
    share: float
    value: str
    color: str = ACCENT
    mark: float | None = None
    chosen: bool = False


def bars(rows: Sequence[Bar]) -> None:
    """Draw horizontal bars with their names before and their figures behind them."""
    parts = []
    for bar in rows:
        width = 100 * min(max(bar.share, 0.0), 1.0)
        mark = "" if bar.mark is None else f'<b style="left:{100 * min(bar.mark, 1.0):.1f}%"></b>'
        tone = "chosen" if bar.chosen else ""
        parts.append(
            f'<div class="{tone}">{bar.name}</div><div class="cns-track">'
            f'<i style="width:{width:.1f}%;background:{text(bar.color)}"></i>{mark}</div>'
            f'<div class="num {tone}">{text(bar.value)}</div>'
        )
    st.html(f'<div class="cns-bars">{"".join(parts)}</div>')


def _tone(column: Column) -> str:
    return "num" if column.number else ""
