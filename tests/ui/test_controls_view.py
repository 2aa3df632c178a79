"""The tab "Controls" of the Models page: before, while and after a model is checked."""

from __future__ import annotations

from typing import Any

from cnsapp.bootstrap import App
from cnsapp.services import controls, jobs
from db.models import Job, Model
from tests.ui.conftest import Screen


def row(value: float | None, **more: Any) -> dict[str, Any]:
    spread = None if value is None else [value - 0.1, min(value + 0.1, 1.0)]
    apart = {"difference": 0.2, "difference_interval": [0.05, 0.3]}
    return {
        "balanced_accuracy": value,
        "interval": spread,
        "n": 20,
        "seconds": 1.0,
        **apart,
        **more,
    }


def checked(app: App, model_id: int, **more: Any) -> None:
    detail = {
        "majority": row(0.5), "colour_only": row(0.55), "handmade_svm": row(0.6),
        "handmade_logistic": row(None), "last_layer": row(0.6),
        "shuffled_labels": row(0.5, chance=0.5, difference=None, difference_interval=None),
        "complete": True, "notes": [], "warnings": [],
    }  # fmt: skip
    points = [
        {"strength": s, "balanced_accuracy": 0.8 - s / 4, "interval": [0.6 - s / 4, 0.9 - s / 4]}
        for s in (0.0, 0.25, 0.5, 0.75, 1.0)
    ]
    shift: dict[str, Any] = {
        "n": 20, "n_groups": 4, "strengths": [0.0, 0.25, 0.5, 0.75, 1.0],
        "curves": {"stain": points, "brightness": points}, "note": "",
    }  # fmt: skip
    with app.store.writing() as session:
        model = session.get(Model, model_id)
        assert model is not None
        metrics = {**model.metrics, "controls_detail": detail | more.pop("detail", {})}
        model.metrics = metrics | {"stain_shift": more.pop("shift", shift)}


def show(screen: Screen, model_id: int) -> Screen:
    screen.open("models", model=model_id)
    screen.test.segmented_control(key="model_tab").set_value("Controls").run()
    return screen


def test_a_model_that_was_not_checked_can_be(app: App, screen: Screen, model_id: int) -> None:
    show(screen, model_id)
    assert screen.errors == []
    assert "judged by something simpler" in screen.words
    screen.press(f"controls_ask_{model_id}")
    (job,) = jobs.list_jobs(app.store, active_only=True, kinds=["controls"])
    assert job.payload["model_id"] == model_id
    assert not screen.has(f"controls_ask_{model_id}") and screen.errors == []


def test_what_was_found_is_shown_with_what_it_means(
    app: App, screen: Screen, model_id: int
) -> None:
    checked(app, model_id)
    show(screen, model_id)
    assert screen.errors == []
    assert "better than every simpler method" in screen.words
    assert "0.55" in screen.words and "+0.20" in screen.words
    assert "n = 20 images of 4 groups. Stain: 0.80, at half strength 0.68, at full 0.55" in (
        screen.words
    )
    screen.press(f"controls_ask_{model_id}")
    (job,) = jobs.list_jobs(app.store, active_only=True, kinds=["controls"])
    assert job.payload == {"model_id": model_id, "again": True}


def test_a_warning_and_what_could_not_be_tried_are_said(
    app: App, screen: Screen, model_id: int
) -> None:
    checked(
        app, model_id,
        detail={"warnings": ["Colour alone reaches 0.79."], "notes": ["Labels have changed."]},
        shift={"n": 0, "why_not": "Scored by folds."},
    )  # fmt: skip
    show(screen, model_id)
    assert screen.errors == []
    assert "Colour alone reaches 0.79." in screen.words and "Labels have changed." in screen.words
    assert "Scored by folds." in screen.words
    assert "better than every simpler method" not in screen.words


def test_a_check_that_failed_looks_failed(app: App, screen: Screen, model_id: int) -> None:
    job_id = controls.queue_controls(app.store, model_id=model_id)
    with app.store.writing() as session:
        job = session.get(Job, job_id)
        assert job is not None
        job.state, job.error = "failed", "tile3.png can no longer be read."
    show(screen, model_id)
    assert any("tile3.png can no longer be read" in line for line in screen.errors)
    assert screen.has(f"controls_ask_{model_id}")
