"""Checkpoints and decoded pictures: whole or not at all, and gone on with."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cnsapp.errors import Cancelled, CnsError
from cnsapp.ml import checkpoint, decoded
from cnsapp.ml.checkpoint import Checkpoints
from cnsapp.ml.decoded import DecodedPictures


def state(value: float = 1.0) -> dict[str, Any]:
    """Return what a run might keep."""
    return {"net": {"w": torch.full((3, 2), value)}, "n": 7, "notes": ["a"], "rate": 0.5}


def test_a_checkpoint_comes_back_bit_by_bit(tmp_path: Path) -> None:
    kept = Checkpoints(tmp_path / "run", "abc")
    assert kept.load(1) is None
    kept.save(1, state(0.1))
    back = kept.load(1)
    assert back is not None
    assert torch.equal(back["net"]["w"], state(0.1)["net"]["w"])
    assert (back["n"], back["notes"], back["rate"]) == (7, ["a"], 0.5)


def test_a_torn_or_flipped_or_foreign_checkpoint_is_none(tmp_path: Path) -> None:
    kept = Checkpoints(tmp_path, "abc")
    kept.save(3, state())
    whole = kept.path(3).read_bytes()
    for place in (10, len(whole) // 2, len(whole) - 1):
        flipped = bytearray(whole)
        flipped[place] ^= 4
        kept.path(3).write_bytes(flipped)
        assert kept.load(3) is None
    for length in (0, 5, 40, len(whole) - 1):
        kept.path(3).write_bytes(whole[:length])
        assert kept.load(3) is None
    kept.path(3).write_bytes(whole)
    assert kept.load(3) is not None
    assert Checkpoints(tmp_path, "other run").load(3) is None
    kept.path(4).write_bytes(whole)  # renamed by hand
    assert kept.load(4) is None


def test_a_full_disk_is_said_and_the_earlier_file_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = Checkpoints(tmp_path, "abc")
    kept.save(1, state(1))

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(checkpoint, "write_atomically", full)
    with pytest.raises(CnsError, match=r"epoch 1 could not be written \(No space left"):
        kept.save(1, state(2))
    back = kept.load(1)
    assert back is not None
    assert float(back["net"]["w"][0, 0]) == 1


def test_pruning_keeps_what_is_named_and_sweeps_what_was_half_written(tmp_path: Path) -> None:
    kept = Checkpoints(tmp_path, "abc")
    for epoch in range(6):
        kept.save(epoch, state())
    half = tmp_path / "epoch-006.ckpt.tmp-0123"
    half.write_bytes(b"half")
    other = tmp_path / "notes.json"
    other.write_text("{}")
    kept.prune({0, 2, 4, 5})
    assert kept.epochs() == [0, 2, 4, 5]
    assert not half.exists()
    assert other.exists()
    kept.forget()
    assert not tmp_path.exists()


def picture(i: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Return one colour of any size."""
    return np.full((20 + i, 30, 3), 10 * i, np.uint8)


def test_pictures_are_decoded_once_and_a_cancelled_job_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoded, "PART", 2)
    keys = [f"sha{i}" for i in range(7)]
    first = DecodedPictures(tmp_path, keys, 16)
    assert first.missing.tolist() == list(range(7))
    told: list[tuple[int, int]] = []
    asked = iter([False, False, False, True])
    with pytest.raises(Cancelled):
        first.fill(
            ((i, picture(i)) for i in range(7)),
            progress=lambda done, total: told.append((done, total)),
            cancelled=lambda: next(asked),
        )
    assert told == [(2, 7), (3, 7)]
    again = DecodedPictures(tmp_path, keys, 16)
    assert again.missing.tolist() == [3, 4, 5, 6]
    again.fill((int(i), picture(int(i))) for i in again.missing if i != 5)
    pixels = again.pixels()
    assert pixels.shape == (7, 16, 16, 3)
    assert isinstance(pixels, np.memmap)
    assert again.missing.tolist() == [5]
    assert [int(p[8, 8, 0]) for p in pixels] == [0, 10, 20, 30, 40, 0, 60]
    assert DecodedPictures(tmp_path, keys[::-1], 16).missing.tolist() == list(range(7))
    again.forget()
    assert DecodedPictures(tmp_path, keys, 16).missing.tolist() == list(range(7))


def test_a_damaged_file_of_pictures_is_made_anew(tmp_path: Path) -> None:
    keys = ["a", "b"]
    made = DecodedPictures(tmp_path, keys, 8)
    made.fill([(0, picture(1)), (1, picture(2))])
    made.file.write_bytes(made.file.read_bytes()[:100])
    assert DecodedPictures(tmp_path, keys, 8).missing.tolist() == [0, 1]


def test_too_little_room_is_said_before_anything_is_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        decoded.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 1 << 20})
    )
    with pytest.raises(CnsError, match=r"take 1,505 MB; 1 MB are free"):
        DecodedPictures(tmp_path, [str(i) for i in range(10_000)], 224)
    assert list(tmp_path.iterdir()) == []
