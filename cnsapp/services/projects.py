"""Projects: make, list and find them. What changes their classes is in `classes`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import func, select

from cnsapp.domain.names import name_key
from cnsapp.errors import InvalidInputError, NotFoundError
from cnsapp.services.class_rows import ClassView, add_row, checked_name, list_classes, specs_of
from db.models import LabelClass, Project, Tally
from db.session import Store

__all__ = [
    "ClassView",
    "ProjectView",
    "create_project",
    "get_project",
    "list_classes",
    "list_projects",
]


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
    specs = specs_of(classes, scheme)
    shown = checked_name(name, "project")
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
            add_row(session, project.id, spec)
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


def _view(project: Project, counts: dict[str, int], n_classes: int) -> ProjectView:
    return ProjectView(
        id=project.id,
        name=project.name,
        n_images=counts.get("images", 0),
        n_labelled=counts.get("state:label", 0),
        n_classes=n_classes,
        created_at=project.created_at,
    )
