"""Who labels in a project."""

from __future__ import annotations

from sqlalchemy import func, select

from db.models import LabelEvent
from db.session import Store

MACHINES = ("import", "demo")  # names that imports sign with


def list_annotators(store: Store, *, project_id: int, limit: int = 50) -> list[str]:
    """Return the people who have labelled in a project, by name."""
    found: list[str] = []
    last = ""
    with store.reading() as session:
        while len(found) < limit:  # hops from name to name in the index, however many the events
            name = session.scalar(
                select(func.min(LabelEvent.annotator)).where(
                    LabelEvent.project_id == project_id, LabelEvent.annotator > last
                )
            )
            if name is None:
                break
            found.append(name)
            last = name
    return [name for name in found if name not in MACHINES]
