"""The pixels of a PNG unpacked by libdeflate, two to three times as fast as by zlib.

PNG decoders have zlib built in. So the packed stream is unpacked here and laid into an equal PNG as
"stored" blocks, which zlib only copies: any decoder then undoes the filters as it always does.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
from numpy.typing import NDArray

SIGNATURE = b"\x89PNG\r\n\x1a\n"
OVERHEAD = 12  # length, name and checksum of a chunk
MOST = 64_000_000  # unpacked bytes: beyond them the memory counts more than the time
MAX_CHUNKS = 100_000
STORED = 65_535  # bytes of a stored block, the last one aside
BLOCK_HEAD = 5
ZLIB_HEAD = b"\x78\x01"
SAMPLES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # by colour type
DEPTHS = (1, 2, 4, 8, 16)
# of the seven passes of an interlaced picture: first column and row, steps between them
PASSES = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2),
          (0, 1, 1, 2))  # fmt: skip
ANIMATED = b"acTL"
codecs: Any = imagecodecs  # it takes any buffer, and its types say only bytes


@dataclass(frozen=True)
class _Parts:
    """The bytes of a PNG: what stands before the packed pixels, these, and what follows."""

    head: memoryview
    packed: bytes | memoryview
    tail: memoryview


def unpacked(path: Path) -> NDArray[np.uint8] | None:
    """Return the bytes of an equal PNG whose pixels are stored, not packed.

    None: something is odd, damaged or too large, and a decoder must look at the file itself.
    """
    data = path.read_bytes()
    parts = _parts(data)
    n_bytes = 0 if parts is None else unpacked_bytes(data[16:29])
    if parts is None or not 0 < n_bytes <= MOST:
        return None
    raw = np.empty(n_bytes, np.uint8)
    try:  # checks the stream's own checksum
        if len(codecs.deflate_decode(parts.packed, out=raw)) != n_bytes:
            return None
    except Exception:  # the decoder that is asked next says what is wrong
        return None
    return _stored(parts, raw)


def unpacked_bytes(header: bytes) -> int:
    """Return how many bytes the pixels take with their filter marks; 0: the header is none.

    Parameters
    ----------
    header
        The 13 bytes of the IHDR chunk.
    """
    width, height, bits, color, packing, filters, interlaced = struct.unpack(">IIBBBBB", header)
    if color not in SAMPLES or bits not in DEPTHS or packing or filters or interlaced > 1:
        return 0
    passes = PASSES if interlaced else ((0, 0, 1, 1),)
    total = 0
    for x, y, across, down in passes:
        columns, rows = -(-max(0, width - x) // across), -(-max(0, height - y) // down)
        if columns:
            total += rows * (1 + (columns * SAMPLES[color] * bits + 7) // 8)
    return total


def _parts(data: bytes) -> _Parts | None:
    """Return a PNG's parts, its checksums checked; None when anything about it is odd."""
    view, at = memoryview(data), len(SIGNATURE)
    if data[:at] != SIGNATURE or data[at + 4 : at + 8] != b"IHDR":
        return None
    pieces: list[memoryview] = []
    start = end = 0  # of the chunks with packed pixels
    for _ in range(MAX_CHUNKS):
        if at + OVERHEAD > len(data):
            return None
        n, name = int.from_bytes(view[at : at + 4], "big"), bytes(view[at + 4 : at + 8])
        after = at + OVERHEAD + n
        if after > len(data) or name == ANIMATED or not _is_sound(view[at + 4 : after], name):
            return None
        if name == b"IDAT":
            if end not in (0, at):
                return None  # they follow one another
            start, end = start or at, after
            pieces.append(view[at + 8 : at + 8 + n])
        elif name == b"IEND":
            if not pieces:
                return None
            packed = pieces[0] if len(pieces) == 1 else b"".join(pieces)
            return _Parts(view[:start], packed, view[end:after])
        at = after
    return None


def _is_sound(chunk: memoryview, name: bytes) -> bool:
    """Return whether a chunk that a picture cannot do without (a capital tells) is undamaged."""
    if not name[:1].isupper():
        return True
    found: int = codecs.deflate_crc32(chunk[:-4])
    return found == int.from_bytes(chunk[-4:], "big")


def _stored(parts: _Parts, raw: NDArray[np.uint8]) -> NDArray[np.uint8]:
    whole, rest = divmod(len(raw), STORED)
    n = len(ZLIB_HEAD) + len(raw) + BLOCK_HEAD * (whole + 1) + 4
    out = np.empty(len(parts.head) + OVERHEAD + n + len(parts.tail), np.uint8)
    at = len(parts.head)
    _put(out, 0, parts.head)
    _put(out, at, struct.pack(">I", n) + b"IDAT" + ZLIB_HEAD)
    body = at + 8 + len(ZLIB_HEAD)
    last = body + whole * (BLOCK_HEAD + STORED)
    blocks = out[body:last].reshape(whole, BLOCK_HEAD + STORED)
    blocks[:, :BLOCK_HEAD] = _block_head(STORED, last=False)
    blocks[:, BLOCK_HEAD:] = raw[: whole * STORED].reshape(whole, STORED)
    out[last : last + BLOCK_HEAD] = _block_head(rest, last=True)
    out[last + BLOCK_HEAD : last + BLOCK_HEAD + rest] = raw[whole * STORED :]
    end = last + BLOCK_HEAD + rest
    _put(out, end, struct.pack(">I", codecs.deflate_adler32(raw)))
    _put(out, end + 4, struct.pack(">I", codecs.deflate_crc32(out[at + 4 : end + 4])))
    _put(out, end + 8, parts.tail)
    return out


def _block_head(n: int, *, last: bool) -> NDArray[np.uint8]:
    return np.frombuffer(struct.pack("<BHH", last, n, n ^ 0xFFFF), np.uint8)


def _put(out: NDArray[np.uint8], at: int, data: Any) -> None:
    out[at : at + len(data)] = np.frombuffer(data, np.uint8)
