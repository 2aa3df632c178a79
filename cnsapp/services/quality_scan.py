"""What the worker keeps of the images' quality: measures, flags, pairs that show the same."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import delete, func, insert, select, update
from sqlalchemy.orm import Session

from cnsapp.domain.flags import FLAGS, Measured, find_flags
from db.models import Image, ImageFlag, ImageQuality, NearPair
from db.queries import chunks, insert_new
from db.session import Store

PAGE = 5000  # rows a query
N_LOW = 63  # bytes of a signature that the first step of the search reads
COLOR = ("lightness", "green_red", "blue_yellow", "spread")


@dataclass(frozen=True)
class QualityRow:
    """What was measured of one image; `seen` as in `ReadingRule.seen`."""

    image_id: int
    seen: str
    measures: dict[str, Any]
    signature: bytes | None


def unmeasured(store: Store, *, project_id: int, seen: Mapping[int, str]) -> set[int]:
    """Return which of these images (id -> how the rule sees it) are still to be measured."""
    with store.reading() as session:
        rows = session.execute(
            select(ImageQuality.image_id, ImageQuality.seen).where(
                ImageQuality.project_id == project_id
            )
        )
        done = {image_id for image_id, was in rows.yield_per(PAGE) if seen.get(image_id) == was}
    return set(seen) - done


def keep_measures(store: Store, *, project_id: int, rows: Sequence[QualityRow]) -> None:
    """Store what was measured; pairs of a picture that is seen otherwise now are looked for anew.

    What somebody answered about a pair or a flag stays.
    """
    for part in chunks(rows):
        ids = [row.image_id for row in part]
        with store.writing() as session:
            for column in (NearPair.image_a, NearPair.image_b):
                session.execute(
                    delete(NearPair).where(
                        NearPair.project_id == project_id, column.in_(ids), NearPair.answer == ""
                    )
                )
            session.execute(delete(ImageQuality).where(ImageQuality.image_id.in_(ids)))
            session.execute(
                insert(ImageQuality),
                [
                    {
                        "image_id": row.image_id,
                        "project_id": project_id,
                        "seen": row.seen,
                        "measures": row.measures,
                        "signature": row.signature,
                        "compared": False,
                    }
                    for row in part
                ],
            )


def refresh(
    store: Store,
    *,
    project_id: int,
    progress: Callable[[str], None] = lambda _: None,
) -> dict[str, int]:
    """Derive flags and pairs of a project from what was measured; return how many are new.

    Only images that were not compared yet are compared, with all others. Writes are short.
    """
    progress("Looking for images that stand out")
    n_flags = _refresh_flags(store, project_id)
    progress("Looking for images that show the same")
    n_pairs = _refresh_pairs(store, project_id)
    return {"flags": n_flags, "pairs": n_pairs}


def _refresh_flags(store: Store, project_id: int) -> int:
    ids, status, given = _measured(store, project_id)
    usual = status == "ok"  # what is normal is decided by the images in use
    wanted: dict[tuple[str, int], float] = {}
    scores = find_flags(_only(given, usual))
    for kind in FLAGS:
        for image_id, score in zip(ids[usual], scores[kind], strict=True):
            if score > 0:
                wanted[kind, int(image_id)] = round(float(score), 4)
    with store.reading() as session:
        rows = session.execute(
            select(ImageFlag.kind, ImageFlag.image_id, ImageFlag.score, Image.status)
            .join(Image, Image.id == ImageFlag.image_id)
            .where(ImageFlag.project_id == project_id)
        ).all()
    had = {(kind, image_id): score for kind, image_id, score, _ in rows}
    # an excluded image keeps its flags: they say why it was excluded
    gone = [(r[0], r[1]) for r in rows if r[3] == "ok" and (r[0], r[1]) not in wanted]
    changed = [(*key, score) for key, score in wanted.items() if had.get(key, score) != score]
    new = [key for key in wanted if key not in had]
    for kind in FLAGS:
        for part in chunks([i for k, i in gone if k == kind]):
            with store.writing() as session:
                session.execute(_flag_rows(delete(ImageFlag), project_id, kind, part))
    for some in chunks(changed):
        with store.writing() as session:
            session.execute(
                update(ImageFlag),
                [
                    {"project_id": project_id, "kind": k, "image_id": i, "score": s}
                    for k, i, s in some
                ],
            )
    for keys in chunks(new):
        flags = [
            {"project_id": project_id, "kind": k, "image_id": i, "score": wanted[k, i],
             "answer": ""}
            for k, i in keys
        ]  # fmt: skip
        with store.writing() as session:
            insert_new(session, ImageFlag, flags, ["project_id", "kind", "image_id"])
    return len(new)


def _flag_rows(statement: Any, project_id: int, kind: str, ids: Sequence[int]) -> Any:
    return statement.where(
        ImageFlag.project_id == project_id, ImageFlag.kind == kind, ImageFlag.image_id.in_(ids)
    )


def _measured(store: Store, project_id: int) -> tuple[NDArray[Any], NDArray[Any], Measured]:
    ids, status, rows = [], [], []
    with store.reading() as session:
        found = session.execute(
            select(
                Image.id, Image.status, Image.width, Image.height, ImageQuality.measures
            ).join(ImageQuality, ImageQuality.image_id == Image.id)
            .where(ImageQuality.project_id == project_id)
            .order_by(Image.id)
        )  # fmt: skip
        for image_id, state, width, height, measures in found.yield_per(PAGE):
            ids.append(image_id)
            status.append(state)
            focus = measures["focus"]
            rows.append(
                (np.nan if focus is None else focus, measures["empty"], measures["over"],
                 measures["under"], width, height, *(measures[name] for name in COLOR))
            )  # fmt: skip
    table = np.array(rows, dtype=np.float64).reshape(-1, 6 + len(COLOR))
    focus_, empty, over, under, wide, high = table[:, :6].T
    given = Measured(focus_, empty, over, under, table[:, 6:], wide, high)
    return np.array(ids, dtype=np.int64), np.array(status, dtype=object), given


def _only(given: Measured, which: NDArray[Any]) -> Measured:
    return Measured(**{name: values[which] for name, values in vars(given).items()})


def _refresh_pairs(store: Store, project_id: int) -> int:
    from cnsapp.imaging.duplicates import find_pairs, low_frequencies  # scipy: the worker's alone

    ids, shas, compared, low = [], [], [], []
    with store.reading() as session:
        rows = session.execute(
            select(
                Image.id,
                Image.sha256,
                ImageQuality.compared,
                func.substr(ImageQuality.signature, 1, N_LOW),
            )
            .join(ImageQuality, ImageQuality.image_id == Image.id)
            .where(ImageQuality.project_id == project_id)
            .order_by(Image.id)
        )
        for image_id, sha, done, part in rows.yield_per(PAGE):
            ids.append(image_id)
            shas.append(sha)
            compared.append(bool(done))
            low.append(part)
    new_ids = [i for i, done in zip(ids, compared, strict=True) if not done]
    if not new_ids:
        return 0
    first: dict[str, int] = {}
    pairs = []
    for image_id, sha, done in zip(ids, shas, compared, strict=True):
        if sha not in first:
            first[sha] = image_id
        elif not done:
            pairs.append((first[sha], image_id, 1.0))
    # of images with the same bytes one stands for all
    stands = [k for k, i in enumerate(ids) if first[shas[k]] == i and low[k] is not None]
    places = [ids[k] for k in stands]
    new = np.array([not compared[k] for k in stands], dtype=bool)

    def load(wanted: Sequence[int]) -> dict[int, bytes]:
        return _signatures(store, {places[k]: k for k in wanted})

    if new.any():
        for pair in find_pairs(low_frequencies([bytes(low[k]) for k in stands]), load, new):
            score = round(min(pair.similarity, 0.9999), 4)
            pairs.append((places[pair.first], places[pair.second], score))
    n_new = 0
    for part in chunks(pairs):
        with store.writing() as session:
            n_new += insert_new(
                session,
                NearPair,
                [
                    {"image_a": a, "image_b": b, "project_id": project_id, "similarity": s,
                     "answer": ""}
                    for a, b, s in part
                ],
                ["image_a", "image_b"],
            )  # fmt: skip
    for done_ids in chunks(new_ids):
        with store.writing() as session:
            session.execute(
                update(ImageQuality)
                .where(ImageQuality.image_id.in_(done_ids))
                .values(compared=True)
            )
    return n_new


def _signatures(store: Store, places: Mapping[int, int]) -> dict[int, bytes]:
    found: dict[int, bytes] = {}
    with store.reading() as session:
        for part in chunks(list(places)):
            found |= {
                places[image_id]: bytes(signature)
                for image_id, signature in _rows(session, part)
                if signature is not None
            }
    return found


def _rows(session: Session, ids: Sequence[int]) -> Any:
    return session.execute(
        select(ImageQuality.image_id, ImageQuality.signature).where(ImageQuality.image_id.in_(ids))
    )
