"""Which images a filter lets through, a page at a time: quick at a million, whatever is joined.

Every part of a filter is a *stream*: the ids of its images, read in order from one index that holds
all that is asked. How streams are joined depends on how many ids the smallest one has left:

- one stream: a page of it is read from its index;
- few ids (`FEW`): they are fetched, and the rest is asked of them alone;
- many: the streams are merged. SQLite walks them side by side (INTERSECT with ORDER BY needs no
  sort and no table in between) and stops when the page is full, or when one of them ends. A walk
  over a million ids takes a tenth of a second, so that "nothing is both" is known in time too.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import ColumnElement, Select, exists, func, intersect, select
from sqlalchemy.orm import InstrumentedAttribute, Session

from cnsapp.errors import InvalidInputError
from db.models import (
    AnnotatorLabel,
    Image,
    ImageMeta,
    ImageTag,
    LabelClass,
    Prediction,
    Suggestion,
)
from db.queries import chunks

STATES = {
    "all": None,
    "unlabelled": "none",
    "label": "label",
    "skip": "skip",
    "unsure": "unsure",
    "waiting": "waiting",
    "undecided": "undecided",
}
NOT_LEARNT = -1  # instead of a fold: images that a model did not learn from
FEW = 10_000  # ids whose other properties are looked up in a few hundredths of a second

Meta = tuple[str, str] | tuple[str, float | None, float | None]
Ids = Select[int]


@dataclass(frozen=True)
class ImageFilter:
    """Which images to look at; the parts are joined by "and".

    Parameters
    ----------
    state
        all, unlabelled, label, skip or unsure.
    class_id
        Only images with this current label.
    group
        Only images of this group.
    text
        Only images with this in their file name, in any case.
    annotator
        Only images whose current label is by this person.
    status
        ok, excluded, missing or changed.
    meta
        Only images with this metadata: (name, value), or (name, lowest, highest number) where
        either end may be None.
    tag
        Only images with this tag.
    source
        Only images whose current label comes from there: human, bulk, suggestion, import, …
    disputed
        Only images that people gave different classes.
    opinion
        Only images that the newest quick model takes for this class.
    confidence
        Only images of whose class that model is so sure: (lowest, highest), either may be None.
    fold
        (model, fold): only images that this model held out in that fold, or with `NOT_LEARNT` as
        the fold only those that it did not learn from.
    disagrees
        Only labelled images that the model, without having learnt from them, takes for another
        class.
    own
        This person alone counts: `state`, `class_id` and `source` are of what they said, as if
        nobody else had labelled.
    """

    state: str = "all"
    class_id: int | None = None
    group: str | None = None
    text: str = ""
    annotator: str | None = None
    status: str = "ok"
    meta: tuple[Meta, ...] = ()
    tag: str | None = None
    source: str | None = None
    disputed: bool = False
    opinion: int | None = None
    confidence: tuple[float | None, float | None] = (None, None)
    disagrees: bool = False
    own: str | None = None
    fold: tuple[int, int] | None = None


@dataclass(frozen=True)
class Span:
    """The ids after one and before another; a page is read from the side that is bounded."""

    after: int | None = None
    before: int | None = None

    @property
    def backwards(self) -> bool:
        """Whether the page is the one before an id."""
        return self.before is not None and self.after is None

    def bounds(self, ids: Any) -> ColumnElement[bool]:
        """Return the condition on a column of ids."""
        bound: ColumnElement[bool] = (
            ids < self.before if self.backwards else ids > (self.after or 0)
        )
        return bound

    def sorted(self, ids: Iterable[int]) -> list[int]:
        """Return those of these ids that are in it, in its order."""
        if self.backwards and self.before is not None:
            return sorted((i for i in ids if i < self.before), reverse=True)
        return sorted(i for i in ids if i > (self.after or 0))

    def order(self, ids: Any) -> Any:
        """Return what a statement is ordered by."""
        return ids.desc() if self.backwards else ids


@dataclass(frozen=True)
class Stream:
    """The images that meet some conditions: `ids` holds them in the order of an index.

    `countable`: no other rows are looked at on the way. `by_number`: conditions that an index of
    numbers answers, whose ids are in no order.
    """

    ids: InstrumentedAttribute[int]
    conditions: Sequence[ColumnElement[bool]]
    countable: bool = True
    by_number: Sequence[ColumnElement[bool]] = ()

    def walked(self, span: Span) -> Ids:
        """Return the statement for its ids in the span, unordered as yet."""
        return select(self.ids).where(*self.conditions, span.bounds(self.ids))

    def few(self, span: Span) -> Ids:
        """Return the statement for FEW + 1 of its ids, or all it has; a range's span is left."""
        if self.by_number:
            return select(self.ids).where(*self.by_number).limit(FEW + 1)
        return self.walked(span).limit(FEW + 1)


def page_of_ids(
    session: Session, project_id: int, wanted: ImageFilter, span: Span, limit: int
) -> list[int]:
    """Return the first ids of a span, from its bounded side, that a filter lets through.

    Raises
    ------
    InvalidInputError
        There is no such state.
    """
    streams = streams_of(project_id, wanted, session.get_bind().dialect.name)
    if len(streams) == 1:
        statement: Any = streams[0].walked(span)
        return list(session.scalars(statement.order_by(span.order(streams[0].ids)).limit(limit)))
    least = _fewest(session, streams, span)
    if least is not None:
        return _among(session, least, streams, span, limit)
    return list(session.scalars(_merged(session, streams, span).limit(limit)))


def streams_of(project_id: int, wanted: ImageFilter, dialect: str = "sqlite") -> list[Stream]:
    """Return the streams whose common ids are those that a filter lets through."""
    if wanted.state not in STATES:
        raise InvalidInputError(
            f"There is no image state “{wanted.state}”.", "", f"Choose one of: {', '.join(STATES)}."
        )
    mine = [Image.project_id == project_id, Image.status == wanted.status]
    state = STATES[wanted.state]
    if state is None and wanted.class_id is not None:
        state = "label"
    streams = _own(project_id, wanted, state) if wanted.own is not None else []
    if wanted.own is not None:  # what others said is not looked at
        wanted = replace(wanted, class_id=None, source=None, annotator=None, disputed=False)
        state = None

    def add(*conditions: ColumnElement[bool], countable: bool = True) -> None:
        streams.append(Stream(Image.id, [*mine, *conditions], countable))

    if wanted.class_id is not None:
        add(Image.current_state == "label", Image.current_class_id == wanted.class_id)
    if wanted.group is not None:
        add(Image.group_key == wanted.group)
    if wanted.annotator is not None:
        add(Image.current_annotator == wanted.annotator)
    if wanted.source is not None:
        add(Image.current_source == wanted.source)
    if wanted.disputed:
        add(Image.disputed.is_(True))
    # two indexes hold the names: of all images, and of those in one state
    in_state = [] if state is None else [Image.current_state == state]
    if wanted.text.strip():
        add(*in_state, _in_name(wanted.text.strip(), dialect), countable=False)
    elif in_state and (wanted.class_id is None or state != "label"):
        add(*in_state)
    if not streams:
        add()
    if wanted.tag is not None:
        tagged = [ImageTag.project_id == project_id, ImageTag.tag == wanted.tag]
        streams.append(Stream(ImageTag.image_id, tagged))
    if wanted.fold is not None:
        streams.append(_fold(mine, *wanted.fold))
    if opinion := _opinion(project_id, wanted):
        streams.append(opinion)
    return streams + [_stream_of(project_id, meta) for meta in wanted.meta]


def _fold(mine: Sequence[ColumnElement[bool]], model_id: int, fold: int) -> Stream:
    """Return the images of a fold of a model, or those that it did not learn from.

    Those of the locked test set are in no fold and were not learnt from, though the model has
    answers for them.
    """
    of_model = (Prediction.model_id == model_id) & (Prediction.part == "fold")
    if fold != NOT_LEARNT:
        return Stream(Prediction.image_id, [of_model, Prediction.fold == fold])
    held_out = exists(select(Prediction.id).where(of_model, Prediction.image_id == Image.id))
    return Stream(Image.id, [*mine, ~held_out], countable=False)


def _own(project_id: int, wanted: ImageFilter, state: str | None) -> list[Stream]:
    """Return what one person alone has said, in the state and class that a filter asks for."""
    word = AnnotatorLabel
    of_image = (word.image_id == Image.id) & (word.annotator == wanted.own)
    if state == "none":
        unsaid = ~exists(select(word.image_id).where(of_image))
        mine = [Image.project_id == project_id, Image.status == wanted.status]
        return [Stream(Image.id, [*mine, unsaid], countable=False)]
    if state is None and wanted.source is None:
        return []
    said = [word.project_id == project_id, word.annotator == wanted.own]
    said += [] if state is None else [word.state == state]
    said += [] if wanted.source is None else [word.source == wanted.source]
    if wanted.class_id is not None:
        said.append(word.class_id.in_(_with_merged(wanted.class_id)))
    in_use = Stream(Image.id, [Image.project_id == project_id, Image.status == wanted.status])
    return [Stream(word.image_id, said), in_use]


def _with_merged(class_id: int) -> Ids:
    """Return a class and all that were merged into it, directly or on the way."""
    merged = select(LabelClass.id).where(LabelClass.id == class_id).cte("merged", recursive=True)
    merged = merged.union(select(LabelClass.id).where(LabelClass.merged_into == merged.c.id))
    return select(merged.c.id)


def _opinion(project_id: int, wanted: ImageFilter) -> Stream | None:
    """Return the images of which the newest quick model thinks what a filter asks for."""
    mine = Suggestion.project_id == project_id
    low, high = wanted.confidence
    asked: list[ColumnElement[bool]] = []
    if low is not None:
        asked.append(Suggestion.confidence >= low)
    if high is not None:
        asked.append(Suggestion.confidence <= high)
    if wanted.opinion is not None:
        asked.append(Suggestion.class_id == wanted.opinion)
    if wanted.disagrees:
        label = (
            select(Image.current_class_id)
            .where(Image.id == Suggestion.image_id, Image.current_state == "label")
            .scalar_subquery()
        )
        differs = [mine, *asked, Suggestion.loss.is_not(None), Suggestion.class_id != label]
        return Stream(Suggestion.image_id, differs, countable=False)
    if not asked:
        return None
    # the sum keeps a walk in the order of the images: by an index of numbers they are in none
    walked = [Suggestion.project_id + 0 == project_id, *asked]
    return Stream(Suggestion.image_id, walked, by_number=[mine, *asked])


def _in_name(part: str, dialect: str) -> ColumnElement[bool]:
    if dialect == "sqlite":  # its LIKE folds the same letters as its lower(), in half the time
        return Image.file_name.contains(part, autoescape=True)
    return Image.file_name.icontains(part, autoescape=True)


def _stream_of(project_id: int, wanted: Meta) -> Stream:
    mine = [ImageMeta.project_id == project_id, ImageMeta.key == wanted[0]]
    if len(wanted) == 2:
        return Stream(ImageMeta.image_id, [*mine, ImageMeta.value == wanted[1]])
    # a sum is in no index of numbers: that keeps a walk in the order of the images
    walked = [*mine, *_between(ImageMeta.number + 0.0, *wanted[1:])]
    by_number = [*mine, *_between(ImageMeta.number, *wanted[1:])]
    return Stream(ImageMeta.image_id, walked, by_number=by_number)


def _between(number: Any, low: float | None, high: float | None) -> list[ColumnElement[bool]]:
    conditions = [] if low is None else [number >= low]
    conditions += [] if high is None else [number <= high]
    return conditions or [number.is_not(None)]


def _fewest(session: Session, streams: Sequence[Stream], span: Span) -> list[int] | None:
    """Return all ids in the span of a stream that has few of them, in order; None: all have many.

    Looks at no more than `FEW` of each.
    """
    sizes = {}
    for at, stream in enumerate(streams):
        if stream.countable:
            rows = stream.few(span).subquery()
            sizes[at] = session.scalar(select(func.count()).select_from(rows)) or 0
    at = min(sizes, key=lambda i: sizes[i], default=-1)
    if at < 0 or sizes[at] > FEW:
        return None
    return span.sorted(session.scalars(streams[at].few(span)))


def _among(
    session: Session, ids: Sequence[int], streams: Sequence[Stream], span: Span, limit: int
) -> list[int]:
    """Return the first of these ids that are in every stream."""
    found: list[int] = []
    for part in chunks(ids):
        left = set(part)
        for stream in streams:
            if left:
                asked = select(stream.ids).where(*stream.conditions, stream.ids.in_(left))
                left &= set(session.scalars(asked))
        found += span.sorted(left)
        if len(found) >= limit:
            break
    return found[:limit]


def _merged(session: Session, streams: Sequence[Stream], span: Span) -> Any:
    """Return the statement for the ids that all streams have, in order."""
    first, *rest = streams
    if session.get_bind().dialect.name == "sqlite":
        walked = [stream.walked(span) for stream in streams]
        both = intersect(walked[0].with_only_columns(first.ids.label("id")), *walked[1:])
        return both.order_by(span.order(both.selected_columns.id))
    statement = first.walked(span)  # PostgreSQL chooses by its statistics
    for stream in rest:
        statement = statement.where(first.ids.in_(stream.walked(span)))
    return statement.order_by(span.order(first.ids))
