"""Changes to images: exact where they must be, seeded, and each what its name says."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from cnsapp.domain.recipe import make_recipe
from cnsapp.ml.augment import (
    MAX_NOISE,
    Changes,
    change,
    changed_pixels,
    draw,
    preview,
    relight,
    restain,
    stain_matrix,
    turned,
)
from cnsapp.ml.preprocess import Preprocessing

PREPARE = Preprocessing(32, (0.4, 0.5, 0.6), (0.2, 0.3, 0.4))
ALL = Changes(1.0, True, 1.0, 1.0, 1.0, 1.0, 1.0)


def pictures(n: int = 4, side: int = 32) -> torch.Tensor:
    """Return smooth pictures without symmetry."""
    steps = np.linspace(0, 1, side)
    y, x = np.meshgrid(steps, steps, indexing="ij")
    one = np.stack([200 * x + 20, 150 * y**2 + 40, 90 + 80 * np.sin(5 * x + 2 * y)], axis=-1)
    return torch.from_numpy(np.stack([np.clip(one + 7 * i, 0, 255) for i in range(n)])).byte()


def test_strength_0_is_the_picture_itself_to_the_last_bit() -> None:
    batch = pictures()
    draws = draw(3, 5, range(len(batch)))
    assert torch.equal(change(batch, Changes(), draws, PREPARE), PREPARE.normalise(batch))


@pytest.mark.parametrize("turns", [0, 1, 2, 3])
def test_a_turn_by_right_angles_is_numpys(turns: int) -> None:
    batch = pictures()
    angle = torch.full((len(batch),), turns * np.pi / 2)
    out = turned(batch.float(), angle, torch.ones(len(batch)))
    wanted = np.rot90(batch.numpy(), turns, axes=(1, 2))
    np.testing.assert_allclose(out.numpy(), wanted, atol=0.05)


def test_flips_mirror_and_do_not_touch_values() -> None:
    batch = pictures(16)
    draws = draw(0, 1, range(16))
    out = changed_pixels(batch, Changes(flips=True), draws).numpy()
    seen = set()
    for i, picture in enumerate(batch.numpy()):
        left_right, top_bottom = draws[i, 0] < 0.5, draws[i, 1] < 0.5
        wanted = picture[:, ::-1] if left_right else picture
        wanted = wanted[::-1] if top_bottom else wanted
        np.testing.assert_array_equal(out[i], wanted)
        seen.add((bool(left_right), bool(top_bottom)))
    assert len(seen) == 4  # all four happen


def test_half_of_the_images_keep_their_pixels_on_the_grid() -> None:
    batch = pictures(4).repeat(16, 1, 1, 1)
    out = changed_pixels(batch, Changes(rotation=1.0, flips=True, zoom=0.5), draw(0, 1, range(64)))
    exact, turns = 0, set()
    for before, after in zip(batch.numpy(), out.numpy(), strict=True):
        for k in range(4):
            for flip in (1, -1):
                if np.array_equal(np.rot90(before[:, ::flip], k), after):
                    exact += 1
                    turns.add((k, flip))
    assert 20 <= exact <= 44
    assert len(turns) == 8


def test_a_turned_picture_has_no_black_corners() -> None:
    white = torch.full((8, 40, 40, 3), 250, dtype=torch.uint8)
    out = changed_pixels(white, Changes(rotation=1.0, zoom=1.0), draw(0, 1, range(8)))
    np.testing.assert_allclose(out.numpy(), 250, atol=1e-3)


def test_zoom_above_1_enlarges() -> None:
    dot = torch.zeros(1, 64, 64, 3, dtype=torch.uint8)
    dot[:, 24:40, 24:40] = 200
    large = turned(dot.float(), torch.zeros(1), torch.tensor([1.4]))
    small = turned(dot.float(), torch.zeros(1), torch.tensor([1 / 1.4]))
    area = [float((p > 100).sum()) / 3 for p in (large, dot.float(), small)]
    assert area == pytest.approx([256 * 1.96, 256, 256 / 1.96], rel=0.12)


def test_dyes_are_unmixed_as_by_hand() -> None:
    # a pixel of pure haematoxylin, amount 0.6: density = 0.6 times the unit vector of that dye
    vector = np.array([0.650, 0.704, 0.286])
    unit = vector / np.linalg.norm(vector)
    pixel = 256 * np.exp(-0.6 * unit) - 1
    x = torch.tensor(pixel, dtype=torch.float32).view(1, 1, 1, 3)
    none = torch.zeros(1, 3)
    # twice the haematoxylin, whatever becomes of eosin and DAB, of which there is none
    out = restain(x, torch.tensor([[2.0, 0.3, 0.7]]), none)
    np.testing.assert_allclose(out.flatten(), 256 * np.exp(-1.2 * unit) - 1, rtol=1e-4)
    # eosin alone is not touched when only haematoxylin changes
    eosin = np.array([0.072, 0.990, 0.105])
    eosin /= np.linalg.norm(eosin)
    y = torch.tensor(256 * np.exp(-0.5 * eosin) - 1, dtype=torch.float32).view(1, 1, 1, 3)
    np.testing.assert_allclose(restain(y, torch.tensor([[3.0, 1, 1]]), none), y, rtol=1e-3)
    # a shift adds that much dye
    out = restain(x, torch.ones(1, 3), torch.tensor([[0.1, 0, 0]]))
    np.testing.assert_allclose(out.flatten(), 256 * np.exp(-0.7 * unit) - 1, rtol=1e-4)
    assert stain_matrix().norm(dim=1).tolist() == pytest.approx([1, 1, 1])


def test_white_background_stays_white_under_more_dye() -> None:
    white = torch.full((1, 2, 2, 3), 255.0)
    out = restain(white, torch.tensor([[1.5, 0.5, 1.2]]), torch.zeros(1, 3))
    np.testing.assert_allclose(out, 255, atol=1e-2)


def test_brightness_multiplies_and_contrast_keeps_the_mean() -> None:
    x = pictures(1).float()
    brighter = relight(x, torch.tensor([1.2]), torch.tensor([1.0]))
    np.testing.assert_allclose(brighter, x * 1.2, rtol=1e-5)
    flat = relight(x, torch.tensor([1.0]), torch.tensor([0.5]))
    assert float(flat.mean()) == pytest.approx(float(x.mean()), rel=1e-4)
    assert float(flat.std()) == pytest.approx(float(x.std()) / 2, rel=1e-4)


def test_noise_has_the_spread_that_was_drawn() -> None:
    grey = torch.full((3, 128, 128, 3), 128, dtype=torch.uint8)
    draws = draw(1, 1, range(3))
    draws[:, 18] = 0.9  # none is spared
    out = changed_pixels(grey, Changes(noise=0.5), draws)
    for i in range(3):
        assert float(out[i].std()) == pytest.approx(0.5 * MAX_NOISE * draws[i, 13], rel=0.05)
        assert float(out[i].mean()) == pytest.approx(128, abs=1)


def test_blur_smooths_and_keeps_the_mean() -> None:
    noisy = torch.randint(0, 256, (2, 64, 64, 3), generator=torch.Generator().manual_seed(0))
    draws = draw(0, 1, range(2))
    draws[:, 12], draws[:, 17] = (0.1, 1.0), 0.9  # 0.3 and 3 pixels; none is spared
    out = changed_pixels(noisy.byte(), Changes(blur=1.0), draws)
    spread = [float(p.std()) for p in (*noisy.float(), *out)]
    assert spread[2] > 0.7 * spread[0]
    assert spread[3] < 0.15 * spread[1]
    assert float(out[1].mean()) == pytest.approx(float(noisy[1].float().mean()), abs=2)


def test_the_same_seed_epoch_and_row_give_the_same_pixels_in_any_company() -> None:
    batch = pictures()
    whole = change(batch, ALL, draw(7, 2, [4, 5, 6, 7]), PREPARE)
    alone = change(batch[2:3], ALL, draw(7, 2, [6]), PREPARE)
    assert torch.equal(whole[2:3], alone)
    for other in (draw(8, 2, [6]), draw(7, 3, [6]), draw(7, 2, [5]), draw(7, 2, [6], [1])):
        assert not torch.equal(alone, change(batch[2:3], ALL, other, PREPARE))


def test_values_stay_pixels() -> None:
    out = changed_pixels(pictures(16), ALL, draw(0, 0, range(16)))
    assert out.shape == (16, 32, 32, 3)
    assert 0 <= float(out.min()) < float(out.max()) <= 255


def test_a_preview_is_pictures_and_follows_the_sliders_not_the_dice() -> None:
    image = pictures(1, 50)[0].numpy()
    still = {"rotation": 0, "flips": "false", "zoom": 0, "stain": 0, "noise": 0, "blur": 0}
    none = preview(image, make_recipe("full", {**still, "brightness": 0}), 3, size=40)
    assert len(none) == 3
    assert none[0].shape == (40, 40, 3)
    assert none[0].dtype == np.uint8
    np.testing.assert_array_equal(none[0], none[2])
    little = preview(image, make_recipe("full", {**still, "brightness": 0.2}), 3, size=40)
    much = preview(image, make_recipe("full", {**still, "brightness": 0.8}), 3, size=40)
    for a, b, c in zip(none, little, much, strict=True):
        shift = [float(p.astype(float).mean() - a.astype(float).mean()) for p in (b, c)]
        assert np.sign(shift[0]) == np.sign(shift[1])
        assert abs(shift[1]) > abs(shift[0])
