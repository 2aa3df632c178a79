"""Every make of a file kind is the same picture: generated files against the array they came from.

The expected pixels come from the generating array (lossless kinds) or from another decoder.
"""

from __future__ import annotations

import io
import itertools
import struct
import zlib
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image

from cnsapp.errors import UnreadableImageError
from cnsapp.imaging.reader import read_image
from cnsapp.imaging.rule import ReadingRule

H, W = 37, 53  # no multiples of a tile or of 8
Pixels = NDArray[Any]


def smooth(channels: int = 3) -> NDArray[np.float64]:
    """Return (H, W, channels) from 0 to 1: smooth, so that lossy kinds stay near."""
    y, x = np.mgrid[0:H, 0:W]
    planes = [0.5 + 0.5 * np.sin(x / (7 + n) + n) * np.cos(y / (9 + n)) for n in range(channels)]
    return np.stack(planes, -1)


def deep(dtype: str, channels: int = 3) -> Pixels:
    share = smooth(channels) if channels > 1 else smooth(1)[..., 0]
    if np.dtype(dtype).kind == "f":
        return share.astype(dtype)
    info = np.iinfo(dtype)
    return (info.min + share * (float(info.max) - info.min)).astype(dtype)


def shown(samples: Pixels, low: float, high: float) -> NDArray[np.float64]:
    out = np.clip((samples.astype(float) - low) / (high - low), 0, 1) * 255
    return np.repeat(out[..., None], 3, -1) if out.ndim == 2 else out


def difference(path: Path, wanted: Pixels, rule: ReadingRule | None = None) -> float:
    pixels = read_image(path, rule or ReadingRule()).pixels
    assert pixels.shape == (*wanted.shape[:2], 3)
    other = wanted[..., None] if wanted.ndim == 2 else wanted
    return float(np.abs(pixels.astype(float) - other).max())


# TIFF -------------------------------------------------------------------------------------------

RANGES = {
    "uint8": (0, 255), "uint16": (0, 65535), "uint32": (0, 2**32 - 1), "int8": (-128, 127),
    "int16": (-32768, 32767), "int32": (-(2**31), 2**31 - 1), "float16": (0, 1),
    "float32": (0, 1), "float64": (0, 1),
}  # fmt: skip
LOSSLESS = (None, "lzw", "zlib", "packbits", "zstd", "lzma")
LAYOUTS = {"strips": {}, "rows": {"rowsperstrip": 5}, "tiles": {"tile": (16, 32)}}


def rule_for(dtype: str) -> ReadingRule:
    kind = "float" if dtype.startswith("float") else dtype
    return ReadingRule() if dtype == "uint8" else ReadingRule(((kind, *map(float, RANGES[dtype])),))


@pytest.mark.parametrize("dtype", list(RANGES))
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("channels", ["gray", "contig", "planar"])
def test_tiff_of_any_depth_order_layout_and_lossless_compression(
    tmp_path: Path, dtype: str, order: str, channels: str
) -> None:
    data = deep(dtype, 1 if channels == "gray" else 3)
    wanted = shown(data, *RANGES[dtype])
    for n, (compression, layout) in enumerate(itertools.product(LOSSLESS, LAYOUTS)):
        predictor = compression not in (None, "packbits") and n % 2 == 1
        path = tmp_path / f"{n}.tif"
        tifffile.imwrite(
            path, np.moveaxis(data, -1, 0) if channels == "planar" else data, byteorder=order,
            photometric="minisblack" if channels == "gray" else "rgb", compression=compression,
            planarconfig={"contig": "contig", "planar": "separate"}.get(channels),
            predictor=predictor, metadata=None, **LAYOUTS[layout],
        )  # fmt: skip
        worst = difference(path, wanted, rule_for(dtype))
        assert worst <= (0 if dtype == "uint8" else 0.51), (compression, layout, predictor)


@pytest.mark.parametrize("bits", [1, 2, 4, 6, 10, 12, 14])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("white_is_zero", [False, True])
@pytest.mark.parametrize("samples", [1, 3])
def test_tiff_with_packed_bits(
    tmp_path: Path, bits: int, order: str, white_is_zero: bool, samples: int
) -> None:
    if samples == 3 and white_is_zero:
        return
    top = 2**bits - 1
    levels = np.round(smooth(samples) * top).astype(np.uint16)
    write_packed(tmp_path / "x.tif", levels, bits, order, white_is_zero)
    wanted = levels / top * 255
    if samples == 1:
        wanted = np.repeat(255 - wanted if white_is_zero else wanted, 3, -1)
    assert difference(tmp_path / "x.tif", wanted) <= (0.51 if bits > 8 else 1)
    assert read_image(tmp_path / "x.tif").facts.bits == bits


def write_packed(path: Path, levels: Pixels, bits: int, order: str, white_is_zero: bool) -> None:
    """Write an uncompressed TIFF by hand, each row of bits beginning on a byte."""
    samples = levels.shape[2]
    rows = levels.reshape(H, -1)
    unpacked = (rows[..., None] >> np.arange(bits)[::-1]) & 1
    data = np.packbits(unpacked.reshape(H, -1).astype(np.uint8), axis=1).tobytes()
    tags = [
        (256, 3, 1, W), (257, 3, 1, H), (258, 3, samples, bits), (259, 3, 1, 1),
        (262, 3, 1, 2 if samples == 3 else 0 if white_is_zero else 1), (273, 4, 1, None),
        (277, 3, 1, samples), (278, 3, 1, H), (279, 4, 1, len(data)),
    ]  # fmt: skip
    extra = struct.pack(order + "HHH", bits, bits, bits) if samples == 3 else b""
    at = 8 + 2 + len(tags) * 12 + 4
    block = struct.pack(order + "H", len(tags))
    for tag, kind, count, value in tags:
        if tag == 273:
            value = at + len(extra)
        if count == 3:
            field = struct.pack(order + "I", at)
        else:
            field = struct.pack(
                order + ("I" if kind == 4 else "HH"), *([value] if kind == 4 else [value, 0])
            )
        block += struct.pack(order + "HHI", tag, kind, count) + field
    head = (b"II" if order == "<" else b"MM") + struct.pack(order + "HI", 42, 8)
    path.write_bytes(head + block + struct.pack(order + "I", 0) + extra + data)


@pytest.mark.parametrize("compression", ["jpeg", "webp", "jpeg2000", "png", "jpegxr", "jpegxl"])
@pytest.mark.parametrize("layout", ["strips", "tiles"])
@pytest.mark.parametrize("channels", [1, 3])
def test_tiff_with_a_picture_codec_inside(
    tmp_path: Path, compression: str, layout: str, channels: int
) -> None:
    if compression == "webp" and channels == 1:
        return  # the codec has no gray
    data = deep("uint8", channels)
    more = {"tile": (32, 32)} if layout == "tiles" else {}
    level = {"jpeg": {"level": 95}, "webp": {"lossless": True}}.get(compression, {})
    try:
        tifffile.imwrite(
            tmp_path / "x.tif", data, compression=compression, compressionargs=level,
            photometric="rgb" if channels == 3 else "minisblack", metadata=None, **more,
        )  # fmt: skip
    except (ValueError, NotImplementedError, ImportError) as error:
        pytest.skip(f"the writer has no {compression}: {error}")
    if compression in ("webp", "png"):
        assert difference(tmp_path / "x.tif", shown(data, 0, 255)) == 0
    pixels = read_image(tmp_path / "x.tif").pixels
    assert np.abs(pixels - shown(data, 0, 255)).mean() <= 4


@pytest.mark.parametrize("subsampling", [(1, 1), (2, 1), (2, 2)])
def test_tiff_with_subsampled_jpeg(tmp_path: Path, subsampling: tuple[int, int]) -> None:
    data = deep("uint8")
    tifffile.imwrite(
        tmp_path / "x.tif", data, compression="jpeg", photometric="rgb", tile=(32, 32),
        subsampling=subsampling, compressionargs={"level": 95}, metadata=None,
    )  # fmt: skip
    other = tifffile.imread(tmp_path / "x.tif")
    assert difference(tmp_path / "x.tif", other) <= 6
    assert np.abs(read_image(tmp_path / "x.tif").pixels - data.astype(float)).mean() < 6


def stored(upright: Pixels, orientation: int) -> Pixels:
    """Return what a camera stores so that this orientation mark shows `upright` (by Pillow)."""
    undo = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}.get(orientation)
    planes = np.atleast_3d(upright)
    out = []
    for n in range(planes.shape[2]):
        image = Image.fromarray(planes[..., n].astype(np.float32))
        turned = image if undo is None else image.transpose(Image.Transpose(undo))
        out.append(np.asarray(turned).astype(upright.dtype))
    return out[0] if upright.ndim == 2 else np.stack(out, -1)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_marks_of_all_sorts_of_tiff(tmp_path: Path, orientation: int) -> None:
    mark = [(274, "H", 1, orientation, True)]
    for n, (dtype, channels, layout) in enumerate(
        itertools.product(("uint8", "uint16", "float32"), (1, 3, 5), LAYOUTS)
    ):
        data = deep(dtype, channels)
        path = tmp_path / f"{n}.tif"
        tifffile.imwrite(
            path, stored(data, orientation), extratags=mark, compression="lzw", metadata=None,
            photometric="rgb" if channels == 3 else "minisblack",
            planarconfig="contig" if channels > 1 else None, **LAYOUTS[layout],
        )  # fmt: skip
        first = data[..., 0] if channels == 5 else data
        worst = difference(path, shown(first, *RANGES[dtype]), rule_for(dtype))
        assert worst <= 0.51, (dtype, channels, layout)


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize("compression", [None, "lzw"])
def test_palette_tiffs(tmp_path: Path, dtype: str, compression: str | None) -> None:
    n = 256 if dtype == "uint8" else 65536
    table = np.random.default_rng(1).integers(0, 65536, (3, n)).astype(np.uint16)
    indices = deep(dtype, 1)
    tifffile.imwrite(
        tmp_path / "x.tif", indices, photometric="palette", colormap=table,
        compression=compression, metadata=None,
    )  # fmt: skip
    assert difference(tmp_path / "x.tif", (table >> 8)[:, indices].transpose(1, 2, 0)) <= 1


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_palette_tiffs_of_few_bits(tmp_path: Path, bits: int) -> None:
    table = np.random.default_rng(1).integers(0, 256, (2**bits, 3)).astype(np.uint8)
    indices = np.round(smooth(1)[..., 0] * (2**bits - 1)).astype(np.uint8)
    image = Image.fromarray(indices, "P")
    image.putpalette(table.tobytes())
    image.save(tmp_path / "x.png", bits=bits)
    with Image.open(tmp_path / "x.png") as opened:
        opened.save(tmp_path / "x.tif")
    for name in ("x.png", "x.tif"):
        assert difference(tmp_path / name, table[indices]) == 0


@pytest.mark.parametrize("alpha", ["unassalpha", "assocalpha"])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("planar", [False, True])
def test_transparent_tiffs(
    tmp_path: Path, alpha: str, dtype: str, channels: int, planar: bool
) -> None:
    high = RANGES[dtype][1]
    color = deep("float64", channels).reshape(H, W, channels)
    opacity = np.clip(smooth(2)[..., 1:] * 1.6 - 0.3, 0, 1)  # wholly clear and opaque places too
    kept = color * opacity if alpha == "assocalpha" else color
    data = (np.concatenate([kept, opacity], -1) * high).astype(dtype)
    tifffile.imwrite(
        tmp_path / "x.tif", np.moveaxis(data, -1, 0) if planar else data, metadata=None,
        photometric="rgb" if channels == 3 else "minisblack", extrasamples=[alpha],
        planarconfig="separate" if planar else "contig",
    )  # fmt: skip
    wanted = 255 * (color * opacity + 1 - opacity)
    wanted = np.repeat(wanted, 3, -1) if channels == 1 else wanted
    assert difference(tmp_path / "x.tif", wanted, rule_for(dtype)) <= 3
    assert read_image(tmp_path / "x.tif", rule_for(dtype)).facts.alpha


@pytest.mark.parametrize("planar", [False, True])
@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize("compression", [None, "lzw"])
def test_cmyk_tiffs(tmp_path: Path, planar: bool, dtype: str, compression: str | None) -> None:
    ink = deep(dtype, 4)
    tifffile.imwrite(
        tmp_path / "x.tif", np.moveaxis(ink, -1, 0) if planar else ink, photometric="separated",
        planarconfig="separate" if planar else "contig", compression=compression, metadata=None,
    )  # fmt: skip
    share = 1 - ink / float(np.iinfo(dtype).max)
    assert difference(tmp_path / "x.tif", 255 * share[..., :3] * share[..., 3:]) <= 2.5


def test_bigtiffs(tmp_path: Path) -> None:
    for order, dtype in itertools.product("<>", ("uint8", "uint16")):
        data = deep(dtype)
        tifffile.imwrite(tmp_path / "x.tif", data, bigtiff=True, byteorder=order)
        assert difference(tmp_path / "x.tif", shown(data, *RANGES[dtype])) <= 0.51


MODES = ("1", "L", "P", "RGB", "RGBA", "LA", "CMYK", "YCbCr", "LAB", "I;16", "I", "F")
WRITERS = ("raw", "tiff_lzw", "tiff_adobe_deflate", "packbits", "group3", "group4", "tiff_ccitt",
           "jpeg", "zstd", "webp", "lzma")  # fmt: skip


@pytest.mark.parametrize("mode", MODES)
def test_tiffs_that_pillow_writes(tmp_path: Path, mode: str) -> None:
    dtype = {"I;16": "uint16", "I": "int32", "F": "float32"}.get(mode, "uint8")
    if dtype != "uint8":
        image = Image.fromarray(deep(dtype, 1))
        wanted = shown(np.asarray(image), *RANGES[dtype])
    elif mode == "LAB":
        image = Image.fromarray(deep("uint8"), "LAB")
        image.save(tmp_path / "raw.tif")
        wanted = read_image(tmp_path / "raw.tif").pixels  # whose colours the problem files test
        assert wanted.std() > 10
    else:
        image = Image.fromarray(deep("uint8")).convert(mode)
        wanted = np.asarray(image.convert("RGB"))
    written = 0
    for compression in WRITERS:
        if (mode, compression) == ("LAB", "jpeg"):
            continue  # a level of error in Lab may be any number of levels in RGB
        path = tmp_path / f"{compression}.tif"
        try:
            image.save(path, compression=compression)
        except (OSError, ValueError, KeyError, RuntimeError):
            continue  # the format has no such file
        written += 1
        lossy = compression in ("jpeg", "webp")
        assert difference(path, wanted, rule_for(dtype)) <= (40 if lossy else 2), compression
    assert written >= 5


# PNG --------------------------------------------------------------------------------------------


def png(levels: Pixels, bits: int, kind: int, interlace: bool, extra: bytes = b"") -> bytes:
    """Write a PNG by hand: (H, W, samples) levels, colour type, Adam7 or not."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(
            ">I", zlib.crc32(name + data)
        )  # fmt: skip

    def rows(part: Pixels) -> bytes:
        if part.size == 0:
            return b""
        flat = part.reshape(part.shape[0], -1)
        if bits == 16:
            data = flat.astype(">u2").view(np.uint8).reshape(len(flat), -1)
        else:
            ones = (flat[..., None] >> np.arange(bits)[::-1]) & 1
            data = np.packbits(ones.reshape(len(flat), -1).astype(np.uint8), axis=1)
        return b"".join(b"\0" + row.tobytes() for row in data)

    passes = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2),
              (1, 0, 2, 1)]  # fmt: skip
    parts = [levels[y::dy, x::dx] for y, x, dy, dx in passes] if interlace else [levels]
    head = struct.pack(">IIBBBBB", levels.shape[1], levels.shape[0], bits, kind, 0, 0, interlace)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + extra
        + chunk(b"IDAT", zlib.compress(b"".join(map(rows, parts)))) + chunk(b"IEND", b"")
    )  # fmt: skip


def named(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


@pytest.mark.parametrize("interlace", [False, True])
@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
@pytest.mark.parametrize("kind", [0, 2, 4, 6])
@pytest.mark.parametrize("clear", [False, True])
def test_png_of_any_color_type_depth_and_transparency(
    tmp_path: Path, interlace: bool, bits: int, kind: int, clear: bool
) -> None:
    if kind != 0 and bits < 8:
        return  # there are no such files
    samples = {0: 1, 2: 3, 4: 2, 6: 4}[kind]
    top = 2**bits - 1
    levels = np.round(smooth(samples) * top).astype(np.uint16)
    color = levels if kind in (0, 2) else levels[..., :-1]
    opacity = np.ones((H, W, 1)) if kind in (0, 2) else levels[..., -1:] / top
    extra = b""
    if clear and kind in (0, 2):  # one colour counts as transparent
        key = levels[H // 2, W // 2]
        extra = named(b"tRNS", struct.pack(f">{samples}H", *key))
        opacity = np.where((levels == key).all(-1, keepdims=True), 0.0, 1.0)
    (tmp_path / "x.png").write_bytes(png(levels, bits, kind, interlace, extra))
    wanted = 255 * (color / top * opacity + 1 - opacity)
    wanted = np.repeat(wanted, 3, -1) if wanted.shape[2] == 1 else wanted
    assert difference(tmp_path / "x.png", wanted) <= 1.01
    facts = read_image(tmp_path / "x.png").facts
    assert facts.alpha == (kind in (4, 6) or clear)
    assert facts.bits == bits


@pytest.mark.parametrize("interlace", [False, True])
@pytest.mark.parametrize("bits", [1, 2, 4, 8])
@pytest.mark.parametrize("clear", [False, True])
def test_png_with_a_palette(tmp_path: Path, interlace: bool, bits: int, clear: bool) -> None:
    table = np.random.default_rng(2).integers(0, 256, (2**bits, 3)).astype(np.uint8)
    shares = np.random.default_rng(3).integers(0, 256, 2**bits).astype(np.uint8)
    extra = named(b"PLTE", table.tobytes()) + (named(b"tRNS", shares.tobytes()) if clear else b"")
    indices = np.round(smooth(1) * (2**bits - 1)).astype(np.uint16)
    (tmp_path / "x.png").write_bytes(png(indices, bits, 3, interlace, extra))
    wanted = table[indices[..., 0]].astype(float)
    if clear:
        opacity = shares[indices] / 255.0
        wanted = wanted * opacity + 255 * (1 - opacity)
    assert difference(tmp_path / "x.png", wanted) <= 1.01


# JPEG -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
def test_jpeg_of_any_make(tmp_path: Path, mode: str) -> None:
    image = Image.fromarray(deep("uint8")).convert(mode)
    wanted = np.asarray(image.convert("RGB")).astype(float)
    for progressive, subsampling, orientation in itertools.product(
        (False, True), (0, 1, 2), range(9)
    ):
        exif = Image.Exif()
        if orientation:
            exif[0x0112] = orientation
        turned = stored(np.asarray(image), orientation).astype(np.uint8)
        Image.fromarray(turned, mode).save(
            tmp_path / "x.jpg", quality=95, progressive=progressive, subsampling=subsampling,
            exif=exif,
        )  # fmt: skip
        pixels = read_image(tmp_path / "x.jpg").pixels
        assert pixels.shape == wanted.shape
        assert np.abs(pixels - wanted).mean() < 5


@pytest.mark.parametrize("mark", ["adobe", "none"])
def test_cmyk_jpegs_inverted_as_adobe_does_and_plain(tmp_path: Path, mark: str) -> None:
    ink = deep("uint8", 4)
    buffer = io.BytesIO()
    Image.fromarray(ink, "CMYK").save(buffer, "JPEG", quality=98, subsampling=0)
    data = buffer.getvalue()
    at = data.find(b"Adobe")
    assert at > 0  # the writer stores 255 - ink and an Adobe mark beside it
    if mark == "none":  # plain CMYK without the mark is stored as it is
        Image.fromarray(255 - ink, "CMYK").save(buffer := io.BytesIO(), "JPEG", quality=98,
                                               subsampling=0)  # fmt: skip
        data = buffer.getvalue()
        at = data.find(b"Adobe")
        n = int.from_bytes(data[at - 2 : at], "big")
        data = data[: at - 4] + data[at - 2 + n :]
    (tmp_path / "x.jpg").write_bytes(data)
    share = 1 - ink / 255.0
    pixels = read_image(tmp_path / "x.jpg").pixels
    assert np.abs(pixels - 255 * share[..., :3] * share[..., 3:]).mean() < 4


# the others -------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA"])
def test_bmp_of_any_depth(tmp_path: Path, mode: str) -> None:
    image = Image.fromarray(deep("uint8", 4), "RGBA").convert("RGB").convert(mode)
    image.save(tmp_path / "x.bmp")
    assert difference(tmp_path / "x.bmp", np.asarray(image.convert("RGB"))) <= 1


def bmp(bits: int, compression: int, data: bytes, table: bytes, masks: bytes = b"") -> bytes:
    start = 14 + 40 + len(masks) + len(table)
    head = struct.pack("<2sIHHI", b"BM", start + len(data), 0, 0, start)
    info = struct.pack("<IiiHHIIiiII", 40, W, H, 1, bits, compression, len(data), 0, 0,
                       len(table) // 4, 0)  # fmt: skip
    return head + info + masks + table + data


@pytest.mark.parametrize("bits", [1, 4, 8])
def test_bmp_with_a_palette(tmp_path: Path, bits: int) -> None:
    table = np.random.default_rng(4).integers(0, 256, (2**bits, 4)).astype(np.uint8)
    table[:, 3] = 0
    indices = np.round(smooth(1)[..., 0] * (2**bits - 1)).astype(np.uint8)
    ones = (indices[::-1, :, None] >> np.arange(bits)[::-1]) & 1
    packed = np.packbits(ones.reshape(H, -1), axis=1)
    packed = np.pad(packed, ((0, 0), (0, -packed.shape[1] % 4)))
    (tmp_path / "x.bmp").write_bytes(bmp(bits, 0, packed.tobytes(), table.tobytes()))
    assert difference(tmp_path / "x.bmp", table[indices][..., [2, 1, 0]]) == 0


@pytest.mark.parametrize("bits", [4, 8])
def test_bmp_with_run_lengths(tmp_path: Path, bits: int) -> None:
    table = np.random.default_rng(5).integers(0, 256, (2**bits, 4)).astype(np.uint8)
    indices = np.repeat(np.arange(H) % 2**bits, W).reshape(H, W)
    data = b""
    for row in indices[::-1]:
        value = int(row[0]) if bits == 8 else int(row[0]) * 17
        data += bytes([W, value, 0, 0])
    data += b"\0\1"
    (tmp_path / "x.bmp").write_bytes(bmp(bits, 1 if bits == 8 else 2, data, table.tobytes()))
    assert difference(tmp_path / "x.bmp", table[indices][..., [2, 1, 0]]) == 0


@pytest.mark.parametrize("masks", [None, (0x7C00, 0x3E0, 0x1F), (0xF800, 0x7E0, 0x1F)])
def test_bmp_with_16_bits_a_pixel(tmp_path: Path, masks: tuple[int, int, int] | None) -> None:
    used = masks or (0x7C00, 0x3E0, 0x1F)
    word, wanted = np.zeros((H, W), np.uint16), np.zeros((H, W, 3))
    for n, mask in enumerate(used):
        top = mask // (mask & -mask)
        level = np.round(smooth(3)[..., n] * top).astype(int)
        word |= (level * (mask & -mask)).astype(np.uint16)
        wanted[..., n] = level / top * 255
    rows = np.pad(word[::-1], ((0, 0), (0, W % 2))).astype("<u2")
    head = b"" if masks is None else struct.pack("<III", *masks)
    data = bmp(16, 0 if masks is None else 3, rows.tobytes(), b"", head)
    (tmp_path / "x.bmp").write_bytes(data)
    assert difference(tmp_path / "x.bmp", wanted) <= 8


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA"])
@pytest.mark.parametrize("kind", ["WEBP", "JPEG2000", "AVIF", "GIF"])
def test_the_newer_kinds_of_any_mode(tmp_path: Path, mode: str, kind: str) -> None:
    image = Image.fromarray(deep("uint8", 4), "RGBA").convert(mode)
    options: dict[str, Any] = {
        "WEBP": {"lossless": True, "exact": True}, "AVIF": {"quality": 100}, "GIF": {},
        "JPEG2000": {"irreversible": False},
    }[kind]  # fmt: skip
    image.save(tmp_path / "x", kind, **options)
    if kind == "GIF":
        with Image.open(tmp_path / "x") as opened:
            rgba = np.asarray(opened.convert("RGBA")).astype(float)
    else:
        rgba = np.asarray(image.convert("RGBA")).astype(float)
    opacity = rgba[..., 3:] / 255
    wanted = rgba[..., :3] * opacity + 255 * (1 - opacity)
    assert difference(tmp_path / "x", wanted) <= (12 if kind == "AVIF" else 1.01)
    assert read_image(tmp_path / "x").facts.format == kind


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("codec", ["jp2", "j2k"])
def test_jpeg_2000_of_8_and_16_bits(tmp_path: Path, dtype: str, channels: int, codec: str) -> None:
    data = deep(dtype, channels)
    (tmp_path / "x").write_bytes(
        imagecodecs.jpeg2k_encode(data, level=0, codecformat=codec, reversible=True)
    )
    top = np.iinfo(dtype).max
    wanted = shown(data[..., :3] if channels == 4 else data, 0, top)
    if channels == 4:
        opacity = data[..., 3:] / top
        wanted = wanted * opacity + 255 * (1 - opacity)
    assert difference(tmp_path / "x", wanted) <= 1.01
    assert read_image(tmp_path / "x").facts.bits == np.dtype(dtype).itemsize * 8


def test_jpeg_of_12_bits_is_read_or_refused_in_words(tmp_path: Path) -> None:
    data = (smooth(1)[..., 0] * 4095).astype(np.uint16)
    (tmp_path / "x.jpg").write_bytes(imagecodecs.jpeg8_encode(data, level=98, bitspersample=12))
    try:
        result = read_image(tmp_path / "x.jpg")
    except UnreadableImageError as error:
        assert error.what.endswith(".")
    else:
        assert np.abs(result.pixels[..., 0] - data / 4095 * 255).max() <= 2
