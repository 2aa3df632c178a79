"""How many images and groups of each class the parts of a split hold, and what they lack."""

from __future__ import annotations

from dataclasses import dataclass, field

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from cnsapp.domain.parts import PARTS, TEST
from cnsapp.domain.readiness import ClassCount, PartCount, assess, assess_parts
from cnsapp.domain.splits import BY_COLUMN, BY_GROUP, one_value_only
from cnsapp.errors import InvalidInputError
from cnsapp.services.metadata import list_names
from cnsapp.services.split_rows import active_row, fold, read_column
from cnsapp.services.split_uses import about_learnt
from db.models import DataSplit, Image, LabelClass, NearPair, SplitMember
from db.queries import groups_among, read_tally
from db.session import Store


@dataclass(frozen=True)
class ClassInParts:
    """Images and groups of a class by part; an image without a group is a group of its own.

    `class_id` None: the images without a label.
    """

    class_id: int | None
    name: str
    color: str | None
    n: dict[str, int]
    n_groups: dict[str, int]


@dataclass(frozen=True)
class PartCounts:
    """The table of a split, class by class in the order of the project, and all images together.

    `said`: what the parts lack, in words.
    """

    classes: list[ClassInParts]
    unlabelled: ClassInParts
    together: ClassInParts
    has_groups: bool
    said: list[str] = field(default_factory=list)

    def as_json(self) -> list[dict[str, object]]:
        """Return the rows for `--json`, the images without a label last."""
        return [
            {"class_id": row.class_id, "class": row.name, "n": row.n, "n_groups": row.n_groups}
            for row in (*self.classes, self.unlabelled)
        ]


def count_parts(session: Session, split: DataSplit) -> PartCounts:
    """Count the images in use of a split; 100,000 in a second."""
    state, class_id = Image.current_state, Image.current_class_id
    rows = session.execute(
        select(SplitMember.part, state, class_id, Image.group_key, func.count())
        .join(Image, Image.id == SplitMember.image_id)
        .where(SplitMember.split_id == split.id, Image.status == "ok")
        .group_by(SplitMember.part, state, class_id, Image.group_key)
    )
    n: dict[tuple[int | None, str], int] = {}
    alone: dict[tuple[int | None, str], int] = {}
    groups: dict[tuple[int | None, str], set[str]] = {}
    folded: dict[str, str] = {}
    for part, called, given, key, count in rows:
        c = given if called == "label" else None
        n[c, part] = n.get((c, part), 0) + count
        if (group := fold(key, folded)) is None:
            alone[c, part] = alone.get((c, part), 0) + count
        else:
            groups.setdefault((c, part), set()).add(group)
    classes = session.execute(
        select(LabelClass.id, LabelClass.name, LabelClass.color, LabelClass.active)
        .where(LabelClass.project_id == split.project_id)
        .order_by(LabelClass.position, LabelClass.id)
    ).all()

    def row(ids: list[int | None], c: int | None, name: str, color: str | None) -> ClassInParts:
        in_parts = {
            part: set().union(*(groups.get((i, part), set()) for i in ids)) for part in PARTS
        }
        return ClassInParts(
            c, name, color,
            {part: sum(n.get((i, part), 0) for i in ids) for part in PARTS},
            {part: len(in_parts[part]) + sum(alone.get((i, part), 0) for i in ids)
             for part in PARTS},
        )  # fmt: skip

    found = [
        row([c], c, name, color)
        for c, name, color, active in classes
        if active or any((c, part) in n for part in PARTS)
    ]
    everything = row([None, *(c for c, *_ in classes)], None, "All images", None)
    # a split is not blamed for a part that it was not to have
    used = [part for part in PARTS if everything.n[part]]
    grouped = split.scheme in (BY_GROUP, BY_COLUMN)
    counted = [PartCount(c.name, c.n, c.n_groups) for c in found]
    return PartCounts(
        classes=found,
        unlabelled=row([None], None, "No label", None),
        together=everything,
        has_groups=bool(groups),
        said=[
            *assess_parts(counted, used, grouped=grouped),
            *about_learnt(session, split.id),
        ],
    )


@dataclass(frozen=True)
class Ties:
    """What of a project belongs together, to be told before a split is made."""

    n_images: int
    n_groups: int
    n_alone: int  # images without a group
    n_pairs: int  # near-duplicates and copies that nobody set apart
    columns: list[str]  # of the metadata, to divide by


def count_ties(store: Store, *, project_id: int) -> Ties:
    """Return what would be kept together; a few short counts."""
    in_use = (Image.project_id == project_id, Image.status == "ok")
    with store.reading() as session:
        groups = {fold(group, {}) for group in session.scalars(groups_among(*in_use))}
        alone = session.scalar(select(func.count()).where(*in_use, Image.group_key.is_(None)))
        pairs = session.scalar(
            select(func.count()).where(
                NearPair.project_id == project_id, NearPair.answer != "apart"
            )
        )
        n = read_tally(session, project_id).get("images", 0)
    names = list_names(store, project_id=project_id)
    return Ties(n, len(groups - {None}), alone or 0, pairs or 0, names)


def check_column(store: Store, *, project_id: int, column: str) -> None:
    """Refuse a column that folds cannot be cut by, before a run starts.

    Raises
    ------
    InvalidInputError
        None is named, there is no such column, or the labelled images have fewer than two values.
    """
    with store.reading() as session:
        values = read_column(session, project_id, column)
        labelled = session.scalars(
            select(Image.id).where(
                Image.project_id == project_id,
                Image.status == "ok",
                Image.current_state == "label",
            )
        ).all()
    found = {value for i in labelled if (value := values.get(i, "").strip())}
    if len(found) < 2:
        raise one_value_only(sorted(found), sum(i not in values for i in labelled))


def check_learning(store: Store, *, project_id: int) -> None:
    """Refuse a run whose active split leaves too little to learn from, before it starts.

    Raises
    ------
    InvalidInputError
        Outside the locked test set fewer than two classes have enough labelled images.
    """
    with store.reading() as session:
        split = active_row(session, project_id)
        if split is None:
            return
        in_use = (
            Image.project_id == project_id, Image.status == "ok", Image.current_state == "label",
        )  # fmt: skip
        locked = (SplitMember.split_id == split.id, SplitMember.part == TEST)
        per_class = select(Image.current_class_id, func.count()).where(*in_use)
        every = dict(session.execute(per_class.group_by(Image.current_class_id)).all())
        kept_back = dict(
            session.execute(
                per_class.join(SplitMember, SplitMember.image_id == Image.id)
                .where(*locked)
                .group_by(Image.current_class_id)
            ).all()
        )
        names = session.execute(
            select(LabelClass.id, LabelClass.name)
            .where(LabelClass.project_id == project_id, LabelClass.active.is_(True))
            .order_by(LabelClass.position, LabelClass.id)
        ).all()
    counts = [ClassCount(name, every.get(c, 0) - kept_back.get(c, 0)) for c, name in names]
    verdict = assess(counts, sum(every.values()), 0)
    if not verdict.ok:
        raise InvalidInputError(
            f"Outside the locked test set there is too little to learn from. {verdict.problems[0]}",
            f"{sum(kept_back.values()):,} labelled images are locked away.",
            "Label more images, or use another split or none, on the Train page.",
        )
