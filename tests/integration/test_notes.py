"""Notes, tags, the history of an image, and what others label meanwhile: services and routes."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select
from starlette.applications import Starlette
from starlette.testclient import TestClient

from cnsapp.bootstrap import App
from cnsapp.errors import InvalidInputError, NotFoundError
from cnsapp.services import exclusion, image_history, images, label_news, label_settings, notes
from cnsapp.services.notes import NoteReceipt, TagCount
from cnsapp.settings import Settings
from cnsapp.ui.labeller.http_notes import routes
from db.models import ImageEvent, ImageTag
from tests.integration.test_labels import World, make_world

HERE = {"Origin": "http://testserver"}
NUMBERS = count(1)


@pytest.fixture
def world(tmp_path: Path) -> World:
    """Return a fresh project."""
    return make_world(tmp_path)


@pytest.fixture
def client(world: World) -> Iterator[TestClient]:
    """Return a client of the routes alone."""
    app = App(settings=Settings(home=world.store.root), store=world.store)
    with TestClient(Starlette(routes=routes(app))) as client:
        yield client


def act(world: World, image: int, kind: str, text: str, **more: Any) -> dict[str, Any]:
    """Return what the browser sends of one note or tag."""
    named = {"client": "notes-0001", "seq": next(NUMBERS)}
    return {**named, "image_id": world.image_ids[image], "kind": kind, "text": text, **more}


def send(world: World, *acts: dict[str, Any], who: str = "maria") -> NoteReceipt:
    """Record acts."""
    return notes.record(world.store, project_id=world.project_id, who=who, acts=acts)


def rows(world: World, table: type[Any]) -> int:
    """Return how many rows a table has."""
    with world.store.reading() as session:
        return session.scalar(select(func.count()).select_from(table)) or 0


def tags(world: World, image: int = 0) -> tuple[str, ...]:
    """Return the tags of an image as grids are told them."""
    with world.store.reading() as session:
        return images.items_in_order(session, [world.image_ids[image]])[0].tags


def test_notes_are_kept_with_who_and_when_the_newest_first(world: World) -> None:
    first = send(world, act(world, 0, "note", "folded edge \n"))
    send(world, act(world, 0, "note", "looks like tumour"), who="jonas")
    assert first.images[0].noted
    found = notes.notes_of(world.store, image_id=world.image_ids[0])
    assert [(note.who, note.text) for note in found] == [
        ("jonas", "looks like tumour"),
        ("maria", "folded edge"),
    ]
    assert found[0].at >= found[1].at
    (own,) = notes.notes_of(world.store, image_id=world.image_ids[0], who="maria")
    assert own.text == "folded edge"


def test_what_is_sent_again_is_stored_once_also_after_somebody_took_it_off(world: World) -> None:
    tagged = act(world, 0, "tagged", "blood")
    note = act(world, 1, "note", "once")
    receipt = send(world, tagged, note, tagged)
    assert receipt.acked == ((tagged["client"], tagged["seq"]), (note["client"], note["seq"]))
    send(world, act(world, 0, "untagged", "blood"), who="jonas")
    again = send(world, tagged, note)
    assert again.acked == receipt.acked
    assert tags(world) == (), "a late repetition must not bring back what was taken off since"
    assert rows(world, ImageEvent) == 3


def test_tags_that_read_alike_are_one_tag_in_its_first_spelling(world: World) -> None:
    for image, text in enumerate(("Café noir", "  cafe\u0301  NOIR ", "CAFÉ NOIR")):
        send(world, act(world, image, "tagged", text))
    assert [tags(world, i) for i in range(3)] == [("Café noir",)] * 3
    send(world, act(world, 1, "untagged", "café noir"))
    assert tags(world, 1) == ()
    assert notes.list_tags(world.store, project_id=world.project_id) == [TagCount("Café noir", 2)]


def test_tags_are_counted_over_the_images_in_use(world: World) -> None:
    send(world, *(act(world, i, "tagged", "blood") for i in range(3)))
    send(world, act(world, 3, "tagged", "artefact"))
    exclusion.exclude(
        world.store, project_id=world.project_id, image_ids=[world.image_ids[3]], who="m"
    )
    assert notes.list_tags(world.store, project_id=world.project_id) == [TagCount("blood", 3)]
    assert rows(world, ImageTag) == 4


@pytest.mark.parametrize(
    ("kind", "text", "sentence"),
    [
        ("tagged", "", "The tag is empty"),
        ("tagged", "x" * 61, "cannot be a tag"),
        ("tagged", "a\u200bb", "cannot be a tag"),
        ("note", " \n ", "The note is empty"),
        ("note", "x" * 2001, "2,001 characters"),
        ("shouted", "x", "“kind” is none of"),
    ],
)
def test_what_cannot_be_stored_is_refused_in_words(
    world: World, kind: str, text: str, sentence: str
) -> None:
    bad, good = act(world, 0, kind, text), act(world, 1, "note", "fine")
    receipt = send(world, bad, good)
    assert receipt.acked == ((good["client"], good["seq"]),)
    ((_, seq, reason),) = receipt.rejected
    assert seq == bad["seq"]
    assert sentence in reason
    assert rows(world, ImageEvent) == 1


def test_a_tag_of_sixty_characters_is_stored_whole(world: World) -> None:
    send(world, act(world, 0, "tagged", "ä" * 60))
    assert tags(world) == ("ä" * 60,)


def test_an_image_of_another_project_or_picture_is_refused(world: World) -> None:
    other = act(world, 0, "note", "x") | {"image_id": 999}
    moved = act(world, 0, "note", "x", sha="ffff")
    nonsense: list[Any] = [None, 3, {"client": 5}]
    receipt = send(world, other, moved, *nonsense)
    assert receipt.acked == ()
    assert len(receipt.rejected) == 5
    assert rows(world, ImageEvent) == 0
    with pytest.raises(NotFoundError, match="no project number 77"):
        notes.record(world.store, project_id=77, who="m", acts=[other])
    with pytest.raises(InvalidInputError, match="501 notes or tags"):
        send(world, *[other] * 501)
    with pytest.raises(InvalidInputError, match="Nobody is named"):
        send(world, other, who=" ")


# history ---------------------------------------------------------------------------------------


def story(world: World, **more: Any) -> list[tuple[str, str, bool, str | None, str | None]]:
    """Return who, kind, undone, from and to of what happened to the first image, oldest first."""
    found = image_history.image_history(world.store, image_id=world.image_ids[0], **more)
    told = found.as_json()["entries"]
    return [
        (
            entry["who"],
            entry["kind"],
            entry["undone"],
            (entry["before"] or {}).get("name"),
            (entry["after"] or {}).get("name"),
        )
        for entry in reversed(told)
    ]


def test_the_history_says_who_made_what_of_what_and_what_was_taken_back(world: World) -> None:
    one, two = world.event(0, cls=0), world.event(0, cls=1)
    undo = world.undo_of(two)
    redo = world.undo_of(two) | {"kind": "redo"}
    world.record(one)
    world.record(two)
    world.record(undo)
    assert story(world)[1][2] is True
    world.record(redo)
    world.record(world.event(0, cls=2), annotator="jonas")
    send(world, act(world, 0, "note", "unclear"))
    assert story(world) == [
        ("maria", "label", False, None, "colon"),
        ("maria", "label", False, "colon", "liver"),
        ("maria", "undo", False, "liver", "colon"),
        ("maria", "redo", False, "colon", "liver"),
        ("jonas", "label", False, None, "lung"),
        ("maria", "note", False, None, None),
    ]
    assert [row[0] for row in story(world, only="jonas")] == ["jonas"]


def test_news_are_what_others_said_of_ones_own_images(world: World) -> None:
    mine, other = world.event(0, cls=0), world.event(1, cls=0)
    receipt = world.record(mine)
    world.client = "client-0002"
    world.record(world.event(0, cls=1), annotator="jonas")
    world.record(other, annotator="jonas")
    ask = {"store": world.store, "project_id": world.project_id, "annotator": "maria"}
    found = label_news.news(since=receipt.as_of, **ask)
    (changed,) = found.images
    assert (changed.id, changed.disputed) == (world.image_ids[0], True)
    assert changed.others == (("jonas", world.class_ids[1]),)
    assert label_news.news(since=found.as_of, **ask).images == ()
    label_settings.change_settings(world.store, project_id=world.project_id, blind=True)
    assert label_news.news(since=receipt.as_of, **ask).images == ()


# routes ----------------------------------------------------------------------------------------


def message(world: World, *acts: dict[str, Any]) -> dict[str, Any]:
    """Return the body that the browser posts."""
    return {"project_id": world.project_id, "annotator": "maria", "events": list(acts)}


def test_the_routes_take_notes_and_tags_and_tell_them(world: World, client: TestClient) -> None:
    tag, note = act(world, 0, "tagged", "blood"), act(world, 0, "note", "look again")
    answer = client.post("/api/tags", json=message(world, tag), headers=HERE).json()
    assert answer["acked"] == [{"client": tag["client"], "seq": tag["seq"]}]
    assert answer["images"] == [{"id": world.image_ids[0], "tags": ["blood"], "noted": False}]
    answer = client.post("/api/notes", json=message(world, note), headers=HERE).json()
    assert answer["images"][0]["noted"] is True
    found = client.get(f"/api/tags?project={world.project_id}").json()
    assert found == {"tags": [{"tag": "blood", "n": 1}]}
    history = client.get(f"/api/history?image={world.image_ids[0]}&annotator=maria").json()
    assert [entry["kind"] for entry in history["entries"]] == ["note", "tagged"]
    assert history["entries"][0]["text"] == "look again"


def test_refusals_are_sentences(world: World, client: TestClient) -> None:
    note = message(world, act(world, 0, "note", "x"))
    evil = {"Origin": "http://evil.example"}
    assert client.post("/api/notes", json=note, headers=evil).status_code == 403
    wrong = client.post("/api/tags", json=note, headers=HERE)
    assert wrong.status_code == 400
    assert "Only tagged or untagged" in wrong.json()["error"]
    gone = client.post("/api/notes", json=note | {"project_id": 99}, headers=HERE)
    assert (gone.status_code, gone.json()["permanent"]) == (404, True)
    assert client.get("/api/history?image=9999").status_code == 404
    assert client.get("/api/history").status_code == 400
    assert client.get("/api/history?image=1e3").status_code == 400
    assert client.get("/api/labels/news?project=1&annotator=maria").status_code == 400
    assert rows(world, ImageEvent) == 0


def test_a_blind_project_tells_only_ones_own_history(world: World, client: TestClient) -> None:
    world.record(world.event(0, cls=0))
    world.record(world.event(0, cls=1), annotator="jonas")
    address = f"/api/history?image={world.image_ids[0]}&annotator=maria"
    assert len(client.get(address).json()["entries"]) == 2
    assert [e["who"] for e in client.get(f"{address}&own=1").json()["entries"]] == ["maria"]
    label_settings.change_settings(world.store, project_id=world.project_id, blind=True)
    assert [e["who"] for e in client.get(address).json()["entries"]] == ["maria"]
