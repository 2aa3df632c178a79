"""Explain: what it asks for, what it says beside maps, and what it says when there is none."""

from __future__ import annotations

import json
import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as Picture
from sqlalchemy import update

from cnsapp.bootstrap import App
from cnsapp.domain.color_vision import SIGHTS, distance
from cnsapp.domain.map_methods import METHODS
from cnsapp.domain.maps import MAGNITUDE, SIGNED, clean_settings, legend
from cnsapp.services import exclusion, explaining, jobs, label_settings
from cnsapp.services.map_files import picture_path, write_facts, write_randomisation
from cnsapp.services.models import get_model
from cnsapp.tasks.maps import scale_colours
from cnsapp.ui import explain_colours, explain_words
from cnsapp.ui.explain_overlay import safe_name
from db.models import Job, Prediction
from tests.integration.worlds import World
from tests.ui.conftest import Screen

GRADCAM = {"show": "positive"}
SHARES = [0.0, 0.5, 1.0]


def overlay_data(screen: Screen) -> dict[str, Any]:
    """Return what the browser's part is given."""
    given = [json.loads(part.proto.json) for part in screen.test.get("bidi_component")]
    (data,) = [one for one in given if "panels" in one]
    return dict(data)


def asked(app: App) -> list[tuple[int, str, int | None, dict[str, Any]]]:
    """Return which maps the worker was asked for."""
    found = [job.payload for job in jobs.list_jobs(app.store) if job.kind == "explain"]
    return [(p["image_id"], p["method"], p["target_class"], p["settings"]) for p in found]


def faithfulness(score: float) -> dict[str, Any]:
    verdict = "Better than random: so and so." if score > 0.1 else "No better than random: so."
    return {
        "shares": SHARES, "insertion": [0.1, 0.5, 0.9], "deletion": [0.9, 0.3, 0.1],
        "random_insertion": [0.1, 0.4, 0.9], "random_deletion": [0.9, 0.4, 0.1],
        "insertion_area": 0.5, "deletion_area": 0.4, "score": score, "random_limit": 0.1,
        "beats_random": score > 0.1, "verdict": verdict,
    }  # fmt: skip


def facts_of(app: App, model_id: int, class_id: int, **more: Any) -> dict[str, Any]:
    """Return what a worker notes of a map by Grad-CAM."""
    model = get_model(app.store, model_id=model_id)
    at = model.class_ids.index(class_id)
    name = model.class_names[at]
    return {
        "model_id": model_id, "model_sha256": model.sha256, "class_id": class_id, "class": name,
        "target_index": at, "probability": 0.25, "predicted_class_id": model.class_ids[0],
        "predicted": model.class_names[0], "probabilities": [0.75, 0.25],
        "class_ids": model.class_ids, "method": "gradcam", "title": "Grad-CAM",
        "settings": GRADCAM, "layer": "block3", "sign": "positive",
        "legend": legend("positive", name), "scale": 0.0389, "completeness": None,
        "empty": False, "note": "", "notes": [], "faithfulness": None,
    } | more  # fmt: skip


def keep_map(app: App, model_id: int, image_id: int, class_id: int, **more: Any) -> str:
    """Put a map where the worker puts it."""
    (wish,) = explaining.request_maps(
        app, model_id=model_id, image_ids=[image_id], targets=[class_id]
    ).wishes
    for kind in ("png", "levels"):
        path = picture_path(app.store, wish.key, kind)
        path.parent.mkdir(exist_ok=True)
        Picture.fromarray(np.arange(256, dtype=np.uint8).reshape(16, 16)).save(path)
    write_facts(app.store, wish.key, facts_of(app, model_id, class_id, **more))
    with app.store.writing() as session:
        session.execute(update(Job).values(state="done"))
    return wish.key


# what is asked for -------------------------------------------------------------------------------


def test_methods_stand_side_by_side_with_their_settings(
    app: App, screen: Screen, world: World, model_id: int
) -> None:
    image_id, liver = world.image_ids[0][5], world.class_ids[0]
    screen.open("explain", model=model_id, image=image_id)
    methods = screen.test.multiselect(key="explain_methods")
    assert "Guided Grad-CAM" not in methods.options
    assert "ReLU" in screen.words and "Guided backpropagation" in screen.words
    methods.set_value(["gradcam", "integrated_gradients", "occlusion"]).run()
    steps = screen.test.number_input(key="explain_set_integrated_gradients_steps")
    assert (steps.min, steps.max, steps.value) == (2, 200, 20)
    assert "From 2 to 200; 20 unless you change it" in steps.help
    steps.set_value(50)
    screen.test.segmented_control(key="explain_show").set_value("For and against").run()
    signed = {"show": "signed"}
    wanted = [
        ("gradcam", signed),
        ("integrated_gradients", clean_settings("integrated_gradients", {"steps": 50} | signed)),
        ("occlusion", clean_settings("occlusion", signed)),
    ]
    for method, settings in wanted:
        assert (image_id, method, liver, settings) in asked(app)
    panels = overlay_data(screen)["panels"]
    assert [panel["method"].partition(" (")[0] for panel in panels] == [
        "Grad-CAM", "Integrated gradients", "Occlusion",
    ]  # fmt: skip
    assert "steps 50" in panels[1]["method"] and "window by size" in panels[2]["method"]
    assert screen.errors == []


def test_a_class_is_shown_beside_the_predicted_one_and_each_title_says_which(
    app: App, screen: Screen, world: World, model_id: int
) -> None:
    liver, colon = world.class_ids
    screen.open("explain", model=model_id, image=world.image_ids[0][0])
    titles = [panel["title"] for panel in overlay_data(screen)["panels"]]
    assert titles == ["Evidence for colon (predicted)", "Evidence for liver (its label)"]
    screen.test.multiselect(key=f"explain_targets_{model_id}").set_value([liver]).run()
    assert [p["title"] for p in overlay_data(screen)["panels"]] == [
        "Evidence for liver (its label)"
    ]
    assert {target for _, _, target, _ in asked(app)} == {liver, colon}


def test_checks_are_asked_for_once_the_map_is_there_and_stopped_when_one_goes_on(
    app: App, screen: Screen, world: World, model_id: int
) -> None:
    liver, first = world.class_ids[0], world.image_ids[0][5]
    keep_map(app, model_id, first, liver)
    screen.open("explain", model=model_id, image=first, who="Ann")
    (job,) = jobs.list_jobs(app.store, active_only=True)
    assert job.payload["checks"] and "Checking the map" in screen.words
    (panel,) = overlay_data(screen)["panels"]
    assert panel["levels_url"].endswith("-levels") and panel["lines"][-1]["tone"] == "wait"
    screen.test.query_params["image"] = str(world.image_ids[0][6])
    screen.test.run()
    job = jobs.get_job(app.store, job_id=job.id)
    assert job.cancel_requested or job.state == "cancelled"


def test_a_failed_check_leaves_the_map_and_can_be_tried_again(
    app: App, screen: Screen, world: World, model_id: int
) -> None:
    image_id = world.image_ids[0][5]
    keep_map(app, model_id, image_id, world.class_ids[0])
    screen.open("explain", model=model_id, image=image_id)
    (job,) = jobs.list_jobs(app.store, active_only=True)
    with app.store.writing() as session:
        row = session.get_one(Job, job.id)
        row.state, row.error = "failed", "The memory is full."
    screen.test.run()
    assert "The map could not be checked" in screen.words and "memory is full" in screen.words
    assert overlay_data(screen)["panels"][0]["levels_url"]
    assert jobs.list_jobs(app.store, active_only=True) == []
    screen.press("explain_again_0")
    assert len(jobs.list_jobs(app.store, active_only=True)) == 1


# what is said beside a map -----------------------------------------------------------------------


def test_a_map_no_better_than_random_is_marked_and_its_numbers_are_said(
    app: App, screen: Screen, world: World, model_id: int
) -> None:
    image_id, liver = world.image_ids[0][5], world.class_ids[0]
    keep_map(app, model_id, image_id, liver, faithfulness=faithfulness(0.02))
    write_randomisation(
        app.store, get_model(app.store, model_id=model_id).sha256, "gradcam",
        {"depends_on_model": True, "verdict": "Depends on what was learnt."},
    )  # fmt: skip
    screen.open("explain", model=model_id, image=image_id)
    data = overlay_data(screen)
    (panel,) = data["panels"]
    assert panel["mark"] == "No better than random"
    said = [(line["tone"], line["text"]) for line in panel["lines"]]
    assert said[0] == ("warn", "No better than random: so.")
    assert said[1] == ("good", "Random weights. Depends on what was learnt.")
    assert panel["curves"]["insertion"] == [0.1, 0.5, 0.9] and panel["curves"]["shares"] == SHARES
    assert panel["curves"]["chance"] == "random maps (90 %: −0.10 to +0.10)"
    assert (panel["low"], panel["high"]) == ("0 no evidence", "0.039 most evidence for liver")
    assert "only what speaks for the class" in panel["legend"] and "logits" in panel["legend"]
    assert jobs.list_jobs(app.store, active_only=True) == []
    assert data["file"] == "6-map" and "quick 1" in data["model"]


@pytest.mark.parametrize(
    ("facts", "mark", "tone"),
    [
        ({"faithfulness": faithfulness(0.4)}, "", "good"),
        ({"empty": True, "faithfulness": faithfulness(0.0)}, "Empty map", "warn"),
        ({"randomisation": {"depends_on_model": False, "verdict": "Hardly."}},
         "Does not depend on the model", "warn"),
        ({"randomisation": {"depends_on_model": None, "verdict": "Not known."}}, "", "plain"),
        ({"completeness": {"error": 0.6, "change": 4.0, "share": 0.15}}, "", "warn"),
        ({"completeness": {"error": 0.01, "change": 4.0, "share": 0.0025}}, "", "good"),
        ({"notes": ["No place in this image speaks for liver."]}, "", "warn"),
        ({"scale": 0.0, "notes": ["No place speaks for liver."]}, "Empty map", "warn"),
    ],
)  # fmt: skip
def test_what_must_not_be_believed_says_so(facts: dict[str, Any], mark: str, tone: str) -> None:
    said = explain_words.lines_of(facts, "")
    assert (explain_words.mark_of(facts), [line.tone for line in said]) == (mark, [tone])


def test_completeness_is_said_in_words() -> None:
    facts = {"completeness": {"error": -0.0124, "change": 4.136, "share": 0.003}}
    (line,) = explain_words.lines_of(facts, "")
    assert "(+4.14 logits) but for 0.3% of it (0.012)" in line.text


def test_the_legend_tells_signed_maps_from_others_with_numbers(
    app: App, world: World, model_id: int
) -> None:
    liver = world.class_ids[0]
    facts = facts_of(app, model_id, liver, randomisation=None)
    signed = facts | {"sign": SIGNED, "legend": legend(SIGNED, "liver")}
    panel = explain_words.panel_of("t", "k", signed, "")
    assert panel.low == "−0.039 speaks against liver" and panel.middle == "0 neither"
    assert panel.high == "+0.039 speaks for liver" and panel.legend.startswith("Signed")
    strong = facts | {"sign": MAGNITUDE, "legend": legend(MAGNITUDE, "x"), "method": "smoothgrad",
                      "settings": clean_settings("smoothgrad")}  # fmt: skip
    panel = explain_words.panel_of("t", "k", strong, "")
    assert panel.legend == "Without a sign: how much depends on a place, for or against."
    assert panel.method == "SmoothGrad (noisy copies 16, noise 0.15)"


# the list ----------------------------------------------------------------------------------------


def test_maps_of_the_list_are_queued_and_the_strip_says_which_are_there(
    app: App, screen: Screen, world: World, model_id: int
) -> None:
    liver, colon = world.class_ids
    wrong = [world.image_ids[0][0], world.image_ids[1][0]]
    keep_map(app, model_id, wrong[0], colon)
    keep_map(app, model_id, wrong[0], liver)
    screen.open("explain", model=model_id)
    given = [json.loads(part.proto.json) for part in screen.test.get("bidi_component")]
    (tiles,) = [one["tiles"] for one in given if "tiles" in one]
    assert {tile["id"]: tile["note"] for tile in tiles} == {wrong[0]: "0.90 ✓", wrong[1]: "0.80"}
    screen.press("explain_queue_start")
    (job,) = [job for job in jobs.list_jobs(app.store) if job.kind == "explain_many"][:1]
    assert {(image_id, target) for image_id, _, target, _ in job.payload["maps"]} == {
        (image_id, class_id) for image_id in wrong for class_id in (liver, colon)
    }
    with app.store.writing() as session:
        row = session.get_one(Job, job.id)
        row.state = "done"
        row.result = {
            "n": 4, "n_made": 1, "n_failed": 1,
            "failed": [{"image_id": 1, "file": "a_b.png", "reason": "It is gone."}],
        }  # fmt: skip
    screen.test.run()
    assert "1 map made" in screen.words and "a_b.png: It is gone." in screen.words
    screen.press("explain_queue_seen")
    assert "1 map made" not in screen.words


def test_locked_and_excluded_images_are_not_queued(
    app: App, screen: Screen, world: World, model_id: int
) -> None:
    locked, excluded = world.image_ids[0][1], world.image_ids[1][2]
    with app.store.writing() as session:
        row = update(Prediction).where(Prediction.image_id == locked)
        session.execute(row.values(part="test", fold=None))
    exclusion.exclude(app.store, project_id=world.project_id, image_ids=[excluded], who="Ann")
    screen.open("explain", model=model_id)
    screen.test.segmented_control(key="explain_list").set_value("All images").run()
    screen.press("explain_queue_start")
    (job,) = [job for job in jobs.list_jobs(app.store) if job.kind == "explain_many"]
    mapped = {image_id for image_id, *_ in job.payload["maps"]}
    assert mapped == {i for ids in world.image_ids for i in ids} - {locked, excluded}


def test_a_blind_project_shows_neither_labels_of_others_nor_which_are_wrong(
    app: App, screen: Screen, world: World, model_id: int
) -> None:
    label_settings.change_settings(app.store, project_id=world.project_id, blind=True)
    screen.open("explain", model=model_id, image=world.image_ids[0][0], who="Bob")
    assert screen.test.segmented_control(key="explain_show").value
    with pytest.raises(KeyError):
        screen.test.segmented_control(key="explain_list")
    assert "no label yet" in screen.words and "Labelled" not in screen.words
    assert {target for _, _, target, _ in asked(app)} == {world.class_ids[1]}  # what was predicted


# what the docs and the colours promise -----------------------------------------------------------


def test_the_first_colours_are_those_of_the_worker() -> None:
    assert list(next(iter(explain_colours.RISING.values()))) == scale_colours("positive")
    assert list(next(iter(explain_colours.DIVERGING.values()))) == scale_colours(SIGNED)


def lightness(color: str, sight: str) -> float:
    """Return how far a colour is from black: in gray terms the same as its lightness."""
    grays = [f"#{v:02x}{v:02x}{v:02x}" for v in range(0, 256, 3)]
    return float(min(range(len(grays)), key=lambda k: distance(color, grays[k], sight)))


@pytest.mark.parametrize("sight", list(SIGHTS))
def test_every_colour_map_can_be_read_by_colour_blind_eyes(sight: str) -> None:
    for name, anchors in explain_colours.RISING.items():
        steps = [lightness(color, sight) for color in anchors]
        assert all(b > a for a, b in pairwise(steps)), name
    for name, anchors in explain_colours.DIVERGING.items():
        middle = len(anchors) // 2
        steps = [lightness(color, sight) for color in anchors]
        assert all(b > a for a, b in pairwise(steps[: middle + 1])), name
        assert all(b < a for a, b in pairwise(steps[middle:])), name
        assert distance(anchors[1], anchors[-2], sight) > 20, name  # one side from the other


@pytest.mark.parametrize(
    ("name", "safe"),
    [
        ("H/image_H_2100.jpg", "image_H_2100"), ("a*b<c>&d.png", "a_b_c_d"), ("..", "image"),
        ("C:\\x\\ü 1.tif", "ü_1"), ("*/?.png", "image"), ("x" * 200 + ".png", "x" * 80),
    ],
)  # fmt: skip
def test_names_of_saved_figures_can_be_stored_anywhere(name: str, safe: str) -> None:
    assert safe_name(name) == safe


def test_the_docs_tell_every_method_and_its_settings() -> None:
    text = (Path(__file__).parents[2] / "docs" / "explaining.md").read_text(encoding="utf-8")
    for method in METHODS:
        (row,) = [line for line in text.splitlines() if line.startswith(f"| `{method.id}`")]
        assert set(re.findall(r"`(\w+)`", row)) - {method.id} == {s.name for s in method.settings}
