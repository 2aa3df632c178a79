"""The store: opened rightly, upgraded after a backup, refused in words, never replaced."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from alembic import command
from alembic.script import ScriptDirectory
from sqlalchemy import text

from cnsapp.bootstrap import App, open_app
from cnsapp.errors import StoreError
from cnsapp.services.models import list_models
from cnsapp.settings import Settings
from db.backup import copy_database
from db.migrate import migration_config
from db.session import HEAD, SAFE_SQLITE, Store, integrity_problems, sqlite_version, sqlite_warning
from tests.places import ROOT


def reopen(home: Path) -> App:
    return open_app(Settings(home=home))


def pragma(store: Store, name: str) -> object:
    with store.engine.connect() as connection:
        return connection.execute(text(f"PRAGMA {name}")).scalar()


def test_sqlite_is_opened_for_safety_and_for_many_readers(store: Store) -> None:
    assert pragma(store, "journal_mode") == "wal"
    assert pragma(store, "synchronous") == 2  # FULL
    assert pragma(store, "foreign_keys") == 1
    assert pragma(store, "busy_timeout") == 15000
    assert integrity_problems(store) == []


def test_an_old_sqlite_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    assert (sqlite_warning() is None) == (sqlite_version() >= SAFE_SQLITE)
    monkeypatch.setattr("db.session.sqlite_version", lambda: (3, 40, 1))
    assert "3.40.1" in str(sqlite_warning())


def test_the_migrations_build_exactly_the_tables_of_the_models(app: App) -> None:
    command.check(migration_config(app.settings.database))


def test_processes_that_open_a_new_folder_at_once_all_succeed(home: Path) -> None:
    code = (
        "import sys, pathlib\nfrom cnsapp.bootstrap import open_app\n"
        "from cnsapp.settings import Settings\nopen_app(Settings(home=pathlib.Path(sys.argv[1])))"
    )
    command = [sys.executable, "-c", code, str(home)]
    started = [subprocess.Popen(command, stderr=subprocess.PIPE) for _ in range(4)]
    assert [(p.communicate()[1], p.returncode) for p in started] == [(b"", 0)] * 4


def test_a_database_of_the_first_version_is_upgraded_after_a_backup(app: App, home: Path) -> None:
    config = migration_config(app.settings.database)
    with app.store.engine.connect() as connection, connection.begin():
        config.attributes["connection"] = connection
        command.downgrade(config, "0001")
    project = "INSERT INTO project VALUES (1, 'p', 'p', '{}', '2026-01-01 00:00:00')"
    model = (
        "INSERT INTO model (id, project_id, name, preset, backbone, path, sha256, metrics, "
        "class_ids, settings, created_at) "
        "VALUES (1, 1, 'm', 'quick', 'b', 'x', '0', '{}', '[]', '{}', '2026-01-01 00:00:00')"
    )
    with app.store.engine.begin() as connection:
        connection.exec_driver_sql(project)
        connection.exec_driver_sql(model)
    app.store.engine.dispose()
    again = open_app(app.settings)
    assert [m.name for m in list_models(again.store, project_id=1)] == ["m"]
    assert len(list((home / "backups").glob("before-upgrade-from-0001-*.sqlite"))) == 1
    again.store.engine.dispose()


def test_the_schema_that_needs_no_migration_is_the_newest_one() -> None:
    assert ScriptDirectory.from_config(migration_config()).get_current_head() == HEAD


def test_a_current_database_opens_without_the_migration_tool(app: App) -> None:
    code = "from cnsapp.bootstrap import open_app; import sys; open_app(); "
    code += "print('alembic' in sys.modules)"
    environment = {**os.environ, "CNS_HOME": str(app.settings.root)}
    run = subprocess.run(
        [sys.executable, "-c", code], env=environment, cwd=ROOT, capture_output=True, text=True
    )
    assert run.stdout.strip() == "False", run.stderr


def test_a_database_of_a_newer_version_is_left_alone(app: App, home: Path) -> None:
    with app.store.engine.connect() as connection, connection.begin():
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    app.store.engine.dispose()
    before = (home / "cns.sqlite").read_bytes()
    with pytest.raises(StoreError, match=r"newer version .*9999"):
        reopen(home)
    assert (home / "cns.sqlite").read_bytes() == before


def test_a_database_that_is_gone_is_not_replaced_by_an_empty_one(app: App, home: Path) -> None:
    app.store.engine.dispose()
    (home / "models" / "a.safetensors").write_bytes(b"kept")
    for file in home.glob("cns.sqlite*"):
        file.unlink()
    with pytest.raises(StoreError, match=r"is gone.*restore"):
        reopen(home)
    assert not (home / "cns.sqlite").exists()


@pytest.mark.parametrize("content", [b"GIF89a, not a database at all", b"\x00" * 4096])
def test_a_file_that_is_no_database_is_left_as_it_is(home: Path, content: bytes) -> None:
    home.mkdir()
    (home / "cns.sqlite").write_bytes(content)
    with pytest.raises(StoreError, match="not a database"):
        reopen(home)
    assert (home / "cns.sqlite").read_bytes() == content


def test_a_damaged_page_is_said_and_kept(app: App, home: Path) -> None:
    app.store.engine.dispose()
    file = home / "cns.sqlite"
    with sqlite3.connect(file) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    whole = bytearray(file.read_bytes())
    whole[4096 : 4096 * 6] = b"\xff" * (4096 * 5)
    file.write_bytes(whole)
    try:
        damaged = integrity_problems(reopen(home).store)
    except StoreError as error:
        damaged = [str(error)]
    assert damaged
    assert len(file.read_bytes()) >= len(whole)


def test_another_programs_database_is_not_touched(home: Path) -> None:
    home.mkdir()
    with sqlite3.connect(home / "cns.sqlite") as connection:
        connection.execute("CREATE TABLE recipes (id INTEGER)")
    connection.close()
    with pytest.raises(StoreError, match="recipes"):
        reopen(home)


def test_a_read_only_database_is_said(
    app: App, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    app.store.engine.dispose()
    monkeypatch.setattr("db.session.os.access", lambda *_: False)  # root may write to everything
    with pytest.raises(StoreError, match=r"read-only.*No label could be saved"):
        reopen(home)


def test_a_copy_taken_while_others_write_is_whole(app: App, home: Path, tmp_path: Path) -> None:
    target = tmp_path / "copy.sqlite"
    with app.store.writing() as session:
        session.execute(text("INSERT INTO worker VALUES ('w', 'h', 1, 'cpu', '2026', '2026')"))
        session.flush()
        copy_database(home / "cns.sqlite", target)
    with sqlite3.connect(target) as copy:
        assert copy.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert copy.execute("SELECT count(*) FROM worker").fetchone() == (0,)
    copy.close()


def test_an_error_inside_a_transaction_leaves_nothing_behind(store: Store) -> None:
    with pytest.raises(RuntimeError), store.writing() as session:
        session.execute(text("INSERT INTO worker VALUES ('w', 'h', 1, 'cpu', '2026', '2026')"))
        raise RuntimeError("the user pulled the plug")
    with store.reading() as session:
        assert session.execute(text("SELECT count(*) FROM worker")).scalar() == 0
