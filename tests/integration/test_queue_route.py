"""The routes of the queue: for our own pages only; every refusal a sentence; blind is blind."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from cnsapp.bootstrap import App
from cnsapp.services.images import ImageFilter
from cnsapp.settings import Settings
from cnsapp.ui.labeller.http_queue import routes
from db.models import Lease, Reading
from tests.integration.test_labels import World, make_world

HERE = {"Origin": "http://testserver"}


@pytest.fixture
def world(tmp_path: Path) -> World:
    return make_world(tmp_path, 30)


@pytest.fixture
def client(world: World) -> Iterator[TestClient]:
    app = App(settings=Settings(home=world.store.root, lease_seconds=60), store=world.store)
    with TestClient(Starlette(routes=routes(app))) as client:
        yield client


def asked(world: World, **change: Any) -> dict[str, Any]:
    """Return what the browser sends."""
    return {
        "project_id": world.project_id, "annotator": "maria", "strategy": "in-order",
        "filter": asdict(ImageFilter(state="unlabelled")), "holder": "tab-12345", "n": 3, **change,
    }  # fmt: skip


def ids(answer: Any) -> list[int]:
    return [row["id"] for row in answer.json()["images"]]


def test_images_are_handed_out_and_given_back(world: World, client: TestClient) -> None:
    first = client.post("/api/queue/next", json=asked(world), headers=HERE)
    assert ids(first) == world.image_ids[:3]
    assert first.headers["cache-control"] == "no-store"
    other = asked(world, holder="another-tab", annotator="ben")
    assert ids(client.post("/api/queue/next", json=other, headers=HERE)) == world.image_ids[3:6]
    back = {"project_id": world.project_id, "holder": "tab-12345"}
    released = client.post("/api/queue/release", json=back, headers=HERE)
    assert released.json() == {"released": 3}
    again = asked(world, holder="third-tab")
    assert ids(client.post("/api/queue/next", json=again, headers=HERE)) == world.image_ids[:3]


def test_some_images_can_be_given_back_alone(world: World, client: TestClient) -> None:
    client.post("/api/queue/next", json=asked(world), headers=HERE)
    back = {"project_id": world.project_id, "holder": "tab-12345", "images": world.image_ids[:1]}
    client.post("/api/queue/release", json=back, headers=HERE)
    with world.store.reading() as session:
        left = {lease.image_id for lease in session.query(Lease)}
    assert left == set(world.image_ids[1:3])


def test_looking_takes_nothing(world: World, client: TestClient) -> None:
    address = f"/api/queue/next?project={world.project_id}&strategy=in-order&n=2"
    for _ in range(2):
        assert ids(client.get(address)) == world.image_ids[:2]


def test_a_page_that_was_loaded_again_gets_what_it_had(world: World, client: TestClient) -> None:
    client.post("/api/queue/next", json=asked(world), headers=HERE)
    more = asked(
        world, holder="after-reload", holder_before="tab-12345", keep=world.image_ids[:3],
        show=world.image_ids[:3], n=1,
    )  # fmt: skip
    answer = client.post("/api/queue/next", json=more, headers=HERE)
    assert [row["id"] for row in answer.json()["shown"]] == world.image_ids[:3]
    assert answer.json()["gone"] == []
    assert ids(answer) == [world.image_ids[3]]


def test_a_second_reading_sends_nothing_of_the_first(world: World, client: TestClient) -> None:
    world.record(world.event(0, cls=1))
    with world.store.writing() as session:
        session.add(
            Reading(
                project_id=world.project_id, image_id=world.image_ids[0], kind="second",
                asked_by="head",
            )
        )  # fmt: skip
    second = asked(world, strategy="second", annotator="ben", show=world.image_ids[:1])
    answer = client.post("/api/queue/next", json=second, headers=HERE).json()
    for row in [*answer["images"], *answer["shown"]]:
        assert (row["state"], row["class_id"], row["rev"]) == ("none", None, 0)
        assert not {"source", "suggestion", "noted", "disputed", "tags"} & row.keys()
    assert answer["images"][0]["as_source"] == "second"


@pytest.mark.parametrize("path", ["/api/queue/next", "/api/queue/release"])
def test_another_sites_page_takes_and_gives_nothing(
    world: World, client: TestClient, path: str
) -> None:
    for headers in ({"Origin": "http://evil.example"}, {"Sec-Fetch-Site": "cross-site"}):
        answer = client.post(path, json=asked(world), headers=headers)
        assert answer.status_code == 403
        assert "another site" in answer.json()["error"]
    with world.store.reading() as session:
        assert session.query(Lease).count() == 0


@pytest.mark.parametrize(
    ("change", "status", "sentence"),
    [
        ({"project_id": 99}, 404, "no project number 99"),
        ({"project_id": "x"}, 400, "no number from 1"),
        ({"project_id": True}, 400, "no number from 1"),
        ({"strategy": "clever"}, 422, "no order “clever”"),
        ({"strategy": "look-alikes"}, 422, "which class"),
        ({"filter": {"state": 5}}, 400, "cannot be read"),
        ({"filter": {"state": "odd"}}, 422, "no image state"),
        ({"filter": "{"}, 400, "cannot be read"),
        ({"holder": ""}, 400, "whose queue"),
        ({"holder": 7}, 400, "whose queue"),
        ({"n": 1000}, 400, "no number from 0 to 100"),
        ({"n": -1}, 400, "no number from 0 to 100"),
        ({"keep": "all"}, 400, "no list"),
        ({"keep": [1, "x"]}, 400, "no number"),
        ({"seen": [2**60]}, 400, "no number"),
    ],
)
def test_what_cannot_be_meant_is_refused_in_words(
    world: World, client: TestClient, change: dict[str, Any], status: int, sentence: str
) -> None:
    answer = client.post("/api/queue/next", json=asked(world, **change), headers=HERE)
    assert answer.status_code == status
    assert sentence in answer.json()["error"]
