"""A copy of an image file that tells nothing of people, places and devices."""

from __future__ import annotations

import mmap
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from cnsapp.errors import UnreadableImageError
from cnsapp.imaging import privacy_streams, privacy_tiff
from cnsapp.imaging.decoded import quiet
from cnsapp.imaging.privacy_tags import LOOKS, ORIENTATION, OTHER, CannotCleanError

_CLEANERS: dict[str, Callable[[memoryview, bytes], tuple[privacy_streams.Pieces, set[str]]]] = {
    "JPEG": privacy_streams.clean_jpeg,
    "PNG": privacy_streams.clean_png,
    "WEBP": privacy_streams.clean_webp,
    "GIF": privacy_streams.clean_gif,
    "JPEG2000": privacy_streams.clean_jpeg2000,
}
PNG_MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")  # what Pillow keeps whole as PNG


@dataclass(frozen=True)
class Cleaned:
    """What kind the copy is (as in `sniff`), and what was left out, in single words."""

    kind: str
    found: frozenset[str]


def without_metadata(source: Path, target: Path, kind: str) -> Cleaned:
    """Copy an image file without its metadata; the pixels are not encoded again.

    Left out: place, owner, serial numbers, dates, maker notes, XMP, IPTC, comments, previews,
    unknown parts, what follows the picture, and label and macro pages of slides. Kept: pixels,
    colour profile, orientation, size of a pixel, and how pages and channels are ordered. A file
    that tells nothing is copied byte for byte.

    BMP and AVIF have no parts that could be left out one by one: those that tell something are
    written as PNG, where that keeps every bit.

    Parameters
    ----------
    source, target
        The file, and its copy, which must not exist.
    kind
        Kind of the file, as `sniff` says.

    Returns
    -------
    Cleaned
        The kind of the copy and what was found.

    Raises
    ------
    UnreadableImageError
        The metadata cannot be removed for certain; nothing is written.
    OSError
        A file cannot be read or written.

    References
    ----------
    TIFF 6.0 and BigTIFF, EXIF 2.32, ITU-T T.81 (JPEG), ISO 15948 (PNG), RFC 9649 (WebP), GIF89a,
    ISO 15444-1 (JPEG 2000).
    """
    try:
        with quiet():
            cleaned = _clean(source, target, kind)
    except BaseException:
        target.unlink(missing_ok=True)
        raise
    if not cleaned.found:
        shutil.copyfile(source, target)
    return cleaned


def _clean(source: Path, target: Path, kind: str) -> Cleaned:
    try:
        found = _write(source, target, kind)
        return Cleaned(kind, frozenset(found))
    except CannotCleanError as error:
        return _as_png(source, target, str(error))


def _write(source: Path, target: Path, kind: str) -> set[str]:
    """Write the copy if the file tells anything, and return what."""
    with source.open("rb") as handle:
        whole = mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ)
    data = memoryview(whole)
    try:
        if kind in ("BMP", "AVIF"):
            _require_nothing(data, kind)
            return set()
        if kind == "TIFF":
            return _write_tiff(source, data, target)
        pieces, found = _CLEANERS[kind](data, b"")
        if found:
            looks = _looks(source)
            if looks:
                pieces, _ = _CLEANERS[kind](data, _exif_block(looks))
            with target.open("wb") as writing:
                writing.writelines(pieces)
        del pieces
        return found
    finally:
        _close(whole, data)


def _close(whole: mmap.mmap, data: memoryview) -> None:
    data.release()
    try:
        whole.close()
    except BufferError:
        pass  # a view of an error's frames is still held: the system frees it with them


def _write_tiff(source: Path, data: memoryview, target: Path) -> set[str]:
    plan = privacy_tiff.plan_tiff(data)
    if plan.found:
        plan = privacy_tiff.plan_tiff(data, _looks(source).get(ORIENTATION, 1))
        with target.open("wb") as writing:
            privacy_tiff.write_tiff(data, plan, writing)
    return plan.found


def _looks(source: Path) -> dict[int, int]:
    """Return orientation and pixel size as the reader of pictures finds them (in XMP too)."""
    try:
        with Image.open(source) as image:
            exif = image.getexif()
            return {tag: exif[tag] for tag in LOOKS if tag in exif}
    except Exception:  # damaged EXIF of any sort: the reader ignores it as well
        return {}


def _exif_block(looks: dict[int, int]) -> bytes:
    exif = Image.Exif()
    for tag, value in looks.items():
        exif[tag] = value
    return exif.tobytes()


def _require_nothing(data: memoryview, kind: str) -> None:
    if kind == "BMP":
        size, header = (int.from_bytes(data[at : at + 4], "little") for at in (2, 14))
        if len(data) > size or header not in (12, 40, 52, 56, 108, 124):
            raise CannotCleanError("bytes follow the picture")
        if header == 124 and bytes(data[70:74]) in (b"KNIL", b"DEBM"):  # a profile's file name
            raise CannotCleanError("a colour profile is attached to it")
        return
    head = bytes(data[: 1 << 16])
    if any(name in head for name in (b"Exif", b"mime", b"uuid", b"udta")):
        raise CannotCleanError("it holds EXIF or XMP data")


def _as_png(source: Path, target: Path, why: str) -> Cleaned:
    """Write the picture as PNG, where that keeps every bit of it.

    Raises
    ------
    UnreadableImageError
        It does not.
    """
    try:
        with Image.open(source) as image:
            if _is_whole_in_png(image, source):
                looks, profile = _looks(source), image.info.get("icc_profile")
                image.load()
                image.info.clear()
                exif = _exif_block({k: v for k, v in looks.items() if k == ORIENTATION})
                partial = target.with_name(f"{target.name}.{os.getpid()}")
                image.save(partial, "PNG", icc_profile=profile, exif=exif if looks else None)
                os.replace(partial, target)
                return Cleaned("PNG", frozenset((OTHER,)))
    except Exception as error:  # a decoder may raise anything on a damaged file
        if isinstance(error, OSError) and error.errno is not None:
            raise
    raise UnreadableImageError(
        f"Its metadata cannot be removed: {why}.",
        "It may tell of places and people, so it was left out.",
        "Save it as PNG or plain TIFF and import it again, or export with the metadata.",
    )


def _is_whole_in_png(image: Image.Image, source: Path) -> bool:
    if image.mode not in PNG_MODES or int(getattr(image, "n_frames", 1)) > 1:
        return False
    if image.format != "AVIF":
        return True
    with source.open("rb") as handle:
        head = handle.read(1 << 16)
    at = head.find(b"av1C")
    return at >= 0 and head[at + 6] & 0x40 == 0  # no more than 8 bits
