"""What a model's answers and labels count as: classes of today, or the organ systems above them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Literal

import numpy as np
from sqlalchemy import select
from sqlalchemy.orm import Session

from cnsapp.domain.names import clean_name, name_key
from cnsapp.domain.resampling import Floats, Ints
from cnsapp.errors import InvalidInputError
from cnsapp.services.class_names import classes_today
from cnsapp.services.models import ModelView
from cnsapp.services.review_rows import Bools, ReviewRows
from db.models import LabelClass

LevelName = Literal["classes", "systems"]
ClassKey = int | str  # of a class its id, of an organ system its name
NOWHERE = -1  # instead of a row of the matrix: no label, or one that the model does not know


@dataclass(frozen=True)
class Level:
    """The rows of a matrix, and which of them each class counts as.

    Attributes
    ----------
    keys, names, colors
        (L,) of each row, in the order of the model's outputs. A system has the colour of its first
        class.
    columns
        (L,) for each row the outputs of the model that mean it.
    place
        The row of each class id; of merged classes too. Others have none.
    """

    name: LevelName
    keys: list[ClassKey]
    names: list[str]
    colors: list[str]
    columns: list[list[int]]
    place: Mapping[int, int]

    def places(self, class_ids: Ints) -> Ints:
        """Return the row (N,) that each class counts as, or `NOWHERE`."""
        size = max([0, *self.place, *class_ids.max(initial=0, keepdims=True).tolist()]) + 1
        table = np.full(size, NOWHERE, np.int64)
        for class_id, row in self.place.items():
            table[class_id] = row
        return np.asarray(table[class_ids], np.int64)

    def probabilities(self, table: Floats) -> Floats:
        """Return the probabilities (N, L) of the rows: those of the outputs that mean it, added."""
        found = np.empty((len(table), len(self.keys)))
        for row, columns in enumerate(self.columns):
            found[:, row] = table[:, columns[0]] if len(columns) == 1 else table[:, columns].sum(1)
        return found


def read_level(session: Session, model: ModelView, name: LevelName) -> Level:
    """Return the classes that a model can answer today, or their systems.

    A class without a parent is a system of its own. At the level of systems a label counts as soon
    as the model knows its system, also where it does not know the class.

    Raises
    ------
    InvalidInputError
        There is no such level.
    """
    if name not in ("classes", "systems"):
        raise InvalidInputError(f"There is no level “{name}”: classes or systems.")
    today = classes_today(session, model.project_id)
    parents: dict[int, str | None] = dict(
        session.execute(
            select(LabelClass.id, LabelClass.parent).where(
                LabelClass.project_id == model.project_id
            )
        ).all()
    )
    counts_as = {i: there.counts_as for i, there in today.items() if there.counts_as is not None}
    rows = _Rows(name)
    row_of_class: dict[int, int] = {}
    for output in model.outputs:
        system = clean_name(parents.get(output.class_id) or "") or output.name
        key: ClassKey = output.class_id if name == "classes" else system
        row = rows.add(key, output.name if name == "classes" else system, output.color)
        rows.columns[row] += output.places
        row_of_class[output.class_id] = row
        row_of_class.update({model.class_ids[at]: row for at in output.places})
    for class_id, target in counts_as.items():
        if target in row_of_class:
            row_of_class.setdefault(class_id, row_of_class[target])
        elif name == "systems":
            own = clean_name(parents.get(target) or "") or today[target].own_name
            if (there := rows.find(own)) is not None:
                row_of_class[class_id] = there
    return Level(name, rows.keys, rows.names, rows.colors, rows.columns, row_of_class)


class _Rows:
    """The rows of a matrix while they are collected; systems are one where they read alike."""

    def __init__(self, level: LevelName) -> None:
        self.level = level
        self.keys: list[ClassKey] = []
        self.names: list[str] = []
        self.colors: list[str] = []
        self.columns: list[list[int]] = []
        self._at: dict[ClassKey, int] = {}

    def _folded(self, key: ClassKey) -> ClassKey:
        return name_key(key) if isinstance(key, str) else key

    def find(self, key: ClassKey) -> int | None:
        return self._at.get(self._folded(key))

    def add(self, key: ClassKey, name: str, color: str) -> int:
        row = self._at.setdefault(self._folded(key), len(self.keys))
        if row == len(self.keys):
            self.keys.append(key)
            self.names.append(name)
            self.colors.append(color)
            self.columns.append([])
        return row


@dataclass(frozen=True)
class Judged:
    """What the predictions of a part come to at a level, held against these labels.

    Attributes
    ----------
    label, said
        (N,) row of the label and of the answer, or `NOWHERE`.
    sure
        (N,) probability of what was said, 0 to 1.
    changed
        (N,) whether the image is labelled otherwise now than at training, as a class; that a class
        was renamed, merged or deleted since is no change.
    """

    level: Level
    rows: ReviewRows
    label: Ints
    said: Ints
    sure: Floats
    changed: Bools
    probabilities: Floats  # (N, L)

    def only(self, places: Ints) -> Judged:
        """Return those of these places alone."""
        rows = replace(
            self.rows,
            **{
                f.name: getattr(self.rows, f.name)[places]
                for f in fields(self.rows)
                if f.name != "marker"
            },
        )
        return Judged(
            self.level,
            rows,
            self.label[places],
            self.said[places],
            self.sure[places],
            self.changed[places],
            self.probabilities[places],
        )

    @property
    def counts(self) -> Bools:
        """Which images (N,) the matrix counts: in use, with a label that the model knows."""
        return np.asarray((self.label >= 0) & (self.said >= 0) & self.rows.in_use)

    @property
    def loss(self) -> Floats:
        """Return (N,) -ln of the label's probability, 0 to inf; NaN where there is none."""
        there = self.label >= 0
        p = np.full(len(there), np.nan)
        p[there] = self.probabilities[np.flatnonzero(there), self.label[there]]
        with np.errstate(divide="ignore"):
            return np.asarray(-np.log(p) + 0.0, float)

    @property
    def margin(self) -> Floats:
        """Return (N,) the likeliest less the second likeliest, 0 to 1; NaN where there is none."""
        if self.probabilities.shape[1] < 2:
            return np.full(len(self.label), np.nan)
        best = np.partition(self.probabilities, -2, axis=1)
        return np.asarray(best[:, -1] - best[:, -2], float)

    @property
    def entropy(self) -> Floats:
        """Return (N,) the entropy of the probabilities in nats, 0 to ln L; NaN without them."""
        p = self.probabilities
        logs = np.log(np.where(p > 0, p, 1.0))
        return np.asarray(-(p * logs).sum(1) + 0.0, float)


def judge(
    session: Session,
    model: ModelView,
    rows: ReviewRows,
    level: LevelName,
    truth: str,
) -> Judged:
    """Hold a model's predictions against the labels of the training or those of today.

    Raises
    ------
    InvalidInputError
        There is no such level, or labels other than `trained` and `current` are asked for.
    """
    if truth not in ("trained", "current"):
        raise InvalidInputError(f"There are no labels “{truth}”: trained or current.")
    found = read_level(session, model, level)
    p = found.probabilities(rows.probabilities)
    said = found.places(rows.said)
    sure = np.where(said >= 0, p[np.arange(len(said)), said], np.nan)
    return Judged(
        level=found,
        rows=rows,
        label=found.places(rows.then if truth == "trained" else rows.now),
        said=said,
        sure=np.where(np.isnan(sure), rows.sure, sure),
        changed=_changed(session, model, rows),
        probabilities=p,
    )


def _changed(
    session: Session,
    model: ModelView,
    rows: ReviewRows,
) -> Bools:
    """Return (N,) whether today's label is another class than that of the training."""
    today = classes_today(session, model.project_id)
    size = max([0, *today, int(rows.then.max(initial=0)), int(rows.now.max(initial=0))]) + 1
    means = np.arange(size)
    for class_id, there in today.items():
        means[class_id] = there.counts_as or 0  # a class that is gone: no label
    return np.asarray(means[rows.then] != means[rows.now], bool)
