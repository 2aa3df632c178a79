"""Take the work elsewhere: labels as a table, images in class folders, a model as a file."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from sqlalchemy import select

from cnsapp.bootstrap import App
from cnsapp.domain.metadata import PREFIX as META_PREFIX
from cnsapp.errors import CnsError, InvalidInputError, UnreadableImageError
from cnsapp.imaging.privacy import without_metadata
from cnsapp.imaging.sniff import SUFFIXES, sniff
from cnsapp.services.metadata import list_names, values_of
from cnsapp.services.models import check_model_file, get_model
from cnsapp.services.split_rows import parts_of
from cnsapp.services.splits import find_active
from cnsapp.services.tables import csv_file, safe_cell
from db.models import Image, LabelClass, LabelEvent
from db.session import Store

LABEL_COLUMNS = (
    "file", "sha256", "label", "annotator", "created_at", "group", "status", "source",
)  # fmt: skip
DATASET_COLUMNS = ("file", "sha256", "label", "group", "original", "annotator", "created_at")
TABLE = "labels.csv"  # beside the class folders of a dataset
PAGE = 2000  # images a query


@dataclass(frozen=True)
class Exported:
    """What was written where."""

    path: str
    n: int
    n_missing: int = 0

    def as_json(self) -> dict[str, Any]:
        """Return the facts for `--json`."""
        return asdict(self)


@dataclass(frozen=True)
class DatasetExported(Exported):
    """What was written, and what was taken out of the copies.

    Parameters
    ----------
    kept_metadata
        Whether the copies are the files as they came, with all that they tell.
    removed
        What was left out of how many files: place, owner, device, time, text, XMP, IPTC, preview,
        software, slide label, other.
    refused
        Files that were left out, since their metadata cannot be removed: file and reason.
    """

    kept_metadata: bool = False
    removed: dict[str, int] = field(default_factory=dict)
    refused: list[dict[str, str]] = field(default_factory=list)


@dataclass(frozen=True)
class _Labelled:
    image_id: int
    file: str
    sha256: str
    stored_path: str
    label: str
    annotator: str
    created_at: str
    group: str
    status: str = "ok"
    source: str = ""
    meta: dict[str, str] = field(default_factory=dict)


def export_labels(app: App, *, project_id: int, out: Path) -> Exported:
    """Write the current labels as CSV: the columns `LABEL_COLUMNS`.

    The labels of excluded images are among them: their status is “excluded”, of others “ok”.
    `source` tells labels by hand from accepted suggestions, imports and so on. Where the project
    has metadata, a column ``meta_<name>`` follows for each of its names.

    UTF-8 with a byte-order mark, so that Excel shows accents and umlauts; read it in Python with
    ``encoding="utf-8-sig"``. Cells that a spreadsheet would run as formulas begin with an
    apostrophe.
    """
    n = 0
    names = list_names(app.store, project_id=project_id)
    with csv_file(out, [*LABEL_COLUMNS, *(META_PREFIX + name for name in names)]) as writer:
        for row in _labelled(app.store, project_id, with_meta=bool(names)):
            writer.writerow(
                (
                    safe_cell(row.file),
                    row.sha256,
                    safe_cell(row.label),
                    safe_cell(row.annotator),
                    row.created_at,
                    safe_cell(row.group),
                    row.status,
                    row.source,
                    *(safe_cell(row.meta.get(name, "")) for name in names),
                )
            )
            n += 1
    return Exported(str(out), n)


def export_dataset(
    app: App,
    *,
    project_id: int,
    out: Path,
    keep_metadata: bool = False,
    progress: Callable[[int, str], None] | None = None,
    check_cancelled: Callable[[], None] | None = None,
) -> DatasetExported:
    """Copy the labelled images into one folder a class (ImageFolder), with ``labels.csv`` beside.

    The table names each file of the folder (``file, sha256, label, group, original, annotator,
    created_at``; ``original`` is its name in the project, ``sha256`` is of the file that was
    imported), so that an import of the folder gets labels and groups back, and class names that no
    folder can have. Where training follows a split, ``split`` says train, validation or test.

    The copies tell nothing of place, owner, device and time (`imaging.privacy`), unless
    `keep_metadata` asks for the files as they came. A file that told nothing is copied as it is.

    Raises
    ------
    InvalidInputError
        The folder exists and is not empty; nothing in it is touched.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InvalidInputError(
            f"{out} exists and is not empty.", "Its files could be mixed up.", "Name a new folder."
        )
    partial = out.with_name(f".{out.name}.{os.getpid()}.partial")
    folders: dict[str, str] = {}
    removed: Counter[str] = Counter()
    refused: list[dict[str, str]] = []
    n = n_missing = 0
    try:
        parts = _parts(app.store, project_id)
        columns = [*DATASET_COLUMNS, *(["split"] if parts is not None else [])]
        with csv_file(partial / TABLE, columns) as writer:
            for row in _labelled(app.store, project_id):
                if row.status == "excluded":
                    continue
                if check_cancelled is not None:
                    check_cancelled()
                source = app.store.path(row.stored_path)
                if not source.is_file():
                    n_missing += 1
                    continue
                name = f"{_folder_of(row.label, folders)}/{_file_name(row, source)}"
                try:
                    file = _copy(source, partial, name, removed, keep_metadata=keep_metadata)
                except UnreadableImageError as error:
                    refused.append({"file": row.file, "reason": str(error)})
                    continue
                cells = (file, row.sha256, row.label, row.group, row.file, row.annotator)
                part = [] if parts is None else [parts.get(row.image_id, "")]
                writer.writerow([*map(safe_cell, cells), row.created_at, *part])
                n += 1
                if progress is not None:
                    progress(n, row.file)
        if n == 0:
            raise _nothing_to_export(refused, n_missing)
        if out.exists():
            out.rmdir()
        os.replace(partial, out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return DatasetExported(str(out), n, n_missing, keep_metadata, dict(removed), refused)


def _parts(store: Store, project_id: int) -> dict[int, str] | None:
    """Return the part of each image in the active split, or None where there is none."""
    with store.reading() as session:
        split_id = find_active(session, project_id)
        return None if split_id is None else parts_of(session, split_id)


def removed_words(removed: dict[str, int]) -> str:
    """Return what was left out of how many files, as words: `place (3 files), owner (1 file)`."""
    ordered = sorted(removed.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{word} ({n} file{'s' if n != 1 else ''})" for word, n in ordered)


def _copy(
    source: Path, folder: Path, name: str, removed: Counter[str], *, keep_metadata: bool
) -> str:
    """Copy an image into the dataset; return its name there, which follows its kind."""
    target = folder / name
    target.parent.mkdir(exist_ok=True)
    if keep_metadata:
        shutil.copyfile(source, target)
        return name
    kind = sniff(source)
    cleaned = without_metadata(source, target, kind)
    removed.update(cleaned.found)
    if cleaned.kind == kind:
        return name
    written = target.with_suffix(SUFFIXES[cleaned.kind])
    os.replace(target, written)
    return written.relative_to(folder).as_posix()


def _nothing_to_export(refused: list[dict[str, str]], n_missing: int) -> InvalidInputError:
    if refused:
        return InvalidInputError(
            f"None of {len(refused)} images could be exported; {refused[0]['file']}: "
            f"{refused[0]['reason']}"
        )
    if n_missing:
        return InvalidInputError(
            f"The files of all {n_missing} labelled images are missing.",
            "Their labels are kept.",
            "Connect the disk they lie on, or restore them from a backup.",
        )
    return InvalidInputError(
        "There is no labelled image to export.", "", "Label some images first."
    )


def export_model(app: App, *, model_id: int, out: Path, project_id: int | None = None) -> Exported:
    """Copy the checked file of a model (safetensors with its description inside)."""
    model = get_model(app.store, model_id=model_id, project_id=project_id)
    source = check_model_file(app, model_id=model_id)
    target = out / f"model-{model.id}.safetensors" if out.is_dir() else out
    copy_whole(source, target)
    return Exported(str(target), 1)


def copy_whole(source: Path, target: Path) -> None:
    """Copy a file so that the target appears whole or not at all.

    Raises
    ------
    CnsError
        The target cannot be written.
    """
    partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, partial)
        with partial.open("rb+") as handle:
            os.fsync(handle.fileno())
        os.replace(partial, target)
    except OSError as error:
        raise CnsError(
            f"{target} cannot be written: {error.strerror or error}.", "", "Choose another place."
        ) from error
    finally:
        partial.unlink(missing_ok=True)


def folder_name(label: str) -> str:
    """Return a class name as a folder name that every system takes."""
    kept = "".join("_" if ch in '<>:"/\\|?*' or ord(ch) < 32 else ch for ch in label)
    return kept.strip(" .") or "_"


def _folder_of(label: str, folders: dict[str, str]) -> str:
    """Return the folder of a class; two classes never share one (`a/b` and `a:b` would)."""
    if label not in folders:
        wanted = folder_name(label)
        taken = {TABLE, *(name.casefold() for name in folders.values())}
        names = [wanted, *(f"{wanted} {number}" for number in range(2, len(folders) + 3))]
        folders[label] = next(name for name in names if name.casefold() not in taken)
    return folders[label]


def _file_name(row: _Labelled, source: Path) -> str:
    suffix = PurePosixPath(row.file).suffix or source.suffix
    return f"{row.image_id}-{row.sha256[:12]}{suffix}"


def _labelled(store: Store, project_id: int, *, with_meta: bool = False) -> Iterator[_Labelled]:
    after = 0
    while True:
        page = _page(store, project_id, after, with_meta)
        yield from page
        if len(page) < PAGE:
            return
        after = page[-1].image_id


def _page(store: Store, project_id: int, after: int, with_meta: bool) -> list[_Labelled]:
    statement = (
        select(Image, LabelClass.name, LabelEvent.annotator, LabelEvent.created_at)
        .join(LabelClass, LabelClass.id == Image.current_class_id)
        .join(LabelEvent, LabelEvent.id == Image.current_event_id)
        .where(Image.project_id == project_id, Image.current_state == "label", Image.id > after)
        .order_by(Image.id)
        .limit(PAGE)
    )
    with store.reading() as session:
        rows = session.execute(statement).all()
        meta = values_of(session, [row[0].id for row in rows]) if with_meta else {}
        return [
            _Labelled(
                image_id=image.id,
                file=image.file_name,
                sha256=image.sha256,
                stored_path=image.stored_path,
                label=label,
                annotator=annotator,
                created_at=created_at.isoformat(timespec="seconds"),
                group=image.group_key or "",
                status=image.status,
                source=image.current_source or "",
                meta=meta.get(image.id, {}),
            )
            for image, label, annotator, created_at in rows
        ]
