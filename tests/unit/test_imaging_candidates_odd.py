"""Folders that no listing may fall over: links in rings, pipes, depth, folders that vanish."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from cnsapp.imaging import candidates
from cnsapp.imaging.candidates import iter_candidates

posix_only = pytest.mark.skipif(os.name != "posix", reason="links and pipes as Unix has them")


def names(root: Path) -> list[str]:
    return [candidate.name for candidate in iter_candidates(root)]


@posix_only
def test_rings_of_links_and_pipes_are_passed_by(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x.png").write_bytes(b"x")
    (tmp_path / "a" / "up").symlink_to(tmp_path)
    (tmp_path / "b.png").symlink_to("b.png")  # to itself
    (tmp_path / "c.png").symlink_to(tmp_path / "nowhere")
    (tmp_path / "d.png").symlink_to(tmp_path / "a" / "x.png")
    os.mkfifo(tmp_path / "e.png")
    assert names(tmp_path) == ["a/x.png", "d.png"]


@posix_only
def test_a_thousand_folders_in_each_other_are_listed(tmp_path: Path) -> None:
    at = os.open(tmp_path, os.O_RDONLY)
    for _ in range(1200):
        os.mkdir("x", dir_fd=at)
        below = os.open("x", os.O_RDONLY, dir_fd=at)
        os.close(at)
        at = below
    os.close(os.open("y.png", os.O_CREAT | os.O_WRONLY, dir_fd=at))
    os.close(at)
    (tmp_path / "z.png").write_bytes(b"z")
    try:
        assert names(tmp_path) == ["x/" * 1200 + "y.png", "z.png"]
    finally:  # Python's own way of removing a tree gives up at this depth
        subprocess.run(["rm", "-rf", str(tmp_path / "x")], check=True)


def test_a_folder_that_vanishes_while_it_is_listed_does_not_stop_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder in ("a", "b", "c"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "x.png").write_bytes(b"x")
    real = candidates._entries

    def entries(folder: Path, prefix: str) -> object:
        if folder.name == "b":
            raise FileNotFoundError(folder)
        return real(folder, prefix)

    monkeypatch.setattr(candidates, "_entries", entries)
    assert names(tmp_path) == ["a/x.png", "b", "c/x.png"]
