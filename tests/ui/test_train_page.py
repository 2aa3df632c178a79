"""The Train page: presets, networks, dials, what is refused in words, runs with their curves."""

from __future__ import annotations

from typing import Any

import pytest

from cnsapp.bootstrap import App
from cnsapp.services import jobs
from cnsapp.services.devices import Gpu
from cnsapp.ui import train_dials
from cnsapp.ui.train_charts import curves_of
from cnsapp.ui.train_dials import key_of
from db.models import JobPoint
from tests.integration.worlds import World
from tests.ui.conftest import Screen
from tests.ui.test_pages import set_job

ADVANCED = "train_advanced"


def opened(screen: Screen, preset: str, tab: str | None = None) -> Screen:
    """Open the page with a preset chosen and, where a tab is named, its dials in sight."""
    screen.open("train")
    screen.test.segmented_control(key="train_preset").set_value(preset)
    if tab is not None:
        show(screen, preset, tab)
    screen.test.run()
    assert screen.errors == []
    return screen


def show(screen: Screen, preset: str, tab: str) -> None:
    """Unfold the dials of a tab, as a click would."""
    screen.test.session_state[ADVANCED] = True
    screen.test.session_state[f"dials_{preset}"] = tab


def asked(app: App, world: World) -> dict[str, Any]:
    """Return what the newest run was asked to do."""
    return jobs.list_jobs(app.store, project_id=world.project_id, kinds=["train"])[0].payload


def test_a_full_run_is_started_with_the_dials_that_were_turned(
    app: App, screen: Screen, world: World
) -> None:
    opened(screen, "full", "Learning")
    screen.test.number_input(key=key_of(world.project_id, "full", "epochs")).set_value(3).run()
    assert any("changed: Epochs 3" in e.label.replace("\\", "") for e in screen.test.expander)
    screen.press("train_start")
    assert screen.errors == []
    assert asked(app, world) == {
        "preset": "full", "backbone": "efficientnet_lite0", "options": {"epochs": 3},
    }  # fmt: skip


def test_dials_outlive_another_tab_and_go_back_to_the_preset(
    app: App, screen: Screen, world: World
) -> None:
    opened(screen, "full", "Learning")
    screen.test.number_input(key=key_of(world.project_id, "full", "patience")).set_value(0).run()
    show(screen, "full", "Scoring")
    screen.test.run()
    screen.test.selectbox(key=key_of(world.project_id, "full", "test_views")).set_value("8").run()
    project_id, kept = world.project_id, "dials_of_{}_full"
    assert screen.test.session_state[kept.format(project_id)] == {"patience": 0, "test_views": "8"}
    show(screen, "full", "Scoring")
    screen.test.run()
    screen.press("train_reset")
    assert screen.test.session_state[kept.format(project_id)] == {}
    screen.press("train_start")
    assert asked(app, world)["options"] == {}


@pytest.mark.usefixtures("world")
def test_a_network_without_weights_says_what_to_put_where(screen: Screen) -> None:
    opened(screen, "quick")
    screen.test.selectbox(key="train_backbone").set_value("resnet50").run()
    assert "resnet50-11ad3fa6.pth" in screen.words
    assert not screen.has("train_start")


@pytest.mark.usefixtures("world")
def test_a_network_that_knows_nothing_is_offered_for_fine_tuning_alone(screen: Screen) -> None:
    opened(screen, "quick")
    quick = screen.test.selectbox(key="train_backbone").options
    screen.test.segmented_control(key="train_preset").set_value("full").run()
    full = screen.test.selectbox(key="train_backbone").options
    assert set(full) - set(quick) == {"Small CNN, from scratch"}


def test_the_devices_of_the_computer_are_offered_by_name(
    app: App, screen: Screen, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    del app
    gpu = Gpu(0, "Card 9000", 24_000_000_000, 1_000_000_000)
    monkeypatch.setattr(train_dials, "list_gpus", lambda: [gpu])
    opened(screen, "full", "Name, seed, device")
    device = screen.test.selectbox(key=key_of(world.project_id, "full", "device"))
    assert device.options == ["automatic", "Processor", "Card 9000, 1.0 of 24 GB in use"]


def test_a_run_shows_its_curves_its_pace_and_who_wants_it(
    app: App, screen: Screen, world: World
) -> None:
    payload = {"preset": "full", "backbone": "resnet18", "options": {"epochs": 4}}
    job_id = jobs.submit_job(
        app.store, kind="train", project_id=world.project_id, payload=payload, requested_by="Ada"
    )
    with app.store.writing() as session:
        for epoch in (0, 1, 1, 2):  # an epoch that was told twice counts once
            session.add(JobPoint(job_id=job_id, message=f"epoch {epoch}", values=_epoch(epoch)))
    set_job(app, job_id, state="running")
    curves = curves_of(jobs.job_points(app.store, job_id=job_id))
    assert [c.validation_score for c in curves] == [[(0.0, 0.5), (1.0, 0.6), (2.0, 0.7)]]
    assert curves[0].train_loss == [(1.0, 0.9), (2.0, 0.8)]
    screen.open("train")
    assert screen.errors == []
    assert "Full model · ResNet-18 · Epochs 4" in screen.words
    assert "about 40 s left" in screen.words and "by Ada" in screen.words
    assert screen.primary == []


def _epoch(epoch: int) -> dict[str, Any]:
    return {
        "fold": 0, "epoch": epoch, "train_loss": 1 - epoch / 10 if epoch else None,
        "validation_loss": 0.7, "validation_balanced_accuracy": 0.5 + epoch / 10,
        "train_balanced_accuracy": None, "seconds_left": 40.0,
    }  # fmt: skip
