"""The quality of a project's images: what was found, the images behind it, and what to do."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import PurePosixPath
from typing import Any

from sqlalchemy import ColumnElement, Select, func, or_, select, update
from sqlalchemy.orm import Session, aliased

from cnsapp.domain.flags import (
    FLAGS,
    NAMED,
    Doubt,
    class_doubts,
    folder_doubts,
    group_name_doubts,
)
from cnsapp.domain.labels import clean_annotator
from cnsapp.domain.splits import SAME_PICTURE
from cnsapp.errors import InvalidInputError, NotFoundError
from cnsapp.services.exclusion import (
    APART,
    FINE,
    Change,
    add_note,
    exclude,
    in_turn,
    new_action,
    put_into_groups,
)
from cnsapp.services.images import ImageItem, items_in_order
from db.models import Image, ImageFlag, ImageQuality, LabelClass, NearPair
from db.queries import chunks, read_tally
from db.session import Store

EXACT, NEAR, CONFLICT, GROUPS = "exact", "near", "conflict", "groups"
PAIR_KINDS = (EXACT, NEAR, CONFLICT, GROUPS)
DOUBT_KINDS = ("class_imbalance", "class_one_group", "group_names", "folder_imbalance")
KINDS = (*PAIR_KINDS, *FLAGS, *DOUBT_KINDS)
COUNTED = 200_000  # images whose folders are counted while a page waits
OPEN = ("", "kept_one")  # a pair whose excluded half was restored is open again


@dataclass(frozen=True)
class Overview:
    """How many of each kind were found; `measured` of `images` were looked at so far."""

    images: int
    measured: int
    excluded: int
    counts: dict[str, int]
    doubts: list[Doubt]

    def as_json(self) -> dict[str, Any]:
        """Return the overview for `--json`."""
        return asdict(self)


@dataclass(frozen=True)
class PairImage:
    """One image of a pair, with what speaks for keeping it."""

    item: ImageItem
    n_bytes: int
    format: str
    focus: float | None


@dataclass(frozen=True)
class PairView:
    """Two images that show the same; `better` is the one to keep where one is to go."""

    a: PairImage
    b: PairImage
    similarity: float
    better: int

    @property
    def ids(self) -> tuple[int, int]:
        """The images' numbers, as the pair is stored."""
        return self.a.item.id, self.b.item.id


def overview(store: Store, *, project_id: int) -> Overview:
    """Return what was found in the images that are in use."""
    with store.reading() as session:
        counts = {kind: _count(session, _pairs(project_id, kind)) for kind in PAIR_KINDS}
        flagged = session.execute(
            select(ImageFlag.kind, func.count())
            .join(Image, Image.id == ImageFlag.image_id)
            .where(ImageFlag.project_id == project_id, Image.status == "ok", ImageFlag.answer == "")
            .group_by(ImageFlag.kind)
        )
        counts |= dict.fromkeys(FLAGS, 0) | dict(flagged.all())
        measured = session.scalar(
            select(func.count())
            .select_from(ImageQuality)
            .join(Image, Image.id == ImageQuality.image_id)
            .where(ImageQuality.project_id == project_id, Image.status == "ok")
        )
        excluded = session.scalar(
            select(func.count()).where(Image.project_id == project_id, Image.status == "excluded")
        )
        images = read_tally(session, project_id).get("images", 0)
        doubts = _doubts(session, project_id)
    counts |= {kind: sum(d.kind == kind for d in doubts) for kind in DOUBT_KINDS}
    return Overview(images, measured or 0, excluded or 0, counts, doubts)


def list_pairs(
    store: Store, *, project_id: int, kind: str, limit: int = 5, skip: int = 0
) -> list[PairView]:
    """Return open pairs of a kind, the most similar first.

    Raises
    ------
    InvalidInputError
        There is no such kind of pair.
    """
    with store.reading() as session:
        rows = session.execute(
            _pairs(project_id, kind)
            .order_by(NearPair.similarity.desc(), NearPair.image_a, NearPair.image_b)
            .limit(limit)
            .offset(skip)
        ).all()
        seen = _pair_images(session, {i for a, b, _ in rows for i in (a, b)})
    return [_pair(seen[a], seen[b], similarity) for a, b, similarity in rows]


def list_flagged(
    store: Store, *, project_id: int, kind: str, limit: int = 60, skip: int = 0
) -> list[tuple[ImageItem, float]]:
    """Return the images in use with this flag and its score, the furthest off first."""
    with store.reading() as session:
        rows = session.execute(
            select(ImageFlag.image_id, ImageFlag.score)
            .join(Image, Image.id == ImageFlag.image_id)
            .where(
                ImageFlag.project_id == project_id,
                ImageFlag.kind == kind,
                ImageFlag.answer == "",
                Image.status == "ok",
            )
            .order_by(ImageFlag.score.desc(), ImageFlag.image_id)
            .limit(limit)
            .offset(skip)
        ).all()
        items = items_in_order(session, [row[0] for row in rows])
    return [(item, float(row[1])) for item, row in zip(items, rows, strict=True)]


def keep_one(
    store: Store, *, project_id: int, pair: tuple[int, int], keep: int, who: str
) -> Change:
    """Exclude the other image of a pair."""
    if keep not in pair:
        raise InvalidInputError(f"Image {keep} is not one of the pair {pair}.")
    other = pair[1] if keep == pair[0] else pair[0]
    with store.reading() as session:
        _check_pair(session, project_id, pair)
        name = session.scalar(select(Image.file_name).where(Image.id == keep))
    done = exclude(
        store, project_id=project_id, image_ids=[other], who=who,
        reason=f"shows the same as {name}", details={"pair": list(pair)},
    )  # fmt: skip
    _set_answers(store, project_id, [pair], "kept_one")
    return Change(done.action, done.image_ids, 1)


def group_pair(store: Store, *, project_id: int, pair: tuple[int, int], who: str) -> Change:
    """Put both images of a pair into one group, so that no split tears them apart.

    The second one joins the group of the first, or the first that of the second where it has none;
    two without a group get one of their own.
    """
    who, action = clean_annotator(who), new_action()
    with store.writing() as session:
        _check_pair(session, project_id, pair)
        rows = session.execute(
            select(Image.id, Image.group_key)
            .where(Image.id.in_(pair))
            .order_by(Image.id)
            .with_for_update()
        )
        had: dict[int, str | None] = dict(rows.all())
        group = had[pair[0]] or had[pair[1]] or f"{SAME_PICTURE}{pair[0]}"
        moved = put_into_groups(
            session, project_id=project_id, groups=dict.fromkeys(pair, group), who=who,
            reason="shows the same as another image",
            details={"action": action, "pair": list(pair)},
        )  # fmt: skip
        if not moved:  # one group already: the answer alone is new
            add_note(session, project_id, [pair[1]], APART, who,
                     {"action": action, "pair": list(pair)})  # fmt: skip
    _set_answers(store, project_id, [pair], "grouped")
    return Change(action, moved, 1)


def set_apart(store: Store, *, project_id: int, pair: tuple[int, int], who: str) -> Change:
    """Note that two images are different pictures; the pair is not shown again."""
    who, action = clean_annotator(who), new_action()
    with store.writing() as session:
        _check_pair(session, project_id, pair)
        add_note(session, project_id, [pair[1]], APART, who,
                 {"action": action, "pair": list(pair)})  # fmt: skip
    _set_answers(store, project_id, [pair], "apart")
    return Change(action, [], 1)


def resolve_all(store: Store, *, project_id: int, kind: str, who: str) -> Change:
    """Keep the best image of each set of duplicates and exclude the others.

    The best is labelled, larger, with more bytes, earlier, in this order. Pairs whose labels
    contradict each other are left for an eye.
    """
    if kind not in (EXACT, NEAR):
        raise InvalidInputError(f"Pairs of the kind “{kind}” need an eye each.")
    torn = set(_all_pairs(store, project_id, CONFLICT))
    pairs = [pair for pair in _all_pairs(store, project_id, kind) if pair not in torn]
    partners: dict[int, set[int]] = {}
    for a, b in pairs:
        partners.setdefault(a, set()).add(b)
        partners.setdefault(b, set()).add(a)
    with store.reading() as session:
        order = _best_first(session, list(partners))
    gone: dict[int, None] = {}
    for image_id in order:
        if image_id not in gone:
            gone.update(dict.fromkeys(i for i in partners[image_id] if i not in gone))
    done = exclude(
        store, project_id=project_id, image_ids=gone, who=who,
        reason="shows the same as another image",
    )  # fmt: skip
    answered = [pair for pair in pairs if pair[0] in gone or pair[1] in gone]
    _set_answers(store, project_id, answered, "kept_one")
    return Change(done.action, done.image_ids, len(answered))


def mark_fine(
    store: Store, *, project_id: int, kind: str, image_ids: Iterable[int], who: str
) -> Change:
    """Note that somebody found flagged images right; they are not named again."""
    who, action = clean_annotator(who), new_action()
    marked: list[int] = []
    for part in in_turn(sorted(set(image_ids))):
        with store.writing() as session:
            ids = session.scalars(
                update(ImageFlag)
                .where(
                    ImageFlag.project_id == project_id,
                    ImageFlag.kind == kind,
                    ImageFlag.image_id.in_(part),
                )
                .values(answer="fine")
                .returning(ImageFlag.image_id)
            ).all()
            if ids:
                add_note(session, project_id, ids, FINE, who, {"action": action, "flag": kind})
            marked += ids
    return Change(action, marked)


def _pairs(project_id: int, kind: str) -> Select[int, int, float]:
    """Return the statement for (image a, image b, similarity) of a project's open pairs."""
    a, b = aliased(Image), aliased(Image)
    return (
        select(NearPair.image_a, NearPair.image_b, NearPair.similarity)
        .join(a, a.id == NearPair.image_a)
        .join(b, b.id == NearPair.image_b)
        .where(
            NearPair.project_id == project_id,
            NearPair.answer.in_(OPEN),
            a.status == "ok",
            b.status == "ok",
            _is_kind(kind, a, b),
        )
    )


def _is_kind(kind: str, a: Any, b: Any) -> ColumnElement[bool]:
    if kind == EXACT:
        return NearPair.similarity >= 1
    if kind == NEAR:
        return NearPair.similarity < 1
    if kind == CONFLICT:
        both = (a.current_state == "label") & (b.current_state == "label")
        differ: ColumnElement[bool] = both & (a.current_class_id != b.current_class_id)
        return differ
    if kind == GROUPS:  # a group written in two ways is one when images are split
        torn: ColumnElement[bool] = func.lower(func.trim(a.group_key)) != func.lower(
            func.trim(b.group_key)
        )
        return torn
    raise InvalidInputError(
        f"There is no kind of pair “{kind}”.", "", f"Choose one of: {', '.join(PAIR_KINDS)}."
    )


def _count(session: Session, statement: Select[int, int, float]) -> int:
    return session.scalar(select(func.count()).select_from(statement.subquery())) or 0


def _all_pairs(store: Store, project_id: int, kind: str) -> list[tuple[int, int]]:
    with store.reading() as session:
        return [(a, b) for a, b, _ in session.execute(_pairs(project_id, kind))]


def _pair_images(session: Session, ids: set[int]) -> dict[int, PairImage]:
    items = {item.id: item for item in items_in_order(session, sorted(ids))}
    rows = session.execute(
        select(Image.id, Image.n_bytes, Image.facts, ImageQuality.measures)
        .outerjoin(ImageQuality, ImageQuality.image_id == Image.id)
        .where(Image.id.in_(ids))
    )
    return {
        i: PairImage(items[i], n_bytes, str(facts.get("format", "")), (was or {}).get("focus"))
        for i, n_bytes, facts, was in rows
    }


def _pair(a: PairImage, b: PairImage, similarity: float) -> PairView:
    better = min((a, b), key=lambda one: _rank(one.item.state, one.item.width * one.item.height,
                                               one.n_bytes, one.item.id))  # fmt: skip
    return PairView(a, b, similarity, better.item.id)


def _rank(state: str, area: int, n_bytes: int, image_id: int) -> tuple[bool, int, int, int]:
    return (state != "label", -area, -n_bytes, image_id)


def _best_first(session: Session, ids: Sequence[int]) -> list[int]:
    ranks: dict[int, tuple[bool, int, int, int]] = {}
    for part in chunks(ids):
        rows = session.execute(
            select(Image.id, Image.current_state, Image.width * Image.height, Image.n_bytes).where(
                Image.id.in_(part)
            )
        )
        ranks |= {i: _rank(state, area, n_bytes, i) for i, state, area, n_bytes in rows}
    return sorted(ranks, key=lambda i: ranks[i])


def _check_pair(session: Session, project_id: int, pair: tuple[int, int]) -> None:
    row = session.get(NearPair, pair)
    if row is None or row.project_id != project_id:
        raise NotFoundError(f"Images {pair[0]} and {pair[1]} are no pair of this project.")


def _set_answers(
    store: Store, project_id: int, pairs: Sequence[tuple[int, int]], answer: str
) -> None:
    for part in in_turn(pairs):
        with store.writing() as session:
            session.execute(
                update(NearPair)
                .where(
                    NearPair.project_id == project_id,
                    or_(*((NearPair.image_a == a) & (NearPair.image_b == b) for a, b in part)),
                )
                .values(answer=answer)
            )


def _doubts(session: Session, project_id: int) -> list[Doubt]:
    usable = (Image.project_id == project_id, Image.status == "ok")
    rows = session.execute(
        select(Image.current_class_id, Image.group_key, func.count())
        .where(*usable, Image.current_state == "label")
        .group_by(Image.current_class_id, Image.group_key)
    ).all()
    names = dict(
        session.execute(
            select(LabelClass.id, LabelClass.name).where(LabelClass.project_id == project_id)
        ).all()
    )
    groups = session.scalars(
        select(Image.group_key).where(*usable, Image.group_key.is_not(None)).distinct()
    )
    found = class_doubts({(c, g): n for c, g, n in rows if c is not None}, names)
    found += group_name_doubts([g for g in groups if g is not None])
    if read_tally(session, project_id).get("images", 0) <= COUNTED:
        folders: Counter[str] = Counter()
        for name in session.scalars(select(Image.file_name).where(*usable)).yield_per(5000):
            folders[str(PurePosixPath(name).parent).removeprefix(".")] += 1
        found += folder_doubts(folders)
    seen: Counter[str] = Counter()
    kept = []
    for doubt in found:
        seen[doubt.kind] += 1
        if seen[doubt.kind] <= NAMED:
            kept.append(doubt)
    return kept
