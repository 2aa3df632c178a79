"""Make saliency maps and check them: of one image, of a file, or of many images in one job."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from cnsapp.bootstrap import App
from cnsapp.domain.maps import DEFAULT_METHOD
from cnsapp.errors import CnsError
from cnsapp.jobs.context import JobContext, as_json
from cnsapp.ml.faithfulness import chance_on, measure
from cnsapp.ml.preprocess import Pixels, make_view
from cnsapp.ml.saliency import Saliency, explain
from cnsapp.ml.saliency_randomised import compare_with_random
from cnsapp.services.explaining import is_checked, sample_images
from cnsapp.services.images import get_image, image_path
from cnsapp.services.import_source import limits_of
from cnsapp.services.map_files import (
    picture_path,
    read_facts,
    read_randomisation,
    write_facts,
    write_look,
    write_randomisation,
    writing,
)
from cnsapp.services.map_room import note_made
from cnsapp.services.models import ModelView, get_model
from cnsapp.tasks.explain_facts import facts_of, look_of
from cnsapp.tasks.maps import as_levels, display_size, in_colour, over, save_whole
from cnsapp.tasks.resources import LoadedModel, model_rule, predictor_of, read_pixels

SHOWN_FAILURES = 100  # images that a result lists by name


@dataclass
class _Maker:
    """A loaded model that makes maps of one image after another."""

    app: App
    job: JobContext
    model: ModelView
    loaded: LoadedModel

    def pixels(self, path: Path) -> Pixels:
        """Return the pixels of an original, as the model was trained to see them."""
        return read_pixels(path, model_rule(self.app, self.model), limits_of(self.app))

    def view(self, pixels: Pixels) -> Pixels:
        """Return them at the size of the network's input."""
        return make_view(pixels, self.loaded.size)

    def draw(
        self, pixels: Pixels, method: str, target: int | None, settings: Mapping[str, Any]
    ) -> tuple[Saliency, dict[str, Any]]:
        """Make one map; return it with its facts."""
        view = self.view(pixels)
        with self.loaded.lock, stopping(self.loaded.predictor.net, self.job):
            probabilities = self.loaded.predictor.predict([view])[0]
            index = (
                int(probabilities.argmax())
                if target is None
                else self.model.class_ids.index(target)
            )
            saliency = explain(self.loaded.predictor, view, index, method, settings)
        facts = facts_of(self.model, self.loaded.predictor, saliency, probabilities)
        height, width = pixels.shape[:2]
        return saliency, as_json(facts | {"width": width, "height": height})

    def keep(self, key: str, pixels: Pixels, made: Saliency, facts: dict[str, Any]) -> None:
        """Write a map's pictures, and then its facts: they say that it is ready."""
        store, size = self.app.store, display_size(pixels.shape[1], pixels.shape[0])
        levels = as_levels(made.map, size, made.sign)
        with writing:
            save_whole(levels, picture_path(store, key, "levels"))
            save_whole(in_colour(levels, made.sign), picture_path(store, key))
            write_facts(store, key, facts)
        note_made(self.app, key)
        write_look(store, self.model.sha256, look_of(self.loaded.predictor))

    def faithfulness(self, pixels: Pixels, facts: Mapping[str, Any]) -> dict[str, Any]:
        """Hold a map against chance, by putting its cells in and taking them away."""
        target, view = int(facts["target_index"]), self.view(pixels)
        ranking, stopping = np.asarray(facts["ranking"]), self.job.is_stopping
        with self.loaded.lock:
            model = self.loaded.predictor
            chance = chance_on(model, view, target, ranking, cancelled=stopping)
            found = measure(
                model, view, target, ranking, chance,
                is_empty=bool(facts.get("empty")), cancelled=stopping,
            )  # fmt: skip
        return dict(as_json(found.as_json()))

    def randomisation(self, pixels: Pixels, method: str) -> dict[str, Any]:
        """Compare the model's maps with those of random weights, once for model and method."""
        known = read_randomisation(self.app.store, self.model.sha256, method)
        if known is not None:
            return known
        views = []
        for image_id in sample_images(self.app.store, model_id=self.model.id):
            try:
                rule = model_rule(self.app, self.model)
                path = image_path(self.app.store, image_id=image_id)
                views.append(self.view(read_pixels(path, rule, limits_of(self.app))))
            except CnsError:  # another image will do
                continue
        with self.loaded.lock:
            found = compare_with_random(
                self.loaded.predictor, views or [self.view(pixels)], method,
                check_cancelled=self.job.check_cancelled,
            )  # fmt: skip
        noted = dict(as_json(found.as_json()))
        write_randomisation(self.app.store, self.model.sha256, method, noted)
        return noted

    def check(self, key: str, pixels: Pixels, facts: dict[str, Any]) -> dict[str, Any]:
        """Measure what is not known yet of a map that is kept; return its facts."""
        if facts.get("faithfulness") is None:
            facts = facts | {"faithfulness": self.faithfulness(pixels, facts)}
            write_facts(self.app.store, key, facts)
        return facts | {"randomisation": self.randomisation(pixels, str(facts["method"]))}


def run(app: App, job: JobContext) -> dict[str, Any]:
    """Draw one map; return its key, or for a file of its own where the overlay lies."""
    payload, key = job.payload, job.payload.get("key")
    method, checks = str(payload.get("method", DEFAULT_METHOD)), bool(payload.get("checks"))
    target = payload.get("target_class")
    facts = None if key is None else read_facts(app.store, str(key))
    if facts is not None and (not checks or is_checked(facts)):
        return {"key": key, "facts": facts}
    job.progress(0.1, "Loading the model")
    maker = _maker(app, job)
    if "path" in payload:
        pixels = maker.pixels(Path(payload["path"]))
    else:
        pixels = maker.pixels(image_path(app.store, image_id=int(payload["image_id"])))
    job.progress(0.3, "Looking at the image")
    job.check_cancelled()
    settings = payload.get("settings") or {}
    if key is None:
        return _file(maker, pixels, method, target, settings, checks)
    if facts is None:
        made, facts = maker.draw(pixels, method, target, settings)
        maker.keep(str(key), pixels, made, facts)
    if checks:
        job.progress(0.6, "Checking the map")
        facts = maker.check(str(key), pixels, facts)
    return {"key": key, "facts": facts}


def _file(
    maker: _Maker,
    pixels: Pixels,
    method: str,
    target: int | None,
    settings: Mapping[str, Any],
    checks: bool,
) -> dict[str, Any]:
    """Draw the map of a file over it; nothing is kept but the overlay."""
    made, facts = maker.draw(pixels, method, target, settings)
    if checks:
        maker.job.progress(0.6, "Checking the map")
        facts["faithfulness"] = maker.faithfulness(pixels, facts)
        facts["randomisation"] = maker.randomisation(pixels, method)
    png = f"exports/explain-{maker.job.id}.png"
    save_whole(over(pixels, made.map, made.sign), maker.app.store.path(png))
    return {"png": png, "facts": facts}


def run_many(app: App, job: JobContext) -> dict[str, Any]:
    """Make the maps that lack, image by image; return how many, and what could not be made."""
    wishes, by_image = job.payload["maps"], dict[int, list[list[Any]]]()
    for wish in wishes:
        by_image.setdefault(int(wish[0]), []).append(wish)
    job.progress(0.0, "Loading the model")
    maker = _maker(app, job)
    n_made, n_done, failed = 0, 0, list[dict[str, Any]]()
    for image_id, mine in by_image.items():
        try:
            n_made += _image(maker, image_id, mine, n_done, len(wishes))
        except CnsError as error:
            name = _name(app, image_id)
            failed.append({"image_id": image_id, "file": name, "reason": str(error)})
            if len(failed) == len(by_image):
                raise
        n_done += len(mine)
        job.progress(n_done / len(wishes), f"{n_done} of {len(wishes)} maps")
    return {
        "n": len(wishes),
        "n_made": n_made,
        "n_failed": len(failed),
        "failed": failed[:SHOWN_FAILURES],
        "model_id": maker.model.id,
    }


def _image(maker: _Maker, image_id: int, wishes: list[list[Any]], n_done: int, n_all: int) -> int:
    """Make and check the maps of one image that lack; return how many were drawn."""
    checks, pixels, n_made = bool(maker.job.payload.get("checks")), None, 0
    for at, (_, method, target, key) in enumerate(wishes):
        maker.job.check_cancelled()
        facts = read_facts(maker.app.store, key)
        if facts is not None and (not checks or is_checked(facts)):
            continue
        if pixels is None:
            pixels = maker.pixels(image_path(maker.app.store, image_id=image_id))
        if facts is None:
            settings = maker.job.payload["settings"].get(method, {})
            made, facts = maker.draw(pixels, method, target, settings)
            maker.keep(key, pixels, made, facts)
            n_made += 1
        if checks:
            maker.check(key, pixels, facts)
        done = n_done + at + 1
        maker.job.progress(done / n_all, f"{done} of {n_all} maps")
    return n_made


@contextmanager
def stopping(net: nn.Module, job: JobContext) -> Iterator[None]:
    """Look before every pass of a network whether the job was stopped: a map may take minutes."""
    hook = net.register_forward_pre_hook(lambda *_: job.check_cancelled())
    try:
        yield
    finally:
        hook.remove()


def _maker(app: App, job: JobContext) -> _Maker:
    model = get_model(app.store, model_id=int(job.payload["model_id"]))
    return _Maker(app, job, model, predictor_of(app, model))


def _name(app: App, image_id: int) -> str:
    try:
        return get_image(app.store, image_id=image_id).name
    except CnsError:
        return f"image {image_id}"
