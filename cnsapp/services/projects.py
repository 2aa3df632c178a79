"""Projects and their classes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from cnsapp.domain.names import clean_name, name_key
from cnsapp.domain.schemes import SCHEMES, ClassSpec, color_for, hotkey_for
from cnsapp.errors import InvalidInputError, NotFoundError
from db.models import LabelClass, Project, Tally
from db.session import Store


@dataclass(frozen=True)
class ClassView:
    """A class as pages and commands show it."""

    id: int
    name: str
    parent: str | None
    color: str
    hotkey: str | None
    position: int


@dataclass(frozen=True)
class ProjectView:
    """A project with its counts."""

    id: int
    name: str
    n_images: int
    n_labelled: int
    n_classes: int
    created_at: datetime


def create_project(
    store: Store,
    *,
    name: str,
    classes: Sequence[str] | None = None,
    scheme: str | None = None,
) -> ProjectView:
    """Create a project with a built-in scheme, with classes of its own, or with none yet.

    Raises
    ------
    InvalidInputError
        The name is empty or taken, the scheme is unknown, or two class names are the same name.
    """
    specs = _specs(classes, scheme)
    shown = _checked(name, "project")
    with store.writing() as session:
        taken = session.scalar(select(Project.name).where(Project.name_key == name_key(shown)))
        if taken is not None:
            raise InvalidInputError(
                f"There is a project named “{taken}” already.",
                "Two projects of one name cannot be told apart.",
                "Choose another name.",
            )
        project = Project(name=shown, name_key=name_key(shown))
        session.add(project)
        session.flush()
        for spec in specs:
            _add_class(session, project.id, spec)
        return _view(project, {}, len(specs))


def list_projects(store: Store) -> list[ProjectView]:
    """Return all projects, the newest first."""
    with store.reading() as session:
        projects = session.scalars(select(Project).order_by(Project.id.desc())).all()
        counts: dict[int, dict[str, int]] = {}
        for row in session.execute(select(Tally.project_id, Tally.key, Tally.n)):
            counts.setdefault(row[0], {})[row[1]] = row[2]
        n_classes = dict(
            session.execute(
                select(LabelClass.project_id, func.count())
                .where(LabelClass.active)
                .group_by(LabelClass.project_id)
            ).all()
        )
        return [_view(p, counts.get(p.id, {}), n_classes.get(p.id, 0)) for p in projects]


def get_project(store: Store, *, project: int | str) -> ProjectView:
    """Return the project with this id or name; raise NotFoundError when there is none."""
    found = [p for p in list_projects(store) if _is_named(p, project)]
    if not found:
        names = ", ".join(f"“{p.name}”" for p in list_projects(store)[:8]) or "none yet"
        raise NotFoundError(
            f"There is no project “{project}”.",
            f"Projects here: {names}.",
            "Check the name, or make it with `project create`.",
        )
    return found[0]


def _is_named(view: ProjectView, project: int | str) -> bool:
    if isinstance(project, int):
        return view.id == project
    return name_key(view.name) == name_key(project)


def list_classes(store: Store, *, project_id: int) -> list[ClassView]:
    """Return the classes of a project in their order."""
    with store.reading() as session:
        return [class_view(row) for row in _classes(session, project_id)]


def add_class(store: Store, *, project_id: int, name: str, parent: str | None = None) -> ClassView:
    """Add a class at the end; raise InvalidInputError when the name is empty or there already."""
    with store.writing() as session:
        return class_view(_add_class(session, project_id, ClassSpec(name, parent)))


def add_classes(
    store: Store,
    *,
    project_id: int,
    classes: Sequence[str] | None = None,
    scheme: str | None = None,
) -> list[ClassView]:
    """Add several classes, or those of a built-in scheme, at the end: all of them or none.

    Raises
    ------
    InvalidInputError
        The scheme is unknown, or a name is empty, there already, or there twice.
    """
    specs = _specs(classes, scheme)
    with store.writing() as session:
        return [class_view(_add_class(session, project_id, spec)) for spec in specs]


def rename_class(store: Store, *, class_id: int, name: str) -> ClassView:
    """Give a class another name; its labels and its models stay with it."""
    shown = _checked(name, "class")
    with store.writing() as session:
        row = session.get(LabelClass, class_id)
        if row is None:
            raise NotFoundError(f"There is no class number {class_id}.")
        _refuse_same(session, row.project_id, shown, but=class_id)
        row.name, row.name_key = shown, name_key(shown)
        return class_view(row)


def find_or_add_classes(session: Session, project_id: int, names: Sequence[str]) -> dict[str, int]:
    """Return the class id for each name, adding the classes that are not there yet."""
    known = {row.name_key: row.id for row in _classes(session, project_id)}
    found: dict[str, int] = {}
    for name in names:
        key = name_key(name)
        if key not in known:
            known[key] = _add_class(session, project_id, ClassSpec(name)).id
        found[name] = known[key]
    return found


def check_class_name(name: str) -> None:
    """Raise InvalidInputError when no class can have this name: empty, too long, unprintable."""
    _checked(name, "class")


def class_view(row: LabelClass) -> ClassView:
    """Return the plain view of a class row."""
    return ClassView(
        id=row.id,
        name=row.name,
        parent=row.parent,
        color=row.color,
        hotkey=row.hotkey,
        position=row.position,
    )


def _specs(classes: Sequence[str] | None, scheme: str | None) -> list[ClassSpec]:
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
        key = name_key(_checked(spec.name, "class"))
        if key in seen:
            raise _same_name(spec.name, seen[key])
        seen[key] = spec.name
    return specs


def _checked(name: str, what: str) -> str:
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


def _same_name(name: str, there: str) -> InvalidInputError:
    return InvalidInputError(
        f"“{clean_name(name)}” and “{there}” are the same class name: they differ at most by case, "
        "blanks or Unicode form.",
        "Two classes that read alike would be mixed up in labels and results.",
        "Keep one of them, or choose a name that reads differently.",
    )


def _refuse_same(session: Session, project_id: int, name: str, but: int | None = None) -> None:
    there = session.scalar(
        select(LabelClass).where(
            LabelClass.project_id == project_id, LabelClass.name_key == name_key(name)
        )
    )
    if there is not None and there.id != but:
        raise _same_name(name, there.name)


def _add_class(session: Session, project_id: int, spec: ClassSpec) -> LabelClass:
    shown = _checked(spec.name, "class")
    _refuse_same(session, project_id, shown)
    taken = _classes(session, project_id)
    position = max((row.position for row in taken), default=-1) + 1
    row = LabelClass(
        project_id=project_id,
        name=shown,
        name_key=name_key(shown),
        parent=clean_name(spec.parent) if spec.parent else None,
        color=color_for(position),
        hotkey=hotkey_for(position),
        position=position,
    )
    session.add(row)
    session.flush()
    return row


def _classes(session: Session, project_id: int) -> Sequence[LabelClass]:
    return session.scalars(
        select(LabelClass)
        .where(LabelClass.project_id == project_id, LabelClass.active)
        .order_by(LabelClass.position, LabelClass.id)
    ).all()


def _view(project: Project, counts: dict[str, int], n_classes: int) -> ProjectView:
    return ProjectView(
        id=project.id,
        name=project.name,
        n_images=counts.get("images", 0),
        n_labelled=counts.get("state:label", 0),
        n_classes=n_classes,
        created_at=project.created_at,
    )
