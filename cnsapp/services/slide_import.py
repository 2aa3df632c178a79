"""Cut whole slides into tiles that are images like any others; again and it goes on, or is done."""

from __future__ import annotations

import hashlib
import io
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from PIL import Image as Picture

from cnsapp.errors import Cancelled, InvalidInputError, UnreadableImageError
from cnsapp.imaging import slide_work
from cnsapp.imaging.candidates import Candidate
from cnsapp.imaging.journal import Journal
from cnsapp.imaging.slide_base import Pixels
from cnsapp.imaging.store import PART, hash_file, own_name
from cnsapp.imaging.thumbs import make_thumbs
from cnsapp.imaging.tiling import Tile, TileSettings
from cnsapp.imaging.window import WindowMissingError
from cnsapp.services.class_rows import check_class_name
from cnsapp.services.import_report import Skipped
from cnsapp.services.import_rows import known_bytes
from cnsapp.services.import_work import ImportWork
from cnsapp.services.slide_rows import Made, SlideRows, find_slide, place_of
from cnsapp.services.slides import (
    Plan,
    latest_settings,
    measured_rule,
    plan_slide,
    thumb_path,
)
from db.models import Slide
from db.queries import chunks

A_CALL = 16  # tiles asked of the other process at once: 12 MB at 512 px
BIG_CALL = 4_000_000  # pixels at once, where tiles are larger
CHUNK = 64  # tiles a transaction
PACKING = 3  # on stained tissue as small as 6, in half the time
MOST_BROKEN = 10  # tiles that cannot be read before the slide is given up

Progress = Callable[[float, int, str], None]


def cut_slides(
    work: ImportWork,
    slides: Sequence[Candidate],
    settings: TileSettings | None,
    *,
    progress: Progress,
    check_cancelled: Callable[[], None],
    dry_run: bool = False,
) -> None:
    """Cut slides into tiles, and add what came of it to the import's report.

    A slide is one found file: imported when tiles of it are new, a duplicate when all were there.
    Without `settings` a slide is cut as it was before, a new one as the project's newest was. With
    `dry_run` nothing is stored.

    Raises
    ------
    InvalidInputError
        The settings cannot be used.
    Cancelled
        `check_cancelled` raised it; the tiles until then are kept, and the same import goes on.
    """
    settings = settings.checked() if settings is not None else None
    report = work.report
    report.found += len(slides)
    before, total = report.found - len(slides), report.found
    journal = Journal(work.folder)
    try:
        for n, slide in enumerate(slides):
            check_cancelled()
            cut = _Cut(work, slide, settings, journal, dry_run)
            try:
                new = cut.run(
                    lambda share, text, n=n: progress(before + n + share, total, text),  # type: ignore[misc]
                    check_cancelled,
                )
            except (UnreadableImageError, InvalidInputError) as error:
                report.skipped.append(Skipped(slide.name, str(error)))
                report.tiles += cut.n_new + cut.n_earlier
                continue
            report.slides += 1
            report.tiles += new
            report.imported += new > 0
            report.duplicates += new == 0
    except Cancelled as error:
        report.stopped = True
        report.notes.append(
            f"Stopped while slides were cut: {report.slides} of {len(slides)} are done. The tiles "
            "until then are kept; the same import again goes on from there."
        )
        raise Cancelled(report.as_json()) from error
    finally:
        journal.close(lambda shas: known_bytes(work.app.store, shas))


def beside(progress: Progress, n_slides: int) -> Progress:
    """Return a progress of the other files of an import that counts its slides too."""
    return lambda done, total, name: progress(done, total + n_slides if total else 0, name)


class _Cut:
    """One slide being cut."""

    def __init__(
        self,
        work: ImportWork,
        slide: Candidate,
        asked: TileSettings | None,
        journal: Journal,
        dry_run: bool,
    ) -> None:
        self.work, self.slide, self.asked = work, slide, asked
        self.journal, self.dry_run = journal, dry_run
        self.broken: list[str] = []
        self.n_new = self.n_earlier = 0

    def run(
        self, progress: Callable[[float, str], None], check_cancelled: Callable[[], None]
    ) -> int:
        """Cut what is not cut yet; return how many tiles are new since the import began."""
        name = self.slide.name
        progress(0.0, name)
        sha256, n_bytes = hash_file(self.slide.path)
        row = find_slide(self.work, sha256)
        self.settings = self._settings(row)
        self.rows = SlideRows(self.work, self.slide, self.settings)
        self.n_earlier = self.rows.n_earlier(row.id) if row is not None else 0
        label = self.work.plan.label_of(self.slide, sha256)
        if label is not None:
            check_class_name(label)
        if row is not None and self.rows.is_done(row):
            if not self.dry_run:
                self.rows.use_label(label)
                self.rows.label_tiles(row.id)
            return self.n_earlier
        plan = self._plan()
        if not plan.tiles:
            raise UnreadableImageError(
                "No tissue was found on the slide"
                + (f" in tiles with {self.settings.min_tissue:.0%} of it." if plan.tissue.any()
                   else "."),
                "",
                "Lower the least tissue share if there is some.",
            )  # fmt: skip
        if self.dry_run:
            there = self.rows.there(row.id, plan) if row is not None else {}
            return len(plan.tiles) - len(there)
        self.rows.use_label(label)
        slide_id = self.rows.remember(row, sha256, n_bytes, plan)
        self._save_picture(sha256, plan.thumbnail)
        there = self.rows.there(slide_id, plan)
        todo = [tile for tile in plan.tiles if place_of(tile) not in there]
        n_before = len(plan.tiles) - len(todo)
        made: list[Made] = []
        try:
            for part in self._made(todo):
                check_cancelled()
                made += part
                self.n_new += len(part)
                done = n_before + self.n_new
                progress(done / len(plan.tiles), f"{name}, tile {done:,} of {len(plan.tiles):,}")
                if len(made) >= CHUNK:
                    self.rows.store_tiles(slide_id, plan, made)
                    made = []
        except UnreadableImageError as error:
            raise self._given_up(error.what) from error
        finally:  # also when it was cancelled or the disk is full: what is finished is kept
            if made:
                self.rows.store_tiles(slide_id, plan, made)
            self.rows.forget_if_empty(slide_id)
        if self.broken and not n_before + self.n_new:
            raise self._given_up(self.broken[0])
        self.rows.finish(slide_id, plan, self.broken)
        return self.n_new + self.n_earlier

    def _settings(self, row: Slide | None) -> TileSettings:
        if self.asked is not None:
            return self.asked
        if row is not None:
            return TileSettings.from_json(row.settings.get("cut"))
        return latest_settings(self.work.app.store, project_id=self.work.project_id)

    def _given_up(self, reason: str) -> UnreadableImageError:
        kept = f" {self.n_new:,} tiles that could be read are kept." if self.n_new else ""
        return UnreadableImageError(
            f"{len(self.broken)} tiles cannot be read: {reason}",
            f"The slide is damaged.{kept}",
            "Copy it again from the scanner, then import it again.",
        )

    # looking ---------------------------------------------------------------------------------

    def _plan(self) -> Plan:
        work, path = self.work, self.slide.path
        max_tiles = work.app.settings.max_slide_tiles
        try:
            return plan_slide(path, work.rule, work.limits, self.settings, max_tiles)
        except WindowMissingError as missing:
            window = measured_rule(path, work.rule, work.limits, missing.kind).window(missing.kind)
            assert window is not None
            work.keep_window(missing.kind, *window, self.slide.name)
            return plan_slide(path, work.rule, work.limits, self.settings, max_tiles)

    def _save_picture(self, sha256: str, thumbnail: Pixels) -> None:
        target = thumb_path(self.work.folder.root, sha256)
        target.parent.mkdir(parents=True, exist_ok=True)
        part = target.parent.parent / own_name(PART)
        try:
            Picture.fromarray(thumbnail).save(part, "JPEG", quality=85)
            part.replace(target)
        finally:
            part.unlink(missing_ok=True)

    # cutting ---------------------------------------------------------------------------------

    def _made(self, tiles: Sequence[Tile]) -> Iterator[list[Made]]:
        """Yield tiles in order: the other process cuts ahead while this one encodes."""
        size = max(1, min(A_CALL, BIG_CALL // self.settings.tile_px**2))
        waiting: deque[tuple[Sequence[Tile], Future[list[tuple[Tile, Pixels]]]]] = deque()
        with ThreadPoolExecutor(1, "slide-cut") as cutter, ThreadPoolExecutor(2, "slide") as pool:
            try:
                for part in chunks(tiles, size):
                    waiting.append((part, cutter.submit(self._read, part)))
                    if len(waiting) > 2:
                        yield list(pool.map(self._keep, waiting.popleft()[1].result()))
                while waiting:
                    yield list(pool.map(self._keep, waiting.popleft()[1].result()))
            finally:
                for _, future in waiting:
                    future.cancel()

    def _read(self, tiles: Sequence[Tile]) -> list[tuple[Tile, Pixels]]:
        try:
            return list(zip(tiles, self._pixels(tiles), strict=True))
        except UnreadableImageError:
            found: list[tuple[Tile, Pixels]] = []
        for tile in tiles:  # one of them is damaged: which?
            try:
                found.append((tile, self._pixels([tile])[0]))
            except UnreadableImageError as error:
                self.broken.append(error.what)
                if len(self.broken) >= MOST_BROKEN:
                    raise
        return found

    def _pixels(self, tiles: Sequence[Tile]) -> Pixels:
        places = [place_of(tile) for tile in tiles]
        work = self.work
        return slide_work.cut(
            self.slide.path, work.rule, work.limits, places, self.settings.tile_px
        )

    def _keep(self, read: tuple[Tile, Pixels]) -> Made:
        """Write the PNG and the thumbnails of a tile; the same tile gives the same files."""
        tile, pixels = read
        data = io.BytesIO()
        Picture.fromarray(pixels).save(data, "PNG", compress_level=PACKING)
        sha256 = hashlib.sha256(data.getbuffer()).hexdigest()
        folder = self.work.folder
        self.journal.note(sha256)
        make_thumbs(pixels, folder.thumb_path(sha256), folder.view_path(sha256))
        name = folder.original_name(sha256, ".png")
        part = folder.root / "images" / own_name(PART)
        try:
            with part.open("wb") as writing:
                writing.write(data.getbuffer())
                writing.flush()
                os.fsync(writing.fileno())
            folder.settle(part, name)
        finally:
            part.unlink(missing_ok=True)
        return Made(tile, sha256, name, data.getbuffer().nbytes)
