"""Stacks of channels, planes and times: the rule decides what of them is seen, and nothing else."""

from __future__ import annotations

import itertools
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image

from cnsapp.errors import UnreadableImageError
from cnsapp.imaging.channels import channel_ranges, default_channels
from cnsapp.imaging.limits import Limits
from cnsapp.imaging.reader import WindowMissingError, read_image, read_sample_range
from cnsapp.imaging.rule import Channel, ReadingRule

H, W = 24, 40
RED, GREEN, BLUE, MAGENTA = "#FF0000", "#00FF00", "#0000FF", "#FF00FF"
SIX = ("#FF0000", "#00FF00", "#0000FF", "#808000", "#400040", "#FFFFFF")


def values(shape: tuple[int, ...], dtype: str = "uint16", seed: int = 0) -> NDArray[Any]:
    rng = np.random.default_rng(seed)
    if np.dtype(dtype).kind == "f":
        return rng.random(shape).astype(dtype)
    info = np.iinfo(dtype)
    return rng.integers(info.min, info.max, shape, endpoint=True, dtype=dtype)


def window_of(dtype: str) -> tuple[float, float]:
    if np.dtype(dtype).kind == "f":
        return 0.0, 1.0
    return float(np.iinfo(dtype).min), float(np.iinfo(dtype).max)


def mixed(planes: dict[str, NDArray[Any]], low: float, high: float) -> NDArray[np.float64]:
    """The rule by hand: sum over channels of share times colour, clipped to 255."""
    total = np.zeros((*next(iter(planes.values())).shape, 3))
    for color, plane in planes.items():
        share = np.clip((plane.astype(float) - low) / (high - low), 0, 1)
        total += share[..., None] * [int(color[i : i + 2], 16) for i in (1, 3, 5)]
    return np.clip(total, 0, 255)


def write_stack(path: Path, make: str, data: NDArray[Any], **more: Any) -> None:
    """Write T, Z, C, Y, X in one of the ways that microscopes and programs do."""
    t, z, c = data.shape[:3]
    if make.startswith("ome"):
        order = make[4:] or "TZCYX"
        moved = np.moveaxis(data, [0, 1, 2], [order.index(axis) for axis in "TZC"])
        tifffile.imwrite(path, moved, ome=True, metadata={"axes": order}, photometric="minisblack",
                         **more)  # fmt: skip
    elif make == "imagej":
        tifffile.imwrite(path, data, imagej=True, metadata={"axes": "TZCYX"})
    elif make == "shaped":
        tifffile.imwrite(path, data, metadata={"axes": "TZCYX"}, photometric="minisblack", **more)
    else:
        planar = make == "planar"
        with tifffile.TiffWriter(path, byteorder=">" if make == "contig-big" else None) as tiff:
            for page in data[0]:
                tiff.write(
                    page if planar else np.moveaxis(page, 0, -1), photometric="minisblack",
                    planarconfig="separate" if planar else "contig", metadata=None, **more,
                )  # fmt: skip
    assert (t, z, c) == data.shape[:3]


MAKES = ("ome:TZCYX", "ome:TCZYX", "ome:CZTYX", "imagej", "shaped", "planar", "contig",
         "contig-big")  # fmt: skip


@pytest.mark.parametrize("make", MAKES)
@pytest.mark.parametrize(("z", "c"), [(1, 2), (3, 2), (2, 5), (1, 6)])
def test_any_channel_of_any_plane_is_found_in_every_make(
    tmp_path: Path, make: str, z: int, c: int
) -> None:
    times = 1 if make.startswith(("planar", "contig")) else 2
    data = values((times, z, c, H, W))
    write_stack(tmp_path / "x.tif", make, data)
    for channel, plane in itertools.product((0, c - 1), (0, z - 1)):
        rule = ReadingRule(page=str(plane + 1), channels=(Channel(channel, GREEN, 0, 65535),))
        result = read_image(tmp_path / "x.tif", rule)
        wanted = data[0, plane, channel] / 257.0
        assert np.abs(result.pixels[..., 1] - wanted).max() <= 0.52
        assert result.pixels[..., 0].max() == result.pixels[..., 2].max() == 0
        assert (result.facts.channels, result.facts.pages) == (c, z)
        assert result.facts.samples == "uint16"
    largest = read_image(
        tmp_path / "x.tif", ReadingRule(page="max", channels=(Channel(c - 1, GREEN, 0, 65535),))
    )
    assert np.abs(largest.pixels[..., 1] - data[0, :, c - 1].max(0) / 257.0).max() <= 0.52
    plain = read_image(tmp_path / "x.tif")
    assert np.abs(plain.pixels[..., 0] - data[0, 0, 0] / 257.0).max() <= 0.52
    notes = " ".join(plain.facts.notes)
    assert f"{c} channels; the first is shown in gray" in notes
    assert ("2 times; the first is shown" in notes) == (times == 2)
    assert (f"{z} p" in notes) == (z > 1)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "uint32", "int16", "float32"])
@pytest.mark.parametrize("make", ["ome:TZCYX", "planar", "contig"])
def test_six_channels_add_up_like_light(tmp_path: Path, dtype: str, make: str) -> None:
    data = values((1, 1, 6, H, W), dtype)
    write_stack(tmp_path / "x.tif", make, data)
    low, high = window_of(dtype)
    low, high = low / 2 + high / 2 * 0.1, high * 0.8
    channels = tuple(Channel(i, color, low, high) for i, color in enumerate(SIX))
    result = read_image(tmp_path / "x.tif", ReadingRule(channels=channels))
    wanted = mixed(dict(zip(SIX, data[0, 0], strict=True)), low, high)
    assert np.abs(result.pixels - wanted).max() <= 0.7
    assert wanted.max() == 255 > wanted.min()
    assert result.facts.samples == ("float" if dtype == "float32" else dtype)


@pytest.mark.parametrize("compression", [None, "lzw", "zlib", "zstd"])
@pytest.mark.parametrize("tile", [None, (16, 16)])
@pytest.mark.parametrize("planar", [False, True])
@pytest.mark.parametrize("order", ["<", ">"])
def test_channels_within_a_page_are_found_in_every_layout(
    tmp_path: Path, compression: str | None, tile: Any, planar: bool, order: str
) -> None:
    data = values((5, H + 9, W + 3))
    tifffile.imwrite(
        tmp_path / "x.tif", data if planar else np.moveaxis(data, 0, -1), byteorder=order,
        photometric="minisblack", planarconfig="separate" if planar else "contig",
        compression=compression, tile=tile, predictor=compression is not None, rowsperstrip=7,
        metadata=None,
    )  # fmt: skip
    rule = ReadingRule(channels=(Channel(4, RED, 0, 65535), Channel(1, BLUE, 0, 65535)))
    pixels = read_image(tmp_path / "x.tif", rule).pixels
    assert np.abs(pixels[..., 0] - data[4] / 257).max() <= 0.52
    assert np.abs(pixels[..., 2] - data[1] / 257).max() <= 0.52


def test_two_samples_are_channels_unless_one_is_opacity(tmp_path: Path) -> None:
    data = values((H, W, 2), "uint8")
    tifffile.imwrite(
        tmp_path / "x.tif", data, photometric="minisblack", planarconfig="contig", metadata=None
    )
    assert read_image(tmp_path / "x.tif").facts.channels == 2
    tifffile.imwrite(
        tmp_path / "y.tif", data, photometric="minisblack", planarconfig="contig",
        extrasamples=["unassalpha"], metadata=None,
    )  # fmt: skip
    facts = read_image(tmp_path / "y.tif").facts
    assert (facts.channels, facts.alpha) == (1, True)


def test_channels_that_are_not_there_are_told_or_refused(tmp_path: Path) -> None:
    write_stack(tmp_path / "x.tif", "ome", values((1, 1, 2, H, W)))
    rule = ReadingRule(channels=(Channel(1, RED, 0, 65535), Channel(4, BLUE, 0, 65535)))
    assert "no channel 5" in " ".join(read_image(tmp_path / "x.tif", rule).facts.notes)
    with pytest.raises(UnreadableImageError, match=r"has 2 channels, and none.*\(5\)"):
        read_image(tmp_path / "x.tif", ReadingRule(channels=(Channel(4, BLUE, 0, 65535),)))


def test_color_pictures_do_not_heed_channels(tmp_path: Path) -> None:
    for kind in ("PNG", "TIFF", "JPEG"):
        Image.fromarray(values((H, W, 3), "uint8")).save(tmp_path / "x", kind)
        rule = ReadingRule(channels=(Channel(2, RED, 0, 9),))
        plain, ruled = read_image(tmp_path / "x"), read_image(tmp_path / "x", rule)
        assert (plain.pixels == ruled.pixels).all()
        assert ruled.facts.seen == ""


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF", "tifffile"])
def test_page_is_the_first_a_number_or_the_maximum(tmp_path: Path, kind: str) -> None:
    pages = [np.full((H, W, 3), level, np.uint8) for level in (60, 200, 90)]
    pages[2][:, : W // 2] = 250
    path = tmp_path / "x"
    if kind == "tifffile":
        deep = [page[..., 0].astype(np.uint16) * 257 for page in pages]
        with tifffile.TiffWriter(path) as tiff:
            for plane in deep:
                tiff.write(plane, metadata=None)
    else:
        first, *others = [Image.fromarray(page) for page in pages]
        first.save(path, kind, save_all=True, append_images=others, lossless=True)
    for page, wanted in (
        ("first", pages[0]), ("1", pages[0]), ("2", pages[1]), ("3", pages[2]),
        ("max", np.max(pages, axis=0)),
    ):  # fmt: skip
        result = read_image(path, ReadingRule(page=page))
        assert np.abs(result.pixels.astype(int) - wanted).max() <= 1, page
        assert result.facts.pages == 3
        assert (result.facts.seen == "") == (page == "first")
    with pytest.raises(UnreadableImageError, match="shows page 4, but the file has 3 pages"):
        read_image(path, ReadingRule(page="4"))
    Image.fromarray(pages[0]).save(tmp_path / "single", "PNG")
    assert read_image(tmp_path / "single", ReadingRule(page="4")).facts.seen == ""


def test_the_maximum_leaves_out_pages_of_another_size(tmp_path: Path) -> None:
    sizes = [(W, H), (W // 2, H), (W, H)]
    first, *others = [
        Image.new("L", size, level) for size, level in zip(sizes, (9, 255, 20), strict=True)
    ]
    first.save(tmp_path / "x.tif", save_all=True, append_images=others)
    result = read_image(tmp_path / "x.tif", ReadingRule(page="max"))
    assert result.pixels.shape == (H, W, 3)
    assert result.pixels.max() == 20
    assert "1 pages of another size" in " ".join(result.facts.notes)


def test_smaller_copies_and_masks_are_no_pages(tmp_path: Path) -> None:
    data = values((H, W, 3), "uint8")
    with tifffile.TiffWriter(tmp_path / "x.tif") as tiff:
        tiff.write(data, metadata=None)
        tiff.write(data[::2, ::2], subfiletype=1, metadata=None)
        tiff.write(data[..., 0] > 9, subfiletype=4, metadata=None)
    facts = read_image(tmp_path / "x.tif", ReadingRule(page="max")).facts
    assert (facts.pages, facts.seen) == (1, "")


@pytest.mark.parametrize("kind", ["png8", "png16", "gif", "webp", "tif8", "tif16"])
def test_the_background_shows_through_transparency(tmp_path: Path, kind: str) -> None:
    image = Image.new("RGBA", (W, H), (0, 0, 0, 0))
    image.paste((255, 0, 0, 255), (W // 2, 0, W, H))
    samples = np.asarray(image)
    path = tmp_path / "x"
    if kind in ("tif8", "tif16"):
        deep = samples.astype(np.uint16) * 257 if kind == "tif16" else samples
        tifffile.imwrite(path, deep, photometric="rgb", extrasamples=["unassalpha"])
    elif kind == "png16":
        import imagecodecs

        path.write_bytes(imagecodecs.png_encode(samples.astype(np.uint16) * 257))
    else:
        image.save(path, {"png8": "PNG", "gif": "GIF", "webp": "WEBP"}[kind], lossless=True)
    result = read_image(path, ReadingRule(background="#204060"))
    assert result.pixels[3, 3].tolist() == [0x20, 0x40, 0x60]
    assert np.abs(result.pixels[3, -3].astype(int) - [255, 0, 0]).max() <= 2
    assert result.facts.alpha
    assert result.facts.seen
    assert "laid over #204060" in " ".join(result.facts.notes)
    assert read_image(path).pixels[3, 3].tolist() == [255, 255, 255]
    assert read_image(path).facts.seen == ""


def test_metadata_name_the_channels_and_size_the_pixel(tmp_path: Path) -> None:
    data = values((1, 1, 3, H, W))
    data[0, 0, 1] = np.linspace(0, 999, H * W).reshape(H, W)
    tifffile.imwrite(
        tmp_path / "x.ome.tif", data, ome=True, photometric="minisblack",
        metadata={
            "axes": "TZCYX", "PhysicalSizeX": 325.0, "PhysicalSizeXUnit": "nm",
            "Channel": {"Name": ["DAPI", "Ki-67", "CD8"], "Color": [0x0000FFFF, 0x00FF00FF,
                                                                    -16776961]},
        },
    )  # fmt: skip
    ranges = channel_ranges(tmp_path / "x.ome.tif")
    assert [found.name for found in ranges] == ["DAPI", "Ki-67", "CD8"]
    assert [found.color for found in ranges] == [BLUE, GREEN, RED]
    second = ranges[1]
    assert (second.kind, second.low, second.high) == ("uint16", 0, 999)
    assert second.p_low == pytest.approx(np.percentile(data[0, 0, 1], 0.1))
    assert second.p_high == pytest.approx(np.percentile(data[0, 0, 1], 99.9))
    assert read_image(tmp_path / "x.ome.tif").facts.um_per_px == pytest.approx(0.325)
    proposed = default_channels(ranges)
    assert [c.color for c in proposed] == [BLUE, GREEN, RED]
    assert (proposed[1].low, proposed[1].high) == (second.p_low, second.p_high)
    ReadingRule(channels=proposed).checked()


def test_without_metadata_six_different_colors_are_proposed(tmp_path: Path) -> None:
    write_stack(tmp_path / "x.tif", "contig", values((1, 1, 8, H, W), "uint8"))
    ranges = channel_ranges(tmp_path / "x.tif")
    assert [found.name for found in ranges] == [f"Channel {n}" for n in range(1, 9)]
    proposed = default_channels(ranges)
    assert len({channel.color for channel in proposed}) == len(proposed) == 6
    ReadingRule(channels=proposed).checked()
    Image.fromarray(values((H, W, 3), "uint8")).save(tmp_path / "rgb.tif")
    assert channel_ranges(tmp_path / "rgb.tif") == []
    write_stack(tmp_path / "flat.tif", "ome", np.full((1, 1, 2, H, W), 7, np.uint16))
    ReadingRule(channels=default_channels(channel_ranges(tmp_path / "flat.tif"))).checked()


@pytest.mark.parametrize(
    ("dots", "unit", "size"),
    [
        (72, 2, None), (300, 2, None), (118.11, 3, None), (28.35, 3, None), (20000, 3, 0.5),
        (50800, 2, 0.5), (1, 3, None), (40000, 1, None),
    ],
)  # fmt: skip
def test_only_a_believable_resolution_is_a_pixel_size(
    tmp_path: Path, dots: float, unit: int, size: float | None
) -> None:
    tifffile.imwrite(
        tmp_path / "x.tif", values((H, W)), resolution=(dots, dots), resolutionunit=unit,
        metadata=None,
    )  # fmt: skip
    assert read_image(tmp_path / "x.tif").facts.um_per_px == pytest.approx(size)


def test_imagej_and_png_tell_their_pixel_size(tmp_path: Path) -> None:
    tifffile.imwrite(
        tmp_path / "x.tif", values((H, W)), imagej=True, resolution=(4.0, 4.0),
        metadata={"unit": "micron"},
    )  # fmt: skip
    assert read_image(tmp_path / "x.tif").facts.um_per_px == pytest.approx(0.25)
    for dots, size in ((25400.0, 1.0), (96, None)):
        Image.new("L", (W, H)).save(tmp_path / "x.png", dpi=(dots, dots))
        assert read_image(tmp_path / "x.png").facts.um_per_px == (
            size and pytest.approx(size, rel=1e-3)
        )


def test_a_window_is_asked_for_only_where_channels_have_none(tmp_path: Path) -> None:
    data = np.stack([np.full((H, W), 500), np.full((H, W), 4000)]).astype(np.uint16)
    write_stack(tmp_path / "x.tif", "ome", data[None, None])
    own, open_ = Channel(0, RED, 0, 999), Channel(1, GREEN)
    read_image(tmp_path / "x.tif", ReadingRule(channels=(own,)), strict=True)
    with pytest.raises(WindowMissingError):
        read_image(tmp_path / "x.tif", ReadingRule(channels=(own, open_)), strict=True)
    found = read_sample_range(tmp_path / "x.tif", rule=ReadingRule(channels=(own, open_)))
    assert found is not None
    assert (found.low, found.high) == (4000, 4000)
    assert read_sample_range(tmp_path / "x.tif", rule=ReadingRule(channels=(own,))) is None
    by_hand = ReadingRule(channels=(own, open_), windows_from="fixed")
    with pytest.raises(UnreadableImageError, match="set by hand") as caught:
        read_image(tmp_path / "x.tif", by_hand, strict=True)
    assert not isinstance(caught.value, WindowMissingError)
    fixed = by_hand.with_window("uint16", 0, 8000)
    pixels = read_image(tmp_path / "x.tif", fixed, strict=True).pixels
    assert pixels[0, 0].tolist() == [128, 128, 0]


def test_percentiles_leave_a_speck_aside(tmp_path: Path) -> None:
    samples = np.linspace(100, 200, 2000 * 1500).reshape(1500, 2000).astype(np.uint16)
    samples[10, 10] = 65000
    tifffile.imwrite(tmp_path / "x.tif", samples)
    found = read_sample_range(tmp_path / "x.tif")
    assert found is not None
    assert (found.low, found.high) == (100, 65000)
    assert found.p_low == pytest.approx(100, abs=1)
    assert found.p_high == pytest.approx(200, abs=1)


def test_metadata_that_contradict_the_pages_are_not_believed(tmp_path: Path) -> None:
    data = values((2, 3, H, W))
    tifffile.imwrite(tmp_path / "x.tif", data, imagej=True, metadata={"axes": "ZCYX"})
    whole = (tmp_path / "x.tif").read_bytes()
    (tmp_path / "x.tif").write_bytes(whole.replace(b"channels=3", b"channels=9"))
    first = read_image(tmp_path / "x.tif").pixels[..., 0]
    assert np.abs(first - data[0, 0] / 257).max() <= 0.52


def test_a_stack_of_other_files_is_not_followed(tmp_path: Path) -> None:
    data = values((2, H, W))
    tifffile.imwrite(
        tmp_path / "x.ome.tif", data, ome=True, metadata={"axes": "CYX"}, photometric="minisblack"
    )
    (tmp_path / "other.tif").write_bytes((tmp_path / "x.ome.tif").read_bytes())
    assert read_image(tmp_path / "other.tif").facts.channels == 2


BIG = """
import resource, sys
from pathlib import Path
from cnsapp.imaging.reader import read_image
from cnsapp.imaging.rule import Channel, ReadingRule
read_image(Path(sys.argv[1]))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for page in ("first", "max", "7"):
    for make in sys.argv[2:]:
        read_image(Path(make), ReadingRule(page=page, channels=(Channel(1, "#FF0000", 0, 9),)))
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024)
"""


def test_of_a_large_stack_only_the_wanted_planes_are_loaded(tmp_path: Path) -> None:
    side, small = 1024, tmp_path / "small.tif"
    write_stack(small, "contig", values((1, 1, 2, H, W)))
    paths = []
    for make in ("ome", "imagej", "contig"):
        z, c = (1, 60) if make == "contig" else (20, 3)
        data = np.ones((1, z, c, side, side), np.uint16)  # 120 MB
        write_stack(tmp_path / f"{make}.tif", make, data)
        paths.append(str(tmp_path / f"{make}.tif"))
    done = subprocess.run(
        [sys.executable, "-c", BIG, str(small), *paths], capture_output=True, text=True, check=True
    )
    assert float(done.stdout) < 70  # a plane has 2 MB, the picture 3, what mixes them 6


@pytest.mark.parametrize("make", ["imagej", "contig", "loop"])
def test_more_pages_than_allowed_are_refused_from_the_header(tmp_path: Path, make: str) -> None:
    path = tmp_path / "x.tif"
    if make == "loop":  # single pages, as in a plain stack
        with tifffile.TiffWriter(path) as tiff:
            for _ in range(21):
                tiff.write(values((H, W)), metadata=None)
    else:
        shape = (1, 7, 3, H, W) if make == "imagej" else (1, 1, 21, H, W)
        write_stack(path, make, values(shape))
    with pytest.raises(UnreadableImageError, match="more than 20 pages or frames") as caught:
        read_image(path, limits=Limits(max_frames=20))
    assert "CNS_MAX_FRAMES" in str(caught.value)
    assert read_image(path, limits=Limits(max_frames=21)).pixels.shape == (H, W, 3)


TIFF_MAKES: dict[str, Any] = {
    "gray8": {"data": values((H, W), "uint8")},
    "gray16": {"data": values((H, W))},
    "float": {"data": values((H, W), "float32")},
    "rgba": {"data": values((H, W, 4), "uint8"), "extrasamples": ["unassalpha"]},
    "channels8": {"data": values((3, H, W), "uint8"), "axes": "CYX"},
    "channels16": {"data": values((2, 3, H, W)), "axes": "ZCYX"},
    "planes16": {"data": values((3, H, W)), "axes": "ZYX"},
    "mixed pages": {"data": None},
}


def write_make(path: Path, make: str) -> None:
    options = dict(TIFF_MAKES[make])
    data, axes = options.pop("data"), options.pop("axes", None)
    if data is None:  # pages of different kinds: opaque, deep, transparent
        with tifffile.TiffWriter(path) as tiff:
            tiff.write(values((H, W, 3), "uint8"), photometric="rgb", metadata=None)
            tiff.write(values((H, W)), photometric="minisblack", metadata=None)
            tiff.write(values((H, W, 4), "uint8"), photometric="rgb", metadata=None,
                       extrasamples=["unassalpha"])  # fmt: skip
        return
    photometric = "rgb" if make == "rgba" else "minisblack"
    tifffile.imwrite(path, data, metadata={"axes": axes} if axes else None,
                     photometric=photometric, **options)  # fmt: skip


CHANNELS = ((), (Channel(0, RED),), (Channel(0, RED, 0, 200), Channel(2, BLUE, 10, 900)),
            (Channel(1, GREEN, None, 5000),))  # fmt: skip
RULES = [
    ReadingRule(windows, page, channels, background)
    for windows in ((), (("uint16", 0.0, 999.0),), (("float", 0.0, 2.0), ("uint16", 5.0, 6000.0)))
    for page in ("first", "2", "max")
    for channels in CHANNELS
    for background in ("#FFFFFF", "#102030")
]


@pytest.mark.parametrize("make", list(TIFF_MAKES))
def test_rules_of_the_same_sign_give_the_same_picture(tmp_path: Path, make: str) -> None:
    """From the facts of any one reading the sign of any other rule is known."""
    write_make(tmp_path / "x.tif", make)
    pictures: dict[str, bytes] = {}
    signs: set[tuple[str, ...]] = set()
    facts = [read_image(tmp_path / "x.tif", RULES[n]).facts.as_json() for n in (0, 9, 21, 50)]
    for rule in RULES:
        try:
            result = read_image(tmp_path / "x.tif", rule)
        except UnreadableImageError:  # such as a channel window that has no extent: no picture
            continue
        predicted = {rule.seen(known) for known in facts}
        assert predicted == {result.facts.seen}
        picture = result.pixels.tobytes()
        assert pictures.setdefault(result.facts.seen, picture) == picture
        signs.add((result.facts.seen,))
    assert len(signs) > 1 or make == "gray8"
