"""Train: do the labels suffice, and the start of a run. The work is in `cnsapp.tasks.train`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from cnsapp.bootstrap import App
from cnsapp.domain.readiness import ClassCount, assess
from cnsapp.domain.recipe import DEFAULT_BACKBONE, make_recipe
from cnsapp.domain.splits import BY_COLUMN, BY_GROUP, no_groups_to_split_by
from cnsapp.errors import InvalidInputError
from cnsapp.jobs.states import ACTIVE
from cnsapp.services import jobs
from cnsapp.services.backbones import check_backbone
from cnsapp.services.devices import check_wish
from cnsapp.services.file_check import left_out
from cnsapp.services.projects import ClassView, list_classes
from cnsapp.services.split_counts import check_column, check_learning
from db.models import Image, Job, Project
from db.queries import groups_among, read_tally
from db.session import Store


@dataclass(frozen=True)
class Readiness:
    """Whether training can start; the sentences are shown as they are."""

    ok: bool
    problems: list[str]
    warnings: list[str]
    per_class: list[tuple[ClassView, int]]
    n_labelled: int
    n_groups: int
    needed: dict[str, int]  # class name -> labelled images still missing


def readiness(store: Store, *, project_id: int) -> Readiness:
    """Say whether the labels of a project suffice, what is missing, and what would weaken it."""
    classes = list_classes(store, project_id=project_id)
    labelled = (
        Image.project_id == project_id, Image.status == "ok", Image.current_state == "label",
    )  # fmt: skip
    with store.reading() as session:
        tally = read_tally(session, project_id)
        groups = {
            c.id: set(session.scalars(groups_among(*labelled, Image.current_class_id == c.id)))
            for c in classes
        }
        some_image = session.scalar(select(Image.id).where(Image.project_id == project_id).limit(1))
    counts = [ClassCount(c.name, tally.get(f"class:{c.id}", 0), len(groups[c.id])) for c in classes]
    n_groups = len(set().union(*groups.values()))
    verdict = assess(counts, n_images=int(some_image is not None), n_groups=n_groups)
    lost = left_out(store, project_id=project_id)
    return Readiness(
        ok=verdict.ok,
        problems=verdict.problems,
        warnings=[*verdict.warnings, *([lost] if lost else [])],
        per_class=[(c, count.n) for c, count in zip(classes, counts, strict=True)],
        n_labelled=sum(count.n for count in counts),
        n_groups=n_groups,
        needed=verdict.needed,
    )


def start_training(
    app: App,
    *,
    project_id: int,
    preset: str = "quick",
    backbone: str = "efficientnet_lite0",
    options: dict[str, Any] | None = None,
    requested_by: str = "",
    rerun_of: int | None = None,
) -> int:
    """Queue a training run and return its job number.

    `rerun_of` is the model whose record the settings come from, if any.

    Raises
    ------
    InvalidInputError
        The labels do not suffice, a setting is unknown or cannot be met, weights or device are not
        there, or the very same run is under way. Different runs wait in order.
    """
    checked = dict(make_recipe(preset, options).given)
    size = int(checked.get("image_size", 0))
    check_backbone(app.store, backbone=backbone, preset=preset, image_size=size)
    check_wish(str(checked.get("device", "auto")))
    found = readiness(app.store, project_id=project_id)
    if not found.ok:
        raise InvalidInputError(
            " ".join(found.problems), "", "Label more images on the Label page, then train."
        )
    if checked.get("scheme") == BY_GROUP and found.n_groups == 0:
        raise no_groups_to_split_by()
    if checked.get("scheme") == BY_COLUMN:
        check_column(app.store, project_id=project_id, column=str(checked.get("column", "")))
    check_learning(app.store, project_id=project_id)
    payload = {"preset": preset, "backbone": backbone, "options": checked} | (
        {} if rerun_of is None else {"rerun_of": rerun_of}
    )
    with app.store.writing() as session:  # two clicks at once: the second one sees the first
        _refuse_same(session, project_id, payload)
        return jobs.add_job(
            session,
            kind="train",
            project_id=project_id,
            payload=payload,
            requested_by=requested_by,
        )


def queue_features(store: Store, *, project_id: int, requested_by: str = "") -> int | None:
    """Queue the features of a project's images, so that training is quick later.

    Returns None when such a job waits already: it will see the new images too.
    """
    with store.writing() as session:
        if _first(session, project_id, "features", ("queued",)) is not None:
            return None
        return jobs.add_job(
            session, kind="features", project_id=project_id, requested_by=requested_by
        )


def active_training(store: Store, *, project_id: int) -> int | None:
    """Return the run that goes in this project, else the first that waits or is paused, or None."""
    with store.reading() as session:
        return session.scalar(
            select(Job.id)
            .where(Job.project_id == project_id, Job.kind == "train", Job.state.in_(ACTIVE))
            .order_by(Job.state != "running", Job.paused, Job.id)
            .limit(1)
        )


def _first(session: Session, project_id: int, kind: str, states: Sequence[str]) -> int | None:
    return session.scalar(
        select(Job.id)
        .where(Job.project_id == project_id, Job.kind == kind, Job.state.in_(states))
        .limit(1)
    )


def request_of(payload: Mapping[str, Any]) -> dict[str, Any]:
    """Return what decides the outcome of a run; what it is called does not."""
    preset = str(payload.get("preset", "quick"))
    recipe = make_recipe(preset, payload.get("options", {})).as_json()
    recipe.pop("name", None)
    return {"preset": preset, "backbone": payload.get("backbone", DEFAULT_BACKBONE), **recipe}


def same_request(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Say whether two runs would do the same to the same labels.

    Settings that an older version took and this one does not know make them different.
    """
    try:
        return request_of(one) == request_of(other)
    except InvalidInputError:
        return False


def _refuse_same(session: Session, project_id: int, payload: Mapping[str, Any]) -> None:
    """Two people press at once, or one presses twice: that is one run, and the other is told."""
    under_way = session.scalars(
        select(Job)
        .where(Job.project_id == project_id, Job.kind == "train", Job.state.in_(ACTIVE))
        .where(Job.cancel_requested.is_(False))
        .order_by(Job.id)
    )
    same = next((job for job in under_way if same_request(job.payload, payload)), None)
    if same is None:
        return
    name = session.scalar(select(Project.name).where(Project.id == project_id))
    who = f" by {same.requested_by}" if same.requested_by else ""
    begun = f"{same.created_at.astimezone():%H:%M on %d %B}"
    remedy = f"Wait for it, or stop it first: `cancel {same.id}`."
    if same.paused:
        remedy = f"It is paused: `resume {same.id}` lets it go on, `cancel {same.id}` stops it."
    raise InvalidInputError(
        f"This very training run of “{name}” is under way already (job {same.id}), started{who} "
        f"at {begun}.",
        "The same labels, settings and seed would make the same model twice.",
        remedy,
    )
