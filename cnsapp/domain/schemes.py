"""Class schemes that come with the app, and the colours and keys that classes get."""

from __future__ import annotations

import re
from dataclasses import dataclass

from cnsapp.errors import InvalidInputError


@dataclass(frozen=True)
class ClassSpec:
    """A class before it has an id. `color` (`#0072B2`) and `hotkey` are None for the default."""

    name: str
    parent: str | None = None
    color: str | None = None
    hotkey: str | None = None
    description: str = ""


ORGAN_SYSTEMS: tuple[ClassSpec, ...] = (
    ClassSpec("colon", "digestive"),
    ClassSpec("small_intestine", "digestive"),
    ClassSpec("liver", "digestive"),
    ClassSpec("pancreas", "digestive"),
    ClassSpec("kidney", "urinary"),
    ClassSpec("lung", "respiratory"),
    ClassSpec("spleen", "lymphatic"),
    ClassSpec("lymph_node", "lymphatic"),
    ClassSpec("endometrium_1", "reproductive"),
    ClassSpec("endometrium_2", "reproductive"),
    ClassSpec("skin_1", "integumentary"),
    ClassSpec("skin_2", "integumentary"),
)

SCHEMES = {"organ-systems": ORGAN_SYSTEMS}

# Okabe and Ito's palette and Tol's muted one: told apart with every common colour blindness
COLORS = (
    "#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00",
    "#56B4E9", "#882255", "#999933", "#44AA99", "#AA4499",
    "#332288", "#117733", "#DDCC77", "#661100", "#6699CC",
)  # fmt: skip

# Lighter and darker forms of them for the 16th class and on: those farthest from all before, as
# seen with normal sight and with each colour blindness (Machado 2009), neither too pale for white
# paper nor too dark for a dark screen
MORE_COLORS = (
    "#B2D5E8", "#0C5324", "#88BB99", "#735000", "#8F5575",
    "#EEBC4C", "#ADA7CF", "#CFA7BB", "#C2C285", "#77306B",
    "#89CBF0", "#8A5F00", "#5C4000", "#99D8C7", "#857A47",
)  # fmt: skip

# c and r belong to Streamlit; u, s, x, z, a, i, n, m, h belong to the labelling screen
HOTKEYS = tuple("1234567890qwertypdfgjklvbo".replace("r", ""))


def color_for(position: int) -> str:
    """Return the default colour of the class at `position` (0 is the first); the 31st repeats."""
    colors = COLORS + MORE_COLORS
    return colors[position % len(colors)]


def is_color(text: str) -> bool:
    """Return whether a text is a colour as it is stored: `#0072B2`."""
    return re.fullmatch("#[0-9A-F]{6}", text) is not None


def clean_color(text: str) -> str:
    """Return a colour as it is stored; `#07b`, `0072b2` and blanks around are understood.

    Raises
    ------
    InvalidInputError
        It is no such colour.
    """
    digits = text.strip().removeprefix("#").upper()
    if re.fullmatch("[0-9A-F]{3}", digits):
        digits = "".join(2 * digit for digit in digits)
    if not is_color("#" + digits):
        raise InvalidInputError(
            f"“{text}” is not a colour.",
            "",
            "Write # and six of the digits 0 to 9 and A to F, such as #0072B2.",
        )
    return "#" + digits


def text_color(background: str) -> str:
    """Return black or white, whichever is read better on a colour; the contrast is above 4.5.

    Parameters
    ----------
    background
        A colour as it is stored.

    References
    ----------
    W3C, Web Content Accessibility Guidelines 2.2: contrast ratio.
    """
    light = luminance(background)
    return "#000000" if (light + 0.05) / 0.05 >= 1.05 / (light + 0.05) else "#FFFFFF"


def luminance(color: str) -> float:
    """Return the relative luminance (WCAG 2.2) of a stored colour, 0 (black) to 1 (white)."""
    parts = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    red, green, blue = (p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue
