"""A convolution with its activation as one step, where the processor's library offers it."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn.functional import pad


class ConvAct(nn.Module):
    """A convolution and what follows it: the same numbers as both apart, to rounding.

    On a CPU, without gradients and in float32, oneDNN computes both in one pass over the memory:
    0.8 of the time for EfficientNet-Lite0. Everywhere else the two layers run as they are, so
    that saliency, GPUs and fine-tuning need no other network.

    Parameters
    ----------
    conv
        With zero padding, or timm's "same" padding.
    act
        ReLU6 and ReLU are fused; any other runs behind the convolution.
    """

    def __init__(self, conv: nn.Conv2d, act: nn.Module) -> None:
        super().__init__()
        self.conv, self.act = conv, act
        self._same = type(conv).__name__ == "Conv2dSame"
        self._fused = _fused_activation(act)
        self._can_fuse = conv.padding_mode == "zeros" and not isinstance(conv.padding, str)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the activated maps (B, C_out, h', w') of (B, C_in, h, w)."""
        conv = self.conv
        if not (self._can_fuse and _in_one_pass(x)):
            out: torch.Tensor = self.act(conv(x))
            return out
        padding = list(conv.padding)
        if self._same:
            x, padding = pad(x, self._margins(x)), [0, 0]
        kind, values = self._fused or ("none", [])
        out = torch.ops.mkldnn._convolution_pointwise(
            x, conv.weight, conv.bias, padding, list(conv.stride), list(conv.dilation),
            conv.groups, kind, values, "",
        )  # fmt: skip
        return out if self._fused else self.act(out)

    def _margins(self, x: torch.Tensor) -> list[int]:
        """Return left, right, top and bottom padding that gives ceil(size / stride) outputs."""
        margins: list[int] = []
        for axis in (1, 0):  # `pad` counts from the last axis
            size, step = x.shape[2 + axis], self.conv.stride[axis]
            reach = (self.conv.kernel_size[axis] - 1) * self.conv.dilation[axis] + 1
            lack = max((-(-size // step) - 1) * step + reach - size, 0)
            margins += [lack // 2, lack - lack // 2]
        return margins


def _fused_activation(act: nn.Module) -> tuple[str, list[float]] | None:
    if isinstance(act, nn.ReLU6):
        return "hardtanh", [0.0, 6.0]
    if isinstance(act, nn.ReLU):
        return "relu", []
    return ("none", []) if isinstance(act, nn.Identity) else None


def _in_one_pass(x: torch.Tensor) -> bool:
    return (
        _HAS_OPERATION
        and x.device.type == "cpu"
        and x.dtype == torch.float32
        and torch.is_inference_mode_enabled()
        and not torch.is_autocast_enabled("cpu")
    )


def _has_operation() -> bool:
    """Say whether this torch has the operation: its name is private, so it is tried out."""
    try:
        x, weight = torch.ones(1, 1, 1, 1), torch.full((1, 1, 1, 1), 7.0)
        call: Any = torch.ops.mkldnn._convolution_pointwise
        with torch.inference_mode():
            out = call(x, weight, None, [0, 0], [1, 1], [1, 1], 1, "hardtanh", [0.0, 6.0], "")
        return bool(torch.backends.mkldnn.enabled) and float(out) == 6.0
    except (AttributeError, RuntimeError, TypeError):
        return False


_HAS_OPERATION = _has_operation()
