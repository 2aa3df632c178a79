"""All models of a project at a glance: what they are, how good, which is current, the notes."""

from __future__ import annotations

from collections.abc import Sequence

import streamlit as st

from cnsapp.domain.backbones import TITLES
from cnsapp.services.models import ModelView
from cnsapp.ui import words
from cnsapp.ui.tables import Column, table, text, when

SHOWN = 12  # rows before somebody asks for all
HEADS = {"linear": "linear", "mlp": "MLP", "kernel": "kernel", "network": "network"}
COLUMNS = (
    Column("Name"),
    Column("Preset"),
    Column("Head", help="What reads the features; network: the whole network was trained"),
    Column("Backbone"),
    Column("Balanced accuracy", number=True, help="Mean of the recalls of all classes"),
    Column("95 % interval", number=True),
    Column("n", number=True, help="Images that were judged without having been learnt from"),
    Column("Groups", number=True),
    Column("Test set", number=True, help="Balanced accuracy on the locked test set, if it has one"),
    Column("Note"),
    Column("Made", number=True),
)


def overview(found: Sequence[ModelView]) -> None:
    """Draw the models with their figures, the newest first; archived ones when asked for."""
    n_archived = sum(model.archived for model in found)
    shown = list(found)
    with st.container(horizontal=True, vertical_alignment="center", key="models_overview_top"):
        if n_archived and not st.toggle(f"Archived ({n_archived})", key="models_archived"):
            shown = [model for model in shown if not model.archived]
        if len(shown) > SHOWN and not st.toggle(f"All {len(shown)}", key="models_all"):
            first = shown[:SHOWN]
            current = [m for m in shown[SHOWN:] if m.is_current]
            shown = first + current
    test = any(isinstance(model.metrics.get("test"), dict) for model in shown)
    noted = any(model.note for model in shown)
    left_out = [name for name, there in (("Test set", test), ("Note", noted)) if not there]
    kept = [k for k, column in enumerate(COLUMNS) if column.title not in left_out]
    table([COLUMNS[k] for k in kept], [[row[k] for k in kept] for row in map(_row, shown)])


def title_of(backbone: str) -> str:
    """Return what a backbone is called, short."""
    return TITLES.get(backbone, backbone).partition(" (")[0]


def standing(model: ModelView) -> str:
    """Return what a model is to the project, in a word; mostly nothing."""
    if model.is_current:
        return "current"
    return "archived" if model.archived else ""


def test_score(model: ModelView) -> float | None:
    """Return the balanced accuracy on the locked test set, if it was scored there."""
    test = model.metrics.get("test")
    value = test.get("balanced_accuracy") if isinstance(test, dict) else None
    return float(value) if isinstance(value, int | float) else None


def _row(model: ModelView) -> list[str]:
    metrics = model.metrics
    return [
        _name(model),
        text(model.preset),
        text(HEADS.get(str(metrics.get("head") or ""), words.NONE)),
        text(title_of(model.backbone)),
        words.score(metrics.get("balanced_accuracy")),
        words.interval(metrics.get("balanced_accuracy_interval")) or words.NONE,
        words.number(metrics.get("n")),
        words.number(metrics.get("n_groups")),
        words.score(test_score(model)),
        f'<span title="{text(model.note)}">{text(_short(model.note))}</span>',
        when(model.created_at),
    ]


def _name(model: ModelView) -> str:
    name = text(model.name)
    if model.is_current:
        dot = '<span class="cns-dot on" title="The current model"></span>'
        return f'{dot}<b>{name}</b>&nbsp;<span class="cns-muted">current</span>'
    if model.archived:
        return f'<span class="cns-muted">{name} · archived</span>'
    return name


def _short(note: str) -> str:
    line = note.partition("\n")[0]
    return line if len(line) <= 48 else line[:47].rstrip() + "…"
