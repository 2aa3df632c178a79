"""How large a pixel is, where a file says so believably."""

from __future__ import annotations

import math
import re
from typing import Any
from xml.etree import ElementTree

# dots an inch that programs write without meaning them, and micrometres that no microscope has
DEFAULT_DPI = (72, 75, 90, 96, 100, 120, 144, 150, 180, 200, 240, 300, 360, 400, 600, 720, 1200)
LEAST, MOST = 0.001, 100.0
MICROMETRES = {
    "pm": 1e-6, "nm": 1e-3, "um": 1.0, "µm": 1.0, "μm": 1.0, "micron": 1.0, "microns": 1.0,
    "micrometer": 1.0, "micrometre": 1.0, "mm": 1e3, "cm": 1e4, "m": 1e6, "inch": 25400.0,
    "in": 25400.0, "å": 1e-4,
}  # fmt: skip
PER_INCH, PER_CM = 2, 3


def from_unit(size: float, unit: str) -> float | None:
    """Return a length in micrometres, or None for an unknown unit or an absurd length."""
    factor = MICROMETRES.get(unit.replace("\\u00B5", "µ").strip().casefold())
    return None if factor is None else _believed(size * factor)


def from_dots(per_inch: float) -> float | None:
    """Return micrometres a pixel for dots an inch that are no program's default."""
    if not math.isfinite(per_inch) or per_inch <= 0:
        return None
    if any(abs(per_inch - usual) < 0.6 for usual in DEFAULT_DPI):
        return None
    return _believed(25400.0 / per_inch)


def of_tiff(page: Any) -> float | None:
    """Return micrometres a pixel by a TIFF page's own tags (tifffile), or None."""
    described = re.search(r"\bMPP\s*=\s*([0-9.]+)", str(page.description or "")[:4000])
    if described:
        return from_unit(_number(described[1]), "um")
    tag, unit = page.tags.get("XResolution"), page.tags.get("ResolutionUnit")
    value = tag.value if tag is not None else None
    if unit is None or not isinstance(value, tuple) or len(value) != 2 or not value[1]:
        return None
    per_unit = value[0] / value[1]
    if int(unit.value) == PER_INCH:
        return from_dots(per_unit)
    return from_dots(per_unit * 2.54) if int(unit.value) == PER_CM else None


def of_imagej(page: Any, metadata: dict[str, Any]) -> float | None:
    """Return micrometres a pixel of an ImageJ file: its resolution counts pixels a unit."""
    tag = page.tags.get("XResolution")
    if tag is None or not isinstance(tag.value, tuple) or not tag.value[0]:
        return None
    return from_unit(tag.value[1] / tag.value[0], str(metadata.get("unit", "")))


def of_ome(pixels: ElementTree.Element) -> float | None:
    """Return micrometres a pixel of an OME `Pixels` element."""
    size = pixels.get("PhysicalSizeX")
    return from_unit(_number(size), pixels.get("PhysicalSizeXUnit", "µm")) if size else None


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def _believed(size: float) -> float | None:
    return size if math.isfinite(size) and LEAST <= size <= MOST else None
