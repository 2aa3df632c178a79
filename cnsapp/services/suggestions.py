"""Suggestions: what is to be expected of accepting them, and accepting them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select

from cnsapp.domain.metrics import wilson_interval
from cnsapp.errors import InvalidInputError, NotFoundError
from cnsapp.services.bulk import BulkReceipt, label_images
from cnsapp.services.suggestion_runs import Run, newest_in
from db.deciding import class_meanings
from db.models import Image, Suggestion
from db.queries import chunks
from db.session import Store

ENOUGH_AT_RANDOM = 50  # held-out images of the random share that are sure enough


@dataclass(frozen=True)
class Offer:
    """What accepting every suggestion from a confidence on would do.

    `expected` wrong labels among `image_ids`, with the interval of the held-out share `wrong` of
    `n`; None where no held-out image was so sure. `at_random`: those are of the queue's random
    share alone, since images that were chosen because they are hard say too little good.
    """

    threshold: float
    image_ids: list[int]  # the least sure first
    classes: list[int]
    per_class: dict[int, int]
    n: int
    wrong: int
    at_random: bool = False
    expected: float | None = None
    interval: tuple[float, float] | None = None


def offer(
    store: Store,
    *,
    project_id: int,
    threshold: float,
    class_ids: Collection[int] | None = None,
    among: Collection[int] | None = None,
) -> Offer:
    """Return the images without a label whose suggestion is so sure, and what is to be expected.

    Parameters
    ----------
    class_ids
        Only suggestions of these classes; None: of all.
    among
        Only these images; None: all of the project.

    Raises
    ------
    NotFoundError
        No suggestions were made yet.
    InvalidInputError
        The threshold is not a confidence from 0.5 to 1.
    """
    if not 0.5 <= threshold <= 1:
        raise InvalidInputError(
            f"Accept from a confidence of {threshold:g} on.",
            "Below 0.5 a guess is wrong as often as not.",
            "Choose a confidence from 0.5 to 1.",
        )
    with store.reading() as session:
        run = newest_in(session, project_id)
        if run is None:
            raise NotFoundError(
                "There are no suggestions in this project yet.",
                "They are made by themselves when two classes have some labels.",
                "Label a few images of each class first.",
            )
        meanings = class_meanings(session, project_id)
        rows = session.execute(
            select(Suggestion.image_id, Suggestion.class_id)
            .join(Image, Image.id == Suggestion.image_id)
            .where(
                Suggestion.project_id == project_id,
                Suggestion.confidence >= threshold,
                Image.status == "ok",
                Image.current_state == "none",
            )
            .order_by(Suggestion.confidence, Suggestion.image_id)
        ).all()
    found = [(i, meanings.get(c, c)) for i, c in rows if among is None or i in among]
    kept = [(i, c) for i, c in found if c is not None and (class_ids is None or c in class_ids)]
    n, wrong, at_random = _held_out(run, threshold)
    per_class: dict[int, int] = {}
    for _, class_id in kept:
        per_class[class_id] = per_class.get(class_id, 0) + 1
    return Offer(
        threshold=threshold,
        image_ids=[i for i, _ in kept],
        classes=[c for _, c in kept],
        per_class=per_class,
        n=n,
        wrong=wrong,
        at_random=at_random,
        expected=len(kept) * wrong / n if n else None,
        interval=wilson_interval(wrong, n),
    )


def accept(store: Store, offered: Offer, *, project_id: int, annotator: str) -> BulkReceipt:
    """Give every image of an offer its suggested class, as one action that one undo takes back.

    Images that somebody labelled since the offer was made keep their label.
    """
    still = _unlabelled(store, project_id, offered.image_ids)
    pairs = [(i, c) for i, c in zip(offered.image_ids, offered.classes, strict=True) if i in still]
    return label_images(
        store,
        project_id=project_id,
        annotator=annotator,
        image_ids=[i for i, _ in pairs],
        class_id=None,
        classes=[c for _, c in pairs],
        source="suggestion",
        only_open=True,
    )


def _held_out(run: Run, threshold: float) -> tuple[int, int, bool]:
    """Return how many held-out images were so sure, how many of these wrong, if drawn at random.

    Random ones are asked alone where there are enough of them that are so sure.
    """
    n, wrong = _above(run.figures.get("at_random") or {}, threshold)
    if n >= ENOUGH_AT_RANDOM:
        return n, wrong, True
    return *_above(run.figures, threshold), False


def _above(figures: dict[str, Any], threshold: float) -> tuple[int, int]:
    """The figures know some thresholds; the next lower one is asked, which is on the safe side."""
    table = [row for row in figures.get("thresholds", []) if row["threshold"] <= threshold]
    return (int(table[-1]["n"]), int(table[-1]["wrong"])) if table else (0, 0)


def _unlabelled(store: Store, project_id: int, image_ids: Sequence[int]) -> set[int]:
    found: set[int] = set()
    with store.reading() as session:
        for part in chunks(image_ids):
            found.update(
                session.scalars(
                    select(Image.id).where(
                        Image.id.in_(part),
                        Image.project_id == project_id,
                        Image.current_state == "none",
                    )
                )
            )
    return found
