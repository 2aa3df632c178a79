"""A few words that the browser keeps, such as who labels on this computer."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import streamlit as st


def recall(name: str) -> str:
    """Return what this browser kept under `name`; empty when it kept nothing or did not say yet."""
    if st.session_state.get(_forget_key(name)):
        return ""
    state = st.session_state.get(f"memory_{name}")
    kept = state.get("kept") if isinstance(state, Mapping) else None
    return kept if isinstance(kept, str) else ""


def keep(name: str, value: str) -> None:
    """Let this browser keep `value`, or ask it for what it kept where `value` is empty."""
    forgotten = bool(st.session_state.pop(_forget_key(name), False))
    _component()(
        key=f"memory_{name}",
        data={"name": name, "value": value, "forget": forgotten},
        on_kept_change=lambda: None,
        height=1,
    )


def forget(name: str) -> None:
    """Let the browser forget a word at the next run."""
    st.session_state[_forget_key(name)] = True


def _forget_key(name: str) -> str:
    return f"memory_forget_{name}"


@cache
def _component() -> Any:
    script = (Path(__file__).parent / "memory.js").read_text(encoding="utf-8")
    return st.components.v2.component("cnsapp_memory", js=script)
