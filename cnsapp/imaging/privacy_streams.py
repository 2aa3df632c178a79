"""JPEG, PNG, WebP, GIF and JPEG 2000 without what they tell of people, places and devices.

These files are rows of named pieces. Pieces that decoding needs are kept as they are, bit for bit;
all others are left out, also those that nobody knows, and what follows the end of the picture.
"""

from __future__ import annotations

import re
import struct
import zlib

from cnsapp.imaging.privacy_tags import (
    IPTC,
    OTHER,
    PREVIEW,
    TEXT,
    TIME,
    XMP,
    CannotCleanError,
    words_in_exif,
)

Pieces = list[bytes | memoryview]

_SCAN_END = re.compile(rb"\xff+[^\x00\xd0-\xd7\xff]")
_MARKER = re.compile(rb"\xff[^\x00\xff]")
_SIGNATURE = re.compile(rb"(Created by OpenJPEG version |Kakadu-v?)[\d.]{1,12}\0?")
_JFIF_HEAD = 16  # length of a JFIF segment without preview
PNG_LOOKS = frozenset((
    b"IHDR", b"PLTE", b"IDAT", b"IEND", b"tRNS", b"gAMA", b"cHRM", b"sRGB", b"iCCP", b"cICP",
    b"sBIT", b"bKGD", b"pHYs", b"sCAL", b"mDCV", b"cLLI", b"acTL", b"fcTL", b"fdAT",
))  # fmt: skip
WEBP_LOOKS = frozenset((b"VP8 ", b"VP8L", b"VP8X", b"ALPH", b"ANIM", b"ICCP"))
GIF_APPLICATIONS = (b"NETSCAPE2.0", b"ANIMEXTS1.0", b"ICCRGBG1012")  # loops and colour profile
JP2_LOOKS = frozenset((b"jP  ", b"ftyp", b"rreq", b"jp2h", b"jp2c"))


def clean_jpeg(data: memoryview, exif: bytes) -> tuple[Pieces, set[str]]:
    """Return the pieces of a JPEG that show the picture, and what the others told.

    Parameters
    ----------
    data
        The whole file.
    exif
        An EXIF block (`Exif` head included) to put in, or b"" for none.

    Raises
    ------
    CannotCleanError
        Here and in the other functions: the structure leads outside the file.
    """
    pieces: Pieces = [data[:2]]
    found: set[str] = set()
    at, place = 2, 1  # `place`: where the EXIF block goes
    while True:
        at = _next_marker(data, at)
        if at >= len(data):
            break
        marker = data[at + 1]
        if marker == 0xD9:
            pieces.append(data[at : at + 2])
            at += 2
            break
        stop = at + 2 + _number(data, at + 2, ">H")
        if marker == 0xDA:
            after = _SCAN_END.search(data, stop)
            stop = after.start() if after else len(data)
            pieces.append(data[at:stop])
        elif marker == 0xE0 and bytes(data[at + 4 : at + 9]) == b"JFIF\0":
            pieces.append(_without_preview(data[at:stop], found))
            place = len(pieces)
        elif _jpeg_tells(marker, data[at + 4 : stop], found):
            pass
        else:
            pieces.append(data[at:stop])
        at = stop
    if bytes(data[at:]).strip(b"\0"):
        found.add(OTHER)
    if exif:
        pieces.insert(place, b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif)
    return pieces, found


def _next_marker(data: memoryview, at: int) -> int:
    """Return where the next marker lies; fill bytes and rubbish before it are passed over."""
    found = _MARKER.search(data, at)
    return len(data) if found is None else found.start()


def _without_preview(segment: memoryview, found: set[str]) -> bytes | memoryview:
    if len(segment) <= _JFIF_HEAD + 2:
        return segment
    found.add(PREVIEW)
    return b"\xff\xe0\x00\x10" + bytes(segment[4:16]) + b"\0\0"


def _jpeg_tells(marker: int, body: memoryview, found: set[str]) -> bool:
    """Return whether a segment is left out, and note what it tells."""
    head = bytes(body[:40])
    if marker == 0xFE:
        found.add(TEXT)
    elif marker == 0xE1 and head.startswith(b"Exif\0\0"):
        found.update(words_in_exif(body))
    elif marker == 0xE1 and b"ns.adobe.com/x" in head:
        found.add(XMP)
    elif marker == 0xED:
        found.add(IPTC)
    elif marker == 0xE0 and head.startswith(b"JFXX"):
        found.add(PREVIEW)
    elif (marker == 0xE2 and head.startswith(b"ICC_PROFILE\0")) or (
        marker == 0xEE and head.startswith(b"Adobe")
    ):
        return False
    elif 0xE0 <= marker <= 0xEF:
        found.add(OTHER)
    else:
        return False
    return True


def clean_png(data: memoryview, exif: bytes) -> tuple[Pieces, set[str]]:
    """Return the chunks of a PNG that show the picture, and what the others told."""
    pieces: Pieces = [data[:8]]
    found: set[str] = set()
    at = 8
    while at < len(data):
        length, name = _number(data, at, ">I"), bytes(data[at + 4 : at + 8])
        stop = at + 12 + length
        if stop > len(data):
            raise CannotCleanError("its last chunk is cut off")
        body = data[at + 8 : stop - 4]
        if name in PNG_LOOKS or name[:1].isupper():
            pieces.append(data[at:stop])
        else:
            found.update(_png_tells(name, body))
        if name == b"IHDR" and exif:
            pieces.append(_png_chunk(b"eXIf", exif.removeprefix(b"Exif\0\0")))
        at = stop
        if name == b"IEND":
            break
    if at < len(data):
        found.add(OTHER)
    return pieces, found


def _png_chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def _png_tells(name: bytes, body: memoryview) -> set[str]:
    if name == b"eXIf":
        return words_in_exif(body)
    if name == b"tIME":
        return {TIME}
    if name not in (b"tEXt", b"zTXt", b"iTXt"):
        return {OTHER}
    keyword = bytes(body[:80]).split(b"\0")[0].lower()
    if b"adobe.xmp" in keyword or keyword.endswith(b"xmp"):
        return {XMP}
    return {IPTC} if keyword.endswith((b"iptc", b"8bim")) else {TEXT}


def clean_webp(data: memoryview, exif: bytes) -> tuple[Pieces, set[str]]:
    """Return the chunks of a WebP that show the picture, and what the others told."""
    found: set[str] = set()
    end = min(len(data), 8 + _number(data, 4, "<I"))
    kept = _webp_chunks(data[12:end], found)
    if end < len(data):
        found.add(OTHER)
    if exif and kept and bytes(kept[0][:4]) == b"VP8X":
        kept.append(_webp_chunk(b"EXIF", exif.removeprefix(b"Exif\0\0")))
    if kept and bytes(kept[0][:4]) == b"VP8X":
        head = bytearray(kept[0])
        head[8] = (head[8] & ~0x0C) | (0x08 if exif else 0)  # says that EXIF and XMP follow
        kept[0] = bytes(head)
    size = 4 + sum(len(piece) for piece in kept)
    return [b"RIFF" + struct.pack("<I", size) + b"WEBP", *kept], found


def _webp_chunks(data: memoryview, found: set[str]) -> Pieces:
    kept: Pieces = []
    at = 0
    while at + 8 <= len(data):
        name, length = bytes(data[at : at + 4]), _number(data, at + 4, "<I")
        stop = at + 8 + length + length % 2
        body = data[at + 8 : at + 8 + length]
        if len(body) < length:
            raise CannotCleanError("its last chunk is cut off")
        if name in WEBP_LOOKS:
            kept.append(data[at:stop])
        elif name == b"ANMF":
            inner = _webp_chunks(body[16:], found)
            kept.append(_webp_chunk(name, bytes(body[:16]) + b"".join(inner)))
        elif name == b"EXIF":
            found.update(words_in_exif(body))
        else:
            found.add(XMP if name == b"XMP " else OTHER)
        at = stop
    return kept


def _webp_chunk(name: bytes, body: bytes) -> bytes:
    return name + struct.pack("<I", len(body)) + body + b"\0" * (len(body) % 2)


def clean_gif(data: memoryview, _exif: bytes) -> tuple[Pieces, set[str]]:
    """Return the blocks of a GIF that show its pictures, and what the others told."""
    found: set[str] = set()
    flags = _number(data, 10, "B")
    at = 13 + (3 << ((flags & 7) + 1) if flags & 0x80 else 0)
    pieces: Pieces = [data[:at]]
    while at < len(data):
        start, kind = at, data[at]
        if kind == 0x3B:
            pieces.append(data[at : at + 1])
            at += 1
            break
        if kind == 0x2C:
            flags = _number(data, at + 9, "B")
            at += 11 + (3 << ((flags & 7) + 1) if flags & 0x80 else 0)
            at = _after_blocks(data, at)
            pieces.append(data[start:at])
        elif kind == 0x21:
            label = _number(data, at + 1, "B")
            name = bytes(data[at + 3 : at + 14])
            at = _after_blocks(data, at + 2)
            if label == 0xF9 or (label == 0xFF and name in GIF_APPLICATIONS):
                pieces.append(data[start:at])
            elif label == 0xFF:
                found.add(XMP if name.startswith(b"XMP Data") else OTHER)
            else:
                found.add(TEXT)
        else:
            raise CannotCleanError("a block of it is of no known kind")
    if at < len(data):
        found.add(OTHER)
    return pieces, found


def _after_blocks(data: memoryview, at: int) -> int:
    while length := _number(data, at, "B"):
        at += 1 + length
    return at + 1


def clean_jpeg2000(data: memoryview, _exif: bytes) -> tuple[Pieces, set[str]]:
    """Return the boxes of a JPEG 2000 that show the picture, comments blank; what they told."""
    found: set[str] = set()
    if bytes(data[:2]) == b"\xff\x4f":
        return [_blank_comments(data, found)], found
    pieces: Pieces = []
    at = 0
    while at + 8 <= len(data):
        length, name, head = _number(data, at, ">I"), bytes(data[at + 4 : at + 8]), 8
        if length == 1:
            length, head = _number(data, at + 8, ">Q"), 16
        stop = at + length if length else len(data)
        if stop > len(data) or stop < at + head:
            raise CannotCleanError("a box of it leads outside the file")
        if name in (b"ftbl", b"jpch", b"moov"):
            raise CannotCleanError("it is put together of parts")
        if name == b"jp2c":
            pieces += [data[at : at + head], _blank_comments(data[at + head : stop], found)]
        elif name in JP2_LOOKS:
            pieces.append(data[at:stop])
        else:
            found.add(XMP if name in (b"uuid", b"xml ") else OTHER)
        at = stop
    if bytes(data[at:]).strip(b"\0"):
        found.add(OTHER)
    return pieces, found


def _blank_comments(stream: memoryview, found: set[str]) -> bytes | memoryview:
    """Return a codestream whose comments are blank; lengths stay, since others count on them."""
    blanks: list[tuple[int, int]] = []
    at = 2
    while at + 4 <= len(stream):
        marker, tile = _number(stream, at, ">H"), at
        if marker == 0xFFD9:
            break
        length = _number(stream, at + 2, ">H")
        if marker == 0xFF90:  # a tile part: its own head, then data that are not looked at
            part = _number(stream, at + 6, ">I")
            at = _tile_head(stream, at + 2 + length, blanks)
            at = tile + part if part else len(stream)
            if at <= tile:
                raise CannotCleanError("a tile of it has no length")
            continue
        if marker == 0xFF64:
            blanks.append((at + 6, at + 2 + length))
        at += 2 + length
    blanks = [(a, b) for a, b in blanks if _is_telling(bytes(stream[a:b]))]
    if not blanks:
        return stream
    found.add(TEXT)
    clean = bytearray(stream)
    for start, stop in blanks:
        clean[start:stop] = b" " * (min(stop, len(clean)) - start)
    return bytes(clean)


def _tile_head(stream: memoryview, at: int, blanks: list[tuple[int, int]]) -> int:
    while (marker := _number(stream, at, ">H")) != 0xFF93:
        length = _number(stream, at + 2, ">H")
        if marker == 0xFF64:
            blanks.append((at + 6, at + 2 + length))
        at += 2 + length
    return at


def _is_telling(comment: bytes) -> bool:
    # each encoder signs its work; that alone is no reason to touch a file
    return bool(comment.strip(b" \0")) and not comment.startswith(
        (b"Created by OpenJPEG", b"Kakadu")
    )


def _number(data: memoryview, at: int, form: str) -> int:
    try:
        return int(struct.unpack_from(form, data, at)[0])
    except struct.error as error:
        raise CannotCleanError("its structure leads outside the file") from error
