"""Lists of Review: every filter, every order, places in a list, against hand-worked stores."""

from __future__ import annotations

from datetime import timedelta
from functools import partial
from math import log
from typing import Any, get_args

import numpy as np
import pytest
from sqlalchemy import insert, select, update

from cnsapp.bootstrap import App
from cnsapp.domain.consensus import ConsensusRule
from cnsapp.errors import InvalidInputError, NotFoundError
from cnsapp.services import classes, exclusion, labels, notes
from cnsapp.services.images import ImageFilter
from cnsapp.services.label_import import import_labels
from cnsapp.services.label_settings import change_settings
from cnsapp.services.review_filter import Order, ReviewFilter
from cnsapp.services.review_list import Listed, list_batches, list_review, step
from cnsapp.services.review_matrix import review_matrix
from db.models import Image, ImageMeta, Prediction
from db.types import utc_now
from tests.integration.worlds import World, add_model, make_world, relabel


@pytest.fixture
def world(app: App) -> World:
    return make_world(app, {"liver": 3, "lung": 3, "colon": 3}, n_groups=2)


def add_predictions(world: World, rows: list[tuple[int, int, list[float]]], **more: Any) -> int:
    """Add a model with predictions (image, label then, probabilities); the likeliest is said."""
    said = [(image, label, world.class_ids[int(np.argmax(p))], max(p)) for image, label, p in rows]
    model_id = add_model(world, said)
    with world.app.store.writing() as session:
        for image, _, p in rows:
            session.execute(
                update(Prediction)
                .where(Prediction.model_id == model_id, Prediction.image_id == image)
                .values(probabilities=p, **more)
            )
    return model_id


@pytest.fixture
def model_id(world: World) -> int:
    """Return a model of nine answers, three of them wrong; nobody is ever called colon wrongly.

    liver: right at .8, lung at .6, lung at .9; lung: right at .5, .7 and .7; colon: right at .4,
    .9, and liver at .55.
    """
    liver, lung, colon = world.class_ids
    a, b, c = world.image_ids[:3]
    return add_predictions(
        world,
        [
            (a[0], liver, [0.8, 0.1, 0.1]),
            (a[1], liver, [0.3, 0.6, 0.1]),
            (a[2], liver, [0.05, 0.9, 0.05]),
            (b[0], lung, [0.3, 0.5, 0.2]),
            (b[1], lung, [0.15, 0.7, 0.15]),
            (b[2], lung, [0.15, 0.7, 0.15]),
            (c[0], colon, [0.35, 0.25, 0.4]),
            (c[1], colon, [0.0, 0.1, 0.9]),
            (c[2], colon, [0.55, 0.45, 0.0]),
        ],
    )


def listed(world: World, model_id: int, order: Order = "image", **wanted: Any) -> list[Listed]:
    found = list_review(
        world.app.store, model_id=model_id, wanted=ReviewFilter(**wanted), order=order
    )
    assert found.n == len(found.items)
    return found.items


def ids(items: list[Listed]) -> list[int]:
    return [item.id for item in items]


# --- what is shown ---


def test_wrong_right_and_a_cell(world: World, model_id: int) -> None:
    liver, lung, colon = world.class_ids
    a, b, c = world.image_ids[:3]
    assert ids(listed(world, model_id)) == [*a, *b, *c]
    assert ids(listed(world, model_id, show="wrong")) == [a[1], a[2], c[2]]
    assert ids(listed(world, model_id, show="right")) == [a[0], *b, c[0], c[1]]
    assert ids(listed(world, model_id, label=liver, predicted=lung)) == [a[1], a[2]]
    assert ids(listed(world, model_id, predicted=lung)) == [a[1], a[2], *b]
    assert ids(listed(world, model_id, label=colon)) == c
    assert listed(world, model_id, label=lung, predicted=colon) == []
    assert listed(world, model_id, label=99_999) == []
    assert listed(world, model_id, show="elsewhere") == []


def test_from_an_empty_page_there_is_a_way_back(world: World, model_id: int) -> None:
    store, wanted = world.app.store, ReviewFilter(show="wrong", truth="current")
    liver, lung, _ = world.class_ids
    first = list_review(store, model_id=model_id, wanted=wanted, order="image", limit=2)
    relabel(world, world.image_ids[2][2], liver)  # the third is right now: no second page is left
    gone = list_review(
        store, model_id=model_id, wanted=wanted, order="image", after=first.after, limit=2
    )
    assert (gone.items, gone.n, gone.first, gone.after) == ([], 2, 0, None)
    back = list_review(
        store, model_id=model_id, wanted=wanted, order="image", before=gone.before, limit=2
    )
    assert ids(back.items) == ids(first.items) == world.image_ids[0][1:3]
    for image_id in world.image_ids[0][1:3]:
        relabel(world, image_id, lung)
    empty = list_review(store, model_id=model_id, wanted=wanted, after=first.after)
    assert (empty.items, empty.n, empty.before) == ([], 0, None)


def test_an_item_tells_what_the_model_said(world: World, model_id: int) -> None:
    liver, lung, _ = world.class_ids
    (item,) = listed(world, model_id, sure=(0.85, None), label=liver)
    assert (item.label, item.said, item.right, item.predicted_class_id) == (
        liver,
        lung,
        False,
        lung,
    )
    assert (item.label_then, item.label_now, item.changed, item.fold) == (liver, liver, False, 0)
    assert item.confidence == pytest.approx(0.9)
    assert item.margin == pytest.approx(0.85)
    assert item.loss == pytest.approx(-log(0.05))
    assert item.entropy == pytest.approx(-0.9 * log(0.9) - 2 * 0.05 * log(0.05))


@pytest.mark.parametrize(
    ("order", "first"),
    [
        ("confidence", [0.9, 0.9, 0.8]),
        ("margin", [0.05, 0.1, 0.2]),
    ],
)
def test_orders_by_hand(world: World, model_id: int, order: Order, first: list[float]) -> None:
    field = {"confidence": "confidence", "margin": "margin"}[order]
    items = listed(world, model_id, order)
    assert [getattr(item, field) for item in items[:3]] == pytest.approx(first)


def test_loss_puts_the_impossible_label_first_and_equals_by_their_id(
    world: World, model_id: int
) -> None:
    a, b, c = world.image_ids[:3]
    items = listed(world, model_id, "loss")
    # p of the label: c2 0 (infinite loss), a2 .05, a1 .3, c0 .4, b0 .5, b1 = b2 .7, a0 .8, c1 .9
    assert ids(items) == [c[2], a[2], a[1], c[0], b[0], b[1], b[2], a[0], c[1]]
    assert items[0].loss == float("inf")
    assert ids(listed(world, model_id, "confidence"))[:2] == [a[2], c[1]]  # both 0.9


def test_confidence_is_a_closed_range(world: World, model_id: int) -> None:
    a, b, c = world.image_ids[:3]
    assert ids(listed(world, model_id, sure=(0.55, 0.7))) == [a[1], b[1], b[2], c[2]]
    assert ids(listed(world, model_id, sure=(None, 0.4))) == [c[0]]
    assert ids(listed(world, model_id, sure=(0.0, 0.0))) == []


def test_by_fold_and_by_the_time_images_came_in(world: World, model_id: int) -> None:
    a, b, c = world.image_ids[:3]
    old = utc_now() - timedelta(days=9)
    with world.app.store.writing() as session:
        session.execute(update(Image).where(Image.id.in_(b)).values(created_at=old))
        session.execute(update(Prediction).where(Prediction.image_id.in_(c)).values(fold=3))
        session.execute(update(Prediction).where(Prediction.image_id == a[0]).values(fold=None))
    assert ids(listed(world, model_id, fold=3)) == c
    assert listed(world, model_id)[0].fold is None
    day = timedelta(days=1)
    assert ids(listed(world, model_id, added=(None, old + day))) == b
    assert ids(listed(world, model_id, added=(old + day, None))) == [*a, *c]
    assert ids(listed(world, model_id, added=(old, old))) == []


def test_batches_are_what_came_in_without_a_pause_between(world: World, model_id: int) -> None:
    a, b, c = world.image_ids[:3]
    start = utc_now() - timedelta(days=9)
    minutes = dict(zip([*a, *b, *c], [0, 20, 40, 90, 91, 92, 1000, 1000, 1001], strict=True))
    with world.app.store.writing() as session:
        for image_id, after in minutes.items():
            when = start + timedelta(minutes=after)
            session.execute(update(Image).where(Image.id == image_id).values(created_at=when))
    found = list_batches(world.app.store, model_id=model_id)
    assert [batch.n for batch in found] == [3, 3, 3]
    there = [ids(listed(world, model_id, added=(batch.first, batch.until))) for batch in found]
    assert there == [c, b, a]
    assert list_batches(world.app.store, model_id=model_id, part="test") == []


def test_many_changes_at_once_are_read_like_few(
    world: World, model_id: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cnsapp.services import review_rows

    (liver, lung, _), a = world.class_ids, world.image_ids[0]
    assert len(listed(world, model_id)) == 9
    monkeypatch.setattr(review_rows, "MANY", 0)
    relabel(world, a[1], lung)
    exclusion.exclude(world.app.store, project_id=world.project_id, image_ids=[a[2]], who="ann")
    assert ids(listed(world, model_id, show="changed")) == [a[1]]
    assert ids(listed(world, model_id, label=liver, truth="current")) == [a[0]]


def test_by_group_annotator_tag_metadata_and_name(world: World, model_id: int) -> None:
    store, project = world.app.store, world.project_id
    a, b, c = world.image_ids[:3]
    relabel(world, b[1], world.class_ids[0])  # by “reviewer”
    act = {"client": "a-browser", "seq": 1, "image_id": c[1], "kind": "tagged", "text": "blurred"}
    notes.record(store, project_id=project, who="ann", acts=[act])
    with store.writing() as session:
        rows = [
            {"image_id": i, "key": "scanner", "project_id": project, "value": v, "number": n}
            for i, v, n in [(a[0], "A", None), (a[1], "B", None), (c[0], "A", None)]
        ]
        session.execute(insert(ImageMeta), rows)
        number = {"key": "age", "project_id": project, "value": "61", "number": 61.0}
        session.execute(insert(ImageMeta), [{"image_id": b[0], **number}])
        names = dict(session.execute(select(Image.id, Image.file_name)).all())
        groups = dict(session.execute(select(Image.id, Image.group_key)).all())

    def found(**parts: Any) -> list[int]:
        return ids(listed(world, model_id, images=ImageFilter(**parts)))

    everything = [*a, *b, *c]
    assert found(group="patient 1") == [i for i in everything if groups[i] == "patient 1"] != []
    assert found(annotator="reviewer") == [b[1]]
    assert found(tag="blurred") == [c[1]]
    assert found(meta=(("scanner", "A"),)) == [a[0], c[0]]
    assert found(meta=(("age", 60.0, None),)) == [b[0]]
    assert found(text="CLASS2/") == [i for i in everything if "class2/" in names[i]] == c
    assert found(meta=(("scanner", "A"),), text="class0") == [a[0]]
    assert found(tag="nothing") == []


def test_a_wide_filter_of_a_large_project_is_answered_the_same(
    world: World, model_id: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cnsapp.services import review_filter

    wanted = ImageFilter(text="class1/")
    few = ids(listed(world, model_id, images=wanted))
    monkeypatch.setattr(review_filter, "FEW", 1)
    assert ids(listed(world, model_id, images=wanted)) == few == world.image_ids[1]


# --- labels that changed, classes that merged, images that went ---


def test_a_label_that_changed_is_found_and_counts_as_asked(world: World, model_id: int) -> None:
    liver, lung, _ = world.class_ids
    a = world.image_ids[0]
    assert listed(world, model_id, show="changed") == []
    relabel(world, a[1], lung)
    (item,) = listed(world, model_id, show="changed")
    assert (item.id, item.label_then, item.label_now) == (a[1], liver, lung)
    assert ids(listed(world, model_id, show="wrong", label=liver)) == [a[1], a[2]]
    assert ids(listed(world, model_id, show="wrong", label=liver, truth="current")) == [a[2]]
    assert a[1] in ids(listed(world, model_id, show="right", truth="current"))
    relabel(world, a[1], liver)  # back again
    assert listed(world, model_id, show="changed") == []


def test_an_unsure_image_has_no_label_of_today(world: World, model_id: int) -> None:
    a, store = world.image_ids[0], world.app.store
    with store.reading() as session:
        sha = session.get_one(Image, a[0]).sha256
    event = {
        "client": "a-browser",
        "seq": 1,
        "image_id": a[0],
        "kind": "unsure",
        "source": "review",
        "action": "one-act",
    }
    got = labels.record_events(
        store, project_id=world.project_id, annotator="ann", events=[{**event, "sha": sha[:8]}]
    )
    assert not got.rejected
    assert ids(listed(world, model_id, show="changed")) == [a[0]]
    (item,) = listed(world, model_id, show="elsewhere", truth="current")
    assert (item.id, item.right, item.label, item.loss) == (a[0], None, None, None)
    assert listed(world, model_id, show="elsewhere") == []  # at training it had a label
    by_loss = listed(world, model_id, "loss", truth="current")
    assert by_loss[-1].id == a[0]  # where nothing is known: last
    now = review_matrix(store, model_id=model_id, wanted=ReviewFilter(truth="current"))
    assert (now.n, now.n_elsewhere, now.n_changed) == (8, 1, 1)


def test_an_excluded_image_is_in_no_list_until_it_is_restored(world: World, model_id: int) -> None:
    store, a = world.app.store, world.image_ids[0]
    before = ids(listed(world, model_id))
    who = {"project_id": world.project_id, "image_ids": [a[2]], "who": "ann"}
    exclusion.exclude(store, **who)  # type: ignore[arg-type]
    assert ids(listed(world, model_id)) == [i for i in before if i != a[2]]
    assert review_matrix(store, model_id=model_id, wanted=ReviewFilter()).n == 8
    exclusion.restore(store, **who)  # type: ignore[arg-type]
    assert ids(listed(world, model_id)) == before


def test_merged_classes_count_as_one_and_their_probabilities_are_added(
    world: World, model_id: int
) -> None:
    store, (liver, _, colon) = world.app.store, world.class_ids
    a, _, c = world.image_ids[:3]
    listed(world, model_id)  # read once before
    classes.merge_classes(store, class_id=colon, into=liver, who="ann")
    assert ids(listed(world, model_id, show="wrong")) == [a[1], a[2]]
    assert ids(listed(world, model_id, label=colon)) == [*a, *c]  # what it counts as
    by_id = {item.id: item for item in listed(world, model_id, truth="current")}
    one = by_id[c[0]]
    assert (one.label, one.said, one.label_now, one.changed) == (liver, liver, liver, False)
    assert (one.confidence, one.margin) == (pytest.approx(0.75), pytest.approx(0.5))
    assert one.loss == pytest.approx(-log(0.75))
    assert listed(world, model_id, show="changed") == []
    classes.undo_class_change(store, project_id=world.project_id, who="ann")
    assert ids(listed(world, model_id, show="wrong")) == [a[1], a[2], c[2]]


def test_a_class_that_was_deleted_leaves_its_images_without_a_label(
    world: World, model_id: int
) -> None:
    c = world.image_ids[2]
    classes.delete_class(world.app.store, class_id=world.class_ids[2], who="ann")
    assert listed(world, model_id, show="changed") == []
    assert ids(listed(world, model_id, show="elsewhere", truth="current")) == c
    assert ids(listed(world, model_id, label=world.class_ids[2])) == c


def test_another_label_rule_is_seen_at_once(world: World, model_id: int) -> None:
    store = world.app.store
    assert listed(world, model_id, show="elsewhere", truth="current") == []
    rule = ConsensusRule("majority", 2)
    change_settings(store, project_id=world.project_id, rule=rule)  # one reader each: all wait
    assert len(listed(world, model_id, show="elsewhere", truth="current")) == 9


def test_predictions_without_probabilities_come_last(world: World, model_id: int) -> None:
    a = world.image_ids[0]
    with world.app.store.writing() as session:
        session.execute(
            update(Prediction).where(Prediction.image_id == a[2]).values(probabilities=[])
        )
    for order in ("margin", "entropy", "loss"):
        assert ids(listed(world, model_id, order))[-1] == a[2]
    first = listed(world, model_id, "confidence")[0]
    assert (first.id, first.confidence, first.margin, first.loss) == (a[2], 0.9, None, None)


def test_folds_and_the_test_set_never_mix(world: World, model_id: int) -> None:
    c = world.image_ids[2]
    with world.app.store.writing() as session:
        session.execute(
            update(Prediction).where(Prediction.image_id.in_(c)).values(part="test", fold=None)
        )
    assert ids(listed(world, model_id, part="test")) == c
    assert not set(ids(listed(world, model_id))) & set(c)


@pytest.mark.parametrize(
    "wanted", [{"show": "odd"}, {"truth": "odd"}, {"part": "odd"}, {"level": "odd"}]
)
def test_what_there_is_not_is_refused_in_words(
    world: World, model_id: int, wanted: dict[str, str]
) -> None:
    with pytest.raises(InvalidInputError, match="odd"):
        listed(world, model_id, **wanted)
    with pytest.raises(InvalidInputError, match="A page of 0 images"):
        list_review(world.app.store, model_id=model_id, wanted=ReviewFilter(), limit=0)
    with pytest.raises(InvalidInputError, match="without a zone"):
        listed(world, model_id, added=(None, utc_now().replace(tzinfo=None)))
    with pytest.raises(InvalidInputError, match="order “odd”"):
        listed(world, model_id, "odd")  # type: ignore[arg-type]


# --- pages and steps ---


@pytest.mark.parametrize("limit", [1, 4])
def test_pages_give_every_image_once_in_both_directions(
    world: World, model_id: int, limit: int
) -> None:
    for order in get_args(Order):
        whole = ids(listed(world, model_id, order))
        turn = partial(
            list_review,
            world.app.store,
            model_id=model_id,
            wanted=ReviewFilter(),
            order=order,
            limit=limit,
        )
        page = turn()
        assert (page.first, page.before) == (1, None)
        forth = ids(page.items)
        while page.after is not None:
            page = turn(after=page.after)
            assert page.first == len(forth) + 1
            forth += ids(page.items)
        assert forth == whole
        back = ids(page.items)
        while page.before is not None:
            page = turn(before=page.before)
            back = ids(page.items) + back
        assert back == whole


@pytest.mark.parametrize("order", ["confidence", "loss"])
def test_pages_give_every_image_once_while_labels_change_in_between(
    world: World, model_id: int, order: Order
) -> None:
    store, lung = world.app.store, world.class_ids[1]
    whole = ids(listed(world, model_id, order))
    seen: list[int] = []
    after = None
    while True:
        page = list_review(
            store, model_id=model_id, wanted=ReviewFilter(), order=order, after=after, limit=2
        )
        seen += ids(page.items)
        for item in page.items:
            relabel(world, item.id, lung)
        after = page.after
        if after is None:
            break
    assert seen == whole


def test_images_that_are_put_right_leave_the_list_and_no_other_is_lost(
    world: World, model_id: int
) -> None:
    store, lung = world.app.store, world.class_ids[1]
    wanted = ReviewFilter(show="wrong", truth="current")
    a, c = world.image_ids[0], world.image_ids[2]
    first = list_review(store, model_id=model_id, wanted=wanted, order="loss", limit=2)
    assert (ids(first.items), first.n) == ([c[2], a[2]], 3)
    relabel(world, a[2], lung)
    second = list_review(
        store, model_id=model_id, wanted=wanted, order="loss", after=first.after, limit=2
    )
    assert (ids(second.items), second.n, second.first) == ([a[1]], 2, 2)


def test_one_key_goes_on_from_any_place(world: World, model_id: int) -> None:
    store, wanted = world.app.store, ReviewFilter(show="wrong")
    a, c = world.image_ids[0], world.image_ids[2]
    order = [a[2], a[1], c[2]]  # 0.9, 0.6, 0.55
    for k, image_id in enumerate(order):
        at = step(store, model_id=model_id, wanted=wanted, image_id=image_id)
        assert (at.number, at.n) == (k + 1, 3)
        assert (at.previous[1] if at.previous else None) == (order[k - 1] if k else None)
        assert (at.next[1] if at.next else None) == (order[k + 1] if k < 2 else None)
    beside = step(store, model_id=model_id, wanted=wanted, image_id=a[0])  # right, at 0.8
    assert beside.number is None and beside.previous and beside.next
    assert (beside.previous[1], beside.next[1]) == (a[2], a[1])
    with pytest.raises(NotFoundError, match="no prediction of image 99999"):
        step(store, model_id=model_id, wanted=wanted, image_id=99_999)


def test_one_key_goes_on_from_where_an_image_was_that_was_put_right(
    world: World, model_id: int
) -> None:
    store, lung = world.app.store, world.class_ids[1]
    wanted = ReviewFilter(show="wrong", truth="current")
    a, c = world.image_ids[0], world.image_ids[2]
    page = list_review(store, model_id=model_id, wanted=wanted, order="loss")
    assert ids(page.items) == [c[2], a[2], a[1]]
    relabel(world, a[2], lung)  # its loss is the least of all now
    found = step(
        store, model_id=model_id, wanted=wanted, order="loss", image_id=a[2], at=page.items[1].at
    )
    assert found.previous and found.next and found.number is None
    assert (found.previous[1], found.next[1]) == (c[2], a[1])


def test_an_image_that_came_later_is_no_trouble(world: World, model_id: int) -> None:
    more = make_world(world.app, {"x": 2}, name="another project")
    import_labels(
        world.app.store, project_id=more.project_id, annotator="bob", source="human",
        rows=[(more.image_ids[0][0], more.class_ids[0])],
    )  # fmt: skip
    assert len(listed(world, model_id)) == 9
