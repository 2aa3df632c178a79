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
WIDTHS = [4, 9, 3, 6, 6]
CHANNELS_HELP = (
    "Each channel that is on adds its light in its colour, black below the first number and full "
    f"colour from the second on. Up to {MAX_CHANNELS} channels can be on at once."
)


def choose_channels(rule: ReadingRule, found: Found | None, now: Reading, key: str) -> ReadingRule:
    """Draw the choice; `found` says what the channels hold, and None that it is not known yet."""
    how = f"{key}_channels"
    st.session_state.setdefault(how, COLORED if rule.channels else GRAY)
    chosen = st.segmented_control(
        f"Channels ({words.plural(now.n_channelled, 'file')})",
        list(SHOWN_AS),
        format_func=SHOWN_AS.__getitem__,
        key=how,
        required=True,
        help=CHANNELS_HELP,
    )
    if chosen == GRAY:
        return replace(rule, channels=())
    if found is None:  # what the files hold decides the first windows: wait for it
        return rule
    start = {c.index: c for c in rule.channels or default_channels(found.channels)}
    names = {c.index: c for c in found.channels}
    n = max([now.most_channels, *(index + 1 for index in (*names, *start))])
    _heads()
    rows = [_row(index, start, names.get(index), key) for index in range(min(n, MOST_ROWS))]
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
    whole = found is not None and found.kind != "float"
    values: dict[str, Any] = {
        "on": index in start,
        "color": first.color,
        "low": _typed(first.low, whole),
        "high": _typed(first.high, whole),
    }
    for part, value in values.items():
        st.session_state.setdefault(f"{name}_{part}", value)
    on, title, color, low, high = st.columns(WIDTHS, gap="small", vertical_alignment="center")
    shown = on.checkbox(f"Show channel {index + 1}", key=f"{name}_on",
                        label_visibility="collapsed")  # fmt: skip
    hint = None
    if found is not None:
        hint = (
            f"Values from {level(found.low)} to {level(found.high)}; 0.1 and 99.9 percentile "
            f"{level(found.p_low)} and {level(found.p_high)}."
        )
    title.markdown(plain(found.name if found else f"Channel {index + 1}"), help=hint)
    with color:
        chosen = st.color_picker(f"Colour of channel {index + 1}", key=f"{name}_color",
                                 label_visibility="collapsed", disabled=not shown)  # fmt: skip
    black = _level(low, f"Black of channel {index + 1}", f"{name}_low", whole, shown)
    full = _level(high, f"Full colour of channel {index + 1}", f"{name}_high", whole, shown)
    return Channel(index, (chosen or first.color).upper(), black, full) if shown else None


def _level(column: Any, label: str, key: str, whole: bool, shown: bool) -> float | None:
    step, form = (1, "%d") if whole else (None, "%.6g")
    value = column.number_input(label, value=None, step=step, format=form, key=key,
                                label_visibility="collapsed", placeholder="as the kind",
                                disabled=not shown)  # fmt: skip
    return None if value is None else float(value)


def _typed(value: float | None, whole: bool) -> float | int | None:
    return value if value is None or not whole else round(value)
