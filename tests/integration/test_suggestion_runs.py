"""Refreshes of the suggestions: honest folds, copies, failures, kills, and what readers see."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import func, select, update

from cnsapp.bootstrap import App, open_app
from cnsapp.domain.splits import grouped_folds
from cnsapp.jobs.context import JobContext
from cnsapp.jobs.supervisor import start_worker, stop_worker
from cnsapp.ml import suggest as rule
from cnsapp.ml.heads import class_weights
from cnsapp.services import bulk, classes, jobs, label_settings, suggestion_runs, suggestions
from cnsapp.services.queueing import Wish, look_ahead
from cnsapp.settings import Settings
from cnsapp.tasks import suggest_rows
from cnsapp.tasks.suggest import one_of_each
from db.models import Image, Job, LabelEvent, Suggestion, SuggestionRun
from tests.integration.test_suggestions import n_jobs, rows_of, run_all, with_features
from tests.integration.worlds import World, make_world

PATIENCE = 150.0  # seconds; nothing here is timed, this only ends a test that hangs


def heap(n: int, n_classes: int, seed: int = 5) -> tuple[np.ndarray, np.ndarray]:
    """Return features (n, 20) of classes that overlap, and the classes."""
    random = np.random.default_rng(seed)
    y = np.arange(n) % n_classes
    features = random.normal(size=(n, 20)) + 1.2 * np.eye(n_classes, 20)[y]
    return features.astype(np.float32), y


def test_labelled_images_are_judged_by_the_heads_that_scikit_learn_fits_without_their_group() -> (
    None
):
    from sklearn.linear_model import LogisticRegression

    features, y = heap(120, 3)
    groups = [f"patient {i // 8}" for i in range(120)]
    found = rule.suggest(features, np.arange(120), y, 3, groups=groups)
    z = (features - features.mean(0)) / features.std(0)
    folds = grouped_folds(y, groups, n_folds=rule.N_FOLDS).folds
    due = np.empty((120, 3))
    for fold in range(rule.N_FOLDS):
        train = folds != fold
        head = LogisticRegression(C=rule.STRENGTH, tol=1e-8, max_iter=5000)
        head.fit(z[train], y[train], sample_weight=class_weights(y[train], 3))
        due[~train] = head.decision_function(z[~train])
    due = np.exp(due / found.temperature)
    due /= due.sum(1, keepdims=True)
    np.testing.assert_allclose(found.probabilities, due, atol=2e-3)
    # the figures' chances are scaled by the other folds' temperature: another number, same order
    assert (found.held_out.argmax(1) == due.argmax(1)).all()
    assert np.abs(found.held_out - due).max() > 1e-4


def test_many_labels_are_learnt_from_in_part_and_all_are_judged(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    features, y = heap(900, 3)
    y = np.where(np.arange(900) < 880, y % 2, 2)  # twenty of the third class
    monkeypatch.setattr(rule, "MOST_LEARNT", 200)
    monkeypatch.setattr(rule, "AT_ONCE", 128)
    found = rule.suggest(features.astype(np.float16), np.arange(800), y[:800] % 2, 2)
    assert found.n_learnt <= 200
    assert np.isfinite(found.held_out).all()
    assert found.probabilities.shape == (900, 2)
    learnt = rule._learnt(y, np.random.default_rng(0))
    counts = np.bincount(y[learnt])
    assert counts.tolist() == [90, 90, 20]  # the rare class is there whole


def test_a_class_of_one_group_is_learnt_and_not_scored() -> None:
    features, y = heap(60, 3)
    groups = ["lone" if c == 2 else f"patient {i % 6}" for i, c in enumerate(y)]
    found = rule.suggest(features, np.arange(60), y, 3, groups=groups)
    held = np.isfinite(found.held_out).all(axis=1)
    assert (held == (y != 2)).all()
    assert np.isfinite(found.probabilities).all()


def test_copies_of_a_picture_count_once_and_contradictions_not_at_all() -> None:
    pictures = np.array([7, 8, 7, 9, 9, 5, 7])
    first, stands_for = one_of_each(pictures, np.array([0, 1, 0, 0, 1, 1, 0]))
    assert first.tolist() == [0, 1, 5]
    assert stands_for.tolist() == [-1, -1, 0, -1, -1, -1, 0]


def test_a_copy_is_told_what_was_said_without_its_twin(app: App) -> None:
    world = make_world(app, {"liver": 8, "colon": 8}, unlabelled=2, n_groups=4)
    one, twin = world.image_ids[0][:2]
    with app.store.writing() as session:
        same = session.scalar(select(Image.sha256).where(Image.id == one))
        session.execute(update(Image).where(Image.id == twin).values(sha256=same))
    with_features(world)
    rows = rows_of(world)
    assert rows[one].confidence == rows[twin].confidence
    run = suggestion_runs.newest_run(app.store, project_id=world.project_id)
    assert run is not None
    assert (run.n_labels, run.figures["n"], run.figures["n_learnt"]) == (16, 15, 15)


# --- what readers see ---


@pytest.fixture
def world(app: App) -> World:
    """Return a project with suggestions that are made again after five labels."""
    world = make_world(app, {"liver": 8, "colon": 8}, unlabelled=12, n_groups=4)
    label_settings.change_settings(app.store, project_id=world.project_id, suggest_every=5)
    with_features(world)
    return world


def label(world: World, *image_ids: int, class_id: int | None = None) -> None:
    bulk.label_images(
        world.app.store, project_id=world.project_id, annotator="jon", image_ids=image_ids,
        class_id=class_id or world.class_ids[0],
    )  # fmt: skip


def test_a_run_that_is_being_written_is_not_seen_yet(world: World) -> None:
    store, project = world.app.store, world.project_id
    before = suggestion_runs.newest_run(store, project_id=project)
    assert before is not None
    old = look_ahead(store, Wish(project, "ada"), n=3).version
    job_id = suggestion_runs.refresh(store, project_id=project)
    job = JobContext(store, job_id=job_id, project_id=project, payload={})
    run_id = suggest_rows.begin_run(store, job, 99, 28, 1, world.class_ids)
    assert run_id > before.id
    assert suggestion_runs.newest_run(store, project_id=project) == before
    assert [r.id for r in suggestion_runs.runs(store, project_id=project)] == [before.id]
    assert look_ahead(store, Wish(project, "ada"), n=3).version == old
    suggest_rows.finish_run(store, run_id, {"n": 5}, 0.1)
    now = suggestion_runs.newest_run(store, project_id=project)
    assert now is not None
    assert (now.id, now.n_labels, now.figures) == (run_id, 99, {"n": 5})


def test_only_rows_that_changed_are_written_again(world: World) -> None:
    first = {i: row.run_id for i, row in rows_of(world).items()}
    suggestion_runs.refresh(world.app.store, project_id=world.project_id)
    run_all(world.app)
    assert {i: row.run_id for i, row in rows_of(world).items()} == first  # nothing is new
    newly = world.image_ids[2][0]
    label(world, newly)
    suggestion_runs.refresh(world.app.store, project_id=world.project_id)
    run_all(world.app)
    rows = rows_of(world)
    assert rows[newly].run_id != first[newly]
    assert rows[newly].loss is not None


def test_labels_given_during_a_refresh_lead_to_the_next_one(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    from cnsapp.tasks import suggest as task

    store, real = world.app.store, task.store_guesses
    rest = iter([world.image_ids[2][5:10]])

    def while_others_label(*given: object) -> None:
        for ids in rest:
            label(world, *ids)
            assert n_jobs(world.app) == 0  # one is running
        real(*given)  # type: ignore[arg-type]

    monkeypatch.setattr(task, "store_guesses", while_others_label)
    label(world, *world.image_ids[2][:5])
    assert n_jobs(world.app) == 1
    run_all(world.app)  # that one, and the one that it leads to
    run = suggestion_runs.newest_run(store, project_id=world.project_id)
    assert run is not None
    assert run.n_labels == 26
    assert n_jobs(world.app, "done") == 3
    assert n_jobs(world.app) == 0


def test_a_failed_refresh_is_tried_again_after_new_labels_only(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("out of memory")

    with monkeypatch.context() as patch:
        patch.setattr("cnsapp.tasks.suggest.suggest", broken)
        label(world, *world.image_ids[2][:6])
        run_all(world.app)
    assert n_jobs(world.app, "failed") == 1
    label(world, world.image_ids[2][6])
    assert n_jobs(world.app) == 0
    label(world, *world.image_ids[2][7:11])
    assert n_jobs(world.app) == 1
    run_all(world.app)
    assert n_jobs(world.app, "done") == 2


def test_a_merged_class_is_suggested_no_more(app: App) -> None:
    world = make_world(app, {"liver": 8, "colon": 8, "lung": 8}, unlabelled=4, n_groups=4)
    with_features(world)
    kept, gone = world.class_ids[0], world.class_ids[2]
    assert gone in {row.class_id for row in rows_of(world).values()}
    classes.merge_classes(app.store, class_id=gone, into=kept, who="maria")
    assert n_jobs(app) == 1
    offered = suggestions.offer(app.store, project_id=world.project_id, threshold=0.5)
    assert gone not in offered.classes  # before the refresh, too
    run_all(app)
    assert gone not in {row.class_id for row in rows_of(world).values()}


def test_what_to_expect_comes_from_random_images_where_there_are_enough(app: App) -> None:
    world = make_world(app, {"liver": 40, "colon": 40}, unlabelled=4, n_groups=8)
    with app.store.writing() as session:  # as the queue marks its random share
        some = [i for ids in world.image_ids[:2] for i in ids[:28]]
        session.execute(
            update(LabelEvent).where(LabelEvent.image_id.in_(some)).values(action="random-1")
        )
    with_features(world)
    run = suggestion_runs.newest_run(app.store, project_id=world.project_id)
    assert run is not None
    assert (run.figures["n"], run.figures["n_at_random"], run.figures["at_random"]["n"]) == (
        80, 56, 56,
    )  # fmt: skip
    offered = suggestions.offer(app.store, project_id=world.project_id, threshold=0.5)
    assert (offered.at_random, offered.n <= 56) == (offered.n >= 50, True)
    few = suggestions.offer(app.store, project_id=world.project_id, threshold=0.99)
    assert few.at_random is (few.n >= 50)


# --- a killed worker ---


@pytest.fixture
def slow_app(home: Path) -> Iterator[App]:
    app = open_app(Settings(home=home, device="cpu", heartbeat_seconds=0.3, dead_after_seconds=3.0))
    yield app
    app.store.engine.dispose()


def until(holds: Callable[[], bool], why: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < deadline, why
        time.sleep(0.005)


@pytest.mark.slow
def test_a_refresh_whose_worker_is_killed_is_whole_in_the_end(slow_app: App) -> None:
    app, store = slow_app, slow_app.store
    world = make_world(app, {"liver": 500, "colon": 500}, unlabelled=2500, side=8)
    label_settings.change_settings(store, project_id=world.project_id, suggest_every=0)
    with_made_up_features(world)
    job_id = suggestion_runs.refresh(store, project_id=world.project_id)

    def n_rows() -> int:
        with store.reading() as session:
            return session.scalar(select(func.count()).select_from(Suggestion)) or 0

    first = start_worker(app.settings)
    try:
        until(lambda: n_rows() > 0, "no row was written")
    finally:
        first.kill()
        first.wait()
    assert 0 < n_rows() < 3500, "the worker was killed too late"
    assert suggestion_runs.newest_run(store, project_id=world.project_id) is None
    second = start_worker(app.settings)
    try:
        until(lambda: not jobs.get_job(store, job_id=job_id).is_active, "it never ended")
    finally:
        stop_worker(second)
    job = jobs.get_job(store, job_id=job_id)
    assert job.state == "done", job.error
    assert n_rows() == 3500
    with store.reading() as session:
        assert session.scalar(select(func.count()).select_from(SuggestionRun)) == 1
        assert session.scalar(select(func.count()).select_from(Job)) == 1
    run = suggestion_runs.newest_run(store, project_id=world.project_id)
    assert run is not None
    assert run.figures["n"] == 1000


def with_made_up_features(world: World) -> None:
    """Store features that tell the classes, without reading a picture."""
    from cnsapp.domain.recipe import DEFAULT_BACKBONE
    from cnsapp.tasks.resources import extractor_of, feature_store

    extractor = extractor_of(world.app, DEFAULT_BACKBONE)
    random = np.random.default_rng(0)
    with world.app.store.reading() as session:
        rows = session.execute(select(Image.sha256, Image.current_class_id)).all()
    features = random.normal(size=(len(rows), extractor.layout.n_columns)).astype(np.float32)
    features += np.array([[row[1] or 0] for row in rows], np.float32)
    feature_store(world.app, extractor).put([row[0] for row in rows], "clean", features)
