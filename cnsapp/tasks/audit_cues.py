"""What might tell the label without showing it, read for a sample of the labelled images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sqlalchemy.orm import Session

from cnsapp.domain import shortcuts
from cnsapp.domain.guessing import Answers, by_line, by_table
from cnsapp.domain.resampling import Floats, Ints
from cnsapp.imaging import plain_cues
from cnsapp.imaging.store import ImageFolder
from cnsapp.services.audit_rows import AuditRow, read_metadata
from cnsapp.services.metadata import list_names
from db.session import Store

Check = Callable[[], None]
MOST_COLUMNS = 30  # of the metadata
PIXELS = ("colour alone", "the border alone")
READ_AT_MOST = 2000  # thumbnails
DAY = (
    86_400.0  # seconds: files that were copied folder by folder differ in seconds, and mean nothing
)


@dataclass(frozen=True)
class Cue:
    """One thing that might tell the label.

    Attributes
    ----------
    name
        As a sentence says it: "the file's date alone".
    known
        (N,) which images of the sample it is known of.
    cells, numbers
        (N,) cell of each image, or (N, D) numbers: one of the two; neither where whole groups are
        held out by the cue itself, so that it cannot be guessed from.
    texts
        (N) values that can be compared with labels one to one, or None.
    """

    name: str
    known: NDArray[np.bool_]
    cells: Ints | None = None
    numbers: Floats | None = None
    texts: list[str | None] | None = None

    def answers(self, keep: Ints, folds: Ints, n_classes: int) -> Answers:
        """Return what guesses labels from it, of these images."""
        if self.numbers is not None:
            return by_line(self.numbers[keep], folds, n_classes)
        assert self.cells is not None
        return by_table(self.cells[keep], folds, n_classes)


def read_cues(
    store: Store, project_id: int, images: Sequence[AuditRow], labels: Ints, check: Check
) -> list[Cue]:  # fmt: skip
    """Return every cue that differs among these images."""
    found = [*_pixels(store, images, check), *_of_files(images, labels)]
    with store.reading() as session:
        for key in list_names(store, project_id=project_id)[:MOST_COLUMNS]:
            check()
            found.append(_column(session, project_id, key, images))
    return [cue for cue in _once(found) if _differs(cue)]


def _once(cues: Sequence[Cue]) -> list[Cue]:
    """Leave out numbers that say the same as others: bytes per pixel where all are of one size.

    The same alarm twice is no second one, and costs all the others in the correction.
    """
    seen: set[bytes] = set()
    found = []
    for cue in cues:
        sign = None if cue.cells is None or cue.texts is not None else cue.cells.tobytes()
        if sign is None or sign not in seen:
            found.append(cue)
        if sign is not None:
            seen.add(sign)
    return found


def _differs(cue: Cue) -> bool:
    if cue.numbers is not None:
        return True  # where it is known of none, that is said
    if cue.cells is not None:
        return len(np.unique(cue.cells)) > 1
    return len(set(cue.texts or [])) > 1


def _of_files(images: Sequence[AuditRow], labels: Ints) -> list[Cue]:
    """Return what files, names and groups tell."""
    size = np.array([float(i.n_bytes) for i in images])
    area = np.array([float(i.width * i.height) for i in images])
    day = np.array([np.nan if i.changed_at is None else i.changed_at // DAY for i in images])
    groups = [i.group for i in images]
    return [
        _number("the file's size alone", size),
        _number("the file's bytes per pixel alone", size / np.maximum(area, 1)),
        _number("the file's date alone", day),
        _text("the image's width and height alone", [f"{i.width} x {i.height}" for i in images]),
        _text("the file's type alone", [i.file_type or None for i in images]),
        _text("the file's folder alone", shortcuts.folder_values(
            [i.name for i in images], labels)),
        _text("the letters that its group begins with alone", shortcuts.prefix_values(groups)),
        Cue("the group", np.array([g is not None for g in groups], bool), texts=groups),
    ]  # fmt: skip


def _column(session: Session, project_id: int, key: str, images: Sequence[AuditRow]) -> Cue:
    values = read_metadata(session, project_id, key, [image.id for image in images])
    name = f"the column “{key}” alone"
    if all(v is None or v[1] is not None for v in values):
        numbers = np.array([np.nan if v is None or v[1] is None else v[1] for v in values], float)
        texts = [None if v is None else v[0] for v in values]
        return Cue(name, np.isfinite(numbers), shortcuts.cells_of_numbers(numbers), texts=texts)
    return _text(name, [None if v is None else v[0] for v in values])


def _number(name: str, values: Floats) -> Cue:
    return Cue(name, np.isfinite(values), shortcuts.cells_of_numbers(values))


def _text(name: str, values: list[str | None]) -> Cue:
    known = np.array([value is not None for value in values], bool)
    return Cue(name, known, shortcuts.cells_of_texts(values), texts=values)


def _pixels(store: Store, images: Sequence[AuditRow], check: Check) -> list[Cue]:
    """Return colour and border of the thumbnails; images without one are left out."""
    folder = ImageFolder(store.root)
    colours = np.full((len(images), plain_cues.N_COLOUR), np.nan)
    borders = np.full((len(images), plain_cues.N_BORDER), np.nan)
    step = max(1, -(-len(images) // READ_AT_MOST))
    for at in range(0, len(images), step):
        check()
        pixels = plain_cues.read_thumbnail(folder.thumb_path(images[at].sha256, images[at].seen))
        if pixels is not None:
            colours[at] = plain_cues.colour(pixels)
            borders[at] = plain_cues.border(pixels)
    return [
        Cue(name, np.isfinite(values).all(1), numbers=values)
        for name, values in zip(PIXELS, (colours, borders), strict=True)
    ]
