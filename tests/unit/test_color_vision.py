"""Which class colours look alike: against values from elsewhere, and the app's own colours."""

from __future__ import annotations

import pytest

from cnsapp.domain.color_vision import distance, look_alike
from cnsapp.domain.schemes import COLORS, MORE_COLORS

LAB = {  # as tables of sRGB under D65 have them
    "#FF0000": (53.24, 80.09, 67.20), "#00FF00": (87.73, -86.18, 83.18),
    "#0000FF": (32.30, 79.19, -107.86), "#FFFFFF": (100.0, 0.0, 0.0), "#000000": (0.0, 0.0, 0.0),
}  # fmt: skip


@pytest.mark.parametrize("one", LAB)
@pytest.mark.parametrize("other", LAB)
def test_the_distance_is_that_of_the_tables(one: str, other: str) -> None:
    wanted = sum((a - b) ** 2 for a, b in zip(LAB[one], LAB[other], strict=True)) ** 0.5
    assert distance(one, other) == pytest.approx(wanted, abs=0.05)


def test_the_default_colours_do_not_look_alike() -> None:
    assert look_alike({str(i): color for i, color in enumerate(COLORS + MORE_COLORS)}) == []


def test_red_and_olive_look_alike_to_some_and_two_blues_to_all() -> None:
    found = look_alike({"a": "#D03030", "b": "#806000", "c": "#0072B2", "d": "#0075B5"})
    assert ("c", "d", True) in found
    assert distance("#D03030", "#806000") > 40
    assert distance("#D03030", "#806000", "deuteranopia") < 10
