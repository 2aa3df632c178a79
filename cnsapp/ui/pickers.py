"""Choosing a model; the choice lives in the address, so that it can be shared and reloaded."""

from __future__ import annotations

from collections.abc import Sequence

import streamlit as st

from cnsapp.services.models import ModelView, told_apart
from cnsapp.ui import words

MODEL = "model"


def number_in_address(name: str) -> int | None:
    """Return the number that the address gives under a name, or None."""
    given = str(st.query_params.get(name) or "")
    return int(given) if given.isascii() and given.isdigit() and len(given) < 16 else None


def choose_model(
    found: Sequence[ModelView], *, key: str, label: str = "Model", width: int = 460
) -> ModelView:
    """Draw the picker and return the model of the address, else the current one."""
    by_id = {model.id: model for model in found}
    asked = number_in_address(MODEL)
    usual = next((model.id for model in found if model.is_current), found[0].id)
    current = asked if asked in by_id else usual
    assert current is not None
    st.session_state[key] = current
    names = told_apart(found)
    st.selectbox(
        label,
        list(by_id),
        format_func=lambda model_id: _title(by_id[model_id], names[model_id]),
        key=key,
        on_change=_picked,
        args=(key,),
        width=width,
    )
    return by_id[current]


def _picked(key: str) -> None:
    st.query_params[MODEL] = str(st.session_state[key])


def _title(model: ModelView, name: str) -> str:
    score = words.figure(model.metrics.get("balanced_accuracy"), n=model.metrics.get("n"))
    standing = " · current" if model.is_current else " · archived" if model.archived else ""
    return f"{name} · {score} · {words.ago(model.created_at)}{standing}"
