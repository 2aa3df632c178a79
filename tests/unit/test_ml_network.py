"""The whole way from pixels to answers, maps and model files, on small generated images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from cnsapp.domain.calibration import softmax
from cnsapp.errors import Cancelled, CnsError
from cnsapp.ml.backbones import BACKBONES, build_backbone, get_backbone
from cnsapp.ml.bundle import Bundle, load_bundle, make_bundle, save_bundle
from cnsapp.ml.device import choose_device, describe_device
from cnsapp.ml.features import FeatureExtractor, pool_stages
from cnsapp.ml.predict import Predictor
from cnsapp.ml.preprocess import make_view, pixels_key
from cnsapp.ml.quick import train_quick
from cnsapp.ml.saliency import grad_cam, integrated_gradients

CPU = choose_device("cpu")
Pixels = NDArray[np.uint8]


def textures(n: int = 16, size: Sequence[int] = (64, 48)) -> tuple[list[Pixels], NDArray[np.int64]]:
    """Return images of two classes: fine and coarse checks under noise."""
    rng = np.random.default_rng(0)
    y = np.arange(n) % 2
    images = []
    for label in y:
        period = 4 if label == 0 else 16
        rows, columns = np.indices(size) // period
        base = 90 + 80 * ((rows + columns) % 2)
        noisy = base[:, :, None] + rng.normal(0, 12, (*size, 3))
        images.append(np.clip(noisy, 0, 255).astype(np.uint8))
    return images, y


@pytest.fixture(scope="module")
def extractor() -> FeatureExtractor:
    torch.set_num_threads(1)
    return FeatureExtractor(device=CPU)


@pytest.fixture(scope="module")
def bundle(extractor: FeatureExtractor) -> Bundle:
    images, y = textures()
    rows = np.stack([extractor.extract(images), extractor.extract(images, "jitter1")], axis=1)
    network, colour = extractor.layout.split(rows)
    result = train_quick(
        network, colour, y, None, None, [4, 9], layout=extractor.layout,
        stages=extractor.backbone.row.head_stages, class_names=["fine", "coarse"],
    )  # fmt: skip
    assert result.evaluation.balanced_accuracy == 1
    return make_bundle(result, extractor, data_fingerprint="abc", settings={"preset": "quick"})


@pytest.fixture(scope="module")
def predictor(bundle: Bundle) -> Predictor:
    return Predictor(bundle, CPU)


def test_the_network_gives_the_numbers_of_the_cached_feature_path(
    extractor: FeatureExtractor, bundle: Bundle, predictor: Predictor
) -> None:
    images, y = textures(6)
    rows = extractor.extract(images)[:, extractor.layout.columns(bundle.stages)]
    cached = softmax(bundle.head.logits(rows), bundle.temperature)
    assert predictor.predict(images) == pytest.approx(cached, abs=1e-4)
    assert (cached.argmax(1) == y).all()


def test_pooling_is_mean_and_population_deviation() -> None:
    m = torch.rand(2, 3, 5, 7)
    pooled = pool_stages([m])
    assert torch.allclose(pooled[:, :3], m.mean((2, 3)), atol=1e-5)
    assert torch.allclose(pooled[:, 3:], m.flatten(2).std(2, correction=0), atol=1e-4)


def test_the_last_six_columns_are_the_colour(extractor: FeatureExtractor) -> None:
    image = np.random.default_rng(1).integers(0, 256, (224, 224, 3), dtype=np.uint8)
    row = extractor.extract([image])[0, -6:]
    pixels = image.reshape(-1, 3) / 255
    assert row == pytest.approx(np.concatenate([pixels.mean(0), pixels.std(0)]), abs=1e-3)


def test_folding_the_normalisation_changes_no_output() -> None:
    x = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        pairs = zip(build_backbone().net(x), build_backbone(fuse=False).net(x), strict=True)
        for a, b in pairs:
            assert torch.allclose(a, b, atol=1e-3)


def test_the_pretrained_weights_are_the_published_ones() -> None:
    loaded = build_backbone(fuse=False)
    assert loaded.weights_hash == "579344248a93e230"
    stem = loaded.net.stages[0][0].weight  # type: ignore[index, union-attr]
    assert float(stem.detach().std()) > 0.1  # type: ignore[operator, union-attr]


def test_jitter_is_the_images_own_and_repeatable() -> None:
    image = textures(1)[0][0]
    first = make_view(image, 32, "jitter1", "key")
    assert (first == make_view(image, 32, "jitter1", "key")).all()
    assert (first != make_view(image, 32, "jitter2", "key")).any()
    assert (first != make_view(image, 32, "jitter1", "other")).any()
    assert pixels_key(image) != pixels_key(image[::-1])


def test_four_quarter_turns_bring_an_image_back() -> None:
    image = textures(1, (32, 32))[0][0]
    turned = image
    for _ in range(4):
        turned = make_view(turned, 32, "rot90")
    assert (turned == image).all()
    assert (make_view(image, 32, "rot180") == image[::-1, ::-1]).all()


def test_unknown_views_and_odd_arrays_are_refused() -> None:
    image = textures(1)[0][0]
    with pytest.raises(CnsError, match="no view 'blur'"):
        make_view(image, 32, "blur")
    with pytest.raises(CnsError, match="float"):
        make_view(image.astype(float), 32)  # type: ignore[arg-type]


def test_extraction_reports_progress_and_stops_when_cancelled(extractor: FeatureExtractor) -> None:
    images, _ = textures(6)
    seen: list[tuple[int, int]] = []
    extractor.extract(images, progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (6, 6)
    with pytest.raises(Cancelled):
        extractor.extract(images, cancelled=lambda: True)


def test_missing_weights_are_named_with_their_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "hub"))
    with pytest.raises(CnsError, match=r"vgg16-397923af\.pth") as caught:
        build_backbone("vgg16", tmp_path)
    assert str(tmp_path) in caught.value.remedy


def test_a_weights_file_in_the_folder_is_used(tmp_path: Path) -> None:
    row = get_backbone("resnet18")
    torch.manual_seed(0)
    torch.save(row.builder().state_dict(), tmp_path / row.weights_file)
    loaded = build_backbone("resnet18", tmp_path)
    assert [m.shape[1] for m in loaded.net(torch.zeros(1, 3, 64, 64))] == [64, 128, 256, 512]


def test_a_damaged_or_foreign_weights_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / BACKBONES["resnet18"].weights_file
    path.write_bytes(b"half a file")
    with pytest.raises(CnsError, match="cannot be read"):
        build_backbone("resnet18", tmp_path)
    torch.save({"weight": torch.zeros(1)}, path)
    with pytest.raises(CnsError, match="does not fit ResNet-18"):
        build_backbone("resnet18", tmp_path)


def test_unknown_backbones_and_devices_are_named() -> None:
    with pytest.raises(CnsError, match="no backbone “alexnet”"):
        get_backbone("alexnet")
    with pytest.raises(CnsError, match="GPU 'cuda:99' is not there"):
        choose_device("cuda:99")
    assert describe_device(CPU).startswith("CPU, ")


def test_a_model_file_comes_back_as_it_was(bundle: Bundle, tmp_path: Path) -> None:
    path = tmp_path / "models" / "m.safetensors"
    sha = save_bundle(path, bundle)
    again = load_bundle(path, sha)
    assert (again.head.weight == bundle.head.weight).all()
    assert again.class_ids == [4, 9] and again.class_names == ["fine", "coarse"]
    assert again.temperature == bundle.temperature and again.stages == bundle.stages
    assert again.features == bundle.features and again.data_fingerprint == "abc"
    assert list(path.parent.iterdir()) == [path]


def test_changed_missing_and_truncated_model_files_are_refused(
    bundle: Bundle, tmp_path: Path
) -> None:
    path = tmp_path / "m.safetensors"
    sha = save_bundle(path, bundle)
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(CnsError, match="checksum differs"):
        load_bundle(path, sha)
    for broken in (b"", b"abc", bytes(data[:-40]), b"\xff" * 64):
        path.write_bytes(broken)
        with pytest.raises(CnsError, match="not a model file"):
            load_bundle(path)
    path.unlink()
    with pytest.raises(CnsError, match="cannot be read"):
        load_bundle(path, sha)


def test_other_weights_than_those_trained_on_are_refused(bundle: Bundle) -> None:
    changed = dict(vars(bundle))
    changed["features"] = {**bundle.features, "weights": "0" * 16}
    with pytest.raises(CnsError, match="not those this model was trained on"):
        Predictor(Bundle(**changed), CPU)


def test_rotations_are_averaged_where_the_model_says_so(bundle: Bundle) -> None:
    views = ("clean", "rot90", "rot180", "rot270")
    averaging = Predictor(Bundle(**{**vars(bundle), "predict_views": views}), CPU)
    image = textures(1, (40, 40))[0][0]
    turned = np.ascontiguousarray(np.rot90(image))
    assert averaging.predict([image]) == pytest.approx(averaging.predict([turned]), abs=1e-3)


def test_grad_cam_equals_the_one_worked_by_hand(predictor: Predictor) -> None:
    image = textures(1)[0][0]
    found = grad_cam(predictor, image, 1)
    x = predictor.input_tensor([make_view(image, 224)]).requires_grad_()
    kept: list[torch.Tensor] = []
    hook = predictor.net.stage(found.layer).register_forward_hook(lambda *a: kept.append(a[2]))
    logit = predictor.net(x)[0, 1]
    hook.remove()
    (gradient,) = torch.autograd.grad(logit, kept[0])
    by_hand = (gradient.mean((2, 3), keepdim=True) * kept[0]).sum(1)[0].detach().numpy()
    assert np.abs(found.raw - by_hand).max() < 1e-4 * np.abs(by_hand).max()


def test_a_map_has_the_images_size_and_range(predictor: Predictor) -> None:
    image = textures(1, (70, 110))[0][0]
    for target in (0, 1):
        found = grad_cam(predictor, image, target)
        assert found.map.shape == (70, 110) and found.map.dtype == np.float32
        assert found.map.min() >= 0 and found.map.max() == (1 if found.has_positive else 0)
        assert found.raw.shape == (14, 14)


def test_explaining_leaves_the_model_as_it_was(predictor: Predictor) -> None:
    image = textures(1)[0][0]
    before = predictor.predict([image])
    state = {k: v.clone() for k, v in predictor.net.state_dict().items()}
    found = grad_cam(predictor, image, 0)
    integrated_gradients(predictor, image, 0, n_steps=4)
    assert (predictor.predict([image]) == before).all()
    assert all(torch.equal(v, state[k]) for k, v in predictor.net.state_dict().items())
    assert not predictor.net.training
    assert found.probability == pytest.approx(float(before[0, 0]), abs=1e-5)


def test_integrated_gradients_add_up_to_the_change_of_the_logit(predictor: Predictor) -> None:
    image = textures(1)[0][0]
    found = integrated_gradients(predictor, image, 0, n_steps=20)
    x = predictor.input_tensor([make_view(image, 224)])
    with torch.inference_mode():
        change = float(predictor.net(x)[0, 0] - predictor.net(torch.zeros_like(x))[0, 0])
    assert found.delta is not None
    assert found.raw.sum() == pytest.approx(change + found.delta, abs=1e-2)
    assert found.map.shape == image.shape[:2]


def test_a_class_the_model_lacks_can_not_be_explained(predictor: Predictor) -> None:
    with pytest.raises(CnsError, match="no class number 2"):
        grad_cam(predictor, textures(1)[0][0], 2)
