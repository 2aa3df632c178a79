"""Insertion, deletion and random weights: the checks that a saliency map has to stand."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from scipy.stats import spearmanr
from torch import nn

from cnsapp.errors import Cancelled
from cnsapp.ml.backbones import BACKBONES
from cnsapp.ml.faithfulness import (
    GRID,
    Chance,
    Curves,
    Faithfulness,
    center_ranking,
    chance_on,
    curves_of,
    measure,
    moved,
)
from cnsapp.ml.predict import Predictor
from cnsapp.ml.preprocess import Preprocessing
from cnsapp.ml.saliency import explain
from cnsapp.ml.saliency_inputs import blurred
from cnsapp.ml.saliency_randomised import (
    Randomised,
    compare_with_random,
    rank_correlation,
    structural_similarity,
    with_random_weights,
)
from tests.unit.small_nets import CPU, linear_predictor, make_predictor, noise, random_stages

SIDE = 56  # four pixels a cell
PREPARE = Preprocessing(SIDE, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


class Sees(nn.Module):
    """Answers by the mean red of some cells alone: which cells matter is known."""

    def __init__(self, cells: list[int], gain: float = 1.0) -> None:
        super().__init__()
        mask = torch.zeros(GRID * GRID)
        mask[cells] = 1 / len(cells)
        self.register_buffer(
            "mask", mask.view(GRID, GRID).repeat_interleave(4, 0).repeat_interleave(4, 1) / 16
        )
        self.gain, self.n = gain, 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.n += len(x)
        value = (x[:, 0] * self.mask).sum((1, 2)) * self.gain
        return torch.stack([value, torch.zeros_like(value)], 1)


def seeing(cells: list[int], gain: float = 1.0) -> Any:
    def input_tensor(views: list[Any]) -> torch.Tensor:
        return PREPARE.normalise(torch.from_numpy(np.stack(views)))

    return SimpleNamespace(
        net=Sees(cells, gain), preprocessing=PREPARE, device=CPU, input_tensor=input_tensor
    )


def spots(cells: list[int]) -> np.ndarray[Any, Any]:
    """Return a black picture whose given cells are white."""
    grid = np.zeros(GRID * GRID, np.uint8)
    grid[cells] = 255
    plane = grid.reshape(GRID, GRID).repeat(4, 0).repeat(4, 1)
    return np.repeat(plane[:, :, None], 3, 2)


def answers(predictor: Any, image: Any) -> tuple[float, float]:
    """Return the probability for the image and for its blurred copy."""
    x = predictor.input_tensor([image])
    both = [float(predictor.net(v).softmax(1)[0, 0]) for v in (x, blurred(x))]
    return both[0], both[1]


def test_the_curves_of_one_known_cell_are_those_worked_by_hand() -> None:
    cell = 45
    predictor, image = seeing([cell], gain=4), spots([cell])
    full, blank = answers(predictor, image)
    assert full > blank + 0.3
    first = np.array([cell, *(i for i in range(196) if i != cell)])
    (found,) = curves_of(predictor, image, 0, [first])
    assert found.shares == pytest.approx(np.arange(11) / 10)
    assert found.insertion == pytest.approx([blank] + [full] * 10, abs=1e-2)
    assert found.deletion == pytest.approx([full] + [blank] * 10, abs=1e-2)
    assert found.insertion_area == pytest.approx(0.95 * full + 0.05 * blank, abs=1e-2)
    assert found.score == pytest.approx(0.9 * (full - blank), abs=1e-2)


def test_a_reversed_ranking_has_the_opposite_score() -> None:
    predictor, image = seeing([3, 50, 120], gain=3), noise(SIDE)
    ranking = np.random.default_rng(1).permutation(196)
    one, other = curves_of(predictor, image, 0, [ranking, ranking[::-1].copy()])
    assert one.score == pytest.approx(-other.score, abs=1e-5)
    assert one.insertion == pytest.approx(other.deletion[::-1], abs=1e-5)


def test_a_map_of_the_right_cells_beats_random_and_one_of_the_wrong_does_not() -> None:
    cells = [14 * r + c for r in range(2, 7) for c in range(1, 7)]  # not in the middle
    predictor, image = seeing(cells, gain=6), spots(cells)
    rest = [i for i in range(196) if i not in cells]

    def checked(ranking: Any) -> Faithfulness:
        given = np.array(ranking)
        return measure(predictor, image, 0, given, chance_on(predictor, image, 0, given))

    right = checked(cells + rest)
    assert right.beats_random and right.verdict.startswith("Better than random: insertion")
    wrong = checked(np.random.default_rng(9).permutation(196))
    assert not wrong.beats_random and wrong.verdict.startswith("No better than random")
    worst = checked(rest + cells)
    assert worst.curves.score < -worst.random_limit and not worst.beats_random


def test_a_map_of_the_middle_is_held_against_a_spot_in_the_middle() -> None:
    middle = [int(i) for i in center_ranking()[:16]]
    predictor, image = seeing(middle[::2], gain=6), spots(middle[::2])
    order = [*middle[1::2], *middle[::2]]
    order += [i for i in range(196) if i not in order]
    chance = chance_on(predictor, image, 0, np.array(order))
    assert chance.center.score > chance.limit
    found = measure(predictor, image, 0, np.array(order), chance)
    assert found.beats_random and "no better than a spot in the middle" in found.verdict


@pytest.mark.parametrize("grain", [0, 2])  # single cells; spots as large as those of Grad-CAM
def test_random_maps_hardly_ever_pass_for_good_ones(grain: float) -> None:
    cells = [14 * r + c for r in range(3, 8) for c in range(2, 8)]
    predictor, image = seeing(cells, gain=6), spots(cells)
    rng, passed = np.random.default_rng(0), 0
    for k in range(40):
        field = gaussian_filter(rng.normal(size=(14, 14)), grain, mode="wrap")
        ranking = np.argsort(-field.ravel())
        chance = chance_on(predictor, image, 0, ranking, seed=k)
        (found,) = curves_of(predictor, image, 0, [ranking])
        passed += found.score > chance.limit
    assert passed <= 6  # 2 are expected; of scattered cells a quarter of the spots pass


def test_a_moved_map_keeps_its_grain_and_is_another_one() -> None:
    rng = np.random.default_rng(3)
    field = gaussian_filter(rng.normal(size=(14, 14)), 2, mode="wrap")

    def steps(place: Any) -> list[int]:  # between neighbours, around the edges
        grid = np.empty(196, int)
        grid[place] = np.arange(196)
        grid = grid.reshape(14, 14)
        both = [abs(grid - np.roll(grid, 1, axis)) for axis in (0, 1)]
        return sorted(np.concatenate(both).ravel().tolist())

    ranking = np.argsort(-field.ravel())
    for _ in range(10):
        other = moved(ranking, rng)
        assert sorted(other.tolist()) == list(range(196))
        assert steps(other) == steps(ranking)
        assert spearmanr(np.argsort(other), np.argsort(ranking)).statistic < 0.5
    rows = moved(np.arange(196), rng)  # of a map of rows, too
    assert sorted(rows.tolist()) == list(range(196))


def test_the_limit_is_the_95_percent_point_of_t_with_a_mean_of_zero() -> None:
    flat = [i / 10 for i in range(11)]

    def scored(score: float) -> Curves:
        return Curves(flat, [score] * 11, [0.0] * 11)

    chance = Chance([scored(s) for s in (0.1, -0.1, 0.1, -0.1)], scored(0))
    assert chance.limit == pytest.approx(2.132 * 0.1)


def test_a_map_costs_22_forward_passes() -> None:
    predictor, image = seeing([1]), noise(SIDE)
    curves_of(predictor, image, 0, [np.arange(196)])
    assert predictor.net.n == 22


def test_a_class_without_a_chance_is_said_to_be_so() -> None:
    predictor, image = seeing([1], gain=-900), np.full((SIDE, SIDE, 3), 255, np.uint8)
    found = measure(
        predictor, image, 0, np.arange(196), chance_on(predictor, image, 0, np.arange(196))
    )
    assert not found.beats_random and "The class never gets 1%" in found.verdict
    told = found.as_json()
    assert told["beats_random"] is False and len(told["insertion"]) == 11
    assert len(told["random_scores"]) == 4


def test_an_empty_map_never_beats_chance() -> None:
    cells = list(range(56))  # the upper rows, in which a ranking of nothing begins
    predictor, image, rows = seeing(cells, gain=6), spots(cells), np.arange(196)
    chance = chance_on(predictor, image, 0, rows)
    empty = measure(predictor, image, 0, rows, chance, is_empty=True)
    assert not empty.beats_random and empty.verdict == "No better than random: the map is empty."


def test_the_middle_comes_first_in_a_ranking_from_the_middle() -> None:
    ranking = center_ranking()
    assert {int(i) for i in ranking[:4]} == {6 * 14 + 6, 6 * 14 + 7, 7 * 14 + 6, 7 * 14 + 7}
    assert {int(i) for i in ranking[-4:]} == {0, 13, 182, 195}


def test_measuring_stops_when_it_is_cancelled() -> None:
    with pytest.raises(Cancelled):
        chance_on(seeing([1]), noise(SIDE), 0, np.arange(196), cancelled=lambda: True)


@pytest.fixture(scope="module")
def small() -> Predictor:
    torch.set_num_threads(1)
    return make_predictor(random_stages("small_cnn"), BACKBONES["small_cnn"], 64)


def test_measuring_leaves_the_model_as_it_was(small: Predictor) -> None:
    image = noise(64)
    before = small.predict([image])
    state = {k: v.clone() for k, v in small.net.state_dict().items()}
    ranking = explain(small, image, 0).ranking
    measure(small, image, 0, ranking, chance_on(small, image, 0, ranking))
    compare_with_random(small, [image], "gradcam")
    assert (small.predict([image]) == before).all()
    assert all(torch.equal(v, state[k]) for k, v in small.net.state_dict().items())
    assert not any(m.training for m in small.net.modules())


def test_random_weights_are_the_same_numbers_in_another_order(small: Predictor) -> None:
    other = with_random_weights(small)
    moved = 0
    for (name, a), (_, b) in zip(
        small.net.named_parameters(), other.net.named_parameters(), strict=True
    ):
        assert torch.equal(a.flatten().sort().values, b.flatten().sort().values), name
        moved += not torch.equal(a, b)
    assert moved >= 8
    head = with_random_weights(small, "head")
    for a, b in zip(small.net.body.parameters(), head.net.body.parameters(), strict=True):
        assert torch.equal(a, b)
    assert not torch.equal(small.net.head.linear.weight, head.net.head.linear.weight)  # type: ignore[union-attr]


def test_the_check_finds_a_method_that_draws_the_image(small: Predictor) -> None:
    image = np.full((64, 64, 3), 128, np.uint8)
    image[20:44, 8:30] = noise(24, 22)  # all that gradients times input can show
    drawing = compare_with_random(small, [image], "input_x_gradient")
    assert drawing.rank_correlations[-1] > 0.5 and not drawing.depends_on_model
    assert "Hardly depends on what was learnt" in drawing.verdict
    assert len(drawing.similarities) == len(drawing.depths) == 3 and drawing.n_images == 1


def test_images_without_a_map_say_nothing_of_the_model() -> None:
    predictor, _ = linear_predictor(56)
    weight = predictor.net.head.linear.weight  # type: ignore[union-attr]
    with torch.no_grad():
        weight.copy_(-weight.abs())
    white, black = (np.full((56, 56, 3), level, np.uint8) for level in (255, 0))
    found = compare_with_random(predictor, [white], "gradcam")  # all speaks against every class
    assert found.n_images == 0 and found.as_json()["depends_on_model"] is None
    assert found.verdict.startswith("Not known")
    assert compare_with_random(predictor, [white, black], "gradcam").n_images == 1


def test_words_of_the_check_follow_its_numbers() -> None:
    good = Randomised("gradcam", ["everything"], [0.12], [0.1], 3)
    assert good.depends_on_model and "0.12" in good.verdict and "3 images" in good.verdict
    empty = Randomised("gradcam", ["everything"], [0.0], [0.0], 1, True)
    assert "the map is empty (1 image)" in empty.verdict
    assert good.as_json()["depends_on_model"] is True


def test_rank_correlation_is_spearmans() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(14, 14)), rng.normal(size=(14, 14))
    b[:5] = 0  # ties
    assert rank_correlation(a, b) == pytest.approx(spearmanr(a.ravel(), b.ravel()).statistic)
    assert rank_correlation(a, np.exp(a)) == pytest.approx(1)
    assert rank_correlation(a, np.zeros((14, 14))) == 0


def test_structural_similarity_is_the_published_formula() -> None:
    rng = np.random.default_rng(1)
    a, b = rng.uniform(size=(2, 14, 14))
    found = []
    for r in range(8):
        for c in range(8):
            x, y = a[r : r + 7, c : c + 7].ravel(), b[r : r + 7, c : c + 7].ravel()
            k = np.cov(x, y)
            top = (2 * x.mean() * y.mean() + 1e-4) * (2 * k[0, 1] + 9e-4)
            below = (x.mean() ** 2 + y.mean() ** 2 + 1e-4) * (k[0, 0] + k[1, 1] + 9e-4)
            found.append(top / below)
    assert structural_similarity(a, b) == pytest.approx(np.mean(found), abs=1e-9)
    assert structural_similarity(a, a) == pytest.approx(1)
