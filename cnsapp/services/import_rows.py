"""The rows of an import: one short transaction for each chunk of files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from cnsapp.imaging.decoded import ImageFacts
from cnsapp.imaging.store import ImageFolder
from cnsapp.services.projects import find_or_add_classes
from db.models import Image, LabelClass
from db.queries import add_to_tally, insert_new
from db.session import Store


@dataclass
class Arrival:
    """A file that was read: `facts` is None when the project has and keeps its bytes already."""

    name: str
    sha256: str
    n_bytes: int
    label: str | None
    group: str | None
    part: Path | None  # its copy, not in place yet; None when linked
    stored_path: str
    linked: bool
    facts: ImageFacts | None = None


@dataclass(frozen=True)
class Stored:
    """What a chunk added."""

    n_new: int
    labels: list[tuple[int, int]]  # (image id, class id)
    new_classes: list[str]


def store_arrivals(
    store: Store, folder: ImageFolder, project_id: int, arrivals: Sequence[Arrival]
) -> Stored:
    """Put copies into place and write their rows; rows that are there already stay as they are."""
    for arrival in arrivals:
        if arrival.part is not None and arrival.facts is not None:
            folder.settle(arrival.part, arrival.stored_path)
            arrival.part = None
    with store.writing() as session:
        there = _rows(session, project_id, arrivals)
        new = {
            a.sha256: _row(project_id, a)
            for a in reversed(arrivals)  # the first file of the same bytes gives the name
            if a.facts is not None and a.sha256 not in there
        }
        rows = [
            new[sha256] for sha256 in dict.fromkeys(a.sha256 for a in arrivals) if sha256 in new
        ]
        n_new = insert_new(session, Image, rows, ["project_id", "sha256"])
        add_to_tally(session, project_id, {"images": n_new})
        _complete(session, folder, there, arrivals)
        ids = {row.sha256: row.id for row in _rows(session, project_id, arrivals).values()}
        known = select(LabelClass.id).where(LabelClass.project_id == project_id)
        before = set(session.scalars(known))
        names = list(dict.fromkeys(a.label for a in arrivals if a.label))
        classes = find_or_add_classes(session, project_id, names)
        fresh = [name for name in names if classes[name] not in before]
        labels = [(ids[a.sha256], classes[a.label]) for a in arrivals if a.label]
    for arrival in arrivals:
        if arrival.part is not None:
            arrival.part.unlink(missing_ok=True)
    return Stored(n_new, labels, fresh)


def _rows(session: Session, project_id: int, arrivals: Sequence[Arrival]) -> dict[str, Image]:
    shas = list({arrival.sha256 for arrival in arrivals})
    query = select(Image).where(Image.project_id == project_id, Image.sha256.in_(shas))
    return {row.sha256: row for row in session.scalars(query)}


def _row(project_id: int, arrival: Arrival) -> dict[str, object]:
    facts = arrival.facts
    assert facts is not None
    return {
        "project_id": project_id,
        "sha256": arrival.sha256,
        "file_name": arrival.name,
        "width": facts.width,
        "height": facts.height,
        "group_key": _short(arrival.group),
        "stored_path": arrival.stored_path,
        "linked": arrival.linked,
        "n_bytes": arrival.n_bytes,
        "facts": facts.as_json(),
    }


def _short(group: str | None) -> str | None:
    return group[:400] if group else None


def _complete(
    session: Session, folder: ImageFolder, there: dict[str, Image], arrivals: Sequence[Arrival]
) -> None:
    """Give known images what they lacked: a group, or a file in place of one that went missing."""
    for arrival in arrivals:
        row = there.get(arrival.sha256)
        if row is None:
            continue
        changes: dict[str, object] = {}
        if row.group_key is None and arrival.group:
            changes["group_key"] = _short(arrival.group)
        if not (folder.root / row.stored_path).is_file():
            changes |= {"stored_path": arrival.stored_path, "linked": arrival.linked}
        if changes:
            session.execute(update(Image).where(Image.id == row.id).values(**changes))
