"""What a model looks at in a class: maps of its typical images, and what they have in common."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np
from PIL import Image as Picture
from sqlalchemy import select

from cnsapp.bootstrap import App
from cnsapp.domain.average_maps import SIDE, AverageMap, average_map
from cnsapp.domain.map_methods import DEFAULT_METHOD, SIGNED
from cnsapp.domain.resampling import Floats
from cnsapp.imaging.store import ImageFolder
from cnsapp.jobs.states import ACTIVE
from cnsapp.services.explaining import request_maps
from cnsapp.services.images import ImageItem, items_in_order
from cnsapp.services.jobs import JobView, get_job
from cnsapp.services.kept import Kept
from cnsapp.services.map_choices import checked_settings, reading_of, target_of
from cnsapp.services.map_files import map_key, picture_path, read_facts
from cnsapp.services.models import ModelView, get_model
from cnsapp.services.split_rows import fold
from db.models import Job, Prediction

KIND = "explain_many"
MOST_KEPT = 8
_averages: Kept[AverageMap | None] = Kept(MOST_KEPT)


@dataclass(frozen=True)
class OneMap:
    """An image with its map, where that is there: its key and facts."""

    image: ImageItem
    key: str
    facts: dict[str, Any] | None

    @property
    def is_empty(self) -> bool:
        """Whether nothing speaks for the class in this image."""
        return self.facts is not None and bool(self.facts.get("empty"))


@dataclass(frozen=True)
class ClassMaps:
    """The maps of some images for one class.

    Attributes
    ----------
    maps
        Of every image asked for, in that order.
    job
        What makes those that lack: waiting or running; or how the last one ended, while some lack.
    average
        Of the maps that are there; None while there are none with anything in them.
    are_alike
        Whether all images have one shape: the average is of what was squeezed to a square.
    """

    method: str
    maps: list[OneMap]
    job: JobView | None
    average: AverageMap | None
    are_alike: bool

    @property
    def ready(self) -> list[OneMap]:
        """The maps that are there."""
        return [one for one in self.maps if one.facts is not None]


def class_maps(
    app: App,
    *,
    model_id: int,
    class_id: int,
    image_ids: Sequence[int],
    method: str = DEFAULT_METHOD,
) -> ClassMaps:
    """Return the maps of images for a class, as far as they are there; asks for none.

    Images of the model's locked test set are left out: a map shows the model's answer.

    Raises
    ------
    CnsError
        The method is not valid for the model, or the model does not know the class.
    """
    model = get_model(app.store, model_id=model_id)
    settings, target = checked_settings(app, model, method, None), target_of(model, class_id)
    reading = reading_of(app, model)
    maps = []
    for item in _images(app, model, image_ids):
        key = map_key(model.sha256, item.sha256, method, target, settings, reading)
        maps.append(OneMap(item, key, read_facts(app.store, key)))
    ready = [one for one in maps if one.facts is not None]
    job = None if len(ready) == len(maps) else _job_of(app, model, [one.key for one in maps])
    shapes = {round(one.image.width / max(1, one.image.height), 2) for one in maps}
    return ClassMaps(method, maps, job, _average(app, ready), len(shapes) <= 1)


def make_class_maps(
    app: App,
    *,
    model_id: int,
    class_id: int,
    image_ids: Sequence[int],
    method: str = DEFAULT_METHOD,
    requested_by: str = "",
) -> int | None:
    """Ask for the maps that lack; return the job, also where it waits or runs already.

    Raises
    ------
    CnsError
        As `class_maps`; or the model's file is missing or altered.
    """
    found = class_maps(
        app, model_id=model_id, class_id=class_id, image_ids=image_ids, method=method
    )
    if len(found.ready) == len(found.maps):
        return None
    if found.job is not None and found.job.is_active:
        return found.job.id
    return request_maps(
        app,
        model_id=model_id,
        image_ids=[one.image.id for one in found.maps],
        methods=[method],
        targets=[class_id],
        requested_by=requested_by,
    ).job_id


def average_picture(app: App, images: Sequence[ImageItem]) -> Floats | None:
    """Return the mean (SIDE, SIDE, 3) of the thumbnails, 0 to 255: sharp only where all are alike.

    None where no thumbnail is there.
    """
    folder, found = ImageFolder(app.store.root), []
    for item in images:
        try:
            with Picture.open(folder.thumb_path(item.sha256, item.seen)) as picture:
                small = picture.convert("RGB").resize((SIDE, SIDE), Picture.Resampling.BOX)
                found.append(np.asarray(small, np.float64))
        except OSError:  # not there, or torn: the others tell as well
            continue
    return np.mean(found, 0) if found else None


def as_png(values: Floats, colours: Sequence[str]) -> bytes:
    """Return an average map as a picture: the scale's colours, the last one for its largest value.

    Parameters
    ----------
    values
        (h, w), 0 or more.
    colours
        From nothing to the most, as `#rrggbb`.
    """
    anchors = np.array([[int(c[i : i + 2], 16) for i in (1, 3, 5)] for c in colours], float)
    level = values / max(float(values.max()), 1e-12) * (len(anchors) - 1)
    places = np.arange(len(anchors))
    return picture_png(np.stack([np.interp(level, places, anchors[:, c]) for c in range(3)], 2))


def picture_png(values: Floats) -> bytes:
    """Return colours (h, w, 3), 0 to 255, as a picture."""
    made = Picture.fromarray(values.round().clip(0, 255).astype(np.uint8))
    target = BytesIO()
    made.resize((4 * made.width, 4 * made.height), Picture.Resampling.BICUBIC).save(target, "PNG")
    return target.getvalue()


def _images(app: App, model: ModelView, image_ids: Sequence[int]) -> list[ImageItem]:
    wanted = list(dict.fromkeys(image_ids))
    with app.store.reading() as session:
        locked = set(
            session.scalars(
                select(Prediction.image_id).where(
                    Prediction.model_id == model.id,
                    Prediction.part == "test",
                    Prediction.image_id.in_(wanted),
                )
            )
        )
        return items_in_order(session, [i for i in wanted if i not in locked])


def _job_of(app: App, model: ModelView, keys: Sequence[str]) -> JobView | None:
    """Return the job that makes these maps, or the last one that was to."""
    wanted = set(keys)
    with app.store.reading() as session:
        rows = session.execute(
            select(Job.id, Job.payload, Job.state)
            .where(Job.project_id == model.project_id, Job.kind == KIND)
            .order_by(Job.state.in_(ACTIVE).desc(), Job.id.desc())
            .limit(50)
        )
        job_id = next(
            (row.id for row in rows if wanted & {wish[3] for wish in row.payload["maps"]}), None
        )
    return None if job_id is None else get_job(app.store, job_id=job_id)


def _average(app: App, ready: Sequence[OneMap]) -> AverageMap | None:
    if not ready:
        return None
    folded: dict[str, str] = {}
    groups = [fold(one.image.group, folded) for one in ready]  # “P07” and “p07” are one
    sign = (str(app.store.root), *zip((one.key for one in ready), groups, strict=True))
    return _averages.get(sign, lambda: average_map([_levels(app, one) for one in ready], groups))


def _levels(app: App, one: OneMap) -> Floats:
    """Return a map's gray levels (SIDE, SIDE) from 0; of a signed map what speaks for the class."""
    if one.is_empty:
        return np.zeros((SIDE, SIDE))
    with Picture.open(picture_path(app.store, one.key, "levels")) as picture:
        small = picture.convert("L").resize((SIDE, SIDE), Picture.Resampling.BOX)
    levels = np.asarray(small, np.float64)
    assert one.facts is not None
    return np.maximum(levels - 128, 0) if one.facts["sign"] == SIGNED else levels
