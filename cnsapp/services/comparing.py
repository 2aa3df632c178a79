"""Compare models of a project on the images that all of them judged without having seen them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from cnsapp.domain.compare import Compared, Pair, compare
from cnsapp.domain.together import known_groups, tied_groups
from cnsapp.errors import InvalidInputError
from cnsapp.services.class_names import Output
from cnsapp.services.comparing_words import PART_WORDS, Part, notes_of
from cnsapp.services.images import ImageItem, items_in_order
from cnsapp.services.models import ModelView, get_model, told_apart
from cnsapp.services.split_rows import fold, picture_keys
from cnsapp.services.split_uses import look
from db.models import Image, ImageEvent, LabelEvent, Prediction
from db.session import Store

Which = Literal["only_first", "only_second", "neither"]
Ints = NDArray[np.int64]

MOST_MODELS = 12
ELSEWHERE = -1  # an answer that is none of the common classes
_kept: dict[tuple[object, ...], Comparison] = {}


@dataclass(frozen=True)
class Comparison:
    """Some models on the same images, held against the labels of today.

    Attributes
    ----------
    classes
        Those that all the models know, as they are called today.
    found
        The figures; its models come in the order of `models`.
    n_judged
        Images that each model judged in this part, common or not.
    notes
        What a reader of the figures must know, in sentences.
    """

    models: list[ModelView]
    part: Part
    classes: list[Output]
    found: Compared
    n_judged: list[int]
    notes: list[str]
    image_ids: Ints = field(repr=False)  # (N,)
    true: Ints = field(repr=False)  # (N,) places in `classes`
    answers: Ints = field(repr=False)  # (M, N) class ids as they count today
    sure: NDArray[np.float32] = field(repr=False)  # (M, N) confidence of the answers

    @property
    def names(self) -> list[str]:
        """What the models are called, each name once."""
        return list(told_apart(self.models).values())

    def pair(self, first: int, second: int) -> Pair:
        """Return what was found of two models, by their places."""
        return next(p for p in self.found.pairs if (p.first, p.second) == (first, second))


@dataclass(frozen=True)
class Judged:
    """An image with what two models said of it."""

    item: ImageItem
    label_id: int
    first_id: int
    first_sure: float
    second_id: int
    second_sure: float


def compare_models(
    store: Store,
    *,
    model_ids: Sequence[int],
    part: Part = "fold",
    project_id: int | None = None,
    who: str = "",
) -> Comparison:
    """Compare models on the images that all of them judged in this part.

    A comparison on the locked test set is a look at it, and counted.

    Raises
    ------
    InvalidInputError
        Fewer than two models, models of several projects, no image in common, or fewer than two
        classes in common.
    NotFoundError
        There is no such model.
    """
    wanted = list(dict.fromkeys(model_ids))
    if not 2 <= len(wanted) <= MOST_MODELS:
        raise InvalidInputError(
            f"{len(wanted)} different models were chosen.",
            "A comparison needs images that two or more models judged.",
            f"Choose 2 to {MOST_MODELS} models.",
        )
    found = [get_model(store, model_id=i, project_id=project_id) for i in wanted]
    if len({model.project_id for model in found}) > 1:
        raise InvalidInputError(
            "The models belong to different projects.",
            "They judged no image in common.",
            "Choose models of one project.",
        )
    if part == "test":
        _note_looks(store, found, who)
    with store.reading() as session:
        key = _key(session, store, found, part)
        known = _kept.get(key)
        if known is not None:
            return known
        made = _compare(session, found, part)
    _kept.clear()  # one is enough: the next label makes it stale
    _kept[key] = made
    return made


def parts_in_common(store: Store, *, model_ids: Sequence[int]) -> list[Part]:
    """Return the parts in which every one of these models judged images."""
    with store.reading() as session:
        return [part for part in PART_WORDS if all(_judged(session, i, part) for i in model_ids)]


def images_apart(
    store: Store,
    comparison: Comparison,
    *,
    first: int,
    second: int,
    which: Which = "only_first",
    start: int = 0,
    limit: int = 60,
) -> list[Judged]:
    """Return images on which two models part, those first of which the wrong one was surest.

    Parameters
    ----------
    first, second
        Places of the two in `comparison.models`.
    which
        Only the first was right, only the second, or neither.
    """
    ids = np.array([c.class_id for c in comparison.classes], dtype=np.int64)
    labels = ids[comparison.true]
    one, two = comparison.answers[first] == labels, comparison.answers[second] == labels
    sure = comparison.sure
    chosen, order = {
        "only_first": (one & ~two, sure[second]),
        "only_second": (two & ~one, sure[first]),
        "neither": (~one & ~two, np.maximum(sure[first], sure[second])),
    }[which]
    rows = np.flatnonzero(chosen)
    rows = rows[np.argsort(-order[rows], kind="stable")][start : start + limit]
    with store.reading() as session:
        items = items_in_order(session, [int(i) for i in comparison.image_ids[rows]])
    by_id = {item.id: item for item in items}
    return [
        Judged(
            by_id[int(comparison.image_ids[row])],
            int(labels[row]),
            int(comparison.answers[first, row]),
            float(sure[first, row]),
            int(comparison.answers[second, row]),
            float(sure[second, row]),
        )
        for row in rows
        if int(comparison.image_ids[row]) in by_id
    ]


def _compare(session: Session, models: list[ModelView], part: Part) -> Comparison:
    classes = _common_classes(models)
    judged = [_judged(session, model.id, part) for model in models]
    ids = reduce(np.intersect1d, [np.array(sorted(rows), np.int64) for rows in judged])
    labels, groups = _labels(session, models[0], part)
    place = {c.class_id: k for k, c in enumerate(classes)}
    kept = [int(i) for i in ids if labels.get(int(i)) in place]
    if not kept:
        raise _nothing_in_common(models, judged, part, len(ids))
    today = [_meanings(model) for model in models]
    answers = np.array(
        [
            [t.get(rows[i][0], ELSEWHERE) for i in kept]
            for t, rows in zip(today, judged, strict=True)
        ],
        dtype=np.int64,
    )
    sure = np.array([[rows[i][1] for i in kept] for rows in judged], np.float32)
    true = np.array([place[labels[i]] for i in kept], dtype=np.int64)
    known = np.array([c.class_id for c in classes], np.int64)
    sorter = np.argsort(known)
    at = sorter[np.searchsorted(known, answers, sorter=sorter).clip(0, len(known) - 1)]
    places = np.where(known[at] == answers, at, ELSEWHERE)
    found = compare(true, places, len(classes), [groups[i] for i in kept])
    return Comparison(
        models=models,
        part=part,
        classes=classes,
        found=found,
        n_judged=[len(rows) for rows in judged],
        notes=notes_of(models, classes, found, part, [len(rows) for rows in judged], len(ids)),
        image_ids=np.array(kept, np.int64),
        true=true,
        answers=answers,
        sure=sure,
    )


def _judged(session: Session, model_id: int, part: Part) -> dict[int, tuple[int, float]]:
    """Return answer and confidence by image."""
    rows = session.execute(
        select(Prediction.image_id, Prediction.class_id, Prediction.probability).where(
            Prediction.model_id == model_id, Prediction.part == part
        )
    )
    return {image_id: (class_id, p) for image_id, class_id, p in rows}


def _labels(
    session: Session, model: ModelView, part: Part
) -> tuple[dict[int, int], dict[int, str | None]]:
    """Return label of today and group of the images that a model judged and that still count.

    Groups that share a picture are one, as in training.
    """
    rows = session.execute(
        select(Image.id, Image.current_class_id, Image.group_key, Image.sha256)
        .join(Prediction, Prediction.image_id == Image.id)
        .where(
            Prediction.model_id == model.id,
            Prediction.part == part,
            Image.status == "ok",
            Image.current_state == "label",
        )
    ).all()
    labels = {i: int(c) for i, c, *_ in rows if c is not None}
    ids, folded = [row[0] for row in rows], dict[str, str]()
    keys = picture_keys(session, model.project_id, ids, [row[3] for row in rows])
    groups, _ = tied_groups([fold(row[2], folded) for row in rows], keys)
    return labels, dict(zip(ids, known_groups(groups) or [None] * len(ids), strict=True))


def _note_looks(store: Store, models: Sequence[ModelView], who: str) -> None:
    for model in models:
        if model.split_id is not None:
            look(store, split_id=model.split_id, model_id=model.id, who=who, purpose="comparison")


def _common_classes(models: Sequence[ModelView]) -> list[Output]:
    known = [{o.class_id for o in model.outputs if not o.deleted} for model in models]
    common = [o for o in models[0].outputs if all(o.class_id in ids for ids in known)]
    if len(common) < 2:
        listed = "; ".join(
            f"“{model.name}” knows {', '.join(o.name for o in model.outputs)}" for model in models
        )
        raise InvalidInputError(
            "The models have fewer than two classes in common.",
            f"{listed}.",
            "Compare models that were trained on the same classes.",
        )
    return common


def _meanings(model: ModelView) -> Mapping[int, int]:
    """Return what the class ids of a model's answers count as today."""
    return {model.class_ids[place]: o.class_id for o in model.outputs for place in o.places}


def _nothing_in_common(
    models: Sequence[ModelView], judged: Sequence[Mapping[int, Any]], part: Part, n_common: int
) -> InvalidInputError:
    counts = ", ".join(
        f"“{model.name}” judged {len(rows):,}" for model, rows in zip(models, judged, strict=True)
    )
    if n_common:
        return InvalidInputError(
            f"{n_common:,} images were judged {PART_WORDS[part]} by all of these models, but none "
            "has a label of today that all of them know.",
            "",
            "Train them again on the labels of today.",
        )
    return InvalidInputError(
        f"No image was judged {PART_WORDS[part]} by all of these models.",
        f"Models can only be compared on the same images: {counts}.",
        "Train both on the same labels and split, or choose other models.",
    )


def _key(
    session: Session, store: Store, models: Sequence[ModelView], part: Part
) -> tuple[object, ...]:
    """Return what a kept comparison depends on."""
    label = session.scalar(select(func.max(LabelEvent.id)))
    image = session.scalar(select(func.max(ImageEvent.id)))
    names = tuple((m.id, m.name, tuple(m.class_names)) for m in models)
    return (str(store.root), part, label, image, *names)
