"""The full model as a job: honest parts, trouble that costs nothing, runs that wait in order."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy import select, update

from cnsapp.bootstrap import App, open_app
from cnsapp.domain.metrics import balanced_accuracy, confusion_matrix
from cnsapp.errors import InvalidInputError
from cnsapp.imaging.isolated import read_image
from cnsapp.imaging.limits import Limits
from cnsapp.imaging.rule import ReadingRule
from cnsapp.jobs.running import run_here
from cnsapp.ml import checkpoint
from cnsapp.ml.bundle import load_bundle
from cnsapp.ml.device import choose_device
from cnsapp.ml.finetune import Finetuner
from cnsapp.ml.predict import Predictor
from cnsapp.services import devices, jobs
from cnsapp.services.images import image_path
from cnsapp.services.models import get_model
from cnsapp.services.preflight import preflight
from cnsapp.services.run_folders import decoded_folder, left_behind, run_folder
from cnsapp.services.splits import create_split
from cnsapp.services.training import active_training, start_training
from cnsapp.settings import Settings
from db.models import Image, Job, Prediction, SplitMember, SplitUse
from tests.integration.worlds import World, make_world, relabel

TINY: dict[str, Any] = {
    "image_size": 32, "epochs": 2, "batch_size": 16, "test_views": "1", "patience": 0,
    "learning_rate": 0.003,
}  # fmt: skip


def asked(world: World, preset: str = "full", **options: Any) -> int:
    return start_training(
        world.app, project_id=world.project_id, preset=preset, backbone="small_cnn",
        options=TINY | options, requested_by="Ada",
    )  # fmt: skip


def seen(world: World, job_id: int) -> jobs.JobView:
    return jobs.get_job(world.app.store, job_id=job_id)


def done(world: World, job_id: int) -> jobs.JobView:
    run_here(world.app, job_id)
    job = seen(world, job_id)
    assert job.state == "done", job.error
    return job


def said(world: World, job_id: int) -> list[str]:
    return [p.message for p in jobs.job_points(world.app.store, job_id=job_id) if p.message]


def answers(world: World, model_id: int) -> list[Prediction]:
    with world.app.store.reading() as session:
        found = session.scalars(
            select(Prediction).where(Prediction.model_id == model_id).order_by(Prediction.id)
        ).all()
        session.expunge_all()
    return list(found)


def groups(world: World) -> dict[int, str | None]:
    with world.app.store.reading() as session:
        return dict(session.execute(select(Image.id, Image.group_key)).all())


def timeless(value: Any) -> Any:
    if isinstance(value, dict):
        times = ("seconds", "images_per_second")
        return {k: timeless(v) for k, v in value.items() if k not in times}
    return [timeless(v) for v in value] if isinstance(value, list) else value


@pytest.fixture
def world(app: App) -> World:
    return make_world(app, {"liver": 15, "lung": 15}, n_groups=10, side=32)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[World, jobs.JobView]]:
    app = open_app(Settings(home=tmp_path_factory.mktemp("home"), start_worker=False, device="cpu"))
    world = make_world(app, {"liver": 15, "lung": 15}, n_groups=10, side=32)
    yield world, done(world, asked(world, name="Mine", n_folds=3))
    app.store.engine.dispose()


# --- what comes of it ------------------------------------------------------------------------


def test_the_network_that_was_scored_is_the_one_in_the_file(
    trained: tuple[World, jobs.JobView],
) -> None:
    world, job = trained
    model = get_model(world.app.store, model_id=job.result["model_id"])
    rows = answers(world, model.id)
    assert (model.name, model.preset, model.backbone) == ("Mine", "full", "small_cnn")
    of = groups(world)
    held = {of[row.image_id] for row in rows}
    assert 2 <= len(held) <= 5
    assert {i for i, group in of.items() if group in held} == {row.image_id for row in rows}
    path = world.app.store.path(model.path)
    predictor = Predictor(load_bundle(path, model.sha256), choose_device("cpu"))
    rule, limits = ReadingRule.from_json(model.settings["reading"]), Limits()
    for row in rows:
        file = image_path(world.app.store, image_id=row.image_id)
        (p,) = predictor.predict([read_image(file, rule, limits).pixels])
        assert np.allclose(p, row.probabilities, atol=2e-3)
        assert row.part == "fold"
    k = {class_id: n for n, class_id in enumerate(model.class_ids)}
    truth = np.array([k[row.label_class_id or 0] for row in rows])
    called = np.array([k[row.class_id] for row in rows])
    expected = balanced_accuracy(confusion_matrix(truth, called, 2))
    assert model.metrics["balanced_accuracy"] == pytest.approx(expected)
    assert model.metrics["n"] == len(rows)
    assert (model.metrics["score_of"], model.metrics["head"]) == ("holdout", "network")
    assert model.metrics["n_trained"] + model.metrics["n_validation"] == 30 - len(rows)
    assert model.metrics["controls"]["majority"] == pytest.approx(0.5)
    assert model.metrics["chosen"]["learning_rate"] == 0.003  # as it was set
    assert model.metrics["chosen"]["image_size"] == model.metrics["image_size"]
    assert model.settings["recipe"]["epochs"] == 2
    assert "torch" in model.settings["versions"]
    assert not run_folder(world.app.store, job.id).exists()


def test_the_log_tells_batch_time_and_epochs(trained: tuple[World, jobs.JobView]) -> None:
    world, job = trained
    lines = said(world, job.id)
    assert lines[0].startswith("One batch of 16 at 32 px: ")
    assert "in all" in lines[0]
    points = jobs.job_points(world.app.store, job_id=job.id)
    epochs = [p.values["epoch"] for p in points if "validation_loss" in p.values]
    assert epochs == [0, 1, 2]
    live = [p.values for p in points if "loss" in p.values]
    assert live
    assert {"epoch", "batch", "images_per_second", "seconds_left"} <= set(live[0])


def test_folds_score_every_image_and_publish_one_more_network(world: World) -> None:
    job = done(world, asked(world, "best", evaluate="folds", n_folds=2, epochs=1))
    rows = answers(world, job.result["model_id"])
    assert len(rows) == 30
    assert {row.fold for row in rows} == {0, 1}
    of = groups(world)
    for fold in (0, 1):
        mine = {of[row.image_id] for row in rows if row.fold == fold}
        assert not mine & {of[row.image_id] for row in rows if row.fold != fold}
    metrics = job.result["metrics"]
    assert (metrics["score_of"], metrics["n_folds"], metrics["n"]) == ("folds", 2, 30)
    assert [network["fold"] for network in metrics["networks"]] == [0, 1, None]
    assert metrics["n_trained"] + metrics["n_validation"] == 30


def test_the_locked_test_set_is_scored_once_and_takes_no_part(world: World) -> None:
    split = create_split(
        world.app.store, project_id=world.project_id, who="Ada",
        shares={"train": 0.5, "validation": 0.2, "test": 0.3},
    )  # fmt: skip
    with world.app.store.reading() as session:
        part_of = dict(session.execute(select(SplitMember.image_id, SplitMember.part)).all())
    job = done(world, asked(world, score_test=True))
    rows = answers(world, job.result["model_id"])
    test = {i for i, part in part_of.items() if part == "test"}
    assert {row.image_id for row in rows if row.part == "test"} == test
    assert not {row.image_id for row in rows if row.part == "fold"} & test
    metrics = job.result["metrics"]
    assert metrics["test"]["n"] == len(test)
    assert metrics["test"]["n_uses"] == 1
    learnt = metrics["n_trained"] + metrics["n_validation"] + metrics["n"]
    assert learnt == 30 - len(test)
    with world.app.store.reading() as session:
        (use,) = session.scalars(select(SplitUse)).all()
        assert (use.split_id, use.model_id, use.who) == (
            split.id, job.result["model_id"], "Ada",
        )  # fmt: skip


# --- stopped on the way ----------------------------------------------------------------------


def stop_at(monkeypatch: pytest.MonkeyPatch, epoch: int, act: Any) -> list[int]:
    """Do something when an epoch begins; return the list of epochs that were begun."""
    begun: list[int] = []
    whole = Finetuner.run_epoch

    def run_epoch(self: Finetuner, number: int) -> Any:
        begun.append(number)
        if number == epoch:
            act()
        return whole(self, number)

    monkeypatch.setattr(Finetuner, "run_epoch", run_epoch)
    return begun


def test_a_paused_run_goes_on_to_the_same_figures_and_forgets_later_labels(
    trained: tuple[World, jobs.JobView], world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = asked(world, n_folds=3)
    store = world.app.store
    begun = stop_at(monkeypatch, 2, lambda: jobs.pause_job(store, job_id=job_id))
    with monkeypatch.context() as eager:
        eager.setattr("cnsapp.jobs.context.LOOK_SECONDS", 0.0)
        run_here(world.app, job_id)
    assert seen(world, job_id).is_paused
    assert set(begun) == {0, 1, 2}
    relabel(world, world.image_ids[0][0], world.class_ids[1])
    monkeypatch.undo()
    jobs.resume_job(store, job_id=job_id)
    job = done(world, job_id)
    assert timeless(job.result["metrics"]) == timeless(trained[1].result["metrics"])


def test_a_cancelled_run_leaves_nothing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    job_id = asked(world, epochs=50)
    monkeypatch.setattr("cnsapp.jobs.context.LOOK_SECONDS", 0.0)
    begun = stop_at(
        monkeypatch, 2, lambda: jobs.cancel_job(world.app.store, job_id=job_id, dead_after=1e9)
    )
    with world.app.store.writing() as session:  # whoever runs it lives
        session.execute(update(Job).where(Job.id == job_id).values(worker_id="here"))
    monkeypatch.setattr("cnsapp.services.jobs._is_worked_on", lambda *_: True)
    run_here(world.app, job_id)
    assert seen(world, job_id).state == "cancelled"
    assert set(begun) == {0, 1, 2}
    assert not run_folder(world.app.store, job_id).exists()


def test_a_paused_run_that_is_cancelled_leaves_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = asked(world)
    monkeypatch.setattr("cnsapp.jobs.context.LOOK_SECONDS", 0.0)
    stop_at(monkeypatch, 1, lambda: jobs.pause_job(world.app.store, job_id=job_id))
    run_here(world.app, job_id)
    assert run_folder(world.app.store, job_id).is_dir()
    assert jobs.cancel_job(world.app.store, job_id=job_id).state == "cancelled"
    assert not run_folder(world.app.store, job_id).exists()


# --- trouble ---------------------------------------------------------------------------------


def test_a_full_disk_is_said_and_the_same_run_started_again_goes_on(
    trained: tuple[World, jobs.JobView], world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, n = checkpoint.write_atomically, 0

    def full(path: Path, data: bytes) -> None:
        nonlocal n
        n += path.name.startswith("epoch-002")
        if path.name.startswith("epoch-002") and n == 1:
            raise OSError(errno.ENOSPC, "No space left on device")
        whole(path, data)

    monkeypatch.setattr(checkpoint, "write_atomically", full)
    first = asked(world, n_folds=3)
    run_here(world.app, first)
    job = seen(world, first)
    assert job.state == "failed"
    assert "epoch 2 could not be written (No space left on device)" in str(job.error)
    assert left_behind(world.app.store) == []  # it stays, to be gone on from
    second = asked(world, n_folds=3)
    again = done(world, second)
    assert f"Goes on from the epochs that job {first} had finished." in said(world, second)
    epochs = [
        p.values["epoch"]
        for p in jobs.job_points(world.app.store, job_id=second)
        if "validation_loss" in p.values
    ]
    assert timeless(again.result["metrics"]) == timeless(trained[1].result["metrics"])
    assert epochs[-1] == 2
    assert not run_folder(world.app.store, first).exists()
    assert not run_folder(world.app.store, second).exists()


def test_a_file_that_vanishes_after_it_was_decoded_costs_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = asked(world)
    file = image_path(world.app.store, image_id=world.image_ids[0][0])
    stop_at(monkeypatch, 1, lambda: file.unlink(missing_ok=True))
    assert done(world, job_id).result["metrics"]["n_folds"] == 1


def test_a_file_that_cannot_be_read_is_left_out_and_said(world: World) -> None:
    file = image_path(world.app.store, image_id=world.image_ids[0][0])
    file.write_bytes(b"no picture")
    metrics = done(world, asked(world)).result["metrics"]
    assert metrics["n_trained"] + metrics["n_validation"] + metrics["n"] == 29
    assert any("1 labelled images could not be read" in line for line in metrics["warnings"])


def test_pictures_lost_while_a_run_waits_are_said(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = asked(world)
    monkeypatch.setattr("cnsapp.jobs.context.LOOK_SECONDS", 0.0)
    stop_at(monkeypatch, 1, lambda: jobs.pause_job(world.app.store, job_id=job_id))
    run_here(world.app, job_id)
    shutil.rmtree(decoded_folder(world.app.store))
    for image_id in world.image_ids[0][:2]:
        image_path(world.app.store, image_id=image_id).unlink()
    jobs.resume_job(world.app.store, job_id=job_id)
    run_here(world.app, job_id)
    assert "2 pictures of this run can no longer be read" in str(seen(world, job_id).error)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (RuntimeError("CUDA error: unspecified launch failure\nmore"), "GPU stopped answering"),
        (MemoryError(), "needed more memory than this computer has free"),
        (OSError(errno.ENOSPC, "No space left on device"), "the disk is full"),
    ],
)
def test_what_breaks_in_the_middle_of_an_epoch_is_said(
    world: World, monkeypatch: pytest.MonkeyPatch, error: Exception, words: str
) -> None:
    def broken(*_: Any) -> None:
        raise error

    stop_at(monkeypatch, 1, broken)
    job_id = asked(world)
    run_here(world.app, job_id)
    assert words in str(seen(world, job_id).error)
    assert run_folder(world.app.store, job_id).is_dir()


def test_a_run_that_goes_on_elsewhere_says_so(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = asked(world)
    monkeypatch.setattr("cnsapp.jobs.context.LOOK_SECONDS", 0.0)
    stop_at(monkeypatch, 1, lambda: jobs.pause_job(world.app.store, job_id=job_id))
    run_here(world.app, job_id)
    plan = run_folder(world.app.store, job_id) / "plan.json"
    plan.write_text(plan.read_text().replace('"device": "cpu"', '"device": "cuda:0"'))
    jobs.resume_job(world.app.store, job_id=job_id)
    monkeypatch.undo()
    job = done(world, job_id)
    assert any("began on cuda:0 and goes on on: CPU" in line for line in said(world, job_id))
    assert "The run began on cuda:0 and ended on cpu." in job.result["metrics"]["warnings"]


# --- before the start ------------------------------------------------------------------------


def test_the_same_run_twice_is_one_and_different_ones_wait_in_order(world: World) -> None:
    first = asked(world)
    with pytest.raises(
        InvalidInputError, match=rf"under way already \(job {first}\), started by Ada at \d\d:\d\d"
    ):
        asked(world, name="Another name")
    second = asked(world, seed=1)
    third = asked(world, seed=2)
    assert [seen(world, i).n_ahead for i in (first, second, third)] == [0, 1, 2]
    jobs.pause_job(world.app.store, job_id=first)
    assert active_training(world.app.store, project_id=world.project_id) == second
    assert seen(world, third).n_ahead == 1
    with pytest.raises(InvalidInputError, match=rf"It is paused: `resume {first}`"):
        asked(world)


def test_what_cannot_work_is_refused_before_it_is_queued(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    for options, words in (
        ({"device": "cuda:3"}, "The GPU cuda:3 is not there"),
        ({"device": "toaster"}, "no device “toaster”"),
        ({"image_size": 16}, "smaller than"),
    ):
        with pytest.raises(InvalidInputError, match=words):
            asked(world, **options)
    with pytest.raises(InvalidInputError, match=r"ResNet-50.*weights|weights.*ResNet-50"):
        start_training(world.app, project_id=world.project_id, preset="full", backbone="resnet50")
    gpu = devices.read_list("0, Card, 24576, 1024\nnot, understood\n")
    assert [(g.id, g.name) for g in gpu] == [("cuda:0", "Card")]
    monkeypatch.setattr(devices, "list_gpus", lambda: gpu)
    devices.check_wish("cuda")
    with pytest.raises(InvalidInputError, match=r"cuda:0 \(Card\)"):
        devices.check_wish("cuda:1")


def test_sentences_before_the_start(app: App) -> None:
    world = make_world(app, {"liver": 12, "lung": 4}, n_groups=1, side=24)

    def look(**options: Any) -> Any:
        return preflight(
            app, project_id=world.project_id, preset="full", backbone="small_cnn", options=options
        )

    found = look()
    text = " ".join(found.warnings)
    assert found.ok
    assert "Fewer images than the 5 folds: lung (4)" in text
    assert "All labelled images come from one group" in text
    assert "16 labelled images are smaller than the 32 px" in text
    assert "rough guess" in found.estimate.sentence
    assert "batch of one image cannot be normalised" in " ".join(look(batch_size=1).problems)
    folds = look(evaluate="folds")
    assert any("6 networks are trained" in line for line in folds.warnings)
    assert folds.estimate.seconds > found.estimate.seconds
    monkey = preflight(app, project_id=world.project_id, preset="full", backbone="vgg16")
    assert not monkey.ok
    assert "vgg16-397923af.pth" in monkey.problems[0]


def test_nothing_changed_since_is_told_and_what_changed_is_too(
    trained: tuple[World, jobs.JobView],
) -> None:
    world, job = trained

    def look(**options: Any) -> Any:
        return preflight(
            world.app, project_id=world.project_id, preset="full", backbone="small_cnn",
            options=TINY | options,
        )  # fmt: skip

    same = look(n_folds=3)
    assert same.same_as.id == job.result["model_id"]
    assert same.estimate.measured
    assert any("would make it again" in line for line in same.warnings)
    assert look(n_folds=3, seed=5).same_as is None
    before = world.image_ids[0][0]
    relabel(world, before, world.class_ids[1])
    assert look(n_folds=3).same_as is None
    relabel(world, before, world.class_ids[0])
