"""What a TIFF's metadata say about its channels: names, colours, size of a pixel."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from xml.etree import ElementTree

from cnsapp.imaging import pixel_size

LONGEST_NAME = 80


@dataclass(frozen=True)
class ChannelMeta:
    """Names and colours ("#RRGGBB" or None) of channels, and micrometres a pixel."""

    names: tuple[str, ...] = ()
    colors: tuple[str | None, ...] = ()
    um_per_px: float | None = None


def describe(tiff: Any, page: Any, channels: int) -> ChannelMeta:
    """Return what the metadata of an open TIFF say; nothing where they cannot be read."""
    names: list[str] = []
    colors: list[str | None] = []
    size: float | None = None
    try:
        if tiff.is_ome:
            names, colors, size = _ome(tiff.ome_metadata)
        elif tiff.is_imagej:
            names, colors, size = _imagej(page, tiff.imagej_metadata or {}, channels)
        else:
            size = pixel_size.of_tiff(page)
    except Exception:  # damaged metadata of any sort must not hide a sound picture
        names, colors, size = [], [], None
    given = [*names[:channels], *[""] * (channels - len(names))]
    return ChannelMeta(
        tuple(name.strip()[:LONGEST_NAME] or f"Channel {n}" for n, name in enumerate(given, 1)),
        (*colors[:channels], *[None] * (channels - len(colors))),
        size,
    )


def _ome(text: str) -> tuple[list[str], list[str | None], float | None]:
    root = ElementTree.fromstring(text)
    pixels = next((e for e in root.iter() if _local(e) == "Pixels"), None)
    if pixels is None:
        return [], [], None
    channels = [element for element in pixels if _local(element) == "Channel"]
    names = [channel.get("Name") or channel.get("Fluor") or "" for channel in channels]
    colors = [_ome_color(channel.get("Color")) for channel in channels]
    return names, colors, pixel_size.of_ome(pixels)


def _local(element: ElementTree.Element) -> str:
    return element.tag.rpartition("}")[2]


def _ome_color(value: str | None) -> str | None:
    """OME keeps a colour as one signed number of red, green, blue, opacity."""
    if value is None:
        return None
    number = int(value) & 0xFFFFFFFF
    color = f"#{number >> 8:06X}"
    return None if color in ("#000000", "#FFFFFF") else color  # what writers put for "none"


def _imagej(
    page: Any, metadata: dict[str, Any], channels: int
) -> tuple[list[str], list[str | None], float | None]:
    labels = metadata.get("Labels") or []
    names = [str(label).splitlines()[0] if label else "" for label in labels[:channels]]
    colors: list[str | None] = []
    for table in metadata.get("LUTs") or []:
        red, green, blue = (int(level) for level in table[:, -1])
        gray = red == green == blue
        colors.append(None if gray else f"#{red:02X}{green:02X}{blue:02X}")
    return names, colors, pixel_size.of_imagej(page, metadata)
