"""Open the database the right way, refuse the wrong ones in words, and hand out transactions."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, inspect, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError, OperationalError
from sqlalchemy.orm import Session

from cnsapp.errors import StoreError

try:  # carries its own, current SQLite; the one that comes with Python is often years old
    from pysqlite3 import dbapi2 as sqlite_module
except ImportError:  # pragma: no cover - platforms without the wheel
    sqlite_module = sqlite3

HEAD = "0005"  # the newest migration: the schema that this version reads and writes
WRITER = 0x636E7377  # number of the lock that a server hands out to one writer at a time
PATIENCE = 15  # seconds that a writer waits for the one before
SAFE_SQLITE = (3, 51, 3)  # older ones can corrupt a WAL database that two connections write to


def sqlite_version() -> tuple[int, ...]:
    """Return the version of the SQLite library in use."""
    return tuple(int(part) for part in sqlite_driver().sqlite_version.split("."))


def sqlite_driver() -> ModuleType:
    """Return the DB-API module that SQLite databases are opened with."""
    module: ModuleType = sqlite_module
    return module


def sqlite_warning() -> str | None:
    """Return a sentence when the SQLite in use has the WAL corruption bug, else None."""
    if sqlite_version() >= SAFE_SQLITE:
        return None
    found = ".".join(map(str, sqlite_version()))
    return (
        f"SQLite {found} is in use; versions before 3.51.3 can damage a database in rare cases. "
        "Install the package pysqlite3, or set CNS_DATABASE_URL to a PostgreSQL database."
    )


def make_engine(url: str) -> Engine:
    """Create the engine: WAL, full sync, foreign keys and `BEGIN IMMEDIATE` writes on SQLite."""
    if make_url(url).get_backend_name() != "sqlite":
        return create_engine(url, pool_pre_ping=True)
    engine = create_engine(
        url,
        module=sqlite_driver(),
        connect_args={"timeout": PATIENCE, "check_same_thread": False},
        pool_size=10,
        max_overflow=20,
    )
    event.listen(engine, "connect", _prepare_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _prepare_sqlite(connection: Any, _record: Any) -> None:
    connection.isolation_level = None  # we send BEGIN ourselves, see _begin_sqlite
    cursor = connection.cursor()
    cursor.execute(f"PRAGMA busy_timeout={1000 * PATIENCE}")
    try:
        cursor.execute("PRAGMA journal_mode=WAL")
    except sqlite_driver().OperationalError:
        pass  # a read-only file: reading works, and writing says so in `open_store`
    cursor.execute("PRAGMA synchronous=FULL")
    cursor.execute("PRAGMA foreign_keys=ON")
    cursor.close()


def _begin_sqlite(connection: Any) -> None:
    # a read that later writes would fail at once with "locked" instead of waiting its turn
    mode = connection.get_execution_options().get("sqlite_begin", "DEFERRED")
    connection.exec_driver_sql(f"BEGIN {mode}")


def _take_turns(connection: Connection) -> None:
    """Have the writers of a PostgreSQL server come one after the other, as SQLite's do.

    An event with a smaller number can then never appear behind one with a larger: what was kept,
    or told, up to the highest number is whole, whoever wrote meanwhile. The lock goes once the
    work is committed and everybody sees it.
    """
    wait = f"SET LOCAL lock_timeout = '{PATIENCE}s'"
    connection.exec_driver_sql(f"{wait}; SELECT pg_advisory_xact_lock({WRITER})")  # one trip


@dataclass(frozen=True)
class Store:
    """The database and the folder beside it: the one thing that services need."""

    engine: Engine
    root: Path

    @contextmanager
    def writing(self) -> Iterator[Session]:
        """Yield a session whose work is committed together, or not at all when an error leaves."""
        with self.engine.connect() as connection:
            connection = connection.execution_options(sqlite_begin="IMMEDIATE")
            with Session(bind=connection, expire_on_commit=False) as session, session.begin():
                if self.engine.dialect.name == "postgresql":
                    _take_turns(session.connection())
                yield session

    @contextmanager
    def reading(self) -> Iterator[Session]:
        """Yield a session for a consistent look; nothing written in it is kept."""
        engine = self.engine
        if engine.dialect.name == "postgresql":  # all statements see one state, as on SQLite
            engine = engine.execution_options(isolation_level="REPEATABLE READ")
        with Session(engine, expire_on_commit=False) as session:
            yield session
            session.rollback()

    def path(self, *parts: str) -> Path:
        """Return a path below the data folder."""
        return self.root.joinpath(*parts)


FOLDERS = (
    "images", "thumbs", "features", "models", "saliency", "exports", "backups", "logs", "uploads",
)  # fmt: skip


def open_store(url: str, root: Path) -> Store:
    """Open the database, migrate it if it is older, and refuse it in words if it cannot be used.

    Raises
    ------
    StoreError
        The folder or file cannot be written, the file is damaged or no database, or it was made
        by a newer version. Nothing is replaced by a fresh empty database.
    """
    _check_folder(root)
    _check_sqlite_file(url)
    engine = make_engine(url)
    try:
        if _revision(engine) != HEAD:
            from db.migrate import migrate  # alembic takes a second to import

            migrate(engine, url, root)
    except DBAPIError as error:
        raise _in_words(error, url) from error
    return Store(engine=engine, root=root)


def _revision(engine: Engine) -> str | None:
    with engine.connect() as connection:
        if not inspect(connection).has_table("alembic_version"):
            return None
        return connection.execute(text("SELECT version_num FROM alembic_version")).scalar()


def _check_folder(root: Path) -> None:
    try:
        for name in FOLDERS:
            (root / name).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(
            f"The data folder {root} cannot be written: {error.strerror}.",
            "Labels and models are kept there.",
            "Give yourself write access to it, or name another folder in CNS_HOME.",
        ) from error


def _check_sqlite_file(url: str) -> None:
    file = sqlite_file(url)
    if file is None or not file.exists():
        if file is not None and _had_a_database(file.parent):
            raise StoreError(
                f"The database {file} is gone, but its data folder holds images or models.",
                "Starting with an empty database would hide them.",
                f"Put {file.name} back, for example with `python -m cnsapp restore` from "
                f"{file.parent / 'backups'}, or name another folder in CNS_HOME.",
            )
        return
    if not os.access(file, os.W_OK):
        raise StoreError(
            f"The database {file} is read-only.",
            "No label could be saved.",
            "Give yourself write access to the file and its folder, then start again.",
        )
    with file.open("rb") as handle:
        head = handle.read(16)
    if head and head != b"SQLite format 3\x00":
        raise StoreError(
            f"{file} is not a database, or its beginning is damaged.",
            "It was left as it is.",
            f"Restore the newest backup from {file.parent / 'backups'} with "
            "`python -m cnsapp restore FILE`.",
        )


def _had_a_database(root: Path) -> bool:
    return any(next((root / name).glob("*"), None) is not None for name in ("images", "models"))


def sqlite_file(url: str) -> Path | None:
    """Return the file behind a SQLite address, or None for memory and other databases."""
    parsed = make_url(url)
    if parsed.get_backend_name() != "sqlite" or parsed.database in (None, "", ":memory:"):
        return None
    return Path(str(parsed.database))


def _in_words(error: DBAPIError, url: str) -> StoreError:
    reason = str(error.orig).strip() if error.orig else str(error)
    where = sqlite_file(url) or make_url(url).render_as_string(hide_password=True)
    if isinstance(error, OperationalError) and "readonly" in reason.replace("-", ""):
        return StoreError(
            f"The database {where} is read-only.",
            "No label could be saved.",
            "Give yourself write access to the file and its folder, then start again.",
        )
    return StoreError(
        f"The database {where} cannot be opened: {reason}.",
        "It was left as it is.",
        "Check that the disk is not full and that the server runs, or restore a backup.",
    )


def integrity_problems(store: Store) -> list[str]:
    """Return what SQLite's own check finds wrong with the file; empty when all is well."""
    if store.engine.dialect.name != "sqlite":
        return []
    with store.engine.connect() as connection:
        rows = connection.execute(text("PRAGMA integrity_check")).scalars().all()
    return [] if list(rows) == ["ok"] else [str(row) for row in rows]
