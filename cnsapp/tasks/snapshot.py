"""The labels that a run learns from: taken once, every picture once; later ones change nothing."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from cnsapp.bootstrap import App
from cnsapp.domain.parts import TEST
from cnsapp.domain.readiness import NEEDED_PER_CLASS, ClassCount, assess
from cnsapp.domain.splits import BY_COLUMN, BY_GROUP, FoldPlan, grouped_folds
from cnsapp.domain.together import tied_groups
from cnsapp.errors import CnsError
from cnsapp.imaging.rule import ReadingRule
from cnsapp.services.projects import ClassView, list_classes
from cnsapp.services.split_counts import count_parts
from cnsapp.services.split_rows import (
    STRICTEST,
    active_row,
    assign_new,
    fold,
    parts_of,
    picture_keys,
    read_column,
    read_rows,
)
from cnsapp.services.ties import ties_sign
from cnsapp.tasks.features import Failures
from cnsapp.tasks.resources import Source
from db.models import Image, LabelEvent


@dataclass(frozen=True)
class Labelled:
    """An image with its label at the start of the run.

    `group` is what must not be torn apart: patient or slide, joined with others that a picture ties
    to it. `picture` is a number that near-duplicates share. `value` is that of the column that
    folds are cut by, if any. `part` is where the active split puts it.
    """

    source: Source
    class_id: int
    event_id: int
    group: str | None
    part: str = "train"  # train | validation | test
    picture: int | None = None
    value: str | None = None


@dataclass(frozen=True)
class Snapshot:
    """The labels that a run learns from, every picture once; later ones do not change it."""

    images: list[Labelled]
    classes: list[ClassView]  # those that are learnt, in the order of the project
    warnings: list[str]
    last_event_id: int
    split_id: int | None = None  # the active split that `part` comes from
    ties: str = ""  # a sign of what is kept together, and on which side
    about_split: list[str] = field(default_factory=list)  # of `warnings`, those about its parts

    def without(self, failures: Failures) -> Snapshot:
        """Leave out the images that cannot be read; raise CnsError when too few are left."""
        if not failures.files:
            return self
        left = [i for i in self.images if i.source.image_id not in failures.image_ids]
        first = failures.files[0]
        unread = (
            f"{len(failures.files)} labelled images could not be read and were left out, for "
            f"example {first['file']}: {first['reason']}"
        )
        try:
            rest = _checked(left, self.classes, self.last_event_id, self.split_id)
        except CnsError as error:
            raise CnsError(f"{unread} {error.what}", error.why, error.remedy) from error
        warnings = [*self.warnings, *rest.warnings, unread]
        return replace(rest, warnings=list(dict.fromkeys(warnings)), ties=self.ties)

    @property
    def learning(self) -> list[Labelled]:
        """What may be learnt from and chosen by: all but the test set."""
        return [image for image in self.images if image.part != "test"]

    @property
    def testing(self) -> list[Labelled]:
        """The locked test set: scored once, at the very end."""
        return [image for image in self.images if image.part == "test"]

    def plan_folds(
        self,
        *,
        scheme: str | None = None,
        n_folds: int = 5,
        seed: int = 0,
        images: Sequence[Labelled] | None = None,
    ) -> FoldPlan:
        """Cut what may be learnt from (or some of it) into folds that tear nothing apart.

        Folds follow the order of `images`, by default `learning`; classes that of `classes`.
        """
        used = self.learning if images is None else images
        place = {c.id: k for k, c in enumerate(self.classes)}
        return grouped_folds(
            np.array([place[i.class_id] for i in used], dtype=np.int64),
            [i.group for i in used],
            n_folds=n_folds,
            seed=seed,
            names=[i.source.name for i in used],
            scheme=scheme or None,
            class_names=[c.name for c in self.classes],
            column=[i.value for i in used] if scheme == BY_COLUMN else None,
            pictures=[i.picture for i in used],
        )

    def fingerprint(self) -> str:
        """Return a hash of which image bytes were learnt from as which class."""
        pairs = sorted(f"{i.source.sha256}:{i.class_id}" for i in self.learning)
        return hashlib.sha256("\n".join(pairs).encode()).hexdigest()


def take_snapshot(app: App, project_id: int, rule: ReadingRule, *, column: str = "") -> Snapshot:
    """Return the labels of now; raise CnsError when they do not suffice (any more).

    With an active split every image has its part, and what would be on two sides (a near-duplicate
    that was found later, a group that was changed) stays on the stricter one alone. `column` is
    read for folds by column.
    """
    placed = assign_new(app.store, project_id)
    with app.store.reading() as session:
        last_event_id = session.scalar(select(func.max(LabelEvent.id))) or 0
        everything = read_rows(session, project_id)  # a test image without a label is locked too
        ids, shas = [row.id for row in everything], [row.sha256 for row in everything]
        pictures = dict(zip(ids, picture_keys(session, project_id, ids, shas), strict=True))
        values = read_column(session, project_id, column) if column else {}
        images = _read(app, session, project_id, rule, pictures, values)
        split = active_row(session, project_id)
        parts, by_group, about, split_id = dict[int, str](), False, list[str](), None
        if split is not None:
            parts, split_id = parts_of(session, split.id), split.id
            by_group = split.scheme in (BY_GROUP, BY_COLUMN)
            about = [*split.settings.get("said", []), *count_parts(session, split).said]
        ties = ties_sign(session, project_id, column)
    # read after the labels: a class that is added meanwhile is known then
    classes = list_classes(app.store, project_id=project_id)
    torn: list[str] = []
    if split_id is not None:
        # an image that was imported this moment has no part yet: it waits for the next run
        images = [replace(i, part=parts[i.source.image_id]) for i in images
                  if i.source.image_id in parts]  # fmt: skip
        members = [
            Member(row.id, row.name, parts[row.id], row.group if by_group else None,
                   pictures[row.id])
            for row in everything if row.id in parts
        ]  # fmt: skip
        images, torn = on_one_side(images, members)
    unique, warnings = one_of_each(images)
    whole, tied = tie_groups(unique)
    snapshot = _checked(whole, classes, last_event_id, split_id)
    about = [*about, *placed.said, *torn]
    said = dict.fromkeys([*snapshot.warnings, *warnings, *tied, *about])
    return replace(snapshot, warnings=list(said), about_split=about, ties=ties)


def _read(
    app: App,
    session: Session,
    project_id: int,
    rule: ReadingRule,
    pictures: Mapping[int, int | None],
    values: Mapping[int, str],
) -> list[Labelled]:
    rows = session.execute(
        select(
            Image.id,
            Image.sha256,
            Image.stored_path,
            Image.file_name,
            Image.facts,
            Image.current_class_id,
            Image.current_event_id,
            Image.group_key,
        )
        .where(
            Image.project_id == project_id,
            Image.status == "ok",
            Image.current_state == "label",
        )
        .order_by(Image.id)
    ).all()
    folded: dict[str, str] = {}  # “P07” and “p07 ” are one patient
    return [
        Labelled(
            Source(i, sha, app.store.path(path), name, rule.seen(facts)),
            int(c or 0),
            int(event or 0),
            fold(group, folded),
            picture=pictures.get(i),
            value=values.get(i),
        )
        for i, sha, path, name, facts, c, event, group in rows
    ]


@dataclass(frozen=True)
class Member:
    """An image of a split, labelled or not, with what ties it to others."""

    image_id: int
    name: str
    part: str
    group: str | None
    picture: int | None


def on_one_side(
    images: list[Labelled], members: Sequence[Member]
) -> tuple[list[Labelled], list[str]]:
    """Return the images without those that belong to others on a stricter side, and what to say.

    Test is stricter than validation, and validation than train: a copy of a test image is not
    learnt from, nor is what was put into the group of one.
    """
    left, said = images, []
    mine = {image.source.image_id for image in images}
    for what, keys in (
        ("show the same as", [m.picture for m in members]),
        ("are of the group of", [m.group for m in members]),
    ):
        judge: dict[object, Member] = {}
        for member, key in zip(members, keys, strict=True):
            known = judge.get(key)
            if key and (known is None or STRICTEST[member.part] > STRICTEST[known.part]):
                judge[key] = member
        torn = {
            member.image_id: (member, judge[key])
            for member, key in zip(members, keys, strict=True)
            if key
            and member.image_id in mine
            and STRICTEST[member.part] < STRICTEST[judge[key].part]
        }
        if torn:
            left = [image for image in left if image.source.image_id not in torn]
            said.append(_left_out(list(torn.values()), what))
    return left, said


def _left_out(torn: list[tuple[Member, Member]], what: str) -> str:
    each = "; ".join(
        f"{gone.name} ({gone.part}) and {kept.name} ({kept.part})" for gone, kept in torn[:3]
    )
    more = f"; and {len(torn) - 3:,} more" if len(torn) > 3 else ""
    n = "1 image was" if len(torn) == 1 else f"{len(torn):,} images were"
    return (
        f"{n} left out, since they {what} images on another side of the split: {each}{more}. A new "
        "split would keep them together."
    )


def tie_groups(images: list[Labelled]) -> tuple[list[Labelled], list[str]]:
    """Return the images with groups that share a picture made one, and what to say about it."""
    pictures = [i.picture for i in images]
    if not any(pictures):
        return images, []
    had = [i.group for i in images]
    groups, loose = tied_groups(had, pictures)
    gone = {k for same in loose for k in same[1:]}
    named = {(was, now) for was, now in zip(had, groups, strict=True) if was}
    merged = sorted({now for was, now in named if now and was != now})
    said = []
    if merged:
        said.append(
            f"Groups that share a picture count as one: {merged[0]}."
            + (f" So do {len(merged) - 1} more." if len(merged) > 1 else "")
            + " If they are different patients, set the pictures apart under Images, Quality."
        )
    if gone:
        said.append(
            f"Pictures that look the same tie most groups together: {len(gone):,} of them were "
            f"left out, for example {images[min(gone)].source.name}. Look through them under "
            "Images, Quality."
        )
    tied = [replace(i, group=group) for i, group in zip(images, groups, strict=True)]
    return [image for k, image in enumerate(tied) if k not in gone], said


def one_of_each(images: list[Labelled]) -> tuple[list[Labelled], list[str]]:
    """Return one image for each bytes, and what to say about the others.

    Copies would be learnt from and scored on at once. A picture whose copies are labelled
    differently is left out whole: one of the labels is wrong.
    """
    of_bytes: dict[str, list[Labelled]] = {}
    for image in images:
        of_bytes.setdefault(image.source.sha256, []).append(image)
    agreed = {sha: same for sha, same in of_bytes.items() if len({i.class_id for i in same}) == 1}
    n_copies = sum(len(same) - 1 for same in agreed.values())
    n_torn = len(of_bytes) - len(agreed)
    warnings = []
    if n_copies:
        warnings.append(
            f"Images whose bytes are the same count once: {n_copies} copies were left out of "
            "training and score."
        )
    if n_torn:
        torn = next(same for sha, same in of_bytes.items() if sha not in agreed)
        warnings.append(
            f"Same picture, different labels: {n_torn} left out, for example "
            f"{torn[0].source.name} and {torn[1].source.name}. Make their labels agree."
        )
    return [same[0] for same in agreed.values()], warnings


def _checked(
    images: list[Labelled], classes: list[ClassView], last_event_id: int, split_id: int | None
) -> Snapshot:
    """Leave out classes that too few images may be learnt from; raise where two are not left."""
    learning = [image for image in images if image.part != TEST]
    of_class: dict[int, list[Labelled]] = {c.id: [] for c in classes}
    for image in learning:
        of_class[image.class_id].append(image)
    groups = {c: {i.group for i in of_class[c]} - {None} for c in of_class}
    counts = [ClassCount(c.name, len(of_class[c.id]), len(groups[c.id])) for c in classes]
    verdict = assess(counts, len(images), len(set().union(*groups.values())))
    if not verdict.ok:
        n_test = len(images) - len(learning)
        why = f"{n_test:,} more are in the locked test set." if n_test else ""
        raise CnsError(" ".join(verdict.problems), why, "Label more images, then train again.")
    learnt = [c for c in classes if len(of_class[c.id]) >= NEEDED_PER_CLASS]
    ids = {c.id for c in learnt}
    # of groups the plan of the folds will speak, which knows more
    warnings = [line for line in verdict.warnings if line not in verdict.about_groups]
    kept = [i for i in images if i.class_id in ids]
    return Snapshot(kept, learnt, warnings, last_event_id, split_id)
