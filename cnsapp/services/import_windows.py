"""The reading rule of an import: which windows its deep images are shown through."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from cnsapp.bootstrap import App
from cnsapp.errors import UnreadableImageError
from cnsapp.imaging.candidates import Candidate
from cnsapp.imaging.isolated import read_sample_range
from cnsapp.imaging.rule import ReadingRule
from cnsapp.imaging.rule_changes import SAMPLE_WORDS
from cnsapp.imaging.window import fit_window
from cnsapp.services.images import reading_rule
from cnsapp.services.import_report import ImportReport
from cnsapp.services.import_rows import Begun
from cnsapp.services.import_source import Source, limits_of
from db.models import Project

SAMPLE = 32  # files whose values decide a project's window


class ImportRule:
    """The rule that an import reads by, and the windows that it fixes for the project."""

    def __init__(
        self, app: App, project_id: int, source: Source, rule: ReadingRule, begun: Begun | None
    ) -> None:
        self.app, self.project_id, self.source = app, project_id, source
        self.begun = begun  # of an import that goes on after it was killed
        self._first_rule = rule
        self.rule = rule
        self.limits = limits_of(app)
        self.report = ImportReport()
        # large files take turns, for the memory; the decoding itself is done in other processes
        self._large = ThreadPoolExecutor(1, "import-large")

    def was_overtaken(self) -> bool:
        """Return whether the project's images are read otherwise than some of these were."""
        now = reading_rule(self.app.store, project_id=self.project_id)
        return any(
            replace(used, windows=now.windows, windows_from=now.windows_from) != now
            or any(now.window(kind) != (low, high) for kind, low, high in used.windows)
            for used in (self._first_rule, self.rule)
        )

    def _note_earlier_windows(self) -> None:
        """Say what an earlier start of this import fixed."""
        if self.begun is None:
            return
        for kind, low, high in self.rule.windows:
            if kind not in self.begun.windows:
                self.report.notes.append(
                    f"Images of {SAMPLE_WORDS[kind]} samples are shown from {low:g} (black) to "
                    f"{high:g} (white). This window was taken when this import began and is now "
                    "fixed for the project."
                )

    def _fix_window(self, kind: str, candidate: Candidate) -> None:
        """Fix the project's window for a kind of samples from a spread of this import's files."""
        self.rule = self._rule_of_now()
        if self.rule.window(kind) is None:
            low, high, n = self._measure(kind, candidate)
            if self.rule.windows_from == "range":
                low, high = fit_window(kind, low, high)
            self.keep_window(kind, low, high, f"{n} of these files")

    def _rule_of_now(self) -> ReadingRule:
        return reading_rule(self.app.store, project_id=self.project_id)

    def keep_window(self, kind: str, low: float, high: float, source: str) -> None:
        """Fix a window for the project, and say where it was taken from."""
        self.report.notes.append(
            f"Images of {SAMPLE_WORDS[kind]} samples are shown from {low:g} (black) to {high:g} "
            f"(white). This window was taken from {source} and is now fixed for the project."
        )
        with self.app.store.writing() as session:
            project = session.get_one(Project, self.project_id)
            rule = ReadingRule.from_json(project.settings.get("reading"))
            if rule.window(kind) is None:
                rule = rule.with_window(kind, low, high)
                project.settings = {**project.settings, "reading": rule.as_json()}
        self.rule = rule

    def _measure(self, kind: str, candidate: Candidate) -> tuple[float, float, int]:
        suffix = candidate.path.suffix.casefold()
        alike = [c for c in self.source.candidates if c.path.suffix.casefold() == suffix]
        spread = alike[:: max(1, len(alike) // SAMPLE)][:SAMPLE]
        ranges = []
        for file in {c.path: c for c in (candidate, *spread)}.values():
            try:
                found = self._large.submit(
                    read_sample_range, file.path, self.limits, self.rule
                ).result()
            except UnreadableImageError:
                continue  # it will be skipped with its reason when its turn comes
            if found is not None and found.kind == kind:
                ranges.append(found)
        if not ranges:
            raise UnreadableImageError(f"No file shows what {kind} samples there are.")
        if self.rule.windows_from == "percentile":
            low, high = min(r.p_low for r in ranges), max(r.p_high for r in ranges)
            return low, high if high > low else low + 1, len(ranges)
        return min(r.low for r in ranges), max(r.high for r in ranges), len(ranges)
