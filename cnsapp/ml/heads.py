"""The head of a quick model: standardised features and a strongly regularised linear classifier.

Many heads are fitted at once: folds and strengths of regularisation differ only in which rows count
and how much large weights cost, so that one pass over the features serves them all.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

MAX_ITERATIONS = 300
TOLERANCE = 1e-3


@dataclass(frozen=True)
class LinearHead:
    """A fitted head: logits = ((x - mean) / std) @ weight.T + bias.

    Attributes
    ----------
    mean, std
        (D,) float32, of the training rows; `std` is positive.
    weight, bias
        (K, D) and (K,) float32.
    """

    mean: Floats
    std: Floats
    weight: Floats
    bias: Floats

    def logits(self, x: Floats) -> Floats:
        """Return (N, K) logits of feature rows (N, D)."""
        return ((x - self.mean) / self.std).astype(np.float32) @ self.weight.T + self.bias


def standardiser(x: Floats, row_weight: Floats | None = None) -> tuple[Floats, Floats]:
    """Return mean and standard deviation (D,) of the rows; 1 where a column does not vary.

    Parameters
    ----------
    x
        (N, D).
    row_weight
        (N,) how much each row counts, 0 or more; None counts all alike.
    """
    weight = None if row_weight is None else row_weight / row_weight.sum()
    mean = x.mean(0) if weight is None else weight @ x
    centred = x - mean
    variance = (centred**2).mean(0) if weight is None else weight @ centred**2
    std = np.sqrt(variance)
    std[std < 1e-6 * np.maximum(1, np.abs(mean))] = 1
    return mean.astype(np.float32), std.astype(np.float32)


def class_weights(y: Ints, n_classes: int) -> Floats:
    """Return (N,) weights that let every class present count alike and average 1."""
    counts = np.bincount(y, minlength=n_classes)
    present = int((counts > 0).sum())
    return np.asarray(len(y) / (present * counts[y]), np.float32)


def fit_heads(
    z: Floats, y: Ints, row_weights: Floats, strengths: Floats, n_classes: int
) -> tuple[Floats, Floats]:
    """Fit P multinomial logistic regressions that share their rows.

    Problem p minimises sum_i row_weights[p, i] * cross_entropy_i + |W|^2 / (2 strengths[p]); the
    bias is not penalised.

    Parameters
    ----------
    z
        (M, D) standardised features.
    y
        (M,) class indices.
    row_weights
        (P, M), 0 for rows that a problem must not see.
    strengths
        (P,) inverse penalty C, positive: smaller is more strongly regularised.
    n_classes
        K.

    Returns
    -------
    weights (P, K, D) and biases (P, K), float32.

    Notes
    -----
    Bohning's bound puts one fixed matrix above the Hessian of every problem; in its eigenbasis it
    is diagonal, and accelerated gradient steps scaled by it need no line search. Momentum restarts
    when it points uphill.

    References
    ----------
    Bohning, Multinomial logistic regression algorithm, Ann. Inst. Statist. Math. 1992;
    O'Donoghue and Candes, Adaptive restart for accelerated gradient schemes, 2015.
    """
    x = torch.from_numpy(np.ascontiguousarray(z, np.float32))
    w = torch.from_numpy(np.ascontiguousarray(row_weights, np.float32))
    penalty = torch.from_numpy(1 / np.asarray(strengths, np.float32))  # (P,)
    one_hot = torch.nn.functional.one_hot(torch.from_numpy(y), n_classes).float()  # (M, K)
    bound = w.max(0).values  # (M,) above every problem's weights
    centre = (bound / bound.sum()) @ x  # makes bias and features orthogonal under the bound
    x = x - centre
    curvature, basis = _eigen(x, bound)  # (R,), (D, R)
    keep = curvature > 1e-5 * curvature[-1].clamp_min(1e-12)
    basis = basis[:, keep]
    rotated = torch.cat([x @ basis, torch.ones(len(x), 1)], dim=1)  # (M, R): last is the bias
    scale = torch.cat([curvature[keep], 0.5 * bound.sum()[None]])  # (R,)
    solution = _descend(rotated, one_hot, w, penalty, scale)  # (R, P, K)
    weight = torch.einsum("dr,rpk->pkd", basis, solution[:-1])
    bias = solution[-1] - weight @ centre
    return weight.numpy(), bias.numpy()


def _eigen(x: torch.Tensor, bound: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return eigenvalues, rising, and -vectors (D, R) of the bound on the Hessian.

    With fewer rows than columns they come from the small side: in 32 bits the large one, mostly
    zeros, may not converge at all.
    """
    half = x * (0.5 * bound).sqrt()[:, None]  # (M, D): the bound is half.T @ half
    if len(x) >= x.shape[1]:
        values, vectors = torch.linalg.eigh(half.T @ half)
        return values, vectors
    half = half.double()
    values, u = torch.linalg.eigh(half @ half.T)
    keep = values > 1e-9 * values[-1]
    keep[-1] = True
    vectors = half.T @ u[:, keep] / values[keep].clamp_min(1e-12).sqrt()
    return values[keep].float(), vectors.float()


def _descend(
    x: torch.Tensor,
    one_hot: torch.Tensor,
    w: torch.Tensor,
    penalty: torch.Tensor,
    scale: torch.Tensor,
) -> torch.Tensor:
    """Accelerated gradient descent of all problems at once, each until it has converged."""
    (m, r), n_classes, n_problems = x.shape, one_hot.shape[1], len(w)
    cost = penalty.repeat(r, 1)[:, :, None]  # (R, P, 1)
    cost[-1] = 0  # the bias is free
    step = 1 / (scale[:, None, None] + cost)
    weight = w.T[:, :, None].contiguous()  # (M, P, 1)
    wanted = (weight * one_hot[:, None]).reshape(m, -1)
    target = (x.T @ wanted).reshape(r, n_problems, n_classes)
    solution = torch.zeros(r, n_problems, n_classes)
    active = torch.arange(n_problems)
    at, ahead, momentum = solution.clone(), solution.clone(), torch.ones(1, n_problems, 1)
    for iteration in range(MAX_ITERATIONS):
        logits = (x @ ahead.reshape(r, -1)).reshape(m, -1, n_classes)  # one product for all
        p = logits.softmax(-1).mul_(weight)
        gradient = (x.T @ p.reshape(m, -1)).reshape(ahead.shape) - target + cost * ahead
        new = ahead - step * gradient
        move = new - at
        uphill = (gradient * move).sum((0, 2), keepdim=True) > 0
        faster = torch.where(uphill, 1.0, (1 + (1 + 4 * momentum**2).sqrt()) / 2)
        ahead = new + torch.where(uphill, 0.0, (momentum - 1) / faster) * move
        at, momentum = new, faster
        if iteration % 5 == 4:
            moved = _size(move[:-1]) / _size(at[:-1]).clamp_min(1e-9)  # (P,)
            going = moved > TOLERANCE
            solution[:, active] = at
            if not going.any():
                break
            if not going.all():
                active, at, ahead, momentum = (
                    active[going], at[:, going], ahead[:, going], momentum[:, going],
                )  # fmt: skip
                cost, step, target = cost[:, going], step[:, going], target[:, going]
                weight = weight[:, going]
    solution[:, active] = at
    return solution


def _size(weights: torch.Tensor) -> torch.Tensor:
    """Return the norm of each problem's weights, (P,), of (R, P, K)."""
    return weights.square().sum((0, 2)).sqrt()


def fit_head(x: Floats, y: Ints, row_weight: Floats, strength: float, n_classes: int) -> LinearHead:
    """Fit one head on raw feature rows (M, D): standardise, then `fit_heads` with one problem."""
    mean, std = standardiser(x)
    z = (x - mean) / std
    weight, bias = fit_heads(z, y, row_weight[None], np.array([strength], np.float32), n_classes)
    return LinearHead(mean, std, weight[0], bias[0])
