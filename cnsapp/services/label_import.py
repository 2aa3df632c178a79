"""Labels in bulk: from folders, from a CSV file."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from cnsapp.domain.labels import clean_annotator
from cnsapp.domain.matching import base_form, plain_form
from cnsapp.domain.names import clean_name, name_key
from cnsapp.errors import InvalidInputError
from cnsapp.services.suggestion_runs import refresh_if_due
from cnsapp.services.tables import read_csv
from db.deciding import is_void, refresh_current
from db.models import Image, LabelClass, LabelEvent
from db.queries import chunks, insert_new
from db.session import Store

CHUNK = 500  # rows a transaction: short enough that somebody who labels does not notice
PAUSE = 0.002  # seconds between transactions: SQLite's lock has no queue, so leave a gap to get in


@dataclass(frozen=True)
class LabelReport:
    """What came of a file of labels."""

    rows: int
    labelled: int
    unchanged: int  # were called so already
    blank: int  # rows without a label
    unknown_files: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """Return the report as JSON."""
        return asdict(self)


def import_labels(
    store: Store,
    *,
    project_id: int,
    rows: Sequence[tuple[int, int]],
    annotator: str,
    source: str = "import",
    reassert: bool = False,
) -> int:
    """Label many images, given as (image id, class id); return how many new labels were stored.

    An import says a thing once: where an image was given this class from this source before,
    by whomever, and that was not undone, nothing is added. So importing a folder again neither
    doubles labels nor overrides later corrections, whatever name it is imported under.

    `reassert` is for a person who says now what is right: only what an image is called already is
    left out, and an earlier label of the same class that was corrected since is given again.

    Raises
    ------
    InvalidInputError
        A class or an image is not of this project. Rows before its chunk are stored.
    """
    who = clean_annotator(annotator)
    client = f"{source}-{uuid.uuid4().hex}"
    stored = 0
    for start, part in enumerate(chunks(rows, CHUNK)):
        if start:
            time.sleep(PAUSE)
        with store.writing() as session:
            _check(session, project_id, part)
            there = _called_now(session, part) if reassert else said_before(session, part, source)
            wanted = [row for row in dict.fromkeys(part) if row not in there]
            new = [
                {
                    "project_id": project_id,
                    "image_id": image_id,
                    "class_id": class_id,
                    "annotator": who,
                    "kind": "label",
                    "source": source,
                    "client": client,
                    "seq": start * CHUNK + index + 1,
                    "action": client,
                    "target_id": None,
                }
                for index, (image_id, class_id) in enumerate(wanted)
            ]
            stored += insert_new(session, LabelEvent, new, ["client", "seq"])
            refresh_current(session, project_id, [image_id for image_id, _ in wanted])
    if stored:
        refresh_if_due(store, project_id=project_id)
    return stored


def label_from_csv(store: Store, *, project_id: int, csv: Path, annotator: str) -> LabelReport:
    """Label images from a CSV file with the columns `file` or `sha256`, and `label`.

    The annotator says now what the table says: a row adds a label unless the image is called so
    already, also where an earlier label of the same class was corrected since.

    Raises
    ------
    InvalidInputError
        The file cannot be read, lacks a column, contradicts itself, or names a class that the
        project does not have. Nothing is labelled then.
    """
    who = clean_annotator(annotator)
    column, lines = _read_labels(csv)
    with store.reading() as session:
        classes = _class_ids(session, project_id, [label for _, label in lines if label])
        found = find_images(session, project_id, column, [name for name, _ in lines])
    wanted: dict[int, int] = {}
    unknown: dict[str, None] = {}
    for name, label in lines:
        if name not in found:
            unknown[name] = None
        elif label:
            class_id = classes[name_key(label)]
            if any(wanted.setdefault(image_id, class_id) != class_id for image_id in found[name]):
                raise InvalidInputError(
                    f"“{name}” has two different labels in {csv.name}.",
                    "One of them must be wrong.",
                    "Keep one of the two lines, then try again. Nothing was labelled.",
                )
    rows = sorted(wanted.items())
    labelled = import_labels(store, project_id=project_id, rows=rows, annotator=who, reassert=True)
    return LabelReport(
        rows=len(lines),
        labelled=labelled,
        unchanged=len(rows) - labelled,
        blank=sum(1 for _, label in lines if not label),
        unknown_files=tuple(unknown),
    )


def _check(session: Session, project_id: int, rows: Sequence[tuple[int, int]]) -> None:
    class_ids, image_ids = {row[1] for row in rows}, {row[0] for row in rows}
    classes = select(LabelClass.id).where(LabelClass.project_id == project_id, LabelClass.active)
    images = select(Image.id).where(Image.id.in_(image_ids), Image.project_id == project_id)
    strangers = class_ids - set(session.scalars(classes)) or image_ids - set(
        session.scalars(images)
    )
    if strangers:
        raise InvalidInputError(
            f"Number {min(strangers)} is no class or image of project {project_id}.",
            "A label can only join an image and a class of one project.",
            "Check that the project was not changed meanwhile, then try again.",
        )


def said_before(
    session: Session, rows: Sequence[tuple[int, int]], source: str
) -> set[tuple[int, int]]:
    """Return the (image id, class id) that this source gave before and nobody undid."""
    found = session.execute(
        select(LabelEvent.image_id, LabelEvent.class_id).where(
            LabelEvent.image_id.in_({row[0] for row in rows}),
            LabelEvent.kind == "label",
            LabelEvent.source == source,
            ~is_void(),
        )
    )
    return {(image_id, class_id) for image_id, class_id in found if class_id is not None}


def _called_now(session: Session, rows: Sequence[tuple[int, int]]) -> set[tuple[int, int]]:
    found = session.execute(
        select(Image.id, Image.current_class_id).where(
            Image.id.in_({row[0] for row in rows}), Image.current_state == "label"
        )
    )
    return {(image_id, class_id) for image_id, class_id in found if class_id is not None}


def _read_labels(path: Path) -> tuple[str, list[tuple[str, str]]]:
    """Return the name column ("file" or "sha256") and its pairs of name and label."""
    head, rows = read_csv(path)
    column = next((name for name in ("sha256", "file") if name in head), None)
    if column is None or "label" not in head:
        raise InvalidInputError(
            f"{path.name} has the columns {', '.join(head) or 'none'}.",
            "A column “file” or “sha256” says which image, a column “label” says what it is.",
            "Name the columns in the first line, then try again.",
        )
    return column, [(row[column], clean_name(row["label"])) for row in rows]


def _class_ids(session: Session, project_id: int, labels: Iterable[str]) -> dict[str, int]:
    rows = session.execute(
        select(LabelClass.name_key, LabelClass.id).where(
            LabelClass.project_id == project_id, LabelClass.active
        )
    )
    known = dict(rows.all())
    unknown = sorted({label for label in labels if name_key(label) not in known})
    if unknown:
        shown = ", ".join(f"“{name}”" for name in unknown[:10])
        more = f" and {len(unknown) - 10} more" if len(unknown) > 10 else ""
        raise InvalidInputError(
            f"The project has no class {shown}{more}.",
            "A typing error would become a class of its own, so nothing was labelled.",
            "Add the class to the project first, or correct the file.",
        )
    return known


def find_images(
    session: Session, project_id: int, column: str, names: Sequence[str]
) -> dict[str, list[int]]:
    """Return the images of each name: all with these bytes, or the one file that has the name.

    `column` is "sha256" or "file". Files are named as `cnsapp.domain.matching` describes: letter
    by letter, else in another spelling, else by the last part; a name of several files finds none.
    """
    field = Image.sha256 if column == "sha256" else Image.file_name
    stored_as = {name: name.lower() if column == "sha256" else name for name in names if name}
    ids: dict[str, set[int]] = {}
    for part in chunks(sorted(set(stored_as.values()))):
        for name, image_id in session.execute(
            select(field, Image.id).where(Image.project_id == project_id, field.in_(part))
        ):
            ids.setdefault(name, set()).add(image_id)
    if column == "file":
        exact = set().union(*ids.values()) if ids else set()
        missing = [stored for stored in stored_as.values() if stored not in ids]
        ids |= _otherwise_spelt(session, project_id, missing, exact)
    return {
        name: sorted(ids[stored])
        for name, stored in stored_as.items()
        if stored in ids and (column == "sha256" or len(ids[stored]) == 1)
    }


def _otherwise_spelt(
    session: Session, project_id: int, names: Sequence[str], but: set[int]
) -> dict[str, set[int]]:
    """Return the images, except `but`, that names mean which are not there letter by letter."""
    wanted = {plain_form(name) for name in names}
    if not wanted:
        return {}
    by_plain: dict[str, set[int]] = {}
    by_base: dict[str, set[int]] = {}
    for file_name, image_id in session.execute(
        select(Image.file_name, Image.id).where(Image.project_id == project_id)
    ):
        if image_id in but:
            continue
        if (plain := plain_form(file_name)) in wanted:
            by_plain.setdefault(plain, set()).add(image_id)
        if (base := base_form(file_name)) in wanted:
            by_base.setdefault(base, set()).add(image_id)
    found = {
        name: by_plain.get(plain_form(name)) or by_base.get(plain_form(name)) for name in names
    }
    return {name: ids for name, ids in found.items() if ids}
