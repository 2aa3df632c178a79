"""Small networks with one hidden layer, many of them trained at once on shared rows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

HIDDEN = 32
BATCH = 256
STEPS = 160
LEARNING_RATE = 0.01
HIDE_INPUTS, HIDE_HIDDEN = 0.1, 0.3
BETAS, EPSILON = (0.9, 0.99), 1e-8


@dataclass(frozen=True)
class Mlps:
    """P networks: `first` (R, P, H), `first_bias` (P, H), `second` (P, H, K), `second_bias` (P, K).

    Network p says relu(x @ first[:, p] + first_bias[p]) @ second[p] + second_bias[p].
    """

    first: torch.Tensor
    first_bias: torch.Tensor
    second: torch.Tensor
    second_bias: torch.Tensor

    def logits(self, x: Floats, problems: slice = slice(None)) -> Floats:
        """Return logits (P, N, K) of rows (N, R) by some of the networks."""
        second, bias = self.second[problems], self.second_bias[problems]
        with torch.inference_mode():
            rows = torch.from_numpy(np.ascontiguousarray(x, np.float32))
            hidden = _hidden(rows, self.first[:, problems], self.first_bias[problems]).relu()
            out = torch.baddbmm(bias[:, None], hidden.transpose(0, 1), second)
        found: Floats = out.numpy()
        return found


def fit_mlps(
    x: Floats, y: Ints, row_weights: Floats, decays: Floats, n_classes: int, seed: int
) -> Mlps:
    """Train P networks that share their rows, by Adam with decoupled weight decay.

    Parameters
    ----------
    x
        (M, R) rows of about unit variance.
    y
        (M,) class indices.
    row_weights
        (P, M), 0 for rows that a network must not see.
    decays
        (P,) weight decay, 0 or more.
    n_classes
        K.
    seed
        Of first weights, order of rows and what is hidden: the same on every machine but for
        rounding.

    References
    ----------
    Loshchilov and Hutter, Decoupled weight decay regularization, ICLR 2019; Srivastava et al.,
    Dropout, JMLR 2014.
    """
    random = torch.Generator().manual_seed(seed)
    n_rows, n_problems = len(x), len(row_weights)
    rows, labels = torch.from_numpy(np.ascontiguousarray(x, np.float32)), torch.from_numpy(y)
    total = np.maximum(row_weights.sum(1, keepdims=True), 1e-9)
    weights = torch.from_numpy(np.asarray(row_weights / total * n_rows, np.float32)).T  # (M, P)
    made = _start(x.shape[1], n_problems, n_classes, random)
    optimiser = _Adam(made, torch.from_numpy(np.asarray(decays, np.float32)))
    batch = min(BATCH, n_rows)
    steps = max(STEPS, 3 * -(-n_rows // batch))
    order = torch.randperm(n_rows, generator=random)
    at = 0
    for step in range(steps):
        if at + batch > n_rows:
            order, at = torch.randperm(n_rows, generator=random), 0
        part = order[at : at + batch]
        at += batch
        gradients = _gradients(made, rows[part], labels[part], weights[part], random)
        rate = LEARNING_RATE * 0.5 * (1 + float(np.cos(np.pi * step / steps)))
        optimiser.step(gradients, rate)
    return Mlps(*made)


def _start(
    n_inputs: int, n_problems: int, n_classes: int, random: torch.Generator
) -> list[torch.Tensor]:
    """Return first weights; every network begins with the same ones."""
    first = torch.randn(n_inputs, 1, HIDDEN, generator=random) * (2 / n_inputs) ** 0.5
    second = torch.randn(1, HIDDEN, n_classes, generator=random) * HIDDEN**-0.5
    return [
        first.repeat(1, n_problems, 1), torch.zeros(n_problems, HIDDEN),
        second.repeat(n_problems, 1, 1), torch.zeros(n_problems, n_classes),
    ]  # fmt: skip


def _hidden(x: torch.Tensor, first: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """Return (N, P, H) before the ReLU: one product for all networks."""
    return (x @ first.flatten(1)).reshape(len(x), *first.shape[1:]) + bias


def _gradients(
    made: list[torch.Tensor],
    x: torch.Tensor,
    y: torch.Tensor,
    weight: torch.Tensor,
    random: torch.Generator,
) -> list[torch.Tensor]:
    """Return the gradients of the mean weighted cross-entropy of every network.

    `weight` is (B, P). Written out, since autograd would take as long again.
    """
    first, first_bias, second, second_bias = made
    n = len(x)
    x = x * _mask((n, x.shape[1]), HIDE_INPUTS, random)
    before = _hidden(x, first, first_bias)  # (B, P, H)
    shown = (before > 0) * _mask((n, 1, before.shape[2]), HIDE_HIDDEN, random)
    hidden = (before * shown).transpose(0, 1)  # (P, B, H)
    p = torch.baddbmm(second_bias[:, None], hidden, second).softmax(-1)  # (P, B, K)
    p[:, torch.arange(n), y] -= 1
    error = p * (weight.T[:, :, None] / n)
    back = torch.bmm(error, second.transpose(1, 2)).transpose(0, 1) * shown  # (B, P, H)
    return [
        (x.T @ back.flatten(1)).reshape(first.shape), back.sum(0),
        torch.bmm(hidden.transpose(1, 2), error), error.sum(1),
    ]  # fmt: skip


def _mask(shape: tuple[int, ...], share: float, random: torch.Generator) -> torch.Tensor:
    return (torch.rand(shape, generator=random) >= share).float() / (1 - share)


class _Adam:
    """Adam for a few tensors in which the networks lie side by side, each with its own decay."""

    def __init__(self, made: list[torch.Tensor], decays: torch.Tensor) -> None:
        self.made, self.count = made, 0
        self.mean = [torch.zeros_like(value) for value in made]
        self.square = [torch.zeros_like(value) for value in made]
        self.decay = [decays[None, :, None], None, decays[:, None, None], None]  # not of biases

    def step(self, gradients: list[torch.Tensor], rate: float) -> None:
        """Move along the gradients."""
        self.count += 1
        a, b = BETAS
        down, root = 1 - a**self.count, (1 - b**self.count) ** 0.5
        parts = zip(self.made, gradients, self.mean, self.square, self.decay, strict=True)
        for value, gradient, mean, square, decay in parts:
            if decay is not None:
                value.mul_(1 - rate * decay)
            mean.lerp_(gradient, 1 - a)
            square.mul_(b).addcmul_(gradient, gradient, value=1 - b)
            value.addcdiv_(mean, square.sqrt().div_(root).add_(EPSILON), value=-rate / down)
