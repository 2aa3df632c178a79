"""The dials of a run on the screen: what the preset sets, what is changed, and why one would."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import streamlit as st

from cnsapp.domain.recipe import BASICS, CHANGES, DIALS, HEAD, LEARNING, SCORING, Dial, make_recipe
from cnsapp.services.devices import list_gpus
from cnsapp.services.projects import ProjectView
from cnsapp.ui.frame import Here
from cnsapp.ui.train_changes import changes_preview

AUTOMATIC = {"frozen_stages": -1, "image_size": 0, "batch_size": 0}  # the value that chooses
EMPTY = {"scheme": "", "column": "", "name": ""}
TABS = {CHANGES: "Changes to the images", LEARNING: "Learning", HEAD: "Head", SCORING: "Scoring",
        BASICS: "Name, seed, device"}  # fmt: skip
COLUMN, DEVICE = "column", "device"


def key_of(project_id: int, preset: str, name: str) -> str:
    """Return the key of a dial's widget: every preset of every project has its own."""
    return f"dial_{project_id}_{preset}_{name}"


def dials(here: Here, project: ProjectView, preset: str, columns: Sequence[str]) -> None:
    """Draw the dials of a preset, a tab a group; `changed` tells what they are set to.

    Parameters
    ----------
    columns
        Metadata columns of the project, by which folds can be cut.
    """
    ours = [dial for dial in DIALS if preset in dial.presets]
    present = [group for group in TABS if any(dial.group == group for dial in ours)]
    tabs = st.tabs([TABS[g] for g in present], key=f"dials_{preset}", on_change="rerun")
    for tab, group in zip(tabs, present, strict=True):
        if not tab.open:
            continue
        with tab:
            shown = [d for d in ours if d.group == group and (d.name != COLUMN or columns)]
            if group == CHANGES:
                _changes(here, project, preset, shown)
            else:
                _grid(project, preset, shown, columns)


def changed(project: ProjectView, preset: str) -> dict[str, Any]:
    """Return the dials that are set otherwise than the preset has them."""
    kept = _kept(project, preset)
    for dial in DIALS:  # one that was turned just now is drawn only later in this run
        key = key_of(project.id, preset, dial.name)
        if preset in dial.presets and key in st.session_state:
            kept.pop(dial.name, None)
            kept.update(_difference(dial, preset, st.session_state[key]))
    return dict(kept)


def reset(project: ProjectView, preset: str) -> None:
    """Set every dial back to what the preset has."""
    _kept(project, preset).clear()
    for dial in DIALS:
        st.session_state.pop(key_of(project.id, preset, dial.name), None)


def _kept(project: ProjectView, preset: str) -> dict[str, Any]:
    """Return what is remembered of dials that are not drawn just now, in this session."""
    kept: dict[str, Any] = st.session_state.setdefault(f"dials_of_{project.id}_{preset}", {})
    return kept


def in_words(options: dict[str, Any]) -> str:
    """Return the changed dials as `Epochs 20 · Stain 0.5`."""
    titles = {dial.name: dial.title for dial in DIALS}
    yes_no = {True: "on", False: "off"}
    return " · ".join(
        f"{titles[k]} {yes_no[v] if isinstance(v, bool) else v}" for k, v in options.items()
    )


def _changes(here: Here, project: ProjectView, preset: str, shown: list[Dial]) -> None:
    left, right = st.columns([2, 5], gap="large")
    with left:
        st.caption("Every time an image is seen, it is changed a little, by chance.")
        for dial in shown:
            _dial(project, preset, dial, ())
    with right:
        changes_preview(here, project, changed(project, preset))


def _grid(project: ProjectView, preset: str, shown: list[Dial], columns: Sequence[str]) -> None:
    places = st.columns(3, gap="medium")
    for number, dial in enumerate(shown):
        with places[number % 3]:
            _dial(project, preset, dial, columns)


def _dial(project: ProjectView, preset: str, dial: Dial, columns: Sequence[str]) -> None:
    """Draw one dial and remember what it is set to."""
    kept = _kept(project, preset)
    before = kept.get(dial.name, _default(dial, preset))
    value = _widget(project, preset, dial, columns, before)
    kept.pop(dial.name, None)
    kept.update(_difference(dial, preset, value))


def _widget(
    project: ProjectView, preset: str, dial: Dial, columns: Sequence[str], value: Any
) -> Any:
    key = key_of(project.id, preset, dial.name)
    if key not in st.session_state:
        st.session_state[key] = value
    if dial.kind == "bool":
        return st.toggle(dial.title, key=key, help=dial.help)
    if dial.name == DEVICE:
        return _choose_device(dial, key)
    if dial.kind == "choice" or dial.name == COLUMN:
        choices = columns if dial.name == COLUMN else dial.choices
        empty = "" in (value, _default(dial, preset))
        return st.selectbox(
            dial.title, ["", *choices] if empty else list(choices), key=key, help=dial.help,
            format_func=lambda choice: str(choice) or "automatic",
        )  # fmt: skip
    if dial.kind == "text":
        return st.text_input(dial.title, key=key, help=dial.help, max_chars=200)
    if dial.group == CHANGES:
        return st.slider(dial.title, float(dial.low), float(dial.high), step=0.05, key=key,
                         help=dial.help)  # fmt: skip
    if dial.kind == "int":
        return st.number_input(dial.title, int(dial.low), int(dial.high), step=1, key=key,
                               help=dial.help)  # fmt: skip
    return st.number_input(
        dial.title, float(dial.low), float(dial.high), key=key, help=dial.help, format="%g",
        step=_step(dial),
    )  # fmt: skip


def _choose_device(dial: Dial, key: str) -> str:
    """Draw the devices of this computer; one that was asked for elsewhere stays in the list."""
    words = {"auto": "automatic", "cpu": "Processor"}
    words |= {gpu.id: gpu.in_words for gpu in list_gpus()}
    given = str(st.session_state[key])
    return str(
        st.selectbox(
            dial.title, list(dict.fromkeys([*words, given])), key=key, help=dial.help,
            format_func=lambda device: words.get(device, device),
        )
    )  # fmt: skip


def _step(dial: Dial) -> float:
    return 0.0001 if dial.name == "learning_rate" else 0.01 if dial.high <= 1 else 0.5


def _default(dial: Dial, preset: str) -> Any:
    value = getattr(make_recipe(preset), dial.name)
    return str(value) if dial.kind == "choice" else value


def _difference(dial: Dial, preset: str, value: Any) -> dict[str, Any]:
    """Return {name: value} where it is another one than the preset's; empty means the preset's."""
    if value is None or (dial.name in EMPTY and str(value).strip() == ""):
        return {}
    default = _default(dial, preset)
    same = abs(value - default) < 1e-9 if isinstance(default, float) else value == default
    return {} if same else {dial.name: value}
