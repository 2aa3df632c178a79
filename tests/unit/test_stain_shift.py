"""Images stained or lit otherwise: nothing at strength 0, the same direction at every strength."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score

from cnsapp.ml.stain_shift import BRIGHTNESS, KINDS, SHIFTS, STAIN, STRENGTHS, Shift, curve, shifted

KEYS = [f"{i:064x}" for i in (7, 2**200 + 3)]


def pictures() -> list[np.ndarray[tuple[int, int, int], np.dtype[np.uint8]]]:
    generator = np.random.default_rng(0)
    return [generator.integers(60, 200, (16, 16, 3), dtype=np.uint8) for _ in KEYS]


def test_strength_0_changes_no_pixel_and_more_strength_changes_more() -> None:
    images = pictures()
    for kind in KINDS:
        far = []
        for strength in STRENGTHS:
            found = shifted(images, KEYS, Shift(kind, strength))
            assert all(f.dtype == np.uint8 and f.shape == (16, 16, 3) for f in found)
            far.append(np.abs(np.stack(found).astype(float) - np.stack(images)).mean())
        assert far[0] == 0
        assert all(a < b for a, b in itertools.pairwise(far))


def test_an_image_is_changed_by_its_own_name_whatever_stands_beside_it() -> None:
    images = pictures()
    shift = Shift(STAIN, 0.5)
    both = shifted(images, KEYS, shift)
    alone = shifted(images[1:], KEYS[1:], shift)
    np.testing.assert_array_equal(both[1], alone[0])
    other = shifted(images[1:], KEYS[:1], shift)
    assert (other[0] != alone[0]).any()


def test_brightness_keeps_the_colours_and_stain_does_not() -> None:
    grey = [np.full((8, 8, 3), 120, np.uint8)]
    lit = shifted(grey, KEYS[:1], Shift(BRIGHTNESS, 1.0))[0]
    assert (lit == lit[..., :1]).all() and (lit != grey[0]).any()
    stained = shifted(grey, KEYS[:1], Shift(STAIN, 1.0))[0]
    assert np.ptp(stained[0, 0].astype(int)) > 5


def test_the_curve_begins_at_the_score_and_is_scored_like_any_other() -> None:
    generator = np.random.default_rng(1)
    labels = generator.integers(0, 3, 90)
    plain = np.where(generator.random(90) < 0.9, labels, 0)
    answers = {
        shift: np.where(generator.random(90) < 1 - 0.6 * shift.strength, plain, 1)
        for shift in SHIFTS
    }
    groups = [f"g{i % 9}" for i in range(90)]
    found = curve(labels, answers, plain, 3, groups)
    assert (found["n"], found["n_groups"], found["interval_by"]) == (90, 9, "group")
    for kind in KINDS:
        points = found["curves"][kind]
        assert points[0]["balanced_accuracy"] == pytest.approx(
            balanced_accuracy_score(labels, plain)
        )
        for point in points[1:]:
            expected = balanced_accuracy_score(labels, answers[Shift(kind, point["strength"])])
            assert point["balanced_accuracy"] == pytest.approx(expected)
            assert point["interval"][0] <= point["balanced_accuracy"] <= point["interval"][1]
