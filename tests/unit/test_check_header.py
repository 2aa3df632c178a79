"""What a header declares is checked before anything is read, and nothing else is."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from cnsapp.errors import UnreadableImageError
from cnsapp.imaging.limits import Limits
from cnsapp.imaging.reader import check_header


@pytest.mark.parametrize("name", ["a.tif", "a.png", "a.jpg"])
def test_too_many_pixels_are_refused_by_the_header(tmp_path: Path, name: str) -> None:
    file = tmp_path / name
    Image.new("RGB", (40, 30), 7).save(file)
    check_header(file, Limits(max_pixels=1200))
    with pytest.raises(UnreadableImageError, match="40 × 30 pixels, more than the limit of 1,199"):
        check_header(file, Limits(max_pixels=1199))


def test_a_damaged_file_is_left_to_the_reading(tmp_path: Path) -> None:
    file = tmp_path / "a.tif"
    file.write_bytes(b"II*\x00" + bytes(100))
    check_header(file)
