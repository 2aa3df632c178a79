"""Suggestions: made from the labels, judged on what was held out, accepted, and made again."""

from __future__ import annotations

import numpy as np
import pytest
from sqlalchemy import func, select
from sqlalchemy.exc import OperationalError

from cnsapp.bootstrap import App
from cnsapp.domain.metrics import wilson_interval
from cnsapp.domain.suggestions import threshold_table
from cnsapp.errors import InvalidInputError, NotFoundError
from cnsapp.jobs.running import run_here
from cnsapp.ml.heads import class_weights
from cnsapp.ml.suggest import STRENGTH, suggest
from cnsapp.services import (
    bulk,
    exclusion,
    images,
    jobs,
    label_settings,
    labels,
    suggestion_runs,
    suggestions,
)
from db.models import Job, Suggestion, SuggestionRun
from tests.integration.worlds import World, make_world


def run_all(app: App) -> None:
    """Do the jobs that wait, as the worker does."""
    kinds = ["features", "suggest"]
    while waiting := [j for j in jobs.list_jobs(app.store, kinds=kinds) if j.state == "queued"]:
        run_here(app, min(job.id for job in waiting))


def with_features(world: World) -> None:
    jobs.submit_job(world.app.store, kind="features", project_id=world.project_id)
    run_all(world.app)


def rows_of(world: World) -> dict[int, Suggestion]:
    with world.app.store.reading() as session:
        found = session.scalars(select(Suggestion)).all()
        session.expunge_all()
    return {row.image_id: row for row in found}


def test_the_head_is_the_one_that_scikit_learn_finds_on_the_same_folds() -> None:
    from sklearn.linear_model import LogisticRegression

    random = np.random.default_rng(5)
    y = np.repeat(np.arange(3), 40)
    features = (random.normal(size=(150, 20)) + 3).astype(np.float32)
    features[:120] += np.eye(3, 20)[y] * 1.5
    found = suggest(features, np.arange(120), y, 3)
    z = (features - features.mean(0)) / features.std(0)
    head = LogisticRegression(C=STRENGTH, tol=1e-8, max_iter=5000)
    head.fit(z[:120], y, sample_weight=class_weights(y, 3))
    logits = head.decision_function(z[120:]) / found.temperature
    due = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    np.testing.assert_allclose(found.probabilities[120:], due, atol=2e-3)
    # of labelled images, a head says what it makes of others alone
    own = head.predict_proba(z[:120])
    assert np.abs(found.probabilities[:120] - own).max() > 0.02
    assert (found.probabilities[:120].argmax(1) == y).mean() < head.score(z[:120], y)


def test_fewer_labels_than_columns_give_the_same_head_as_the_long_way() -> None:
    random = np.random.default_rng(1)
    y = np.repeat(np.arange(2), 10)
    features = random.normal(size=(40, 300)).astype(np.float32)
    features[:20, :30] += y[:, None]
    short = suggest(features, np.arange(20), y, 2)
    wide = np.concatenate([features, features[:, :0]], axis=1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cnsapp.ml.suggest._row_space", lambda _: np.eye(300, dtype=np.float32))
        long = suggest(wide, np.arange(20), y, 2)
    np.testing.assert_allclose(short.probabilities, long.probabilities, atol=1e-3)


def test_one_class_alone_is_refused() -> None:
    with pytest.raises(ValueError, match="two classes"):
        suggest(np.zeros((4, 3), np.float32), np.arange(3), np.zeros(3, np.int64), 2)


def test_the_table_of_thresholds_is_the_one_worked_by_hand() -> None:
    sure = np.array([0.55, 0.72, 0.91, 0.96, 0.99])
    right = np.array([False, True, False, True, True])
    rows = {row["threshold"]: row for row in threshold_table(sure, right, np.array([0.6, 0.97]))}
    assert [(rows[t]["n"], rows[t]["wrong"], rows[t]["n_open"]) for t in (0.5, 0.7, 0.9, 0.99)] == [
        (5, 2, 2), (4, 1, 1), (3, 1, 1), (1, 0, 0),
    ]  # fmt: skip
    assert rows[0.9]["error"] == pytest.approx(1 / 3)
    assert rows[0.9]["interval"] == wilson_interval(1, 3)
    empty = threshold_table(np.zeros(0), np.zeros(0, bool), np.zeros(0))[0]
    assert (empty["error"], empty["interval"]) == (None, None)


def test_every_image_with_features_gets_a_suggestion_and_the_figures_are_held_out(
    app: App,
) -> None:
    world = make_world(app, {"liver": 12, "colon": 12}, unlabelled=8, n_groups=6)
    with_features(world)
    run = suggestion_runs.newest_run(app.store, project_id=world.project_id)
    assert run is not None
    assert (run.n_labels, run.n_images) == (24, 32)
    assert run.figures["n"] == 24
    assert run.figures["n_groups"] == 6
    assert run.figures["balanced_accuracy"] > 0.8  # colours tell these classes
    rows = rows_of(world)
    assert set(rows) == {i for part in world.image_ids for i in part}
    labelled = {i for part in world.image_ids[:2] for i in part}
    for image_id, row in rows.items():
        assert (row.loss is not None) == (image_id in labelled)
        assert 0 < row.confidence <= 1
        assert row.top[0][0] == row.class_id
    item = images.get_image(app.store, image_id=world.image_ids[2][0])
    page = images.list_images(app.store, project_id=world.project_id, limit=100)
    shown = {i.id: i for i in page.items}[item.id]
    assert shown.suggestion is not None
    assert shown.suggestion.class_id == rows[item.id].class_id


def test_labels_that_were_accepted_suggestions_do_not_judge_suggestions(app: App) -> None:
    world = make_world(app, {"liver": 10, "colon": 10}, unlabelled=6, n_groups=5)
    with_features(world)
    offered = suggestions.offer(app.store, project_id=world.project_id, threshold=0.5)
    assert sorted(offered.image_ids) == sorted(world.image_ids[2])
    before = images.counts(app.store, project_id=world.project_id).labelled
    receipt = suggestions.accept(app.store, offered, project_id=world.project_id, annotator="maria")
    assert receipt.stored == 6
    for image_id in world.image_ids[2]:
        item = images.get_image(app.store, image_id=image_id)
        assert (item.state, item.source) == ("label", "suggestion")
    suggestion_runs.refresh(app.store, project_id=world.project_id)
    run_all(app)
    run = suggestion_runs.newest_run(app.store, project_id=world.project_id)
    assert run is not None
    assert (run.n_labels, run.figures["n"], run.figures["n_accepted"]) == (26, 20, 6)
    (step,) = labels.undo_stack(app.store, project_id=world.project_id, annotator="maria")
    undo = [
        {
            "client": "maria-client", "seq": at + 1, "image_id": i, "kind": "undo",
            "source": "bulk", "action": "undo-all", "target": {"client": c, "seq": s},
        }
        for at, (c, s, i) in enumerate(step.events)
    ]  # fmt: skip
    labels.record_events(app.store, project_id=world.project_id, annotator="maria", events=undo)
    assert images.counts(app.store, project_id=world.project_id).labelled == before


def test_an_image_that_was_labelled_meanwhile_keeps_its_label(app: App) -> None:
    world = make_world(app, {"liver": 10, "colon": 10}, unlabelled=4, n_groups=5)
    with_features(world)
    offered = suggestions.offer(app.store, project_id=world.project_id, threshold=0.5)
    mine = world.image_ids[2][0]
    bulk.label_images(
        app.store, project_id=world.project_id, annotator="jon", image_ids=[mine],
        class_id=world.class_ids[0],
    )  # fmt: skip
    receipt = suggestions.accept(app.store, offered, project_id=world.project_id, annotator="maria")
    assert receipt.stored == 3
    assert images.get_image(app.store, image_id=mine).source == "bulk"


def test_excluded_images_lose_their_suggestion_with_the_next_refresh(app: App) -> None:
    world = make_world(app, {"liver": 8, "colon": 8}, unlabelled=4, n_groups=4)
    with_features(world)
    gone = world.image_ids[2][:2]
    exclusion.exclude(app.store, project_id=world.project_id, image_ids=gone, who="maria")
    suggestion_runs.refresh(app.store, project_id=world.project_id)
    run_all(app)
    assert not set(gone) & set(rows_of(world))
    with app.store.reading() as session:
        assert session.scalar(select(func.count()).select_from(SuggestionRun)) == 2


def n_jobs(app: App, state: str = "queued") -> int:
    with app.store.reading() as session:
        mine = select(func.count()).where(Job.kind == "suggest", Job.state == state)
        return session.scalar(mine) or 0


def test_new_labels_ask_for_new_suggestions_once_and_no_sooner_than_set(app: App) -> None:
    world = make_world(app, {"liver": 8, "colon": 8}, unlabelled=12, n_groups=4)
    with_features(world)
    assert n_jobs(app) == 0
    label_settings.change_settings(app.store, project_id=world.project_id, suggest_every=5)

    def label(*image_ids: int) -> None:
        bulk.label_images(
            app.store, project_id=world.project_id, annotator="jon", image_ids=image_ids,
            class_id=world.class_ids[0],
        )  # fmt: skip

    label(*world.image_ids[2][:4])
    assert n_jobs(app) == 0
    label(world.image_ids[2][4])
    assert n_jobs(app) == 1
    label(*world.image_ids[2][5:])
    assert n_jobs(app) == 1  # the one that waits knows them too
    run_all(app)
    assert n_jobs(app, "done") == 2
    label_settings.change_settings(app.store, project_id=world.project_id, suggest_every=0)
    label(*world.image_ids[0])
    assert n_jobs(app) == 0


def test_too_few_labels_and_no_suggestions_are_said(app: App) -> None:
    world = make_world(app, {"liver": 3, "colon": 1}, unlabelled=2)
    with pytest.raises(InvalidInputError, match="2 labels in each of two classes; 1 class has"):
        suggestion_runs.refresh(app.store, project_id=world.project_id)
    with pytest.raises(NotFoundError, match="no suggestions in this project yet"):
        suggestions.offer(app.store, project_id=world.project_id, threshold=0.9)
    assert suggestion_runs.status(app.store, project_id=world.project_id).lacking


def test_a_refresh_without_features_is_not_asked_for_again_and_again(app: App) -> None:
    world = make_world(app, {"liver": 30, "colon": 30}, side=8)
    assert n_jobs(app) == 0  # there are 60 labels, and nothing to learn from yet
    suggestion_runs.refresh(app.store, project_id=world.project_id)
    run_all(app)
    assert suggestion_runs.newest_run(app.store, project_id=world.project_id) is None
    assert suggestion_runs.refresh_if_due(app.store, project_id=world.project_id) is None


def test_an_offer_tells_what_is_to_be_expected(app: App) -> None:
    world = make_world(app, {"liver": 10, "colon": 10}, unlabelled=5, n_groups=5)
    with_features(world)
    run = suggestion_runs.newest_run(app.store, project_id=world.project_id)
    assert run is not None
    offered = suggestions.offer(app.store, project_id=world.project_id, threshold=0.5)
    row = next(r for r in run.figures["thresholds"] if r["threshold"] == 0.5)
    assert (offered.n, offered.wrong) == (row["n"], row["wrong"])
    assert offered.expected == pytest.approx(5 * row["wrong"] / row["n"])
    assert sum(offered.per_class.values()) == 5
    only = suggestions.offer(
        app.store, project_id=world.project_id, threshold=0.5, class_ids=[world.class_ids[0]]
    )
    assert set(only.classes) <= {world.class_ids[0]}
    with pytest.raises(InvalidInputError, match=r"0\.5"):
        suggestions.offer(app.store, project_id=world.project_id, threshold=0.2)


def test_clear_images_of_clusters_teach_but_do_not_judge(app: App) -> None:
    world = make_world(app, {"liver": 8, "colon": 8}, unlabelled=10, n_groups=4)
    with_features(world)
    bulk.label_images(
        app.store, project_id=world.project_id, annotator="jon", image_ids=world.image_ids[2],
        class_id=world.class_ids[0], action="looks-of-cluster-1",
    )  # fmt: skip
    suggestion_runs.refresh(app.store, project_id=world.project_id)
    run_all(app)
    run = suggestion_runs.newest_run(app.store, project_id=world.project_id)
    assert run is not None
    assert (run.n_labels, run.figures["n"], run.figures["n_easy"]) == (26, 16, 10)


def test_one_accepted_by_itself_judges_and_one_corrected_after_many_does_not(app: App) -> None:
    world = make_world(app, {"liver": 8, "colon": 8}, unlabelled=6, n_groups=4)
    with_features(world)
    single, *many = world.image_ids[2]
    for number, ids in enumerate(([single], many)):
        bulk.label_images(
            app.store, project_id=world.project_id, annotator="maria", image_ids=ids,
            class_id=world.class_ids[0], source="suggestion", action=f"accepted-{number}",
        )  # fmt: skip
    bulk.label_images(
        app.store, project_id=world.project_id, annotator="maria", image_ids=many[:1],
        class_id=world.class_ids[1],
    )  # fmt: skip
    suggestion_runs.refresh(app.store, project_id=world.project_id)
    run_all(app)
    run = suggestion_runs.newest_run(app.store, project_id=world.project_id)
    assert run is not None
    assert (run.n_labels, run.figures["n"], run.figures["n_accepted"]) == (22, 17, 5)


def test_a_label_given_while_suggestions_are_stored_is_left_alone(app: App) -> None:
    world = make_world(app, {"liver": 4, "colon": 4}, unlabelled=3)
    mine, *others = world.image_ids[2]
    for image_id, only_open in ((mine, False), (mine, True), (others[0], True)):
        bulk.label_images(
            app.store, project_id=world.project_id, annotator="jon", image_ids=[image_id],
            class_id=world.class_ids[1 if only_open else 0], only_open=only_open,
        )  # fmt: skip
    assert images.get_image(app.store, image_id=mine).class_id == world.class_ids[0]
    assert images.get_image(app.store, image_id=others[0]).class_id == world.class_ids[1]


def test_labels_are_stored_and_told_so_where_new_suggestions_cannot_be_asked_for(
    app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = make_world(app, {"liver": 8, "colon": 8}, unlabelled=6, n_groups=4)
    with_features(world)
    label_settings.change_settings(app.store, project_id=world.project_id, suggest_every=1)

    def busy(*_: object, **__: object) -> int:
        raise OperationalError("INSERT", {}, Exception("database is locked"))

    monkeypatch.setattr(suggestion_runs, "add_job", busy)
    receipt = bulk.label_images(
        app.store, project_id=world.project_id, annotator="jon", image_ids=world.image_ids[2],
        class_id=world.class_ids[0],
    )  # fmt: skip
    assert receipt.stored == 6
    monkeypatch.undo()
    assert suggestion_runs.refresh_if_due(app.store, project_id=world.project_id) is not None
