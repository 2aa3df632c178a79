"""PNG files: their chunks looked through first; the plain ones decoded without a detour."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
from numpy.typing import NDArray

from cnsapp.errors import UnreadableImageError
from cnsapp.imaging.png_streams import MAX_CHUNKS, OVERHEAD, SIGNATURE, unpacked

SMALL = 100_000_000  # bytes of a file that is read whole
# chunks that do not touch the pixels
HARMLESS = frozenset((b"IHDR", b"IDAT", b"IEND", b"pHYs", b"gAMA", b"cHRM", b"sRGB", b"sBIT",
                      b"tIME", b"hIST", b"bKGD"))  # fmt: skip
TEXTS = frozenset((b"tEXt", b"zTXt", b"iTXt"))
PROFILES = (b"Raw profile", b"XML:")  # texts that may hold an orientation mark
EIGHT_BIT_RGB, NOT_INTERLACED = bytes((8, 2, 0, 0)), b"\0"


def is_plain(path: Path) -> bool:
    """Return whether a PNG is an 8-bit RGB picture and nothing else, by its chunks.

    Raises
    ------
    UnreadableImageError
        A chunk declares more bytes than the file has: decoders would make room for all of them.
    """
    size = path.stat().st_size
    plain = size <= SMALL
    at = len(SIGNATURE)
    with path.open("rb", buffering=64) as handle:
        for _ in range(MAX_CHUNKS):
            handle.seek(at)
            head = handle.read(8 + 13)
            name, n = head[4:8], int.from_bytes(head[:4], "big")
            if len(head) < 8 or not name.isalpha():
                return False  # a decoder will say what is wrong
            if at + OVERHEAD + n > size:
                raise UnreadableImageError(
                    "The file is cut off: only part of the picture is there.",
                    "",
                    "Copy it again from where it came from.",
                )
            if name == b"IEND":
                return plain
            if name == b"IHDR":
                plain = plain and head[16:20] == EIGHT_BIT_RGB and head[20:21] == NOT_INTERLACED
            elif name in TEXTS:
                plain = plain and not head[8:].startswith(PROFILES)
            elif name not in HARMLESS:
                plain = False
            at += OVERHEAD + n
    return False


def decode_plain(path: Path) -> NDArray[np.uint8] | None:
    """Return the pixels of a PNG that `is_plain`; None when a decoder complains of it."""
    try:
        pixels: NDArray[np.uint8] = decode(path)
    except Exception:  # Pillow says better what is wrong
        return None
    return pixels if pixels.ndim == 3 and pixels.dtype == np.uint8 else None


def decode(path: Path) -> NDArray[Any]:
    """Return a PNG's samples as they are stored; any error of the decoder."""
    stored: Any = unpacked(path)
    return imagecodecs.png_decode(path.read_bytes() if stored is None else stored)
