"""Where an import may read from: folders, zips and single files within the allowed roots."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cnsapp.bootstrap import App
from cnsapp.errors import InvalidInputError
from cnsapp.imaging.archive import ZipLimits, is_zip, unpack
from cnsapp.imaging.candidates import Candidate, iter_candidates, printable
from cnsapp.imaging.limits import Limits
from cnsapp.imaging.store import is_abandoned, own_name
from db.session import FOLDERS

UNPACKED = "unzip-"  # uploads/unzip-<host>-<pid>-<random>: an archive being imported
LISTED = 500  # files listed between two words on how many there are

Listing = Callable[[int], None]  # told how many files were found so far; may raise Cancelled


@dataclass(frozen=True)
class Source:
    """The files of an import: those to read, and those that were refused before."""

    root: Path
    candidates: list[Candidate]
    refused: list[tuple[str, str]]  # (file, reason)
    lasting: bool = True  # false: the files go away after the import, so their places mean nothing
    beside: frozenset[str] = frozenset()  # names of files of the folder that are imported already

    @property
    def names(self) -> list[str]:
        """The names of all files of the folder, each once."""
        return list(dict.fromkeys([*(c.name for c in self.candidates), *self.beside]))


def limits_of(app: App) -> Limits:
    """Return the limits on one image that the settings give."""
    settings = app.settings
    return Limits(
        settings.max_pixels,
        settings.max_file_bytes,
        settings.max_aspect_ratio,
        settings.max_frames,
        settings.read_seconds,
    )


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
    """Return whether a resolved path may be read; None allows everything.

    The folders that the app keeps below its data folder are no places to import from, even where
    the data folder lies below a root: others' uploads are in there. A root inside them, such as
    the folder of one's own upload, allows itself.
    """
    if allowed_roots is None:
        return True
    roots = [Path(root).expanduser().resolve() for root in allowed_roots]
    home = app.store.root.resolve()
    own = [home / name for name in FOLDERS]
    if any(real.is_relative_to(folder) for folder in own):
        roots = [root for root in roots if any(root.is_relative_to(f) and root != f for f in own)]
    return any(real.is_relative_to(root) for root in roots)


@contextmanager
def opened_source(
    app: App, real: Path, allowed_roots: Sequence[Path] | None, listing: Listing | None = None
) -> Iterator[Source]:
    """Yield the files of a folder, a zip (unpacked for the time being) or a single file.

    Raises
    ------
    InvalidInputError
        The zip is refused, or the folder cannot be read.
    """
    listing = listing or _unheard
    if real.is_dir():
        lasting = not real.is_relative_to(app.store.path("uploads").resolve())
        yield _folder_source(app, real, allowed_roots, listing, lasting)
    elif is_zip(real):
        remove_abandoned(app)
        target = app.store.path("uploads", own_name(UNPACKED))
        try:
            refused = unpack(real, target, zip_limits_of(app), listing)
            yield Source(target, list(iter_candidates(target)), refused, lasting=False)
        finally:
            shutil.rmtree(target, ignore_errors=True)
    else:
        lasting = not real.is_relative_to(app.store.path("uploads").resolve())
        yield Source(real.parent, [Candidate(real, printable(real.name))], [], lasting)


def _unheard(_n: int) -> None:
    return None


def remove_abandoned(app: App) -> None:
    """Remove what a killed import had unpacked."""
    for folder in app.store.path("uploads").glob(f"{UNPACKED}*"):
        if is_abandoned(folder, UNPACKED):
            shutil.rmtree(folder, ignore_errors=True)


def _folder_source(
    app: App, real: Path, allowed_roots: Sequence[Path] | None, listing: Listing, lasting: bool
) -> Source:
    found: list[Candidate] = []
    try:
        for candidate in iter_candidates(real):
            found.append(candidate)
            if len(found) % LISTED == 0:
                listing(len(found))
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
    return Source(real, kept, refused, lasting)
