"""Every colour model to sRGB, transparency to one background, any orientation to upright."""

from __future__ import annotations

import io
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms

from cnsapp.imaging.rule import WHITE

Pixels = NDArray[np.uint8]
STRIP = 512  # rows of a picture copied at a time
VAST = 30_000_000  # pixels from which gray is not written three times


@lru_cache(maxsize=32)
def _transform(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    if mode == "RGB" and "srgb" in ImageCms.getProfileDescription(source).lower():
        return None  # what we show anyway
    return ImageCms.buildTransform(source, _srgb(), mode, "RGB")


@lru_cache(maxsize=1)
def _srgb() -> ImageCms.ImageCmsProfile:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))


@lru_cache(maxsize=1)
def _from_lab() -> ImageCms.ImageCmsTransform:
    return ImageCms.buildTransform(ImageCms.createProfile("LAB"), _srgb(), "LAB", "RGB")


def to_rgb(image: Image.Image, notes: list[str], background: str = WHITE) -> Image.Image:
    """Return an 8-bit image as sRGB, with its colour profile applied and laid over a background.

    Parameters
    ----------
    image
        Any 8-bit or 1-bit Pillow mode.
    notes
        What was done to the picture is added here, in words.
    background
        "#RRGGBB" behind transparency.
    """
    profile = image.info.get("icc_profile")
    if image.mode in ("La", "RGBa"):
        image = image.convert(image.mode[:-1] + "A")
    alpha = None
    if image.mode in ("LA", "RGBA", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        alpha = image.getchannel("A")
        image = image.convert("RGB")
    elif image.mode == "LAB":
        notes.append("Lab colours converted to sRGB.")
        return _apply(image, _from_lab())
    elif image.mode in ("1", "P", "YCbCr", "HSV", "RGBX"):
        image = image.convert("RGB")
    image = _managed(image, profile, notes)
    return image if alpha is None else _over(image, alpha, notes, background)


def _apply(image: Image.Image, transform: ImageCms.ImageCmsTransform) -> Image.Image:
    done = ImageCms.applyTransform(image, transform)
    assert done is not None  # only an in-place transform returns nothing
    return done


def _managed(image: Image.Image, profile: Any, notes: list[str]) -> Image.Image:
    if isinstance(profile, bytes) and profile and image.mode in ("RGB", "L", "CMYK"):
        try:
            transform = _transform(profile, image.mode)
            if transform is not None:
                image = _apply(image, transform)
                notes.append("Colours converted to sRGB by the file's colour profile.")
        except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
            notes.append("The file's colour profile does not fit the image and was ignored.")
    if image.mode == "CMYK":
        notes.append("CMYK without a usable colour profile: converted by the plain formula.")
    return image if image.mode == "RGB" else image.convert("RGB")


def _over(image: Image.Image, alpha: Image.Image, notes: list[str], background: str) -> Image.Image:
    low, high = (int(end) for end in alpha.getextrema())  # type: ignore[arg-type]
    if low == 255:
        return image
    notes.append(alpha_note(background) if high else "The image is wholly transparent.")
    ground = Image.new("RGB", image.size, rgb_of(background))
    ground.paste(image, mask=alpha)
    return ground


def alpha_note(background: str) -> str:
    """Return the sentence on what lies behind transparency."""
    return f"Transparency laid over {'white' if background == WHITE else background}."


def rgb_of(color: str) -> tuple[int, int, int]:
    """Return (red, green, blue), 0 to 255, of "#RRGGBB"."""
    red, green, blue = bytes.fromhex(color[1:])
    return red, green, blue


def lay_over(pixels: Pixels, alpha: NDArray[np.float32], background: str = WHITE) -> Pixels:
    """Return (H, W, 3) pixels laid over a colour by an (H, W) opacity from 0 to 1."""
    opacity = alpha[..., None]
    mixed = pixels * opacity + np.array(rgb_of(background), np.float32) * (1 - opacity)
    return np.clip(mixed + 0.5, 0, 255).astype(np.uint8)


def as_pixels(image: Image.Image) -> Pixels:
    """Return the pixels of an RGB image, (H, W, 3); strip by strip, for the memory.

    `numpy.asarray` holds them three times on its way, which counts in a scan of 50 megapixels.
    """
    if image.height <= STRIP:
        return np.asarray(image)
    pixels = np.empty((image.height, image.width, 3), np.uint8)
    for top in range(0, image.height, STRIP):
        box = (0, top, image.width, min(top + STRIP, image.height))
        pixels[top : box[3]] = np.asarray(image.crop(box))
    return pixels


def spread(gray: Pixels) -> Pixels:
    """Return (H, W) gray as (H, W, 3); of a vast picture a view that may not be written to."""
    if gray.size >= VAST:
        return np.broadcast_to(gray[..., None], (*gray.shape, 3))
    return np.repeat(gray[..., None], 3, axis=2)


def as_one_block(pixels: Pixels) -> Pixels:
    """Return pixels row after row in memory; what `spread` made of a vast picture as it is."""
    is_spread = pixels.strides[-1] == 0 and pixels.size >= 3 * VAST
    return pixels if is_spread else np.ascontiguousarray(pixels)


def upright(pixels: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Return the array as the EXIF/TIFF orientation tag (1 to 8) says that it should be seen."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return pixels
