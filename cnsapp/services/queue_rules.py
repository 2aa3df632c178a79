"""What somebody may ask the queue for, and which images are still to be done for them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from sqlalchemy import ColumnElement, exists, func, or_, select
from sqlalchemy.orm import Session, aliased

from cnsapp.errors import InvalidInputError
from cnsapp.services.filtering import STATES, ImageFilter, Span, page_of_ids
from db.deciding import class_meanings, consensus_rule
from db.models import AnnotatorLabel, Image, Reading, Suggestion, SuggestionRun
from db.queries import chunks

SMART, IN_ORDER, RANDOM, LOOK_ALIKES = "smart", "in-order", "random", "look-alikes"
DISAGREE, MODEL, UNSURE, SKIPPED = "disagree", "model", "unsure", "skipped"
SECOND, SELF = "second", "self"
STRATEGIES = (
    SMART, IN_ORDER, RANDOM, LOOK_ALIKES, DISAGREE, MODEL, UNSURE, SKIPPED, SECOND, SELF,
)  # fmt: skip
UNLABELLED = ImageFilter(state="unlabelled")

# Label events of images that were drawn evenly at random have an `action` that begins with this
# (the browser writes it). Figures from them alone say how a model does on the images as they are:
# all other images of the queue were chosen because they are hard, or unlike the rest.
RANDOM_ACTION = "random-"

# where the decision is not an ordinary label, what its event is stored as
SOURCES = {DISAGREE: "adjudication", SECOND: "second", SELF: "self"}


@dataclass(frozen=True)
class Wish:
    """What somebody asks for. `seed` orders what is drawn; `class_id`: whose look-alikes."""

    project_id: int
    annotator: str = ""
    strategy: str = SMART
    class_id: int | None = None
    seed: int = 0
    filter: ImageFilter = UNLABELLED

    def __post_init__(self) -> None:
        if self.strategy not in STRATEGIES:
            raise InvalidInputError(
                f"The queue knows no order “{self.strategy}”.",
                "",
                f"Choose one of: {', '.join(STRATEGIES)}.",
            )
        if self.strategy == LOOK_ALIKES and self.class_id is None:
            raise InvalidInputError("Look-alikes of which class?", "", "Name a class.")
        if self.filter.state not in STATES:
            raise InvalidInputError(
                f"There is no image state “{self.filter.state}”.",
                "",
                f"Choose one of: {', '.join(STATES)}.",
            )

    @property
    def is_plain(self) -> bool:
        """Whether it is about all images without a label."""
        return self.filter == UNLABELLED


def open_ids(session: Session, wish: Wish, image_ids: Iterable[int]) -> set[int]:
    """Return those of these images that are still to be done for who asks."""
    conditions = to_do(session, wish)
    found: set[int] = set()
    for part in chunks(sorted(set(image_ids))):
        found.update(session.scalars(select(Image.id).where(Image.id.in_(part), *conditions)))
    return found


def to_do(session: Session, wish: Wish) -> list[ColumnElement[bool]]:
    """Return the conditions on `Image` of what is still to be done for who asks."""
    mine = [Image.project_id == wish.project_id, Image.status == wish.filter.status]
    if wish.strategy == DISAGREE:
        apart = or_(Image.disputed, Image.current_state == "undecided")
        return [*mine, apart, func.coalesce(Image.current_source, "") != "adjudication"]
    if wish.strategy == MODEL:
        return [*mine, Image.current_state == "label"]
    if wish.strategy in (UNSURE, SKIPPED):
        return [*mine, Image.current_state == ("skip" if wish.strategy == SKIPPED else "unsure")]
    if wish.strategy in (SECOND, SELF):
        return [*mine, _wanted_again(wish)]
    if wish.filter.own is not None:  # nobody else counts; `filtered_ids` knows the rest
        unlabelled = wish.filter.state == "unlabelled"
        return [*mine, ~_said(wish.filter.own)] if unlabelled else mine
    if wish.filter.state == "unlabelled":
        return [*mine, Image.current_state.in_(open_states(session, wish)), ~_said(wish.annotator)]
    state = STATES[wish.filter.state]
    return mine if state is None else [*mine, Image.current_state == state]


def open_states(session: Session, wish: Wish) -> list[str]:
    """Return the states of images without a label: where votes count, also those short of them."""
    voting = consensus_rule(session, wish.project_id).kind == "majority"
    return ["none", "waiting", "undecided"] if voting else ["none"]


def _said(annotator: str) -> ColumnElement[bool]:
    """Return the condition that somebody has said what an image is."""
    return exists(
        select(AnnotatorLabel.image_id).where(
            AnnotatorLabel.image_id == Image.id, AnnotatorLabel.annotator == annotator
        )
    )


def _wanted_again(wish: Wish) -> ColumnElement[bool]:
    """Return the condition that this person is to read an image again."""
    asked = aliased(Reading)  # the caller may select from the table too
    to_me = asked.wanted_from == wish.annotator
    if wish.strategy == SECOND:  # for anybody: who has read the image is no second reader
        to_me = or_(to_me, asked.wanted_from.is_(None) & ~_said(wish.annotator))
    return exists(
        select(asked.id).where(
            asked.image_id == Image.id,
            asked.project_id == wish.project_id,
            asked.done_event.is_(None),
            asked.kind == wish.strategy,
            to_me,
        )
    )


def filtered_ids(session: Session, wish: Wish, most: int | None = None) -> list[int]:
    """Return the ids that the filter lets through, ascending; not yet asked whether to be done.

    `most` of each state, the first ones.
    """
    limit = 2**31 if most is None else most
    if wish.filter.state != "unlabelled" or wish.filter.own is not None:
        return page_of_ids(session, wish.project_id, wish.filter, Span(), limit)
    found: list[int] = []
    for state in open_states(session, wish):
        name = "unlabelled" if state == "none" else state
        asked = replace(wish.filter, state=name)
        found += page_of_ids(session, wish.project_id, asked, Span(), limit)
    return sorted(found)


def in_turn(session: Session, wish: Wish, most: int) -> list[int]:
    """Return the first images of an order that the database knows: of all that are not drawn."""
    if wish.strategy == IN_ORDER:
        ids = filtered_ids(session, wish, most)
        still = open_ids(session, wish, ids)
        return [i for i in ids if i in still]
    if wish.strategy in (SECOND, SELF):
        return _to_read_again(session, wish, most)
    if wish.strategy == MODEL:
        return _where_the_model_differs(session, wish, most)
    statement = select(Image.id).where(*to_do(session, wish)).limit(most)
    return list(session.scalars(statement.order_by(Image.current_event_id, Image.id)))


def _to_read_again(session: Session, wish: Wish, most: int) -> list[int]:
    """Return the images to read again, in the order in which that was asked for."""
    rows = session.scalars(
        select(Reading.image_id)
        .join(Image, Image.id == Reading.image_id)
        .where(
            Reading.project_id == wish.project_id,
            Reading.done_event.is_(None),
            Reading.kind == wish.strategy,
            *to_do(session, wish),
        )
        .order_by(Reading.id)
        .limit(2 * most)
    )
    return list(dict.fromkeys(rows))[:most]


def _where_the_model_differs(session: Session, wish: Wish, most: int) -> list[int]:
    """Return labelled images that the model, not trained on them, calls otherwise; worst first.

    An image that somebody labelled since the model was made has been looked at: it is left out.
    """
    run = session.scalars(
        select(SuggestionRun)
        .where(SuggestionRun.project_id == wish.project_id, SuggestionRun.seconds >= 0)
        .order_by(SuggestionRun.id.desc())
        .limit(1)
    ).first()
    if run is None:
        return []
    meanings = class_meanings(session, wish.project_id)
    rows = session.execute(
        select(Image.id, Image.current_class_id, Suggestion.class_id)
        .join(Suggestion, Suggestion.image_id == Image.id)
        .where(
            Suggestion.project_id == wish.project_id,
            Suggestion.loss.is_not(None),
            Suggestion.class_id != Image.current_class_id,
            Image.current_event_id <= run.newest_event,
            *to_do(session, wish),
        )
        .order_by(Suggestion.loss.desc(), Image.id)
    )
    found: list[int] = []
    for image_id, label, guess in rows:
        if meanings.get(guess, guess) not in (None, label):
            found.append(image_id)
        if len(found) == most:
            break
    return found
