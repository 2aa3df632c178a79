"""Classes as rows: how they are shown, named and made. What changes them is in `classes`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from cnsapp.domain.hotkeys import (
    SECOND_KEYS,
    check_hotkeys,
    clean_hotkey,
    find_conflict,
    free_keys,
)
from cnsapp.domain.names import clean_name, name_key
from cnsapp.domain.schemes import COLORS, MORE_COLORS, SCHEMES, ClassSpec, clean_color, color_for
from cnsapp.errors import InvalidInputError, NotFoundError
from db.models import LabelClass
from db.session import Store

LONGEST_DESCRIPTION = 2000


@dataclass(frozen=True)
class ClassView:
    """A class as pages and commands show it."""

    id: int
    name: str
    parent: str | None
    color: str
    hotkey: str | None
    position: int
    description: str = ""


class SameNameError(InvalidInputError):
    """Two classes would read alike; `other` is the one that has the name."""

    def __init__(self, name: str, other: ClassView | None, there: str) -> None:
        remedy = "Keep one of them, or choose a name that reads differently."
        if other is not None:
            remedy = "Choose a name that reads differently, or merge the two."
        super().__init__(
            f"“{clean_name(name)}” and “{there}” are the same class name: they differ at most by "
            "case, blanks or Unicode form.",
            "Two classes that read alike would be mixed up in labels and results.",
            remedy,
        )
        self.other = other


def list_classes(store: Store, *, project_id: int) -> list[ClassView]:
    """Return the classes of a project in their order."""
    with store.reading() as session:
        return [class_view(row) for row in active_rows(session, project_id)]


def find_class(store: Store, *, project_id: int, name: str) -> ClassView:
    """Return the class of this name; raise NotFoundError when the project has none."""
    classes = list_classes(store, project_id=project_id)
    for view in classes:
        if name_key(view.name) == name_key(name):
            return view
    names = ", ".join(f"“{c.name}”" for c in classes[:12]) or "none yet"
    raise NotFoundError(
        f"The project has no class “{name}”.", f"Its classes: {names}.", "Check the name."
    )


def class_view(row: LabelClass) -> ClassView:
    """Return the plain view of a class row."""
    return ClassView(
        id=row.id,
        name=row.name,
        parent=row.parent,
        color=row.color,
        hotkey=row.hotkey,
        position=row.position,
        description=row.description or "",
    )


def active_rows(session: Session, project_id: int) -> Sequence[LabelClass]:
    """Return the classes that a label may be given, in their order."""
    return session.scalars(
        select(LabelClass)
        .where(LabelClass.project_id == project_id, LabelClass.active)
        .order_by(LabelClass.position, LabelClass.id)
    ).all()


def free_name_key(class_id: int) -> str:
    """Return the made-up key of a class that is gone: its name is free then."""
    return f"\x1f{class_id}"


def specs_of(classes: Sequence[str] | None, scheme: str | None) -> list[ClassSpec]:
    """Return the classes of a built-in scheme and those named; refuse two of the same name."""
    if scheme is not None and scheme not in SCHEMES:
        raise InvalidInputError(
            f"There is no class scheme “{scheme}”.",
            "",
            f"Choose one of: {', '.join(SCHEMES)}; or name the classes yourself.",
        )
    specs = list(SCHEMES[scheme]) if scheme else []
    specs += [ClassSpec(name) for name in classes or []]
    seen: dict[str, str] = {}
    for spec in specs:
        key = name_key(checked_name(spec.name, "class"))
        if key in seen:
            raise SameNameError(spec.name, None, seen[key])
        seen[key] = spec.name
    return specs


def checked_name(name: str, what: str) -> str:
    """Return a name as it is stored; refuse one that is empty, too long or unprintable."""
    shown = clean_name(name)
    if not shown:
        raise InvalidInputError(f"The {what} name is empty.", "", f"Give the {what} a name.")
    if len(shown) > 200:
        raise InvalidInputError(
            f"The {what} name has {len(shown)} characters; 200 is the most.", "", "Shorten it."
        )
    if any(ord(ch) < 32 for ch in shown):
        raise InvalidInputError(
            f"The {what} name {shown!r} holds control characters.",
            "",
            "Type it again without them.",
        )
    return shown


def check_class_name(name: str) -> None:
    """Raise InvalidInputError when no class can have this name: empty, too long, unprintable."""
    checked_name(name, "class")


def checked_parent(parent: str | None, rows: Iterable[LabelClass]) -> str | None:
    """Return the group of classes as it is stored: spelt as another class has it already."""
    shown = clean_name(parent or "")
    if not shown:
        return None
    shown = checked_name(shown, "group")
    there = {name_key(row.parent): row.parent for row in rows if row.parent}
    return there.get(name_key(shown), shown)


def checked_description(text: str) -> str:
    """Return a description as it is stored; refuse one that is too long."""
    shown = text.strip()
    if len(shown) > LONGEST_DESCRIPTION:
        raise InvalidInputError(
            f"The description has {len(shown):,} characters; {LONGEST_DESCRIPTION:,} is the most.",
            "",
            "Shorten it.",
        )
    return shown


def refuse_same(session: Session, project_id: int, name: str, but: int | None = None) -> None:
    """Raise SameNameError when another class of the project has this name."""
    there = session.scalar(
        select(LabelClass).where(
            LabelClass.project_id == project_id,
            LabelClass.name_key == name_key(name),
            LabelClass.active,
        )
    )
    if there is not None and there.id != but:
        raise SameNameError(name, class_view(there), there.name)


def add_row(session: Session, project_id: int, spec: ClassSpec) -> LabelClass:
    """Add a class at the end, with the colour and key it asks for or the first free ones."""
    shown = checked_name(spec.name, "class")
    refuse_same(session, project_id, shown)
    taken = active_rows(session, project_id)
    parent = checked_parent(spec.parent, taken)
    row = LabelClass(
        project_id=project_id,
        name=shown,
        name_key=name_key(shown),
        parent=parent,
        color=clean_color(spec.color) if spec.color else next_color(taken),
        hotkey=checked_key(shown, spec.hotkey, taken) or next_key(taken, parent),
        position=max((row.position for row in taken), default=-1) + 1,
        description=checked_description(spec.description),
    )
    session.add(row)
    session.flush()
    return row


def checked_key(name: str, key: str | None, others: Iterable[LabelClass]) -> str | None:
    """Return the key of a class as stored; refuse one that excludes the key of another class."""
    if not key or not key.strip():
        return None
    shown = clean_hotkey(key)
    for row in others:
        if row.hotkey and find_conflict({row.name: row.hotkey, name: shown}):
            check_hotkeys({row.name: row.hotkey, name: shown})
    return shown


def next_color(taken: Sequence[LabelClass]) -> str:
    """Return the first default colour that no class has; when all are taken, they begin again."""
    used = {row.color.upper() for row in taken}
    free = (color for color in COLORS + MORE_COLORS if color not in used)
    return next(free, color_for(len(taken)))


def next_key(taken: Sequence[LabelClass], parent: str | None) -> str | None:
    """Return a free key: behind the first key of its group where that has one, else one alone."""
    keys = {row.hotkey for row in taken if row.hotkey}
    siblings = [row.hotkey for row in taken if parent and row.parent == parent and row.hotkey]
    if first := next((key[0] for key in siblings if len(key) == 2), None):
        return next((first + key for key in SECOND_KEYS if first + key not in keys), None)
    return next(iter(free_keys(keys)), None)
