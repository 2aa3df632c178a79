"""Trained models: list them, which is current, trust in their files, what changed since."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy import ColumnElement, Select, and_, case, delete, func, or_, select
from sqlalchemy.orm import Session

from cnsapp.bootstrap import App
from cnsapp.errors import CnsError, NotFoundError
from cnsapp.services.class_names import ClassToday, Output, classes_today, outputs_of, what_changed
from db.models import Image, Job, LabelEvent, Model, Prediction
from db.queries import CHUNK, chunks
from db.session import Store


@dataclass(frozen=True)
class ModelView:
    """A model as pages and commands show it; `class_ids` in the order of its outputs."""

    id: int
    project_id: int
    name: str
    preset: str
    backbone: str
    created_at: datetime
    metrics: dict[str, Any]
    class_ids: list[int]
    class_names: list[str]  # as the classes are called today, one an output
    outputs: list[Output]  # what it can answer today: outputs of merged classes together
    told: list[str]  # what became of its classes since: renamed, merged, deleted
    settings: dict[str, Any]
    n_images: int
    job_id: int | None
    path: str
    sha256: str
    is_current: bool = False  # what is used where no model is named
    archived: bool = False
    promoted_at: datetime | None = None
    note: str = ""
    split_id: int | None = None
    rerun_of: int | None = None  # the model whose record this one was made from again

    @property
    def seed(self) -> int:
        """Of folds, heads and changes to the images."""
        return int(self.settings.get("options", {}).get("seed", 0))


@dataclass(frozen=True)
class Changes:
    """What happened to the labels since a model was trained."""

    n_changed: int  # labelled otherwise now
    n_new: int  # labelled after the model was made
    n_removed: int  # without a label now
    image_ids: list[int]  # a sample of them, changed ones first

    @property
    def total(self) -> int:
        """All images whose label the model does not know as it is now."""
        return self.n_changed + self.n_new + self.n_removed


def list_models(
    store: Store, *, project_id: int, archived: bool = False, also: int | None = None
) -> list[ModelView]:
    """Return the models of a project, the newest first.

    Parameters
    ----------
    archived
        Also those that were put into the archive; pickers do not offer them.
    also
        This one even when it is archived: somebody named it.
    """
    wanted = select(Model).where(Model.project_id == project_id, Model.ready.is_(True))
    if not archived:
        wanted = wanted.where(or_(Model.archived.is_(False), Model.id == also))
    with store.reading() as session:
        rows = session.scalars(wanted.order_by(Model.id.desc())).all()
        return _views(session, rows, project_id)


def get_model(store: Store, *, model_id: int, project_id: int | None = None) -> ModelView:
    """Return one model; raise NotFoundError when there is none (in that project)."""
    with store.reading() as session:
        row = session.get(Model, model_id)
        elsewhere = row is not None and project_id not in (None, row.project_id)
        if row is None or not row.ready or elsewhere:
            where = " in this project" if project_id is not None else ""
            raise NotFoundError(
                f"There is no model number {model_id}{where}.", "", "List them with `models`."
            )
        return _views(session, [row], row.project_id)[0]


def told_apart(models: Sequence[ModelView]) -> dict[int, str]:
    """Return the names of models by number; where two are called the same, with the number."""
    names = [model.name for model in models]
    return {m.id: m.name if names.count(m.name) == 1 else f"{m.name} (no. {m.id})" for m in models}


def current_model(store: Store, *, project_id: int) -> ModelView:
    """Return the model that is used where none is named; raise NotFoundError without any.

    The one promoted last, else the newest; archived ones never.
    """
    with store.reading() as session:
        found = current_id(session, project_id)
    if found is None:
        raise NotFoundError(
            "This project has no model yet.", "", "Train one first: label images, then Train."
        )
    return get_model(store, model_id=found)


def current_id(session: Session, project_id: int) -> int | None:
    """Return the number of the current model, or None: the one rule for what is current."""
    return session.scalar(
        select(Model.id)
        .where(Model.project_id == project_id, Model.ready.is_(True), Model.archived.is_(False))
        .order_by(Model.promoted_at.is_(None), Model.promoted_at.desc(), Model.id.desc())
        .limit(1)
    )


def discard_unready(store: Store, *, job_id: int) -> None:
    """Remove what a run that was killed had written of its model's rows, a little at a time."""
    with store.reading() as session:
        ids = session.scalars(
            select(Model.id).where(Model.job_id == job_id, Model.ready.is_(False))
        ).all()
    for model_id in ids:
        mine = select(Prediction.id).where(Prediction.model_id == model_id).limit(CHUNK)
        left = True
        while left:
            with store.writing() as session:
                part = session.scalars(mine).all()
                session.execute(delete(Prediction).where(Prediction.id.in_(part)))
            left = bool(part)
        with store.writing() as session:
            session.execute(delete(Model).where(Model.id == model_id, Model.ready.is_(False)))


def find_model_file(app: App, *, model: ModelView) -> Path:
    """Return where a model's file is; raise CnsError when it is gone. Its content is not read."""
    path = app.store.path(model.path)
    if not path.is_file():
        raise CnsError(
            f"The file of model “{model.name}” is missing: {path}.",
            "Nothing can be predicted or explained with it.",
            "Put the file back from a backup, or train again.",
        )
    return path


def check_model_file(app: App, *, model_id: int) -> Path:
    """Return the file of a model after comparing it with the SHA-256 noted when it was made.

    Raises
    ------
    CnsError
        The file is gone, or is not the one that was trained.
    """
    view = get_model(app.store, model_id=model_id)
    path = find_model_file(app, model=view)
    if file_sha256(path) != view.sha256:
        raise CnsError(
            f"The file of model “{view.name}” was altered after training: {path}.",
            "Its predictions could be anything, so it is not used.",
            "Put the original back from a backup, or train again.",
        )
    return path


def labels_changed_since(store: Store, *, model_id: int, sample: int = 200) -> Changes:
    """Compare the labels a model was trained on with those of today."""
    view = get_model(store, model_id=model_id)
    with store.reading() as session:
        moved = changed_ids(view).where(Image.current_state == "label")
        gone = changed_ids(view).where(Image.current_state != "label")
        seen = select(Prediction.image_id).where(
            Prediction.model_id == model_id, Prediction.image_id == Image.id
        )
        new = select(Image.id).where(
            Image.id.in_(_touched_since(view)),
            Image.status == "ok",
            Image.current_state == "label",
            ~seen.exists(),
        )
        counts, ids = [], list[int]()
        for statement in (moved, gone, new):
            n = session.scalar(select(func.count()).select_from(statement.subquery()))
            counts.append(n or 0)
            part = statement.order_by(Image.id).limit(max(0, sample - len(ids)))
            ids += session.scalars(part).all()
    n_changed, n_removed, n_new = counts
    return Changes(n_changed, n_new, n_removed, ids)


def changed_ids(model: ModelView) -> Select[int]:
    """Return the statement for the images that are labelled otherwise now than at training.

    Only images that got an event since are looked at: milliseconds, however many there are.
    """
    return (
        select(Image.id)
        .join(Prediction, Prediction.image_id == Image.id)
        .where(
            Prediction.model_id == model.id,
            Image.id.in_(_touched_since(model)),
            is_changed(model),
        )
    )


def _touched_since(model: ModelView) -> Select[int]:
    return select(LabelEvent.image_id).where(
        LabelEvent.id > int(model.settings.get("last_event_id", 0)),
        LabelEvent.project_id == model.project_id,
    )


def is_changed(model: ModelView) -> ColumnElement[bool]:
    """Return the condition for "labelled otherwise now than at training" (Prediction x Image).

    That a class was renamed, merged or deleted since is no change of the label.
    """
    expected = as_today(Prediction.label_class_id, model)
    moved = or_(Image.current_state != "label", Image.current_class_id != expected)
    deleted = [output.class_id for output in model.outputs if output.deleted]
    if not deleted:
        return moved
    gone = Prediction.label_class_id.in_(deleted)
    return or_(and_(gone, Image.current_state == "label"), and_(~gone, moved))


def as_today(column: Any, model: ModelView) -> ColumnElement[int | None]:
    """Return the class ids of a column as what they count as today; deleted ones stay."""
    moved = {
        model.class_ids[place]: output.class_id
        for output in model.outputs
        for place in output.places
        if model.class_ids[place] != output.class_id
    }
    return case(moved, value=column, else_=column) if moved else column


def means(column: Any, class_id: int, model: ModelView) -> ColumnElement[bool]:
    """Return the condition that a column of class ids counts as this class today."""
    ids = [
        model.class_ids[place]
        for output in model.outputs
        if output.class_id == class_id
        for place in output.places
    ]
    wanted: ColumnElement[bool] = column.in_({class_id, *ids})
    return wanted


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal digits, read in pieces."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def _views(session: Session, rows: Sequence[Model], project_id: int) -> list[ModelView]:
    today = classes_today(session, project_id)
    current = current_id(session, project_id)
    job_ids = [row.job_id for row in rows if row.job_id is not None]
    asked = {
        job_id: payload.get("rerun_of")
        for part in chunks(job_ids)
        for job_id, payload in session.execute(select(Job.id, Job.payload).where(Job.id.in_(part)))
    }
    return [_view(row, today, current, asked.get(row.job_id)) for row in rows]


def _view(
    row: Model, today: dict[int, ClassToday], current: int | None, rerun_of: int | None
) -> ModelView:
    class_ids = [int(i) for i in row.class_ids]
    then = {
        int(score["class_id"]): str(score["name"])
        for score in row.metrics.get("per_class", [])
        if "class_id" in score and "name" in score
    }
    return ModelView(
        id=row.id,
        project_id=row.project_id,
        name=row.name,
        preset=row.preset,
        backbone=row.backbone,
        created_at=row.created_at,
        metrics=row.metrics,
        class_ids=class_ids,
        class_names=[today[i].name if i in today else f"class {i}" for i in class_ids],
        outputs=outputs_of(class_ids, today),
        told=what_changed(class_ids, then, today),
        settings=row.settings,
        n_images=int(row.settings.get("n_images", row.metrics.get("n", 0))),
        job_id=row.job_id,
        path=row.path,
        sha256=row.sha256,
        is_current=row.id == current,
        archived=row.archived,
        promoted_at=row.promoted_at,
        note=row.note,
        split_id=row.split_id,
        rerun_of=rerun_of,
    )
