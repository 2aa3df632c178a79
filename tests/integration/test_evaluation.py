"""The figures of a model from its stored predictions: which images, which classes, what is kept."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy import select, update

from cnsapp.bootstrap import App
from cnsapp.cli import main
from cnsapp.errors import InvalidInputError, NotFoundError
from cnsapp.services import evaluation
from cnsapp.services.classes import merge_classes, rename_class
from cnsapp.services.evaluation import columns_of, evaluate_model, parts_of
from cnsapp.services.evaluation_tables import all_figures, as_csv, as_json, points_csv
from cnsapp.services.review import confusion
from cnsapp.services.split_uses import count_uses
from db.models import (
    DataSplit,
    Image,
    ImageMeta,
    LabelClass,
    Model,
    Prediction,
    SplitMember,
)
from tests.integration.worlds import World, add_model, make_world, relabel


@pytest.fixture
def world(app: App) -> World:
    return make_world(app, {"colon": 12, "liver": 12, "spleen": 12}, n_groups=6)


@pytest.fixture
def model_id(world: World) -> int:
    """Return a model that takes two colon for liver and one spleen for colon."""
    said: list[Any] = []
    colon, liver, spleen = world.class_ids
    wrong = {(0, 0): liver, (0, 1): liver, (2, 5): colon}
    for kind, (label, ids) in enumerate(
        zip((colon, liver, spleen), world.image_ids[:3], strict=True)
    ):
        for k, image_id in enumerate(ids):
            said.append((image_id, label, wrong.get((kind, k), label), 0.6 + 0.03 * k))
    model_id = add_model(world, said)
    with world.app.store.writing() as session:
        for k, row in enumerate(session.scalars(select(Prediction)).all()):
            row.fold = k % 3
        parents = {colon: "digestive", liver: "digestive", spleen: "lymphatic"}
        for class_id, parent in parents.items():
            session.get_one(LabelClass, class_id).parent = parent
    return model_id


def set_metrics(world: World, model_id: int, **values: Any) -> None:
    with world.app.store.writing() as session:
        row = session.get_one(Model, model_id)
        row.metrics = {**row.metrics, **values}


def lock_test_set(world: World, model_id: int, image_ids: list[int]) -> int:
    """Make a split whose test part holds these images, and the model one of that split."""
    with world.app.store.writing() as session:
        split = DataSplit(project_id=world.project_id, name="split", scheme="by group")
        session.add(split)
        session.flush()
        session.add_all(SplitMember(split_id=split.id, image_id=i, part="test") for i in image_ids)
        session.get_one(Model, model_id).split_id = split.id
        session.execute(
            update(Prediction).where(Prediction.image_id.in_(image_ids)).values(part="test")
        )
        return split.id


def test_the_figures_count_what_review_counts(world: World, model_id: int) -> None:
    found = evaluate_model(world.app.store, model_id)
    shown = confusion(world.app.store, model_id=model_id)
    assert found.scores.confusion == shown.counts and found.class_ids == shown.class_ids
    assert found.scores.accuracy == pytest.approx(33 / 36)
    assert found.scores.n_groups == 6 and found.scores.interval_by == "group"
    assert found.scores.per_class[0].interval_by == "group"
    assert found.scores.top2 is not None and found.scores.top2 >= found.scores.accuracy


def test_errors_within_an_organ_system_are_told_apart(world: World, model_id: int) -> None:
    found = evaluate_model(world.app.store, model_id)
    assert found.system_names == ["digestive", "digestive", "lymphatic"]
    systems = found.scores.systems
    assert systems is not None
    assert (systems.n_systems, systems.n_errors, systems.n_errors_within) == (2, 3, 2)
    assert systems.balanced_accuracy == pytest.approx((1 + 11 / 12) / 2)


def test_labels_of_today_and_merged_classes_count_as_in_review(world: World, model_id: int) -> None:
    colon, liver, _ = world.class_ids
    store = world.app.store
    before = evaluate_model(store, model_id, truth="current")
    assert before.scores.confusion[0][1] == 2
    relabel(world, world.image_ids[0][0], liver)
    now = evaluate_model(store, model_id, truth="current")
    assert now.scores.confusion == confusion(store, model_id=model_id, truth="current").counts
    assert now.scores.confusion[0][1] == 1
    assert evaluate_model(store, model_id).scores.confusion[0][1] == 2  # as trained
    merge_classes(store, class_id=colon, into=liver, who="ann")
    merged = evaluate_model(store, model_id)
    assert len(merged.names) == 2
    assert merged.scores.confusion == confusion(store, model_id=model_id).counts
    assert merged.curves.per_class[0].n == 24  # the probabilities of both add up
    assert merged.scores.accuracy == pytest.approx(35 / 36)


def test_a_new_name_of_a_class_is_seen_at_once(world: World, model_id: int) -> None:
    store = world.app.store
    assert evaluate_model(store, model_id).names[0] == "colon"
    rename_class(store, class_id=world.class_ids[0], name="bowel", who="ann")
    assert evaluate_model(store, model_id).names[0] == "bowel"


def test_what_was_computed_is_kept_until_something_changes(
    world: World, model_id: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = []
    real = evaluation._evaluated
    monkeypatch.setattr(evaluation, "_evaluated", lambda *a, **k: runs.append(1) or real(*a, **k))
    store = world.app.store
    for _ in range(3):
        evaluate_model(store, model_id, truth="current")
    assert len(runs) == 1
    relabel(world, world.image_ids[0][0], world.class_ids[1])
    evaluate_model(store, model_id, truth="current")
    assert len(runs) == 2


def test_temperature_is_judged_on_other_folds(world: World, model_id: int) -> None:
    set_metrics(world, model_id, temperature=2.0)
    found = evaluate_model(world.app.store, model_id)
    assert found.temperature == 2.0
    # the least sure say 0.6 or 0.63 at temperature 2; at 1 their squares, shared out anew
    anew = [p**2 / (p**2 + 2 * ((1 - p) / 2) ** 2) for p in (0.6, 0.63)]
    first = next(b for b in found.before.bins if b.n)
    assert first.n == 6 and first.confidence == pytest.approx(np.mean(anew), abs=1e-4)
    assert found.before.n == found.after.n == 36
    set_metrics(world, model_id, temperature=None)
    assert evaluate_model(world.app.store, model_id).temperature == 1.0


def test_the_test_set_is_apart_and_a_look_is_counted_once_an_hour(
    world: World, model_id: int
) -> None:
    store = world.app.store
    tested = [ids[0] for ids in world.image_ids[:3]] + [ids[6] for ids in world.image_ids[:3]]
    assert parts_of(store, model_id=model_id) == ["fold"]
    with pytest.raises(InvalidInputError, match="locked test set"):
        evaluate_model(store, model_id, "test")
    split_id = lock_test_set(world, model_id, tested)
    assert parts_of(store, model_id=model_id) == ["fold", "test"]
    assert evaluate_model(store, model_id).scores.n == 30
    assert count_uses(store, split_id=split_id) == 0
    for _ in range(2):
        assert evaluate_model(store, model_id, "test", who="ann").scores.n == 6
    assert count_uses(store, split_id=split_id) == 1
    evaluate_model(store, model_id, "test", who="bob")
    assert count_uses(store, split_id=split_id) == 2


def test_slices_by_a_column_of_the_lab(world: World, model_id: int) -> None:
    store = world.app.store
    every = [i for ids in world.image_ids[:3] for i in ids]
    with store.writing() as session:
        for k, image_id in enumerate(every[:-2]):
            session.add(
                ImageMeta(
                    image_id=image_id, key="batch", project_id=world.project_id,
                    value="A" if k % 2 else "B",
                )
            )  # fmt: skip
            session.add(
                ImageMeta(
                    image_id=image_id, key="age", project_id=world.project_id, value=str(k),
                    number=float(k),
                )
            )  # fmt: skip
    names = [column.name for column in columns_of(store, project_id=world.project_id)]
    assert names == ["group", "annotator", "source", "size", "fold", "age", "batch"]
    found = evaluate_model(store, model_id, by="Batch")
    assert found.slices is not None
    assert [(s.value, s.n) for s in found.slices] == [("A", 17), ("B", 17), (None, 2)]
    ages = evaluate_model(store, model_id, by="age").slices
    assert ages is not None and [s.value for s in ages][-1] is None
    assert sum(s.n for s in ages) == 36 and len(ages) == 5  # quarters, and those without
    for by, n in (("group", 6), ("annotator", 1), ("source", 1), ("size", 1), ("fold", 3)):
        slices = evaluate_model(store, model_id, by=by).slices
        assert slices is not None and len(slices) == n and sum(s.n for s in slices) == 36
    with pytest.raises(InvalidInputError, match="There are: group"):
        evaluate_model(store, model_id, by="weather")


def test_answers_without_probabilities_count_by_class_only(world: World, model_id: int) -> None:
    with world.app.store.writing() as session:
        rows = session.scalars(select(Prediction).order_by(Prediction.id)).all()
        rows[0].probabilities = []
        rows[1].probabilities = [0.2, float("nan"), 0.8]
    found = evaluate_model(world.app.store, model_id)
    assert found.n_without == 2 and found.scores.n == 36
    assert found.curves.n == found.after.n == found.abstention.n == 34
    assert found.scores.top2 is None


def test_a_model_without_predictions_says_so(world: World) -> None:
    model_id = add_model(world, [])
    with pytest.raises(InvalidInputError, match="no predictions of images that it had not seen"):
        evaluate_model(world.app.store, model_id)
    with pytest.raises(NotFoundError):
        evaluate_model(world.app.store, 99)
    with pytest.raises(InvalidInputError, match="Parts are fold and test"):
        evaluate_model(world.app.store, model_id, "train")  # type: ignore[arg-type]


def test_one_image_of_one_class_leaves_most_undefined(world: World) -> None:
    first = world.image_ids[0][0]
    model_id = add_model(world, [(first, world.class_ids[0], world.class_ids[0], 0.9)])
    found = evaluate_model(world.app.store, model_id, by="group")
    assert found.scores.balanced_accuracy == 1.0 and found.scores.interval is None
    assert found.curves.macro_auc is None and found.scores.per_class[1].recall is None
    assert found.slices is not None and found.slices[0].balanced_accuracy is None
    rows = list(csv.DictReader(io.StringIO(as_csv(all_figures(found)))))
    liver = next(r for r in rows if r["item"] == "liver" and r["figure"] == "recall")
    assert (liver["value"], liver["n"]) == ("", "0")  # undefined with its n, never zero


def test_every_figure_in_json_is_json(world: World, model_id: int) -> None:
    facts = as_json(evaluate_model(world.app.store, model_id, by="group"))
    text = json.dumps(facts, allow_nan=False)
    assert json.loads(text)["scores"]["n"] == 36
    points = list(
        csv.DictReader(io.StringIO(points_csv(evaluate_model(world.app.store, model_id))))
    )
    assert {row["curve"] for row in points} == {"roc", "pr"}


def test_groups_are_one_however_they_are_spelled(world: World, model_id: int) -> None:
    with world.app.store.writing() as session:
        session.execute(
            update(Image).where(Image.group_key == "patient 1").values(group_key="Patient  1 ")
        )
        session.execute(
            update(Image).where(Image.id == world.image_ids[0][0]).values(group_key="patient 1")
        )
    assert evaluate_model(world.app.store, model_id).scores.n_groups == 6


def test_the_command(
    world: World, model_id: int, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setenv("CNS_HOME", str(world.app.store.root))
    file = tmp_path / "made" / "figures.csv"
    asked = ["evaluate", "--project", "world", "--by", "group", "--out", str(file)]
    assert main(asked) == 0
    shown = capsys.readouterr().out
    assert "36 images from 6 groups" in shown and "share of errors within the system" in shown
    rows = list(csv.DictReader(io.StringIO(file.read_text(encoding="utf-8"))))
    assert {row["section"] for row in rows} == {
        "overall", "class", "confusion", "curves", "calibration", "abstain", "slice"
    }  # fmt: skip
    assert main(["evaluate", "--project", "world", "--model", str(model_id), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["scores"]["accuracy"] == pytest.approx(33 / 36)
    assert main(["evaluate", "--project", "world", "--part", "test"]) == 1
    assert "locked test set" in capsys.readouterr().err
    assert main(["evaluate", "--project", "world", "--out", "figures.xls"]) == 1
    assert "neither in .csv nor in .json" in capsys.readouterr().err
    assert main(["evaluate", "--project", "world", "--out", str(tmp_path)]) == 1
    capsys.readouterr()
    assert main(["evaluate", "--project", "world", "--by", "weather"]) == 1
    assert "There are: group" in capsys.readouterr().err


def test_probabilities_are_read_in_one_go_and_row_by_row_alike() -> None:
    from cnsapp.services.evaluation_rows import probability_table

    good = probability_table(["[0.2, 0.8]", "[1.0, 0.0]"], 2)
    assert good.tolist() == [[0.2, 0.8], [1.0, 0.0]]
    odd = probability_table(["[0.2, 0.8]", None, "[1]", "nonsense", "[0.5, -1]", "[NaN, 1]"], 2)
    assert odd[0].tolist() == [0.2, 0.8] and np.isnan(odd[1:]).all()
