"""Make the saliency map of one image: from the model that predicts, kept for the next look."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cnsapp.bootstrap import App
from cnsapp.jobs.context import JobContext, as_json
from cnsapp.ml.preprocess import Pixels, make_view
from cnsapp.ml.saliency import Saliency, grad_cam, integrated_gradients
from cnsapp.services.explaining import read_facts
from cnsapp.services.images import image_path
from cnsapp.services.import_source import limits_of
from cnsapp.services.models import ModelView, get_model
from cnsapp.tasks.maps import as_rgba, display_size, over, save_whole
from cnsapp.tasks.resources import model_rule, predictor_of, read_pixels

METHODS = {"gradcam": grad_cam, "integrated_gradients": integrated_gradients}
NO_EVIDENCE = (
    "No place in this image speaks for {name}: the map is empty. The model decided by what speaks "
    "against the other classes, or it is unsure."
)


@dataclass(frozen=True)
class _Explained:
    pixels: Pixels
    saliency: Saliency
    facts: dict[str, Any]


def run(app: App, job: JobContext) -> dict[str, Any]:
    """Draw one map; return its key, or for a file of its own where the overlay lies."""
    payload = job.payload
    model = get_model(app.store, model_id=int(payload["model_id"]))
    key = payload.get("key")
    if key is not None:
        made = read_facts(app.store, str(key))
        if made is not None:
            return {"key": key, "facts": made}
    job.progress(0.1, "Loading the model")
    path = (
        Path(payload["path"])
        if "path" in payload
        else image_path(app.store, image_id=int(payload["image_id"]))
    )
    done = _explain(app, job, model, path)
    if key is None:
        png = f"exports/explain-{job.id}.png"
        save_whole(over(done.pixels, done.saliency.map), app.store.path(png))
        return {"png": png, "facts": done.facts}
    height, width = done.pixels.shape[:2]
    shown = as_rgba(done.saliency.map, display_size(width, height))
    save_whole(shown, app.store.path("saliency", f"{key}.png"))
    _write_whole(app.store.path("saliency", f"{key}.json"), done.facts)  # last: it says "ready"
    return {"key": key, "facts": done.facts}


def _explain(app: App, job: JobContext, model: ModelView, path: Path) -> _Explained:
    method, target = str(job.payload.get("method", "gradcam")), job.payload.get("target_class")
    loaded = predictor_of(app, model)
    pixels = read_pixels(path, model_rule(app, model), limits_of(app))
    view = make_view(pixels, loaded.size)
    job.progress(0.5, "Looking at the image")
    job.check_cancelled()
    with loaded.lock:
        probabilities = loaded.predictor.predict([view])[0]
        predicted = int(probabilities.argmax())
        index = predicted if target is None else model.class_ids.index(int(target))
        saliency = METHODS[method](loaded.predictor, view, index)
    name = model.class_names[index]
    facts = {
        "model_id": model.id,
        "class_id": model.class_ids[index],
        "class": name,
        "probability": float(probabilities[index]),
        "predicted_class_id": model.class_ids[predicted],
        "predicted": model.class_names[predicted],
        "probabilities": [float(p) for p in probabilities],
        "class_ids": model.class_ids,
        "method": method,
        "layer": saliency.layer,
        "delta": saliency.delta,
        "note": "" if saliency.has_positive else NO_EVIDENCE.format(name=name),
        "width": pixels.shape[1],
        "height": pixels.shape[0],
    }
    return _Explained(pixels, saliency, as_json(facts))


def _write_whole(target: Path, facts: dict[str, Any]) -> None:
    partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
    partial.write_text(json.dumps(facts, ensure_ascii=False), encoding="utf-8")
    os.replace(partial, target)
