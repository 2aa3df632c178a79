"""The rows of an import: one short transaction for each chunk of files."""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
    store: Store,
    folder: ImageFolder,
    project_id: int,
    arrivals: Sequence[Arrival],
    names: Container[str],
) -> Stored:
    """Put copies into place and write their rows; rows that are there already stay as they are.

    `names` are the names of all files of this import. A file is a duplicate when the project has
    its bytes under its own name, or under a name that this import does not have (it came from
    elsewhere then). Other files with the same bytes are images of their own.
    """
    for arrival in arrivals:
        if arrival.part is not None and arrival.facts is not None:
            folder.settle(arrival.part, arrival.stored_path)
            arrival.part = None
    with store.writing() as session:
        there = _Known(session, project_id, arrivals, names)
        rows = [_row(project_id, a, there.sizes[a.sha256]) for a in arrivals if not there.find(a)]
        n_new = insert_new(session, Image, rows, ["project_id", "sha256", "file_name"])
        add_to_tally(session, project_id, {"images": n_new})
        _complete(session, folder, there, arrivals)
        known_now = _Known(session, project_id, arrivals, names)
        known = select(LabelClass.id).where(LabelClass.project_id == project_id)
        before = set(session.scalars(known))
        names = list(dict.fromkeys(a.label for a in arrivals if a.label))
        classes = find_or_add_classes(session, project_id, names)
        fresh = [name for name in names if classes[name] not in before]
        labels = [(known_now.get(a).id, classes[a.label]) for a in arrivals if a.label]
    for arrival in arrivals:
        if arrival.part is not None:
            arrival.part.unlink(missing_ok=True)
    return Stored(n_new, labels, fresh)


@dataclass(frozen=True)
class _Size:
    """What decoding told of some bytes."""

    width: int
    height: int
    facts: dict[str, Any]


class _Known:
    """The images that have the bytes of these arrivals."""

    def __init__(
        self,
        session: Session,
        project_id: int,
        arrivals: Sequence[Arrival],
        names: Container[str],
    ) -> None:
        shas = list({arrival.sha256 for arrival in arrivals})
        query = select(Image).where(Image.project_id == project_id, Image.sha256.in_(shas))
        self.names = names
        self.by_bytes: dict[str, list[Image]] = {}
        for row in session.scalars(query.order_by(Image.id)):
            self.by_bytes.setdefault(row.sha256, []).append(row)
        self.sizes = {
            sha: _Size(rows[0].width, rows[0].height, rows[0].facts)
            for sha, rows in self.by_bytes.items()
        }
        for a in arrivals:
            if a.facts is not None:
                self.sizes[a.sha256] = _Size(a.facts.width, a.facts.height, a.facts.as_json())

    def find(self, arrival: Arrival) -> Image | None:
        """Return the image that this file is a duplicate of, or None for an image of its own."""
        rows = self.by_bytes.get(arrival.sha256, [])
        same = [row for row in rows if row.file_name == arrival.name]
        elsewhere = [row for row in rows if row.file_name not in self.names]
        return next(iter(same + elsewhere), None)

    def get(self, arrival: Arrival) -> Image:
        """Return the image of a file whose row is written."""
        found = self.find(arrival)
        assert found is not None
        return found


def _row(project_id: int, arrival: Arrival, size: _Size) -> dict[str, object]:
    return {
        "project_id": project_id,
        "sha256": arrival.sha256,
        "file_name": arrival.name,
        "width": size.width,
        "height": size.height,
        "group_key": _short(arrival.group),
        "stored_path": arrival.stored_path,
        "linked": arrival.linked,
        "n_bytes": arrival.n_bytes,
        "facts": size.facts,
        "seen": size.facts.get("seen", ""),
    }


def _short(group: str | None) -> str | None:
    return group[:400] if group else None


def _complete(
    session: Session, folder: ImageFolder, there: _Known, arrivals: Sequence[Arrival]
) -> None:
    """Give known images what they lacked: a group, or a file in place of one that went missing."""
    for arrival in arrivals:
        row = there.find(arrival)
        if row is None:
            continue
        changes: dict[str, object] = {}
        if row.group_key is None and arrival.group:
            changes["group_key"] = _short(arrival.group)
        is_wanted_as_copy = row.linked and not arrival.linked  # imported again without linking
        if is_wanted_as_copy or not (folder.root / row.stored_path).is_file():
            changes |= {"stored_path": arrival.stored_path, "linked": arrival.linked}
        if changes:
            session.execute(update(Image).where(Image.id == row.id).values(**changes))
