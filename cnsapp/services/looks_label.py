"""Label the clear images of a cluster as one action, and take such an action back."""

from __future__ import annotations

import time
import uuid

from sqlalchemy import select

from cnsapp.domain.labels import TAKES_BACK, clean_annotator, read_key
from cnsapp.errors import InvalidInputError, NotFoundError
from cnsapp.services import bulk, labels
from cnsapp.services.bulk import BulkReceipt
from cnsapp.services.looks_clusters import cluster_images
from cnsapp.services.looks_files import get_index
from db.models import LabelEvent
from db.session import Store

CLEAR_ACTION = "looks-"  # how its actions begin: suggestions are not judged by these images
PART = 500  # labels taken back in one transaction


def label_clear(
    store: Store,
    *,
    project_id: int,
    annotator: str,
    version: str,
    cluster_id: int,
    class_id: int,
    also_labelled: bool = False,
    action: str | None = None,
) -> BulkReceipt:
    """Give the clear images of a cluster a class; those that somebody looked at only if asked.

    Parameters
    ----------
    version
        Of the index that was looked at: in another one this cluster holds other images.
    action
        Sent again with the same name, it stores only what is missing.

    Raises
    ------
    NotFoundError
        The images were sorted anew meanwhile, or there is no such cluster.
    InvalidInputError
        Nobody is named, the class is not of the project, or `action` is no name.
    """
    name = action or f"{CLEAR_ACTION}{uuid.uuid4().hex}"
    try:
        read_key({"client": name, "seq": 1})
        if not name.startswith(CLEAR_ACTION):
            raise ValueError(name)
    except ValueError as error:
        raise InvalidInputError(
            f"“{name[:40]}” is no name of an action.", "Nobody could take it back."
        ) from error
    if get_index(store, project_id=project_id).version != version:
        raise NotFoundError(
            "The images were sorted anew meanwhile: this cluster holds other images now.",
            "Nothing was labelled.",
            "Reload the page, and choose again.",
        )
    ids = cluster_images(
        store, project_id=project_id, cluster_id=cluster_id, clear_only=True,
        unlabelled_only=not also_labelled,
    )  # fmt: skip
    if not ids:
        return BulkReceipt(name, 0, 0)
    return bulk.label_images(
        store, project_id=project_id, annotator=annotator, image_ids=ids, class_id=class_id,
        source="bulk", action=name,
    )  # fmt: skip


def take_back(
    store: Store, *, project_id: int, annotator: str, action: str, name: str | None = None
) -> int:
    """Take back what this person labelled in one action; return of how many images.

    An event for each image, in short transactions. `name` is of the taking back itself: sent again
    with the same one, it stores only what is missing.

    Raises
    ------
    NotFoundError
        This person did nothing by that name.
    InvalidInputError
        `name` is none that a sender may have.
    """
    who = clean_annotator(annotator)
    with store.reading() as session:
        done = session.execute(
            select(LabelEvent.image_id, LabelEvent.client, LabelEvent.seq)
            .where(
                LabelEvent.project_id == project_id,
                LabelEvent.annotator == who,
                LabelEvent.action == action,
                LabelEvent.kind.not_in(TAKES_BACK),
            )
            .order_by(LabelEvent.image_id)
        ).all()
    if not done:
        raise NotFoundError(
            "There is nothing of yours by this name to take back.", "", "Press U in a grid instead."
        )
    client = name or f"undo-{uuid.uuid4().hex}"
    n = 0
    for start in range(0, len(done), PART):
        if start:
            time.sleep(bulk.PAUSE)
        receipt = labels.record_events(
            store,
            project_id=project_id,
            annotator=who,
            events=[
                {"client": client, "seq": image, "image_id": image, "kind": "undo",
                 "source": "bulk", "action": client, "target": {"client": sender, "seq": seq}}
                for image, sender, seq in done[start : start + PART]
            ],
        )  # fmt: skip
        if receipt.rejected:
            raise InvalidInputError(
                f"The labels of {len(receipt.rejected):,} images could not be taken back.",
                receipt.rejected[0].reason,
                "Press U in a grid instead.",
            )
        n += len(receipt.acked)
    return n
