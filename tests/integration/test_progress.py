"""Progress: counts, pace and the learning curve, against numbers worked out by hand."""

from __future__ import annotations

import time
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import select, update

from cnsapp.domain.consensus import ConsensusRule
from cnsapp.errors import NotFoundError
from cnsapp.services import label_settings, people, progress
from db.models import Image, LabelEvent, SuggestionRun
from tests.integration.test_labels import World, make_world

START = datetime(2026, 3, 2, 9, 0, tzinfo=UTC)


@pytest.fixture
def world(tmp_path: Path) -> World:
    """Return thirty images in three groups; Maria labelled 18, Ben 6, with a pace of their own."""
    made = make_world(tmp_path, 30)
    with made.store.writing() as session:
        for k, image_id in enumerate(made.image_ids):
            group = "p1" if k < 12 else "p2" if k < 24 else None
            session.execute(update(Image).where(Image.id == image_id).values(group_key=group))
    made.record(*(made.event(i, cls=0 if i < 12 else 1) for i in range(16)), annotator="maria")
    made.record(made.event(16, "unsure"), made.event(17, "skip"), annotator="maria")
    made.record(*(made.event(i, cls=2) for i in range(18, 24)), annotator="ben")
    set_times(made, "maria", [START + timedelta(seconds=4 * k) for k in range(18)])
    set_times(made, "ben", [START + timedelta(days=1, seconds=600 * k) for k in range(6)])
    return made


def set_times(world: World, who: str, moments: list[datetime]) -> None:
    with world.store.writing() as session:
        ids = session.scalars(
            select(LabelEvent.id).where(LabelEvent.annotator == who).order_by(LabelEvent.id)
        ).all()
        for event_id, moment in zip(ids, moments, strict=True):
            session.execute(
                update(LabelEvent).where(LabelEvent.id == event_id).values(created_at=moment)
            )


def ask(world: World, who: str = "") -> progress.Progress:
    return progress.progress(world.store, project_id=world.project_id, annotator=who)


def test_counts_by_class_group_and_person(world: World) -> None:
    found = ask(world)
    colon, liver, lung = world.class_ids
    assert (found.images, found.labelled, found.unsure, found.skipped) == (30, 22, 1, 1)
    assert found.per_class == {colon: 12, liver: 4, lung: 6}
    assert {g.name: (g.labelled, g.images) for g in found.groups} == {
        None: (0, 6), "p2": (10, 12), "p1": (12, 12),
    }  # fmt: skip
    assert [g.name for g in found.groups] == [None, "p2", "p1"], "where most is left comes first"
    maria, ben = found.people
    assert (maria.name, maria.labelled, maria.unsure, maria.skipped) == ("maria", 16, 1, 1)
    assert maria.per_class == {colon: 12, liver: 4}
    assert (ben.name, ben.labelled, ben.last_at) == (
        "ben",
        6,
        START + timedelta(days=1, hours=50 / 60),
    )


def test_pace_is_of_active_time_only(world: World) -> None:
    maria, ben = ask(world).people
    assert maria.pace.per_minute == pytest.approx(15.0), "17 pauses of 4 seconds"
    assert ben.pace.per_minute is None, "ten minutes between two labels is not labelling"


def test_labels_that_were_taken_back_are_no_pace(world: World) -> None:
    many = [world.event(i, cls=0, source="suggestion") for i in range(24, 30)]
    world.record(*many, annotator="maria")
    assert ask(world).people[0].pace.n_labels == 24
    world.record(*(world.undo_of(event) for event in many), annotator="maria")
    assert ask(world).people[0].pace.n_labels == 18


def test_time_left_is_at_the_pace_of_who_asks(world: World) -> None:
    found = ask(world, "maria")
    assert found.readings_left == 6
    assert found.left is not None
    assert found.left.seconds == pytest.approx(24.0)
    assert found.left.low <= 24.0 <= found.left.high
    assert ask(world, "ben").left is None
    assert ask(world).left is None


def test_a_vote_still_needs_the_second_readings(world: World) -> None:
    label_settings.change_settings(
        world.store, project_id=world.project_id, rule=ConsensusRule("majority", 2)
    )
    # 22 images read once need one more, 6 unread ones need two
    assert ask(world, "maria").readings_left == 22 + 12


def test_days_are_counted_in_the_time_of_this_computer(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    label = world.event(24)
    world.record(label, annotator="maria")
    world.record(world.undo_of(label), annotator="maria")
    for zone, shift in (("UTC", 0), ("Asia/Tokyo", 0), ("Pacific/Honolulu", 1)):
        monkeypatch.setenv("TZ", zone)
        time.tzset()
        days = {(d.day, d.annotator): d.n for d in ask(world).days}
        second = timedelta(days=shift)
        assert days == {
            (date(2026, 3, 2) - second, "maria"): 16,
            (date(2026, 3, 3) - second, "ben"): 6,
        }, zone
    monkeypatch.delenv("TZ")
    time.tzset()


def test_an_import_is_nobodys_pace(tmp_path: Path) -> None:
    world = make_world(tmp_path, 20)
    world.record(*(world.event(i, source="import") for i in range(20)), annotator="import")
    found = ask(world)
    assert (found.days, found.people[0].is_machine) == ((), True)
    assert found.people[0].pace.n_labels == 0


def test_an_unknown_project_is_said(world: World) -> None:
    with pytest.raises(NotFoundError, match="no project number 99"):
        progress.progress(world.store, project_id=99)


def add_runs(world: World, runs: list[tuple[int, float | None]], **more: object) -> None:
    with world.store.writing() as session:
        for n, value in runs:
            figures = {} if value is None else {
                "balanced_accuracy": value,
                "balanced_accuracy_interval": [value - 0.01, value + 0.01],
            }  # fmt: skip
            row = {"class_ids": world.class_ids, "newest_event": 1, "n_images": 30, **more}
            session.add(
                SuggestionRun(project_id=world.project_id, n_labels=n, figures=figures, **row)
            )


def curve(world: World) -> progress.LearningCurve:
    return progress.learning_curve(world.store, project_id=world.project_id)


def test_the_learning_curve_foretells_what_the_law_behind_it_says(world: World) -> None:
    ns = [25, 50, 100, 200, 400, 800, 1600]
    add_runs(world, [(n, 0.95 - 1.5 * n**-0.5) for n in ns])
    found = curve(world)
    assert [p.n_labels for p in found.points] == ns
    assert found.fit is not None
    # 0.95 - 1.5 / sqrt(n) gains a point from 1,600 at (1.5 / (1.5 / 40 - 0.01))^2 labels
    truth = (1.5 / (1.5 / 40 - 0.01)) ** 2 - 1600
    assert found.forecast.labels is not None
    middle, low, high = found.forecast.labels
    assert low <= truth <= high
    assert middle == pytest.approx(truth, rel=0.35)


def test_few_points_say_that_they_are_few(world: World) -> None:
    assert curve(world).points == ()
    assert "fewer than 4 points" in curve(world).forecast.reason
    add_runs(world, [(10, None), (25, 0.6), (50, 0.7)])
    found = curve(world)
    assert [p.n_labels for p in found.points] == [25, 50], "one that could not be scored is none"
    assert (found.fit, found.forecast.labels) == (None, None)


def test_refreshes_of_other_classes_are_left_out(world: World) -> None:
    add_runs(world, [(25, 0.9)], class_ids=world.class_ids[:2])
    add_runs(world, [(50, 0.7), (75, 0.75)])
    found = curve(world)
    assert ([p.n_labels for p in found.points], found.n_other) == ([50, 75], 1)


def test_images_drawn_at_random_make_the_curve_once_there_are_enough(world: World) -> None:
    def add(n: int, hard: float, drawn: float | None) -> None:
        figures = {"balanced_accuracy": hard, "balanced_accuracy_interval": [hard - 0.1, hard]}
        if drawn is not None:
            figures["at_random"] = {"balanced_accuracy": drawn}
        with world.store.writing() as session:
            session.add(
                SuggestionRun(
                    project_id=world.project_id, n_labels=n, n_images=30, newest_event=1,
                    class_ids=world.class_ids, figures=figures,
                )
            )  # fmt: skip

    add(25, 0.5, None)
    for n in (50, 100, 200):
        add(n, 0.6, 0.8)
    found = curve(world)
    assert (found.at_random, [p.value for p in found.points]) == (False, [0.5, 0.6, 0.6, 0.6])
    add(400, 0.6, 0.9)
    found = curve(world)
    assert (found.at_random, [p.value for p in found.points]) == (True, [0.8, 0.8, 0.8, 0.9])


def test_people_of_a_class_that_is_gone_have_not_labelled(world: World) -> None:
    from cnsapp.services import classes

    classes.delete_class(world.store, class_id=world.class_ids[2], who="maria")
    names = {p.name: p.labelled for p in people.list_people(world.store, project_id=1)}
    assert names == {"maria": 16}
