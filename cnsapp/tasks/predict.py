"""Apply a model to a folder, a zip or a file, and write the table as it goes."""

from __future__ import annotations

import shutil
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cnsapp.bootstrap import App
from cnsapp.errors import CnsError, InvalidInputError
from cnsapp.imaging.sniff import IN_WORDS
from cnsapp.imaging.tiling import TileSettings, slide_um
from cnsapp.jobs.context import JobContext
from cnsapp.ml.streams import prefetch
from cnsapp.services.import_source import Source, opened_source
from cnsapp.services.import_uploads import remove_upload
from cnsapp.services.models import ModelView, get_model
from cnsapp.services.predicting import result_name, thumb_path
from cnsapp.services.slides import get_slide, latest_settings, set_aside
from cnsapp.services.tables import RowWriter, csv_file, safe_cell
from cnsapp.tasks.features import time_left
from cnsapp.tasks.predict_reading import Chunk, Reader
from cnsapp.tasks.resources import LoadedModel, model_rule, predictor_of

SHOWN_FAILURES = 500  # of the unreadable files that a result lists by name
UNSURE = "unsure"  # the decision below the model's threshold
PLACE = ("x", "y", "side")  # of a tile, in pixels of its slide's finest level


def run(app: App, job: JobContext) -> dict[str, Any]:
    """Predict; return where the table is, how many of each class, and what could not be read."""
    model = get_model(app.store, model_id=int(job.payload["model_id"]))
    path = Path(job.payload["path"])
    roots = job.payload.get("allowed_roots")
    job.progress(0.0, "Loading the model")
    loaded = predictor_of(app, model)
    thumbs = thumb_path(app, job.id, 0).parent
    try:
        if job.payload.get("slide_id") is not None:
            return _predict_stored(app, job, model, loaded)
        with opened_source(app, path, None if roots is None else list(map(Path, roots))) as source:
            result = _predict(app, job, model, loaded, source)
    except BaseException:
        shutil.rmtree(thumbs, ignore_errors=True)
        raise
    remove_upload(app, path)
    return result


def _predict(
    app: App, job: JobContext, model: ModelView, loaded: LoadedModel, source: Source
) -> dict[str, Any]:
    if not source.candidates and not source.refused:
        raise InvalidInputError(
            f"There are no images in {source.root}.", "", "Choose a folder with images."
        )
    reader = Reader(
        app, job.id, loaded.size, model_rule(app, model),
        failed=[{"file": name, "reason": reason} for name, reason in source.refused],
    )  # fmt: skip
    slides, rest = set_aside(app, source)
    settings = _tile_settings(app, job, model)
    if slides:
        job.progress(0.0, "Looking for tissue on the slides")
    planned = reader.plan(slides, settings)
    chunks = chain(reader.files(rest.candidates), reader.slides(planned, settings))
    total = len(rest.candidates) + sum(len(slide.tiles) for slide in planned)
    result = _table(app, job, model, loaded, reader, chunks, total, bool(planned))
    if planned:
        result["tiles"] = settings.as_json()
        result["slides"] = [
            {
                "file": slide.name,
                "sha256": slide.sha256,
                "width": slide.facts.width,
                "height": slide.facts.height,
                "um_per_px": slide_um(slide.facts, settings),
                "n": len(slide.tiles),
            }
            for slide in planned
        ]
    return result


def _predict_stored(
    app: App, job: JobContext, model: ModelView, loaded: LoadedModel
) -> dict[str, Any]:
    """Predict the tiles of a slide of the project, labelled ones by the fold that left them out."""
    slide = get_slide(app.store, project_id=model.project_id, slide_id=int(job.payload["slide_id"]))
    reader = Reader(app, job.id, loaded.size, model_rule(app, model))
    reader.keep_picture(slide)
    chunks = reader.stored(slide, model)
    result = _table(app, job, model, loaded, reader, chunks, slide.n_tiles, True, folds=True)
    facts = {
        "file": slide.name,
        "sha256": slide.sha256,
        "width": slide.width,
        "height": slide.height,
        "um_per_px": slide.um_per_px,
        "n": slide.n_tiles,
        "slide_id": slide.id,
    }
    return result | {"slides": [facts], "tiles": slide.settings.as_json()}


def _tile_settings(app: App, job: JobContext, model: ModelView) -> TileSettings:
    """Return how slides are cut: as asked, else as the project's own slides were."""
    if job.payload.get("tiles") is not None:
        return TileSettings.from_json(job.payload["tiles"])
    return latest_settings(app.store, project_id=model.project_id)


def _table(
    app: App,
    job: JobContext,
    model: ModelView,
    loaded: LoadedModel,
    reader: Reader,
    chunks: Iterable[Chunk],
    total: int,
    places: bool,
    folds: bool = False,
) -> dict[str, Any]:
    """Write the table as the chunks come; return the result without its slides."""
    csv = f"exports/{result_name(job.id)}"
    said: Counter[str] = Counter()
    done, began = 0, time.monotonic()
    columns = columns_of(model) + (list(PLACE) if places else []) + (["fold"] if folds else [])
    with csv_file(app.store.path(csv), columns) as writer:
        for chunk in prefetch(chunks, ahead=2):
            job.check_cancelled()
            if chunk.pictures:
                _write(writer, chunk, model, loaded, said, places, folds)
            done = min(done + len(chunk.pictures), total)
            job.progress(done / max(total, 1), _message(done, total, time.monotonic() - began))
        if not said:
            raise _nothing_read(reader.failed)
    return {
        "csv": csv,
        "n": said.total(),
        "model_id": model.id,
        "counts": dict(said),
        "n_failed": len(reader.failed),
        "failed": reader.failed[:SHOWN_FAILURES],
    }


def columns_of(model: ModelView) -> list[str]:
    """Return the columns of a table of predictions; those of tiles have their places behind."""
    head = ["file", "sha256", "predicted", "confidence", "decision", "model_id"]
    return head + [f"p_{output.name}" for output in model.outputs]


def _write(
    writer: RowWriter,
    chunk: Chunk,
    model: ModelView,
    loaded: LoadedModel,
    said: Counter[str],
    places: bool,
    folds: bool,
) -> None:
    with loaded.lock:
        probabilities = loaded.predictor.predict(chunk.pictures)  # (N, K)
    rows = zip(chunk.names, chunk.shas, probabilities, chunk.places, chunk.known, strict=True)
    for name, sha256, now, place, known in rows:
        row = _today(np.asarray(now if known is None else known[0]), model)
        best = int(np.argmax(row))
        said[model.outputs[best].name] += 1
        label = safe_cell(model.outputs[best].name)
        cells = [
            safe_cell(name),
            sha256,
            label,
            f"{row[best]:.6f}",
            label if row[best] >= loaded.threshold else UNSURE,
            model.id,
            *(f"{p:.6f}" for p in row),
        ]
        if places:
            cells += list(place or ("", "", ""))
        if folds:
            cells.append("" if known is None or known[1] is None else known[1])
        writer.writerow(cells)


def _today(probabilities: NDArray[np.floating], model: ModelView) -> NDArray[np.floating]:
    """Return the probabilities of the classes as they count today: those of merged ones add up."""
    if len(model.outputs) == len(model.class_ids):
        return probabilities
    return np.array([probabilities[list(output.places)].sum() for output in model.outputs])


def _nothing_read(failed: Sequence[dict[str, str]]) -> CnsError:
    first = failed[0]
    if len(failed) == 1:
        what = f"{first['file']} could not be read: {first['reason']}"
    else:
        what = (
            f"None of the {len(failed):,} files could be read. "
            f"The first, {first['file']}: {first['reason']}"
        )
    slides = ".svs, .ndpi, .mrxs, .scn, .bif, pyramidal TIFF and OME-TIFF"
    return CnsError(what, "", f"What is read: {IN_WORDS}, and whole slides ({slides}).")


def _message(done: int, total: int, seconds: float) -> str:
    rate = done / max(seconds, 1e-6)
    return f"{done:,} of {total:,} images, {rate:.0f} a second, {time_left(done, total, seconds)}"
