"""Linked files that were moved or renamed: found again by their content, and linked there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from sqlalchemy import insert, select, update

from cnsapp.bootstrap import App
from cnsapp.errors import InvalidInputError, UnreadableImageError
from cnsapp.imaging.store import hash_file
from cnsapp.services import jobs
from cnsapp.services.import_source import find_source, opened_source
from cnsapp.services.import_work import text_or_none
from cnsapp.services.telling import go_on, ignore
from db.models import Image, ImageEvent
from db.queries import chunks, set_status
from db.session import Store

KINDS_LOST = ("missing", "changed")
Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class RelinkReport:
    """What came of looking for moved files; the counts are of images but for `looked_at`."""

    looked_at: int  # files below the folder
    hashed: int  # of them read, since a lost file had their size
    lost: int  # linked images whose file was not at its place
    found: int
    still_lost: int

    def as_json(self) -> dict[str, Any]:
        """Return the report as JSON."""
        return asdict(self)


@dataclass(frozen=True)
class _Lost:
    id: int
    status: str
    name: str
    sha256: str
    n_bytes: int
    path: str


def start_relink(
    app: App, *, project_id: int, folder: Path, requested_by: str = "", from_web: bool = True
) -> int:
    """Queue the search and return the job's number; errors as `relink`."""
    roots = app.settings.import_roots if from_web else None
    real = find_source(app, folder, roots)
    return jobs.submit_job(
        app.store,
        kind="relink",
        project_id=project_id,
        payload={
            "folder": str(real),
            "who": requested_by,
            "allowed_roots": None if roots is None else [str(root) for root in roots],
        },
        requested_by=requested_by,
    )


def relink(
    app: App,
    *,
    project_id: int,
    folder: Path,
    who: str = "relink",
    progress: Progress | None = None,
    check_cancelled: Callable[[], None] | None = None,
    allowed_roots: Sequence[Path] | None = None,
) -> RelinkReport:
    """Find linked files that are not at their place below a folder, and link them there.

    Files are told by their content: by size first, then by SHA-256. Of several with the same
    content the one with the same name is taken. Nothing on disk is touched.

    Raises
    ------
    InvalidInputError
        There is no such folder, or it may not be read.
    """
    tell, check = progress or ignore, check_cancelled or go_on

    def listing(n: int) -> None:
        check()
        tell(n, 0, "")

    real = find_source(app, folder, allowed_roots)
    if not real.is_dir():
        raise InvalidInputError(f"{real} is a file, not a folder.", "", "Name its folder.")
    lost = _lost(app.store, project_id, check)
    by_size = {row.n_bytes for row in lost}
    places: dict[str, list[Path]] = {}
    hashed = 0
    with opened_source(app, real, allowed_roots, listing) as source:
        total = len(source.candidates)
        for done, candidate in enumerate(source.candidates, 1):
            check()
            tell(done, total, candidate.name)
            try:
                if candidate.path.stat().st_size not in by_size:
                    continue
                sha256, _ = hash_file(candidate.path)
            except (OSError, UnreadableImageError):
                continue
            hashed += 1
            places.setdefault(sha256, []).append(candidate.path.resolve())
    found = [(row, _best(row, places[row.sha256])) for row in lost if row.sha256 in places]
    moved = [(row, place) for row, place in found if text_or_none(place) is not None]
    for part in chunks(moved):
        _write(app.store, project_id, part, who or "relink")
    return RelinkReport(total, hashed, len(lost), len(moved), len(lost) - len(moved))


def _lost(store: Store, project_id: int, check: Callable[[], None]) -> list[_Lost]:
    """Return the linked images whose file is not what it was, whether marked already or not."""
    found: list[_Lost] = []
    after = 0
    while True:
        with store.reading() as session:
            rows = session.execute(
                select(
                    Image.id,
                    Image.status,
                    Image.file_name,
                    Image.sha256,
                    Image.n_bytes,
                    Image.stored_path,
                )
                .where(
                    Image.project_id == project_id,
                    Image.linked.is_(True),
                    Image.slide_id.is_(None),
                    Image.id > after,
                )
                .order_by(Image.id)
                .limit(500)
            ).all()
        if not rows:
            return found
        check()
        after = rows[-1].id
        found += [
            _Lost(*row) for row in rows if row.status in KINDS_LOST or not Path(row[5]).is_file()
        ]


def _best(row: _Lost, places: Sequence[Path]) -> Path:
    base = PurePosixPath(row.name).name
    return next((place for place in places if place.name == base), places[0])


def _write(store: Store, project_id: int, moved: Sequence[tuple[_Lost, Path]], who: str) -> None:
    with store.writing() as session:
        session.execute(
            update(Image),
            [
                {
                    "id": row.id,
                    "stored_path": str(place),
                    "source_path": str(place),
                    "source_mtime_ns": _mtime(place),
                }
                for row, place in moved
            ],
        )
        session.execute(
            insert(ImageEvent),
            [
                {
                    "project_id": project_id,
                    "image_id": row.id,
                    "kind": "moved",
                    "who": who,
                    "reason": f"Found at {place}.",
                    "details": {"from": row.path, "to": str(place)},
                }
                for row, place in moved
            ],
        )
        set_status(
            session,
            project_id,
            [row.id for row, _ in moved if row.status in KINDS_LOST],
            "ok",
            kind="found",
            who=who,
            reason="The file was found at another place.",
        )


def _mtime(place: Path) -> int | None:
    try:
        return place.stat().st_mtime_ns
    except OSError:
        return None
