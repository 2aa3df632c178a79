"""Each limit is checked from what the file declares, before anything is decoded, and has a setting.

The files here declare far more than they hold: decoding them would fail or take gigabytes.
"""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from cnsapp.bootstrap import App, open_app
from cnsapp.errors import InvalidInputError, UnreadableImageError
from cnsapp.imaging import jpeg_files, pillow_files, png_files, tiff_files
from cnsapp.imaging.archive import ZipLimits, unpack
from cnsapp.imaging.limits import Limits
from cnsapp.imaging.reader import read_image
from cnsapp.services.import_source import limits_of, zip_limits_of
from cnsapp.settings import Settings


def png(width: int, height: int) -> bytes:
    def chunk(name: bytes, data: bytes) -> bytes:
        body = name + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(bytes(99)))
        + chunk(b"IEND", b"")
    )  # fmt: skip


def saved(kind: str, **options: object) -> bytearray:
    buffer = io.BytesIO()
    Image.new("RGB", (64, 48), (9, 90, 200)).save(buffer, kind, **options)
    return bytearray(buffer.getvalue())


def jpeg(width: int, height: int) -> bytes:
    data = saved("JPEG")
    at = data.index(b"\xff\xc0")
    data[at + 5 : at + 9] = struct.pack(">HH", height, width)
    return bytes(data)


def gif(width: int, height: int) -> bytes:
    data = saved("GIF")
    data[6:10] = struct.pack("<HH", width, height)
    return bytes(data)


def bmp(width: int, height: int) -> bytes:
    data = saved("BMP")
    data[18:26] = struct.pack("<ii", width, height)
    return bytes(data)


def webp(width: int, height: int) -> bytes:
    data = saved("WEBP", lossless=True)
    at = data.index(b"VP8L") + 9
    bits = int.from_bytes(data[at : at + 4], "little") >> 28 << 28
    data[at : at + 4] = struct.pack("<I", bits | (width - 1) | (height - 1) << 14)
    return bytes(data)


def jp2(width: int, height: int) -> bytes:
    data = saved("JPEG2000")
    at = data.index(b"ihdr") + 4
    data[at : at + 8] = struct.pack(">II", height, width)
    at = data.index(b"\xff\x4f\xff\x51") + 8
    data[at : at + 8] = struct.pack(">II", width, height)
    return bytes(data)


def tiff(width: int, height: int, bits: int = 8) -> bytes:
    tags = [(256, 4, width), (257, 4, height), (258, 3, bits), (259, 3, 1), (262, 3, 1),
            (273, 4, 8), (277, 3, 1), (278, 4, height), (279, 4, 100)]  # fmt: skip
    block = struct.pack("<H", len(tags))
    for tag, kind, value in tags:
        block += struct.pack("<HHII", tag, kind, 1, value)
    return b"II" + struct.pack("<HI", 42, 108) + bytes(100) + block + bytes(4)


def tiff16(width: int, height: int) -> bytes:
    return tiff(width, height, 16)


KINDS: list[Callable[[int, int], bytes]] = [png, jpeg, gif, bmp, webp, jp2, tiff, tiff16]


@pytest.fixture
def no_decoding(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object, **__: object) -> None:
        raise AssertionError("it was decoded")

    monkeypatch.setattr(pillow_files, "finish", never)
    monkeypatch.setattr(tiff_files, "whole", never)
    monkeypatch.setattr(png_files, "decode_plain", never)
    monkeypatch.setattr(jpeg_files, "decode", never)


@pytest.mark.usefixtures("no_decoding")
@pytest.mark.parametrize("make", KINDS, ids=lambda make: make.__name__)
def test_pixels_and_sides_are_checked_from_the_header(
    tmp_path: Path, make: Callable[[int, int], bytes]
) -> None:
    path = tmp_path / "x"
    path.write_bytes(make(16_000, 15_000))
    with pytest.raises(UnreadableImageError, match=r"16,000 × 15,000.*CNS_MAX_PIXELS"):
        read_image(path)
    path.write_bytes(make(16_000, 50))
    with pytest.raises(UnreadableImageError, match=r"strip of 16,000 × 50.*CNS_MAX_ASPECT_RATIO"):
        read_image(path)


@pytest.mark.usefixtures("no_decoding")
def test_bytes_are_checked_before_the_file_is_opened(tmp_path: Path) -> None:
    with (tmp_path / "x").open("wb") as handle:
        handle.write(png(64, 48))
        handle.truncate(5_000_000_000)  # a sparse file
    with pytest.raises(UnreadableImageError, match=r"5,000 MB; 4,000 MB.*CNS_MAX_FILE_BYTES"):
        read_image(tmp_path / "x")


@pytest.mark.usefixtures("no_decoding")
@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF"])
def test_frames_are_counted_before_one_is_decoded(tmp_path: Path, kind: str) -> None:
    first, *others = [Image.new("RGB", (64, 48), (n, n, n)) for n in range(0, 120, 10)]
    first.save(tmp_path / "x", kind, save_all=True, append_images=others)
    with pytest.raises(UnreadableImageError, match=r"more than 11 pages.*CNS_MAX_FRAMES"):
        read_image(tmp_path / "x", limits=Limits(max_frames=11))


@pytest.mark.usefixtures("no_decoding")
@pytest.mark.parametrize("what", ["samples", "tiles"])
def test_a_small_picture_that_needs_much_is_refused(tmp_path: Path, what: str) -> None:
    if what == "samples":
        data = np.zeros((20, 30, 40), np.uint8)
        tifffile.imwrite(tmp_path / "x", data, photometric="minisblack", planarconfig="contig",
                         metadata=None)  # fmt: skip
    else:
        tifffile.imwrite(tmp_path / "x", np.zeros((20, 30), np.uint16), tile=(4096, 4096),
                         compression="zlib")  # fmt: skip
    with pytest.raises(UnreadableImageError, match=r"8 times the limit of 2,000 pixels"):
        read_image(tmp_path / "x", limits=Limits(max_pixels=2000))


def test_an_archive_is_checked_from_its_directory(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "many.zip", "w") as archive:
        for n in range(30):
            archive.writestr(f"{n}.png", b"x")
    with pytest.raises(InvalidInputError, match=r"30 files; 29 is the limit.*CNS_MAX_ZIP_MEMBERS"):
        unpack(tmp_path / "many.zip", tmp_path / "a", ZipLimits(max_members=29))
    with zipfile.ZipFile(tmp_path / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x.png", bytes(30_000_000))
    with pytest.raises(InvalidInputError, match=r"would unpack to 30 MB.*CNS_MAX_ZIP_RATIO"):
        unpack(tmp_path / "bomb.zip", tmp_path / "b", ZipLimits(max_ratio=100))
    assert not (tmp_path / "a").exists()
    assert not (tmp_path / "b").exists()


def test_each_limit_has_its_setting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = {"MAX_PIXELS": 11, "MAX_FILE_BYTES": 12, "MAX_ASPECT_RATIO": 13, "MAX_FRAMES": 14,
              "MAX_ZIP_RATIO": 15, "MAX_ZIP_MEMBERS": 16}  # fmt: skip
    for name, value in chosen.items():
        monkeypatch.setenv(f"CNS_{name}", str(value))
    app: App = open_app(Settings(home=tmp_path / "home", start_worker=False))
    limits, archive = limits_of(app), zip_limits_of(app)
    found = (limits.max_pixels, limits.max_file_bytes, limits.max_aspect_ratio, limits.max_frames)
    assert (*found, archive.max_ratio, archive.max_members) == tuple(chosen.values())
    app.store.engine.dispose()
