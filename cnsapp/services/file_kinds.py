"""Which kinds of files a project has, with their numbers: quick also of a million images.

Reading the facts of a million rows takes seconds. The answer is therefore kept in memory until
something changes, and in a small file that outlives the process, to which new rows are added.
The file is a cache: it is used only while it fits what the database says.
"""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sqlalchemy import ColumnElement, case, func, select
from sqlalchemy.orm import Session

from cnsapp.imaging.rule_changes import FileKind
from cnsapp.imaging.store import PART, own_name
from cnsapp.jobs.states import ACTIVE
from db.models import Image, Job, Project
from db.queries import read_tally
from db.session import Store

log = logging.getLogger(__name__)

READABLE = ("ok", "excluded")  # the status of images whose bytes are there and unchanged
LOST = ("missing", "changed")
REREAD = "reread"
FACTS = ("format", "samples", "bits", "pages", "channels", "alpha")
FORM = 1  # of the file; one of another form is not used
WORTH = 10  # while images are read again, an answer is good for so many times what it took

Kinds = dict[tuple[Any, ...], FileKind]


@dataclass(frozen=True)
class _Answer:
    """What was counted, and of which state of the database."""

    stamp: tuple[Any, ...]
    kinds: list[FileKind]
    good_until: float = 0.0  # while images are read again


_answers: dict[tuple[str, int], _Answer] = {}
_lock = threading.Lock()


def file_kinds(store: Store, *, project_id: int) -> list[FileKind]:
    """Return the kinds of files that a project has, with their numbers."""
    with store.reading() as session:
        stamp = _stamp(session, project_id)
        key = (str(store.engine.url), project_id)
        with _lock:
            known = _answers.get(key)
        if known is not None and (known.stamp == stamp or time.monotonic() < known.good_until):
            return known.kinds
        started = time.monotonic()
        kinds = _readable(store, session, project_id)
        took = time.monotonic() - started
        is_moving = isinstance(_reread_sign(session, project_id), tuple)
    until = time.monotonic() + WORTH * took if is_moving else 0.0
    with _lock:
        _answers[key] = _Answer(stamp, kinds, until)
    return kinds


def keep_kinds(store: Store, *, project_id: int, reread: int | None = None) -> None:
    """Bring the kept file up to date, so that the next one who asks need not wait.

    Parameters
    ----------
    reread
        The job that has just read images again and is about to end.
    """
    with store.reading() as session:
        if reread is None:
            _readable(store, session, project_id)
        else:
            _Kept(store, session, project_id, reread).count_all()


def _stamp(session: Session, project_id: int) -> tuple[Any, ...]:
    newest = session.scalar(select(func.max(Image.id)))  # of all projects: no row is looked at
    n_ok = read_tally(session, project_id).get("images", 0)
    return newest, n_ok, _reread_sign(session, project_id)


def _reread_sign(session: Session, project_id: int) -> int | tuple[int, float]:
    """Return the newest job that read images again; with its progress while it may still do so."""
    row = session.execute(
        select(Job.id, Job.state, Job.progress)
        .where(Job.project_id == project_id, Job.kind == REREAD)
        .order_by(Job.id.desc())
        .limit(1)
    ).one_or_none()
    if row is None:
        return 0
    return (row.id, row.progress) if row.state in ACTIVE else row.id


def _readable(store: Store, session: Session, project_id: int) -> list[FileKind]:
    """Return the kinds of the images whose bytes are there."""
    mine = Image.project_id == project_id
    by_status = dict(
        session.execute(
            select(Image.status, func.count())
            .where(mine, Image.status.in_((*LOST, "excluded")))
            .group_by(Image.status)
        ).all()
    )
    n_lost = sum(by_status.get(status, 0) for status in LOST)
    n_ok = read_tally(session, project_id).get("images", 0)
    n_readable = n_ok + by_status.get("excluded", 0)
    here = mine, Image.status.in_(READABLE)
    if n_lost > n_readable:  # a disk is not connected: then the rest is counted
        return list(_count(session, *here).values())
    kinds = _Kept(store, session, project_id).counted(n_lost + n_readable)
    if not n_lost:
        return list(kinds.values())
    lost = _count(session, mine, Image.status.in_(LOST))
    left = {
        key: replace(kind, n=kind.n - (lost[key].n if key in lost else 0))
        for key, kind in kinds.items()
    }
    left = {key: kind for key, kind in left.items() if kind.n > 0}
    return [_with_examples(session, here, kind, lost.get(key)) for key, kind in left.items()]


def _with_examples(
    session: Session, here: Iterable[ColumnElement[bool]], kind: FileKind, lost: FileKind | None
) -> FileKind:
    """Return a kind whose examples can be read; of some that are lost a neighbour stands in."""
    if lost is None:
        return kind
    good = session.scalars(select(Image.id).where(*here, Image.id.in_(kind.examples))).all()
    if good:
        return replace(kind, examples=tuple(sorted(good)))
    same = (
        _fact(name).is_(None) if kind.facts.get(name) is None else _fact(name) == kind.facts[name]
        for name in FACTS
        if name != "alpha"
    )
    first = select(Image.id).where(*here, Image.seen == kind.seen, *same).order_by(Image.id)
    found = session.scalar(first.limit(1))
    return replace(kind, examples=() if found is None else (found,))


class _Kept:
    """The file in which the kinds of all images of a project are kept, whatever their status."""

    def __init__(
        self, store: Store, session: Session, project_id: int, reread: int | None = None
    ) -> None:
        self.session, self.project_id = session, project_id
        self.path = store.path("thumbs", "kinds", f"{project_id}.json")
        self.sign = _reread_sign(session, project_id) if reread is None else reread

    def counted(self, n: int) -> Kinds:
        """Return the kinds of all `n` images: those of the file, and of the rows since."""
        found = self._read()
        if found is None:
            return self.count_all()
        kinds, upto = found
        new = _count(self.session, Image.project_id == self.project_id, Image.id > upto)
        kinds = _sum(kinds, new)
        if sum(kind.n for kind in kinds.values()) != n:  # such as a row that came late
            return self.count_all()
        if new:
            self._write(kinds)
        return kinds

    def count_all(self) -> Kinds:
        """Count all images anew and keep what was found."""
        kinds = _count(self.session, Image.project_id == self.project_id)
        self._write(kinds)
        return kinds

    def _read(self) -> tuple[Kinds, int] | None:
        if isinstance(self.sign, tuple):
            return None  # any image may change just now
        try:
            kept = json.loads(self.path.read_text(encoding="utf-8"))
            kinds = {
                _key(one["facts"], one["seen"]): FileKind(
                    one["facts"], one["seen"], one["n"], tuple(one["examples"])
                )
                for one in kept["kinds"]
            }
            upto, same = int(kept["upto"]), kept["of"] == self._of(int(kept["upto"]))
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return (kinds, upto) if same else None

    def _of(self, upto: int) -> list[Any]:
        """Return what tells that the rows up to this one are those that were counted."""
        project = self.session.get(Project, self.project_id)
        last = self.session.scalar(
            select(Image.sha256).where(Image.id == upto, Image.project_id == self.project_id)
        )
        made = str(project.created_at) if project is not None else ""
        return [FORM, made, upto, last, self.sign]

    def _write(self, kinds: Kinds) -> None:
        if isinstance(self.sign, tuple) or not kinds:
            return
        upto = max(kind.examples[-1] for kind in kinds.values())
        rows = [
            {"facts": one.facts, "seen": one.seen, "n": one.n, "examples": one.examples}
            for one in kinds.values()
        ]
        text = json.dumps({"of": self._of(upto), "upto": upto, "kinds": rows})
        try:
            _replace(self.path, text)
        except OSError as error:  # a full or read-only disk: it is counted again the next time
            log.warning("the kinds of files of project %s are not kept: %s", self.project_id, error)


def _replace(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.parent.parent / own_name(PART)
    try:
        part.write_text(text, encoding="utf-8")
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def _sum(before: Kinds, new: Kinds) -> Kinds:
    both = dict(before)
    for key, kind in new.items():
        old = both.get(key)
        if old is None:
            both[key] = kind
        else:
            ends = dict.fromkeys((old.examples[0], kind.examples[-1]))
            both[key] = replace(old, n=old.n + kind.n, examples=tuple(ends))
    return both


def _fact(name: str) -> ColumnElement[Any]:
    value: Any = Image.facts[name]
    text: ColumnElement[Any] = value.as_string()
    number: ColumnElement[Any] = value.as_integer()
    return text if name in ("format", "samples") else number


def _count(session: Session, *where: ColumnElement[bool]) -> Kinds:
    clear = case((Image.facts["alpha"].as_boolean().is_(True), 1), else_=0)
    each = (
        select(
            *(_fact(name).label(name) for name in FACTS if name != "alpha"),
            clear.label("alpha"),
            Image.seen.label("seen"),
            Image.id.label("id"),
        )
        .where(*where)
        .subquery()
    )
    columns = [each.c[name] for name in (*FACTS, "seen")]
    found: Kinds = {}
    ends = func.count(), func.min(each.c.id), func.max(each.c.id)
    for row in session.execute(select(*columns, *ends).group_by(*columns)):
        known = {name: value for name, value in zip(FACTS, row, strict=False) if value is not None}
        known["alpha"] = bool(row.alpha)
        n, first, last = row[-3:]
        kind = FileKind(known, row.seen, n, tuple(dict.fromkeys((first, last))))
        found[_key(known, row.seen)] = kind
    return found


def _key(facts: dict[str, Any], seen: str) -> tuple[Any, ...]:
    return (*(facts.get(name) for name in FACTS), seen)
