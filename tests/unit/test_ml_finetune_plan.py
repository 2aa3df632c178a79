"""Order, rate, weights and limits of a run, by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

from cnsapp.errors import CnsError
from cnsapp.ml.device import Device
from cnsapp.ml.finetune_finish import shrunk
from cnsapp.ml.finetune_limits import Limits, is_out_of_memory, room_for
from cnsapp.ml.finetune_plan import (
    best_of,
    choose_frozen,
    dropout_mask,
    ema_decay,
    epoch_batches,
    image_weights,
    rate_factor,
)
from cnsapp.ml.finetune_start import first_batch_size
from cnsapp.ml.finetune_types import EpochRecord
from cnsapp.ml.finetuned import seen, view_names
from cnsapp.ml.preprocess import make_view

CPU = Device("cpu", None, 4)


def record(epoch: int, score: float | None, loss: float = 1.0) -> EpochRecord:
    """Return an epoch with a score."""
    return EpochRecord(epoch, None, None, loss, score, 0.0, 1.0, 1.0, 8)


def test_the_rate_rises_evenly_and_falls_along_a_cosine() -> None:
    rates = [rate_factor(step, 12, 2) for step in range(12)]
    assert rates[:2] == pytest.approx([1 / 3, 2 / 3])
    assert rates[2] == 1
    half_way = 0.01 + 0.99 * 0.5  # 5 of the 10 steps after the rise
    assert rates[7] == pytest.approx(half_way)
    assert rates[11] == pytest.approx(0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * 0.9)))
    assert max(rate_factor(step, 4, 100) for step in range(4)) == 1  # a rise longer than the run


def test_every_row_comes_once_an_epoch_in_an_order_of_its_own() -> None:
    rows, labels = np.arange(100, 121), np.zeros(121, np.int64)
    one = epoch_batches(rows, labels, "weights", 4, 0, 1)
    # 21 = 4 * 4 + 5: a last batch of one joins the one before
    assert [len(b.rows) for b in one] == [4, 4, 4, 4, 5]
    assert sorted(np.concatenate([b.rows for b in one])) == list(rows)
    assert all((b.turns == 0).all() for b in one)
    again = epoch_batches(rows, labels, "weights", 4, 0, 1)
    assert all((a.rows == b.rows).all() for a, b in zip(one, again, strict=True))
    other = epoch_batches(rows, labels, "weights", 4, 0, 2)
    assert not all((a.rows == b.rows).all() for a, b in zip(one, other, strict=True))


def test_balanced_sampling_draws_every_class_alike_and_each_image_before_any_twice() -> None:
    labels = np.array([0] * 20 + [1] * 3 + [2] * 7)
    batches = epoch_batches(np.arange(30), labels, "sampling", 8, 3, 1)
    drawn = np.concatenate([b.rows for b in batches])
    turns = np.concatenate([b.turns for b in batches])
    assert np.bincount(labels[drawn]).tolist() == [10, 10, 10]
    times = np.bincount(drawn, minlength=30)
    assert times[20:23].tolist() in ([4, 3, 3], [3, 4, 3], [3, 3, 4])
    assert times[:20].max() == 1
    assert len(set(zip(drawn.tolist(), turns.tolist(), strict=True))) == 30  # a turn of its own


def test_a_batch_of_one_is_refused_in_words() -> None:
    with pytest.raises(CnsError, match=r"batch size is 1.*one image has none.*2 or more"):
        epoch_batches(np.arange(9), np.zeros(9, np.int64), "none", 1, 0, 1)


def test_weights_of_classes_by_hand_and_as_torch_weighs_them() -> None:
    labels = np.array([0] * 6 + [1] * 3 + [3])
    weights = image_weights(labels, "weights", 4)
    # 10 images, 3 classes present: 10 / (3 * 6), 10 / (3 * 3), none, 10 / 3
    assert weights.tolist() == pytest.approx([10 / 18, 10 / 9, 0, 10 / 3])
    assert image_weights(labels, "sampling", 4).tolist() == [1, 1, 1, 1]
    logits, y = torch.randn(10, 4, generator=torch.Generator().manual_seed(1)), torch.tensor(labels)
    each = cross_entropy(logits, y, reduction="none") * torch.from_numpy(weights)[y]
    ours = each.sum() / float(weights[labels].sum())
    torchs = cross_entropy(logits, y, weight=torch.from_numpy(weights))
    assert float(ours) == pytest.approx(float(torchs), rel=1e-5)


def test_dropout_hides_its_share_and_keeps_the_sum() -> None:
    mask = dropout_mask(400, 50, 0.3, 1, 2, 3)
    assert mask is not None
    assert mask.unique().tolist() == pytest.approx([0, 1 / 0.7])
    assert float((mask == 0).float().mean()) == pytest.approx(0.3, abs=0.01)
    again, other = dropout_mask(400, 50, 0.3, 1, 2, 3), dropout_mask(400, 50, 0.3, 1, 2, 4)
    assert again is not None
    assert torch.equal(mask, again)
    assert other is not None
    assert not torch.equal(mask, other)
    assert dropout_mask(4, 5, 0.0, 1, 2, 3) is None


def test_the_average_follows_quickly_at_first() -> None:
    assert [ema_decay(0.9, n) for n in (0, 1, 9)] == pytest.approx([1 / 10, 2 / 11, 10 / 19])
    assert ema_decay(0.9, 1000) == 0.9


def test_the_best_epoch_is_that_of_the_score_then_of_the_loss() -> None:
    assert best_of([record(1, 0.6), record(2, 0.6, 0.9), record(3, 0.5)], 100).epoch == 2
    assert best_of([record(0, None), record(1, 0.1)], 100).epoch == 1


def test_the_start_stays_unless_an_epoch_is_better_by_half_a_standard_error() -> None:
    # 0.6 of 96 images: half of sqrt(0.6 * 0.4 / 96) = 0.025
    assert best_of([record(0, 0.6), record(1, 0.62)], 96).epoch == 0
    assert best_of([record(0, 0.6), record(1, 0.63)], 96).epoch == 1
    assert best_of([record(0, 0.6), record(1, 0.63)], 24).epoch == 0  # it is 0.05 there
    assert best_of([record(0, 0.6), record(1, 0.6, 0.5)], 96).epoch == 0
    assert best_of([record(0, 0.0), record(1, 0.3)], 9).epoch == 1


def test_how_many_stages_stay_still() -> None:
    names = ["a", "b", "c", "d", "e"]
    assert choose_frozen(-1, names, pretrained=True, on_cpu=True) == 3
    assert choose_frozen(-1, names, pretrained=True, on_cpu=False) == 1
    assert choose_frozen(-1, names, pretrained=False, on_cpu=True) == 0
    assert choose_frozen(5, names, pretrained=True, on_cpu=True) == 5
    with pytest.raises(CnsError, match="5 stages to learn, and 6"):
        choose_frozen(6, names, pretrained=True, on_cpu=True)


def test_small_data_gets_small_batches() -> None:
    assert [first_batch_size(0, n, CPU) for n in (5, 40, 130, 1000)] == [5, 8, 16, 32]
    assert first_batch_size(64, 40, CPU) == 40
    assert first_batch_size(64, 400, CPU) == 64


def test_a_third_loss_that_is_not_finite_ends_the_run_with_its_values() -> None:
    limits = Limits(16)
    limits.set_back(4, float("nan"), 1e-2)
    limits.set_back(4, float("inf"), 5e-3)
    assert limits.rate_scale == 0.25
    assert "nan at a learning rate of 0.01: epoch 4 is done again" in limits.tell()[0]
    assert limits.tell() == []
    with pytest.raises(
        CnsError, match=r"epoch 4 the loss became nan at a learning rate of 0\.0025"
    ):
        limits.set_back(4, float("nan"), 2.5e-3)


def test_memory_runs_out_three_times_then_a_sentence() -> None:
    limits = Limits(64)
    for size in (32, 16, 8):
        limits.halve(CPU, 224)
        assert limits.batch_size == size
    with pytest.raises(CnsError, match=r"memory of cpu ran out with 8 images of 224 px.*3 times"):
        limits.halve(CPU, 224)
    with pytest.raises(CnsError, match="ran out with 3 images"):
        Limits(3).halve(CPU, 224)


def test_what_counts_as_memory_running_out() -> None:
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory."))
    assert is_out_of_memory(MemoryError())
    assert is_out_of_memory(RuntimeError("[enforce fail] DefaultCPUAllocator: not enough memory"))
    assert not is_out_of_memory(RuntimeError("shapes do not match"))


def test_a_temperature_of_few_images_is_drawn_towards_1() -> None:
    assert shrunk(16.0, 30) == pytest.approx(4)  # half of the logarithm
    assert shrunk(0.25, 30) == pytest.approx(0.5)
    assert shrunk(2.0, 30_000) == pytest.approx(2, abs=0.01)
    assert shrunk(1.0, 5) == 1


def test_a_gpu_gets_as_many_images_a_step_as_it_has_room_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (1_000, 2_000))
    gpu = Device("cuda:0", torch.bfloat16, 128)
    assert room_for(gpu, 10.0, 64) == 64
    assert room_for(gpu, 30.0, 64) == 16  # 32 would take 960 of the 800 that are safe
    assert room_for(gpu, 1e9, 64) == 2
    assert room_for(CPU, 1e9, 64) == 64  # there a step is cut into small pieces anyway


def test_views_at_prediction_follow_what_training_may_do() -> None:
    assert view_names(1) == ("clean",)
    assert view_names(2) == ("clean", "rot180")
    assert view_names(4) == ("clean", "rot90", "rot180", "rot270")
    assert len(view_names(8)) == 8
    assert view_names(8, flips=False) == ("clean", "rot90", "rot180", "rot270")
    assert view_names(4, turns=False) == ("clean", "flip")
    assert view_names(2, turns=False, flips=False) == ("clean",)


def test_views_of_a_batch_are_those_that_prediction_makes() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (9, 9, 3), dtype=np.uint8)
    made = [make_view(picture, 9, name) for name in view_names(8)]
    for name, view in zip(view_names(8), made, strict=True):
        np.testing.assert_array_equal(seen(picture[None], name)[0], view)
    assert len({view.tobytes() for view in made}) == 8
