"""Train: do the labels suffice, and the start of a run. The work is in `cnsapp.tasks.train`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from cnsapp.bootstrap import App
from cnsapp.domain.readiness import ClassCount, assess
from cnsapp.domain.recipe import BACKBONES, PRESETS, check_options
from cnsapp.domain.splits import BY_GROUP, no_groups_to_split_by
from cnsapp.errors import InvalidInputError
from cnsapp.jobs.states import ACTIVE
from cnsapp.services import jobs
from cnsapp.services.file_check import left_out
from cnsapp.services.projects import ClassView, list_classes
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
        The labels do not suffice, a setting is unknown or cannot be met, or a run of this project
        is under way.
    """
    _check_preset(preset, backbone)
    checked = check_options(options or {}, preset)
    found = readiness(app.store, project_id=project_id)
    if not found.ok:
        raise InvalidInputError(
            " ".join(found.problems), "", "Label more images on the Label page, then train."
        )
    if checked.get("scheme") == BY_GROUP and found.n_groups == 0:
        raise no_groups_to_split_by()
    with app.store.writing() as session:  # two clicks at once: the second one sees the first
        _refuse_second(session, project_id)
        return jobs.add_job(
            session,
            kind="train",
            project_id=project_id,
            payload={"preset": preset, "backbone": backbone, "options": checked}
            | ({} if rerun_of is None else {"rerun_of": rerun_of}),
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
    """Return the job number of the run that is queued or running in this project, or None."""
    with store.reading() as session:
        return _first(session, project_id, "train", ACTIVE)


def _first(session: Session, project_id: int, kind: str, states: Sequence[str]) -> int | None:
    return session.scalar(
        select(Job.id)
        .where(Job.project_id == project_id, Job.kind == kind, Job.state.in_(states))
        .limit(1)
    )


def _refuse_second(session: Session, project_id: int) -> None:
    job_id = _first(session, project_id, "train", ACTIVE)
    if job_id is None:
        return
    name = session.scalar(select(Project.name).where(Project.id == project_id))
    raise InvalidInputError(
        f"A training run of “{name}” is under way already (job {job_id}).",
        "Two at once would only slow each other down.",
        f"Wait for it, or stop it first: `cancel {job_id}`.",
    )


def _check_preset(preset: str, backbone: str) -> None:
    if preset not in PRESETS:
        raise InvalidInputError(
            f"There is no preset “{preset}”.", "", f"Use {' or '.join(PRESETS)}."
        )
    if backbone not in BACKBONES:
        raise InvalidInputError(
            f"There is no backbone “{backbone}”.", "", f"Use one of: {', '.join(BACKBONES)}."
        )
