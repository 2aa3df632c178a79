"""The classes of a project: add, rename, recolour, order, merge, delete, split; all of it undone.

No label is changed by any of it. A merged or deleted class stays as a row that labels and models
name; the images it concerns are decided anew in short transactions (`settling`).
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from sqlalchemy import select
from sqlalchemy.orm import Session

from cnsapp.domain.hotkeys import check_hotkeys, suggest_hotkeys
from cnsapp.domain.names import clean_name, name_key
from cnsapp.domain.schemes import ClassSpec, clean_color
from cnsapp.errors import InvalidInputError, NotFoundError
from cnsapp.services import bulk
from cnsapp.services.class_changes import ClassChange, Rows, begin, record
from cnsapp.services.class_rows import (
    ClassView,
    SameNameError,
    active_rows,
    add_row,
    checked_description,
    checked_key,
    checked_name,
    checked_parent,
    find_class,
    free_name_key,
    list_classes,
    refuse_same,
    specs_of,
)
from cnsapp.services.class_undo import (
    Progress,
    list_changes,
    redo_class_change,
    restore_class,
    undo_class_change,
)
from cnsapp.services.settling import settle, to_settle
from cnsapp.services.suggestion_runs import refresh_soon
from cnsapp.services.undoing import CLASS_ACTION
from db.deciding import consensus_rule
from db.models import Image, LabelClass, Project
from db.queries import chunks
from db.session import Store

__all__ = [
    "ClassChange",
    "ClassView",
    "SameNameError",
    "add_class",
    "add_classes",
    "change_class",
    "delete_class",
    "find_class",
    "list_changes",
    "list_classes",
    "merge_classes",
    "move_class",
    "redo_class_change",
    "rename_class",
    "restore_class",
    "sort_classes",
    "split_class",
    "suggest_keys",
    "undo_class_change",
]


def add_class(
    store: Store,
    *,
    project_id: int,
    name: str,
    who: str,
    parent: str | None = None,
    color: str | None = None,
    hotkey: str | None = None,
    description: str = "",
) -> ClassChange:
    """Add a class at the end; colour and key are the first free ones where none are named.

    Raises
    ------
    InvalidInputError
        The name is empty or there already, or the key is reserved or another class's.
    """
    spec = ClassSpec(name, parent, color, hotkey, description)
    with _changing(store, project_id) as (session, before):
        row = add_row(session, project_id, spec)
        return _noted(session, project_id, before, "added", who, f"Added “{row.name}”", row.id)


def add_classes(
    store: Store,
    *,
    project_id: int,
    who: str,
    classes: Sequence[str] | None = None,
    scheme: str | None = None,
) -> ClassChange:
    """Add several classes, or those of a built-in scheme, at the end: all of them or none.

    Raises
    ------
    InvalidInputError
        There is none to add, the scheme is unknown, or a name is empty, there already, or twice.
    """
    specs = specs_of(classes, scheme)
    if not specs:
        raise InvalidInputError("No class is named.", "", "Type at least one name.")
    with _changing(store, project_id) as (session, before):
        rows = [add_row(session, project_id, spec) for spec in specs]
        words = f"Added {_listed([row.name for row in rows])}"
        only = rows[0].id if len(rows) == 1 else None
        return _noted(session, project_id, before, "added", who, words, only)


def find_or_add_classes(
    session: Session, project_id: int, names: Sequence[str], who: str
) -> dict[str, int]:
    """Return the class id for each name, adding the classes that are not there yet."""
    known = {row.name_key: row.id for row in active_rows(session, project_id)}
    if new := [name for name in names if name_key(name) not in known]:
        before = begin(session, project_id)
        for name in new:
            if name_key(name) not in known:
                known[name_key(name)] = add_row(session, project_id, ClassSpec(name)).id
        words = f"Added {_listed(new)}, named by an import"
        record(session, project_id, before, kind="added", who=who, words=words)
    return {name: known[name_key(name)] for name in names}


def rename_class(
    store: Store, *, class_id: int, name: str, who: str, merge: bool = False
) -> ClassChange:
    """Give a class another name; its labels and its models stay with it.

    Raises
    ------
    SameNameError
        Another class has the name (but for case, blanks or Unicode form): `other` says which. With
        `merge` this class is merged into that one instead.
    """
    shown = checked_name(name, "class")
    try:
        with _changing_class(store, class_id) as (session, row, before):
            refuse_same(session, row.project_id, shown, but=class_id)
            words = f"Renamed “{row.name}” to “{shown}”"
            row.name, row.name_key = shown, name_key(shown)
            return _noted(session, row.project_id, before, "changed", who, words, class_id)
    except SameNameError as error:
        if not merge or error.other is None:
            raise
        return merge_classes(store, class_id=class_id, into=error.other.id, who=who)


def change_class(store: Store, *, class_id: int, who: str, **changes: str | None) -> ClassChange:
    """Change color, hotkey, parent or description; None or an empty text takes it away.

    Raises
    ------
    InvalidInputError
        It is no colour, or the key is reserved or excludes the key of another class.
    """
    with _changing_class(store, class_id) as (session, row, before):
        others = [one for one in active_rows(session, row.project_id) if one.id != class_id]
        said = []
        for field, value in changes.items():
            new = _checked(field, value, row, others)
            setattr(row, field, new)
            said.append(f"{WORDS[field]} {new}" if new and field != "description" else WORDS[field])
        words = f"“{row.name}”: {', '.join(said)}"
        return _noted(session, row.project_id, before, "changed", who, words, class_id)


WORDS = {"color": "colour", "hotkey": "key", "parent": "group", "description": "description"}


def _checked(
    field: str, value: str | None, row: LabelClass, others: Sequence[LabelClass]
) -> str | None:
    if field == "color":
        return clean_color(value or "")
    if field == "hotkey":
        return checked_key(row.name, value, others)
    if field == "parent":
        return checked_parent(value, others)
    if field == "description":
        return checked_description(value or "")
    raise TypeError(f"a class has no {field} that can be changed so")


def move_class(
    store: Store, *, class_id: int, who: str, by: int = 0, to: int | None = None
) -> ClassChange:
    """Move a class up (`by=-1`), down, or to a place (`to=0` is the first)."""
    with _changing_class(store, class_id) as (session, row, before):
        rows = list(active_rows(session, row.project_id))
        at = rows.index(row)
        place = min(max(at + by if to is None else to, 0), len(rows) - 1)
        rows.insert(place, rows.pop(at))
        _number(rows)
        words = f"Moved “{row.name}” to place {place + 1}"
        return _noted(session, row.project_id, before, "ordered", who, words, class_id)


def sort_classes(store: Store, *, project_id: int, who: str) -> ClassChange:
    """Order the classes by group and name; those without a group come last."""
    with _changing(store, project_id) as (session, before):
        rows = active_rows(session, project_id)
        _number(sorted(rows, key=lambda row: (row.parent is None, row.parent or "", row.name_key)))
        return _noted(session, project_id, before, "ordered", who, "Sorted by group and name")


def suggest_keys(store: Store, *, project_id: int, who: str) -> ClassChange:
    """Give all classes keys anew: single ones up to ten, else the group's and then its own."""
    with _changing(store, project_id) as (session, before):
        rows = active_rows(session, project_id)
        keys = suggest_hotkeys([ClassSpec(row.name, row.parent) for row in rows])
        check_hotkeys({row.name: key for row, key in zip(rows, keys, strict=True)})
        for row, key in zip(rows, keys, strict=True):
            row.hotkey = key
        return _noted(session, project_id, before, "changed", who, "Gave all classes keys anew")


def merge_classes(
    store: Store, *, class_id: int, into: int, who: str, progress: Progress = None
) -> ClassChange:
    """Merge a class into another one: its labels count as that one's, for models too."""
    return _take_away(store, class_id, into, who, "merged", progress)


def delete_class(
    store: Store, *, class_id: int, who: str, reassign_to: int | None = None,
    progress: Progress = None,
) -> ClassChange:  # fmt: skip
    """Delete a class; its labels count for `reassign_to`, or for no class when that is None."""
    return _take_away(store, class_id, reassign_to, who, "deleted", progress)


def _take_away(
    store: Store, class_id: int, into: int | None, who: str, kind: str, progress: Progress
) -> ClassChange:
    with _changing_class(store, class_id) as (session, row, before):
        target = _get(session, into) if into is not None else None
        if target is not None and (target.id == row.id or target.project_id != row.project_id):
            raise InvalidInputError(
                f"“{row.name}” cannot be merged into “{target.name}”.",
                "Its labels need another class of the same project.",
                "Choose another class.",
            )
        row.active, row.merged_into = False, target.id if target is not None else None
        row.name_key = free_name_key(row.id)
        words = f"Merged “{row.name}” into “{target.name}”" if target else f"Deleted “{row.name}”"
        if kind == "deleted" and target is not None:
            words = f"Deleted “{row.name}”, its labels count as “{target.name}”"
        to_settle(session.get_one(Project, row.project_id), [row.id])
        done = _noted(session, row.project_id, before, kind, who, words, class_id)
    settle(store, row.project_id, progress)
    refresh_soon(store, project_id=row.project_id)
    return done


def split_class(
    store: Store, *, class_id: int, image_ids: Sequence[int], name: str, who: str
) -> ClassChange:
    """Make a new class of some images of a class: one action, in the same group of classes.

    The images get labels of `who`. Where a vote counts, these decide as an adjudication does.

    Raises
    ------
    InvalidInputError
        No image is named, one is not labelled with the class, or the name is taken.
    """
    ids = sorted(set(image_ids))
    action = f"{CLASS_ACTION}{uuid.uuid4().hex}"
    with _changing_class(store, class_id) as (session, row, before):
        _check_labelled(session, row, ids)
        votes = consensus_rule(session, row.project_id).kind == "majority"
        new = add_row(session, row.project_id, ClassSpec(name, row.parent))
        n = f"{len(ids):,} image{'s' if len(ids) != 1 else ''}"
        words = f"Split “{new.name}” off “{row.name}”: {n}"
        done = _noted(session, row.project_id, before, "split", who, words, new.id, action)
    bulk.label_images(
        store,
        project_id=row.project_id,
        annotator=who,
        image_ids=ids,
        class_id=new.id,
        source="adjudication" if votes else "bulk",
        action=action,
    )
    return done


@contextmanager
def _changing(store: Store, project_id: int) -> Iterator[tuple[Session, Rows]]:
    with store.writing() as session:
        yield session, begin(session, project_id)


@contextmanager
def _changing_class(store: Store, class_id: int) -> Iterator[tuple[Session, LabelClass, Rows]]:
    with store.writing() as session:
        before = begin(session, _get(session, class_id).project_id)
        yield session, _get(session, class_id), before


def _get(session: Session, class_id: int) -> LabelClass:
    row = session.get(LabelClass, class_id)
    if row is None or not row.active:
        raise NotFoundError(
            f"There is no class number {class_id} (any more).",
            "It may have been merged or deleted meanwhile.",
            "Look at the list of changes.",
        )
    return row


def _noted(
    session: Session, project_id: int, before: Rows, kind: str, who: str, words: str,
    class_id: int | None = None, action: str = "",
) -> ClassChange:  # fmt: skip
    done = record(
        session, project_id, before, kind=kind, who=who, words=words, class_id=class_id,
        action=action,
    )  # fmt: skip
    if done is None:
        raise InvalidInputError("Nothing was changed: it is so already.")
    return done


def _check_labelled(session: Session, row: LabelClass, ids: Sequence[int]) -> None:
    if not ids:
        raise InvalidInputError(
            f"No image of “{row.name}” is chosen.", "", "Choose the images of the new class."
        )
    there: set[int] = set()
    for part in chunks(ids):
        there |= set(
            session.scalars(
                select(Image.id).where(Image.id.in_(part), Image.current_class_id == row.id)
            )
        )
    if strangers := len(set(ids) - there):
        raise InvalidInputError(
            f"{strangers:,} of the {len(ids):,} images are not labelled “{row.name}” (any more).",
            "A class can only be split off its own images.",
            "Choose them again.",
        )


def _number(rows: Sequence[LabelClass]) -> None:
    for position, row in enumerate(rows):
        row.position = position


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(f"“{clean_name(name)}”" for name in names[:6])
    return f"{shown} and {len(names) - 6} more" if len(names) > 6 else shown
