"""One trial of a search: what a candidate says of images that it did not learn from."""

from __future__ import annotations

import base64
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from cnsapp.bootstrap import App
from cnsapp.domain.recipe import make_recipe
from cnsapp.domain.run_plan import Part, RunPlan, plan_run
from cnsapp.domain.search import (
    FEWEST_IMAGES,
    FEWEST_OF_CLASS,
    MUCH_TOO_LONG,
    Candidate,
    Round,
)
from cnsapp.domain.splits import BY_GROUP, FoldPlan, grouped_folds
from cnsapp.errors import Cancelled
from cnsapp.imaging.rule import ReadingRule
from cnsapp.jobs.context import JobContext
from cnsapp.ml.backbones import build_backbone
from cnsapp.ml.device import choose_device
from cnsapp.ml.finetune import Finetuner, FitData, fit
from cnsapp.ml.quick import QuickOptions, QuickProgress, train_quick
from cnsapp.services.run_folders import run_folder
from cnsapp.tasks.features import compute
from cnsapp.tasks.full_pictures import decode
from cnsapp.tasks.full_run import FullRun
from cnsapp.tasks.resources import extractor_of, feature_key, feature_store
from cnsapp.tasks.snapshot import Labelled
from cnsapp.tasks.train_quick import load_stages
from cnsapp.weights_files import get_facts

Ints = NDArray[np.int64]
NOT_JUDGED = -1
N_PARTS = 4  # into which the images are cut: a round of half of them takes two
VALIDATION = 0.15
ENOUGH_IMAGES, ENOUGH_GROUPS = 100, 6  # that are judged, to rank candidates by


class OutOfTime(Exception):
    """A trial needs more time than it was allotted; `expected` seconds, where they are known."""

    def __init__(self, expected: float = 0.0) -> None:
        self.expected = expected
        super().__init__()


class Clock:
    """The time that a trial may take."""

    def __init__(self, seconds: float) -> None:
        self.began = time.monotonic()
        self.until = self.began + seconds

    def look(self) -> None:
        """Raise OutOfTime when it is over."""
        if self.is_over():
            raise OutOfTime

    def is_over(self) -> bool:
        """Say whether it is over."""
        return time.monotonic() > self.until

    def left(self) -> float:
        """Return how many seconds are left."""
        return max(0.0, self.until - time.monotonic())

    def seconds(self) -> float:
        """Return how long it has run."""
        return time.monotonic() - self.began


@dataclass(frozen=True)
class Course:
    """What a round is run on: the same for all its candidates.

    Attributes
    ----------
    rows
        (n,) rows of the run's images that take part.
    plan
        Who learns from whom; its rows count within `rows`.
    judged
        Folds that are judged.
    """

    run: FullRun
    rows: Ints
    plan: RunPlan
    judged: tuple[int, ...]

    @property
    def labels(self) -> Ints:
        """(n,) place of each image's class."""
        found: Ints = self.run.labels[self.rows]
        return found

    @property
    def groups(self) -> list[str | None] | None:
        """Group of each image, or None where none has one."""
        return self.run.groups(self.rows)


class Told(JobContext):
    """A job whose messages begin with what is tried."""

    def __init__(self, job: JobContext, title: str) -> None:
        self.of, self.title = job, title

    def progress(self, fraction: float, message: str = "", **values: Any) -> None:
        """Report with the title before the message; figures of a trial are no curve of the job."""
        del values
        self.of.progress(fraction, f"{self.title}: {message}")

    def check_cancelled(self) -> None:
        """Raise Cancelled or Paused, as the job does."""
        self.of.check_cancelled()

    def is_stopping(self) -> bool:
        """Say whether the job is to stop."""
        return self.of.is_stopping()


def can_share(run: FullRun, seed: int) -> bool:
    """Say whether a quarter of the images is enough to tell candidates apart."""
    rows = learning_rows(run)
    if len(rows) < FEWEST_IMAGES:
        return False
    quarter = rows[_quarters(run, rows, seed) == 0]
    counts = np.bincount(run.labels[quarter], minlength=len(run.class_ids))
    if counts.min() < FEWEST_OF_CLASS:
        return False
    if run.scheme != BY_GROUP:
        return True
    for c in range(len(run.class_ids)):
        of_class = [int(i) for i in quarter if run.labels[i] == c]
        if len({run.images[i].group or i for i in of_class}) < 3:
            return False
    return True


def lay_out(run: FullRun, round_: Round, seed: int, n_folds: int) -> Course:
    """Return what a round is run on; the same for the same run, round and seed."""
    rows = learning_rows(run)
    if round_.share < 1:
        rows = rows[_quarters(run, rows, seed) < round(round_.share * N_PARTS)]
    images = [run.images[i] for i in rows]
    plan = plan_run(
        run.labels[rows],
        [i.group for i in images],
        [i.source.name for i in images],
        evaluate="folds",
        n_folds=n_folds,
        scheme=run.scheme or None,
        seed=seed,
        validation_share=VALIDATION,
        class_names=run.class_names,
        pictures=[i.picture for i in images],
    )
    folds = sorted(part.fold for part in plan.parts if part.fold is not None)
    n = min(round_.n_folds, len(folds))
    while n < len(folds) and not _tells(images, plan.folds < n):
        n += 1  # few images are judged in more folds: they are soon learnt
    return Course(run, rows, plan, tuple(folds[:n]))


def _tells(images: list[Labelled], judged: NDArray[np.bool_]) -> bool:
    """Say whether these images are enough to rank candidates by."""
    mine = [image for image, chosen in zip(images, judged, strict=True) if chosen]
    groups = {image.group or k for k, image in enumerate(mine)}
    return len(mine) >= ENOUGH_IMAGES and len(groups) >= ENOUGH_GROUPS


def learning_rows(run: FullRun) -> Ints:
    """Return the rows that may be learnt from: neither test set nor classes that are too small."""
    known = np.array([image.class_id in run.class_ids for image in run.images])
    known[run.test] = False
    known[[i for i, image in enumerate(run.images) if image.part == "test"]] = False
    return np.flatnonzero(known)


def _quarters(run: FullRun, rows: Ints, seed: int) -> Ints:
    images = [run.images[i] for i in rows]
    return grouped_folds(
        run.labels[rows],
        [i.group for i in images],
        n_folds=N_PARTS,
        seed=seed,
        names=[i.source.name for i in images],
        scheme=run.scheme or None,
        class_names=run.class_names,
        pictures=[i.picture for i in images],
    ).folds


def answers_of(
    app: App, job: JobContext, course: Course, candidate: Candidate, round_: Round, name: str,
    clock: Clock, seed: int, fraction: float,
) -> Ints:  # fmt: skip
    """Return what a candidate says (n,) of the images of the judged folds, `NOT_JUDGED` elsewhere.

    Raises
    ------
    OutOfTime
        It needs more time than it was allotted.
    CnsError
        It cannot be tried; says why.
    """
    told = Told(job, candidate.title)
    rule = ReadingRule.from_json(course.run.rule)
    if candidate.is_fine_tuned:
        return _tuned(app, told, course, candidate, round_, name, clock, seed, fraction, rule)
    return _quick(app, told, course, candidate, clock, seed, fraction, rule)


def _quick(
    app: App, job: JobContext, course: Course, candidate: Candidate, clock: Clock, seed: int,
    fraction: float, rule: ReadingRule,
) -> Ints:  # fmt: skip
    sources = [course.run.images[i].source for i in course.rows]
    _, failures = compute(
        app, job, sources, candidate.backbone, rule=rule, span=(fraction, fraction),
        pause=clock.look,
    )  # fmt: skip
    at = np.flatnonzero([s.image_id not in failures.image_ids for s in sources])
    extractor = extractor_of(app, candidate.backbone)
    stages = extractor.backbone.row.head_stages
    keys = [feature_key(sources[i]) for i in at]
    network, colour, layout = load_stages(feature_store(app, extractor), keys, extractor, stages)

    def report(now: QuickProgress) -> None:
        job.check_cancelled()
        clock.look()
        job.progress(fraction, now.message)

    groups = course.groups
    # what is not judged is never held out: every fold learns from it
    folds = np.where(np.isin(course.plan.folds, course.judged), course.plan.folds, -1)
    result = train_quick(
        network,
        colour,
        course.labels[at],
        None if groups is None else [groups[i] for i in at],
        [sources[i].name for i in at],
        list(range(len(course.run.class_ids))),
        QuickOptions(head=str(candidate.options.get("head", "auto"))),
        report,
        seed=seed,
        layout=layout,
        stages=stages,
        class_names=course.run.class_names,
        plan=FoldPlan(folds[at], course.plan.scheme, len(course.judged)),
        pictures=[course.run.images[course.rows[i]].picture for i in at],
    )
    found = np.full(len(sources), NOT_JUDGED, np.int64)
    scored = ~np.isnan(result.probabilities).any(1)
    places = np.array(result.class_ids, np.int64)[result.probabilities[scored].argmax(1)]
    found[at[scored]] = places
    return found


def _tuned(
    app: App, job: Told, course: Course, candidate: Candidate, round_: Round, name: str,
    clock: Clock, seed: int, fraction: float, rule: ReadingRule,
) -> Ints:  # fmt: skip
    recipe = make_recipe(candidate.preset, {**candidate.options, "seed": seed})
    recipe = replace(recipe, epochs=max(1, round(recipe.epochs * round_.epochs)))
    weights = app.store.path("weights")
    size = recipe.image_size or get_facts(candidate.backbone, weights).input_size
    size = size or build_backbone(candidate.backbone, weights).row.preprocessing.size
    run = course.run
    # all images at once, so that every round finds the same decoded pictures
    every = learning_rows(run)
    sources = [run.images[i].source for i in every]
    pixels, failures = decode(app, job, sources, rule, size, span=(fraction, fraction))
    place = {int(row): k for k, row in enumerate(every)}
    rows = np.array([place[int(i)] for i in course.rows], np.int64)
    readable = np.array([s.image_id not in failures.image_ids for s in sources])
    labels = run.labels[every]
    found = np.full(len(rows), NOT_JUDGED, np.int64)
    device = choose_device(app.settings.device if recipe.device == "auto" else recipe.device)

    def stop() -> bool:
        return job.is_stopping() or clock.is_over()

    for part in course.plan.parts:
        if part.fold not in course.judged:
            continue
        train, validation, held = (
            rows[r][readable[rows[r]]] for r in (part.train, part.validation, part.held)
        )
        data = FitData(
            pixels, labels, train, validation, run.class_ids, run.class_names, run.units(every)
        )
        folder = run_folder(app.store, job.of.id) / f"{name}-fold-{part.fold}"

        def work(
            data: FitData = data, folder: Any = folder, held: Ints = held, part: Part = part
        ) -> NDArray[Any]:
            tuner = Finetuner(
                candidate.backbone, data, recipe, device, folder, weights_dir=weights,
                on_batch=lambda b: job.progress(
                    fraction, f"Epoch {b.epoch} of {recipe.epochs}, batch {b.batch}"
                ),
                cancelled=stop,
            )  # fmt: skip
            if part.fold == course.judged[0]:
                expected = tuner.self_test().seconds_total * len(course.judged)
                if expected > MUCH_TOO_LONG * clock.left():
                    raise OutOfTime(expected)
            network, _ = fit(tuner)
            said = network.logits(pixels, held, stop)
            tuner.forget()
            return cast(NDArray[Any], said)

        said = _in_time(job, clock, work)
        answered = ~np.isnan(said).any(1)
        known = np.isin(labels[held], labels[train])  # what it never saw is not judged
        at = part.held[readable[rows[part.held]]][answered & known]
        found[at] = said[answered & known].argmax(1)
    return found


def _in_time(job: JobContext, clock: Clock, work: Callable[[], Any]) -> Any:
    """Run it; where it was stopped, say whether the job was, or the time was over."""
    try:
        return work()
    except Cancelled:
        job.check_cancelled()
        if clock.is_over():
            raise OutOfTime from None
        raise


def pack(answers: Ints) -> str:
    """Return answers as text that a step can remember."""
    return base64.b85encode(zlib.compress(answers.astype("<i2").tobytes(), 9)).decode()


def unpack(text: str) -> Ints:
    """Return the answers of `pack`."""
    return np.frombuffer(zlib.decompress(base64.b85decode(text)), "<i2").astype(np.int64)
