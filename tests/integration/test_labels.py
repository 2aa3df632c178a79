"""Label events: stored once, taken back exactly, and told apart from what they are not."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import func, insert, select

from cnsapp.errors import InvalidInputError, NotFoundError
from cnsapp.services import classes, images, labels, projects
from cnsapp.services.image_history import image_history
from db.models import Image, LabelEvent
from db.queries import add_to_tally
from db.session import Store, open_store

NUMBERS = count(1)


@dataclass
class World:
    """A project with a few images and three classes."""

    store: Store
    project_id: int
    image_ids: list[int]
    class_ids: list[int]
    seq: Any = field(default_factory=lambda: count(1))
    client: str = "client-0001"

    def event(self, image: int, kind: str = "label", cls: int = 0, **more: Any) -> dict[str, Any]:
        """Return an event on the image at a place."""
        return {
            "client": self.client,
            "seq": next(self.seq),
            "image_id": self.image_ids[image],
            "kind": kind,
            "source": "human",
            "action": f"action-{next(NUMBERS)}",
            **({"class_id": self.class_ids[cls]} if kind == "label" else {}),
            **more,
        }

    def undo_of(self, event: dict[str, Any], **more: Any) -> dict[str, Any]:
        """Return the event that takes another one back."""
        target = {"client": event["client"], "seq": event["seq"]}
        image = self.image_ids.index(event["image_id"])
        return self.event(image, "undo", target=target, **more)

    def record(self, *events: dict[str, Any], annotator: str = "maria") -> labels.Receipt:
        """Send events."""
        return labels.record_events(
            self.store, project_id=self.project_id, annotator=annotator, events=events
        )

    def state(self, image: int = 0) -> tuple[str, int | None]:
        """Return what an image is called now."""
        item = images.get_image(self.store, image_id=self.image_ids[image])
        return item.state, item.class_id

    def n_events(self) -> int:
        """Return how many events there are."""
        with self.store.reading() as session:
            return session.scalar(select(func.count()).select_from(LabelEvent)) or 0


def make_world(root: Path, n_images: int = 4) -> World:
    """Make a store with one project."""
    store = open_store(f"sqlite:///{root / 'cns.sqlite'}", root)
    project = projects.create_project(store, name="p", classes=["colon", "liver", "lung"])
    return World(
        store=store,
        project_id=project.id,
        image_ids=add_images(store, project.id, n_images),
        class_ids=[c.id for c in projects.list_classes(store, project_id=project.id)],
    )


def add_images(store: Store, project_id: int, n: int) -> list[int]:
    """Add image rows without files."""
    rows = [
        {
            "project_id": project_id,
            "sha256": f"{i:064x}",
            "file_name": f"slide_{i % 3}/tile_{i:03d}.png",
            "width": 8,
            "height": 8,
            "status": "ok",
            "stored_path": "x",
            "linked": False,
            "n_bytes": 1,
            "facts": {},
            "current_state": "none",
        }
        for i in range(n)
    ]
    with store.writing() as session:
        session.execute(insert(Image), rows)
        add_to_tally(session, project_id, {"images": n})
        found = select(Image.id).where(Image.project_id == project_id).order_by(Image.id)
        return list(session.scalars(found))


@pytest.fixture
def world(tmp_path: Path) -> World:
    """Return a fresh project."""
    return make_world(tmp_path)


def test_the_receipt_says_what_the_database_holds(world: World) -> None:
    event = world.event(0, cls=1)
    receipt = world.record(event)
    assert receipt.acked == ((event["client"], event["seq"]),)
    (image,) = receipt.images
    assert (image.state, image.class_id, image.name) == (
        "label",
        world.class_ids[1],
        "slide_0/tile_000.png",
    )
    assert receipt.counts["labelled"] == 1
    assert receipt.counts["per_class"] == {str(world.class_ids[1]): 1}
    assert receipt.as_of == image.rev


def test_sending_again_changes_nothing_and_gets_the_same_answer(world: World) -> None:
    events = [world.event(i) for i in range(3)]
    first = world.record(*events)
    assert world.record(*events) == first
    assert world.record(*events, world.event(3)).counts["labelled"] == 4
    assert world.n_events() == 4


def test_a_number_used_for_two_different_labels_is_refused_the_second_time(world: World) -> None:
    event = world.event(0, cls=0)
    world.record(event)
    receipt = world.record({**event, "class_id": world.class_ids[1]})
    assert [a.reason for a in receipt.rejected] == [
        "Another label is stored under the same number."
    ]
    assert world.state() == ("label", world.class_ids[0])


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"image_id": 999_999}, "The image is not in this project"),
        ({"class_id": 999_999}, "The class is not in this project"),
        ({"sha": "ffff"}, "Another image has got the number"),
        ({"kind": "shout"}, "“kind” is none of"),
        ({"source": "rumour"}, "“source” is none of"),
        ({"image_id": True}, "“image_id” is not a whole number"),
        ({"image_id": 1.5}, "“image_id” is not a whole number"),
        ({"class_id": None}, "“class_id” is not a whole number"),
        ({"seq": 2**60}, "“seq” is not a whole number"),
        ({"action": "<b>"}, "“action” is missing"),
        ({"kind": "undo"}, "does not say what it takes back"),
        ({"kind": "undo", "target": {"client": "nobody-here", "seq": 1}}, "is not stored"),
    ],
)
def test_a_wrong_event_is_rejected_alone_with_its_reason(
    world: World, change: dict[str, Any], reason: str
) -> None:
    good, bad = world.event(1), {**world.event(0), **change}
    receipt = world.record(good, bad)
    assert receipt.acked == ((good["client"], good["seq"]),)
    (answer,) = receipt.rejected
    assert reason in answer.reason
    assert (answer.client, answer.seq) == (bad["client"], bad["seq"])
    assert world.state(0) == ("none", None)


def test_an_event_of_another_project_is_rejected(world: World) -> None:
    other = projects.create_project(world.store, name="q", classes=["colon"])
    receipt = labels.record_events(
        world.store, project_id=other.id, annotator="maria", events=[world.event(0)]
    )
    assert "not in this project" in receipt.rejected[0].reason


def test_who_labels_must_have_a_name(world: World) -> None:
    for name in ("", "  ", "x" * 201, "a\x00b"):
        with pytest.raises(InvalidInputError, match="under “Labelling as”"):
            world.record(world.event(0), annotator=name)
    world.record(world.event(0), annotator="  Maria \t Müller ")
    (item,) = image_history(world.store, image_id=world.image_ids[0]).entries
    assert item.who == "Maria Müller"


def test_more_than_two_thousand_events_are_refused_as_a_whole(world: World) -> None:
    with pytest.raises(InvalidInputError, match="2001 labels came in one message; 2000"):
        world.record(*[world.event(0) for _ in range(2001)])
    assert world.n_events() == 0


def test_an_unknown_project_is_said_to_be_unknown(world: World) -> None:
    with pytest.raises(NotFoundError, match="no project number 77"):
        labels.record_events(world.store, project_id=77, annotator="m", events=[world.event(0)])


def test_undo_shows_what_was_there_before(world: World) -> None:
    first, second = world.event(0, cls=0), world.event(0, "skip")
    world.record(first, second)
    world.record(world.undo_of(second))
    assert world.state() == ("label", world.class_ids[0])
    receipt = world.record(world.undo_of(first))
    assert world.state() == ("none", None)
    assert receipt.images[0].rev == 0
    assert receipt.counts["labelled"] == receipt.counts["skipped"] == 0


def test_a_label_and_its_undo_may_come_in_one_message(world: World) -> None:
    event = world.event(0)
    receipt = world.record(world.undo_of(event), event)  # in whatever order
    assert len(receipt.acked) == 2
    assert world.state() == ("none", None)


def test_undo_takes_back_only_ones_own_label_of_that_image(world: World) -> None:
    event = world.event(0)
    world.record(event)
    theirs = world.record(world.undo_of(event), annotator="jo")
    assert theirs.rejected[0].reason.startswith("Only maria can undo this label")
    astray = world.record({**world.undo_of(event), "image_id": world.image_ids[1]})
    assert "another image" in astray.rejected[0].reason
    assert world.state() == ("label", world.class_ids[0])


def test_undo_of_a_label_that_somebody_else_replaced_leaves_theirs(world: World) -> None:
    mine = world.event(0, cls=0)
    world.record(mine)
    world.record(world.event(0, cls=1), annotator="jo")
    world.record(world.undo_of(mine))
    assert world.state() == ("label", world.class_ids[1])


def test_the_undo_stack_holds_ones_own_actions_newest_first(world: World) -> None:
    bulk = [world.event(i, action="bulk-1") for i in range(3)]
    single = world.event(3, "unsure", action="one-1")
    world.record(*bulk)
    world.record(world.event(0, cls=1), annotator="jo")
    world.record(single)
    labels.import_labels(
        world.store,
        project_id=world.project_id,
        rows=[(world.image_ids[0], world.class_ids[2])],
        annotator="maria",
    )
    steps = labels.undo_stack(world.store, project_id=world.project_id, annotator="maria")
    assert [(step.action, step.kind, len(step.events)) for step in steps] == [
        ("one-1", "unsure", 1),
        ("bulk-1", "label", 3),
    ]
    world.record(world.undo_of(single))
    (step,) = labels.undo_stack(world.store, project_id=world.project_id, annotator="maria")
    assert step.action == "bulk-1"


def test_the_undo_stack_goes_on_where_it_ended(world: World) -> None:
    for i in range(7):
        world.record(world.event(0, action=f"step-{i}"))
    found: list[str] = []
    before = None
    while steps := labels.undo_stack(
        world.store, project_id=world.project_id, annotator="maria", limit=3, before=before
    ):
        found += [step.action for step in steps]
        before = steps[-1].last_event
    assert found == [f"step-{i}" for i in reversed(range(7))]


def test_history_tells_who_what_and_what_was_undone(world: World) -> None:
    event = world.event(0, cls=1)
    world.record(event)
    world.record(world.event(0, cls=2), annotator="jo")
    world.record(world.undo_of(event))
    undo, theirs, mine = image_history(world.store, image_id=world.image_ids[0]).entries
    assert (undo.kind, undo.who) == ("undo", "maria")
    assert theirs.after is not None
    assert mine.after is not None
    assert (theirs.after.name, theirs.current, theirs.undone) == ("lung", True, False)
    assert (mine.after.name, mine.current, mine.undone) == ("liver", False, True)


class Model:
    """What must be true, said in the plainest way: a list of acts per image, some of them void."""

    def __init__(self, n_images: int) -> None:
        self.acts: list[list[tuple[int, str, int | None]]] = [[] for _ in range(n_images)]
        self.void: set[int] = set()
        self.actions: dict[str, list[list[tuple[int, int]]]] = {"maria": [], "jo": []}

    def label(self, who: str, targets: list[tuple[int, int]], kind: str, cls: int | None) -> None:
        """One action on some images; `targets` are (image, act number)."""
        for image, number in targets:
            self.acts[image].append((number, kind, cls))
        self.actions[who].append(targets)

    def state(self, image: int) -> tuple[str, int | None]:
        """What the image is called now."""
        standing = [act for act in self.acts[image] if act[0] not in self.void]
        if not standing or standing[-1][1] == "clear":
            return ("none", None)
        _, kind, cls = standing[-1]
        return (kind, cls)


OPERATIONS = st.lists(
    st.tuples(
        st.sampled_from(["label", "label", "skip", "unsure", "clear", "undo", "undo", "again"]),
        st.sampled_from(["maria", "jo"]),
        st.sets(st.integers(0, 3), min_size=1),
        st.integers(0, 2),
    ),
    max_size=25,
)


@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(operations=OPERATIONS)
def test_any_history_of_labels_and_undos_ends_as_the_model_says(
    tmp_path_factory: pytest.TempPathFactory, operations: list[Any]
) -> None:
    world = make_world(tmp_path_factory.mktemp("model"))
    model = Model(len(world.image_ids))
    sent: dict[int, dict[str, Any]] = {}
    last: tuple[str, list[dict[str, Any]]] | None = None
    for kind, who, chosen, cls in operations:
        if kind == "again":
            if last:
                world.record(*last[1], annotator=last[0])
            continue
        if kind == "undo":
            steps = labels.undo_stack(world.store, project_id=world.project_id, annotator=who)
            assert len(steps) == len(model.actions[who])
            if not steps:
                continue
            targets = model.actions[who].pop()
            events = [world.undo_of(sent[number]) for _, number in targets]
            assert {
                (e["client"], e["seq"], e["image_id"])
                for e in map(sent.get, [n for _, n in targets])
            } == set(steps[0].events)  # type: ignore[index]
            model.void |= {number for _, number in targets}
        else:
            action = f"action-{next(NUMBERS)}"
            class_id = world.class_ids[cls] if kind == "label" else None
            events = [world.event(image, kind, cls, action=action) for image in sorted(chosen)]
            sent |= {event["seq"]: event for event in events}
            pairs = [(world.image_ids.index(e["image_id"]), e["seq"]) for e in events]
            model.label(who, pairs, kind, class_id)
        assert not world.record(*events, annotator=who).rejected
        last = (who, events)
    for image in range(len(world.image_ids)):
        assert world.state(image) == model.state(image)
    counts = images.counts(world.store, project_id=world.project_id)
    states = [model.state(image) for image in range(len(world.image_ids))]
    assert counts.labelled == sum(state == "label" for state, _ in states)
    assert counts.skipped == sum(state == "skip" for state, _ in states)
    world.store.engine.dispose()


def test_reimport_neither_doubles_labels_nor_overrides_a_correction(world: World) -> None:
    rows = [(image_id, world.class_ids[0]) for image_id in world.image_ids]

    def again() -> int:
        return labels.import_labels(
            world.store, project_id=world.project_id, rows=rows, annotator="import"
        )

    assert again() == 4
    world.record(world.event(1, cls=2))
    assert again() == 0
    assert world.state(1) == ("label", world.class_ids[2])
    assert world.n_events() == 5


def test_reimport_by_somebody_else_leaves_a_correction_alone(world: World) -> None:
    rows = [(world.image_ids[0], world.class_ids[0])]
    given = {"project_id": world.project_id, "rows": rows}
    assert labels.import_labels(world.store, **given, annotator="Ada") == 1
    world.record(world.event(0, cls=2))
    assert labels.import_labels(world.store, **given, annotator="Bob") == 0
    assert world.state() == ("label", world.class_ids[2])


def test_an_import_with_another_class_is_a_new_label(world: World) -> None:
    image = world.image_ids[0]
    for cls in (0, 1):
        stored = labels.import_labels(
            world.store,
            project_id=world.project_id,
            rows=[(image, world.class_ids[cls])],
            annotator="import",
        )
        assert stored == 1
    assert world.state() == ("label", world.class_ids[1])


def test_an_import_takes_no_strangers(world: World) -> None:
    for row in ((world.image_ids[0], 999), (999, world.class_ids[0])):
        with pytest.raises(InvalidInputError, match="Number 999 is no class or image"):
            labels.import_labels(
                world.store, project_id=world.project_id, rows=[row], annotator="import"
            )


def test_a_large_import_is_stored_in_chunks_and_counted(tmp_path: Path) -> None:
    world = make_world(tmp_path, n_images=1200)
    rows = [(image_id, world.class_ids[i % 3]) for i, image_id in enumerate(world.image_ids)]
    stored = labels.import_labels(
        world.store, project_id=world.project_id, rows=rows, annotator="import"
    )
    counts = images.counts(world.store, project_id=world.project_id)
    assert (stored, counts.labelled) == (1200, 1200)
    assert set(counts.per_class.values()) == {400}


def from_csv(world: World, path: Path, text: str, encoding: str = "utf-8") -> labels.LabelReport:
    """Label from a CSV file with this text."""
    file = path / "labels.csv"
    file.write_text(text, encoding=encoding)
    return labels.label_from_csv(
        world.store, project_id=world.project_id, csv=file, annotator="maria"
    )


def test_a_csv_labels_by_file_name_and_lists_what_it_does_not_know(
    world: World, tmp_path: Path
) -> None:
    lines = ["file,label", "slide_0/tile_000.png,colon", "tile_001.png, Liver ", "nowhere.png,lung"]
    text = "\n".join([*lines, "", "tile_002.png,", ""])
    report = from_csv(world, tmp_path, text)
    assert (report.rows, report.labelled, report.blank) == (4, 2, 1)
    assert report.unknown_files == ("nowhere.png",)
    assert world.state(1) == ("label", world.class_ids[1])
    assert from_csv(world, tmp_path, text).unchanged == 2


def test_a_csv_of_labels_is_a_decision_of_today(world: World, tmp_path: Path) -> None:
    text = "file,label\ntile_000.png,colon\ntile_001.png,colon\n"
    assert from_csv(world, tmp_path, text).labelled == 2
    world.record(world.event(0, cls=2))
    world.record(world.event(1, cls=2), world.event(1, cls=0))
    report = from_csv(world, tmp_path, text)
    assert (report.labelled, report.unchanged) == (1, 1)
    assert world.state(0) == ("label", world.class_ids[0])


def test_a_csv_from_a_german_spreadsheet_is_read(world: World, tmp_path: Path) -> None:
    report = from_csv(world, tmp_path, f"SHA256;Label\n{1:064X};lung\n", "utf-8-sig")
    assert report.labelled == 1
    assert world.state(1) == ("label", world.class_ids[2])


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("file,label\ntile_000.png,Colon\ntile_001.png,colonn\n", "no class “colonn”"),
        ("name,class\na,b\n", "has the columns name, class"),
        ("", "has the columns none"),
        ("file,label\ntile_000.png,colon\ntile_000.png,lung\n", "two different labels"),
        ('file,label\n"tile', "is not a proper CSV table"),
    ],
)
def test_a_csv_that_cannot_be_right_labels_nothing(
    world: World, tmp_path: Path, text: str, sentence: str
) -> None:
    with pytest.raises(InvalidInputError, match=sentence):
        from_csv(world, tmp_path, text)
    assert world.n_events() == 0


def test_a_csv_that_is_no_text_is_refused(world: World, tmp_path: Path) -> None:
    file = tmp_path / "labels.csv"
    file.write_bytes(b"\x89PNG\x00\x01")
    with pytest.raises(InvalidInputError, match="not a proper CSV table: it is no text"):
        labels.label_from_csv(world.store, project_id=world.project_id, csv=file, annotator="m")


@pytest.mark.parametrize("encoding", ["cp1252", "utf-16"])
def test_a_csv_from_an_old_spreadsheet_is_read(world: World, tmp_path: Path, encoding: str) -> None:
    classes.add_class(world.store, project_id=world.project_id, name="Drüse", who="maria")
    text = "file;label\ntile_000.png;Drüse\n"
    assert from_csv(world, tmp_path, text, encoding).labelled == 1
