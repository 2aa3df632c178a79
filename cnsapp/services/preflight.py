"""Before a training starts: what stands in the way, what weakens it, and how long it will take."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import func, or_, select

from cnsapp.bootstrap import App
from cnsapp.domain.backbones import BackboneFacts, check_pretrained, check_size
from cnsapp.domain.recipe import Recipe, make_recipe
from cnsapp.domain.splits import BY_GROUP
from cnsapp.errors import InvalidInputError
from cnsapp.jobs.lock import device_meant
from cnsapp.services.devices import check_wish
from cnsapp.services.images import reading_rule
from cnsapp.services.models import ModelView, labels_changed_since, list_models
from cnsapp.services.ties import ties_changed
from cnsapp.services.training import Readiness, readiness, same_request
from cnsapp.weights_files import require_weights
from db.models import Image, Worker

FEATURES_SECONDS = 0.1  # an image with its views on two CPU cores, once
HEAD_SECONDS = 5.0
DECODE_SECONDS = 0.02  # a picture
START_SECONDS = 8.0  # loading the network, its start
EPOCH_SECONDS = 0.5  # validation and the checkpoint, at least
MOST_FASTER = 4.0
# Training images a second at 224 px, EfficientNet-Lite0, ResNet-50 and VGG-16 standing for their
# kind: on two CPU cores, and on a GPU. Only until a run has been measured on this machine.
ON_CPU = {"light": 16.0, "medium": 4.0, "heavy": 1.5, "unknown": 4.0}
ON_GPU = {"light": 1500.0, "medium": 1200.0, "heavy": 400.0, "unknown": 800.0}
USUAL_SIZE = 224
SPARE = 256 << 20  # bytes


@dataclass(frozen=True)
class Estimate:
    """About how long a run takes.

    Attributes
    ----------
    seconds
        At most: early stopping may end sooner.
    measured
        Whether it follows from a run on this device, not from a table.
    sentence
        For the screen.
    """

    seconds: float
    measured: bool
    sentence: str


@dataclass(frozen=True)
class Preflight:
    """What is known before the start.

    Attributes
    ----------
    problems
        Each would end the run: it is not started.
    warnings
        What weakens the result, or is worth a thought.
    same_as
        The model that this run would make again: same labels, settings and seed; or None.
    estimate
        None when the run cannot start.
    """

    problems: list[str]
    warnings: list[str]
    same_as: ModelView | None
    estimate: Estimate | None

    @property
    def ok(self) -> bool:
        """Whether it may be started."""
        return not self.problems

    def nothing_new(self) -> InvalidInputError:
        """Return what to say to somebody who may not have meant to train the same again."""
        name = self.same_as.name if self.same_as else ""
        return InvalidInputError(
            f"“{name}” was trained on the same labels with the same settings and seed.",
            "This run would make it again.",
            "Change the seed or a setting, label more, or ask for it all the same: `--again`.",
        )


def preflight(
    app: App,
    *,
    project_id: int,
    preset: str = "quick",
    backbone: str = "efficientnet_lite0",
    options: Mapping[str, Any] | None = None,
) -> Preflight:
    """Look at labels, settings, weights and machine before a run is started.

    Raises
    ------
    InvalidInputError
        There is no such preset or setting, or a value is out of its range.
    """
    recipe = make_recipe(preset, options)
    found = readiness(app.store, project_id=project_id)
    problems, facts = list(found.problems), None
    try:
        facts = require_weights(backbone, app.store.path("weights")).facts
        check_pretrained(facts, preset)
        check_size(facts, recipe.image_size)
    except InvalidInputError as error:
        problems.append(str(error))
    problems += _about_settings(recipe)
    warnings = [*found.warnings, *_about_folds(found, recipe)]
    newest = list_models(app.store, project_id=project_id)
    same = _made_before(app, newest, preset, backbone, options or {})
    warnings += _about_newest(found, newest)
    if same is not None:
        warnings.append(
            f"“{same.name}” was trained on the same labels with the same settings and seed: this "
            "run would make it again. Change the seed or a setting, or label more."
        )
    if facts is not None:
        warnings += _about_sizes(app, project_id, facts)
        if recipe.is_fine_tuned and (full := _about_disk(app, found, facts, recipe)):
            problems.append(full)
    estimate = None
    if facts is not None and not problems:
        estimate = _estimate(app, found, newest, facts, backbone, recipe)
        warnings += _about_cost(recipe)
    return Preflight(problems, list(dict.fromkeys(warnings)), same, estimate)


def _about_settings(recipe: Recipe) -> list[str]:
    said = []
    try:
        check_wish(recipe.device)
    except InvalidInputError as error:
        said.append(str(error))
    if recipe.is_fine_tuned and recipe.batch_size == 1:
        said.append(
            "A batch of one image cannot be normalised over the batch, so the network would not "
            "learn. Use a batch size of 2 or more; 0 finds one."
        )
    return said


def _about_folds(found: Readiness, recipe: Recipe) -> list[str]:
    few = [(c.name, n) for c, n in found.per_class if 0 < n < recipe.n_folds]
    said = []
    if few:
        names = ", ".join(f"{name} ({n})" for name, n in few)
        said.append(
            f"Fewer images than the {recipe.n_folds} folds: {names}. Some folds hold none of them, "
            "so the score of such a class rests on a few images."
        )
    by_group = recipe.scheme in ("", BY_GROUP) and found.n_groups > 1
    if by_group and found.n_groups < recipe.n_folds:
        said.append(
            f"The images come from {found.n_groups} groups, fewer than the {recipe.n_folds} folds: "
            f"there will be {found.n_groups} folds at most."
        )
    return said


def _about_newest(found: Readiness, models: Sequence[ModelView]) -> list[str]:
    if not models:
        return []
    newest = models[0]
    added = [c.name for c, n in found.per_class if n and c.id not in newest.class_ids]
    said = []
    if added:
        said.append(
            f"New since “{newest.name}”: {', '.join(added)}. Its score and that of the new model "
            "are of different classes and cannot be compared as they stand."
        )
    return said + list(newest.told)


def _made_before(
    app: App,
    models: Sequence[ModelView],
    preset: str,
    backbone: str,
    options: Mapping[str, Any],
) -> ModelView | None:
    wanted = {"preset": preset, "backbone": backbone, "options": dict(options)}
    for model in models:
        asked = {
            "preset": model.preset,
            "backbone": model.backbone,
            "options": model.settings.get("options", {}),
        }
        if same_request(asked, wanted):
            changed = labels_changed_since(app.store, model_id=model.id, sample=0).total
            if changed or _rule_changed(app, model) or ties_changed(app.store, model=model):
                return None
            return model
    return None


def _rule_changed(app: App, model: ModelView) -> bool:
    kept = model.settings.get("reading")
    return (
        kept is not None and kept != reading_rule(app.store, project_id=model.project_id).as_json()
    )


def _about_sizes(app: App, project_id: int, facts: BackboneFacts) -> list[str]:
    small = or_(Image.width < facts.min_size, Image.height < facts.min_size)
    with app.store.reading() as session:
        row = session.execute(
            select(func.count(), func.min(Image.width), func.min(Image.height)).where(
                Image.project_id == project_id,
                Image.status == "ok",
                Image.current_state == "label",
                small,
            )
        ).one()
    if not row[0]:
        return []
    return [
        f"{row[0]} labelled images are smaller than the {facts.min_size} px that {facts.title} "
        f"reads at least (down to {row[1]} x {row[2]} px). They are enlarged, which adds no detail."
    ]


def _about_disk(app: App, found: Readiness, facts: BackboneFacts, recipe: Recipe) -> str | None:
    size = recipe.image_size or facts.input_size or USUAL_SIZE
    need = found.n_labelled * size * size * 3 + 12 * facts.megabytes * 1_000_000 + SPARE
    free = shutil.disk_usage(app.store.root).free
    if free >= need:
        return None
    return (
        f"The run needs about {need / 1e9:.1f} GB on the disk of the data folder, and "
        f"{free / 1e9:.1f} GB are free. Make room, or choose a smaller image size."
    )


def _about_cost(recipe: Recipe) -> list[str]:
    if not recipe.is_fine_tuned or recipe.evaluate != "folds":
        return []
    return [
        f"Scored by folds: {recipe.n_folds + 1} networks are trained, {recipe.n_folds} to score "
        f"every image and one to keep. evaluate=holdout takes about a "
        f"{_ordinal(recipe.n_folds + 1)} of the time."
    ]


def _estimate(
    app: App,
    found: Readiness,
    models: Sequence[ModelView],
    facts: BackboneFacts,
    backbone: str,
    recipe: Recipe,
) -> Estimate:
    n = found.n_labelled
    if not recipe.is_fine_tuned:
        seconds = HEAD_SECONDS + FEATURES_SECONDS * n
        return Estimate(
            seconds, False, f"About {in_words(seconds)} the first time, then less: features of "
            "images are computed once."
        )  # fmt: skip
    device = _device_name(app, recipe)
    size = recipe.image_size or facts.input_size or USUAL_SIZE
    rate, measured = _rate(models, facts, backbone, device, size)
    learnt = (1 - recipe.validation_share) * n
    share = 1 - 1 / recipe.n_folds
    trained = learnt * share
    if recipe.evaluate == "folds":
        trained = learnt * (recipe.n_folds * share + 1)
    networks = recipe.n_folds + 1 if recipe.evaluate == "folds" else 1
    seconds = START_SECONDS + DECODE_SECONDS * n + recipe.epochs * trained / rate
    seconds += networks * recipe.epochs * EPOCH_SECONDS
    where = "a GPU" if device.startswith("cuda") else "this computer's processor"
    basis = "as fast as the last run on it" if measured else "a rough guess until a run is measured"
    return Estimate(
        seconds, measured, f"At most about {in_words(seconds)} on {where} ({basis}); less when it "
        "stops early."
    )  # fmt: skip


def _rate(
    models: Sequence[ModelView],
    facts: BackboneFacts,
    backbone: str,
    device: str,
    size: int,
) -> tuple[float, bool]:
    """Return training images a second, and whether they were measured here."""
    for model in models:
        found, at = model.metrics.get("images_per_second"), model.metrics.get("image_size")
        same = model.backbone == backbone and str(model.metrics.get("device")) == device
        if same and isinstance(found, int | float) and found > 0 and at:
            return float(found) * _faster(int(at), size), True
    if device.startswith("cuda"):
        return ON_GPU[facts.cost] * _faster(USUAL_SIZE, size), False
    cores = max(os.cpu_count() or 1, 1)
    return ON_CPU[facts.cost] * min(cores / 2, 4) * _faster(USUAL_SIZE, size), False


def _faster(known: int, size: int) -> float:
    """Return how much faster pictures of `size` go than those of the size that was measured.

    By their pixels, but not without end: every batch costs something whatever its size.
    """
    return float(min((known / size) ** 2, MOST_FASTER))


def _device_name(app: App, recipe: Recipe) -> str:
    wish = recipe.device if recipe.device != "auto" else app.settings.device
    if wish != "auto":
        return "cuda:0" if wish == "cuda" else wish
    with app.store.reading() as session:
        told = session.scalar(select(Worker.device).order_by(Worker.heartbeat_at.desc()).limit(1))
    if told and told.startswith("GPU "):
        return f"cuda:{told.split()[1].strip('(')}"
    return "cpu" if told and told.startswith("CPU") else device_meant("auto")


def in_words(seconds: float) -> str:
    """Return a length of time for people."""
    if seconds < 100:
        return f"{max(round(seconds / 10) * 10, 10)} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} minutes"
    return f"{seconds / 3600:.1f} hours"


def _ordinal(n: int) -> str:
    names = {3: "third", 4: "quarter", 5: "fifth", 6: "sixth", 7: "seventh", 8: "eighth",
             9: "ninth", 10: "tenth", 11: "eleventh"}  # fmt: skip
    return names.get(n, f"{n}th part")
