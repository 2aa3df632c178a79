"""What a prediction reads, chunk by chunk, in threads beside the network: files, slides, tiles."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Picture
from sqlalchemy import select

from cnsapp.bootstrap import App
from cnsapp.errors import UnreadableImageError
from cnsapp.imaging import slide_work
from cnsapp.imaging.candidates import Candidate
from cnsapp.imaging.isolated import read_image
from cnsapp.imaging.rule import ReadingRule
from cnsapp.imaging.slide_base import SlideFacts
from cnsapp.imaging.store import hash_file
from cnsapp.imaging.tiling import Tile, TileSettings
from cnsapp.ml.preprocess import Pixels, make_view
from cnsapp.ml.streams import batches
from cnsapp.services.import_source import limits_of
from cnsapp.services.models import ModelView
from cnsapp.services.predicting import MAX_THUMBS, slide_picture, thumb_path
from cnsapp.services.slides import SlideView, plan_slide
from cnsapp.services.slides import thumb_path as slide_thumb
from cnsapp.tasks.reading import read_ahead
from db.models import Image, Prediction

CHUNK = 32
THUMB, SLIDE_SIDE = 256, 2048  # pixels of the longer side

Place = tuple[int, int, int]  # x, y, side in pixels of the slide's finest level
Shown = tuple[Pixels, Picture.Image | None]  # at network size; for the gallery
OutOfFold = tuple[NDArray[np.float32], int | None]  # probabilities (K,), and the fold


@dataclass
class Chunk:
    """Pictures at network size with what the table says of them; `known` needs no network."""

    names: list[str] = field(default_factory=list)
    shas: list[str] = field(default_factory=list)
    pictures: list[Pixels] = field(default_factory=list)
    places: list[Place | None] = field(default_factory=list)
    known: list[OutOfFold | None] = field(default_factory=list)


@dataclass(frozen=True)
class PlannedSlide:
    """A slide whose tiles are to be predicted."""

    name: str
    path: Path
    sha256: str
    facts: SlideFacts
    tiles: list[Tile]


@dataclass
class Reader:
    """Reads in other threads while the network runs, and notes what cannot be read.

    Parameters
    ----------
    size
        Side of the network's input, in pixels.
    rule
        How images were read when the model was trained.
    """

    app: App
    job_id: int
    size: int
    rule: ReadingRule
    failed: list[dict[str, str]] = field(default_factory=list)
    n_read: int = 0

    def files(self, candidates: Sequence[Candidate]) -> Iterator[Chunk]:
        """Yield what can be read of ordinary files."""
        read = read_ahead(self._file, candidates, lambda candidate: candidate.path)
        for part in batches(read, CHUNK):
            chunk = Chunk()
            for candidate, future in part:
                try:
                    sha256, shown = future.result()
                except UnreadableImageError as error:
                    self.failed.append({"file": candidate.name, "reason": error.what})
                except OSError as error:
                    reason = f"The file cannot be read: {error.strerror or error}."
                    self.failed.append({"file": candidate.name, "reason": reason})
                else:
                    self._add(chunk, candidate.name, sha256, shown, None)
            yield chunk

    def plan(self, slides: Sequence[Candidate], settings: TileSettings) -> list[PlannedSlide]:
        """Look at slides, keep their pictures, and return where their tiles are."""
        planned: list[PlannedSlide] = []
        for slide in slides:
            try:
                plan = plan_slide(
                    slide.path, self.rule, limits_of(self.app), settings,
                    self.app.settings.max_slide_tiles,
                )  # fmt: skip
                sha256, _ = hash_file(slide.path)
            except UnreadableImageError as error:
                self.failed.append({"file": slide.name, "reason": str(error)})
                continue
            if not plan.tiles:
                self.failed.append(
                    {"file": slide.name, "reason": "No tissue was found on the slide."}
                )
                continue
            picture = Picture.fromarray(plan.thumbnail)
            picture.thumbnail((SLIDE_SIDE, SLIDE_SIDE))
            _save(picture, slide_picture(self.app, self.job_id, len(planned)))
            planned.append(PlannedSlide(slide.name, slide.path, sha256, plan.facts, plan.tiles))
        return planned

    def slides(self, planned: Sequence[PlannedSlide], settings: TileSettings) -> Iterator[Chunk]:
        """Yield the tiles of slides, cut as an import would cut them."""
        for slide in planned:
            for tiles in batches(slide.tiles, CHUNK // 2):
                chunk = Chunk()
                for tile, pixels in self._tiles(slide, tiles, settings):
                    place = (tile.x, tile.y, tile.side)
                    self._add(chunk, slide.name, slide.sha256, self._shown(pixels), place)
                yield chunk

    def stored(self, slide: SlideView, model: ModelView) -> Iterator[Chunk]:
        """Yield the tiles of a slide of the project; learnt ones as they were predicted unseen."""
        tiles = self._stored_tiles(slide, model)
        read = read_ahead(lambda tile: self._pixels(tile[1]), tiles, lambda tile: tile[1])
        for part in batches(read, CHUNK):
            chunk = Chunk()
            for (name, _, place, known), future in part:
                try:
                    shown = future.result()
                except UnreadableImageError as error:
                    self.failed.append({"file": name, "reason": error.what})
                    continue
                self._add(chunk, slide.name, slide.sha256, shown, place)
                chunk.known[-1] = known
            yield chunk

    def keep_picture(self, slide: SlideView) -> None:
        """Keep a copy of a project's slide picture with this prediction."""
        source = slide_thumb(self.app.store.root, slide.sha256)
        if source.is_file():
            target = slide_picture(self.app, self.job_id, 0)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(source.read_bytes())

    def _stored_tiles(
        self, slide: SlideView, model: ModelView
    ) -> list[tuple[str, Path, Place, OutOfFold | None]]:
        with self.app.store.reading() as session:
            rows = session.execute(
                select(Image, Prediction.probabilities, Prediction.fold)
                .outerjoin(
                    Prediction,
                    (Prediction.image_id == Image.id)
                    & (Prediction.model_id == model.id)
                    & (Prediction.part == "fold"),
                )
                .where(Image.slide_id == slide.id, Image.status == "ok")
                .order_by(Image.tile_y, Image.tile_x, Image.id)
            )
            return [
                (
                    image.file_name,
                    self.app.store.path(image.stored_path),
                    (image.tile_x or 0, image.tile_y or 0, image.tile_side or 1),
                    None if probabilities is None else (np.array(probabilities, np.float32), fold),
                )
                for image, probabilities, fold in rows
            ]

    def _tiles(
        self, slide: PlannedSlide, tiles: Sequence[Tile], settings: TileSettings
    ) -> Iterator[tuple[Tile, Pixels]]:
        for part in (tiles, *([tile] for tile in tiles)):
            places = [(tile.x, tile.y, tile.side) for tile in part]
            try:
                pixels = slide_work.cut(
                    slide.path, self.rule, limits_of(self.app), places, settings.tile_px
                )
            except UnreadableImageError as error:  # one of them is damaged: then one by one
                if len(part) == 1:
                    where = f"{slide.name} at x {part[0].x}, y {part[0].y}"
                    self.failed.append({"file": where, "reason": error.what})
                continue
            yield from zip(part, pixels, strict=True)
            if part is tiles:
                return

    def _file(self, candidate: Candidate) -> tuple[str, Shown]:
        shown = self._pixels(candidate.path)
        return hash_file(candidate.path)[0], shown

    def _pixels(self, path: Path) -> Shown:
        return self._shown(read_image(path, self.rule, limits_of(self.app)).pixels)

    def _shown(self, pixels: Pixels) -> Shown:
        """Return a picture as the network and the gallery take it; asked from several threads."""
        small = None
        if self.n_read < MAX_THUMBS:  # a few too many are made, none too few
            small = Picture.fromarray(pixels)
            small.thumbnail((THUMB, THUMB))
        return make_view(pixels, self.size), small

    def _add(self, chunk: Chunk, name: str, sha256: str, shown: Shown, place: Place | None) -> None:
        picture, small = shown
        if small is not None and self.n_read < MAX_THUMBS:
            _save(small, thumb_path(self.app, self.job_id, self.n_read))
        self.n_read += 1
        chunk.names.append(name)
        chunk.shas.append(sha256)
        chunk.pictures.append(picture)
        chunk.places.append(place)
        chunk.known.append(None)


def _save(image: Picture.Image, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    image.save(target, "JPEG", quality=85)
