"""The route that takes labels: from our own pages only, and every refusal is a sentence."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.exc import OperationalError
from starlette.applications import Starlette
from starlette.testclient import TestClient

from cnsapp.bootstrap import App
from cnsapp.services import labels
from cnsapp.settings import Settings
from cnsapp.ui.labeller.http import routes
from tests.integration.test_labels import World, make_world

HERE = {"Origin": "http://testserver"}


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


def message(world: World, *events: dict[str, Any], **change: Any) -> dict[str, Any]:
    """Return what the browser sends."""
    return {
        "project_id": world.project_id,
        "annotator": "maria",
        "events": list(events),
        **change,
    }


def test_labels_are_stored_and_answered_from_the_database(world: World, client: TestClient) -> None:
    good, bad = world.event(0, cls=1), world.event(1, "shout")
    response = client.post("/api/labels", json=message(world, good, bad), headers=HERE)
    answer = response.json()
    assert response.status_code == 200
    assert answer["acked"] == [{"client": good["client"], "seq": good["seq"]}]
    assert answer["rejected"][0]["reason"].startswith("“kind” is none of")
    assert answer["images"][0]["class_id"] == world.class_ids[1]
    assert answer["counts"]["labelled"] == 1
    assert world.state() == ("label", world.class_ids[1])


def test_another_sites_page_cannot_label(world: World, client: TestClient) -> None:
    for headers in (
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site"},
    ):
        response = client.post("/api/labels", json=message(world, world.event(0)), headers=headers)
        assert response.status_code == 403
        assert "another site" in response.json()["error"]
    assert world.n_events() == 0


@pytest.mark.parametrize(
    ("body", "status", "sentence"),
    [
        (b"{", 400, "not JSON"),
        (b"[" * 200_000, 400, "not JSON"),
        (b"\xff", 400, "not JSON"),
        (b"[]", 400, "not a JSON object"),
        (b"{}", 400, "which project"),
        (b'{"project_id": true, "annotator": "m", "events": [1]}', 400, "which project"),
        (b'{"project_id": 1, "events": [1]}', 400, "who labelled"),
        (b'{"project_id": 1, "annotator": "m", "events": []}', 400, "no list of labels"),
        (b'{"project_id": 1, "annotator": "m", "events": {}}', 400, "no list of labels"),
        (b'{"project_id": 99, "annotator": "m", "events": [{}]}', 404, "no project number 99"),
        (b'{"project_id": -1, "annotator": "m", "events": [{}]}', 404, "no project number"),
        (b'{"project_id": 1, "annotator": " ", "events": [{}]}', 422, "Nobody is named"),
        (b" " * 1_000_001, 413, "at most 1,000,000 bytes"),
    ],
)
def test_a_malformed_message_gets_a_sentence(
    client: TestClient, body: bytes, status: int, sentence: str
) -> None:
    headers = {**HERE, "Content-Type": "application/json"}
    response = client.post("/api/labels", content=body, headers=headers)
    assert response.status_code == status
    assert sentence in response.json()["error"]


def test_a_form_is_not_a_message(client: TestClient) -> None:
    response = client.post("/api/labels", data={"a": "b"}, headers=HERE)
    assert response.status_code == 415


def test_nonsense_among_the_events_is_rejected_one_by_one(world: World, client: TestClient) -> None:
    nonsense: list[Any] = [None, 3, "x", [], {}, {"client": 5, "seq": "a"}]
    body = json.dumps(message(world, *nonsense, world.event(0)))
    headers = {**HERE, "Content-Type": "application/json"}
    response = client.post("/api/labels", content=body, headers=headers)
    assert response.status_code == 200
    assert len(response.json()["acked"]) == 1
    assert response.json()["rejected"]


def test_too_many_events_are_refused_for_good(world: World, client: TestClient) -> None:
    events = [world.event(0) for _ in range(2001)]
    response = client.post("/api/labels", json=message(world, *events), headers=HERE)
    assert response.status_code == 422
    assert response.json()["permanent"] is True


def test_a_busy_database_is_said_to_be_busy_and_may_be_tried_again(
    world: World, client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def locked(*_args: Any, **_more: Any) -> None:
        raise OperationalError("INSERT", {}, Exception("database is locked"))

    monkeypatch.setattr(labels, "insert_new", locked)
    response = client.post("/api/labels", json=message(world, world.event(0)), headers=HERE)
    assert response.status_code == 503
    assert response.json() == {
        "error": "The database is busy or out of reach. The labels wait in the browser. "
        "They are sent again by themselves.",
        "permanent": False,
    }


def test_what_can_be_undone_is_told(world: World, client: TestClient) -> None:
    event = world.event(0, action="one-1")
    world.record(event)
    where = f"/api/labels/undo?project={world.project_id}&annotator=maria"
    (step,) = client.get(where).json()["steps"]
    assert step["action"] == "one-1"
    assert step["events"] == [[event["client"], event["seq"], event["image_id"]]]
    assert client.get(f"{where}&before={step['last_event']}").json()["steps"] == []
    assert client.get(f"{where}&before=x").status_code == 400
    assert client.get("/api/labels/undo?project=1").status_code == 422
