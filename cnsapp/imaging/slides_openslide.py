"""Slides of scanners, read by openslide (.svs, .ndpi, .mrxs, .scn, .bif and generic pyramids)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import openslide
from PIL import Image

from cnsapp.errors import UnreadableImageError
from cnsapp.imaging.color import to_rgb
from cnsapp.imaging.slide_base import Pixels, Slide, SlideFacts, plausible_um

GENERIC = "generic-tiff"
NAMES = {
    "aperio": "Aperio",
    "hamamatsu": "Hamamatsu",
    "leica": "Leica",
    "mirax": "MIRAX",
    "philips-tiff": "Philips",
    "sakura": "Sakura",
    "trestle": "Trestle",
    "ventana": "Ventana",
    GENERIC: "TIFF pyramid",
}


def vendor_of(path: Path) -> str | None:
    """Return openslide's name of a file's format, or None when it knows none."""
    found = openslide.OpenSlide.detect_format(str(path))
    return None if found is None else str(found)


class OpenSlideSlide(Slide):
    """A slide that openslide reads.

    Raises
    ------
    UnreadableImageError
        openslide cannot open it.
    """

    def __init__(self, path: Path, vendor: str) -> None:
        try:
            self._slide = openslide.OpenSlide(str(path))
        except openslide.OpenSlideError as error:
            raise _in_words(error) from error
        properties = self._slide.properties
        width, height = self._slide.dimensions
        notes: list[str] = []
        profile = self._slide.color_profile
        self._profile = None if profile is None else profile.tobytes()
        if self._profile:
            to_rgb(self._with_profile(Image.new("RGB", (1, 1))), notes)
        self.facts = SlideFacts(
            format=NAMES.get(vendor, vendor),
            reader="openslide",
            width=width,
            height=height,
            levels=tuple(self._slide.level_dimensions),
            um_per_px=plausible_um(
                _number(properties, openslide.PROPERTY_NAME_MPP_X),
                _number(properties, openslide.PROPERTY_NAME_MPP_Y),
            ),
            notes=tuple(notes),
        )

    def close(self) -> None:
        """Close the file."""
        self._slide.close()

    def _read_level(self, level: int, x: int, y: int, width: int, height: int) -> Pixels:
        level_w, level_h = self.facts.levels[level]
        # openslide wants the place in pixels of the finest level, whatever the level
        place = (
            round(x * self.facts.width / level_w),
            round(y * self.facts.height / level_h),
        )
        try:
            region = self._slide.read_region(place, level, (width, height))  # RGBA
        except openslide.OpenSlideError as error:
            raise _in_words(error) from error
        # where the scanner saw nothing it is transparent; that is shown white, as empty glass is
        white = Image.new("RGBA", region.size, (255, 255, 255, 255))
        white.alpha_composite(region)
        return np.asarray(to_rgb(self._with_profile(white.convert("RGB")), []))

    def _with_profile(self, image: Image.Image) -> Image.Image:
        if self._profile:
            image.info["icc_profile"] = self._profile
        return image


def _number(properties: Any, name: str) -> float | None:
    try:
        return float(properties[name])
    except (KeyError, ValueError):
        return None


def _in_words(error: Exception) -> UnreadableImageError:
    detail = str(error).splitlines()[0][:160] if str(error) else "no reason given"
    return UnreadableImageError(
        f"The slide is damaged or incomplete ({detail}).",
        "",
        "Copy it again from the scanner, with all files that belong to it.",
    )
