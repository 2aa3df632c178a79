"""A folder as biologists have them: problem files among good ones, all drawn by the test."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image

from cnsapp.imaging.synthetic import ORGANS, make_tissue

WIDTH, HEIGHT = 240, 180
RAMP, STACK, CMYK, TURNED = "ramp 12 bit.tif", "Kanäle.ome.tif", "scan cmyk.jpg", "phone.jpg"
BEST, COPY = "Leber #1.png", "Leber #1 (copy).png"
LARGE, SMALL = "Niere 100 % ü.png", "Niere 100 % ü klein.jpg"
PLAIN = ("Maus 🐭 1.png", "Maus 🐭 2.png", "a b  c.png", "d&e=f?.png", "Milz_№3.png", "tumour+.png")
REFUSED = {  # the words of the reason that say what is wrong
    "download.jpg": "cut off",
    "notes.jpg": "text",
    "nothing.png": "empty",
}
GOOD = {RAMP, STACK, CMYK, TURNED, BEST, COPY, LARGE, SMALL, *PLAIN}


def draw_messy_folder(folder: Path) -> Path:
    """Draw the good files and the broken ones into a folder, and return it."""
    folder.mkdir(parents=True)
    tissue = [make_tissue(organ, at % 3, at) for at, organ in enumerate([*ORGANS][:8])]
    for pixels, name in zip(tissue, (BEST, LARGE, *PLAIN), strict=True):
        Image.fromarray(pixels).save(folder / name)
    shutil.copy(folder / BEST, folder / COPY)
    with Image.open(folder / LARGE) as large:
        large.resize((150, 150)).save(folder / SMALL, quality=80)
    tifffile.imwrite(folder / RAMP, ramp(), photometric="minisblack")
    tifffile.imwrite(
        folder / STACK, stack(), ome=True, photometric="minisblack", metadata={"axes": "CYX"}
    )
    Image.fromarray(inks(), "CMYK").save(folder / CMYK, quality=95, subsampling=0)
    lies = Image.Exif()
    lies[0x0112] = 6  # how a phone held upright says that its picture lies on its side
    Image.fromarray(quarters()).save(folder / TURNED, quality=95, subsampling=0, exif=lies)
    whole = (folder / TURNED).read_bytes()
    (folder / "download.jpg").write_bytes(whole[: len(whole) // 2])
    (folder / "notes.jpg").write_text("Slides 4 to 9 were stained again on Tuesday.\n" * 20)
    (folder / "nothing.png").write_bytes(b"")
    return folder


def ramp() -> NDArray[np.uint16]:
    """Return what a 12-bit camera stores in 16 bits: column x holds 17 x, from 0 to 4,063."""
    return np.tile(np.arange(WIDTH, dtype=np.uint16) * 17, (HEIGHT, 1))


def stack() -> NDArray[np.uint16]:
    """Return three channels: thirds of 4,000, of 2,000, and of 2,000 and 1,000 together."""
    planes = np.zeros((3, HEIGHT, WIDTH), np.uint16)
    planes[0, :, :80] = 4000
    planes[1, :, 80:160] = 2000
    planes[0, :, 160:], planes[2, :, 160:] = 2000, 1000
    return planes


def inks() -> NDArray[np.uint8]:
    """Return a left half of yellow ink, a right half without any."""
    pixels = np.zeros((HEIGHT, WIDTH, 4), np.uint8)
    pixels[:, : WIDTH // 2, 2] = 255
    return pixels


def quarters() -> NDArray[np.uint8]:
    """Return red above left, green above right, blue below left, white below right."""
    pixels = np.full((HEIGHT, WIDTH, 3), 255, np.uint8)
    pixels[: HEIGHT // 2, : WIDTH // 2] = (255, 0, 0)
    pixels[: HEIGHT // 2, WIDTH // 2 :] = (0, 255, 0)
    pixels[HEIGHT // 2 :, : WIDTH // 2] = (0, 0, 255)
    return pixels
