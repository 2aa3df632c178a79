"""JPEG files: gray and colour ones decoded so that damage inside them comes to light.

libjpeg goes on behind damaged data with whatever it then reads, which looks like shifted or gray
blocks, and only warns; Pillow drops the warning. Here it is a refusal.
"""

from __future__ import annotations

import re
import struct

import numpy as np
import simplejpeg
from numpy.typing import NDArray

from cnsapp.errors import UnreadableImageError

SPACES = {"RGB": "RGB", "L": "GRAY"}
LEFT_OVER = re.compile(r"Corrupt JPEG data: (\d+) extraneous bytes before marker 0xd9")
END = b"\xff\xd9"
FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # markers that declare the size


def decode(data: bytes, mode: str) -> NDArray[np.uint8] | None:
    """Return (H, W, 3) or (H, W) pixels of a JPEG, as Pillow gives them.

    None: another decoder must say what it makes of the file.

    Parameters
    ----------
    data
        The whole file.
    mode
        Pillow's mode of it.

    Raises
    ------
    UnreadableImageError
        The picture's data are damaged inside.
    """
    if mode not in SPACES:
        return None
    try:
        pixels: NDArray[np.uint8] = simplejpeg.decode_jpeg(data, SPACES[mode])
    except ValueError as error:
        if "Corrupt JPEG data" in str(error) and not _is_padding(data, str(error)):
            raise UnreadableImageError(
                "The file is damaged inside: part of the picture would be wrong.",
                "",
                "Copy it again from where it came from. If it looks right elsewhere, save it as "
                "PNG there.",
            ) from error
        return None
    return pixels[..., 0] if mode == "L" else pixels


def _is_padding(data: bytes, said: str) -> bool:
    """Return whether what was left over is filling before the end, as some cameras write."""
    found = LEFT_OVER.match(said)
    end = data.rfind(END)
    if found is None or end < 0:
        return False
    filling = data[max(0, end - int(found[1])) : end]
    return len(set(filling)) <= 1


def declared_size(head: bytes) -> tuple[int, int] | None:
    """Return (width, height) that the first bytes of a JPEG declare; None where they do not say.

    Examples
    --------
    >>> declared_size(bytes.fromhex("ffd8 ffc0 0011 08 0030 0040 03"))
    (64, 48)
    """
    at = 2
    while at + 9 <= len(head) and head[at] == 0xFF:
        code = head[at + 1]
        if code == 0xFF:  # filling
            at += 1
        elif code in FRAMES:
            height, width = struct.unpack(">HH", head[at + 5 : at + 9])
            return width, height
        elif code in (0xDA, 0xD9):
            return None
        else:
            at += 2 + struct.unpack(">H", head[at + 2 : at + 4])[0]
    return None
