"""Every combination of filters, against the same filter written as a loop over all images."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from itertools import pairwise, product
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import insert, select, text

from cnsapp.errors import InvalidInputError
from cnsapp.services import filtering, images, projects, sorting
from cnsapp.services.filtering import ImageFilter, Meta, Span
from cnsapp.services.labels import import_labels
from db.models import (
    Image,
    ImageMeta,
    ImageTag,
    Model,
    Prediction,
    Suggestion,
    SuggestionRun,
)
from db.queries import set_status
from db.session import Store

N = 120
Row = dict[str, object]


@pytest.fixture
def world(store: Store) -> tuple[int, list[Row]]:
    """Return a project of images that differ in everything, and what is true of each."""
    chance = random.Random(4)
    made = projects.create_project(store, name="p", classes=["a", "b"]).id
    other = projects.create_project(store, name="other", classes=["a"]).id
    classes = [c.id for c in projects.list_classes(store, project_id=made)]
    truth: list[Row] = []
    for number in range(N):
        stain, day = chance.choice(["HE", "PAS", None]), chance.choice([1.0, 2.0, 3.5, None])
        row: Row = {
            "project": made if number % 9 else other,
            "name": f"{chance.choice(['Tile', 'field_'])}{number}.png",
            "group": chance.choice(["g1", "g2", None]),
            "stain": stain,
            "day": day,
            "state": "none",
            "class": None,
            "who": None,
            "status": "ok",
        }
        with store.writing() as session:
            image = Image(
                project_id=row["project"], sha256=f"{number:064x}", file_name=row["name"],
                width=1, height=1, group_key=row["group"], stored_path="x", n_bytes=1,
            )  # fmt: skip
            session.add(image)
            session.flush()
            row["id"] = image.id
            for key, value in (("stain", stain), ("day", day)):
                if value is not None:
                    session.execute(
                        insert(ImageMeta).values(
                            image_id=image.id, project_id=row["project"], key=key,
                            value=str(value), number=value if key == "day" else None,
                        )
                    )  # fmt: skip
        if row["project"] == made and number % 3:
            row |= {"state": "label", "class": chance.choice(classes), "who": "Ada"}
            row["who"] = "Bob" if number % 3 == 1 else "Ada"
            import_labels(
                store, project_id=made, rows=[(image.id, row["class"])], annotator=str(row["who"])
            )  # type: ignore[list-item]
        if row["project"] == made and number % 10 == 1:
            row["status"] = "excluded"
            with store.writing() as session:
                set_status(session, made, [image.id], "excluded", kind="excluded", who="Ada")
        if row["project"] == made:
            add_opinions(store, row, chance, classes)
        truth.append(row)
    return made, truth


def add_opinions(store: Store, row: Row, chance: random.Random, classes: list[int]) -> None:
    """Give an image a tag, a second reader, and a model's opinion, by chance."""
    project, image_id = row["project"], row["id"]
    row |= {"tag": chance.choice(["odd", "nice", None]), "opinion": None, "sure": None}
    row["source"] = "import" if row["state"] == "label" else None
    with store.writing() as session:
        if row["tag"]:
            session.execute(
                insert(ImageTag).values(project_id=project, tag=row["tag"], image_id=image_id)
            )
        if chance.random() < 0.7:
            row |= {"opinion": chance.choice(classes), "sure": chance.random()}
            run = session.scalar(select(SuggestionRun.id)) or session.scalar(
                insert(SuggestionRun)
                .values(project_id=project, n_labels=1, n_images=1, newest_event=0)
                .returning(SuggestionRun.id)
            )
            session.execute(
                insert(Suggestion).values(
                    image_id=image_id, project_id=project, run_id=run, class_id=row["opinion"],
                    confidence=row["sure"], margin=row["sure"],
                    loss=0.5 if row["state"] == "label" else None,
                )
            )  # fmt: skip
    if row["state"] == "label" and chance.random() < 0.4:
        cls = chance.choice(classes)
        row["disputed"] = cls != row["class"]
        import_labels(
            store, project_id=project, rows=[(image_id, cls)], annotator="Eve", source="bulk"
        )  # type: ignore[arg-type, list-item]
        row |= {"class": cls, "who": "Eve", "source": "bulk"}


def lets_through(row: Row, wanted: ImageFilter) -> bool:
    """Return what a filter says, by its words."""
    state = {"unlabelled": "none"}.get(wanted.state, wanted.state)
    found = row["status"] == wanted.status and state in ("all", row["state"])
    found &= wanted.class_id in (None, row["class"])
    found &= wanted.group in (None, row["group"])
    found &= wanted.annotator in (None, row["who"])
    found &= wanted.text.strip().lower() in str(row["name"]).lower()
    for name, value in (("tag", wanted.tag), ("source", wanted.source)):
        found &= value in (None, row.get(name))
    found &= wanted.opinion in (None, row.get("opinion"))
    found &= not wanted.disputed or bool(row.get("disputed"))
    least, most = wanted.confidence
    if (least, most) != (None, None):
        sure = row.get("sure")
        found &= isinstance(sure, float) and (least or 0) <= sure <= (1 if most is None else most)
    if wanted.disagrees:
        found &= row.get("opinion") is not None and row["state"] == "label"
        found &= row.get("opinion") != row["class"]
    for condition in wanted.meta:
        value = row[condition[0]]
        if len(condition) == 2:
            found &= value == condition[1]
        else:
            low, high = condition[1], condition[2]
            found &= isinstance(value, float) and (low or -1e9) <= value <= (high or 1e9)
    return bool(found)


METAS: list[tuple[Meta, ...]] = [
    (),
    (("stain", "HE"),),
    (("stain", "none such"),),
    (("day", 2.0, None),),
    (("day", None, None),),
    (("day", 9.0, None),),
    (("stain", "PAS"), ("day", 1.0, 2.0)),
    (("day", None, 2.0), ("day", 2.0, None)),
]
OPTIONS = list(
    product(
        ["all", "unlabelled", "label", "skip"],
        [None, 0, 1],  # class
        [None, "g1", "g9"],
        ["", "TILE", "field_", "%", "1"],
        [None, "Ada", "Bob", "Eve"],
        ["ok", "excluded"],
        METAS,
    )
)


OPINIONS: list[dict[str, Any]] = [
    {"tag": "odd"},
    {"tag": "none such"},
    {"source": "bulk"},
    {"disputed": True},
    {"opinion": 0},
    {"opinion": 1, "confidence": (0.3, None)},
    {"confidence": (None, 0.6), "tag": "nice"},
    {"confidence": (0.2, 0.9), "state": "label", "class_id": 0},
    {"disagrees": True},
    {"disagrees": True, "disputed": True, "text": "tile"},
    {"opinion": 1, "disagrees": True, "group": "g1", "annotator": "Eve"},
    {"tag": "odd", "source": "import", "status": "excluded"},
    {"opinion": 0, "meta": (("stain", "HE"),), "state": "unlabelled"},
]


@pytest.mark.parametrize("few", [0, 7, 10_000])
def test_what_people_and_models_think_filters_too(
    store: Store, world: tuple[int, list[Row]], few: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(filtering, "FEW", few)
    project, truth = world
    classes = [c.id for c in projects.list_classes(store, project_id=project)]
    mine = [row for row in truth if row["project"] == project]
    n_found = 0
    for option in OPINIONS:
        named = {k: classes[v] for k, v in option.items() if k in ("opinion", "class_id")}
        wanted = ImageFilter(**option | named)
        expected = [row["id"] for row in mine if lets_through(row, wanted)]
        n_found += bool(expected)
        assert list(forwards(store, project, wanted, 4)) == expected, wanted
        assert backwards(store, project, wanted, 7) == expected, wanted
    assert n_found >= 8


@pytest.mark.parametrize("by", [name for name in sorting.ORDERS if name != "like"])
def test_every_order_goes_through_each_image_once_also_while_images_leave_the_list(
    store: Store, world: tuple[int, list[Row]], by: str
) -> None:
    project, truth = world
    mine = [row for row in truth if row["project"] == project and row["status"] == "ok"]
    order = sorting.Order(by, seed=3)
    everything = sorted_ids(store, project, ImageFilter(), order, 7)
    assert sorted(everything) == [row["id"] for row in mine]
    if (key := KEYS.get(by)) is not None:
        assert everything == [row["id"] for row in sorted(mine, key=key)]
    backwards = []
    before: int | None = everything[-1]
    while before is not None:
        page = sorting.sorted_images(
            store, project_id=project, filter=ImageFilter(), order=order, before=before, limit=9
        )
        backwards = [item.id for item in page.items] + backwards
        before = page.prev_before
    assert backwards == everything[:-1]
    # whoever labels the images of a page takes them out of the list of those without a label
    todo = ImageFilter(state="unlabelled")
    expected = sorted_ids(store, project, todo, order, 100)
    classes = [c.id for c in projects.list_classes(store, project_id=project)]
    seen, after = [], None
    while True:
        page = sorting.sorted_images(
            store, project_id=project, filter=todo, order=order, after=after, limit=6
        )
        if not page.items:
            break
        ids = [item.id for item in page.items]
        seen += ids
        import_labels(store, project_id=project, rows=[(i, classes[0]) for i in ids], annotator="Z")
        after = ids[-1]
    assert seen == expected


KEYS: dict[str, Any] = {
    "added": lambda row: row["id"],
    "newest": lambda row: -row["id"],
    "name": lambda row: (
        re.sub(r"\d.*", "", row["name"].lower()),
        int(re.findall(r"\d+", row["name"])[0]),
    ),
    "uncertain": lambda row: (2.0 if row["sure"] is None else row["sure"], row["id"]),
}


def test_the_folds_of_a_model_and_what_it_did_not_learn_from(
    store: Store, world: tuple[int, list[Row]]
) -> None:
    project, truth = world
    classes = [c.id for c in projects.list_classes(store, project_id=project)]
    mine = [row["id"] for row in truth if row["project"] == project and row["status"] == "ok"]
    with store.writing() as session:
        model = Model(
            project_id=project, name="m", preset="quick", backbone="b", path="p", sha256=""
        )
        session.add(model)
        session.flush()
        model_id = model.id
        for at, image_id in enumerate(mine):
            if at % 4:
                session.add(
                    Prediction(model_id=model_id, image_id=image_id, class_id=classes[0],
                               probability=0.5, fold=at % 4 - 1)
                )  # fmt: skip
    for fold in (0, 1, 2, filtering.NOT_LEARNT):
        wanted = ImageFilter(fold=(model_id, fold))
        due = [i for at, i in enumerate(mine) if at % 4 - 1 == fold]
        assert list(forwards(store, project, wanted, 5)) == due
        named = ImageFilter(fold=(model_id, fold), text="tile")
        tiles = {row["id"] for row in truth if "tile" in str(row["name"]).lower()}
        assert list(forwards(store, project, named, 3)) == [i for i in due if i in tiles]


def sorted_ids(
    store: Store, project: int, wanted: ImageFilter, order: sorting.Order, limit: int
) -> list[int]:
    """Return all images of a sorted list, page by page."""
    found: list[int] = []
    after = None
    while True:
        page = sorting.sorted_images(
            store, project_id=project, filter=wanted, order=order, after=after, limit=limit
        )
        found += [item.id for item in page.items]
        after = page.next_after
        if after is None:
            return found


def test_another_seed_is_another_order_and_the_same_seed_the_same(
    store: Store, world: tuple[int, list[Row]]
) -> None:
    project, _ = world
    orders = [
        sorted_ids(store, project, ImageFilter(), sorting.Order("random", seed=seed), 50)
        for seed in (1, 2, 1)
    ]
    assert orders[0] == orders[2]
    assert orders[0] != orders[1] != sorted(orders[1])


def test_too_many_images_to_sort_are_shown_as_added_and_it_says_so(
    store: Store, world: tuple[int, list[Row]], monkeypatch: pytest.MonkeyPatch
) -> None:
    project, _ = world
    monkeypatch.setattr(sorting, "SORTABLE", 20)
    page = sorting.sorted_images(
        store, project_id=project, filter=ImageFilter(), order=sorting.Order("name"), limit=5
    )
    ids = [item.id for item in page.items]
    assert ids == sorted(ids)
    assert "More than 20 images match" in page.note
    with pytest.raises(InvalidInputError, match="no order “beauty”"):
        sorting.sorted_images(
            store, project_id=project, filter=ImageFilter(), order=sorting.Order("beauty")
        )


def made_filter(option: tuple[object, ...], classes: list[int]) -> ImageFilter:
    state, at, group, part, who, status, meta = option
    return ImageFilter(
        state=state, class_id=None if at is None else classes[at], group=group, text=part,
        annotator=who, status=status, meta=meta,
    )  # type: ignore[arg-type, call-overload]  # fmt: skip


def forwards(store: Store, project: int, wanted: ImageFilter, limit: int) -> Iterator[int]:
    after = None
    while True:
        page = images.list_images(
            store, project_id=project, filter=wanted, after=after, limit=limit
        )
        yield from (item.id for item in page.items)
        after = page.next_after
        if after is None:
            return


def backwards(store: Store, project: int, wanted: ImageFilter, limit: int) -> list[int]:
    before: int | None = 10**6
    found: list[int] = []
    while before is not None:
        page = images.list_images(
            store, project_id=project, filter=wanted, before=before, limit=limit
        )
        found = [item.id for item in page.items] + found
        before = page.prev_before
    return found


@pytest.mark.parametrize("few", [0, 7, 10_000])
def test_every_combination_gives_what_a_loop_gives(
    store: Store, world: tuple[int, list[Row]], few: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """0: everything is merged; 7: some; 10,000: the smallest part is fetched."""
    monkeypatch.setattr(filtering, "FEW", few)
    project, truth = world
    classes = [c.id for c in projects.list_classes(store, project_id=project)]
    mine = [row for row in truth if row["project"] == project]
    n_found = 0
    for option in OPTIONS[few % 31 :: 31]:
        wanted = made_filter(option, classes)
        expected = [row["id"] for row in mine if lets_through(row, wanted)]
        with store.reading() as session:
            for span, due in (
                (Span(), expected),
                (Span(after=60), [i for i in expected if i > 60]),  # type: ignore[operator]
                (Span(before=60), [i for i in reversed(expected) if i < 60]),  # type: ignore[operator]
            ):
                found = filtering.page_of_ids(session, project, wanted, span, 5)
                assert found == due[:5], (wanted, span)
        n_found += bool(expected)
    assert n_found > 10  # the question was not always an empty one


@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
@given(option=st.sampled_from(OPTIONS), limit=st.integers(1, 30), few=st.sampled_from([0, 5, 500]))
def test_pages_in_both_directions_miss_and_repeat_nothing(
    store: Store,
    world: tuple[int, list[Row]],
    option: tuple[object, ...],
    limit: int,
    few: int,
) -> None:
    project, truth = world
    classes = [c.id for c in projects.list_classes(store, project_id=project)]
    wanted = made_filter(option, classes)
    mine = [row for row in truth if row["project"] == project]
    expected = [row["id"] for row in mine if lets_through(row, wanted)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(filtering, "FEW", few)
        assert list(forwards(store, project, wanted, limit)) == expected
        assert backwards(store, project, wanted, limit) == expected
    assert all(a < b for a, b in pairwise(expected))  # type: ignore[operator]


@pytest.mark.parametrize("span", [Span(after=5), Span(before=50)])
@pytest.mark.parametrize(
    "wanted",
    [
        ImageFilter(state="label", meta=(("stain", "HE"),)),
        ImageFilter(class_id=1, text="x", meta=(("day", 1.0, None),)),
        ImageFilter(group="g1", annotator="Ada", state="unlabelled"),
        ImageFilter(text="x", meta=(("day", 1.0, 2.0), ("stain", "HE"))),
    ],
)
def test_merging_walks_indexes_alone_without_a_sort(
    store: Store, wanted: ImageFilter, span: Span
) -> None:
    if store.engine.dialect.name != "sqlite":
        pytest.skip("reads SQLite's own plan")
    with store.reading() as session:
        merged = filtering._merged(session, filtering.streams_of(1, wanted), span).limit(121)
        compiled = merged.compile(store.engine, compile_kwargs={"literal_binds": True})
        plan = [row[3] for row in session.execute(text(f"EXPLAIN QUERY PLAN {compiled}"))]
    steps = [step for step in plan if step.startswith(("SEARCH", "SCAN", "USE"))]
    assert len(steps) == len(filtering.streams_of(1, wanted)), plan
    assert all(step.startswith("SEARCH") and "COVERING INDEX" in step for step in steps), plan


def test_many_images_are_sorted_as_few_are(
    store: Store, world: tuple[int, list[Row]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def orders() -> dict[str, list[int]]:
        sorting._kept.clear()
        pages = {
            by: sorting.sorted_images(
                store, project_id=world[0], filter=ImageFilter(), order=sorting.Order(by), limit=200
            )
            for by in sorting.ORDERS
            if by != "like"
        }
        return {by: [item.id for item in page.items] for by, page in pages.items()}

    few = orders()
    monkeypatch.setattr(sorting, "MANY", 5)
    assert orders() == few
    assert len(few["name"]) > 50
    assert len({tuple(ids) for ids in few.values()}) > 4, "they are different orders"
