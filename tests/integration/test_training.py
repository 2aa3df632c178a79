"""Training as a job: refusals before, a model with honest predictions after, once a job."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import func, select, update

from cnsapp.bootstrap import App
from cnsapp.errors import CnsError, InvalidInputError, NotFoundError
from cnsapp.imaging.rule import ReadingRule
from cnsapp.jobs.context import JobContext
from cnsapp.jobs.running import run_here
from cnsapp.services import jobs
from cnsapp.services.images import image_path
from cnsapp.services.models import (
    current_model,
    get_model,
    labels_changed_since,
    list_models,
)
from cnsapp.services.review import confusion
from cnsapp.services.tidying import tidy
from cnsapp.services.training import (
    active_training,
    queue_features,
    readiness,
    start_training,
)
from cnsapp.tasks import keep_model, train, train_quick
from cnsapp.tasks.snapshot import Snapshot, take_snapshot
from db.models import Image, Job, Model, Prediction, Project
from tests.integration.worlds import World, make_world, relabel


def trained(world: World, **options: Any) -> jobs.JobView:
    """Train in this process and return the job."""
    job_id = start_training(world.app, project_id=world.project_id, options=options)
    run_here(world.app, job_id)
    return jobs.get_job(world.app.store, job_id=job_id)


def n_rows(app: App, table: Any) -> int:
    with app.store.reading() as session:
        return session.scalar(select(func.count()).select_from(table)) or 0


def test_readiness_counts_classes_and_says_what_is_missing(app: App) -> None:
    world = make_world(app, {"liver": 5, "lung": 1}, unlabelled=2)
    found = readiness(app.store, project_id=world.project_id)
    assert not found.ok
    assert "lung has 1, 2 more needed" in found.problems[0]
    assert [(c.name, n) for c, n in found.per_class] == [("liver", 5), ("lung", 1)]
    assert (found.n_labelled, found.n_groups, found.needed) == (6, 0, {"lung": 2})


def test_training_with_too_little_is_refused_and_queues_nothing(app: App) -> None:
    world = make_world(app, {"liver": 5, "lung": 0}, unlabelled=1)
    with pytest.raises(InvalidInputError, match="Only one class has labels: liver"):
        start_training(app, project_id=world.project_id)
    assert n_rows(app, Job) == 0


def test_a_second_run_of_a_project_is_refused_while_one_is_under_way(app: App) -> None:
    world = make_world(app, {"liver": 4, "lung": 4})
    job_id = start_training(app, project_id=world.project_id)
    assert active_training(app.store, project_id=world.project_id) == job_id
    with pytest.raises(InvalidInputError, match=rf"under way already \(job {job_id}\)"):
        start_training(app, project_id=world.project_id)
    jobs.cancel_job(app.store, job_id=job_id)
    assert start_training(app, project_id=world.project_id) > job_id


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"preset": "great"}, "no preset “great”"),
        ({"options": {"epochs": 3}}, "preset quick has no setting “epochs”"),
        ({"backbone": "alexnet"}, "no backbone “alexnet”"),
        ({"options": {"turns": 3}}, "no training setting “turns”"),
        ({"options": {"n_folds": "1"}}, "n_folds cannot be “1”"),
        ({"options": {"scheme": "by group"}}, "no labelled image has a group"),
    ],
)
def test_wrong_choices_are_named_before_the_start(
    app: App, given: dict[str, Any], words: str
) -> None:
    world = make_world(app, {"liver": 4, "lung": 4})
    with pytest.raises(InvalidInputError, match=words):
        start_training(app, project_id=world.project_id, **given)


def test_the_names_of_backbones_are_those_that_exist() -> None:
    from cnsapp.domain.recipe import BACKBONES
    from cnsapp.ml.backbones import BACKBONES as BUILT

    assert {key: row.title for key, row in BUILT.items()} == BACKBONES


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """Return a project with a class too small to learn, trained once for the tests below."""
    from cnsapp.bootstrap import open_app
    from cnsapp.settings import Settings

    app = open_app(Settings(home=tmp_path_factory.mktemp("trained") / "home", device="cpu"))
    world = make_world(app, {"liver": 12, "lung": 12, "rare": 2}, unlabelled=3, n_groups=4)
    job = trained(world, name="mine")
    assert job.state == "done", job.error
    return world


def first_run(world: World) -> jobs.JobView:
    job_id = jobs.list_jobs(world.app.store, project_id=world.project_id, kinds=["train"])[-1].id
    return jobs.get_job(world.app.store, job_id=job_id)


def test_a_run_makes_a_model_with_its_figures(world: World) -> None:
    job = first_run(world)
    model = get_model(world.app.store, model_id=job.result["model_id"])
    assert (model.name, model.preset, model.job_id, model.n_images) == ("mine", "quick", job.id, 24)
    assert model.class_names == ["liver", "lung"]
    metrics = model.metrics
    assert metrics == job.result["metrics"]
    assert metrics["balanced_accuracy"] > 0.8
    assert metrics["scheme"] == "by group" and metrics["n_groups"] == 4
    assert [c["n"] for c in metrics["per_class"]] == [12, 12]
    assert {"majority", "colour_only"} <= set(metrics["controls"])
    assert any("Left out" in w and "rare (2)" in w for w in metrics["warnings"])
    points = jobs.job_points(world.app.store, job_id=job.id)
    assert points and all("balanced_accuracy" in p.values for p in points)


def test_predictions_are_out_of_fold_and_whole_groups_are_held_out(world: World) -> None:
    with world.app.store.reading() as session:
        rows = session.execute(
            select(Prediction, Image).join(Image, Image.id == Prediction.image_id)
        ).all()
        folds: dict[str | None, set[int | None]] = {}
        for prediction, image in rows:
            folds.setdefault(image.group_key, set()).add(prediction.fold)
            assert sum(prediction.probabilities) == pytest.approx(1, abs=1e-4)
            assert prediction.label_class_id == image.current_class_id
            assert prediction.event_id == image.current_event_id
    assert len(rows) == 24
    assert all(len(of_group) == 1 for of_group in folds.values())


def test_the_matrix_agrees_with_the_figures_of_the_training(world: World) -> None:
    model_id = first_run(world).result["model_id"]
    found = confusion(world.app.store, model_id=model_id)
    assert found.n == 24
    recall = [found.counts[k][k] / sum(found.counts[k]) for k in range(2)]
    assert found.balanced_accuracy == pytest.approx(sum(recall) / 2)


def test_images_left_out_at_training_are_no_news_but_later_labels_are(world: World) -> None:
    model_id = first_run(world).result["model_id"]
    assert labels_changed_since(world.app.store, model_id=model_id).total == 0
    relabel(world, world.image_ids[3][0], world.class_ids[0])
    assert labels_changed_since(world.app.store, model_id=model_id).n_new == 1


def test_the_same_job_run_again_makes_no_second_model(world: World) -> None:
    app = world.app
    done = first_run(world)
    before = n_rows(app, Model), len(list(app.store.path("models").iterdir()))
    again = JobContext(app.store, job_id=done.id, project_id=world.project_id, payload=done.payload)
    assert train.run(app, again) == done.result
    assert (n_rows(app, Model), len(list(app.store.path("models").iterdir()))) == before


def test_an_image_whose_file_is_gone_is_left_out_and_named(app: App) -> None:
    world = make_world(app, {"liver": 6, "lung": 6})
    with app.store.reading() as session:
        lost = session.get_one(Image, world.image_ids[0][0])
        path, name = app.store.path(lost.stored_path), lost.file_name
    path.unlink()
    job = trained(world)
    assert job.state == "done", job.error
    assert job.result["metrics"]["n_trained"] == 11
    assert any(name in warning for warning in job.result["metrics"]["warnings"])


def test_a_class_whose_files_are_gone_is_left_out_and_two_are_needed(app: App) -> None:
    world = make_world(app, {"liver": 5, "lung": 5, "colon": 5})

    def lose(image_ids: list[int]) -> None:
        for image_id in image_ids:
            image_path(app.store, image_id=image_id).unlink()

    lose(world.image_ids[2][1:])
    metrics = trained(world).result["metrics"]
    assert [c["name"] for c in metrics["per_class"]] == ["liver", "lung"]
    assert any("Left out" in w and "colon (1)" in w for w in metrics["warnings"])
    lose(world.image_ids[1])
    app.store.path("features").joinpath(next(app.store.path("features").iterdir())).unlink()
    job = trained(world)
    assert job.state == "failed"
    assert "could not be read" in str(job.error) and "2 more needed" in str(job.error)


def test_a_model_is_seen_only_with_all_its_predictions_and_half_ones_go(
    app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = make_world(app, {"liver": 4, "lung": 4})

    def cut_off(rows: list[Any]) -> Any:
        yield rows[:2]
        assert n_rows(app, Prediction) == 2  # written by now, in a transaction of their own
        raise RuntimeError("killed")

    with monkeypatch.context() as patched:
        patched.setattr(keep_model, "chunks", cut_off)
        job = trained(world)
    assert job.state == "failed"
    assert (n_rows(app, Model), list_models(app.store, project_id=world.project_id)) == (1, [])
    with pytest.raises(NotFoundError, match="no model"):
        current_model(app.store, project_id=world.project_id)
    tidy(app)
    assert (n_rows(app, Model), n_rows(app, Prediction)) == (0, 0)
    (model,) = [get_model(app.store, model_id=trained(world).result["model_id"])]
    assert (model.name, n_rows(app, Prediction)) == ("Quick 1", 8)


def test_a_window_that_an_import_fixes_meanwhile_does_not_stop_a_run(
    app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = make_world(app, {"liver": 4, "lung": 4})
    take = train_quick.take_snapshot

    def meanwhile(app: App, project_id: int, read_by: ReadingRule, **kwargs: str) -> Snapshot:
        with app.store.writing() as session:
            rule = ReadingRule().with_window("uint16", 0, 4095)
            session.get_one(Project, project_id).settings = {"reading": rule.as_json()}
        return take(app, project_id, read_by, **kwargs)

    monkeypatch.setattr(train_quick, "take_snapshot", meanwhile)
    job = trained(world)
    assert job.state == "done", job.error


def test_missing_groups_are_told_once(app: App) -> None:
    world = make_world(app, {"liver": 4, "lung": 4})
    metrics = trained(world).result["metrics"]
    assert sum("group" in warning for warning in metrics["warnings"]) == 1
    assert readiness(app.store, project_id=world.project_id).warnings[-1] in metrics["warnings"]


def test_cancelling_leaves_no_model_and_no_file(app: App) -> None:
    world = make_world(app, {"liver": 4, "lung": 4})
    job_id = start_training(app, project_id=world.project_id)
    jobs.cancel_job(app.store, job_id=job_id)
    run_here(app, job_id)
    assert jobs.get_job(app.store, job_id=job_id).state == "cancelled"
    assert n_rows(app, Model) == 0
    assert list(app.store.path("models").iterdir()) == []


def test_features_are_queued_once_and_give_way_to_training(app: App) -> None:
    world = make_world(app, {"liver": 4, "lung": 4})
    first = queue_features(app.store, project_id=world.project_id)
    assert first is not None
    assert queue_features(app.store, project_id=world.project_id) is None
    training = start_training(app, project_id=world.project_id)
    run_here(app, first)
    job = jobs.get_job(app.store, job_id=first)
    assert job.state == "done" and job.result["goes_on_as"] > training


def test_labels_that_vanish_before_the_run_fail_it_in_words(app: App) -> None:
    world = make_world(app, {"liver": 3, "lung": 3})
    job_id = start_training(app, project_id=world.project_id)
    relabel(world, world.image_ids[1][0], world.class_ids[0])
    run_here(app, job_id)
    job = jobs.get_job(app.store, job_id=job_id)
    assert job.state == "failed"
    assert "lung has 2, 1 more needed" in (job.error or "")
    with pytest.raises(CnsError, match="no model"):
        get_model(app.store, model_id=1)


def test_a_patient_written_in_two_ways_is_one_group(app: App) -> None:
    world = make_world(app, {"liver": 4, "lung": 4})
    written = ["P07", "p07 ", "P 08", "p  08"] * 2
    with app.store.writing() as session:
        for image_id, group in zip(
            [i for ids in world.image_ids[:2] for i in ids], written, strict=True
        ):
            session.execute(update(Image).where(Image.id == image_id).values(group_key=group))
    snapshot = take_snapshot(app, world.project_id, ReadingRule())
    assert {image.group for image in snapshot.images} == {"p07", "p 08"}
