"""What was chosen by looks: its pictures to label one by one, and all of them at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import streamlit as st

from cnsapp.services import bulk, looks, viewing
from cnsapp.services.images import Counts
from cnsapp.services.own_labels import labels_of
from cnsapp.services.projects import ClassView, ProjectView
from cnsapp.ui import frame, words
from cnsapp.ui.frame import Here
from cnsapp.ui.labeller import PAGE_SIZE, Badge, labeller

VIEW = "By looks"
DONE = "looks_done"
TODO = "looks_todo"


@dataclass(frozen=True)
class Place:
    """Where the view by looks stands: what every part of it is handed."""

    here: Here
    project: ProjectView
    classes: list[ClassView]
    counts: Counts
    as_of: int
    blind: bool  # nobody sees what others or a model think


@dataclass(frozen=True)
class _Done:
    """A bulk action that can be taken back on the spot."""

    project_id: int
    action: str
    sentence: str


def only_unlabelled() -> bool:
    """Return whether images that somebody looked at already are left out."""
    return bool(st.session_state.get(TODO, False))


def show_chosen(
    place: Place,
    image_ids: Sequence[int],
    *,
    what: str,
    empty: str,
    key: str,
    similar: bool = True,
    badges: Mapping[int, Badge] | None = None,
    beyond: str = "“Label all” means the others too.",
) -> None:
    """Draw the images in this order, what can be done with all of them, and what was done.

    Parameters
    ----------
    what
        Says which images they are, such as “in the outline”.
    empty
        What to say when there are none.
    similar
        Offer to look for images like these.
    beyond
        Said where there are more than a grid shows: what to do about the others.
    """
    ids = list(image_ids)
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        st.markdown(f"**{words.plural(len(ids), 'image')}** {what}".strip(), width="content")
        if len(ids) > PAGE_SIZE:
            st.caption(f"{PAGE_SIZE} of them are shown. {beyond}", width="content")
        st.toggle("Only without a label", key=TODO)
        if similar and ids:
            st.button(
                "Similar to all of them", icon=":material/search:", key=f"{key}_like",
                on_click=look_like, args=(ids,),
                help="Looks for other images like the middle of these.",
            )  # fmt: skip
        if ids:
            _label_all(place, ids, key)
    _say_done(place)
    store = place.here.app.store
    items = looks.list_items(store, image_ids=ids[:PAGE_SIZE])
    labeller(
        key=key,
        images=labels_of(store, items, place.here.annotator) if place.blind else items,
        classes=place.classes,
        project_id=place.project.id,
        annotator=place.here.annotator,
        counts=place.counts,
        as_of=place.as_of,
        badges=badges,
        empty=empty,
        um_per_px=viewing.um_per_px(place.here.app.store, project_id=place.project.id),
        blind=place.blind,
        whose="mine" if place.blind else "all",
        on_like=look_like,
    )


def look_like(image_ids: Sequence[int]) -> None:
    """Go to the images similar to these, from any view of the Label page; for callbacks alone."""
    if not image_ids:
        return
    st.session_state["view"] = VIEW
    st.session_state["looks_by"] = "Similar to…"
    st.query_params["like"] = ",".join(map(str, image_ids[:50]))


def _label_all(place: Place, ids: list[int], key: str) -> None:
    """Offer to label all of them: a class, whether labelled ones too, and one button."""
    free = looks.in_use(place.here.app.store, place.project.id, ids, unlabelled_only=True)
    n_given = len(ids) - len(free)
    # on_change: so that `_label` can close it, and what was done is seen
    title = f"Label all {len(ids):,}…"
    with st.popover(title, type="primary", key=f"{key}_all", on_change="rerun"):
        if not place.here.annotator:
            st.info("Say who labels first: “Labelling as” in the sidebar.")
            return
        by_id = {c.id: c for c in place.classes}
        class_id = st.selectbox(
            "Class", list(by_id), format_func=lambda i: by_id[i].name, index=None,
            placeholder="Choose a class", key=f"{key}_class",
        )  # fmt: skip
        also = bool(n_given) and st.checkbox(
            f"Also the {n_given:,} that somebody looked at already",
            key=f"{key}_also",
            help="They get this label instead of the one they have. Undo brings it back.",
        )
        wanted = [i for i in ids if also or i in free]
        if not wanted:
            st.caption("All of them were looked at already.")
            return
        name = f" as {words.plain(by_id[class_id].name)}" if class_id in by_id else ""
        st.button(
            f"Label {words.plural(len(wanted), 'image')}{name}",
            type="primary", key=f"{key}_go", disabled=class_id is None,
            on_click=_label, args=(place, f"{key}_all", wanted, class_id, by_id.get(class_id or 0)),
        )  # fmt: skip


def _label(
    place: Place, popover: str, ids: list[int], class_id: int | None, chosen: ClassView | None
) -> None:
    """Label them; the last thing that is stored before anything is drawn."""
    st.session_state[popover] = False
    with frame.guard():
        receipt = bulk.label_images(
            place.here.app.store,
            project_id=place.project.id,
            annotator=place.here.annotator,
            image_ids=ids,
            class_id=class_id,
            source="bulk",
        )
        name = chosen.name if chosen else ""
        st.session_state[DONE] = _Done(
            place.project.id, receipt.action,
            f"{words.plural(receipt.stored, 'image')} labelled as {name}.",
        )  # fmt: skip


def _say_done(place: Place) -> None:
    done = st.session_state.get(DONE)
    if not isinstance(done, _Done) or done.project_id != place.project.id:
        return
    with st.container(horizontal=True, vertical_alignment="center", gap="small", key=DONE + "_row"):
        st.markdown(f":material/check: {words.plain(done.sentence)}", width="content")
        if done.action:
            st.button("Undo", icon=":material/undo:", key="looks_undo", on_click=_undo,
                      args=(place, done))  # fmt: skip
        st.button("", icon=":material/close:", type="tertiary", key="looks_done_close",
                  help="Close", on_click=lambda: st.session_state.pop(DONE, None))  # fmt: skip


def _undo(place: Place, done: _Done) -> None:
    """Take a bulk action back, with an event for each of its images."""
    with frame.guard():
        n = looks.take_back(
            place.here.app.store,
            project_id=place.project.id,
            annotator=place.here.annotator,
            action=done.action,
        )
        st.session_state[DONE] = _Done(
            done.project_id, "", f"Taken back for {words.plural(n, 'image')}."
        )
