"""All that is known of one image beside a model's answer: for the big view, in one call."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from cnsapp.domain.names import name_key
from cnsapp.errors import NotFoundError
from cnsapp.services import explaining, looks, metadata, notes
from cnsapp.services.class_names import ClassToday, classes_today
from cnsapp.services.image_history import ImageHistory, image_history
from cnsapp.services.images import ImageDetail, get_image, items_in_order
from cnsapp.services.models import ModelView, get_model
from cnsapp.services.projects import ClassView
from cnsapp.services.review import Part, Truth
from cnsapp.services.review_filter import ReviewFilter
from cnsapp.services.review_list import Listed, list_review
from cnsapp.services.review_own import as_own, own_rows, own_word, without_label
from db.models import Image, LabelEvent, Prediction
from db.queries import chunks
from db.session import Store

NEIGHBOURS = 5
LOOK_AT = (50, 500, 5000)  # likest images among which labelled ones are sought
CAVEAT = (
    "Neighbours are images that look alike to a pretrained network. The model has learnt from many "
    "of them, and those of the same group say little that is new: what they are called is a hint, "
    "not a second opinion."
)


@dataclass(frozen=True)
class Said:
    """What an image is called now: a state, a class where the state is label; by whom and when."""

    state: str
    class_id: int | None
    name: str | None
    who: str | None
    at: datetime | None
    source: str | None


@dataclass(frozen=True)
class Neighbour:
    """A labelled image that looks alike.

    Attributes
    ----------
    similarity
        1 is the same picture, 0 unrelated.
    same_group
        Whether both are of one group; None where either has none.
    learnt
        Whether the network that judged the image had learnt from this neighbour; None: not known.
    same_file
        The same bytes under another name.
    """

    image_id: int
    name: str
    class_id: int
    class_name: str
    color: str
    similarity: float
    same_group: bool | None
    learnt: bool | None
    same_file: bool


@dataclass(frozen=True)
class ReviewImage:
    """An image, what it is called, what the model said of it, and what may be pressed.

    Attributes
    ----------
    image
        With its group (`image.group`), tags and facts; `image.status` is `ok` or `excluded`.
    label
        What it is called now.
    answer
        Figures of the prediction, as in a list; None where the model has none, or the image is
        excluded.
    probabilities
        Of every class of today, the likeliest first; empty without a prediction.
    how
        What the prediction is, in words: out of fold, which fold, or locked test set.
    history, notes, metadata
        What happened to it, what people wrote of it, and what the lab's tables say.
    neighbours, neighbours_note
        Labelled images that look alike; the note says what they are worth, or why there are none.
    may
        What may be pressed: relabel, unsure, exclude, restore, note.
    """

    model: ModelView
    image: ImageDetail
    label: Said
    part: Part | None
    answer: Listed | None
    probabilities: list[tuple[ClassView, float]]
    how: str
    history: ImageHistory
    notes: list[notes.Note]
    metadata: list[tuple[str, str]]
    neighbours: list[Neighbour]
    neighbours_note: str
    may: frozenset[str]


def review_image(
    store: Store,
    *,
    model_id: int,
    image_id: int,
    truth: Truth = "trained",
    n_neighbours: int = NEIGHBOURS,
    only: str | None = None,
) -> ReviewImage:
    """Return all facts of an image of the model's project.

    Whoever shows an image of the locked test set notes the look first (`services.splits.look`).

    Parameters
    ----------
    truth
        The labels that loss and right or wrong are of.
    only
        What this one person said, did and wrote alone, where others are hidden (blind reading):
        no label of another, nothing that follows from one, and no neighbours but those that this
        person labelled.

    Raises
    ------
    NotFoundError
        There is no such model, or no such image in its project.
    """
    model = get_model(store, model_id=model_id)
    image = get_image(store, image_id=image_id)
    if image.project_id != model.project_id:
        raise NotFoundError(f"There is no image number {image_id} in the model's project.")
    with store.reading() as session:
        today = classes_today(session, model.project_id)
        word = None if only is None else own_word(session, image_id, only)
        beside = items_in_order(session, [image_id])[0]
        image = replace(image, tags=beside.tags, noted=beside.noted, suggestion=beside.suggestion)
        image = image if only is None else as_own(image, word)
        label = _said(session, image, today)
        stored = session.scalar(
            select(Prediction.part).where(
                Prediction.model_id == model_id, Prediction.image_id == image_id
            )
        )
    part: Part | None = "test" if stored == "test" else "fold" if stored else None
    found = explaining.probabilities(store, model_id=model_id, image_id=image_id)
    near, note = _neighbours(store, model, image, today, n_neighbours, only)
    answer = _answer(store, model_id, image_id, part, truth) if part else None
    if answer is not None and only is not None:
        answer = without_label(answer, word)
    return ReviewImage(
        model=model,
        image=image,
        label=label,
        part=part,
        answer=answer,
        probabilities=found.values if found else [],
        how=found.source
        if found
        else "The model has no answer for this image that it had not learnt from.",
        history=image_history(store, image_id=image_id, only=only),
        notes=notes.notes_of(store, image_id=image_id, who=only),
        metadata=metadata.get_values(store, image_id=image_id),
        neighbours=near,
        neighbours_note=note,
        may=_may(image),
    )


def _may(image: ImageDetail) -> frozenset[str]:
    """Return what may be pressed; `labels`, `exclusion` and `notes` are the verbs behind it."""
    if image.status == "ok":
        return frozenset({"relabel", "unsure", "exclude", "note"})
    return frozenset({"restore", "note"} if image.status == "excluded" else {"note"})


def _said(session: Session, image: ImageDetail, today: dict[int, ClassToday]) -> Said:
    event = session.get(LabelEvent, image.rev) if image.rev else None
    known = image.state in ("label", "skip", "unsure")
    there = today.get(image.class_id or 0)
    return Said(
        state=image.state,
        class_id=image.class_id,
        name=there.own_name if there else None,
        who=event.annotator if event and known else None,
        at=event.created_at if event and known else None,
        source=event.source if event and known else None,
    )


def _answer(store: Store, model_id: int, image_id: int, part: Part, truth: Truth) -> Listed | None:
    """Return the image as a list holds it; there is none of an image that is not in use."""
    page = list_review(
        store,
        model_id=model_id,
        wanted=ReviewFilter(part=part, truth=truth),
        order="image",
        after=(0.0, image_id - 1),
        limit=1,
    )
    return page.items[0] if page.items and page.items[0].id == image_id else None


def _neighbours(
    store: Store,
    model: ModelView,
    image: ImageDetail,
    today: dict[int, ClassToday],
    n: int,
    only: str | None,
) -> tuple[list[Neighbour], str]:
    """Return the labelled images that look most alike, and what they are worth in a sentence."""
    found: list[Neighbour] = []
    if n < 1:
        return found, ""
    for at_most in LOOK_AT:
        try:
            near = looks.similar(
                store, project_id=model.project_id, image_ids=[image.id], n=at_most
            )
        except NotFoundError as error:
            return [], str(error)
        found = _labelled(store, model, image, today, near, only)[:n]
        if len(found) == n or len(near) < at_most:
            break
    return found, CAVEAT if found else "No labelled image looks like this one."


def _labelled(
    store: Store,
    model: ModelView,
    image: ImageDetail,
    today: dict[int, ClassToday],
    near: Sequence[looks.Match],
    only: str | None,
) -> list[Neighbour]:
    ids = [match.image_id for match in near]
    with store.reading() as session:
        rows = _rows_of(session, ids, only)
        judged = _judged(session, model, [*rows, image.id])
    mine = judged.get(image.id)
    found = []
    for match in near:
        row = rows.get(match.image_id)
        there = today.get(row.current_class_id) if row else None
        if row is None or there is None or there.counts_as is None:
            continue
        counts_as = today[there.counts_as]
        found.append(
            Neighbour(
                image_id=row.id,
                name=row.file_name,
                class_id=counts_as.id,
                class_name=counts_as.own_name,
                color=counts_as.color,
                similarity=match.similarity,
                same_group=_same(row.group_key, image.group),
                learnt=_learnt(mine, judged.get(row.id)),
                same_file=row.sha256 == image.sha256,
            )
        )
    return found


def _rows_of(session: Session, image_ids: Sequence[int], only: str | None) -> dict[int, Any]:
    if only is not None:
        return {r.id: r for part in chunks(image_ids) for r in own_rows(session, part, only)}
    columns = (Image.id, Image.file_name, Image.sha256, Image.group_key, Image.current_class_id)
    return {
        row.id: row
        for part in chunks(image_ids)
        for row in session.execute(
            select(*columns).where(Image.id.in_(part), Image.current_state == "label")
        )
    }


def _judged(
    session: Session, model: ModelView, image_ids: Sequence[int]
) -> dict[int, tuple[str, int | None]]:
    """Return the part and fold in which a model judged images."""
    return {
        image_id: (part, number)
        for some in chunks(image_ids)
        for image_id, part, number in session.execute(
            select(Prediction.image_id, Prediction.part, Prediction.fold).where(
                Prediction.model_id == model.id, Prediction.image_id.in_(some)
            )
        )
    }


def _same(one: str | None, other: str | None) -> bool | None:
    if not one or not other:
        return None
    return name_key(one) == name_key(other)


def _learnt(
    mine: tuple[str, int | None] | None, other: tuple[str, int | None] | None
) -> bool | None:
    """Return whether what judged an image had learnt from another one.

    Each fold's network left out its own fold; all left out the test set. Where one network judged
    what was held out, all that it judged was held out.
    """
    if mine is None or other is None:
        return None
    if other[0] == "test":
        return False
    if mine[0] == "test":
        return other[1] is not None  # held out of the one network that was scored
    return mine[1] != other[1]
