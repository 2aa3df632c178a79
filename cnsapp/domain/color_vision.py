"""Which class colours look alike, to normal sight or to colour-blind people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations

# Machado, Oliveira & Fernandes 2009, severity 1.0, on linear RGB
SIGHTS: Mapping[str, tuple[tuple[float, float, float], ...]] = {
    "normal": ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)),
    "protanopia": (
        (0.152286, 1.052583, -0.204868), (0.114503, 0.786281, 0.099216),
        (-0.003882, -0.048116, 1.051998),
    ),
    "deuteranopia": (
        (0.367322, 0.860646, -0.227968), (0.280085, 0.672501, 0.047413),
        (-0.011820, 0.042940, 0.968881),
    ),
    "tritanopia": (
        (1.255528, -0.076749, -0.178779), (-0.078411, 0.930809, 0.147602),
        (0.004733, 0.691367, 0.303900),
    ),
}  # fmt: skip
TOLD_APART = {"normal": 9.0, "protanopia": 4.0, "deuteranopia": 4.0, "tritanopia": 4.0}
_XYZ = (
    (0.4124564, 0.3575761, 0.1804375), (0.2126729, 0.7151522, 0.0721750),
    (0.0193339, 0.1191920, 0.9503041),
)  # fmt: skip
_WHITE = (0.95047, 1.0, 1.08883)
Triple = tuple[float, float, float]


def distance(one: str, other: str, sight: str = "normal") -> float:
    """Return how far two colours (`#0072B2`) are apart in CIELAB (CIE 1976; about 2 is just seen).

    References
    ----------
    Machado, Oliveira & Fernandes, IEEE Trans. Visualization and Computer Graphics 15 (2009) 1291.
    """
    a, b = _lab(one, sight), _lab(other, sight)
    return float(sum((x - y) ** 2 for x, y in zip(a, b, strict=True)) ** 0.5)


def look_alike(colors: Mapping[str, str]) -> list[tuple[str, str, bool]]:
    """Return the pairs of names whose colours look alike; the flag says: to everybody.

    Parameters
    ----------
    colors
        Colour by class name.
    """
    found = []
    for one, other in combinations(colors, 2):
        near = [
            sight
            for sight in SIGHTS
            if distance(colors[one], colors[other], sight) < TOLD_APART[sight]
        ]
        if near:
            found.append((one, other, "normal" in near))
    return found


def _lab(color: str, sight: str) -> Triple:
    linear = tuple(_linear(int(color[i : i + 2], 16) / 255) for i in (1, 3, 5))
    seen = [min(max(value, 0.0), 1.0) for value in _times(SIGHTS[sight], linear)]
    x, y, z = (_f(v / w) for v, w in zip(_times(_XYZ, seen), _WHITE, strict=True))
    return 116 * y - 16, 500 * (x - y), 200 * (y - z)


def _times(matrix: Sequence[Triple], vector: Sequence[float]) -> Triple:
    a, b, c = (sum(m * v for m, v in zip(row, vector, strict=True)) for row in matrix)
    return a, b, c


def _linear(part: float) -> float:
    return float(part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4)


def _f(t: float) -> float:
    return float(t ** (1 / 3) if t > (6 / 29) ** 3 else t / (3 * (6 / 29) ** 2) + 4 / 29)
