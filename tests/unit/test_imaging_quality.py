"""Measures of pictures whose answer is known, and pairs beside independent oracles."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageCms
from scipy.ndimage import gaussian_filter

from cnsapp.imaging import duplicates
from cnsapp.imaging.quality import measure, to_lab

Pixels = NDArray[np.uint8]


def tissue(seed: int, side: int = 224) -> Pixels:
    """Return noise of several sizes in pink, like a tile: no two seeds look alike."""
    rng = np.random.default_rng(seed)
    gray = sum(
        gaussian_filter(rng.normal(0, 1, (side, side)), s, mode="wrap") * s for s in (1.2, 3, 8, 20)
    )
    gray = (gray - np.mean(gray)) / np.std(gray)
    return np.clip(np.array([200, 120, 180]) + 30 * gray[..., None], 0, 255).astype(np.uint8)


def blurred(pixels: Pixels, sigma: float) -> Pixels:
    soft = gaussian_filter(pixels.astype(np.float32), (sigma, sigma, 0))
    return np.rint(soft).astype(np.uint8)


def test_focus_falls_with_every_step_of_blur_and_ignores_contrast() -> None:
    sharp = tissue(1)
    focus = [measure(blurred(sharp, sigma))[0].focus for sigma in (0, 0.7, 1, 1.5, 2, 3, 4)]
    assert focus == sorted(focus, reverse=True)
    assert focus[0] > 5 * focus[4]
    pale = (128 + (sharp.astype(float) - 128) / 2).astype(np.uint8)
    assert measure(pale)[0].focus == pytest.approx(focus[0], rel=0.15)


def test_focus_is_of_the_tissue_and_not_of_the_glass_around_it() -> None:
    sharp = tissue(2)
    beside_glass = np.full((224, 224, 3), 240, np.uint8)
    beside_glass[:, :96] = sharp[:, :96]
    whole, half = measure(sharp)[0], measure(beside_glass)[0]
    assert half.focus == pytest.approx(whole.focus, rel=0.3)
    assert (whole.empty, half.empty) == (0.0, pytest.approx(8 / 14))


def test_a_white_tile_is_empty_and_has_no_focus_and_no_signature() -> None:
    rng = np.random.default_rng(0)
    glass = np.clip(rng.normal(240, 1, (224, 224, 3)), 0, 255).astype(np.uint8)
    measures, signature = measure(glass)
    assert measures.empty == 1.0
    assert np.isnan(measures.focus) and measures.as_json()["focus"] is None
    assert signature is None
    black = measure(np.zeros((100, 80, 3), np.uint8))[0]
    assert (black.empty, black.under, black.over) == (1.0, 1.0, 0.0)


def test_burnt_out_and_black_pixels_are_counted() -> None:
    picture = np.full((100, 100, 3), 128, np.uint8)
    picture[:30] = 255
    picture[30:40] = (255, 255, 200)  # bright, yet blue still tells something
    picture[90:] = 0
    measures, _ = measure(picture)
    assert measures.over == pytest.approx(0.3)
    assert measures.under == pytest.approx(0.1)


def test_lab_is_that_of_the_colour_management_module() -> None:
    colors = np.array(
        [[255, 255, 255], [255, 0, 0], [0, 255, 0], [0, 0, 255], [200, 120, 180], [3, 3, 3]],
        np.uint8,
    )
    white, red, _, blue, _, _ = to_lab(colors)
    assert white == pytest.approx([100, 0, 0], abs=0.02)
    assert red == pytest.approx([53.24, 80.09, 67.20], abs=0.05)  # Lindbloom's table, D65
    assert blue == pytest.approx([32.30, 79.19, -107.86], abs=0.05)
    # lightness against littlecms; its a* and b* are for D50
    srgb, lab = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
    transform = ImageCms.buildTransform(srgb, lab, "RGB", "LAB")
    converted = ImageCms.applyTransform(Image.fromarray(colors[None]), transform)
    assert converted is not None
    oracle = np.asarray(converted)[0, :, 0] * (100 / 255)
    assert to_lab(colors)[[0, 4, 5], 0] == pytest.approx(oracle[[0, 4, 5]], abs=1.0)


def test_tiny_and_long_pictures_are_measured_too() -> None:
    for shape in ((1, 1, 3), (3, 200, 3), (7, 7, 3), (2000, 20, 3)):
        measures, _ = measure(np.full(shape, 90, np.uint8))
        assert measures.contrast == 0 and measures.spread == pytest.approx(0, abs=0.02)


def cosine_sum(picture: NDArray[np.float64], u: int, v: int) -> float:
    """Return one coefficient of the DCT-II by its definition."""
    n = len(picture)
    at = np.arange(n)
    rows = np.cos(np.pi * (2 * at + 1) * u / (2 * n)) * np.sqrt((1 if u == 0 else 2) / n)
    columns = np.cos(np.pi * (2 * at + 1) * v / (2 * n)) * np.sqrt((1 if v == 0 else 2) / n)
    return float(rows @ picture @ columns)


def test_low_frequencies_are_the_cosine_sums_of_the_definition() -> None:
    gray = np.random.default_rng(4).uniform(0, 255, (32, 32))
    signature = duplicates.signature(gray.astype(np.float32))
    assert signature is not None and len(signature) == duplicates.SIGNATURE_BYTES
    by_hand = np.array([cosine_sum(gray, u, v) for u in range(8) for v in range(8)])[1:]
    by_hand /= np.linalg.norm(by_hand)
    assert duplicates.low_frequencies([signature])[0] == pytest.approx(by_hand, abs=0.006)


ORIENTATIONS = [lambda p, k=k, m=m: np.rot90(p[:, ::-1] if m else p, k)
                for k in range(4) for m in (False, True)]  # fmt: skip


@pytest.mark.parametrize("turn", ORIENTATIONS)
def test_all_eight_orientations_share_their_lengths_and_match_wholly(turn: object) -> None:
    gray = np.random.default_rng(5).uniform(0, 255, (32, 32)).astype(np.float32)
    assert callable(turn)
    one, other = duplicates.signature(gray), duplicates.signature(turn(gray))
    assert one is not None and other is not None
    low = duplicates.low_frequencies([one, other])
    a, b = duplicates.orientation_free(low)
    assert np.linalg.norm(a) == pytest.approx(1, abs=1e-5)
    assert a == pytest.approx(b, abs=0.01)
    assert duplicates.similarities([one], [other])[0] > 0.995


def by_force(signatures: list[bytes]) -> set[tuple[int, int]]:
    """Compare each with each in all orientations, in pixels, with no transform's sign rules."""
    pictures = [np.frombuffer(s, np.uint8, offset=63).reshape(32, 32) for s in signatures]
    found = set()
    for i in range(len(pictures)):
        for j in range(i + 1, len(pictures)):
            turned = [duplicates.signature(t(pictures[j]).astype(np.float32)) for t in ORIENTATIONS]
            straight = [_plain(signatures[i], t) for t in turned if t is not None]
            if any(low >= 0.98 and middle >= 0.95 for low, middle in straight):
                found.add((i, j))
    return found


def _plain(one: bytes, other: bytes) -> tuple[float, float]:
    low = duplicates.low_frequencies([one, other])
    middle = duplicates._middle([one, other]).reshape(2, -1)
    return float(low[0] @ low[1]), float(middle[0] @ middle[1])


def test_the_search_finds_what_brute_force_finds() -> None:
    pictures = [tissue(seed, 96) for seed in range(12)]
    pictures += [np.rot90(pictures[k]) for k in (1, 5)]
    pictures += [pictures[7][:, ::-1], blurred(pictures[9], 0.6), pictures[1].swapaxes(0, 1)]
    signatures = [s for p in pictures if (s := measure(np.ascontiguousarray(p))[1]) is not None]
    assert len(signatures) == len(pictures)
    found = search(signatures)
    assert found == by_force(signatures)
    assert found == {(1, 12), (5, 13), (7, 14), (9, 15), (1, 16), (12, 16)}


def search(signatures: list[bytes], new: NDArray[np.bool_] | None = None) -> set[tuple[int, int]]:
    low = duplicates.low_frequencies(signatures)
    pairs = duplicates.find_pairs(low, lambda wanted: {k: signatures[k] for k in wanted}, new)
    return {(pair.first, pair.second) for pair in pairs}


def test_new_pictures_are_compared_with_all_and_old_ones_not_again() -> None:
    pictures = [tissue(seed, 96) for seed in range(6)]
    pictures += [pictures[0][::-1], pictures[3][::-1]]
    signatures = [s for p in pictures if (s := measure(np.ascontiguousarray(p))[1]) is not None]
    new = np.zeros(8, bool)
    new[7] = True
    assert search(signatures, new) == {(3, 7)}
    assert search(signatures) == {(0, 6), (3, 7)}


def test_many_pictures_in_cells_lose_hardly_a_pair(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(7)
    base = [rng.normal(128, 40, (32, 32)).astype(np.float32) for _ in range(600)]
    base = [gaussian_filter(gray, 2) * 4 for gray in base]
    grays = base + [np.rot90(gray) + rng.normal(0, 2, (32, 32)) for gray in base[:100]]
    signatures = [s for gray in grays if (s := duplicates.signature(gray)) is not None]
    whole = search(signatures)
    monkeypatch.setattr(duplicates, "ONE_CELL", 100)
    in_cells = search(signatures)
    assert in_cells <= whole and len(in_cells) >= 0.99 * len(whole)
    assert len({(k, 600 + k) for k in range(100)} & in_cells) >= 98


def resaved(pixels: Pixels, quality: int) -> Pixels:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=quality)
    return np.asarray(Image.open(buffer).convert("RGB"))


def resized(pixels: Pixels, factor: float) -> Pixels:
    size = (round(pixels.shape[1] * factor), round(pixels.shape[0] * factor))
    return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC))


def recoloured(pixels: Pixels, rng: np.random.Generator) -> Pixels:
    moved = pixels * (1 + rng.uniform(-0.2, 0.2, 3)) + rng.uniform(-20, 20, 3)
    return np.clip(moved, 0, 255).astype(np.uint8)


def plant(pixels: Pixels, k: int, rng: np.random.Generator) -> Pixels:
    """Return a copy as it comes about in a lab, the k-th kind of ten."""
    turned = np.ascontiguousarray(np.rot90(pixels, 1 + k % 3))
    kinds = (
        lambda: resaved(pixels, 50), lambda: resaved(pixels, int(rng.integers(50, 96))),
        lambda: resized(pixels, 0.5), lambda: resized(pixels, 2.0),
        lambda: resized(pixels, rng.uniform(0.5, 2)), lambda: turned,
        lambda: np.ascontiguousarray(pixels[:, ::-1]), lambda: recoloured(pixels, rng),
        lambda: resaved(recoloured(turned, rng), 70),
        lambda: resaved(resized(recoloured(turned[::-1], rng), rng.uniform(0.5, 1.5)), 60),
    )  # fmt: skip
    return kinds[k % 10]()


def planted_and_found(pictures: list[Pixels]) -> tuple[int, int, int]:
    """Return how many copies were planted and found, and how many other pairs were reported."""
    rng = np.random.default_rng(11)
    copies = [plant(picture, k, rng) for k, picture in enumerate(pictures)]
    signatures = [measure(p)[1] for p in [*pictures, *copies]]
    assert all(signatures)
    found = search([s for s in signatures if s is not None])
    n = len(pictures)
    right = {(k, n + k) for k in range(n)}
    return n, len(found & right), len(found - right)


def test_planted_copies_of_generated_tiles_are_found() -> None:
    n, found, false = planted_and_found([tissue(100 + k, 128) for k in range(40)])
    assert (n, found, false) == (40, 40, 0)


@pytest.mark.parametrize("name", ["crc5-he", "lc25000-small", "kather8-small"])
def test_planted_copies_of_real_tiles_are_found(real_data: Path, name: str) -> None:
    files = sorted((real_data / name).rglob("*.[pj][np]*g"))
    if not files:
        pytest.skip(f"no images in {real_data / name}")
    some = files[:: max(1, len(files) // 60)][:60]
    n, found, false = planted_and_found([np.asarray(Image.open(f).convert("RGB")) for f in some])
    assert found >= 0.9 * n
    assert false <= 0.01 * found
