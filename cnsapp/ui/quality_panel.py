"""The view "Quality" of the Images page: what to look at before anything is learnt from it."""

from __future__ import annotations

from collections.abc import Callable

import streamlit as st

from cnsapp.domain.flags import FLAGS
from cnsapp.services import exclusion, jobs, projects, quality, training
from cnsapp.services.exclusion import Change
from cnsapp.services.images import ImageItem
from cnsapp.services.projects import ClassView, ProjectView
from cnsapp.services.quality import PAIR_KINDS, Overview, PairImage, PairView
from cnsapp.ui import frame, words
from cnsapp.ui.components import Tile, gallery, thumb_url, ticked, view_url
from cnsapp.ui.frame import Here
from cnsapp.ui.quality_words import PROBLEMS
from cnsapp.ui.tables import swatch, text

PAIRS, TILES = 5, 60  # a page


def quality_panel(here: Here, project: ProjectView, show: Callable[[int], None]) -> None:
    """Draw what was found; `show` opens one image."""
    found = quality.overview(here.app.store, project_id=project.id)
    if not _looked_at(here, project, found):
        return
    _undo_bar(here, project)
    kind = st.session_state.get(_key(project))
    listed = st.empty()  # a place of its own: the list is gone at once when a problem is looked at
    if kind not in found.counts:
        with listed.container():
            _list(project, found)
        return
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        st.button("All problems", icon=":material/arrow_back:", key="quality_back",
                  on_click=_choose, args=(project, None))  # fmt: skip
        n = found.counts[kind]
        st.markdown(f"**{PROBLEMS[kind].title}** · {PROBLEMS[kind].counted(n)}")
    st.caption(PROBLEMS[kind].why)
    if kind in PAIR_KINDS:
        _pairs(here, project, kind, found.counts[kind])
    elif kind in FLAGS:
        _flagged(here, project, kind, found.counts[kind], show)
    else:
        _doubts(found, kind)


def _looked_at(here: Here, project: ProjectView, found: Overview) -> bool:
    """Say how many images were looked at; return whether there is anything to show."""
    running = jobs.list_jobs(
        here.app.store, project_id=project.id, kinds=["features"], active_only=True, limit=1
    )
    if running and found.measured < found.images:
        with st.container(border=True, key="quality_job"):
            frame.job_progress(running[0].id)
    elif found.measured < found.images:
        left = found.images - found.measured
        with st.container(horizontal=True, vertical_alignment="center", gap="small"):
            st.caption(f"{words.plural(left, 'image')} not looked at yet.")
            if st.button("Look at them now", key="quality_scan"):
                training.queue_features(
                    here.app.store, project_id=project.id, requested_by=here.annotator
                )
                st.rerun()
    if not found.measured and not any(found.counts.values()):
        st.info(
            "Here you see duplicates, blurred, empty and odd images. They are looked for in the "
            "background, together with the features, after each import."
        )
        return False
    return True


def _list(project: ProjectView, found: Overview) -> None:
    """Draw the problems that there are, and name those that there are not."""
    there = [kind for kind in PROBLEMS if found.counts.get(kind)]
    if not there:
        st.success(f"Nothing stands out among {words.plural(found.measured, 'image')}.")
    else:
        with st.container(border=True, key="quality_list", gap="small"):
            for place, kind in enumerate(there):
                if place:
                    st.html('<div class="cns-line"></div>')
                _row(project, kind, found.counts[kind])
        clean = [PROBLEMS[k].title.lower() for k in PROBLEMS if not found.counts.get(k)]
        if clean:
            st.caption(f"Looked for and not found: {', '.join(clean)}.")
    if found.excluded:
        st.caption(
            f"{words.plural(found.excluded, 'image')} excluded: in no list, count or training. "
            "Browse shows them under “Excluded”, where they can be restored."
        )
    st.caption(
        "Excluding an image keeps its labels and changes no model that learnt from it: train again "
        "to learn without it."
    )


def _row(project: ProjectView, kind: str, n: int) -> None:
    problem = PROBLEMS[kind]
    what, number, button = st.columns([7, 1.4, 1.1], vertical_alignment="center")
    what.html(
        f"<div><b>{text(problem.title)}</b><br>"
        f'<span class="cns-muted cns-small">{text(problem.why)}</span></div>'
    )
    number.html(f'<div class="num" style="text-align:right">{problem.counted(n)}</div>')
    button.button("Look", key=f"quality_look_{kind}", width="stretch", on_click=_choose,
                  args=(project, kind))  # fmt: skip


def _pairs(here: Here, project: ProjectView, kind: str, n: int) -> None:
    skip = _page(project, kind, n, PAIRS)
    pairs = quality.list_pairs(
        here.app.store, project_id=project.id, kind=kind, limit=PAIRS, skip=skip
    )
    if not pairs:
        st.success("None left.")
        return
    if kind in ("exact", "near"):
        with st.container(horizontal=True, vertical_alignment="center", gap="small"):
            st.button(
                f"Keep the best of each ({n:,})",
                type="primary",
                key="quality_resolve_all",
                on_click=_resolve_all,
                args=(here, project, kind),
            )
            st.caption(
                "Keeps the labelled, then the larger one (✓) and excludes the others. Pairs whose "
                "labels differ are left to you. It can be undone."
            )
    classes = {c.id: c for c in projects.list_classes(here.app.store, project_id=project.id)}
    for pair in pairs:
        _draw_pair(here, project, pair, classes)
    _pager(project, kind, n, PAIRS)


def _draw_pair(
    here: Here, project: ProjectView, pair: PairView, classes: dict[int, ClassView]
) -> None:
    sign = f"{pair.ids[0]}_{pair.ids[1]}"
    with st.container(border=True, key=f"pair_{sign}"):
        left, right, acts = st.columns([3, 3, 2], gap="medium", vertical_alignment="center")
        for column, one in ((left, pair.a), (right, pair.b)):
            with column:
                _half(here, project, pair, one, classes)
        with acts:
            same = pair.similarity >= 1
            alike = words.percent(min(pair.similarity, 0.999), 1)  # 100 % are the same bytes alone
            st.markdown("**The same bytes**" if same else f"**{alike} alike**")
            group = pair.a.item.group or pair.b.item.group
            st.button(
                "Put both into one group", key=f"group_{sign}", width="stretch",
                help=f"Both go into the group “{group}”: no split tears them apart."
                if group else "They get a group of their own: no split tears them apart.",
                on_click=_group, args=(here, project, pair),
            )  # fmt: skip
            st.button(
                "They are different", key=f"apart_{sign}", width="stretch", disabled=same,
                help="The pair is not shown again.", on_click=_apart, args=(here, project, pair),
            )  # fmt: skip


def _half(
    here: Here,
    project: ProjectView,
    pair: PairView,
    one: PairImage,
    classes: dict[int, ClassView],
) -> None:
    item = one.item
    label = classes.get(item.class_id) if item.class_id is not None else None
    called = (
        swatch(label.color) + text(label.name)
        if label
        else words.STATES.get(item.state) or "no label"
    )
    facts = " · ".join(
        part
        for part in (
            f"{item.width:,} × {item.height:,} px",
            f"{text(one.format)} {words.size(one.n_bytes)}".strip(),
            called,
            text(item.group) if item.group else "",
        )
        if part
    )
    st.html(
        f'<img src="{text(view_url(item.id, item.version))}" alt="{text(item.name)}" '
        'class="cns-pair">'
        f'<div class="cns-ellipsis" title="{text(item.name)}">{text(item.name)}</div>'
        f'<div class="cns-muted cns-small">{facts}</div>'
    )
    st.button(
        "Keep this one", key=f"keep_{item.id}_of_{pair.ids[0]}_{pair.ids[1]}", width="stretch",
        icon=":material/check:" if item.id == pair.better else None,
        help="Excludes the other one; its labels stay, and it can be restored.",
        on_click=_keep, args=(here, project, pair, item.id),
    )  # fmt: skip


def _flagged(
    here: Here, project: ProjectView, kind: str, n: int, show: Callable[[int], None]
) -> None:
    skip = _page(project, kind, n, TILES)
    rows = quality.list_flagged(
        here.app.store, project_id=project.id, kind=kind, limit=TILES, skip=skip
    )
    if not rows:
        st.success("None left.")
        return
    key = f"quality_gallery_{kind}"
    chosen = ticked(key)
    shown = [item.id for item, _ in rows]
    ids = [i for i in chosen if i in shown]
    which, are = (f"the {len(ids):,} ticked" if ids else f"all {len(shown):,}"), "are"
    if len(ids or shown) == 1:
        which, are = ("the ticked one" if ids else "this image"), "is"
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        st.button(f"Exclude {which}", key="quality_exclude", type="primary",
                  on_click=_exclude, args=(here, project, kind, ids or shown))  # fmt: skip
        st.button(f"{which[0].upper()}{which[1:]} {are} fine", key="quality_fine",
                  on_click=_fine, args=(here, project, kind, ids or shown))  # fmt: skip
        st.caption("Tick images to choose among them; click one to see it large.")
    classes = {c.id: c for c in projects.list_classes(here.app.store, project_id=project.id)}
    opened = gallery(
        [_tile(item, score, kind, classes) for item, score in rows], key=key, checkable=True
    )
    _pager(project, kind, n, TILES)
    if opened is not None:
        show(opened)


def _tile(item: ImageItem, score: float, kind: str, classes: dict[int, ClassView]) -> Tile:
    c = classes.get(item.class_id) if item.class_id is not None else None
    return Tile(
        item.id, thumb_url(item.id, item.version), item.name, c.name if c else "",
        c.color if c else "", _measure(kind, score, item),
    )  # fmt: skip


def _measure(kind: str, score: float, item: ImageItem) -> str:
    if kind == "blurred":
        return f"{score:.{0 if score >= 10 else 1}f} × softer"
    if kind == "color":
        return f"{score:.0f} SD off"
    if kind == "size":
        return f"{item.width:,} × {item.height:,}"
    return f"{score:.0%}"


def _doubts(found: Overview, kind: str) -> None:
    for doubt in found.doubts:
        if doubt.kind == kind:
            st.markdown(f"- {frame.plain(doubt.sentence)}")
    st.caption("Browse shows the images behind it: filter by class, group or file name.")


def _page(project: ProjectView, kind: str, n: int, size: int) -> int:
    at = int(st.session_state.get(f"quality_at_{project.id}_{kind}", 0))
    return at if at < n else max(0, (n - 1) // size * size)


def _pager(project: ProjectView, kind: str, n: int, size: int) -> None:
    if n <= size:
        return
    at = _page(project, kind, n, size)
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        for label, icon, to in (
            ("Previous", "chevron_left", at - size),
            ("Next", "chevron_right", at + size),
        ):
            st.button(
                label, icon=f":material/{icon}:", key=f"quality_{label}",
                disabled=not 0 <= to < n, on_click=_turn, args=(project, kind, to),
            )  # fmt: skip
        st.caption(f"{at + 1:,} to {min(at + size, n):,} of {n:,}")


def _turn(project: ProjectView, kind: str, to: int) -> None:
    st.session_state[f"quality_at_{project.id}_{kind}"] = to


def _key(project: ProjectView) -> str:
    return f"quality_kind_{project.id}"


def _choose(project: ProjectView, kind: str | None) -> None:
    st.session_state[_key(project)] = kind


def _undo_bar(here: Here, project: ProjectView) -> None:
    done = st.session_state.get(f"quality_done_{project.id}")
    if done is None:
        return
    sentence, action = done
    with st.container(horizontal=True, vertical_alignment="center", gap="small", border=True,
                      key="quality_done"):  # fmt: skip
        st.markdown(sentence)
        st.button("Undo", icon=":material/undo:", key="quality_undo", on_click=_undo,
                  args=(here, project, action))  # fmt: skip


def _did(project: ProjectView, change: Change, sentence: str) -> None:
    st.session_state[f"quality_done_{project.id}"] = (sentence, change.action)


def _undo(here: Here, project: ProjectView, action: str) -> None:
    with frame.guard():
        exclusion.undo(here.app.store, project_id=project.id, action=action, who=here.annotator)
        st.session_state.pop(f"quality_done_{project.id}", None)


def _keep(here: Here, project: ProjectView, pair: PairView, keep: int) -> None:
    with frame.guard():
        done = quality.keep_one(
            here.app.store, project_id=project.id, pair=pair.ids, keep=keep, who=here.annotator
        )
        gone = pair.b if keep == pair.a.item.id else pair.a
        _did(project, done, f"{frame.plain(gone.item.name)} is excluded.")


def _group(here: Here, project: ProjectView, pair: PairView) -> None:
    with frame.guard():
        done = quality.group_pair(
            here.app.store, project_id=project.id, pair=pair.ids, who=here.annotator
        )
        _did(project, done, "Both are in one group.")


def _apart(here: Here, project: ProjectView, pair: PairView) -> None:
    with frame.guard():
        done = quality.set_apart(
            here.app.store, project_id=project.id, pair=pair.ids, who=here.annotator
        )
        _did(project, done, "Noted as different pictures.")


def _resolve_all(here: Here, project: ProjectView, kind: str) -> None:
    with frame.guard():
        done = quality.resolve_all(
            here.app.store, project_id=project.id, kind=kind, who=here.annotator
        )
        n = len(done.image_ids)
        _did(project, done, f"{words.plural(n, 'copy', 'copies')} excluded, the best one of each "
                            "kept.")  # fmt: skip


def _exclude(here: Here, project: ProjectView, kind: str, ids: list[int]) -> None:
    with frame.guard():
        done = exclusion.exclude(
            here.app.store, project_id=project.id, image_ids=ids, who=here.annotator,
            reason=PROBLEMS[kind].title.lower(),
        )  # fmt: skip
        _did(project, done, f"{words.plural(len(done.image_ids), 'image')} excluded.")


def _fine(here: Here, project: ProjectView, kind: str, ids: list[int]) -> None:
    with frame.guard():
        done = quality.mark_fine(
            here.app.store, project_id=project.id, kind=kind, image_ids=ids, who=here.annotator
        )
        _did(project, done, f"{words.plural(len(done.image_ids), 'image')} noted as fine.")
