"""The list of label errors in a real browser: put right by keys, undone, and never lost."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sqlalchemy import select

from cnsapp.services.label_errors import Suspect, list_suspects, summary
from db.models import LabelEvent
from tests.browser.conftest import LiveApp
from tests.browser.visitor import Visitor, wait_for
from tests.integration.worlds import World, add_model, make_world, relabel
from tests.looks import index_of

pytestmark = pytest.mark.browser

N, WRONG = 14, 4  # livers, and how many of them the model takes for lungs


class Reviewer(Visitor):
    """Maria at the list of a model that calls four livers lungs, the surest first."""

    def __init__(self, live: LiveApp, page: Any) -> None:
        super().__init__(live, page)
        self.world: World = make_world(live.app, {"liver": N, "lung": N, "kidney": N}, side=64)
        self.liver, self.lung, self.kidney = self.world.class_ids
        a, b, c = self.world.image_ids[:3]
        said: list[Any] = [
            (i, self.liver, self.lung if k < WRONG else self.liver, 0.97 - 0.02 * k)
            for k, i in enumerate(a)
        ]
        said += [(i, self.lung, self.lung, 0.9) for i in b]
        said += [(i, self.kidney, self.kidney, 0.9) for i in c]
        self.model_id = add_model(self.world, said)
        kinds = [1] * WRONG + [0] * (N - WRONG) + [1] * N + [2] * N
        rows = np.eye(8)[kinds] + 0.05 * np.random.default_rng(0).normal(size=(3 * N, 8))
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        index_of(live.store, self.world.project_id, rows.astype(np.float32))
        self.due = [one.image.id for one in self.suspects()]
        assert sorted(self.due) == a[:WRONG]

    def suspects(self) -> list[Suspect]:
        """Return the open ones as the service lists them."""
        return list_suspects(self.live.store, model_id=self.model_id).items

    def open(self) -> None:
        """Open the list."""
        query = f"project={self.world.project_id}&who=maria&model={self.model_id}"
        self.page.goto(f"{self.live.url}/review?{query}&view=Label+errors")
        self.page.locator(".suspects .panel h3").wait_for()

    def lines(self) -> list[int]:
        """Return the images of the list in its order."""
        found = self.page.locator(".suspects .line").evaluate_all(
            "all => all.map(r => r.dataset.id)"
        )
        return [int(i) for i in found]

    def lists(self, ids: list[int]) -> None:
        """Wait until the list shows just these."""
        wait_for(lambda: self.lines() == ids, 5, f"the list shows {self.lines()}, not {ids}")

    def figure(self, name: str) -> Any:
        """Return the figure of this name above the list."""
        named = self.page.get_by_text(name, exact=True)
        return self.page.locator(".suspects .figure").filter(has=named)

    def decided(self, n: int) -> None:
        """Wait until the figures count so many decisions, and all is saved."""
        figure = self.figure("Decided").locator(".value")
        wait_for(lambda: figure.inner_text() == str(n), 5, f"{n} decided")
        self.page.locator(".suspects .saved", has_text="All saved").wait_for()

    def said(self) -> list[LabelEvent]:
        """Return what Maria said, in its order."""
        with self.live.store.reading() as session:
            found = list(
                session.scalars(
                    select(LabelEvent)
                    .where(LabelEvent.annotator == "maria")
                    .order_by(LabelEvent.id)
                )
            )
            session.expunge_all()
        return found


@pytest.fixture
def reviewer(live_app: LiveApp, page: Any) -> Reviewer:
    """Return Maria, before a browser."""
    return Reviewer(live_app, page)


def test_keys_put_labels_right_the_list_shrinks_and_undo_brings_back(reviewer: Reviewer) -> None:
    page, due = reviewer.page, reviewer.due
    reviewer.open()
    reviewer.lists(due)
    panel = page.locator(".suspects .panel")
    assert " ".join(panel.locator("h3").inner_text().split()) == (
        "Labelled liver but looks like lung"
    )
    assert "of its 5 nearest labelled neighbours" in panel.inner_text()
    assert panel.locator("figure").count() == 5
    page.locator(".suspects .pair", has_text="liver that look like lung").wait_for()

    page.keyboard.press("a")  # the suggestion
    reviewer.lists(due[1:])
    reviewer.decided(1)
    page.keyboard.press(" ")  # the label is right
    page.keyboard.press("3")  # a third class, by its key
    page.keyboard.press("u")  # that was a slip
    reviewer.lists(due[2:])
    reviewer.decided(2)
    first, second, third, undone = reviewer.said()
    assert (first.image_id, first.class_id) == (due[0], reviewer.lung)
    assert (second.image_id, second.class_id) == (due[1], reviewer.liver)
    assert (third.image_id, third.class_id) == (due[2], reviewer.kidney)
    assert (undone.image_id, undone.kind, undone.target_id) == (due[2], "undo", third.id)
    assert {e.source for e in (first, second, third)} == {"review"}
    shown = reviewer.figure("Wrong among those decided").inner_text()
    assert "50 %" in shown and "1 of 2 wrong" in shown

    page.keyboard.press("2")  # taken back, the image can be decided about anew
    reviewer.lists(due[3:])
    reviewer.decided(3)
    found = summary(reviewer.live.store, model_id=reviewer.model_id)
    assert (found.n_corrected, found.n_confirmed, found.n_open) == (2, 1, 1)
    page.keyboard.press("x")
    page.locator(".suspects .panel", has_text="Nothing is left in the list.").wait_for()
    page.locator(".suspects .advice", has_text="Done: nothing is left").wait_for()
    assert reviewer.said()[-1].kind == "unsure"
    reviewer.no_traceback()
    assert reviewer.elsewhere == []


def test_who_comes_second_is_told_and_nothing_is_stored_over_it(reviewer: Reviewer) -> None:
    page, due = reviewer.page, reviewer.due
    reviewer.open()
    reviewer.lists(due)
    relabel(reviewer.world, due[0], reviewer.kidney)  # somebody else, meanwhile
    page.keyboard.press("a")
    page.locator(".suspects .warning", has_text="Somebody decided about").wait_for()
    reviewer.lists(due[1:])
    assert reviewer.said() == []
    page.keyboard.press("s")  # not now: nothing is stored, the next one is shown
    page.locator(f'.suspects .line.later[data-id="{due[1]}"]').wait_for()
    page.keyboard.press("a")
    reviewer.lists([due[1], due[3]])
    wait_for(lambda: len(reviewer.said()) == 1, 5, "the decision is stored")
    assert reviewer.said()[0].image_id == due[2]


def test_a_decision_that_could_not_be_sent_is_kept_and_sent_by_the_next_page(
    reviewer: Reviewer,
) -> None:
    page, due = reviewer.page, reviewer.due
    reviewer.open()
    reviewer.lists(due)
    blocked = "**/api/label-errors"  # a GET has a question behind it
    page.route(blocked, lambda route: route.abort())
    page.keyboard.press("a")
    reviewer.lists(due[1:])
    page.locator(".suspects .saved", has_text="not saved yet").wait_for()
    assert reviewer.said() == []
    page.unroute(blocked)
    page.reload()
    page.locator(".suspects .panel h3").wait_for()
    wait_for(lambda: len(reviewer.said()) == 1, 10, "the decision is stored")
    reviewer.lists(due[1:])
    reviewer.decided(1)
    assert [(e.image_id, e.class_id) for e in reviewer.said()] == [(due[0], reviewer.lung)]
