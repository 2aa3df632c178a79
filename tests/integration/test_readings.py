"""Readings again: asked for, handed out, answered, taken back, open again."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import select

from cnsapp.errors import InvalidInputError, NotFoundError
from cnsapp.services import exclusion, queueing, readings
from cnsapp.services.images import ImageFilter
from cnsapp.services.readings import Wanted
from db.models import LabelEvent, Reading
from tests.integration.test_labels import World, make_world


@pytest.fixture
def world(tmp_path: Path) -> World:
    """Return a project of thirty images, of which Maria has labelled twenty."""
    made = make_world(tmp_path, 30)
    made.record(*(made.event(i, cls=0 if i < 12 else 1 if i < 18 else 2) for i in range(20)))
    return made


def ask(world: World, **wanted: object) -> int:
    return readings.ask(
        world.store, project_id=world.project_id, asked_by="maria", wanted=Wanted(**wanted)
    )


def rows(world: World) -> list[Reading]:
    with world.store.reading() as session:
        found = list(session.scalars(select(Reading).order_by(Reading.id)))
        session.expunge_all()
    return found


def newest(world: World) -> int:
    with world.store.reading() as session:
        return session.scalars(select(LabelEvent.id).order_by(LabelEvent.id.desc())).first() or 0


def counts(world: World) -> list[tuple[str, str | None, int, int]]:
    found = readings.count_readings(world.store, project_id=world.project_id)
    return [(c.kind, c.wanted_from, c.open, c.done) for c in found]


def handed(world: World, who: str, strategy: str) -> list[int]:
    found = queueing.next_images(
        world.store, project_id=world.project_id, annotator=who, holder=f"tab-{who}",
        strategy=strategy, n=30,
    )  # fmt: skip
    return [world.image_ids.index(image.id) for image in found]


def test_a_share_is_drawn_by_its_seed_and_an_image_is_asked_for_once(world: World) -> None:
    wanted = Wanted(share=0.25, seed=4)
    ahead = readings.preview(world.store, project_id=world.project_id, wanted=wanted)
    assert (ahead.possible, ahead.drawn) == (20, 5)
    assert sum(ahead.per_class.values()) == 5
    assert ask(world, share=0.25, seed=4) == 5
    first = {row.image_id for row in rows(world)}
    assert ask(world, share=1.0) == 15, "those that wait already are not asked for again"
    assert len({row.image_id for row in rows(world)}) == 20
    assert readings.withdraw(world.store, project_id=world.project_id) == 20
    assert ask(world, share=0.25, seed=4) == 5
    assert {row.image_id for row in rows(world)} == first
    readings.withdraw(world.store, project_id=world.project_id)
    ask(world, share=0.25, seed=5)
    assert {row.image_id for row in rows(world)} != first


def test_evenly_takes_from_each_class_in_turn(world: World) -> None:
    wanted = Wanted(number=9, evenly=True)
    ahead = readings.preview(world.store, project_id=world.project_id, wanted=wanted)
    colon, liver, lung = world.class_ids
    # twelve, six and two images: two of the smallest, the rest in turn from the others
    assert ahead.per_class in ({colon: 4, liver: 3, lung: 2}, {colon: 3, liver: 4, lung: 2})


def test_a_filter_limits_what_can_be_asked_for(world: World) -> None:
    only = ImageFilter(class_id=world.class_ids[1])
    assert ask(world, share=1.0, filter=only) == 6
    assert {world.image_ids.index(r.image_id) for r in rows(world)} == set(range(12, 18))


def test_an_answer_closes_a_reading_and_its_undo_opens_it_again(world: World) -> None:
    ask(world, number=20)
    assert sorted(handed(world, "ben", "second")) == list(range(20))
    assert handed(world, "maria", "second") == [], "who read an image is no second reader of it"
    label = world.event(3, cls=1, source="second")
    world.record(label, annotator="ben")
    event = newest(world)
    (done,) = [row for row in rows(world) if row.done_event is not None]
    assert (done.image_id, done.done_event) == (world.image_ids[3], event)
    assert counts(world) == [("second", None, 19, 1)]
    world.record(label, annotator="ben")
    assert counts(world) == [("second", None, 19, 1)], "sent again, it is stored once"
    world.record(world.undo_of(label), annotator="ben")
    assert counts(world) == [("second", None, 20, 0)]
    assert 3 in handed(world, "ben", "second")
    target = {"client": label["client"], "seq": label["seq"]}
    world.record(world.event(3, "redo", target=target), annotator="ben")
    assert counts(world) == [("second", None, 19, 1)]
    assert [r.done_event for r in rows(world) if r.done_event] == [event]


def test_only_a_blind_reading_of_who_was_asked_answers(world: World) -> None:
    ask(world, number=20, by="ben")
    world.record(world.event(0, cls=1), annotator="ben")
    world.record(world.event(1, cls=1, source="second"), annotator="carl")
    world.record(world.event(2, cls=1, source="self"), annotator="ben")
    world.record(world.event(3, "skip", source="second"), annotator="ben")
    assert counts(world) == [("second", "ben", 20, 0)]
    world.record(world.event(4, "unsure", source="second"), annotator="ben")
    assert counts(world) == [("second", "ben", 19, 1)]


def test_the_first_reader_cannot_answer_a_second_reading(world: World) -> None:
    ask(world, number=20)
    world.record(world.event(0, source="second"), annotator="maria")
    assert counts(world) == [("second", None, 20, 0)]


def test_what_they_said_last_in_the_same_reading_counts(world: World) -> None:
    ask(world, number=20, by="ben")
    world.record(world.event(4, cls=1, source="second"), annotator="ben")
    correction = world.event(4, cls=2, source="second")
    world.record(correction, annotator="ben")
    assert [r.done_event for r in rows(world) if r.done_event] == [newest(world)]


def test_own_images_are_read_again_and_again(world: World) -> None:
    assert ask(world, kind="self", by="maria", number=20) == 20
    assert handed(world, "ben", "self") == []
    assert sorted(handed(world, "maria", "self")) == list(range(20))
    first = rows(world)[0].first_event
    place = world.image_ids.index(rows(world)[0].image_id)
    world.record(world.event(place, cls=2, source="self"))
    again = newest(world)
    assert ask(world, kind="self", by="maria", share=1.0) == 1, "the others wait still"
    world.record(world.event(place, cls=1, source="self"))
    of_image = [r for r in rows(world) if r.image_id == world.image_ids[place]]
    assert [(r.first_event, r.done_event) for r in of_image] == [
        (first, again),
        (again, newest(world)),
    ]


def test_people_who_read_everything_cannot_be_asked(world: World) -> None:
    with pytest.raises(InvalidInputError, match="maria has read every labelled image"):
        ask(world, by="maria", share=0.5)
    with pytest.raises(InvalidInputError, match="ben has labelled no image"):
        ask(world, kind="self", by="ben", share=0.5)
    with pytest.raises(NotFoundError):
        readings.ask(world.store, project_id=99, asked_by="m", wanted=Wanted(share=0.5))


def test_what_is_left_out_of_the_project_is_not_asked_for(world: World) -> None:
    exclusion.exclude(
        world.store, project_id=world.project_id, image_ids=world.image_ids[:5], who="maria",
        reason="blurred",
    )  # fmt: skip
    assert ask(world, share=1.0) == 15


def test_withdrawing_leaves_what_was_answered(world: World) -> None:
    ask(world, number=5, by="ben")
    ask(world, kind="self", by="maria", number=4)
    place = world.image_ids.index(rows(world)[0].image_id)
    world.record(world.event(place, source="second"), annotator="ben")
    assert readings.withdraw(world.store, project_id=world.project_id, kind="self") == 4
    assert readings.withdraw(world.store, project_id=world.project_id, by="carl") == 0
    assert readings.withdraw(world.store, project_id=world.project_id, by="ben") == 4
    assert counts(world) == [("second", "ben", 0, 1)]


@pytest.mark.parametrize(
    ("wanted", "sentence"),
    [
        ({}, "How many images"),
        ({"share": 0.5, "number": 3}, "How many images"),
        ({"share": 1.5}, "A share of 1.5"),
        ({"number": 0}, "0 readings"),
        ({"kind": "third", "number": 1}, "no readings “third”"),
    ],
)
def test_foolish_wishes_are_refused_in_words(wanted: dict[str, object], sentence: str) -> None:
    with pytest.raises(InvalidInputError, match=sentence):
        Wanted(**wanted)  # type: ignore[arg-type]
