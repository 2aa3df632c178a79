"""The routes of the large picture: facts, maps, excluding; locked and blind stay what they are."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from sqlalchemy import select, update
from starlette.applications import Starlette
from starlette.testclient import TestClient

from cnsapp.bootstrap import App
from cnsapp.services import exclusion, jobs, label_settings, split_uses, splits
from cnsapp.services.map_files import picture_path, write_facts
from cnsapp.ui.review_http import routes
from db.models import ImageEvent, Job, Model, Prediction
from tests.integration.test_review_list import add_predictions
from tests.integration.worlds import World, make_world, relabel
from tests.looks import index_of

HERE = {"Origin": "http://testserver"}
AWAY = {"Origin": "http://elsewhere.example"}


@pytest.fixture
def world(app: App) -> World:
    return make_world(app, {"liver": 3, "l<u>ng & *co*": 3}, n_groups=2, unlabelled=2)


@pytest.fixture
def model_id(world: World) -> int:
    liver, lung = world.class_ids
    a, b = world.image_ids[:2]
    said = [(a[0], liver, [0.2, 0.8]), (a[1], liver, [0.9, 0.1]), (b[0], lung, [0.4, 0.6])]
    return add_predictions(world, said)


@pytest.fixture
def client(app: App) -> Iterator[TestClient]:
    with TestClient(Starlette(routes=routes(app))) as client:
        yield client


def facts(client: TestClient, model_id: int, image_id: int, **more: str) -> Any:
    asked = {"model": str(model_id), "image": str(image_id), "annotator": "Bob", **more}
    return client.get("/api/review/image", params=asked)


def saliency(client: TestClient, model_id: int, image_id: int, **more: Any) -> Any:
    asked = {"model": model_id, "image": image_id, "annotator": "Bob", **more}
    return client.post("/api/review/map", json=asked, headers=HERE)


def lock(world: World, model_id: int, image_id: int) -> int:
    """Make an image one of the model's locked test set."""
    split = splits.create_split(world.app.store, project_id=world.project_id, who="Maria")
    with world.app.store.writing() as session:
        row = update(Prediction).where(Prediction.image_id == image_id)
        session.execute(row.values(part="test", fold=None))
        session.execute(update(Model).where(Model.id == model_id).values(split_id=split.id))
    return split.id


def test_the_facts_are_those_of_the_database(
    world: World, model_id: int, client: TestClient
) -> None:
    store, (liver, lung), image_id = world.app.store, world.class_ids, world.image_ids[0][0]
    angles = np.radians([0, 5, 30, 60, 61, 62, 70, 80])  # the second image is the likest
    index_of(store, world.project_id, np.stack([np.cos(angles), np.sin(angles)], axis=1))
    answer = facts(client, model_id, image_id)
    assert (answer.status_code, answer.headers["cache-control"]) == (200, "no-store")
    found = answer.json()
    with store.reading() as session:
        stored = session.scalar(
            select(Prediction.probabilities).where(Prediction.image_id == image_id)
        )
    assert stored == [0.2, 0.8]
    assert [(c["id"], c["p"]) for c in found["probabilities"]] == [(lung, 0.8), (liver, 0.2)]
    assert found["predicted"]["name"] == "l<u>ng & *co*" and found["right"] is False
    assert found["loss"] == pytest.approx(-np.log(0.2), abs=0.001)
    assert (found["label"]["who"], found["group"]) == ("ann", "patient 1")
    first, second = found["neighbours"][0], world.image_ids[0][1]
    assert (first["id"], first["class"]["id"]) == (second, liver)
    assert first["similarity"] == pytest.approx(np.cos(np.radians(5)), abs=0.001)
    assert first["thumb"].startswith(f"/img/thumb/{second}?v=")
    assert found["may"] == ["exclude", "note", "relabel", "unsure"]
    assert [entry["who"] for entry in found["history"]] == ["ann"]


def test_a_new_label_is_told_beside_the_one_of_the_training(
    world: World, model_id: int, client: TestClient
) -> None:
    liver, lung = world.class_ids
    image_id = world.image_ids[0][0]
    relabel(world, image_id, lung)
    then = facts(client, model_id, image_id).json()
    assert (then["label_then"]["id"], then["right"]) == (liver, False)
    assert facts(client, model_id, image_id, truth="current").json()["right"] is True


def test_what_the_model_said_of_a_locked_image_is_told_after_a_noted_look_alone(
    world: World, model_id: int, client: TestClient
) -> None:
    image_id, store = world.image_ids[0][0], world.app.store
    split_id = lock(world, model_id, image_id)
    for answer in (facts(client, model_id, image_id), saliency(client, model_id, image_id)):
        assert answer.status_code == 403 and "locked test set" in answer.json()["error"]
        assert "0.8" not in answer.text
    assert jobs.list_jobs(store) == []
    assert splits.count_uses(store, split_id=split_id) == 0  # a refusal is no look
    split_uses.look(store, split_id=split_id, model_id=model_id, who="Ann", purpose="Review")
    assert facts(client, model_id, image_id).status_code == 403  # somebody else looked
    split_uses.look(store, split_id=split_id, model_id=model_id, who="Bob", purpose="Review")
    assert facts(client, model_id, image_id).json()["part"] == "test"
    assert saliency(client, model_id, image_id).status_code == 202
    assert splits.count_uses(store, split_id=split_id) == 2


def test_in_a_blind_project_nobody_is_told_what_others_say(
    world: World, model_id: int, client: TestClient
) -> None:
    image_id = world.image_ids[0][0]
    assert facts(client, model_id, image_id).json()["history"] != []
    own = facts(client, model_id, image_id, own="1").json()
    assert (own["history"], own["label"]["who"], own["loss"]) == ([], None, None)
    label_settings.change_settings(world.app.store, project_id=world.project_id, blind=True)
    found = facts(client, model_id, image_id).json()  # whatever the page says
    assert (found["history"], found["label"], found["neighbours"]) == (
        [],
        {"who": None, "at": None},
        [],
    )
    assert (found["right"], found["label_then"]) == (None, {})
    assert facts(client, model_id, image_id, annotator="").status_code == 422


def test_a_map_is_asked_for_once_and_told_when_it_is_there(
    world: World, model_id: int, client: TestClient
) -> None:
    store, (_, lung), image_id = world.app.store, world.class_ids, world.image_ids[0][0]
    first = saliency(client, model_id, image_id, **{"class": lung})
    assert first.status_code == 202 and first.json()["doing"] == "The worker is starting"
    again = saliency(client, model_id, image_id, **{"class": lung}, job=first.json()["job"])
    assert again.json()["job"] == first.json()["job"]
    job = jobs.get_job(store, job_id=first.json()["job"])
    assert (job.kind, job.requested_by, job.payload["target_class"]) == ("explain", "Bob", lung)
    key = job.payload["key"]
    for kind in ("png", "levels"):
        picture_path(store, key, kind).parent.mkdir(exist_ok=True)
        picture_path(store, key, kind).write_bytes(b"a picture")
    legend = {"low": "no evidence", "middle": "", "high": "most evidence for lung"}
    checked = {"beats_random": False, "verdict": "No better than random: +0.01."}
    made = {"class": "lung", "legend": legend, "faithfulness": checked, "notes": ["faint"]}
    write_facts(store, key, made | {"model_sha256": "", "method": "gradcam"})
    found = saliency(client, model_id, image_id, **{"class": lung})
    assert found.status_code == 200
    said = found.json()
    assert (said["url"], said["class"], said["legend"]) == (f"/img/map/{key}", "lung", legend)
    assert (said["no_better"], said["verdict"]) == (True, "No better than random: +0.01.")
    assert (said["empty"], said["notes"], said["checked"]) == (False, ["faint"], False)


def test_a_map_that_failed_says_why_until_it_is_asked_for_anew(
    world: World, model_id: int, client: TestClient
) -> None:
    image_id = world.image_ids[0][0]
    job_id = saliency(client, model_id, image_id).json()["job"]
    with world.app.store.writing() as session:
        why = "The picture cannot be read."
        session.execute(update(Job).where(Job.id == job_id).values(state="failed", error=why))
    failed = saliency(client, model_id, image_id, job=job_id)
    assert (failed.status_code, failed.json()["error"]) == (409, "The picture cannot be read.")
    # the number of another image's job tells nothing of it
    other = saliency(client, model_id, world.image_ids[0][1], job=job_id)
    assert other.status_code == 202
    anew = saliency(client, model_id, image_id)
    assert anew.status_code == 202 and anew.json()["job"] != job_id


def test_an_image_is_excluded_and_taken_back_in_by_name(
    world: World, model_id: int, client: TestClient
) -> None:
    image_id, store = world.image_ids[0][0], world.app.store
    asked = {"project_id": world.project_id, "image": image_id, "annotator": "Bob"}
    out = client.post("/api/review/exclude", json=asked, headers=HERE)
    assert out.json() == {"changed": [image_id]}
    assert facts(client, model_id, image_id).json()["may"] == ["note", "restore"]
    back = client.post("/api/review/exclude", json=asked | {"back": True}, headers=HERE)
    assert back.json() == {"changed": [image_id]}
    with store.reading() as session:
        events = session.execute(
            select(ImageEvent.kind, ImageEvent.who).where(ImageEvent.image_id == image_id)
        ).all()
    kinds = [exclusion.EXCLUDED, exclusion.RESTORED]
    assert [tuple(event) for event in events] == [(kind, "Bob") for kind in kinds]


def test_refusals_are_sentences(world: World, model_id: int, client: TestClient) -> None:
    image_id = world.image_ids[0][0]
    asked = {"model": model_id, "image": image_id, "project_id": world.project_id}
    for path in ("/api/review/map", "/api/review/exclude"):
        assert client.post(path, json=asked, headers=AWAY).status_code == 403
        assert client.get(path).status_code == 405
    assert jobs.list_jobs(world.app.store) == []
    missing = facts(client, model_id, 9999)
    assert (missing.status_code, missing.json()["permanent"]) == (404, True)
    assert "image number 9999" in missing.json()["error"]
    assert facts(client, model_id + 1, image_id).status_code == 404
    nothing = client.get("/api/review/image", params={"model": "1; --", "image": "1"})
    assert nothing.status_code == 400 and "no number" in nothing.json()["error"]
    assert client.get("/api/review/image", params={"model": "1"}).status_code == 400
    unknown = saliency(client, model_id, image_id, **{"class": 9999})
    assert unknown.status_code == 422 and "does not know this class" in unknown.json()["error"]
    nameless = client.post("/api/review/exclude", json=asked, headers=HERE)
    assert nameless.status_code == 422


def test_a_question_that_breaks_is_not_called_one_that_could_not_be_stored(
    model_id: int, client: TestClient, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise RuntimeError("secret detail")

    monkeypatch.setattr("cnsapp.ui.review_http.review_image", broken)
    asked = facts(client, model_id, world.image_ids[0][0])
    assert asked.status_code == 500
    assert asked.json()["error"] == (
        "The question about an image could not be answered; the log says why."
    )
