"""Classes: every change is an event that can be undone, and no label is lost by any of them."""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import Any

import pytest
from sqlalchemy import select

from cnsapp.bootstrap import open_app
from cnsapp.domain.consensus import ConsensusRule
from cnsapp.errors import CnsError, InvalidInputError, NotFoundError
from cnsapp.services import classes, health, images, label_settings, labels, settling
from cnsapp.services.class_changes import FIELDS
from cnsapp.settings import Settings
from db.models import ClassEvent, LabelClass, LabelEvent, Project
from db.session import Store
from tests.integration.test_deciding import picture
from tests.integration.test_labels import World, make_world


@pytest.fixture
def world(tmp_path: Path) -> World:
    """Return a project with colon, liver and lung, where one image of each is labelled."""
    made = make_world(tmp_path)
    made.record(*(made.event(i, cls=i) for i in range(3)))
    return made


def shown(world: World) -> tuple[Any, ...]:
    """Return the classes that there are, with all that they have."""
    with world.store.reading() as session:
        rows = session.scalars(
            select(LabelClass)
            .where(LabelClass.project_id == world.project_id, LabelClass.active)
            .order_by(LabelClass.position, LabelClass.id)
        )
        return tuple(tuple(getattr(row, field) for field in FIELDS) for row in rows)


def names(world: World) -> list[str]:
    return [c.name for c in classes.list_classes(world.store, project_id=world.project_id)]


def undo(world: World, change: int | None = None, who: str = "maria") -> classes.ClassChange:
    return classes.undo_class_change(
        world.store, project_id=world.project_id, who=who, change=change
    )


def redo(world: World, change: int | None = None, who: str = "maria") -> classes.ClassChange:
    return classes.redo_class_change(
        world.store, project_id=world.project_id, who=who, change=change
    )


def add(world: World, name: str, **more: Any) -> classes.ClassChange:
    return classes.add_class(
        world.store, project_id=world.project_id, name=name, who="maria", **more
    )


def change_of(what: str, world: World) -> classes.ClassChange:
    """Make one change of a kind."""
    store, (colon, liver, lung) = world.store, world.class_ids
    if what == "add":
        return add(world, "spleen", parent="lymphatic", description="red and white pulp")
    if what == "add several":
        return classes.add_classes(
            store, project_id=world.project_id, classes=["spleen", "kidney"], who="maria"
        )
    if what == "rename":
        return classes.rename_class(store, class_id=liver, name="Hepar", who="maria")
    if what == "move":
        return classes.move_class(store, class_id=lung, by=-2, who="maria")
    if what == "sort":
        classes.move_class(store, class_id=lung, to=0, who="maria")
        return classes.sort_classes(store, project_id=world.project_id, who="maria")
    if what == "merge":
        return classes.merge_classes(store, class_id=colon, into=liver, who="maria")
    if what == "delete":
        return classes.delete_class(store, class_id=colon, who="maria")
    if what == "delete with reassign":
        return classes.delete_class(store, class_id=colon, reassign_to=lung, who="maria")
    if what == "split":
        ids = [world.image_ids[0]]
        return classes.split_class(store, class_id=colon, image_ids=ids, name="caecum", who="jon")
    if what == "keys":
        classes.change_class(store, class_id=lung, hotkey="d1", who="maria")
        return classes.suggest_keys(store, project_id=world.project_id, who="maria")
    field, value = what.split("=")
    return classes.change_class(store, class_id=lung, who="maria", **{field: value})


KINDS = (
    "add", "add several", "rename", "move", "sort", "merge", "delete", "delete with reassign",
    "split", "keys", "color=#123456", "hotkey=d 1", "parent=respiratory", "description=Airy.",
)  # fmt: skip


@pytest.mark.parametrize("what", KINDS)
def test_each_change_is_noted_and_goes_back_and_forth(world: World, what: str) -> None:
    before_all = names(world)
    done = change_of(what, world)
    after = shown(world), picture(world)
    (newest, *_) = classes.list_changes(world.store, project_id=world.project_id)
    assert newest == done and done.counts
    assert done.who == ("jon" if what == "split" else "maria")
    with world.store.reading() as session:
        event = session.get_one(ClassEvent, done.id)
        assert event.details["before"] != event.details["after"]
    back = undo(world, done.id, who="eva")
    assert (back.counts, back.undone_by) == (False, "eva")
    assert sorted(names(world)) == sorted(before_all)
    before = shown(world), picture(world)
    assert before != after
    redo(world, done.id)
    assert (shown(world), picture(world)) == after
    undo(world)
    assert (shown(world), picture(world)) == before


def test_what_the_changes_do(world: World) -> None:
    colon, liver, lung = world.class_ids
    change_of("hotkey=d 1", world)
    change_of("parent=respiratory", world)
    change_of("rename", world)
    change_of("move", world)
    found = classes.list_classes(world.store, project_id=world.project_id)
    assert [c.name for c in found] == ["lung", "colon", "Hepar"]
    assert (found[0].hotkey, found[0].parent) == ("d1", "respiratory")
    add(world, "trachea", parent=" Respiratory ")
    last = classes.list_classes(world.store, project_id=world.project_id)[-1]
    assert (last.parent, last.hotkey) == ("respiratory", "d2")  # beside the one of its group
    assert last.color not in {c.color for c in found}
    change_of("merge", world)
    assert [world.state(i) for i in range(3)] == [("label", c) for c in (liver, liver, lung)]
    classes.delete_class(world.store, class_id=liver, who="maria")
    assert [world.state(i)[0] for i in range(3)] == ["none", "none", "label"]
    classes.restore_class(world.store, class_id=liver, who="jon")
    classes.restore_class(world.store, class_id=colon, who="jon")
    assert [world.state(i) for i in range(3)] == [("label", c) for c in world.class_ids]
    with pytest.raises(NotFoundError):
        classes.restore_class(world.store, class_id=colon, who="jon")


@pytest.mark.parametrize("name", ["LIVER", " liver ", "Ｌiver"])
def test_a_name_that_reads_like_another_is_refused_or_merged_on_request(
    world: World, name: str
) -> None:
    colon, liver, _ = world.class_ids
    with pytest.raises(classes.SameNameError, match=r"same class name.*merge the two") as refused:
        classes.rename_class(world.store, class_id=colon, name=name, who="maria")
    assert refused.value.other is not None and refused.value.other.id == liver
    with pytest.raises(classes.SameNameError):
        add(world, name)
    done = classes.rename_class(world.store, class_id=colon, name=name, who="maria", merge=True)
    assert (done.kind, done.sentence) == ("merged", "Merged “colon” into “liver”")
    assert world.state(0) == ("label", liver)
    add(world, "Colon")  # its name is free now
    with pytest.raises(
        InvalidInputError, match="later change by maria touches the same: Added “Colon”"
    ):
        undo(world, done.id)


def test_ones_own_name_may_be_spelt_otherwise(world: World) -> None:
    classes.rename_class(world.store, class_id=world.class_ids[0], name="Colon", who="maria")
    assert names(world)[0] == "Colon"
    with pytest.raises(InvalidInputError, match="it is so already"):
        classes.rename_class(world.store, class_id=world.class_ids[0], name="Colon", who="maria")


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"hotkey": "u"}, "reserved"),
        ({"hotkey": "1"}, r"“colon” and “lung” both have the key 1"),
        ({"hotkey": "12"}, "one begins the other"),
        ({"color": "blue"}, "not a colour"),
        ({"description": "x" * 2001}, "2,001 characters"),
    ],
)
def test_what_a_class_cannot_have_is_refused_in_words(
    world: World, changes: dict[str, str], sentence: str
) -> None:
    with pytest.raises(InvalidInputError, match=sentence):
        classes.change_class(world.store, class_id=world.class_ids[2], who="maria", **changes)
    assert classes.list_changes(world.store, project_id=world.project_id) == []


def test_a_change_that_a_later_one_builds_upon_is_not_undone_before_it(world: World) -> None:
    lung = world.class_ids[2]
    first = classes.rename_class(world.store, class_id=lung, name="pulmo", who="maria")
    other = classes.change_class(world.store, class_id=lung, color="#112233", who="maria")
    second = classes.rename_class(world.store, class_id=lung, name="Lunge", who="jon")
    with pytest.raises(
        InvalidInputError, match=r"later change by jon touches the same: Renamed “pulmo” to “Lu"
    ):
        undo(world, first.id)
    undo(world, other.id)  # touches something else
    undo(world, second.id)
    undo(world, first.id)
    assert names(world) == ["colon", "liver", "lung"]
    with pytest.raises(InvalidInputError, match="is another by now"):
        redo(world, second.id)
    with pytest.raises(InvalidInputError, match="is taken back already"):
        undo(world, first.id)
    redo(world, first.id)
    redo(world, second.id)
    assert names(world)[-1] == "Lunge"


def test_a_class_that_others_were_merged_into_is_not_taken_away_by_an_undo(world: World) -> None:
    added = add(world, "gut")
    gut = added.class_id
    assert gut is not None
    merged = classes.merge_classes(world.store, class_id=world.class_ids[0], into=gut, who="jon")
    with pytest.raises(InvalidInputError, match="later change by jon"):
        undo(world, added.id)
    undo(world, merged.id)
    world.class_ids.append(gut)
    world.record(world.event(3, cls=3))
    with pytest.raises(InvalidInputError, match="“gut” has 1 label by now"):
        undo(world, added.id)
    classes.delete_class(world.store, class_id=gut, who="maria")
    with pytest.raises(InvalidInputError, match="“gut” is gone by now"):
        redo(world, merged.id)


def test_a_key_that_was_given_away_meanwhile_is_not_given_twice(world: World) -> None:
    colon, _, lung = world.class_ids
    gone = classes.delete_class(world.store, class_id=colon, who="maria")
    given = classes.change_class(world.store, class_id=lung, hotkey="1", who="maria")
    with pytest.raises(InvalidInputError, match="later change"):
        undo(world, gone.id)
    undo(world, given.id)
    undo(world, gone.id)
    assert names(world) == ["colon", "liver", "lung"]


def test_a_split_is_one_action_that_no_key_press_takes_back(world: World) -> None:
    world.record(world.event(3, cls=0), annotator="eva")
    colon = world.class_ids[0]
    done = classes.split_class(
        world.store,
        class_id=colon,
        image_ids=[world.image_ids[0], world.image_ids[3]],
        name="caecum",
        who="jon",
    )
    assert done.class_id is not None
    assert {world.state(i) for i in (0, 3)} == {("label", done.class_id)}
    with world.store.reading() as session:
        new = session.scalars(select(LabelEvent).where(LabelEvent.class_id == done.class_id)).all()
        assert len({event.action for event in new}) == 1
        assert [event.source for event in new] == ["bulk", "bulk"]
    for stack in (labels.undo_stack, labels.redo_stack):
        assert stack(world.store, project_id=world.project_id, annotator="jon") == []
    undo(world, who="maria")
    assert {world.state(i) for i in (0, 3)} == {("label", colon)}
    for who in ("jon", "maria"):
        assert labels.redo_stack(world.store, project_id=world.project_id, annotator=who) == []
    with pytest.raises(InvalidInputError, match="1 of the 2 images are not labelled"):
        classes.split_class(
            world.store, class_id=colon, image_ids=world.image_ids[:2], name="x", who="jon"
        )
    with pytest.raises(InvalidInputError, match="No image"):
        classes.split_class(world.store, class_id=colon, image_ids=[], name="x", who="jon")


def test_where_votes_count_a_split_decides(world: World) -> None:
    rule = ConsensusRule("majority", 2)
    world.record(world.event(0, cls=0), annotator="eva")
    label_settings.change_settings(world.store, project_id=world.project_id, rule=rule)
    done = change_of("split", world)
    assert world.state(0) == ("label", done.class_id)
    undo(world)
    assert world.state(0) == ("label", world.class_ids[0])


def test_nobody_named_and_strangers_are_refused(world: World) -> None:
    with pytest.raises(InvalidInputError, match="Nobody is named"):
        classes.rename_class(world.store, class_id=world.class_ids[0], name="x", who=" ")
    with pytest.raises(NotFoundError):
        classes.merge_classes(world.store, class_id=world.class_ids[0], into=999, who="maria")
    with pytest.raises(InvalidInputError, match="another class of the same project"):
        classes.merge_classes(
            world.store, class_id=world.class_ids[0], into=world.class_ids[0], who="maria"
        )
    with pytest.raises(NotFoundError, match="none was made"):
        undo(world)
    with pytest.raises(NotFoundError, match="none was taken back"):
        redo(world)


def test_a_merge_that_was_killed_is_finished_at_the_next_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The process ends between two of the short transactions, as by kill -9."""
    world = make_world(tmp_path, 1200)
    world.record(*(world.event(i) for i in range(1200)))
    real, calls = settling.refresh_current, []

    def dies(*args: Any) -> None:
        if calls:
            raise SystemExit(137)
        calls.append(1)
        real(*args)

    monkeypatch.setattr(settling, "refresh_current", dies)
    with pytest.raises(SystemExit):
        change_of("merge", world)
    half = images.counts(world.store, project_id=world.project_id).per_class
    assert half[world.class_ids[0]] == 700 and half[world.class_ids[1]] == 500
    monkeypatch.setattr(settling, "refresh_current", real)
    open_app(Settings(home=tmp_path))
    whole = images.counts(world.store, project_id=world.project_id).per_class
    assert whole == {world.class_ids[1]: 1200}
    undo(world)
    assert images.counts(world.store, project_id=world.project_id).per_class == {
        world.class_ids[0]: 1200
    }


class Lab:
    """Three people who label and change the classes at random."""

    PEOPLE = ("maria", "jon", "eva")

    def __init__(self, world: World, random: Random) -> None:
        self.world, self.random = world, random
        self.store: Store = world.store
        self.sent: dict[tuple[str, int], dict[str, Any]] = {}
        self.done: dict[str, int] = {}
        self.refused = 0

    def act(self) -> None:
        """Do one thing; what is refused in words changes nothing."""
        what = self.random.choices(
            ("label", "undo", "redo", "rename", "merge", "delete", "split", "set", "move", "add",
             "undo class", "redo class", "vote"),
            (40, 12, 10, 6, 3, 3, 3, 8, 5, 5, 9, 6, 1),
        )[0]  # fmt: skip
        before = (shown(self.world), picture(self.world)) if self.random.random() < 0.1 else None
        try:
            getattr(self, what.replace(" ", "_"))(self.random.choice(self.PEOPLE))
        except CnsError:
            self.refused += 1
            if before is not None:
                assert (shown(self.world), picture(self.world)) == before
        else:
            self.done[what] = self.done.get(what, 0) + 1

    def a_class(self) -> int:
        found = classes.list_classes(self.store, project_id=self.world.project_id)
        if not found:
            raise NotFoundError("no class is left")
        return self.random.choice(found).id

    def a_name(self) -> str:
        return self.random.choice(["Colon", "liver", "lung", "gut", "spleen", "Hepar", "x", "y"])

    def label(self, who: str) -> None:
        kind = self.random.choice(["label", "label", "label", "skip", "unsure", "clear"])
        chosen = self.random.sample(range(12), self.random.randint(1, 4))
        action = f"action-{len(self.sent)}-{who}"
        events = [self.world.event(i, kind, action=action) for i in chosen]
        if kind == "label":
            class_id = self.a_class()
            events = [event | {"class_id": class_id} for event in events]
        self.send(who, events)

    def send(self, who: str, events: list[dict[str, Any]]) -> None:
        self.sent |= {(event["client"], event["seq"]): event for event in events}
        assert not self.world.record(*events, annotator=who).rejected

    def undo(self, who: str, stack: Any = labels.undo_stack, kind: str = "undo") -> None:
        steps = stack(self.store, project_id=self.world.project_id, annotator=who, limit=1)
        if not steps:
            raise NotFoundError("nothing to undo")
        events = [
            self.world.undo_of(self.sent[c, s]) | {"kind": kind} for c, s, _ in steps[0].events
        ]
        for event in events:
            event["action"] = f"back-{events[0]['seq']}"
        self.send(who, events)

    def redo(self, who: str) -> None:
        self.undo(who, labels.redo_stack, "redo")

    def rename(self, who: str) -> None:
        merge = self.random.random() < 0.2
        classes.rename_class(
            self.store, class_id=self.a_class(), name=self.a_name(), who=who, merge=merge
        )

    def merge(self, who: str) -> None:
        classes.merge_classes(self.store, class_id=self.a_class(), into=self.a_class(), who=who)

    def delete(self, who: str) -> None:
        into = self.random.choice([None, self.a_class()])
        classes.delete_class(self.store, class_id=self.a_class(), reassign_to=into, who=who)

    def split(self, who: str) -> None:
        called = {i: self.world.state(k)[1] for k, i in enumerate(self.world.image_ids)}
        class_id = self.random.choice([c for c in called.values() if c] or [self.a_class()])
        there = [i for i, c in called.items() if c == class_id]
        ids = there[: self.random.randint(0, len(there))]
        classes.split_class(
            self.store, class_id=class_id, image_ids=ids, name=self.a_name(), who=who
        )

    def set(self, who: str) -> None:
        changes = self.random.choice(
            [
                {"color": f"#{self.random.randrange(16**6):06x}"},
                {"hotkey": self.random.choice(["1", "2", "d", "d1", "d2", "q", ""])},
                {"parent": self.random.choice(["", "digestive", "Digestive"])},
                {"description": self.random.choice(["", "as in the atlas"])},
            ]
        )
        classes.change_class(self.store, class_id=self.a_class(), who=who, **changes)

    def move(self, who: str) -> None:
        if self.random.random() < 0.2:
            classes.sort_classes(self.store, project_id=self.world.project_id, who=who)
        else:
            by = self.random.randint(-2, 2)
            classes.move_class(self.store, class_id=self.a_class(), by=by, who=who)

    def add(self, who: str) -> None:
        classes.add_class(self.store, project_id=self.world.project_id, name=self.a_name(), who=who)

    def undo_class(self, who: str) -> None:
        undo(self.world, self.a_change(), who)

    def redo_class(self, who: str) -> None:
        redo(self.world, self.a_change(), who)

    def a_change(self) -> int | None:
        if self.random.random() < 0.5:
            return None
        there = self.changes()
        return self.random.choice(there).id if there else None

    def changes(self) -> list[classes.ClassChange]:
        return classes.list_changes(self.store, project_id=self.world.project_id, limit=10_000)

    def vote(self, _who: str) -> None:
        rule = self.random.choice([ConsensusRule(), ConsensusRule("majority", 2)])
        label_settings.change_settings(self.store, project_id=self.world.project_id, rule=rule)


@pytest.mark.parametrize("seed", range(1))
def test_after_a_thousand_changes_undoing_all_restores_the_beginning(
    tmp_path: Path, seed: int
) -> None:
    world = make_world(tmp_path, 12)
    lab = Lab(world, Random(seed))
    beginning = shown(world), picture(world)
    for _ in range(1000):
        lab.act()
    assert min(lab.done.get(kind, 0) for kind in ("label", "undo", "redo", "rename")) > 15
    assert min(lab.done.get(kind, 0) for kind in ("merge", "delete", "split", "undo class")) > 3
    assert lab.refused > 10
    checks = {check.name: check for check in health.examine(open_app(Settings(home=tmp_path)))}
    assert checks["labels"].state == "ok", checks["labels"]
    assert checks["counts"].state == "ok", checks["counts"]
    for who in lab.PEOPLE:
        while labels.undo_stack(world.store, project_id=world.project_id, annotator=who, limit=1):
            lab.undo(who)
    while any(change.counts for change in lab.changes()):
        undo(world)
    assert (shown(world), picture(world)) == beginning
    with world.store.reading() as session:
        assert settling.NOTE not in session.get_one(Project, world.project_id).settings
