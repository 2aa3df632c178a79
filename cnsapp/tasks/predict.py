"""Apply a model to a folder, a zip or a file, and write the table as it goes."""

from __future__ import annotations

import shutil
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image as Picture

from cnsapp.bootstrap import App
from cnsapp.errors import CnsError, InvalidInputError, UnreadableImageError
from cnsapp.imaging.candidates import Candidate
from cnsapp.imaging.isolated import read_image
from cnsapp.imaging.limits import Limits
from cnsapp.imaging.rule import ReadingRule
from cnsapp.imaging.store import hash_file
from cnsapp.jobs.context import JobContext
from cnsapp.ml.preprocess import Pixels, make_view
from cnsapp.ml.streams import batches, prefetch
from cnsapp.services.import_source import Source, limits_of, opened_source
from cnsapp.services.import_uploads import remove_upload
from cnsapp.services.models import ModelView, get_model
from cnsapp.services.predicting import MAX_THUMBS, result_name, thumb_path
from cnsapp.services.tables import RowWriter, csv_file, safe_cell
from cnsapp.tasks.features import time_left
from cnsapp.tasks.resources import LoadedModel, model_rule, predictor_of

CHUNK = 32
THUMB = 256
SHOWN_FAILURES = 500  # of the unreadable files that a result lists by name
UNSURE = "unsure"  # the decision below the model's threshold


@dataclass
class _Chunk:
    names: list[str] = field(default_factory=list)
    shas: list[str] = field(default_factory=list)
    pictures: list[Pixels] = field(default_factory=list)


@dataclass
class _Reader:
    """Reads files in a second thread while the network runs."""

    app: App
    job_id: int
    size: int
    rule: ReadingRule
    limits: Limits
    failed: list[dict[str, str]] = field(default_factory=list)
    n_read: int = 0

    def chunks(self, candidates: Sequence[Candidate]) -> Iterator[_Chunk]:
        """Yield what can be read at network size; note the rest."""
        for part in batches(candidates, CHUNK):
            chunk = _Chunk()
            for candidate in part:
                self._read(candidate, chunk)
            yield chunk

    def _read(self, candidate: Candidate, chunk: _Chunk) -> None:
        try:
            pixels = read_image(candidate.path, self.rule, self.limits).pixels
            sha256, _ = hash_file(candidate.path)
        except UnreadableImageError as error:
            self.failed.append({"file": candidate.name, "reason": error.what})
            return
        except OSError as error:
            reason = f"The file cannot be read: {error.strerror or error}."
            self.failed.append({"file": candidate.name, "reason": reason})
            return
        if self.n_read < MAX_THUMBS:
            _save_thumb(pixels, thumb_path(self.app, self.job_id, self.n_read))
        self.n_read += 1
        chunk.names.append(candidate.name)
        chunk.shas.append(sha256)
        chunk.pictures.append(make_view(pixels, self.size))


def run(app: App, job: JobContext) -> dict[str, Any]:
    """Predict; return where the table is, how many of each class, and what could not be read."""
    model = get_model(app.store, model_id=int(job.payload["model_id"]))
    path = Path(job.payload["path"])
    roots = job.payload.get("allowed_roots")
    job.progress(0.0, "Loading the model")
    loaded = predictor_of(app, model)
    thumbs = thumb_path(app, job.id, 0).parent
    try:
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
    reader = _Reader(
        app, job.id, loaded.size, model_rule(app, model), limits_of(app),
        failed=[{"file": name, "reason": reason} for name, reason in source.refused],
    )  # fmt: skip
    csv = f"exports/{result_name(job.id)}"
    said: Counter[str] = Counter()
    total, began = len(source.candidates), time.monotonic()
    with csv_file(app.store.path(csv), columns_of(model)) as writer:
        for n, chunk in enumerate(prefetch(reader.chunks(source.candidates), ahead=2), 1):
            job.check_cancelled()
            if chunk.pictures:
                _write(writer, chunk, model, loaded, said)
            done = min(n * CHUNK, total)
            job.progress(done / total, _message(done, total, time.monotonic() - began))
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
    """Return the columns of a table of predictions."""
    head = ["file", "sha256", "predicted", "confidence", "decision", "model_id"]
    return head + [f"p_{name}" for name in model.class_names]


def _write(
    writer: RowWriter, chunk: _Chunk, model: ModelView, loaded: LoadedModel, said: Counter[str]
) -> None:
    with loaded.lock:
        probabilities = loaded.predictor.predict(chunk.pictures)  # (N, K)
    for name, sha256, row in zip(chunk.names, chunk.shas, probabilities, strict=True):
        best = int(np.argmax(row))
        said[model.class_names[best]] += 1
        label = safe_cell(model.class_names[best])
        writer.writerow(
            [
                safe_cell(name),
                sha256,
                label,
                f"{row[best]:.6f}",
                label if row[best] >= loaded.threshold else UNSURE,
                model.id,
                *(f"{p:.6f}" for p in row),
            ]
        )


def _save_thumb(pixels: Pixels, target: Path) -> None:
    image = Picture.fromarray(pixels)
    image.thumbnail((THUMB, THUMB))
    target.parent.mkdir(parents=True, exist_ok=True)
    image.save(target, "JPEG", quality=85)


def _nothing_read(failed: Sequence[dict[str, str]]) -> CnsError:
    first = failed[0]
    return CnsError(
        f"None of the {len(failed)} files could be read; {first['file']}: {first['reason']}",
        "",
        "Choose JPEG, PNG or TIFF images.",
    )


def _message(done: int, total: int, seconds: float) -> str:
    rate = done / max(seconds, 1e-6)
    return f"{done:,} of {total:,} images, {rate:.0f} a second, {time_left(done, total, seconds)}"
