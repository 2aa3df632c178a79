"""Originals, thumbnails, candidates and plans of an import, without a database."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cnsapp.errors import StoreError, UnreadableImageError
from cnsapp.imaging import store
from cnsapp.imaging.candidates import is_ignored, iter_candidates
from cnsapp.imaging.store import ImageFolder, hash_bytes, hash_file, read_small
from cnsapp.imaging.thumbs import make_thumbs


def size_of(path: Path) -> tuple[int, int]:
    with Image.open(path) as image:
        return image.size


@pytest.mark.parametrize(
    ("shape", "thumb", "view"),
    [
        ((3000, 1500), (128, 256), (1024, 2048)),
        ((1000, 600), (154, 256), (600, 1000)),
        ((256, 200), (200, 256), None),
        ((1, 2), (2, 1), None),
        ((4, 700), (256, 1), (700, 4)),
    ],
)
def test_thumbnails_and_views_have_their_sizes(
    tmp_path: Path, shape: tuple[int, int], thumb: tuple[int, int], view: tuple[int, int] | None
) -> None:
    pixels = np.full((*shape, 3), 120, np.uint8)
    make_thumbs(pixels, tmp_path / "a" / "t.jpg", tmp_path / "a" / "v.jpg")
    assert size_of(tmp_path / "a" / "t.jpg") == thumb
    if view is None:
        assert not (tmp_path / "a" / "v.jpg").exists()
    else:
        assert size_of(tmp_path / "a" / "v.jpg") == view
    assert len(list((tmp_path / "a").iterdir())) == (1 if view is None else 2)


def test_a_copy_is_hashed_and_settles_under_its_hash(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "x").write_bytes(b"bytes" * 1000)
    folder = ImageFolder(tmp_path)
    part = folder.copy_in(tmp_path / "x")
    assert part.sha256 == hashlib.sha256(b"bytes" * 1000).hexdigest()
    assert (part.sha256, part.n_bytes) == hash_file(tmp_path / "x")
    name = folder.original_name(part.sha256, ".jpg")
    folder.settle(part.path, name)
    assert (tmp_path / name).read_bytes() == b"bytes" * 1000
    assert name == f"images/{part.sha256[:2]}/{part.sha256}.jpg"
    assert not part.path.exists()


def test_a_source_that_is_gone_and_a_store_that_is_gone_are_different(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "x").write_bytes(b"x")
    with pytest.raises(UnreadableImageError, match="cannot be read"):
        ImageFolder(tmp_path).copy_in(tmp_path / "gone")
    with pytest.raises(StoreError, match="cannot be written"):
        ImageFolder(tmp_path / "nowhere").copy_in(tmp_path / "x")
    assert list((tmp_path / "images").iterdir()) == []


def test_candidates_come_sorted_without_clutter_rings_or_pipes(tmp_path: Path) -> None:
    for name in ("b.jpg", "a/2.png", "a/1", ".hidden/x.jpg", "labels.csv", "README", "notes.doc"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "a" / "ring").symlink_to(tmp_path, target_is_directory=True)
    os.mkfifo(tmp_path / "pipe.jpg")
    found = [candidate.name for candidate in iter_candidates(tmp_path)]
    assert found == ["a/1", "a/2.png", "b.jpg", "notes.doc"]


def test_tables_texts_and_hidden_files_are_no_candidates() -> None:
    assert all(map(is_ignored, ("x.CSV", "._a.jpg", "__MACOSX", "Thumbs.db", "read.me.txt")))
    assert not any(map(is_ignored, ("x.tif", "x", "x.svs", "scan.csv.jpg")))


def test_a_small_file_is_read_once_and_kept_as_it_was_hashed(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    file = tmp_path / "x"
    file.write_bytes(b"bytes" * 1000)
    data = read_small(file, 5001)
    assert data == b"bytes" * 1000
    assert hash_bytes(data) == hash_file(file)
    file.write_bytes(b"something else")  # too late to matter
    part = ImageFolder(tmp_path).put_in(data, hash_bytes(data)[0])
    assert (part.sha256, part.n_bytes) == (hashlib.sha256(b"bytes" * 1000).hexdigest(), 5000)
    assert hash_file(part.path) == (part.sha256, part.n_bytes)
    with pytest.raises(StoreError):
        ImageFolder(tmp_path / "nowhere").put_in(data, part.sha256)


def test_a_file_that_is_or_grows_too_large_is_not_held_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "x"
    file.write_bytes(bytes(5000))
    assert read_small(file, 5000) is None
    assert read_small(file, 5001) == bytes(5000)
    monkeypatch.setattr(store, "_size", lambda _reading: 100)  # it has grown since
    assert read_small(file, 5001) == bytes(5000)
    assert read_small(file, 5000) is None
    with pytest.raises(UnreadableImageError):
        read_small(tmp_path / "gone", 10)
