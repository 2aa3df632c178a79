"""What changed from an older model to a newer one, image by image."""

from __future__ import annotations

from typing import cast

import streamlit as st

from cnsapp.errors import InvalidInputError
from cnsapp.services import images, labels, models
from cnsapp.services.changes import (
    Cursor,
    Outcome,
    OutcomeCounts,
    TwoModels,
    comparable_models,
    outcome_images,
    two_models,
)
from cnsapp.services.comparing import Judged
from cnsapp.services.comparing_words import shown_p, signed
from cnsapp.services.models import ModelView
from cnsapp.ui import frame, words
from cnsapp.ui.labeller import PAGE_SIZE, Badge, Reviewing
from cnsapp.ui.review_asked import Reviewed
from cnsapp.ui.review_changes_gallery import draw_gallery, page_at, pager
from cnsapp.ui.tables import Column, swatch, table, text

OUTCOMES: dict[Outcome, tuple[str, str]] = {
    "fixed": ("Fixed", "wrong before, right now"),
    "broken": ("Broken", "right before, wrong now"),
    "still_wrong": ("Still wrong", "both are wrong"),
    "both_right": ("Both right", "before and now"),
}
ALLOWED = "changes_allowed"  # in the session: comparisons on the test set that were asked for


def draw_models(asked: Reviewed, row: st.delta_generator.DeltaGenerator) -> None:
    """Draw the other model, what the newer one fixed and broke, and the images of each outcome."""
    pair = _choose(asked, row)
    if pair is None or not _may_compare(asked, pair):
        return
    older, newer = pair
    try:
        with st.spinner("Comparing the two models image by image…"):
            found = two_models(
                asked.here.app.store, older=older.id, newer=newer.id, part=asked.part,
                project_id=asked.project.id, who=asked.here.annotator,
            )  # fmt: skip
    except InvalidInputError as error:
        st.info(f"**These two cannot be compared.** {frame.plain(str(error))}")
        return
    _counts(found)
    icon = ":material/trending_up:" if found.pair.shown else ":material/drag_handle:"
    st.markdown(f"{icon} {frame.plain(verdict(found))}")
    with st.expander("By class, and how this was compared", key="changes_how"):
        _by_class(found)
        for note in found.comparison.notes:
            st.markdown(f"- {frame.plain(note)}")
    _images(asked, found)


def _choose(
    asked: Reviewed, row: st.delta_generator.DeltaGenerator
) -> tuple[ModelView, ModelView] | None:
    """Draw the choice of the other model; return both, the older one first."""
    store, model = asked.here.app.store, asked.model
    others = comparable_models(store, model=model, part=asked.part)
    if not others:
        st.info(_why_none(asked))
        return None
    by_id = {m.id: m for m in others}
    names = models.told_apart([model, *others])
    picked = row.selectbox(
        f"{frame.plain(names[model.id])}, compared with", list(by_id),
        key=f"changes_other_{model.id}",
        format_func=lambda i: f"{names[i]} · {words.ago(by_id[i].created_at)}", width=380,
    )  # fmt: skip
    other = by_id.get(picked, others[0])
    return (other, model) if other.id < model.id else (model, other)


def _why_none(asked: Reviewed) -> str:
    """Return why there is no model to compare with."""
    known = models.list_models(asked.here.app.store, project_id=asked.project.id)
    if len(known) < 2:
        return (
            "What changed takes two models, and this project has one. Correct labels or add "
            "images, train again, and see here what the new model fixed and what it broke."
        )
    where = "in the locked test set" if asked.part == "test" else "that it had not seen"
    none = "The other model cannot"
    if len(known) > 2:
        none = f"None of the other {len(known) - 1:,} models can"
    return (
        f"{none} be compared with this one: "
        f"both must have judged images {where} and share two classes."
    )


def _may_compare(asked: Reviewed, pair: tuple[ModelView, ModelView]) -> bool:
    """Ask before a comparison on the locked test set: it is a look at it for both models."""
    if asked.part != "test":
        return True
    sign = (pair[0].id, pair[1].id)
    allowed: set[tuple[int, int]] = st.session_state.setdefault(ALLOWED, set())
    if sign in allowed:
        return True
    with st.container(horizontal=True, vertical_alignment="center", gap="medium"):
        st.caption(
            ":material/lock: A comparison on the locked test set is a look at it for both models, "
            "and counted. Choose between models by the held-out folds.", width="stretch",
        )  # fmt: skip
        if st.button("Compare on the test set", key="changes_test"):
            allowed.add(sign)
            st.rerun()
    return False


def _counts(found: TwoModels) -> None:
    older, newer = (frame.plain(name) for name in found.comparison.names)
    n, groups = found.all.n, found.comparison.found.n_groups
    of = f" from {words.plural(groups, 'group')}" if groups else ""
    st.markdown(f"From **{older}** to **{newer}**, on {words.plural(n, 'image')}{of} that both "
                "judged without having learnt from them:")  # fmt: skip
    cells = "".join(
        f'<div><div class="cns-muted cns-small">{title}</div>'
        f'<div class="cns-big">{_count(found.all, outcome):,}</div>'
        f'<div class="cns-sub">{under} · {words.percent(_count(found.all, outcome) / n, 1)}</div>'
        "</div>"
        for outcome, (title, under) in OUTCOMES.items()
    )
    st.html('<div style="display:grid;grid-template-columns:repeat(4,1fr);gap:24px">'
            f"{cells}</div>")  # fmt: skip


def verdict(found: TwoModels) -> str:
    """Return whether the newer model is better, the gain counted for the newer one."""
    p, gain = found.pair.p_holm, found.gain
    if gain is None or found.interval is None or p is None:
        return found.said
    low, high = map(signed, found.interval)
    figures = (
        f"{signed(gain)} in balanced accuracy, 95 % interval {low} to {high}, p = {shown_p(p)}"
    )
    older, newer = found.comparison.names
    if found.pair.shown:
        return f"“{newer}” is {'better' if gain > 0 else 'worse'} than “{older}”: {figures}."
    return (
        f"No difference shown: “{newer}” has {figures}. That is not the same as being equal: "
        "differences within the interval are possible."
    )


def _count(counts: OutcomeCounts, outcome: Outcome) -> int:
    return int(getattr(counts, outcome))


def _by_class(found: TwoModels) -> None:
    table(
        [
            Column("Label of today"),
            Column("Images", number=True),
            *(Column(title, number=True, help=under) for title, under in OUTCOMES.values()),
        ],
        [
            [swatch(c.color) + text(c.name), f"{c.n:,}",
             *(f"{_count(c, outcome):,}" for outcome in OUTCOMES)]
            for c in found.by_class
        ],
    )  # fmt: skip


def _images(asked: Reviewed, found: TwoModels) -> None:
    """Draw the images of one outcome, of all labels or one."""
    usual = next((o for o in OUTCOMES if _count(found.all, o)), "fixed")
    with st.container(horizontal=True, vertical_alignment="bottom", key="changes_top"):
        picked = st.segmented_control(
            "Images", list(OUTCOMES), key="changes_outcome", default=usual, required=True,
            format_func=lambda o: f"{OUTCOMES[o][0]} ({_count(found.all, o):,})",
        )  # fmt: skip
        outcome = cast(Outcome, picked or usual)
        names = {c.class_id: c.name for c in found.comparison.classes}
        label = st.selectbox(
            "Label", [None, *names], key="changes_label", width=200,
            format_func=lambda i: "All labels" if i is None else names[i],
        )  # fmt: skip
        place = st.container(horizontal=True, width="content")
    store = asked.here.app.store
    as_of = labels.high_water(store)
    ids = tuple(m.id for m in found.comparison.models)
    sign = f"{ids}/{asked.part}/{outcome}/{label}"
    after: Cursor | None = page_at("changes", sign)
    page = outcome_images(
        store, found, outcome=outcome, class_id=label, after=after, limit=PAGE_SIZE
    )
    pager("changes", place, page.after)
    asked_of = found.comparison.models[0 if outcome == "fixed" else 1]  # the one to look into
    draw_gallery(
        asked, key="changes_gallery", items=[j.item for j in page.items], as_of=as_of,
        counts=images.counts(store, project_id=asked.project.id),
        badges={j.item.id: badge(j, names) for j in page.items},
        model=asked_of, review=Reviewing(asked_of.id, truth="current", part=asked.part),
        empty=f"No image is {OUTCOMES[outcome][0].lower()}.",
    )  # fmt: skip


def badge(judged: Judged, names: dict[int, str]) -> Badge:
    """Return what the older model said and what the newer one says, and how sure they are."""
    older, newer = (
        f"{names.get(class_id, 'another class')} {sure:.2f}"
        for class_id, sure in (
            (judged.first_id, judged.first_sure), (judged.second_id, judged.second_sure),
        )
    )  # fmt: skip
    right = judged.second_id == judged.label_id
    return Badge(f"{older} → {newer}", "plain" if right else "wrong")
