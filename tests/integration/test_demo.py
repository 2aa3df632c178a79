"""The demo project."""

from __future__ import annotations

import pytest

from cnsapp.bootstrap import App
from cnsapp.errors import Cancelled
from cnsapp.jobs.running import run_here
from cnsapp.services import demo, images, jobs, projects


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the demo of two pictures an organ, so that the tests are quick."""
    monkeypatch.setattr(demo, "N_EACH", 2)
    monkeypatch.setattr(demo, "N_LABELLED", 2)


@pytest.mark.usefixtures("small")
def test_the_demo_has_organs_of_several_systems_partly_labelled(app: App) -> None:
    seen: list[tuple[int, int]] = []
    project = demo.create_demo(app, progress=lambda done, total, _: seen.append((done, total)))
    classes = projects.list_classes(app.store, project_id=project)
    assert len(classes) >= 6
    assert len({c.parent for c in classes}) >= 3
    counted = images.counts(app.store, project_id=project)
    assert (counted.images, counted.labelled) == (2 * len(classes), 2 * len(classes))
    assert seen[-1] == (32, 32)
    assert list(app.store.path("uploads").iterdir()) == []


@pytest.mark.usefixtures("small")
def test_some_labels_are_wrong_on_purpose(app: App) -> None:
    project = demo.create_demo(app)
    names = {c.id: c.name for c in projects.list_classes(app.store, project_id=project)}
    page = images.list_images(app.store, project_id=project, limit=1000)
    wrong = [i for i in page.items if names[i.class_id or 0] not in i.name]
    assert [i.name for i in wrong] == ["patient_2/pancreas_01.jpg"]  # of the four, among the few
    assert len(demo.WRONG) == 4
    assert all(number < 13 for _, number in demo.WRONG)


@pytest.mark.usefixtures("small")
def test_a_second_call_returns_the_same_project(app: App) -> None:
    first = demo.create_demo(app)
    assert demo.create_demo(app) == first
    assert len(projects.list_projects(app.store)) == 1


@pytest.mark.usefixtures("small")
def test_a_demo_that_was_stopped_is_completed(app: App) -> None:
    calls = iter(range(20))

    def stop() -> None:
        if next(calls, None) is None:
            raise Cancelled

    with pytest.raises(Cancelled):
        demo.create_demo(app, check_cancelled=stop)
    project = demo.create_demo(app)
    assert images.counts(app.store, project_id=project).images == 16
    assert len(projects.list_projects(app.store)) == 1


def test_six_patients_and_forty_pictures_of_each_organ_are_planned() -> None:
    plan = demo._plan()
    assert len(plan) == 8 * 40
    assert {patient for _, patient, _ in plan} == {1, 2, 3, 4, 5, 6}


def test_the_demo_job_asks_for_its_first_model_once(
    app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo, "N_EACH", 4)
    monkeypatch.setattr(demo, "N_LABELLED", 4)
    for _again in range(2):
        run_here(app, jobs.submit_job(app.store, kind="demo", project_id=None))
    kinds = [job.kind for job in jobs.list_jobs(app.store)]
    assert kinds.count("demo") == 2
    assert kinds.count("train") == kinds.count("features") == 1
