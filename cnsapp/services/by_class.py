"""A model's figures class by class and group by group, for a page that can be printed.

Excluded images never count; classes count as they do today.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any

import numpy as np
from sqlalchemy.orm import Session

from cnsapp.domain.metrics import ClassScore, Evaluation, evaluate
from cnsapp.domain.names import name_key
from cnsapp.domain.resampling import Ints
from cnsapp.domain.slices import REST, Slice, by_value
from cnsapp.domain.together import known_groups
from cnsapp.errors import NotFoundError
from cnsapp.services.images import ImageItem, items_in_order
from cnsapp.services.kept import Kept
from cnsapp.services.models import ModelView, get_model
from cnsapp.services.review import Part, Truth
from cnsapp.services.review_filter import Chosen, ReviewFilter, choose
from cnsapp.services.review_levels import Judged
from cnsapp.services.review_rows import count_pairs, resampled_together
from db.session import Store

MOST_KEPT = 8
SHOWN = 24  # images of a group
_kept: Kept[Any] = Kept(MOST_KEPT)


@dataclass(frozen=True)
class ClassRow:
    """A class with its figures; `taken_for` counts its wrong answers, the most frequent first."""

    class_id: int
    name: str
    color: str
    score: ClassScore
    taken_for: list[tuple[str, int]]


@dataclass(frozen=True)
class GroupRow:
    """A group with its images and right answers, and how it compares with the rest.

    `compared` is None where the group is not among those that are compared (the 60 largest).
    """

    name: str
    n: int
    n_right: int
    compared: Slice | None


@dataclass(frozen=True)
class Figures:
    """The figures of one part of a model's predictions.

    `n_elsewhere`: images without a label now, or of a class that the model does not know.
    """

    rows: list[ClassRow]
    scores: Evaluation
    n_elsewhere: int


@dataclass(frozen=True)
class GroupImage:
    """An image of a group: what it is labelled, what the model said and how surely."""

    image: ImageItem
    label: str
    said: str
    sure: float
    is_right: bool


@dataclass(frozen=True)
class GroupClass:
    """A class within a group and in all others: images and right answers."""

    name: str
    color: str
    n: int
    n_right: int
    n_rest: int
    n_right_rest: int


@dataclass(frozen=True)
class GroupSheet:
    """What is known of one group; `images` hold the wrong ones first, the surest first."""

    row: GroupRow
    classes: list[GroupClass]
    images: list[GroupImage]


@dataclass(frozen=True)
class _Read:
    """Predictions that count, as places among the rows."""

    sign: Hashable
    judged: Judged
    places: Ints
    groups: list[str | None]  # folded
    spelled: dict[str, str]
    together: list[str | None]
    n_elsewhere: int


def figures(
    store: Store, *, model_id: int, part: Part = "fold", truth: Truth = "trained"
) -> Figures:
    """Return the figures of every class.

    Whoever shows the part `test` notes the look first (`services.splits.look`).

    Raises
    ------
    NotFoundError
        There is no such model.
    """
    model = get_model(store, model_id=model_id)
    with store.reading() as session:
        read = _read(session, store, model, part, truth)
    found: Figures = _kept.get(("figures", read.sign), lambda: _figures(read, model.seed))
    return found


def list_groups(
    store: Store, *, model_id: int, part: Part = "fold", truth: Truth = "trained"
) -> list[GroupRow]:
    """Return all groups by name; none where no image has a group. `part` as in `figures`.

    Raises
    ------
    NotFoundError
        There is no such model.
    """
    model = get_model(store, model_id=model_id)
    with store.reading() as session:
        return _groups(_read(session, store, model, part, truth), model.seed)


def group_sheet(
    store: Store, *, model_id: int, group: str, part: Part = "fold", truth: Truth = "trained"
) -> GroupSheet:
    """Return what is known of one group; `group` in any spelling of it.

    Raises
    ------
    NotFoundError
        There is no such model, or it has no predictions of such a group.
    """
    model = get_model(store, model_id=model_id)
    with store.reading() as session:
        read = _read(session, store, model, part, truth)
        rows = _groups(read, model.seed)
        row = next((g for g in rows if name_key(g.name) == name_key(group)), None)
        if row is None:
            raise NotFoundError(
                f"The model “{model.name}” has no counted prediction of group “{group}”.",
                "Its images were excluded, have no label, or the model never judged them.",
                "Choose another group.",
            )
        mine = np.array([g == name_key(group) for g in read.groups], bool)
        return GroupSheet(row, _classes(read, mine), _images(session, read, mine))


def _read(session: Session, store: Store, model: ModelView, part: Part, truth: Truth) -> _Read:
    """Return the predictions that count; read anew only when something happened to them."""
    found = choose(session, store, model, ReviewFilter(part=part, truth=truth))
    sign = (
        str(store.root), model.id, model.sha256, part, truth, found.judged.rows.marker,
        count_pairs(session, model.project_id), tuple(found.judged.level.names),
    )  # fmt: skip
    kept: _Read = _kept.get(
        ("read", sign),
        lambda: _grouped(
            found, sign, resampled_together(session, store, model, part, found.judged.rows)
        ),
    )
    return kept


def _grouped(found: Chosen, sign: Hashable, together: list[str | None]) -> _Read:
    judged = found.judged
    places = found.places[judged.counts[found.places]]
    spelled: dict[str, str] = {}
    groups: list[str | None] = []
    keys = {name: name_key(name) for name in set(judged.rows.groups.tolist()) if name}
    for name in judged.rows.groups[places].tolist():
        key = keys.get(name)
        groups.append(key)
        if key is not None:
            spelled.setdefault(key, name)
    of = [together[i] for i in places.tolist()]
    return _Read(sign, judged, places, groups, spelled, of, len(found.places) - len(places))


def _figures(read: _Read, seed: int) -> Figures:
    level = read.judged.level
    true, said = read.judged.label[read.places], read.judged.said[read.places]
    units = known_groups(read.together)
    scores = evaluate(true, said, len(level.keys), units, seed)
    rows = []
    for k, (key, name) in enumerate(zip(level.keys, level.names, strict=True)):
        wrong = [(level.names[j], n) for j, n in enumerate(scores.confusion[k]) if n and j != k]
        wrong.sort(key=lambda pair: -pair[1])
        rows.append(ClassRow(int(key), name, level.colors[k], scores.per_class[k], wrong))
    return Figures(rows, scores, read.n_elsewhere)


def _groups(read: _Read, seed: int) -> list[GroupRow]:
    found: list[GroupRow] = _kept.get(("groups", read.sign), lambda: _compared(read, seed))
    return found


def _compared(read: _Read, seed: int) -> list[GroupRow]:
    """Return all groups by name, each with its comparison where it is among those compared."""
    true, said = read.judged.label[read.places], read.judged.said[read.places]
    if not any(read.groups):
        return []
    compared = {
        s.value: s
        for s in by_value(
            true, said, len(read.judged.level.keys), read.groups, read.together, seed=seed
        )
        if s.value is not None and not s.value.startswith(REST)
    }
    counts: dict[str, list[int]] = {}
    for group, right in zip(read.groups, (true == said).tolist(), strict=True):
        if group is not None:
            counted = counts.setdefault(group, [0, 0])
            counted[0] += 1
            counted[1] += right
    return [
        GroupRow(read.spelled[key], n, right, compared.get(key))
        for key, (n, right) in sorted(counts.items())
    ]


def _classes(read: _Read, mine: Any) -> list[GroupClass]:
    level = read.judged.level
    true, said = read.judged.label[read.places], read.judged.said[read.places]
    right, found = true == said, []
    for k, name in enumerate(level.names):
        of = true == k
        if (of & mine).any():
            counts = [int(cells.sum()) for cells in (
                of & mine, of & mine & right, of & ~mine, of & ~mine & right,
            )]  # fmt: skip
            found.append(GroupClass(name, level.colors[k], *counts))
    return found


def _images(session: Session, read: _Read, mine: Any) -> list[GroupImage]:
    judged, level = read.judged, read.judged.level
    places = read.places[mine]
    right = judged.label[places] == judged.said[places]
    order = np.lexsort((places, -np.nan_to_num(judged.sure[places]), right))[:SHOWN]
    chosen = places[order]
    ids = judged.rows.image_ids[chosen].tolist()
    items = {item.id: item for item in items_in_order(session, ids)}
    found = []
    for i, at in zip(ids, chosen.tolist(), strict=True):
        label, said = int(judged.label[at]), int(judged.said[at])
        if i in items:
            names = level.names[label], level.names[said]
            found.append(GroupImage(items[i], *names, float(judged.sure[at]), label == said))
    return found
