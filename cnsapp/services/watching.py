"""Watched folders: where an instrument writes into, what the last look at it found, and stopping.

The looking itself is done by the worker, in `cnsapp.tasks.watching`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy import select

from cnsapp.bootstrap import App
from cnsapp.errors import InvalidInputError, NotFoundError
from cnsapp.services.import_plan import FOLDERS, make_plan
from cnsapp.services.import_source import find_source, is_allowed
from cnsapp.services.labels import clean_annotator
from db.models import Project, WatchedFolder
from db.session import Store


@dataclass(frozen=True)
class Waiting:
    """A file of a watched folder that is not in the project, and why."""

    file: str
    reason: str
    given_up: bool = False  # until it changes


@dataclass(frozen=True)
class WatchedView:
    """A watched folder as pages and commands show it."""

    id: int
    project_id: int
    path: str
    active: bool
    labels: str | None
    group_from: str | None
    link: bool
    looked_at: datetime | None
    created_by: str
    created_at: datetime
    n_files: int = 0  # in the folder at the last look
    imported: int = 0  # since it is watched
    last_import_at: str | None = None
    n_waiting: int = 0
    waiting: list[Waiting] = field(default_factory=list)  # the first ones
    problem: str | None = None  # why the last look saw nothing


def watch_folder(
    app: App,
    *,
    project_id: int,
    folder: Path,
    labels: str | None = None,
    group_from: str | None = None,
    link: bool = False,
    annotator: str = "",
    allowed_roots: Sequence[Path] | None = None,
) -> WatchedView:
    """Watch a folder: its files are imported as they appear, by the rules of `import_folder`.

    Watching a folder again takes the new choices.

    Raises
    ------
    InvalidInputError
        It is no folder, may not be read, or the choices cannot be used.
    NotFoundError
        There is no such project.
    """
    real = find_source(app, folder, allowed_roots)
    if not real.is_dir():
        raise InvalidInputError(f"{real} is a file, not a folder.", "", "Name its folder.")
    roots = None if allowed_roots is None else [str(root) for root in allowed_roots]
    make_plan(real, labels, group_from, lambda table: is_allowed(app, table, allowed_roots))
    settings = {
        "labels": labels,
        "group_from": group_from,
        "link": link,
        "annotator": clean_annotator(annotator or "watched folder"),
        "allowed_roots": roots,
    }
    with app.store.writing() as session:
        if session.get(Project, project_id) is None:
            raise NotFoundError(f"There is no project number {project_id}.")
        row = session.scalar(
            select(WatchedFolder).where(
                WatchedFolder.project_id == project_id, WatchedFolder.path == str(real)
            )
        )
        if row is None:
            row = WatchedFolder(project_id=project_id, path=str(real), created_by=annotator)
            session.add(row)
        row.settings, row.active = settings, True
        row.state = {**(row.state or {}), "problems": {}}  # the new rules may suit them
        session.flush()
        return _view(row)


def stop_watching(store: Store, *, project_id: int, folder: str) -> WatchedView:
    """Look at a folder no longer; what was imported stays. NotFoundError when it is not watched."""
    wanted = {folder, str(Path(folder).expanduser().resolve())}
    with store.writing() as session:
        row = session.scalar(
            select(WatchedFolder).where(
                WatchedFolder.project_id == project_id, WatchedFolder.path.in_(wanted)
            )
        )
        if row is None:
            raise NotFoundError(
                f"The folder {folder} is not watched.", "", "`watch --project NAME` lists them."
            )
        row.active = False
        return _view(row)


def list_watched(store: Store, *, project_id: int, active_only: bool = True) -> list[WatchedView]:
    """Return the watched folders of a project, the oldest first."""
    query = select(WatchedFolder).where(WatchedFolder.project_id == project_id)
    if active_only:
        query = query.where(WatchedFolder.active.is_(True))
    with store.reading() as session:
        return [_view(row) for row in session.scalars(query.order_by(WatchedFolder.id))]


def in_words(view: WatchedView) -> str:
    """Return the rules of a watched folder in words."""
    labels = {None: "no labels", FOLDERS: "labels from folders"}.get(
        view.labels, f"labels from {view.labels}"
    )
    groups = f", groups from {view.group_from}" if view.group_from else ""
    return f"{labels}{groups}, {'linked' if view.link else 'copied'}"


def _view(row: WatchedFolder) -> WatchedView:
    settings: dict[str, Any] = row.settings or {}
    state: dict[str, Any] = row.state or {}
    return WatchedView(
        id=row.id,
        project_id=row.project_id,
        path=row.path,
        active=row.active,
        labels=settings.get("labels"),
        group_from=settings.get("group_from"),
        link=bool(settings.get("link")),
        looked_at=row.looked_at,
        created_by=row.created_by or "",
        created_at=row.created_at,
        n_files=int(state.get("n_files", 0)),
        imported=int(state.get("imported", 0)),
        last_import_at=state.get("last_import_at"),
        n_waiting=int(state.get("n_waiting", 0)),
        waiting=[Waiting(**item) for item in state.get("waiting", [])],
        problem=state.get("problem"),
    )
