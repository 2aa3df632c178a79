"""The tiles of large pictures stay within the room they are given."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Picture

from cnsapp.bootstrap import App
from cnsapp.imaging.limits import Limits
from cnsapp.imaging.pyramid import ABOUT, find_pyramid, make_pyramid, tile_path
from cnsapp.imaging.pyramid_cache import FRESH, TileCache, note_use
from cnsapp.imaging.rule import ReadingRule
from cnsapp.services import projects, viewing
from cnsapp.services.importing import import_folder


@pytest.fixture
def thumbs(tmp_path: Path) -> Path:
    """Return an empty folder for thumbnails."""
    made = tmp_path / "thumbs"
    made.mkdir()
    return made


def draw(path: Path, seed: int, side: int = 600) -> Path:
    """Write a noisy picture."""
    noise = np.random.default_rng(seed).integers(0, 255, (side, side, 3), np.uint8)
    Picture.fromarray(noise).save(path)
    return path


def make(thumbs: Path, tmp_path: Path, name: str, *, age: float) -> Path:
    """Make a pyramid that was last looked at `age` seconds ago."""
    folder = thumbs / name[:2] / f"{name}.tiles"
    picture = draw(tmp_path / f"{name}.png", seed=ord(name[0]))
    make_pyramid(picture, ReadingRule(), Limits(), folder)
    at = time.time() - age
    os.utime(folder / ABOUT, (at, at))
    return folder


def bytes_of(*folders: Path) -> int:
    """Return what the files of these folders take."""
    return sum(f.stat().st_size for one in folders for f in one.rglob("*") if f.is_file())


def there(*folders: Path) -> list[bool]:
    return [find_pyramid(one) is not None for one in folders]


def test_the_longest_unused_go_until_there_is_room(thumbs: Path, tmp_path: Path) -> None:
    ages = {"aa": 5 * FRESH, "bb": 9 * FRESH, "cc": 7 * FRESH}
    a, b, c = (make(thumbs, tmp_path, name, age=age) for name, age in ages.items())
    new = make(thumbs, tmp_path, "dd", age=0)
    (thumbs / "aa" / "picture.jpg").write_bytes(b"a thumbnail")
    cache = TileCache(thumbs)
    assert cache.add(new, bytes_of(a, b, c, new)) == 0
    assert there(a, b, c, new) == [True] * 4
    assert cache.add(new, bytes_of(a, b, c, new) - 1) == 1
    assert there(a, b, c, new) == [True, False, True, True]
    assert cache.add(new, bytes_of(new) + 1) == 2
    assert there(a, b, c, new) == [False, False, False, True]
    assert (thumbs / "aa" / "picture.jpg").is_file()
    assert not list(thumbs.glob(".tiles-*")), "half removed"


def test_what_somebody_looks_at_stays_even_over_the_limit(thumbs: Path, tmp_path: Path) -> None:
    old, used = make(thumbs, tmp_path, "aa", age=9e5), make(thumbs, tmp_path, "bb", age=9e5)
    new = make(thumbs, tmp_path, "cc", age=0)
    note_use(used)
    assert TileCache(thumbs).add(new, 1) == 1
    assert there(old, used, new) == [False, True, True]


def test_no_limit_removes_nothing(thumbs: Path, tmp_path: Path) -> None:
    old, new = make(thumbs, tmp_path, "aa", age=9e9), make(thumbs, tmp_path, "bb", age=0)
    assert TileCache(thumbs).add(new, 0) == 0
    assert there(old, new) == [True, True]


def test_tiles_that_are_being_written_are_left_alone(thumbs: Path, tmp_path: Path) -> None:
    picture = draw(tmp_path / "large.png", 3, side=2500)
    target = thumbs / "zz" / "large.tiles"
    other = make(thumbs, tmp_path, "aa", age=0)
    done = threading.Event()

    def prune() -> None:
        while not done.is_set():
            TileCache(thumbs).add(other, 1)

    pruning = threading.Thread(target=prune)
    pruning.start()
    try:
        make_pyramid(picture, ReadingRule(), Limits(), target)
    finally:
        done.set()
        pruning.join()
    shape = find_pyramid(target)
    assert shape is not None
    for level in range(shape.levels):
        columns, rows = shape.tiles(level)
        assert all(
            tile_path(target, level, x, y).is_file() for x in range(columns) for y in range(rows)
        )


def test_a_picture_that_lost_its_tiles_gets_them_again(app: App, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for seed in (1, 2):
        draw(source / f"{seed}.png", seed)
    project = projects.create_project(app.store, name="p").id
    import_folder(app, project_id=project, path=source)
    small = App(app.settings.model_copy(update={"max_tile_cache_bytes": 1}), app.store)

    def folder(image_id: int) -> Path:
        """Have the tiles made, and return where they are."""
        deadline = time.monotonic() + 60
        while viewing.pyramid(small, image_id=image_id) is None:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        return viewing.tile(small, image_id=image_id, level=0, x=0, y=0).path.parents[1]

    first = folder(1)
    os.utime(first / ABOUT, (0, 0))
    second = folder(2)
    deadline = time.monotonic() + 60
    while find_pyramid(first) is not None:  # the tiles are there a moment before room is made
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert find_pyramid(second) is not None
    assert folder(1) == first
