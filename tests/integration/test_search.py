"""Find the best: fair rounds within a budget, resumable, and a winner that says it was chosen."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from cnsapp.bootstrap import App
from cnsapp.errors import Cancelled, InvalidInputError
from cnsapp.jobs.context import JobContext, as_json
from cnsapp.jobs.running import run_here
from cnsapp.services import jobs
from cnsapp.services.models import get_model
from cnsapp.services.run_folders import run_folder
from cnsapp.services.searching import (
    candidates_of,
    latest_search,
    read_search,
    start_search,
)
from cnsapp.tasks import search
from tests.integration.worlds import World, make_world, relabel

LITE0 = "efficientnet_lite0"
QUICK = {"backbone": LITE0, "preset": "quick", "title": "Lite0, quick", "options": {}}
TWIN = {**QUICK, "title": "Lite0 again, quick"}
TUNED = {
    "backbone": "small_cnn", "preset": "full", "title": "Small CNN, full",
    "options": {"epochs": 2, "image_size": 32, "batch_size": 8, "test_views": 1},
}  # fmt: skip


class Killed(BaseException):
    """The worker is gone."""


class Memory:
    """Steps as the queue remembers them; dies before the step of a name, once."""

    def __init__(self) -> None:
        self.known: dict[str, Any] = {}
        self.ran: list[str] = []
        self.die_before = ""

    def run_step(self, name: str, work: Callable[[], Any]) -> Any:
        if name == self.die_before:
            self.die_before = ""
            raise Killed
        if name not in self.known:
            self.known[name] = as_json(work())
            self.ran.append(name)
        return self.known[name]


def asked(world: World, candidates: list[dict[str, Any]], minutes: float = 20) -> int:
    payload = {"minutes": minutes, "seed": 0, "candidates": candidates}
    return jobs.submit_job(
        world.app.store, kind="search", project_id=world.project_id, payload=payload
    )


def context(world: World, job_id: int, memory: Memory) -> JobContext:
    job = jobs.get_job(world.app.store, job_id=job_id)
    return JobContext(
        world.app.store, job_id=job_id, project_id=world.project_id, payload=dict(job.payload),
        run_step=memory.run_step,
    )  # fmt: skip


@pytest.fixture
def alive(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a job run without a worker's row."""
    monkeypatch.setattr(JobContext, "_should_stop", lambda _: None)


@pytest.fixture
def world(app: App) -> World:
    return make_world(app, {"liver": 12, "lung": 12}, n_groups=6)


@pytest.mark.usefixtures("alive")
def test_a_killed_search_goes_on_with_the_next_trial_and_ends_the_same(world: World) -> None:
    job_id = asked(world, [QUICK, TWIN, TUNED])
    memory = Memory()
    memory.die_before = "trial 0.2"
    with pytest.raises(Killed):
        search.run(world.app, context(world, job_id, memory))
    assert memory.ran == ["trial 0.0", "trial 0.1"]
    # a label that is given meanwhile changes nothing of the search
    relabel(world, world.image_ids[0][0], world.class_ids[1])
    made = search.run(world.app, context(world, job_id, memory))
    assert memory.ran[:3] == ["trial 0.0", "trial 0.1", "trial 0.2"]
    assert [t for t in memory.ran if t.startswith("trial 1")], "the better half went on"
    tried = [t for t in made["trials"] if t["state"] == "done"]
    assert {t["n"] for t in tried if t["round"] == 1} == {tried[0]["n"]}  # on the same images
    last = [t for t in made["trials"] if t["round"] == made["search"]["round"]]
    assert made["winner"]["preset"] == "quick", last  # equal or better, and the simpler one
    model = get_model(world.app.store, model_id=made["model_id"])
    assert model.settings["search"]["n_candidates"] == 3
    assert model.metrics["chosen_among"] == 3
    (warning,) = [w for w in model.metrics["warnings"] if "Chosen among 3 candidates" in w]
    assert "locked test set is the fair judge" in warning
    assert not run_folder(world.app.store, job_id).exists()


def test_a_search_shows_its_trials_and_keeps_one_model(world: World) -> None:
    job_id = asked(world, [QUICK, TWIN])
    run_here(world.app, job_id)
    found = read_search(world.app.store, job_id=job_id)
    assert found.job.state == "done", found.job.error
    assert [(t.round, t.rounds, t.state) for t in found.trials] == [(1, 1, "done")] * 2
    assert found.trials[0].score == found.trials[1].score  # the same folds, the same answers
    assert found.trials[0].n == 24 and found.trials[0].standard_error is not None
    assert "was chosen among 2 candidates" in found.outcome
    assert found.model_id is not None
    newest = latest_search(world.app.store, project_id=world.project_id)
    assert newest is not None and newest.job.id == job_id
    points = jobs.job_points(world.app.store, job_id=job_id)
    assert sum("trial" in p.values for p in points) == 2  # seen while it ran


def test_a_budget_that_is_too_small_is_kept_and_said(world: World) -> None:
    job_id = asked(world, [QUICK, TWIN], minutes=1e-6)
    run_here(world.app, job_id)
    found = read_search(world.app.store, job_id=job_id)
    assert found.job.state == "failed"
    assert "No candidate could be tried" in (found.job.error or "")
    assert {t.state for t in found.trials} == {"no time"}
    assert all("was over" in t.said for t in found.trials)


def test_a_candidate_that_cannot_be_tried_is_said_and_the_others_go_on(world: World) -> None:
    absent = {"backbone": "vgg16", "preset": "quick", "title": "VGG-16, quick", "options": {}}
    job_id = asked(world, [absent, QUICK])
    run_here(world.app, job_id)
    found = read_search(world.app.store, job_id=job_id)
    assert found.job.state == "done", found.job.error
    assert [t.state for t in found.trials] == ["failed", "done"]
    assert "weights" in found.trials[0].said.lower()


def test_cancelling_leaves_no_model_and_no_folder(world: World) -> None:
    job_id = asked(world, [QUICK, TWIN])
    memory = Memory()
    job = context(world, job_id, memory)
    jobs.cancel_job(world.app.store, job_id=job_id)
    with pytest.raises(Cancelled):
        search.run(world.app, job)
    assert not run_folder(world.app.store, job_id).exists()


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"minutes": 0}, "0 minutes is not possible"),
        ({"presets": ["great"]}, "no preset “great”"),
        ({"backbones": ["alexnet"]}, "no backbone “alexnet”"),
        ({"backbones": ["vgg16"]}, "weights of VGG-16 are not on this machine"),
        ({"backbones": [LITE0], "presets": ["quick"]}, "There are 1 candidates"),
        ({"backbones": ["small_cnn"], "presets": ["quick"]}, "nothing to try"),
    ],
)
def test_what_cannot_be_searched_is_said_before_the_start(
    world: World, given: dict[str, Any], words: str
) -> None:
    with pytest.raises(InvalidInputError, match=words):
        start_search(world.app, project_id=world.project_id, **given)


def test_one_search_of_a_project_at_a_time_and_only_with_labels(world: World, app: App) -> None:
    job_id = start_search(app, project_id=world.project_id)
    with pytest.raises(InvalidInputError, match=rf"under way already \(job {job_id}\)"):
        start_search(app, project_id=world.project_id)
    bare = make_world(app, {"liver": 3, "lung": 0}, name="bare")
    with pytest.raises(InvalidInputError, match="Only one class"):
        start_search(app, project_id=bare.project_id)


def test_candidates_are_what_is_at_hand_the_simplest_first(app: App) -> None:
    found = candidates_of(app)
    assert found[0].preset == "quick" and found[0].backbone == LITE0
    assert [c.simplicity for c in found] == sorted(c.simplicity for c in found)
    assert all(c.preset != "quick" for c in found if c.backbone == "small_cnn")
