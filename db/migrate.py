"""Bring a database to this version's schema: made fresh, upgraded after a backup, or refused."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, func, inspect, select

from cnsapp.errors import StoreError
from db.backup import copy_database
from db.session import sqlite_file

LOCK = 0x636E7361  # number of the lock that a server hands out to one migration at a time


def migration_config(url: str = "") -> Config:
    """Return Alembic's configuration; there is no ini file to find or forget."""
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.set_main_option("sqlalchemy.url", url.replace("%", "%%"))
    return config


def migrate(engine: Engine, url: str, root: Path) -> None:
    """Create or upgrade the schema; do nothing, and quickly, when it is current.

    Raises
    ------
    StoreError
        The database was written by a newer version, or holds foreign tables.
    """
    config = migration_config(url)
    head = ScriptDirectory.from_config(config).get_current_head()
    with engine.connect() as connection:
        if _revision(connection) == head:
            return
    with engine.connect() as connection:
        # the app and a command may start at once: the second waits, and finds nothing left to do
        connection = connection.execution_options(sqlite_begin="IMMEDIATE")
        with connection.begin():
            if connection.dialect.name == "postgresql":
                connection.execute(select(func.pg_advisory_xact_lock(LOCK)))
            found = _revision(connection)
            if found == head:
                return
            tables = set(inspect(connection).get_table_names()) - {"alembic_version"}
            _refuse_foreign(config, found, tables, url)
            if found is not None:
                _back_up_first(url, root, found)
            _upgrade(config, connection)


def _revision(connection: Connection) -> str | None:
    return MigrationContext.configure(connection).get_current_revision()


def _upgrade(config: Config, connection: Connection) -> None:
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


def _refuse_foreign(config: Config, found: str | None, tables: set[str], url: str) -> None:
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    where = sqlite_file(url) or "the database"
    if found is not None and found not in known:
        raise StoreError(
            f"{where} was written by a newer version of the app (schema {found}).",
            "Opening it here could lose what only the newer version understands.",
            "Install the newer version, or name another data folder in CNS_HOME.",
        )
    if found is None and tables:
        raise StoreError(
            f"{where} holds tables of another program ({', '.join(sorted(tables)[:3])}).",
            "It was left as it is.",
            "Name another data folder in CNS_HOME.",
        )


def _back_up_first(url: str, root: Path, revision: str) -> None:
    file = sqlite_file(url)
    if file is None:
        return  # a server database is backed up by whoever runs the server
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    copy_database(file, root / "backups" / f"before-upgrade-from-{revision}-{stamp}.sqlite")
