"""What a lab does with its models: promote, archive, name, note, make one again from its record.

Nothing is deleted: an archived model keeps its file and figures, and its number still finds it.
"""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from cnsapp.bootstrap import App
from cnsapp.domain.names import clean_name
from cnsapp.domain.recipe import DIALS
from cnsapp.errors import InvalidInputError, NotFoundError
from cnsapp.services.models import (
    ModelView,
    current_id,
    get_model,
    labels_changed_since,
)
from cnsapp.services.reading import read_otherwise
from cnsapp.services.ties import ties_changed
from cnsapp.services.training import start_training
from db.models import Model
from db.session import Store
from db.types import utc_now

MOST_NAME, MOST_NOTE = 200, 4000  # characters
PACKAGES = ("torch", "torchvision", "timm", "numpy", "pillow")


def rename_model(store: Store, *, model_id: int, name: str) -> ModelView:
    """Give a model another name."""
    shown = clean_name(name)
    if not shown or len(shown) > MOST_NAME:
        raise InvalidInputError(
            f"The model name is empty or longer than {MOST_NAME} characters.",
            "",
            "Give it another name.",
        )
    _set(store, model_id, name=shown)
    return get_model(store, model_id=model_id)


def note_model(store: Store, *, model_id: int, note: str) -> ModelView:
    """Keep a note with a model; an empty one takes it away."""
    text = note.strip()
    if len(text) > MOST_NOTE:
        raise InvalidInputError(
            f"The note has {len(text):,} characters.", "", f"Keep it to {MOST_NOTE:,}."
        )
    _set(store, model_id, note=text)
    return get_model(store, model_id=model_id)


def promote_model(store: Store, *, model_id: int) -> ModelView:
    """Make a model the current one: what is used where none is named.

    Raises
    ------
    InvalidInputError
        It is archived.
    """
    model = get_model(store, model_id=model_id)
    if model.archived:
        raise InvalidInputError(
            f"“{model.name}” is archived.",
            "The current model is what Predict, Review and Explain begin with.",
            "Take it out of the archive first.",
        )
    _set(store, model_id, promoted_at=utc_now())
    return get_model(store, model_id=model_id)


def archive_model(store: Store, *, model_id: int) -> ModelView:
    """Put a model aside: it is no longer offered, but its file, figures and number stay.

    Raises
    ------
    InvalidInputError
        It is the current model.
    """
    name = get_model(store, model_id=model_id).name
    with store.writing() as session:  # two people at once: whoever comes second sees the first
        row = session.get_one(Model, model_id, with_for_update=True)
        if current_id(session, row.project_id) == model_id:
            raise InvalidInputError(
                f"“{name}” is the current model.",
                "Predict, Review and Explain begin with it.",
                "Promote another model first, then archive this one.",
            )
        row.archived = True
    return get_model(store, model_id=model_id)


def restore_model(store: Store, *, model_id: int) -> ModelView:
    """Take a model out of the archive."""
    _set(store, model_id, archived=False)
    return get_model(store, model_id=model_id)


def rerun_options(model: ModelView) -> dict[str, Any]:
    """Return the settings of a model's run in full, so that new defaults do not change it."""
    recorded = model.settings.get("recipe")
    found = dict(recorded) if isinstance(recorded, dict) else {}
    found |= dict(model.settings.get("options") or {})
    known = {dial.name for dial in DIALS if model.preset in dial.presets}
    found = {k: v for k, v in found.items() if k in known and v not in ("", None)}
    if not found.get("batch_size") and (size := _batch_on_gpu(model)):
        found["batch_size"] = size
    return {"seed": model.seed, **found, "name": f"{model.name[:180]} (again)"}


def _batch_on_gpu(model: ModelView) -> int | None:
    """Return how many images a step took on a GPU, where what was free there decided."""
    networks = model.metrics.get("networks") or []
    if not networks or not str(model.metrics.get("device")).startswith("cuda"):
        return None
    epochs = networks[-1].get("epochs") or [{}]
    size = epochs[0].get("batch_size")
    return int(size) if size else None


def differs_today(app: App, *, model_id: int) -> list[str]:
    """Return in sentences what a run from a model's record would meet otherwise than it did."""
    model = get_model(app.store, model_id=model_id)
    said = []
    changes = labels_changed_since(app.store, model_id=model_id)
    if changes.total:
        parts = [
            f"{n:,} {word}"
            for n, word in (
                (changes.n_changed, "changed"),
                (changes.n_new, "new"),
                (changes.n_removed, "removed"),
            )
            if n
        ]
        said.append(f"Labels since then: {', '.join(parts)}.")
    if ties_changed(app.store, model=model):
        said.append(
            "Groups, near-duplicates or the split have changed, so images are divided anew."
        )
    if other := read_otherwise(app.store, model=model):
        said.append(f"Images are read otherwise now: {'; '.join(other)}.")
    then = model.settings.get("versions") or {}
    now = _versions_now()
    moved = [
        f"{name} {then[name]} then, {now[name]} now"
        for name in now
        if name in then and str(then[name]) != now[name]
    ]
    if moved:
        said.append(f"Versions: {', '.join(moved)}.")
    return said


def rerun_model(app: App, *, model_id: int, requested_by: str = "") -> int:
    """Queue a training run with the recipe, backbone and seed of a model; return its job number.

    The new model says what it is a rerun of. What is different today: `differs_today`.

    Raises
    ------
    InvalidInputError
        The labels do not suffice any more, or a run of this project is under way.
    """
    model = get_model(app.store, model_id=model_id)
    return start_training(
        app,
        project_id=model.project_id,
        preset=model.preset,
        backbone=model.backbone,
        options=rerun_options(model),
        requested_by=requested_by,
        rerun_of=model.id,
    )


def _versions_now() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _set(store: Store, model_id: int, **values: Any) -> None:
    with store.writing() as session:
        row = session.get(Model, model_id)
        if row is None or not row.ready:
            raise NotFoundError(
                f"There is no model number {model_id}.", "", "List them with `models`."
            )
        for name, value in values.items():
            setattr(row, name, value)
