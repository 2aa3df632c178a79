"""Check a model against simpler methods: ask for it, see how far it is, read what came of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from cnsapp.errors import InvalidInputError, NotFoundError
from cnsapp.jobs.states import ACTIVE
from cnsapp.services import jobs
from cnsapp.services.jobs import JobView
from cnsapp.services.models import ModelView
from db.models import Job, Model
from db.session import Store

KIND = "controls"
AUTOMATIC_UP_TO = 20_000  # images; beyond, hours of a computer are only spent when asked for
TITLES = {  # as in cnsapp.ml.controls_run, which the web process never imports
    "majority": "Always the commonest class",
    "colour_only": "Colour only (six numbers)",
    "handmade_svm": "Colour and texture by hand, SVM",
    "handmade_logistic": "Colour and texture by hand, logistic regression",
    "last_layer": "Last layer, logistic regression",
    "shuffled_labels": "Shuffled labels",
}


@dataclass(frozen=True)
class ControlsView:
    """What is known of a model beside simpler methods.

    Attributes
    ----------
    state
        `none` (never asked for), `waiting`, `running`, `done`, `failed` or `stopped`.
    job
        That computes them or did so last; None when there was none.
    detail
        By key of a control: its figures (see `cnsapp.ml.controls_run.run_control`).
    stain_shift
        The curve, or None.
    notes, warnings
        Sentences.
    """

    state: str
    job: JobView | None
    detail: dict[str, dict[str, Any]] = field(default_factory=dict)
    stain_shift: dict[str, Any] | None = None
    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def queue_controls(
    store: Store, *, model_id: int, requested_by: str = "", again: bool = False
) -> int:
    """Ask for the controls of a model; return the job, also where one was asked for already.

    Parameters
    ----------
    again
        Compute anew what is there already.

    Raises
    ------
    NotFoundError
        There is no such model.
    InvalidInputError
        The model has no score to compare with.
    """
    with store.writing() as session:
        model = _model(session, model_id)
        if not model.metrics.get("n"):
            raise InvalidInputError(
                f"The model “{model.name}” has no score: no image could be held out.",
                "Simpler methods are judged on the same images.",
                "Label more images or give them groups, then train again.",
            )
        for job in _active(session, model.project_id):
            if job.payload.get("model_id") == model_id:
                return job.id
        return jobs.add_job(
            session,
            kind=KIND,
            project_id=model.project_id,
            payload={"model_id": model_id} | ({"again": True} if again else {}),
            requested_by=requested_by,
        )


def follow_training(store: Store, *, model_id: int) -> int | None:
    """Ask for the controls of a model that was trained just now; return the job.

    An earlier automatic check of the project that still waits turns to this model instead: after
    twenty trainings in a row the newest is what matters, and any other can be asked for. None
    where the model has no score or very many images: then only a person asks.
    """
    with store.writing() as session:
        model = session.get(Model, model_id)
        if model is None or not 0 < int(model.metrics.get("n") or 0) <= AUTOMATIC_UP_TO:
            return None
        for job in _active(session, model.project_id):
            if job.payload.get("model_id") == model_id:
                return job.id
            if job.state == "queued" and job.payload.get("automatic"):
                job.payload = {"model_id": model_id, "automatic": True}
                return job.id
        return jobs.add_job(
            session,
            kind=KIND,
            project_id=model.project_id,
            payload={"model_id": model_id, "automatic": True},
        )


def controls_view(store: Store, *, model: ModelView) -> ControlsView:
    """Return what is known; computes nothing."""
    with store.reading() as session:
        found = session.scalars(
            select(Job.id)
            .where(Job.kind == KIND, Job.project_id == model.project_id)
            .where(Job.payload["model_id"].as_integer() == model.id)
            .order_by(Job.id.desc())
            .limit(1)
        ).first()
    job = None if found is None else jobs.get_job(store, job_id=found)
    stored = model.metrics.get("controls_detail") or {}
    shift = model.metrics.get("stain_shift")
    return ControlsView(
        state=_state(job, complete=bool(stored.get("complete"))),
        job=job,
        detail={key: stored[key] for key in TITLES if isinstance(stored.get(key), dict)},
        stain_shift=shift if isinstance(shift, dict) else None,
        notes=[str(line) for line in stored.get("notes", [])],
        warnings=[str(line) for line in stored.get("warnings", [])],
    )


def _state(job: JobView | None, *, complete: bool) -> str:
    if job is not None and job.is_active:
        return "running" if job.state == "running" else "waiting"
    if complete:
        return "done"
    if job is None or job.state == "done":
        return "none"
    return "failed" if job.state == "failed" else "stopped"


def _model(session: Session, model_id: int) -> Model:
    model = session.get(Model, model_id)
    if model is None or not model.ready:
        raise NotFoundError(f"There is no model number {model_id}.", "", "List them with `models`.")
    return model


def _active(session: Session, project_id: int) -> list[Job]:
    return list(
        session.scalars(
            select(Job)
            .where(Job.kind == KIND, Job.project_id == project_id, Job.state.in_(ACTIVE))
            .where(Job.cancel_requested.is_(False))
            .order_by(Job.id)
        )
    )
