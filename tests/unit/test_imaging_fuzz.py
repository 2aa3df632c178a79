"""Damaged files of every kind: a picture or a reason, in time and within the memory allowed.

A few hundred examples in the normal run, always the same ones. `CNS_TEST_FUZZ_EXAMPLES=50000`
makes it a long run with fresh ones; `CNS_TEST_FUZZ_KEEP` names a folder for what crashes.
"""

from __future__ import annotations

import io
import os
import struct
import zlib
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from PIL import Image

from cnsapp.errors import UnreadableImageError
from cnsapp.imaging.limits import Limits
from cnsapp.imaging.reading_pool import Readers
from cnsapp.imaging.rule import Channel, ReadingRule

LONG = int(os.environ.get("CNS_TEST_FUZZ_EXAMPLES", "0"))
EXAMPLES = LONG or 400
LIMITS = Limits(max_pixels=1_000_000, max_file_bytes=50_000_000, max_frames=1000, read_seconds=10)
PICTURE_BYTES = 24 * LIMITS.max_pixels  # what decoding the largest picture allowed may take
MARGIN = 300_000_000
RULES = [
    ReadingRule((("float", 0.0, 1.0),)),
    ReadingRule(page="2"),
    ReadingRule(page="max", background="#102030"),
    ReadingRule(page="max", channels=(Channel(0, "#FF0000"), Channel(2, "#00FF00", 0, 900))),
]


def gray(*shape: int, dtype: str = "uint8") -> Any:
    top = np.iinfo(dtype).max if np.dtype(dtype).kind == "u" else 1
    ramp = np.linspace(0, 1, int(np.prod(shape))) ** 0.7
    return (ramp * top).reshape(shape).astype(dtype)


def by_pillow(kind: str, mode: str = "RGB", pages: int = 1, **options: Any) -> bytes:
    image = Image.fromarray(gray(48, 64, 4), "RGBA").convert(mode)
    if pages > 1:
        others = [image.rotate(angle) for angle in range(1, pages)]
        options |= {"save_all": True, "append_images": others}
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def by_tifffile(data: Any, **options: Any) -> bytes:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, data, **options)
    return buffer.getvalue()


@cache
def sound_files() -> dict[str, bytes]:
    profile = Image.Exif()
    profile[0x0112] = 6
    contig: dict[str, Any] = {"photometric": "minisblack", "planarconfig": "contig",
                              "metadata": None}  # fmt: skip
    return {
        "jpeg": by_pillow("JPEG", exif=profile),
        "jpeg progressive": by_pillow("JPEG", progressive=True),
        "jpeg cmyk": by_pillow("JPEG", "CMYK"),
        "png": by_pillow("PNG"),
        "png palette": by_pillow("PNG", "P"),
        "png alpha": by_pillow("PNG", "RGBA"),
        "png 16": imagecodecs.png_encode(gray(48, 64, 4, dtype="uint16")),
        "png animated": by_pillow("PNG", pages=3),
        "gif": by_pillow("GIF", "P", pages=3),
        "bmp": by_pillow("BMP"),
        "bmp palette": by_pillow("BMP", "P"),
        "webp": by_pillow("WEBP"),
        "webp animated": by_pillow("WEBP", "RGBA", pages=3, lossless=True),
        "jp2": by_pillow("JPEG2000"),
        "jp2 16": imagecodecs.jpeg2k_encode(gray(48, 64, 3, dtype="uint16"), level=0),
        "avif": by_pillow("AVIF"),
        "tiff": by_pillow("TIFF"),
        "tiff lzw": by_pillow("TIFF", compression="tiff_lzw"),
        "tiff jpeg": by_pillow("TIFF", compression="jpeg"),
        "tiff fax": by_pillow("TIFF", "1", compression="group4"),
        "tiff pages": by_pillow("TIFF", "P", pages=3),
        "tiff 16": by_tifffile(gray(48, 64, dtype="uint16"), compression="zlib", predictor=True),
        "tiff 16 big": by_tifffile(gray(48, 64, dtype="uint16"), byteorder=">", bigtiff=True),
        "tiff float tiles": by_tifffile(
            gray(48, 64, dtype="float32"), tile=(32, 32), compression="lzw", predictor=True
        ),
        "tiff zstd": by_tifffile(gray(48, 64, 3), compression="zstd", photometric="rgb"),
        "tiff jpeg2000": by_tifffile(gray(48, 64, 3), compression="jpeg2000", photometric="rgb"),
        "tiff channels": by_tifffile(gray(48, 64, 5), compression="zlib", **contig),
        "tiff channels plain": by_tifffile(gray(48, 64, 5, dtype="uint16"), **contig),
        "tiff planar": by_tifffile(
            gray(5, 48, 64, dtype="uint16"), photometric="minisblack", planarconfig="separate",
            tile=(32, 32), compression="lzma", metadata=None,
        ),
        "ome": by_tifffile(gray(2, 3, 24, 32, dtype="uint16"), ome=True, metadata={"axes": "ZCYX"},
                           photometric="minisblack"),
        "imagej": by_tifffile(gray(2, 3, 24, 32, dtype="uint16"), imagej=True,
                              metadata={"axes": "ZCYX"}),
        "shaped": by_tifffile(gray(2, 3, 24, 32), metadata={"axes": "ZCYX"},
                              photometric="minisblack", compression="packbits"),
    }  # fmt: skip


Edit = tuple[str, int, bytes]
place = st.one_of(st.integers(0, 600), st.integers(0, 1 << 20), st.integers(0, 1 << 20))
word = st.sampled_from([
    b"\0", b"\xff", b"\x7f", b"\x80", b"\0\0", b"\xff\xff", b"\0\x80", b"\xff\x7f", b"\0\0\0\0",
    b"\xff" * 4, b"\xff\xff\xff\x7f", b"\0\0\1\0", b"\0\1\0\0", b"\xe8\x03\0\0", b"\xff" * 8,
])  # fmt: skip
edit = st.one_of(
    st.tuples(st.just("put"), place, st.one_of(word, st.binary(min_size=1, max_size=4))),
    st.tuples(st.just("grow"), place, st.one_of(word, st.binary(min_size=1, max_size=64))),
    st.tuples(st.just("drop"), place, st.binary(min_size=1, max_size=40)),
    st.tuples(st.just("cut"), place, st.just(b"")),
    st.tuples(st.just("double"), place, st.binary(min_size=1, max_size=200)),
)


def damaged(data: bytes, edits: list[Edit]) -> bytes:
    for what, at, more in edits:
        at = at % (len(data) + 1)
        if what == "put":
            data = data[:at] + more + data[at + len(more) :]
        elif what == "grow":
            data = data[:at] + more + data[at:]
        elif what == "drop":
            data = data[:at] + data[at + len(more) :]
        elif what == "double":
            data = data[: at + len(more)] + data[at:]
        else:
            data = data[: max(at, 16)]
    return data


def with_right_sums(data: bytes) -> bytes:
    """Return a damaged PNG whose checksums are right, so that the damage comes through."""
    out, at = data[:8], 8
    while at + 12 <= len(data):
        n = struct.unpack(">I", data[at : at + 4])[0]
        body = data[at + 4 : at + 8 + n]
        out += data[at : at + 4] + body + struct.pack(">I", zlib.crc32(body))
        at += 12 + n
    return out + data[at:]


@pytest.fixture(scope="module")
def reader() -> Iterator[Readers]:
    """The product's way of reading: a process of its own, here a single one."""
    pool = Readers(1)
    yield pool
    pool.close()


def peak_memory(pool: Readers) -> int:
    """Return the most bytes that the reading processes ever held (Linux)."""
    peak = 0
    for pid in pool.process_ids():
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                peak = max(peak, int(line.split()[1]) * 1024)
    return peak


SEEN: Counter[str] = Counter()


@settings(
    max_examples=EXAMPLES,
    deadline=None,
    database=None,
    derandomize=not LONG,
    phases=(Phase.generate,) if LONG else (Phase.generate, Phase.shrink),
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    name=st.sampled_from(sorted(sound_files())),
    edits=st.lists(edit, min_size=1, max_size=4),
    rule=st.sampled_from(RULES),
    mend=st.booleans(),
)
def test_damaged_files_give_a_picture_or_a_reason(
    reader: Readers, tmp_path: Path, name: str, edits: list[Edit], rule: ReadingRule, mend: bool
) -> None:
    data = damaged(sound_files()[name], edits)
    if mend and name.startswith("png"):
        data = with_right_sums(data)
    path = tmp_path / "x"
    path.write_bytes(data)
    try:
        answer = reader.call("read", path, rule=rule, limits=LIMITS)
    except UnreadableImageError as error:
        assert error.what.endswith(".")
        outcome = error.what
    else:
        outcome = "read"
        assert answer.array is not None
        assert answer.array.dtype == np.uint8
        assert answer.array.ndim == 3
        assert answer.array.shape[2] == 3
    SEEN[outcome.split("(")[0][:50]] += 1
    bad = [word for word in ("took longer", "memory", "crashed") if word in outcome]
    if bad and LONG:
        kept = Path(os.environ.get("CNS_TEST_FUZZ_KEEP", tmp_path)) / f"{bad[0]}-{zlib.crc32(data)}"
        kept.write_bytes(data)
    assert LONG or not bad, (name, outcome)
    assert "took longer" not in outcome
    if Path("/proc/self/status").is_file():
        assert peak_memory(reader) <= PICTURE_BYTES + MARGIN


def test_the_damage_reached_the_decoders() -> None:
    if not SEEN:
        pytest.skip("the examples ran elsewhere")
    if LONG:
        print(*SEEN.most_common(), sep="\n")  # noqa: T201 - what a long run is for
    assert SEEN["read"] > 0.03 * EXAMPLES
    assert len(SEEN) > 5


@pytest.mark.parametrize("name", sorted(sound_files()))
def test_the_sound_files_are_read(reader: Readers, tmp_path: Path, name: str) -> None:
    (tmp_path / "x").write_bytes(sound_files()[name])
    answer = reader.call("read", tmp_path / "x", rule=RULES[0], limits=LIMITS)
    assert answer.array is not None
    assert answer.array.std() > 0
