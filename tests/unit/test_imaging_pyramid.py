"""Tiles of large pictures: the right pixels at every scale, whole or not at all."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image

from cnsapp.errors import UnreadableImageError
from cnsapp.imaging import isolated, pyramid
from cnsapp.imaging.limits import Limits
from cnsapp.imaging.pyramid import (
    PART,
    Pyramid,
    clean_half_made,
    drop_pyramid,
    find_pyramid,
    make_pyramid,
    tile_path,
)
from cnsapp.imaging.reader import read_image
from cnsapp.imaging.rule import Channel, ReadingRule
from cnsapp.imaging.store import own_name

RULE, LIMITS = ReadingRule(), Limits()


@pytest.fixture
def thumbs(tmp_path: Path) -> Path:
    """Return the folder of thumbnails of a store."""
    folder = tmp_path / "thumbs"
    folder.mkdir()
    return folder


def waves(width: int, height: int) -> NDArray[np.uint8]:
    """Return a smooth picture, of which JPEG loses little, different everywhere."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float64)
    parts = [np.sin(x / 37 + y / 91), np.cos(x / 53 - y / 41), np.sin((x + 2 * y) / 67)]
    return np.stack([127 + 120 * part for part in parts], -1).astype(np.uint8)


def put_together(folder: Path, level: int, shape: Pyramid) -> NDArray[np.uint8]:
    """Return a level from its tiles, laid out by their names alone."""
    width, height = shape.size(level)
    whole = np.zeros((height, width, 3), np.uint8)
    for file in (folder / str(level)).iterdir():
        column, row = map(int, file.stem.split("_"))
        with Image.open(file) as opened:
            tile = np.asarray(opened.convert("RGB"))
        assert max(tile.shape) <= 512
        top, left = 512 * row, 512 * column
        whole[top : top + tile.shape[0], left : left + tile.shape[1]] = tile
    return whole


@pytest.mark.parametrize(("width", "height"), [(1300, 700), (1025, 6), (512, 512), (2049, 1023)])
def test_each_level_is_the_picture_made_smaller(thumbs: Path, width: int, height: int) -> None:
    file = thumbs.parent / "picture.png"
    Image.fromarray(waves(width, height)).save(file)
    folder = thumbs / "ab" / "x.tiles"
    make_pyramid(file, RULE, LIMITS, folder)
    shape = find_pyramid(folder)
    assert shape == Pyramid(width, height)
    assert sorted(int(p.name) for p in folder.iterdir() if p.is_dir()) == list(range(shape.levels))
    pixels = read_image(file).pixels
    for level in range(shape.levels):
        seen = put_together(folder, level, shape).astype(int)
        scale = 2**level
        # every pixel of a level covers scale x scale of the picture: Pillow's own reduction
        wanted = np.asarray(Image.fromarray(pixels).reduce(scale)).astype(int)
        assert seen.shape == wanted.shape
        difference = np.abs(seen - wanted)
        assert difference.max() <= 20
        assert difference.mean() < 2.5
        by_resize = Image.fromarray(pixels[: height // scale * scale, : width // scale * scale])
        if min(by_resize.size) >= scale:
            box = by_resize.resize((width // scale, height // scale), Image.Resampling.BOX)
            inner = seen[: height // scale, : width // scale]
            assert np.abs(inner - np.asarray(box).astype(int)).mean() < 2.5


def test_a_half_turn_of_the_file_is_in_the_tiles_too(thumbs: Path) -> None:
    file = thumbs.parent / "turned.jpg"
    exif = Image.Exif()
    exif[274] = 6  # to be turned by a quarter
    Image.fromarray(waves(900, 300)).save(file, quality=95, exif=exif)
    folder = thumbs / "ab" / "x.tiles"
    assert make_pyramid(file, RULE, LIMITS, folder) == {"width": 300, "height": 900}
    seen = put_together(folder, 0, Pyramid(300, 900)).astype(int)
    assert np.abs(seen - read_image(file).pixels.astype(int)).mean() < 2


def test_one_channel_in_gray_is_that_channel_through_its_window(thumbs: Path) -> None:
    file = thumbs.parent / "stack.tif"
    stack = np.zeros((3, 40, 60), np.uint16)
    stack[1, :, :20], stack[1, :, 20:40], stack[1, :, 40:] = 1000, 2000, 3000
    stack[0], stack[2] = 60_000, 60_000
    tifffile.imwrite(file, stack, ome=True, metadata={"axes": "CYX"})
    rule = ReadingRule(channels=(Channel(1, "#FFFFFF", 1000, 3000),))
    folder = thumbs / "ab" / "x.c1.tiles"
    make_pyramid(file, rule, LIMITS, folder, gray=True)
    with Image.open(tile_path(folder, 0, 0, 0)) as tile:
        assert tile.mode == "L"
        values = np.asarray(tile).astype(int)
    assert values[20, 10] <= 2
    assert abs(values[20, 30] - 128) <= 3
    assert values[20, 50] >= 253


def test_a_broken_file_leaves_nothing_behind(thumbs: Path) -> None:
    file = thumbs.parent / "broken.png"
    Image.fromarray(waves(900, 900)).save(file)
    file.write_bytes(file.read_bytes()[:20_000])
    with pytest.raises(UnreadableImageError, match=r"cut off|damaged"):
        make_pyramid(file, RULE, LIMITS, thumbs / "ab" / "x.tiles")
    assert list(thumbs.iterdir()) == []


def test_a_full_disk_in_the_middle_leaves_nothing_behind(
    thumbs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = thumbs.parent / "picture.png"
    Image.fromarray(waves(1300, 700)).save(file)
    cut = pyramid._cut

    def full(pixels: NDArray[np.uint8], folder: Path) -> None:
        if folder.name == "1":
            raise OSError(28, "No space left on device")
        cut(pixels, folder)

    monkeypatch.setattr(pyramid, "_cut", full)
    with pytest.raises(OSError, match="No space"):
        make_pyramid(file, RULE, LIMITS, thumbs / "ab" / "x.tiles")
    assert list(thumbs.iterdir()) == []


def test_a_second_making_leaves_the_first_one_as_it_is(thumbs: Path) -> None:
    file = thumbs.parent / "picture.png"
    Image.fromarray(waves(700, 600)).save(file)
    folder = thumbs / "ab" / "x.tiles"
    make_pyramid(file, RULE, LIMITS, folder)
    first = tile_path(folder, 0, 1, 1).stat().st_ino
    make_pyramid(file, RULE, LIMITS, folder)
    assert tile_path(folder, 0, 1, 1).stat().st_ino == first
    assert [p.name for p in thumbs.iterdir()] == ["ab"]


def test_a_remainder_without_its_description_is_replaced(thumbs: Path) -> None:
    file = thumbs.parent / "picture.png"
    Image.fromarray(waves(700, 600)).save(file)
    folder = thumbs / "ab" / "x.tiles"
    (folder / "0").mkdir(parents=True)
    (folder / "0" / "7_7.jpg").write_bytes(b"of another time")
    assert find_pyramid(folder) is None
    make_pyramid(file, RULE, LIMITS, folder)
    assert find_pyramid(folder) == Pyramid(700, 600)
    assert not tile_path(folder, 0, 7, 7).exists()


def test_what_a_killed_process_left_is_removed_and_what_is_being_made_is_kept(thumbs: Path) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    mine = thumbs / own_name(PART)
    dead = thumbs / mine.name.replace(f"-{os.getpid()}-", f"-{gone.pid}-")
    for folder in (mine, dead):
        (folder / "0").mkdir(parents=True)
        (folder / "0" / "0_0.jpg").write_bytes(b"half")
    assert clean_half_made(thumbs) == 1
    assert [p.name for p in thumbs.iterdir()] == [mine.name]


def test_deleted_tiles_are_gone_for_everyone(thumbs: Path) -> None:
    file = thumbs.parent / "picture.png"
    Image.fromarray(waves(700, 600)).save(file)
    folder = thumbs / "ab" / "x.tiles"
    make_pyramid(file, RULE, LIMITS, folder)
    drop_pyramid(folder)
    drop_pyramid(folder)  # nothing to do
    assert find_pyramid(folder) is None
    assert [p.name for p in thumbs.iterdir()] == ["ab"]


def test_places_outside_are_no_tiles() -> None:
    shape = Pyramid(1300, 700)
    assert [shape.tiles(level) for level in range(shape.levels)] == [(3, 2), (2, 1), (1, 1)]
    assert shape.has(0, 2, 1)
    for place in (
        (0, 3, 0),
        (0, 0, 2),
        (1, 2, 0),
        (3, 0, 0),
        (-1, 0, 0),
        (0, -1, 0),
        (10**9, 0, 0),
    ):
        assert not shape.has(*place)


def test_another_process_makes_the_tiles(thumbs: Path) -> None:
    file = thumbs.parent / "picture.png"
    Image.fromarray(waves(700, 600)).save(file)
    folder = thumbs / "ab" / "x.tiles"
    answer = isolated.call(
        "make_pyramid", file, rule=RULE, limits=LIMITS, target_dir=folder, gray=False
    )
    assert Pyramid(**answer.facts) == find_pyramid(folder) == Pyramid(700, 600)
