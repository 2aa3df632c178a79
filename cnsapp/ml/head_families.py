"""The heads to choose among: what each reads of the features, and how many are fitted at once.

A family turns standardised features into what its heads read (`reading`), fits many heads on
shared rows (`fit`), and puts one of them into the form that a model file keeps (`head`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from cnsapp.ml.head_kinds import Floats, Head, KernelHead, MlpHead, rbf
from cnsapp.ml.heads import LinearHead, fit_heads
from cnsapp.ml.heads_mlp import Mlps, fit_mlps

Ints = NDArray[np.int64]

LANDMARKS = 256
COMPONENTS = 64
FLOOR = 1e-4  # of the landmarks' kernel: directions below it hold rounding alone


@dataclass(frozen=True)
class Linear:
    """P fitted linear maps: logits = phi @ weight[p].T + bias[p]."""

    weight: Floats  # (P, K, R)
    bias: Floats  # (P, K)

    def logits(self, phi: Floats, problems: slice = slice(None)) -> Floats:
        """Return logits (P, N, K) of rows (N, R) by some of the maps."""
        weight, bias = self.weight[problems], self.bias[problems]
        n_problems, n_classes, width = weight.shape
        flat = phi @ weight.reshape(-1, width).T + bias.ravel()  # one product for all
        return np.ascontiguousarray(flat.reshape(len(phi), n_problems, n_classes).swapaxes(0, 1))


class Reading(ABC):
    """What the heads of a family read of standardised features."""

    @abstractmethod
    def __call__(self, z: Floats) -> Floats:
        """Return (N, R) of standardised rows (N, D)."""


class Family(ABC):
    """Heads of one kind.

    Attributes
    ----------
    kind
        `linear`, `kernel` or `mlp`.
    settings
        Strengths of regularisation to choose among, the simplest first.
    """

    kind: str
    settings: tuple[float, ...]

    @abstractmethod
    def reading(self, z: Floats, y: Ints, seed: int) -> Reading:
        """Return the reading learnt from standardised training rows (n, D) and their classes."""

    @abstractmethod
    def fit(
        self, phi: Floats, y: Ints, rows: Floats, settings: Floats, n_classes: int, seed: int
    ) -> Linear | Mlps:
        """Fit P heads: `rows` (P, M) is how much each row counts, `settings` (P,)."""

    @abstractmethod
    def head(self, mean: Floats, std: Floats, reading: Reading, fitted: Linear | Mlps) -> Head:
        """Return the first of the fitted heads, reading raw features."""


class _AsTheyAre(Reading):
    def __call__(self, z: Floats) -> Floats:
        return z


class LinearFamily(Family):
    """Multinomial logistic regression; the setting is C."""

    kind = "linear"

    def __init__(self, strengths: tuple[float, ...]) -> None:
        self.settings = strengths

    def reading(self, z: Floats, y: Ints, seed: int) -> Reading:
        """Return the features as they are."""
        del z, y, seed
        return _AsTheyAre()

    def fit(
        self, phi: Floats, y: Ints, rows: Floats, settings: Floats, n_classes: int, seed: int
    ) -> Linear:
        """Fit as `cnsapp.ml.heads.fit_heads`."""
        del seed  # there is one solution
        return Linear(*fit_heads(phi, y, rows, settings, n_classes))

    def head(self, mean: Floats, std: Floats, reading: Reading, fitted: Linear | Mlps) -> Head:
        """Return the first of the fitted heads."""
        del reading
        assert isinstance(fitted, Linear)
        return LinearHead(mean, std, fitted.weight[0], fitted.bias[0])


@dataclass(frozen=True)
class _Nystroem(Reading):
    """Landmarks (L, D), gamma, and `whiten` (L, R) with whiten @ whiten.T = K(L, L)^-1."""

    landmarks: Floats
    gamma: float
    whiten: Floats

    def __call__(self, z: Floats) -> Floats:
        return np.asarray(rbf(z, self.landmarks, self.gamma) @ self.whiten, np.float32)


class KernelFamily(Family):
    """Logistic regression on radial basis functions around landmarks; the setting is C.

    References
    ----------
    Williams and Seeger, Using the Nystroem method to speed up kernel machines, NIPS 2001.
    """

    kind = "kernel"

    def __init__(self, strengths: tuple[float, ...] = (10.0, 100.0), width: float = 0.3) -> None:
        self.settings, self.width = strengths, width

    def reading(self, z: Floats, y: Ints, seed: int) -> Reading:
        """Return the kernel between rows and some of the training rows, of every class alike."""
        landmarks = z[_of_every_class(y, LANDMARKS, np.random.default_rng(seed))]
        gamma = self.width / z.shape[1]
        values, vectors = _eigen(rbf(landmarks, landmarks, gamma))
        keep = values > FLOOR
        whiten = np.asarray(vectors[:, keep] / np.sqrt(values[keep]), np.float32)
        return _Nystroem(landmarks, gamma, whiten)

    def fit(
        self, phi: Floats, y: Ints, rows: Floats, settings: Floats, n_classes: int, seed: int
    ) -> Linear:
        """Fit as `cnsapp.ml.heads.fit_heads`."""
        del seed  # there is one solution
        return Linear(*fit_heads(phi, y, rows, settings, n_classes))

    def head(self, mean: Floats, std: Floats, reading: Reading, fitted: Linear | Mlps) -> Head:
        """Return the first of the fitted heads."""
        assert isinstance(reading, _Nystroem)
        assert isinstance(fitted, Linear)
        weight = np.asarray(fitted.weight[0] @ reading.whiten.T, np.float32)
        gamma = np.full(1, reading.gamma, np.float32)
        return KernelHead(mean, std, reading.landmarks, gamma, weight, fitted.bias[0])


@dataclass(frozen=True)
class _Components(Reading):
    """The first principal components, scaled by one number: `axes` (D, R)."""

    axes: Floats

    def __call__(self, z: Floats) -> Floats:
        return np.asarray(z @ self.axes, np.float32)


class MlpFamily(Family):
    """Networks with one hidden layer on principal components; the setting is the decay."""

    kind = "mlp"

    def __init__(self, decays: tuple[float, ...] = (1.0,)) -> None:
        self.settings = decays

    def reading(self, z: Floats, y: Ints, seed: int) -> Reading:
        """Return the first principal components of the rows."""
        del y, seed
        centred = z - z.mean(0)
        _, vectors = _eigen(centred.T @ centred / len(z))
        axes = vectors[:, ::-1][:, :COMPONENTS]
        spread = float((centred @ axes).std()) or 1.0
        return _Components(np.asarray(axes / spread, np.float32))

    def fit(
        self, phi: Floats, y: Ints, rows: Floats, settings: Floats, n_classes: int, seed: int
    ) -> Mlps:
        """Fit as `cnsapp.ml.heads_mlp.fit_mlps`."""
        return fit_mlps(phi, y, rows, settings, n_classes, seed)

    def head(self, mean: Floats, std: Floats, reading: Reading, fitted: Linear | Mlps) -> Head:
        """Return the first of the fitted heads."""
        assert isinstance(reading, _Components)
        assert isinstance(fitted, Mlps)
        first = fitted.first[:, 0].numpy()  # (R, H)
        return MlpHead(
            mean, std, np.asarray((reading.axes @ first).T, np.float32),
            fitted.first_bias[0].numpy(), fitted.second[0].numpy().T, fitted.second_bias[0].numpy(),
        )  # fmt: skip


def _eigen(matrix: Floats) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return eigenvalues, rising, and -vectors of a symmetric matrix, by torch.

    numpy brings a library with threads of its own, which wait for each other on a busy machine.
    """
    values, vectors = torch.linalg.eigh(torch.from_numpy(matrix).double())
    return values.numpy(), vectors.numpy()


def _of_every_class(y: Ints, most: int, random: np.random.Generator) -> Ints:
    """Return at most so many rows, in random order drawn from all classes in turn."""
    order = random.permutation(len(y))
    rank = np.empty(len(y), np.int64)  # the how-manieth of its class a row is
    for c in np.unique(y):
        mine = np.flatnonzero(y[order] == c)
        rank[mine] = np.arange(len(mine))
    return np.sort(order[np.argsort(rank, kind="stable")[:most]])
