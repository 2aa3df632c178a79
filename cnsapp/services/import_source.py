"""Where an import may read from: folders, zips and single files within the allowed roots."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cnsapp.bootstrap import App
from cnsapp.errors import InvalidInputError
from cnsapp.imaging.archive import ZipLimits, is_zip, unpack
from cnsapp.imaging.candidates import Candidate, iter_candidates, printable
from cnsapp.imaging.limits import Limits
from cnsapp.imaging.store import is_abandoned, own_name

UNPACKED = "unzip-"  # uploads/unzip-<host>-<pid>-<random>: an archive being imported


@dataclass(frozen=True)
class Source:
    """The files of an import: those to read, and those that were refused before."""

    root: Path
    candidates: list[Candidate]
    refused: list[tuple[str, str]]  # (file, reason)


def limits_of(app: App) -> Limits:
    """Return the limits on one image that the settings give."""
    settings = app.settings
    return Limits(settings.max_pixels, settings.max_file_bytes, settings.max_aspect_ratio)


def zip_limits_of(app: App) -> ZipLimits:
    """Return the limits on an archive that the settings give."""
    return ZipLimits(app.settings.max_zip_ratio, app.settings.max_zip_members)


def find_source(app: App, path: Path, allowed_roots: Sequence[Path] | None) -> Path:
    """Return the real path of what is to be imported.

    Raises
    ------
    InvalidInputError
        It does not exist, cannot be read, or lies outside the allowed roots.
    """
    given = Path(str(path).strip().strip('"')).expanduser()
    try:
        real = given.resolve(strict=True)
    except (OSError, RuntimeError) as error:
        raise InvalidInputError(
            f"There is no folder or file {given}.",
            "",
            "Check the path; the app reads it on the computer where it runs.",
        ) from error
    if not is_allowed(app, real, allowed_roots):
        roots = ", ".join(str(root) for root in allowed_roots or [])
        raise InvalidInputError(
            f"{real} is outside the folders that this app may read: {roots}.",
            "The limit keeps visitors from reading other files of this computer.",
            "Move the images there, or add the folder to CNS_IMPORT_ROOTS.",
        )
    return real


def is_allowed(app: App, real: Path, allowed_roots: Sequence[Path] | None) -> bool:
    """Return whether a resolved path may be read; uploads always may, None allows everything."""
    if allowed_roots is None:
        return True
    roots = [*allowed_roots, app.store.path("uploads")]
    return any(real.is_relative_to(Path(root).expanduser().resolve()) for root in roots)


@contextmanager
def opened_source(app: App, real: Path, allowed_roots: Sequence[Path] | None) -> Iterator[Source]:
    """Yield the files of a folder, a zip (unpacked for the time being) or a single file.

    Raises
    ------
    InvalidInputError
        The zip is refused, or the folder cannot be read.
    """
    if real.is_dir():
        yield _folder_source(app, real, allowed_roots)
    elif is_zip(real):
        remove_abandoned(app)
        target = app.store.path("uploads", own_name(UNPACKED))
        try:
            refused = unpack(real, target, zip_limits_of(app))
            yield Source(target, list(iter_candidates(target)), refused)
        finally:
            shutil.rmtree(target, ignore_errors=True)
    else:
        yield Source(real.parent, [Candidate(real, printable(real.name))], [])


def remove_abandoned(app: App) -> None:
    """Remove what a killed import had unpacked."""
    for folder in app.store.path("uploads").glob(f"{UNPACKED}*"):
        if is_abandoned(folder, UNPACKED):
            shutil.rmtree(folder, ignore_errors=True)


def _folder_source(app: App, real: Path, allowed_roots: Sequence[Path] | None) -> Source:
    try:
        found = list(iter_candidates(real))
    except OSError as error:
        raise InvalidInputError(
            f"The folder {real} cannot be read: {error.strerror or error}.",
            "",
            "Give yourself read access to it.",
        ) from error
    kept, refused = [], []
    for candidate in found:
        if candidate.path.is_symlink() and not is_allowed(
            app, candidate.path.resolve(), allowed_roots
        ):
            refused.append((candidate.name, "A link to a place that this app may not read."))
        else:
            kept.append(candidate)
    return Source(real, kept, refused)
