"""Every odd file opens as the right picture, or is refused with its reason."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image

from cnsapp.errors import UnreadableImageError
from cnsapp.imaging.reader import ReadingRule, read_image

Oracle = Callable[[Path], Any]  # an independent reader: (H, W) or (H, W, 3)
FULL_FLOATS = ReadingRule((("float", -4.0, 4.0),))


@dataclass(frozen=True)
class Opens:
    """What the picture must be: its size, colours at places (y, x), and another reader's view."""

    width: int
    height: int
    mode: str
    bits: int
    pages: int = 1
    at: dict[tuple[int, int], tuple[int, int, int]] = field(default_factory=dict)
    like: Oracle | None = None
    within: float = 2.0  # mean difference from the oracle, in gray levels
    note: str = ""
    rule: ReadingRule = field(default_factory=ReadingRule)


def plain_tiff(path: Path) -> Any:
    return tifffile.imread(path, key=0)


def top_bits(path: Path) -> Any:
    pixels = tifffile.imread(path, key=0)
    return (np.moveaxis(pixels, 0, -1) if pixels.shape[0] == 3 else pixels) / 257


def hopper(path: Path) -> Any:
    return tifffile.imread(path.parent / "hopper_lzw.tif")


def pillow(path: Path) -> Any:
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def white_below(path: Path) -> Any:
    tiff = path.suffix == ".tif"
    rgba = (plain_tiff(path) if tiff else imagecodecs.png_decode(path.read_bytes())).astype(float)
    rgba /= 65535 if rgba.max() > 255 else 255
    return 255 * (rgba[..., :-1] * rgba[..., -1:] + 1 - rgba[..., -1:])


def ones_are_black(path: Path) -> Any:
    return np.where(tifffile.imread(path, key=0), 0, 255)


def ones_are_black_turned(path: Path) -> Any:
    return np.rot90(ones_are_black(path), -1)


def palette_tiff(path: Path) -> Any:
    with tifffile.TiffFile(path) as tiff:
        page = tiff.pages.first
        return (page.colormap >> 8)[:, page.asarray().astype(int)].transpose(1, 2, 0)


def turned(path: Path) -> Any:
    with Image.open(path) as image:
        return np.rot90(np.asarray(image.convert("RGB")), -1)


def upside_down(path: Path) -> Any:
    with Image.open(path) as image:
        return np.rot90(np.asarray(image.convert("RGB")), 2)


RED, WHITE, BLACK = (254, 0, 0), (255, 255, 255), (0, 0, 0)
BLUE, FACE, COAT = (163, 114, 74), (173, 75, 58), (19, 18, 24)
HOPPER = {(96, 85): COAT}
SHAPES = {(18, 32): (39, 115, 198), (36, 64): (250, 5, 0), (54, 85): (199, 255, 255)}

OUTCOMES: dict[str, Opens | str] = {
    "10ct_32bit_128.tiff": Opens(
        128, 128, "gray", 32, like=lambda p: (plain_tiff(p) + 4) / 8 * 255, rule=FULL_FLOATS
    ),
    "16-bit-grey-alpha.png": Opens(109, 96, "gray", 16, like=white_below, note="over white"),
    "16bit.cropped.jp2": Opens(
        64, 64, "gray", 16, like=lambda p: imagecodecs.jpeg2k_decode(p.read_bytes()) / 257,
        note="from 0 (black) to 65535 (white)",
    ),
    "16bit.cropped.tif": Opens(64, 64, "gray", 16, like=top_bits, note="65535 (white)"),
    "17000x17000.avif": "17,000 × 17,000 pixels",
    "BigTIFFMotorola.tif": Opens(64, 64, "RGB", 8, like=plain_tiff),
    "DSCN0010.jpg": Opens(640, 480, "RGB", 8, like=pillow, at={(240, 320): (143, 130, 2)}),
    "G31D_MULTI.TIF": Opens(
        2464, 3248, "black and white", 1, 2, like=ones_are_black, note="2 pages; the first"
    ),
    "Gewebe_Übersicht_№3.tif": Opens(128, 128, "RGB", 8, at={(32, 32): BLUE}, like=hopper),
    "Landscape_6.jpg": Opens(600, 450, "RGB", 8, like=turned, within=14, note="Turned upright"),
    "README.jpg": "Office document",
    "RGBA_16__128x128.png": Opens(128, 128, "RGB", 16, like=white_below, note="over white"),
    "RGB_10__128x128.heif": "HEIC/HEIF",
    "big-height.webp": Opens(13, 169, "RGB", 8, 97, like=pillow, note="97 frames; the first"),
    "broken.png": "header is damaged",
    "check.svg": "SVG",
    "chelsea.zip": "zip archive",
    "decompression_bomb.gif": "65,535 × 66,601 pixels",
    "dicom_test_image.dcm": "DICOM",
    "empty.heic": "empty",
    "exif_imagemagick_orientation.png": Opens(
        512, 512, "RGB", 8, like=upside_down, note="Turned upright"
    ),
    "g4_orientation_6.tif": Opens(
        590, 88, "black and white", 1, like=ones_are_black_turned, note="Turned upright"
    ),
    "hopper.Lab.tif": Opens(128, 128, "LAB", 8, at=HOPPER, like=hopper, within=6, note="Lab"),
    "hopper.webp": Opens(128, 128, "RGB", 8, at=HOPPER, like=hopper, within=8),
    "hopper_lzw.tif": Opens(128, 128, "RGB", 8, at={(32, 32): BLUE}, like=plain_tiff, within=0),
    "hopper_orientation_6.jpg": Opens(
        128, 128, "RGB", 8, at=HOPPER, like=hopper, within=8, note="Turned upright"
    ),
    "hopper_rle8.bmp": Opens(128, 128, "palette", 8, at=HOPPER, like=hopper, within=12),
    "image01551.jpg": Opens(61, 58, "RGB", 8, like=pillow),
    "int16.tif": Opens(
        64, 64, "gray", 16, like=lambda p: (plain_tiff(p) + 32768.0) / 257, note="-32768 (black)"
    ),
    "invalid-exif.jpg": Opens(200, 200, "RGB", 8, like=pillow, at={(50, 50): (225, 225, 225)}),
    "l_trns.png": Opens(64, 64, "gray", 8, at={(16, 16): (43, 43, 43), (32, 32): WHITE}),
    "minisblack-2c-8b-alpha.tiff": Opens(
        64, 64, "gray", 8,
        like=lambda p: np.clip(plain_tiff(p)[0] + 255.0 - plain_tiff(p)[1], 0, 255),
    ),
    "miniswhite-1c-1b.tiff": Opens(157, 151, "black and white", 1, like=ones_are_black),
    "mri.tif": Opens(128, 128, "palette", 8, 27, like=palette_tiff, note="27 pages; the first"),
    "multi-channel.ome.tif": Opens(
        439, 167, "gray", 8, like=lambda p: plain_tiff(p) + 128.0, note="3 channels; the first"
    ),
    "multipage.tiff": Opens(10, 10, "palette", 1, 3, at={(5, 5): (0, 128, 0)}, note="3 pages"),
    "multipage_single_frame_loop.tiff": Opens(10, 10, "palette", 1, at={(5, 5): (0, 128, 0)}),
    "ojpeg-tile.tif": Opens(234, 213, "RGB", 8, at={(53, 58): (85, 40, 19)}),
    "orientation_rectangle.jpg": Opens(1, 2, "RGB", 8, at={(0, 0): RED, (1, 0): RED}),
    "palette-1c-8b.tiff": Opens(157, 151, "palette", 8, like=palette_tiff),
    "pil_sample_cmyk.jpg": Opens(100, 100, "CMYK", 8, at={(25, 25): (1, 4, 5)}, note="CMYK"),
    "pitm.avif": Opens(4096, 800, "RGB", 8, at={(400, 2048): (159, 63, 57)}),
    "predictor-3-gray-f32.tif": Opens(
        200, 200, "gray", 32, like=lambda p: plain_tiff(p) * 255, note="0 (black) to 1 (white)"
    ),
    "sample-xyb.jpg": Opens(290, 442, "RGB", 8, at={(221, 145): (68, 73, 113)}, note="profile"),
    "shapes_lzw_14bps.tif": Opens(128, 72, "RGB", 14, at=SHAPES, note="16383 (white)"),
    "shapes_multi_size.tif": Opens(128, 72, "RGB", 8, 2, at=SHAPES, note="2 pages; the first"),
    "slide-scan.png": Opens(128, 128, "RGB", 8, at=HOPPER, note="Turned upright"),
    "test-ole-file.doc": "Office document",
    "tiff_16bit_RGB.tiff": Opens(100, 40, "RGB", 16, like=top_bits, note="65535 (white)"),
    "tiff_strip_planar_16bit_RGB.tiff": Opens(100, 40, "RGB", 16, like=top_bits),
    "tiff_tiled_cmyk_jpeg.tif": Opens(100, 100, "CMYK", 8, at={(50, 50): (1, 4, 5)}),
    "tiled-jpeg-rgb-u8.tif": Opens(374, 499, "RGB", 8, like=plain_tiff),
    "transparent.png": Opens(200, 150, "RGBA", 8, like=white_below, note="over white"),
    "truncated_end_chunk.png": "cut off",
    "truncated_image.png": "cut off",
    "truncated_jpeg.jpg": "cut off",
    "usda_naip_256_webp_z3.tif": Opens(
        1024, 2048, "RGB", 8, at={(512, 256): WHITE}, like=white_below
    ),
}  # fmt: skip


def as_table(folder: Path) -> str:
    """Return the outcomes as a Markdown table, as the reader gives them now."""
    lines = ["| file | outcome | size | what was done, or why not |", "|---|---|---|---|"]
    for name in sorted(OUTCOMES, key=str.casefold):
        wanted = OUTCOMES[name]
        rule = wanted.rule if isinstance(wanted, Opens) else ReadingRule()
        try:
            facts = read_image(folder / name, rule).facts
        except UnreadableImageError as error:
            lines.append(f"| `{name}` | refused | | {error.what} |")
        else:
            kind = f"{facts.format}, {facts.mode}, {facts.bits} bits"
            notes = " ".join(facts.notes) or "As it is."
            lines.append(f"| `{name}` | opens | {facts.width} × {facts.height} | {kind}. {notes} |")
    return "\n".join(lines)


@pytest.fixture(scope="module")
def folder(real_data: Path) -> Path:
    if not (real_data / "problem-files").is_dir():
        pytest.skip(f"no problem-files in {real_data}")
    return real_data / "problem-files"


def test_the_table_names_every_file(folder: Path) -> None:
    assert {path.name for path in folder.iterdir()} == set(OUTCOMES)


@pytest.mark.parametrize("name", [n for n, o in OUTCOMES.items() if isinstance(o, str)])
def test_what_cannot_be_shown_is_refused_with_its_reason(folder: Path, name: str) -> None:
    reason = OUTCOMES[name]
    with pytest.raises(UnreadableImageError) as caught:
        read_image(folder / name)
    assert str(reason) in caught.value.what
    assert caught.value.what.endswith(".")


@pytest.mark.parametrize("name", [n for n, o in OUTCOMES.items() if isinstance(o, Opens)])
def test_an_odd_file_opens_as_the_right_picture(folder: Path, name: str) -> None:
    wanted = OUTCOMES[name]
    assert isinstance(wanted, Opens)
    result = read_image(folder / name, wanted.rule)
    facts, pixels = result.facts, result.pixels
    assert pixels.dtype == np.uint8
    assert pixels.shape == (wanted.height, wanted.width, 3)
    assert (facts.width, facts.height) == (wanted.width, wanted.height)
    assert (facts.mode, facts.bits, facts.pages) == (wanted.mode, wanted.bits, wanted.pages)
    assert wanted.note in " ".join(facts.notes)
    for place, color in wanted.at.items():
        assert np.abs(pixels[place].astype(int) - color).max() <= 6, place
    if wanted.like is not None:
        other = np.asarray(wanted.like(folder / name), float)
        other = other[..., None] if other.ndim == 2 else other
        assert np.abs(pixels - other).mean() <= wanted.within


def test_the_reader_says_nothing_on_the_terminal(
    folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for path in sorted(folder.iterdir()):
        try:
            read_image(path)
        except UnreadableImageError:
            pass
    assert capfd.readouterr() == ("", "")


def test_the_table_of_outcomes_can_be_printed(folder: Path) -> None:
    lines = as_table(folder).splitlines()
    assert len(lines) == len(OUTCOMES) + 2
    assert sum("| refused |" in line for line in lines) == sum(
        isinstance(outcome, str) for outcome in OUTCOMES.values()
    )


def test_every_open_file_is_checked_by_value() -> None:
    for name, wanted in OUTCOMES.items():
        assert isinstance(wanted, str) or wanted.at or wanted.like, name
