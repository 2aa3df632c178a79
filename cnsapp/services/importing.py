"""Bring images into a project: every file is imported, a duplicate, or skipped with its reason."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from cnsapp.bootstrap import App
from cnsapp.errors import InvalidInputError
from cnsapp.services.images import reading_rule
from cnsapp.services.import_plan import FOLDER, FOLDERS, make_plan
from cnsapp.services.import_report import ImportReport, Preview, Skipped
from cnsapp.services.import_source import find_source, is_allowed, opened_source
from cnsapp.services.import_uploads import save_uploads
from cnsapp.services.import_work import ImportWork, Progress
from cnsapp.services.labels import clean_annotator

__all__ = [
    "ImportReport",
    "Preview",
    "Skipped",
    "import_folder",
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
    link: bool = False,
    annotator: str = "import",
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
        "folder": the folder (with labels from folders: the folder above it). A column of the CSV.
        Otherwise a regular expression whose first matching part in parentheses is the group.
    link
        Leave the originals where they are instead of copying them.
    allowed_roots
        Folders below which `path` must lie; None allows all.

    Raises
    ------
    InvalidInputError
        `path`, `labels` or `group_from` cannot be used, or there is no image.
    NotFoundError
        There is no such project.
    StoreError
        The data folder cannot take more; what was imported is kept.
    """
    who = clean_annotator(annotator)
    rule = reading_rule(app.store, project_id=project_id)
    real = find_source(app, path, allowed_roots)
    if link and not real.is_dir() and real.suffix.casefold() == ".zip":
        raise InvalidInputError(
            f"{real.name} cannot be linked: the images inside a zip have no place of their own.",
            "",
            "Import it without linking, or unpack it first.",
        )
    with opened_source(app, real, allowed_roots) as source:
        may_read = partial(is_allowed, app, allowed_roots=allowed_roots)
        plan = make_plan(source.root, labels, group_from, may_read)
        if not source.candidates and not source.refused:
            raise InvalidInputError(
                f"There are no images in {real}.",
                "Hidden files, tables and texts are not taken for images.",
                "Choose the folder that holds the images, or one above it.",
            )
        work = ImportWork(app, project_id, source, plan, rule, link, who)
        work.folder.clean_leftovers()
        work.run(progress or _ignore, check_cancelled or _go_on)
    if labels == FOLDERS and group_from == FOLDER and work.n_groups == 0:
        work.report.notes.append(
            "No groups: no file has a folder above its class folder to take them from."
        )
    return work.report


def preview_folder(
    app: App,
    *,
    path: Path,
    labels: str | None = None,
    group_from: str | None = None,
    allowed_roots: Sequence[Path] | None = None,
    n_examples: int = 8,
) -> Preview:
    """Return what an import would find, without reading the images; errors as `import_folder`."""
    real = find_source(app, path, allowed_roots)
    with opened_source(app, real, allowed_roots) as source:
        may_read = partial(is_allowed, app, allowed_roots=allowed_roots)
        plan = make_plan(source.root, labels, group_from, may_read)
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
        )


def _ignore(_done: int, _total: int, _name: str) -> None:
    return None


def _go_on() -> None:
    return None
