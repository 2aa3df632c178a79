"""Keep a copy of everything, and bring it back without losing what is there now."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Any

from sqlalchemy import func, select

from cnsapp import __version__
from cnsapp.bootstrap import App
from cnsapp.errors import CnsError, InvalidInputError, NotFoundError, StoreError
from cnsapp.services import jobs
from cnsapp.services.run_folders import RUNS
from cnsapp.settings import Settings
from db.backup import copy_database
from db.models import Image, LabelEvent, Model, Project
from db.session import open_store, sqlite_file

MANIFEST = "manifest.json"
DATABASE = "cns.sqlite"
# other thumbs, features and maps are made again when needed; a slide may be far away then
KEPT = ("images", "models", "weights", "thumbs/slides")
PACKED = {".jpg", ".jpeg", ".png", ".webp", ".zip"}  # packing these again only costs time


@dataclass(frozen=True)
class BackupReport:
    """A backup and what is in it."""

    path: str
    n_files: int
    n_bytes: int
    counts: dict[str, int]
    n_linked: int = 0  # files of linked images, which stay where they are

    def as_json(self) -> dict[str, Any]:
        """Return the facts for `--json`."""
        return {
            "path": self.path,
            "n_files": self.n_files,
            "n_bytes": self.n_bytes,
            "counts": self.counts,
            "n_linked": self.n_linked,
        }


@dataclass(frozen=True)
class RestoreReport:
    """Where the data came to lie, and where what was there before went."""

    home: str
    moved_aside: str | None
    n_files: int

    def as_json(self) -> dict[str, Any]:
        """Return the facts for `--json`."""
        return {"home": self.home, "moved_aside": self.moved_aside, "n_files": self.n_files}


def make_backup(app: App, *, out: Path | None = None) -> BackupReport:
    """Write database, images and models into one zip with a manifest of SHA-256 sums.

    Images that are linked in place are not in it, since their files are not in the data folder;
    their labels are. The database is copied consistently while others work; the zip appears whole
    or not at all.

    Raises
    ------
    CnsError
        The data lie on a database server (its own tools back it up), or the target cannot be
        written.
    """
    database = sqlite_file(app.settings.database)
    if database is None:
        raise CnsError(
            "The database is on a server.",
            "A copy made here would be incomplete.",
            "Back it up with the server's tools (pg_dump), and copy the data folder.",
        )
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    target = (out or app.store.path("backups", f"backup-{stamp}.zip")).absolute()
    if target.is_dir():
        target = target / f"backup-{stamp}.zip"
    partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        report = _write(app, database, partial, target)
        os.replace(partial, target)
    except OSError as error:
        raise CnsError(
            f"The backup {target} cannot be written: {error.strerror or error}.",
            "",
            "Choose a place with enough room: backup --out FILE.",
        ) from error
    finally:
        partial.unlink(missing_ok=True)
    return report


def restore_backup(home: Path, *, file: Path) -> RestoreReport:
    """Bring a backup back into `home`; what is there now is moved aside, never overwritten.

    Every file is compared with the manifest before anything is moved.

    Raises
    ------
    CnsError
        The file is no backup, or is damaged. The data folder is left as it is.
    """
    if not file.is_file():
        raise NotFoundError(f"There is no backup {file}.", "", "Check the path.")
    home.parent.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(prefix=f".{home.name}.restoring-", dir=home.parent))
    try:
        n_files = _unpack(file, fresh)
        aside = _move_aside(home)
        try:
            os.replace(fresh, home)
        except OSError:
            if aside is not None:
                os.replace(aside, home)
            raise
    finally:
        shutil.rmtree(fresh, ignore_errors=True)
    return RestoreReport(str(home), str(aside) if aside else None, n_files)


def _write(app: App, database: Path, partial: Path, target: Path) -> BackupReport:
    files: dict[str, str] = {}
    with (
        tempfile.TemporaryDirectory(dir=target.parent, prefix=".backup-") as scratch,
        zipfile.ZipFile(partial, "w", zipfile.ZIP_DEFLATED, allowZip64=True) as archive,
    ):
        copy = Path(scratch) / DATABASE
        copy_database(database, copy)  # first: every file that it names is then there to be packed
        files[DATABASE] = _add(archive, copy, DATABASE)
        for path, name in _files(app.store.root):
            files[name] = _add(archive, path, name)
        counts = _counts(app)
        manifest = {
            "app": "cnsapp",
            "version": __version__,
            "made_at": datetime.now(UTC).isoformat(timespec="seconds"),
            "counts": counts,
            "files": files,
        }
        archive.writestr(MANIFEST, json.dumps(manifest, indent=1))
    with partial.open("rb+") as handle:
        os.fsync(handle.fileno())
    n_linked = _n_linked(app)
    return BackupReport(str(target), len(files), partial.stat().st_size, counts, n_linked)


def _n_linked(app: App) -> int:
    with app.store.reading() as session:
        linked = select(func.count(Image.stored_path.distinct())).where(Image.linked.is_(True))
        return session.scalar(linked) or 0


def _files(root: Path) -> Iterator[tuple[Path, str]]:
    for folder in KEPT:
        for path in sorted(root.joinpath(folder).rglob("*")):
            name = path.relative_to(root).as_posix()
            if path.is_file() and not path.name.startswith(".") and not name.startswith(RUNS):
                yield path, name


def _add(archive: zipfile.ZipFile, path: Path, name: str) -> str:
    packed = path.suffix.lower() in PACKED
    info = zipfile.ZipInfo.from_file(path, name, strict_timestamps=False)
    info.compress_type = zipfile.ZIP_STORED if packed else zipfile.ZIP_DEFLATED
    digest = hashlib.sha256()
    with path.open("rb") as source, archive.open(info, "w", force_zip64=True) as target:
        while piece := source.read(1 << 20):
            digest.update(piece)
            target.write(piece)
    return digest.hexdigest()


def _counts(app: App) -> dict[str, int]:
    tables = {"projects": Project, "images": Image, "label_events": LabelEvent, "models": Model}
    with app.store.reading() as session:
        return {
            name: session.scalar(select(func.count()).select_from(table)) or 0
            for name, table in tables.items()
        }


def _unpack(file: Path, fresh: Path) -> int:
    try:
        with zipfile.ZipFile(file) as archive:
            manifest = json.loads(archive.read(MANIFEST))
            files: dict[str, str] = manifest["files"]
            if manifest.get("app") != "cnsapp" or DATABASE not in files:
                raise KeyError(DATABASE)
            for name, sha256 in files.items():
                _unpack_one(archive, name, sha256, fresh)
    except OSError as error:
        raise CnsError(
            f"{file} cannot be unpacked beside the data folder: {error.strerror or error}.",
            "The data folder was left as it is.",
            "Make room on its disk, or give yourself access, then restore again.",
        ) from error
    except (
        zipfile.BadZipFile, zlib.error, EOFError, KeyError, ValueError, TypeError, RuntimeError,
    ) as error:  # fmt: skip
        raise InvalidInputError(
            f"{file} is not a backup of this app, or it is damaged ({error}).",
            "The data folder was left as it is.",
            "Choose another backup.",
        ) from error
    return len(files)


def _unpack_one(archive: zipfile.ZipFile, name: str, sha256: str, fresh: Path) -> None:
    parts = PurePosixPath(name).parts
    if not parts or ".." in parts or name.startswith("/") or ":" in parts[0] or "\\" in name:
        raise ValueError(f"unsafe name {name!r}")
    target = fresh.joinpath(*parts)
    target.parent.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256()
    with archive.open(name) as source, target.open("wb") as sink:
        while piece := source.read(1 << 20):
            digest.update(piece)
            sink.write(piece)
    if digest.hexdigest() != sha256:
        raise ValueError(f"{name} differs from its checksum")


def _move_aside(home: Path) -> Path | None:
    if not home.exists():
        return None
    if not any(home.iterdir()):
        home.rmdir()
        return None
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    aside = home.with_name(f"{home.name}.before-restore-{stamp}")
    try:
        os.replace(home, aside)
    except OSError as error:
        raise CnsError(
            f"The data folder {home} cannot be moved aside: {error.strerror or error}.",
            "Nothing was changed.",
            "Stop the app and its worker, then restore again.",
        ) from error
    return aside


def refuse_while_running(settings: Settings) -> None:
    """Raise CnsError while a worker lives: it would write into the folder that is moved aside."""
    try:
        store = open_store(settings.database, settings.root)
    except StoreError:
        return  # a database that does not open is what a restore is for
    worker = jobs.worker_view(store, settings=settings)
    store.engine.dispose()
    if worker is not None and worker.alive:
        raise CnsError(
            "A worker is running.",
            "It writes into the data folder that the restore would move aside.",
            "Stop the app (and any `worker`), then restore again.",
        )
