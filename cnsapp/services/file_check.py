"""Are the files of a project's images still there, and still what they were?

Those that are not are marked and keep their labels; the mark goes when they come back.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from cnsapp.bootstrap import App
from cnsapp.errors import UnreadableImageError
from cnsapp.imaging.store import hash_file
from cnsapp.services import jobs
from db.models import Image
from db.queries import set_status
from db.session import Store

CHUNK = 200  # images a look; each is a few calls to the file system
OK, MISSING, CHANGED = "ok", "missing", "changed"
CHECKED = (OK, MISSING, CHANGED)  # excluded images stay as somebody left them

REASONS = {
    (MISSING, True): "The linked file is not at its place.",
    (MISSING, False): "The stored copy is gone from the data folder.",
    (CHANGED, True): "The linked file has other content than at the import.",
    (CHANGED, False): "The stored copy is damaged: its content is not what was imported.",
}
REMEDIES = {
    (MISSING, True): "Connect its disk, or find it below its new folder.",
    (MISSING, False): "Import it again, or restore a backup.",
    (CHANGED, True): "Put the original back, or import the new file as an image of its own.",
    (CHANGED, False): "Import it again: the copy is made anew.",
}

Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class FilesReport:
    """What a check of the files found; the counts are of images."""

    checked: int
    ok: int
    missing: int
    changed: int
    found: int  # marked before, all right now
    newly_marked: int
    hashed: int  # read wholly
    excluded: int  # not looked at, since somebody excluded them

    def as_json(self) -> dict[str, Any]:
        """Return the report as JSON."""
        return asdict(self)


@dataclass(frozen=True)
class FileProblem:
    """An image whose file is not what it was, and what to do."""

    image_id: int
    name: str
    status: str
    path: str
    linked: bool
    reason: str
    remedy: str
    labelled: bool


@dataclass(frozen=True)
class _Row:
    id: int
    status: str
    path: Path
    linked: bool
    sha256: str
    n_bytes: int
    mtime_ns: int | None
    is_tile: bool
    name: str


def start_check(app: App, *, project_id: int, full: bool = False, requested_by: str = "") -> int:
    """Queue a check of a project's files and return the job's number."""
    return jobs.submit_job(
        app.store,
        kind="check_files",
        project_id=project_id,
        payload={"full": full, "who": requested_by},
        requested_by=requested_by,
    )


def check_files(
    app: App,
    *,
    project_id: int,
    full: bool = False,
    who: str = "check",
    progress: Progress | None = None,
    check_cancelled: Callable[[], None] | None = None,
) -> FilesReport:
    """Look at the stored copy or the linked original of every image that nobody excluded.

    A file of the right size and, when linked, with the time it had at the import counts as
    unchanged; others are read and compared by their SHA-256.

    Parameters
    ----------
    full
        Read every file wholly: finds bytes that a disk lost without a trace, and takes long.
    """
    counts: Counter[str] = Counter()
    with app.store.reading() as session:
        mine = Image.project_id == project_id
        total = _count(session, mine, Image.status.in_(CHECKED))
        counts["excluded"] = _count(session, mine, Image.status == "excluded")
    after = 0
    while rows := _rows(app.store, project_id, after):
        after = rows[-1].id
        verdicts = []
        for row in rows:
            if check_cancelled is not None:
                check_cancelled()
            verdicts.append(_verdict(row, full, counts))
            counts["checked"] += 1
            if progress is not None:
                progress(counts["checked"], max(total, counts["checked"]), row.name)
        _mark(app.store, project_id, list(zip(rows, verdicts, strict=True)), who, counts)
    return FilesReport(**{part.name: counts[part.name] for part in fields(FilesReport)})


def list_problems(
    store: Store, *, project_id: int, after: int = 0, limit: int = 200
) -> list[FileProblem]:
    """Return the images whose files are missing or changed, in the order of their ids."""
    with store.reading() as session:
        rows = session.execute(
            select(Image)
            .where(
                Image.project_id == project_id,
                Image.status.in_((MISSING, CHANGED)),
                Image.id > after,
            )
            .order_by(Image.id)
            .limit(limit)
        ).scalars()
        return [
            FileProblem(
                image_id=row.id,
                name=row.file_name,
                status=row.status,
                path=str(store.root / row.stored_path),
                linked=row.linked,
                reason=REASONS[row.status, row.linked],
                remedy=REMEDIES[row.status, row.linked],
                labelled=row.current_state == "label",
            )
            for row in rows
        ]


def count_by_status(store: Store, *, project_id: int) -> dict[str, int]:
    """Return how many images are missing, changed or excluded; those that are ok are in `counts`.

    Their share is small, and an index holds them together.
    """
    with store.reading() as session:
        rows = session.execute(
            select(Image.status, func.count())
            .where(
                Image.project_id == project_id,
                Image.status.in_((MISSING, CHANGED, "excluded")),
            )
            .group_by(Image.status)
        )
        return {str(status): int(n) for status, n in rows}


def left_out(store: Store, *, project_id: int) -> str | None:
    """Return a sentence on labelled images that training leaves out for their files, or None."""
    with store.reading() as session:
        n = _count(
            session,
            Image.project_id == project_id,
            Image.status.in_((MISSING, CHANGED)),
            Image.current_state == "label",
        )
    if not n:
        return None
    are, their = ("image is", "its file is") if n == 1 else ("images are", "their files are")
    return (
        f"{n:,} labelled {are} left out because {their} missing or changed; "
        "Images › Files lists them. Labels are kept."
    )


def _count(session: Session, *where: Any) -> int:
    return session.scalar(select(func.count()).select_from(Image).where(*where)) or 0


def _rows(store: Store, project_id: int, after: int) -> list[_Row]:
    with store.reading() as session:
        rows = session.execute(
            select(
                Image.id,
                Image.status,
                Image.stored_path,
                Image.linked,
                Image.sha256,
                Image.n_bytes,
                Image.source_mtime_ns,
                Image.slide_id,
                Image.file_name,
            )
            .where(Image.project_id == project_id, Image.status.in_(CHECKED), Image.id > after)
            .order_by(Image.id)
            .limit(CHUNK)
        )
        return [
            _Row(i, status, store.root / path, linked, sha, n, mtime, slide is not None, name)
            for i, status, path, linked, sha, n, mtime, slide, name in rows
        ]


@dataclass(frozen=True)
class _Verdict:
    status: str
    mtime_ns: int | None = None  # to remember: same content at another time


def _verdict(row: _Row, full: bool, counts: Counter[str]) -> _Verdict:
    try:
        facts = row.path.stat()
    except OSError:
        return _Verdict(MISSING)
    if not row.path.is_file():
        return _Verdict(MISSING)
    if row.is_tile and row.linked:
        return _Verdict(OK)  # its path is the slide's
    same_size = facts.st_size == row.n_bytes
    if not same_size:
        return _Verdict(CHANGED)
    same_time = not row.linked or facts.st_mtime_ns == row.mtime_ns
    if same_time and not full and row.status != CHANGED:
        return _Verdict(OK)
    try:
        sha256, _ = hash_file(row.path)
    except UnreadableImageError:
        return _Verdict(MISSING)
    counts["hashed"] += 1
    if sha256 != row.sha256:
        return _Verdict(CHANGED)
    return _Verdict(OK, facts.st_mtime_ns if row.linked and not same_time else None)


def _mark(
    store: Store,
    project_id: int,
    seen: Sequence[tuple[_Row, _Verdict]],
    who: str,
    counts: Counter[str],
) -> None:
    groups: dict[tuple[str, bool], list[int]] = {}
    for row, verdict in seen:
        counts[verdict.status] += 1
        if verdict.status != row.status:
            groups.setdefault((verdict.status, row.linked), []).append(row.id)
            counts["found" if verdict.status == OK else "newly_marked"] += 1
    times = [
        {"id": row.id, "source_mtime_ns": verdict.mtime_ns}
        for row, verdict in seen
        if verdict.mtime_ns is not None
    ]
    if not groups and not times:
        return
    with store.writing() as session:
        for (status, linked), ids in groups.items():
            set_status(
                session,
                project_id,
                ids,
                status,
                kind="found" if status == OK else status,
                who=who or "check",
                reason=REASONS.get((status, linked), "The file is back and unchanged."),
            )
        if times:
            session.execute(update(Image), times)
