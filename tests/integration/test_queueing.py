"""What comes next and why, against rules worked out by hand; nobody is handed another's image."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sqlalchemy import insert, select

from cnsapp.domain.consensus import ConsensusRule
from cnsapp.errors import InvalidInputError, NotFoundError
from cnsapp.services import label_settings, leases, queue_orders, queueing
from cnsapp.services.images import ImageFilter
from cnsapp.services.looks_files import write_index
from cnsapp.services.queueing import Wish, hand_out, look_ahead, next_images
from db.models import ImageEvent, LabelEvent, Reading, Suggestion, SuggestionRun
from db.queries import set_status
from tests.integration.test_labels import World, make_world


def blobs(n: int, seed: int = 3, dimensions: int = 8) -> Any:
    """Return unit rows around a few directions, one of them rare."""
    rng = np.random.default_rng(seed)
    middles = rng.normal(size=(4, dimensions))
    which = rng.choice(4, n, p=[0.4, 0.3, 0.27, 0.03])
    rows = (middles[which] + 0.2 * rng.normal(size=(n, dimensions))).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@dataclass
class Lab(World):
    """A project whose images are sorted by looks."""

    rows: Any = None

    def label(self, places: Sequence[int], cls: int = 0, who: str = "maria", **more: Any) -> None:
        """Label images at these places."""
        self.record(*(self.event(i, cls=cls, **more) for i in places), annotator=who)

    def five_of_each(self) -> list[int]:
        """Label five images of each class, and return their places."""
        for cls in range(3):
            self.label(range(5 * cls, 5 * cls + 5), cls)
        return list(range(15))

    def suggest(self, margins: dict[int, float], **more: dict[int, Any]) -> int:
        """Store a run of suggestions, by place; return its number."""
        with self.store.writing() as session:
            newest = session.scalars(select(LabelEvent.id).order_by(LabelEvent.id.desc())).first()
            run = SuggestionRun(
                project_id=self.project_id, n_labels=0, n_images=len(margins),
                newest_event=newest or 0, class_ids=self.class_ids,
            )  # fmt: skip
            session.add(run)
            session.flush()
            for place, margin in margins.items():
                session.merge(
                    Suggestion(
                        image_id=self.image_ids[place], project_id=self.project_id, run_id=run.id,
                        class_id=more.get("cls", {}).get(place, self.class_ids[0]),
                        confidence=0.5, margin=margin, loss=more.get("loss", {}).get(place),
                    )
                )  # fmt: skip
            return run.id

    def ask(self, strategy: str, **more: Any) -> queueing.Handed:
        """Ask as Maria's browser, or as the holder that is named."""
        asked = {name: more.pop(name) for name in ("class_id", "seed", "filter") if name in more}
        wish = Wish(self.project_id, more.pop("who", "maria"), strategy, **asked)
        return hand_out(self.store, wish, holder=more.pop("holder", "tab"), **more)

    def places(self, handed: queueing.Handed) -> list[int]:
        """Return the places of what was handed out."""
        return [self.image_ids.index(image.id) for image in handed.images]


def make_lab(root: Path, n: int, *, sorted_by_looks: bool = True) -> Lab:
    made = make_world(root, n)
    lab = Lab(made.store, made.project_id, made.image_ids, made.class_ids)
    lab.rows = blobs(n)
    if sorted_by_looks:
        sort_by_looks(lab)
    return lab


def sort_by_looks(lab: Lab, n: int | None = None) -> None:
    ids = np.array(lab.image_ids[:n], np.int64)
    some = np.zeros(len(ids), np.int64)
    arrays = {
        "ids": ids, "signs": some, "rows": lab.rows[:n], "clusters": some.astype(np.int32),
        "places": np.zeros((len(ids), 2), np.float32), "unread": np.zeros(0, np.int64),
        "ratio": np.zeros(len(ids), np.float32),
    }  # fmt: skip
    facts = {"map_method": "pca", "previews": [[]]}
    write_index(lab.store, project_id=lab.project_id, arrays=arrays, facts=facts)


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wait for an order however busy the machine is; the tests of waiting set their own time."""
    monkeypatch.setattr(queueing, "WAIT", 60.0)


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return make_lab(tmp_path, 200)


def farthest_first(rows: Any, chosen: list[int], n: int) -> list[int]:
    """Return the k-centre order, one image after the other as its definition says."""
    seen_from_the_mean = rows - rows.mean(0)
    unit = seen_from_the_mean / np.linalg.norm(seen_from_the_mean, axis=1, keepdims=True)
    picks: list[int] = []
    while len(picks) < n:
        centres = chosen + picks
        if centres:
            apart = np.stack([((unit - unit[c]) ** 2).sum(1) for c in centres]).min(0)
        else:
            apart = unit @ unit.mean(0)
        apart[centres] = -np.inf
        picks.append(int(np.argmax(apart)))
    return picks


# --- smart -------------------------------------------------------------------------------------


def test_the_first_images_cover_the_set(lab: Lab) -> None:
    handed = lab.ask("smart", n=20)
    assert lab.places(handed) == farthest_first(lab.rows, [], 20)
    assert {image.reason for image in handed.images} == {"spread"}
    assert handed.note == ""


def test_the_spread_goes_on_where_it_is_and_keeps_away_from_labels_of_elsewhere(lab: Lab) -> None:
    first = lab.places(lab.ask("smart", n=5))
    lab.label(first)
    lab.label(range(50, 60), 1, who="bulk")
    done = sorted([*first, *range(50, 60)])
    handed = lab.ask("smart", n=10)
    assert lab.places(handed) == farthest_first(lab.rows, done, 10)


def test_the_spread_lasts_until_each_class_has_five_labels_and_a_model_is_there(lab: Lab) -> None:
    lab.label(range(5), 0)
    lab.label(range(5, 10), 1)
    lab.label(range(10, 14), 2)
    lab.suggest(dict.fromkeys(range(200), 0.5))
    assert {i.reason for i in lab.ask("smart", n=20).images} == {"spread"}
    lab.label([14], 2)
    assert {i.reason for i in lab.ask("smart", n=20).images} == {"uncertain", "random"}


def test_five_of_each_without_suggestions_stays_with_the_spread(lab: Lab) -> None:
    lab.five_of_each()
    assert {i.reason for i in lab.ask("smart", n=20).images} == {"spread"}


def test_doubted_images_come_with_a_tenth_drawn_at_random(lab: Lab) -> None:
    lab.five_of_each()
    sure = range(150, 200)
    lab.suggest({i: (0.9 if i in sure else 0.1) for i in range(200)})
    handed = lab.ask("smart", n=30)
    reasons = [image.reason for image in handed.images]
    assert reasons.count("random") == 3
    doubted = {p for p, r in zip(lab.places(handed), reasons, strict=True) if r == "uncertain"}
    assert doubted <= set(range(15, 150)), "what the model is sure of is not doubted"


@pytest.mark.parametrize(("share", "n"), [(0.0, 0), (0.2, 6), (0.5, 15)])
def test_the_random_share_is_the_projects(lab: Lab, share: float, n: int) -> None:
    lab.five_of_each()
    lab.suggest({i: i / 200 for i in range(200)})
    label_settings.change_settings(lab.store, project_id=lab.project_id, random_share=share)
    reasons = [image.reason for image in lab.ask("smart", n=30).images]
    assert reasons.count("random") == n


def test_the_random_share_is_drawn_evenly_from_all_that_is_unlabelled(tmp_path: Path) -> None:
    lab = make_lab(tmp_path, 75)
    lab.five_of_each()
    lab.suggest({i: i / 75 for i in range(70)})  # five are without suggestion
    drawn = np.zeros(75)
    for seed in range(200):
        wish = Wish(lab.project_id, seed=seed)
        order = queue_orders.make_order(lab.store, wish, 30)
        picked = [i for i, reason in order.reasons.items() if reason == "random"]
        drawn[[lab.image_ids.index(i) for i in picked]] += 1
    assert drawn.sum() == 600
    assert not drawn[:15].any(), "labelled images are not drawn"
    expected = 600 / 60
    chi2 = ((drawn[15:] - expected) ** 2 / expected).sum()
    assert chi2 < 98.3, "59 degrees of freedom, p = 0.001"


def test_the_same_seed_gives_the_same_order_and_another_run_another_one(lab: Lab) -> None:
    lab.five_of_each()
    lab.suggest({i: i / 200 for i in range(200)})
    wish = Wish(lab.project_id, seed=4)
    one = queue_orders.make_order(lab.store, wish, 60)
    assert one.reasons == queue_orders.make_order(lab.store, wish, 60).reasons
    lab.suggest({i: i / 200 for i in range(200)})
    assert one.ids != queue_orders.make_order(lab.store, wish, 60).ids


def test_a_new_run_refreshes_the_queue_and_says_so(lab: Lab) -> None:
    lab.five_of_each()
    lab.suggest({i: (0.1 if i < 60 else 0.9) for i in range(200)})
    before = lab.ask("smart", n=10)
    lab.suggest({i: (0.9 if i < 60 else 0.1) for i in range(200)})
    ids = [image.id for image in before.images]
    after = lab.ask("smart", n=10, give_back=ids)
    assert after.version != before.version
    doubted = [
        p for p, i in zip(lab.places(after), after.images, strict=True) if i.reason == "uncertain"
    ]
    assert doubted
    assert min(doubted) >= 60


def test_without_an_index_of_looks_the_order_is_random_and_says_so(tmp_path: Path) -> None:
    lab = make_lab(tmp_path, 60, sorted_by_looks=False)
    handed = lab.ask("smart", n=60)
    assert "not sorted by looks yet" in handed.note
    assert sorted(lab.places(handed)) == list(range(60))
    assert lab.places(handed) != list(range(60))
    assert {i.reason for i in handed.images} == {""}, "not the random share of a model's queue"


def test_without_an_index_the_models_doubts_still_count(tmp_path: Path) -> None:
    lab = make_lab(tmp_path, 200, sorted_by_looks=False)
    lab.five_of_each()
    lab.suggest({i: (0.1 if i < 150 else 0.9) for i in range(200)})
    handed = lab.ask("smart", n=30)
    doubted = [
        p for p, i in zip(lab.places(handed), handed.images, strict=True)
        if i.reason == "uncertain"
    ]  # fmt: skip
    assert len(doubted) == 27
    assert max(doubted) < 150


def test_an_index_that_comes_later_is_noticed(tmp_path: Path) -> None:
    lab = make_lab(tmp_path, 60, sorted_by_looks=False)
    lab.ask("smart", n=5)
    sort_by_looks(lab)
    handed = lab.ask("smart", n=5, holder="other")
    assert handed.note == ""
    assert {i.reason for i in handed.images} == {"spread"}


def test_images_that_came_after_the_index_come_last_and_are_not_lost(tmp_path: Path) -> None:
    lab = make_lab(tmp_path, 60, sorted_by_looks=False)
    sort_by_looks(lab, 40)
    found = lab.places(lab.ask("smart", n=60))
    assert sorted(found) == list(range(60))
    assert set(found[40:]) == set(range(40, 60))


def test_the_whole_project_is_handed_out_in_the_end_each_image_once(lab: Lab) -> None:
    seen: list[int] = []
    for turn in range(12):
        handed = lab.ask("smart", n=20, holder=f"tab {turn % 3}")
        lab.label(lab.places(handed), turn % 3)
        seen += lab.places(handed)
        if turn == 5:
            lab.suggest({i: i / 200 for i in range(200)})
    assert sorted(seen) == list(range(200))


def test_filters_hold_in_the_smart_queue(lab: Lab) -> None:
    only = ImageFilter(state="unlabelled", text="slide_1/")
    found = lab.places(lab.ask("smart", n=200, filter=only))
    assert sorted(found) == [i for i in range(200) if i % 3 == 1]


# --- the other orders --------------------------------------------------------------------------


def test_in_order_is_the_order_of_the_import(lab: Lab) -> None:
    lab.label([1, 2])
    assert lab.places(lab.ask("in-order", n=4)) == [0, 3, 4, 5]
    labelled = ImageFilter(state="label")
    assert lab.places(lab.ask("in-order", n=4, filter=labelled, holder="b")) == [1, 2]


def test_random_is_seeded_and_even_and_says_that_it_is_random(lab: Lab) -> None:
    one = lab.ask("random", n=100, seed=1)
    rest = lab.ask("random", n=100, seed=1, exclude=[i.id for i in one.images])
    assert sorted(lab.places(one) + lab.places(rest)) == list(range(200))
    assert {i.reason for i in [*one.images, *rest.images]} == {"random"}
    queueing.release(lab.store, project_id=lab.project_id, holder="tab")
    assert lab.places(lab.ask("random", n=100, seed=1)) == lab.places(one)
    queueing.release(lab.store, project_id=lab.project_id, holder="tab")
    assert lab.places(lab.ask("random", n=100, seed=2)) != lab.places(one)
    places = np.array(lab.places(one) + lab.places(rest))
    assert abs(np.corrcoef(places, np.arange(200))[0, 1]) < 0.25, "in no order"


def test_random_of_a_part_is_no_sample_of_the_project(lab: Lab) -> None:
    only = ImageFilter(state="unlabelled", text="slide_1/")
    assert {i.reason for i in lab.ask("random", n=9, filter=only).images} == {""}


def test_look_alikes_are_the_nearest_to_any_image_of_the_class(lab: Lab) -> None:
    lab.label([3, 17], 2)
    lab.label([40], 1)
    handed = lab.ask("look-alikes", n=12, class_id=lab.class_ids[2])
    alike = (lab.rows @ lab.rows[[3, 17]].T).max(1)
    wanted = [int(i) for i in np.argsort(-alike, kind="stable") if i not in (3, 17, 40)][:12]
    assert lab.places(handed) == wanted
    assert {i.reason for i in handed.images} == {"look-alike"}


def test_look_alikes_say_what_they_need(lab: Lab) -> None:
    handed = lab.ask("look-alikes", n=5, class_id=lab.class_ids[2])
    assert handed.images == []
    assert "Label one" in handed.note
    with pytest.raises(InvalidInputError, match="Look-alikes of which class"):
        lab.ask("look-alikes", n=5)


def test_what_people_disagree_on_is_to_be_adjudicated(lab: Lab) -> None:
    lab.label([4, 5, 6], 0, who="maria")
    lab.label([5, 6], 1, who="ben")
    lab.label([4], 0, who="ben")
    handed = lab.ask("disagree")
    assert lab.places(handed) == [5, 6]
    assert {(i.reason, i.as_source) for i in handed.images} == {("disagree", "adjudication")}
    lab.label([5], 1, who="head", source="adjudication")
    assert lab.places(lab.ask("disagree", keep=[lab.image_ids[5], lab.image_ids[6]])) == []
    assert lab.places(lab.ask("disagree", holder="tab")) == [6]


def test_where_the_model_differs_the_worst_comes_first(lab: Lab) -> None:
    lab.label(range(6), 0)
    other = lab.class_ids[1]
    guesses = {0: other, 1: other, 2: other, 3: lab.class_ids[0], 20: other}
    losses = {0: 0.5, 1: 3.0, 2: 2.0, 3: 9.0}
    lab.suggest(dict.fromkeys(guesses, 0.2), cls=guesses, loss=losses)
    handed = lab.ask("model")
    assert lab.places(handed) == [1, 2, 0]
    assert {i.reason for i in handed.images} == {"model"}
    lab.label([2], 0)  # looked at, and left as it is
    assert lab.places(lab.ask("model", holder="tab")) == [1, 0]


def test_skipped_and_unsure_are_shown_again_on_request(lab: Lab) -> None:
    lab.record(lab.event(7, "skip"), lab.event(3, "skip"), lab.event(5, "unsure"))
    assert lab.places(lab.ask("skipped")) == [7, 3], "in the order in which they were skipped"
    assert lab.places(lab.ask("unsure")) == [5]
    left = lab.ask("smart", n=200, holder="other")
    assert (left.skipped, left.unsure) == (2, 1)
    assert not {7, 3, 5} & set(lab.places(left))


def wish_for(lab: Lab, place: int, kind: str, wanted: str | None) -> None:
    with lab.store.writing() as session:
        session.add(
            Reading(
                project_id=lab.project_id, image_id=lab.image_ids[place], kind=kind,
                wanted_from=wanted, asked_by="head",
            )
        )  # fmt: skip


def test_second_readings_go_to_who_has_not_read_the_image_and_show_nothing(lab: Lab) -> None:
    lab.label([1, 2, 3], 1, who="maria")
    lab.suggest({1: 0.5, 2: 0.5, 3: 0.5})
    with lab.store.writing() as session:
        session.execute(
            insert(ImageEvent),
            [{"project_id": lab.project_id, "image_id": lab.image_ids[1], "kind": "note",
              "who": "maria", "reason": "odd"}],
        )  # fmt: skip
    wish_for(lab, 2, "second", None)
    wish_for(lab, 1, "second", None)
    wish_for(lab, 3, "second", "carl")
    assert lab.places(lab.ask("second")) == [], "Maria has read them all"
    handed = lab.ask("second", who="ben", holder="ben's")
    assert lab.places(handed) == [2, 1], "in the order in which they were asked for"
    for image in handed.images:
        assert (image.state, image.class_id, image.rev) == ("none", None, 0)
        assert (image.suggestion, image.noted, image.tags) == (None, False, ())
        assert (image.source, image.disputed, image.as_source) == (None, False, "second")
    assert lab.places(lab.ask("second", who="carl", holder="carl's")) == [3]


def test_ones_own_images_come_again_to_oneself_alone(lab: Lab) -> None:
    lab.label([1, 2], 1, who="maria")
    wish_for(lab, 1, "self", "maria")
    wish_for(lab, 2, "self", "ben")
    handed = lab.ask("self")
    assert lab.places(handed) == [1]
    assert (handed.images[0].state, handed.images[0].as_source) == ("none", "self")


def test_where_votes_count_an_image_waits_for_the_next_reader_not_for_the_last(lab: Lab) -> None:
    label_settings.change_settings(
        lab.store, project_id=lab.project_id, rule=ConsensusRule("majority", 2)
    )
    lab.label([0, 1], 0, who="maria")
    assert lab.places(lab.ask("in-order", n=2)) == [2, 3]
    assert lab.places(lab.ask("in-order", n=2, who="ben", holder="ben's")) == [0, 1]


def test_blind_projects_tell_no_reason_but_what_is_stored_with_the_label(lab: Lab) -> None:
    lab.five_of_each()
    lab.suggest({i: i / 200 for i in range(200)})
    label_settings.change_settings(lab.store, project_id=lab.project_id, blind=True)
    handed = lab.ask("smart", n=30)
    assert {i.reason for i in handed.images} == {"", "random"}
    assert {i.suggestion for i in handed.images} == {None}


@pytest.mark.parametrize("strategy", queueing.STRATEGIES)
def test_images_out_of_use_are_never_handed_out(lab: Lab, strategy: str) -> None:
    lab.label([0, 1], 0, who="maria")
    lab.label([0, 1], 1, who="ben")
    lab.record(lab.event(2, "skip"), lab.event(3, "skip"), lab.event(4, "unsure"))
    lab.suggest({0: 0.1, 1: 0.1}, cls={0: lab.class_ids[0], 1: lab.class_ids[0]}, loss={0: 1, 1: 1})
    for place in (0, 1):
        wish_for(lab, place, "second", None)
        wish_for(lab, place, "self", "carl")
    out = [lab.image_ids[i] for i in (1, 3, 9, 30)]
    with lab.store.writing() as session:
        set_status(session, lab.project_id, out, "excluded", kind="excluded", who="maria")
    more = {"class_id": lab.class_ids[1]} if strategy == "look-alikes" else {}
    handed = lab.ask(strategy, n=200, who="carl", **more)
    assert handed.images
    assert not {i.id for i in handed.images} & set(out)


# --- handing out -------------------------------------------------------------------------------


def test_two_people_are_never_handed_the_same_image(lab: Lab) -> None:
    one = lab.ask("smart", n=30, holder="one")
    two = lab.ask("smart", n=30, holder="two", who="ben")
    assert not {i.id for i in one.images} & {i.id for i in two.images}
    assert lab.places(one) + lab.places(two) == farthest_first(lab.rows, [], 60)
    assert two.with_others == 30


def test_what_others_hold_but_somebody_labelled_waits_in_no_queue(lab: Lab) -> None:
    held = lab.places(lab.ask("in-order", n=5, holder="one"))
    lab.label(held[:3], who="bulk")
    assert lab.ask("in-order", n=5, holder="two").with_others == 2


def test_what_is_in_hand_is_renewed_and_what_others_labelled_is_gone(lab: Lab) -> None:
    had = [i.id for i in lab.ask("in-order", n=4).images]
    lab.label([1], 2, who="ben")
    handed = lab.ask("in-order", n=2, keep=had)
    assert handed.gone == [had[1]]
    assert lab.places(handed) == [4, 5]
    with lab.store.reading() as session:
        theirs = leases.held_by_others(session, project_id=lab.project_id, holder="x")
    assert theirs == {had[0], had[2], had[3], *(i.id for i in handed.images)}


def test_the_last_images_are_shared_among_those_who_label(lab: Lab) -> None:
    lab.label(range(140))

    def ask(name: str, **more: Any) -> queueing.Handed:
        return lab.ask("in-order", n=20, holder=name, share_fairly=True, **more)

    first = [i.id for i in ask("tab 0").images]
    held = [len(first)] + [len(ask(f"tab {i}").images) for i in range(1, 5)]
    assert held == [20, 15, 10, 7, 6], "half of the sixty, a quarter of them, and so on"
    full = ask("tab 0", keep=first)
    assert (full.images, full.gone, full.more) == ([], [], True)


def test_what_was_shown_already_does_not_come_again(lab: Lab) -> None:
    shown = [i.id for i in lab.ask("in-order", n=3).images]
    assert lab.places(lab.ask("in-order", n=3, exclude=shown)) == [3, 4, 5]


def test_a_page_that_is_loaded_again_goes_on_with_its_images(lab: Lab) -> None:
    first = lab.ask("smart", n=5, holder="before")
    ids = [i.id for i in first.images]
    again = lab.ask("smart", n=0, holder="after", holder_before="before", keep=ids)
    assert again.gone == []
    other = lab.ask("smart", n=5, holder="other", who="ben")
    assert not set(ids) & {i.id for i in other.images}
    queueing.release(lab.store, project_id=lab.project_id, holder="before")  # comes late
    assert not set(ids) & {i.id for i in lab.ask("smart", n=5, holder="third").images}


def test_a_look_ahead_leases_nothing(lab: Lab) -> None:
    wish = Wish(lab.project_id, "maria")
    seen = [i.id for i in look_ahead(lab.store, wish, n=5).images]
    assert seen == [i.id for i in next_images(
        lab.store, project_id=lab.project_id, annotator="ben", holder="b", n=5
    )]  # fmt: skip
    assert not set(seen) & {i.id for i in look_ahead(lab.store, wish, n=5).images}


def test_an_undone_label_comes_back_into_the_queue(lab: Lab) -> None:
    event = lab.event(0)
    lab.record(event)
    lab.record(lab.undo_of(event))
    assert lab.places(lab.ask("in-order", n=2)) == [0, 1]


def test_unknown_projects_orders_and_states_are_refused_in_words(lab: Lab) -> None:
    with pytest.raises(NotFoundError, match="no project number 999"):
        hand_out(lab.store, Wish(999, "maria"), holder="tab")
    with pytest.raises(InvalidInputError, match="no order “clever”"):
        Wish(lab.project_id, "maria", "clever")
    with pytest.raises(InvalidInputError, match="no image state “odd”"):
        Wish(lab.project_id, "maria", filter=ImageFilter(state="odd"))


def test_an_order_that_cannot_be_made_costs_the_order_not_the_queue(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_args: object) -> None:
        raise RuntimeError("no memory")

    monkeypatch.setattr(queue_orders, "make_order", broken)
    assert lab.places(lab.ask("smart", n=3)) == [0, 1, 2]


def test_new_suggestions_make_a_fresh_queue_of_ten_thousand_images(tmp_path: Path) -> None:
    lab = make_lab(tmp_path, 10_000)
    lab.ask("smart", n=20)
    lab.five_of_each()
    lab.suggest({i: i / 10_000 for i in range(10_000)})
    deadline, reasons = time.monotonic() + 120, {""}
    while "uncertain" not in reasons:
        reasons = {i.reason for i in lab.ask("smart", n=5, holder=f"{time.monotonic()}").images}
        assert time.monotonic() < deadline, "the queue never became fresh"


def test_an_order_that_cannot_be_worked_out_is_said_and_images_come_all_the_same(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("no order today")

    monkeypatch.setattr(queue_orders, "make_order", broken)
    wish = Wish(lab.project_id, "maria", strategy="random")
    handed = hand_out(lab.store, wish, holder="tab", n=5)
    assert "could not be worked out" in handed.note
    assert [image.id for image in handed.images] == lab.image_ids[:5]
    assert {image.reason for image in handed.images} == {""}  # none of them counts as random
