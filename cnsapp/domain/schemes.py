"""Class schemes that come with the app, and the colours and keys that classes get."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ClassSpec:
    """A class before it has an id."""

    name: str
    parent: str | None = None


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

# c and r belong to Streamlit; u, s, x, z, a, i, n, m, h belong to the labelling screen
HOTKEYS = tuple("1234567890qwertypdfgjklvbo".replace("r", ""))


def color_for(position: int) -> str:
    """Return the default colour of the class at `position` (0 is the first)."""
    return COLORS[position % len(COLORS)]


def hotkey_for(position: int) -> str | None:
    """Return the default key of the class at `position`, or None beyond the keys there are."""
    return HOTKEYS[position] if position < len(HOTKEYS) else None
