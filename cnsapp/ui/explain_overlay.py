"""Maps over an image, side by side: what the browser's part is given (`overlay.js`)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any

import streamlit as st

from cnsapp.imaging.thumbs import VIEW_SIDE
from cnsapp.ui import explain_colours

_HERE = Path(__file__).parent
_PARTS = (
    "parts.js", "labeller/scalebar.js", "overlay_map.js", "overlay_figure.js",
    "overlay_zoom.js", "overlay.js",
)  # fmt: skip


@dataclass(frozen=True)
class Line:
    """One sentence under a map: `good`, `warn`, `plain`, or `wait` while it is being measured."""

    tone: str
    text: str


@dataclass(frozen=True)
class Panel:
    """One map over the image.

    Attributes
    ----------
    title, method, note
        For which class; by which method and settings; what else is small beside them.
    levels_url
        Address of its gray levels, when it is there.
    sign, low, middle, high, legend
        How it is to be read: `positive`, `signed` or `magnitude`, the words at the ends of its
        scale, and a sentence with its unit.
    mark
        Stands on the map itself, in a few words, when it must not be believed.
    lines, curves
        How far it is to be trusted, in sentences and as a chart.
    """

    title: str
    method: str
    note: str = ""
    levels_url: str | None = None
    sign: str = "positive"
    low: str = ""
    middle: str = ""
    high: str = ""
    legend: str = ""
    mark: str = ""
    lines: Sequence[Line] = ()
    curves: dict[str, Any] | None = None


def overlay(
    *,
    key: str,
    image_url: str,
    width: int,
    height: int,
    name: str,
    model: str,
    panels: Sequence[Panel],
    um_per_px: float | None = None,
) -> None:
    """Draw an image with maps over it; how they look is changed in the browser alone.

    Parameters
    ----------
    width, height, um_per_px
        Of the original, in pixels, and how large one is; None where nobody knows.
    model
        Its words in a saved figure.
    """
    _component()(
        key=key,
        data={
            "image_url": image_url,
            "width": width,
            "height": height,
            "name": name,
            "file": f"{safe_name(name)}-map",
            "model": model,
            "um_per_px": um_per_px,
            "most": VIEW_SIDE,
            "colours": explain_colours.as_data(),
            "panels": [asdict(panel) for panel in panels],
        },
    )


def safe_name(name: str) -> str:
    """Return an image's name without folder and ending, as every computer can store it."""
    stem = PurePosixPath(name.replace("\\", "/")).stem
    clean = re.sub(r"[^\w.-]+", "_", stem).strip("._-")[:80]
    return clean or "image"


@cache
def _component() -> Any:
    style = (_HERE / "overlay.css").read_text(encoding="utf-8")
    script = "\n".join((_HERE / part).read_text(encoding="utf-8") for part in _PARTS)
    return st.components.v2.component("cnsapp_maps", css=style, js=script)
