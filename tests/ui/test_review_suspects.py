"""Review, label errors: what the view says in each state, what the browser gets, and the route."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sqlalchemy import select, update
from starlette.applications import Starlette
from starlette.testclient import TestClient

from cnsapp.bootstrap import App
from cnsapp.services import jobs, label_errors, models, projects
from cnsapp.services.label_settings import change_settings
from cnsapp.ui.frame import Here
from cnsapp.ui.review_asked import Reviewed
from cnsapp.ui.review_suspects import browser_data
from cnsapp.ui.review_suspects_data import advice, figures
from cnsapp.ui.review_suspects_http import PATH, routes
from db.models import LabelClass, LabelEvent, Model
from tests.integration.worlds import World, add_model, make_world, relabel
from tests.looks import index_of
from tests.ui.conftest import Screen

VIEW = "Label errors"
CLIENT = "browser-one"


@pytest.fixture
def browser(app: App) -> TestClient:
    """Return a browser on the routes of the list."""
    return TestClient(Starlette(routes=routes(app)))


def with_looks(world: World) -> None:
    """Sort by looks: the images of a class lie together, but the first of each with the other."""
    rows: list[list[float]] = []
    for k, ids in enumerate(world.image_ids[:2]):
        rows += [[k, 1 - k] if at == 0 else [1 - k, k] for at, _ in enumerate(ids)]
    rows += [[0.6, 0.8]] * len(world.image_ids[2])
    index_of(world.app.store, world.project_id, np.array(rows, np.float32))


def asked_of(world: World, model_id: int) -> Reviewed:
    """Return what the page asks its views for."""
    store = world.app.store
    project = projects.get_project(store, project=world.project_id)
    return Reviewed(
        Here(world.app, project, "ann"),
        project,
        models.get_model(store, model_id=model_id),
        projects.list_classes(store, project_id=world.project_id),
        "trained",
        "fold",
    )


def data_of(world: World, model_id: int) -> dict[str, Any]:
    """Return what the browser begins with."""
    asked, store = asked_of(world, model_id), world.app.store
    found = label_errors.summary(store, model_id=model_id)
    page = label_errors.list_suspects(store, model_id=model_id)
    return browser_data(asked, found, page, asked.classes)


def event(of_model: int, row: dict[str, Any], **more: Any) -> dict[str, Any]:
    """Return a decision as the browser sends it: the suggestion is taken."""
    return {
        "client": CLIENT, "seq": 1, "image_id": row["id"], "sha": row["sha"], "kind": "label",
        "source": "review", "action": "browser-1", "decision": "correct",
        "model_id": of_model,
        "rev": row["rev"], "class_id": row["to"]["id"], **more,
    }  # fmt: skip


def send(browser: TestClient, world: World, *events: dict[str, Any]) -> Any:
    """Send decisions; return the answer."""
    message = {"project_id": world.project_id, "annotator": "maria", "events": list(events)}
    return browser.post(PATH, json=message)


def by_maria(world: World) -> list[LabelEvent]:
    """Return what Maria said, in its order."""
    with world.app.store.reading() as session:
        found = list(
            session.scalars(
                select(LabelEvent).where(LabelEvent.annotator == "maria").order_by(LabelEvent.id)
            )
        )
        session.expunge_all()
    return found


# --- what the view says ---


def test_a_typical_list_offers_to_ask_the_neighbours_too(
    app: App, screen: Screen, world: World, model_id: int
) -> None:
    screen.open("review", model=model_id, view=VIEW, who="ann")
    assert screen.errors == [] and "Only the model was asked so far" in screen.words
    assert "Space** keeps the label" in screen.words
    screen.press("suspects_looks")
    (job,) = jobs.list_jobs(app.store, project_id=world.project_id, kinds=["looks"])
    assert job.is_active
    assert "Sorting the images by looks" in screen.words and not screen.has("suspects_looks")


def test_with_neighbours_nothing_is_offered(screen: Screen, world: World, model_id: int) -> None:
    with_looks(world)
    screen.open("review", model=model_id, view=VIEW, who="ann")
    assert screen.errors == [] and "Only the model was asked" not in screen.words
    assert not screen.has("suspects_looks")


def test_a_model_near_guessing_is_called_that_before_anything_else(
    app: App, screen: Screen, model_id: int
) -> None:
    with app.store.writing() as session:
        metrics = {"balanced_accuracy": 0.58, "balanced_accuracy_interval": [0.5, 0.66], "n": 24}
        session.execute(update(Model).values(metrics=metrics))
    screen.open("review", model=model_id, view=VIEW, who="ann")
    assert "not worth working through" in screen.words
    assert "not clearly better than guessing: balanced accuracy 0.58" in screen.words
    assert screen.primary == ["Go to Train"] and "Space** keeps" not in screen.words
    screen.test.toggle(key="suspects_anyway").set_value(True).run()
    assert screen.errors == [] and "Space** keeps the label" in screen.words


def test_a_model_that_agrees_with_all_labels_has_nothing_to_list(
    screen: Screen, world: World
) -> None:
    said = [
        (i, c, c, 0.9)
        for c, ids in zip(world.class_ids, world.image_ids, strict=False)
        for i in ids
    ]
    screen.open("review", model=add_model(world, said), view=VIEW)
    assert "No label stands out: of 24 labels compared" in screen.words


def test_a_model_without_held_out_answers_says_what_to_do(screen: Screen, world: World) -> None:
    screen.open("review", model=add_model(world, []), view=VIEW)
    (said,) = screen.errors
    assert "no predictions of images that it had not seen" in said and "train again" in said


def test_a_blind_project_does_not_show_what_others_said(
    app: App, screen: Screen, world: World, model_id: int, browser: TestClient
) -> None:
    change_settings(app.store, project_id=world.project_id, blind=True)
    screen.open("review", model=model_id, view=VIEW, who="maria")
    assert "not shown in a project that is labelled blindly" in screen.words
    assert "Space** keeps" not in screen.words
    asked = {"project": world.project_id, "model": model_id, "page": 1}
    answer = browser.get(PATH, params=asked)
    assert answer.status_code == 422 and "labelled blindly" in answer.json()["error"]
    row = data_of(world, model_id)["rows"][0]
    assert send(browser, world, event(model_id, row)).status_code == 422
    assert by_maria(world) == []


# --- what the browser gets ---


def test_each_line_has_its_classes_reason_and_neighbours(world: World, model_id: int) -> None:
    with_looks(world)
    liver, colon = world.class_ids
    found = data_of(world, model_id)
    rows = {row["id"]: row for row in found["rows"]}
    wrong = world.image_ids[0][0], world.image_ids[1][0]
    assert set(rows) == set(wrong) and found["next"] is None
    row = rows[wrong[0]]
    assert (row["label"]["id"], row["to"]["id"]) == (liver, colon)
    assert (row["label"]["name"], row["to"]["name"]) == ("liver", "colon")
    assert "says colon at 0.90" in row["reason"]
    assert len(row["near"]) == 5 and {one["label"] for one in row["near"]} == {"colon"}
    assert row["rev"] > 0 and row["view"].startswith(f"/img/view/{row['id']}?v=")
    pairs = [(p["label"], p["to"], p["said"], p["n"]) for p in found["summary"]["pairs"]]
    assert sorted(pairs) == [
        (liver, colon, "liver that look like colon", 1),
        (colon, liver, "colon that look like liver", 1),
    ]


def test_names_come_letter_by_letter(app: App, world: World, model_id: int) -> None:
    with app.store.writing() as session:
        session.execute(
            update(LabelClass)
            .where(LabelClass.id == world.class_ids[1])
            .values(name='<b>*T_&"', name_key='<b>*t_&"')
        )
    rows = data_of(world, model_id)["rows"]
    assert {row["to"]["name"] for row in rows} == {"liver", '<b>*T_&"'}


def test_of_a_doubted_list_no_number_is_expected(app: App, world: World, model_id: int) -> None:
    with app.store.writing() as session:
        metrics = {"balanced_accuracy": 0.58, "balanced_accuracy_interval": [0.5, 0.66], "n": 24}
        session.execute(update(Model).values(metrics=metrics))
    summary = data_of(world, model_id)["summary"]
    by_name = {name: (value, under) for name, value, under in summary["figures"]}
    assert "Called wrong" in by_name and "Probably wrong" not in by_name
    assert by_name["Expected wrong, still there"] == ("–", "this model cannot tell")
    assert summary["doubted"] and not summary["stop"]
    assert "not worth working through" in summary["advice"]


def test_figures_and_advice_follow_the_decisions(world: World, model_id: int) -> None:
    store = world.app.store
    before = label_errors.summary(store, model_id=model_id)
    assert figures(before)[1][1:] == ("–", "nothing decided yet")
    first, second = label_errors.list_suspects(store, model_id=model_id).items
    named: dict[str, Any] = {"model_id": model_id, "who": "maria", "client": CLIENT}
    label_errors.correct(
        store, image_id=first.image.id, class_id=first.suggested_class_id, seq=1, **named
    )
    label_errors.confirm(store, image_id=second.image.id, seq=2, **named)
    after = label_errors.summary(store, model_id=model_id)
    by_name = {name: (value, under) for name, value, under in figures(after)}
    # Wilson, by hand: (p + z²/2n ± z sqrt(p(1-p)/n + z²/4n²)) / (1 + z²/n) of 1 in 2
    assert by_name["Wrong among those decided"] == (
        "50 %", "1 of 2 wrong · 95 % interval 9 to 91 %",
    )  # fmt: skip
    assert by_name["Decided"] == ("2", "of 2 in the list")
    assert by_name["Probably wrong"][0] == "0"
    assert advice(after).startswith("Done: nothing is left")


# --- the route ---


def test_a_decision_is_stored_once_and_the_answer_names_it(
    world: World, model_id: int, browser: TestClient
) -> None:
    row = data_of(world, model_id)["rows"][0]
    sent = event(model_id, row)
    for _ in range(2):
        answer = send(browser, world, sent).json()
        assert answer["acked"] == [{"client": CLIENT, "seq": 1}] and answer["rejected"] == []
    (stored,) = by_maria(world)
    assert (stored.image_id, stored.class_id) == (row["id"], row["to"]["id"])
    assert (stored.kind, stored.source) == ("label", "review")
    asked = {"project": world.project_id, "model": model_id, "page": 1}
    found = browser.get(PATH, params=asked).json()
    assert row["id"] not in [one["id"] for one in found["rows"]] and len(found["rows"]) == 1
    assert found["summary"]["n_open"] == 1
    only = browser.get(PATH, params={"project": world.project_id, "model": model_id}).json()
    assert set(only) == {"summary"}


def test_who_comes_second_is_told_and_nothing_is_stored(
    world: World, model_id: int, browser: TestClient
) -> None:
    first, second = data_of(world, model_id)["rows"]
    relabel(world, first["id"], first["to"]["id"])
    answer = send(
        browser, world, event(model_id, first),
        event(model_id, second, seq=2, decision="confirm", class_id=second["label"]["id"]),
    ).json()  # fmt: skip
    assert [one["seq"] for one in answer["acked"]] == [2]
    (refused,) = answer["rejected"]
    assert refused["seq"] == 1 and "Somebody decided about" in refused["reason"]
    assert [e.image_id for e in by_maria(world)] == [second["id"]]


def test_unsure_is_stored_and_takes_the_image_out(
    world: World, model_id: int, browser: TestClient
) -> None:
    row = data_of(world, model_id)["rows"][0]
    sent = event(model_id, row, kind="unsure", decision="unsure")
    del sent["class_id"]
    for _ in range(2):
        assert send(browser, world, sent).json()["rejected"] == []
    (stored,) = by_maria(world)
    assert (stored.kind, stored.class_id, stored.source) == ("unsure", None, "review")
    assert label_errors.summary(world.app.store, model_id=model_id).n_set_aside == 1


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"decision": "guess"}, "neither confirms nor corrects"),
        ({"rev": "x"}, "“rev” is not a whole number"),
        ({"sha": "0" * 8}, "Another image has got the number"),
        ({"class_id": 999}, "The class is not in this project"),
        ({"model_id": 999}, "no model number 999"),
        ({"image_id": 10**6}, "no image number 1000000"),
    ],
)
def test_what_no_page_of_ours_sends_is_refused_in_words(
    world: World, model_id: int, browser: TestClient, change: dict[str, Any], why: str
) -> None:
    row = data_of(world, model_id)["rows"][0]
    answer = send(browser, world, event(model_id, row, **change)).json()
    assert answer["acked"] == [] and why in answer["rejected"][0]["reason"]
    assert by_maria(world) == []


def test_pages_of_a_pair_go_on_behind_the_last_one(app: App, browser: TestClient) -> None:
    world = make_world(app, {"liver": 20, "colon": 20}, side=8, name="second")
    liver, colon = world.class_ids
    said: list[Any] = [
        (i, liver, colon if k < 6 else liver, 0.9 - 0.01 * k)
        for k, i in enumerate(world.image_ids[0])
    ]
    said += [(i, colon, colon, 0.8) for i in world.image_ids[1]]
    asked: dict[str, Any] = {"project": world.project_id, "model": add_model(world, said)}
    asked |= {"page": 1, "label": liver, "to": colon}
    whole = [row["id"] for row in browser.get(PATH, params=asked).json()["rows"]]
    assert sorted(whole) == sorted(world.image_ids[0][:6])
    third = label_errors.list_suspects(app.store, model_id=asked["model"], limit=3).items[-1]
    after = ",".join(map(str, third.cursor))
    rest = browser.get(PATH, params=asked | {"after": after}).json()
    assert [row["id"] for row in rest["rows"]] == whole[3:]
    other = asked | {"label": colon, "to": liver}
    assert browser.get(PATH, params=other).json()["rows"] == []
    strange = browser.get(PATH, params=asked | {"after": "x,1"})
    assert strange.status_code == 400 and "no place in the list" in strange.json()["error"]
