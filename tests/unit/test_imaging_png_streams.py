"""The unpacked copy of a PNG is the same picture to every decoder, or there is none."""

from __future__ import annotations

import io
import itertools
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from cnsapp.errors import UnreadableImageError
from cnsapp.imaging import png_streams
from cnsapp.imaging.png_streams import unpacked, unpacked_bytes
from cnsapp.imaging.reader import read_image

SAMPLES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
DEPTHS = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}
PASSES = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2),
          (0, 1, 1, 2))  # fmt: skip


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def rows(width: int, height: int, bits_a_pixel: int, rng: np.random.Generator) -> bytes:
    """Return filtered rows of noise; their filters take turns through all five."""
    n = (width * bits_a_pixel + 7) // 8
    if not n:
        return b""
    return b"".join(bytes([y % 5]) + rng.bytes(n) for y in range(height))


def png(
    width: int,
    height: int,
    color: int,
    bits: int,
    *,
    interlaced: bool = False,
    pieces: int = 1,
    extra: bytes = b"",
    packed: Callable[[bytes], bytes] = zlib.compress,
) -> bytes:
    rng = np.random.default_rng(width * 1000 + height)
    passes = PASSES if interlaced else ((0, 0, 1, 1),)
    data = b"".join(
        rows(-(-max(0, width - x) // dx), -(-max(0, height - y) // dy), SAMPLES[color] * bits, rng)
        for x, y, dx, dy in passes
    )
    stream = packed(data)
    step = -(-len(stream) // pieces)
    head = struct.pack(">IIBBBBB", width, height, bits, color, 0, 0, interlaced)
    table = chunk(b"PLTE", rng.bytes(3 * 2**bits)) if color == 3 else b""
    return (
        png_streams.SIGNATURE + chunk(b"IHDR", head) + table + extra
        + b"".join(chunk(b"IDAT", stream[i : i + step]) for i in range(0, len(stream), step))
        + chunk(b"tEXt", b"Comment\0after the pixels") + chunk(b"IEND", b"")
    )  # fmt: skip


def by_pillow(data: bytes) -> tuple[str, NDArray[np.uint8]]:
    with Image.open(io.BytesIO(data)) as image:
        image.load()
        assert image.info["Comment"] == "after the pixels"
        return image.mode, np.asarray(image)


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize(
    ("color", "bits"), [(color, bits) for color, depths in DEPTHS.items() for bits in depths]
)
def test_every_kind_of_png_is_the_same_picture_unpacked(
    tmp_path: Path, color: int, bits: int, interlaced: bool
) -> None:
    clear = b""
    if color in (0, 2):
        clear = chunk(b"tRNS", struct.pack(f">{SAMPLES[color]}H", *[1] * SAMPLES[color]))
    elif color == 3:
        clear = chunk(b"tRNS", bytes(range(2**bits)))
    for (width, height), extra, pieces in itertools.product(
        [(1, 1), (3, 2), (33, 5), (8, 8), (301, 211)], {b"", clear}, (1, 4)
    ):
        data = png(
            width, height, color, bits, interlaced=interlaced, pieces=pieces, extra=extra
        )  # fmt: skip
        file = tmp_path / "x.png"
        file.write_bytes(data)
        stored = unpacked(file)
        assert stored is not None
        mode, pixels = by_pillow(data)
        other_mode, others = by_pillow(stored.tobytes())
        assert mode == other_mode
        np.testing.assert_array_equal(pixels, others)
        np.testing.assert_array_equal(
            imagecodecs.png_decode(data), imagecodecs.png_decode(stored.tobytes())
        )


@pytest.mark.parametrize("width", [65_534, 65_535, 65_536, 131_069, 131_070, 131_071])
def test_stored_blocks_of_any_rest_are_whole(tmp_path: Path, width: int) -> None:
    data = png(width - 1, 1, 0, 8)  # a byte for the filter
    (tmp_path / "x.png").write_bytes(data)
    stored = unpacked(tmp_path / "x.png")
    assert stored is not None
    np.testing.assert_array_equal(by_pillow(data)[1], by_pillow(stored.tobytes())[1])


@pytest.mark.parametrize("kind", ["rgb", "deep"])
def test_the_reader_shows_what_pillow_or_the_codec_reads_from_the_file_itself(
    tmp_path: Path, kind: str
) -> None:
    data = png(301, 211, 2 if kind == "rgb" else 0, 8 if kind == "rgb" else 16, pieces=3)
    (tmp_path / "x.png").write_bytes(data)
    pixels = read_image(tmp_path / "x.png").pixels
    if kind == "rgb":
        np.testing.assert_array_equal(pixels, by_pillow(data)[1])
    else:
        levels = imagecodecs.png_decode(data)
        np.testing.assert_array_equal(pixels[..., 1], np.round(levels / 257).astype(np.uint8))


def flipped(data: bytes, at: int) -> bytes:
    wrong = bytearray(data)
    wrong[at] ^= 1
    return bytes(wrong)


def test_damaged_and_odd_files_are_left_to_the_decoder(tmp_path: Path) -> None:
    good = png(40, 30, 2, 8, pieces=2)
    first = good.index(b"IDAT")
    second = good.index(b"IDAT", first + 4)
    between = good[: second - 4] + chunk(b"tEXt", b"a\0b") + good[second - 4 :]
    odd = {
        "pixels": flipped(good, first + 30),
        "checksum of a chunk": flipped(good, second - 8),
        "header": flipped(good, 19),
        "cut off": good[:-40],
        "no end": good[: good.index(b"IEND") - 4],
        "pieces apart": between,
        "animated": png(40, 30, 2, 8, extra=chunk(b"acTL", bytes(8))),
        "too few rows": png(40, 30, 2, 8, packed=lambda d: zlib.compress(d[:-121])),
        "too many": png(40, 30, 2, 8, packed=lambda d: zlib.compress(d + d)),
        "checksum of the stream": png(40, 30, 2, 8, packed=lambda d: flipped(zlib.compress(d), -1)),
        "no stream": png(40, 30, 2, 8, packed=lambda d: d[:500]),
        "another packing": png(40, 30, 2, 8).replace(
            chunk(b"IHDR", struct.pack(">IIBBBBB", 40, 30, 8, 2, 0, 0, 0)),
            chunk(b"IHDR", struct.pack(">IIBBBBB", 40, 30, 8, 2, 1, 0, 0)),
        ),
        "empty": b"",
        "signature only": good[:8],
    }
    file = tmp_path / "x.png"
    file.write_bytes(good)
    assert unpacked(file) is not None
    for what, data in odd.items():
        file.write_bytes(data)
        assert unpacked(file) is None, what
    for what in ("pixels", "no stream", "checksum of the stream"):
        file.write_bytes(odd[what])
        with pytest.raises(UnreadableImageError):
            read_image(file)


def test_large_pictures_are_left_to_the_decoder_for_the_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "x.png").write_bytes(png(40, 30, 2, 8))
    monkeypatch.setattr(png_streams, "MOST", 30 * 121)
    assert unpacked(tmp_path / "x.png") is not None
    monkeypatch.setattr(png_streams, "MOST", 30 * 121 - 1)
    assert unpacked(tmp_path / "x.png") is None


def test_the_bytes_of_an_interlaced_picture_are_those_of_its_passes() -> None:
    head = struct.pack(">IIBBBBB", 8, 8, 8, 0, 0, 0, 1)
    # passes of 1x1, 1x1, 2x1, 2x2, 4x2, 4x4, 8x4 pixels, and a byte a row
    assert unpacked_bytes(head) == 64 + 1 + 1 + 1 + 2 + 2 + 4 + 4
    assert unpacked_bytes(struct.pack(">IIBBBBB", 9, 2, 1, 0, 0, 0, 0)) == 2 * 3
    assert unpacked_bytes(struct.pack(">IIBBBBB", 9, 2, 3, 0, 0, 0, 0)) == 0
