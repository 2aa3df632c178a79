"""What changed from one model to another, and in the labels since."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import select, update

from cnsapp.bootstrap import App
from cnsapp.domain.consensus import ConsensusRule
from cnsapp.errors import InvalidInputError
from cnsapp.services import classes, exclusion, labels
from cnsapp.services.changes import Outcome, outcome_images, two_models
from cnsapp.services.comparing import compare_models
from cnsapp.services.label_changes import (
    LabelChanges,
    LabelState,
    changed_images,
    labels_since,
    labels_since_model,
)
from cnsapp.services.label_settings import change_settings
from cnsapp.services.retraining import retrain_hint
from cnsapp.services.splits import count_uses, create_split
from db.models import Image, LabelEvent, Model, Prediction
from db.types import utc_now
from tests.integration.worlds import World, add_model, make_world, relabel


@pytest.fixture
def world(app: App) -> World:
    return make_world(app, {"liver": 5, "lung": 5}, unlabelled=2)


@pytest.fixture
def models(world: World) -> tuple[int, int]:
    """Return two models. Liver: fixed, fixed, broken, still wrong, both right; lung: all right."""
    liver, lung = world.class_ids
    a, b = world.image_ids[:2]
    older = [(a[0], lung, 0.7), (a[1], lung, 0.9), (a[2], liver, 0.8), (a[3], lung, 0.6)]
    newer = [(a[0], liver, 0.8), (a[1], liver, 0.6), (a[2], lung, 0.95), (a[3], lung, 0.9)]
    both = [(a[4], liver, 0.99)]
    rest = [(i, lung, 0.6 + 0.05 * k) for k, i in enumerate(b)]
    made = [
        add_model(
            world,
            [(i, liver if i in a else lung, said, p) for i, said, p in [*rows, *both, *rest]],
        )
        for rows in (older, newer)
    ]
    with world.app.store.writing() as session:
        for number, model_id in enumerate(made):
            session.execute(
                update(Model).where(Model.id == model_id).values(name=f"model {number}")
            )
    return made[0], made[1]


# --- two models ---


def test_fixed_broken_still_wrong_and_both_right(world: World, models: tuple[int, int]) -> None:
    store = world.app.store
    found = two_models(store, older=models[0], newer=models[1])
    told = found.all
    assert (told.n, told.fixed, told.broken, told.still_wrong, told.both_right) == (10, 2, 1, 1, 6)
    rows = [(c.name, c.n, c.fixed, c.broken, c.still_wrong, c.both_right) for c in found.by_class]
    assert rows == [("liver", 5, 2, 1, 1, 1), ("lung", 5, 0, 0, 0, 5)]
    pair = compare_models(store, model_ids=list(models)).pair(0, 1)
    assert found.gain == pytest.approx(0.1)  # liver 2/5 -> 3/5, lung 1 -> 1
    assert pair.difference == pytest.approx(-0.1)
    assert pair.interval is not None and found.interval is not None
    assert found.interval == pytest.approx((-pair.interval[1], -pair.interval[0]))
    assert "No difference shown" in found.said
    turned = two_models(store, older=models[1], newer=models[0])
    assert (turned.all.fixed, turned.all.broken) == (1, 2)
    assert turned.gain == pytest.approx(-0.1)


def test_the_images_of_each_outcome_come_surest_first(
    world: World, models: tuple[int, int]
) -> None:
    store, (liver, lung) = world.app.store, world.class_ids
    a, b = world.image_ids[:2]
    found = two_models(store, older=models[0], newer=models[1])

    def ids(outcome: Outcome, **more: Any) -> list[int]:
        return [j.item.id for j in outcome_images(store, found, outcome=outcome, **more).items]

    assert ids("fixed") == [a[1], a[0]]  # the older was wrong at .9, at .7
    assert ids("broken") == [a[2]]
    assert ids("still_wrong") == [a[3]]
    assert ids("both_right") == [*b, a[4]]  # the newer at .6, .65 ... .99
    assert ids("both_right", class_id=liver) == [a[4]]
    assert ids("fixed", class_id=lung) == []
    (broken,) = outcome_images(store, found, outcome="broken").items
    assert (broken.label_id, broken.first_id, broken.second_id) == (liver, liver, lung)
    assert (broken.first_sure, broken.second_sure) == pytest.approx((0.8, 0.95))
    with pytest.raises(InvalidInputError, match="no outcome “odd”"):
        ids("odd")  # type: ignore[arg-type]


def test_pages_of_an_outcome_give_every_image_once(world: World, models: tuple[int, int]) -> None:
    store = world.app.store
    with store.writing() as session:  # ties
        session.execute(update(Prediction).values(probability=0.75))
    found = two_models(store, older=models[0], newer=models[1])
    seen: list[int] = []
    after = None
    while True:
        page = outcome_images(store, found, outcome="both_right", after=after, limit=2)
        assert page.n == 6
        seen += [j.item.id for j in page.items]
        if (after := page.after) is None:
            break
    assert seen == sorted([world.image_ids[0][4], *world.image_ids[1]])


def test_only_images_count_that_both_judged_and_that_are_in_use(
    world: World, models: tuple[int, int]
) -> None:
    store, a = world.app.store, world.image_ids[0]
    exclusion.exclude(store, project_id=world.project_id, image_ids=[a[0]], who="ann")
    with store.writing() as session:
        row = session.scalars(
            select(Prediction).where(Prediction.image_id == a[1], Prediction.model_id == models[1])
        ).one()
        session.delete(row)
    assert two_models(store, older=models[0], newer=models[1]).all.fixed == 0
    with pytest.raises(InvalidInputError, match="1 different models"):
        two_models(store, older=models[0], newer=models[0])


def test_a_comparison_on_the_test_set_is_counted_as_a_look(
    world: World, models: tuple[int, int]
) -> None:
    store = world.app.store
    split = create_split(store, project_id=world.project_id, who="ann")
    with store.writing() as session:
        session.execute(update(Model).values(split_id=split.id))
        session.execute(update(Prediction).values(part="test", fold=None))
    two_models(store, older=models[0], newer=models[1], part="test", who="ann")
    assert count_uses(store, split_id=split.id) == 2  # a look at each


# --- labels ---


def act(world: World, image_id: int, kind: str, seq: int, who: str = "bob", **more: Any) -> None:
    """Label an image as a browser would."""
    with world.app.store.reading() as session:
        sha = session.get_one(Image, image_id).sha256[:8]
    event = {
        "client": f"browser-of-{who}", "seq": seq, "image_id": image_id, "sha": sha, "kind": kind,
        "source": "human", "action": f"{who}-{seq}", **more,
    }  # fmt: skip
    got = labels.record_events(
        world.app.store, project_id=world.project_id, annotator=who, events=[event]
    )
    assert not got.rejected, got.rejected


def told(found: LabelChanges) -> tuple[int, int, int, int, int]:
    return found.n_before, found.n_changed, found.n_added, found.n_removed, found.n_other


def test_labels_since_a_model_from_what_to_what_and_by_whom(
    world: World, models: tuple[int, int]
) -> None:
    store, (liver, lung) = world.app.store, world.class_ids
    a, b, new = world.image_ids
    assert told(labels_since_model(store, model_id=models[0])) == (10, 0, 0, 0, 0)
    act(world, a[0], "label", 1, class_id=lung)
    act(world, a[1], "label", 2, class_id=lung)
    act(world, a[2], "unsure", 3)
    act(world, new[0], "label", 4, "eve", class_id=liver)
    act(world, new[1], "skip", 5, "eve")
    act(world, b[0], "label", 6, class_id=lung)  # what it was
    found = labels_since_model(store, model_id=models[0])
    assert told(found) == (10, 2, 1, 1, 1)
    was_liver, is_lung = LabelState("label", liver, "liver"), LabelState("label", lung, "lung")
    nothing = LabelState("none", None, None)
    assert found.moves[0] == (was_liver, is_lung, 2)
    assert {(x.state, y.state, n) for x, y, n in found.moves[1:]} == {
        ("label", "unsure", 1), ("none", "label", 1), ("none", "skip", 1),
    }  # fmt: skip
    assert found.by_person == [("bob", 3), ("eve", 2)]
    assert [c.image_id for c in found.changes] == [new[1], new[0], a[2], a[1], a[0]]
    first = changed_images(store, found, limit=2)
    assert [item.id for _, item in first] == [new[1], new[0]]
    rest = changed_images(store, found, behind=first[-1][0].event_id)
    assert [item.id for _, item in rest] == [a[2], a[1], a[0]]
    assert [i.id for _, i in changed_images(store, found, before=was_liver, after=is_lung)] == [
        a[1], a[0],
    ]  # fmt: skip
    assert [i.id for _, i in changed_images(store, found, before=nothing, who="eve")] == [
        new[1], new[0],
    ]  # fmt: skip


def test_what_was_taken_back_is_no_change(world: World, models: tuple[int, int]) -> None:
    store, (_, lung) = world.app.store, world.class_ids
    a = world.image_ids[0]
    act(world, a[0], "label", 1, class_id=lung)
    act(world, a[0], "undo", 2, target={"client": "browser-of-bob", "seq": 1})
    assert told(labels_since_model(store, model_id=models[0]))[1:] == (0, 0, 0, 0)
    act(world, a[0], "redo", 3, target={"client": "browser-of-bob", "seq": 1})
    assert told(labels_since_model(store, model_id=models[0]))[1:] == (1, 0, 0, 0)


def test_an_undo_of_what_was_there_at_the_training_is_a_change(world: World) -> None:
    store, (liver, lung) = world.app.store, world.class_ids
    a = world.image_ids[0]
    act(world, a[0], "label", 1, class_id=lung)
    model_id = add_model(world, [(a[0], lung, lung, 0.9)])
    act(world, a[0], "undo", 2, target={"client": "browser-of-bob", "seq": 1})
    (change,) = labels_since_model(store, model_id=model_id).changes
    assert (change.before.class_id, change.after.class_id, change.who) == (lung, liver, "bob")


def test_labels_since_a_moment(world: World) -> None:
    store, lung = world.app.store, world.class_ids[1]
    a = world.image_ids[0]
    ago = utc_now() - timedelta(days=2)
    with store.writing() as session:
        session.execute(update(LabelEvent).values(created_at=ago))
    relabel(world, a[0], lung)

    def since(days: float) -> tuple[int, int, int, int, int]:
        moment = utc_now() - timedelta(days=days)
        return told(labels_since(store, project_id=world.project_id, moment=moment))

    assert since(1) == (10, 1, 0, 0, 0)
    assert since(0) == (10, 0, 0, 0, 0)
    assert since(3) == (0, 0, 10, 0, 0)  # nothing was labelled then


def test_merged_classes_excluded_images_and_another_rule_are_no_changes(
    world: World, models: tuple[int, int]
) -> None:
    store, (liver, lung) = world.app.store, world.class_ids
    a = world.image_ids[0]
    act(world, a[0], "label", 1, class_id=lung)
    act(world, a[1], "label", 2, class_id=lung)
    exclusion.exclude(store, project_id=world.project_id, image_ids=[a[1]], who="ann")
    assert told(labels_since_model(store, model_id=models[0])) == (9, 1, 0, 0, 0)
    classes.merge_classes(store, class_id=lung, into=liver, who="ann")
    assert told(labels_since_model(store, model_id=models[0])) == (9, 0, 0, 0, 0)
    classes.undo_class_change(store, project_id=world.project_id, who="ann")
    rule = ConsensusRule("majority", 2)
    change_settings(store, project_id=world.project_id, rule=rule)
    # by today's rule nothing had a label then; a0 has two readers now who do not agree
    found = labels_since_model(store, model_id=models[0])
    assert told(found) == (0, 0, 0, 0, 1)
    assert (found.changes[0].before.state, found.changes[0].after.state) == ("waiting", "undecided")


# --- train again? ---


def test_the_hint_grows_with_the_share_of_the_labels_that_changed(
    world: World, models: tuple[int, int]
) -> None:
    store, (_, lung) = world.app.store, world.class_ids
    a, _, new = world.image_ids
    with store.writing() as session:
        session.execute(update(Model).values(settings={"last_event_id": 10, "n_images": 40}))

    hint = retrain_hint(store, model_id=models[0])
    assert (hint.worth, hint.share) == ("no", 0.0)
    assert hint.said == "No label changed since this model was trained."
    relabel(world, a[0], lung)
    hint = retrain_hint(store, model_id=models[0])
    assert (hint.worth, hint.share) == ("no", 1 / 40)
    assert "1 changed, 2.5 % of the 40 it was made from" in hint.said
    relabel(world, new[0], lung)
    hint = retrain_hint(store, model_id=models[0])
    assert (hint.worth, hint.changes.n_changed, hint.changes.n_new) == ("maybe", 1, 1)
    assert "may be worth it" in hint.said
    with store.writing() as session:
        session.execute(update(Model).values(settings={"last_event_id": 10, "n_images": 10}))
    hint = retrain_hint(store, model_id=models[0])
    assert (hint.worth, hint.share) == ("yes", 0.2)
    assert "20 % of the 10" in hint.said and hint.said.endswith("train again.")
    with store.writing() as session:
        session.execute(update(Model).values(settings={"last_event_id": 10, "n_images": 2}))
    assert "100 % of the 2 it was made from" in retrain_hint(store, model_id=models[0]).said


def test_labels_of_the_test_set_are_no_reason_to_train_again(
    world: World, models: tuple[int, int]
) -> None:
    store, (_, lung) = world.app.store, world.class_ids
    a = world.image_ids[0]
    with store.writing() as session:
        session.execute(update(Prediction).where(Prediction.image_id == a[0]).values(part="test"))
    relabel(world, a[0], lung)
    hint = retrain_hint(store, model_id=models[0])
    assert (hint.changes.total, hint.n_test, hint.share, hint.worth) == (1, 1, 0.0, "no")
    assert "1 of the locked test set not counted" in hint.said


def test_a_class_that_the_model_does_not_know_is_a_reason(
    world: World, models: tuple[int, int]
) -> None:
    store, b = world.app.store, world.image_ids[1]
    with store.writing() as session:
        session.execute(update(Model).values(settings={"last_event_id": 10, "n_images": 9000}))
    spleen = classes.add_class(
        store, project_id=world.project_id, name="spleen", who="ann"
    ).class_id
    assert spleen is not None
    for image_id in b[:4]:
        relabel(world, image_id, spleen)
    assert retrain_hint(store, model_id=models[0]).worth == "no"  # too few to learn it from
    relabel(world, b[4], spleen)
    hint = retrain_hint(store, model_id=models[0])
    assert (hint.worth, hint.unknown_classes) == ("yes", ["spleen"])
    assert "does not know spleen" in hint.said
