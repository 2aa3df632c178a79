"""The Matrix view of Review as Streamlit draws it: filters, systems, orders, blind, frozen list."""

from __future__ import annotations

import json
from typing import Any

import pytest

from cnsapp.bootstrap import App
from cnsapp.services import classes, exclusion, label_settings, metadata
from cnsapp.services.label_import import import_labels
from cnsapp.services.review_filter import ORDERS
from cnsapp.ui.labeller import PAGE_SIZE
from cnsapp.ui.review_gallery import ORDER_NAMES
from tests.integration.worlds import World, add_model, make_world, relabel
from tests.ui.conftest import Screen


def data_of(screen: Screen, name: str) -> dict[str, Any]:
    """Return what the page hands to a component of ours."""
    protos = [one.proto for one in screen.test.get("bidi_component")]
    found = next(p for p in protos if p.component_name == f"cnsapp_{name}")
    value: dict[str, Any] = json.loads(found.json)
    return value


def counts(screen: Screen) -> list[list[int]]:
    found: list[list[int]] = data_of(screen, "matrix")["counts"]
    return found


def listed(screen: Screen) -> list[int]:
    return [row["id"] for row in data_of(screen, "labeller")["images"]]


def review(screen: Screen, model_id: int, **more: object) -> Screen:
    shown = screen.open("review", model=model_id, who="Ann", **more)
    assert shown.errors == []
    return shown


def test_the_matrix_counts_and_the_gallery_begins_with_the_wrong_ones(
    screen: Screen, world: World, model_id: int
) -> None:
    review(screen, model_id)
    assert counts(screen) == [[11, 1], [1, 11]]
    assert listed(screen) == [world.image_ids[0][0], world.image_ids[1][0]]  # the surer one first
    shown = data_of(screen, "matrix")
    assert (shown["show"], shown["selected"]) == ("counts", None)


def test_a_link_brings_cell_order_and_shares_back(
    screen: Screen, world: World, model_id: int
) -> None:
    liver, _ = world.class_ids
    link = {"cell": f"{liver}-", "order": "Highest loss", "cells": "% of prediction (precision)"}
    review(screen, model_id, **link)
    assert "Labelled liver" in screen.words
    shown = data_of(screen, "matrix")
    assert (shown["show"], shown["selected"]) == ("column", [0, None])
    # the one taken for colon at 0.9 has lost most; then the least sure of those that are right
    expected = [world.image_ids[0][0], *reversed(world.image_ids[0][1:])]
    assert listed(screen) == expected


def test_every_order_of_the_service_is_offered(screen: Screen, model_id: int) -> None:
    review(screen, model_id)
    assert set(ORDER_NAMES.values()) == set(ORDERS)
    assert screen.test.selectbox(key="order").options == list(ORDER_NAMES)


def test_a_filter_narrows_matrix_and_gallery_and_is_taken_away(
    screen: Screen, world: World, model_id: int
) -> None:
    review(screen, model_id, group="patient 1", show="All")
    # every third image from the first on is of patient 1, the two wrong ones among them
    assert counts(screen) == [[3, 1], [1, 3]]
    mine = [i for ids in world.image_ids[:2] for i in ids[::3]]
    assert sorted(listed(screen)) == mine
    assert "8 of 24 images" in screen.words
    assert screen.test.button(key="drop_group").label == "Group patient 1"
    screen.press("drop_group")
    assert counts(screen) == [[11, 1], [1, 11]]
    assert not screen.has("drop_group")
    assert screen.test.selectbox(key="group").value == "Any group"


def test_a_column_of_metadata_with_a_strange_name_and_value_is_a_filter(
    app: App, screen: Screen, world: World, model_id: int
) -> None:
    first = world.image_ids[0][0]
    with app.store.writing() as session:
        metadata.put_values(session, world.project_id, {first: {"sc*nner_<b>": ("A & B", None)}})
    review(screen, model_id, **{"meta_sc*nner_<b>": "A & B"})
    assert counts(screen) == [[0, 1], [0, 0]]
    assert "1 of 24 images" in screen.words
    assert screen.test.button(key="drop_meta_sc*nner_<b>").label == r"sc\*nner\_\<b\>\: A & B"


def test_several_filters_are_cleared_at_once(screen: Screen, model_id: int) -> None:
    review(screen, model_id, find="class0", sure_from="0.85")
    assert counts(screen) == [[5, 1], [0, 0]]  # 0.90, 0.89, … 0.85, the surest being wrong
    assert screen.test.button(key="drop_sure_from").label == "Confidence 0.85 to 1.00"
    screen.press("drop_all")
    assert counts(screen) == [[11, 1], [1, 11]]


def test_filters_that_let_nothing_through_say_so(screen: Screen, model_id: int) -> None:
    review(screen, model_id, find="nowhere")
    assert "No image that counts in the matrix comes through these filters." in screen.words
    assert "0 of 24 images" in screen.words
    assert screen.has("drop_find")


def test_a_model_without_held_out_answers_says_so(screen: Screen, world: World) -> None:
    review(screen, add_model(world, []))
    assert "No image could be held out" in screen.words


def test_organ_systems_are_offered_where_classes_have_them_and_keep_the_cell(
    app: App, screen: Screen
) -> None:
    world = make_world(app, {"colon": 3, "liver": 3, "spleen": 3})
    colon, liver, spleen = world.class_ids
    said = [(i, colon, liver, 0.8) for i in world.image_ids[0]]
    said += [(i, liver, spleen, 0.7) for i in world.image_ids[1]]
    said += [(i, spleen, spleen, 0.9) for i in world.image_ids[2]]
    model_id = add_model(world, said)
    review(screen, model_id)
    assert not [c for c in screen.test.get("button_group") if "level" in str(c.proto.id)]
    for class_id, parent in ((colon, "digestive"), (liver, "digestive"), (spleen, "lymphatic")):
        classes.change_class(app.store, class_id=class_id, who="ann", parent=parent)
    again = Screen()
    review(again, model_id, level="Organ systems", cell=f"{liver}-{spleen}")
    assert data_of(again, "matrix")["names"] == ["digestive", "lymphatic"]
    assert counts(again) == [[3, 3], [0, 3]]
    assert data_of(again, "matrix")["selected"] == [0, 1]
    assert "Labelled digestive, predicted as lymphatic" in again.words
    assert listed(again) == world.image_ids[1][::-1] or listed(again) == world.image_ids[1]
    assert all(
        row["badge"]["text"].startswith("lymphatic") for row in data_of(again, "labeller")["images"]
    )


def test_corrections_do_not_show_at_training_and_the_switch_counts_them(
    screen: Screen, world: World, model_id: int
) -> None:
    relabel(world, world.image_ids[0][0], world.class_ids[1])
    review(screen, model_id)
    assert counts(screen) == [[11, 1], [1, 11]]
    assert "1 label was changed since the training; that does not show here." in screen.words
    screen.press("review_today")
    assert screen.test.segmented_control(key="review_truth").value == "Labels of today"
    assert counts(screen) == [[11, 0], [1, 12]]
    assert "does not show here" not in screen.words


@pytest.mark.parametrize("view", ["Label errors", "What changed"])
def test_views_of_today_s_labels_offer_no_choice_of_labels_and_keep_it(
    screen: Screen, model_id: int, view: str
) -> None:
    def offered() -> list[str]:
        keys = [control.key for control in screen.test.segmented_control]
        return [key for key in keys if key == "review_truth"]

    review(screen, model_id, review_truth="Labels of today")
    assert offered()
    screen.test.segmented_control(key="view").set_value(view).run()
    assert not offered() and not screen.errors
    screen.test.segmented_control(key="view").set_value("Matrix").run()
    assert screen.test.segmented_control(key="review_truth").value == "Labels of today"


def test_the_opened_list_keeps_its_images_until_it_is_shown_anew(
    screen: Screen, world: World, model_id: int
) -> None:
    first, second = world.image_ids[0][0], world.image_ids[1][0]
    review(screen, model_id, review_truth="Labels of today")
    assert listed(screen) == [first, second]
    assert not screen.has("review_anew")
    relabel(world, first, world.class_ids[1])  # as it was predicted: wrong no more
    screen.test.session_state["review_labeller"] = None  # the runner draws no component
    screen.test.run()
    assert listed(screen) == [first, second]
    assert data_of(screen, "labeller")["images"][0]["class_id"] == world.class_ids[1]
    assert counts(screen) == [[11, 0], [1, 12]]
    assert "1 image has left this list since it was opened." in screen.words
    screen.press("review_anew")
    assert listed(screen) == [second]
    assert not screen.has("review_anew")


def test_excluded_images_leave_matrix_and_gallery(
    app: App, screen: Screen, world: World, model_id: int
) -> None:
    exclusion.exclude(
        app.store, project_id=world.project_id, image_ids=[world.image_ids[0][0]], who="Ann",
        reason="blurred",
    )  # fmt: skip
    review(screen, model_id)
    assert counts(screen) == [[11, 0], [1, 11]]
    assert listed(screen) == [world.image_ids[1][0]]


def test_pages_are_turned_by_place_and_named_in_the_address(app: App, screen: Screen) -> None:
    world = make_world(app, {"liver": PAGE_SIZE + 3, "colon": 1}, side=8)
    liver, colon = world.class_ids
    model_id = add_model(world, [(i, liver, colon, 0.9) for i in world.image_ids[0]])
    review(screen, model_id)
    assert listed(screen) == world.image_ids[0][:PAGE_SIZE]
    assert f"1 to {PAGE_SIZE} of {PAGE_SIZE + 3} images" in screen.words
    screen.press("review_next")
    rest = world.image_ids[0][PAGE_SIZE:]
    assert listed(screen) == rest
    last = world.image_ids[0][PAGE_SIZE - 1]
    assert screen.test.query_params["after"] == f"-0.9:{last}"
    linked = Screen()
    review(linked, model_id, after=f"-0.9:{last}")
    assert listed(linked) == rest
    linked.press("review_previous")
    assert listed(linked) == world.image_ids[0][:PAGE_SIZE]


@pytest.mark.parametrize("place", ["x", ":1", "nan:1", "0.5:" + "9" * 40])
def test_a_strange_place_in_the_address_does_no_harm(
    screen: Screen, model_id: int, place: str
) -> None:
    review(screen, model_id, after=place, sure_from="much", order="?", fold="Fold 9")
    assert len(listed(screen)) == 2


def test_a_blind_project_tells_no_label_of_others(
    app: App, screen: Screen, world: World, model_id: int
) -> None:
    liver, colon = world.class_ids
    label_settings.change_settings(app.store, project_id=world.project_id, blind=True)
    own = world.image_ids[1][3]
    import_labels(
        app.store, project_id=world.project_id, rows=[(own, colon)], annotator="Ann",
        source="review",
    )  # fmt: skip
    review(screen, model_id, cell=f"{liver}-{colon}", group="patient 1")
    assert "This project is labelled blindly" in screen.words
    assert "Predicted as colon" in screen.words
    assert "Labelled liver" not in screen.words
    shown = data_of(screen, "labeller")
    assert shown["blind"] is True
    assert shown["whose"] == "mine"
    assert {row["badge"]["tone"] for row in shown["images"]} == {"plain"}
    labelled = {row["id"]: row["class_id"] for row in shown["images"] if row["state"] != "none"}
    assert labelled == {own: colon}
    # of few images the matrix would tell the labels: it counts all of them
    assert sum(map(sum, counts(screen))) == 24
    names = [one.proto.component_name for one in screen.test.get("bidi_component")]
    assert "cnsapp_follow" not in names  # a number that moved would tell, too
    assert "Highest loss" not in screen.test.selectbox(key="order").options


def test_in_a_blind_project_no_count_moves_with_ones_own_label(
    app: App, screen: Screen, world: World, model_id: int
) -> None:
    liver = world.class_ids[0]
    label_settings.change_settings(app.store, project_id=world.project_id, blind=True)
    before = counts(review(screen, model_id, review_truth="Labels of today"))
    import_labels(
        app.store, project_id=world.project_id, rows=[(world.image_ids[1][3], liver)],
        annotator="Ann", source="review",
    )  # fmt: skip
    review(screen, model_id, review_truth="Labels of today")
    assert counts(screen) == before
    assert "changed" not in screen.words
    assert "review_truth" not in [one.key for one in screen.test.segmented_control]
