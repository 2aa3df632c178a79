"""Nothing that tells of people, places and devices is left in a copy, and the picture is the same.

The files are made by Pillow, tifffile and by hand; the check knows nothing of formats: the planted
words must not be among the bytes, deflated text included, and the reader must see the same pixels.
"""

from __future__ import annotations

import io
import re
import struct
import zlib
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageCms, PngImagePlugin, TiffImagePlugin

from cnsapp.errors import UnreadableImageError
from cnsapp.imaging import tiff_files  # noqa: F401  (sets how Pillow and tifffile are used)
from cnsapp.imaging.privacy import Cleaned, without_metadata
from cnsapp.imaging.privacy_tiff import technical_part
from cnsapp.imaging.reader import read_image
from cnsapp.imaging.sniff import sniff
from tests.places import data_folder

SECRETS = ("Jane Doe", "SN-4711-0815", "Olympus", "1948-02-29", "Ward 7", "MakerSecret")
GPS = {1: "N", 2: (52.0, 31.0, 12.25), 3: "E", 4: (13.0, 24.0, 17.5)}
XMP = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><a>Jane Doe Ward 7</a></x:xmpmeta>'
OF_TIFF = {254, 256, 257, 258, 259, 262, 270, 273, 277, 278, 279, 284, 317, 320, 322, 323, 324, 325,
           338, 339, 34675}  # fmt: skip
LOOKS = {274, 282, 283, 296}  # upright, and the size of a pixel


def picture(seed: int = 0) -> Image.Image:
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 255, (6, 8, 3), dtype=np.uint8))
    return small.resize((64, 48), Image.Resampling.BICUBIC)


def exif(orientation: int | None = 6) -> Image.Exif:
    said = Image.Exif()
    said[0x010E], said[0x010F], said[0x0110] = "Ward 7", "Olympus", "Olympus BX"
    said[0x013B], said[0x013C], said[0x0132] = "Jane Doe", "Jane Doe PC", "1948-02-29"
    if orientation:
        said[0x0112] = orientation
    said.get_ifd(0x8825).update(GPS)
    said.get_ifd(0x8769).update(
        {0xA431: "SN-4711-0815", 0xA430: "Jane Doe", 0x927C: b"MakerSecret", 0x9286: b"Ward 7"}
    )
    return said


def iptc() -> bytes:
    said = b"\x1c\x02\x50\x00\x08Jane Doe"
    return b"Photoshop 3.0\x008BIM\x04\x04\0\0" + struct.pack(">I", len(said)) + said + b"\0"


@lru_cache
def srgb() -> bytes:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def jpeg(file: Path) -> None:
    out = io.BytesIO()
    picture().save(
        out, "JPEG", quality=90, exif=exif(), xmp=XMP, comment=b"Jane Doe", progressive=True,
        icc_profile=srgb(), dpi=(300, 300),
    )  # fmt: skip
    plain = out.getvalue()
    at = 4 + plain[5] + 256 * plain[4]  # after JFIF
    segment = b"\xff\xed" + struct.pack(">H", len(iptc()) + 2) + iptc()
    file.write_bytes(plain[:at] + segment + plain[at:] + b"after the end: MakerSecret")


def png(file: Path) -> None:
    said = PngImagePlugin.PngInfo()
    said.add_text("Author", "Jane Doe")
    said.add_text("Comment", "SN-4711-0815 " * 50, zip=True)
    said.add_itxt("XML:com.adobe.xmp", XMP.decode())
    said.add_itxt("Description", "Ward 7", zip=True)
    said.add(b"tIME", b"\x07\x9c\x02\x1d\0\0\0")
    said.add(b"prVt", b"MakerSecret", after_idat=True)
    picture().save(file, "PNG", pnginfo=said, exif=exif(), icc_profile=srgb(), dpi=(300, 300))


def png16(file: Path) -> None:
    said = PngImagePlugin.PngInfo()
    said.add_text("Author", "Jane Doe")
    rng = np.random.default_rng(1)
    high = Image.fromarray(rng.integers(0, 65535, (48, 64), dtype=np.uint16))
    high.save(file, "PNG", pnginfo=said, exif=exif(8))


def webp(file: Path) -> None:
    picture().save(file, "WEBP", quality=80, exif=exif(), xmp=XMP, icc_profile=srgb())


def webp_moving(file: Path) -> None:
    more = [picture(1), picture(2)]
    picture().save(
        file, "WEBP", save_all=True, append_images=more, lossless=True, exif=exif(3), xmp=XMP
    )


def gif(file: Path) -> None:
    picture().save(
        file, "GIF", comment=b"Jane Doe", save_all=True, append_images=[picture(1)], loop=0
    )
    whole = file.read_bytes()
    xmp = b"\x21\xff\x0bXMP DataXMP" + XMP + b"\x01" + bytes(range(255, -1, -1)) + b"\0"
    at = 13 + 3 * 256
    file.write_bytes(whole[:at] + xmp + whole[at:] + b"MakerSecret")


def jp2(file: Path) -> None:
    picture().save(file, "JPEG2000", comment=b"Jane Doe, Ward 7", irreversible=False)
    xml = b"<patient>Jane Doe</patient>"
    uuid = bytes.fromhex("be7acfcb97a942e89c71999491e3afac") + XMP
    boxes = [(b"xml ", xml), (b"uuid", uuid)]
    whole = file.read_bytes()
    at = whole.index(b"jp2c") - 4
    more = b"".join(struct.pack(">I", len(b) + 8) + n + b for n, b in boxes)
    file.write_bytes(whole[:at] + more + whole[at:])


def j2k(file: Path) -> None:
    picture().save(file, "JPEG2000", comment=b"Jane Doe, Ward 7", no_jp2=True)


def bmp(file: Path) -> None:
    picture().save(file, "BMP")
    file.write_bytes(file.read_bytes() + b"MakerSecret of Jane Doe")


def avif(file: Path) -> None:
    picture().save(file, "AVIF", quality=95, exif=exif(1), xmp=XMP)


def tiff_of_pillow(file: Path) -> None:
    said = exif()
    said[0x8298], said[700], said[65000] = "Jane Doe", XMP, "SN-4711-0815"
    said[0x8825] = dict(said.get_ifd(0x8825))
    said[33723], said[34377] = b"\x1c\x02\x50\x00\x08Jane Doe", iptc()
    picture().save(file, "TIFF", exif=said, icc_profile=srgb())


def tiff(
    file: Path, *, byteorder: str = "<", bigtiff: bool = False, n: int = 3, **choices: object
) -> None:
    rng = np.random.default_rng(5)
    samples = rng.integers(0, 65535, (n, 48, 64), dtype=np.uint16)
    extra = [
        (315, 2, 0, "Jane Doe", False), (316, 2, 0, "Ward 7", False),
        (65001, 7, 11, b"MakerSecret", False), (700, 1, len(XMP), XMP, False),
    ]  # fmt: skip
    tifffile.imwrite(
        file, samples, byteorder=byteorder, bigtiff=bigtiff, photometric="minisblack",  # type: ignore[arg-type]
        datetime=True, software="Olympus", extratags=extra, resolution=(4000, 4000),
        resolutionunit="CENTIMETER", **choices,
    )  # fmt: skip


def tiff_tiles(file: Path) -> None:
    tiff(file, byteorder=">", tile=(16, 16), compression="deflate", predictor=True,
         description="Jane Doe", metadata=None)  # fmt: skip


def tiff_big(file: Path) -> None:
    tiff(file, bigtiff=True, description="Jane Doe, Ward 7", metadata=None)


def tiff_json(file: Path) -> None:
    tiff(file, metadata={"axes": "CYX", "patient": "Jane Doe"})


def tiff_imagej(file: Path) -> None:
    tiff(file, imagej=True, metadata={"axes": "CYX", "Info": "Jane Doe", "Labels": ["Ward 7"] * 3})


def tiff_ome(file: Path) -> None:
    tiff(
        file,
        ome=True,
        metadata={
            "axes": "CYX", "Name": "Jane Doe", "PhysicalSizeX": 0.25, "PhysicalSizeXUnit": "µm",
            "Description": "Ward 7", "Channel": {"Name": ["a", "b", "c"], "Fluor": ["Ward 7"] * 3},
            "AcquisitionDate": "1948-02-29T00:00:00",
        },
    )  # fmt: skip


def tiff_hidden(file: Path) -> None:
    tifffile.imwrite(file, np.arange(48 * 64, dtype=np.uint8).reshape(48, 64), metadata=None,
                     software=False)  # fmt: skip
    file.write_bytes(file.read_bytes() + b"MakerSecret: Jane Doe in 1948-02-29")


MAKERS: dict[str, tuple[Callable[[Path], None], set[str]]] = {
    "photo.jpg": (
        jpeg,
        {"place", "owner", "device", "time", "text", "XMP", "IPTC", "other"},
    ),
    "chunks.png": (png, {"place", "owner", "device", "time", "text", "XMP", "other"}),
    "high.png": (png16, {"place", "owner", "device", "time", "text"}),
    "still.webp": (webp, {"place", "owner", "device", "time", "text", "XMP"}),
    "moving.webp": (webp_moving, {"place", "owner", "device", "time", "text", "XMP"}),
    "moving.gif": (gif, {"text", "XMP", "other"}),
    "boxes.jp2": (jp2, {"text", "XMP"}),
    "stream.j2k": (j2k, {"text"}),
    "tail.bmp": (bmp, {"other"}),
    "photo.avif": (avif, {"other"}),
    "pillow.tif": (
        tiff_of_pillow,
        {"place", "owner", "device", "time", "text", "XMP", "IPTC", "other"},
    ),
    "tiles.tif": (tiff_tiles, {"owner", "software", "time", "text", "XMP", "other"}),
    "big.tif": (tiff_big, {"owner", "software", "time", "text", "XMP", "other"}),
    "json.tif": (tiff_json, {"owner", "software", "time", "text", "XMP", "other"}),
    "imagej.tif": (tiff_imagej, {"owner", "software", "time", "XMP", "other"}),
    "channels.ome.tif": (tiff_ome, {"owner", "software", "time", "text", "XMP", "other"}),
    "hidden.tif": (tiff_hidden, {"other"}),
}


def inflated(data: bytes) -> bytes:
    """Return the bytes, and whatever unpacks as a deflated stream anywhere in them."""
    out = [data]
    for found in re.finditer(b"\x78[\x01\x5e\x9c\xda]", data):
        with_it = zlib.decompressobj()
        try:
            out.append(with_it.decompress(data[found.start() :], 1 << 20))
        except zlib.error:
            continue
    return b"\n".join(out)


def secrets_in(file: Path) -> list[str]:
    data = inflated(file.read_bytes())
    forms = {s: (s.encode(), s.encode("utf-16-le"), s.encode("utf-16-be")) for s in SECRETS}
    found = [secret for secret, all_of in forms.items() if any(form in data for form in all_of)]
    for order in "<>":  # the place: 12.25 seconds north as two numbers
        if struct.pack(order + "III", 52, 1, 31) in data:
            found.append("place")
    return found


def cleaned(file: Path, target: Path) -> Cleaned:
    return without_metadata(file, target, sniff(file))


@pytest.mark.parametrize("name", MAKERS)
def test_the_copy_tells_nothing_and_shows_the_same(name: str, tmp_path: Path) -> None:
    make, told = MAKERS[name]
    file, target = tmp_path / name, tmp_path / f"copy-{name}"
    make(file)
    assert secrets_in(file), "the test planted nothing"
    done = cleaned(file, target)
    assert secrets_in(target) == []
    assert done.found == told
    assert sniff(target) == done.kind
    before, after = read_image(file), read_image(target)
    assert np.array_equal(before.pixels, after.pixels)
    assert before.facts.pages == after.facts.pages
    with Image.open(target) as image:
        assert set(image.getexif()) <= (LOOKS | OF_TIFF if done.kind == "TIFF" else LOOKS)
        assert not image.getexif().get_ifd(0x8825)
        assert not image.getexif().get_ifd(0x8769)
        assert b"Jane" not in repr(image.info).encode()


@pytest.mark.parametrize("name", MAKERS)
def test_a_clean_copy_is_left_as_it_is(name: str, tmp_path: Path) -> None:
    file, once, twice = tmp_path / name, tmp_path / f"once-{name}", tmp_path / f"twice-{name}"
    MAKERS[name][0](file)
    cleaned(file, once)
    again = cleaned(once, twice)
    assert again.found == frozenset()
    assert twice.read_bytes() == once.read_bytes()


@pytest.mark.parametrize("name", ["photo.jpg", "chunks.png", "still.webp", "pillow.tif"])
def test_colour_profile_and_orientation_stay(name: str, tmp_path: Path) -> None:
    file, target = tmp_path / name, tmp_path / f"copy-{name}"
    MAKERS[name][0](file)
    cleaned(file, target)
    with Image.open(target) as image:
        assert image.info["icc_profile"] == srgb()
        assert image.getexif()[274] == 6
        image.load()


def test_the_size_of_a_pixel_stays(tmp_path: Path) -> None:
    for name in ("photo.jpg", "chunks.png"):
        MAKERS[name][0](tmp_path / name)
        cleaned(tmp_path / name, tmp_path / f"copy-{name}")
        with Image.open(tmp_path / f"copy-{name}") as image:
            assert [round(float(n)) for n in image.info["dpi"]] == [300, 300]
    tiff_ome(tmp_path / "a.ome.tif")
    cleaned(tmp_path / "a.ome.tif", tmp_path / "b.ome.tif")
    with tifffile.TiffFile(tmp_path / "b.ome.tif") as copy:
        assert 'PhysicalSizeX="0.25"' in str(copy.ome_metadata)
        assert copy.pages.first.tags["XResolution"].value[0] > 0  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "make, flag", [(tiff_ome, "is_ome"), (tiff_imagej, "is_imagej"), (tiff_json, "is_shaped")]
)
def test_pages_are_still_channels(make: Callable[[Path], None], flag: str, tmp_path: Path) -> None:
    make(tmp_path / "a.tif")
    cleaned(tmp_path / "a.tif", tmp_path / "b.tif")
    with (
        tifffile.TiffFile(tmp_path / "a.tif") as before,
        tifffile.TiffFile(tmp_path / "b.tif") as after,
    ):
        assert getattr(after, flag)
        assert after.series[0].axes == before.series[0].axes == "CYX"
        assert np.array_equal(before.asarray(), after.asarray())


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "JPEG2000"])
def test_a_file_that_tells_nothing_is_copied_byte_for_byte(kind: str, tmp_path: Path) -> None:
    picture().save(tmp_path / "a", kind)
    done = without_metadata(tmp_path / "a", tmp_path / "b", kind)
    assert done == Cleaned(kind, frozenset())
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@pytest.mark.parametrize("orientation", range(2, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_every_orientation_looks_the_same(kind: str, orientation: int, tmp_path: Path) -> None:
    picture().save(tmp_path / "a", kind, exif=exif(orientation))
    without_metadata(tmp_path / "a", tmp_path / "b", kind)
    plain = tmp_path / "plain"
    picture().save(plain, kind)
    seen = read_image(tmp_path / "b").pixels
    assert np.array_equal(seen, read_image(tmp_path / "a").pixels)
    assert not np.array_equal(seen, read_image(plain).pixels)


def test_an_orientation_that_only_xmp_names_is_kept(tmp_path: Path) -> None:
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/" tiff:Orientation="6">Jane Doe</x:xmpmeta>'
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[700] = xmp
    picture().save(tmp_path / "a.tif", tiffinfo=tags)
    picture().save(tmp_path / "a.jpg", xmp=xmp)
    for name in ("a.tif", "a.jpg"):
        target = tmp_path / f"copy-{name}"
        assert cleaned(tmp_path / name, target).found == {"XMP"}
        assert b"Jane" not in target.read_bytes()
        seen = read_image(target).pixels
        assert seen.shape == (64, 48, 3)
        assert np.array_equal(seen, read_image(tmp_path / name).pixels)


def test_label_and_macro_pages_of_a_slide_are_left_out(tmp_path: Path) -> None:
    file, target = tmp_path / "slide.svs", tmp_path / "copy.svs"
    rng = np.random.default_rng(3)
    pages = [rng.integers(0, 255, (64, 64, 3), dtype=np.uint8) for _ in range(4)]
    said = [
        "Aperio Image Library v11\n64x64 |AppMag = 20|MPP = 0.4990|User = Jane Doe|Date = 1948",
        "Aperio Image Library v11\n32x32 thumbnail",
        "Aperio Image Library v11\nlabel 64x64",
        "Aperio Image Library v11\nmacro 64x64",
    ]
    with tifffile.TiffWriter(file) as writing:
        for page, words in zip(pages, said, strict=True):
            writing.write(page, description=words, metadata=None, photometric="rgb", software=False)
    assert cleaned(file, target).found == {"text", "slide label"}
    data = target.read_bytes()
    for page, inside in zip(pages, [True, True, False, False], strict=True):
        assert (page.tobytes()[:600] in data) is inside
    with tifffile.TiffFile(target) as copy:
        assert len(copy.pages) == 2
        assert copy.pages.first.description == "Aperio Image|AppMag = 20|MPP = 0.499"


def test_levels_of_a_pyramid_stay(tmp_path: Path) -> None:
    file, target = tmp_path / "pyramid.ome.tif", tmp_path / "copy.ome.tif"
    full = np.random.default_rng(4).integers(0, 255, (128, 128, 3), dtype=np.uint8)
    with tifffile.TiffWriter(file, ome=True) as writing:
        options = {"tile": (32, 32), "photometric": "rgb"}
        writing.write(full, subifds=2, metadata={"axes": "YXS", "Name": "Jane Doe"}, **options)
        writing.write(full[::2, ::2], subfiletype=1, **options)
        writing.write(full[::4, ::4], subfiletype=1, **options)
    cleaned(file, target)
    assert secrets_in(target) == []
    with tifffile.TiffFile(target) as copy:
        levels = [level.asarray() for level in copy.series[0].levels]
    assert [level.shape[0] for level in levels] == [128, 64, 32]
    assert np.array_equal(levels[2], full[::4, ::4])


@pytest.mark.parametrize(
    "said, kept",
    [
        ("Patient Jane Doe", ""),
        ("<OME>", ""),
        ("{not json", ""),
        ('{"shape": [3, 4], "who": "Jane"}', '{"shape": [3, 4]}'),
        ('{"shape": [3, 4]}', '{"shape": [3, 4]}'),
        ("Aperio x|MPP = 0.5|AppMag = Jane", "Aperio Image|MPP = 0.5"),
        ("ImageJ=1.5\nchannels=2\nJane=1\n", "ImageJ=1.5\nchannels=2\n"),
    ],
)
def test_only_the_technical_part_of_a_description_stays(said: str, kept: str) -> None:
    assert technical_part(said) == kept


def test_what_cannot_be_cleaned_for_certain_is_refused(tmp_path: Path) -> None:
    file, target = tmp_path / "two.tif", tmp_path / "copy.tif"
    tifffile.imwrite(file, np.zeros((2, 8, 8), np.float32), metadata=None)
    data = bytearray(file.read_bytes())
    first = struct.unpack("<I", data[4:8])[0]
    for i in range(struct.unpack("<H", data[first : first + 2])[0]):
        at = first + 2 + 12 * i
        if struct.unpack("<H", data[at : at + 2])[0] == 273:
            data[at + 4 : at + 8] = struct.pack("<I", 50_000)  # places of 50,000 strips
    file.write_bytes(data)
    with pytest.raises(UnreadableImageError, match="cannot be removed"):
        without_metadata(file, target, "TIFF")
    assert list(tmp_path.iterdir()) == [file]


def test_bytes_cut_and_changed_never_crash(tmp_path: Path) -> None:
    rng = np.random.default_rng(9)
    for name, (make, _) in MAKERS.items():
        file = tmp_path / name
        make(file)
        whole, kind = file.read_bytes(), sniff(file)
        for turn in range(12):
            bad = bytearray(whole[: int(rng.integers(20, len(whole)))] if turn % 2 else whole)
            for at in rng.integers(16, len(bad), 4):
                bad[at] = int(rng.integers(0, 256))
            file.write_bytes(bad)
            target = tmp_path / f"{turn}-copy-{name}"
            try:
                without_metadata(file, target, kind)
            except UnreadableImageError:
                assert not target.exists()


PROBLEMS = data_folder() / "problem-files"


@pytest.mark.skipif(not PROBLEMS.is_dir(), reason="the folder of problem files is not here")
def test_the_problem_files_look_the_same_without_metadata(tmp_path: Path) -> None:
    n = 0
    for file in sorted(PROBLEMS.iterdir()):
        try:
            kind, before = sniff(file), read_image(file).pixels
        except UnreadableImageError:
            continue
        target = tmp_path / file.name
        without_metadata(file, target, kind)
        assert np.array_equal(read_image(target).pixels, before), file.name
        n += 1
    assert n >= 35
