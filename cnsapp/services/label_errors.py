"""Labels that are probably wrong: ranked, with the reason in words, confirmed or corrected.

A decision is a label event like any other, so that history and undo work; whoever decides first is
seen by the others at their next look.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from cnsapp.domain.errors_left import ASSUMES, Progress, review_progress
from cnsapp.domain.label_errors import FEWEST
from cnsapp.domain.resampling import Ints
from cnsapp.errors import InvalidInputError, NotFoundError
from cnsapp.services.label_error_decisions import confirm, correct
from cnsapp.services.label_error_items import Key, Suspect, read_items
from cnsapp.services.label_error_trust import why_doubted
from cnsapp.services.models import ModelView, get_model
from cnsapp.services.suspect_rows import (
    ASIDE,
    CONFIRMED,
    CORRECTED,
    Ranked,
    Standing,
    kept,
    ranked,
    standing,
)
from db.session import Store

__all__ = [
    "Key",
    "Pair",
    "Show",
    "Summary",
    "Suspect",
    "SuspectPage",
    "confirm",
    "correct",
    "list_suspects",
    "place_in_list",
    "summary",
]

Show = Literal["open", "decided", "all"]
PAGE, MOST = 50, 500


@dataclass(frozen=True)
class SuspectPage:
    """A page of the list; `next_after` is None at its end, `n` counts all that the filter meets."""

    items: list[Suspect]
    next_after: Key | None
    n: int


@dataclass(frozen=True)
class Pair:
    """What is labelled one class and looks like another: open ones in the list, flagged of them."""

    label_class_id: int
    label: str
    suggested_class_id: int
    suggested: str
    n_open: int
    n_flagged: int


@dataclass(frozen=True)
class Summary:
    """How a model's list of label errors stands.

    `n_judged` counts the held-out images in use of which something can be said, `n_listed` those in
    the list, `n_flagged` the sure ones of them; open or decided. `expected_errors` is what the
    model and the neighbours expected before anybody looked. `doubt` says why the list is not worth
    working through, "" where it is; it is the first of the `notes` too.
    """

    model_id: int
    model_name: str
    n_judged: int
    n_unjudged: int
    n_listed: int
    n_flagged: int
    n_open: int
    n_open_flagged: int
    n_confirmed: int
    n_corrected: int
    n_set_aside: int
    expected_errors: float
    progress: Progress
    has_neighbours: bool
    pairs: list[Pair]  # the most open ones first
    in_words: str
    assumes: str
    doubt: str
    notes: list[str]


def summary(store: Store, *, model_id: int, project_id: int | None = None) -> Summary:
    """Return counts, precision so far, errors expected to be left, and the pairs of classes.

    Raises
    ------
    NotFoundError
        No such model (in that project).
    InvalidInputError
        The model has no predictions of images that it had not seen.
    """
    model, found, now = _read(store, model_id, project_id)
    names = tuple(output.name for output in model.outputs)
    made: Summary = kept.get(("summary", *now.key, names), lambda: _summary(model, found, now))
    return made


def list_suspects(
    store: Store,
    *,
    model_id: int,
    label: int | None = None,
    suggested: int | None = None,
    show: Show = "open",
    flagged_only: bool = False,
    after: Key | None = None,
    limit: int = PAGE,
) -> SuspectPage:
    """Return a page of suspected labels, the most suspicious first.

    Parameters
    ----------
    label, suggested
        Class ids: of the label at training, of the class suggested; None: any.
    show
        `open`, `decided` (confirmed, corrected or set aside), or `all`.
    flagged_only
        Leave out the less sure ones.
    after
        The `cursor` of the last image of the page before: places do not move while people decide.

    Raises
    ------
    NotFoundError
        No such model.
    InvalidInputError
        `show` or `limit` is out of range, or the model has no predictions of unseen images.
    """
    if show not in ("open", "decided", "all") or not 1 <= limit <= MOST:
        raise InvalidInputError(
            f"A page of {limit} “{show}” label errors cannot be shown.",
            "",
            f"Ask for open, decided or all of them, 1 to {MOST} at once.",
        )
    model, found, now = _read(store, model_id)
    order = _listed(found, now)
    if flagged_only:
        sure = found.suspects.order[: found.suspects.n_flagged]
        order = order[np.isin(order, sure)]
    if show != "all":
        decided = np.isin(order, np.fromiter(now.decisions, np.int64, len(now.decisions)))
        order = order[decided if show == "decided" else ~decided]
    order = _of_pair(order, found, model, label, suggested)
    n = len(order)
    if after is not None:
        score, ids = found.suspects.score[order], found.image_ids[order]
        order = order[(score < after[0]) | ((score == after[0]) & (ids > after[1]))]
    page = order[:limit].tolist()
    items = read_items(store, model, found, now, page)
    more = len(order) > limit
    return SuspectPage(items, items[-1].cursor if more and items else None, n)


def place_in_list(store: Store, *, model_id: int, image_id: int) -> Key:
    """Return the `after` that goes on behind an image; raise NotFoundError where nothing is said.

    The image need not be in the list any more.
    """
    model, found, _ = _read(store, model_id)
    row = found.place_of(image_id)
    if row is None or not found.suspects.judged[row]:
        raise NotFoundError(
            f"Image {image_id} has no place in the label errors of model “{model.name}”.",
            "The list goes on behind an image that was in it.",
            "Begin at the top of the list.",
        )
    return float(found.suspects.score[row]), image_id


def _read(
    store: Store, model_id: int, project_id: int | None = None
) -> tuple[ModelView, Ranked, Standing]:
    model = get_model(store, model_id=model_id, project_id=project_id)
    found = ranked(store, model)
    if not len(found.image_ids):
        raise InvalidInputError(
            f"Model “{model.name}” has no predictions of images that it had not seen.",
            "Label errors are found where such a prediction and the label differ.",
            "Label more images, or images of more groups, then train again.",
        )
    return model, found, standing(store, model, found)


def _listed(found: Ranked, now: Standing) -> Ints:
    """Return the rows of the list, the most suspicious first; without images out of use."""
    order = found.suspects.order
    return order[~now.gone[order]]


def _of_pair(
    order: Ints, found: Ranked, model: ModelView, label: int | None, suggested: int | None
) -> Ints:
    ids = np.array([output.class_id for output in model.outputs], np.int64)
    if label is not None:
        order = order[ids[found.given[order]] == label]
    if suggested is not None:
        order = order[ids[found.suspects.suggested[order]] == suggested]
    return order


def _summary(model: ModelView, found: Ranked, now: Standing) -> Summary:
    suspects, n = found.suspects, len(found.image_ids)
    listed = _listed(found, now)
    judged = suspects.judged & ~now.gone
    in_list = np.zeros(n, bool)
    in_list[listed] = True
    decided = {row: what for row, what in now.decisions.items() if in_list[row]}
    open_rows = listed[[int(row) not in decided for row in listed]] if len(listed) else listed
    sure = np.zeros(n, bool)
    sure[suspects.order[: suspects.n_flagged]] = True
    counts = Counter(decided.values())
    progress = _progress(found, now, judged, in_list, decided)
    doubt = why_doubted(model, suspects.n_expected, int(judged.sum()), progress)
    said = f"{progress.looked_in_words()} {doubt}".strip() if doubt else progress.in_words()
    return Summary(
        model_id=model.id,
        model_name=model.name,
        n_judged=int(judged.sum()),
        n_unjudged=int((~suspects.judged & ~now.gone).sum()),
        n_listed=len(listed),
        n_flagged=int(sure[listed].sum()),
        n_open=len(open_rows),
        n_open_flagged=int(sure[open_rows].sum()),
        n_confirmed=counts[CONFIRMED],
        n_corrected=counts[CORRECTED],
        n_set_aside=counts[ASIDE],
        expected_errors=suspects.n_expected,
        progress=progress,
        has_neighbours=suspects.has_neighbours,
        pairs=_pairs(model, found, open_rows, sure),
        in_words=said,
        assumes=ASSUMES,
        doubt=doubt,
        notes=[*([doubt] if doubt else []), *_notes(found, now)],
    )


def _progress(
    found: Ranked, now: Standing, judged: Any, in_list: Any, decided: dict[int, str]
) -> Progress:
    """Count the decisions of the list; what was changed elsewhere is neither open nor looked at."""
    n = len(judged)
    looked, wrong = np.zeros(n, bool), np.zeros(n, bool)
    counted = judged.copy()
    for row in now.decisions:
        what = decided.get(row)
        looked[row] = what in (CONFIRMED, CORRECTED)
        wrong[row] = what == CORRECTED
        counted[row] &= bool(looked[row])
    rows = np.flatnonzero(counted)
    return review_progress(
        found.suspects.risk[rows], found.suspects.score[rows], looked[rows], wrong[rows],
        in_list[rows],
    )  # fmt: skip


def _pairs(model: ModelView, found: Ranked, rows: Ints, sure: Any) -> list[Pair]:
    given, to = found.given[rows].tolist(), found.suspects.suggested[rows].tolist()
    cells, flagged = Counter[tuple[int, int]](), Counter[tuple[int, int]]()
    for a, b, is_sure in zip(given, to, sure[rows].tolist(), strict=True):
        cells[a, b] += 1
        flagged[a, b] += is_sure
    of = model.outputs
    pairs = [
        Pair(of[a].class_id, of[a].name, of[b].class_id, of[b].name, n, flagged[a, b])
        for (a, b), n in cells.items()
    ]
    return sorted(pairs, key=lambda p: (-p.n_open, p.label_class_id, p.suggested_class_id))


def _notes(found: Ranked, now: Standing) -> list[str]:
    said = []
    unjudged = int((~found.suspects.judged & ~now.gone).sum())
    if unjudged:
        images = "1 image" if unjudged == 1 else f"{unjudged:,} images"
        said.append(
            f"Of {images} nothing can be said: their class has fewer than {FEWEST} images or was "
            "deleted, the fold that left them out never saw their class, or the answer is not "
            "there."
        )
    if not found.suspects.has_neighbours:
        said.append(
            "Only the model was asked, of all images or most: they were not sorted by looks yet "
            "(Label → Looks, or the command `looks`). With their nearest neighbours the list is "
            "better; without them the number expected is too high, since the model's own mistakes "
            "are in it."
        )
    return said
