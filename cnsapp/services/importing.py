"""Bring images into a project: every file is imported, a duplicate, or skipped with its reason."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cnsapp.bootstrap import App
from cnsapp.errors import InvalidInputError
from cnsapp.imaging.tiling import TileSettings
from cnsapp.services.images import reading_rule
from cnsapp.services.import_check import ImportCheck
from cnsapp.services.import_plan import FOLDER, FOLDERS, ImportPlan, make_plan
from cnsapp.services.import_report import CheckReport, ImportReport, Preview, Skipped
from cnsapp.services.import_rows import Begun, newest_rows
from cnsapp.services.import_source import (
    Listing,
    Source,
    find_source,
    is_allowed,
    opened_source,
)
from cnsapp.services.import_uploads import save_uploads
from cnsapp.services.import_work import ImportWork, Progress
from cnsapp.services.labels import clean_annotator
from cnsapp.services.reading import apply_rule
from cnsapp.services.slide_import import beside, cut_slides
from cnsapp.services.slides import set_aside
from cnsapp.services.telling import go_on, ignore

__all__ = [
    "CheckReport",
    "ImportReport",
    "Preview",
    "Skipped",
    "check_folder",
    "import_folder",
    "newest_rows",
    "preview_folder",
    "save_uploads",
]


def import_folder(
    app: App,
    *,
    project_id: int,
    path: Path,
    labels: str | None = None,
    group_from: str | None = None,
    metadata: str | None = None,
    link: bool = False,
    annotator: str = "import",
    tiles: TileSettings | None = None,
    begun: Begun | None = None,
    progress: Progress | None = None,
    check_cancelled: Callable[[], None] | None = None,
    allowed_roots: Sequence[Path] | None = None,
) -> ImportReport:
    """Import a folder, a zip archive or one image file into a project.

    Running the same import again changes nothing, so that one that was killed is simply repeated.

    Parameters
    ----------
    path
        What to import. Hidden files, tables and texts in it are no images and are not counted.
    labels
        "folders": the folder of a file is its label. A CSV file: its column `label`. None: none.
    group_from
        "folder": the folder (with labels from folders: the folder above it). A column of a CSV.
        Otherwise a regular expression whose first matching part in parentheses is the group.
    metadata
        A CSV file with the columns `file` or `sha256`; the others become filters.
    link
        Leave the originals where they are instead of copying them.
    tiles
        How whole slides are cut; their tiles become images. None: a slide that the project has as
        it was cut before, a new one as the project's newest was.
    begun
        What `newest_rows` said before an earlier start of this import, which was killed: the report
        then counts what that brought as imported too.
    progress
        Called with (files done, files in all, name); with 0 in all while they are being listed.
    allowed_roots
        Folders below which `path` must lie; None allows all.

    Raises
    ------
    InvalidInputError
        `path`, a table or `group_from` cannot be used, or there is no image.
    NotFoundError
        There is no such project.
    StoreError
        The data folder cannot take more; what was imported is kept.
    Cancelled
        `check_cancelled` raised it; its `result` is the report on what is kept.
    """
    asked = Asked(path, labels, group_from, metadata, link)
    who = clean_annotator(annotator)
    rule = reading_rule(app.store, project_id=project_id)
    progress, check = progress or ignore, check_cancelled or go_on
    with _opened(app, asked, allowed_roots, _listing(progress, check)) as (source, plan):
        slides, source = set_aside(app, source)
        work = ImportWork(app, project_id, source, plan, rule, link, who, begun)
        with _following(work):
            work.run(beside(progress, len(slides)), check)
            cut_slides(work, slides, tiles, progress=progress, check_cancelled=check)
    return _noted(work, asked)


def check_folder(
    app: App,
    *,
    project_id: int,
    path: Path,
    labels: str | None = None,
    group_from: str | None = None,
    metadata: str | None = None,
    link: bool = False,
    tiles: TileSettings | None = None,
    progress: Progress | None = None,
    check_cancelled: Callable[[], None] | None = None,
    allowed_roots: Sequence[Path] | None = None,
) -> CheckReport:
    """Read all that an import would read and return what would come of it; change nothing.

    Parameters and errors as `import_folder`.
    """
    asked = Asked(path, labels, group_from, metadata, link)
    rule = reading_rule(app.store, project_id=project_id)
    progress, check = progress or ignore, check_cancelled or go_on
    with _opened(app, asked, allowed_roots, _listing(progress, check)) as (source, plan):
        slides, source = set_aside(app, source)
        work = ImportCheck(app, project_id, source, plan, rule, link, "check")
        work.run(beside(progress, len(slides)), check)
        cut_slides(work, slides, tiles, progress=progress, check_cancelled=check, dry_run=True)
    _noted(work, asked)
    return work.finished()


def preview_folder(
    app: App,
    *,
    path: Path,
    labels: str | None = None,
    group_from: str | None = None,
    metadata: str | None = None,
    allowed_roots: Sequence[Path] | None = None,
    n_examples: int = 8,
) -> Preview:
    """Return what an import would find, without reading the images; errors as `import_folder`."""
    asked = Asked(path, labels, group_from, metadata, link=False)
    with _opened(app, asked, allowed_roots, None, may_be_empty=True) as (source, plan):
        folders = Counter(candidate.folder for candidate in source.candidates)
        groups = [(file.name, plan.group_of(file, "")) for file in source.candidates]
        step = max(1, len(groups) // n_examples)
        return Preview(
            n_files=len(source.candidates) + len(source.refused),
            folders=sorted(folders.items()),
            groups=groups[::step][:n_examples],
            n_groups=len({group for _, group in groups if group}),
            n_without_group=sum(1 for _, group in groups if not group),
            refused=[Skipped(*pair) for pair in source.refused],
            slides=[slide.name for slide in set_aside(app, source)[0]],
        )


def import_source(
    app: App,
    *,
    project_id: int,
    source: Source,
    labels: str | None = None,
    group_from: str | None = None,
    link: bool = False,
    annotator: str = "import",
    check_cancelled: Callable[[], None] | None = None,
    allowed_roots: Sequence[Path] | None = None,
) -> ImportReport:
    """Import files that were found before, such as the new ones of a watched folder."""
    asked = Asked(source.root, labels, group_from, None, link)
    rule = reading_rule(app.store, project_id=project_id)
    plan = _plan(app, source, asked, allowed_roots)
    check = check_cancelled or go_on
    slides, source = set_aside(app, source)
    work = ImportWork(app, project_id, source, plan, rule, link, clean_annotator(annotator))
    with _following(work):
        work.run(ignore, check)
        cut_slides(work, slides, None, progress=ignore, check_cancelled=check)
    return work.report


@dataclass(frozen=True)
class Asked:
    """What is to be imported, and how; as `import_folder` takes it."""

    path: Path
    labels: str | None
    group_from: str | None
    metadata: str | None
    link: bool


@contextmanager
def _opened(
    app: App,
    asked: Asked,
    allowed_roots: Sequence[Path] | None,
    listing: Listing | None,
    may_be_empty: bool = False,
) -> Iterator[tuple[Source, ImportPlan]]:
    real = find_source(app, asked.path, allowed_roots)
    if asked.link and not real.is_dir() and real.suffix.casefold() == ".zip":
        raise InvalidInputError(
            f"{real.name} cannot be linked: the images inside a zip have no place of their own.",
            "",
            "Import it without linking, or unpack it first.",
        )
    with opened_source(app, real, allowed_roots, listing) as source:
        plan = _plan(app, source, asked, allowed_roots)
        if not may_be_empty and not source.candidates and not source.refused:
            raise InvalidInputError(
                f"There are no images in {real}.",
                "Hidden files, tables and texts are not taken for images.",
                "Choose the folder that holds the images, or one above it.",
            )
        yield source, plan


def _plan(
    app: App, source: Source, asked: Asked, allowed_roots: Sequence[Path] | None
) -> ImportPlan:
    unpacked = [] if source.lasting else [source.root]

    def may_read(table: Path) -> bool:
        roots = allowed_roots if allowed_roots is None else [*allowed_roots, *unpacked]
        return is_allowed(app, table, roots)

    return make_plan(
        source.root,
        asked.labels,
        asked.group_from,
        may_read,
        names=source.names,
        metadata=asked.metadata,
    )


@contextmanager
def _following(work: ImportWork) -> Iterator[None]:
    """Have images read again when the project's rule was changed while they were imported."""
    try:
        yield
    finally:
        if work.report.imported and work.was_overtaken():
            now = reading_rule(work.app.store, project_id=work.project_id)
            apply_rule(work.app, project_id=work.project_id, rule=now, requested_by=work.annotator)


def _noted(work: ImportWork, asked: Asked) -> ImportReport:
    if asked.labels == FOLDERS and asked.group_from == FOLDER and work.n_groups == 0:
        work.report.notes.append(
            "No groups: no file has a folder above its class folder to take them from."
        )
    return work.report


def _listing(progress: Progress, check_cancelled: Callable[[], None]) -> Listing:
    def told(n: int) -> None:
        check_cancelled()
        progress(n, 0, "")

    return told
