"""Files that Pillow decodes: header first, limits next, pixels last."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops, ImageFile, ImageOps, UnidentifiedImageError

from cnsapp.errors import UnreadableImageError
from cnsapp.imaging import jpeg_files, pixel_size, png_files
from cnsapp.imaging.color import alpha_note, as_pixels, to_rgb, upright
from cnsapp.imaging.decoded import Decoded, Reading, pages_note, projected, wanted_pages
from cnsapp.imaging.limits import Limits
from cnsapp.imaging.rule import ReadingRule
from cnsapp.imaging.sniff import declared_avif_size

Image.MAX_IMAGE_PIXELS = None  # our own Limits decide, from the header, and can be raised
ImageFile.LOAD_TRUNCATED_IMAGES = False  # half a picture is no picture

WHOLE = 200_000_000  # bytes of a file that may be read at once
LONG = 1 << 20  # bytes: shorter reads need no look at the file's end
HEAD = 1 << 14  # bytes in which a header tells the depth
JP2_SIZE = b"\xff\x4f\xff\x51"  # start of a codestream and of its size segment
ALPHA_MODES = ("LA", "La", "PA", "RGBA", "RGBa")
HIGH_BIT_MODES = ("I", "F", "I;16", "I;16L", "I;16B", "I;16N")
MODE_WORDS = {"1": "black and white", "L": "gray", "LA": "gray with transparency",
              "La": "gray with transparency", "P": "palette", "PA": "palette with transparency",
              "RGBX": "RGB", "I": "gray", "F": "gray"}  # fmt: skip


class _File(io.BufferedReader):
    """A file that makes no room for bytes it does not have, whatever its header declares."""

    def __init__(self, path: Path) -> None:
        super().__init__(io.FileIO(path))
        self._end = path.stat().st_size

    def read(self, size: int | None = -1, /) -> bytes:
        """Return up to so many bytes."""
        if size is not None and size > LONG:
            size = max(0, min(size, self._end - self.tell()))
        return super().read(size)


@contextmanager
def open_header(path: Path, kind: str, limits: Limits) -> Iterator[Image.Image]:
    """Open a file without decoding it, and refuse what its header declares too large."""
    with _File(path) as handle, _open(handle, path, kind, limits) as image:
        image.filename = str(path)  # type: ignore[attr-defined]  # so that raw pixels are mapped
        limits.check_size(*image.size)
        yield image


def _open(handle: _File, path: Path, kind: str, limits: Limits) -> Image.Image:
    try:
        return Image.open(handle, formats=[kind])
    except UnidentifiedImageError as error:
        size = declared_avif_size(path) if kind == "AVIF" else None
        if size is not None:
            limits.check_size(*size)
        raise UnreadableImageError(
            f"The file begins like a {kind} image, but its header is damaged.",
            "",
            "Copy it again from where it came from.",
        ) from error


def decode(path: Path, kind: str, reading: Reading) -> Decoded:
    """Decode what the rule shows of a file that is no TIFF: one frame, or their maximum."""
    bits = _bits(path, kind)
    plain = kind == "PNG" and png_files.is_plain(path)
    with open_header(path, kind, reading.limits) as image:
        jpeg = _decode_jpeg(path, image, reading) if kind == "JPEG" else None
        if jpeg is not None:
            return jpeg
        if plain:  # much faster than Pillow, and the same pixels
            pixels = png_files.decode_plain(path)
            if pixels is not None and pixels.shape == (image.height, image.width, 3):
                return Decoded(pixels, kind, "RGB", 8, 1, [], um_per_px=_um_per_px(image, kind))
        if kind == "PNG" and bits == 16:
            return _decode_png16(path, image, reading)
        if kind == "JPEG2000" and bits > 8 and image.mode not in HIGH_BIT_MODES:
            return _decode_deep_jp2(path, image, bits, reading)
        _mend_transparency(image, kind, bits)
        frames = count_frames(image, reading.limits)
        return read_frames(image, kind, min(bits, 8), frames, "frames", reading)


def _mend_transparency(image: Image.Image, kind: str, bits: int) -> None:
    """Pillow widens gray of 2 or 4 bits to 8, but not the level that counts as transparent."""
    level = image.info.get("transparency")
    if kind == "PNG" and bits in (2, 4) and image.mode == "L" and isinstance(level, int):
        image.info["transparency"] = level * 255 // (2**bits - 1)


def count_frames(image: Image.Image, limits: Limits) -> int:
    """Return the number of frames or pages of an opened file, which may be no more than allowed."""
    frames = int(getattr(image, "n_frames", 1))
    limits.check_frames(frames)
    return frames


def read_frames(
    image: Image.Image, kind: str, bits: int, frames: int, what: str, reading: Reading
) -> Decoded:
    """Decode those frames of an opened file that the rule shows."""
    rule = reading.rule
    transparent, size = is_transparent(image), _um_per_px(image, kind)

    def read(number: int) -> Decoded:
        if number:
            image.seek(number)
            reading.limits.check_size(*image.size)
        return finish(image, kind, bits, rule)

    numbers = wanted_pages(rule, frames)
    decoded = projected(map(read, numbers))
    decoded.notes[:0] = pages_note(rule, frames, what)
    decoded.pages, decoded.um_per_px = frames, size
    decoded.transparent = transparent if numbers[0] else transparent or decoded.transparent
    return decoded


def is_transparent(image: Image.Image) -> bool:
    """Return whether an opened picture has transparency, by its header."""
    return image.mode in ALPHA_MODES or "transparency" in image.info


def finish(image: Image.Image, kind: str, bits: int, rule: ReadingRule) -> Decoded:
    """Decode the current frame of an opened picture: upright, and sRGB with at most 8 bits."""
    mode = MODE_WORDS.get(image.mode, image.mode.removeprefix("I;16") or "gray")
    notes: list[str] = []
    if kind == "TIFF":
        _orientation(image, notes)  # Pillow turns it as it loads, and takes the mark away
    image.load()
    turned = _upright(image, notes if kind != "TIFF" else [])
    if kind == "JPEG" and turned.mode == "CMYK" and "adobe" not in image.info:
        turned = ImageChops.invert(turned)  # only Adobe's programs store ink upside down
    transparent = is_transparent(turned)
    if turned.mode in HIGH_BIT_MODES:
        samples = np.asarray(turned)
        bits = samples.dtype.itemsize * 8
        if samples.dtype.kind == "i" and samples.dtype.itemsize == 4 and kind != "TIFF":
            samples = samples.astype(np.uint16) if samples.max(initial=0) < 65536 else samples
        samples = samples.astype(samples.dtype.newbyteorder("="), copy=False)
        return Decoded(samples, kind, mode, bits, 1, notes)
    pixels = as_pixels(to_rgb(turned, notes, rule.background))
    return Decoded(pixels, kind, mode, bits, 1, notes, transparent=transparent)


def _upright(image: Image.Image, notes: list[str]) -> Image.Image:
    if _orientation(image, notes) == 1:
        return image  # as it is: a copy of a large scan costs a gigabyte
    turned = ImageOps.exif_transpose(image)
    turned.info.setdefault("icc_profile", image.info.get("icc_profile"))
    return turned


def _orientation(image: Image.Image, notes: list[str]) -> int:
    try:
        orientation = image.getexif().get(0x0112, 1)
        if orientation not in range(2, 9):
            return 1
    except Exception:  # damaged EXIF of any sort must not hide a sound picture
        notes.append("The file's EXIF data are damaged and were ignored.")
        return 1
    notes.append("Turned upright by the file's orientation mark.")
    return int(orientation)


def _decode_jpeg(path: Path, image: Image.Image, reading: Reading) -> Decoded | None:
    """Return a JPEG's picture by the decoder that tells of damage; None where it cannot say."""
    if getattr(image, "n_frames", 1) > 1 or path.stat().st_size > WHOLE:
        return None
    pixels = jpeg_files.decode(path.read_bytes(), image.mode)
    if pixels is None or pixels.shape[:2] != (image.height, image.width):
        return None
    notes: list[str] = []
    pixels = upright(pixels, _orientation(image, notes))
    profile = image.info.get("icc_profile")
    if profile or pixels.ndim == 2:
        flat = Image.fromarray(np.ascontiguousarray(pixels))
        flat.info["icc_profile"] = profile
        pixels = as_pixels(to_rgb(flat, notes, reading.rule.background))
    mode = MODE_WORDS.get(image.mode, image.mode)
    return Decoded(pixels, "JPEG", mode, 8, 1, notes)


def _um_per_px(image: Image.Image, kind: str) -> float | None:
    dots = image.info.get("dpi")
    if kind != "PNG" or not isinstance(dots, tuple):
        return None
    return pixel_size.from_dots(float(dots[0]))


def _bits(path: Path, kind: str) -> int:
    """Return the bits a sample that the header of a PNG or JPEG 2000 file declares; else 8."""
    with path.open("rb") as handle:
        head = handle.read(HEAD)
    if kind == "PNG" and head[12:16] == b"IHDR" and len(head) > 24:
        return head[24]
    at = head.find(JP2_SIZE)
    if kind == "JPEG2000" and 0 <= at < len(head) - 45:
        n = min(int.from_bytes(head[at + 40 : at + 42], "big"), 16)
        return max((byte & 0x7F) + 1 for byte in head[at + 42 : at + 42 + 3 * n : 3])
    return 8


def _decode_png16(path: Path, image: Image.Image, reading: Reading) -> Decoded:
    # Pillow would drop the low 8 bits of 16-bit colour without a word
    samples = png_files.decode(path)
    try:
        orientation = int(image.getexif().get(0x0112, 1) or 1)
    except Exception:  # damaged EXIF of any sort must not hide a sound picture
        orientation = 1
    return _deep(samples, image, "PNG", 16, orientation, reading)


def _decode_deep_jp2(path: Path, image: Image.Image, bits: int, reading: Reading) -> Decoded:
    samples = imagecodecs.jpeg2k_decode(path.read_bytes())
    if samples.dtype == np.uint8:  # its palette or header says so
        return finish(image, "JPEG2000", 8, reading.rule)
    return _deep(samples, image, "JPEG2000", bits, 1, reading)


def _deep(
    samples: NDArray[Any],
    image: Image.Image,
    kind: str,
    bits: int,
    orientation: int,
    reading: Reading,
) -> Decoded:
    notes = ["Turned upright by the file's orientation mark."] if 1 < orientation < 9 else []
    samples = upright(samples, orientation)
    n = 1 if samples.ndim == 2 else samples.shape[2]
    alpha: NDArray[np.float32] | None = None
    if n in (2, 4):
        alpha = samples[..., -1].astype(np.float32) / np.float32(2**bits - 1)
        notes.append(alpha_note(reading.rule.background))
    samples = samples[..., 0] if n == 2 else samples[..., :3] if n == 4 else samples
    mode = "gray" if samples.ndim == 2 else "RGB"
    return Decoded(
        samples, kind, mode, bits, 1, notes, alpha, image.info.get("icc_profile"),
        transparent=alpha is not None, um_per_px=_um_per_px(image, kind),
    )  # fmt: skip
