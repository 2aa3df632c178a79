"""Pages by key, filters, counts, groups and one image."""

from __future__ import annotations

import hashlib
from itertools import chain

import pytest
from sqlalchemy import text

from cnsapp.errors import InvalidInputError, NotFoundError
from cnsapp.services import filtering, images, projects
from cnsapp.services.images import ImageFilter
from cnsapp.services.labels import import_labels
from db.models import Image
from db.queries import add_to_tally
from db.session import Store


@pytest.fixture
def project(store: Store) -> int:
    """Return a project of 25 images in 5 groups; the first ten are labelled in turn."""
    made = projects.create_project(store, name="p", classes=["a", "b"])
    with store.writing() as session:
        for number in range(25):
            session.add(
                Image(
                    project_id=made.id,
                    sha256=hashlib.sha256(str(number).encode()).hexdigest(),
                    file_name=f"Tile_{number:02}.png",
                    width=8,
                    height=6,
                    group_key=f"g{number // 5}",
                    stored_path=f"images/{number}.png",
                    n_bytes=10,
                    facts={"format": "PNG"},
                )
            )
        add_to_tally(session, made.id, {"images": 25})
    classes = [c.id for c in projects.list_classes(store, project_id=made.id)]
    rows = [(image_id, classes[image_id % 2]) for image_id in range(1, 11)]
    import_labels(store, project_id=made.id, rows=rows, annotator="Ada")
    return made.id


def walk(store: Store, project: int, wanted: ImageFilter, limit: int) -> list[list[int]]:
    pages, after = [], None
    while True:
        page = images.list_images(
            store, project_id=project, filter=wanted, after=after, limit=limit
        )
        pages.append([item.id for item in page.items])
        after = page.next_after
        if after is None:
            return pages


def test_pages_forward_cover_every_image_once(store: Store, project: int) -> None:
    pages = walk(store, project, ImageFilter(), 10)
    assert [len(page) for page in pages] == [10, 10, 5]
    assert list(chain(*pages)) == list(range(1, 26))


def test_pages_backward_are_the_same_pages(store: Store, project: int) -> None:
    page = images.list_images(store, project_id=project, before=21, limit=10)
    assert [item.id for item in page.items] == list(range(11, 21))
    assert (page.next_after, page.prev_before) == (20, 11)
    first = images.list_images(store, project_id=project, before=11, limit=10)
    assert [item.id for item in first.items] == list(range(1, 11))
    assert first.prev_before is None
    assert images.list_images(store, project_id=project, limit=10).prev_before is None


@pytest.mark.parametrize(
    ("wanted", "ids"),
    [
        (ImageFilter(state="unlabelled"), list(range(11, 26))),
        (ImageFilter(state="label"), list(range(1, 11))),
        (ImageFilter(state="skip"), []),
        (ImageFilter(class_id=1), [2, 4, 6, 8, 10]),
        (ImageFilter(class_id=1, state="unlabelled"), []),
        (ImageFilter(group="g4"), [21, 22, 23, 24, 25]),
        (ImageFilter(text="TILE_0"), list(range(1, 11))),
        (ImageFilter(text="tile_%"), []),
        (ImageFilter(text=" 03 ", group="g0"), [4]),
        (ImageFilter(annotator="Ada"), list(range(1, 11))),
        (ImageFilter(annotator="Bob"), []),
        (ImageFilter(status="excluded"), []),
    ],
)
def test_filters_and_their_joins(
    store: Store, project: int, wanted: ImageFilter, ids: list[int]
) -> None:
    assert list(chain(*walk(store, project, wanted, 3))) == ids


def test_an_item_tells_its_label_and_the_event_behind_it(store: Store, project: int) -> None:
    first, last = (images.get_image(store, image_id=n) for n in (1, 25))
    assert (first.state, first.class_id, first.rev) == ("label", 2, 1)
    assert (last.state, last.class_id, last.rev) == ("none", None, 0)
    assert (first.name, first.group, first.facts["format"]) == ("Tile_00.png", "g0", "PNG")
    assert first.project_id == project


def test_counts_are_kept(store: Store, project: int) -> None:
    found = images.counts(store, project_id=project)
    assert (found.images, found.labelled, found.unlabelled) == (25, 10, 15)
    assert found.per_class == {1: 5, 2: 5}


def test_groups_with_their_sizes(store: Store, project: int) -> None:
    assert images.group_names(store, project_id=project, limit=2) == ["g0", "g1"]


def test_what_does_not_exist_is_said(store: Store, project: int) -> None:
    with pytest.raises(NotFoundError, match="no image number 99"):
        images.get_image(store, image_id=99)
    with pytest.raises(NotFoundError, match=r"stored copy of “Tile_00\.png” is missing"):
        images.image_path(store, image_id=1)
    with pytest.raises(InvalidInputError, match="no image state “done”"):
        images.list_images(store, project_id=project, filter=ImageFilter(state="done"))
    with pytest.raises(InvalidInputError, match="1 to 1000"):
        images.list_images(store, project_id=project, limit=0)


@pytest.mark.parametrize(
    "wanted",
    [
        ImageFilter(),
        ImageFilter(state="unlabelled"),
        ImageFilter(state="label"),
        ImageFilter(class_id=1),
        ImageFilter(group="g1"),
        ImageFilter(text="x"),
        ImageFilter(text="x", state="unlabelled"),
    ],
)
def test_no_page_needs_a_sort_or_a_walk_over_the_table(
    store: Store, project: int, wanted: ImageFilter
) -> None:
    if store.engine.dialect.name != "sqlite":
        pytest.skip("reads SQLite's own plan")
    (stream,) = filtering.streams_of(project, wanted)
    query = stream.walked(filtering.Span(after=5)).order_by(Image.id).limit(61)
    compiled = query.compile(store.engine, compile_kwargs={"literal_binds": True})
    with store.engine.connect() as connection:
        plan = [row[3] for row in connection.execute(text(f"EXPLAIN QUERY PLAN {compiled}"))]
    assert all("USING" in step and "INDEX" in step and step[:6] == "SEARCH" for step in plan), plan
    if wanted.group:
        assert "ix_image_group" in plan[0]
    if wanted.text:
        assert "COVERING" in plan[0]
