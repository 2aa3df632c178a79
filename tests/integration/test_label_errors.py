"""The list of label errors: what is in it, what takes it out, and what is said of the rest."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy import select, update

from cnsapp.bootstrap import App
from cnsapp.cli import main
from cnsapp.domain.consensus import ConsensusRule
from cnsapp.errors import InvalidInputError, NotFoundError
from cnsapp.services import exclusion, suspect_rows, typical
from cnsapp.services.classes import delete_class, merge_classes
from cnsapp.services.label_errors import confirm, correct, list_suspects, summary
from cnsapp.services.label_settings import change_settings
from cnsapp.services.labels import record_events
from db.models import Image, LabelEvent, Prediction
from tests.integration.worlds import World, add_model, make_world, relabel
from tests.looks import index_of

CLIENT = "reviewer-1"


@pytest.fixture
def world(app: App) -> World:
    return make_world(app, {"liver": 10, "lung": 10, "kidney": 10}, unlabelled=2, side=8)


@pytest.fixture
def model_id(world: World) -> int:
    """Return a model that takes livers 0 and 1 for lungs, and lung 0 for a kidney; sure of all."""
    liver, lung, kidney = world.class_ids
    a, b, c = world.image_ids[:3]
    said = [(a[0], liver, lung, 0.98), (a[1], liver, lung, 0.90), (b[0], lung, kidney, 0.95)]
    said += [(i, liver, liver, 0.9) for i in a[2:]]
    said += [(i, lung, lung, 0.9) for i in b[1:]] + [(i, kidney, kidney, 0.9) for i in c]
    return add_model(world, said)


def with_looks(world: World) -> None:
    """Sort by looks: liver 0 lies among the lungs, all others among their own class."""
    rng = np.random.default_rng(0)
    kinds = [k for k, ids in enumerate(world.image_ids) for _ in ids]
    kinds[0] = 1
    rows = np.eye(8)[kinds] + 0.05 * rng.normal(size=(len(kinds), 8))
    index_of(world.app.store, world.project_id, rows / np.linalg.norm(rows, axis=1, keepdims=True))


def shown(world: World, model_id: int, **options: Any) -> list[int]:
    found = list_suspects(world.app.store, model_id=model_id, **options)
    return [item.image.id for item in found.items]


def rev_of(world: World, image_id: int) -> int | None:
    with world.app.store.reading() as session:
        return session.get_one(Image, image_id).current_event_id


def test_what_another_class_fits_better_is_listed_the_surest_first(
    world: World, model_id: int
) -> None:
    liver, lung, kidney = world.class_ids
    found = list_suspects(world.app.store, model_id=model_id)
    assert [i.image.id for i in found.items] == [
        world.image_ids[0][0], world.image_ids[1][0], world.image_ids[0][1],
    ]  # fmt: skip
    first = found.items[0]
    assert (first.label, first.suggested, first.decision) == ("liver", "lung", "")
    assert (first.label_class_id, first.suggested_class_id) == (liver, lung)
    assert first.reason == (
        "The fold that never saw this image says lung at 0.98 and liver, its label, at 0.01."
    )
    assert first.score == pytest.approx((1 + 0.98 - 0.01) / 2)
    assert (found.n, found.next_after) == (3, None)
    total = summary(world.app.store, model_id=model_id)
    assert (total.n_judged, total.n_listed, total.n_open) == (30, 3, 3)
    assert total.expected_errors == pytest.approx(3)
    assert [(p.label, p.suggested, p.n_open) for p in total.pairs] == [
        ("liver", "lung", 2), ("lung", "kidney", 1),
    ]  # fmt: skip
    assert any("were not sorted by looks yet" in note for note in total.notes)
    assert kidney not in {p.label_class_id for p in total.pairs}


def test_neighbours_speak_and_are_named(world: World, model_id: int) -> None:
    with_looks(world)
    first = list_suspects(world.app.store, model_id=model_id).items[0]
    assert first.image.id == world.image_ids[0][0]
    assert first.reason.endswith("; 5 of its 5 nearest labelled neighbours are lung.")
    assert (first.n_like_suggested, first.n_like_label, first.n_neighbours) == (5, 0, 5)
    assert set(first.neighbour_ids) <= set(world.image_ids[1])
    total = summary(world.app.store, model_id=model_id)
    assert total.has_neighbours and not total.notes
    relabel(world, first.neighbour_ids[0], world.class_ids[2])
    again = list_suspects(world.app.store, model_id=model_id).items[0]
    assert again.reason.endswith("; 4 of its 5 nearest labelled neighbours are lung.")


def test_a_patient_whose_images_are_all_labelled_wrong_does_not_speak_for_itself(
    app: App,
) -> None:
    world = make_world(app, {"liver": 30, "lung": 30}, n_groups=6, side=8)
    liver, lung = world.class_ids
    with app.store.reading() as session:
        group = dict(session.execute(select(Image.id, Image.group_key)).all())
    wrong = [i for i in world.image_ids[0] if group[i] == "patient 3"]  # they are lungs
    ids = [i for part in world.image_ids for i in part]
    rng = np.random.default_rng(0)
    rows = np.eye(8)[[1 if i in wrong or i in world.image_ids[1] else 0 for i in ids]]
    of_patient = 0.2 * rng.normal(size=(60, 8))
    rows = (
        rows + of_patient[[number_of(group[i]) for i in ids]] + 0.02 * rng.normal(size=rows.shape)
    )
    rows[[ids.index(i) for i in wrong], 2] += 0.5  # nearest to one another
    index_of(app.store, world.project_id, rows / np.linalg.norm(rows, axis=1, keepdims=True))
    said = [(i, liver, lung if i in wrong else liver, 0.8) for i in world.image_ids[0]]
    model_id = add_model(world, said + [(i, lung, lung, 0.8) for i in world.image_ids[1]])
    found = list_suspects(app.store, model_id=model_id)
    assert {item.image.id for item in found.items} == set(wrong)
    for item in found.items:
        assert all(group[i] != "patient 3" for i in item.neighbour_ids)
        assert item.n_like_suggested == 5


def number_of(group: str | None) -> int:
    return int((group or "0").split()[-1])


def test_pages_go_on_where_the_last_ended_while_people_decide(world: World, model_id: int) -> None:
    store = world.app.store
    whole = shown(world, model_id)
    first = list_suspects(store, model_id=model_id, limit=1)
    assert first.next_after == first.items[0].cursor
    confirm(store, model_id=model_id, image_id=whole[0], who="Ada", client=CLIENT, seq=1)
    rest = list_suspects(store, model_id=model_id, after=first.next_after, limit=5)
    assert [i.image.id for i in rest.items] == whole[1:]
    assert (rest.n, rest.next_after) == (2, None)


def test_a_ranking_made_anew_is_the_same(world: World, model_id: int) -> None:
    with_looks(world)
    first = list_suspects(world.app.store, model_id=model_id, show="all")
    suspect_rows.kept.clear()  # as after a restart
    assert list_suspects(world.app.store, model_id=model_id, show="all") == first


def test_pairs_and_flags_are_chosen_from(world: World, model_id: int) -> None:
    liver, lung, _ = world.class_ids
    assert shown(world, model_id, label=lung) == [world.image_ids[1][0]]
    assert shown(world, model_id, label=liver, suggested=lung) == world.image_ids[0][:2]
    assert shown(world, model_id, label=lung, suggested=liver) == []
    flagged = shown(world, model_id, flagged_only=True)
    assert flagged == shown(world, model_id)[: len(flagged)]
    assert len(flagged) == summary(world.app.store, model_id=model_id).n_flagged == 2


def test_a_confirmed_and_a_corrected_label_leave_the_list_and_count(
    world: World, model_id: int
) -> None:
    store, (liver, lung, _) = world.app.store, world.class_ids
    one, two, three = shown(world, model_id)
    receipt = correct(
        store, model_id=model_id, image_id=one, class_id=lung, who="Ada", client=CLIENT, seq=1,
        rev=rev_of(world, one),
    )  # fmt: skip
    assert receipt.acked == ((CLIENT, 1),) and receipt.images[0].class_id == lung
    confirm(store, model_id=model_id, image_id=three, who="Ada", client=CLIENT, seq=2)
    assert shown(world, model_id) == [two]
    decided = list_suspects(store, model_id=model_id, show="decided")
    assert [(i.image.id, i.decision) for i in decided.items] == [
        (one, "corrected"), (three, "confirmed"),
    ]  # fmt: skip
    assert decided.items[0].image.class_id == lung and decided.items[0].label_class_id == liver
    total = summary(store, model_id=model_id)
    assert (total.n_open, total.n_confirmed, total.n_corrected) == (1, 1, 1)
    assert (total.progress.n_looked, total.progress.precision) == (2, 0.5)
    assert "1 of 2 labels looked at were wrong (50 %" in total.in_words
    with store.reading() as session:
        last = session.scalars(select(LabelEvent).order_by(LabelEvent.id.desc())).first()
        assert last is not None
        assert (last.image_id, last.class_id, last.source) == (three, liver, "review")


def test_the_same_decision_sent_twice_is_stored_once(world: World, model_id: int) -> None:
    store, lung = world.app.store, world.class_ids[1]
    one, two, _ = shown(world, model_id)
    with store.reading() as session:
        before = len(session.scalars(select(LabelEvent.id)).all())
    revs = rev_of(world, one), rev_of(world, two)
    for _ in range(2):  # `rev` is the old one the second time: it is the same decision
        correct(
            store, model_id=model_id, image_id=one, class_id=lung, who="Ada", client=CLIENT,
            seq=1, rev=revs[0],
        )  # fmt: skip
        confirm(
            store, model_id=model_id, image_id=two, who="Ada", client=CLIENT, seq=2, rev=revs[1]
        )
    with store.reading() as session:
        assert len(session.scalars(select(LabelEvent.id)).all()) == before + 2
    with pytest.raises(InvalidInputError, match="Another label is stored under the same number"):
        correct(
            store, model_id=model_id, image_id=one, class_id=world.class_ids[2], who="Ada",
            client=CLIENT, seq=1,
        )  # fmt: skip


def test_an_undo_puts_the_label_back_into_the_list(world: World, model_id: int) -> None:
    store = world.app.store
    whole = shown(world, model_id)
    correct(
        store, model_id=model_id, image_id=whole[0], class_id=world.class_ids[1], who="Ada",
        client=CLIENT, seq=1,
    )  # fmt: skip
    assert shown(world, model_id) == whole[1:]
    undo = {
        "kind": "undo", "client": CLIENT, "seq": 2, "image_id": whole[0], "source": "review",
        "action": "undo:1", "target": {"client": CLIENT, "seq": 1},
    }  # fmt: skip
    record_events(store, project_id=world.project_id, annotator="Ada", events=[undo])
    assert shown(world, model_id) == whole
    assert summary(store, model_id=model_id).progress.n_looked == 0


def test_an_undo_of_the_label_that_was_trained_on_is_another_label(world: World) -> None:
    """Ada called a lung a liver, the model learnt that, then she takes it back."""
    store, (liver, lung, _) = world.app.store, world.class_ids
    one = world.image_ids[1][3]
    event = {
        "kind": "label", "client": CLIENT, "seq": 1, "image_id": one, "class_id": liver,
        "source": "human", "action": "page:1",
    }  # fmt: skip
    assert not record_events(
        store, project_id=world.project_id, annotator="ann", events=[event]
    ).rejected
    said = [(i, world.class_ids[k], world.class_ids[k], 0.9)
            for k, ids in enumerate(world.image_ids[:3]) for i in ids if i != one]  # fmt: skip
    model_id = add_model(world, [*said, (one, liver, lung, 0.95)])
    with store.writing() as session:
        newest = session.get_one(Image, one).current_event_id
        session.execute(
            update(Prediction).where(Prediction.image_id == one).values(event_id=newest)
        )
    assert shown(world, model_id) == [one]
    undo = {
        "kind": "undo", "client": CLIENT, "seq": 2, "image_id": one, "source": "human",
        "action": "undo:1", "target": {"client": CLIENT, "seq": 1},
    }  # fmt: skip
    record_events(store, project_id=world.project_id, annotator="ann", events=[undo])
    assert shown(world, model_id) == []
    assert [i.decision for i in list_suspects(store, model_id=model_id, show="all").items] == [
        "corrected"
    ]


def test_another_rule_for_several_readers_is_seen_at_once(world: World, model_id: int) -> None:
    whole = shown(world, model_id)
    rule = ConsensusRule("majority", 2)  # one reader each: all labels wait for another
    change_settings(world.app.store, project_id=world.project_id, rule=rule)
    assert shown(world, model_id) == []
    assert summary(world.app.store, model_id=model_id).n_set_aside == len(whole)
    second = {
        "kind": "label", "client": CLIENT, "seq": 1, "image_id": whole[0], "source": "second",
        "action": "second:1", "class_id": world.class_ids[0],
    }  # fmt: skip
    record_events(world.app.store, project_id=world.project_id, annotator="Bo", events=[second])
    assert summary(world.app.store, model_id=model_id).n_confirmed == 1  # both say the same
    assert summary(world.app.store, model_id=model_id).n_set_aside == len(whole) - 1
    change_settings(world.app.store, project_id=world.project_id, rule=ConsensusRule())
    assert shown(world, model_id) == whole[1:]


def test_who_comes_second_is_told(world: World, model_id: int) -> None:
    store, (_, lung, kidney) = world.app.store, world.class_ids
    one = shown(world, model_id)[0]
    seen = rev_of(world, one)
    correct(
        store, model_id=model_id, image_id=one, class_id=lung, who="Ada", client=CLIENT, seq=1,
        rev=seen,
    )  # fmt: skip
    late: dict[str, Any] = {"who": "Bo", "client": "reviewer-2", "rev": seen}
    with pytest.raises(InvalidInputError, match=r"Somebody decided about class0/1\.png"):
        confirm(store, model_id=model_id, image_id=one, seq=1, **late)
    with pytest.raises(InvalidInputError, match=r"Somebody decided about class0/1\.png"):
        correct(store, model_id=model_id, image_id=one, class_id=kidney, seq=2, **late)
    assert rev_of(world, one) != seen
    assert list_suspects(store, model_id=model_id, show="decided").items[0].image.class_id == lung


def test_unsure_and_taken_back_labels_are_set_aside(world: World, model_id: int) -> None:
    store = world.app.store
    one, two, three = shown(world, model_id)
    acts = [
        {"kind": kind, "client": CLIENT, "seq": seq, "image_id": image_id, "source": "review",
         "action": f"act:{seq}"}
        for seq, (kind, image_id) in enumerate([("unsure", one), ("clear", two)], 1)
    ]  # fmt: skip
    record_events(store, project_id=world.project_id, annotator="ann", events=acts)
    assert shown(world, model_id) == [three]
    total = summary(store, model_id=model_id)
    assert (total.n_set_aside, total.progress.n_looked, total.n_open) == (2, 0, 1)
    with pytest.raises(InvalidInputError, match="has no label now that could be confirmed"):
        confirm(store, model_id=model_id, image_id=one, who="Ada", client=CLIENT, seq=9)


def test_labels_imported_again_are_not_taken_for_a_look(world: World, model_id: int) -> None:
    from cnsapp.services.labels import import_labels

    store, liver = world.app.store, world.class_ids[0]
    whole = shown(world, model_id)
    rows = [(i, liver) for i in world.image_ids[0]]
    import_labels(store, project_id=world.project_id, rows=rows, annotator="table")
    assert shown(world, model_id) == whole


def test_what_is_changed_elsewhere_is_not_counted_as_a_find(world: World, model_id: int) -> None:
    relabel(world, world.image_ids[2][5], world.class_ids[0])  # nobody suspected it
    total = summary(world.app.store, model_id=model_id)
    assert (total.progress.n_looked, total.n_corrected, total.n_open) == (0, 0, 3)
    assert total.progress.n_open == 29


def test_excluded_images_leave_list_and_counts_and_come_back(world: World, model_id: int) -> None:
    store = world.app.store
    one, *rest = shown(world, model_id)
    exclusion.exclude(
        store, project_id=world.project_id, image_ids=[one], who="Ada", reason="blurred"
    )
    assert shown(world, model_id, show="all") == rest
    assert summary(store, model_id=model_id).n_judged == 29
    exclusion.restore(store, project_id=world.project_id, image_ids=[one], who="Ada")
    assert shown(world, model_id) == [one, *rest]


def test_answers_of_the_locked_test_set_are_not_among_them(world: World, model_id: int) -> None:
    store = world.app.store
    one, *_ = shown(world, model_id)
    with store.writing() as session:
        session.execute(
            update(Prediction).where(Prediction.image_id == one).values(part="test", fold=None)
        )
    suspect_rows.kept.clear()  # a test set is not made from folds; here it is
    assert one not in shown(world, model_id, show="all")
    with pytest.raises(NotFoundError, match="not among those that model “quick 1” was held out"):
        confirm(store, model_id=model_id, image_id=one, who="Ada", client=CLIENT, seq=1)


def test_classes_that_were_merged_are_no_error_any_more(world: World, model_id: int) -> None:
    liver, lung, kidney = world.class_ids
    merge_classes(world.app.store, class_id=lung, into=liver, who="Ada")
    found = list_suspects(world.app.store, model_id=model_id)
    assert [(i.label, i.suggested) for i in found.items] == [("liver", "kidney")]
    assert found.items[0].image.id == world.image_ids[1][0]
    assert found.items[0].image.class_id == liver
    correct(
        world.app.store, model_id=model_id, image_id=found.items[0].image.id, class_id=kidney,
        who="Ada", client=CLIENT, seq=1,
    )  # fmt: skip
    assert shown(world, model_id) == []


def test_a_deleted_class_is_neither_suspected_nor_suggested(world: World, model_id: int) -> None:
    _, lung, _ = world.class_ids
    delete_class(world.app.store, class_id=lung, who="Ada")
    found = list_suspects(world.app.store, model_id=model_id, show="all")
    assert lung not in {i.label_class_id for i in found.items}
    assert lung not in {i.suggested_class_id for i in found.items}
    total = summary(world.app.store, model_id=model_id)
    assert total.n_unjudged == 10 and any("Of 10 images" in note for note in total.notes)


def test_what_cannot_be_listed_is_said(world: World, model_id: int) -> None:
    store = world.app.store
    empty = add_model(world, [])
    with pytest.raises(InvalidInputError, match="no predictions of images that it had not seen"):
        summary(store, model_id=empty)
    with pytest.raises(NotFoundError, match="no model number 99"):
        list_suspects(store, model_id=99)
    with pytest.raises(InvalidInputError, match="A page of 0 “open” label errors"):
        list_suspects(store, model_id=model_id, limit=0)
    with pytest.raises(InvalidInputError, match="A page of 5 “lost” label errors"):
        list_suspects(store, model_id=model_id, show="lost", limit=5)  # type: ignore[arg-type]


# --- what a class looks like ---


def gallery(world: World, model_id: int, k: int, **options: Any) -> typical.ClassGallery:
    return typical.class_gallery(
        world.app.store, model_id=model_id, class_id=world.class_ids[k], **options
    )


def test_a_class_is_shown_by_its_typical_and_its_odd_images(world: World, model_id: int) -> None:
    with_looks(world)
    liver = world.image_ids[0]
    found = gallery(world, model_id, 0, n=3, n_prototypes=2)
    assert (found.name, found.n, found.n_right, found.notes) == ("liver", 10, 8, [])
    assert {s.image.id for s in found.typical} <= set(liver[2:])
    stands = [int(s.reason.split()[2]) for s in found.prototypes]
    assert sum(stands) == 8 and stands == sorted(stands, reverse=True)
    odd = found.odd[0]
    assert odd.image.id == liver[0] and odd.probability == pytest.approx(0.01)
    assert odd.reason == (
        "Stands further apart than 100 % of its class; the model, which never saw it, says 0.01 "
        "for its class."
    )


def test_the_gallery_follows_labels_of_today(world: World, model_id: int) -> None:
    with_looks(world)
    one = world.image_ids[0][0]
    relabel(world, one, world.class_ids[1])
    assert one not in {s.image.id for s in gallery(world, model_id, 0).odd}
    lung = gallery(world, model_id, 1)
    assert lung.n == 11 and one in {s.image.id for s in lung.typical}
    exclusion.exclude(
        world.app.store, project_id=world.project_id, image_ids=[one], who="Ada", reason="blurred"
    )
    assert gallery(world, model_id, 1).n == 10


def test_without_looks_odd_images_are_those_the_model_doubts(world: World, model_id: int) -> None:
    found = gallery(world, model_id, 0, n=2)
    assert [s.image.id for s in found.odd] == world.image_ids[0][:2]
    assert (found.typical, found.prototypes) == ([], [])
    assert found.notes[0].startswith("Typical images and prototypes need the images sorted")


def test_a_class_that_cannot_be_shown_is_said(world: World, model_id: int) -> None:
    store = world.app.store
    with pytest.raises(NotFoundError, match="does not know class 999"):
        typical.class_gallery(store, model_id=model_id, class_id=999)
    with pytest.raises(InvalidInputError, match="A gallery of 0 and 6 images"):
        typical.class_gallery(store, model_id=model_id, class_id=world.class_ids[0], n=0)
    for image_id in world.image_ids[2]:
        relabel(world, image_id, world.class_ids[0])
    empty = gallery(world, model_id, 2)
    assert (empty.n, empty.odd) == (0, [])
    assert empty.notes == ["The model was held out of no image that is labelled kidney today."]


# --- the command ---


class Commands:
    """Runs `label-errors` in this process, on the data folder of the test."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def run(self, *arguments: str, status: int = 0) -> tuple[str, str]:
        assert main(["label-errors", "--project", "world", *arguments]) == status
        said = self._capsys.readouterr()
        return said.out, said.err

    def json(self, *arguments: str) -> Any:
        return json.loads(self.run(*arguments, "--json")[0])


@pytest.fixture
def commands(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Commands:
    monkeypatch.setenv("CNS_HOME", str(home))
    return Commands(capsys)


def test_the_command_lists_filters_and_goes_on(
    world: World, model_id: int, commands: Commands
) -> None:
    whole = shown(world, model_id)
    found = commands.json()
    assert [row["image_id"] for row in found["label_errors"]] == whole
    assert found["label_errors"][0]["suggested"] == "lung"
    assert (found["n_judged"], found["progress"]["n_looked"], found["n"]) == (30, 0, 3)
    first = commands.json("--limit", "1")
    assert first["next_after"] == first["label_errors"][0]["image_id"] == whole[0]
    rest = commands.json("--after", str(first["next_after"]))
    assert [row["image_id"] for row in rest["label_errors"]] == whole[1:]
    pair = commands.json("--labelled", "Lung", "--looks-like", "kidney")
    assert [row["image_id"] for row in pair["label_errors"]] == [world.image_ids[1][0]]
    table, _ = commands.run("--limit", "2")
    assert "looks like" in table and "3 in all; --after" in table
    assert "This assumes that the list is in order" in table


def test_the_command_refuses_in_words(world: World, model_id: int, commands: Commands) -> None:
    assert world and model_id
    for arguments, said in (
        (("--after", "9999"), "Image 9999 has no place in the label errors"),
        (("--labelled", "heart"), "no class “heart”"),
        (("--show", "lost"), "“lost” label errors"),
        (("--model", "77"), "no model number 77 in this project"),
    ):
        assert said in commands.run(*arguments, status=1)[1]
