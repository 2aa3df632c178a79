"""The part of the doctor that looks at slides, at killed imports and at what quality noted."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from sqlalchemy import ColumnElement, and_, exists, func, select
from sqlalchemy.orm import aliased

from cnsapp.bootstrap import App
from cnsapp.errors import UnreadableImageError
from cnsapp.imaging.journal import JOURNAL
from cnsapp.imaging.store import hash_file, is_abandoned
from cnsapp.jobs.states import ACTIVE
from db.models import Image, ImageFlag, ImageQuality, Job, NearPair, Slide

if TYPE_CHECKING:
    from db.session import Store

Finding = tuple[Literal["ok", "warning", "problem"], str, str]  # how it is, in words, what to do
WRITES_SLIDES = ("import", "reread")  # a slide is not whole while one of these jobs runs


def slide_files(app: App) -> Finding:
    """Say whether the files of the slides are at their places, as they were when they were cut.

    Only a file that was written again since is read: a slide has gigabytes.
    """
    missing: list[str] = []
    changed: list[str] = []
    n = 0
    for row in _slides(app.store):
        if not row.stored_path:
            continue  # from a zip or an upload: nobody kept it
        n += 1
        found = _file_state(Path(row.stored_path), row)
        if found is not None:
            (missing if found == "missing" else changed).append(row.file_name)
    if not missing and not changed:
        return (
            "ok",
            f"{_n(n, 'slide')} at {'its place' if n == 1 else 'their places'}, unchanged",
            "",
        )
    said = [f"{_n(len(missing), 'slide')} missing"] if missing else []
    said += [f"{_n(len(changed), 'slide')} with other content than when cut"] if changed else []
    return (
        "warning",
        f"{' and '.join(said)} (of {n:,}), for example {(missing + changed)[0]}. The tiles are "
        "stored and not affected",
        "Connect the disk or put the files back before you cut these slides again.",
    )


def _n(n: int, noun: str) -> str:
    return f"{n:,} {noun}{'' if n == 1 else 's'}"


def _file_state(path: Path, row: Any) -> str | None:
    try:
        facts = path.stat()
        if not path.is_file():
            return "missing"
        if facts.st_size != row.n_bytes:
            return "changed"
        if row.settings.get("mtime_ns") in (None, facts.st_mtime_ns):
            return None
        return None if hash_file(path)[0] == row.sha256 else "changed"
    except (OSError, UnreadableImageError):
        return "missing"


def slide_tiles(app: App) -> Finding:
    """Say whether each slide has the tiles that it says it has."""
    with app.store.reading() as session:
        size = Image.slide_id, Image.width
        counted: dict[tuple[int, int | None], int] = {
            (slide_id or 0, width): n
            for slide_id, width, n in session.execute(
                select(*size, func.count()).where(Image.slide_id.is_not(None)).group_by(*size)
            )
        }
        busy = set(
            session.scalars(
                select(Job.project_id).where(Job.kind.in_(WRITES_SLIDES), Job.state.in_(ACTIVE))
            )
        )
    slides = [row for row in _slides(app.store) if row.project_id not in busy]
    short, half = [], []
    for row in slides:
        n = counted.get((row.id, (row.settings.get("cut") or {}).get("tile_px")), 0)
        # a slide that was cut several times keeps tiles of the other cuts too
        cut_once = row.settings.get("complete") and row.settings.get("times", 1) == 1
        if n < row.n_tiles or (cut_once and n != row.n_tiles):
            short.append(f"{row.file_name} ({n:,} instead of {row.n_tiles:,})")
        elif not row.settings.get("complete"):
            half.append(row.file_name)
    ids = {row.id for row in _slides(app.store)}
    stray = sum(n for (slide_id, _), n in counted.items() if slide_id not in ids)
    if short or stray:
        said = []
        if short:
            slides_off = _n(len(short), "slide")
            said.append(f"{slides_off} with another number of tiles than noted: {short[0]}")
        if stray:
            said.append(f"{_n(stray, 'tile')} of a slide that is gone")
        return "problem", "; ".join(said), "Import these slides again; tiles that are there stay."
    if half:
        return (
            "warning",
            f"{_n(len(half), 'slide')} not cut to the end, for example {half[0]}: the import was "
            "stopped, or some tiles cannot be read",
            "Import it again; tiles that are there stay.",
        )
    return "ok", f"{_n(len(slides), 'slide')} with all tiles they were cut into", ""


def _slides(store: Store) -> list[Any]:
    with store.reading() as session:
        return list(
            session.execute(
                select(
                    Slide.id, Slide.project_id, Slide.file_name, Slide.stored_path, Slide.sha256,
                    Slide.n_bytes, Slide.n_tiles, Slide.settings,
                ).order_by(Slide.id)
            )
        )  # fmt: skip


def killed_imports(app: App) -> Finding:
    """Say whether an import was killed and its left-over files still wait to be removed."""
    noted = list((app.store.root / "images").glob(f"{JOURNAL}*"))
    left = [path for path in noted if is_abandoned(path, JOURNAL)]
    if not left:
        return "ok", "no import left files without an image", ""
    files = _noted(left)
    return (
        "warning",
        f"{_n(len(left), 'import')} killed in the middle; up to {_n(files, 'file')} may lie in the "
        "data folder without an image",
        "Nothing is lost. The next import, or the worker's next start, removes them.",
    )


def _noted(journals: Iterable[Path]) -> int:
    found: set[str] = set()
    for path in journals:
        try:
            found |= set(path.read_text(encoding="ascii", errors="replace").splitlines())
        except OSError:
            continue  # an import that began meanwhile has just settled it
    return len(found)


def quality_rows(app: App) -> Finding:
    """Say whether all measures, flags and pairs are of images that are there."""
    other = aliased(Image)

    def there(column: ColumnElement[int], project: ColumnElement[int]) -> ColumnElement[bool]:
        return exists().where(and_(other.id == column, other.project_id == project))

    kinds: dict[str, tuple[Any, list[Any]]] = {
        "measure": (ImageQuality, [ImageQuality.image_id]),
        "flag": (ImageFlag, [ImageFlag.image_id]),
        "near-duplicate pair": (NearPair, [NearPair.image_a, NearPair.image_b]),
    }
    found = {}
    with app.store.reading() as session:
        for name, (table, columns) in kinds.items():
            all_there = and_(*(there(column, table.project_id) for column in columns))
            stray = select(func.count()).select_from(table).where(~all_there)
            found[name] = session.scalar(stray) or 0
    if not any(found.values()):
        return "ok", "what was measured of images belongs to images that are there", ""
    said = " and ".join(_n(n, name) for name, n in found.items() if n)
    return (
        "warning",
        f"{said} of images that are gone from their project",
        "They are counted nowhere, and no label is affected. Report it.",
    )
