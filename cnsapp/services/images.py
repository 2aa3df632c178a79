"""Looking at a project's images: pages by key, filters, one image, counts, groups."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from cnsapp.errors import InvalidInputError, NotFoundError
from cnsapp.imaging.reader import ReadingRule
from cnsapp.services.filtering import ImageFilter as ImageFilter
from cnsapp.services.filtering import Span, page_of_ids
from db.deciding import Meanings, class_meanings
from db.models import Image, ImageEvent, ImageTag, Project, Suggestion
from db.queries import chunks, groups_among, read_tally
from db.session import Store

MAX_PAGE = 1000
MAX_ID = 2**31  # ids are 32-bit numbers in the database


@dataclass(frozen=True)
class Suggested:
    """What the newest quick model thinks an image is; `confidence` 0 to 1."""

    class_id: int
    confidence: float


@dataclass(frozen=True)
class ImageItem:
    """An image as grids show it. `rev` is the event that decides its label, 0 for none.

    `source` is where that label comes from; `disputed`: people gave it different classes; `noted`:
    somebody wrote a note.
    """

    id: int
    sha256: str
    name: str
    width: int
    height: int
    group: str | None
    state: str
    class_id: int | None
    rev: int
    seen: str = field(default="", kw_only=True)
    um_per_px: float | None = field(default=None, kw_only=True)  # as the file says
    channels: int = field(default=1, kw_only=True)
    source: str | None = field(default=None, kw_only=True)
    disputed: bool = field(default=False, kw_only=True)
    suggestion: Suggested | None = field(default=None, kw_only=True)
    tags: tuple[str, ...] = field(default=(), kw_only=True)
    noted: bool = field(default=False, kw_only=True)

    @property
    def version(self) -> str:
        """What its picture's address carries, so that browsers keep it until it changes."""
        return self.sha256[:8] + self.seen[:8]


@dataclass(frozen=True)
class ImagePage:
    """A page of images; `next_after` and `prev_before` are None at the ends."""

    items: list[ImageItem]
    next_after: int | None
    prev_before: int | None


@dataclass(frozen=True)
class ImageDetail(ImageItem):
    """All that is known of one image."""

    project_id: int = 0
    status: str = "ok"
    facts: dict[str, Any] = field(default_factory=dict)
    stored_path: str = ""
    linked: bool = False
    n_bytes: int = 0
    created_at: datetime | None = None


@dataclass(frozen=True)
class Counts:
    """The kept counts of a project."""

    images: int
    labelled: int
    skipped: int
    unsure: int
    unlabelled: int
    per_class: dict[int, int]
    waiting: int = 0  # for another reader, where readings are voted on
    undecided: int = 0  # read by enough people, who do not agree


EVERYTHING = ImageFilter()


def list_images(
    store: Store,
    *,
    project_id: int,
    filter: ImageFilter = EVERYTHING,  # the word that pages and commands use
    after: int | None = None,
    before: int | None = None,
    limit: int = 60,
) -> ImagePage:
    """Return the images that follow id `after` or precede id `before`, in the order of their ids.

    Raises
    ------
    InvalidInputError
        The filter's state is unknown, or `limit` is not from 1 to 1000.
    """
    if not 1 <= limit <= MAX_PAGE:
        raise InvalidInputError(f"A page of {limit} images: 1 to {MAX_PAGE} are possible.")
    span = Span(after, before)
    with store.reading() as session:
        ids = page_of_ids(session, project_id, filter, span, limit + 1)
        more = len(ids) > limit
        ids = sorted(ids[:limit])
        items = items_in_order(session, ids)
    if not ids:
        return ImagePage([], None, None)
    has_next = True if span.backwards else more
    has_previous = more if span.backwards else bool(after)
    return ImagePage(items, ids[-1] if has_next else None, ids[0] if has_previous else None)


def items_in_order(session: Session, image_ids: Sequence[int]) -> list[ImageItem]:
    """Return the items for these ids in the same order; ids that do not exist are left out."""
    found: dict[int, ImageItem] = {}
    for part in chunks(list(image_ids)):
        beside = _Beside(session, part)
        for row in session.execute(_COLUMNS.where(Image.id.in_(part))):
            found[row.id] = ImageItem(
                *row[:8],
                rev=row.current_event_id or 0,
                seen=row.seen,
                um_per_px=row.um_per_px,
                channels=row.channels or 1,
                source=row.current_source,
                disputed=row.disputed,
                suggestion=beside.suggestions.get(row.id),
                tags=beside.tags.get(row.id, ()),
                noted=row.id in beside.noted,
            )
    return [found[image_id] for image_id in image_ids if image_id in found]


class _Beside:
    """What stands in other tables about some images: suggestions, tags, notes."""

    def __init__(self, session: Session, ids: Sequence[int]) -> None:
        meanings: Meanings = {}
        self.suggestions: dict[int, Suggested] = {}
        for image_id, project_id, class_id, confidence in session.execute(
            select(
                Suggestion.image_id,
                Suggestion.project_id,
                Suggestion.class_id,
                Suggestion.confidence,
            ).where(Suggestion.image_id.in_(ids))
        ):
            meanings = meanings or {0: None, **class_meanings(session, project_id)}
            means = meanings.get(class_id, class_id)
            if means is not None:
                self.suggestions[image_id] = Suggested(means, confidence)
        self.tags: dict[int, tuple[str, ...]] = {}
        for image_id, tag in session.execute(
            select(ImageTag.image_id, ImageTag.tag)
            .where(ImageTag.image_id.in_(ids))
            .order_by(ImageTag.tag)
        ):
            self.tags[image_id] = (*self.tags.get(image_id, ()), tag)
        self.noted = set(
            session.scalars(
                select(ImageEvent.image_id).where(
                    ImageEvent.image_id.in_(ids), ImageEvent.kind == "note"
                )
            )
        )


_COLUMNS = select(
    Image.id,
    Image.sha256,
    Image.file_name,
    Image.width,
    Image.height,
    Image.group_key,
    Image.current_state,
    Image.current_class_id,
    Image.current_event_id,
    Image.seen,
    Image.current_source,
    Image.disputed,
    Image.facts["um_per_px"].as_float().label("um_per_px"),
    Image.facts["channels"].as_integer().label("channels"),
)


def get_image(store: Store, *, image_id: int) -> ImageDetail:
    """Return one image with its facts; raise NotFoundError when there is none."""
    with store.reading() as session:
        row = _get(session, image_id)
        return ImageDetail(
            id=row.id,
            sha256=row.sha256,
            name=row.file_name,
            width=row.width,
            height=row.height,
            group=row.group_key,
            state=row.current_state,
            class_id=row.current_class_id,
            rev=row.current_event_id or 0,
            seen=row.seen,
            um_per_px=row.facts.get("um_per_px"),
            channels=row.facts.get("channels", 1),
            source=row.current_source,
            disputed=row.disputed,
            project_id=row.project_id,
            status=row.status,
            facts=row.facts,
            stored_path=row.stored_path,
            linked=row.linked,
            n_bytes=row.n_bytes,
            created_at=row.created_at,
        )


def image_path(store: Store, *, image_id: int) -> Path:
    """Return where the original of an image lies.

    Raises
    ------
    NotFoundError
        There is no such image, or its file is gone; the sentence says which and what to do.
    """
    with store.reading() as session:
        row = _get(session, image_id)
        name, linked = row.file_name, row.linked
        path = store.root / row.stored_path  # an absolute path, of a linked image, stays itself
    if path.is_file():
        return path
    if linked:
        raise NotFoundError(
            f"The file of “{name}” is not at {path} any more.",
            "It was linked in place, so there is no copy of it.",
            "Put it back or connect its disk; its labels are kept.",
        )
    raise NotFoundError(
        f"The stored copy of “{name}” is missing from the data folder ({path}).",
        "It cannot be shown or trained on; its labels are kept.",
        "Import the image again, or restore the folder from a backup.",
    )


def counts(store: Store, *, project_id: int) -> Counts:
    """Return the counts of a project; they are kept, so this costs the same at any size."""
    with store.reading() as session:
        tally = read_tally(session, project_id)
    images = tally.get("images", 0)
    labelled, skipped, unsure = (tally.get(f"state:{s}", 0) for s in ("label", "skip", "unsure"))
    return Counts(
        images=images,
        labelled=labelled,
        skipped=skipped,
        unsure=unsure,
        unlabelled=images - labelled - skipped - unsure,
        per_class={
            int(key.removeprefix("class:")): n
            for key, n in tally.items()
            if key.startswith("class:") and n
        },
        waiting=tally.get("state:waiting", 0),
        undecided=tally.get("state:undecided", 0),
    )


def group_names(store: Store, *, project_id: int, limit: int = 500) -> list[str]:
    """Return the groups of a project by name; quick at any number of images."""
    names = groups_among(Image.project_id == project_id, Image.status == "ok")
    with store.reading() as session:
        return list(session.scalars(names.limit(limit)))


def tag_names(store: Store, *, project_id: int) -> list[str]:
    """Return the tags that images of a project carry, by name; quick at any number of images."""
    found: list[str] = []
    with store.reading() as session:
        while True:  # hops from tag to tag in the index
            after = ImageTag.tag > (found[-1] if found else "")
            tag = session.scalar(
                select(func.min(ImageTag.tag)).where(ImageTag.project_id == project_id, after)
            )
            if tag is None:
                return found
            found.append(tag)


def has_suggestions(store: Store, *, project_id: int) -> bool:
    """Return whether a model has said what it thinks of any image."""
    any_of = select(Suggestion.image_id).where(Suggestion.project_id == project_id).limit(1)
    with store.reading() as session:
        return session.scalar(any_of) is not None


def reading_rule(store: Store, *, project_id: int) -> ReadingRule:
    """Return how the project reads its images: give it to `read_image` in every step."""
    with store.reading() as session:
        project = session.get(Project, project_id)
        if project is None:
            raise NotFoundError(f"There is no project number {project_id}.")
        return ReadingRule.from_json(project.settings.get("reading"))


def _get(session: Session, image_id: int) -> Image:
    row = session.get(Image, image_id) if 0 < image_id < MAX_ID else None
    if row is None:
        raise NotFoundError(f"There is no image number {image_id}.")
    return row
