"""How a model was made, so that it can be made again: recipe, data, versions, curve, file."""

from __future__ import annotations

from typing import Any

import streamlit as st

from cnsapp.domain.recipe import DIALS
from cnsapp.errors import CnsError
from cnsapp.services import jobs, models
from cnsapp.services.models import ModelView
from cnsapp.ui import frame, words
from cnsapp.ui.frame import Here
from cnsapp.ui.models_overview import title_of
from cnsapp.ui.tables import Column, table, text, when
from cnsapp.ui.tables import facts as facts_table
from cnsapp.ui.train_live import draw_points


def how_made(here: Here, model: ModelView) -> None:
    """Draw the record of a model: what it learnt from, with which settings, and how it went."""
    left, right = st.columns(2, gap="large")
    with left:
        st.markdown("**Made from**")
        facts_table(made_from(here, model))
        chosen = model.settings.get("search")
        if isinstance(chosen, dict):
            st.caption(f":material/search: {frame.plain(str(chosen.get('said') or ''))}")
    with right:
        st.markdown("**Recipe**")
        table([Column("Setting"), Column("Value", number=True)], recipe_rows(model))
    points = [] if model.job_id is None else jobs.job_points(here.app.store, job_id=model.job_id)
    if points:
        st.markdown("**How the run went**")
        draw_points(points, key=f"model_curve_{model.id}")


def made_from(here: Here, model: ModelView) -> list[tuple[str, str]]:
    """Return what a methods section needs, as names and HTML."""
    settings, metrics = model.settings, model.metrics
    rows = [
        ("Model", f"number {model.id}, made {when(model.created_at)}"),
        ("Labelled images", words.number(model.n_images)),
        ("Data fingerprint", _code(settings.get("fingerprint"))),
        ("Backbone", text(title_of(model.backbone))),
        ("Seed", str(model.seed)),
        ("Device", text(settings.get("device") or metrics.get("device") or words.NONE)),
        ("Took", words.duration(metrics.get("seconds"))),
        ("Run", words.NONE if model.job_id is None else f"job {model.job_id}"),
    ]
    if model.split_id is not None:
        rows.append(("Split", f"number {model.split_id}"))
    if model.rerun_of is not None:
        rows.append(("Rerun of", _of(here, model.rerun_of)))
    versions = settings.get("versions")
    if isinstance(versions, dict):
        shown = ", ".join(f"{name} {number}" for name, number in versions.items())
        rows.append(("Versions", text(shown)))
    return rows


def recipe_rows(model: ModelView) -> list[list[str]]:
    """Return the dials of a model's run as they were set, in their order."""
    recorded: dict[str, Any] = {}
    for part in (model.settings.get("recipe"), model.settings.get("options")):
        recorded |= part if isinstance(part, dict) else {}
    rows = [["Preset", text(model.preset)]]
    chosen = model.metrics.get("chosen") or {}
    rows += [
        [
            f'<span title="{text(dial.help)}">{text(dial.title)}</span>',
            text(_set(value, chosen.get(dial.name))),
        ]
        for dial in DIALS
        if (value := recorded.get(dial.name)) not in (None, "") and dial.name not in ("name",)
    ]
    if "head" not in recorded and model.metrics.get("head"):
        rows.append(["Head", text(model.metrics["head"])])
    strength = model.metrics.get("strength")
    if isinstance(strength, int | float):
        rows.append(["Inverse penalty C that was chosen", f"{strength:g}"])
    stages = model.metrics.get("stages")
    if isinstance(stages, list) and stages:
        rows.append(["Stages that the head reads", text(", ".join(map(str, stages)))])
    return rows


def file_of(here: Here, model: ModelView) -> None:
    """Compare the file with its checksum, and offer it for download."""
    with st.container(horizontal=True, vertical_alignment="center", key="model_file"):
        try:
            path = models.check_model_file(here.app, model_id=model.id)
        except CnsError as error:
            frame.show_error(error)
            return
        st.download_button(
            f"Download model file ({words.size(path.stat().st_size)})",
            path.read_bytes,
            file_name=f"{model.name}.safetensors",
            mime="application/octet-stream",
            key="model_download",
            icon=":material/download:",
            on_click="ignore",
        )
        st.caption(":material/verified: The file is as it was made.", width="content")
    facts_table([("SHA-256", _code(model.sha256)), ("Where", _code(model.path))])
    st.caption("Numbers and a description in one file (safetensors): no program code.")


def _of(here: Here, model_id: int) -> str:
    try:
        return text(models.get_model(here.app.store, model_id=model_id).name)
    except CnsError:
        return f"number {model_id}"


def _set(value: Any, chosen: Any) -> str:
    """Return a setting in words; where it left the choice to the run, what that chose."""
    if chosen is None or value not in (0, -1, "auto"):
        return _value(value)
    return f"{_value(chosen)} (chosen)"


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _code(value: Any) -> str:
    return f"<code>{text(value)}</code>" if value else words.NONE
