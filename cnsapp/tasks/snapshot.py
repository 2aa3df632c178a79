"""The labels that a run learns from: taken once, every picture once; later ones change nothing."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace

from sqlalchemy import func, select

from cnsapp.bootstrap import App
from cnsapp.domain.names import name_key
from cnsapp.domain.readiness import NEEDED_PER_CLASS, ClassCount, assess
from cnsapp.errors import CnsError
from cnsapp.imaging.rule import ReadingRule
from cnsapp.services.projects import ClassView, list_classes
from cnsapp.tasks.features import Failures
from cnsapp.tasks.resources import Source
from db.models import Image, LabelEvent


@dataclass(frozen=True)
class Labelled:
    """An image with its label at the start of the run."""

    source: Source
    class_id: int
    event_id: int
    group: str | None
    part: str = "train"  # train | validation | test: where the active split puts it


@dataclass(frozen=True)
class Snapshot:
    """The labels that a run learns from, every picture once; later ones do not change it."""

    images: list[Labelled]
    classes: list[ClassView]  # those that are learnt, in the order of the project
    warnings: list[str]
    last_event_id: int
    split_id: int | None = None  # the active split that `part` comes from

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
            rest = _checked(left, self.classes, self.last_event_id)
        except CnsError as error:
            raise CnsError(f"{unread} {error.what}", error.why, error.remedy) from error
        warnings = [*self.warnings, *rest.warnings, unread]
        return replace(rest, warnings=list(dict.fromkeys(warnings)))

    @property
    def learning(self) -> list[Labelled]:
        """What may be learnt from and chosen by: all but the test set."""
        return [image for image in self.images if image.part != "test"]

    @property
    def testing(self) -> list[Labelled]:
        """The locked test set: scored once, at the very end."""
        return [image for image in self.images if image.part == "test"]

    def fingerprint(self) -> str:
        """Return a hash of which image bytes were labelled as which class."""
        pairs = sorted(f"{i.source.sha256}:{i.class_id}" for i in self.images)
        return hashlib.sha256("\n".join(pairs).encode()).hexdigest()


def take_snapshot(app: App, project_id: int, rule: ReadingRule) -> Snapshot:
    """Return the labels of now; raise CnsError when they do not suffice (any more)."""
    with app.store.reading() as session:
        last_event_id = session.scalar(select(func.max(LabelEvent.id))) or 0
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
    images = [
        Labelled(
            Source(i, sha, app.store.path(path), name, rule.seen(facts)),
            int(c or 0),
            int(event or 0),
            name_key(group) if group else None,  # “P07” and “p07 ” are one patient
        )
        for i, sha, path, name, facts, c, event, group in rows
    ]
    # read after the labels: a class that is added meanwhile is known then
    classes = list_classes(app.store, project_id=project_id)
    unique, warnings = one_of_each(images)
    snapshot = _checked(unique, classes, last_event_id)
    return replace(snapshot, warnings=[*snapshot.warnings, *warnings])


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


def _checked(images: list[Labelled], classes: list[ClassView], last_event_id: int) -> Snapshot:
    of_class: dict[int, list[Labelled]] = {c.id: [] for c in classes}
    for image in images:
        of_class[image.class_id].append(image)
    groups = {c: {i.group for i in of_class[c]} - {None} for c in of_class}
    counts = [ClassCount(c.name, len(of_class[c.id]), len(groups[c.id])) for c in classes]
    verdict = assess(counts, len(images), len(set().union(*groups.values())))
    if not verdict.ok:
        raise CnsError(" ".join(verdict.problems), "", "Label more images, then train again.")
    learnt = [c for c in classes if len(of_class[c.id]) >= NEEDED_PER_CLASS]
    ids = {c.id for c in learnt}
    # of groups the plan of the folds will speak, which knows more
    warnings = [line for line in verdict.warnings if line not in verdict.about_groups]
    return Snapshot([i for i in images if i.class_id in ids], learnt, warnings, last_event_id)
