"""What runs here: versions, the data folder, and what it holds."""

from __future__ import annotations

import platform
import shutil
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from cnsapp.bootstrap import App
from db.session import sqlite_version, sqlite_warning


@dataclass(frozen=True)
class About:
    """The facts that a bug report needs."""

    app_version: str
    python: str
    streamlit: str
    database: str
    database_warning: str | None
    data_folder: Path
    free_bytes: int
    import_roots: list[Path]


def about(app: App) -> About:
    """Return versions, the data folder and the folders that images may be read from."""
    on_sqlite = app.store.engine.dialect.name == "sqlite"
    return About(
        app_version=_version("cnsapp", "0.1.0"),
        python=platform.python_version(),
        streamlit=_version("streamlit", "?"),
        database=(
            f"SQLite {'.'.join(map(str, sqlite_version()))}"
            if on_sqlite
            else app.store.engine.dialect.name
        ),
        database_warning=sqlite_warning() if on_sqlite else None,
        data_folder=app.store.root,
        free_bytes=shutil.disk_usage(app.store.root).free,
        import_roots=[Path(root) for root in app.settings.import_roots],
    )


def _version(package: str, otherwise: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return otherwise
