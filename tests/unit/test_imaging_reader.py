"""One reading rule: kinds of files, bit depths, orientation, transparency, limits."""

from __future__ import annotations

import io
import itertools
import threading
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image

from cnsapp.errors import UnreadableImageError
from cnsapp.imaging.limits import Limits
from cnsapp.imaging.reader import (
    ReadingRule,
    WindowMissingError,
    read_image,
    read_sample_range,
)
from cnsapp.imaging.window import fit_window

RAMP = np.linspace(0, 65535, 64 * 48).reshape(48, 64).astype(np.uint16)
COLOR = np.stack([RAMP, RAMP[::-1], RAMP[:, ::-1]], -1)


def picture(seed: int = 0, shape: tuple[int, ...] = (48, 64, 3)) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "BMP", "GIF", "WEBP", "JPEG2000"])
def test_lossless_kinds_give_their_exact_pixels(tmp_path: Path, kind: str) -> None:
    pixels = picture()
    image = Image.fromarray(pixels)
    if kind == "GIF":
        image = image.quantize(64)
        pixels = np.asarray(image.convert("RGB"))
    options = {"WEBP": {"lossless": True}, "JPEG2000": {"irreversible": False}}.get(kind, {})
    image.save(tmp_path / "x", kind, **options)
    result = read_image(tmp_path / "x")
    assert (result.pixels == pixels).all()
    assert result.facts.format == kind


@pytest.mark.parametrize(
    ("order", "planar", "compression", "bits"),
    list(itertools.product("<>", (False, True), (None, "lzw", "zlib", "zstd"), (8, 16))),
)
def test_color_tiffs_of_every_make_are_the_same_picture(
    tmp_path: Path, order: str, planar: bool, compression: str | None, bits: int
) -> None:
    samples = COLOR if bits == 16 else (COLOR >> 8).astype(np.uint8)
    data = np.moveaxis(samples, -1, 0) if planar else samples
    tifffile.imwrite(
        tmp_path / "x.tif", data, byteorder=order, photometric="rgb", compression=compression,
        planarconfig="separate" if planar else "contig",
    )  # fmt: skip
    pixels = read_image(tmp_path / "x.tif").pixels
    assert np.abs(pixels - COLOR / 257.0).max() <= 1.0


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("kind", ["tif", "png"])
def test_sixteen_bit_gray_shows_256_levels(tmp_path: Path, order: str, kind: str) -> None:
    path = tmp_path / f"x.{kind}"
    if kind == "tif":
        tifffile.imwrite(path, RAMP, byteorder=order)
    else:
        Image.fromarray(RAMP).save(path)
    result = read_image(path)
    assert len(np.unique(result.pixels)) == 256
    assert "from 0 (black) to 65535 (white)" in " ".join(result.facts.notes)


def test_a_window_of_the_project_shows_a_twelve_bit_camera_bright(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "x.tif", RAMP >> 4)
    assert read_image(tmp_path / "x.tif").pixels.max() == 16  # the full range: nearly black
    rule = ReadingRule().with_window("uint16", *fit_window("uint16", 0, 4095))
    result = read_image(tmp_path / "x.tif", rule)
    assert (result.pixels.min(), result.pixels.max()) == (0, 255)
    assert "the project's window" in " ".join(result.facts.notes)


def test_one_bright_speck_does_not_change_the_rest_of_an_image(tmp_path: Path) -> None:
    rule = ReadingRule((("float", 0.0, 1.0),))
    samples = (RAMP / 65535).astype(np.float32)
    tifffile.imwrite(tmp_path / "a.tif", samples)
    speck = samples.copy()
    speck[0, 0] = 1e6
    tifffile.imwrite(tmp_path / "b.tif", speck)
    a, b = (read_image(tmp_path / f"{n}.tif", rule) for n in "ab")
    assert (a.pixels[1:] == b.pixels[1:]).all()
    assert "clipped" in " ".join(b.facts.notes)


@pytest.mark.parametrize(
    ("kind", "low", "high", "window"),
    [
        ("uint16", 3, 700, (0, 1023)),
        ("uint16", 0, 4095, (0, 4095)),
        ("uint16", 0, 40000, (0, 65535)),
        ("float", 0.1, 0.9, (0, 1)),
        ("float", -3, 5, (-3, 5)),
        ("int16", -5, -5, (-5, -4)),
    ],
)
def test_a_window_is_fitted_to_the_camera_not_to_the_image(
    kind: str, low: float, high: float, window: tuple[float, float]
) -> None:
    assert fit_window(kind, low, high) == window


def test_floats_outside_any_known_range_are_refused_not_guessed(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "x.tif", RAMP.astype(np.float32))
    with pytest.raises(UnreadableImageError, match=r"run from 0 to 65535.*no intensity window"):
        read_image(tmp_path / "x.tif")
    found = read_sample_range(tmp_path / "x.tif")
    assert found is not None
    assert (found.kind, found.low, found.high) == ("float", 0.0, 65535.0)
    with pytest.raises(WindowMissingError):
        read_image(tmp_path / "x.tif", strict=True)


def test_nan_is_black_and_all_nan_is_refused(tmp_path: Path) -> None:
    samples = np.full((8, 8), 0.5, np.float32)
    samples[0, 0] = np.nan
    tifffile.imwrite(tmp_path / "x.tif", samples)
    assert read_image(tmp_path / "x.tif").pixels[0, 0].tolist() == [0, 0, 0]
    tifffile.imwrite(tmp_path / "y.tif", np.full((8, 8), np.nan, np.float32))
    with pytest.raises(UnreadableImageError, match="NaN"):
        read_image(tmp_path / "y.tif")


def test_the_rule_survives_its_storage() -> None:
    rule = ReadingRule().with_window("uint16", 0, 4095).with_window("float", -1, 1)
    assert ReadingRule.from_json(rule.as_json()) == rule
    assert ReadingRule.from_json(None) == ReadingRule()


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", list(range(1, 9)))
def test_every_orientation_mark_is_applied(tmp_path: Path, kind: str, orientation: int) -> None:
    upright = np.zeros((40, 80, 3), np.uint8)
    upright[:20, :40] = (250, 10, 10)  # red at the top left
    upright[20:, 40:] = (10, 10, 250)  # blue at the bottom right
    image = Image.fromarray(upright)
    undo = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}.get(orientation)
    if undo is not None:
        image = image.transpose(Image.Transpose(undo))
    exif = Image.Exif()
    exif[0x0112] = orientation
    image.save(tmp_path / "x", kind, exif=exif)
    pixels = read_image(tmp_path / "x").pixels
    assert pixels.shape == (40, 80, 3)
    assert pixels[8, 12, 0] > 200 > 60 > pixels[8, 12, 2]
    assert pixels[32, 68, 2] > 200 > 60 > pixels[32, 68, 0]


@pytest.mark.parametrize("orientation", list(range(1, 9)))
def test_orientation_is_applied_to_sixteen_bits_too(tmp_path: Path, orientation: int) -> None:
    ramp = np.tile(np.arange(80, dtype=np.uint16) * 800, (40, 1))
    tifffile.imwrite(tmp_path / "x.tif", ramp, extratags=[(274, "H", 1, orientation, True)])
    height, width = read_image(tmp_path / "x.tif").pixels.shape[:2]
    assert (height, width) == ((80, 40) if orientation > 4 else (40, 80))


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "PA"])
def test_what_is_transparent_is_white(tmp_path: Path, mode: str) -> None:
    image = Image.new("RGBA", (20, 10), (0, 0, 0, 0))
    image.paste((10, 20, 30, 255), (10, 0, 20, 10))
    if mode == "P":
        flat = Image.new("P", (20, 10), 0)
        flat.putpalette([0, 0, 0, 10, 20, 30])
        flat.paste(1, (10, 0, 20, 10))
        flat.save(tmp_path / "x.png", transparency=bytes([0, 255]))
    else:
        image.convert("LA" if mode in ("LA", "PA") else mode).save(tmp_path / "x.png")
    pixels = read_image(tmp_path / "x.png").pixels
    assert pixels[5, 5].tolist() == [255, 255, 255]
    assert pixels[5, 15].max() <= 30


def test_cmyk_red_is_red(tmp_path: Path) -> None:
    Image.new("CMYK", (32, 32), (0, 255, 255, 0)).save(tmp_path / "x.jpg")
    assert np.abs(read_image(tmp_path / "x.jpg").pixels[5, 5].astype(int) - [255, 0, 0]).max() < 4


def test_the_content_decides_not_the_name(tmp_path: Path) -> None:
    Image.fromarray(picture()).save(tmp_path / "x.jpg", "PNG")
    assert read_image(tmp_path / "x.jpg").facts.format == "PNG"
    (tmp_path / "y.png").write_bytes(b"hello, not a picture")
    with pytest.raises(UnreadableImageError, match="text"):
        read_image(tmp_path / "y.png")


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP", "GIF", "BMP", "JPEG2000", "AVIF"])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_a_file_that_is_cut_off_is_refused(tmp_path: Path, kind: str, share: float) -> None:
    buffer = io.BytesIO()
    Image.fromarray(picture(shape=(200, 300, 3))).save(buffer, kind)
    whole = buffer.getvalue()
    (tmp_path / "x").write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(UnreadableImageError):
        read_image(tmp_path / "x")


@pytest.mark.parametrize("compression", [None, "lzw", "zstd"])
def test_a_sixteen_bit_tiff_that_is_cut_off_is_refused(
    tmp_path: Path, compression: str | None
) -> None:
    samples = np.random.default_rng(0).integers(0, 65535, (200, 300), dtype=np.uint16)
    tifffile.imwrite(tmp_path / "x.tif", samples, compression=compression)
    whole = (tmp_path / "x.tif").read_bytes()
    (tmp_path / "x.tif").write_bytes(whole[: len(whole) * 2 // 3])
    with pytest.raises(UnreadableImageError):
        read_image(tmp_path / "x.tif")


def png_header(width: int, height: int) -> bytes:
    """Return a tiny PNG that declares a large size."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return (
            len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")
        )

    size = width.to_bytes(4, "big") + height.to_bytes(4, "big")
    start = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", size + bytes([1, 0, 0, 0, 0]))
    return start + chunk(b"IDAT", zlib.compress(b"\x00" * 100)) + chunk(b"IEND", b"")


def test_limits_are_checked_from_the_header(tmp_path: Path) -> None:
    (tmp_path / "x.png").write_bytes(png_header(20_000, 20_000))
    with pytest.raises(UnreadableImageError, match=r"20,000 × 20,000.*CNS_MAX_PIXELS"):
        read_image(tmp_path / "x.png")
    (tmp_path / "y.png").write_bytes(png_header(30_000, 2))
    with pytest.raises(UnreadableImageError, match="strip of 30,000 × 2"):
        read_image(tmp_path / "y.png")
    Image.fromarray(picture()).save(tmp_path / "z.png")
    with pytest.raises(UnreadableImageError, match="limit"):
        read_image(tmp_path / "z.png", limits=Limits(max_file_bytes=100))
    with pytest.raises(UnreadableImageError, match="64 × 48"):
        read_image(tmp_path / "z.png", limits=Limits(max_pixels=1000))


def test_a_color_profile_is_applied(tmp_path: Path) -> None:
    from PIL import ImageCms

    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    Image.fromarray(picture()).save(tmp_path / "x.png", icc_profile=profile)
    assert (read_image(tmp_path / "x.png").pixels == picture()).all()
    Image.fromarray(picture()).save(tmp_path / "y.png", icc_profile=b"no profile at all")
    result = read_image(tmp_path / "y.png")
    assert (result.pixels == picture()).all()
    assert "ignored" in " ".join(result.facts.notes)


def test_threads_read_alike_and_leave_the_warning_filters_alone(tmp_path: Path) -> None:
    Image.fromarray(picture()).save(tmp_path / "x.tif")
    before = list(warnings.filters)
    wrong: list[int] = []

    def work() -> None:
        for _ in range(20):
            if (read_image(tmp_path / "x.tif").pixels != picture()).any():
                wrong.append(1)

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert list(warnings.filters) == before


@pytest.mark.parametrize("seed", list(range(40)))
def test_damaged_bytes_never_raise_anything_but_a_reason(tmp_path: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    kind = ["JPEG", "PNG", "TIFF", "WEBP", "GIF", "BMP", "JPEG2000", "AVIF"][seed % 8]
    buffer = io.BytesIO()
    Image.fromarray(picture(seed)).save(buffer, kind)
    data = np.frombuffer(buffer.getvalue(), np.uint8).copy()
    for place in rng.integers(8, len(data), 6):
        data[place] = rng.integers(0, 256)
    (tmp_path / "x").write_bytes(data.tobytes())
    try:
        pixels = read_image(tmp_path / "x", limits=Limits(max_pixels=1_000_000)).pixels
        assert pixels.ndim == 3
    except UnreadableImageError as error:
        assert error.what


def jpeg_of(pixels: NDArray[np.uint8]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_damage_inside_a_jpeg_is_no_picture(tmp_path: Path, mode: str) -> None:
    """libjpeg shows shifted or gray blocks from there on, and Pillow says nothing."""
    pixels = picture(shape=(200, 300, 3))
    whole = jpeg_of(pixels if mode == "RGB" else pixels[..., 0])
    (tmp_path / "x.jpg").write_bytes(whole)
    with Image.open(tmp_path / "x.jpg") as opened:
        wanted = np.asarray(opened.convert("RGB"))
    assert (read_image(tmp_path / "x.jpg").pixels == wanted).all()
    for place in range(len(whole) // 4, len(whole) - 3000, len(whole) // 7):
        hole = whole[:place] + bytes(2000) + whole[place + 2000 :]
        (tmp_path / "y.jpg").write_bytes(hole)
        Image.open(tmp_path / "y.jpg").load()  # Pillow opens it
        with pytest.raises(UnreadableImageError, match="damaged inside"):
            read_image(tmp_path / "y.jpg")


@pytest.mark.parametrize("filling", [b"\0", b"\xff"])
def test_filling_before_the_end_of_a_jpeg_is_no_damage(tmp_path: Path, filling: bytes) -> None:
    whole = jpeg_of(picture())
    (tmp_path / "x.jpg").write_bytes(whole[:-2] + filling * 500 + whole[-2:] + b"trailer")
    with Image.open(io.BytesIO(whole)) as opened:
        assert (read_image(tmp_path / "x.jpg").pixels == np.asarray(opened)).all()


def test_a_chunk_that_lies_about_its_length_is_refused_at_once(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    Image.fromarray(picture()).save(buffer, "PNG")
    whole = buffer.getvalue()
    at = whole.find(b"IDAT")
    (tmp_path / "x.png").write_bytes(whole[: at - 4] + b"\x7f\xff\xff\xff" + whole[at:])
    with pytest.raises(UnreadableImageError, match="cut off"):
        read_image(tmp_path / "x.png")
