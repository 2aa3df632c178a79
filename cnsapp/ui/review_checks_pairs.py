"""Review, look-alikes with different labels: pair by pair, side by side, settled by a button."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import streamlit as st

from cnsapp.domain.findings import Finding
from cnsapp.services import images, labels, quality
from cnsapp.services.images import ImageDetail
from cnsapp.services.projects import ClassView
from cnsapp.ui import frame, words
from cnsapp.ui.components import view_url
from cnsapp.ui.review_asked import Reviewed
from cnsapp.ui.tables import swatch, text

DONE = "check_pair_done"  # in the session: what the last button did
SOURCES = {"import": "by an import", "bulk": "many at once", "suggestion": "from a suggestion"}


@dataclass(frozen=True)
class Done:
    """What the last button did: a sentence, and the label events that can be taken back."""

    sentence: str
    events: list[dict[str, Any]] = field(default_factory=list)


def draw(asked: Reviewed, finding: Finding, sign: str) -> None:
    """Draw the pair that is looked at, and the buttons that settle it."""
    pairs: list[dict[str, Any]] = finding.figures["pairs"]
    key = f"check_pair_{sign}"
    at = min(max(int(st.session_state.get(key, 0)), 0), len(pairs) - 1)
    pair = pairs[at]
    _say_done(asked)
    with st.container(horizontal=True, vertical_alignment="center", key="check_pair_top"):
        st.markdown(f"**Pair {at + 1:,} of {len(pairs):,}**, the most alike first", width="content")
        if len(pairs) > 1:
            for name, icon, to in (
                ("Previous", "chevron_left", at - 1),
                ("Next", "chevron_right", at + 1),
            ):
                st.button(
                    name, icon=f":material/{icon}:", key=f"check_pair_{name.lower()}",
                    disabled=not 0 <= to < len(pairs),
                    on_click=st.session_state.__setitem__, args=(key, to),
                )  # fmt: skip
    both = [images.get_image(asked.here.app.store, image_id=pair[f"image_{s}"]) for s in "ab"]
    classes = {c.id: c for c in asked.classes}
    with st.container(border=True, key="check_pair"):
        left, right, acts = st.columns([3, 3, 2], gap="medium", vertical_alignment="center")
        for column, image, side in ((left, both[0], "a"), (right, both[1], "b")):
            with column:
                _half(image, classes, pair, side)
        with acts:
            _acts(asked, both, classes, pair)


def _say_done(asked: Reviewed) -> None:
    """Say once what the last button did, with a way back."""
    done = st.session_state.pop(DONE, None)
    if not isinstance(done, Done):
        return
    with st.container(
        horizontal=True, vertical_alignment="center", border=True, key="check_pair_done"
    ):
        st.markdown(done.sentence, width="stretch")
        if done.events:
            st.button(
                "Undo", icon=":material/undo:", key="check_pair_undo", on_click=_undo,
                args=(asked, done),
            )  # fmt: skip


def _half(
    image: ImageDetail, classes: Mapping[int, ClassView], pair: Mapping[str, Any], side: str
) -> None:
    label = classes.get(image.class_id or 0)
    called = (
        swatch(label.color) + f"<b>{text(label.name)}</b>"
        if label
        else text(words.STATES.get(image.state) or "no label")
    )
    unchanged = image.class_id == pair[f"class_id_{side}"]
    said = _by(pair, side) if unchanged else "changed since the look"
    facts = " · ".join(
        text(part) for part in (f"{image.width:,} × {image.height:,} px", image.group or "") if part
    )
    st.html(
        f'<img src="{text(view_url(image.id, image.version))}" alt="{text(image.name)}" '
        'class="cns-pair" style="height:320px">'
        f'<div>{called} <span class="cns-muted cns-small">{text(said)}</span></div>'
        f'<div class="cns-ellipsis" title="{text(image.name)}">{text(image.name)}</div>'
        f'<div class="cns-muted cns-small">{facts}</div>'
    )


def _by(pair: Mapping[str, Any], side: str) -> str:
    who, source = pair.get(f"labelled_by_{side}"), str(pair.get(f"source_{side}") or "")
    how = SOURCES.get(source, "")
    if who and how and who != source:
        return f"{who}, {how}"
    return how or str(who or "")


def _acts(
    asked: Reviewed,
    both: list[ImageDetail],
    classes: Mapping[int, ClassView],
    pair: Mapping[str, Any],
) -> None:
    same = both[0].sha256 == both[1].sha256
    alike = words.percent(min(float(pair["similarity"]), 0.999), 1)
    st.markdown("**The same bytes**" if same else f"**{alike} alike**")
    if any(image.status != "ok" for image in both):
        st.caption("One of the two is excluded: the pair counts no more.")
        return
    named = [c for i in both if (c := classes.get(i.class_id or 0)) is not None]
    if len({c.id for c in named}) == 1 and len(named) == len(both):
        st.caption(f":material/check: Both are {frame.plain(named[0].name)} now.")
    for k, choice in enumerate({c.id: c for c in named}.values()):
        if all(image.class_id == choice.id for image in both):
            continue
        st.button(
            f"Both are {frame.plain(choice.name)}", key=f"check_both_{k}", width="stretch",
            disabled=not asked.here.annotator, on_click=_both, args=(asked, both, choice),
        )  # fmt: skip
    st.button(
        "They are different pictures", key="check_apart", width="stretch", disabled=same,
        help="The same bytes are the same picture." if same else "The pair is not listed again.",
        on_click=_apart, args=(asked, (pair["image_a"], pair["image_b"])),
    )  # fmt: skip
    other = st.selectbox(
        "Both are something else", [c for c in classes.values() if c not in named],
        format_func=lambda c: c.name, index=None, key="check_other", placeholder="Choose a class",
    )  # fmt: skip
    if other is not None:
        st.button(
            f"Both are {frame.plain(other.name)}", key="check_both_other", width="stretch",
            disabled=not asked.here.annotator, on_click=_both, args=(asked, both, other),
        )  # fmt: skip
    if not asked.here.annotator:
        st.caption("Say who you are (left) to give labels.")


def _both(asked: Reviewed, both: list[ImageDetail], choice: ClassView) -> None:
    """Give both images one label: whichever has it already is not touched."""
    client = f"pair-{secrets.token_hex(8)}"
    events = [
        {"client": client, "seq": k + 1, "image_id": image.id, "kind": "label",
         "class_id": choice.id, "source": "review", "action": client, "sha": image.sha256[:8]}
        for k, image in enumerate(both)
        if image.class_id != choice.id
    ]  # fmt: skip
    with frame.guard():
        for image in both:
            now = images.get_image(asked.here.app.store, image_id=image.id)
            if now.rev != image.rev:
                st.session_state[DONE] = Done(
                    f"Somebody labelled {frame.plain(image.name)} a moment ago; nothing was stored."
                    " Look again."
                )
                return
        _send(asked, events, Done(f"Both are {frame.plain(choice.name)} now.", events))


def _undo(asked: Reviewed, done: Done) -> None:
    client = f"pair-{secrets.token_hex(8)}"
    events = [
        {"client": client, "seq": k + 1, "image_id": event["image_id"], "kind": "undo",
         "source": "review", "action": client,
         "target": {"client": event["client"], "seq": event["seq"]}}
        for k, event in enumerate(done.events)
    ]  # fmt: skip
    with frame.guard():
        _send(asked, events, Done("Taken back."))


def _send(asked: Reviewed, events: list[dict[str, Any]], done: Done) -> None:
    """Store label events, and note for the page what came of it."""
    receipt = labels.record_events(
        asked.here.app.store, project_id=asked.project.id, annotator=asked.here.annotator,
        events=events,
    )  # fmt: skip
    if receipt.rejected:
        done = Done(f"It was not stored: {frame.plain(receipt.rejected[0].reason)}")
    st.session_state[DONE] = done


def _apart(asked: Reviewed, pair: tuple[int, int]) -> None:
    with frame.guard():
        quality.set_apart(
            asked.here.app.store, project_id=asked.project.id, pair=pair, who=asked.here.annotator
        )
        st.session_state[DONE] = Done("Noted as different pictures.")
