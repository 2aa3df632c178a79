"""What may be asked for of a model's maps: kinds, their settings, classes; and by which names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import select

from cnsapp.bootstrap import App
from cnsapp.domain.backbones import BackboneFacts, timm_facts
from cnsapp.domain.maps import (
    EVERYWHERE,
    METHODS,
    Offer,
    check_method,
    check_offered,
    clean_settings,
    legend,
    offered,
)
from cnsapp.domain.names import name_key
from cnsapp.errors import CnsError, InvalidInputError
from cnsapp.services.images import reading_rule
from cnsapp.services.map_files import read_look, reading_sign
from cnsapp.services.models import ModelView, get_model
from cnsapp.services.own_labels import own_words
from cnsapp.weights_files import get_facts
from db.models import Image, Prediction
from db.queries import chunks

PREDICTED, LABEL = "predicted", "label"  # of an image; instead of one class for all images
Target = int | str


def methods() -> list[tuple[str, str, str]]:
    """Return the kinds of map that are valid for every model, as (id, title, note)."""
    return [(m.id, m.title, m.note) for m in METHODS if m.where == EVERYWHERE]


def methods_for(app: App, *, model_id: int) -> list[Offer]:
    """Return every kind of map, with one sentence why it is not offered for a model, or ""."""
    model = get_model(app.store, model_id=model_id)
    return offered(*_network(app, model))


def _network(app: App, model: ModelView) -> tuple[BackboneFacts, str, bool | None, bool | None]:
    """Return facts of the network, kind of the head, and what the worker saw of its ReLUs."""
    look = read_look(app.store, model.sha256) or {}
    try:
        facts = get_facts(model.backbone, app.store.path("weights"))
    except CnsError:  # the card of a lab's own weights is gone; a fine-tuned model does without
        facts = timm_facts(model.backbone)
    head = str(look.get("head") or model.metrics.get("head", "linear"))
    return facts, head, look.get("relu_layers_only"), look.get("relu_layers_shared")


def checked_settings(
    app: App, model: ModelView, method: str, settings: Mapping[str, Any] | None
) -> dict[str, Any]:
    """Return all settings of a method that is valid for a model."""
    check_method(method)
    check_offered(method, *_network(app, model))
    return clean_settings(method, settings)


def reading_of(app: App, model: ModelView) -> str:
    """Return the sign of how images are read for a model: as when it was trained."""
    stored = model.settings.get("reading")
    if stored is None:
        stored = reading_rule(app.store, project_id=model.project_id).as_json()
    return reading_sign(stored)


def target_of(model: ModelView, target_class: int | None) -> int | None:
    """Return a class of today as the model itself names it; raise when it knows no such class."""
    if target_class is None:
        return None
    found = _output_for(model, target_class)
    if found not in model.class_ids:
        raise InvalidInputError(
            f"The model “{model.name}” does not know this class.",
            "There is no evidence for it to show.",
            f"Choose one of: {', '.join(output.name for output in model.outputs)}.",
        )
    return found


def _output_for(model: ModelView, class_id: int) -> int:
    """Return the class by which the model itself answers for a class of today."""
    for output in model.outputs:
        if output.class_id == class_id and class_id not in model.class_ids:
            return model.class_ids[output.places[0]]
    return class_id


def targets_of(
    app: App,
    *,
    model_id: int,
    image_ids: Sequence[int],
    wanted: Sequence[Target],
    only: str | None = None,
) -> dict[int, list[int | None]]:
    """Return for each image the classes that its maps are for, in order and each once.

    Parameters
    ----------
    wanted
        Classes of today; `PREDICTED` is what the model said when it had not seen the image (None
        where it was not asked then: what the model says now), `LABEL` its label, where the model
        knows that class.
    only
        Take this person's labels alone, as if nobody else had labelled.
    """
    model = get_model(app.store, model_id=model_id)
    known = {output.class_id for output in model.outputs}
    said: dict[int, int] = {}
    labels: dict[int, int | None] = {}
    with app.store.reading() as session:
        for part in chunks(list(dict.fromkeys(image_ids))):
            rows = select(Prediction.image_id, Prediction.class_id).where(
                Prediction.model_id == model_id, Prediction.image_id.in_(part)
            )
            said.update((i, _today(model, c)) for i, c in session.execute(rows))
            if only is None:
                now = select(Image.id, Image.current_class_id).where(Image.id.in_(part))
                labels.update((i, c) for i, c in session.execute(now))
        if only is not None:
            own = own_words(session, list(image_ids), only)
            labels.update((i, word[1]) for i, word in own.items())

    def classes(image_id: int) -> list[int | None]:
        found: list[int | None] = []
        for one in wanted:
            if one == PREDICTED:
                found.append(said.get(image_id))
            elif one == LABEL:
                label = labels.get(image_id)
                found += [label] if label in known else []
            else:
                found.append(int(one))
        return list(dict.fromkeys(found))

    return {image_id: classes(image_id) for image_id in image_ids}


def _today(model: ModelView, class_id: int) -> int:
    """Return the class of today that an answer of the model counts as."""
    for output in model.outputs:
        if class_id in [model.class_ids[place] for place in output.places]:
            return output.class_id
    return class_id


def as_named_today(facts: dict[str, Any] | None, model: ModelView) -> dict[str, Any] | None:
    """Return the facts of a kept map with the names that its classes have now."""
    if facts is None or facts.get("class_ids") != model.class_ids:
        return facts
    then, now = str(facts["class"]), model.class_names[int(facts["target_index"])]
    predicted = model.class_names[model.class_ids.index(facts["predicted_class_id"])]
    facts = facts | {"class": now, "predicted": predicted}
    if now != then:
        said, says = f"speaks for {then}:", f"speaks for {now}:"
        facts["legend"] = facts["legend"] | legend(str(facts["sign"]), now)
        facts["note"] = str(facts["note"]).replace(said, says)
        facts["notes"] = [str(text).replace(said, says) for text in facts["notes"]]
    return facts


def class_named(model: ModelView, name: str) -> int:
    """Return the class of this name as the model itself names it; raise when there is none."""
    for output in model.outputs:
        if name_key(output.name) == name_key(name):
            return _output_for(model, output.class_id)
    raise InvalidInputError(
        f"The model “{model.name}” does not know a class “{name}”.",
        "",
        f"Choose one of: {', '.join(output.name for output in model.outputs)}.",
    )
