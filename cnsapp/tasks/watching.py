"""The worker's looks at watched folders: what is new and complete is imported, the rest waits."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import select

from cnsapp.bootstrap import App
from cnsapp.errors import Cancelled, CnsError
from cnsapp.imaging.candidates import Candidate
from cnsapp.services.import_report import ImportReport
from cnsapp.services.import_source import Source, find_source, opened_source
from cnsapp.services.importing import import_source
from cnsapp.services.training import queue_features
from cnsapp.tasks.watch_lease import Lease, Leases
from db.models import Image, Slide, WatchedFolder
from db.types import utc_now

log = logging.getLogger(__name__)

AT_ONCE = 1000  # files a look: another folder gets its turn, and the state is written
SHOWN = 50  # waiting files named in the state
TRIES = (1.0, 6.0, 30.0, 90.0)  # looks to wait after each unreadable try; then it is given up

Facts = tuple[int, int]  # size in bytes, time of the last change in ns


@dataclass
class _Problem:
    """A file that could not be read, and when to try again."""

    size: int
    mtime_ns: int
    tries: int
    reason: str
    again_at: str | None  # ISO; None: given up until it changes

    def is_of(self, facts: Facts) -> bool:
        return (self.size, self.mtime_ns) == facts

    def is_due(self, now: datetime) -> bool:
        return self.again_at is not None and datetime.fromisoformat(self.again_at) <= now


class Watcher:
    """Looks at the watched folders of all projects.

    What is in the project, and which new files were there at the last look, is kept in memory: it
    is learnt anew from the database and the next two looks after a restart.
    """

    def __init__(self, app: App, now: Callable[[], datetime] = utc_now) -> None:
        self._app, self._now = app, now
        self._leases = Leases(app.store, app.settings.watch_seconds, now)
        self._known: dict[int, dict[str, Facts]] = {}  # watched folder -> file -> as imported
        self._seen: dict[int, dict[str, Facts]] = {}  # watched folder -> new file -> last look

    def look(self, should_stop: Callable[[], bool] = lambda: False) -> None:
        """Look at each folder whose time has come."""
        with self._app.store.reading() as session:
            active = select(WatchedFolder.id).where(WatchedFolder.active.is_(True))
            ids = session.scalars(active.order_by(WatchedFolder.id)).all()
        for folder_id in ids:
            if should_stop():
                return
            row = self._leases.take(folder_id)
            if row is None:
                continue
            if row.is_new:
                self._known.pop(row.folder_id, None)
                self._seen.pop(row.folder_id, None)
            try:
                with self._leases.renewed(row):
                    self._look_at(row, lambda row=row: should_stop() or row.lost.is_set())  # type: ignore[misc]
            except Cancelled:
                if should_stop():
                    return
            except Exception as error:  # the other folders, and the next look, are not affected
                log.exception("watched folder %s", row.path)
                self._say(row, problem=f"The last look failed ({type(error).__name__}).")

    def _look_at(self, row: Lease, should_stop: Callable[[], bool]) -> None:
        roots = row.settings.get("allowed_roots")
        allowed = None if roots is None else [Path(root) for root in roots]
        problems = {n: _Problem(**p) for n, p in row.state.get("problems", {}).items()}
        try:
            real = find_source(self._app, Path(row.path), allowed)
            with opened_source(self._app, real, allowed) as source:
                new = self._new_files(row, source, problems)
                ready = self._ready(row.folder_id, new, problems)
                report = self._bring(row, source, ready, should_stop)
        except CnsError as error:
            self._say(row, problem=str(error))
            return
        n_new = self._note(row, new, ready, report, problems)
        self._say(
            row,
            problem=None,
            n_files=len(source.candidates),
            problems={n: vars(p) for n, p in problems.items()},
            waiting=_waiting(new, problems),
            n_waiting=len(new),
            imported=n_new,
        )
        if n_new:
            queue_features(self._app.store, project_id=row.project_id)

    def _new_files(
        self, row: Lease, source: Source, problems: dict[str, _Problem]
    ) -> dict[str, tuple[Candidate, Facts]]:
        """Return the files that are not in the project as they are now."""
        if row.folder_id not in self._known:
            self._known[row.folder_id] = self._imported(row, source.root)
        known = self._known[row.folder_id]
        new = {}
        for candidate in source.candidates:
            try:
                facts = candidate.path.stat()
            except OSError:
                continue  # gone again
            now = (facts.st_size, facts.st_mtime_ns)
            if known.get(candidate.name) != now:
                new[candidate.name] = (candidate, now)
        for name in [n for n, p in problems.items() if n not in new or not p.is_of(new[n][1])]:
            del problems[name]  # gone, or written again since
        return new

    def _imported(self, row: Lease, root: Path) -> dict[str, Facts]:
        below = f"{root}/"
        with self._app.store.reading() as session:
            rows = session.execute(
                select(Image.source_path, Image.n_bytes, Image.source_mtime_ns)
                .where(Image.project_id == row.project_id, Image.source_path.is_not(None))
                .execution_options(yield_per=2000)
            )
            known = {
                str(path).removeprefix(below): (n_bytes, mtime_ns)
                for path, n_bytes, mtime_ns in rows
                if str(path).startswith(below) and mtime_ns is not None
            }
            slides = session.execute(
                select(Slide.stored_path, Slide.n_bytes, Slide.settings).where(
                    Slide.project_id == row.project_id
                )
            )
            for path, n_bytes, cut in slides:
                if path.startswith(below) and cut.get("complete") and cut.get("mtime_ns"):
                    known[path.removeprefix(below)] = (n_bytes, int(cut["mtime_ns"]))
            return known

    def _ready(
        self,
        folder_id: int,
        new: dict[str, tuple[Candidate, Facts]],
        problems: dict[str, _Problem],
    ) -> list[Candidate]:
        """Return the files that have not changed since the last look and may be tried."""
        before, now = self._seen.get(folder_id, {}), self._now()
        self._seen[folder_id] = {name: facts for name, (_, facts) in new.items()}
        ready = [
            candidate
            for name, (candidate, facts) in new.items()
            if before.get(name) == facts and (name not in problems or problems[name].is_due(now))
        ]
        return ready[:AT_ONCE]

    def _bring(
        self,
        row: Lease,
        source: Source,
        ready: list[Candidate],
        should_stop: Callable[[], bool],
    ) -> ImportReport:
        def check() -> None:
            if should_stop():
                raise Cancelled

        if not ready:
            return ImportReport()
        names = frozenset(candidate.name for candidate in source.candidates)
        settings = row.settings
        roots = settings.get("allowed_roots")
        return import_source(
            self._app,
            project_id=row.project_id,
            source=Source(source.root, ready, [], source.lasting, names),
            labels=settings.get("labels"),
            group_from=settings.get("group_from"),
            link=bool(settings.get("link")),
            annotator=settings.get("annotator") or "watched folder",
            check_cancelled=check,
            allowed_roots=None if roots is None else [Path(root) for root in roots],
        )

    def _note(
        self,
        row: Lease,
        new: dict[str, tuple[Candidate, Facts]],
        ready: list[Candidate],
        report: ImportReport,
        problems: dict[str, _Problem],
    ) -> int:
        """Sort the tried files into those that are in now and those to try again."""
        reasons = {skipped.file: skipped.reason for skipped in report.skipped}
        for candidate in ready:
            _, facts = new[candidate.name]
            if candidate.name in reasons:
                tries = problems[candidate.name].tries if candidate.name in problems else 0
                problems[candidate.name] = self._problem(facts, tries, reasons[candidate.name])
            else:
                self._known[row.folder_id][candidate.name] = facts
                problems.pop(candidate.name, None)
                del new[candidate.name]
        return report.imported

    def _problem(self, facts: Facts, tries: int, reason: str) -> _Problem:
        again = None
        if tries < len(TRIES):
            pause = TRIES[tries] * self._app.settings.watch_seconds
            again = (self._now() + timedelta(seconds=pause)).isoformat()
        return _Problem(*facts, tries + 1, reason, again)

    def _say(self, row: Lease, *, imported: int = 0, **found: Any) -> None:
        """Write what the look found, unless the rules changed or another worker has the folder."""
        with self._app.store.writing() as session:
            now = self._leases.mine(session, row.folder_id)
            if now is None or now.settings != row.settings:
                return
            state = {**(now.state or {}), **found}
            if imported:
                state["imported"] = int(state.get("imported", 0)) + imported
                state["last_import_at"] = self._now().isoformat()
            now.state = state
            now.looked_at = self._now()


def _waiting(
    new: dict[str, tuple[Candidate, Facts]], problems: dict[str, _Problem]
) -> list[dict[str, Any]]:
    shown = []
    for name in sorted(new, key=lambda name: (name not in problems, name))[:SHOWN]:
        problem = problems.get(name)
        shown.append(
            {
                "file": name,
                "reason": problem.reason if problem else "New; read once it stays unchanged.",
                "given_up": problem is not None and problem.again_at is None,
            }
        )
    return shown
