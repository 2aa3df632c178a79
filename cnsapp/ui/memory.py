"""A few words that the browser keeps, such as who labels on this computer."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import streamlit as st


def remembered(name: str, value: str) -> str:
    """Keep `value` in this browser under `name`; where it is empty, return what was kept."""
    forgotten = bool(st.session_state.pop(f"memory_forget_{name}", False))
    try:
        result = _component()(
            key=f"memory_{name}",
            data={"name": name, "value": value, "forget": forgotten},
            on_kept_change=lambda: None,
            height=1,
        )
    except Exception:  # the tests' runner draws no components
        return value
    kept = getattr(result, "kept", None)
    if value or forgotten or not isinstance(kept, str):
        return value
    return kept


def forget(name: str) -> None:
    """Let the browser forget a word at the next run."""
    st.session_state[f"memory_forget_{name}"] = True


@cache
def _component() -> Any:
    script = (Path(__file__).parent / "memory.js").read_text(encoding="utf-8")
    return st.components.v2.component("cnsapp_memory", js=script)
