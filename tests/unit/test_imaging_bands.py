"""Large pages are read band by band, and show what they show when they are read whole."""

from __future__ import annotations

import itertools
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image, ImageCms

from cnsapp.errors import UnreadableImageError
from cnsapp.imaging import color, tiff_bands, tiff_pages
from cnsapp.imaging.bands import Bands, row_parts
from cnsapp.imaging.limits import Limits
from cnsapp.imaging.reader import (
    SampleRange,
    WindowMissingError,
    read_image,
    read_sample_range,
)
from cnsapp.imaging.rule import Channel, ReadingRule
from cnsapp.imaging.thumbs import make_thumbs
from cnsapp.imaging.tiff_files import opened_stack
from cnsapp.imaging.window import measure, to_uint8

H, W = 83, 61
RULE = ReadingRule(windows=tuple(
    (kind, 3.0, 180.0) for kind in ("uint16", "uint32", "int8", "int16", "int32", "float")
))  # fmt: skip
DTYPES = ("uint8", "uint16", "uint32", "int8", "int16", "int32", "float32", "float64")


def levels(dtype: str, samples: int, planes: int = 1) -> NDArray[Any]:
    rng = np.random.default_rng(len(dtype) + samples)
    shape = (planes, H, W, samples) if planes > 1 else (H, W, samples)
    found = rng.normal(60, 60, shape)
    low = np.iinfo(dtype).min if dtype[0] in "ui" else -np.inf
    high = np.iinfo(dtype).max if dtype[0] in "ui" else np.inf
    made = np.clip(found, max(low, -1e9), min(high, 1e9)).astype(dtype)
    return made[..., 0] if samples == 1 else made


def enlarge(patch: pytest.MonkeyPatch) -> list[Any]:
    """Take every picture for a large one; return the planes that are decoded by bands."""
    decoded: list[Any] = []
    decode = tiff_bands.Plane.decode
    patch.setattr(tiff_bands, "LARGE", 1)
    patch.setattr(color, "VAST", 1)
    patch.setattr(tiff_pages, "BLOCK", 1000)
    patch.setattr(
        tiff_bands.Plane, "decode", lambda plane: (decoded.append(plane), decode(plane))[1]
    )
    return decoded


def assert_alike(path: Path, rule: ReadingRule, patch: pytest.MonkeyPatch) -> None:
    """Read a file both ways."""
    whole = read_image(path, rule)
    with patch.context() as inside:
        decoded = enlarge(inside)
        banded = read_image(path, rule)
        found = read_sample_range(path, rule=rule)
    assert decoded, "it was not read band by band"
    np.testing.assert_array_equal(banded.pixels, whole.pixels)
    assert banded.facts == whole.facts
    assert found == read_sample_range(path, rule=rule)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("samples", [1, 3])
def test_pages_of_any_layout_are_the_same_in_bands(
    tmp_path: Path, dtype: str, samples: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    compressions: tuple[str | None, ...] = (None, "lzw", "zlib")
    layouts: tuple[dict[str, Any], ...] = ({}, {"rowsperstrip": 7}, {"tile": (16, 32)})
    data = levels(dtype, samples)
    photometric = "rgb" if samples == 3 else "minisblack"
    planars = (None,) if samples == 1 else ("contig", "separate")
    for compression, layout, planar, order in itertools.product(
        compressions, layouts, planars, "<>"
    ):
        stored = np.moveaxis(data, -1, 0) if planar == "separate" else data
        file = tmp_path / "x.tif"
        tifffile.imwrite(
            file, stored, photometric=photometric, planarconfig=planar, byteorder=order,
            compression=compression, **layout, metadata=None,
        )  # fmt: skip
        assert_alike(file, RULE, monkeypatch)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "uint32"])
def test_white_is_zero_and_predictors_are_the_same_in_bands(
    tmp_path: Path, dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "x.tif"
    for predictor in (False, True):
        tifffile.imwrite(
            file, levels(dtype, 1), photometric="miniswhite", compression="zlib",
            predictor=predictor, rowsperstrip=5,
        )  # fmt: skip
        assert_alike(file, RULE, monkeypatch)


@pytest.mark.parametrize("make", ["shaped", "imagej", "ome", "pages", "unlisted"])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_any_plane_of_a_stack_is_the_same_in_bands(
    tmp_path: Path, make: str, dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, data = tmp_path / "x.tif", levels(dtype, 1, planes=5)
    if make == "imagej":
        tifffile.imwrite(file, data, imagej=True, metadata={"axes": "ZYX"})
    elif make == "unlisted":  # ImageJ lists the first page only
        tifffile.imwrite(file, data, imagej=True, metadata={"axes": "ZYX"}, truncate=True)
    elif make == "ome":
        tifffile.imwrite(file, data, ome=True, metadata={"axes": "ZYX"}, photometric="minisblack")
    else:
        more = {} if make == "shaped" else {"metadata": None}
        with tifffile.TiffWriter(file) as writer:
            for plane in [data] if make == "shaped" else data:
                writer.write(plane, photometric="minisblack", compression="lzw", **more)
    with opened_stack(file, Limits()) as stack:
        assert (stack.place(0, 1)[1] is not None) == (make == "unlisted")
    for page in ("first", "2", "5"):
        rule = ReadingRule(windows=RULE.windows, page=page)
        assert_alike(file, rule, monkeypatch)
    shown = read_image(file, ReadingRule(windows=RULE.windows, page="4")).pixels[..., 0]
    levels_shown = data[3].astype(float)
    wanted = (
        data[3] if dtype == "uint8"
        else (np.clip((levels_shown - 3) / 177, 0, 1) * 255 + 0.5).astype(np.uint8)
    )  # fmt: skip
    np.testing.assert_array_equal(shown, wanted)


def test_the_first_of_several_channels_is_the_same_in_bands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "x.ome.tif"
    data = levels("uint16", 1, planes=6).reshape(2, 3, H, W)
    tifffile.imwrite(
        file, data, ome=True, metadata={"axes": "ZCYX"}, photometric="minisblack"
    )  # fmt: skip
    assert_alike(file, RULE, monkeypatch)
    assert_alike(file, ReadingRule(windows=RULE.windows, page="2"), monkeypatch)


def test_what_is_not_plain_is_read_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "x.tif"
    decoded = enlarge(monkeypatch)
    some, gray = levels("uint16", 3), levels("uint8", 1)
    tifffile.imwrite(file, some, photometric="rgb", extratags=[(274, 3, 1, 6, True)])
    assert read_image(file, RULE).pixels.shape == (W, H, 3)
    tifffile.imwrite(file, np.dstack([some, some[..., :1]]), photometric="rgb",
                     extrasamples=["unassalpha"])  # fmt: skip
    assert read_image(file, RULE).facts.alpha
    tifffile.imwrite(file, gray, photometric="palette", colormap=np.zeros((3, 256), np.uint16))
    assert read_image(file, RULE).pixels.max() == 0
    tifffile.imwrite(file, levels("uint8", 3), photometric="rgb", compression="jpeg")
    assert read_image(file, RULE).pixels.shape == (H, W, 3)
    tifffile.imwrite(file, levels("uint16", 1, 2), photometric="minisblack")
    assert read_image(file, ReadingRule(windows=RULE.windows, page="max")).facts.pages == 2
    channels = (Channel(0, "#FF0000", 0, 100), Channel(1, "#00FF00", 0, 100))
    tifffile.imwrite(file, levels("uint16", 1, 2), imagej=True, metadata={"axes": "CYX"})
    assert read_image(file, ReadingRule(channels=channels)).facts.channels == 2
    assert not decoded


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_a_color_profile_is_applied_in_bands(
    tmp_path: Path, dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("XYZ")).tobytes()
    tifffile.imwrite(
        tmp_path / "x.tif", levels(dtype, 3), photometric="rgb", iccprofile=profile, rowsperstrip=9
    )
    assert_alike(tmp_path / "x.tif", RULE, monkeypatch)


@pytest.mark.parametrize("compression", [None, "zlib"])
@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_a_large_page_that_is_cut_off_is_refused(
    tmp_path: Path, dtype: str, compression: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "x.tif"
    tifffile.imwrite(file, levels(dtype, 1), photometric="minisblack", compression=compression)
    file.write_bytes(file.read_bytes()[:-500])
    enlarge(monkeypatch)
    with pytest.raises(UnreadableImageError, match="cut off"):
        read_image(file, RULE)


def test_a_large_deep_page_without_a_window_asks_for_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tifffile.imwrite(tmp_path / "x.tif", levels("uint16", 1), photometric="minisblack")
    enlarge(monkeypatch)
    with pytest.raises(WindowMissingError) as missing:
        read_image(tmp_path / "x.tif", strict=True)
    assert missing.value.kind == "uint16"


@pytest.mark.parametrize("dtype", ["uint16", "float32"])
def test_ranges_and_percentiles_are_taken_from_the_same_values(
    dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cnsapp.imaging.window.SAMPLED", 300)  # so that steps fall amid bands
    data = levels(dtype, 1).astype(dtype)
    if dtype == "float32":
        data[5:9] = np.nan
    step = int(np.ceil(np.sqrt(data.size / 300)))
    some = data[::step, ::step]
    low, high = np.percentile(some[np.isfinite(some)], [0.1, 99.9])
    ends = float(np.nanmin(data)), float(np.nanmax(data))
    kind = "float" if dtype == "float32" else dtype
    banded = Bands(data.shape, data.dtype, lambda: (data[i : i + 7] for i in range(0, H, 7)))
    for samples in (data, banded):
        assert measure([samples]) == SampleRange(kind, *ends, float(low), float(high))
    np.testing.assert_array_equal(to_uint8(banded, RULE, 16)[0], to_uint8(data, RULE, 16)[0])
    np.testing.assert_array_equal(np.concatenate(list(row_parts(banded))), data)


def test_thumbnails_of_a_vast_gray_picture_are_those_of_its_copy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gray = np.random.default_rng(0).integers(0, 256, (2500, 2100), dtype=np.uint8)
    copied = np.repeat(gray[..., None], 3, axis=2)
    monkeypatch.setattr(color, "VAST", 1)
    view = color.as_one_block(color.spread(gray))
    assert view.strides[-1] == 0
    for name, pixels in (("a", copied), ("b", view)):
        make_thumbs(pixels, tmp_path / name / "t.jpg", tmp_path / name / "v.jpg")
    for name in ("t.jpg", "v.jpg"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    with Image.open(tmp_path / "b" / "v.jpg") as shown:
        assert shown.size == (1720, 2048)


def test_a_large_page_takes_little_more_than_its_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    side, file = 2000, tmp_path / "x.tif"
    tifffile.imwrite(file, np.zeros((side, side), np.float32), photometric="minisblack")
    monkeypatch.setattr(tiff_bands, "LARGE", side * side)
    monkeypatch.setattr(color, "VAST", side * side)
    monkeypatch.setattr(tiff_pages, "BLOCK", 1 << 18)
    monkeypatch.setattr("cnsapp.imaging.bands.ROWS", 32)
    rule = ReadingRule(windows=(("float", 0.0, 1.0),))
    read_image(file, rule, Limits())
    tracemalloc.start()
    read_image(file, rule, Limits())
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2 * side * side  # its samples alone are four bytes a pixel, its colours three
