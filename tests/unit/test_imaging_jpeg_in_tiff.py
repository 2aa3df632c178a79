"""A TIFF whose JPEG parts declare another size than the page: found by a long run of the fuzz."""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from cnsapp.errors import UnreadableImageError
from cnsapp.imaging.jpeg_files import declared_size
from cnsapp.imaging.limits import Limits
from cnsapp.imaging.reading_pool import Readers
from cnsapp.imaging.rule import ReadingRule

LIMITS = Limits(max_pixels=1_000_000, max_file_bytes=50_000_000, read_seconds=10)


@pytest.fixture(scope="module")
def reader() -> Iterator[Readers]:
    """The product's way of reading: a process of its own."""
    pool = Readers(1)
    yield pool
    pool.close()


def jpeg_tiff(**options: Any) -> bytes:
    """Return a TIFF of 48 x 64 pixels, compressed as JPEG."""
    pixels = np.indices((48, 64)).sum(0)[..., None].repeat(3, 2).astype(np.uint8) * 2
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, pixels, compression="jpeg", photometric="rgb", **options)
    return buffer.getvalue()


def declaring(data: bytes, width: int, height: int) -> bytes:
    """Return the file with this size in the last JPEG frame header inside."""
    at = data.rindex(b"\xff\xc0")
    return data[: at + 5] + struct.pack(">HH", height, width) + data[at + 9 :]


@pytest.mark.parametrize("options", [{}, {"tile": (48, 64)}, {"rowsperstrip": 16}])
@pytest.mark.parametrize("size", [(36_651, 49_633), (60_000, 48)])
def test_a_part_larger_than_its_page_is_refused_in_words(
    reader: Readers, tmp_path: Path, options: dict[str, Any], size: tuple[int, int]
) -> None:
    path = tmp_path / "x.tif"
    path.write_bytes(declaring(jpeg_tiff(**options), *size))
    with pytest.raises(UnreadableImageError) as caught:
        reader.call("read", path, rule=ReadingRule(), limits=LIMITS)
    assert f"a part of it declares {size[0]:,} × {size[1]:,} pixels" in caught.value.what
    assert "the whole picture 64 × 48" in caught.value.what


@pytest.mark.parametrize("options", [{}, {"tile": (48, 64)}, {"tile": (16, 16)}])
def test_honest_files_are_read(reader: Readers, tmp_path: Path, options: dict[str, Any]) -> None:
    path = tmp_path / "x.tif"
    path.write_bytes(jpeg_tiff(**options))
    answer = reader.call("read", path, rule=ReadingRule(), limits=LIMITS)
    assert answer.array is not None
    assert answer.array.shape == (48, 64, 3)
    assert abs(int(answer.array[40, 50, 1]) - 180) < 8


@pytest.mark.parametrize("cut", [0, 1, 2, 3, 8, 20])
def test_a_header_that_is_cut_off_declares_nothing(cut: int) -> None:
    data = jpeg_tiff()
    assert declared_size(data[data.rindex(b"\xff\xd8") :][:cut]) is None
    assert declared_size(b"") is None
