"""What maps start from: images that stand for “nothing there”, and which pixels a cell covers."""

from __future__ import annotations

import torch
from torch.nn.functional import conv2d, interpolate, pad

from cnsapp.ml.network import QuickNet
from cnsapp.ml.preprocess import Preprocessing
from cnsapp.ml.tokens import EnterTimm, EnterTokens

BLUR = 20 / 224  # standard deviation of the blur, as a share of the side


def blurred(x: torch.Tensor, share: float = BLUR) -> torch.Tensor:
    """Return (B, C, S, S) blurred by a Gaussian of `share` times S; edges are mirrored.

    A blurred image has the colours and the light of the image, and none of its structures.
    """
    side = min(x.shape[2:])
    sigma = max(side * share, 1e-3)
    reach = min(int(3 * sigma + 0.5), side - 1)
    offsets = torch.arange(-reach, reach + 1, device=x.device, dtype=x.dtype)
    kernel = (-0.5 * (offsets / sigma).square()).exp()
    kernel = kernel / kernel.sum()
    n = x.shape[1]
    padded = pad(x, [reach] * 4, mode="reflect")
    rows = conv2d(padded, kernel.view(1, 1, -1, 1).repeat(n, 1, 1, 1), groups=n)
    return conv2d(rows, kernel.view(1, 1, 1, -1).repeat(n, 1, 1, 1), groups=n)


def baseline(x: torch.Tensor, kind: str, preprocessing: Preprocessing) -> torch.Tensor:
    """Return what stands for “nothing there”, of the shape of the normalised input x.

    Parameters
    ----------
    kind
        `gray` (the middle colour of the network's preprocessing: zeros), `white`, `black` or
        `blur`.
    """
    if kind == "blur":
        return blurred(x)
    if kind == "gray":
        return torch.zeros_like(x)
    level = {"white": 1.0, "black": 0.0}[kind]
    values = [(level - m) / s for m, s in zip(preprocessing.mean, preprocessing.std, strict=True)]
    return torch.tensor(values, device=x.device).view(1, -1, 1, 1).expand_as(x).contiguous()


def to_input_size(cells: torch.Tensor, net: QuickNet, side: int) -> torch.Tensor:
    """Enlarge a map of cells (h, w) to the input (side, side), each cell over its own pixels.

    Transformers fill an input up to whole patches, so that their last cells reach over its edge:
    what lies outside is cut off, else the map would be shifted against the image.
    """
    patch = _patch(net)
    height, width = (max(n * patch, side) if patch else side for n in cells.shape)
    sized = interpolate(
        cells[None, None], size=(height, width), mode="bilinear", align_corners=False
    )[0, 0]
    return sized[:side, :side]


def _patch(net: QuickNet) -> int:
    """Return the side of the patches that a plain transformer cuts its input into, or 0."""
    for module in net.body.modules():
        if isinstance(module, EnterTokens):
            return module.patch
        if isinstance(module, EnterTimm):
            return int(module.patch_embed.patch_size[0])
    return 0
