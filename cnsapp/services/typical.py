"""What a class looks like to a model: typical images, prototypes and odd ones, for a gallery."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite

import numpy as np

from cnsapp.domain.resampling import Ints
from cnsapp.domain.typical import odd_order, prototypes, typical_order
from cnsapp.errors import InvalidInputError, NotFoundError
from cnsapp.services.class_names import Output
from cnsapp.services.images import ImageItem, items_in_order
from cnsapp.services.models import ModelView, get_model
from cnsapp.services.suspect_rows import Ranked, Standing, kept, ranked, standing
from db.session import Store

SHOWN, KINDS, MOST = 12, 6, 100


@dataclass(frozen=True)
class Shown:
    """An image of the gallery; `probability` is the model's for the class, None where unknown."""

    image: ImageItem
    probability: float | None
    reason: str


@dataclass(frozen=True)
class ClassGallery:
    """What a class looks like.

    `n` counts the held-out images labelled so today, `n_right` those of them that the model calls
    so: typical images and prototypes are taken from these, odd ones from all. `notes` say what
    cannot be shown and why.
    """

    class_id: int
    name: str
    color: str
    n: int
    n_right: int
    typical: list[Shown]
    prototypes: list[Shown]
    odd: list[Shown]
    notes: list[str]


@dataclass(frozen=True)
class _Chosen:
    n: int
    n_right: int
    typical: list[tuple[int, str]]  # row of the ranking, reason
    prototypes: list[tuple[int, str]]
    odd: list[tuple[int, str]]


def class_gallery(
    store: Store,
    *,
    model_id: int,
    class_id: int,
    n: int = SHOWN,
    n_prototypes: int = KINDS,
    seed: int = 0,
) -> ClassGallery:
    """Return the most typical images of a class, prototypes of its kinds, and its oddest images.

    Parameters
    ----------
    class_id
        As the class counts today.
    n, n_prototypes
        How many at most, 1 to 100.
    seed
        Of the images that prototypes are chosen from, in classes of more than 2,000.

    Raises
    ------
    NotFoundError
        No such model, or it does not know the class.
    InvalidInputError
        A number is out of range.
    """
    if not (1 <= n <= MOST and 1 <= n_prototypes <= MOST):
        raise InvalidInputError(f"A gallery of {n} and {n_prototypes} images: 1 to {MOST} each.")
    model = get_model(store, model_id=model_id)
    place = _place(model, class_id)
    found = ranked(store, model)
    now = standing(store, model, found)
    chosen: _Chosen = kept.get(
        ("gallery", *now.key, class_id, n, n_prototypes, seed),
        lambda: _choose(found, now, model, place, n, n_prototypes, seed),
    )
    output = model.outputs[place]
    return ClassGallery(
        class_id=output.class_id,
        name=output.name,
        color=output.color,
        n=chosen.n,
        n_right=chosen.n_right,
        typical=_shown(store, found, place, chosen.typical),
        prototypes=_shown(store, found, place, chosen.prototypes),
        odd=_shown(store, found, place, chosen.odd),
        notes=_notes(found, chosen, output),
    )


def _place(model: ModelView, class_id: int) -> int:
    for place, output in enumerate(model.outputs):
        if output.class_id == class_id and not output.deleted:
            return place
    raise NotFoundError(
        f"Model “{model.name}” does not know class {class_id}.",
        "Only what it has learnt can be shown as it sees it.",
        f"It knows {', '.join(o.name for o in model.outputs if not o.deleted)}.",
    )


def _choose(
    found: Ranked, now: Standing, model: ModelView, place: int, n: int, k: int, seed: int
) -> _Chosen:
    labelled = found.given == place
    for row, class_id in now.labels.items():
        labelled[row] = class_id == model.outputs[place].class_id
    mine = np.flatnonzero(labelled & ~now.gone)
    p = found.probabilities[mine]
    answered = np.isfinite(p).all(1)
    right = mine[answered][p[answered].argmax(1) == place] if len(mine) else mine
    odd = _odd(found, mine, place, n, seed)
    if found.rows is None:
        return _Chosen(len(mine), len(right), [], [], odd)
    seen = right[np.isfinite(found.rows[right]).all(1)]
    rows = found.rows[seen]
    most = seen[typical_order(rows)[:n]] if len(seen) else seen
    kinds, sizes = prototypes(rows, k, seed=seed)
    typical = [(int(row), "Most like the other images of its class.") for row in most]
    stands = [
        (int(seen[kind]), f"Stands for {size:,} of {len(seen):,} images.")
        for kind, size in zip(kinds.tolist(), sizes.tolist(), strict=True)
    ]
    return _Chosen(len(mine), len(right), typical, stands, odd)


def _odd(found: Ranked, mine: Ints, place: int, n: int, seed: int) -> list[tuple[int, str]]:
    if not len(mine):
        return []
    nothing = np.full((len(mine), 1), np.nan, np.float32)
    rows = nothing if found.rows is None else found.rows[mine]
    confidence = found.probabilities[mine, place]
    odd = odd_order(rows, confidence, seed=seed)
    chosen = []
    for at in odd.order[:n].tolist():
        said = []
        if isfinite(odd.apart[at]):
            said.append(f"stands further apart than {100 * odd.apart[at]:.0f} % of its class")
        if isfinite(odd.doubted[at]):
            said.append(f"the model, which never saw it, says {confidence[at]:.2f} for its class")
        if said:
            text = "; ".join(said)
            chosen.append((int(mine[at]), f"{text[0].upper()}{text[1:]}."))
    return chosen


def _shown(
    store: Store, found: Ranked, place: int, chosen: Sequence[tuple[int, str]]
) -> list[Shown]:
    ids = [int(found.image_ids[row]) for row, _ in chosen]
    with store.reading() as session:
        images = {item.id: item for item in items_in_order(session, ids)}
    made = []
    for (row, reason), image_id in zip(chosen, ids, strict=True):
        p = float(found.probabilities[row, place])
        if image_id in images:
            made.append(Shown(images[image_id], p if isfinite(p) else None, reason))
    return made


def _notes(found: Ranked, chosen: _Chosen, output: Output) -> list[str]:
    if not chosen.n:
        return [f"The model was held out of no image that is labelled {output.name} today."]
    if found.rows is None:
        return [
            "Typical images and prototypes need the images sorted by looks (Label → Looks, or the "
            "command `looks`)."
        ]
    if not chosen.n_right:
        return [f"The model calls no image of {output.name} so: there is nothing typical to show."]
    return []
