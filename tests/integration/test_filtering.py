"""Every combination of filters, against the same filter written as a loop over all images."""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import pairwise, product

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import insert, text

from cnsapp.services import filtering, images, projects
from cnsapp.services.filtering import ImageFilter, Meta, Span
from cnsapp.services.labels import import_labels
from db.models import Image, ImageMeta
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
        truth.append(row)
    return made, truth


def lets_through(row: Row, wanted: ImageFilter) -> bool:
    """Return what a filter says, by its words."""
    state = {"unlabelled": "none"}.get(wanted.state, wanted.state)
    found = row["status"] == wanted.status and state in ("all", row["state"])
    found &= wanted.class_id in (None, row["class"])
    found &= wanted.group in (None, row["group"])
    found &= wanted.annotator in (None, row["who"])
    found &= wanted.text.strip().lower() in str(row["name"]).lower()
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
