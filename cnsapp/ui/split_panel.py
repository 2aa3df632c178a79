"""The split of a project, on the Train page: what is kept together, the lock, who looked, pins."""

from __future__ import annotations

import streamlit as st

from cnsapp.services import splits
from cnsapp.services.projects import ProjectView
from cnsapp.services.split_counts import ClassInParts
from cnsapp.services.splits import PARTS, PartCounts, SplitView, Ties
from cnsapp.ui import frame, words
from cnsapp.ui.frame import Here
from cnsapp.ui.tables import Column, swatch, table, text, when

TITLES = {"train": "Train", "validation": "Validation", "test": "Test"}
MEANS = {
    "train": "What models learn from",
    "validation": "What fine-tuning stops by; part of the training images otherwise",
    "test": "Locked: takes part in no training and no choice, and is scored at the very end",
}
CHOOSE = "Groups if there are any, else neighbouring file names"
SCHEMES = {
    CHOOSE: "",
    "Groups (patients, slides)": "by group",
    "Neighbouring file names": "by file-name blocks",
    "Values of a column": "by column",
    "Nothing: images at random": "random",
}
WHAT_FOR = (
    "A locked test set is a part of the images that no training and no choice ever sees. Its score "
    "is the one to publish: all other figures were looked at while choosing. Without one, models "
    "are scored by folds."
)
STAYS = "Where it is"
SHOWN_LOOKS, SHOWN_SAID = 8, 8
WIDTH = 860  # pixels: figures stay near the names of their classes


def panel(here: Here, project: ProjectView) -> None:
    """Draw how it stands, and the panel, closed; what is in it is counted once it is opened."""
    with st.container(gap="small", key="split_place"):
        st.caption(f":material/lock: {frame.plain(standing(here, project))}")
        # a title that changed would be another panel, and close under the hand that uses it
        box = st.expander("Test set and parts", key="split_panel", on_change="rerun")
        if box.open:
            with box:
                draw(here, project)


def standing(here: Here, project: ProjectView) -> str:
    """Return what the split is that training follows, in a line."""
    active = [s for s in splits.list_brief(here.app.store, project_id=project.id) if s.active]
    if not active:
        return "No locked test set: models are scored by folds alone."
    n = words.plural(active[0].n_test, "image")
    looks = active[0].n_uses
    looked = f"looked at {words.times(looks)}" if looks else "not looked at yet"
    return f"Locked test set: {n}, {looked}."


def draw(here: Here, project: ProjectView) -> None:
    """Draw the panel."""
    with frame.guard():
        found = splits.active_split(here.app.store, project_id=project.id)
        if found is None:
            st.markdown(WHAT_FOR)
            make(here, project)
            older(here, project, None)
            return
        counts = splits.part_counts(here.app.store, split_id=found.id)
        head(found)
        counts_table(counts, found)
        for line in [*found.said, *counts.said][:SHOWN_SAID]:
            st.caption(f":material/info: {frame.plain(line)}")
        looks(here, found)
        pins(here, found)
        with st.expander("Make another split", key="split_again"):
            st.caption(
                "A new test set is drawn; pinned images stay where they are. Looks at test images "
                "that both splits share keep counting: a new name makes nothing unseen."
            )
            make(here, project)
        older(here, project, found)


def head(found: SplitView) -> None:
    """Draw the name, the lock, and what is kept together."""
    by = f" by {found.created_by}" if found.created_by else ""
    st.markdown(
        f"**{frame.plain(found.name)}** · made {words.ago(found.created_at)}{frame.plain(by)} · "
        f":material/lock: the test set is locked: no image enters or leaves it by hand."
    )
    kept = {
        "by group": "Groups and near-duplicates are kept on one side.",
        "by file-name blocks": "Neighbouring file names and near-duplicates are kept on one side.",
        "by column": f"Values of the column {found.column}, groups and near-duplicates are kept on "
        "one side.",
        "random": "Only near-duplicates are kept on one side.",
    }[found.scheme]
    new = (
        f" {words.plural(found.unplaced, 'new image')} will join at the next training: on the side "
        "of their group, others in train."
        if found.unplaced
        else " New images join their group’s side, others train."
    )
    st.caption(frame.plain(kept + new))


def counts_table(counts: PartCounts, found: SplitView) -> None:
    """Draw classes by parts, with n and the groups they come from."""
    parts = [part for part in PARTS if found.n[part] or found.shares[part]]
    columns = [
        Column("Class"), *(Column(TITLES[p], number=True, help=MEANS[p]) for p in parts),
    ]  # fmt: skip
    rows = []
    for row in (*counts.classes, counts.unlabelled, counts.together):
        if row is counts.unlabelled and not any(row.n.values()):
            continue
        name = swatch(row.color) + text(row.name) if row.color else f"<i>{text(row.name)}</i>"
        rows.append([name, *(_cell(row, part, counts) for part in parts)])
    with st.container(width=WIDTH, key="split_counts"):
        table(columns, rows)


def _cell(row: ClassInParts, part: str, counts: PartCounts) -> str:
    n, groups = row.n[part], row.n_groups[part]
    if not n:
        return words.NONE
    if not counts.has_groups:
        return f"{n:,}"
    return f'{n:,} <span style="opacity:.6">from {words.plural(groups, "group")}</span>'


def looks(here: Here, found: SplitView) -> None:
    """Draw how often the test images were looked at, by whom, and at which model."""
    listed = splits.uses(here.app.store, split_id=found.id, limit=SHOWN_LOOKS)
    if not listed:
        st.caption(":material/visibility_off: The test images were not looked at yet.")
        return
    newest = listed[0]
    model = f", model {newest.model_name}" if newest.model_name else ""
    said = (
        f"Looked at {words.times(found.n_uses)}; last {words.ago(newest.at)} by "
        f"{newest.who or 'somebody'}{model}."
    )
    st.caption(f":material/visibility: {frame.plain(said)}")
    with st.expander("Looks at the test images", key="split_looks"):
        st.caption(
            "Each look that changes what is done next makes the test score a little too good. "
            "Report the number beside the score."
        )
        table(
            [Column("Who"), Column("Model"), Column("Why"), Column("By way of"),
             Column("When", number=True)],
            [
                [text(u.who or words.NONE), text(u.model_name or words.NONE),
                 text(u.purpose or words.NONE), text(u.split_name), when(u.at)]
                for u in listed
            ],
        )  # fmt: skip
        if found.n_uses > len(listed):
            st.caption(f"The newest {len(listed)} of {found.n_uses}.")


def make(here: Here, project: ProjectView) -> None:
    """Draw what would be kept together, the button, and the choices behind it."""
    ties = splits.count_ties(here.app.store, project_id=project.id)
    st.caption(frame.plain(what_ties(ties)))
    place = st.container()
    with st.expander("Choose otherwise", key="split_choices"):
        left, middle, right = st.columns(3)
        validation = left.number_input(
            "Validation, %", 0, 90, 20, 5, key="split_validation", help=MEANS["validation"]
        )
        test = middle.number_input("Test, %", 0, 90, 20, 5, key="split_test", help=MEANS["test"])
        seed = right.number_input(
            "Seed", 0, 2**31 - 1, 0, key="split_seed", help="The same seed gives the same split."
        )
        kept = st.selectbox("Kept together", list(SCHEMES), key="split_scheme")
        column = ""
        if SCHEMES[kept] == "by column":
            if ties.columns:
                column = st.selectbox("Column", ties.columns, key="split_column")
            else:
                st.caption("This project has no columns: bring in a table under Images first.")
        name = st.text_input("Name", key="split_name", placeholder="Named by number", max_chars=200)
    train = 100 - int(validation) - int(test)
    said = f"{validation} % validation, {test} % test" if validation else f"{test} % test"
    pressed = place.button(
        f"Lock a test set away: {max(train, 0)} % train, {said}",
        key="split_make",
        icon=":material/lock:",
        disabled=ties.n_images == 0,
    )
    if pressed:
        with frame.guard(), st.spinner("Dividing the images…"):
            splits.create_split(
                here.app.store,
                project_id=project.id,
                name=name,
                shares={
                    "train": train / 100, "validation": validation / 100, "test": test / 100,
                },
                seed=int(seed),
                scheme=SCHEMES[kept],
                column=column or "",
                who=here.annotator,
            )  # fmt: skip
            st.rerun()


def what_ties(ties: Ties) -> str:
    """Return what would be kept together and why, in words."""
    if ties.n_images == 0:
        return "There are no images yet."
    if ties.n_groups == 1 and not ties.n_alone:
        return (
            "All images come from one group, and what belongs together is kept on one side: "
            "nothing can be locked away. Give each patient or slide a group of its own, under "
            "Images."
        )
    if ties.n_groups:
        said = (
            f"Kept together: the images of each of {words.plural(ties.n_groups, 'group')}, since a "
            "model that knows a patient is no judge of that patient."
        )
        if ties.n_alone:
            said += f" {words.plural(ties.n_alone, 'image')} without a group count each for itself."
    else:
        said = (
            "No image has a group (patient, slide, animal), so runs of neighbouring file names are "
            "kept together; the scores may still be too good. Groups come in under Images."
        )
    if ties.n_pairs:
        said += (
            f" So are {words.plural(ties.n_pairs, 'pair')} that look the same, unless you set them "
            "apart."
        )
    return said


def older(here: Here, project: ProjectView, found: SplitView | None) -> None:
    """Draw the way to another split of the project, or to none."""
    others = [
        s for s in splits.list_brief(here.app.store, project_id=project.id)
        if found is None or s.id != found.id
    ]  # fmt: skip
    if not others and found is None:
        return
    with st.container(horizontal=True, vertical_alignment="bottom", key="split_older_row"):
        if others:
            names = {
                s.id: f"{s.name} · {words.plural(s.n_test, 'test image')} · looked at "
                f"{words.times(s.n_uses)}"
                for s in others
            }
            chosen = st.selectbox(
                "Earlier splits", list(names), key="split_older", format_func=names.__getitem__,
                width=420,
            )  # fmt: skip
            if st.button("Use this one", key="split_activate"):
                with frame.guard():
                    splits.activate(here.app.store, split_id=int(chosen))
                    st.rerun()
        if found is not None and st.button(
            "Use no split",
            key="split_off",
            help="Every labelled image is learnt from, also those of the test set; folds score. "
            "The split stays and can be used again.",
        ):
            with frame.guard():
                splits.deactivate(here.app.store, project_id=project.id)
                st.rerun()


def pins(here: Here, found: SplitView) -> None:
    """Draw the pinned images and a way to pin more."""
    named = words.plural(found.n_pinned, "pinned image") if found.n_pinned else "Pin images"
    with st.expander(named, key="split_pins"):
        st.caption(
            "A pinned image, and all that is kept together with it, stays in its part when another "
            "split is made. Between train and validation it can be moved; the test set is locked."
        )
        with st.container(horizontal=True, vertical_alignment="bottom", key="split_pin_row"):
            kind = st.segmented_control(
                "Pin", ["Image", "Group"], key="split_pin_kind", default="Image", required=True
            )
            name = st.text_input(
                "Name", key="split_pin_name", width=300,
                placeholder="liver/12.png" if kind == "Image" else "patient 7",
            )  # fmt: skip
            part = st.selectbox(
                "Part", [STAYS, "train", "validation"], key="split_pin_part", width=160
            )
            pressed = st.button("Pin", key="split_pin", disabled=not name.strip())
        if pressed:
            with frame.guard():
                ids = splits.find_members(
                    here.app.store, project_id=found.project_id, names=[name.strip()],
                    as_groups=kind == "Group",
                )  # fmt: skip
                splits.pin_images(
                    here.app.store, split_id=found.id, image_ids=ids,
                    part=None if part == STAYS else part,
                )  # fmt: skip
                st.rerun()
        listed = splits.list_pinned(here.app.store, split_id=found.id)
        if listed:
            table(
                [Column("Image"), Column("Group"), Column("Part")],
                [[text(n), text(g or words.NONE), text(p)] for _, n, g, p in listed],
            )
            names = {i: n for i, n, _, _ in listed}
            with st.container(horizontal=True, vertical_alignment="bottom", key="split_unpin_row"):
                gone = st.multiselect(
                    "Remove pins", list(names), format_func=names.__getitem__, width=420,
                    key="split_unpin_ids",
                )  # fmt: skip
                if st.button("Remove", key="split_unpin", disabled=not gone):
                    with frame.guard():
                        splits.unpin_images(here.app.store, split_id=found.id, image_ids=gone)
                        st.rerun()
