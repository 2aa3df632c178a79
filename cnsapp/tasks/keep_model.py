"""A model's way into the store: its file is whole before its rows, its rows before it is seen."""

from __future__ import annotations

import time
from typing import Any

from sqlalchemy import func, insert, select, update

from cnsapp.services.label_import import PAUSE
from cnsapp.services.models import discard_unready
from db.models import Model, Prediction
from db.queries import chunks
from db.session import Store


def find_result(store: Store, job_id: int) -> dict[str, Any] | None:
    """Return what a run that was killed after its last transaction had made, or None."""
    with store.reading() as session:
        row = session.execute(
            select(Model.id, Model.metrics).where(Model.job_id == job_id, Model.ready.is_(True))
        ).one_or_none()
    return None if row is None else {"model_id": row[0], "metrics": row[1]}


def record_model(store: Store, model: Model, rows: list[dict[str, Any]]) -> int | None:
    """Write predictions in short transactions, then let the model be seen; return its number.

    In one transaction 100,000 rows would hold up for seconds whoever labels meanwhile.
    """
    discard_unready(store, job_id=model.job_id or 0)
    with store.writing() as session:
        session.add(model)
        session.flush()
    for part in chunks(rows):
        with store.writing() as session:
            session.execute(insert(Prediction), [row | {"model_id": model.id} for row in part])
        time.sleep(PAUSE)
    seen = select(func.count()).select_from(Model).where(Model.ready.is_(True))
    with store.writing() as session:
        if not session.scalar(seen.where(Model.job_id == model.job_id)):
            n = session.scalar(seen.where(Model.project_id == model.project_id)) or 0
            session.execute(
                update(Model)
                .where(Model.id == model.id)
                .values(ready=True, name=model.name or f"{model.preset.capitalize()} {n + 1}")
            )
            return model.id
    discard_unready(store, job_id=model.job_id or 0)
    return None
