"""What a fine-tuning run has decided, in its folder: after a kill or a pause it goes on from there.

The labels, who is learnt from and who is scored are settled once and written down; a label that is
given while the run is paused changes nothing of it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy import select

from cnsapp.bootstrap import App
from cnsapp.domain.recipe import Recipe
from cnsapp.domain.run_plan import Part, RunPlan, plan_run
from cnsapp.domain.splits import BY_COLUMN
from cnsapp.domain.together import says_whose, units_of
from cnsapp.imaging.rule import ReadingRule
from cnsapp.jobs.context import JobContext
from cnsapp.ml.bundle import write_atomically
from cnsapp.services.run_folders import run_folder
from cnsapp.services.training import same_request
from cnsapp.tasks.resources import Source
from cnsapp.tasks.snapshot import Labelled, Snapshot
from db.models import Job

Ints = NDArray[np.int64]
VERSION = 1
PLAN = "plan.json"


@dataclass(frozen=True)
class FullRun:
    """A run whose images and networks are settled.

    Attributes
    ----------
    images
        Rows of the decoded pictures: those that may be learnt from, then the locked test set.
    parts
        The networks to train; the last one is published.
    folds
        (N,) fold of each row; -1 where it is never held out, as is all of the test set.
    test
        Row numbers of the locked test set.
    class_ids, class_names
        In the order of the outputs.
    size
        Side of the pictures in pixels.
    device
        Where it began.
    seconds
        That reading the pictures took.
    ties
        Sign of what is kept together, and on which side (`services.ties`).
    """

    images: list[Labelled]
    parts: list[Part]
    folds: Ints
    test: Ints
    class_ids: list[int]
    class_names: list[str]
    scheme: str
    n_folds: int
    warnings: list[str]
    fingerprint: str
    last_event_id: int
    split_id: int | None
    n_images: int
    rule: dict[str, Any]
    size: int
    device: str
    seconds: float
    ties: str = ""

    @property
    def labels(self) -> Ints:
        """(N,) place of each row's class in `class_ids`; 0 for a class that is not learnt."""
        place = {class_id: k for k, class_id in enumerate(self.class_ids)}
        return np.array([place.get(i.class_id, 0) for i in self.images], dtype=np.int64)

    def used_rows(self) -> list[int]:
        """Return the rows that the run learns from or is scored on."""
        rows = {int(i) for p in self.parts for i in (*p.train, *p.validation, *p.held)}
        return sorted(rows | {int(i) for i in self.test})

    def groups(self, rows: Sequence[int] | Ints) -> list[str | None] | None:
        """Return the groups of rows, or None where no image of the run has a real one."""
        if not any(says_whose(image.group) for image in self.images):
            return None
        return [self.images[int(i)].group for i in rows]

    def units(self, rows: Sequence[int] | Ints) -> Ints | None:
        """Return the groups of rows as numbers, as `FitData` takes them."""
        groups = self.groups(rows)
        return None if groups is None else units_of(groups)

    def would_do(self, other: FullRun) -> bool:
        """Say whether two runs learn, choose and score by the very same images and labels."""

        def work(run: FullRun) -> list[Any]:
            images = [
                (i.source.image_id, i.source.sha256, i.source.seen, i.class_id) for i in run.images
            ]
            parts = [part.as_json() for part in run.parts]
            return [images, parts, run.folds.tolist(), run.test.tolist(), run.class_ids,
                    run.rule, run.size, run.split_id]  # fmt: skip

        return work(self) == work(other)

    def as_json(self) -> dict[str, Any]:
        """Return plain data."""
        data = {k: v for k, v in vars(self).items() if k not in ("images", "parts", "folds")}
        return data | {
            "version": VERSION,
            "images": [_image_json(image) for image in self.images],
            "parts": [part.as_json() for part in self.parts],
            "folds": self.folds.tolist(),
            "test": self.test.tolist(),
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> FullRun:
        """Return the run of `as_json`."""
        known = {k: v for k, v in data.items() if k in cls.__dataclass_fields__}
        return cls(
            **known
            | {
                "images": [_image(image) for image in data["images"]],
                "parts": [Part.from_json(part) for part in data["parts"]],
                "folds": np.array(data["folds"], np.int64),
                "test": np.array(data["test"], np.int64),
            }
        )


def _image_json(image: Labelled) -> dict[str, Any]:
    return asdict(image) | {"source": asdict(image.source) | {"path": str(image.source.path)}}


def _image(data: dict[str, Any]) -> Labelled:
    source = Source(**data["source"] | {"path": Path(data["source"]["path"])})
    known = {k: v for k, v in data.items() if k in Labelled.__dataclass_fields__}
    return Labelled(**known | {"source": source})


def load_run(folder: Path) -> FullRun | None:
    """Return the run that a folder holds; None when it settled nothing yet."""
    try:
        data = json.loads((folder / PLAN).read_text(encoding="utf-8"))
        return FullRun.from_json(data) if data["version"] == VERSION else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def save_run(folder: Path, run: FullRun) -> None:
    """Write a run down, whole or not at all."""
    write_atomically(folder / PLAN, json.dumps(run.as_json()).encode())


def settle(
    snapshot: Snapshot,
    kept: Snapshot,
    recipe: Recipe,
    rule: ReadingRule,
    *,
    size: int,
    device: str,
    seconds: float,
) -> FullRun:
    """Decide which network learns from what.

    Parameters
    ----------
    snapshot, kept
        The labels at the start, whose order is that of the decoded rows; and what is left of them
        without the files that cannot be read and the classes that are too small.
    """
    rows_all = [*snapshot.learning, *snapshot.testing]
    left = {image.source.image_id for image in kept.images}
    known = {c.id for c in kept.classes}
    usable = [i.source.image_id in left and i.class_id in known for i in rows_all]
    n_learning = len(snapshot.learning)
    rows = np.flatnonzero(usable[:n_learning])
    place = {c.id: k for k, c in enumerate(kept.classes)}
    images = [rows_all[i] for i in rows]
    plan = plan_run(
        np.array([place[i.class_id] for i in images], dtype=np.int64),
        [i.group for i in images],
        [i.source.name for i in images],
        evaluate=recipe.evaluate,
        n_folds=recipe.n_folds,
        scheme=recipe.scheme or None,
        seed=recipe.seed,
        validation_share=recipe.validation_share,
        class_names=[c.name for c in kept.classes],
        wished=_wished(images),
        **_ties(images, recipe),
    )
    folds = np.full(len(rows_all), -1, np.int64)
    folds[rows] = plan.folds
    return FullRun(
        images=rows_all,
        parts=[_at(part, rows) for part in plan.parts],
        folds=folds,
        test=n_learning + np.flatnonzero(usable[n_learning:]),
        class_ids=[c.id for c in kept.classes],
        class_names=[c.name for c in kept.classes],
        scheme=plan.scheme,
        n_folds=plan.n_folds,
        warnings=list(dict.fromkeys([*kept.warnings, *_plan_warnings(plan)])),
        fingerprint=kept.fingerprint(),
        last_event_id=snapshot.last_event_id,
        split_id=snapshot.split_id,
        n_images=len(kept.images),
        rule=rule.as_json(),
        size=size,
        device=device,
        seconds=seconds,
        ties=snapshot.ties,
    )


def _wished(images: Sequence[Labelled]) -> NDArray[np.bool_] | None:
    wished = np.array([image.part == "validation" for image in images], dtype=bool)
    return wished if wished.any() else None


def _ties(images: Sequence[Labelled], recipe: Recipe) -> dict[str, Any]:
    """Return the column that folds are cut by, and the pictures that look the same."""
    by_column = recipe.scheme == BY_COLUMN
    return {
        "pictures": [image.picture for image in images],
        "column": [image.value for image in images] if by_column else None,
    }


def _plan_warnings(plan: RunPlan) -> list[str]:
    warnings = list(plan.warnings)
    if plan.n_folds == 1:
        n = len(plan.parts[0].held)
        warnings.append(
            f"Scored once, on the {n} images that were kept back. To score every image, choose "
            "folds at “Score by” under All settings, or Best: as many trainings as folds."
        )
    return warnings


def _at(part: Part, rows: Ints) -> Part:
    return replace(
        part, train=rows[part.train], validation=rows[part.validation], held=rows[part.held]
    )


def adopt(app: App, job: JobContext, wanted: FullRun) -> int | None:
    """Take over what a failed run of the same request had finished; return its job number.

    Same settings, and the same images in the same parts: its epochs are what this run would do
    again. Where groups, near-duplicates or the split have changed since, they are not.
    """
    for job_id in _failed_before(app, job):
        folder = run_folder(app.store, job_id)
        run = load_run(folder)
        if run is not None and run.would_do(wanted):
            target = run_folder(app.store, job.id)
            if not target.exists():
                folder.rename(target)
                return job_id
    return None


def _failed_before(app: App, job: JobContext) -> Iterator[int]:
    with app.store.reading() as session:
        rows = session.execute(
            select(Job.id, Job.payload)
            .where(
                Job.kind == "train",
                Job.project_id == job.project_id,
                Job.state == "failed",
                Job.id < job.id,
            )
            .order_by(Job.id.desc())
            .limit(20)
        ).all()
    yield from (job_id for job_id, payload in rows if same_request(job.payload, payload))
