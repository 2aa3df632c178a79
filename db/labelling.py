"""The tables of labelling: classes, label events, and what is derived from them or kept beside."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, ForeignKey, Index, String, Text, UniqueConstraint, true
from sqlalchemy.orm import Mapped, mapped_column

from db.base import Base
from db.types import utc_now


class LabelClass(Base):
    """A class. Its id never changes and is never used again; all else may change, by events.

    A class that was merged or deleted stays as a row with `active` false: labels name it, and so do
    models. Its labels count for `merged_into`, or for no class when that is empty; the `name_key`
    of such a row is made up, so that its name is free again.
    """

    __tablename__ = "label_class"
    __table_args__ = (UniqueConstraint("project_id", "name_key"), {"sqlite_autoincrement": True})

    id: Mapped[int] = mapped_column(primary_key=True)
    project_id: Mapped[int] = mapped_column(ForeignKey("project.id"), index=True)
    name: Mapped[str] = mapped_column(String(200))
    name_key: Mapped[str] = mapped_column(String(200))
    parent: Mapped[str | None] = mapped_column(String(200))  # the organ system, in plain words
    color: Mapped[str] = mapped_column(String(9))
    hotkey: Mapped[str | None] = mapped_column(String(8))  # one key, or two one after the other
    position: Mapped[int]
    description: Mapped[str] = mapped_column(Text, default="", server_default="")
    active: Mapped[bool] = mapped_column(default=True, server_default=true())
    merged_into: Mapped[int | None] = mapped_column(ForeignKey("label_class.id"))


class ClassEvent(Base):
    """A change of the classes, with who and when. Appended, never changed; an undo names another.

    `details` holds the rows as they were and became: {"before": {id: …}, "after": {id: …}}.
    """

    __tablename__ = "class_event"
    __table_args__ = (
        Index("ix_class_event_project", "project_id", "id"),
        Index("ix_class_event_target", "target_id"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    project_id: Mapped[int] = mapped_column(ForeignKey("project.id"))
    class_id: Mapped[int | None] = mapped_column(ForeignKey("label_class.id"))
    kind: Mapped[str] = mapped_column(
        String(12)
    )  # added | changed | ordered | merged | deleted | split | undo | redo
    who: Mapped[str] = mapped_column(String(200))
    details: Mapped[dict[str, Any]] = mapped_column(default=dict)
    action: Mapped[str] = mapped_column(String(80), default="")  # of label events that belong to it
    target_id: Mapped[int | None] = mapped_column(ForeignKey("class_event.id"))
    created_at: Mapped[datetime] = mapped_column(default=utc_now)


class LabelEvent(Base):
    """One act of labelling. Appended and never changed; undo is an event that names its target.

    An event is void while the newest undo or redo that names it is an undo. `client` and `seq` come
    from whoever labelled and are unique together, so that sending the same event twice stores it
    once. Events of one action (one key on a selection) share `action`.
    """

    __tablename__ = "label_event"
    __table_args__ = (
        UniqueConstraint("client", "seq"),
        Index("ix_label_event_image", "image_id", "id"),
        Index("ix_label_event_target", "target_id"),
        Index("ix_label_event_annotator", "project_id", "annotator", "id"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    project_id: Mapped[int] = mapped_column(ForeignKey("project.id"))
    image_id: Mapped[int] = mapped_column(ForeignKey("image.id"))
    class_id: Mapped[int | None] = mapped_column(ForeignKey("label_class.id"))
    annotator: Mapped[str] = mapped_column(String(200))
    kind: Mapped[str] = mapped_column(String(12))  # label | skip | unsure | clear | undo | redo
    # human | bulk | suggestion | import | review | second | self | adjudication
    source: Mapped[str] = mapped_column(String(12))
    client: Mapped[str] = mapped_column(String(64))
    seq: Mapped[int] = mapped_column(BigInteger)
    action: Mapped[str] = mapped_column(String(80))
    target_id: Mapped[int | None] = mapped_column(
        ForeignKey("label_event.id")
    )  # what an undo voids, and a redo restores
    created_at: Mapped[datetime] = mapped_column(default=utc_now)


class AnnotatorLabel(Base):
    """What one person says of an image now: their latest event that is not void.

    Derived by `db.deciding.refresh_current`, like `Image.current_*`. `class_id` is the class as it
    was labelled, also when that class has been merged into another one since.
    """

    __tablename__ = "annotator_label"
    __table_args__ = (
        Index("ix_annotator_label_who", "project_id", "annotator", "state", "class_id", "image_id"),
        Index("ix_annotator_label_class", "class_id", "image_id"),
    )

    image_id: Mapped[int] = mapped_column(ForeignKey("image.id"), primary_key=True)
    annotator: Mapped[str] = mapped_column(String(200), primary_key=True)
    project_id: Mapped[int] = mapped_column(ForeignKey("project.id"))
    state: Mapped[str] = mapped_column(String(12))  # label | skip | unsure
    class_id: Mapped[int | None] = mapped_column(ForeignKey("label_class.id"))
    source: Mapped[str] = mapped_column(String(12))
    event_id: Mapped[int]


class ImageTag(Base):
    """A word that somebody put on an image; who and when stands in `image_event`."""

    __tablename__ = "image_tag"
    __table_args__ = (Index("ix_image_tag_image", "image_id"),)

    project_id: Mapped[int] = mapped_column(ForeignKey("project.id"), primary_key=True)
    tag: Mapped[str] = mapped_column(String(60), primary_key=True)
    image_id: Mapped[int] = mapped_column(ForeignKey("image.id"), primary_key=True)


class SuggestionRun(Base):
    """One refresh of the suggestions: from how many labels, and how good its guesses are.

    `figures` come from images that the guess was not made from (out of fold). The runs of a project
    are its learning curve. One whose guesses are still being written has `seconds` below 0.
    """

    __tablename__ = "suggestion_run"
    __table_args__ = (Index("ix_suggestion_run_project", "project_id", "id"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    project_id: Mapped[int] = mapped_column(ForeignKey("project.id"))
    job_id: Mapped[int | None] = mapped_column(ForeignKey("job.id"))
    n_labels: Mapped[int]
    n_images: Mapped[int]
    newest_event: Mapped[int]  # the newest label event that it knew
    class_ids: Mapped[list[Any]] = mapped_column(default=list)
    figures: Mapped[dict[str, Any]] = mapped_column(default=dict)
    seconds: Mapped[float] = mapped_column(default=0.0)
    created_at: Mapped[datetime] = mapped_column(default=utc_now)


class Suggestion(Base):
    """What the newest quick model thinks an image is; of labelled images, out of fold."""

    __tablename__ = "suggestion"
    __table_args__ = (
        Index("ix_suggestion_margin", "project_id", "margin", "image_id"),
        Index("ix_suggestion_class", "project_id", "class_id", "confidence", "image_id"),
        Index("ix_suggestion_confidence", "project_id", "confidence", "image_id"),
        Index("ix_suggestion_loss", "project_id", "loss", "image_id"),
    )

    image_id: Mapped[int] = mapped_column(ForeignKey("image.id"), primary_key=True)
    project_id: Mapped[int] = mapped_column(ForeignKey("project.id"))
    run_id: Mapped[int] = mapped_column(ForeignKey("suggestion_run.id"))
    class_id: Mapped[int] = mapped_column(ForeignKey("label_class.id"))
    confidence: Mapped[float]  # calibrated probability of the class, 0 to 1
    margin: Mapped[float]  # that, less the second best class's
    loss: Mapped[float | None]  # -log of the probability of the label it had then
    top: Mapped[list[Any]] = mapped_column(default=list)  # [[class id, probability], …] at most 3


class Lease(Base):
    """An image that somebody has been handed and will label in the next minutes."""

    __tablename__ = "lease"
    __table_args__ = (Index("ix_lease_project", "project_id", "until"),)

    image_id: Mapped[int] = mapped_column(ForeignKey("image.id"), primary_key=True)
    project_id: Mapped[int] = mapped_column(ForeignKey("project.id"))
    holder: Mapped[str] = mapped_column(String(200))
    until: Mapped[datetime]


class Reading(Base):
    """A wish that an image be read again: by somebody else, or blindly by who labelled it."""

    __tablename__ = "second_reading"
    __table_args__ = (
        Index("ix_second_reading_todo", "project_id", "done_event", "id"),
        Index("ix_second_reading_image", "image_id"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    project_id: Mapped[int] = mapped_column(ForeignKey("project.id"))
    image_id: Mapped[int] = mapped_column(ForeignKey("image.id"))
    kind: Mapped[str] = mapped_column(String(12))  # second | self
    wanted_from: Mapped[str | None] = mapped_column(String(200))  # None: anybody who has not yet
    first_event: Mapped[int | None]  # the label it is compared with
    done_event: Mapped[int | None]  # the label that answered it
    asked_by: Mapped[str] = mapped_column(String(200))
    created_at: Mapped[datetime] = mapped_column(default=utc_now)
