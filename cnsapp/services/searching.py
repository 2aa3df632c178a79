"""Find the best: ask for a search, and see how it goes. The work is in `cnsapp.tasks.search`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select

from cnsapp.bootstrap import App
from cnsapp.domain.backbones import FACTS, BackboneFacts
from cnsapp.domain.recipe import FINE_TUNED, PRESETS
from cnsapp.domain.search import Candidate
from cnsapp.errors import InvalidInputError, NotFoundError
from cnsapp.jobs.states import ACTIVE
from cnsapp.services import jobs
from cnsapp.services.training import readiness
from cnsapp.weights_files import get_facts, own_ids, require_weights, weights_state
from db.models import Job
from db.session import Store

LEAST_MINUTES, MOST_MINUTES = 0.1, 7 * 24 * 60.0
MOST_CANDIDATES = 40
TRIED, NO_TIME, FAILED = "done", "no time", "failed"  # how a trial ended


@dataclass(frozen=True)
class Trial:
    """One candidate in one round."""

    candidate: int
    title: str
    round: int
    rounds: int
    state: str
    score: float | None
    standard_error: float | None
    n: int
    seconds: float
    said: str


@dataclass(frozen=True)
class SearchView:
    """A search as pages and commands show it: its trials so far, and what came of it."""

    job: jobs.JobView
    candidates: list[Candidate]
    minutes: float
    trials: list[Trial]
    model_id: int | None
    outcome: str

    @property
    def seconds_spent(self) -> float:
        """Of the budget, so far."""
        return sum(trial.seconds for trial in self.trials)


def backbones_at_hand(app: App) -> list[BackboneFacts]:
    """Return the networks whose weights are on this machine, the usual one first."""
    weights = app.store.path("weights")
    ids = [*FACTS, *own_ids(weights)]
    states = []
    for backbone_id in ids:
        try:
            states.append(weights_state(backbone_id, weights))
        except InvalidInputError:
            continue  # a card that cannot be read: the Train page says so
    return [state.facts for state in states if state.available]


def candidates_of(
    app: App, *, backbones: Sequence[str] | None = None, presets: Sequence[str] | None = None
) -> list[Candidate]:
    """Return what a search would try, the simplest first.

    Parameters
    ----------
    backbones
        Ids; all whose weights are at hand when None.
    presets
        quick and full when None.

    Raises
    ------
    InvalidInputError
        An unknown backbone or preset, weights that are not here, or fewer than two candidates.
    """
    wished = list(dict.fromkeys(presets or ("quick", "full")))
    for preset in wished:
        if preset not in PRESETS:
            raise InvalidInputError(
                f"There is no preset “{preset}”.", "", f"Use {' or '.join(PRESETS)}."
            )
    weights = app.store.path("weights")
    if backbones is None:
        networks = backbones_at_hand(app)
    else:
        ids = list(dict.fromkeys(backbones))
        for backbone_id in ids:
            require_weights(backbone_id, weights)
        networks = [get_facts(backbone_id, weights) for backbone_id in ids]
    found = [
        Candidate(facts.id, preset, f"{_short(facts)}, {preset}")
        for preset in PRESETS
        if preset in wished
        for facts in networks
        if preset in FINE_TUNED or facts.weights != "none"  # nothing pretrained to read
    ]
    if not 2 <= len(found) <= MOST_CANDIDATES:
        raise InvalidInputError(
            f"There are {len(found)} candidates: a search needs two or more, {MOST_CANDIDATES} at "
            "most."
            if found
            else "There is nothing to try: none of these networks can be used with these presets.",
            "With a single one there is nothing to choose.",
            "Choose more backbones or presets. Weights of other networks go into the folder "
            f"{weights}; `backbones` lists them.",
        )
    return found


def start_search(
    app: App,
    *,
    project_id: int,
    minutes: float = 30.0,
    backbones: Sequence[str] | None = None,
    presets: Sequence[str] | None = None,
    seed: int = 0,
    requested_by: str = "",
) -> int:
    """Queue a search and return its job number.

    Raises
    ------
    InvalidInputError
        The labels do not suffice, a choice cannot be met, or a search of this project is under way.
    """
    if not LEAST_MINUTES <= minutes <= MOST_MINUTES:
        raise InvalidInputError(
            f"A search of {minutes:g} minutes is not possible.",
            "",
            f"Give it {LEAST_MINUTES:g} to {MOST_MINUTES:,.0f} minutes.",
        )
    found = readiness(app.store, project_id=project_id)
    if not found.ok:
        raise InvalidInputError(
            " ".join(found.problems), "", "Label more images on the Label page, then search."
        )
    candidates = candidates_of(app, backbones=backbones, presets=presets)
    with app.store.writing() as session:  # two clicks at once: the second one sees the first
        under_way = session.scalar(
            select(Job.id)
            .where(Job.project_id == project_id, Job.kind == "search", Job.state.in_(ACTIVE))
            .limit(1)
        )
        if under_way is not None:
            raise InvalidInputError(
                f"A search of this project is under way already (job {under_way}).",
                "Two at once would only slow each other down.",
                f"Wait for it, or stop it first: `cancel {under_way}`.",
            )
        return jobs.add_job(
            session,
            kind="search",
            project_id=project_id,
            payload={
                "minutes": minutes,
                "seed": seed,
                "candidates": [c.as_json() for c in candidates],
            },
            requested_by=requested_by,
        )


def read_search(store: Store, *, job_id: int) -> SearchView:
    """Return a search with its trials so far; raise NotFoundError when the job is none."""
    job = jobs.get_job(store, job_id=job_id)
    if job.kind != "search":
        raise NotFoundError(f"Job {job_id} is no search.")
    told: list[dict[str, Any]] = list(job.result.get("trials") or [])
    if not told:
        points = jobs.job_points(store, job_id=job_id)
        told = [p.values["trial"] for p in points if isinstance(p.values.get("trial"), dict)]
    trials = {(t["round"], t["candidate"]): _trial(t) for t in told}  # a repeated one counts once
    return SearchView(
        job=job,
        candidates=[Candidate(**c) for c in job.payload.get("candidates", [])],
        minutes=float(job.payload.get("minutes", 0.0)),
        trials=list(trials.values()),
        model_id=job.result.get("model_id"),
        outcome=str(job.result.get("outcome") or ""),
    )


def latest_search(store: Store, *, project_id: int) -> SearchView | None:
    """Return the newest search of a project, or None."""
    found = jobs.list_jobs(store, project_id=project_id, kinds=["search"], limit=1)
    return read_search(store, job_id=found[0].id) if found else None


def _trial(told: dict[str, Any]) -> Trial:
    return Trial(
        candidate=int(told["candidate"]),
        title=str(told["title"]),
        round=int(told["round"]),
        rounds=int(told["of"]),
        state=str(told["state"]),
        score=told["score"],
        standard_error=told["standard_error"],
        n=int(told["n"]),
        seconds=float(told["seconds"]),
        said=str(told["said"]),
    )


def _short(facts: BackboneFacts) -> str:
    return facts.title.partition(" (")[0]
