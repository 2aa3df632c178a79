"""The confusion matrix of any filter, by classes or organ systems, with score and interval."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace

import numpy as np

from cnsapp.domain.metrics import (
    Interval,
    balanced_accuracy,
    bootstrap_interval,
    confusion_matrix,
    unit_numbers,
)
from cnsapp.domain.resampling import Floats, Ints
from cnsapp.domain.together import known_groups
from cnsapp.services.kept import Kept
from cnsapp.services.models import ModelView, get_model
from cnsapp.services.review_filter import Chosen, ReviewFilter, choose
from cnsapp.services.review_levels import ClassKey
from cnsapp.services.review_rows import count_pairs, resampled_together
from db.session import Store

MOST_KEPT = 8
_kept: Kept[ReviewMatrix] = Kept(MOST_KEPT)


@dataclass(frozen=True)
class ReviewMatrix:
    """Counts of label against prediction for a filter, and what follows from them.

    Attributes
    ----------
    keys, names, colors
        (L,) of the rows: class ids or names of systems; give two of them to `ReviewFilter` as
        `label` and `predicted` for the images of a cell.
    ids
        (L,) a class of each row: its own at the level of classes, else the first of the system.
        `ReviewFilter` takes it in place of the key, at both levels.
    counts
        (L, L): row = label, column = prediction.
    row_shares, column_shares
        Each count as a share of its row (label) and of its column (prediction), 0 to 1; None where
        that has no images.
    n, n_wrong
        Images in the matrix, and those beside its diagonal.
    n_changed, n_elsewhere
        Of all that the filter lets through: labelled otherwise now than at training; in no figure,
        since they have no label or one that the model does not know.
    balanced_accuracy, interval
        Mean share of right answers over the rows that have images, 0 to 1, with its 95 % interval:
        whole groups are resampled where there are groups. None without images or units.
    accuracy
        Share of right answers, 0 to 1; None without images.
    n_groups
        Groups the images come from; None: none known.
    """

    keys: list[ClassKey]
    ids: list[int]
    names: list[str]
    colors: list[str]
    counts: list[list[int]]
    row_shares: list[list[float | None]]
    column_shares: list[list[float | None]]
    n: int
    n_wrong: int
    n_changed: int
    n_elsewhere: int
    balanced_accuracy: float | None
    interval: Interval | None
    accuracy: float | None
    n_groups: int | None


def review_matrix(store: Store, *, model_id: int, wanted: ReviewFilter) -> ReviewMatrix:
    """Count label against prediction of the images that a filter lets through.

    The filter's cell and its choice of wrong or right ones do not count: a matrix shows all cells.

    Raises
    ------
    InvalidInputError
        There is no such filter.
    NotFoundError
        There is no such model.
    """
    wanted = replace(wanted, label=None, predicted=None, show="all")
    model = get_model(store, model_id=model_id)
    with store.reading() as session:
        found = choose(session, store, model, wanted)
        level = found.judged.level
        # the places too: what images a filter by metadata lets through changes without an event
        places = hashlib.sha256(found.places.tobytes()).digest()
        sign = (
            str(store.root), model.id, model.sha256, wanted, found.judged.rows.marker, places,
            count_pairs(session, model.project_id), tuple(level.names),
        )  # fmt: skip
        kept = _kept.look(sign)
        if kept is not None:
            return kept
        together = resampled_together(session, store, model, wanted.part, found.judged.rows)
    made = _counted(found, together, model)
    _kept.put(sign, made)
    return made


def _counted(found: Chosen, together: list[str | None], model: ModelView) -> ReviewMatrix:
    judged, level = found.judged, found.judged.level
    places = found.places[judged.counts[found.places]]
    true, said, k = judged.label[places], judged.said[places], len(level.keys)
    counts = confusion_matrix(true, said, k)
    groups = known_groups([together[i] for i in places])
    n, right = len(places), int(np.trace(counts))
    return ReviewMatrix(
        keys=level.keys,
        ids=[
            next(o.class_id for o in model.outputs if level.place[o.class_id] == row)
            for row in range(k)
        ],
        names=level.names,
        colors=level.colors,
        counts=counts.tolist(),
        row_shares=_shares(counts, counts.sum(1)[:, None]),
        column_shares=_shares(counts, counts.sum(0)[None, :]),
        n=n,
        n_wrong=n - right,
        n_changed=int(judged.changed[found.places].sum()),
        n_elsewhere=len(found.places) - n,
        balanced_accuracy=balanced_accuracy(counts),
        interval=bootstrap_interval(true, said, k, groups, seed=model.seed) if n else None,
        accuracy=right / n if n else None,
        n_groups=None if groups is None else int(unit_numbers(groups, n).max(initial=-1)) + 1,
    )


def _shares(counts: Ints, of: Ints) -> list[list[float | None]]:
    shares: Floats = counts / np.where(of > 0, of, 1)
    empty = np.broadcast_to(of == 0, counts.shape)
    return [
        [None if gone else float(share) for share, gone in zip(row, there, strict=True)]
        for row, there in zip(shares, empty, strict=True)
    ]
