"""Other backbones than the default all the way: features, models, maps, fine-tuning, commands."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from cnsapp.bootstrap import App
from cnsapp.domain.recipe import make_recipe
from cnsapp.errors import CnsError, InvalidInputError
from cnsapp.jobs.running import run_here
from cnsapp.ml.backbone_chains import small_cnn
from cnsapp.ml.bundle import load_bundle, save_bundle
from cnsapp.ml.device import Device
from cnsapp.ml.features import FeatureExtractor
from cnsapp.ml.finetune import Finetuner, FitData
from cnsapp.ml.heads import LinearHead
from cnsapp.ml.network import QuickNet
from cnsapp.ml.predict import Predictor
from cnsapp.services import jobs
from cnsapp.services.backbones import check_backbone, list_backbones, view_backbone
from cnsapp.services.models import get_model
from cnsapp.services.training import start_training
from cnsapp.tasks.resources import extractor_of, predictor_of
from tests.integration.worlds import World, make_world

CPU = Device("cpu", None, 4)
STILL = {"rotation": 0, "flips": False, "zoom": 0, "stain": 0, "brightness": 0, "noise": 0,
         "blur": 0}  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Small networks do not gain by more, and a loaded machine loses much."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def put_lab_weights(folder: Path, size: int = 75) -> None:
    """Write weights of our own for the small network, with their card."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(small_cnn().state_dict(), folder / "lab.pth")
    card = {"architecture": "small_cnn", "title": "Lab network", "size": size}
    (folder / "lab.json").write_text(json.dumps(card), encoding="utf-8")


def put_timm_weights(folder: Path, name: str = "test_vit") -> str:
    """Write random weights of one of timm's tiny networks; return the backbone's id."""
    import timm
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = timm.create_model(name, pretrained=False)
    save_file(dict(net.state_dict()), folder / f"{name}.safetensors")
    return f"timm:{name}"


def train(world: World, backbone: str, **options: Any) -> jobs.JobView:
    job_id = start_training(
        world.app, project_id=world.project_id, backbone=backbone, options=options
    )
    run_here(world.app, job_id)
    return jobs.get_job(world.app.store, job_id=job_id)


def test_weights_of_ones_own_make_a_model_that_predicts_and_explains(app: App) -> None:
    from cnsapp.ml.saliency import grad_cam

    world = make_world(app, {"liver": 6, "lung": 6})
    folder = app.store.path("weights")
    put_lab_weights(folder)
    job = train(world, "file:lab")
    assert job.state == "done", job.error
    model = get_model(app.store, model_id=job.result["model_id"])
    assert model.backbone == "file:lab"
    loaded = predictor_of(app, model)
    assert loaded.size == 75
    image = np.random.default_rng(0).integers(0, 256, (50, 60, 3), dtype=np.uint8)
    assert loaded.predictor.predict([image]).shape == (1, 2)
    assert grad_cam(loaded.predictor, image, 0).map.shape == (50, 60)

    before = extractor_of(app, "file:lab")
    assert extractor_of(app, "file:lab") is before
    changed = {k: v * 2 if v.ndim == 4 else v for k, v in small_cnn().state_dict().items()}
    torch.save({**changed, "decoder.bias": torch.zeros(2)}, folder / "lab.pth")
    with pytest.raises(CnsError, match=r"It has a layer decoder\.bias"):
        extractor_of(app, "file:lab")
    torch.save(changed, folder / "lab.pth")
    after = extractor_of(app, "file:lab")
    assert after.spec_id != before.spec_id  # features of other weights are other features
    with pytest.raises(CnsError, match="are not those this model was trained on"):
        Predictor(loaded.predictor.bundle, CPU, folder)


@pytest.mark.parametrize(
    ("backbone", "words"),
    [
        ("resnet50", r"weights of ResNet-50 are not on this machine.*resnet50-11ad3fa6\.pth"),
        ("small_cnn", "can not be the base of a quick model"),
        ("file:lab", r"There is no file lab\.json"),
        ("timm:resnet34", r"resnet34\.safetensors or resnet34\.pth"),
        ("timm:../../etc/passwd", "names no network"),
    ],
)
def test_what_can_not_be_had_is_said_before_a_start(
    app: App, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, backbone: str, words: str
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    world = make_world(app, {"liver": 4, "lung": 4})
    with pytest.raises(InvalidInputError, match=words):
        start_training(app, project_id=world.project_id, backbone=backbone)
    with pytest.raises(InvalidInputError, match=words):
        check_backbone(app.store, backbone=backbone)
    assert jobs.list_jobs(app.store, project_id=world.project_id, kinds=["train"]) == []


def test_a_size_that_a_network_can_not_read_is_said_before_a_start(app: App) -> None:
    check_backbone(app.store, backbone="small_cnn", preset="full", image_size=32)
    with pytest.raises(InvalidInputError, match="Images of 20 px are smaller than"):
        check_backbone(app.store, backbone="small_cnn", preset="full", image_size=20)


def test_the_list_says_what_is_here(
    app: App, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    folder = app.store.path("weights")
    put_lab_weights(folder)
    (folder / "bad.safetensors").write_bytes(b"")
    (folder / "bad.json").write_text("{", encoding="utf-8")
    found = {view.id: view for view in list_backbones(app.store)}
    here = {name for name, view in found.items() if view.available}
    assert here == {"efficientnet_lite0", "small_cnn", "file:lab"}
    assert found["file:lab"].title == "Lab network" and found["file:lab"].path is not None
    assert "bad.json can not be read as JSON" in found["file:bad"].problem
    told = [view.as_json() for view in found.values()]
    assert json.loads(json.dumps(told)) == told
    assert told[1]["id"] == "resnet18" and told[1]["download"].endswith("resnet18-f37072fd.pth")
    shutil.rmtree(folder)
    assert view_backbone(app.store, backbone="efficientnet_lite0").available


def test_the_command_lists_them_for_people_and_for_programs(
    home: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from cnsapp.cli import main

    monkeypatch.setenv("CNS_HOME", str(home))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    assert main(["backbones"]) == 0
    said = capsys.readouterr().out
    assert "https://download.pytorch.org/models/vgg16-397923af.pth (528 MB)" in said
    assert f"Put into {home / 'weights'}" in said
    assert main(["backbones", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert {row["id"]: row["available"] for row in rows}["small_cnn"] is True
    assert all(row["problem"] is None or row["remedy"] for row in rows)


def quick_net(extractor: FeatureExtractor, n_classes: int = 3) -> QuickNet:
    """Return a network with a random head on the stages that are read."""
    stages = extractor.backbone.row.head_stages
    n = len(extractor.layout.columns(stages))
    rng = np.random.default_rng(0)
    head = LinearHead(
        np.zeros(n, np.float32), np.ones(n, np.float32),
        rng.normal(0, 1, (n_classes, n)).astype(np.float32), np.zeros(n_classes, np.float32),
    )  # fmt: skip
    return QuickNet(extractor.backbone, stages, head)


def test_a_transformers_grad_cam_equals_the_one_worked_by_hand(tmp_path: Path) -> None:
    from captum.attr import LayerGradCam

    extractor = FeatureExtractor(put_timm_weights(tmp_path), CPU, tmp_path)
    net, row = quick_net(extractor), extractor.backbone.row
    x = torch.randn(1, 3, 160, 160).requires_grad_()
    found = LayerGradCam(net, net.stage(row.saliency_stage)).attribute(x, target=1)
    kept: list[torch.Tensor] = []
    hook = net.stage(row.saliency_stage).register_forward_hook(lambda *a: kept.append(a[2]))
    logit = net(x)[0, 1]
    hook.remove()
    (gradient,) = torch.autograd.grad(logit, kept[0])
    by_hand = (gradient.mean((2, 3), keepdim=True) * kept[0]).sum(1).detach()
    assert found.shape == (1, 1, 10, 10)
    assert torch.allclose(found[0], by_hand, atol=1e-5 * float(by_hand.abs().max()))


def test_features_of_a_transformer_are_the_same_in_many_threads(tmp_path: Path) -> None:
    extractor = FeatureExtractor(put_timm_weights(tmp_path), CPU, tmp_path)
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (40, 40, 3), dtype=np.uint8) for _ in range(24)]
    together = extractor.extract(images)
    alone = np.concatenate([extractor.extract([image]) for image in images])
    assert together == pytest.approx(alone, abs=1e-4)


def pictures(n: int, side: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Return dark and bright noise."""
    rng = np.random.default_rng(0)
    labels = np.arange(n) % 2
    pixels = rng.integers(0, 100, (n, side, side, 3)) + 100 * labels[:, None, None, None]
    return pixels.astype(np.uint8), labels.astype(np.int64)


@pytest.mark.parametrize(
    ("name", "frozen"),
    [("test_vit", 2), ("test_vit", 0), ("deit_tiny_distilled_patch16_224", -1)],
)
def test_a_transformer_learns_with_its_first_stages_frozen(
    tmp_path: Path, name: str, frozen: int
) -> None:
    folder, side = tmp_path / "weights", 64
    backbone = put_timm_weights(folder, name)
    pixels, labels = pictures(12, side)
    data = FitData(pixels, labels, np.arange(8), np.arange(8, 12), [1, 2], ["dark", "bright"])
    recipe = make_recipe("full", {
        "epochs": 2, "batch_size": 4, "frozen_stages": frozen, "body_rate": 1.0, "ema": 0,
        "test_views": "1", "image_size": side, **STILL,
    })  # fmt: skip
    tuner = Finetuner(backbone, data, recipe, CPU, tmp_path / "run", weights_dir=folder)
    before = {k: v.clone() for k, v in tuner.base.net.state_dict().items()}
    start = tuner.run_epoch(0)
    record = tuner.run_epoch(1)
    assert tuner.base.n_still == max(0, frozen)
    assert record.train_loss is not None and np.isfinite(record.train_loss)
    assert np.isfinite(start.validation_loss)
    moved = [
        not torch.equal(value.detach(), before[f"stages.{tuner.base.n_still + i}.{key}"])
        for i, stage in enumerate(tuner.learner.net.body)
        for key, value in stage.named_parameters()
        if not key.endswith("attn.qkv.bias")  # a key's bias changes no attention
    ]
    assert moved and all(moved)
    assert all(torch.equal(v, before[k]) for k, v in tuner.base.net.state_dict().items())

    network = tuner.finish([start, record])
    path = tmp_path / "model.safetensors"
    save_bundle(path, network.bundle(threshold=0.5, data_fingerprint="", settings={}, metrics={}))
    shutil.rmtree(tmp_path / "weights")  # the model file needs no other
    answers = Predictor(load_bundle(path), CPU, None).predict(list(pixels))
    logits = torch.from_numpy(network.logits(pixels, np.arange(12))) / network.temperature
    assert answers == pytest.approx(logits.softmax(1).numpy(), abs=1e-3)
