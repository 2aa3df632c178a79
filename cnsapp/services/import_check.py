"""Look at all that an import would do, file by file, and change nothing."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Sequence
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from cnsapp.domain.names import name_key
from cnsapp.imaging.candidates import Candidate
from cnsapp.imaging.isolated import read_facts
from cnsapp.imaging.rule import ReadingRule
from cnsapp.imaging.rule_changes import SAMPLE_WORDS
from cnsapp.imaging.store import Part, hash_file
from cnsapp.services.import_report import MOST, CheckReport
from cnsapp.services.import_rows import Arrival, Known
from cnsapp.services.import_work import ImportWork
from cnsapp.services.label_import import said_before
from db.models import Image, LabelClass
from db.queries import chunks


class ImportCheck(ImportWork):
    """An import that decodes every file and counts, but stores nothing anywhere."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.check = CheckReport(skipped=self.report.skipped, found=self.report.found)
        self.report = self.check
        self._seen: set[str] = set()  # SHA-256 of the files that could be read
        self._labels: Counter[str] = Counter()
        self._no_row: list[str] = []
        self._clashes = _case_clashes(self.names)
        self._groups: set[str] = set()

    def finished(self) -> CheckReport:
        """Return what was found."""
        report = self.check
        report.n_groups = len(self._groups)
        report.folders = sorted(self._labels.items())
        strangers: list[str] = []
        for rows in self.plan.tables:
            strangers += rows.strangers
            strangers += rows.unused(self._seen)
        _put(report, "rows_without_file", list(dict.fromkeys(strangers)))
        _put(report, "files_without_row", self._no_row)
        _put(report, "name_clashes", self._clashes)
        return report

    def _say_what_is_kept(self, total: int) -> None:
        done = self.check.imported + self.check.duplicates + len(self.check.skipped)
        done -= len(self.source.refused)
        self.check.stopped = True
        self.check.notes.append(
            f"Stopped after {done:,} of {total:,} files; the counts are of these."
        )
        self.finished()

    def _clean_up(self) -> None:
        """Leave everything as it is."""

    def _bring_in(self, candidate: Candidate, kind: str) -> Arrival:
        sha256, n_bytes = hash_file(candidate.path)
        part = Part(candidate.path, sha256, n_bytes)
        facts = None
        if not self._is_kept(sha256):
            facts = read_facts(candidate.path, self.rule, self.limits, strict=True)
        arrival = self._arrival(candidate, kind, part)
        arrival.facts = facts
        return arrival

    def _rule_of_now(self) -> ReadingRule:
        return self.rule  # with the windows of this look, which are kept nowhere

    def keep_window(self, kind: str, low: float, high: float, source: str) -> None:
        """Go on with a window for this look only, and say what an import would do."""
        self.report.notes.append(
            f"Images of {SAMPLE_WORDS[kind]} samples are shown from {low:g} (black) to {high:g} "
            f"(white). An import would take this window from {source} and fix it for the project."
        )
        self.rule = self.rule.with_window(kind, low, high)

    def _flush(self) -> None:
        batch, self.batch = self.batch, []
        if not batch:
            return
        self._note_batch(batch)
        report = self.check
        with self.app.store.reading() as session:
            known = Known(session, self.project_id, batch, self.names)
            there = [known.find(arrival) for arrival in batch]
            classes = dict(
                session.execute(
                    select(LabelClass.name_key, LabelClass.id).where(
                        LabelClass.project_id == self.project_id
                    )
                ).all()
            )
            pairs = [
                (row.id, classes[name_key(arrival.label)])
                for arrival, row in zip(batch, there, strict=True)
                if row is not None and arrival.label and name_key(arrival.label) in classes
            ]
            said = said_before(session, pairs, "import") if pairs else set()
            self._clashes += _other_bytes(session, self.project_id, batch)
        n_new = sum(1 for row in there if row is None)
        report.imported += n_new
        report.duplicates += len(batch) - n_new
        report.labelled += sum(1 for arrival in batch if arrival.label) - len(said & set(pairs))
        fresh = {name_key(name): name for name in report.new_classes}
        for label in (arrival.label for arrival in batch if arrival.label):
            if name_key(label) not in classes:
                fresh.setdefault(name_key(label), label)
        report.new_classes = list(fresh.values())
        report.n_without_group += sum(1 for arrival in batch if not arrival.group)
        self._groups |= {arrival.group for arrival in batch if arrival.group}
        self._labels.update(arrival.label for arrival in batch if arrival.label)
        self._note_rows(batch)

    def _note_rows(self, batch: Sequence[Arrival]) -> None:
        for arrival in batch:
            self._seen.add(arrival.sha256)
            for rows in self.plan.tables:
                if not rows.has(arrival.name, arrival.sha256):
                    self._no_row.append(arrival.name)
                    break


def _put(report: CheckReport, name: str, names: list[str]) -> None:
    setattr(report, name, names[:MOST])
    setattr(report, f"n_{name}", len(names))


def _other_bytes(session: Session, project_id: int, batch: Sequence[Arrival]) -> list[str]:
    """Say which names the project has already for other pictures."""
    shas: dict[str, set[str]] = {}
    for part in chunks([arrival.name for arrival in batch]):
        for name, sha256 in session.execute(
            select(Image.file_name, Image.sha256).where(
                Image.project_id == project_id, Image.file_name.in_(part)
            )
        ):
            shas.setdefault(name, set()).add(sha256)
    return [
        f"{a.name}: the project has another picture of this name. Both are kept."
        for a in batch
        if a.name in shas and a.sha256 not in shas[a.name]
    ]


def _case_clashes(names: Sequence[str] | frozenset[str]) -> list[str]:
    """Say which names Windows or a Mac would take for one."""
    alike: dict[str, list[str]] = {}
    for name in sorted(names):
        alike.setdefault(unicodedata.normalize("NFC", name).casefold(), []).append(name)
    return [
        f"{' and '.join(same)}: names that differ in capitals or accents' spelling only. "
        "Each is an image of its own; Windows or a Mac would take them for one file."
        for same in alike.values()
        if len(same) > 1
    ]
