"""What may be wrong with the data: ask for a look, see how far it is, read what it found."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import select

from cnsapp.domain.findings import Finding, by_severity
from cnsapp.errors import InvalidInputError, NotFoundError
from cnsapp.jobs.states import ACTIVE
from cnsapp.services import jobs
from cnsapp.services.audit_rows import state_now
from cnsapp.services.images import ImageItem, items_in_order
from cnsapp.services.jobs import JobView
from db.models import Job, Project
from db.session import Store

KIND = "audit"
VERSION = 1  # of the file
PAGE = 50
KEPT = 3  # newest files of a project
CHANGED = {
    "labels": "Labels changed since.",
    "classes": "Classes, or the rule for several readers, changed since.",
    "images": "Images were added, excluded or restored since.",
    "marks": "Groups, notes or other marks of images changed since.",
    "pairs": "Look-alikes were found or decided about since.",
    "columns": "Columns of metadata changed since.",
    "looks": "Images were sorted by looks since.",
    "model": "Another model is the current one since.",
}


@dataclass(frozen=True)
class AuditView:
    """What is known of a project's data.

    Attributes
    ----------
    state
        `none` (never asked for), `waiting`, `running`, `done`, `failed` or `stopped`: of the newest
        job. Findings of an earlier look are there in every state but `none`.
    job
        The newest one, or None.
    made_at
        When the look began that the findings are of; None without one.
    changed
        What changed since, in sentences: with any, the findings may be out of date.
    findings
        The most serious first; their place is the number that `finding_images` takes.
    checked
        Every test that was made, with n and figures, also where nothing was found.
    not_told
        `{part, reason}`: what could not be said, and why.
    """

    state: str
    job: JobView | None
    made_at: datetime | None = None
    changed: list[str] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    checked: list[dict[str, Any]] = field(default_factory=list)
    not_told: list[dict[str, str]] = field(default_factory=list)

    @property
    def is_stale(self) -> bool:
        """Whether something changed that the findings rest on."""
        return bool(self.changed)

    @property
    def counts(self) -> dict[str, int]:
        """How many findings there are of each severity."""
        return dict(Counter(finding.severity for finding in self.findings))


def queue_audit(
    store: Store, *, project_id: int, requested_by: str = "", since: str | None = None
) -> int:
    """Ask for a look through the data; return the job, also where the same one waits or runs.

    Parameters
    ----------
    since
        Day or moment (ISO 8601, UTC where it names no zone) from which images count as new. None:
        the training of the current model.

    Raises
    ------
    InvalidInputError
        `since` is no moment.
    NotFoundError
        There is no such project.
    """
    moment = None if since is None else parse_moment(since).isoformat()
    payload = {} if moment is None else {"since": moment}
    with store.writing() as session:
        active = select(Job).where(
            Job.kind == KIND, Job.project_id == project_id, Job.state.in_(ACTIVE),
            Job.cancel_requested.is_(False),
        )  # fmt: skip
        for job in session.scalars(active.order_by(Job.id)):
            if job.payload == payload:
                return job.id
        return jobs.add_job(
            session,
            kind=KIND,
            project_id=project_id,
            payload=payload,
            requested_by=requested_by,
        )


def parse_moment(text: str) -> datetime:
    """Return a moment in UTC; raise InvalidInputError where it is none."""
    try:
        moment = datetime.fromisoformat(text.strip())
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError):
        raise InvalidInputError(
            f"“{text}” is no day.",
            "Images that came later are compared with those before.",
            "Write it as 2026-11-28 or 2026-11-28T21:05.",
        ) from None


def audit_view(store: Store, *, project_id: int) -> AuditView:
    """Return what is known; computes nothing.

    Raises
    ------
    NotFoundError
        There is no such project.
    """
    stored = _newest(store, project_id)
    with store.reading() as session:
        if session.get(Project, project_id) is None:
            raise NotFoundError(f"There is no project number {project_id}.")
        job_id = session.scalar(
            select(Job.id)
            .where(Job.kind == KIND, Job.project_id == project_id)
            .order_by(Job.id.desc())
            .limit(1)
        )
        now = {} if stored is None else state_now(store, session, project_id)
    job = None if job_id is None else jobs.get_job(store, job_id=job_id)
    state = _state(job, made=stored is not None)
    if stored is None:
        return AuditView(state, job)
    return AuditView(
        state=state,
        job=job,
        made_at=datetime.fromisoformat(stored["made_at"]),
        changed=[said for key, said in CHANGED.items() if stored["state"].get(key) != now[key]],
        findings=_sorted(stored),
        checked=stored["checked"],
        not_told=stored["not_told"],
    )


def finding_images(
    store: Store,
    *,
    project_id: int,
    number: int,
    page: int = 0,
    page_size: int = PAGE,
    made_at: datetime | None = None,
) -> list[ImageItem]:
    """Return a page of the images of a finding, as grids show them, the most telling first.

    Parameters
    ----------
    number
        Place of the finding in `AuditView.findings`.
    page
        From 0; one behind the last is empty.
    made_at
        `AuditView.made_at` of the findings that the number was read from: another look may end
        while somebody reads them. None: the newest.

    Raises
    ------
    NotFoundError
        There is no such finding, or that look is not kept any more.
    """
    stored = _newest(store, project_id, made_at)
    findings = [] if stored is None else _sorted(stored)
    if not 0 <= number < len(findings):
        raise NotFoundError(
            f"There is no finding number {number}.",
            "The look that it is of is not kept any more."
            if stored is None
            else f"The look found {len(findings)}.",
            "Look again.",
        )
    start = max(0, page) * page_size
    ids = findings[number].image_ids[start : start + page_size]
    with store.reading() as session:
        return items_in_order(session, ids)


def write_report(store: Store, *, project_id: int, job_id: int, report: Mapping[str, Any]) -> str:
    """Keep what a look found, whole or not at all; return the file, relative to the data folder.

    `report` holds `made_at`, `state`, `findings`, `checked` and `not_told` as plain data.
    """
    folder = _folder(store, project_id)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{job_id}.json"
    half = folder / f".half-{job_id}"
    with half.open("w", encoding="utf-8") as handle:
        json.dump({"version": VERSION, **report}, handle, ensure_ascii=False, allow_nan=False)
        handle.flush()
        os.fsync(handle.fileno())
    os.replace(half, path)
    for old in _files(folder)[KEPT:]:
        old.unlink(missing_ok=True)
    return path.relative_to(store.root).as_posix()


def _sorted(stored: Mapping[str, Any]) -> list[Finding]:
    return by_severity([Finding.from_json(said) for said in stored["findings"]])


def _newest(
    store: Store, project_id: int, made_at: datetime | None = None
) -> dict[str, Any] | None:
    """Return the newest look, or the one that was made then."""
    for path in _files(_folder(store, project_id)):
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue  # removed just now, or damaged: the one before it
        if not isinstance(found, dict) or found.get("version") != VERSION:
            continue
        if made_at is None or datetime.fromisoformat(found["made_at"]) == made_at:
            return found
    return None


def _folder(store: Store, project_id: int) -> Path:
    return store.path("features", "audit", str(project_id))


def _files(folder: Path) -> list[Path]:
    """Return the files of a project, the newest first."""
    found = [path for path in folder.glob("*.json") if path.stem.isdigit()]
    return sorted(found, key=lambda path: -int(path.stem))


def _state(job: JobView | None, *, made: bool) -> str:
    if job is None:
        return "done" if made else "none"
    if job.is_active:
        return "running" if job.state == "running" else "waiting"
    if job.state == "done":
        return "done" if made else "none"
    return "failed" if job.state == "failed" else "stopped"
