"""Comparing models of a project: on common images, in words, and the images on which they part."""

from __future__ import annotations

import json

import pytest
from sqlalchemy import update

from cnsapp.bootstrap import App
from cnsapp.cli import main
from cnsapp.errors import InvalidInputError, NotFoundError
from cnsapp.services.comparing import (
    compare_models,
    images_apart,
    parts_in_common,
)
from cnsapp.services.comparing_words import in_words
from db.models import Model, Prediction
from tests.integration.worlds import World, add_model, make_world, relabel


@pytest.fixture
def world(app: App) -> World:
    return make_world(app, {"liver": 10, "lung": 10}, n_groups=5)


def model(world: World, wrong: int, *, of: int = 10, sure: float = 0.9) -> int:
    """Add a model that judged `of` images a class and is wrong on the first `wrong` livers."""
    liver, lung = world.class_ids
    said = [
        (i, liver, lung if k < wrong else liver, sure - 0.01 * k)
        for k, i in enumerate(world.image_ids[0][:of])
    ]
    return add_model(world, said + [(i, lung, lung, 0.8) for i in world.image_ids[1][:of]])


def test_two_models_on_the_images_that_both_judged(world: World) -> None:
    good, bad = model(world, 0), model(world, 4, of=8)
    found = compare_models(world.app.store, model_ids=[good, bad])
    assert found.found.n == 16 and found.n_judged == [20, 16]
    assert found.found.scores == [1.0, pytest.approx((4 / 8 + 1) / 2)]
    assert any("16 images that all of them judged out of fold" in note for note in found.notes)
    pair = found.pair(0, 1)
    assert (pair.only_first, pair.only_second, pair.both) == (4, 0, 12)
    assert found.found.n_groups == 5 and any("exchanging" in note for note in found.notes)


def test_no_difference_is_said_as_such_with_the_interval(world: World) -> None:
    twin, other = model(world, 1), model(world, 1)
    found = compare_models(world.app.store, model_ids=[twin, other])
    said = in_words(found, found.pair(0, 1))
    assert said.startswith("No difference shown") and "95 % interval" in said
    assert "not the same as being equal" in said
    assert any("p cannot fall below 0.06" in note for note in found.notes)  # 2 of 2^5 ways
    interval = found.pair(0, 1).interval
    assert interval is not None and interval[0] < -0.1 and interval[1] > 0.1  # 5 groups tell little


def test_images_that_one_gets_right_and_the_other_wrong_the_surest_mistake_first(
    world: World,
) -> None:
    good, bad = model(world, 0), model(world, 3)
    found = compare_models(world.app.store, model_ids=[good, bad])
    store = world.app.store
    apart = images_apart(store, found, first=0, second=1, which="only_first")
    assert [judged.item.id for judged in apart] == world.image_ids[0][:3]
    assert apart[0].second_id == world.class_ids[1] and apart[0].label_id == world.class_ids[0]
    assert apart[0].second_sure == pytest.approx(0.9)
    assert images_apart(store, found, first=0, second=1, which="only_second") == []
    rest = images_apart(store, found, first=0, second=1, start=2, limit=5)
    assert [judged.item.id for judged in rest] == world.image_ids[0][2:3]


def test_right_and_wrong_follow_the_labels_of_today(world: World) -> None:
    good, bad = model(world, 0), model(world, 1)
    store = world.app.store
    assert compare_models(store, model_ids=[good, bad]).pair(0, 1).only_first == 1
    relabel(world, world.image_ids[0][0], world.class_ids[1])  # the “mistake” was a wrong label
    pair = compare_models(store, model_ids=[good, bad]).pair(0, 1)
    assert (pair.only_first, pair.only_second) == (0, 1)


def test_models_without_a_common_image_or_class_are_refused_in_words(world: World) -> None:
    store, (liver, lung) = world.app.store, world.class_ids
    left = add_model(world, [(i, liver, liver, 0.9) for i in world.image_ids[0]])
    right = add_model(world, [(i, lung, lung, 0.9) for i in world.image_ids[1]])
    with pytest.raises(InvalidInputError, match="No image was judged out of fold by all"):
        compare_models(store, model_ids=[left, right])
    with pytest.raises(InvalidInputError, match="1 different models"):
        compare_models(store, model_ids=[left, left])
    with pytest.raises(NotFoundError, match="number 99"):
        compare_models(store, model_ids=[left, 99])
    with store.writing() as session:
        session.execute(update(Model).where(Model.id == right).values(class_ids=[lung]))
    with pytest.raises(InvalidInputError, match="fewer than two classes in common"):
        compare_models(store, model_ids=[left, right])


def test_models_of_other_classes_are_compared_on_the_common_ones(app: App) -> None:
    world = make_world(app, {"liver": 6, "lung": 6, "colon": 6})
    liver, lung, colon = world.class_ids
    said = [
        (i, c, c, 0.9)
        for c, ids in zip(world.class_ids, world.image_ids, strict=False)
        for i in ids
    ]
    wide = add_model(
        world, [(i, c, colon if i == world.image_ids[0][0] else s, p) for i, c, s, p in said]
    )
    narrow = add_model(world, [row for row in said if row[1] != colon])
    with app.store.writing() as session:
        session.execute(update(Model).where(Model.id == narrow).values(class_ids=[liver, lung]))
    found = compare_models(app.store, model_ids=[wide, narrow])
    assert [c.name for c in found.classes] == ["liver", "lung"] and found.found.n == 12
    assert found.found.scores == [pytest.approx((5 / 6 + 1) / 2), 1.0]
    assert any("also knows colon" in note for note in found.notes)
    assert any("No image has a group" in note for note in found.notes)


def test_test_set_and_folds_are_never_mixed(world: World) -> None:
    one, two = model(world, 0), model(world, 2)
    store = world.app.store
    assert parts_in_common(store, model_ids=[one, two]) == ["fold"]
    with store.writing() as session:
        session.execute(
            update(Prediction)
            .where(Prediction.image_id.in_(world.image_ids[0][:5] + world.image_ids[1][:5]))
            .values(part="test")
        )
    assert parts_in_common(store, model_ids=[one, two]) == ["fold", "test"]
    fold = compare_models(store, model_ids=[one, two])
    test = compare_models(store, model_ids=[one, two], part="test", who="Ada")
    assert (fold.found.n, test.found.n) == (10, 10)
    assert (fold.pair(0, 1).only_first, test.pair(0, 1).only_first) == (0, 2)
    assert any("no test set any more" in note for note in test.notes)


def test_the_command_prints_what_was_found(
    world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CNS_HOME", str(world.app.store.root))
    ids = [model(world, n) for n in (0, 2, 5)]
    wanted = ",".join(map(str, ids))
    assert main(["compare", "--project", "world", "--models", wanted, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["n"] == 20 and len(found["pairs"]) == 3
    assert {"p_holm", "difference", "interval", "in_words"} <= set(found["pairs"][0])
    assert main(["compare", "--project", "world", "--models", wanted]) == 0
    assert "Holm" in capsys.readouterr().out
    assert main(["compare", "--project", "world", "--models", "x"]) == 1
    assert "no list of model numbers" in capsys.readouterr().err
