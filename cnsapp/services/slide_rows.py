"""The rows of whole slides and of their tiles, in short transactions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import delete, func, select, update

from cnsapp.imaging.candidates import Candidate, printable
from cnsapp.imaging.decoded import ImageFacts
from cnsapp.imaging.tiling import Tile, TileSettings, slide_um
from cnsapp.services.classes import find_or_add_classes
from cnsapp.services.import_work import ImportWork
from cnsapp.services.slides import Plan
from db.models import Image, ImageEvent, LabelClass, LabelEvent, Slide
from db.queries import add_to_tally, chunks, insert_new, set_status

CUT_ANEW = "The slide was cut anew with other settings."

Place = tuple[int, int, int]  # x, y, side


@dataclass(frozen=True)
class Made:
    """A tile whose files are in the store, and which has no row yet."""

    tile: Tile
    sha256: str
    stored_path: str
    n_bytes: int


class SlideRows:
    """The rows of one slide in one project."""

    def __init__(self, work: ImportWork, slide: Candidate, settings: TileSettings) -> None:
        self.work, self.slide, self.settings = work, slide, settings
        self.store, self.project_id = work.app.store, work.project_id
        self.label_id: int | None = None

    def is_done(self, row: Slide) -> bool:
        """Return whether all tiles of these settings are there, with their files."""
        same = row.settings.get("cut") == self.settings.as_json()
        if not (same and row.settings.get("complete")):
            return False
        with self.store.reading() as session:
            places = session.scalars(
                select(Image.stored_path).where(
                    Image.slide_id == row.id, Image.status.in_(("ok", "missing"))
                )
            )
            return all((self.store.root / place).is_file() for place in places)

    def there(self, slide_id: int, plan: Plan) -> dict[Place, int]:
        """Return the tiles of the plan that have rows and files: place -> image id."""
        wanted = {place_of(tile) for tile in plan.tiles}
        with self.store.reading() as session:
            rows = session.execute(
                select(
                    Image.id, Image.tile_x, Image.tile_y, Image.tile_side, Image.stored_path
                ).where(Image.slide_id == slide_id, Image.width == self.settings.tile_px)
            ).all()
        return {
            (row.tile_x, row.tile_y, row.tile_side): row.id
            for row in rows
            if (row.tile_x, row.tile_y, row.tile_side) in wanted
            and (self.store.root / row.stored_path).is_file()
        }

    def n_earlier(self, slide_id: int) -> int:
        """Return how many tiles an earlier start of this import cut, before it was killed."""
        if self.work.begun is None:
            return 0
        with self.store.reading() as session:
            own = select(func.count()).where(
                Image.slide_id == slide_id,
                Image.status == "ok",
                Image.id > self.work.begun.image_id,
            )
            return session.scalar(own) or 0

    def remember(self, row: Slide | None, sha256: str, n_bytes: int, plan: Plan) -> int:
        """Write the slide's row, or its new settings; return its number."""
        cut = self.settings.as_json()
        lasting = self.work.source.lasting
        path = printable(str(self.slide.path.resolve())) if lasting else ""
        facts = plan.facts.as_json()
        try:  # by size and time a watched folder tells it from a new file
            changed = self.slide.path.stat().st_mtime_ns if lasting else None
        except OSError:
            changed = None
        with self.store.writing() as session:
            if row is None:
                group = self.work.plan.group_of(self.slide, sha256) or self.slide.name
                new = {
                    "project_id": self.project_id,
                    "sha256": sha256,
                    "file_name": self.slide.name,
                    "stored_path": path,
                    "n_bytes": n_bytes,
                    "width": plan.facts.width,
                    "height": plan.facts.height,
                    "um_per_px": slide_um(plan.facts, self.settings),
                    "group_key": group[:400],
                    "facts": facts,
                    "settings": {"cut": cut, "complete": False, "times": 1},
                }
                insert_new(session, Slide, [new], ["project_id", "sha256"])
                row = session.scalars(
                    select(Slide).where(Slide.project_id == self.project_id, Slide.sha256 == sha256)
                ).one()
            times = int(row.settings.get("times", 1)) + (row.settings.get("cut") != cut)
            values: dict[str, Any] = {
                "settings": {"cut": cut, "complete": False, "times": times, "mtime_ns": changed},
                "um_per_px": slide_um(plan.facts, self.settings),
                "facts": facts,
            }
            if path:
                values["stored_path"] = path
            session.execute(update(Slide).where(Slide.id == row.id).values(**values))
            self.name, self.group, self.times = row.file_name, row.group_key, times
            return row.id

    def store_tiles(self, slide_id: int, plan: Plan, made: Sequence[Made]) -> None:
        """Write the rows of tiles whose files are there, and the label that the slide has."""
        rows = [self._row(slide_id, plan, one) for one in made]
        with self.store.writing() as session:
            n = insert_new(session, Image, rows, ["project_id", "sha256", "file_name"])
            add_to_tally(session, self.project_id, {"images": n})
        if self.label_id is None:
            return
        with self.store.reading() as session:
            ids = session.scalars(
                select(Image.id)
                .where(Image.slide_id == slide_id, Image.sha256.in_([one.sha256 for one in made]))
                .order_by(Image.id)
            ).all()
        self._label(ids)

    def use_label(self, label: str | None) -> None:
        """Take the label of the slide's file for all its tiles."""
        if label is None:
            return
        with self.store.writing() as session:
            known = select(LabelClass.id).where(LabelClass.project_id == self.project_id)
            before = set(session.scalars(known))
            who = self.work.annotator
            self.label_id = find_or_add_classes(session, self.project_id, [label], who)[label]
        begun = self.work.begun
        if self.label_id not in before or (begun is not None and self.label_id > begun.class_id):
            self.work.tell_class(label)

    def label_tiles(self, slide_id: int) -> None:
        """Give all tiles of the slide the label of its file, where it has one."""
        if self.label_id is None:
            return
        with self.store.reading() as session:
            tiles = select(Image.id).where(Image.slide_id == slide_id, Image.status == "ok")
            ids = session.scalars(tiles.order_by(Image.id)).all()
        self._label(ids)

    def forget_if_empty(self, slide_id: int) -> None:
        """Leave no slide behind of which no tile could be read."""
        with self.store.writing() as session:
            tiles = select(Image.id).where(Image.slide_id == slide_id).exists()
            session.execute(delete(Slide).where(Slide.id == slide_id, ~tiles))

    def _label(self, image_ids: Sequence[int]) -> None:
        assert self.label_id is not None
        self.work.give_labels([(image_id, self.label_id) for image_id in image_ids])

    def _row(self, slide_id: int, plan: Plan, one: Made) -> dict[str, Any]:
        tile, px = one.tile, self.settings.tile_px
        um = slide_um(plan.facts, self.settings)
        facts = ImageFacts(
            format="PNG", mode="RGB", bits=8, pages=1, width=px, height=px,
            um_per_px=None if um is None else um * tile.side / px,
            notes=[f"Tile of {self.name}, {tile.tissue:.0%} tissue."],
        )  # fmt: skip
        return {
            "project_id": self.project_id,
            "sha256": one.sha256,
            "file_name": tile_name(self.name, tile, self.times),
            "width": px,
            "height": px,
            "group_key": self.group,
            "stored_path": one.stored_path,
            "linked": False,
            "n_bytes": one.n_bytes,
            "facts": facts.as_json(),
            "slide_id": slide_id,
            "tile_x": tile.x,
            "tile_y": tile.y,
            "tile_side": tile.side,
        }

    def finish(self, slide_id: int, plan: Plan, broken: Sequence[str]) -> None:
        """Settle the tiles of earlier settings, and say that the slide is done."""
        there = self.there(slide_id, plan)
        if self.label_id is not None:
            self._label(sorted(there.values()))  # those that a killed run left without
        if self.times > 1:
            self._settle_others(slide_id, set(there.values()))
        if broken:
            self.work.report.notes.append(
                f"{self.slide.name}: {len(broken)} tiles could not be read and are left out. "
                f"{broken[0]}"
            )
        with self.store.writing() as session:
            row = session.get_one(Slide, slide_id)
            row.settings = {**row.settings, "complete": not broken}
            row.n_tiles = len(there)

    def _settle_others(self, slide_id: int, keep: set[int]) -> None:
        """Exclude tiles of other settings that nobody labelled; bring those of these back."""
        with self.store.reading() as session:
            rows = session.execute(
                select(Image.id, Image.status, LabelEvent.source)
                .outerjoin(LabelEvent, LabelEvent.id == Image.current_event_id)
                .where(Image.slide_id == slide_id)
            ).all()
            ours = set(
                session.scalars(
                    select(ImageEvent.image_id).where(
                        ImageEvent.project_id == self.project_id,
                        ImageEvent.kind == "excluded",
                        ImageEvent.reason == CUT_ANEW,
                    )
                )
            )
        who = self.work.annotator
        old = [r.id for r in rows if r.id not in keep and r.status == "ok"]
        labelled = {r.id for r in rows if r.source not in (None, "import")}  # by a person
        back = [r.id for r in rows if r.id in keep and r.status == "excluded" and r.id in ours]
        for ids, status, kind in (
            ([i for i in old if i not in labelled], "excluded", "excluded"),
            (back, "ok", "restored"),
        ):
            for part in chunks(ids):
                with self.store.writing() as session:
                    set_status(
                        session, self.project_id, part, status,
                        kind=kind, who=who, reason=CUT_ANEW,
                    )  # fmt: skip
        kept = sum(1 for image_id in old if image_id in labelled)
        if old:
            self.work.report.notes.append(
                f"{self.slide.name} was cut anew: {len(old) - kept:,} tiles of the earlier "
                f"settings are excluded, and {kept:,} that are labelled were kept."
            )


def find_slide(work: ImportWork, sha256: str) -> Slide | None:
    """Return the row of these bytes, or None when the project has no such slide."""
    with work.app.store.reading() as session:
        row = session.scalar(
            select(Slide).where(Slide.project_id == work.project_id, Slide.sha256 == sha256)
        )
        if row is not None:
            session.expunge(row)
        return row


def tile_name(slide: str, tile: Tile, times: int = 1) -> str:
    """Return the name of a tile as an image; `times` counts the settings a slide was cut with.

    Examples
    --------
    >>> tile_name("a.svs", Tile(512, 0, 512, 1.0))
    'a.svs/x512_y0.png'
    >>> tile_name("a.svs", Tile(512, 0, 256, 1.0), times=2)
    'a.svs/x512_y0_side256.png'
    """
    suffix = "" if times == 1 else f"_side{tile.side}"
    return f"{slide}/x{tile.x}_y{tile.y}{suffix}.png"


def place_of(tile: Tile) -> Place:
    return tile.x, tile.y, tile.side
