"""Splits in the store: locked, followed by training, grown by rule, and counted when looked at."""

from __future__ import annotations

import csv
from collections import Counter
from pathlib import Path

import pytest
from sqlalchemy import select, update

from cnsapp.bootstrap import App
from cnsapp.errors import CnsError, InvalidInputError, NotFoundError
from cnsapp.imaging.rule import ReadingRule
from cnsapp.services import exports, splits
from cnsapp.services.exclusion import exclude, restore
from cnsapp.services.metadata import add_metadata
from cnsapp.services.quality import set_apart
from cnsapp.tasks.snapshot import Snapshot, take_snapshot
from cnsapp.tasks.suggest import read_labels
from db.models import Image, NearPair, SplitMember, SplitUse
from tests.integration.worlds import World, _add_image, add_model, make_world, relabel


@pytest.fixture
def world(app: App) -> World:
    """Return a project with two classes, each from the same ten patients, and some unlabelled."""
    return make_world(app, {"liver": 30, "lung": 30}, unlabelled=10, n_groups=10, side=8)


def parts(world: World, split_id: int) -> dict[int, str]:
    with world.app.store.reading() as session:
        rows = session.execute(
            select(SplitMember.image_id, SplitMember.part).where(SplitMember.split_id == split_id)
        )
        return dict(rows.all())


def pair(world: World, a: int, b: int, answer: str = "") -> None:
    a, b = sorted((a, b))
    with world.app.store.writing() as session:
        session.add(
            NearPair(
                image_a=a, image_b=b, project_id=world.project_id, similarity=0.97, answer=answer
            )
        )


def group_of(world: World, image_id: int) -> str | None:
    with world.app.store.reading() as session:
        return session.scalar(select(Image.group_key).where(Image.id == image_id))


def set_group(world: World, image_id: int, group: str | None) -> None:
    with world.app.store.writing() as session:
        session.execute(update(Image).where(Image.id == image_id).values(group_key=group))


def add_image(world: World, group: str | None, seed: int, class_id: int | None = None) -> int:
    image_id = _add_image(world.app, world.project_id, 0, seed, group, 8)
    if class_id is not None:
        relabel(world, image_id, class_id)
    return image_id


def snapshot(world: World, column: str = "") -> Snapshot:
    return take_snapshot(world.app, world.project_id, ReadingRule(), column=column)


def one_in(world: World, split_id: int, part: str, labelled: bool = True) -> int:
    known = {i for ids in world.image_ids[: 2 if labelled else 3] for i in ids}
    return min(i for i, p in parts(world, split_id).items() if p == part and i in known)


def make(world: World, **wanted: object) -> splits.SplitView:
    return splits.create_split(
        world.app.store, project_id=world.project_id, who="Maria", **wanted  # type: ignore[arg-type]
    )  # fmt: skip


def test_a_split_holds_every_image_and_keeps_patients_whole(world: World) -> None:
    made = make(world)
    assert (made.name, made.scheme, made.active, made.created_by) == (
        "Split 1", "by group", True, "Maria",
    )  # fmt: skip
    there = parts(world, made.id)
    assert len(there) == 70 == sum(made.n.values())
    of_group: dict[str | None, set[str]] = {}
    for image_id, part in there.items():
        of_group.setdefault(group_of(world, image_id), set()).add(part)
    assert all(len(found) == 1 for found in of_group.values())
    assert Counter(next(iter(p)) for p in of_group.values()) == {
        "train": 6, "validation": 2, "test": 2,
    }  # fmt: skip
    counts = splits.part_counts(world.app.store, split_id=made.id)
    assert [row.name for row in counts.classes] == ["liver", "lung"]
    assert counts.classes[0].n == {"train": 18, "validation": 6, "test": 6}
    assert counts.classes[0].n_groups == {"train": 6, "validation": 2, "test": 2}
    assert counts.together.n == made.n
    assert any("Small in the test set: liver (6 images, 2 groups)" in line for line in counts.said)


def test_the_same_seed_gives_the_same_split_and_another_one_another(world: World) -> None:
    first, again = make(world, seed=3), make(world, seed=3)
    others = [make(world, seed=seed) for seed in range(4, 8)]
    assert parts(world, first.id) == parts(world, again.id)
    assert any(parts(world, other.id) != parts(world, first.id) for other in others)


def test_training_learns_from_all_but_the_test_set(world: World) -> None:
    before = snapshot(world)
    assert (before.split_id, len(before.learning), before.testing) == (None, 60, [])
    made = make(world)
    after = snapshot(world)
    there = parts(world, made.id)
    assert after.split_id == made.id
    assert len(after.testing) == 12
    assert {i.source.image_id for i in after.testing} == {
        i
        for i, p in there.items()
        if p == "test" and i in {*world.image_ids[0], *world.image_ids[1]}
    }
    assert Counter(i.part for i in after.images) == {"train": 36, "validation": 12, "test": 12}
    assert before.fingerprint() != after.fingerprint()
    splits.deactivate(world.app.store, project_id=world.project_id)
    off = snapshot(world)
    assert (off.split_id, len(off.learning)) == (None, 60)


def test_a_class_whose_images_are_all_locked_away_is_said(app: App) -> None:
    world = make_world(app, {"liver": 30, "lung": 30, "rare": 4}, n_groups=10, side=8)
    made = make(world)
    with app.store.writing() as session:  # as if labelled later, all of them in the test set
        session.execute(
            update(SplitMember)
            .where(SplitMember.image_id.in_(world.image_ids[2]))
            .values(part="test")
        )
    for image_id in world.image_ids[2]:
        set_group(world, image_id, None)
    found = snapshot(world)
    assert [c.name for c in found.classes] == ["liver", "lung"]
    assert any("Not among the training images: rare" in line for line in found.warnings)
    assert made.id == found.split_id


def test_new_images_go_to_their_groups_side_to_their_twins_or_to_train(world: World) -> None:
    made = make(world)
    test_image, validation_image = (
        one_in(world, made.id, "test"),
        one_in(world, made.id, "validation"),
    )
    of_test_group = add_image(world, f"  {str(group_of(world, test_image)).upper()}", 901)
    twin = add_image(world, None, 902)
    fellow, twin_of_group = add_image(world, "new one", 903), add_image(world, "new one", 904)
    stranger, of_train_group = add_image(world, "new two", 905), add_image(world, None, 906)
    pair(world, test_image, twin)
    pair(world, validation_image, twin_of_group)
    set_group(world, of_train_group, group_of(world, one_in(world, made.id, "train")))
    pair(world, of_train_group, test_image)  # its group's side, and so left out of training
    assert splits.get_split(world.app.store, split_id=made.id).unplaced == 6
    placed = splits.assign_new(world.app.store, world.project_id)
    there = parts(world, made.id)
    assert (there[of_test_group], there[twin]) == ("test", "test")
    assert (there[fellow], there[twin_of_group]) == ("validation", "validation")
    assert (there[stranger], there[of_train_group]) == ("train", "train")
    assert placed.counts == {"train": 2, "validation": 2, "test": 2}
    assert placed.said[0].startswith("2 new images joined the locked test set")
    assert splits.assign_new(world.app.store, world.project_id).total == 0
    relabel(world, of_train_group, world.class_ids[0])
    found = snapshot(world)
    assert of_train_group not in {i.source.image_id for i in found.images}
    assert any("show the same as" in line for line in found.warnings)


def test_a_near_duplicate_of_a_test_image_is_never_learnt_from(world: World) -> None:
    made = make(world)
    train_image, test_image = one_in(world, made.id, "train"), one_in(world, made.id, "test")
    pair(world, train_image, test_image)
    found = snapshot(world)
    assert train_image not in {i.source.image_id for i in found.images}
    assert test_image in {i.source.image_id for i in found.testing}
    warning = next(line for line in found.warnings if "show the same as" in line)
    with world.app.store.reading() as session:
        names = [session.scalar(select(Image.file_name).where(Image.id == i))
                 for i in (train_image, test_image)]  # fmt: skip
    assert f"{names[0]} (train) and {names[1]} (test)" in warning
    set_apart(
        world.app.store, project_id=world.project_id, who="Bob",
        pair=(min(train_image, test_image), max(train_image, test_image)),
    )  # fmt: skip
    assert train_image in {i.source.image_id for i in snapshot(world).images}


def test_a_copy_of_a_test_image_without_a_label_is_not_learnt_from_either(world: World) -> None:
    made = make(world)
    unlabelled = next(i for i in world.image_ids[2] if parts(world, made.id)[i] == "test")
    train_image = one_in(world, made.id, "train")
    pair(world, unlabelled, train_image)
    assert train_image not in {i.source.image_id for i in snapshot(world).images}


def test_an_image_that_was_put_into_a_test_group_is_left_out_and_the_test_set_stays(
    world: World,
) -> None:
    made = make(world)
    train_image, test_image = one_in(world, made.id, "train"), one_in(world, made.id, "test")
    before = {i.source.image_id for i in snapshot(world).testing}
    set_group(world, train_image, group_of(world, test_image))
    found = snapshot(world)
    assert train_image not in {i.source.image_id for i in found.images}
    assert {i.source.image_id for i in found.testing} == before
    assert any("are of the group of" in line for line in found.warnings)


def test_without_a_split_near_duplicates_share_a_fold_though_nobody_answered(app: App) -> None:
    world = make_world(app, {"liver": 20, "lung": 20}, n_groups=8, side=8)
    liver, lung = world.image_ids[:2]
    pair(world, liver[0], liver[1])  # of two patients
    pair(world, lung[0], lung[9], answer="apart")
    found = snapshot(world)
    groups = {i.source.image_id: i.group for i in found.images}
    assert groups[liver[0]] == groups[liver[1]] == "patient 1 and patient 2"
    assert groups[lung[0]] != groups[lung[9]]
    plan = found.plan_folds(n_folds=4)
    fold = {i.source.image_id: int(f) for i, f in zip(found.learning, plan.folds, strict=True)}
    assert fold[liver[0]] == fold[liver[1]]
    assert any("share a picture count as one: patient 1 and patient 2" in w for w in found.warnings)


@pytest.mark.parametrize("scheme", ["random", "by file-name blocks"])
def test_near_duplicates_share_a_fold_where_groups_are_not_used(app: App, scheme: str) -> None:
    world = make_world(app, {"liver": 20, "lung": 20}, side=8)
    for k in range(0, 16, 2):
        pair(world, world.image_ids[0][k], world.image_ids[1][19 - k])
    found = snapshot(world)
    fold = dict(zip(
        [i.source.image_id for i in found.learning],
        found.plan_folds(scheme=scheme, n_folds=4).folds.tolist(), strict=True,
    ))  # fmt: skip
    for k in range(0, 16, 2):
        assert fold[world.image_ids[0][k]] == fold[world.image_ids[1][19 - k]]


def test_folds_by_a_column_of_the_labs_table(world: World, tmp_path: Path) -> None:
    with world.app.store.reading() as session:
        rows = session.execute(select(Image.file_name, Image.group_key)).all()
    table = tmp_path / "m.csv"
    with table.open("w", newline="") as handle:
        writer = csv.writer(handle)
        writer.writerow(("file", "Batch"))
        writer.writerows((name, f"b{int(str(group)[8:]) % 3}") for name, group in rows)
    add_metadata(world.app.store, project_id=world.project_id, csv=table)
    found = snapshot(world, column="batch")
    plan = found.plan_folds(scheme="by column")
    assert plan.n_folds == 3
    assert {i.value for i in found.learning} == {"b0", "b1", "b2"}
    with pytest.raises(InvalidInputError, match=r"no column “scanner”.*Columns are: [Bb]atch"):
        snapshot(world, column="scanner")
    splits.check_column(world.app.store, project_id=world.project_id, column="batch")
    for column, words in (("scanner", "no column “scanner”"), ("", "No column was named")):
        with pytest.raises(InvalidInputError, match=words):
            splits.check_column(world.app.store, project_id=world.project_id, column=column)
    made = make(world, scheme="by column", column="BATCH", shares={"train": 0.6, "test": 0.4})
    there = parts(world, made.id)
    value = {i.source.image_id: i.value for i in found.learning}
    for b in ("b0", "b1", "b2"):
        assert len({there[i] for i, v in value.items() if v == b}) == 1


def test_no_image_enters_or_leaves_the_test_set_by_hand(world: World) -> None:
    made = make(world)
    test_image, train_image = one_in(world, made.id, "test"), one_in(world, made.id, "train")
    for image_id, part, words in (
        (test_image, "train", "cannot leave the test set"),
        (train_image, "test", "cannot enter the test set"),
    ):
        with pytest.raises(InvalidInputError, match=words):
            splits.pin_images(world.app.store, split_id=made.id, image_ids=[image_id], part=part)
    assert parts(world, made.id)[test_image] == "test"


def test_a_pin_moves_the_whole_patient_and_holds_in_the_next_split(world: World) -> None:
    store = world.app.store
    made = make(world)
    train_image = one_in(world, made.id, "train")
    group = group_of(world, train_image)
    done = splits.pin_images(store, split_id=made.id, image_ids=[train_image], part="validation")
    same = [i for i in parts(world, made.id) if group_of(world, i) == group]
    assert (done.n_pinned, done.n_moved) == (1, len(same))
    assert {parts(world, made.id)[i] for i in same} == {"validation"}
    test_image = one_in(world, made.id, "test")
    splits.pin_images(store, split_id=made.id, image_ids=[test_image])
    for seed in range(1, 5):
        again = make(world, seed=seed)
        there = parts(world, again.id)
        assert {there[i] for i in same} == {"validation"}
        assert there[test_image] == "test"
        assert [row[0] for row in splits.list_pinned(store, split_id=again.id)] == sorted(
            [train_image, test_image]
        )
    assert splits.unpin_images(store, split_id=again.id, image_ids=[train_image, 99]) == 1
    assert splits.get_split(store, split_id=again.id).n_pinned == 1
    with pytest.raises(InvalidInputError, match="has no part in this split"):
        splits.pin_images(store, split_id=again.id, image_ids=[123456])


def test_looks_are_counted_once_a_job_and_by_way_of_splits_that_overlap(world: World) -> None:
    store = world.app.store
    model_id = add_model(world, [])
    first = make(world, name="first")
    with store.writing() as session:
        for _ in range(2):  # a job that was killed and went on
            n = splits.note_use(
                session, split_id=first.id, model_id=model_id, job_id=None, who="Maria",
                purpose="training",
            )  # fmt: skip
    assert n == 2
    splits.look(store, split_id=first.id, model_id=model_id, who="Bob", purpose="Review")
    splits.look(store, split_id=first.id, model_id=model_id, who="Bob", purpose="Review")
    assert splits.count_uses(store, split_id=first.id) == 3
    second = make(world, name="the same again")
    assert parts(world, second.id) == parts(world, first.id)
    assert second.n_uses == 3
    listed = splits.uses(store, split_id=second.id)
    assert [(u.who, u.purpose, u.of_this_split) for u in listed] == [
        ("Bob", "Review", False), ("Maria", "training", False), ("Maria", "training", False),
    ]  # fmt: skip
    assert (listed[0].split_name, listed[0].model_name) == ("first", "quick 1")
    tests = {i for i, p in parts(world, first.id).items() if p == "test"}
    for seed in range(1, 30):  # ten patients, two of them tested: most splits share none
        other = make(world, seed=seed)
        if not tests & {i for i, p in parts(world, other.id).items() if p == "test"}:
            break
    assert other.n_uses == 0


def test_a_run_that_the_split_leaves_too_little_for_is_refused_before_it_starts(
    world: World,
) -> None:
    from cnsapp.services.training import start_training

    app, project_id = world.app, world.project_id
    make(world)
    with app.store.writing() as session:
        session.execute(
            update(SplitMember)
            .where(SplitMember.image_id.in_(world.image_ids[1][2:]))
            .values(part="test")
        )
    with pytest.raises(InvalidInputError, match=r"Outside the locked test set.*lung has [12], "):
        start_training(app, project_id=project_id)
    with pytest.raises(InvalidInputError, match="No column was named"):
        start_training(app, project_id=project_id, options={"scheme": "by column"})
    splits.deactivate(app.store, project_id=project_id)
    assert start_training(app, project_id=project_id)


def test_the_same_job_looks_once(world: World) -> None:
    from cnsapp.services.jobs import submit_job

    made = make(world)
    job_id = submit_job(world.app.store, kind="train", project_id=world.project_id)
    with world.app.store.writing() as session:
        for _ in range(2):
            n = splits.note_use(session, split_id=made.id, job_id=job_id, purpose="training")
    assert n == 1
    with world.app.store.reading() as session:
        assert len(session.scalars(select(SplitUse)).all()) == 1


def test_one_split_is_active_and_an_older_one_can_be_taken_again(world: World) -> None:
    store = world.app.store
    first, second = make(world), make(world, seed=5)
    assert [s.active for s in splits.list_splits(store, project_id=world.project_id)] == [
        True, False,
    ]  # fmt: skip
    late = add_image(world, "late", 950)
    again = splits.activate(store, split_id=first.id)
    assert again.active and again.unplaced == 0
    assert parts(world, first.id)[late] == "train"
    assert not splits.get_split(store, split_id=second.id).active
    with pytest.raises(NotFoundError, match="no split number 99"):
        splits.activate(store, split_id=99)


def test_an_image_that_was_excluded_when_the_split_was_made_joins_when_it_is_restored(
    world: World,
) -> None:
    image_id = world.image_ids[0][0]
    store = world.app.store
    exclude(store, project_id=world.project_id, image_ids=[image_id], who="Bob", reason="torn")
    made = make(world)
    assert image_id not in parts(world, made.id)
    restore(store, project_id=world.project_id, image_ids=[image_id], who="Bob")
    splits.assign_new(store, world.project_id)
    there = parts(world, made.id)
    same = [i for i in there if group_of(world, i) == group_of(world, image_id)]
    assert len({there[i] for i in same}) == 1


@pytest.mark.parametrize(
    ("wanted", "sentence"),
    [
        ({"shares": {"train": 0.9, "test": 0.2}}, r"add up to 1\.1"),
        ({"scheme": "by moon"}, "no way to divide images “by moon”"),
        ({"scheme": "by column"}, "No column was named"),
        ({"scheme": "by column", "column": "age"}, "no column “age”.*no columns yet"),
        ({"column": "age"}, "only used by column"),
        ({"name": "x" * 201}, "longer than 200"),
    ],
)
def test_what_cannot_be_divided_so_is_said_and_nothing_is_stored(
    world: World, wanted: dict[str, object], sentence: str
) -> None:
    with pytest.raises(CnsError, match=sentence):
        make(world, **wanted)
    assert splits.list_splits(world.app.store, project_id=world.project_id) == []


def test_an_empty_project_and_a_project_of_one_patient_are_said(app: App) -> None:
    empty = make_world(app, {"liver": 0}, name="empty")
    with pytest.raises(InvalidInputError, match="no image to divide"):
        make(empty)
    single = make_world(app, {"liver": 4, "lung": 4}, n_groups=1, name="single", side=8)
    with pytest.raises(InvalidInputError, match=r"All 8 images belong to one group \(“patient 0”"):
        make(single)


def test_a_split_of_tiles_without_groups_carries_its_sentence_to_the_run(app: App) -> None:
    world = make_world(app, {"liver": 30, "lung": 30}, side=8)
    made = make(world)
    assert made.scheme == "by file-name blocks"
    found = snapshot(world)
    assert any("No image has a group" in line for line in found.about_split)
    random = make(world, scheme="random")
    assert any("scores are optimistic" in line for line in snapshot(world).warnings)
    assert random.n == {"train": 36, "validation": 12, "test": 12}


def test_suggestions_do_not_learn_from_the_locked_test_set(world: World) -> None:
    made = make(world)
    locked = {i for i, p in parts(world, made.id).items() if p == "test"}
    _, labels = read_labels(world.app.store, world.project_id)
    assert labels and not locked & {label.image_id for label in labels}
    splits.deactivate(world.app.store, project_id=world.project_id)
    _, labels = read_labels(world.app.store, world.project_id)
    assert len(labels) == 60


def test_the_exported_table_says_which_part_an_image_is_in(world: World, tmp_path: Path) -> None:
    def columns(name: str) -> list[dict[str, str]]:
        exports.export_dataset(world.app, project_id=world.project_id, out=tmp_path / name)
        with (tmp_path / name / "labels.csv").open(encoding="utf-8-sig", newline="") as handle:
            return list(csv.DictReader(handle))

    assert "split" not in columns("before")[0]
    made = make(world)
    rows = columns("after")
    there = parts(world, made.id)
    for row in rows:
        image_id = int(Path(row["file"]).name.split("-")[0])
        assert row["split"] == there[image_id]
    assert Counter(row["split"] for row in rows) == {"train": 36, "validation": 12, "test": 12}
