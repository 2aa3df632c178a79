"""Files that Pillow decodes: header first, limits next, pixels last."""

from __future__ import annotations

from pathlib import Path

import imagecodecs
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError

from cnsapp.errors import UnreadableImageError
from cnsapp.imaging.color import to_rgb, upright
from cnsapp.imaging.decoded import Decoded, pages_note
from cnsapp.imaging.limits import Limits
from cnsapp.imaging.sniff import declared_avif_size

Image.MAX_IMAGE_PIXELS = None  # our own Limits decide, from the header, and can be raised
ImageFile.LOAD_TRUNCATED_IMAGES = False  # half a picture is no picture

HIGH_BIT_MODES = ("I", "F", "I;16", "I;16L", "I;16B", "I;16N")
MODE_WORDS = {"1": "black and white", "L": "gray", "LA": "gray with transparency",
              "La": "gray with transparency", "P": "palette", "PA": "palette with transparency",
              "RGBX": "RGB", "I": "gray", "F": "gray"}  # fmt: skip


def open_header(path: Path, kind: str, limits: Limits) -> Image.Image:
    """Open a file without decoding it, and refuse what its header declares too large."""
    try:
        image = Image.open(path, formats=[kind])
    except UnidentifiedImageError as error:
        size = declared_avif_size(path) if kind == "AVIF" else None
        if size is not None:
            limits.check_size(*size)
        raise UnreadableImageError(
            f"The file begins like a {kind} image, but its header is damaged.",
            "",
            "Copy it again from where it came from.",
        ) from error
    try:
        limits.check_size(*image.size)
    except UnreadableImageError:
        image.close()
        raise
    return image


def decode(path: Path, kind: str, limits: Limits) -> Decoded:
    """Decode the first picture of a file that is no TIFF."""
    bits = _png_bits(path) if kind == "PNG" else 8
    with open_header(path, kind, limits) as image:
        if bits == 16:
            return _decode_png16(path, image)
        pages = int(getattr(image, "n_frames", 1))
        return finish(image, kind, bits, pages_note(pages, "frames"), pages)


def finish(image: Image.Image, kind: str, bits: int, notes: list[str], pages: int) -> Decoded:
    """Decode an opened picture: upright, and sRGB where it has at most 8 bits."""
    mode = MODE_WORDS.get(image.mode, image.mode.removeprefix("I;16") or "gray")
    image.load()
    turned = _upright(image, notes)
    if turned.mode in HIGH_BIT_MODES:
        samples = np.asarray(turned)
        bits = samples.dtype.itemsize * 8
        if samples.dtype.kind == "i" and samples.dtype.itemsize == 4 and kind != "TIFF":
            samples = samples.astype(np.uint16) if samples.max(initial=0) < 65536 else samples
        samples = samples.astype(samples.dtype.newbyteorder("="), copy=False)
        return Decoded(samples, kind, mode, bits, pages, notes)
    return Decoded(np.asarray(to_rgb(turned, notes)), kind, mode, bits, pages, notes)


def _upright(image: Image.Image, notes: list[str]) -> Image.Image:
    try:
        orientation = image.getexif().get(0x0112, 1)
        if orientation not in range(2, 9):
            return image  # as it is: a copy of a large scan costs a gigabyte
        turned = ImageOps.exif_transpose(image)
    except Exception:  # damaged EXIF of any sort must not hide a sound picture
        notes.append("The file's EXIF data are damaged and were ignored.")
        return image
    notes.append("Turned upright by the file's orientation mark.")
    turned.info.setdefault("icc_profile", image.info.get("icc_profile"))
    return turned


def _png_bits(path: Path) -> int:
    with path.open("rb") as handle:
        head = handle.read(26)
    return head[24] if len(head) == 26 and head[12:16] == b"IHDR" else 8


def _decode_png16(path: Path, image: Image.Image) -> Decoded:
    # Pillow would drop the low 8 bits of 16-bit colour without a word
    samples = imagecodecs.png_decode(path.read_bytes())
    notes: list[str] = []
    orientation = int(image.getexif().get(0x0112, 1) or 1)
    samples = upright(samples, orientation)
    n = 1 if samples.ndim == 2 else samples.shape[2]
    alpha: NDArray[np.float32] | None = None
    if n in (2, 4):
        alpha = samples[..., -1].astype(np.float32) / np.float32(np.iinfo(samples.dtype).max)
        notes.append("Transparency laid over white.")
    samples = samples[..., 0] if n == 2 else samples[..., :3] if n == 4 else samples
    mode = "gray" if samples.ndim == 2 else "RGB"
    return Decoded(samples, "PNG", mode, 16, 1, notes, alpha, image.info.get("icc_profile"))
