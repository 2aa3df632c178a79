"""Copy a SQLite database while others write to it."""

from __future__ import annotations

import os
from pathlib import Path

from db.session import sqlite_driver


def copy_database(source: Path, target: Path) -> None:
    """Write a consistent copy of a live database; the target appears whole or not at all."""
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(target.name + ".partial")
    partial.unlink(missing_ok=True)
    driver = sqlite_driver()
    reader, writer = driver.connect(str(source)), driver.connect(str(partial))
    try:
        reader.backup(writer)
    finally:
        writer.close()
        reader.close()
    with partial.open("rb+") as handle:
        os.fsync(handle.fileno())
    os.replace(partial, target)
