"""Agreement between people through the database, against scikit-learn and statsmodels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score, confusion_matrix
from sqlalchemy import update
from statsmodels.stats.inter_rater import fleiss_kappa

from cnsapp.errors import InvalidInputError
from cnsapp.services import agreement, bulk, exclusion, readings
from cnsapp.services.readings import Wanted
from db.models import Image
from tests.integration.test_labels import World, make_world

PEOPLE = ("ada", "ben", "cleo")


def label(world: World, who: str, said: dict[int, int], source: str = "bulk") -> None:
    """Have a person give images, by place, a class, by place."""
    bulk.label_images(
        world.store, project_id=world.project_id, annotator=who, source=source, class_id=None,
        image_ids=[world.image_ids[i] for i in said],
        classes=[world.class_ids[c] for c in said.values()],
    )  # fmt: skip


def random_table(world: World, seed: int) -> np.ndarray:
    """Have three people read images at random; return the table (N, 3), -1 for not read."""
    rng = np.random.default_rng(seed)
    n = len(world.image_ids)
    truth = rng.integers(0, 3, n)
    noisy = np.where(rng.random((n, 3)) < 0.7, truth[:, None], rng.integers(0, 3, (n, 3)))
    table = np.where(rng.random((n, 3)) < 0.8, noisy, -1)
    for k, who in enumerate(PEOPLE):
        label(world, who, {i: int(c) for i, c in enumerate(table[:, k]) if c >= 0})
    return table


def ask(world: World, **more: bool) -> agreement.Agreement:
    return agreement.agreement(world.store, project_id=world.project_id, **more)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_figures_are_those_of_scikit_learn_and_statsmodels(tmp_path: Path, seed: int) -> None:
    world = make_world(tmp_path, 90)
    table = random_table(world, seed)
    found = ask(world)
    assert found.people == PEOPLE
    assert len(found.pairs) == 3
    for one in found.pairs:
        i, j = PEOPLE.index(one.first), PEOPLE.index(one.second)
        common = (table[:, i] >= 0) & (table[:, j] >= 0)
        a, b = table[common, i], table[common, j]
        assert one.n == common.sum()
        assert one.kappa.value == pytest.approx(cohen_kappa_score(a, b), abs=1e-12)
        assert one.percent.value == pytest.approx((a == b).mean())
        assert one.kappa.interval is not None
        low, high = one.kappa.interval
        assert low < one.kappa.value < high
        detail = agreement.pair(
            world.store, project_id=world.project_id, first=one.first, second=one.second
        )
        assert detail.class_ids == tuple(sorted(world.class_ids))
        assert np.array_equal(detail.counts, confusion_matrix(a, b, labels=[0, 1, 2]))
        for k, class_id in enumerate(world.class_ids):
            expected = cohen_kappa_score(a == k, b == k)
            assert detail.per_class[class_id].value == pytest.approx(expected, abs=1e-12)


def test_fleiss_is_that_of_statsmodels_where_all_read_all(tmp_path: Path) -> None:
    world = make_world(tmp_path, 60)
    rng = np.random.default_rng(8)
    truth = rng.integers(0, 3, 60)
    table = np.where(rng.random((60, 3)) < 0.6, truth[:, None], rng.integers(0, 3, (60, 3)))
    for k, who in enumerate(PEOPLE):
        label(world, who, dict(enumerate(table[:, k].tolist())))
    found = ask(world)
    counts = np.stack([(table == c).sum(1) for c in range(3)], axis=1)
    assert found.fleiss.value == pytest.approx(fleiss_kappa(counts), abs=1e-12)
    for k, class_id in enumerate(world.class_ids):
        one = np.stack([counts[:, k], 3 - counts[:, k]], axis=1)
        assert found.per_class[class_id].value == pytest.approx(fleiss_kappa(one), abs=1e-12)


def test_groups_widen_the_interval(tmp_path: Path) -> None:
    world = make_world(tmp_path, 60)
    # in half of the groups they agree throughout, in the others by chance
    ben = {i: i % 3 if (i // 10) % 2 else (i // 3) % 3 for i in range(60)}
    label(world, "ada", {i: i % 3 for i in range(60)})
    label(world, "ben", ben)
    alone = ask(world).pairs[0].kappa
    ids = world.image_ids
    groups = {image_id: f"patient {k // 10}" for k, image_id in enumerate(ids)}
    with world.store.writing() as session:
        exclusion.put_into_groups(
            session, project_id=world.project_id, groups=groups, who="ada", reason="", details={}
        )
    grouped = ask(world).pairs[0].kappa
    assert (alone.interval_by, grouped.interval_by) == ("image", "group")
    assert alone.value == grouped.value
    assert alone.interval and grouped.interval
    assert np.diff(grouped.interval) > 1.2 * np.diff(alone.interval)


def test_few_common_images_are_said_instead_of_a_number(tmp_path: Path) -> None:
    world = make_world(tmp_path, 30)
    label(world, "ada", dict.fromkeys(range(30), 0))
    label(world, "ben", dict.fromkeys(range(7), 1))
    (one,) = ask(world).pairs
    assert (one.n, one.kappa.value, one.percent.value) == (7, None, None)
    assert one.kappa.reason == "Only 7 images were read by both; a figure needs 20."
    detail = agreement.pair(world.store, project_id=world.project_id, first="ada", second="ben")
    assert detail.counts == ((0, 7), (0, 0)), "the images can be looked at all the same"


def test_one_person_alone_agrees_with_nobody(tmp_path: Path) -> None:
    world = make_world(tmp_path, 30)
    label(world, "ada", dict.fromkeys(range(30), 0))
    found = ask(world)
    assert (found.people, found.pairs, found.n_images) == ((), (), 0)
    assert found.fleiss.value is None
    with pytest.raises(InvalidInputError, match="no image in common"):
        agreement.pair(world.store, project_id=world.project_id, first="ada", second="ben")


def test_settling_a_dispute_makes_nobody_agree_better(tmp_path: Path) -> None:
    world = make_world(tmp_path, 30)
    label(world, "ada", {i: i % 3 for i in range(30)})
    label(world, "ben", {i: (i + (i < 9)) % 3 for i in range(30)})
    before = ask(world).pairs[0]
    for i in range(9):
        world.record(world.event(i, cls=(i + 1) % 3, source="adjudication"), annotator="ada")
        world.record(world.event(i, cls=i % 3, source="adjudication"), annotator="cleo")
    after = ask(world)
    assert after.pairs == (before,), "what Ada said before she had seen both counts"
    assert after.people == ("ada", "ben")


def test_two_who_accept_one_model_do_not_agree_with_each_other(tmp_path: Path) -> None:
    world = make_world(tmp_path, 60)
    label(world, "ann", {i: i % 3 for i in range(60)})
    label(world, "bob", {i: (i + (i < 20)) % 3 for i in range(30)})
    label(world, "bob", {i: i % 3 for i in range(30, 60)}, source="suggestion")
    found = agreement.agreement(world.store, project_id=world.project_id)
    (figures,) = found.pairs
    assert figures.n == 30  # those that Bob judged himself
    label(world, "bob", {i: i % 3 for i in range(20)}, source="suggestion")
    label(world, "bob", {i: i % 3 for i in range(20)}, source="adjudication")
    (again,) = agreement.agreement(world.store, project_id=world.project_id).pairs
    assert again.percent == figures.percent  # nor do accepted ones before a settled dispute count


def test_a_cell_leads_to_its_images(tmp_path: Path) -> None:
    world = make_world(tmp_path, 30)
    label(world, "ada", {i: i % 2 for i in range(30)})
    label(world, "ben", {i: 2 if i in (4, 8, 13) else i % 2 for i in range(30)})
    colon, liver, lung = world.class_ids

    def places(**more: object) -> tuple[list[int], int]:
        found, n = agreement.parted(
            world.store, project_id=world.project_id, first="ada", second="ben", **more
        )
        return [world.image_ids.index(one.item.id) for one in found], n

    assert places(first_class=colon, second_class=lung) == ([4, 8], 2)
    assert places(second_class=lung) == ([4, 8, 13], 3)
    assert places(apart=True, offset=1, limit=1) == ([8], 3)
    assert places(first_class=lung) == ([], 0)
    assert places(first_class=liver, limit=200)[1] == 15


def test_only_second_readings_leaves_out_what_was_labelled_in_sight(tmp_path: Path) -> None:
    world = make_world(tmp_path, 60)
    label(world, "ada", {i: i % 3 for i in range(60)})
    label(world, "ben", {i: (i + 1) % 3 for i in range(30)})  # corrections
    label(world, "ben", {i: i % 3 for i in range(30, 60)}, source="second")
    assert ask(world).pairs[0].n == 60
    (blind,) = ask(world, only_second=True).pairs
    assert (blind.n, blind.kappa.value) == (30, 1.0)


def test_merged_classes_and_images_left_out_are_seen_at_once(tmp_path: Path) -> None:
    world = make_world(tmp_path, 40)
    label(world, "ada", {i: i % 3 for i in range(40)})
    label(world, "ben", {i: 1 if i % 3 == 2 else i % 3 for i in range(40)})
    assert ask(world).pairs[0].percent.value == pytest.approx(27 / 40)
    with world.store.writing() as session:
        from db.models import ClassEvent, LabelClass

        lung = session.get(LabelClass, world.class_ids[2])
        assert lung is not None
        lung.active, lung.merged_into = False, world.class_ids[1]
        session.add(ClassEvent(project_id=world.project_id, kind="merged", who="ada"))
    assert ask(world).pairs[0].percent.value == 1
    exclusion.exclude(
        world.store, project_id=world.project_id, image_ids=world.image_ids[:4], who="ada"
    )
    assert ask(world).pairs[0].n == 36


def test_people_are_held_against_themselves(tmp_path: Path) -> None:
    world = make_world(tmp_path, 40)
    label(world, "ada", {i: i % 3 for i in range(40)})
    wanted = Wanted(kind="self", by="ada", share=1.0)
    readings.ask(world.store, project_id=world.project_id, asked_by="ada", wanted=wanted)
    second = [(i + (i < 5)) % 3 for i in range(30)]
    for i, c in enumerate(second):
        world.record(world.event(i, cls=c, source="self"), annotator="ada")
    world.record(world.event(30, "unsure", source="self"), annotator="ada")
    (again,) = agreement.read_again(world.store, project_id=world.project_id, kind="self")
    assert (again.first, again.second, again.n, again.unsure) == ("ada", "ada", 30, 1)
    assert again.percent.value == pytest.approx(25 / 30)
    first = [i % 3 for i in range(30)]
    assert again.kappa.value == pytest.approx(cohen_kappa_score(first, second), abs=1e-12)
    assert agreement.read_again(world.store, project_id=world.project_id, kind="second") == []


def test_a_first_label_that_was_taken_back_is_compared_with_nothing(tmp_path: Path) -> None:
    world = make_world(tmp_path, 30)
    events = [world.event(i) for i in range(30)]
    world.record(*events, annotator="ada")
    wanted = Wanted(share=1.0)
    readings.ask(world.store, project_id=world.project_id, asked_by="ada", wanted=wanted)
    for i in range(25):
        world.record(world.event(i, source="second"), annotator="ben")
    world.record(world.undo_of(events[0]), annotator="ada")
    (again,) = agreement.read_again(world.store, project_id=world.project_id, kind="second")
    assert (again.first, again.second, again.n, again.percent.value) == ("ada", "ben", 24, 1.0)


def test_a_table_without_a_group_falls_back_to_images(tmp_path: Path) -> None:
    world = make_world(tmp_path, 30)
    with world.store.writing() as session:
        session.execute(update(Image).values(group_key=None))
    label(world, "ada", {i: i % 3 for i in range(30)})
    label(world, "ben", {i: (i // 2) % 3 for i in range(30)})
    assert ask(world).pairs[0].kappa.interval_by == "image"
