"""The heat map of a slide: what a model says of its tiles, over its picture."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd
import streamlit as st

from cnsapp.imaging.tiling import TileSettings
from cnsapp.services import jobs
from cnsapp.services.predicting import Results, SlideResult
from cnsapp.services.tables import safe_cell
from cnsapp.ui import pictures
from cnsapp.ui.components import heat_map
from cnsapp.ui.frame import Here

MISLEADS = (
    "Read it with care: the model must name one of its classes, also for fat, folds, ink or "
    "tumours that it never saw. Each tile was judged by itself, so a lone tile means little, and "
    "colours mix what is sure with what is not (fainter tiles are below the model's threshold). "
    "Nothing between the tiles or outside the tissue was looked at."
)
LEARNT = (
    "Labelled tiles show their out-of-fold prediction. The others lie beside tiles that the model "
    "learnt from, so this map looks better than one of a new slide."
)


def show_maps(here: Here, results: Results, colors: Mapping[str, str], model_name: str) -> None:
    """Draw the heat map of the slides of a prediction, one at a time."""
    if not results.slides:
        return
    slide = results.slides[0]
    if len(results.slides) > 1:
        by_number = {s.number: s for s in results.slides}
        chosen = st.selectbox(
            "Slide",
            list(by_number),
            format_func=lambda number: by_number[number].name,
            key="predict_slide",
            width=520,
        )
        slide = by_number.get(chosen or 0, slide)
    data = map_data(results, slide, colors, _overlap(here, results.job_id))
    data["model"] = model_name
    heat_map(key="predict_heatmap", data=data)
    st.caption(f"{MISLEADS} {LEARNT if slide.own else ''}".strip())


def _overlap(here: Here, job_id: int) -> float:
    job = jobs.get_job(here.app.store, job_id=job_id)
    return TileSettings.from_json(job.result.get("tiles")).overlap


def map_data(
    results: Results, slide: SlideResult, colors: Mapping[str, str], overlap: float
) -> dict[str, Any]:
    """Return what the map draws: places in slide pixels, probabilities in thousandths."""
    names = [c.removeprefix("p_") for c in results.rows.columns if c.startswith("p_")]
    rows = results.rows[results.rows["file"] == safe_cell(slide.name)]
    places = rows[["x", "y", "side"]].apply(pd.to_numeric, errors="coerce")
    rows, places = rows[places["x"].notna()], places.dropna().astype(int)
    p = (rows[[f"p_{name}" for name in names]].astype(float) * 1000).round().astype(int)
    folds: list[int | None] = [None] * len(rows)
    if "fold" in rows.columns:
        folds = [None if pd.isna(f) else int(f) for f in pd.to_numeric(rows["fold"], "coerce")]
    return {
        "image_url": pictures.slide_url(results.job_id, slide.number),
        "name": slide.name,
        "width": slide.width,
        "height": slide.height,
        "um_per_px": slide.um_per_px,
        "names": names,
        "colors": [colors.get(name, "#8a9598") for name in names],
        "x": places["x"].tolist(),
        "y": places["y"].tolist(),
        "side": places["side"].tolist(),
        "cell": (places["side"] * (1 - overlap)).round().astype(int).tolist(),
        "p": p.to_numpy().tolist(),
        "best": p.to_numpy().argmax(axis=1).tolist() if len(p) else [],
        "unsure": (rows["decision"] != rows["predicted"]).tolist(),
        "fold": folds,
    }
