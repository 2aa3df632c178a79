"""What a file is, by its first bytes: never by its name."""

from __future__ import annotations

from pathlib import Path

from cnsapp.errors import UnreadableImageError

HEAD = 64  # bytes looked at

# kind -> suffix of the stored copy; exactly these kinds are decoded
SUFFIXES = {
    "JPEG": ".jpg",
    "PNG": ".png",
    "TIFF": ".tif",
    "WEBP": ".webp",
    "BMP": ".bmp",
    "GIF": ".gif",
    "JPEG2000": ".jp2",
    "AVIF": ".avif",
}

IN_WORDS = "JPEG, PNG, TIFF, WebP, BMP, GIF, JPEG 2000 and AVIF"

_IMAGES: tuple[tuple[bytes, str], ...] = (
    (b"\xff\xd8\xff", "JPEG"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"II*\x00", "TIFF"),
    (b"MM\x00*", "TIFF"),
    (b"II+\x00", "TIFF"),
    (b"MM\x00+", "TIFF"),
    (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"),
    (b"BM", "BMP"),
    (b"\x00\x00\x00\x0cjP  \r\n\x87\n", "JPEG2000"),
    (b"\xff\x4f\xff\x51", "JPEG2000"),
)

HEIF_BRANDS = (b"heic", b"heix", b"hevc", b"mif1", b"msf1", b"heif")

_OTHERS: tuple[tuple[bytes, str], ...] = (
    (b"PK\x03\x04", "a zip archive (or a newer Office document)"),
    (b"PK\x05\x06", "an empty zip archive"),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an Office document (Word, Excel)"),
    (b"%PDF", "a PDF document"),
    (b"8BPS", "a Photoshop document"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive"),
    (b"Rar!", "a RAR archive"),
    (b"\x89HDF", "an HDF5 file"),
    (b"SQLite format 3", "a database"),
)


def find_kind(head: bytes) -> str | None:
    """Return the image kind that these first bytes announce, or None."""
    for magic, kind in _IMAGES:
        if head.startswith(magic):
            return kind
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WEBP"
    if head[4:12] in (b"ftypavif", b"ftypavis"):
        return "AVIF"
    if head[4:8] == b"ftyp" and b"avif" in head[8:40]:
        return "AVIF"
    return None


def read_head(path: Path) -> bytes:
    """Return the first bytes of a file.

    Raises
    ------
    UnreadableImageError
        The file is gone, no regular file, or may not be read.
    """
    try:
        if not path.is_file():
            raise UnreadableImageError("The file is gone, or is not a regular file.")
        with path.open("rb") as handle:
            return handle.read(HEAD)
    except OSError as error:
        raise UnreadableImageError(
            f"The file cannot be read: {error.strerror or error}.",
            "",
            "Check that it is there and that you may read it.",
        ) from error


def sniff(path: Path) -> str:
    """Return the image kind of a file (a key of `SUFFIXES`).

    Raises
    ------
    UnreadableImageError
        The content is not one of the kinds; the reason names what it seems to be.
    """
    head = read_head(path)
    kind = find_kind(head)
    if kind is None:
        raise UnreadableImageError(
            _not_an_image(path, head),
            "",
            "Save it as PNG or TIFF, or leave it out.",
        )
    return kind


def _not_an_image(path: Path, head: bytes) -> str:
    if not head:
        return "The file is empty (0 bytes)."
    for magic, what in _OTHERS:
        if head.startswith(magic):
            return f"Not an image: the content is {what}."
    if head[4:8] == b"ftyp" and head[8:12] in HEIF_BRANDS:
        return "The file is a HEIC/HEIF photo, which this app cannot decode."
    if _is_dicom(path):
        return "The file is a DICOM image, which this app cannot read yet."
    start = head.lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if start.startswith((b"<svg", b"<?xml")):
        return "The file is a drawing or XML text (SVG), not a picture made of pixels."
    if all(byte in b"\t\n\r\f" or byte >= 32 for byte in head):
        return "Not an image: the content is text."
    return f"Not an image of a known kind ({IN_WORDS})."


def _is_dicom(path: Path) -> bool:
    try:
        with path.open("rb") as handle:
            handle.seek(128)
            return handle.read(4) == b"DICM"
    except OSError:
        return False


def declared_avif_size(path: Path) -> tuple[int, int] | None:
    """Return (width, height) that an AVIF header declares, read without a decoder, or None."""
    with path.open("rb") as handle:
        head = handle.read(1 << 16)
    at = head.find(b"ispe")
    if at < 0 or at + 16 > len(head):
        return None
    return (
        int.from_bytes(head[at + 8 : at + 12], "big"),
        int.from_bytes(head[at + 12 : at + 16], "big"),
    )
