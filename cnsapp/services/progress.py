"""How far a project is: labels by class, group, person and day, time left, the learning curve."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any

from sqlalchemy import Integer, String, case, cast, func, select
from sqlalchemy.orm import Session

from cnsapp.domain.learning_curve import (
    FEWEST_POINTS,
    CurveFit,
    Forecast,
    fit_curve,
    labels_for_gain,
)
from cnsapp.domain.pace import Pace, TimeLeft, labelling_pace, time_left
from cnsapp.errors import NotFoundError
from cnsapp.services.people import Person, latest_times, list_people
from db.deciding import consensus_rule, is_void
from db.models import Image, LabelEvent, Project, SuggestionRun
from db.queries import read_tally
from db.session import Store

MOST_GROUPS = 500
MOST_RUNS = 500
Z95 = 1.96  # half a 95 % interval in standard errors
GAIN = 0.01
LEAST_ERROR = 0.002  # an interval of no width, where all were right, is not without error


@dataclass(frozen=True)
class GroupCount:
    """The images of one group; `name` None: those without a group."""

    name: str | None
    labelled: int
    images: int


@dataclass(frozen=True)
class DayCount:
    """Labels that a person gave on a day, here; those taken back since are not counted."""

    day: date
    annotator: str
    n: int


@dataclass(frozen=True)
class CurvePoint:
    """How good the guesses were that were made from so many labels: balanced accuracy, 0 to 1."""

    n_labels: int
    value: float
    interval: tuple[float, float] | None
    at: datetime


@dataclass(frozen=True)
class LearningCurve:
    """The learning curve of a project.

    `fit` is None with too few points; `forecast` says how many labels one more percentage point
    takes, or why it cannot be told. `n_other` older refreshes knew other classes and are left out.
    `at_random`: scored on images that were drawn at random, so that its height is honest too.
    """

    points: tuple[CurvePoint, ...]
    fit: CurveFit | None
    forecast: Forecast
    n_other: int
    at_random: bool = False


@dataclass(frozen=True)
class Progress:
    """How far a project is.

    Attributes
    ----------
    images, labelled, unsure, skipped
        Of the project's images in use.
    readings_left
        Labels still to give: images that nobody labelled, and under a majority of readers the
        readings that are missing.
    pace, left
        Of who asks, at the pace of their latest labels; `left` None when it is unknown.
    """

    images: int
    labelled: int
    unsure: int
    skipped: int
    readings_left: int
    per_class: dict[int, int]
    groups: tuple[GroupCount, ...]
    people: tuple[Person, ...]
    days: tuple[DayCount, ...]
    pace: Pace
    left: TimeLeft | None


def progress(store: Store, *, project_id: int, annotator: str = "") -> Progress:
    """Return how far a project is, and how long the rest takes at this person's pace."""
    people = tuple(list_people(store, project_id=project_id))
    with store.reading() as session:
        if session.get(Project, project_id) is None:
            raise NotFoundError(f"There is no project number {project_id}.")
        tally = read_tally(session, project_id)
        rest = _readings_left(session, project_id)
        times = latest_times(session, project_id, annotator) if annotator else []
        return Progress(
            images=tally.get("images", 0),
            labelled=tally.get("state:label", 0),
            unsure=tally.get("state:unsure", 0),
            skipped=tally.get("state:skip", 0),
            readings_left=rest,
            per_class={
                int(key.removeprefix("class:")): n
                for key, n in tally.items()
                if key.startswith("class:") and n
            },
            groups=_groups(session, project_id),
            people=people,
            days=_days(session, project_id),
            pace=labelling_pace(times),
            left=time_left(times, rest),
        )


def learning_curve(store: Store, *, project_id: int, gain: float = GAIN) -> LearningCurve:
    """Return how the guesses of the quick models got better with the labels.

    Only refreshes that knew the same classes as the newest one are compared; by images drawn at
    random as soon as enough refreshes have such, else by all that were held out.
    """
    with store.reading() as session:
        runs = session.scalars(
            select(SuggestionRun)
            .where(SuggestionRun.project_id == project_id)
            .order_by(SuggestionRun.id.desc())
            .limit(MOST_RUNS)
        ).all()
        newest = set(runs[0].class_ids) if runs else set()
        same = [run for run in reversed(runs) if set(run.class_ids) == newest]
        drawn = _points(same, [(run.figures or {}).get("at_random") or {} for run in same])
        at_random = len({point.n_labels for point in drawn}) >= FEWEST_POINTS
        points = drawn if at_random else _points(same, [run.figures or {} for run in same])
    n = [point.n_labels for point in points]
    value = [point.value for point in points]
    fit = fit_curve(n, value, errors=_errors(points))
    forecast = labels_for_gain(fit, n[-1] if n else 1, gain)
    return LearningCurve(points, fit, forecast, len(runs) - len(same), at_random)


def _points(
    runs: Sequence[SuggestionRun], figures: Sequence[Mapping[str, Any]]
) -> tuple[CurvePoint, ...]:
    pairs = zip(runs, figures, strict=True)
    return tuple(point for pair in pairs if (point := _point(*pair)) is not None)


def _point(run: SuggestionRun, figures: Mapping[str, Any]) -> CurvePoint | None:
    value, interval = figures.get("balanced_accuracy"), figures.get("balanced_accuracy_interval")
    if not isinstance(value, int | float) or not 0 <= value <= 1 or run.n_labels < 1:
        return None  # too few labels to be scored
    ends = (float(interval[0]), float(interval[1])) if interval and len(interval) == 2 else None
    # accepted suggestions teach nothing that the model did not know
    own = run.n_labels - int(figures.get("n_accepted") or 0)
    return CurvePoint(max(own, 1), float(value), ends, run.created_at)


def _errors(points: tuple[CurvePoint, ...]) -> list[float] | None:
    """Return the standard errors that the intervals say, where all have one."""
    widths = [p.interval[1] - p.interval[0] for p in points if p.interval is not None]
    if not points or len(widths) < len(points):
        return None
    return [max(width / (2 * Z95), LEAST_ERROR) for width in widths]


def _readings_left(session: Session, project_id: int) -> int:
    rule = consensus_rule(session, project_id)
    mine = [Image.project_id == project_id, Image.status == "ok"]
    if rule.kind == "latest":
        tally = read_tally(session, project_id)
        done = sum(tally.get(f"state:{state}", 0) for state in ("label", "skip", "unsure"))
        return tally.get("images", 0) - done
    missing = case((Image.readers < rule.readers, rule.readers - Image.readers), else_=1)
    waits = Image.current_state.in_(("none", "waiting", "undecided"))
    total = session.scalar(select(func.sum(cast(missing, Integer))).where(*mine, waits))
    return int(total or 0)


def _groups(session: Session, project_id: int) -> tuple[GroupCount, ...]:
    """Return the groups with the most images still without a label first."""
    labelled = func.sum(case((Image.current_state == "label", 1), else_=0))
    rows = session.execute(
        select(Image.group_key, labelled, func.count())
        .where(Image.project_id == project_id, Image.status == "ok")
        .group_by(Image.group_key)
        .order_by((func.count() - labelled).desc(), Image.group_key)
        .limit(MOST_GROUPS)
    )
    found = tuple(GroupCount(name, int(n or 0), total) for name, n, total in rows)
    return () if [group.name for group in found] == [None] else found


def _days(session: Session, project_id: int) -> tuple[DayCount, ...]:
    """Return the labels of every day, in this computer's time, imports left out.

    The database counts by the hour; which day an hour belongs to is decided here.
    """
    moment: Any = LabelEvent.created_at
    if session.get_bind().dialect.name == "postgresql":  # writes times in the zone of the session
        moment = func.timezone("UTC", moment)
    hour = func.substr(cast(moment, String), 1, 13)
    rows = session.execute(
        select(hour, LabelEvent.annotator, func.count())
        .where(
            LabelEvent.project_id == project_id,
            LabelEvent.kind == "label",
            LabelEvent.source != "import",
            ~is_void(),
        )
        .group_by(hour, LabelEvent.annotator)
    )
    found: Counter[tuple[date, str]] = Counter()
    for text, who, n in rows:
        began = datetime.fromisoformat(f"{text}:00").replace(tzinfo=UTC)
        found[began.astimezone().date(), who] += n
    return tuple(DayCount(day, who, n) for (day, who), n in sorted(found.items()))
