"""Deciding about a suspected label: label events, stored once however often they are sent."""

from __future__ import annotations

from typing import Any

from sqlalchemy import select

from cnsapp.errors import InvalidInputError, NotFoundError
from cnsapp.services.images import get_image
from cnsapp.services.labels import Receipt, record_events
from cnsapp.services.models import ModelView, get_model
from db.models import LabelEvent, Prediction
from db.session import Store


def confirm(
    store: Store,
    *,
    model_id: int,
    image_id: int,
    who: str,
    client: str,
    seq: int,
    rev: int | None = None,
) -> Receipt:
    """Say that a suspected label is right: the same label again, by this person.

    Parameters
    ----------
    client, seq
        Name the decision: sent again, it is stored once.
    rev
        `image.rev` of the item that the person saw; None does not check it.

    Raises
    ------
    NotFoundError
        No such model, or the image is not among those that the model was held out of.
    InvalidInputError
        The image has no class now, or somebody else decided since (`rev`), or the name is none.
    """
    model = _held_out(store, model_id, image_id)
    sent = _class_sent(store, image_id, client, seq)
    if sent is not None:
        return _record(store, model, who, _act(image_id, sent, client, seq))
    _check_rev(store, image_id, rev)
    image = get_image(store, image_id=image_id)
    if image.state != "label" or image.class_id is None:
        raise InvalidInputError(
            f"{image.name} has no label now that could be confirmed.",
            "Somebody took it back, or is unsure.",
            "Give it a class instead.",
        )
    return _record(store, model, who, _act(image_id, image.class_id, client, seq))


def correct(
    store: Store,
    *,
    model_id: int,
    image_id: int,
    class_id: int,
    who: str,
    client: str,
    seq: int,
    rev: int | None = None,
) -> Receipt:
    """Give a suspected image another class; see `confirm` for `client`, `seq` and `rev`.

    A class that was merged is stored as it is named, and counts as what it was merged into.

    Raises
    ------
    NotFoundError
        No such model, or the image is not among those that the model was held out of.
    InvalidInputError
        Somebody else decided since (`rev`), the class is not in the project, or the name is none.
    """
    model = _held_out(store, model_id, image_id)
    if _class_sent(store, image_id, client, seq) is None:
        _check_rev(store, image_id, rev)
    return _record(store, model, who, _act(image_id, class_id, client, seq))


def leave_unsure(
    store: Store,
    *,
    model_id: int,
    image_id: int,
    who: str,
    client: str,
    seq: int,
    rev: int | None = None,
) -> Receipt:
    """Say that nobody can tell what a suspected image is; see `confirm`, which raises the same."""
    model = _held_out(store, model_id, image_id)
    with store.reading() as session:
        sent = session.scalar(
            select(LabelEvent.id).where(LabelEvent.client == client, LabelEvent.seq == seq)
        )
    if sent is None:
        _check_rev(store, image_id, rev)
    act = _act(image_id, 0, client, seq) | {"kind": "unsure"}
    return _record(store, model, who, act)


def _held_out(store: Store, model_id: int, image_id: int) -> ModelView:
    """Return the model; raise NotFoundError unless the image was held out of it."""
    model = get_model(store, model_id=model_id)
    with store.reading() as session:
        found = session.scalar(
            select(Prediction.id).where(
                Prediction.model_id == model.id, Prediction.image_id == image_id,
                Prediction.part == "fold",
            )
        )  # fmt: skip
    if found is None:
        raise NotFoundError(
            f"Image {image_id} is not among those that model “{model.name}” was held out of.",
            "Only of these it can be said whether the label is likely.",
            "Open the list of label errors again.",
        )
    return model


def _class_sent(store: Store, image_id: int, client: str, seq: int) -> int | None:
    """Return the class that is stored under this number for this image already, or None."""
    with store.reading() as session:
        return session.scalar(
            select(LabelEvent.class_id).where(
                LabelEvent.client == client, LabelEvent.seq == seq, LabelEvent.image_id == image_id
            )
        )


def _check_rev(store: Store, image_id: int, rev: int | None) -> None:
    image = get_image(store, image_id=image_id)
    if rev is not None and image.rev != rev:
        raise InvalidInputError(
            f"Somebody decided about {image.name} a moment ago.",
            "The label that you saw is not the one it has now.",
            "Look at it again, then confirm or correct what it is called now.",
        )


def _act(image_id: int, class_id: int, client: str, seq: int) -> dict[str, Any]:
    return {
        "kind": "label", "client": client, "seq": seq, "image_id": image_id, "class_id": class_id,
        "source": "review", "action": f"{client}:{seq}",
    }  # fmt: skip


def _record(store: Store, model: ModelView, who: str, act: dict[str, Any]) -> Receipt:
    receipt = record_events(store, project_id=model.project_id, annotator=who, events=[act])
    if receipt.rejected:
        raise InvalidInputError(
            f"The decision was not stored: {receipt.rejected[0].reason}",
            "",
            "Open the list of label errors again.",
        )
    return receipt
