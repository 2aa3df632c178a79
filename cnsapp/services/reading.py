"""How a project reads its images: what is set, what a change would touch, and the change itself.

The rule stands in `project.settings["reading"]`. A change stores the new rule at once; the job
“reread” then makes the pictures of exactly the images that it touches, and their features follow.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from cnsapp.bootstrap import App
from cnsapp.errors import NotFoundError
from cnsapp.imaging.rule import ReadingRule
from cnsapp.imaging.rule_changes import FileKind, differences
from cnsapp.jobs.states import ACTIVE
from cnsapp.services import jobs
from cnsapp.services.file_kinds import READABLE as READABLE
from cnsapp.services.file_kinds import REREAD, file_kinds
from cnsapp.services.models import ModelView, list_models
from db.models import Job, Project
from db.session import Store

SECONDS = 0.02  # an image's features, where no job has measured it yet


@dataclass(frozen=True)
class Reading:
    """How a project reads its images, and what kinds of files it has."""

    rule: ReadingRule
    kinds: list[FileKind]

    @property
    def n_images(self) -> int:
        """How many images there are."""
        return sum(kind.n for kind in self.kinds)

    @property
    def samples(self) -> list[str]:
        """The kinds of deep samples that the project has or has fixed a window for."""
        found = {str(k.facts["samples"]) for k in self.kinds if k.is_known and k.is_deep}
        return sorted(found | {kind for kind, _, _ in self.rule.windows})

    @property
    def most_pages(self) -> int:
        """The most pages that a file has."""
        return max((int(k.facts.get("pages", 1)) for k in self.kinds), default=1)

    @property
    def most_channels(self) -> int:
        """The most channels that a file has, as far as they were counted."""
        return max((int(k.facts.get("channels", 1)) for k in self.kinds), default=1)

    @property
    def n_deep(self) -> int:
        """How many images have samples that need a window."""
        return sum(kind.n for kind in self.kinds if kind.is_deep)

    @property
    def n_paged(self) -> int:
        """How many images have several pages."""
        return sum(kind.n for kind in self.kinds if kind.has_pages)

    @property
    def n_channelled(self) -> int:
        """How many images have channels that are no plain colours."""
        return sum(kind.n for kind in self.kinds if kind.is_known and kind.has_channels)

    @property
    def n_transparent(self) -> int:
        """How many images are known to have transparency."""
        return sum(kind.n for kind in self.kinds if kind.is_known and kind.has_alpha)

    @property
    def n_unknown(self) -> int:
        """How many deep or stacked images came before their samples and channels were noted."""
        return sum(k.n for k in self.kinds if not k.is_known and (k.is_deep or k.has_pages))

    @property
    def is_plain(self) -> bool:
        """Whether there is nothing to set: all files are plain 8-bit pictures."""
        return not any(has_choices(kind.facts) for kind in self.kinds)


def _clear(kind: FileKind) -> bool:
    return kind.is_known and kind.has_alpha


@dataclass(frozen=True)
class Change:
    """What another rule would change."""

    differences: list[str]  # in words
    n_images: int  # whose pictures and features are made again
    n_unsure: int  # of them, those that are read again because too little is known of them
    seconds: float  # their features, as long as they took here before
    models: list[ModelView]  # trained on another look than the new rule's

    @property
    def is_none(self) -> bool:
        """Whether the rule is the one that is set."""
        return not self.differences and not self.n_images


@dataclass(frozen=True)
class Applied:
    """What came of setting a rule."""

    job_id: int | None  # the job that reads the touched images again; None when there is none
    n_images: int


def get_reading(store: Store, *, project_id: int) -> Reading:
    """Return how a project reads its images; raise NotFoundError when there is no such project."""
    with store.reading() as session:
        rule = _rule(_project(session, project_id))
    return Reading(rule, file_kinds(store, project_id=project_id))


def has_choices(facts: dict[str, Any]) -> bool:
    """Return whether a rule has a say in how a file with these facts looks."""
    kind = FileKind(facts)
    return kind.is_deep or kind.has_pages or kind.has_channels or _clear(kind)


def what_changes(app: App, *, project_id: int, rule: ReadingRule) -> Change:
    """Return what setting this rule would change; raise InvalidInputError when it cannot be used.

    Windows that the project has and the rule does not name stay: see `apply_rule`.
    """
    now = get_reading(app.store, project_id=project_id)
    wished = _kept_windows(now.rule, rule.checked())
    touched = [kind for kind in now.kinds if kind.is_touched(wished)]
    return Change(
        differences=differences(now.rule, wished),
        n_images=sum(kind.n for kind in touched),
        n_unsure=sum(kind.n for kind in touched if not kind.is_known),
        seconds=sum(kind.n for kind in touched) * _seconds_an_image(app.store),
        models=[
            model
            for model in list_models(app.store, project_id=project_id)
            if _differs(model, wished, now.kinds)
        ],
    )


def apply_rule(app: App, *, project_id: int, rule: ReadingRule, requested_by: str = "") -> Applied:
    """Set how a project reads its images, and queue the job that reads the touched ones again.

    A window that the project has and the rule does not name stays as it is: an import may have
    fixed it since the rule was looked at.

    Raises
    ------
    InvalidInputError
        The rule cannot be used.
    NotFoundError
        There is no such project.
    """
    rule.checked()
    kinds = file_kinds(app.store, project_id=project_id)
    with app.store.writing() as session:
        project = _project(session, project_id)
        rule = _kept_windows(_rule(project), rule)
        project.settings = {**project.settings, "reading": rule.as_json()}
        n_images = sum(kind.n for kind in kinds if kind.is_touched(rule))
        # an import that is not finished brings images that were read by the rule of its start
        importing = _active(session, project_id, "import", ACTIVE)
        if (
            not n_images
            and importing is None
            and _active(session, project_id, REREAD, ACTIVE) is None
        ):
            return Applied(None, 0)
        waiting = _active(session, project_id, REREAD, ("queued",))
        if waiting is not None:
            return Applied(waiting, n_images)  # it reads the rule when it begins
        job_id = jobs.add_job(
            session, kind=REREAD, project_id=project_id, requested_by=requested_by
        )
    return Applied(job_id, n_images)


def read_otherwise(store: Store, *, model: ModelView) -> list[str]:
    """Return in words how the project reads its images otherwise than a model was trained on.

    The sentences are what the project does now “instead of” what the model learnt; [] when the
    two agree for every image that the project has.
    """
    if "reading" not in model.settings:
        return []
    with store.reading() as session:
        now = _rule(_project(session, model.project_id))
    then = ReadingRule.from_json(model.settings["reading"])
    if replace(now, windows_from="range") == replace(then, windows_from="range"):
        return []  # the usual case costs one row
    return differences(then, now, file_kinds(store, project_id=model.project_id))


def last_reread(store: Store, *, project_id: int) -> jobs.JobView | None:
    """Return the newest job that read images again, with its result; None when there was none."""
    found = jobs.list_jobs(store, project_id=project_id, kinds=[REREAD], limit=1)
    return jobs.get_job(store, job_id=found[0].id) if found else None


def _differs(model: ModelView, rule: ReadingRule, kinds: list[FileKind]) -> bool:
    if "reading" not in model.settings:
        return False
    then = ReadingRule.from_json(model.settings["reading"])
    return any(kind.differs(then, rule) for kind in kinds)


def _kept_windows(now: ReadingRule, wished: ReadingRule) -> ReadingRule:
    for kind, low, high in now.windows:
        if wished.window(kind) is None:
            wished = wished.with_window(kind, low, high)
    return wished


def _seconds_an_image(store: Store) -> float:
    """Return how long the features of an image took in the newest job that computed some."""
    with store.reading() as session:
        done = session.scalars(
            select(Job)
            .where(Job.kind == "features", Job.state == "done")
            .order_by(Job.id.desc())
            .limit(5)
        )
        for job in done:
            n = job.result.get("computed") or 0
            if n >= 20 and job.started_at and job.finished_at:
                return max((job.finished_at - job.started_at).total_seconds() / n, 0.001)
    return SECONDS


def _active(session: Session, project_id: int, kind: str, states: tuple[str, ...]) -> int | None:
    return session.scalar(
        select(Job.id)
        .where(Job.project_id == project_id, Job.kind == kind, Job.state.in_(states))
        .limit(1)
    )


def _project(session: Session, project_id: int) -> Project:
    project = session.get(Project, project_id)
    if project is None:
        raise NotFoundError(f"There is no project number {project_id}.")
    return project


def _rule(project: Project) -> ReadingRule:
    return ReadingRule.from_json(project.settings.get("reading"))
