"""The demo project: generated tissue of several organs, some of it labelled, a few wrongly."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image as PillowImage
from sqlalchemy import select

from cnsapp.bootstrap import App
from cnsapp.domain.names import name_key
from cnsapp.domain.schemes import ORGAN_SYSTEMS
from cnsapp.imaging.store import is_abandoned, own_name
from cnsapp.imaging.synthetic import ORGANS, make_tissue
from cnsapp.services.classes import add_class
from cnsapp.services.importing import import_folder
from cnsapp.services.labels import import_labels
from cnsapp.services.projects import create_project, list_classes
from db.models import Image, Project
from db.session import Store

NAME = "Demo: organs"
ANNOTATOR = "demo"
N_EACH = 40
N_PATIENTS = 6
N_LABELLED = 13  # of each organ, from all patients
WRONG = {  # (organ, number of the picture) -> the label it is given instead
    ("colon", 4): "small_intestine",
    ("kidney", 9): "liver",
    ("pancreas", 1): "kidney",
    ("lymph_node", 12): "skin_1",
}
PREFIX = "demo-"
JPEG_QUALITY = 88

Progress = Callable[[int, int, str], None]


def create_demo(
    app: App,
    *,
    progress: Progress | None = None,
    check_cancelled: Callable[[], None] | None = None,
) -> int:
    """Make the demo project, or complete or find the one that is there; return its id.

    Four of the given labels are wrong on purpose, so that Review has something to find.
    """
    found = _find(app.store)
    if found is not None and found[1]:
        return found[0]
    project_id = found[0] if found else create_project(app.store, name=NAME).id
    _add_organs(app.store, project_id)
    report, check = progress or _ignore, check_cancelled or _go_on
    for left in app.store.path("uploads").glob(f"{PREFIX}*"):
        if is_abandoned(left, PREFIX):
            shutil.rmtree(left, ignore_errors=True)
    folder = app.store.path("uploads", own_name(PREFIX))
    try:
        _draw(folder, report, check)
        import_folder(
            app,
            project_id=project_id,
            path=folder,
            group_from=r"(patient_\d+)",
            progress=lambda n, total, _: report(total + int(n), 2 * total, "Importing images"),
            check_cancelled=check,
        )
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    _label(app.store, project_id)
    _mark_complete(app.store, project_id)
    return project_id


def _ignore(_done: int, _total: int, _name: str) -> None:
    return None


def _go_on() -> None:
    return None


def _find(store: Store) -> tuple[int, bool] | None:
    """Return the demo's id and whether it is complete."""
    with store.reading() as session:
        row = session.scalar(select(Project).where(Project.name_key == name_key(NAME)))
        return None if row is None else (row.id, bool(row.settings.get("demo_complete")))


def _mark_complete(store: Store, project_id: int) -> None:
    with store.writing() as session:
        project = session.get_one(Project, project_id)
        project.settings = {**project.settings, "demo_complete": True}


def _add_organs(store: Store, project_id: int) -> None:
    there = {view.name for view in list_classes(store, project_id=project_id)}
    for spec in ORGAN_SYSTEMS:
        if spec.name in ORGANS and spec.name not in there:
            add_class(
                store, project_id=project_id, name=spec.name, parent=spec.parent, who=ANNOTATOR
            )


def _plan() -> list[tuple[str, int, int]]:
    """Return (organ, patient, number) of every picture, one patient after another."""
    return [
        (organ, number % N_PATIENTS + 1, number) for number in range(N_EACH) for organ in ORGANS
    ]


def _file_name(organ: str, patient: int, number: int) -> str:
    return f"patient_{patient}/{organ}_{number:02d}.jpg"


def _draw(folder: Path, progress: Progress, check_cancelled: Callable[[], None]) -> None:
    plan = _plan()
    for done, (organ, patient, number) in enumerate(plan):
        check_cancelled()
        path = folder / _file_name(organ, patient, number)
        path.parent.mkdir(parents=True, exist_ok=True)
        picture = PillowImage.fromarray(make_tissue(organ, patient, number))
        picture.save(path, "JPEG", quality=JPEG_QUALITY)
        progress(done + 1, 2 * len(plan), "Drawing tissue")


def _label(store: Store, project_id: int) -> None:
    """Give some images of every organ a label, in a mixed order, as a person would."""
    classes = {view.name: view.id for view in list_classes(store, project_id=project_id)}
    given = {}
    for organ, patient, number in _plan():
        if number < N_LABELLED:
            shown = WRONG.get((organ, number), organ)
            given[_file_name(organ, patient, number)] = classes[shown]
    with store.reading() as session:
        found = session.execute(
            select(Image.id, Image.file_name).where(Image.project_id == project_id)
        )
        rows = [(row.id, given[row.file_name]) for row in found if row.file_name in given]
    order = np.random.default_rng(0).permutation(len(rows))
    import_labels(store, project_id=project_id, rows=[rows[i] for i in order], annotator=ANNOTATOR)
