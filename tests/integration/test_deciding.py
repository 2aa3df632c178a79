"""Redo, votes, merged classes, bulk labels: what an image is called follows from its events."""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import Any

import pytest
from sqlalchemy import select

from cnsapp.bootstrap import open_app
from cnsapp.domain.consensus import ConsensusRule
from cnsapp.errors import InvalidInputError
from cnsapp.services import bulk, health, images, label_settings, labels
from cnsapp.services.settling import NOTE, settle, to_settle
from cnsapp.settings import Settings
from db.models import AnnotatorLabel, Image, LabelClass, LabelEvent, Project, Tally
from tests.integration.test_labels import World, make_world

TWO = ConsensusRule("majority", 2)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return make_world(tmp_path)


def merge(world: World, gone: int, into: int | None) -> None:
    """Merge a class into another one (None: delete it), as the service for classes does."""
    with world.store.writing() as session:
        row = session.get_one(LabelClass, world.class_ids[gone])
        row.active, row.name_key = False, f"\x1f{row.id}"
        row.merged_into = None if into is None else world.class_ids[into]
        to_settle(session.get_one(Project, world.project_id), [row.id])
    settle(world.store, world.project_id)


def redo_of(world: World, event: dict[str, Any]) -> dict[str, Any]:
    return world.undo_of(event) | {"kind": "redo"}


def picture(world: World) -> tuple[Any, ...]:
    """Return all that is derived: what images are called, what people say, the counts."""
    with world.store.reading() as session:
        shown = session.execute(
            select(
                Image.id, Image.current_state, Image.current_class_id, Image.current_event_id,
                Image.current_annotator, Image.current_source, Image.readers, Image.disputed,
            ).order_by(Image.id)
        ).all()  # fmt: skip
        said = session.execute(
            select(AnnotatorLabel.image_id, AnnotatorLabel.annotator, AnnotatorLabel.event_id)
            .order_by(AnnotatorLabel.image_id, AnnotatorLabel.annotator)
        ).all()  # fmt: skip
        tally = session.execute(select(Tally.key, Tally.n).where(Tally.n != 0)).all()
    return tuple(shown), tuple(said), tuple(sorted(tally))


def test_a_redo_brings_back_exactly_what_an_undo_took(world: World) -> None:
    first, second = world.event(0, cls=0), world.event(0, cls=1)
    world.record(first, second)
    there = picture(world)
    world.record(world.undo_of(second))
    assert world.state() == ("label", world.class_ids[0])
    world.record(redo_of(world, second))
    assert picture(world) == there
    world.record(world.undo_of(second), world.undo_of(first))
    assert world.state() == ("none", None)


def test_the_redo_list_is_ones_own_and_ends_at_a_new_label(world: World) -> None:
    one, two, three = world.event(0), world.event(1, cls=1), world.event(2, cls=2)
    world.record(one, two, three)
    world.record(world.undo_of(three, action="undo-of-three"))
    world.record(world.undo_of(two, action="undo-of-two"))

    def redoable(who: str = "maria") -> list[tuple[tuple[str, int, int], ...]]:
        steps = labels.redo_stack(world.store, project_id=world.project_id, annotator=who)
        return [step.events for step in steps]

    def key(event: dict[str, Any]) -> tuple[tuple[str, int, int], ...]:
        return ((event["client"], event["seq"], event["image_id"]),)

    assert redoable() == [key(two), key(three)]
    assert redoable("jon") == []
    world.record(redo_of(world, two))
    assert redoable() == [key(three)]
    world.record(world.event(3), annotator="jon")
    assert redoable() == [key(three)]  # what others do does not end it
    world.record(world.event(3, cls=1))
    assert redoable() == []


def test_somebody_else_can_neither_undo_nor_redo_it(world: World) -> None:
    event = world.event(0)
    world.record(event)
    for wish in (world.undo_of(event), redo_of(world, event)):
        (refused,) = world.record(wish, annotator="jon").rejected
        assert f"Only maria can {wish['kind']} this label" in refused.reason


def test_under_a_vote_an_image_waits_is_decided_or_is_left_open(world: World) -> None:
    label_settings.change_settings(world.store, project_id=world.project_id, rule=TWO)
    world.record(world.event(0, cls=0))
    assert world.state() == ("waiting", None)
    world.record(world.event(0, cls=1), annotator="jon")
    assert world.state() == ("undecided", None)
    world.record(world.event(0, cls=0), annotator="eva")
    assert world.state() == ("label", world.class_ids[0])
    world.record(world.event(1, cls=2), world.event(1, cls=1, source="adjudication"))
    assert world.state(1) == ("label", world.class_ids[1])


def test_another_rule_decides_every_image_anew_and_back_again(world: World) -> None:
    for who, cls in (("maria", 0), ("jon", 1)):
        world.record(*(world.event(i, cls=cls) for i in range(3)), annotator=who)
    latest = picture(world)
    label_settings.change_settings(world.store, project_id=world.project_id, rule=TWO)
    assert [world.state(i)[0] for i in range(4)] == ["undecided"] * 3 + ["none"]
    label_settings.change_settings(world.store, project_id=world.project_id, rule=ConsensusRule())
    assert picture(world) == latest


def test_a_merged_class_stands_for_the_other_and_a_deleted_one_for_none(world: World) -> None:
    world.record(world.event(0, cls=0), world.event(1, cls=1), world.event(2, cls=2))
    world.record(world.event(1, cls=0), annotator="jon")
    assert images.get_image(world.store, image_id=world.image_ids[1]).disputed
    merge(world, gone=0, into=1)
    assert [world.state(i) for i in range(3)] == [
        ("label", world.class_ids[1]),
        ("label", world.class_ids[1]),
        ("label", world.class_ids[2]),
    ]
    assert not images.get_image(world.store, image_id=world.image_ids[1]).disputed
    merge(world, gone=1, into=None)  # and with it what was merged into it
    assert [world.state(i)[0] for i in range(3)] == ["none", "none", "label"]
    per_class = images.counts(world.store, project_id=world.project_id).per_class
    assert per_class == {world.class_ids[2]: 1}
    (refused,) = world.record(world.event(3, cls=0)).rejected
    assert "not in this project" in refused.reason


def test_a_settling_that_was_killed_is_finished_at_the_next_start(tmp_path: Path) -> None:
    app = open_app(Settings(home=tmp_path))
    world = make_world(tmp_path, 3)
    world.record(*(world.event(i) for i in range(3)))
    with app.store.writing() as session:  # the change alone, as a process leaves it that dies here
        row = session.get_one(LabelClass, world.class_ids[0])
        row.active, row.merged_into = False, world.class_ids[1]
        to_settle(session.get_one(Project, world.project_id), [row.id])
    open_app(Settings(home=tmp_path))
    assert {world.state(i) for i in range(3)} == {("label", world.class_ids[1])}
    with app.store.reading() as session:
        assert NOTE not in session.get_one(Project, world.project_id).settings


def test_a_bulk_label_is_one_action_and_one_undo(tmp_path: Path) -> None:
    world = make_world(tmp_path, 5000)
    before = picture(world)
    receipt = bulk.label_images(
        world.store,
        project_id=world.project_id,
        annotator="maria",
        image_ids=[*world.image_ids, 10**6],
        class_id=world.class_ids[0],
    )
    assert (receipt.stored, receipt.unknown) == (5000, 1)
    (step,) = labels.undo_stack(world.store, project_id=world.project_id, annotator="maria")
    assert len(step.events) == 5000
    again = bulk.label_images(
        world.store,
        project_id=world.project_id,
        annotator="maria",
        image_ids=world.image_ids,
        class_id=world.class_ids[0],
        action=receipt.action,
    )
    assert again.stored == 0
    undos = [
        world.event(world.image_ids.index(i), "undo", target={"client": c, "seq": s}, action="back")
        for c, s, i in step.events
    ]
    for start in range(0, 5000, 1000):
        assert not world.record(*undos[start : start + 1000]).rejected
    assert picture(world) == before


def test_a_bulk_label_of_a_strange_class_or_source_is_refused(world: World) -> None:
    def label(**more: Any) -> None:
        bulk.label_images(
            world.store,
            project_id=world.project_id,
            annotator="maria",
            image_ids=world.image_ids,
            **{"class_id": world.class_ids[0], **more},
        )

    for wrong in ({"class_id": 999}, {"class_id": None}, {"source": "guess"}):
        with pytest.raises(InvalidInputError):
            label(**wrong)
    assert world.n_events() == 0


@pytest.mark.parametrize("seed", range(2))
def test_after_any_history_everything_undone_is_the_beginning(tmp_path: Path, seed: int) -> None:
    """Random acts by three people, with a vote now and then; checked by `doctor` too."""
    random = Random(seed)
    world = make_world(tmp_path, 12)
    beginning = picture(world)
    people = ("maria", "jon", "eva")
    sent: dict[tuple[str, int], dict[str, Any]] = {}
    for _ in range(400):
        who = random.choice(people)
        wish = random.random()
        if wish < 0.6:
            kind = random.choice(["label", "label", "label", "skip", "unsure", "clear"])
            chosen = random.sample(range(12), random.randint(1, 4))
            action = f"action-{len(sent)}-{who}"
            events = [world.event(i, kind, random.randrange(3), action=action) for i in chosen]
        else:
            stack = labels.undo_stack if wish < 0.85 else labels.redo_stack
            steps = stack(world.store, project_id=world.project_id, annotator=who, limit=1)
            if not steps:
                continue
            make = world.undo_of if wish < 0.85 else lambda event: redo_of(world, event)
            events = [make(sent[client, seq]) for client, seq, _ in steps[0].events]
            for event in events:
                event["action"] = f"back-{events[0]['seq']}"
        sent |= {(event["client"], event["seq"]): event for event in events}
        assert not world.record(*events, annotator=who).rejected
        if wish > 0.995:
            rule = random.choice([ConsensusRule(), TWO])
            label_settings.change_settings(world.store, project_id=world.project_id, rule=rule)
    checks = {check.name: check for check in health.examine(open_app(Settings(home=tmp_path)))}
    assert checks["labels"].state == "ok", checks["labels"]
    assert checks["counts"].state == "ok", checks["counts"]
    for who in people:
        while steps := labels.undo_stack(
            world.store, project_id=world.project_id, annotator=who, limit=1
        ):
            undos = [world.undo_of(sent[client, seq]) for client, seq, _ in steps[0].events]
            world.record(*undos, annotator=who)
    assert picture(world) == beginning
    with world.store.reading() as session:
        assert len(session.scalars(select(LabelEvent.id)).all()) >= len(sent)
