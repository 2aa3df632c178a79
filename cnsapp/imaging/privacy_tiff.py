"""A TIFF without what it tells of people, places and devices: only what a decoder needs is kept.

Nothing is taken out of the file; the other way round, a file of zeros gets the header, the tags
that decoding needs, and the pixel data. What lies between (maker notes, deleted tags, previews,
labels of slides) never reaches it.
"""

from __future__ import annotations

import json
import re
import struct
from dataclasses import dataclass, field, replace
from typing import BinaryIO
from xml.etree import ElementTree

from cnsapp.imaging.privacy_tags import (
    DESCRIPTION,
    LABEL,
    MAX_IFDS,
    NEEDED,
    ORIENTATION,
    OTHER,
    SUB_IFDS,
    TEXT,
    CannotCleanError,
    Entry,
    TiffTags,
    word_of,
)

BLOCK = 1 << 20
BITS, COMPRESSION, WIDTH, LENGTH, SAMPLES, ROWS, PLANAR = 258, 259, 256, 257, 277, 278, 284
STRIPS, TILES, STREAM = (273, 279), (324, 325), (513, 514)
SOURCE_LENS = 65421  # Hamamatsu: -1 is the macro picture, -2 a map of the slide
OLD_JPEG = 6
LABEL_PAGE = re.compile(r"^\W*(label|macro)(\b|_image)", re.IGNORECASE | re.MULTILINE)
IMAGEJ_KEYS = frozenset((
    "ImageJ", "images", "channels", "slices", "frames", "hyperstack", "mode", "unit", "spacing",
    "finterval", "min", "max", "loop",
))  # fmt: skip
APERIO_KEYS = ("AppMag", "MPP")
OME_PARTS = {
    "OME": (),
    "Image": ("ID",),
    "Pixels": (
        "ID", "DimensionOrder", "Type", "SignificantBits", "Interleaved", "BigEndian", "SizeX",
        "SizeY", "SizeC", "SizeZ", "SizeT", "PhysicalSizeX", "PhysicalSizeY", "PhysicalSizeZ",
        "PhysicalSizeXUnit", "PhysicalSizeYUnit", "PhysicalSizeZUnit",
    ),
    "Channel": ("ID", "SamplesPerPixel", "Color", "EmissionWavelength", "ExcitationWavelength"),
    "TiffData": ("IFD", "FirstC", "FirstZ", "FirstT", "PlaneCount"),
}  # fmt: skip


@dataclass
class _Page:
    at: int
    entries: list[Entry]


@dataclass
class TiffPlan:
    """What of a TIFF is copied, and what is written over it."""

    kept: list[tuple[int, int]] = field(default_factory=list)  # (start, stop) of the file
    patches: list[tuple[int, bytes]] = field(default_factory=list)
    found: set[str] = field(default_factory=set)
    end: int = 0  # where what is appended begins


def plan_tiff(data: memoryview, orientation: int = 1) -> TiffPlan:
    """Return how to write this TIFF without its metadata.

    Parameters
    ----------
    data
        The whole file.
    orientation
        Orientation mark that readers obey although it stands in no tag (in XMP); 1 for none.

    Raises
    ------
    CannotCleanError
        The structure cannot be followed, or is one whose pixels hang on private tags.
    """
    return _Planner(data, orientation).plan()


def write_tiff(data: memoryview, plan: TiffPlan, target: BinaryIO) -> None:
    """Write the planned copy."""
    for start, stop in _merged(plan.kept):
        target.seek(start)
        for at in range(start, stop, BLOCK):
            target.write(data[at : min(at + BLOCK, stop)])
    for at, piece in plan.patches:
        target.seek(at)
        target.write(piece)


class _Planner:
    def __init__(self, data: memoryview, orientation: int) -> None:
        self.tags, self.orientation = TiffTags(data), orientation
        self.size = len(data)
        self.done = TiffPlan(kept=[(0, self.tags.head)], end=self.size + self.size % 2)
        self.seen: set[int] = set()

    def plan(self) -> TiffPlan:
        first = self._chain(self.tags.first)
        if first == 0:
            raise CannotCleanError("it has no page")
        tables = [(at, at + len(piece)) for at, piece in self.done.patches]
        if not self.done.found and _left_out(self.tags.data, _merged(self.done.kept + tables)):
            self.done.found.add(OTHER)
        return self.done

    def _chain(self, at: int) -> int:
        pages: list[_Page] = []
        while at and at not in self.seen:
            if len(self.seen) >= MAX_IFDS:
                raise CannotCleanError(f"it has more than {MAX_IFDS} pages")
            self.seen.add(at)
            entries, following = self.tags.directory(at)
            if self.seen != {at} and self._is_label(entries):
                self.done.found.add(LABEL)
            else:
                pages.append(_Page(at, self._kept_entries(entries)))
            at = following
        following_of = [*(page.at for page in pages[1:]), 0]
        for page, following in zip(pages, following_of, strict=False):
            table = self.tags.table_bytes(page.entries, following)
            self.done.patches.append((page.at, table))
        return pages[0].at if pages else 0

    def _is_label(self, entries: list[Entry]) -> bool:
        for entry in entries:
            if entry.tag == DESCRIPTION and LABEL_PAGE.search(self._text(entry)[:2000]):
                return True
            if entry.tag == SOURCE_LENS and self.tags.numbers(entry)[0] < 0:
                return True
        return False

    def _kept_entries(self, entries: list[Entry]) -> list[Entry]:
        is_first = len(self.seen) == 1
        kept: list[Entry] = []
        for entry in entries:
            if entry.tag == DESCRIPTION:
                kept.extend(self._description(entry))
            elif entry.tag not in NEEDED:
                self.done.found.add(word_of(entry.tag))
            elif entry.tag == SUB_IFDS:
                kept.append(self._sub_directories(entry))
            else:
                kept.append(self._value(entry))
        self._pixels({entry.tag: entry for entry in kept})
        if is_first and self.orientation in range(2, 9) and len(kept) < len(entries):
            kept = self._turned(kept)
        return sorted(kept, key=lambda entry: entry.tag)

    def _value(self, entry: Entry) -> Entry:
        self.tags.raw(entry)  # it must lie inside the file
        if not entry.inline:
            self.done.kept.append((entry.start, entry.start + entry.n_bytes))
        return entry

    def _sub_directories(self, entry: Entry) -> Entry:
        for at in self.tags.numbers(entry):
            self._chain(int(at))
        return self._value(entry)

    def _turned(self, kept: list[Entry]) -> list[Entry]:
        if any(entry.tag == ORIENTATION for entry in kept):
            return kept
        value = struct.pack(self.tags.order + "H", self.orientation).ljust(self.tags.width, b"\0")
        return [*kept, Entry(ORIENTATION, 3, 1, value, 0, 2, True)]

    def _description(self, entry: Entry) -> list[Entry]:
        said = self._text(entry)
        kept = technical_part(said)
        if kept != said:
            self.done.found.add(TEXT)
        elif kept:
            return [self._value(entry)]
        if not kept:
            return []
        raw = kept.encode("utf-8") + b"\0"
        if len(raw) <= self.tags.width:
            value = raw.ljust(self.tags.width, b"\0")
            return [replace(entry, kind=2, count=len(raw), value=value, inline=True)]
        at = self.done.end
        if at + len(raw) >= 1 << (8 * self.tags.width):
            raise CannotCleanError("it is too large to be written again")
        self.done.patches.append((at, raw))
        self.done.end += len(raw) + len(raw) % 2
        value = struct.pack(self.tags.word, at)
        return [replace(entry, kind=2, count=len(raw), value=value, inline=False)]

    def _text(self, entry: Entry) -> str:
        return self.tags.raw(entry).split(b"\0")[0].decode("utf-8", "replace")

    def _pixels(self, page: dict[int, Entry]) -> None:
        if self._number(page, COMPRESSION, 1) == OLD_JPEG:
            raise CannotCleanError("it uses the old JPEG compression of TIFF")
        for offsets_tag, counts_tag in (STRIPS, TILES, STREAM):
            if offsets_tag not in page:
                continue
            starts = [int(n) for n in self.tags.numbers(page[offsets_tag])]
            least = self._plain_bytes(page, offsets_tag)
            counts = [0] * len(starts)
            if counts_tag in page:
                counts = [int(n) for n in self.tags.numbers(page[counts_tag])]
            if len(counts) != len(starts):
                raise CannotCleanError("the places and sizes of its pixel data do not match")
            for start, count in zip(starts, counts, strict=True):
                if start and not count and not least:
                    raise CannotCleanError("the size of its pixel data is not given")
                stop = min(start + max(count, least), self.size)
                if start and start < stop:
                    self.done.kept.append((start, stop))

    def _plain_bytes(self, page: dict[int, Entry], tag: int) -> int:
        """Bytes of an uncompressed strip: files whose sizes are missing or wrong are read so."""
        if self._number(page, COMPRESSION, 1) != 1 or tag != STRIPS[0] or STRIPS[1] in page:
            return 0
        samples = self._number(page, SAMPLES, 1) if self._number(page, PLANAR, 1) == 1 else 1
        rows = min(self._number(page, ROWS, 1 << 31), self._number(page, LENGTH, 0))
        bits = self._number(page, BITS, 1) * samples * self._number(page, WIDTH, 0)
        return rows * -(-bits // 8)

    def _number(self, page: dict[int, Entry], tag: int, otherwise: int) -> int:
        return int(self.tags.numbers(page[tag])[0]) if tag in page else otherwise


def technical_part(description: str) -> str:
    """Return the part of a TIFF description that says how to read the pixels; often "".

    OME, ImageJ, tifffile and Aperio write the order of pages, the channels and the size of a pixel
    there, beside names, dates and serial numbers.

    Examples
    --------
    >>> technical_part("Patient Jane Doe")
    ''
    >>> technical_part("ImageJ=1.53\\nimages=5\\nInfo=Jane Doe\\n")
    'ImageJ=1.53\\nimages=5\\n'
    """
    text = description.strip()
    if text.startswith("ImageJ="):
        lines = [line for line in description.split("\n") if line.split("=")[0] in IMAGEJ_KEYS]
        return "\n".join(lines) + "\n"
    if text.startswith("Aperio"):
        pairs = [part.split("=", 1) for part in text.split("|")[1:] if "=" in part]
        facts = {key.strip(): value.strip() for key, value in pairs}
        said = [f"|{k} = {float(facts[k]):g}" for k in APERIO_KEYS if _is_number(facts.get(k, ""))]
        return "Aperio Image" + "".join(said)
    if text.startswith("{"):
        return _shape_only(text)
    return _ome_only(text) if text.endswith("OME>") else ""


def _is_number(text: str) -> bool:
    return re.fullmatch(r"\d+(\.\d+)?", text) is not None


def _shape_only(text: str) -> str:
    try:
        said = json.loads(text)
        shape = [int(n) for n in said["shape"]]
    except (ValueError, TypeError, KeyError):
        return ""
    axes = str(said.get("axes", ""))
    kept = {"shape": shape} | ({"axes": axes} if re.fullmatch("[A-Z]{2,8}", axes) else {})
    return text if set(said) <= {"shape", "axes"} else json.dumps(kept)


def _ome_only(text: str) -> str:
    try:
        root = ElementTree.fromstring(text.encode())
    except (ElementTree.ParseError, ValueError):
        return ""
    name, _, tag = root.tag[1:].partition("}") if root.tag.startswith("{") else ("", "", root.tag)
    if tag != "OME":
        return ""
    kept = _ome_part(root, "OME", f"{{{name}}}" if name else "")
    if name:
        kept.set("xmlns", name)
    return '<?xml version="1.0" encoding="UTF-8"?>' + ElementTree.tostring(kept, "unicode")


def _ome_part(found: ElementTree.Element, tag: str, prefix: str) -> ElementTree.Element:
    kept = ElementTree.Element(tag)
    kept.attrib |= {key: found.attrib[key] for key in OME_PARTS[tag] if key in found.attrib}
    for child in found:
        plain = child.tag.removeprefix(prefix) if isinstance(child.tag, str) else ""
        if plain in OME_PARTS and plain != "OME":
            kept.append(_ome_part(child, plain, prefix))
    return kept


def _merged(ranges: list[tuple[int, int]]) -> list[tuple[int, int]]:
    merged: list[tuple[int, int]] = []
    for start, stop in sorted(ranges):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(stop, merged[-1][1]))
        else:
            merged.append((start, stop))
    return merged


def _left_out(data: memoryview, covered: list[tuple[int, int]]) -> bool:
    """Return whether bytes that are not zeros lie outside of what is kept: old or hidden data."""
    ends = [0, *(stop for _, stop in covered)]
    gaps = zip(ends, [*(start for start, _ in covered), len(data)], strict=True)
    return any(bytes(data[at : min(at + BLOCK, stop)]).strip(b"\0")
               for start, stop in gaps for at in range(start, stop, BLOCK))  # fmt: skip
