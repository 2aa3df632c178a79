"""All figures that a reviewer asks for, from the predictions that a model's row came with.

Scores, curves, calibration and abstention of one part of the predictions, and the same scores by
any column. What was computed is kept until labels, classes or groups change.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from sqlalchemy import Select, func, select
from sqlalchemy.orm import Session

from cnsapp.domain.abstaining import Abstention, abstention
from cnsapp.domain.calibration import (
    Reliability,
    cross_fitted_probabilities,
    reliability,
    softmax,
    unscaled,
)
from cnsapp.domain.curves import Curves, one_vs_rest
from cnsapp.domain.metrics import Evaluation, evaluate
from cnsapp.domain.names import name_key
from cnsapp.domain.resampling import Floats, Ints, unit_numbers
from cnsapp.domain.slices import Slice, by_value
from cnsapp.errors import InvalidInputError
from cnsapp.services.evaluation_rows import Rows, read_rows
from cnsapp.services.evaluation_values import Column, list_columns, read_values
from cnsapp.services.kept import Kept
from cnsapp.services.models import ModelView, get_model
from cnsapp.services.review import Truth
from cnsapp.services.split_uses import look
from db.models import ClassEvent, ImageEvent, LabelClass, LabelEvent, Prediction
from db.session import Store

__all__ = ["Column", "Evaluated", "Part", "columns_of", "evaluate_model", "parts_of"]

Part = Literal["fold", "test"]
PARTS: tuple[Part, ...] = ("fold", "test")
MOST_KEPT = 3  # evaluations in memory, the latest ones: of 100,000 images 20 MB each
VALIDATION = "validation images"  # what a network's temperature was fitted on
PSEUDO_FOLDS = 5  # where all images were held out at once, the temperature is fitted across these
_kept: Kept[Any] = Kept(3 * MOST_KEPT)  # rows, figures and slices of each


@dataclass(frozen=True)
class Evaluated:
    """The figures of one part of a model's predictions.

    Classes count as they do today. `system_names` are the organ systems where any class has one; a
    class without a system is one of its own. `before` and `after` are the reliability at
    temperature 1, and as the model answers: each fold scaled by the temperature of the others, a
    network by its own, which was fitted on validation images; the test set by the model's own.
    `slices` are there when a column was asked for.
    """

    model_id: int
    model_name: str
    part: Part
    truth: Truth
    class_ids: list[int]
    names: list[str]
    colors: list[str]
    system_names: list[str] | None  # of each class
    n_elsewhere: int  # of a class the model does not know, or without a label now
    n_without: int  # answers whose probabilities are not there (or not numbers)
    scheme: str
    seed: int
    temperature: float
    scores: Evaluation
    curves: Curves
    before: Reliability
    after: Reliability
    abstention: Abstention
    by: str | None = None
    by_title: str | None = None
    slices: list[Slice] | None = None


def evaluate_model(
    store: Store,
    model_id: int,
    part: Part = "fold",
    truth: Truth = "trained",
    by: str | None = None,
    *,
    who: str = "",
    project_id: int | None = None,
) -> Evaluated:
    """Return the figures of a model's predictions.

    Parameters
    ----------
    part
        `fold`: images held out of the fold that judged them. `test`: the locked test set.
    truth
        `trained`: the labels of the training. `current`: those of today.
    by
        A column to slice by, as `list_columns` names them.
    who
        Who looks: a look at the test set is counted among its uses.

    Raises
    ------
    NotFoundError
        No such model.
    InvalidInputError
        The part, the truth or the column is unknown, or the model has no predictions of this part.
    """
    if part not in PARTS or truth not in ("trained", "current"):
        raise InvalidInputError(
            f"“{part}” held against “{truth}” can not be evaluated.",
            "",
            "Parts are fold and test; labels are trained or current.",
        )
    model = get_model(store, model_id=model_id, project_id=project_id)
    with store.reading() as session:
        if not session.scalar(_any(model_id, part)):
            raise _nothing_to_score(model, part)
        column = None if by is None else _column(session, model, by)
        sign = (str(store.root), *_sign(session, model, truth), part)
        rows = _kept.get(("rows", *sign), lambda: read_rows(session, model, part, truth))
        values = None if column is None else read_values(session, model, column, rows)
        of_project = LabelClass.project_id == model.project_id
        classes = session.execute(select(LabelClass.id, LabelClass.parent).where(of_project)).all()
        parents: dict[int, str | None] = {row.id: row.parent for row in classes}
    if part == "test" and model.split_id is not None:
        look(store, split_id=model.split_id, model_id=model.id, who=who, purpose="evaluated")
    systems = _systems(model, parents)
    found: Evaluated = _kept.get(
        ("all", *sign, systems), lambda: _evaluated(model, rows, part, truth, systems)
    )
    if column is None or values is None:
        return found
    slices = _kept.get(
        ("by", *sign, column.name, hash(tuple(values))),
        lambda: by_value(
            rows.true, rows.said, len(model.outputs), values, rows.together, seed=model.seed
        ),
    )
    return replace(found, by=column.name, by_title=column.title, slices=slices)


def parts_of(store: Store, *, model_id: int) -> list[Part]:
    """Return the parts that a model has predictions of."""
    with store.reading() as session:
        return [part for part in PARTS if session.scalar(_any(model_id, part))]


def columns_of(store: Store, *, project_id: int) -> list[Column]:
    """Return the columns that figures of a project can be looked at by."""
    with store.reading() as session:
        return list_columns(session, project_id)


def _any(model_id: int, part: Part) -> Select[Any]:
    return (
        select(Prediction.id)
        .where(Prediction.model_id == model_id, Prediction.part == part)
        .limit(1)
    )


def _nothing_to_score(model: ModelView, part: Part) -> InvalidInputError:
    if part == "test":
        return InvalidInputError(
            f"Model “{model.name}” was not scored on a locked test set.",
            "There was none when it was trained, so its figures are those of held-out images.",
            "Lock a test set (Train, or the command `split`), then train again.",
        )
    return InvalidInputError(
        f"Model “{model.name}” has no predictions of images that it had not seen.",
        "No figure can be made without them.",
        "Label more images, or images of more groups, then train again.",
    )


def _column(session: Session, model: ModelView, by: str) -> Column:
    columns = list_columns(session, model.project_id)
    wanted = by.strip().casefold()
    for column in columns:
        if column.name.casefold() == wanted:
            return column
    raise InvalidInputError(
        f"There is no column “{by}” to look at figures by.",
        "",
        f"There are: {', '.join(column.name for column in columns)}.",
    )


def _sign(session: Session, model: ModelView, truth: Truth) -> tuple[Hashable, ...]:
    """Return what the figures depend on: when any of it changes, they are made anew."""
    newest_label = session.scalar(select(func.max(LabelEvent.id))) if truth == "current" else None
    of_project = [
        session.scalar(select(func.max(table.id)).where(table.project_id == model.project_id))
        for table in (ClassEvent, ImageEvent)
    ]
    outputs = tuple((o.class_id, o.name, o.color, o.places) for o in model.outputs)
    return (model.id, truth, newest_label, *of_project, outputs, _temperature(model))


def _systems(model: ModelView, parents: dict[int, str | None]) -> tuple[str, ...] | None:
    """Return the organ system of each class, or None where no class has one."""
    of = [(parents.get(output.class_id) or "").strip() for output in model.outputs]
    if not any(of):
        return None
    return tuple(parent or output.name for parent, output in zip(of, model.outputs, strict=True))


def _evaluated(
    model: ModelView, rows: Rows, part: Part, truth: Truth, systems: tuple[str, ...] | None
) -> Evaluated:
    k, seed = len(model.outputs), model.seed
    there = np.asarray(~np.isnan(rows.probabilities).any(axis=1))
    complete = bool(there.all()) and k > 1
    true, said, p = rows.true[there], rows.said[there], rows.probabilities[there]
    groups = [group for group, has in zip(rows.together, there.tolist(), strict=True) if has]
    temperature, folds = _temperature(model), rows.folds[there]
    logits = unscaled(p, 1.0) * _temperatures(model, part, folds)[:, None]
    before = softmax(logits) if len(p) else p
    as_answered = part == "test" or model.metrics.get("temperature_fitted_on") == VALIDATION
    after = p if as_answered else _cross_fitted(logits, true, folds, groups)
    numbers = None if systems is None else _numbered(systems)
    sure = p[np.arange(len(p)), said]
    return Evaluated(
        model_id=model.id,
        model_name=model.name,
        part=part,
        truth=truth,
        class_ids=[output.class_id for output in model.outputs],
        names=[output.name for output in model.outputs],
        colors=[output.color for output in model.outputs],
        system_names=None if systems is None else list(systems),
        n_elsewhere=rows.n_elsewhere,
        n_without=int((~there).sum()),
        scheme=str(model.metrics.get("scheme") or ""),
        seed=seed,
        temperature=temperature,
        scores=evaluate(
            rows.true, rows.said, k, rows.together, seed,
            second=_second(p, said) if complete else None, systems=numbers,
        ),
        curves=one_vs_rest(p, true, groups, seed=seed),
        before=reliability(before, true, groups, seed=seed),
        after=reliability(after, true, groups, seed=seed),
        abstention=abstention(sure, said == true, groups, seed=seed),
    )  # fmt: skip


def _temperature(model: ModelView) -> float:
    value = model.metrics.get("temperature")
    good = isinstance(value, int | float) and not isinstance(value, bool) and value > 0
    return float(value) if good and value is not None else 1.0


def _temperatures(model: ModelView, part: Part, folds: Ints) -> Floats:
    """Return (N,) the temperature that each image was answered at.

    Each fold's network has its own; a model of heads, and the published network, one for all.
    """
    found = np.full(len(folds), _temperature(model))
    for network in model.metrics.get("networks") or [] if part == "fold" else []:
        fold, value = network.get("fold"), network.get("temperature")
        if fold is not None and isinstance(value, int | float) and value > 0:
            found[folds == fold] = value
    return found


def _cross_fitted(logits: Floats, y: Ints, folds: Ints, groups: Sequence[str | None]) -> Floats:
    """Return probabilities whose temperature was fitted to other images (and groups)."""
    if not len(y):
        return logits
    if len(np.unique(folds)) < 2:
        folds = unit_numbers(groups, len(y)) % PSEUDO_FOLDS
    return cross_fitted_probabilities(logits, y, folds)


def _second(p: Floats, said: Ints) -> Ints:
    """Return the likeliest class beside the one that was said."""
    others = p.copy()
    others[np.arange(len(p)), said] = -1.0
    return np.asarray(others.argmax(1), np.int64)


def _numbered(systems: Sequence[str]) -> list[int]:
    order: dict[str, int] = {}
    return [order.setdefault(name_key(system), len(order)) for system in systems]
