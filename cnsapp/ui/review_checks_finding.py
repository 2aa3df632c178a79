"""Review, one check: its figures, and its images where wrong labels can be corrected at once."""

from __future__ import annotations

from dataclasses import dataclass

import streamlit as st

from cnsapp.domain.findings import MOST_IMAGES, Finding
from cnsapp.domain.slices import REST
from cnsapp.services import audit, images, labels, viewing
from cnsapp.services.audit import AuditView
from cnsapp.services.images import ImageItem
from cnsapp.ui import frame, review_checks_pairs, review_checks_words
from cnsapp.ui.labeller import Badge, Reviewing, labeller
from cnsapp.ui.review_asked import Reviewed
from cnsapp.ui.tables import text

PAGE = 50
FEW, FEW_HEIGHT = 10, 470
WHICH = {
    "worse group": "Its wrong images, first come first",
    "odd images": "The oddest first",
    "unknown images": "The farthest from everything labelled first",
    "shortcut": "Images that the model gets wrong just as the shortcut does",
    "inseparable": "Images of these classes",
    "drift": "New images, those most unlike the old ones first",
    "shift": "New images, those that moved most first",
}


@dataclass(frozen=True)
class Opened:
    """A finding that is looked at."""

    asked: Reviewed
    view: AuditView
    number: int

    @property
    def finding(self) -> Finding:
        """The finding itself."""
        return self.view.findings[self.number]

    @property
    def sign(self) -> str:
        """What tells it apart from others in the session."""
        return f"{self.asked.project.id}_{self.view.made_at}_{self.number}"


def draw(asked: Reviewed, view: AuditView, number: int) -> None:
    """Draw one finding with its figures and its images."""
    opened = Opened(asked, view, number)
    finding = opened.finding
    st.html(
        f"{review_checks_words.mark(finding)}<h3>{text(finding.title)}</h3>"
        f"<div>{text(finding.sentence)}</div>"
        f'<div class="cns-muted" style="margin-top:.35rem">{text(finding.advice)}</div>'
    )
    review_checks_words.figures_of(finding)
    if (group := group_of(finding)) is not None:
        st.button(
            "Open the sheet of this group", icon=":material/article:", key="check_group",
            on_click=_to_group, args=(group,),
        )  # fmt: skip
    if finding.kind == "different labels":
        review_checks_pairs.draw(asked, finding, opened.sign)
    elif finding.image_ids:
        _images(opened)
    else:
        st.info(
            "No single images stand behind this. Filter by it under Images, Browse."
            if finding.n_images == 0 and finding.kind != "worse group"
            else "None of its images is wrong by itself: the row stands for many small values."
        )


def group_of(finding: Finding) -> str | None:
    """Return the group that does worse; None where it is a column, no group, or many small ones."""
    value = finding.figures.get("value")
    if finding.kind != "worse group" or finding.figures.get("column") != "Group":
        return None
    return value if isinstance(value, str) and not value.startswith(REST) else None


def _to_group(name: str) -> None:
    """Go to the sheet of a group, in the view “By class”."""
    st.query_params.pop("finding", None)
    st.query_params["sheet"] = "Group"
    st.query_params["sheet_group"] = name
    st.session_state["view"] = "By class"


def _images(opened: Opened) -> None:
    """Draw a page of the images behind a finding."""
    store, finding = opened.asked.here.app.store, opened.finding
    as_of = labels.high_water(store)  # before the images, see `labeller`
    listed = len(finding.image_ids)
    key = f"check_page_{opened.sign}"
    page = min(int(st.session_state.get(key, 0)), (listed - 1) // PAGE)
    items = audit.finding_images(
        store, project_id=opened.asked.project.id, number=opened.number, page=page,
        page_size=PAGE, made_at=opened.view.made_at,
    )  # fmt: skip
    with st.container(horizontal=True, vertical_alignment="center", key="check_images"):
        st.markdown(f"**{WHICH.get(finding.kind, 'Images')}**", width="content")
        first = page * PAGE
        told = f"{first + 1:,} to {first + len(items):,} of {listed:,}"
        if finding.n_images > listed:
            told += f" listed (there are {finding.n_images:,}; a list holds {MOST_IMAGES:,})"
        st.caption(told, width="content")
        if listed > PAGE:
            _pager(key, page, listed)
    show_to_correct(opened.asked, items, as_of, key="check_labeller", badges=_badges(opened, items))


def _pager(key: str, page: int, listed: int) -> None:
    last = (listed - 1) // PAGE
    for name, icon, to in (
        ("Previous", "chevron_left", page - 1),
        ("Next", "chevron_right", page + 1),
    ):
        st.button(
            name, icon=f":material/{icon}:", key=f"check_{name.lower()}",
            disabled=not 0 <= to <= last, on_click=st.session_state.__setitem__, args=(key, to),
        )  # fmt: skip


def _badges(opened: Opened, items: list[ImageItem]) -> dict[int, Badge]:
    """Return how far each odd image lies, where the finding says so."""
    finding = opened.finding
    scores = finding.figures.get("scores")
    if not isinstance(scores, list):
        return {}
    far = dict(zip(finding.image_ids, scores, strict=False))
    return {
        item.id: Badge(f"{score:.2f} × the usual limit")
        for item in items
        if (score := far.get(item.id)) is not None
    }


def show_to_correct(
    asked: Reviewed,
    items: list[ImageItem],
    as_of: int,
    *,
    key: str,
    badges: dict[int, Badge] | None = None,
    empty: str = "None of these images is there any more.",
) -> None:
    """Draw images in the labelling component; opening one goes to Explain."""
    store, project = asked.here.app.store, asked.project
    answer = labeller(
        key=key,
        mode="review",
        images=items,
        classes=asked.classes,
        project_id=project.id,
        annotator=asked.here.annotator,
        counts=images.counts(store, project_id=project.id),
        as_of=as_of,
        badges=badges,
        empty=empty,
        height=FEW_HEIGHT if len(items) <= FEW else None,
        um_per_px=viewing.um_per_px(store, project_id=project.id),
        review=Reviewing(asked.model.id, asked.truth, asked.part),
    )
    if answer.opened is not None:
        frame.go_to("pages/explain.py", model=asked.model.id, image=answer.opened)


def correct(asked: Reviewed, title: str, items: list[ImageItem], as_of: int) -> None:
    """Draw a switch that opens images for correction."""
    if st.toggle(title, key="correct_here"):
        show_to_correct(asked, items, as_of, key="correct_labeller")
