"""Read again the images that a change of the project's reading rule touches, and only those."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import select, update

from cnsapp.bootstrap import App
from cnsapp.errors import CnsError, UnreadableImageError
from cnsapp.imaging import isolated
from cnsapp.imaging.decoded import ImageFacts
from cnsapp.imaging.rule import ReadingRule
from cnsapp.imaging.rule_changes import FileKind
from cnsapp.imaging.store import ImageFolder
from cnsapp.jobs.context import JobContext
from cnsapp.services.file_kinds import READABLE, file_kinds, keep_kinds
from cnsapp.services.images import reading_rule
from cnsapp.services.import_source import limits_of
from cnsapp.services.training import queue_features
from db.models import Image
from db.queries import chunks

PAGE = 1000  # rows looked at together
CHUNK = 32  # images between two transactions and two looks at "cancel"
LARGE = 20_000_000  # bytes from which files are decoded one at a time, to keep memory flat
LISTED = 500  # files that could not be read, in the job's result


@dataclass(frozen=True)
class _Touched:
    """An image to be read again."""

    id: int
    sha256: str
    path: Path
    name: str
    seen: str


@dataclass(frozen=True)
class _Reread:
    """What came of it: new facts, or the reason why the old picture stays."""

    image: _Touched
    facts: ImageFacts | None
    reason: str = ""


def run(app: App, job: JobContext) -> dict[str, Any]:
    """Make the pictures of the touched images, then queue the features.

    Nothing is done twice: a job that was killed finds the images that were read, and leaves them.
    When the rule is changed meanwhile, the rest is read by the newer one, and what was read by the
    older one is read again. Images that the rule cannot read keep their old picture.
    """
    if job.project_id is None:
        raise CnsError("The job names no project.", "", "Start it from a project's page.")
    project_id = job.project_id
    read: set[int] = set()
    while True:
        rule = reading_rule(app.store, project_id=project_id)
        work = _Pass(app, job, project_id, rule)
        finished = work.run()
        read |= work.read
        if finished and reading_rule(app.store, project_id=project_id) == rule:
            break
    if read:
        keep_kinds(app.store, project_id=project_id, reread=job.id)
        queue_features(app.store, project_id=project_id)
    failed = sorted(work.failed, key=lambda row: str(row["file"]))
    return {"read": len(read), "n_failed": len(failed), "failed": failed[:LISTED]}


class _Pass:
    """One walk over the images by one rule."""

    def __init__(self, app: App, job: JobContext, project_id: int, rule: ReadingRule) -> None:
        self.app, self.job, self.project_id, self.rule = app, job, project_id, rule
        self.folder, self.limits = ImageFolder(app.store.root), limits_of(app)
        self.read: set[int] = set()
        self.failed: list[dict[str, Any]] = []
        kinds = file_kinds(app.store, project_id=project_id)
        self.total = sum(kind.n for kind in kinds if kind.is_touched(rule))
        self.done = 0

    def run(self) -> bool:
        """Read what is touched; return False when the rule was changed before the end."""
        self.job.progress(0.0, "Looking for the images that look different now")
        small = ThreadPoolExecutor(min(4, (os.cpu_count() or 1) + 1), "reread")
        large = ThreadPoolExecutor(1, "reread-large")  # they take turns
        with small, large:
            for part in self._parts():
                self.job.check_cancelled()
                if reading_rule(self.app.store, project_id=self.project_id) != self.rule:
                    return False
                futures = [
                    (large if _is_large(image.path) else small).submit(self._read, image)
                    for image in part
                ]
                self._take(futures)
        return True

    def _take(self, futures: Sequence[Future[_Reread]]) -> None:
        """Store what the threads made, also when the job is stopped between two images."""
        made = []
        try:
            for future in futures:
                made.append(future.result())
                self.job.check_cancelled()
        finally:
            for future in futures:
                future.cancel()
            self._store(made)

    def _parts(self) -> Iterator[Sequence[_Touched]]:
        """Yield the touched images in the order of their ids, each picture once."""
        last: int | None = 0
        while last is not None:
            with self.app.store.reading() as session:
                rows = session.execute(
                    select(Image.id, Image.sha256, Image.stored_path, Image.file_name, Image.seen,
                           Image.facts)
                    .where(
                        Image.project_id == self.project_id,
                        Image.id > last,
                        Image.status.in_(READABLE),
                    )
                    .order_by(Image.id)
                    .limit(PAGE)
                ).all()  # fmt: skip
            last = rows[-1].id if rows else None
            touched = {
                row.sha256: _Touched(
                    row.id, row.sha256, self.app.store.path(row.stored_path), row.file_name,
                    row.seen,
                )
                for row in reversed(rows)
                if FileKind(row.facts, row.seen).is_touched(self.rule)
            }  # fmt: skip
            yield from chunks(sorted(touched.values(), key=lambda image: image.id), CHUNK)

    def _read(self, image: _Touched) -> _Reread:
        """Read an image by the rule and make its pictures. Runs in threads."""
        if not image.path.is_file():
            return _Reread(image, None, "The file is not there any more.")
        try:
            facts = isolated.look_at(
                image.path, self.rule, self.limits, root=self.app.store.root, sha256=image.sha256
            )
        except UnreadableImageError as error:
            return _Reread(image, None, error.what)
        return _Reread(image, facts)

    def _store(self, outcomes: Sequence[_Reread]) -> None:
        """Write the rows of a part in one short transaction, then remove the pictures before."""
        good = {o.image.sha256: o for o in outcomes if o.facts is not None}
        with self.app.store.writing() as session:
            rows = session.execute(
                select(Image.id, Image.sha256, Image.facts).where(
                    Image.project_id == self.project_id,
                    Image.sha256.in_(good),
                    Image.status.in_(READABLE),
                )
            ).all()
            changes = [_change(row.id, row.facts, good[row.sha256].facts) for row in rows]
            if changes:
                session.execute(update(Image), changes)
        self.read |= {row.id for row in rows}
        self._forget_pictures(outcomes)
        for outcome in outcomes:
            if outcome.facts is None:
                image = outcome.image
                row = {"image_id": image.id, "file": image.name, "reason": outcome.reason}
                self.failed.append(row)
        self.done += len(changes) + sum(1 for o in outcomes if o.facts is None)
        share = self.done / max(self.total, self.done)
        message = f"Read {self.done:,} of {max(self.total, self.done):,} images again"
        self.job.progress(share, message)

    def _forget_pictures(self, outcomes: Sequence[_Reread]) -> None:
        """Remove pictures of the old look that no image of any project shows any more."""
        old = {
            (o.image.sha256, o.image.seen)
            for o in outcomes
            if o.facts is not None and o.facts.seen != o.image.seen
        }
        with self.app.store.reading() as session:
            wanted = select(Image.sha256, Image.seen).where(
                Image.sha256.in_({sha256 for sha256, _ in old})
            )
            shown = {(sha256, seen) for sha256, seen in session.execute(wanted)}
        for sha256, seen in old - shown:
            self.folder.thumb_path(sha256, seen).unlink(missing_ok=True)
            self.folder.view_path(sha256, seen).unlink(missing_ok=True)


def _change(image_id: int, before: dict[str, Any], now: ImageFacts | None) -> dict[str, Any]:
    assert now is not None
    return {
        "id": image_id,
        "facts": {**before, **now.as_json()},
        "width": now.width,
        "height": now.height,
        "seen": now.seen,
    }


def _is_large(path: Path) -> bool:
    try:
        return path.stat().st_size >= LARGE
    except OSError:
        return False  # reading it will say why
