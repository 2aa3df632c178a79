"""Explain: what the model makes of one image, and where the evidence lies."""

from __future__ import annotations

from dataclasses import dataclass

import streamlit as st

from cnsapp.errors import NotFoundError
from cnsapp.services import explaining, images, models, projects, review
from cnsapp.services.explaining import Probabilities
from cnsapp.services.images import ImageDetail, ImageFilter, ImageItem
from cnsapp.services.models import ModelView
from cnsapp.services.projects import ClassView, ProjectView
from cnsapp.services.review import ReviewItem
from cnsapp.ui import explain_view, frame, words
from cnsapp.ui.components import Panel, Tile, gallery, overlay, thumb_url, view_url
from cnsapp.ui.explain_view import MapState, MapWish
from cnsapp.ui.frame import Here
from cnsapp.ui.locked import may_look
from cnsapp.ui.pickers import MODEL, choose_model, number_in_address
from cnsapp.ui.reading_note import say_read_otherwise
from cnsapp.ui.tables import Bar, bars, class_name

IMAGE = "image"
STRIP = 40
WRONG, EVERY = "Wrong ones", "All images"
MISLEADS = (
    "The map shows where evidence for a class came from, as coarse as the layer it is read from. "
    "It does not show why, and it may mislead: look whether it moves with the tissue."
)


@dataclass(frozen=True)
class Asked:
    """What the page is asked for."""

    model: ModelView
    image: ImageDetail
    classes: dict[int, ClassView]
    method: str
    target: int | None  # None: the predicted class


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
    with st.container(horizontal=True, vertical_alignment="bottom", key="explain_top"):
        model = choose_model(found, key="explain_model", width=400)
        items = choose_list(here, project, model)
    say_read_otherwise(here, model)
    image_id = chosen_image(here, project, items)
    if image_id is None:
        st.info("No image is in this list. Choose another one above.")
        return
    strip(items, image_id, classes)
    image = images.get_image(here.app.store, image_id=image_id)
    explain(here, model, image, classes, [item.id for item in items])


def choose_list(here: Here, project: ProjectView, model: ModelView) -> list[ImageItem]:
    """Draw which images the strip shows, and return them."""
    kind = st.segmented_control(
        "Images", [WRONG, EVERY], key="explain_list", default=WRONG, required=True
    )
    part = st.text_input("File name contains", key="explain_find", width=220)
    if kind == WRONG and not (part or "").strip():
        wrong = review.cell_images(here.app.store, model_id=model.id, only="wrong", limit=STRIP)
        return [*wrong]
    page = images.list_images(
        here.app.store,
        project_id=project.id,
        filter=ImageFilter(text=(part or "").strip()),
        limit=STRIP,
    )
    return page.items


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


def strip(items: list[ImageItem], current: int, classes: dict[int, ClassView]) -> None:
    """Draw the list as a strip of thumbnails; a click shows that image."""
    if items:
        gallery(
            [tile(item, classes) for item in items],
            key="explain_strip",
            selected=current,
            side=92,
            row=True,
            on_open=show,
        )


def show(image_id: int) -> None:
    """Put an image into the address."""
    st.query_params[IMAGE] = str(image_id)


def tile(item: ImageItem, classes: dict[int, ClassView]) -> Tile:
    """Return an image as the strip shows it: its label, and what the model said."""
    label = classes.get(item.class_id) if item.class_id is not None else None
    note = f"{item.confidence:.2f}" if isinstance(item, ReviewItem) else ""
    return Tile(
        item.id,
        thumb_url(item.id, item.version),
        item.name,
        label.name if label else "",
        label.color if label else "",
        note,
    )


def explain(
    here: Here,
    model: ModelView,
    image: ImageDetail,
    classes: dict[int, ClassView],
    order: list[int],
) -> None:
    """Draw one image: its maps large, and beside them how sure the model is."""
    locked = explaining.in_test_set(here.app.store, model_id=model.id, image_id=image.id)
    if locked and not may_look(here, model, "Explain"):
        return
    left, right = st.columns([3, 2], gap="large")
    with right:
        walk(image.id, order)
        label = classes.get(image.class_id) if image.class_id is not None else None
        st.markdown(f"**{frame.plain(image.name)}**")
        target, method, compare = choose_map(model, classes)
    sure = explaining.probabilities(here.app.store, model_id=model.id, image_id=image.id)
    if target is None and sure is not None and sure.values:
        target = sure.values[0][0].id  # what it said when it had not seen the image
    asked = Asked(model, image, classes, method, target)
    first = explain_view.get_map(here.app, wish_of(asked), requested_by=here.annotator)
    if sure is None and first.facts is not None:
        sure = explaining.map_probabilities(here.app.store, model_id=model.id, facts=first.facts)
    predicted = sure.values[0][0] if sure and sure.values else None
    second = None
    if compare and label is not None and predicted is not None:
        differs = label.id != predicted.id and asked.target == predicted.id
        if differs and label.id in {output.class_id for output in model.outputs}:
            second = MapWish(model.id, image.id, method, label.id)
    with right:
        verdict(label, predicted)
        if sure is not None:
            likely(sure, target)
        st.caption(f":material/info: {MISLEADS}")
    with left:
        maps(here, asked, first, second, label)


def wish_of(asked: Asked) -> MapWish:
    """Return the map that the page shows first."""
    return MapWish(asked.model.id, asked.image.id, asked.method, asked.target)


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


def choose_map(model: ModelView, classes: dict[int, ClassView]) -> tuple[int | None, str, bool]:
    """Draw which class and which method the map is for, and whether to compare with the label."""
    known = [output.class_id for output in model.outputs]
    targets: list[int | None] = [None, *(i for i in known if i in classes)]
    methods = {m[0]: m for m in explaining.methods()}
    one, two = st.columns(2)
    with one:
        target = st.selectbox(
            "Evidence for",
            targets,
            format_func=lambda i: "the predicted class" if i is None else classes[i].name,
            key=f"explain_target_{model.id}",
        )
    with two:
        method = st.selectbox(
            "Method",
            list(methods),
            format_func=lambda m: methods[m][1],
            key="explain_method",
            help=" ".join(f"{title}: {note}" for _, title, note in methods.values()),
        )
    compare = st.checkbox(
        "Also the map for its label, when they differ",
        value=True,
        key="explain_compare",
    )
    return target, method or "gradcam", compare


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


def maps(
    here: Here,
    asked: Asked,
    first: MapState,
    second: MapWish | None,
    label: ClassView | None,
) -> None:
    """Draw the image with its map, or two side by side when label and prediction differ."""
    name = asked.classes[asked.target].name if asked.target in asked.classes else ""
    if not name and first.facts is not None:
        name = str(first.facts.get("class", ""))
    title = f"Evidence for {name}" if name else "Evidence for the predicted class"
    shown = [(first, wish_of(asked), title)]
    if second is not None and label is not None:
        other = explain_view.get_map(here.app, second, requested_by=here.annotator)
        shown.append((other, second, f"Evidence for {label.name} (its label)"))
    overlay(
        key="explain_overlay",
        image_url=view_url(asked.image.id, asked.image.version),
        width=asked.image.width,
        height=asked.image.height,
        name=asked.image.name,
        panels=[Panel(words_, state.url, note_of(state)) for state, _, words_ in shown],
    )
    for at, (state, wish, _) in enumerate(shown):
        if state.error:
            st.error(f"**The map could not be made.**\n\n{frame.plain(state.error)}")
            st.button(
                "Try again",
                key=f"explain_again_{at}",
                on_click=explain_view.try_again,
                args=(wish,),
            )
        elif state.facts is not None and state.facts.get("note"):
            st.caption(frame.plain(str(state.facts["note"])))
    waiting = [state.job_id for state, _, _ in shown if state.job_id is not None]
    if waiting:
        explain_view.watch(here.app, waiting)


def note_of(state: MapState) -> str:
    """Return the small words beside a map's title."""
    if state.error:
        return "failed"
    if state.facts is None:
        return "being made…"
    chance = state.facts.get("probability")
    return f"{words.percent(float(chance), 1)} by the final model" if chance is not None else ""


main()
