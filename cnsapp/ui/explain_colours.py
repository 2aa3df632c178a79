"""The colours in which maps can be seen; all can be told apart with every common colour blindness.

A map without a sign rises from dark to light, or the other way; a signed one is pale at zero and
has a hue of its own on either side. Each begins with the one in which the worker draws.
"""

from __future__ import annotations

RISING: dict[str, tuple[str, ...]] = {  # anchors of Matplotlib's maps of these names (CC0)
    "Inferno": (
        "#1f0c48", "#550f6d", "#88226a", "#ba3655", "#e35933", "#f98c0a", "#f9c932", "#fcffa4",
    ),
    "Viridis": (
        "#440154", "#482878", "#3e4989", "#31688e", "#26828e", "#1f9e89", "#35b779", "#6ece58",
        "#b5de2b", "#fde725",
    ),
    "Cividis": (
        "#00224e", "#123570", "#3b496c", "#575d6d", "#707173", "#8a8678", "#a59c74", "#c3b369",
        "#e1cc55", "#fee838",
    ),
    "Gray": ("#111111", "#fafafa"),
}  # fmt: skip
DIVERGING: dict[str, tuple[str, ...]] = {  # after ColorBrewer (Apache-2.0)
    "Blue and orange": (
        "#053061", "#2166ac", "#92c5de", "#f7f7f7", "#fdb863", "#e08214", "#7f3b08",
    ),
    "Purple and orange": (
        "#2d004b", "#542788", "#b2abd2", "#f7f7f7", "#fdb863", "#e08214", "#7f3b08",
    ),
    "Blue and red": (
        "#053061", "#2166ac", "#92c5de", "#f7f7f7", "#f4a582", "#b2182b", "#67001f",
    ),
}  # fmt: skip


def as_data() -> dict[str, list[dict[str, object]]]:
    """Return both lists in the form that the browser's part reads."""
    return {
        kind: [{"name": name, "colours": list(anchors)} for name, anchors in maps.items()]
        for kind, maps in (("rising", RISING), ("diverging", DIVERGING))
    }
