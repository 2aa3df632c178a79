"""Look through a project's data for what may be wrong, part by part; no network is needed.

What grows with the square of the images is done on a sample, whose size and seed stand in the
figures: 100,000 images take the same memory as 5,000, but for a row each.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

from cnsapp.bootstrap import App
from cnsapp.domain.findings import SEVERITIES, Report, plural
from cnsapp.errors import CnsError, NotFoundError
from cnsapp.jobs.context import JobContext, as_json
from cnsapp.services.audit import parse_moment, write_report
from cnsapp.services.audit_groups import PART as WORSE
from cnsapp.services.audit_groups import find_worse_groups
from cnsapp.services.audit_pairs import find_pairs
from cnsapp.services.audit_rows import AuditRows, read_audit_rows, state_now
from cnsapp.services.models import ModelView, current_model
from cnsapp.tasks.audit_looks import Looks, find_drift, find_odd
from cnsapp.tasks.audit_shortcuts import find_shortcuts
from db.types import utc_now

SEED = 0


def run(app: App, job: JobContext) -> dict[str, Any]:
    """Look through the data and keep what was found in a file; return a summary that names it."""
    if job.project_id is None:
        raise CnsError("The job names no project.", "", "Start it from a project's page.")
    job.progress(0.0, "Reading images, labels and groups")
    made_at = utc_now()
    with app.store.reading() as session:
        state = state_now(
            app.store, session, job.project_id
        )  # before the rows: what comes between is news
    audit = read_audit_rows(app.store, project_id=job.project_id)
    job.check_cancelled()
    report = _Look(app, job, job.project_id, audit).run()
    kept = as_json(
        {
            "made_at": made_at.isoformat(),
            "state": state,
            "seed": SEED,
            "findings": [finding.as_json() for finding in report.findings],
            "checked": report.checked,
            "not_told": report.not_told,
        }
    )
    job.check_cancelled()
    file = write_report(app.store, project_id=job.project_id, job_id=job.id, report=kept)
    severities = [finding.severity for finding in report.findings]
    job.progress(1.0, f"{plural(len(severities), 'finding')}")
    return {
        "file": file,
        "images": len(audit.ids),
        "findings": {severity: severities.count(severity) for severity in SEVERITIES},
        "not_told": len(report.not_told),
    }


class _Look:
    """One look: the parts, each with its share of the progress."""

    def __init__(self, app: App, job: JobContext, project_id: int, audit: AuditRows) -> None:
        self._app, self._job, self._project_id, self._audit = app, job, project_id, audit
        self._check = job.check_cancelled
        self._model = self._current_model()

    def run(self) -> Report:
        """Return what all parts found."""
        report = Report()
        if not len(self._audit.ids):
            report.cannot_tell("all", "There are no images in use.")
            return report
        looks = Looks(self._app.store, self._project_id, self._audit)
        parts: list[tuple[float, str, Callable[[], Report]]] = [
            (0.05, "Look-alikes with different labels", self._pairs),
            (0.1, "Groups that the model does worse on", self._worse_groups),
            (0.25, "Odd and unknown images", lambda: find_odd(looks, SEED, self._check)),
            (0.4, "What might tell the label", self._shortcuts),
            (0.8, "Old and new images", lambda: self._drift(looks)),
        ]
        for share, title, part in parts:
            self._job.check_cancelled()
            self._job.progress(share, title)
            found = part()
            report.findings += found.findings
            report.checked += found.checked
            report.not_told += found.not_told
        return report

    def _pairs(self) -> Report:
        with self._app.store.reading() as session:
            return find_pairs(session, self._project_id, self._audit.class_names)

    def _worse_groups(self) -> Report:
        if self._model is None:
            report = Report()
            report.cannot_tell(WORSE, "There is no model yet.")
            return report
        with self._app.store.reading() as session:
            return find_worse_groups(session, self._model, self._audit, self._check)

    def _shortcuts(self) -> Report:
        return find_shortcuts(
            self._app.store, self._project_id, self._audit, self._model, SEED, self._check
        )

    def _drift(self, looks: Looks) -> Report:
        since = self._job.payload.get("since")
        moment: datetime | None = self._model.created_at if self._model else None
        if since:
            moment = parse_moment(str(since))
        store = self._app.store
        return find_drift(store, looks, moment, not since, SEED, self._check)

    def _current_model(self) -> ModelView | None:
        try:
            return current_model(self._app.store, project_id=self._project_id)
        except NotFoundError:
            return None
