"""Own labels only: what others said is not sent, not asked for, and does not narrow the work."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from cnsapp.bootstrap import App
from cnsapp.domain.consensus import ConsensusRule
from cnsapp.services import classes, images, label_settings, queueing
from cnsapp.services.images import ImageFilter
from cnsapp.services.own_labels import labels_of
from cnsapp.settings import Settings
from cnsapp.ui.labeller import http, http_queue, row_of
from tests.integration.test_labels import World, make_world

HERE = {"Origin": "http://testserver"}


@pytest.fixture
def world(tmp_path: Path) -> World:
    """Return eight images: Ben labelled 0 to 5, Maria 4 (the same) and 5 (otherwise)."""
    made = make_world(tmp_path, 8)
    made.record(*(made.event(i, cls=1) for i in range(6)), annotator="ben")
    made.record(made.event(4, cls=1), made.event(5, cls=2), annotator="maria")
    return made


@pytest.fixture
def client(world: World) -> Iterator[TestClient]:
    """Return a client of the routes."""
    app = App(settings=Settings(home=world.store.root), store=world.store)
    routes = [*http.routes(app), *http_queue.routes(app)]
    with TestClient(Starlette(routes=routes)) as client:
        yield client


def listed(world: World, **more: Any) -> list[int]:
    chosen = ImageFilter(own="maria", **more)
    page = images.list_images(world.store, project_id=world.project_id, filter=chosen, limit=50)
    return [world.image_ids.index(item.id) for item in page.items]


def test_a_row_holds_nothing_of_what_others_said(world: World) -> None:
    page = images.list_images(world.store, project_id=world.project_id, limit=50)
    items = labels_of(world.store, page.items, "maria")
    rows = [row_of(item) for item in items]
    assert [row["state"] for row in rows] == ["none"] * 4 + ["label", "label", "none", "none"]
    assert [row["class_id"] for row in rows[4:6]] == [world.class_ids[1], world.class_ids[2]]
    for row in rows[:4]:
        assert (row["class_id"], row["rev"]) == (None, 0)
        assert not {"source", "disputed", "noted"} & row.keys()
    assert "disputed" not in rows[5], "that somebody disagrees is what others said"
    other = labels_of(world.store, page.items, "ben")
    assert [item.class_id for item in other[4:6]] == [world.class_ids[1]] * 2


def test_filters_look_at_ones_own_labels_alone(world: World) -> None:
    assert listed(world) == list(range(8))
    assert listed(world, state="unlabelled") == [0, 1, 2, 3, 6, 7]
    assert listed(world, state="label") == [4, 5]
    assert listed(world, class_id=world.class_ids[1]) == [4]
    assert listed(world, class_id=world.class_ids[2]) == [5]
    assert listed(world, source="human") == [4, 5]
    assert listed(world, state="unlabelled", text="tile_00") == [0, 1, 2, 3, 6, 7]
    assert listed(world, disputed=True) == list(range(8)), "disputes are not told"


def test_a_merged_class_is_found_under_its_new_name(world: World) -> None:
    classes.merge_classes(
        world.store, class_id=world.class_ids[1], into=world.class_ids[2], who="maria"
    )
    assert listed(world, class_id=world.class_ids[2]) == [4, 5]
    page = images.list_images(world.store, project_id=world.project_id, limit=50)
    own = labels_of(world.store, page.items, "maria")
    assert {item.class_id for item in own[4:6]} == {world.class_ids[2]}


def test_the_answer_to_a_label_paints_ones_own(world: World, client: TestClient) -> None:
    event = world.event(0, cls=0)
    message = {"project_id": world.project_id, "annotator": "maria", "events": [event]}
    mine = client.post("/api/labels", json={**message, "whose": "mine"}, headers=HERE).json()
    (image,) = mine["images"]
    assert (image["class_id"], image["disputed"]) == (world.class_ids[0], False)
    undo = [world.undo_of(event)]
    answer = client.post(
        "/api/labels", json={**message, "events": undo, "whose": "mine"}, headers=HERE
    ).json()
    (image,) = answer["images"]
    assert (image["state"], image["class_id"], image["source"]) == ("none", None, None)
    assert answer["counts"]["labelled"] == 6, "the counts stay the project's"
    everybody = client.post("/api/labels", json={**message, "events": undo}, headers=HERE).json()
    assert everybody["images"][0]["class_id"] == world.class_ids[1]


@pytest.mark.parametrize("strategy", ["in-order", "smart", "random"])
def test_the_queue_hands_out_what_others_have_labelled(
    world: World, client: TestClient, strategy: str
) -> None:
    message = {
        "project_id": world.project_id, "annotator": "maria", "holder": f"tab-{strategy}-1",
        "strategy": strategy, "whose": "mine", "n": 20,
        "filter": {"state": "unlabelled", "own": "maria"},
    }  # fmt: skip
    answer = client.post("/api/queue/next", json=message, headers=HERE)
    rows = answer.json()["images"]
    assert sorted(world.image_ids.index(row["id"]) for row in rows) == [0, 1, 2, 3, 6, 7]
    assert {row["state"] for row in rows} == {"none"}
    assert str(world.class_ids[1]) not in json.dumps([row["class_id"] for row in rows])


def test_a_repeated_reading_stays_blind_to_ones_own_first_label(
    world: World, client: TestClient
) -> None:
    from cnsapp.services import readings

    wanted = readings.Wanted(kind="self", by="maria", share=1.0)
    readings.ask(world.store, project_id=world.project_id, asked_by="maria", wanted=wanted)
    message = {
        "project_id": world.project_id, "annotator": "maria", "holder": "tab-self-1",
        "strategy": "self", "whose": "mine", "n": 20,
    }  # fmt: skip
    rows = client.post("/api/queue/next", json=message, headers=HERE).json()["images"]
    assert len(rows) == 2
    assert [(row["state"], row["class_id"], row["rev"]) for row in rows] == [("none", None, 0)] * 2


def test_two_people_within_a_second_both_stand_and_both_are_told(world: World) -> None:
    first = world.record(world.event(7, cls=0), annotator="maria")
    second = world.record(world.event(7, cls=1), annotator="ben")
    assert [image.disputed for image in first.images] == [False]
    assert [image.disputed for image in second.images] == [True]
    from cnsapp.services.label_news import news

    told = news(world.store, project_id=world.project_id, annotator="maria", since=first.as_of)
    (image,) = told.images
    assert (image.disputed, image.others) == (True, (("ben", world.class_ids[1]),))
    own = {who: labels_of(world.store, page_of(world), who)[7].class_id for who in ("maria", "ben")}
    assert own == {"maria": world.class_ids[0], "ben": world.class_ids[1]}, "both are kept"


def page_of(world: World) -> list[images.ImageItem]:
    return images.list_images(world.store, project_id=world.project_id, limit=50).items


def test_consensus_waits_parts_and_is_settled_by_an_adjudicator(world: World) -> None:
    label_settings.change_settings(
        world.store, project_id=world.project_id, rule=ConsensusRule("majority", 2)
    )
    assert [item.state for item in page_of(world)] == ["waiting"] * 4 + [
        "label", "undecided", "none", "none",
    ]  # fmt: skip
    found = queueing.next_images(
        world.store, project_id=world.project_id, annotator="cleo", holder="tab-cleo",
        strategy="disagree",
    )  # fmt: skip
    assert [(world.image_ids.index(i.id), i.as_source) for i in found] == [(5, "adjudication")]
    world.record(world.event(5, cls=2, source="adjudication"), annotator="cleo")
    assert world.state(5) == ("label", world.class_ids[2])
    assert page_of(world)[5].disputed, "that they disagreed stays known"
    label_settings.change_settings(
        world.store, project_id=world.project_id, rule=ConsensusRule("latest")
    )
    assert world.state(0) == ("label", world.class_ids[1])


def test_a_blind_project_answers_with_ones_own_whatever_the_page_asks(
    world: World, client: TestClient
) -> None:
    label_settings.change_settings(world.store, project_id=world.project_id, blind=True)
    event = world.event(0, cls=2)
    message = {"project_id": world.project_id, "annotator": "maria", "events": [event]}
    (image,) = client.post("/api/labels", json=message, headers=HERE).json()["images"]
    assert (image["class_id"], image["disputed"]) == (world.class_ids[2], False)
    asked = {
        "project_id": world.project_id, "annotator": "maria", "holder": "a tab of hers",
        "strategy": "in-order", "filter": {"state": "all"},
    }  # fmt: skip
    taken = client.post("/api/queue/next", json=asked, headers=HERE).json()["images"]
    asked |= {"annotator": "carl", "filter": json.dumps({"state": "all"})}
    asked["project"] = asked.pop("project_id")
    client.post(
        "/api/queue/release", headers=HERE,
        json={"project_id": world.project_id, "holder": "a tab of hers"},
    )  # fmt: skip
    looked = client.get("/api/queue/next", params=asked).json()["images"]
    assert len(taken) == len(looked) == 8
    assert {row["id"]: row["class_id"] for row in taken}[world.image_ids[1]] is None
    assert {row["state"] for row in looked} == {"none"}
