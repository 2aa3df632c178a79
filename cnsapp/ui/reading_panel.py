"""How images are read: what can be set for the files there are, seen before it is applied."""

from __future__ import annotations

import hashlib
import json
from concurrent.futures import wait
from dataclasses import replace

import streamlit as st

from cnsapp.errors import CnsError
from cnsapp.imaging.rule import FIRST, MAX, ReadingRule
from cnsapp.imaging.rule_changes import SAMPLE_WORDS, level
from cnsapp.services import reading, reading_levels
from cnsapp.services.projects import ProjectView
from cnsapp.services.reading import Change, Reading
from cnsapp.services.reading_levels import Found, Levels
from cnsapp.ui import frame, reading_channels, reading_looks, words
from cnsapp.ui.frame import Here
from cnsapp.ui.reading_channels import is_whole, level_input, rounded
from cnsapp.ui.tables import Column, table, text

WINDOW_HELP = (
    "A screen and a network see 256 steps from black to white. The window says which sample value "
    "becomes black and which becomes white; what lies outside is clipped. One window for all "
    "images keeps them comparable."
)
FROM_HELP = (
    "An import that brings a kind of samples for the first time fixes its window: over the whole "
    "range of the values, or from the 0.1 to the 99.9 percentile, so that a few bright specks do "
    "not darken all images. By hand: files of a new kind are refused until their window is set "
    "here."
)
PAGE_HELP = (
    "Of a stack, one picture is shown and learnt from. The maximum projection takes the brightest "
    "value of all planes at every point: usual for fluorescence in focus stacks."
)
BACKGROUND_HELP = "The colour that shows where a file is transparent."
FROM_WORDS = {"range": "The range of the data", "percentile": "Percentiles", "fixed": "By hand"}
NUMBER = "number"
PAGE_WORDS = {FIRST: "First page", NUMBER: "Page number", MAX: "Maximum projection"}
PATIENCE = 1.0  # seconds that the page waits for the levels before it goes on without them


def reading_section(here: Here, project: ProjectView) -> None:
    """Draw the section: what is set, what it would change, and what came of the last change."""
    st.subheader("How images are read", anchor=False)
    now = reading.get_reading(here.app.store, project_id=project.id)
    if not now.n_images:
        st.caption("No images yet. Deep, stacked or multi-channel files can be set up here.")
        return
    if now.is_plain:
        st.caption(
            "All images are plain 8-bit pictures: nothing needs to be set. Intensity windows, "
            "pages and channels appear here when an import brings files that have them."
        )
        return
    last_change(here, project, now)
    if now.n_unknown:
        older(here, project, now)
    left, right = st.columns(2, gap="large")
    key = _key(project, now)
    with left:
        wished = controls(here, project, now, key)
    with right, st.container(key="reading_side"):  # stays in sight
        try:
            change = reading.what_changes(here.app, project_id=project.id, rule=wished)
        except CnsError as error:
            frame.show_error(error)
            return
        if wished != now.rule:
            offer(here, project, wished, change)
        reading_looks.looks(here.app, project, None if wished == now.rule else wished)


def older(here: Here, project: ProjectView, now: Reading) -> None:
    """Offer to look again at files that came before their samples and channels were noted."""
    with st.container(horizontal=True, vertical_alignment="center", key="reading_older"):
        st.caption(
            f"{words.plural(now.n_unknown, 'image')} came with an older version: what there is to "
            "set for them is known when they are read again.",
            width="stretch",
        )
        st.button("Read them again", key="reading_read_older", on_click=_go_on,
                  args=(here, project))  # fmt: skip


def _key(project: ProjectView, now: Reading) -> str:
    """Return what the controls are called: another rule, set by anybody, starts them afresh."""
    rule = json.dumps(now.rule.as_json(), sort_keys=True)
    turn = st.session_state.get("reading_turn", 0)
    return f"reading_{project.id}_{hashlib.sha256(rule.encode()).hexdigest()[:8]}_{turn}"


def controls(here: Here, project: ProjectView, now: Reading, key: str) -> ReadingRule:
    """Draw the controls that the project's files need; return the rule as they stand."""
    rule = now.rule
    if now.n_paged:
        rule = replace(rule, page=choose_page(now, key))
    found = levels_of(here, project, rule.page) if now.n_deep or now.n_channelled else None
    if now.n_channelled:
        rule = reading_channels.choose_channels(rule, found, now, key)
    if now.n_deep:
        rule = choose_windows(rule, found, now, key)
    if now.n_transparent:
        color = st.color_picker(
            "Behind transparency",
            now.rule.background,
            key=f"{key}_background",
            help=BACKGROUND_HELP,
        )
        rule = replace(rule, background=color.upper())
    return rule


def choose_page(now: Reading, key: str) -> str:
    """Draw the choice of a page and return it."""
    page = now.rule.page
    with st.container(horizontal=True, vertical_alignment="bottom", key="reading_page_row"):
        chosen = st.segmented_control(
            f"Of stacks ({words.plural(now.n_paged, 'file')})",
            list(PAGE_WORDS),
            format_func=PAGE_WORDS.__getitem__,
            key=f"{key}_page",
            default=page if page in PAGE_WORDS else NUMBER,
            required=True,
            help=PAGE_HELP,
        )
        if chosen != NUMBER:
            return str(chosen)
        n = st.number_input(
            f"Page, 1 to {now.most_pages}",
            1,
            999_999,
            int(page) if page.isdigit() else 1,
            key=f"{key}_page_n",
            width=150,
        )
    return str(int(n))


def levels_of(here: Here, project: ProjectView, page: str) -> Found | None:
    """Return the values that the files hold; None while they are still looked into."""
    future = reading_levels.find_levels(here.app, project_id=project.id, page=page)
    wait([future], timeout=PATIENCE)
    if future.done():
        return future.result()

    def look() -> None:
        if future.done():
            st.rerun()
        st.caption(":material/hourglass_empty: Looking into some of the files…")

    st.fragment(look, run_every=1.0, key="reading_levels")()
    return None


def choose_windows(rule: ReadingRule, found: Found | None, now: Reading, key: str) -> ReadingRule:
    """Draw black and white of every kind of samples, and how new kinds get theirs."""
    seen = {} if found is None else found.levels
    for kind in sorted({*now.samples, *seen}):
        ends = _window(kind, rule.window(kind), seen.get(kind), key)
        if ends is not None:
            rule = rule.with_window(kind, *ends)
    chosen = st.selectbox(
        "New kinds of samples get their window from",
        list(FROM_WORDS),
        list(FROM_WORDS).index(now.rule.windows_from),
        format_func=FROM_WORDS.__getitem__,
        key=f"{key}_from",
        help=FROM_HELP,
        width=300,
    )
    if chosen == "fixed":
        rule = _more_kinds(rule, {*now.samples, *seen}, key)
    return replace(rule, windows_from=chosen or rule.windows_from)


def _more_kinds(rule: ReadingRule, there: set[str], key: str) -> ReadingRule:
    """Let windows be set for kinds of samples that no file has yet."""
    more = st.multiselect(
        "Set a window before the first import of",
        [kind for kind in SAMPLE_WORDS if kind not in there],
        format_func=lambda kind: f"{SAMPLE_WORDS[kind]} samples",
        key=f"{key}_more",
    )
    for kind in more:
        ends = _window(kind, None, None, key)
        if ends is not None:
            rule = rule.with_window(kind, *ends)
    return rule


def _window(
    kind: str, window: tuple[float, float] | None, found: Levels | None, key: str
) -> tuple[float, float] | None:
    """Draw the window of one kind of samples; return it, or None where none is set."""
    name = SAMPLE_WORDS.get(kind, kind)
    st.markdown(f"**Window of {name} samples**", help=WINDOW_HELP)
    turn, start = st.session_state.get(f"{key}_{kind}", (0, window))
    low, high = start or (None, None)
    whole = kind != "float" and is_whole(low, high)
    with st.container(
        horizontal=True, vertical_alignment="bottom", gap="xsmall", key=f"reading_window_{kind}"
    ):
        black = level_input("Black", low, f"{key}_{kind}_low_{turn}", whole, width=104)
        white = level_input("White", high, f"{key}_{kind}_high_{turn}", whole, width=104)
        if found is not None:
            for label, ends, hint in (
                ("Range", found.by_range, "From the smallest to the largest value there may be"),
                ("Percentiles", found.by_percentile, "From the 0.1 to the 99.9 percentile"),
            ):
                st.button(
                    label,
                    key=f"{key}_{kind}_{label}",
                    help=hint,
                    on_click=_start_from,
                    args=(f"{key}_{kind}", turn + 1, rounded(kind, *ends)),
                )
    if found is not None:
        st.caption(_said(found))
    return None if black is None or white is None else (black, white)


def _start_from(key: str, turn: int, ends: tuple[float, float]) -> None:
    """Let the two numbers start afresh: a number that was typed in would stay as it is."""
    st.session_state[key] = (turn, ends)


def _said(found: Levels) -> str:
    files = "One file" if found.n_files == 1 else f"{found.n_files} files"
    low, high = found.by_percentile
    return (
        f"{files} looked into: values from {level(found.low)} to {level(found.high)}; 0.1 and 99.9 "
        f"percentile {level(low)} and {level(high)}."
    )


def offer(here: Here, project: ProjectView, wished: ReadingRule, change: Change) -> None:
    """Say what the change does, and offer to make it or to leave it."""
    with st.container(border=True, key="reading_offer"):
        for line in consequences(change):
            st.markdown(line)
        with st.container(horizontal=True):
            if st.button("Apply…", type="primary", key="reading_apply"):
                confirm(here, project, wished, change)
            st.button("Put back", key="reading_reset", on_click=_start_afresh)


def _start_afresh() -> None:
    st.session_state["reading_turn"] = st.session_state.get("reading_turn", 0) + 1


def consequences(change: Change) -> list[str]:
    """Return what a change of the rule means, as lines of Markdown."""
    lines = []
    if change.differences:
        lines.append("**New:** " + frame.plain("; ".join(change.differences)) + ".")
    if not change.n_images:
        lines.append("No image looks different.")
    else:
        looks = "looks" if change.n_images == 1 else "look"
        features = "its features are" if change.n_images == 1 else "their features are"
        lines.append(
            f"**{words.plural(change.n_images, 'image')} {looks} different**; {features} computed "
            f"again (about {words.duration(change.seconds)})."
        )
    if change.n_unsure:
        lines.append(
            f"{words.plural(change.n_unsure, 'image')} of them came with an older version and "
            "are read again to be sure."
        )
    if change.models:
        names = ", ".join(f"“{frame.plain(m.name)}”" for m in change.models[:5])
        more = f" and {len(change.models) - 5} more" if len(change.models) > 5 else ""
        one = len(change.models) == 1
        lines.append(
            f"{'Model' if one else 'Models'} {names}{more} {'was' if one else 'were'} trained on "
            f"another look. {'It keeps' if one else 'They keep'} reading images as "
            f"{'it' if one else 'they'} learnt them; train again to use the new look."
        )
    return lines


@st.dialog("Read images otherwise?")
def confirm(here: Here, project: ProjectView, wished: ReadingRule, change: Change) -> None:
    """Ask once more, then set the rule."""
    with frame.guard():
        for line in consequences(change):
            st.markdown(line)
        st.caption("Originals and labels stay as they are. It can be put back the same way.")
        if st.button("Apply", type="primary", key="reading_confirm", on_click=_apply,
                     args=(here, project, wished)):  # fmt: skip
            st.rerun()


def last_change(here: Here, project: ProjectView, now: Reading) -> None:
    """Draw the job that reads images again while it runs, and what still has its old picture."""
    job = reading.last_reread(here.app.store, project_id=project.id)
    if job is not None and job.is_active:
        frame.job_progress(job.id)
        return
    left = sum(kind.n for kind in now.kinds if kind.is_known and kind.is_touched(now.rule))
    if not left:
        return
    if job is not None and job.state != "done":
        frame.job_progress(job.id)
    failed = int(job.result.get("n_failed", 0)) if job is not None else 0
    if left > failed:  # stopped before its end, or they came while the rule was changed
        with st.container(horizontal=True, vertical_alignment="center", key="reading_left"):
            st.caption(
                f"{words.plural(left, 'image')} still look as they did before.", width="content"
            )
            st.button("Read the rest", key="reading_go_on", on_click=_go_on, args=(here, project))
    elif job is not None:
        title = f"{words.plural(failed, 'image')} could not be read this way and keep their picture"
        with st.expander(title, key="reading_failed"):
            rows = job.result.get("failed", [])
            table(
                [Column("File"), Column("Why")],
                [[text(row["file"]), text(row["reason"])] for row in rows],
            )


def _go_on(here: Here, project: ProjectView) -> None:
    _apply(here, project, reading.get_reading(here.app.store, project_id=project.id).rule)


def _apply(here: Here, project: ProjectView, rule: ReadingRule) -> None:
    with frame.guard():
        reading.apply_rule(here.app, project_id=project.id, rule=rule, requested_by=here.annotator)
