"""Review: where a model is wrong on images it was not trained on, cell by cell."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import and_, exists, func, or_, select
from sqlalchemy.orm import Session

from cnsapp.domain.metrics import evaluate
from cnsapp.domain.names import name_key
from cnsapp.services.class_names import Output, classes_today
from cnsapp.services.images import ImageItem
from cnsapp.services.models import ModelView, as_today, changed_ids, get_model, means
from cnsapp.services.scores import scores_json
from db.models import Image, LabelEvent, Model, Prediction
from db.session import Store

Truth = Literal["trained", "current"]
Only = Literal["all", "wrong", "changed"]
Order = Literal["confidence", "unsure"]
Part = Literal["fold", "test"]  # held out of the model or fold that judged it; locked test set
Cells = list[tuple[int | None, int, int]]  # (label, prediction, how many images)
Ints = NDArray[np.int64]
Key = tuple[object, ...]
_kept: dict[Key, Confusion] = {}


@dataclass(frozen=True)
class Confusion:
    """Counts of label against prediction, with the figures that follow from them.

    `counts[i][j]` are the images labelled ``class_ids[i]`` and predicted ``class_ids[j]``; every
    prediction comes from a fold whose training part left the image out, or all from the locked
    test set: never both. Classes count as they do today: labels and predictions of a class that was
    merged into another are that one's.
    """

    class_ids: list[int]
    names: list[str]
    counts: list[list[int]]
    truth: Truth
    n: int
    n_wrong: int
    n_changed: int  # images whose label is another one now
    n_elsewhere: int  # of today's labels: classes the model does not know, or no label any more
    balanced_accuracy: float | None
    balanced_accuracy_interval: tuple[float, float] | None
    accuracy: float | None
    n_groups: int | None
    scheme: str  # how the folds were cut, in words
    per_class: list[dict[str, Any]]  # as in the metrics of a model


@dataclass(frozen=True)
class ReviewItem(ImageItem):
    """An image with what the model said of it; `cursor` is where the next page starts."""

    prediction_id: int
    predicted_class_id: int
    confidence: float
    label_then: int | None
    label_now: int | None
    changed: bool
    fold: int | None

    @property
    def cursor(self) -> tuple[float, int]:
        """The value of `after` that goes on behind this image."""
        return (self.confidence, self.prediction_id)


def confusion(
    store: Store, *, model_id: int, truth: Truth = "trained", part: Part = "fold"
) -> Confusion:
    """Count label against prediction, with the labels of the training or with those of today.

    Whoever shows the part `test` notes the look first (`services.splits.look`).
    """
    model = get_model(store, model_id=model_id)
    scores = model.metrics if part == "fold" else model.metrics.get("test") or {}
    with store.reading() as session:
        changed = changed_ids(model).where(Prediction.part == part).subquery()
        n_changed = session.scalar(select(func.count()).select_from(changed)) or 0
        merged = [output.class_id for output in model.outputs] != model.class_ids
        if not merged and scores and (truth == "trained" or not n_changed):
            counts, elsewhere = _matrix(_cells(session, model_id, part), model)
            return _shown(model, counts, truth, n_changed, elsewhere, scores, part)
        newest = session.scalar(select(func.max(LabelEvent.id)))
        key = (str(store.root), model_id, truth, part, newest, *model.class_names)
        return _scored_anew(session, model, n_changed, truth, part, key)


def test_split(store: Store, *, model_id: int) -> int | None:
    """Return the split whose locked test set a model has answers for, or None."""
    with store.reading() as session:
        some = select(Prediction.id).where(
            Prediction.model_id == model_id, Prediction.part == "test"
        )
        return session.scalar(select(Model.split_id).where(Model.id == model_id, exists(some)))


def cell_images(
    store: Store,
    *,
    model_id: int,
    true_class: int | None = None,
    predicted_class: int | None = None,
    order: Order = "confidence",
    after: tuple[float, int] | None = None,
    limit: int = 60,
    only: Only = "all",
    truth: Truth = "trained",
    part: Part = "fold",
) -> list[ReviewItem]:
    """Return the images of one cell (None = all of a row or column), most confident ones first.

    `after` is the `cursor` of the last image of the page before; `order="unsure"` turns it round.
    """
    model = get_model(store, model_id=model_id)
    label: Any = Prediction.label_class_id if truth == "trained" else Image.current_class_id
    statement = (
        select(Prediction, Image)
        .join(Image, Image.id == Prediction.image_id)
        .where(Prediction.model_id == model_id, Prediction.part == part)
    )
    if true_class is not None:
        statement = statement.where(means(label, true_class, model))
    if predicted_class is not None:
        statement = statement.where(means(Prediction.class_id, predicted_class, model))
    if only == "wrong":
        said = as_today(Prediction.class_id, model)
        statement = statement.where(as_today(label, model) != said)
    if only == "changed":
        statement = statement.where(Image.id.in_(changed_ids(model)))
    score, key = Prediction.probability, Prediction.id
    if order == "confidence":
        statement = statement.order_by(score.desc(), key.desc())
        if after is not None:
            behind = or_(score < after[0], and_(score == after[0], key < after[1]))
            statement = statement.where(behind)
    else:
        statement = statement.order_by(score, key)
        if after is not None:
            behind = or_(score > after[0], and_(score == after[0], key > after[1]))
            statement = statement.where(behind)
    with store.reading() as session:
        today = _by_class(model)
        return [_item(p, image, today) for p, image in session.execute(statement.limit(limit))]


def class_names(store: Store, *, model_id: int) -> dict[int, str]:
    """Return the names of all classes of the model's project by id, for badges in a gallery."""
    project_id = get_model(store, model_id=model_id).project_id
    with store.reading() as session:
        return {i: there.name for i, there in classes_today(session, project_id).items()}


def _cells(session: Session, model_id: int, part: Part) -> Cells:
    rows = session.execute(
        select(Prediction.label_class_id, Prediction.class_id, func.count())
        .where(Prediction.model_id == model_id, Prediction.part == part)
        .group_by(Prediction.label_class_id, Prediction.class_id)
    )
    return [(label_id, class_id, n) for label_id, class_id, n in rows]


def _by_class(model: ModelView) -> dict[int, Output]:
    """Return what each class counts as: those of the model, and what they were merged into."""
    found = {output.class_id: output for output in model.outputs}
    for output in model.outputs:
        found.update({model.class_ids[place]: output for place in output.places})
    return found


def _places(model: ModelView) -> dict[int | None, int]:
    """Return the row and column of each class in the matrix."""
    order = {output.class_id: k for k, output in enumerate(model.outputs)}
    return {i: order[output.class_id] for i, output in _by_class(model).items()}


def _labels(
    session: Session, model: ModelView, truth: Truth, part: Part
) -> tuple[Ints, Ints, list[str | None]]:
    """Return label, prediction (as places in the matrix) and group of every image."""
    label: Any = Prediction.label_class_id if truth == "trained" else Image.current_class_id
    statement = (
        select(Image.group_key, label, Prediction.class_id, func.count())
        .join(Prediction, Prediction.image_id == Image.id)
        .where(Prediction.model_id == model.id, Prediction.part == part)
        .group_by(Image.group_key, label, Prediction.class_id)
    )
    if truth == "current":
        statement = statement.where(Image.current_state == "label")
    place = _places(model)
    rows = session.execute(statement)
    cells = [(g, place[a], place[b], n) for g, a, b, n in rows if a in place and b in place]
    n = [cell[3] for cell in cells]
    true = np.repeat(np.array([cell[1] for cell in cells], dtype=np.int64), n)
    said = np.repeat(np.array([cell[2] for cell in cells], dtype=np.int64), n)
    folded = {group: name_key(group) for group, *_ in cells if group}  # “P07” and “p07” are one
    return true, said, [folded.get(cell[0] or "") for cell in cells for _ in range(cell[3])]


def _matrix(cells: Cells, model: ModelView) -> tuple[Ints, int]:
    place, n_classes = _places(model), len(model.outputs)
    counts = np.zeros((n_classes, n_classes), dtype=np.int64)
    elsewhere = 0
    for label_id, class_id, n in cells:
        if label_id in place and class_id in place:
            counts[place[label_id], place[class_id]] += n
        else:
            elsewhere += n
    return counts, elsewhere


def _item(prediction: Prediction, image: Image, today: Mapping[int, Output]) -> ReviewItem:
    now = image.current_class_id if image.current_state == "label" else None
    label, predicted = today.get(prediction.label_class_id or 0), today.get(prediction.class_id)
    then = label.class_id if label else prediction.label_class_id
    expected = None if label and label.deleted else then
    return ReviewItem(
        id=image.id,
        sha256=image.sha256,
        name=image.file_name,
        width=image.width,
        height=image.height,
        group=image.group_key,
        state=image.current_state,
        class_id=image.current_class_id,
        rev=image.current_event_id or 0,
        seen=image.seen,
        um_per_px=image.facts.get("um_per_px"),
        channels=image.facts.get("channels", 1),
        prediction_id=prediction.id,
        predicted_class_id=predicted.class_id if predicted else prediction.class_id,
        confidence=prediction.probability,
        label_then=then,
        label_now=now,
        changed=now != expected,
        fold=prediction.fold,
    )


def _shown(
    model: ModelView,
    counts: Ints,
    truth: Truth,
    n_changed: int,
    n_elsewhere: int,
    scores: dict[str, Any],
    part: Part,
) -> Confusion:
    interval = scores.get("balanced_accuracy_interval")
    names = {output.class_id: output.name for output in model.outputs}
    return Confusion(
        class_ids=list(names),
        names=list(names.values()),
        counts=counts.tolist(),
        truth=truth,
        n=int(counts.sum()),
        n_wrong=int(counts.sum() - np.trace(counts)),
        n_changed=n_changed,
        n_elsewhere=n_elsewhere,
        balanced_accuracy=scores.get("balanced_accuracy"),
        balanced_accuracy_interval=(interval[0], interval[1]) if interval else None,
        accuracy=scores.get("accuracy"),
        n_groups=scores.get("n_groups"),
        scheme=str(model.metrics.get("scheme", "")) if part == "fold" else "locked test set",
        per_class=[
            {**row, "name": names.get(row["class_id"], row["name"])}
            for row in scores.get("per_class", [])
        ],
    )


def _scored_anew(
    session: Session, model: ModelView, n_changed: int, truth: Truth, part: Part, key: Key
) -> Confusion:
    """Score the same predictions against other labels or classes; kept until the next label."""
    known = _kept.get(key)  # one look: other people's pages run beside this one
    if known is not None:
        return known
    true, said, groups = _labels(session, model, truth, part)
    found = evaluate(true, said, len(model.outputs), groups)
    ids = [output.class_id for output in model.outputs]
    scores = scores_json(found, ids, [output.name for output in model.outputs])
    counts = np.array(found.confusion, dtype=np.int64)
    of_part = select(func.count()).where(Prediction.model_id == model.id, Prediction.part == part)
    n_elsewhere = (session.scalar(of_part) or 0) - found.n
    made = _shown(model, counts, truth, n_changed, n_elsewhere, scores, part)
    _kept.clear()  # one is enough: the next label makes it stale
    _kept[key] = made
    return made
