"""The parts of a class or group sheet as HTML: they look the same on the screen and on paper."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import streamlit as st

from cnsapp.services.images import ImageItem
from cnsapp.ui import frame, words
from cnsapp.ui.components import thumb_url
from cnsapp.ui.review_asked import Reviewed
from cnsapp.ui.tables import text

_HERE = Path(__file__).parent
PARTS = {"fold": "held-out folds", "test": "locked test set"}
TRUTHS = {"trained": "labels at training", "current": "labels of today"}


@dataclass(frozen=True)
class Cell:
    """A picture of a sheet: what stands under it (HTML), and the map over it."""

    image: ImageItem
    caption: str = ""
    title: str = ""
    map_url: str = ""


def sheet(*parts: str) -> None:
    """Draw parts of a sheet; whatever is drawn otherwise is not printed."""
    st.html(f'<div class="cns-sheet">{"".join(parts)}</div>')


def style() -> None:
    """Load what sheets look like, on the screen and on paper."""
    st.html(_HERE / "review_by_class.css")


def header(asked: Reviewed, title: str, more: Sequence[str] = ()) -> str:
    """Return what stands at the top: of what, of which model, when, held against what."""
    model = asked.model
    today = datetime.now().astimezone()
    facts = [
        f"Model {model.name} ({model.backbone}), trained {model.created_at:%Y-%m-%d}",
        f"Figures: {PARTS[asked.part]}, {TRUTHS[asked.truth]}",
        *more,
    ]
    return (
        f'<div class="cns-head"><div><h2>{title}</h2><div class="cns-small">'
        f"{text(' · '.join(facts))}</div></div>"
        f'<div class="cns-small">Project {text(asked.project.name)}<br>'
        f"{today:%Y-%m-%d}</div></div>"
    )


def big(name: str, value: float | None, bounds: Sequence[float] | None, of: str) -> str:
    """Return a large figure with its interval and what it is of."""
    spread = words.interval(bounds)
    rest = ", ".join(part for part in (f"95 % interval {spread}" if spread else "", of) if part)
    return (
        f'<div><div class="cns-small cns-muted">{text(name)}</div>'
        f'<div class="cns-figure">{words.score(value)}</div>'
        f'<div class="cns-small cns-muted">{text(rest)}</div></div>'
    )


def section(title: str, said: str = "") -> str:
    """Return a heading (HTML) with a sentence under it."""
    return f"<h3>{title}</h3>" + (f'<p class="cns-small cns-muted">{said}</p>' if said else "")


def cells(asked: Reviewed, shown: Sequence[Cell]) -> str:
    """Return pictures in rows of eight; each leads to Explain."""
    return f'<div class="cns-cells">{"".join(_cell(asked, cell) for cell in shown)}</div>'


def _cell(asked: Reviewed, cell: Cell) -> str:
    image = cell.image
    asks = frame.kept_params() | {"model": str(asked.model.id), "image": str(image.id)}
    over = f'<img src="{text(cell.map_url)}" alt="">' if cell.map_url else ""
    title = f"{image.name}. {cell.title}".strip()
    caption = f"<figcaption>{cell.caption}</figcaption>" if cell.caption else ""
    return (
        f'<figure class="cns-cell"><a href="explain?{text(urlencode(asks))}" '
        f'title="{text(title)}"><span class="cns-pic">'
        f'<img src="{text(thumb_url(image.id, image.version))}" alt="{text(image.name)}">'
        f"{over}</span></a>{caption}</figure>"
    )


def embedded(png: bytes) -> str:
    """Return a picture as an address that holds it."""
    return "data:image/png;base64," + base64.b64encode(png).decode("ascii")


def scale(legend: Mapping[str, Any]) -> str:
    """Return the bar of a map's colours."""
    colours = ",".join(str(c) for c in legend.get("colours", ()))
    return (
        f'<div class="cns-scale" style="background:linear-gradient(90deg,{text(colours)})"></div>'
    )


def print_button(title: str) -> None:
    """Draw the button that prints the sheet; `title` names the file."""
    _printer()(key="class_print", data={"title": title}, width="content")


@cache
def _printer() -> Any:
    return st.components.v2.component(
        "cnsapp_print",
        css=(_HERE / "review_by_class_print.css").read_text(encoding="utf-8"),
        js=(_HERE / "review_by_class_print.js").read_text(encoding="utf-8"),
    )
