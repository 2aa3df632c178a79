"""Each way of labelling in a real browser: redo, two keys, by name, by suggestion, notes, tags."""

# ruff: noqa: F811 - fixtures are asked for by their names

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import insert, select, update

from cnsapp.services import bulk, notes
from db.models import Image, ImageEvent, LabelClass, Suggestion, SuggestionRun
from tests.browser.test_labelling import (  # noqa: F401 - fixtures
    DEEP,
    N_IMAGES,
    World,
    mortal_world,
    pictures,
    shared_app,
    wait_until,
    world,
)

pytestmark = pytest.mark.browser


def status(world: World, text: str) -> None:
    """Wait for words in the status line."""
    world.page.locator(".status", has_text=text).wait_for()


def suggest(world: World, guesses: dict[int, tuple[int, float]]) -> None:
    """Store guesses: place of the image -> (place of the class, confidence)."""
    ids = [item.id for item in world.items()]
    with world.store.writing() as session:
        run = SuggestionRun(
            project_id=world.project_id, n_labels=9, n_images=9, newest_event=0, class_ids=[]
        )
        session.add(run)
        session.flush()
        rows = [
            {
                "image_id": ids[place], "project_id": world.project_id, "run_id": run.id,
                "class_id": world.classes[cls].id, "confidence": confidence, "margin": 0.1,
                "loss": None, "top": [],
            }
            for place, (cls, confidence) in guesses.items()
        ]  # fmt: skip
        session.execute(insert(Suggestion), rows)


def give_keys(world: World, keys: dict[str, str | None]) -> None:
    """Give classes other keys."""
    with world.store.writing() as session:
        for name, key in keys.items():
            session.execute(
                update(LabelClass)
                .where(LabelClass.project_id == world.project_id, LabelClass.name == name)
                .values(hotkey=key)
            )


def labels(world: World) -> list[int | None]:
    """Return the class of each image in order."""
    return [item.class_id for item in world.items()]


def beside(world: World) -> list[tuple[int, str, str, str]]:
    """Return the notes and tags in order: image, kind, text, who."""
    with world.store.reading() as session:
        rows = select(ImageEvent).where(ImageEvent.project_id == world.project_id)
        found = session.scalars(rows.order_by(ImageEvent.id))
        return [(e.image_id, e.kind, e.reason, e.who) for e in found]


def undo_button(world: World, name: str) -> Any:
    """Return Undo or Redo of the bar."""
    return world.page.locator(".bar .tool", has_text=name)


def is_off(world: World, name: str) -> Callable[[], bool]:
    """Return whether that button says it has nothing to do."""
    return lambda: undo_button(world, name).get_attribute("aria-disabled") == "true"


# undo and redo ---------------------------------------------------------------------------------


def test_redo_brings_back_what_was_undone_also_after_a_reload(world: World) -> None:
    world.open()
    wait_until(is_off(world, "Undo"))
    assert is_off(world, "Redo")()
    for key in "12":
        world.page.keyboard.press(key)
    world.cell(4).click()
    world.cell(6).click(modifiers=["Shift"])
    world.page.keyboard.press("3")
    world.wait_for_events(5)
    before = labels(world)
    for keys in ("u", "Control+z", "u"):
        world.page.keyboard.press(keys)
    status(world, "Undone")
    world.all_saved()
    wait_until(lambda: not any(labels(world)))
    world.page.reload()
    world.ready(single=False)
    wait_until(lambda: not is_off(world, "Redo")())
    for keys in ("Shift+U", "Control+Shift+Z", "Control+y"):
        world.page.keyboard.press(keys)
    wait_until(lambda: labels(world) == before)
    world.all_saved()
    wait_until(is_off(world, "Redo"))
    world.page.keyboard.press("Shift+U")
    status(world, "Nothing to redo")
    assert len(world.events()) == 15


def test_a_new_label_ends_what_can_be_redone(world: World) -> None:
    world.open()
    world.page.keyboard.press("1")
    world.page.keyboard.press("u")
    status(world, "Undone")
    wait_until(lambda: not is_off(world, "Redo")())
    world.page.keyboard.press("2")
    assert is_off(world, "Redo")()
    world.page.keyboard.press("Shift+U")
    status(world, "Nothing to redo")
    world.wait_for_events(3)
    assert labels(world)[0] == world.classes[1].id


def test_another_tab_can_redo_what_this_one_undid(world: World) -> None:
    world.open()
    first = world.page
    other = first.context.new_page()
    world.page = other
    world.open()
    first.keyboard.press("1")
    world.wait_for_events(1)
    first.keyboard.press("u")
    world.wait_for_events(2)
    wait_until(lambda: not is_off(world, "Redo")())
    other.keyboard.press("Shift+U")
    world.wait_for_events(3)
    wait_until(lambda: labels(world)[0] == world.classes[0].id)


def test_a_label_on_thousands_is_undone_in_parts_that_are_counted(world: World) -> None:
    ids = [item.id for item in world.items()]
    # the sixty pictures again and again, as rows: a large project without its files
    with world.store.writing() as session:
        row = session.get(Image, ids[0])
        values = {c.key: getattr(row, c.key) for c in Image.__table__.columns if c.key != "id"}
        session.execute(
            insert(Image), [{**values, "file_name": f"more_{i:04d}.png"} for i in range(3000)]
        )
        every = select(Image.id).where(Image.project_id == world.project_id)
        every_id = list(session.scalars(every))
    bulk.label_images(
        world.store, project_id=world.project_id, annotator="maria", image_ids=every_id,
        class_id=world.classes[2].id,
    )  # fmt: skip
    world.open()
    wait_until(lambda: not is_off(world, "Undo")())
    world.page.keyboard.press("u")
    status(world, f"of {len(every_id):,} images")
    status(world, f"Undone: {world.classes[2].name} on {len(every_id):,} images")
    world.all_saved()
    assert labels(world) == [None] * len(labels(world))
    assert len(world.events()) == 2 * len(every_id)


# two keys, and by name -------------------------------------------------------------------------


def test_two_keys_label_and_a_slip_labels_nothing(world: World) -> None:
    give_keys(world, {"colon": "d1", "small_intestine": "d2", "liver": "d3"})
    world.open("One+by+one")
    first = world.shown()
    press = world.page.keyboard.press
    press("d")
    status(world, "D digestive: 1 colon · 2 small_intestine · 3 liver")
    assert world.page.locator(".choice.possible").count() == 3
    press("3")
    (event,) = world.wait_for_events(1)
    assert (event.image_id, event.class_id) == (first, world.classes[2].id)
    press("d")
    press("Escape")
    status(world, "D taken back")
    press("d")
    press("s")
    status(world, "No class has the keys D S: nothing was labelled")
    press("d")
    status(world, "D waited for a second key")
    assert world.page.locator(".choice.possible").count() == 0
    assert len(world.events()) == 1
    press("d")
    press("Numpad1")
    events = world.wait_for_events(2)
    assert events[1].class_id == world.classes[0].id


def test_a_class_without_a_key_is_found_by_a_part_of_its_name_or_group(world: World) -> None:
    give_keys(world, {"spleen": None})
    world.open()
    spleen = world.page.locator(".choice", has_text="spleen")
    assert spleen.locator("kbd").inner_text() == "/"
    assert "press /" in spleen.get_attribute("title")
    press = world.page.keyboard.press
    press("/")
    box = world.page.get_by_role("combobox", name="Find a class")
    box.press_sequentially("phat")  # of lymphatic: spleen and lymph node
    options = world.page.get_by_role("option").filter(has_text="lymphatic")
    assert options.count() == 2
    press("ArrowDown")
    press("Escape")
    box.wait_for(state="detached")
    press("/")
    world.page.get_by_role("combobox", name="Find a class").press_sequentially("sPLe")
    press("Enter")
    (event,) = world.wait_for_events(1)
    assert next(c for c in world.classes if c.id == event.class_id).name == "spleen"
    press("/")
    assert world.page.locator(".popup .option .name").first.inner_text() == "spleen"
    press("r")
    press("c")  # typed, not Streamlit's
    assert world.page.get_by_role("combobox", name="Find a class").input_value() == "rc"
    press("Enter")
    assert len(world.events()) == 1


# suggestions -----------------------------------------------------------------------------------


def test_a_accepts_for_one_and_for_a_selection_and_counts_what_is_left(world: World) -> None:
    suggest(world, {0: (2, 0.934), 1: (2, 0.51), 2: (3, 0.999), 3: (4, 0.7)})
    world.open()
    cell = world.cell(0)
    assert cell.locator(".word").inner_text() == "liver"
    assert cell.locator(".share").inner_text() == "0.93"
    assert cell.locator(".mark").inner_text() == "guess"
    assert "no label, suggestion: liver, 93 percent" in cell.get_attribute("aria-label")
    world.page.keyboard.press("a")
    world.wait_for_events(1)
    world.page.keyboard.press("9")  # the second image gets a label of somebody's own
    world.wait_for_events(2)
    world.cell(1).click()
    world.cell(5).click(modifiers=["Shift"])
    world.page.keyboard.press("a")
    status(
        world,
        "2 images labelled as suggested; left as they are: 1 with a label already, "
        "2 without a suggestion",
    )
    events = world.wait_for_events(4)
    places = {item.id: i for i, item in enumerate(world.items())}
    by_class = {c.id: i for i, c in enumerate(world.classes)}
    told = [(places[e.image_id], by_class[e.class_id], e.source) for e in events]
    assert told == [
        (0, 2, "suggestion"),
        (1, 8, "human"),
        (2, 3, "suggestion"),
        (3, 4, "suggestion"),
    ]
    assert events[2].action == events[3].action
    assert world.cell(2).locator(".from").inner_text() == "sug"
    world.page.keyboard.press("u")
    wait_until(lambda: world.cell(3).locator(".share").inner_text() == "0.70")
    world.page.reload()
    world.ready(single=False)
    assert world.cell(0).locator(".from").inner_text() == "sug"


def test_one_by_one_enter_accepts_and_moves_on(world: World) -> None:
    suggest(world, dict.fromkeys(range(N_IMAGES), (1, 0.8)))
    world.open("One+by+one")
    first = world.shown()
    world.page.locator(".beside .guess", has_text="guess small_intestine 0.80").wait_for()
    world.page.keyboard.press("Enter")
    second = world.shown()
    world.page.keyboard.press("a")
    events = world.wait_for_events(2)
    assert [(e.image_id, e.source) for e in events] == [
        (first, "suggestion"),
        (second, "suggestion"),
    ]
    assert second != first


# notes and tags --------------------------------------------------------------------------------


def test_a_note_and_tags_are_kept_and_shown(world: World) -> None:
    ids = [item.id for item in world.items()]
    world.open()
    press = world.page.keyboard.press
    press("n")
    world.page.get_by_role("textbox", name="Note on").press_sequentially("folded 12 r c")
    press("Enter")
    world.cell(0).locator(".chip.noted").wait_for()
    world.cell(1).click()
    world.cell(2).click(modifiers=["Shift"])
    press("m")
    tag = world.page.get_by_role("combobox", name="Tag")
    tag.press_sequentially("Blood")
    press("Enter")
    tag.press_sequentially("fold")
    press("Enter")
    press("Escape")
    wait_until(lambda: len(beside(world)) == 5)
    assert beside(world)[0] == (ids[0], "note", "folded 12 r c", "maria")
    assert sorted(beside(world)[1:]) == [
        (image, "tagged", text, "maria") for image in ids[1:3] for text in ("Blood", "fold")
    ]
    assert world.cell(1).locator(".chip.worded").inner_text() == "Blood +1"
    assert world.events() == [], "what is typed labels nothing"
    world.all_saved()
    world.page.reload()
    world.ready(single=False)
    assert world.page.locator('.cell[aria-selected="true"]').count() == 2, "as it was left"
    press("Escape")
    press("m")
    world.page.locator(".tagchips .tool", has_text="Blood").click()
    wait_until(lambda: beside(world)[-1] == (ids[2], "untagged", "Blood", "maria"))
    assert [t.tag for t in notes.list_tags(world.store, project_id=world.project_id)] == [
        "fold",
        "Blood",
    ]


def test_nothing_typed_is_lost_when_the_server_is_killed_or_the_field_is_left(
    mortal_world: World,
) -> None:
    world = mortal_world
    world.open()
    world.live.kill()
    press = world.page.keyboard.press
    press("n")
    world.page.get_by_role("textbox", name="Note on").press_sequentially("written in the dark")
    press("Enter")
    press("m")
    world.page.get_by_role("combobox", name="Tag").press_sequentially("dark")
    press("Enter")
    press("Escape")
    press("1")
    world.page.locator(".problem", has_text="3 labels and notes wait in this browser").wait_for()
    press("n")
    world.page.get_by_role("textbox", name="Note on").press_sequentially("half a")
    press("Escape")
    press("n")
    assert world.page.get_by_role("textbox", name="Note on").input_value() == "half a"
    press("Escape")
    world.live.restart()
    world.wait_for_events(1)
    wait_until(lambda: len(beside(world)) == 2)
    world.all_saved()
    assert [(kind, text) for _, kind, text, _ in beside(world)] == [
        ("note", "written in the dark"),
        ("tagged", "dark"),
    ]


# history ---------------------------------------------------------------------------------------


def test_the_history_tells_and_restores(world: World) -> None:
    world.open()
    world.page.keyboard.press("1")
    world.page.keyboard.press("ArrowLeft")
    world.page.keyboard.press("2")
    world.wait_for_events(2)
    world.page.keyboard.press("ArrowLeft")
    world.page.keyboard.press("Shift+H")
    entries = world.page.locator(".story li")
    entries.first.wait_for()
    said = [" ".join(text.split()) for text in entries.locator(".what").all_inner_texts()]
    assert said == ["small_intestine from coloncounts now", "colon"]
    world.page.get_by_role("button", name="Restore colon").click()
    events = world.wait_for_events(3)
    assert (events[2].kind, events[2].class_id) == ("label", world.classes[0].id)
    wait_until(lambda: labels(world)[0] == world.classes[0].id)


# speed, clicks, reload, back, network, two people ----------------------------------------------


def test_twenty_keys_a_second_and_double_clicks_store_each_label_once(world: World) -> None:
    suggest(world, dict.fromkeys(range(N_IMAGES), (5, 0.8)))
    world.open("One+by+one")
    seen = world.press(list("12a3s45ax6" * 3), 50)
    events = world.wait_for_events(30)
    assert [e.image_id for e in events] == seen
    assert len(set(seen)) == 30
    world.page.locator(".choice", has_text="liver").first.dblclick()
    world.wait_for_events(32)
    world.all_saved()
    assert len({e.image_id for e in world.events()}) == 32


def test_the_back_button_finds_frame_selection_and_scroll_as_they_were(world: World) -> None:
    world.open()
    world.page.keyboard.press("PageDown")
    world.page.keyboard.press("Shift+ArrowRight")
    where = "deep('.cells').getAttribute('aria-activedescendant')"
    chosen = world.page.evaluate(f"{DEEP}; {where}")
    assert chosen != f"cell-{world.items()[0].id}"
    world.page.wait_for_timeout(100)
    scrolled = world.page.evaluate(f"{DEEP}; deep('.scroller').scrollTop")
    world.page.get_by_role("link", name="Images").click()
    world.page.get_by_role("heading", name="Images", exact=True).first.wait_for()
    while "/label" not in world.page.url:  # the page of images wrote its own address a second time
        world.page.go_back()
        world.page.wait_for_timeout(300)
    world.page.get_by_role("heading", name="Label", exact=True).first.wait_for()
    world.ready(single=False)
    wait_until(lambda: world.page.evaluate(f"{DEEP}; {where}") == chosen)
    assert world.page.locator('.cell[aria-selected="true"]').count() == 2
    assert world.page.evaluate(f"{DEEP}; deep('.scroller').scrollTop") == scrolled


def test_two_minutes_without_network_lose_nothing(world: World) -> None:
    world.open("One+by+one")
    world.wait_for_pictures(6)
    world.page.context.set_offline(True)
    seen = world.press(list("123"), 60)
    world.page.keyboard.press("u")
    world.page.keyboard.press("Shift+U")
    world.page.locator(".problem", has_text="Not saved yet").wait_for()
    world.page.wait_for_timeout(120_000)  # a closed lid: longer than any patience of the outbox
    world.page.context.set_offline(False)
    events = world.wait_for_events(5)
    world.all_saved()
    assert [e.kind for e in events] == ["label", "label", "label", "undo", "redo"]
    assert [item.id for item in world.items("label")] == sorted(seen)


def test_two_people_label_one_image_within_a_second_and_both_are_told(
    world: World, browser: Any
) -> None:
    world.open()
    context = browser.new_context(viewport={"width": 1440, "height": 900})
    other = context.new_page()
    address = f"{world.live.url}/label?project={world.project_id}"
    other.goto(f"{address}&who=jonas")
    other.locator(".cell").first.wait_for()
    other.wait_for_load_state("networkidle")
    world.page.keyboard.press("1")
    other.keyboard.press("2")
    events = world.wait_for_events(2)
    assert {(e.annotator, e.class_id) for e in events} == {
        ("maria", world.classes[0].id),
        ("jonas", world.classes[1].id),
    }
    world.page.locator(".notice", has_text="jonas calls tile_000.png small_intestine").wait_for()
    other.locator(".notice", has_text="maria calls tile_000.png colon").wait_for()
    for page in (world.page, other):
        page.locator(".cell").first.locator(".chip.dispute").wait_for()
    context.close()
