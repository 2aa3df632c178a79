"""The tables. Labels are events, appended and never changed; the current label is derived.

Those of labelling itself stand in `db.labelling`; import them from here.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, ForeignKey, Index, String, Text, UniqueConstraint, false, true
from sqlalchemy.orm import Mapped, mapped_column

from db.base import Base as Base
from db.labelling import AnnotatorLabel as AnnotatorLabel
from db.labelling import ClassEvent as ClassEvent
from db.labelling import ImageTag as ImageTag
from db.labelling import LabelClass as LabelClass
from db.labelling import LabelEvent as LabelEvent
from db.labelling import Lease as Lease
from db.labelling import Reading as Reading
from db.labelling import Suggestion as Suggestion
from db.labelling import SuggestionRun as SuggestionRun
from db.types import utc_now


class Project(Base):
    """A set of images with one class scheme; `settings` holds its reading rule and label rule."""

    __tablename__ = "project"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(200))
    name_key: Mapped[str] = mapped_column(String(200), unique=True)  # folded, so "A" and "a " clash
    settings: Mapped[dict[str, Any]] = mapped_column(default=dict)
    created_at: Mapped[datetime] = mapped_column(default=utc_now)


class Image(Base):
    """An image of a project: its bytes' SHA-256, where they lie, and what they are called now.

    The same bytes may stand under several names of one import; they are stored, thumbnailed and
    learnt from once (ADR 3).

    `current_*` are derived from the label events by `db.deciding.refresh_current`, in the
    transaction that appends the events, so that a grid of a million images filters quickly.
    """

    __tablename__ = "image"
    __table_args__ = (
        UniqueConstraint("project_id", "sha256", "file_name"),
        Index("ix_image_browse", "project_id", "status", "current_state", "current_class_id", "id"),
        # these two carry the name, so that searching it in the order of ids never touches the rows
        Index("ix_image_state", "project_id", "status", "current_state", "id", "file_name"),
        Index("ix_image_page", "project_id", "status", "id", "file_name"),
        Index(
            "ix_image_learn",  # the groups of each class, jumping: db.queries.groups_among
            "project_id",
            "status",
            "current_state",
            "current_class_id",
            "group_key",
        ),
        Index("ix_image_group", "project_id", "status", "group_key", "id"),
        Index("ix_image_annotator", "project_id", "status", "current_annotator", "id"),
        Index("ix_image_name", "project_id", "file_name", "id"),
        Index("ix_image_slide", "slide_id", "id"),
        Index("ix_image_disputed", "project_id", "status", "disputed", "id"),
        Index("ix_image_source", "project_id", "status", "current_source", "id"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    project_id: Mapped[int] = mapped_column(ForeignKey("project.id"))
    sha256: Mapped[str] = mapped_column(String(64), index=True)
    file_name: Mapped[str] = mapped_column(Text)  # relative to the imported folder, as found
    width: Mapped[int]
    height: Mapped[int]
    group_key: Mapped[str | None] = mapped_column(String(400))
    # ok | missing | changed | excluded; changed by `db.queries.set_status` alone, with an event
    status: Mapped[str] = mapped_column(String(20), default="ok")
    stored_path: Mapped[str] = mapped_column(
        Text
    )  # relative to the data folder; absolute if linked
    linked: Mapped[bool] = mapped_column(default=False)
    n_bytes: Mapped[int] = mapped_column(BigInteger)
    facts: Mapped[dict[str, Any]] = mapped_column(default=dict)  # format, bit depth, pages, notes
    # how the project's reading rule touched the file when its thumbnail was made (ReadingRule.seen)
    seen: Mapped[str] = mapped_column(String(40), default="", server_default="")
    created_at: Mapped[datetime] = mapped_column(default=utc_now)

    # where the file was found, to notice that it changed there and to find it when it moved
    source_path: Mapped[str | None] = mapped_column(Text)
    source_mtime_ns: Mapped[int | None] = mapped_column(BigInteger)

    # a tile of a whole slide: its place there, in pixels of the slide's finest level
    slide_id: Mapped[int | None] = mapped_column(ForeignKey("slide.id"))
    tile_x: Mapped[int | None]
    tile_y: Mapped[int | None]
    tile_side: Mapped[int | None]

    # none | label | skip | unsure; where readings are voted on, waiting | undecided too
    current_state: Mapped[str] = mapped_column(String(12), default="none")
    current_class_id: Mapped[int | None] = mapped_column(ForeignKey("label_class.id"))
    current_event_id: Mapped[int | None]
    current_annotator: Mapped[str | None] = mapped_column(String(200))  # None without a label
    current_source: Mapped[str | None] = mapped_column(String(12))  # of the deciding event
    readers: Mapped[int] = mapped_column(default=0, server_default="0")  # people who gave a class
    disputed: Mapped[bool] = mapped_column(default=False, server_default=false())  # they differ


class Slide(Base):
    """A whole slide that tiles were cut from; `settings` says how they were cut."""

    __tablename__ = "slide"
    __table_args__ = (UniqueConstraint("project_id", "sha256"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    project_id: Mapped[int] = mapped_column(ForeignKey("project.id"))
    sha256: Mapped[str] = mapped_column(String(64))
    file_name: Mapped[str] = mapped_column(Text)
    stored_path: Mapped[str] = mapped_column(Text)  # absolute: slides are linked, never copied
    n_bytes: Mapped[int] = mapped_column(BigInteger)
    width: Mapped[int]
    height: Mapped[int]
    um_per_px: Mapped[float | None]
    group_key: Mapped[str | None] = mapped_column(String(400))
    n_tiles: Mapped[int] = mapped_column(default=0)
    facts: Mapped[dict[str, Any]] = mapped_column(default=dict)
    settings: Mapped[dict[str, Any]] = mapped_column(default=dict)
    created_at: Mapped[datetime] = mapped_column(default=utc_now)


class ImageEvent(Base):
    """What happened to an image beside its labels, with who and when. Appended, never changed."""

    __tablename__ = "image_event"
    __table_args__ = (
        Index("ix_image_event_image", "image_id", "id"),
        Index("ix_image_event_project", "project_id", "id"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    project_id: Mapped[int] = mapped_column(ForeignKey("project.id"))
    image_id: Mapped[int] = mapped_column(ForeignKey("image.id"))
    # excluded | restored | missing | changed | found | moved | grouped | apart | fine |
    # note | tagged | untagged
    kind: Mapped[str] = mapped_column(String(12))
    who: Mapped[str] = mapped_column(String(200))
    reason: Mapped[str] = mapped_column(Text, default="")
    details: Mapped[dict[str, Any]] = mapped_column(default=dict)
    created_at: Mapped[datetime] = mapped_column(default=utc_now)


class ImageMeta(Base):
    """What a table of the lab says of an image beside its label: one row a column."""

    __tablename__ = "image_meta"
    __table_args__ = (
        Index("ix_image_meta_value", "project_id", "key", "value", "image_id"),
        Index("ix_image_meta_number", "project_id", "key", "number", "image_id"),
        # in the order of the images, so that a page of a wide range of numbers is read from it
        Index("ix_image_meta_walk", "project_id", "key", "image_id", "number"),
    )

    image_id: Mapped[int] = mapped_column(ForeignKey("image.id"), primary_key=True)
    key: Mapped[str] = mapped_column(String(100), primary_key=True)
    project_id: Mapped[int] = mapped_column(ForeignKey("project.id"))
    value: Mapped[str] = mapped_column(String(400))
    number: Mapped[float | None]  # the value, where it is a number


class ImageQuality(Base):
    """What was measured of an image's pixels, for finding duplicates and bad pictures."""

    __tablename__ = "image_quality"
    __table_args__ = (Index("ix_image_quality_project", "project_id", "image_id"),)

    image_id: Mapped[int] = mapped_column(ForeignKey("image.id"), primary_key=True)
    project_id: Mapped[int] = mapped_column(ForeignKey("project.id"))
    seen: Mapped[str] = mapped_column(String(40), default="")  # as image.seen when it was measured
    measures: Mapped[dict[str, Any]] = mapped_column(default=dict)
    signature: Mapped[bytes | None]  # for near duplicates
    compared: Mapped[bool] = mapped_column(default=False)  # with all others, for near duplicates


class ImageFlag(Base):
    """A reason to look at an image: blurred, empty and so on; derived from its quality."""

    __tablename__ = "image_flag"
    __table_args__ = (Index("ix_image_flag_image", "image_id"),)

    project_id: Mapped[int] = mapped_column(ForeignKey("project.id"), primary_key=True)
    kind: Mapped[str] = mapped_column(String(20), primary_key=True)
    image_id: Mapped[int] = mapped_column(ForeignKey("image.id"), primary_key=True)
    score: Mapped[float] = mapped_column(default=0.0)
    answer: Mapped[str] = mapped_column(String(12), default="")  # "" | fine: somebody looked at it


class NearPair(Base):
    """Two images that look the same; `answer` is what somebody decided about them."""

    __tablename__ = "near_pair"
    __table_args__ = (Index("ix_near_pair_project", "project_id", "answer", "similarity"),)

    image_a: Mapped[int] = mapped_column(ForeignKey("image.id"), primary_key=True)
    image_b: Mapped[int] = mapped_column(ForeignKey("image.id"), primary_key=True)
    project_id: Mapped[int] = mapped_column(ForeignKey("project.id"))
    similarity: Mapped[float]  # 1: the same bytes
    answer: Mapped[str] = mapped_column(String(12), default="")  # "" | kept_one | grouped | apart


class WatchedFolder(Base):
    """A folder that an instrument writes into: new files are imported as they appear."""

    __tablename__ = "watched_folder"
    __table_args__ = (UniqueConstraint("project_id", "path"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    project_id: Mapped[int] = mapped_column(ForeignKey("project.id"))
    path: Mapped[str] = mapped_column(Text)
    settings: Mapped[dict[str, Any]] = mapped_column(default=dict)  # as the payload of an import
    active: Mapped[bool] = mapped_column(default=True)
    state: Mapped[dict[str, Any]] = mapped_column(default=dict)  # what the last look found
    created_by: Mapped[str] = mapped_column(String(200), default="")
    created_at: Mapped[datetime] = mapped_column(default=utc_now)
    looked_at: Mapped[datetime | None]


class Tally(Base):
    """Counts that are shown on every screen, kept in step with the rows instead of being computed.

    Keys: ``images``, ``state:label``, ``state:skip``, ``state:unsure``, ``class:<id>``.
    """

    __tablename__ = "tally"

    project_id: Mapped[int] = mapped_column(ForeignKey("project.id"), primary_key=True)
    key: Mapped[str] = mapped_column(String(40), primary_key=True)
    n: Mapped[int] = mapped_column(default=0)


class Worker(Base):
    """A worker process and its pulse."""

    __tablename__ = "worker"

    id: Mapped[str] = mapped_column(String(120), primary_key=True)
    host: Mapped[str] = mapped_column(String(200))
    pid: Mapped[int]
    device: Mapped[str] = mapped_column(String(200))
    started_at: Mapped[datetime] = mapped_column(default=utc_now)
    heartbeat_at: Mapped[datetime] = mapped_column(default=utc_now)


class Job(Base):
    """Long work done by a worker: what was asked for, how far it is, how it ended."""

    __tablename__ = "job"
    __table_args__ = (
        Index("ix_job_state", "state", "id"),
        Index("ix_job_project", "project_id", "id"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    project_id: Mapped[int | None] = mapped_column(ForeignKey("project.id"))
    kind: Mapped[str] = mapped_column(
        String(20)
    )  # import | features | train | predict | explain | demo
    state: Mapped[str] = mapped_column(String(12), default="queued")
    progress: Mapped[float] = mapped_column(default=0.0)  # 0 to 1
    message: Mapped[str] = mapped_column(Text, default="")
    error: Mapped[str | None] = mapped_column(Text)
    payload: Mapped[dict[str, Any]] = mapped_column(default=dict)
    result: Mapped[dict[str, Any]] = mapped_column(default=dict)
    cancel_requested: Mapped[bool] = mapped_column(default=False)
    requested_by: Mapped[str] = mapped_column(String(200), default="")
    worker_id: Mapped[str | None] = mapped_column(String(120))
    starts: Mapped[int] = mapped_column(default=0)  # since its last finished step; many = it kills
    # wished by the user: a running job stops at its next pause and waits in the queue, unhanded
    paused: Mapped[bool] = mapped_column(default=False, server_default=false())
    created_at: Mapped[datetime] = mapped_column(default=utc_now)
    started_at: Mapped[datetime | None]
    heartbeat_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]


class JobPoint(Base):
    """One line of a job's log or one point of its curve."""

    __tablename__ = "job_point"
    __table_args__ = (Index("ix_job_point_job", "job_id", "id"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    job_id: Mapped[int] = mapped_column(ForeignKey("job.id"))
    at: Mapped[datetime] = mapped_column(default=utc_now)
    message: Mapped[str] = mapped_column(Text, default="")
    values: Mapped[dict[str, Any]] = mapped_column(default=dict)


class DataSplit(Base):
    """A division of a project's images into parts, stored by image; the test set is locked.

    One of a project is `active`: training follows it. `scheme` says what is kept together (`by
    group`, `by file-name blocks`, `random`, `by column`), `settings` how it was made.
    """

    __tablename__ = "data_split"
    __table_args__ = (Index("ix_data_split_project", "project_id", "id"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    project_id: Mapped[int] = mapped_column(ForeignKey("project.id"))
    name: Mapped[str] = mapped_column(String(200))
    scheme: Mapped[str] = mapped_column(String(40))
    seed: Mapped[int] = mapped_column(default=0)
    settings: Mapped[dict[str, Any]] = mapped_column(default=dict)
    active: Mapped[bool] = mapped_column(default=True, server_default=true())
    created_by: Mapped[str] = mapped_column(String(200), default="")
    created_at: Mapped[datetime] = mapped_column(default=utc_now)


class SplitMember(Base):
    """Which part of a split an image belongs to: train, validation or test."""

    __tablename__ = "split_member"
    __table_args__ = (
        Index("ix_split_member_part", "split_id", "part", "image_id"),
        Index("ix_split_member_image", "image_id"),
    )

    split_id: Mapped[int] = mapped_column(ForeignKey("data_split.id"), primary_key=True)
    image_id: Mapped[int] = mapped_column(ForeignKey("image.id"), primary_key=True)
    part: Mapped[str] = mapped_column(String(12))  # train | validation | test
    pinned: Mapped[bool] = mapped_column(default=False, server_default=false())
    added_at: Mapped[datetime] = mapped_column(default=utc_now)


class SplitUse(Base):
    """A look at a locked test set: every one makes its score a little less worth. Appended."""

    __tablename__ = "split_use"
    __table_args__ = (Index("ix_split_use_split", "split_id", "id"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    split_id: Mapped[int] = mapped_column(ForeignKey("data_split.id"))
    model_id: Mapped[int | None] = mapped_column(ForeignKey("model.id"))
    job_id: Mapped[int | None] = mapped_column(ForeignKey("job.id"))
    who: Mapped[str] = mapped_column(String(200), default="")
    purpose: Mapped[str] = mapped_column(String(200), default="")
    created_at: Mapped[datetime] = mapped_column(default=utc_now)


class Model(Base):
    """A trained model: its file, its figures, and the classes it knows by id."""

    __tablename__ = "model"

    id: Mapped[int] = mapped_column(primary_key=True)
    project_id: Mapped[int] = mapped_column(ForeignKey("project.id"), index=True)
    job_id: Mapped[int | None] = mapped_column(ForeignKey("job.id"))
    name: Mapped[str] = mapped_column(String(200))
    preset: Mapped[str] = mapped_column(String(20))
    backbone: Mapped[str] = mapped_column(String(100))
    path: Mapped[str] = mapped_column(Text)  # relative to the data folder
    sha256: Mapped[str] = mapped_column(String(64))
    metrics: Mapped[dict[str, Any]] = mapped_column(default=dict)
    class_ids: Mapped[list[Any]] = mapped_column(
        default=list
    )  # in the order of the model's outputs
    settings: Mapped[dict[str, Any]] = mapped_column(default=dict)
    created_at: Mapped[datetime] = mapped_column(default=utc_now)
    # false while its predictions are written, in many short transactions: nobody sees it yet
    ready: Mapped[bool] = mapped_column(default=True, server_default=true())
    note: Mapped[str] = mapped_column(Text, default="", server_default="")
    archived: Mapped[bool] = mapped_column(default=False, server_default=false())
    promoted_at: Mapped[datetime | None]  # the newest one is the project's current model
    split_id: Mapped[int | None] = mapped_column(ForeignKey("data_split.id"))  # it was trained by


class Prediction(Base):
    """What a model said of an image that it had not been trained on.

    `fold` is the fold whose training part excluded the image. `label_class_id` is the label at the
    time of training, `event_id` the event that set it: a later current event means "changed since".
    `part` says where the image stood: `fold` (held out of the model or fold that judged it) or
    `test` (of the locked test set). Figures never mix the two.
    """

    __tablename__ = "prediction"
    __table_args__ = (
        UniqueConstraint("model_id", "image_id"),
        Index(
            "ix_prediction_cell", "model_id", "part", "label_class_id", "class_id", "probability"
        ),
        Index("ix_prediction_image", "image_id"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    model_id: Mapped[int] = mapped_column(ForeignKey("model.id"))
    image_id: Mapped[int] = mapped_column(ForeignKey("image.id"))
    class_id: Mapped[int] = mapped_column(ForeignKey("label_class.id"))  # the predicted class
    probability: Mapped[float]  # of the predicted class
    fold: Mapped[int | None]
    probabilities: Mapped[list[Any]] = mapped_column(default=list)  # aligned with Model.class_ids
    label_class_id: Mapped[int | None] = mapped_column(ForeignKey("label_class.id"))
    event_id: Mapped[int | None]
    part: Mapped[str] = mapped_column(String(12), default="fold", server_default="fold")
