"""Model files of every kind: what is written is read, old files too; foreign ones are refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load, save

from cnsapp.errors import CnsError
from cnsapp.ml.backbones import build_backbone, get_backbone
from cnsapp.ml.bundle import Bundle, load_bundle, network_bundle, save_bundle
from cnsapp.ml.device import choose_device
from cnsapp.ml.head_kinds import (
    Head,
    KernelHead,
    LinearHead,
    LinearModule,
    MlpHead,
    head_module,
    kind_of,
)
from cnsapp.ml.network import QuickNet, body_arrays
from cnsapp.ml.predict import Predictor
from cnsapp.ml.saliency import grad_cam, integrated_gradients
from cnsapp.ml.stage_net import StageNet

CPU = choose_device("cpu")
D, K, M = 40, 3, 5  # columns, classes, hidden units or landmarks
STAGES = ("block0", "block1", "block2")


def heads(columns: int = D) -> dict[str, Head]:
    """Return a small head of every kind with random numbers."""
    rng = np.random.default_rng(0)

    def some(*shape: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
        return rng.normal(0, 1, shape).astype(np.float32)

    mean, std = some(columns), np.abs(some(columns)) + 0.5
    gamma = np.full(1, 1 / columns, np.float32)
    return {
        "linear": LinearHead(mean, std, some(K, columns), some(K)),
        "mlp": MlpHead(mean, std, some(M, columns), some(M), some(K, M), some(K)),
        "kernel": KernelHead(mean, std, some(M, columns), gamma, some(K, M), some(K)),
    }


def columns_of(stages: tuple[str, ...]) -> int:
    net = build_backbone().net.until(stages)
    return sum(
        2 * m.shape[1]
        for m, n in zip(net(torch.zeros(1, 3, 64, 64)), net.names, strict=True)
        if n in stages
    )


def bundle(head: Head) -> Bundle:
    backbone = build_backbone()
    row = backbone.row
    return Bundle(
        head=head, stages=STAGES, class_ids=[1, 2, 3], class_names=["a", "b", "c"],
        features={
            "backbone": row.id, "weights": backbone.weights_hash,
            "preprocessing": replace(row.preprocessing, size=64).as_json(),
        },
        spec_id="s", strength=0.01, temperature=1.5,
    )  # fmt: skip


def picture(seed: int = 0) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    return np.random.default_rng(seed).integers(0, 256, (64, 64, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def columns() -> int:
    torch.set_num_threads(1)
    return columns_of(STAGES)


@pytest.mark.parametrize("kind", ["linear", "mlp", "kernel"])
def test_a_head_says_the_same_as_arrays_and_as_a_module(kind: str) -> None:
    head = heads()[kind]
    x = np.random.default_rng(3).normal(0, 1, (7, D)).astype(np.float32)
    assert kind_of(head) == kind
    found = head_module(head)(torch.from_numpy(x)).detach().numpy()
    assert found == pytest.approx(head.logits(x), abs=1e-4)


def test_the_kernel_head_is_the_sum_that_its_formula_says() -> None:
    head = heads()["kernel"]
    assert isinstance(head, KernelHead)
    x = np.random.default_rng(4).normal(0, 1, D)
    z = (x - head.mean) / head.std
    near = [np.exp(-head.gamma[0] * ((z - mark) ** 2).sum()) for mark in head.landmarks]
    by_hand = [sum(w * v for w, v in zip(row, near, strict=True)) for row in head.weight]
    assert head.logits(x[None].astype(np.float32))[0] == pytest.approx(
        by_hand + head.bias, rel=1e-3
    )


@pytest.mark.parametrize("kind", ["linear", "mlp", "kernel"])
def test_every_kind_of_head_comes_back_and_can_be_explained(
    kind: str, columns: int, tmp_path: Path
) -> None:
    head = heads(columns)[kind]
    path = tmp_path / "m.safetensors"
    again = load_bundle(path, save_bundle(path, bundle(head)))
    assert kind_of(again.head) == kind and again.kind == "quick" and again.body is None
    for name, value in vars(head).items():
        assert (vars(again.head)[name] == value).all()
    predictor = Predictor(again, CPU)
    cam = grad_cam(predictor, picture(), 1)
    assert np.abs(cam.raw).max() > 0
    steps = integrated_gradients(predictor, picture(), 1, n_steps=12)
    x = predictor.input_tensor([picture()])
    with torch.inference_mode():
        change = float(predictor.net(x)[0, 1] - predictor.net(torch.zeros_like(x))[0, 1])
    assert steps.raw.sum() == pytest.approx(change + (steps.delta or 0), abs=0.02)


def tuned_net() -> StageNet:
    """Return Lite0 with weights that no file has: what fine-tuning would leave."""
    net = build_backbone(fuse=False).net.train()
    torch.manual_seed(0)
    with torch.no_grad():
        for value in net.parameters():
            value.mul_(1 + 0.05 * torch.randn_like(value))
        net(torch.rand(4, 3, 64, 64))  # the running means of the normalisation move too
    return net.eval()


def test_a_network_file_needs_no_weights_file(
    columns: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    net, head = tuned_net(), heads(columns)["linear"]
    assert isinstance(head, LinearHead)
    whole = QuickNet(net, STAGES, head, 2.0)
    made = network_bundle(
        get_backbone("efficientnet_lite0"), body_arrays(net, STAGES), head, STAGES,
        class_ids=[5, 6, 7], class_names=["a", "b", "c"], started_from="0" * 16, image_size=64,
        temperature=2.0, predict_views=("clean", "rot90"),
    )  # fmt: skip
    path = tmp_path / "m.safetensors"
    again = load_bundle(path, save_bundle(path, made))
    assert again.kind == "network" and again.predict_views == ("clean", "rot90")

    def nowhere(*_: object, **__: object) -> None:
        raise AssertionError("a weights file was asked for")

    monkeypatch.setattr("cnsapp.ml.predict.build_backbone", nowhere)
    predictor = Predictor(again, CPU, tmp_path)
    x = predictor.input_tensor([picture(1), picture(2)])
    with torch.inference_mode():
        assert torch.allclose(predictor.net(x), whole(x), rtol=1e-3, atol=1e-3)
    assert grad_cam(predictor, picture(), 0).layer == predictor.net.names[-1]
    assert predictor.predict([picture(1)]).shape == (1, 3)


def test_16_bit_weights_are_stored_as_32_bit_ones(columns: int, tmp_path: Path) -> None:
    head = heads(columns)["linear"]
    assert isinstance(head, LinearHead)
    net = tuned_net().to(torch.bfloat16)
    made = network_bundle(
        get_backbone("efficientnet_lite0"), body_arrays(net, STAGES), head, STAGES,
        class_ids=[5, 6, 7], class_names=["a", "b", "c"], started_from="", image_size=64,
    )  # fmt: skip
    path = tmp_path / "m.safetensors"
    save_bundle(path, made)
    stored = load(path.read_bytes())
    assert {str(v.dtype) for v in stored.values()} == {"float32"}
    first = net.stages[0].state_dict()
    key = next(k for k in first if k.endswith("weight"))
    assert (stored[f"body.block0.{key}"] == first[key].float().numpy()).all()


def test_weights_of_another_network_are_refused_in_words(columns: int) -> None:
    head = heads(columns)["linear"]
    assert isinstance(head, LinearHead)
    body = body_arrays(tuned_net(), STAGES)
    made = network_bundle(
        get_backbone("resnet18"), body, head, STAGES, class_ids=[5, 6, 7],
        class_names=["a", "b", "c"], started_from="", image_size=64,
    )  # fmt: skip
    with pytest.raises(CnsError, match="do not fit resnet18"):
        Predictor(replace(made, stages=("layer1", "layer2")), CPU)
    body.pop(next(iter(body)))
    lacking = replace(
        made,
        body=body,
        features={**made.features, "backbone": "efficientnet_lite0", "architecture": ""},
    )
    with pytest.raises(CnsError, match="the stage block0 does not fit"):
        Predictor(lacking, CPU)


def old_file(head: LinearHead) -> bytes:
    """Return a file as version 1 of the app wrote it."""
    meta = {
        "class_ids": [4, 9], "class_names": ["x", "y"], "data_fingerprint": "abc",
        "features": {"backbone": "efficientnet_lite0", "weights": "w"}, "format": "cnsapp-quick",
        "format_version": 1, "metrics": {}, "predict_views": ["clean"], "settings": {},
        "spec_id": "s", "stages": ["block0"], "strength": 0.01, "temperature": 1.2,
        "threshold": 0.5, "versions": {},
    }  # fmt: skip
    return save(
        {name: np.ascontiguousarray(value, np.float32) for name, value in vars(head).items()},
        {"cnsapp": json.dumps(meta)},
    )


def test_files_of_the_first_version_still_open(tmp_path: Path) -> None:
    head = heads()["linear"]
    assert isinstance(head, LinearHead)
    path = tmp_path / "old.safetensors"
    path.write_bytes(old_file(head))
    found = load_bundle(path)
    assert isinstance(found.head, LinearHead)
    assert (found.head.weight == head.weight).all() and (found.head.std == head.std).all()
    assert found.kind == "quick" and found.stages == ("block0",) and found.temperature == 1.2


def test_files_of_a_later_version_and_foreign_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    save_bundle(path, bundle(heads()["mlp"]))
    data = path.read_bytes()
    path.write_bytes(data.replace(b'\\"format_version\\": 2', b'\\"format_version\\": 3'))
    with pytest.raises(CnsError, match=r"has format cnsapp-model 3.*Update the app"):
        load_bundle(path)
    path.write_bytes(data.replace(b'\\"head_kind\\": \\"mlp\\"', b'\\"head_kind\\": \\"xyz\\"'))
    with pytest.raises(CnsError, match="is not a model file of this app, or it is damaged"):
        load_bundle(path)
    path.write_bytes(save({"weight": np.zeros(3, np.float32)}))
    with pytest.raises(CnsError, match="is not a model file of this app"):
        load_bundle(path)


def test_a_trained_linear_head_comes_back_as_it_is() -> None:
    head = heads()["linear"]
    assert isinstance(head, LinearHead)
    module = LinearModule(head, dropout=0.5)
    assert all((vars(module.as_head())[k] == v).all() for k, v in vars(head).items())
    with torch.no_grad():
        module.linear.bias += 1
    assert module.as_head().bias == pytest.approx(head.bias + 1)
