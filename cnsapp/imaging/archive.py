"""Unpack a zip of images so that nothing lands outside, nothing is overwritten or explodes."""

from __future__ import annotations

import shutil
import stat
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from cnsapp.errors import InvalidInputError
from cnsapp.imaging.candidates import is_ignored

ARCHIVES = (".zip", ".tar", ".gz", ".tgz", ".7z", ".rar", ".bz2", ".xz")
SMALL = 16_000_000  # bytes unpacked up to which a high ratio is harmless
BLOCK = 1 << 20


@dataclass(frozen=True)
class ZipLimits:
    """Bounds on an archive: unpacked over packed size, and number of members."""

    max_ratio: float = 100.0
    max_members: int = 200_000


def is_zip(path: Path) -> bool:
    """Return whether a file is a zip archive, by its content."""
    return path.is_file() and zipfile.is_zipfile(path)


def list_members(path: Path, limits: ZipLimits) -> list[tuple[str, zipfile.ZipInfo]]:
    """Return (name, member) of the files in a zip that may matter, after checking all of them.

    Raises
    ------
    InvalidInputError
        The archive is damaged, locked, too large, or names a path outside of itself; the sentence
        names the member. Nothing was unpacked.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise InvalidInputError(
            f"{path.name} is a damaged zip archive: {error}.", "", "Make or copy it again."
        ) from error
    if len(members) > limits.max_members:
        raise InvalidInputError(
            f"{path.name} holds {len(members):,} files; {limits.max_members:,} is the limit.",
            "",
            "Split it, or raise CNS_MAX_ZIP_MEMBERS.",
        )
    named = [(_name(member), member) for member in members]
    for name, member in named:
        _check_member(path, name, member)
    _check_ratio(path, [member for _, member in named], limits)
    return [
        (name, member)
        for name, member in named
        if not member.is_dir() and not any(is_ignored(part) for part in PurePosixPath(name).parts)
    ]


def unpack(
    path: Path, target: Path, limits: ZipLimits, told: Callable[[int], None] | None = None
) -> list[tuple[str, str]]:
    """Unpack a zip into the new folder `target`; return (member, reason) of those left out.

    `told` is called with the number of files before each is unpacked, and may raise to stop.

    Raises
    ------
    InvalidInputError
        As `list_members`, or the disk has too little room.
    """
    members = list_members(path, limits)
    _check_room(path, target, sum(member.file_size for _, member in members))
    target.mkdir(parents=True)
    skipped = []
    with zipfile.ZipFile(path) as archive:
        for n, (name, member) in enumerate(members):
            if told is not None:
                told(n)
            reason = _unpack_one(archive, member, name, target)
            if reason:
                skipped.append((name, reason))
    return skipped


def _name(member: zipfile.ZipInfo) -> str:
    if not member.flag_bits & 0x800:  # no encoding stated: most writers of today mean UTF-8
        try:
            return member.filename.encode("cp437").decode("utf-8")
        except UnicodeError:
            pass
    return member.filename


def _check_member(path: Path, name: str, member: zipfile.ZipInfo) -> None:
    plain = (name or "").replace("\\", "/")
    parts = plain.split("/")
    climbs = any(part.startswith("..") and not part.strip(". ") for part in parts)  # also ".. "
    outside = plain.startswith("/") or climbs or ":" in parts[0] or "\x00" in plain
    if outside:
        raise _refused(path, f"the member “{name[:200]}” has a path that leads out of the archive")
    if stat.S_ISLNK(member.external_attr >> 16):
        raise _refused(path, f"the member “{name[:200]}” is a link to another place")
    if member.flag_bits & 1:
        raise _refused(path, f"the member “{name[:200]}” is locked with a password")


def _refused(path: Path, reason: str) -> InvalidInputError:
    return InvalidInputError(
        f"{path.name} was refused: {reason}.",
        "Nothing was unpacked.",
        "Make a plain zip of the folder of images, then import that.",
    )


def _check_ratio(path: Path, members: list[zipfile.ZipInfo], limits: ZipLimits) -> None:
    unpacked = sum(member.file_size for member in members)
    packed = max(1, min(path.stat().st_size, sum(member.compress_size for member in members)))
    if unpacked > SMALL and unpacked > limits.max_ratio * packed:
        raise InvalidInputError(
            f"{path.name} would unpack to {unpacked / 1e6:,.0f} MB, {unpacked / packed:,.0f} times "
            f"its size; {limits.max_ratio:g} times is the limit.",
            "Archives made to fill a disk look like that. Nothing was unpacked.",
            "Raise CNS_MAX_ZIP_RATIO if it is an honest archive, or import the folder itself.",
        )


def _check_room(path: Path, target: Path, n_bytes: int) -> None:
    free = shutil.disk_usage(target.parent).free
    if n_bytes > free:
        raise InvalidInputError(
            f"{path.name} would unpack to {n_bytes / 1e6:,.0f} MB, but only {free / 1e6:,.0f} MB "
            "are free on the disk of the data folder.",
            "",
            "Free some space, then try again.",
        )


def _unpack_one(
    archive: zipfile.ZipFile, member: zipfile.ZipInfo, name: str, target: Path
) -> str | None:
    if PurePosixPath(name.casefold()).suffix in ARCHIVES:
        return "An archive inside the archive; it was not opened. Import it by itself."
    place = target.joinpath(*name.replace("\\", "/").split("/"))
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        with archive.open(member) as reading, place.open("xb") as writing:
            shutil.copyfileobj(reading, writing, BLOCK)
    except FileExistsError:
        return "A second file of the same name in the archive; the first was kept."
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        place.unlink(missing_ok=True)
        return f"The file is damaged inside the archive: {error}."
    except NotImplementedError:
        return "The file is packed with a method that cannot be unpacked here."
    except OSError as error:
        if place.is_file():
            place.unlink(missing_ok=True)
        return f"The file could not be unpacked: {error.strerror or error}."
    return None
