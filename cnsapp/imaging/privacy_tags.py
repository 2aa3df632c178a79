"""Which TIFF and EXIF tags a picture needs, and what the others tell, in one word each."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

PLACE, OWNER, DEVICE, TIME, TEXT = "place", "owner", "device", "time", "text"
XMP, IPTC, SOFTWARE = "XMP", "IPTC", "software"
PREVIEW, LABEL, OTHER = "preview", "slide label", "other"

ORIENTATION = 274
LOOKS = (ORIENTATION, 282, 283, 296)  # upright, and pixels an inch or centimetre
DESCRIPTION, NEW_SUBFILE, SUB_IFDS = 270, 254, 330
EXIF_IFD, GPS_IFD, INTEROP_IFD = 34665, 34853, 40965
# what a decoder needs to show the same pixels: sizes, codecs, colours, tables, pages
NEEDED = frozenset((
    254, 255, 256, 257, 258, 259, 262, 263, 264, 265, 266, 273, 274, 277, 278, 279, 280, 281, 282,
    283, 284, 286, 287, 290, 291, 292, 293, 296, 297, 301, 317, 318, 319, 320, 321, 322, 323, 324,
    325, 326, 327, 328, 330, 332, 334, 336, 338, 339, 340, 341, 342, 347, 512, 513, 514, 515, 529,
    530, 531, 532, 33421, 33422, 34675, 32995, 32996, 32997, 32998, 50674,
))  # fmt: skip
# of EXIF blocks: technical, the same for any picture of this size
HARMLESS = frozenset((*LOOKS, 531, 36864, 37121, 40960, 40961, 40962, 40963))
_WORDS = {
    PLACE: (GPS_IFD, 33550, 33922, 34264, 34735, 34736, 34737),
    OWNER: (315, 316, 33432, 42032, 40093),
    DEVICE: (271, 272, 37500, 42033, 42034, 42035, 42036, 42037, 50735, 50708),
    TIME: (306, 36867, 36868, 36880, 36881, 36882, 37520, 37521, 37522),
    TEXT: (269, DESCRIPTION, 285, 37510, 40091, 40092, 40094, 40095),
    SOFTWARE: (11, 305),
    XMP: (700,),
    IPTC: (33723, 34377),
}
_WORD_OF = {tag: word for word, tags in _WORDS.items() for tag in tags}
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4,
          16: 8, 17: 8, 18: 8}  # fmt: skip
_NUMBERS = {1: "u1", 3: "u2", 4: "u4", 13: "u4", 16: "u8", 18: "u8", 8: "i2", 9: "i4", 11: "f4"}
MAX_TAGS, MAX_IFDS = 5_000, 100_000


class CannotCleanError(Exception):
    """The structure of a file cannot be followed, so nothing in it can be called removed."""


def word_of(tag: int) -> str:
    """Return what a tag tells of: place, owner, device, time, text, software, XMP, IPTC, other."""
    return _WORD_OF.get(tag, OTHER)


@dataclass(frozen=True)
class Entry:
    """One tag of a directory; `value` is its field as it stands: the value, or where it lies."""

    tag: int
    kind: int
    count: int
    value: bytes
    start: int  # where the value's bytes lie in the file
    n_bytes: int
    inline: bool


class TiffTags:
    """The directories of a TIFF file or EXIF block, classic or BigTIFF, of either byte order.

    Raises
    ------
    CannotCleanError
        Here and in the methods: it is no TIFF, or its structure leads outside it.
    """

    def __init__(self, data: memoryview) -> None:
        self.data = data
        head = bytes(data[:16])
        if head[:2] not in (b"II", b"MM") or len(head) < 8:
            raise CannotCleanError("it has no TIFF header")
        self.order = "<" if head[:2] == b"II" else ">"
        version = int(struct.unpack(self.order + "H", head[2:4])[0])
        if version not in (42, 43):
            raise CannotCleanError(f"its TIFF version is {version}")
        self.big = version == 43
        self.width = 8 if self.big else 4  # bytes of an offset and of a value field
        self.word = self.order + ("Q" if self.big else "I")
        self.head = 16 if self.big else 8
        self.first = self.number_at(8 if self.big else 4)

    def number_at(self, at: int) -> int:
        """Return the offset stored at a place."""
        return int(self._unpack(self.word, at))

    def directory(self, at: int) -> tuple[list[Entry], int]:
        """Return the tags of the directory at a place, and where the next directory lies."""
        count = int(self._unpack(self.order + ("Q" if self.big else "H"), at))
        if count > MAX_TAGS:
            raise CannotCleanError(f"a directory names {count} tags")
        first, step = at + (8 if self.big else 2), 4 + 2 * self.width
        entries = [self._entry(first + i * step) for i in range(count)]
        return entries, self.number_at(first + count * step)

    def table_bytes(self, entries: list[Entry], following: int) -> bytes:
        """Return a directory of these tags (by number), followed by the one at `following`."""
        form = self.order + ("HHQ" if self.big else "HHI")
        rows = [struct.pack(form, e.tag, e.kind, e.count) + e.value for e in entries]
        count = struct.pack(self.order + ("Q" if self.big else "H"), len(rows))
        return count + b"".join(rows) + struct.pack(self.word, following)

    def numbers(self, entry: Entry) -> list[float]:
        """Return the value of a tag of numbers."""
        if entry.kind not in _NUMBERS:
            raise CannotCleanError(f"tag {entry.tag} is no number")
        raw = self.raw(entry)
        return list(np.frombuffer(raw, self.order + _NUMBERS[entry.kind]).tolist())

    def raw(self, entry: Entry) -> bytes:
        """Return the bytes of a tag's value."""
        raw = bytes(self.data[entry.start : entry.start + entry.n_bytes])
        if len(raw) < entry.n_bytes:
            raise CannotCleanError(f"tag {entry.tag} leads outside the file")
        return raw

    def all_tags(self) -> Iterator[tuple[int, int]]:
        """Yield (number of the directory in the chain, tag) of all, those of EXIF too."""
        seen: set[int] = set()
        waiting, number = [(0, self.first)], 0
        while waiting:
            page, at = waiting.pop()
            if at == 0 or at in seen:
                continue
            seen.add(at)
            entries, following = self.directory(at)
            for entry in entries:
                yield page, entry.tag
                if entry.tag == EXIF_IFD:
                    waiting.append((page, int(self.numbers(entry)[0])))
            if page == number:
                number += 1
                waiting.append((number, following))

    def _entry(self, at: int) -> Entry:
        tag, kind = (int(self._unpack(self.order + "H", at + i)) for i in (0, 2))
        count = self.number_at(at + 4)
        field = at + 4 + self.width
        n_bytes = _SIZES.get(kind, 0) * count
        inline = n_bytes <= self.width
        start = field if inline else self.number_at(field)
        value = bytes(self.data[field : field + self.width])
        return Entry(tag, kind, count, value, start, n_bytes, inline)

    def _unpack(self, form: str, at: int) -> int:
        try:
            return int(struct.unpack_from(form, self.data, at)[0])
        except struct.error as error:
            raise CannotCleanError("its structure leads outside the file") from error


def words_in_exif(block: memoryview) -> set[str]:
    """Return what an EXIF block (with or without its `Exif` head) tells beyond the picture's looks.

    A block that cannot be followed tells `other`: who knows what.
    """
    if bytes(block[:6]) == b"Exif\0\0":
        block = block[6:]
    words: set[str] = set()
    try:
        for page, tag in TiffTags(block).all_tags():
            if page > 0:
                words.add(PREVIEW)
            elif tag not in HARMLESS and tag not in (EXIF_IFD, INTEROP_IFD):
                words.add(word_of(tag))
    except CannotCleanError:
        words.add(OTHER)
    return words
