"""Fine-tuning on a small network: it learns, what is frozen stays, and it can be taken up again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cnsapp.domain.recipe import Recipe, make_recipe
from cnsapp.errors import Cancelled, CnsError
from cnsapp.ml import finetune_step
from cnsapp.ml.bundle import load_bundle, save_bundle
from cnsapp.ml.device import Device
from cnsapp.ml.finetune import BatchReport, EpochRecord, Finetuner, FitData, FittedNetwork, fit
from cnsapp.ml.finetune_finish import SHARES, mixed
from cnsapp.ml.finetune_plan import choose_rate, first_share
from cnsapp.ml.finetune_step import Learner
from cnsapp.ml.predict import Predictor

CPU = Device("cpu", None, 4)
STILL = {"rotation": 0, "flips": False, "zoom": 0, "stain": 0, "brightness": 0, "noise": 0,
         "blur": 0}  # fmt: skip
SMALL = {"epochs": 3, "batch_size": 6, "learning_rate": 3e-3, "body_rate": 1.0, "patience": 0,
         "test_views": "1"}  # fmt: skip
Make = Callable[..., Finetuner]


def stripes(n: int = 27, side: int = 32, n_classes: int = 3) -> FitData:
    """Return pictures whose class is the direction of their stripes; every third one validates."""
    generator = np.random.default_rng(0)
    labels = np.arange(n) % n_classes
    y, x = np.mgrid[:side, :side]
    pixels = np.empty((n, side, side, 3), np.uint8)
    for i, c in enumerate(labels):
        angle, phase = np.pi * c / n_classes, generator.uniform(0, 6)
        wave = np.sin(0.8 * (x * np.cos(angle) + y * np.sin(angle)) + phase)
        noise = generator.normal(0, 20, (side, side, 3))
        pixels[i] = np.clip(128 + 80 * wave[..., None] + noise, 0, 255)
    held = np.arange(n) % (3 * n_classes) < n_classes
    return FitData(
        pixels, labels.astype(np.int64), np.flatnonzero(~held), np.flatnonzero(held),
        list(range(10, 10 + n_classes)), [f"class {c}" for c in range(n_classes)],
    )  # fmt: skip


def recipe(preset: str = "full", **options: Any) -> Recipe:
    """Return a short run."""
    return make_recipe(preset, {**SMALL, **options})


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Return a maker of runs that share a folder unless told otherwise."""

    def made(
        data: FitData | None = None, backbone: str = "small_cnn", folder: str = "run",
        on_batch: Callable[[BatchReport], None] | None = None,
        cancelled: Callable[[], bool] | None = None, **options: Any,
    ) -> Finetuner:  # fmt: skip
        return Finetuner(
            backbone, data or stripes(), recipe(**options), CPU, tmp_path / folder,
            on_batch=on_batch, cancelled=cancelled,
        )  # fmt: skip

    return made


def weights(network: FittedNetwork) -> dict[str, torch.Tensor]:
    """Return all that a network consists of."""
    head = {k: torch.from_numpy(v) for k, v in vars(network.head).items()}
    return {**network.net.state_dict(), **head}


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    """Say whether two states are equal to the last bit."""
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def test_the_loss_falls_and_unseen_pictures_are_told_apart(make: Make) -> None:
    told: list[BatchReport] = []
    network, records = fit(make(stripes(45), on_batch=told.append, epochs=8, **STILL))
    losses = [r.train_loss for r in records[1:] if r.train_loss is not None]
    assert len(losses) == 8
    assert losses[-1] < 0.7 * losses[0]
    assert network.best_epoch > 0
    assert network.validation_balanced_accuracy is not None
    assert network.validation_balanced_accuracy > 0.8  # by chance 0.33
    assert [r.epoch for r in records] == list(range(9))
    assert records[0].train_loss is None
    assert (told[0].epoch, told[0].batch, told[0].n_batches) == (1, 1, 5)
    assert told[-1].learning_rate < told[6].learning_rate
    assert all(t.images_per_second > 0 for t in told)
    assert [EpochRecord.from_json(r.as_json()) for r in records] == records


def test_eight_pictures_can_be_learnt_by_heart(make: Make) -> None:
    data = stripes(12)
    eight = FitData(data.pixels, np.array([0, 1, 0, 1, 1, 0, 0, 1, 0, 1, 0, 1]), np.arange(8),
                    np.arange(8, 12), [1, 2], ["a", "b"])  # fmt: skip
    tuner = make(eight, epochs=40, batch_size=8, dropout=0, label_smoothing=0, ema=0, **STILL)
    records = [tuner.run_epoch(epoch) for epoch in range(41)]
    assert records[-1].train_balanced_accuracy == 1
    assert records[-1].train_loss is not None
    assert records[-1].train_loss < 0.1


def test_frozen_stages_stay_to_the_last_bit_and_the_others_move(make: Make) -> None:
    tuner = make(frozen_stages=2, batch_norms="learn", ema=0)
    before = {k: v.clone() for k, v in tuner.base.net.state_dict().items()}
    tuner.run_epoch(1)
    network = tuner.finish([tuner.run_epoch(1)])
    tuner._go_to(1)
    after = tuner.learner.net
    assert same(before, tuner.base.net.state_dict())  # what was loaded is never written to
    for name, value in network.net.state_dict().items():
        if name.startswith(("stages.0.", "stages.1.")):
            assert torch.equal(value, before[name]), name
    for i, stage in enumerate(after.body):
        for name, value in stage.named_parameters():
            assert not torch.equal(value.detach(), before[f"stages.{2 + i}.{name}"]), name
        running = [n for n, _ in stage.named_buffers() if n.endswith("running_mean")]
        assert running
        for name in running:
            moved = dict(stage.named_buffers())[name]
            assert not torch.equal(moved, before[f"stages.{2 + i}.{name}"]), name


def test_fixed_batch_norms_keep_their_statistics(make: Make) -> None:
    data = stripes()
    tuner = make(data, backbone="efficientnet_lite0", epochs=1, batch_norms="fixed")
    before = {k: v.clone() for k, v in tuner.base.net.state_dict().items()}
    network = tuner.finish([tuner.run_epoch(1)])
    tuner._go_to(1)
    for i, stage in enumerate(tuner.learner.net.body):
        for name, value in stage.named_buffers():
            if value.is_floating_point():
                assert torch.equal(value, before[f"stages.{3 + i}.{name}"])
    assert network.started_from == tuner.base.weights_hash


def test_it_starts_at_the_answers_of_the_quick_head(make: Make) -> None:
    tuner = make(backbone="efficientnet_lite0", epochs=1)
    start = tuner.run_epoch(0)
    from cnsapp.ml.finetune_start import columns_of
    from cnsapp.ml.heads import class_weights, fit_head

    data = tuner.data
    rows, y = np.arange(len(data.labels)), data.labels[data.train]
    x = columns_of(tuner.base, data, rows, CPU)
    jittered = columns_of(tuner.base, data, data.train, CPU, view="jitter1")
    both = np.concatenate([x[data.train], jittered])
    weight = np.concatenate([0.85 * class_weights(y, 3), 0.15 * class_weights(y, 3)])
    head = fit_head(both, np.concatenate([y, y]), weight, 0.01, 3)
    ours = tuner._logits(data.validation)
    np.testing.assert_allclose(ours, head.logits(x[data.validation]), atol=2e-3)
    assert start.validation_balanced_accuracy is not None
    given = Finetuner(
        "small_cnn", data, recipe(), CPU, tuner.checkpoints.folder / "other", start_head=head
    )
    given.run_epoch(0)  # a head that is not of this network is not used
    assert not given.learner.net.linear.weight.any()


def test_three_epochs_at_once_or_with_a_new_process_in_between_are_bit_equal(make: Make) -> None:
    straight, records = fit(make(folder="a"))
    first = make(folder="b")
    first.run_epoch(1)
    later = make(folder="b")  # nothing but the folder is shared
    again = [later.run_epoch(epoch) for epoch in (1, 2, 3)]
    taken_up = later.finish(again)
    assert same(weights(straight), weights(taken_up))
    for a, b in zip(records[1:], again, strict=True):
        assert (a.train_loss, a.validation_loss) == (b.train_loss, b.validation_loss)
    assert straight.temperature == taken_up.temperature


def test_killed_within_an_epoch_it_is_repeated_and_bit_equal(make: Make) -> None:
    straight, _ = fit(make(folder="a"))
    asked = iter(range(100))
    torn = make(folder="b", cancelled=lambda: next(asked) > 12)
    with pytest.raises(Cancelled):
        fit(torn)
    assert torn.checkpoints.epochs() != [0, 1, 2, 3]
    torn.cancelled = None
    same_object, _ = fit(torn)  # goes on in the same process too
    assert same(weights(straight), weights(same_object))


def test_a_damaged_checkpoint_costs_epochs_not_the_run(make: Make) -> None:
    straight, _ = fit(make(folder="a"))
    run = make(folder="b")
    run.run_epoch(2)
    for epoch in (1, 2):
        path = run.checkpoints.path(epoch)
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
    network, _ = fit(make(folder="b"))
    assert same(weights(straight), weights(network))


def test_another_seed_or_other_data_do_not_take_up_a_strangers_checkpoint(make: Make) -> None:
    one = make()
    one.run_epoch(1)
    assert make().checkpoints.load(1) is not None
    assert make(seed=5).checkpoints.load(1) is None
    data = stripes()
    data.labels[0] = 2
    assert make(data).checkpoints.load(1) is None


def test_the_last_two_the_best_and_the_start_are_kept(make: Make) -> None:
    tuner = make(epochs=5)
    records = [tuner.run_epoch(epoch) for epoch in range(6)]
    from cnsapp.ml.finetune_plan import best_of

    assert set(tuner.checkpoints.epochs()) == {0, 4, 5, best_of(records, 9).epoch}
    tuner.forget()
    assert not tuner.checkpoints.folder.exists()


@pytest.mark.parametrize(
    ("units", "wish", "rate", "share"),
    [
        (None, 0.0, 2e-3, 1.0),  # 600 images that have no groups
        (np.arange(1000) % 20, 0.0, 2e-4, 0.5),  # 20 patients
        (np.arange(1000) % 499, 0.0, 2e-4, 0.5),
        (np.arange(1000) % 500, 0.0, 2e-3, 1.0),
        (np.arange(1000) % 20, 0.01, 0.01, 0.5),
    ],
)
def test_many_independent_samples_let_the_network_move_further(
    units: np.ndarray | None, wish: float, rate: float, share: float
) -> None:
    data = FitData(
        np.zeros((1000, 4, 4, 3), np.uint8), np.arange(1000) % 2, np.arange(600),
        np.arange(600, 1000), [1, 2], ["a", "b"], units,
    )  # fmt: skip
    assert choose_rate(wish, data.n_independent) == rate
    assert first_share(data.n_independent) == share


def test_epochs_below_the_start_that_still_get_better_are_gone_on_with(make: Make) -> None:
    tuner = make(epochs=9, patience=2)

    def scored(*scores: float) -> list[EpochRecord]:
        return [
            EpochRecord(i, None, None, 0.5, score, 0.1, 1.0, 1.0, 8)
            for i, score in enumerate(scores)
        ]

    assert not tuner.is_over(scored(0.9))
    assert not tuner.is_over(scored(0.9, 0.7, 0.75, 0.8, 0.85))  # a dip while the rate rises
    assert not tuner.is_over(scored(0.9, 0.7, 0.8, 0.75))
    assert tuner.is_over(scored(0.9, 0.7, 0.8, 0.75, 0.78))  # two without a better one
    assert tuner.is_over(scored(0.5, *np.linspace(0.6, 0.9, 9)))
    assert not make(epochs=9, patience=0).is_over(scored(0.9, 0.8, 0.7, 0.6, 0.5))


def test_the_average_follows_the_formula(make: Make) -> None:
    tuner = make(ema=0.5, epochs=1, **STILL)
    tuner.run_epoch(0)
    learner = tuner.learner
    kept = learner.net.linear.weight.detach().clone()
    batches = tuner._batches(1)
    for i, decay in enumerate((0.1, 2 / 11, 3 / 12)):  # (1 + n) / (10 + n), below 0.5
        learner.net.train()
        learner.step(batches[i], 1, i, 1e-3)
        kept = decay * kept + (1 - decay) * learner.net.linear.weight.detach()
        np.testing.assert_allclose(learner.average.linear.weight.detach(), kept, atol=1e-6)
    moved, average = (
        dict(net.named_buffers())["body.0.0.0.1.running_mean"]
        if "body.0.0.0.1.running_mean" in dict(net.named_buffers())
        else next(b for n, b in net.named_buffers() if n.endswith("running_mean"))
        for net in (learner.net, learner.average)
    )
    assert not torch.equal(moved, average)  # batch statistics are averaged as well
    assert average.abs().sum() > 0


def test_two_lanes_give_the_gradient_of_the_whole_batch(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    def moved(n_lanes: int) -> torch.Tensor:
        monkeypatch.setattr(finetune_step, "cpu_threads", lambda: n_lanes)
        tuner = make(backbone="efficientnet_lite0", folder=f"lanes{n_lanes}", ema=0, dropout=0.2)
        tuner.run_epoch(0)
        with tuner.learner as learner:
            learner.step(tuner._batches(1)[0], 1, 0, 1e-3)
        grads = [p.grad.flatten() for p in learner.net.parameters() if p.grad is not None]
        return torch.cat(grads)

    one, two = moved(1), moved(2)
    assert float((one - two).norm() / one.norm()) < 1e-4


def test_memory_that_runs_out_halves_the_batch_and_the_record_says_so(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = Learner.step

    def scarce(self: Learner, batch: Any, *rest: Any) -> Any:
        if len(batch.rows) > 3:
            raise RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate")
        return step(self, batch, *rest)

    monkeypatch.setattr(Learner, "step", scarce)
    tuner = make(epochs=2)
    first, second = tuner.run_epoch(1), tuner.run_epoch(2)
    assert (first.batch_size, second.batch_size) == (3, 3)
    assert first.notes == ["Memory ran out: 3 images a step from here on."]
    assert second.notes == []
    assert make(epochs=2).run_epoch(2).batch_size == 3


def test_a_loss_that_is_not_finite_goes_back_with_half_the_rate(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    step, bad = Learner.step, {"left": 1}

    def sick(self: Learner, batch: Any, epoch: int, number: int, rate: float, *rest: Any) -> Any:
        if epoch == 2 and number == 1 and bad["left"]:
            bad["left"] -= 1
            with torch.no_grad():
                self.net.linear.weight.fill_(float("nan"))
        return step(self, batch, epoch, number, rate, *rest)

    monkeypatch.setattr(Learner, "step", sick)
    tuner = make(epochs=2)
    first, second = tuner.run_epoch(1), tuner.run_epoch(2)
    assert np.isfinite(second.validation_loss)
    assert "the loss became nan" in second.notes[0].lower()
    assert tuner.limits.rate_scale == 0.5
    assert first.notes == []
    bad["left"] = 99
    with pytest.raises(CnsError, match=r"In epoch 2 the loss became nan at a learning rate of"):
        make(folder="other", epochs=2).run_epoch(2)


def test_cancelling_leaves_the_finished_epochs(make: Make) -> None:
    tuner = make(cancelled=lambda: True)
    with pytest.raises(Cancelled):
        tuner.run_epoch(1)
    assert tuner.checkpoints.epochs() == []


def test_patience_ends_a_run_that_gets_no_better(make: Make) -> None:
    tuner = make(patience=2, epochs=9)
    made = [EpochRecord(e, 1.0, 0.5, 1.0, s, 0.1, 1, 1, 6) for e, s in enumerate((0.3, 0.5, 0.4))]
    assert not tuner.is_over(made)
    assert not tuner.is_over([])
    worse = EpochRecord(3, 1.0, 0.5, 1.0, 0.5, 0.1, 1, 1, 6)
    assert tuner.is_over([*made, worse])
    assert not make(patience=0, epochs=9).is_over([*made, worse])
    assert make(patience=0, epochs=3).is_over([*made, worse])


def test_the_self_test_changes_nothing(make: Make) -> None:
    straight, _ = fit(make(folder="a"))
    tuner = make(folder="b")
    found = tuner.self_test()
    assert np.isfinite(found.loss)
    assert (found.batch_size, found.batches_per_epoch, found.n_epochs) == (6, 3, 3)
    assert (found.frozen_stages, found.precision, found.image_size) == (0, "float32", 32)
    assert found.seconds_per_epoch > 2.9 * found.seconds_per_batch > 0
    assert found.seconds_total > 2 * found.seconds_per_epoch
    assert found.memory_bytes is None or found.memory_bytes > 1e6
    tested, _ = fit(tuner)
    assert same(weights(straight), weights(tested))


def test_the_file_answers_as_the_network_did(make: Make, tmp_path: Path) -> None:
    tuner = make(backbone="efficientnet_lite0", epochs=1, test_views="4")
    network, _ = fit(tuner)
    data = tuner.data
    bundle = network.bundle(threshold=0.4, data_fingerprint="f", settings={}, metrics={})
    digest = save_bundle(tmp_path / "model.safetensors", bundle)
    predictor = Predictor(load_bundle(tmp_path / "model.safetensors", digest), CPU)
    assert predictor.preprocessing.size == 32
    said = predictor.predict(list(data.pixels[:6]))
    logits = torch.from_numpy(network.logits(data.pixels, np.arange(6)))
    wanted = (logits / network.temperature).softmax(1)
    np.testing.assert_allclose(said, wanted, atol=2e-3)


def test_best_averages_weights_with_the_start_where_validation_says_so(make: Make) -> None:
    start, tuned = {"a": torch.tensor([0.0, 2.0])}, {"a": torch.tensor([1.0, 4.0])}
    assert mixed(start, tuned, 0.25)["a"].tolist() == [0.25, 2.5]
    assert mixed(start, tuned, 1.0) is tuned
    scratch, records = fit(make(folder="a", average_with_quick=True))
    assert scratch.share == 1  # half way to weights that know nothing is nowhere
    tuner = make(backbone="efficientnet_lite0", epochs=2, average_with_quick=True)
    network, records = fit(tuner)
    assert network.share in (SHARES if network.best_epoch else (1.0,))
    tuner._go_to(2)
    half = tuner._logits(tuner.data.validation)
    plain = make(backbone="efficientnet_lite0", folder="b", epochs=2, average_with_quick=False)
    plain.run_epoch(2)
    average = plain.learner.average
    average.load_learning_state(mixed(plain._start, average.learning_state(), 0.5))
    np.testing.assert_allclose(half, plain._logits(tuner.data.validation), atol=1e-5)
    assert records[2].validation_loss != plain.records[2].validation_loss  # judged as it ends


def test_bad_input_gets_a_sentence(make: Make) -> None:
    data = stripes()

    def run(train: list[int], validation: list[int]) -> None:
        rows = np.array(train, np.int64), np.array(validation, np.int64)
        make(FitData(data.pixels, data.labels, *rows, data.class_ids, data.class_names))

    with pytest.raises(CnsError, match=r"3 images of 3 class.*at least 4 images"):
        run([3, 4, 5], [0, 1])
    with pytest.raises(CnsError, match=r"4 images of 1 class"):
        run([3, 6, 12, 15], [0, 1])
    with pytest.raises(CnsError, match="No image is left to choose the best epoch by"):
        run([3, 4, 5, 6], [])
    with pytest.raises(ValueError, match="training and validation at once"):
        run([3, 4, 5, 6], [6])
    with pytest.raises(CnsError, match=r"Images of 16 px are smaller than"):
        make(stripes(side=16))
    with pytest.raises(CnsError, match=r"float16 was asked for, and the device is cpu"):
        make(precision="float16")
