"""Notes and tags of images: what people write beside the labels. Every act is kept, with who."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from cnsapp.domain.labels import claimed_key, clean_annotator, read_key
from cnsapp.domain.names import clean_name, name_key
from cnsapp.errors import InvalidInputError, NotFoundError
from cnsapp.services.busy import in_time
from db.models import Image, ImageEvent, ImageTag, Project
from db.queries import chunks, insert_new
from db.session import Store

NOTE, TAGGED, UNTAGGED = "note", "tagged", "untagged"
KINDS = (NOTE, TAGGED, UNTAGGED)
LONGEST_TAG = 60
LONGEST_NOTE = 2000
MOST_ACTS = 500  # in one message: one short transaction


@dataclass(frozen=True)
class TagCount:
    """A tag of a project and how many images that are in use carry it."""

    tag: str
    n: int


@dataclass(frozen=True)
class Note:
    """What somebody wrote of an image."""

    at: datetime
    who: str
    text: str


@dataclass(frozen=True)
class Marked:
    """What stands beside an image now."""

    id: int
    tags: tuple[str, ...]
    noted: bool


@dataclass(frozen=True)
class NoteReceipt:
    """The database's word on a message of notes and tags; as `services.labels.Receipt`."""

    acked: tuple[tuple[str, int], ...]
    rejected: tuple[tuple[str, int, str], ...]
    images: tuple[Marked, ...]

    def as_json(self) -> dict[str, Any]:
        """Return the receipt as JSON."""
        return {
            "acked": [{"client": client, "seq": seq} for client, seq in self.acked],
            "rejected": [
                {"client": client, "seq": seq, "reason": reason}
                for client, seq, reason in self.rejected
            ],
            "images": [asdict(image) for image in self.images],
        }


@dataclass(frozen=True)
class _Act:
    client: str
    seq: int
    image_id: int
    sha: str
    kind: str
    text: str

    @property
    def key(self) -> tuple[str, int]:
        return (self.client, self.seq)


def clean_tag(text: str) -> str:
    """Return a tag as it is stored; raise InvalidInputError when it cannot be one."""
    shown = clean_name(text) if isinstance(text, str) else ""
    if not shown or len(shown) > LONGEST_TAG or not shown.isprintable():
        raise InvalidInputError(
            f"“{shown[:LONGEST_TAG]}” cannot be a tag." if shown else "The tag is empty.",
            "",
            f"Use 1 to {LONGEST_TAG} letters, digits or signs.",
        )
    return shown


def clean_note(text: str) -> str:
    """Return a note as it is stored; raise InvalidInputError when there is none or too much."""
    shown = "\n".join(line.rstrip() for line in text.split("\n")).strip() if text else ""
    if not shown or len(shown) > LONGEST_NOTE:
        raise InvalidInputError(
            f"The note has {len(shown):,} characters; {LONGEST_NOTE:,} is the most."
            if shown
            else "The note is empty.",
            "",
            "Write it in several notes." if shown else "Write something, or leave it with Esc.",
        )
    return shown.replace("\x00", "")


def record(
    store: Store, *, project_id: int, who: str, acts: Sequence[Mapping[str, Any]]
) -> NoteReceipt:
    """Store the notes and tags that are not stored yet, in one transaction.

    An act is `{client, seq, image_id, kind, text}` with kind note, tagged or untagged, and `sha`,
    the beginning of the picture's SHA-256. Sending it again changes nothing. A tag that differs
    from one of the project only by case, blanks or Unicode form is that tag.

    Raises
    ------
    InvalidInputError
        Nobody is named, or there are more acts than one message may carry.
    NotFoundError
        There is no such project.
    StoreError
        The database did not take them in time. They may be sent again.
    """
    name = clean_annotator(who)
    if len(acts) > MOST_ACTS:
        raise InvalidInputError(
            f"{len(acts)} notes or tags came in one message; {MOST_ACTS} is the most.",
            "A larger one would make other people wait.",
            "Send them in several messages.",
        )
    good: dict[tuple[str, int], _Act] = {}
    rejected: list[tuple[str, int, str]] = []
    for raw in acts:
        try:
            act = _read(raw)
        except (ValueError, InvalidInputError) as error:
            rejected.append((*claimed_key(raw), str(error)))
        else:
            good.setdefault(act.key, act)
    with in_time("Notes and tags"), store.writing() as session:
        return _record(session, project_id, name, list(good.values()), rejected)


def list_tags(store: Store, *, project_id: int) -> list[TagCount]:
    """Return the tags of a project that images in use carry, the most used first."""
    n = func.count(ImageTag.image_id)
    with store.reading() as session:
        rows = session.execute(
            select(ImageTag.tag, n)
            .join(Image, Image.id == ImageTag.image_id)
            .where(ImageTag.project_id == project_id, Image.status == "ok")
            .group_by(ImageTag.tag)
            .order_by(n.desc(), ImageTag.tag)
        ).all()
    return [TagCount(tag, count) for tag, count in rows]


def notes_of(store: Store, *, image_id: int, who: str | None = None) -> list[Note]:
    """Return the notes of an image, the newest first; with `who` only that person's."""
    written = select(ImageEvent).where(ImageEvent.image_id == image_id, ImageEvent.kind == NOTE)
    if who is not None:
        written = written.where(ImageEvent.who == who)
    with store.reading() as session:
        rows = session.scalars(written.order_by(ImageEvent.id.desc()))
        return [Note(row.created_at, row.who, row.reason) for row in rows]


def _read(raw: Any) -> _Act:
    if not isinstance(raw, Mapping):
        raise ValueError("The act is not an object.")
    client, seq = read_key(raw)
    image_id, kind, text, sha = (raw.get(key) for key in ("image_id", "kind", "text", "sha"))
    if isinstance(image_id, bool) or not isinstance(image_id, int) or not 0 < image_id < 2**31:
        raise ValueError("“image_id” is not the number of an image.")
    if not isinstance(kind, str) or kind not in KINDS:
        raise ValueError(f"“kind” is none of {', '.join(KINDS)}.")
    if not isinstance(text, str):
        raise ValueError("“text” is missing.")
    clean = clean_note(text) if kind == NOTE else clean_tag(text)
    return _Act(client, seq, image_id, sha if isinstance(sha, str) else "", kind, clean)


def _record(
    session: Session,
    project_id: int,
    who: str,
    acts: Sequence[_Act],
    rejected: list[tuple[str, int, str]],
) -> NoteReceipt:
    if session.get(Project, project_id) is None:
        raise NotFoundError(f"There is no project number {project_id}.")
    shas = _lock(session, project_id, {act.image_id for act in acts})
    done = _done(session, list(shas))
    spellings = _spellings(session, project_id)
    acked: list[tuple[str, int]] = []
    for act in acts:
        if act.image_id not in shas:
            rejected.append((*act.key, "The image is not in this project (any more)."))
        elif not shas[act.image_id].startswith(act.sha):
            rejected.append((*act.key, "Another image has got the number of the one meant."))
        else:
            if act.key not in done:
                _store(session, project_id, who, act, spellings)
            acked.append(act.key)
    session.flush()
    return NoteReceipt(tuple(acked), tuple(rejected), _marked(session, list(shas)))


def _lock(session: Session, project_id: int, ids: Iterable[int]) -> dict[int, str]:
    """Return the SHA-256 of those images that are in the project; two writers take turns."""
    found: dict[int, str] = {}
    for part in chunks(sorted(ids)):
        rows = (
            select(Image.id, Image.sha256)
            .where(Image.id.in_(part), Image.project_id == project_id)
            .order_by(Image.id)
            .with_for_update()
        )
        found.update(session.execute(rows).all())
    return found


def _done(session: Session, ids: Sequence[int]) -> set[tuple[str, int]]:
    """Return what acts are stored of these images, by client and number."""
    found: set[tuple[str, int]] = set()
    for part in chunks(ids):
        details = select(ImageEvent.details).where(
            ImageEvent.image_id.in_(part), ImageEvent.kind.in_(KINDS)
        )
        for one in session.scalars(details):
            found.add((one.get("client", ""), one.get("seq", 0)))
    return found


def _spellings(session: Session, project_id: int) -> dict[str, str]:
    """Return the tags of a project by what equal ones share; hops from tag to tag in the index."""
    found: dict[str, str] = {}
    least = select(func.min(ImageTag.tag)).where(ImageTag.project_id == project_id)
    tag = session.scalar(least)
    while tag is not None:
        found.setdefault(name_key(tag), tag)
        tag = session.scalar(least.where(ImageTag.tag > tag))
    return found


def _store(
    session: Session, project_id: int, who: str, act: _Act, spellings: dict[str, str]
) -> None:
    text = act.text
    if act.kind != NOTE:
        text = spellings.setdefault(name_key(text), text)
    session.add(
        ImageEvent(
            project_id=project_id, image_id=act.image_id, kind=act.kind, who=who, reason=text,
            details={"client": act.client, "seq": act.seq},
        )
    )  # fmt: skip
    if act.kind == TAGGED:
        row = {"project_id": project_id, "tag": text, "image_id": act.image_id}
        insert_new(session, ImageTag, [row], ["project_id", "tag", "image_id"])
    elif act.kind == UNTAGGED:
        kept = session.get(ImageTag, (project_id, text, act.image_id))
        if kept is not None:
            session.delete(kept)
            session.flush()


def _marked(session: Session, ids: Sequence[int]) -> tuple[Marked, ...]:
    tags: dict[int, list[str]] = {image_id: [] for image_id in ids}
    noted: set[int] = set()
    for part in chunks(ids):
        for image_id, tag in session.execute(
            select(ImageTag.image_id, ImageTag.tag)
            .where(ImageTag.image_id.in_(part))
            .order_by(ImageTag.tag)
        ):
            tags[image_id].append(tag)
        noted.update(
            session.scalars(
                select(ImageEvent.image_id).where(
                    ImageEvent.image_id.in_(part), ImageEvent.kind == NOTE
                )
            )
        )
    return tuple(
        Marked(image_id, tuple(found), image_id in noted) for image_id, found in tags.items()
    )
