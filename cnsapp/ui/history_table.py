"""What people have said of an image, as a table in a dialog."""

from __future__ import annotations

import streamlit as st

from cnsapp.bootstrap import App
from cnsapp.services.image_history import Entry, Saying, image_history
from cnsapp.ui.tables import Column, table, text, when
from cnsapp.ui.words import STATES

SHOWN = 20
SOURCES = {
    "human": "by hand",
    "bulk": "several at once",
    "import": "import",
    "review": "review",
    "suggestion": "accepted suggestion",
    "second": "second reading",
    "self": "read again",
    "adjudication": "settled a dispute",
}
TURNS = {"undo": "took back, now ", "redo": "brought back "}


def history_table(app: App, image_id: int) -> None:
    """Draw the newest labels of an image with who gave them; nothing where nobody said anything."""
    said = [entry for entry in image_history(app.store, image_id=image_id).entries if entry.after]
    if not said:
        return
    st.caption("History of its label")
    table(
        [Column("Label"), Column("By"), Column("How"), Column("When", number=True)],
        [
            [
                _what(entry),
                text(entry.who),
                text(SOURCES.get(entry.source, entry.source)),
                when(entry.at),
            ]
            for entry in said[:SHOWN]
        ],
    )


def _what(entry: Entry) -> str:
    undone = " <span class='cns-muted'>(undone)</span>" if entry.undone else ""
    return text(TURNS.get(entry.kind, "") + _word(entry.after or Saying())) + undone


def _word(saying: Saying) -> str:
    if saying.kind == "clear":
        return "no label"
    return saying.name or STATES.get(saying.kind, saying.kind)
