"""Colour and texture by hand, against arrays worked by hand and formulas of other people."""

from __future__ import annotations

import colorsys

import numpy as np
import pytest
from scipy import stats

from cnsapp.errors import CnsError
from cnsapp.ml import handmade, handmade_texture


def test_every_number_has_a_name_and_a_flat_picture_has_no_undefined_one() -> None:
    names = handmade.columns().names
    for value in (0, 128, 255):
        row = handmade.describe(np.full((30, 40, 3), value, np.uint8))
        assert row.shape == (len(names),) == (163,) and row.dtype == np.float32
        assert np.isfinite(row).all()
    assert len(set(names)) == len(names)
    assert names[handmade.columns().n_colour].startswith("lbp")
    with pytest.raises(CnsError, match="RGB images of 8 bits"):
        handmade.describe(np.zeros((5, 5), np.uint8))


def test_moments_are_those_of_scipy() -> None:
    values = np.random.default_rng(0).gamma(2, size=(500, 3)).astype(np.float32)
    found = handmade.moments(values).reshape(3, 3)
    np.testing.assert_allclose(found[0], values.mean(0), rtol=1e-5)
    np.testing.assert_allclose(found[1], values.std(0), rtol=1e-5)
    np.testing.assert_allclose(found[2], np.cbrt(stats.moment(values, 3)), rtol=1e-4)


@pytest.mark.parametrize(  # CIE Lab of sRGB primaries, as published (Lindbloom; D65)
    ("rgb", "lab"),
    [
        ((255, 255, 255), (100.0, 0.0, 0.0)),
        ((255, 0, 0), (53.24, 80.09, 67.20)),
        ((0, 255, 0), (87.73, -86.18, 83.18)),
        ((0, 0, 255), (32.30, 79.19, -107.86)),
        ((0, 0, 0), (0.0, 0.0, 0.0)),
        ((10, 10, 10), (2.74, 0.0, 0.0)),
    ],
)
def test_lab_of_known_colours(rgb: tuple[int, ...], lab: tuple[float, ...]) -> None:
    found = handmade.to_lab(np.array(rgb, np.uint8).reshape(1, 1, 3))[0, 0]
    np.testing.assert_allclose(found, lab, atol=0.05)


def test_histograms_count_hue_by_saturation_as_colorsys_does() -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (20, 20, 3), dtype=np.uint8)
    hsv = np.array([colorsys.rgb_to_hsv(*(p / 255)) for p in pixels.reshape(-1, 3)])
    found = handmade.colour_histograms(pixels)
    hue, _ = np.histogram(hsv[:, 0], 16, (0, 1), weights=hsv[:, 1])
    assert np.abs(found[:16] - hue / hue.sum()).max() < 0.02  # at 8 bits some cross an edge
    for part, column in ((found[16:24], 1), (found[24:], 2)):
        counts, _ = np.histogram(hsv[:, column], 8, (0, 1))
        assert np.abs(part - counts / 400).max() < 0.02
        assert part.sum() == pytest.approx(1)
    grey = handmade.colour_histograms(np.full((4, 4, 3), 90, np.uint8))
    assert not grey[:16].any()


def test_a_pure_dye_is_found_as_that_dye_alone() -> None:
    from cnsapp.ml.augment import stain_matrix

    for dye in range(3):
        pixels = np.rint(255 * 10 ** (-0.5 * stain_matrix()[dye].numpy())).astype(np.uint8)
        found = handmade.stain_densities(pixels.reshape(1, 1, 3))[0, 0]
        np.testing.assert_allclose(found, 0.5 * np.eye(3)[dye], atol=0.02)


def test_binary_patterns_of_a_step_and_of_a_spot() -> None:
    flat = handmade_texture.local_binary_patterns(np.full((9, 9), 77, np.uint8))
    assert flat[8] == flat[10 + 16] == flat[10 + 18 + 24] == 1  # all neighbours are equal: bright
    assert flat.sum() == pytest.approx(3)

    spot = np.zeros((7, 7), np.uint8)
    spot[3, 3] = 200
    found = handmade_texture.local_binary_patterns(spot)[:10]
    # 25 pixels: the spot (no neighbour as bright), 16 that see only dark ones as bright as
    # themselves, and the 8 around the spot, which see 8 at least as bright
    assert found[0] == pytest.approx(1 / 25)
    assert found[8] == pytest.approx(24 / 25)

    step = np.zeros((10, 10), np.uint8)
    step[:, 5:] = 100
    found = handmade_texture.local_binary_patterns(step)[:10] * 64
    # of 8 x 8 pixels one column (x = 5) has 5 of 8 neighbours as bright (its own side)
    np.testing.assert_allclose(found, [0, 0, 0, 0, 0, 8, 0, 0, 56, 0], atol=1e-4)


def test_binary_patterns_do_not_change_under_a_quarter_turn() -> None:
    grey = np.random.default_rng(2).integers(0, 256, (40, 40), dtype=np.uint8)
    found = handmade_texture.local_binary_patterns(grey)
    turned = handmade_texture.local_binary_patterns(np.rot90(grey))
    np.testing.assert_allclose(found, turned, atol=2e-3)


def test_co_occurrence_of_the_table_in_the_paper() -> None:
    # Haralick, Shanmugam and Dinstein 1973, figure 3: a 4 x 4 picture of 4 levels
    levels = np.array([[0, 0, 1, 1], [0, 0, 1, 1], [0, 2, 2, 2], [2, 2, 3, 3]])
    across = handmade_texture.co_occurrence(levels, 0, 1, 4) * 24
    assert across.tolist() == [[4, 2, 1, 0], [2, 4, 0, 0], [1, 0, 6, 1], [0, 0, 1, 2]]
    down = handmade_texture.co_occurrence(levels, 1, 0, 4) * 24
    assert down.tolist() == [[6, 0, 2, 0], [0, 4, 2, 0], [2, 2, 2, 2], [0, 0, 2, 0]]
    down_left = handmade_texture.co_occurrence(levels, 1, -1, 4) * 18
    assert down_left.tolist() == [[4, 1, 0, 0], [1, 2, 2, 0], [0, 2, 4, 1], [0, 0, 1, 0]]


def test_co_occurrence_statistics_by_their_definitions() -> None:
    p = np.array([[0.5, 0.125], [0.125, 0.25]])
    uniformity, contrast, unlike, correlation, homogeneity, entropy = (
        handmade_texture.co_occurrence_statistics(p)
    )
    assert uniformity == pytest.approx(0.25 + 2 * 0.015625 + 0.0625)
    assert contrast == unlike == pytest.approx(0.25)
    # marginal (5/8, 3/8): variance 15/64, covariance 1/4 - 9/64
    assert correlation == pytest.approx((0.25 - 9 / 64) / (15 / 64))
    assert homogeneity == pytest.approx(0.75 + 0.125)
    assert entropy == pytest.approx(0.5 + 2 * 0.375 + 0.5)
    assert handmade_texture.co_occurrence_statistics(np.diag([1.0, 0.0]))[3] == 1


def test_gabor_energies_know_size_and_direction() -> None:
    y, x = np.mgrid[:224, :224]

    def wave(period: float, angle: float) -> np.ndarray[tuple[int, int], np.dtype[np.uint8]]:
        along = x * np.cos(angle) + y * np.sin(angle)
        return (127 + 100 * np.sin(2 * np.pi * along / period)).astype(np.uint8)

    coarse, fine = (handmade_texture.gabor_energies(wave(p, 0.0)) for p in (20.0, 2.5))
    assert coarse[0] > fine[0] + 1 and fine[3] > coarse[3] + 0.3  # log10
    noise = np.random.default_rng(3).integers(0, 256, (224, 224), dtype=np.uint8)
    assert fine[7] > 5 * handmade_texture.gabor_energies(noise)[7]  # only the wave has a direction
    quarter = handmade_texture.gabor_energies(wave(2.5, np.pi / 2))
    np.testing.assert_allclose(quarter, fine, atol=0.05)


def test_the_filters_answer_is_that_of_filtering_the_picture() -> None:
    grey = np.random.default_rng(4).integers(0, 256, (32, 48), dtype=np.uint8)
    centred = grey / 255 - (grey / 255).mean()
    squared = handmade_texture._squared_filters(32, 48).reshape(24, 32, 48)
    answers = np.fft.ifft2(np.fft.fft2(centred) * np.sqrt(squared))
    energy = np.log10((np.abs(answers) ** 2).mean((1, 2))).reshape(4, 6)
    found = handmade_texture.gabor_energies(grey)
    np.testing.assert_allclose(found[:4], energy.mean(1), atol=1e-4)
    np.testing.assert_allclose(found[4:], energy.std(1), atol=1e-4)
