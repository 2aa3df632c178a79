"""Indexes of looks with known contents, for tests and benchmarks."""

from __future__ import annotations

from typing import Any

import numpy as np
from sqlalchemy import select

from cnsapp.services.looks_files import sign_of, write_index
from db.models import Image
from db.session import Store


def unit_rows(n: int, d: int = 16, k: int = 5, seed: int = 0, noise: float = 0.4) -> Any:
    """Return rows (n, d) of length 1 around `k` middles, and the middle of each."""
    rng = np.random.default_rng(seed)
    kind = rng.integers(0, k, n)
    rows = rng.normal(size=(k, d))[kind] + noise * rng.normal(size=(n, d))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32), kind


def index_of(
    store: Store,
    project_id: int,
    rows: Any,
    *,
    clusters: Any = None,
    ratio: Any = None,
    places: Any = None,
    unread: tuple[int, ...] = (),
    leave_out: tuple[int, ...] = (),
) -> list[int]:
    """Write an index of a project's images, whose rows are these in the order of their ids."""
    with store.reading() as session:
        found = session.execute(
            select(Image.id, Image.sha256, Image.seen)
            .where(Image.project_id == project_id)
            .order_by(Image.id)
        ).all()
    found = [row for row in found if row[0] not in (*leave_out, *unread)]
    n = len(found)
    given = np.zeros(n, np.int32) if clusters is None else np.asarray(clusters, np.int32)[:n]
    ids = np.array([row[0] for row in found], np.int64)
    write_index(
        store,
        project_id=project_id,
        arrays={
            "ids": ids,
            "signs": np.array([sign_of(sha, seen) for _, sha, seen in found], np.int64),
            "rows": np.asarray(rows, np.float32)[:n],
            "clusters": given,
            "ratio": np.asarray(np.linspace(0, 0.9, n) if ratio is None else ratio, np.float32)[:n],
            "places": np.asarray(rows[:, :2] if places is None else places, np.float32)[:n],
            "unread": np.array(unread, np.int64),
        },
        facts={"map_method": "umap"},
    )
    return [int(i) for i in ids]
