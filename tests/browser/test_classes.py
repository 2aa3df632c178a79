"""The view of the classes in a real browser: rename, merge, split, undo, and how it looks."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import text

from cnsapp.services import classes, images
from tests.browser.conftest import LiveApp
from tests.browser.visitor import PICTURES, Visitor, wait_for
from tests.integration.worlds import World, add_model, make_world

pytestmark = pytest.mark.browser


class Lab:
    """A project of some classes, and somebody who looks at them."""

    def __init__(self, live: LiveApp, page: Any) -> None:
        self.world: World = make_world(live.app, {"liver": 6, "colon": 5, "lung": 4}, unlabelled=2)
        self.visitor = Visitor(live, page)
        self.page, self.store = page, live.store
        liver, colon, _ = self.world.class_ids
        add_model(self.world, [(i, liver, colon, 0.8) for i in self.world.image_ids[0]])
        page.goto(f"{live.url}/label?who=Ann&view=Classes")
        page.locator(".st-key-classes_view").wait_for()
        self.visitor.settled()

    def names(self) -> list[str]:
        return [c.name for c in classes.list_classes(self.store, project_id=self.world.project_id)]

    def counts(self) -> dict[int, int]:
        return images.counts(self.store, project_id=self.world.project_id).per_class

    def field(self, label: str) -> Any:
        return self.page.get_by_label(label, exact=True).first

    def values(self, label: str) -> list[str]:
        """Return what stands in the fields of this name: while a row moves, it is there twice."""
        found = f"[...document.querySelectorAll('input[aria-label=\"{label}\"]')].map(e => e.value)"
        return list(self.page.evaluate(found))

    def type(self, label: str, words: str) -> None:
        self.visitor.settled()  # a field that is drawn anew just then forgets what is typed
        self.field(label).fill(words)
        self.field(label).press("Enter")

    def more(self, place: int, what: str) -> None:
        row = f".st-key-class_row_{self.world.class_ids[place]}"
        self.page.locator(f"{row} [data-testid=stPopover] button").first.click()
        self.page.get_by_role("button", name=what).click()

    def pictures(self, name: str) -> None:
        for theme in ("light", "dark"):
            self.page.emulate_media(color_scheme=theme)
            self.visitor.picture(f"{name}-{theme}")
        self.page.emulate_media(color_scheme="light")


def test_a_class_is_renamed_recoloured_moved_and_all_of_it_undone(
    live_app: LiveApp, page: Any
) -> None:
    lab = Lab(live_app, page)
    lab.pictures("classes")
    lab.type("Name of liver", "hepar")
    page.get_by_text("Renamed “liver” to “hepar”.").wait_for()
    lab.type("Key of hepar", "d1")
    page.get_by_text("“hepar”: key d1.").wait_for()
    lab.type("Group of hepar", "digestive")
    page.get_by_text("“hepar”: group digestive.").wait_for()
    lab.visitor.settled()
    page.locator(f".st-key-class_down_{lab.world.class_ids[0]} button").first.click()
    page.get_by_text("Moved “hepar” to place 2.").wait_for()
    assert lab.names() == ["colon", "hepar", "lung"]
    lab.type("Key of colon", "u")
    page.get_by_text("is reserved").wait_for()
    wait_for(lambda: "2" in lab.values("Key of colon"), 20, "the old key is back")
    for left in (3, 2, 1, 0):
        lab.visitor.press_button("classes_undo")
        wait_for(
            lambda left=left: (
                lab.visitor.count("SELECT count(*) FROM class_event WHERE kind = 'undo'")
                == 4 - left
            ),
            20,
            "undone",
        )
        lab.visitor.settled()
    assert lab.names() == ["liver", "colon", "lung"]
    lab.field("Name of liver").wait_for()
    lab.visitor.no_traceback()


def test_a_name_that_is_there_offers_to_merge_and_the_merge_is_undone(
    live_app: LiveApp, page: Any
) -> None:
    lab = Lab(live_app, page)
    liver, colon, lung = lab.world.class_ids
    lab.type("Name of colon", " LIVER ")
    page.get_by_text("are the same class name").wait_for()
    lab.pictures("classes-same-name")
    lab.visitor.press_button("classes_merge_instead")
    page.get_by_text("Merged “colon” into “liver”.").wait_for()
    assert lab.counts() == {liver: 11, lung: 4}
    lab.pictures("classes-merged")
    lab.visitor.press_button("classes_undo_last")
    page.get_by_text("Taken back: Merged “colon” into “liver”.").wait_for()
    assert lab.counts() == {liver: 6, colon: 5, lung: 4}
    lab.visitor.press_button("classes_undo_last")
    page.get_by_text("Merged “colon” into “liver”.", exact=True).wait_for()
    assert lab.counts() == {liver: 11, lung: 4}


def test_dialogs_say_what_they_concern_and_delete_or_split(live_app: LiveApp, page: Any) -> None:
    lab = Lab(live_app, page)
    liver, _, lung = lab.world.class_ids
    lab.more(1, "Delete…")
    page.get_by_text("5 labels by 1 person").wait_for()
    lab.pictures("classes-delete")
    page.get_by_role("dialog").get_by_text("lung", exact=True).click()
    lab.visitor.settled()
    lab.visitor.press_button("class_dialog_go")
    page.get_by_text("Deleted “colon”, its labels count as “lung”.").first.wait_for()
    wait_for(lambda: lab.counts() == {liver: 6, lung: 9}, 20, "counted anew")
    lab.more(0, "Split a new class off…")
    page.get_by_text("Tick images of").wait_for()
    page.get_by_role("dialog").get_by_text("All 6 images shown").click()
    lab.visitor.type_into("split_name", "fatty liver")
    lab.pictures("classes-split")
    lab.visitor.press_button("class_dialog_go")
    page.get_by_text("Split “fatty liver” off “liver”: 6 images.").first.wait_for()
    with lab.store.reading() as session:
        n = session.execute(
            text("SELECT count(*) FROM label_event WHERE action LIKE 'classes/%'")
        ).scalar()
    assert n == 6
    page.get_by_text("Changes of the classes").click()
    lab.pictures("classes-changes")
    assert (PICTURES / "classes-changes-dark.png").is_file()


def test_a_scheme_is_previewed_taken_in_and_undone_as_one_step(
    live_app: LiveApp, page: Any
) -> None:
    lab = Lab(live_app, page)
    page.get_by_text("Class schemes as files").click()
    lab.visitor.choose("scheme_source", "organ-systems")
    page.get_by_role("button", name="Take in: 9 new, 3 changed").wait_for()
    lab.pictures("classes-scheme")
    lab.visitor.press_button("scheme_go")
    page.get_by_text(
        "Took in the class scheme “organ-systems”: 9 added, 3 changed."
    ).first.wait_for()
    assert len(lab.names()) == 12
    lab.visitor.press_button("classes_undo_last")
    page.get_by_text("Taken back: Took in").first.wait_for()
    assert lab.names() == ["liver", "colon", "lung"]
