"""Saliency maps against Captum called by hand and against closed forms, network by network."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from captum.attr import (
    DeepLift,
    GuidedBackprop,
    GuidedGradCam,
    InputXGradient,
    IntegratedGradients,
    Occlusion,
)
from torch import nn

from cnsapp.domain.backbones import FACTS
from cnsapp.domain.maps import METHODS, offered
from cnsapp.errors import CnsError, InvalidInputError
from cnsapp.ml.backbones import BACKBONES, build_backbone
from cnsapp.ml.predict import Predictor
from cnsapp.ml.saliency import explain
from cnsapp.ml.saliency_inputs import baseline, blurred, to_input_size
from cnsapp.ml.saliency_network import look_at, offered_for
from tests.unit.small_nets import linear_predictor, make_predictor, noise, random_stages

SIDE = {"inception_v3": 75, "vit_b_16": 48, "small_cnn": 64}  # else 32 px
QUICK: dict[str, dict[str, Any]] = {
    "integrated_gradients": {"steps": 3},
    "smoothgrad": {"samples": 2},
    "occlusion": {"window": 20, "stride": 20, "baseline": "gray"},
}


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Small images do not gain by more, and a loaded machine loses much."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module", params=list(FACTS))
def model(request: pytest.FixtureRequest) -> Predictor:
    """Return one model a backbone, with random weights at a small size."""
    name = request.param
    return make_predictor(random_stages(name), BACKBONES[name], SIDE.get(name, 32))


def by_hand(predictor: Predictor, x: torch.Tensor, target: int, method: str) -> torch.Tensor:
    """Return what Captum, or an own hook, says of the same input, (h, w)."""
    net: nn.Module = predictor.net
    layer = predictor.net.stage(predictor.backbone.row.saliency_stage)
    if method in ("gradcam", "hirescam"):
        kept: list[torch.Tensor] = []
        hook = layer.register_forward_hook(lambda *a: kept.append(a[2]))
        logit = net(x)[0, target]
        hook.remove()
        (gradient,) = torch.autograd.grad(logit, kept[0])
        weight = gradient.mean((2, 3), keepdim=True) if method == "gradcam" else gradient
        return (weight * kept[0]).sum(1)[0].detach()
    if method == "integrated_gradients":
        found = IntegratedGradients(net).attribute(x, torch.zeros_like(x), target, n_steps=3)
    elif method == "occlusion":
        found = Occlusion(net).attribute(
            x.detach(), sliding_window_shapes=(3, 20, 20), strides=(3, 20, 20), target=target
        )
        return found[0, 0]
    elif method == "deeplift":
        found = DeepLift(net).attribute(x, torch.zeros_like(x), target)
    elif method == "input_x_gradient":
        found = InputXGradient(net).attribute(x, target)
    elif method == "smoothgrad":
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            low, high = x.detach().aminmax()
            noisy = x.detach() + 0.15 * (high - low) * torch.normal(
                0, torch.ones(2, *x.shape[1:])
            )  # fmt: skip
        (gradient,) = torch.autograd.grad(net(noisy.requires_grad_())[:, target].sum(), noisy)
        return gradient.mean(0).abs().sum(0)
    elif method == "guided_backprop":
        found = GuidedBackprop(net).attribute(x, target).abs()
    else:
        found = GuidedGradCam(net, layer).attribute(
            x, target, interpolate_mode="bilinear"
        ).abs()  # fmt: skip
    return found[0].sum(0).detach()


@pytest.mark.filterwarnings("ignore:Setting")
def test_every_offered_map_is_captums_and_leaves_the_model_as_it_was(model: Predictor) -> None:
    size = model.preprocessing.size
    image = noise(size)
    before = model.predict([image])
    state = {k: v.clone() for k, v in model.net.state_dict().items()}
    names = [o.method.id for o in offered_for(model) if not o.reason]
    for method in names:
        for target in (1, 0, 2):  # random weights may have nothing that speaks for a class
            found = explain(model, image, target, method, QUICK.get(method))
            expected = by_hand(model, model.input_tensor([image]).requires_grad_(), target, method)
            largest = float(expected.abs().max())
            if largest > 0:
                break
        assert largest > 0, method
        assert found.raw == pytest.approx(expected.numpy(), abs=2e-3 * largest), method
        assert found.map.shape == (size, size) and np.isfinite(found.map).all()
        assert 0.99 < np.abs(found.map).max() <= 1.0001 or not found.has_positive
        assert sorted(found.ranking) == list(range(196))
    assert (model.predict([image]) == before).all()
    assert all(torch.equal(v, state[k]) for k, v in model.net.state_dict().items())
    assert not any(m.training for m in model.net.modules())
    assert not any(p.requires_grad for p in model.net.parameters())
    assert not any(m._forward_hooks or m._backward_hooks for m in model.net.modules())


def test_the_look_at_a_network_agrees_with_what_its_row_says(model: Predictor) -> None:
    row = model.backbone.row
    look = look_at(model.net, model.preprocessing.size)
    assert look.relu_layers_only == row.facts.relu_only
    if not row.facts.relu_only:
        assert look.others
    found = {o.method.id: bool(o.reason) for o in offered_for(model)}
    assert found == {o.method.id: bool(o.reason) for o in offered(row.facts)}


def test_a_relu_that_is_a_function_is_seen() -> None:
    class Functional(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.relu(x)

    predictor, _ = linear_predictor(32)
    assert not look_at(predictor.net, 32).relu_layers_only  # it has no ReLU at all
    predictor.net.body.append(nn.ReLU())
    assert look_at(predictor.net, 32).relu_layers_only
    predictor.net.body.append(Functional())
    look = look_at(predictor.net, 32)
    assert (look.n_relu_layers, look.n_relu_functions) == (1, 1) and not look.relu_layers_only
    predictor.net.body[-1] = predictor.net.body[-2]
    assert look_at(predictor.net, 32).relu_layers_shared


def lite0() -> Predictor:
    return make_predictor(random_stages("efficientnet_lite0"), BACKBONES["efficientnet_lite0"], 64)


@pytest.mark.filterwarnings("ignore:Setting backward hooks on ReLU")
def test_guided_backpropagation_is_the_plain_gradient_where_it_is_not_offered() -> None:
    predictor = lite0()
    x = predictor.input_tensor([noise(64)]).requires_grad_()
    (gradient,) = torch.autograd.grad(predictor.net(x)[0, 1], x)
    guided = GuidedBackprop(predictor.net).attribute(x, 1)
    assert torch.allclose(guided, gradient, atol=1e-6 * float(gradient.abs().max()))
    with pytest.raises(InvalidInputError, match="other non-linearities than ReLU"):
        explain(predictor, noise(64), 1, "guided_backprop")
    relus = make_predictor(random_stages("small_cnn"), BACKBONES["small_cnn"], 64)
    x = relus.input_tensor([noise(64)]).requires_grad_()
    (gradient,) = torch.autograd.grad(relus.net(x)[0, 1], x)
    guided = GuidedBackprop(relus.net).attribute(x, 1)
    assert float((guided - gradient).abs().max()) > 0.1 * float(gradient.abs().max())


@pytest.mark.filterwarnings("ignore:Setting forward, backward hooks")
def test_deeplift_is_input_times_gradient_where_it_is_not_offered() -> None:
    published = build_backbone("efficientnet_lite0")  # random weights hardly reach the bends
    predictor = make_predictor(published.net, published.row, 64)
    x = predictor.input_tensor([noise(64)]).requires_grad_()
    found = DeepLift(predictor.net).attribute(x, torch.zeros_like(x), 1).detach()
    plain = InputXGradient(predictor.net).attribute(x, 1).detach()
    assert torch.allclose(found, plain, atol=1e-5 * float(plain.abs().max()))
    with torch.inference_mode():
        change = float(predictor.net(x)[0, 1] - predictor.net(torch.zeros_like(x))[0, 1])
    assert abs(float(found.sum()) - change) > 0.2 * abs(change)  # it does not add up
    with pytest.raises(InvalidInputError, match="DeepLift is not offered"):
        explain(predictor, noise(64), 1, "deeplift")


@pytest.mark.parametrize("name", ["small_cnn", "densenet121"])
def test_deeplift_adds_up_where_it_is_offered(name: str) -> None:
    predictor = make_predictor(random_stages(name), BACKBONES[name], 64)
    found = explain(predictor, noise(64), 1, "deeplift")
    x = predictor.input_tensor([noise(64)])
    with torch.inference_mode():
        change = float(predictor.net(x)[0, 1] - predictor.net(torch.zeros_like(x))[0, 1])
    assert found.change == pytest.approx(change, rel=1e-3)
    assert found.raw.sum() == pytest.approx(change, rel=0.05)


@pytest.mark.filterwarnings("ignore:Setting forward, backward hooks")
def test_deeplift_fails_where_one_relu_layer_is_used_twice() -> None:
    resnet = make_predictor(random_stages("resnet18"), BACKBONES["resnet18"], 32)
    x = resnet.input_tensor([noise(32)]).requires_grad_()
    with pytest.raises(RuntimeError, match="used more than once"):
        DeepLift(resnet.net).attribute(x, torch.zeros_like(x), 1)


def test_a_linear_models_maps_are_its_weights() -> None:
    predictor, weight = linear_predictor(56)
    image = noise(56)
    x = predictor.input_tensor([image])[0].numpy()  # (3, S, S)
    gradient = weight[1][:, None, None] / 56**2
    parts = (gradient * x).sum(0)  # what each pixel adds to the logit
    largest = float(np.abs(parts).max())
    for method in ("integrated_gradients", "input_x_gradient", "gradcam"):
        found = explain(predictor, image, 1, method, {"show": "signed"})
        assert found.raw == pytest.approx(parts, abs=largest * 1e-4), method
    smooth = explain(predictor, image, 1, "smoothgrad")
    assert smooth.raw == pytest.approx(np.full((56, 56), np.abs(gradient).sum()), rel=1e-3)
    covered = explain(
        predictor, image, 1, "occlusion", {"window": 8, "stride": 8, "baseline": "gray"}
    ).raw
    blocks = parts.reshape(7, 8, 7, 8).sum((1, 3))
    assert covered[::8, ::8] == pytest.approx(blocks, abs=1e-3 * float(np.abs(blocks).max()))


def test_hirescam_adds_up_to_the_logit_where_grad_cam_loses_what_varies() -> None:
    net, row = random_stages("small_cnn"), BACKBONES["small_cnn"]
    predictor = make_predictor(net, row, 64, stages=("last",))
    with torch.inference_mode():
        logit = float(predictor.net(predictor.input_tensor([noise(64)]))[0, 1])
    by_place = explain(predictor, noise(64), 1, "hirescam", {"show": "signed"}).raw
    assert by_place.sum() == pytest.approx(logit, rel=1e-2)  # means and deviations both scale
    head = predictor.net.head.linear.weight[1]  # type: ignore[union-attr, index]
    maps = _last_map(predictor)  # the means' share of the logit is all that Grad-CAM sees
    only_means = float((head[: maps.shape[1]] * maps.mean((2, 3))[0]).sum())
    averaged = explain(predictor, noise(64), 1, "gradcam", {"show": "signed"}).raw
    assert averaged.sum() == pytest.approx(only_means, rel=1e-2)
    assert abs(only_means - logit) > 0.05 * abs(logit)


def _last_map(predictor: Predictor) -> torch.Tensor:
    x = predictor.input_tensor([noise(64)])
    with torch.inference_mode():
        for stage in predictor.net.body:
            x = stage(x)
    return x


@pytest.mark.parametrize("kind", ["gray", "white", "black", "blur"])
def test_integrated_gradients_add_up_from_any_baseline(kind: str) -> None:
    predictor, _ = linear_predictor(56)
    x = predictor.input_tensor([noise(56)])
    start = baseline(x, kind, predictor.preprocessing)
    with torch.inference_mode():
        change = float(predictor.net(x)[0, 2] - predictor.net(start)[0, 2])
    found = explain(predictor, noise(56), 2, "integrated_gradients", {"baseline": kind, "steps": 2})
    assert found.change == pytest.approx(change, abs=1e-4)
    assert found.delta == pytest.approx(0, abs=1e-4)
    assert found.raw.sum() == pytest.approx(change, abs=1e-3)


def test_more_steps_make_integrated_gradients_more_exact() -> None:
    predictor = make_predictor(random_stages("small_cnn"), BACKBONES["small_cnn"], 64)
    errors = [
        abs(explain(predictor, noise(64), 0, "integrated_gradients", {"steps": n}).delta or 0)
        for n in (2, 100)
    ]
    assert errors[1] < 0.5 * errors[0]


def test_baselines_are_what_they_are_called() -> None:
    predictor, _ = linear_predictor(56)
    for kind, level in (("white", 255), ("black", 0)):
        same = predictor.input_tensor([np.full((56, 56, 3), level, np.uint8)])
        assert torch.allclose(baseline(same * 0.3, kind, predictor.preprocessing), same, atol=1e-5)


def test_a_blur_keeps_a_flat_image_and_the_mean_of_any() -> None:
    flat = torch.full((1, 3, 40, 40), 0.7)
    assert torch.allclose(blurred(flat), flat, atol=1e-5)
    x = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    assert float(blurred(x).std()) < 0.2 * float(x.std())
    spot = torch.zeros(1, 1, 101, 101)
    spot[..., 50, 50] = 1
    out = blurred(spot, 5 / 101)[0, 0]
    assert float(out.sum()) == pytest.approx(1, abs=1e-4)
    ratio = float(out[50, 55] / out[50, 50])  # a Gaussian falls by exp(-1/2) in one deviation
    assert ratio == pytest.approx(np.exp(-0.5), rel=1e-3)


def test_the_sign_that_was_asked_for_is_shown() -> None:
    predictor, _ = linear_predictor(56)
    image = noise(56)
    signed = explain(predictor, image, 0, "gradcam", {"show": "signed"})
    positive = explain(predictor, image, 0, "gradcam")
    assert (signed.sign, positive.sign) == ("signed", "positive")
    assert signed.map.min() < 0 < signed.map.max() and positive.map.min() == 0
    assert np.abs(signed.map).max() == pytest.approx(1)
    strongest = np.unravel_index(positive.map.argmax(), positive.map.shape)
    assert signed.map[strongest] > 0


def test_no_evidence_is_said_and_not_raised() -> None:
    predictor, weight = linear_predictor(56)
    level = 255 if weight[1].sum() < 0 else 0  # every pixel speaks against class b
    image = np.full((40, 30, 3), level, np.uint8)
    found = explain(predictor, image, 1, "gradcam")
    assert not found.has_positive and (found.map == 0).all() and found.scale == 0
    against = explain(predictor, image, 1, "gradcam", {"show": "signed"})
    assert not against.has_positive and (against.map < 0).all()


@pytest.mark.parametrize("level", [0, 128, 255])
@pytest.mark.parametrize("show", ["positive", "signed"])
def test_rounding_on_empty_glass_is_no_evidence(level: int, show: str) -> None:
    predictor = make_predictor(random_stages("small_cnn"), BACKBONES["small_cnn"], 64)
    image = np.full((64, 64, 3), level, np.uint8)  # a blurred copy of it is itself
    for method in ("occlusion", "integrated_gradients"):
        found = explain(predictor, image, 0, method, {"baseline": "blur", "show": show})
        assert not found.map.any() and found.scale == 0 and not found.has_positive, method
    assert explain(predictor, noise(64), 0, "occlusion").scale > 0.01


def test_windows_that_would_take_hours_are_refused() -> None:
    predictor, _ = linear_predictor(112)
    with pytest.raises(CnsError, match=r"are 12,321 on 112 x 112 pixels"):
        explain(predictor, noise(112), 0, "occlusion", {"window": 2, "stride": 1})


def test_a_map_lies_over_what_it_shows() -> None:
    predictor, weight = linear_predictor(56)
    level = 255 if weight[1].sum() > 0 else 0
    image = np.full((60, 120, 3), 128, np.uint8)
    image[6:18, 90:110] = level  # a spot in the upper right
    for method in ("gradcam", "integrated_gradients", "occlusion"):
        settings = {"window": 4, "baseline": "gray"} if method == "occlusion" else None
        found = explain(predictor, image, 1, method, settings).map
        assert found.shape == (60, 120)
        row, column = (found * np.indices((60, 120))).sum((1, 2)) / found.sum()
        assert abs(row - 11.5) < 2 and abs(column - 99.5) < 3, method


def test_cells_of_a_transformer_lie_over_their_own_patches() -> None:
    net = copy.copy(make_predictor(random_stages("vit_b_16"), BACKBONES["vit_b_16"], 48).net)
    cells = torch.zeros(3, 3)
    cells[1, 1] = 1  # of patches 16 to 32 of an input of 40 px, which is filled up to 48
    sized = to_input_size(cells, net, 40)
    assert sized.shape == (40, 40)
    weights = sized / sized.sum()
    middle = float((weights.sum(1) * torch.arange(40)).sum())
    assert middle == pytest.approx(23.5, abs=0.6)


def test_unknown_classes_methods_and_settings_are_refused() -> None:
    predictor, _ = linear_predictor(32)
    with pytest.raises(CnsError, match="no class number 3"):
        explain(predictor, noise(32), 3)
    with pytest.raises(InvalidInputError, match="no saliency method “lime”"):
        explain(predictor, noise(32), 0, "lime")
    with pytest.raises(InvalidInputError, match="no setting “depth”"):
        explain(predictor, noise(32), 0, "gradcam", {"depth": 3})


def test_every_method_has_a_paper_and_words_for_a_reader() -> None:
    for method in METHODS:
        assert method.paper and method.note.endswith(".")
