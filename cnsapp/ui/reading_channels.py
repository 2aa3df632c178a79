"""Choosing which channels of a stack are shown, and in which colours and windows."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import streamlit as st

from cnsapp.imaging.channels import COLORS, ChannelRange, default_channels
from cnsapp.imaging.rule import MAX_CHANNELS, Channel, ReadingRule
from cnsapp.imaging.rule_changes import level
from cnsapp.services.reading import Reading
from cnsapp.services.reading_levels import Found
from cnsapp.ui import words
from cnsapp.ui.words import plain

GRAY, COLORED = "gray", "colors"
SHOWN_AS = {GRAY: "The first, in gray", COLORED: "Several, in colours"}
MOST_ROWS = 24  # channels that can be chosen from
WIDTHS = [3, 8, 4, 6, 6]
CHANNELS_HELP = (
    "Each channel that is on adds its light in its colour, black below the first number and full "
    f"colour from the second on. Up to {MAX_CHANNELS} channels can be on at once."
)


def choose_channels(rule: ReadingRule, found: Found | None, now: Reading, key: str) -> ReadingRule:
    """Draw the choice; `found` says what the channels hold, and None that it is not known yet."""
    chosen = st.segmented_control(
        f"Channels ({words.plural(now.n_channelled, 'file')})",
        list(SHOWN_AS),
        format_func=SHOWN_AS.__getitem__,
        key=f"{key}_channels",
        default=COLORED if now.rule.channels else GRAY,
        required=True,
        help=CHANNELS_HELP,
    )
    if chosen == GRAY:
        return replace(rule, channels=())
    if found is None:  # what the files hold decides the first windows: wait for it
        return rule
    names = {c.index: c for c in found.channels}
    start = {c.index: c for c in now.rule.channels}
    for proposed in () if start else default_channels(found.channels):
        assert proposed.low is not None and proposed.high is not None
        low, high = rounded(names[proposed.index].kind, proposed.low, proposed.high)
        start[proposed.index] = replace(proposed, low=low, high=high)
    n = min(max(now.most_channels, len(names)), MOST_ROWS)
    _heads()
    rows = [
        _row(index, start, names.get(index), key)
        for index in range(max([n, *(index + 1 for index in start)]))
    ]
    return replace(rule, channels=tuple(row for row in rows if row is not None))


def _heads() -> None:
    for column, head in zip(
        st.columns(WIDTHS, gap="small"), ("Show", "Channel", "Colour", "Black", "Full"), strict=True
    ):
        column.caption(head)


def _row(
    index: int, start: dict[int, Channel], found: ChannelRange | None, key: str
) -> Channel | None:
    """Draw one channel; return it when it is on."""
    name = f"{key}_channel_{index}"
    first = start.get(index) or Channel(index, COLORS[index % len(COLORS)])
    whole = found is not None and found.kind != "float" and is_whole(first.low, first.high)
    on, title, color, low, high = st.columns(WIDTHS, gap="small", vertical_alignment="center")
    shown = on.checkbox(f"Show channel {index + 1}", index in start, key=f"{name}_on",
                        label_visibility="collapsed")  # fmt: skip
    hint = None
    if found is not None:
        hint = (
            f"Values from {level(found.low)} to {level(found.high)}; 0.1 and 99.9 percentile "
            f"{level(found.p_low)} and {level(found.p_high)}."
        )
    title.markdown(plain(found.name if found else f"Channel {index + 1}"), help=hint)
    with color:
        chosen = st.color_picker(f"Colour of channel {index + 1}", first.color,
                                 key=f"{name}_color", label_visibility="collapsed",
                                 disabled=not shown)  # fmt: skip
    look = {"label_visibility": "collapsed", "placeholder": "as the kind", "disabled": not shown}
    with low:
        black = level_input(f"Black of channel {index + 1}", first.low, f"{name}_low", whole,
                            **look)  # fmt: skip
    with high:
        full = level_input(f"Full colour of channel {index + 1}", first.high, f"{name}_high", whole,
                           **look)  # fmt: skip
    return Channel(index, (chosen or first.color).upper(), black, full) if shown else None


def level_input(
    label: str, value: float | None, key: str, whole: bool, **look: Any
) -> float | None:
    """Draw an input for a sample value and return it; `whole` for kinds without fractions.

    Its value is handed over, not put into the session: a page that runs again before the browser
    has drawn it would lose it.
    """
    step, form = (1, "%d") if whole else (None, "%.6g")
    given = round(value) if value is not None and whole else value
    look = {"placeholder": "default"} | look
    found = st.number_input(label, value=given, step=step, format=form, key=key, **look)
    return None if found is None else float(found)


def is_whole(*values: float | None) -> bool:
    """Return whether all these values can be shown without fractions as they are."""
    return all(value is None or float(value).is_integer() for value in values)


def rounded(kind: str, low: float, high: float) -> tuple[float, float]:
    """Return a proposed window without fractions, for samples that have none."""
    if kind == "float" or round(high) <= round(low):
        return low, high
    return float(round(low)), float(round(high))
