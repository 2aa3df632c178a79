"""Files that came through the browser: kept under safe names until they are imported."""

from __future__ import annotations

import re
import shutil
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cnsapp.bootstrap import App
from cnsapp.errors import InvalidInputError
from cnsapp.imaging.store import own_name

UNSAFE = re.compile(r'[\x00-\x1f<>:"|?*]')
RESERVED = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)
PREFIX = "upload-"


def save_uploads(app: App, *, files: Sequence[tuple[str, Any]]) -> Path:
    """Write uploaded files into a folder of their own below `uploads/`; return what to import.

    Parameters
    ----------
    files
        (name, content): names may hold sub-folders; the content is bytes, a buffer, or an open
        binary file, which is copied in blocks.

    Returns
    -------
    Path
        The folder; or the archive itself when a single zip was uploaded.

    Raises
    ------
    InvalidInputError
        Nothing was uploaded.
    """
    if not files:
        raise InvalidInputError("No file was uploaded.", "", "Choose images or a zip of images.")
    folder = app.store.path("uploads", own_name(PREFIX))
    folder.mkdir(parents=True)
    saved = [_save(folder, name, content) for name, content in files]
    if len(saved) == 1 and saved[0].suffix.casefold() == ".zip":
        return saved[0]
    return folder


def remove_upload(app: App, path: Path) -> None:
    """Remove what `save_uploads` returned; other paths are left alone."""
    uploads = app.store.path("uploads").resolve()
    for folder in (path, *path.parents):
        if folder.parent.resolve() == uploads and folder.name.startswith(PREFIX):
            shutil.rmtree(folder, ignore_errors=True)
            return


def safe_name(name: str) -> list[str]:
    """Return the parts of an uploaded file's name that are safe below a folder on any system.

    Examples
    --------
    >>> safe_name("../liver/a?.png")
    ['liver', 'a_.png']
    """
    parts = []
    for part in unicodedata.normalize("NFC", name).replace("\\", "/").split("/"):
        clean = UNSAFE.sub("_", part).strip().rstrip(". ")  # Windows would read ".. " as ".."
        if clean and not RESERVED.fullmatch(clean):
            parts.append(_fitting(clean))
    return parts or ["file"]


def _fitting(part: str) -> str:
    suffix = Path(part).suffix[:20]
    while len(part.encode()) > 240:  # file systems take 255 bytes
        part = part.removesuffix(suffix)[:-1] + suffix
    return part


def _save(folder: Path, name: str, content: Any) -> Path:
    target = folder.joinpath(*safe_name(name))
    target.parent.mkdir(parents=True, exist_ok=True)
    stem, suffix, n = target.stem, target.suffix, 1
    while target.exists():  # two files of one name: both are kept
        n += 1
        target = target.with_name(f"{stem} ({n}){suffix}")
    with target.open("wb") as writing:
        if hasattr(content, "read"):
            shutil.copyfileobj(content, writing, 1 << 20)
        else:
            writing.write(content)
    return target
