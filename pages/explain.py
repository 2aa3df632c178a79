"""Explain: what the model makes of one image, and where the evidence lies."""

from __future__ import annotations

import streamlit as st

from cnsapp.errors import NotFoundError
from cnsapp.services import explaining, images, label_settings, models, own_labels, projects
from cnsapp.services.explaining import Probabilities
from cnsapp.services.images import ImageDetail, ImageItem
from cnsapp.services.models import ModelView
from cnsapp.services.projects import ClassView, ProjectView
from cnsapp.ui import explain_choices, explain_list, explain_maps, explain_view, frame, words
from cnsapp.ui.explain_choices import Choices
from cnsapp.ui.explain_list import IMAGE, Listed, show
from cnsapp.ui.explain_maps import Shown
from cnsapp.ui.frame import Here
from cnsapp.ui.locked import may_look
from cnsapp.ui.pickers import MODEL, choose_model, number_in_address
from cnsapp.ui.reading_note import say_read_otherwise
from cnsapp.ui.tables import Bar, bars, class_name

MISLEADS = (
    "A map shows where evidence for a class came from, as coarse as the layer it is read from. "
    "It does not show why, and it may mislead: look whether it moves with the tissue."
)


def main() -> None:
    """Draw the page."""
    here = frame.current()
    frame.page_header("Explain", "How sure the model is of an image, and what it looked at.")
    project = frame.need_project(here, "Explain shows what a project's model looked at.")
    found = models.list_models(here.app.store, project_id=project.id, also=number_in_address(MODEL))
    if not found:
        frame.empty_state(
            "Explain shows what a model looked at in an image.",
            "No model was trained in this project yet.",
            "pages/train.py",
            "Go to Train",
        )
    classes = {c.id: c for c in projects.list_classes(here.app.store, project_id=project.id)}
    blind = label_settings.read_settings(here.app.store, project_id=project.id).blind
    with st.container(horizontal=True, vertical_alignment="bottom", key="explain_top"):
        model = choose_model(found, key="explain_model", width=380)
        listed = explain_list.choose_list(here, model, blind=blind)
        place_of_many = st.container(width="content")
    say_read_otherwise(here, model)
    explain_list.queue(here, project)
    strip = st.container()
    image_id = chosen_image(here, project, listed.items)
    if image_id is None:
        st.info("No image is in this list. Choose another one above.")
        return
    image = images.get_image(here.app.store, image_id=image_id)
    if blind:
        image = own_labels.labels_of(here.app.store, [image], here.annotator)[0]
    choices = explain(here, model, image, classes, listed)
    with place_of_many:
        explain_list.many(here, model, listed, choices)
    with strip:
        there = explain_list.with_maps(here, model, listed, choices)
        explain_list.strip(listed, image_id, classes, there)


def chosen_image(here: Here, project: ProjectView, items: list[ImageItem]) -> int | None:
    """Return the image of the address when it is of the project, else the first of the list."""
    asked = number_in_address(IMAGE)
    if asked is not None:
        try:
            image = images.get_image(here.app.store, image_id=asked)
        except NotFoundError as error:
            frame.show_error(error)
        else:
            if image.project_id == project.id:
                return asked
    return items[0].id if items else None


def explain(
    here: Here,
    model: ModelView,
    image: ImageDetail,
    classes: dict[int, ClassView],
    listed: Listed,
) -> Choices:
    """Draw one image: its maps large, and beside them how sure the model is."""
    offers = explaining.methods_for(here.app, model_id=model.id)
    left, right = st.columns([11, 4], gap="large")
    with left:
        choices = explain_choices.choose(model, offers, classes)
    locked = explaining.in_test_set(here.app.store, model_id=model.id, image_id=image.id)
    if locked:
        with left:
            if not may_look(here, model, "Explain"):
                return choices
    targets = explain_list.targets_of(here, model, [image.id], choices, blind=listed.blind)[
        image.id
    ]
    shown = explain_maps.ask(here, model, image, targets, choices)
    sure = explaining.probabilities(here.app.store, model_id=model.id, image_id=image.id)
    first = next((one.state.facts for one in shown if one.state.facts is not None), None)
    if sure is None and first is not None:
        sure = explaining.map_probabilities(here.app.store, model_id=model.id, facts=first)
    predicted = sure.values[0][0] if sure and sure.values else None
    label = classes.get(image.class_id) if image.class_id is not None else None
    with right:
        walk(image.id, [item.id for item in listed.items])
        st.markdown(f"**{frame.plain(image.name)}**")
        verdict(label, predicted)
        if sure is not None:
            likely(sure, targets[0] if targets else None)
        waits(here, shown)
        st.caption(f":material/info: {MISLEADS}")
        explain_choices.why_not(offers)
    with left:
        if not targets:
            st.info("This image has no label that the model knows. Choose another class above.")
            return choices
        named = {
            "predicted": predicted.id if predicted else None,
            "its label": label.id if label else None,
        }
        n_wanted = len(targets) * len(choices.methods)
        explain_maps.draw(here, model, image, classes, shown, named, n_wanted)
    return choices


def waits(here: Here, shown: list[Shown]) -> None:
    """Draw how far the maps that are being made or checked are."""
    waiting = [one.state.job_id for one in shown if one.state.job_id is not None]
    if waiting:
        explain_view.watch(here.app, waiting)


def walk(image_id: int, order: list[int]) -> None:
    """Draw the buttons to the image before and behind in the list."""
    at = order.index(image_id) if image_id in order else -1
    with st.container(horizontal=True, vertical_alignment="center", key="explain_walk"):
        for name, icon, key, to in (
            ("Previous", "chevron_left", "explain_previous", at - 1),
            ("Next", "chevron_right", "explain_next", at + 1),
        ):
            there = 0 <= to < len(order)
            st.button(
                name,
                icon=f":material/{icon}:",
                key=key,
                shortcut="ArrowLeft" if to < at else "ArrowRight",
                disabled=not there,
                on_click=show,
                args=(order[to] if there else 0,),
            )
        if at >= 0:
            st.caption(f"{at + 1} of {len(order)}", width="content")


def verdict(label: ClassView | None, predicted: ClassView | None) -> None:
    """Say what the image is labelled and predicted as, and whether they agree."""
    if predicted is None:
        return
    said = frame.plain(predicted.name)
    if label is None:
        st.markdown(f"Predicted as **{said}**; no label yet.")
    elif label.id == predicted.id:
        st.markdown(f":material/check: Labelled and predicted as **{said}**.")
    else:
        st.markdown(
            f":material/close: Labelled **{frame.plain(label.name)}**, predicted as **{said}**."
        )


def likely(sure: Probabilities, target: int | None) -> None:
    """Draw the probabilities as bars, the likeliest first, and say where they come from."""
    bars(
        [
            Bar(class_name(c), p, words.percent(p, 1), c.color, chosen=c.id == target or k == 0)
            for k, (c, p) in enumerate(sure.values[:12])
        ]
    )
    st.caption(f"Probabilities {sure.source}.")


main()
