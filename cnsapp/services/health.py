"""Doctor: is this installation sound, said check by check in words."""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any, Literal

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from cnsapp.bootstrap import App
from cnsapp.domain.consensus import ConsensusRule
from cnsapp.errors import CnsError
from cnsapp.services import health_slides, jobs
from cnsapp.services.models import check_model_file, file_sha256
from db.deciding import (
    Meanings,
    class_meanings,
    consensus_rule,
    decide_images,
    kept_values,
    values_now,
)
from db.models import AnnotatorLabel, Image, Model, Project, Tally
from db.queries import chunks
from db.session import integrity_problems, sqlite_version, sqlite_warning

State = Literal["ok", "warning", "problem"]
LOW_SPACE = 2_000_000_000  # bytes
SAMPLE = 200  # image files whose bytes are compared with their SHA-256


@dataclass(frozen=True)
class Check:
    """One thing looked at, how it is, and what to do when it is not well."""

    name: str
    state: State
    detail: str
    remedy: str = ""

    def as_json(self) -> dict[str, Any]:
        """Return the facts for `--json`."""
        return asdict(self)


def examine(app: App, *, sample: int = SAMPLE) -> list[Check]:
    """Look at database, labels, images, slides, models, worker and disk; change nothing."""
    return [
        _sqlite(app),
        _integrity(app),
        _labels(app),
        _tallies(app),
        _images(app, sample),
        Check("slide files", *health_slides.slide_files(app)),
        Check("slide tiles", *health_slides.slide_tiles(app)),
        Check("killed imports", *health_slides.killed_imports(app)),
        Check("quality", *health_slides.quality_rows(app)),
        _models(app),
        _worker(app),
        _disk(app),
    ]


def _sqlite(app: App) -> Check:
    if app.store.engine.dialect.name != "sqlite":
        return Check("database", "ok", f"{app.store.engine.dialect.name} server")
    version = ".".join(map(str, sqlite_version()))
    warning = sqlite_warning()
    if warning:
        return Check("database", "warning", warning, "Install the package pysqlite3.")
    return Check("database", "ok", f"SQLite {version}")


def _integrity(app: App) -> Check:
    found = integrity_problems(app.store)
    if found:
        return Check(
            "integrity",
            "problem",
            f"The database file is damaged: {'; '.join(found[:3])}.",
            "Restore the newest backup: `restore FILE`.",
        )
    return Check("integrity", "ok", "the database file is whole")


def _labels(app: App) -> Check:
    wrong, n = 0, 0
    with app.store.reading() as session:
        for project_id in session.scalars(select(Project.id)).all():
            rule, meanings = (
                consensus_rule(session, project_id),
                class_meanings(session, project_id),
            )
            for rows in _image_pages(session, project_id):
                n += len(rows)
                wrong += _differing(session, rows, rule, meanings)
    if wrong:
        return Check(
            "labels",
            "problem",
            f"{wrong} of {n} images show another label than their events say.",
            "Report it; the events are whole, and every label can be derived anew.",
        )
    return Check("labels", "ok", f"{n} images show what their label events say")


def _image_pages(session: Session, project_id: int) -> Iterator[list[Image]]:
    after = 0
    while True:
        rows = session.scalars(
            select(Image)
            .where(Image.project_id == project_id, Image.id > after)
            .order_by(Image.id)
            .limit(1000)
        ).all()
        if not rows:
            return
        yield list(rows)
        after = rows[-1].id
        session.expunge_all()


def _differing(
    session: Session, images: list[Image], rule: ConsensusRule, meanings: Meanings
) -> int:
    ids = [image.id for image in images]
    decisions, said = decide_images(session, ids, rule, meanings)
    kept = {
        (row.image_id, row.annotator): row.event_id
        for part in chunks(ids)
        for row in session.scalars(select(AnnotatorLabel).where(AnnotatorLabel.image_id.in_(part)))
    }
    due = {(e.image_id, e.annotator): e.id for es in said.values() for e in es if e.kind != "clear"}
    wrong = {key[0] for key in kept.keys() | due.keys() if kept.get(key) != due.get(key)}
    for image in images:
        sources = {event.id: event.source for event in said[image.id]}
        if values_now(image) != kept_values(decisions[image.id], sources):
            wrong.add(image.id)
    return len(wrong)


def _tallies(app: App) -> Check:
    with app.store.reading() as session:
        kept = {
            (p, k): n for p, k, n in session.execute(select(Tally.project_id, Tally.key, Tally.n))
        }
        counted: dict[tuple[int, str], int] = {}
        for project_id, state, class_id, n in session.execute(
            select(Image.project_id, Image.current_state, Image.current_class_id, func.count())
            .where(Image.status == "ok")
            .group_by(Image.project_id, Image.current_state, Image.current_class_id)
        ):
            keys = ["images"] + ([f"state:{state}"] if state != "none" else [])
            keys += [f"class:{class_id}"] if state == "label" else []
            for key in keys:
                counted[project_id, key] = counted.get((project_id, key), 0) + n
    off = {key for key in kept.keys() | counted.keys() if kept.get(key, 0) != counted.get(key, 0)}
    if off:
        return Check(
            "counts", "problem", f"{len(off)} kept counts differ from the rows.", "Report it."
        )
    return Check("counts", "ok", "the counts shown agree with the rows")


def _images(app: App, sample: int) -> Check:
    missing, rows = [], []
    with app.store.reading() as session:
        for image_id, name, path, sha256 in session.execute(
            select(Image.id, Image.file_name, Image.stored_path, Image.sha256)
        ):
            if not app.store.path(path).is_file():
                missing.append(name)
            else:
                rows.append((image_id, name, path, sha256))
    looked = random.sample(rows, min(sample, len(rows)))
    altered = [name for _, name, path, sha in looked if file_sha256(app.store.path(path)) != sha]
    if missing or altered:
        return Check(
            "image files",
            "problem",
            f"{len(missing)} image files are missing and {len(altered)} of {len(looked)} looked at "
            f"were altered, for example {(missing + altered)[0]}.",
            "Put them back from a backup or from where they were imported.",
        )
    return Check(
        "image files",
        "ok",
        f"{len(rows)} files are there; {len(looked)} compared with their checksums",
    )


def _models(app: App) -> Check:
    with app.store.reading() as session:
        ids = list(session.scalars(select(Model.id).where(Model.ready.is_(True))))
    for model_id in ids:
        try:
            check_model_file(app, model_id=model_id)
        except CnsError as error:
            return Check("models", "problem", error.what, error.remedy)
    return Check("models", "ok", f"{len(ids)} model files are as they were made")


def _worker(app: App) -> Check:
    worker = jobs.worker_view(app.store, settings=app.settings)
    if worker is None or not worker.alive:
        return Check(
            "worker",
            "warning",
            "no worker runs",
            "It starts with the app; or start one: `worker`.",
        )
    return Check("worker", "ok", f"running on {worker.device}")


def _disk(app: App) -> Check:
    free = shutil.disk_usage(app.store.root).free
    detail = f"{free / 1e9:.1f} GB free at {app.store.root}"
    if free < LOW_SPACE:
        return Check("disk", "warning", detail, "Make room: delete exports and old backups.")
    return Check("disk", "ok", detail)
