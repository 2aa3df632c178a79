"""The rows of an import: one short transaction for each chunk of files."""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from cnsapp.domain.metadata import Value
from cnsapp.imaging.decoded import ImageFacts
from cnsapp.imaging.store import ImageFolder
from cnsapp.services.classes import find_or_add_classes
from cnsapp.services.exclusion import put_into_groups
from cnsapp.services.images import reading_rule
from cnsapp.services.metadata import put_values
from db.models import Image, LabelClass, LabelEvent
from db.queries import add_to_tally, chunks, insert_new, set_status
from db.session import Store

LOST = ("missing", "changed")  # the status of images whose file is not what it was


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
    source_path: str | None = None  # where it was found; None when that place is gone afterwards
    source_mtime_ns: int | None = None
    meta: dict[str, Value] = field(default_factory=dict)


@dataclass(frozen=True)
class Begun:
    """The newest rows when an import began: one that was killed tells its own by them."""

    image_id: int
    event_id: int
    class_id: int
    windows: tuple[str, ...] = ()  # the kinds of samples that had a window

    def as_json(self) -> dict[str, Any]:
        """Return it as a job keeps it."""
        return asdict(self)

    @classmethod
    def from_json(cls, stored: dict[str, Any]) -> Begun:
        """Return what `as_json` gave."""
        return cls(**{**stored, "windows": tuple(stored["windows"])})


@dataclass(frozen=True)
class Stored:
    """What a chunk added, or had added before the import was killed."""

    n_new: int
    labels: list[tuple[int, int]]  # (image id, class id)
    new_classes: list[str]


def store_arrivals(
    store: Store,
    folder: ImageFolder,
    project_id: int,
    arrivals: Sequence[Arrival],
    names: Container[str],
    annotator: str,
    begun: Begun | None = None,
) -> Stored:
    """Put copies into place and write their rows; rows that are there already stay as they are.

    With `begun` rows that came since then count as new: an earlier start of this import wrote them.

    `names` are the names of all files of this import. A file is a duplicate when the project has
    its bytes under its own name, or under a name that this import does not have (it came from
    elsewhere then). Other files with the same bytes are images of their own.
    """
    for arrival in arrivals:
        if arrival.part is not None and arrival.facts is not None:
            folder.settle(arrival.part, arrival.stored_path)
            arrival.part = None
    with store.writing() as session:
        there = Known(session, project_id, arrivals, names)
        rows = [_row(project_id, a, there.sizes[a.sha256]) for a in arrivals if not there.find(a)]
        n_new = insert_new(session, Image, rows, ["project_id", "sha256", "file_name"])
        add_to_tally(session, project_id, {"images": n_new})
        _complete(session, folder, project_id, there, arrivals)
        known_now = Known(session, project_id, arrivals, names)
        known = select(LabelClass.id).where(LabelClass.project_id == project_id)
        before = set(session.scalars(known))
        if begun is not None:
            before = {class_id for class_id in before if class_id <= begun.class_id}
            n_new = sum(
                row.id > begun.image_id and row.file_name == arrival.name
                for arrival, row in ((a, known_now.get(a)) for a in arrivals)
            )
        names = list(dict.fromkeys(a.label for a in arrivals if a.label))
        classes = find_or_add_classes(session, project_id, names, annotator)
        fresh = [name for name in names if classes[name] not in before]
        labels = [(known_now.get(a).id, classes[a.label]) for a in arrivals if a.label]
        put_values(session, project_id, {known_now.get(a).id: a.meta for a in arrivals if a.meta})
    for arrival in arrivals:
        if arrival.part is not None:
            arrival.part.unlink(missing_ok=True)
    return Stored(n_new, labels, fresh)


def newest_rows(store: Store, *, project_id: int) -> Begun:
    """Return what an import that begins now is to remember."""
    rule = reading_rule(store, project_id=project_id)
    with store.reading() as session:
        return Begun(
            image_id=session.scalar(select(func.max(Image.id))) or 0,
            event_id=session.scalar(select(func.max(LabelEvent.id))) or 0,
            class_id=session.scalar(select(func.max(LabelClass.id))) or 0,
            windows=tuple(kind for kind, _, _ in rule.windows),
        )


def labels_since(
    store: Store, begun: Begun, rows: Sequence[tuple[int, int]]
) -> set[tuple[int, int]]:
    """Return those of (image id, class id) that an import has given since it began."""
    found: set[tuple[int, int]] = set()
    with store.reading() as session:
        for part in chunks(sorted({image_id for image_id, _ in rows})):
            given = select(LabelEvent.image_id, LabelEvent.class_id).where(
                LabelEvent.image_id.in_(part),
                LabelEvent.id > begun.event_id,
                LabelEvent.kind == "label",
                LabelEvent.source == "import",
            )
            found |= {(i, class_id) for i, class_id in session.execute(given) if class_id}
    return found & set(rows)


def known_bytes(store: Store, shas: Sequence[str]) -> set[str]:
    """Return which of these SHA-256 some image of any project has."""
    with store.reading() as session:
        return set(session.scalars(select(Image.sha256).where(Image.sha256.in_(shas))))


@dataclass(frozen=True)
class _Size:
    """What decoding told of some bytes."""

    width: int
    height: int
    facts: dict[str, Any]


class Known:
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
        "source_path": arrival.source_path,
        "source_mtime_ns": arrival.source_mtime_ns,
        "facts": size.facts,
        "seen": size.facts.get("seen", ""),
    }


def _short(group: str | None) -> str | None:
    return group[:400] if group else None


def _complete(
    session: Session,
    folder: ImageFolder,
    project_id: int,
    there: Known,
    arrivals: Sequence[Arrival],
) -> None:
    """Give known images what they lacked: a group, or a file in place of one that went missing."""
    back = []
    groups: dict[int, str | None] = {}
    for arrival in arrivals:
        row = there.find(arrival)
        if row is None:
            continue
        changes: dict[str, object] = {}
        if row.group_key is None and arrival.group:
            groups[row.id] = _short(arrival.group)
        is_wanted_as_copy = row.linked and not arrival.linked  # imported again without linking
        is_lost = row.status in LOST or not (folder.root / row.stored_path).is_file()
        if is_wanted_as_copy or is_lost:
            changes |= {"stored_path": arrival.stored_path, "linked": arrival.linked}
        if arrival.source_path and (is_wanted_as_copy or is_lost or not _is_there(row)):
            changes["source_path"] = arrival.source_path
            changes["source_mtime_ns"] = arrival.source_mtime_ns
        if changes:
            session.execute(update(Image).where(Image.id == row.id).values(**changes))
        if row.status in LOST:
            back.append(row.id)
    set_status(
        session, project_id, back, "ok", kind="found", who="import", reason="Imported again."
    )
    put_into_groups(
        session, project_id=project_id, groups=groups, who="import", reason="Imported again.",
        details={},
    )  # fmt: skip


def _is_there(row: Image) -> bool:
    """Return whether the file that an image came from is still where it was."""
    return row.source_path is not None and Path(row.source_path).is_file()
