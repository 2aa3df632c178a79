"""The work of an import: threads read the files, one thread stores what they found in order."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from sqlalchemy import select
from sqlalchemy.exc import SQLAlchemyError

from cnsapp.bootstrap import App
from cnsapp.domain.names import name_key
from cnsapp.errors import Cancelled, InvalidInputError, UnreadableImageError
from cnsapp.imaging.candidates import Candidate
from cnsapp.imaging.isolated import check_header, look_at
from cnsapp.imaging.journal import Journal, clean_orphans
from cnsapp.imaging.reader import WindowMissingError
from cnsapp.imaging.rule import ReadingRule
from cnsapp.imaging.sniff import SUFFIXES, sniff
from cnsapp.imaging.store import ImageFolder, Part, hash_bytes, hash_file, read_small
from cnsapp.services.class_rows import check_class_name
from cnsapp.services.import_plan import ImportPlan
from cnsapp.services.import_report import ImportReport, Skipped
from cnsapp.services.import_rows import (
    LOST,
    Arrival,
    Begun,
    known_bytes,
    labels_since,
    store_arrivals,
)
from cnsapp.services.import_source import Source, remove_abandoned
from cnsapp.services.import_windows import ImportRule
from cnsapp.services.labels import import_labels
from db.models import Image

CHUNK = 100  # rows a transaction: somebody who labels meanwhile waits a few milliseconds
AHEAD = 12  # files read before their turn
LARGE = 20_000_000  # bytes from which files are decoded one at a time, to keep memory flat

Progress = Callable[[float, int, str], None]  # slides count by parts


def as_text(path: Path) -> str:
    """Return a path as the database holds it; raise InvalidInputError when it is no text."""
    try:
        return os.fspath(path).encode("utf-8").decode("utf-8")
    except UnicodeEncodeError as error:  # the database holds text, a name on disk is bytes
        raise InvalidInputError(
            "The file's name is no valid text, so it cannot be linked; import it without linking."
        ) from error


def text_or_none(path: Path) -> str | None:
    """Return a path as the database holds it, None when it is no text."""
    try:
        return as_text(path)
    except InvalidInputError:
        return None


class ImportWork(ImportRule):
    """One import: threads read files, this thread stores what they found in the files' order."""

    def __init__(
        self,
        app: App,
        project_id: int,
        source: Source,
        plan: ImportPlan,
        rule: ReadingRule,
        link: bool,
        annotator: str,
        begun: Begun | None = None,
    ) -> None:
        super().__init__(app, project_id, source, rule, begun)
        self.plan, self.link, self.annotator = plan, link, annotator
        self._labelled: set[tuple[int, int]] = set()
        self.folder = ImageFolder(app.store.root)
        self.report = ImportReport(skipped=[Skipped(*pair) for pair in source.refused])
        self.report.found = len(source.candidates) + len(source.refused)
        self.journal = Journal(self.folder)
        self.batch: list[Arrival] = []
        self.names = frozenset(source.names)
        self.label_of_bytes: dict[str, str] = {}
        self.n_groups = 0
        # these hash and copy, and wait for the processes that decode
        self._small = ThreadPoolExecutor(min(4, (os.cpu_count() or 1) + 1), "import")

    def run(self, progress: Progress, check_cancelled: Callable[[], None]) -> None:
        """Import every file; Cancelled carries the report on what was kept."""
        self._clean_up()
        self._note_earlier_windows()
        total, done = len(self.source.candidates), 0
        waiting: deque[tuple[Candidate, Future[Arrival | Skipped]]] = deque()
        with self._small, self._large:
            try:
                for candidate in self.source.candidates:
                    check_cancelled()
                    waiting.append((candidate, self._submit(candidate)))
                    if len(waiting) >= AHEAD:
                        done += self._take(waiting, progress, done, total)
                while waiting:
                    check_cancelled()
                    done += self._take(waiting, progress, done, total)
                self._flush()
            except BaseException as error:
                self._wind_up(waiting, keep=isinstance(error, Cancelled))
                if isinstance(error, Cancelled):
                    self._say_what_is_kept(total)
                    raise Cancelled(self.report.as_json()) from error
                raise
            finally:
                with suppress(SQLAlchemyError):  # the next import closes it then
                    self.journal.close(self._known_bytes)

    def _say_what_is_kept(self, total: int) -> None:
        report = self.report
        done = report.imported + report.duplicates + len(report.skipped)
        done -= len(self.source.refused)
        report.stopped = True
        report.notes.append(
            f"Stopped after {done:,} of {total:,} files. What was imported is kept; the same "
            "import again goes on from there."
        )

    def _clean_up(self) -> None:
        """Remove what imports that were killed left behind."""
        self.folder.clean_leftovers()
        clean_orphans(self.folder, self._known_bytes)
        remove_abandoned(self.app)

    def _known_bytes(self, shas: Sequence[str]) -> set[str]:
        return known_bytes(self.app.store, shas)

    def _submit(self, candidate: Candidate) -> Future[Arrival | Skipped]:
        try:
            large = candidate.path.stat().st_size >= LARGE
        except OSError:
            large = False  # reading it will say why
        return (self._large if large else self._small).submit(self._read, candidate)

    def _take(
        self,
        waiting: deque[tuple[Candidate, Future[Arrival | Skipped]]],
        progress: Progress,
        done: int,
        total: int,
    ) -> int:
        candidate, future = waiting.popleft()
        try:
            outcome = future.result()
        except WindowMissingError as missing:
            try:
                self._fix_window(missing.kind, candidate)
                outcome = self._submit(candidate).result()
            except (UnreadableImageError, WindowMissingError):  # it is another file by now
                outcome = Skipped(candidate.name, "The file changed while it was being imported.")
        if isinstance(outcome, Skipped):
            self.report.skipped.append(outcome)
        else:
            self.batch.append(outcome)
            if len(self.batch) >= CHUNK:
                self._flush()
        progress(done + 1, total, candidate.name)
        return 1

    def _wind_up(
        self, waiting: Iterable[tuple[Candidate, Future[Arrival | Skipped]]], keep: bool
    ) -> None:
        """Leave no half work behind: store what is finished, or remove its copies."""
        for _, future in waiting:
            if not future.cancel() and future.exception() is None:
                outcome = future.result()
                if isinstance(outcome, Arrival):
                    self.batch.append(outcome)
        if keep:
            self._flush()
        for arrival in self.batch:
            if arrival.part is not None:
                arrival.part.unlink(missing_ok=True)

    # in threads ------------------------------------------------------------------------------

    def _read(self, candidate: Candidate) -> Arrival | Skipped:
        try:
            kind = sniff(candidate.path)
            facts = candidate.path.stat()  # before it is read: a change meanwhile is seen later
            self.limits.check_bytes(facts.st_size)
            if facts.st_size >= LARGE:  # gigabytes are not hashed and copied only to be refused
                check_header(candidate.path, self.limits)
            arrival = self._bring_in(candidate, kind)
            if self.source.lasting:
                arrival.source_path = text_or_none(candidate.path)
                arrival.source_mtime_ns = facts.st_mtime_ns
            return arrival
        except WindowMissingError:
            raise
        except (UnreadableImageError, InvalidInputError) as error:
            return Skipped(candidate.name, error.what)
        except OSError as error:
            return Skipped(candidate.name, f"The file cannot be read: {error.strerror or error}.")

    def _bring_in(self, candidate: Candidate, kind: str) -> Arrival:
        data = read_small(candidate.path, LARGE)  # once: what is hashed is what is copied
        digest = hash_file(candidate.path) if data is None else hash_bytes(data)
        found = Part(candidate.path, *digest)
        if self._is_kept(found.sha256):
            return self._arrival(candidate, kind, found)
        if self.link:
            del data  # decoding takes a while
            return self._look_at(candidate, kind, found)
        part = self._copied(found, data)
        del data
        try:
            return self._look_at(candidate, kind, part)
        except BaseException:
            part.path.unlink(missing_ok=True)
            raise

    def _copied(self, found: Part, data: bytes | None) -> Part:
        if data is None:  # it may have changed since it was hashed: hashed again on the way
            return self.folder.copy_in(found.path)
        return self.folder.put_in(data, found.sha256)

    def _look_at(self, candidate: Candidate, kind: str, part: Part) -> Arrival:
        """Decode a file wholly, and make its thumbnails."""
        self.journal.note(part.sha256)
        facts = look_at(
            part.path,
            self.rule,
            self.limits,
            root=self.folder.root,
            sha256=part.sha256,
            strict=True,
        )
        arrival = self._arrival(candidate, kind, part)
        arrival.facts = facts
        arrival.part = None if self.link else part.path
        return arrival

    def _arrival(self, candidate: Candidate, kind: str, part: Part) -> Arrival:
        label = self.plan.label_of(candidate, part.sha256)
        if label is not None:
            check_class_name(label)
        return Arrival(
            name=candidate.name,
            sha256=part.sha256,
            n_bytes=part.n_bytes,
            label=label,
            group=self.plan.group_of(candidate, part.sha256),
            part=None,
            stored_path=as_text(candidate.path.resolve())
            if self.link
            else self.folder.original_name(part.sha256, SUFFIXES[kind]),
            linked=self.link,
            meta=self.plan.meta_of(candidate, part.sha256),
        )

    def _is_kept(self, sha256: str) -> bool:
        """Return whether the project has these bytes, and their file is where it should be."""
        query = select(Image.stored_path).where(
            Image.project_id == self.project_id,
            Image.sha256 == sha256,
            Image.status.not_in(LOST),
        )
        if not self.link:  # a link to an original elsewhere is no copy of it
            query = query.where(Image.linked.is_(False))
        with self.app.store.reading() as session:
            places = set(session.scalars(query))
        return any((self.folder.root / place).is_file() for place in places)

    # in this thread --------------------------------------------------------------------------

    def _flush(self) -> None:
        batch, self.batch = self.batch, []
        if not batch:
            return
        self._note_batch(batch)
        stored = store_arrivals(
            self.app.store,
            self.folder,
            self.project_id,
            batch,
            self.names,
            self.annotator,
            self.begun,
        )
        self.report.imported += stored.n_new
        self.report.duplicates += len(batch) - stored.n_new
        for name in stored.new_classes:
            self.tell_class(name)
        if stored.labels:
            self.give_labels(stored.labels)

    def tell_class(self, name: str) -> None:
        """Put a new class into the report, once."""
        if name_key(name) not in map(name_key, self.report.new_classes):
            self.report.new_classes.append(name)

    def give_labels(self, rows: Sequence[tuple[int, int]]) -> None:
        """Label images, given as (image id, class id), and count those labels in the report."""
        n_new = import_labels(
            self.app.store,
            project_id=self.project_id,
            rows=rows,
            annotator=self.annotator,
            source="import",
        )
        if self.begun is not None:
            own = labels_since(self.app.store, self.begun, rows) - self._labelled
            self._labelled |= own
            n_new = len(own)
        self.report.labelled += n_new

    def _note_batch(self, batch: Sequence[Arrival]) -> None:
        self._note_conflicts(batch)
        self.n_groups += sum(1 for arrival in batch if arrival.group)

    def _note_conflicts(self, batch: Sequence[Arrival]) -> None:
        """The same bytes under two labels: both are kept, and the report says so."""
        for arrival in batch:
            if arrival.label is None:
                continue
            first = self.label_of_bytes.setdefault(arrival.sha256, arrival.label)
            if first != arrival.label:
                self.report.notes.append(
                    f"{arrival.name} is labelled “{arrival.label}”, but the same picture stands "
                    f"in this import as “{first}” too. Training leaves such pictures out until "
                    "their labels agree."
                )
