"""Class schemes as files: what one would change, taking it in as one step, and writing one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from cnsapp.domain.hotkeys import find_conflict
from cnsapp.domain.names import clean_name, name_key
from cnsapp.domain.scheme_files import Scheme, read_scheme, write_csv, write_json
from cnsapp.domain.schemes import SCHEMES, ClassSpec
from cnsapp.errors import InvalidInputError
from cnsapp.services.class_changes import ClassChange, begin, record
from cnsapp.services.class_rows import (
    ClassView,
    active_rows,
    add_row,
    checked_parent,
    class_view,
    list_classes,
)
from cnsapp.services.projects import get_project
from db.models import LabelClass
from db.session import Store

Format = Literal["json", "csv"]


@dataclass(frozen=True)
class Row:
    """What taking a scheme in does with one class: `added`, `changed` or `same`."""

    what: Literal["added", "changed", "same"]
    spec: ClassSpec
    class_id: int | None
    changes: tuple[str, ...] = ()  # in words


@dataclass(frozen=True)
class Preview:
    """What taking a scheme in would do. Classes that it does not name stay as they are."""

    rows: tuple[Row, ...]
    kept: tuple[str, ...]  # classes that the scheme does not name
    notes: tuple[str, ...]

    @property
    def n_added(self) -> int:
        """How many classes are new."""
        return sum(row.what == "added" for row in self.rows)

    @property
    def n_changed(self) -> int:
        """How many classes get another group, colour, key, description or spelling."""
        return sum(row.what == "changed" for row in self.rows)


def built_in(name: str) -> Scheme:
    """Return a scheme that comes with the app."""
    if name not in SCHEMES:
        raise InvalidInputError(
            f"There is no class scheme “{name}”.", "", f"Choose one of: {', '.join(SCHEMES)}."
        )
    return Scheme(tuple(SCHEMES[name]), name)


def read_file(data: bytes, file_name: str) -> Scheme:
    """Return the scheme that a file holds; raise InvalidInputError when it is none."""
    return read_scheme(data, file_name)


def preview_scheme(store: Store, *, project_id: int, scheme: Scheme) -> Preview:
    """Return what taking the scheme in would change."""
    return _preview(list_classes(store, project_id=project_id), scheme)


def apply_scheme(store: Store, *, project_id: int, scheme: Scheme, who: str) -> ClassChange:
    """Add and change the classes that a scheme names, as one step that one undo takes back.

    Raises
    ------
    InvalidInputError
        Nothing would change.
    """
    with store.writing() as session:
        before = begin(session, project_id)
        rows = {row.id: row for row in active_rows(session, project_id)}
        there = [class_view(row) for row in rows.values()]
        plan = _preview(there, scheme)
        for row in plan.rows:  # free the keys that change hands first
            if row.class_id is not None and row.spec.hotkey:
                rows[row.class_id].hotkey = None
        for row in plan.rows:
            if row.class_id is not None:
                _change(rows[row.class_id], row.spec, list(rows.values()))
        new = [row.spec for row in plan.rows if row.class_id is None]
        made = {  # keys that the scheme gives come before those that are chosen for it
            spec.name: add_row(session, project_id, spec)
            for spec in sorted(new, key=lambda spec: not spec.hotkey)
        }
        for place, spec in enumerate(
            new, start=min((r.position for r in made.values()), default=0)
        ):
            made[spec.name].position = place
        name = f"“{scheme.name}”" if scheme.name else "from a file"
        words = f"Took in the class scheme {name}: {plan.n_added} added, {plan.n_changed} changed"
        done = record(session, project_id, before, kind="imported", who=who, words=words)
        if done is None:
            raise InvalidInputError(
                "The scheme changes nothing: all its classes are there as it has them."
            )
        return done


def export_scheme(store: Store, *, project_id: int, kind: Format = "json") -> bytes:
    """Return the classes of a project as the content of a file."""
    classes = list_classes(store, project_id=project_id)
    specs = [ClassSpec(c.name, c.parent, c.color, c.hotkey, c.description) for c in classes]
    if kind == "csv":
        return write_csv(specs)
    return write_json(specs, get_project(store, project=project_id).name)


def _preview(there: Sequence[ClassView], scheme: Scheme) -> Preview:
    by_key = {name_key(view.name): view for view in there}
    named = {name_key(spec.name) for spec in scheme.classes}
    kept = [view for view in there if name_key(view.name) not in named]
    notes = [f"Not taken in, as it means nothing here: {part}." for part in scheme.ignored]
    rows = []
    for spec in scheme.classes:
        for view in kept:
            keys = {view.name: view.hotkey, spec.name: spec.hotkey}
            if view.hotkey and spec.hotkey and find_conflict(keys):
                notes.append(
                    f"“{spec.name}” does not get the key {spec.hotkey}: “{view.name}”, which the "
                    f"scheme does not name, has {view.hotkey}."
                )
                spec = replace(spec, hotkey=None)
                break
        rows.append(_row(by_key.get(name_key(spec.name)), spec))
    rows, more = _without_clashes(rows, there)
    return Preview(tuple(rows), tuple(view.name for view in kept), (*notes, *more))


def _without_clashes(
    rows: Sequence[Row], there: Sequence[ClassView]
) -> tuple[list[Row], list[str]]:
    """A class keeps the key it has where the scheme gives none; one that another gets, it loses."""
    given = {row.spec.name: row.spec.hotkey for row in rows if row.spec.hotkey}
    by_id = {view.id: view for view in there}
    found, notes = [], []
    for row in rows:
        view = by_id.get(row.class_id or 0)
        if view is not None and view.hotkey and not row.spec.hotkey:
            other = next(
                (n for n, key in given.items() if find_conflict({n: key, view.name: view.hotkey})),
                None,
            )
            if other is not None:
                notes.append(
                    f"“{view.name}” loses its key {view.hotkey}: the scheme gives “{other}” the "
                    f"key {given[other]}."
                )
                words = (*row.changes, f"no key (was {view.hotkey})")
                row = replace(row, what="changed", spec=replace(row.spec, hotkey=""), changes=words)
        found.append(row)
    return found, notes


def _row(view: ClassView | None, spec: ClassSpec) -> Row:
    if view is None:
        return Row("added", spec, None)
    changes = []
    if clean_name(spec.name) != view.name:
        changes.append(f"spelt {clean_name(spec.name)} (was {view.name})")
    for word, new, old in (
        ("group", spec.parent, view.parent),
        ("colour", spec.color, view.color),
        ("key", spec.hotkey, view.hotkey),
    ):
        if new and new != old:
            changes.append(f"{word} {new} (was {old or 'none'})")
    if spec.description and spec.description != view.description:
        changes.append("description")
    return Row("changed" if changes else "same", spec, view.id, tuple(changes))


def _change(row: LabelClass, spec: ClassSpec, others: Sequence[LabelClass]) -> None:
    row.name = clean_name(spec.name)
    row.parent = checked_parent(spec.parent, others) if spec.parent else row.parent
    row.color = spec.color or row.color
    row.description = spec.description or row.description
    if spec.hotkey is not None:
        row.hotkey = spec.hotkey or None
