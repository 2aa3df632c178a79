"""Changes to images while a network learns: turned, mirrored, zoomed, stained and lit otherwise.

A whole batch at once, from uint8 pixels to normalised input. What happens to an image follows from
(seed, epoch, row, turn) alone, so that a run that is taken up again sees the same pixels. Strength
0 leaves the pixels exactly as they are.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import affine_grid, conv2d, grid_sample, pad

from cnsapp.domain.recipe import Recipe
from cnsapp.ml.preprocess import Pixels, Preprocessing, make_view

MAX_ZOOM = 1.4
MAX_STAIN = 0.5
MAX_LIGHT = 0.5
MAX_NOISE = 0.2 * 255
MAX_BLUR = 3.0  # pixels
DYE_SHIFT = 0.1  # optical density, of full strength
STAINS = ((0.650, 0.704, 0.286), (0.072, 0.990, 0.105), (0.268, 0.570, 0.776))
"""Optical density of haematoxylin, eosin and DAB in red, green and blue (Ruifrok and Johnston)."""
N_DRAWS = 20
SPARED = 0.5  # share of the images that each change leaves alone which costs sharpness
_BANK = 1 << 20


@dataclass(frozen=True)
class Changes:
    """Strengths, each 0 (none) to 1; see the dials of the same name."""

    rotation: float = 0.0
    flips: bool = False
    zoom: float = 0.0
    stain: float = 0.0
    brightness: float = 0.0
    noise: float = 0.0
    blur: float = 0.0

    @classmethod
    def of(cls, recipe: Recipe) -> Changes:
        """Return the strengths of a recipe."""
        return cls(**{name: getattr(recipe, name) for name in cls.__dataclass_fields__})


def draw(
    seed: int, epoch: int, rows: Sequence[int], turns: Sequence[int] | None = None
) -> NDArray[np.float64]:
    """Return the random numbers (B, `N_DRAWS`) in 0 to 1 that decide what happens to each image.

    Parameters
    ----------
    seed, epoch
        Of the run.
    rows
        Number of each image in its data.
    turns
        How often the image came before in this epoch (balanced sampling repeats images); None is
        never.
    """
    turns = [0] * len(rows) if turns is None else turns
    return np.stack(
        [
            np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, epoch, r, t])))
            .random(N_DRAWS)
            for r, t in zip(map(int, rows), map(int, turns), strict=True)
        ]
    )  # fmt: skip


def change(
    batch: torch.Tensor, changes: Changes, draws: NDArray[np.float64], prepare: Preprocessing
) -> torch.Tensor:
    """Return changed, normalised input of a batch of pictures.

    Parameters
    ----------
    batch
        (B, S, S, 3) uint8, on any device.
    changes
        How strongly.
    draws
        (B, `N_DRAWS`) from `draw`.
    prepare
        Mean and standard deviation of the network's input.

    Returns
    -------
    (B, 3, S, S) float32, channels last. Pictures are changed one by one: what becomes of one does
    not depend on its neighbours in the batch.

    References
    ----------
    Tellez et al., Quantifying the effects of data augmentation and stain color normalization,
    Medical Image Analysis 2019.
    """
    mean = torch.tensor(prepare.mean, device=batch.device) * 255
    std = torch.tensor(prepare.std, device=batch.device) * 255
    # as `Preprocessing.normalise`, to the last bit
    return ((changed_pixels(batch, changes, draws) - mean) * (1 / std)).permute(0, 3, 1, 2)


def changed_pixels(
    batch: torch.Tensor, changes: Changes, draws: NDArray[np.float64]
) -> torch.Tensor:
    """Return changed pixels (B, S, S, 3), float32 in 0 to 255, of uint8 pictures."""
    x = batch.float()
    u = torch.from_numpy(draws.astype(np.float32)).to(batch.device)
    if changes.stain > 0:
        x = restain(x, *_dyes(changes.stain, u))
    if changes.brightness > 0:
        light = 1 + changes.brightness * MAX_LIGHT * (2 * u[:, 10:12] - 1)  # (B, 2)
        x = relight(x, light[:, 0], light[:, 1])
    x = _move(x, changes, u)
    if changes.blur > 0:
        sigma = changes.blur * MAX_BLUR * u[:, 12] * (u[:, 17] >= SPARED)
        x = _blurred(x, sigma, changes.blur * MAX_BLUR)
    if changes.noise > 0:
        spread = changes.noise * MAX_NOISE * u[:, 13] * (u[:, 18] >= SPARED)
        x = x + _noise(x, spread, draws[:, 14])
    return x.clamp_(0, 255) if _alters_values(changes) else x


def _alters_values(changes: Changes) -> bool:
    return max(changes.stain, changes.brightness, changes.noise) > 0


def restain(x: torch.Tensor, scale: torch.Tensor, shift: torch.Tensor) -> torch.Tensor:
    """Change how strongly each dye took.

    Parameters
    ----------
    x
        (B, S, S, 3) float, 0 to 255.
    scale, shift
        (B, 3) of haematoxylin, eosin and DAB: amount of dye times scale, plus shift.

    Returns
    -------
    (B, S, S, 3), not clamped.

    References
    ----------
    Ruifrok and Johnston, Quantification of histochemical staining by color deconvolution,
    Analytical and Quantitative Cytology and Histology 2001.
    """
    dyes = stain_matrix().to(x.device)  # (3, 3): dyes @ matrix = optical density
    mix = torch.linalg.inv(dyes) @ (scale[:, :, None] * dyes)  # (B, 3, 3)
    # density = log(256) - log(x + 1), mixed and turned back into light; what does not depend on
    # the pixel stands before the exponential
    white = (-math.log(256) * mix.sum(1) - shift @ dyes).exp() * 256  # (B, 3)
    light: torch.Tensor = (x + 1).log_().flatten(1, 2) @ mix  # (B, cells, 3)
    return light.exp_().mul_(white[:, None]).sub_(1).view_as(x)


@cache
def stain_matrix() -> torch.Tensor:
    """Return the unit optical densities (3 dyes, 3 channels)."""
    matrix: torch.Tensor = torch.nn.functional.normalize(torch.tensor(STAINS), dim=1)
    return matrix


def _dyes(strength: float, u: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    scale = 1 + strength * MAX_STAIN * (2 * u[:, 4:7] - 1)
    return scale, strength * DYE_SHIFT * (2 * u[:, 7:10] - 1)


def relight(x: torch.Tensor, brightness: torch.Tensor, contrast: torch.Tensor) -> torch.Tensor:
    """Multiply all values by `brightness` (B,), and the distance to the mean by `contrast` (B,)."""
    mean = x.mean((1, 2, 3))
    gain = (brightness * contrast)[:, None, None, None]
    offset = (brightness * (1 - contrast) * mean)[:, None, None, None]
    return x * gain + offset


def _move(x: torch.Tensor, changes: Changes, u: torch.Tensor) -> torch.Tensor:
    """Mirror, turn and zoom.

    Half of the images are only mirrored and, at full rotation, turned by right angles, so that
    their pixels stay on the grid: a network that saw nothing but interpolated pictures would meet
    sharper ones than it knows when it predicts.
    """
    flip_x = (u[:, 0] < 0.5) & changes.flips
    flip_y = (u[:, 1] < 0.5) & changes.flips
    quarters = (u[:, 15] * 4).int() if changes.rotation == 1 else torch.zeros(len(u)).int()
    if changes.flips or changes.rotation == 1:
        x = torch.stack(list(map(_on_grid, x, flip_x.tolist(), flip_y.tolist(), quarters.tolist())))
    if changes.rotation > 0 or changes.zoom > 0:
        free = (u[:, 16] >= SPARED).nonzero().flatten()
        if len(free):
            angle = changes.rotation * math.pi * (2 * u[free, 2] - 1)
            zoom = MAX_ZOOM ** (changes.zoom * (2 * u[free, 3] - 1))
            x[free] = turned(x[free], angle, zoom)
    return x


def _on_grid(x: torch.Tensor, flip_x: bool, flip_y: bool, quarters: int) -> torch.Tensor:
    axes = [axis for axis, flip in ((1, flip_x), (0, flip_y)) if flip]
    return torch.rot90(x.flip(axes) if axes else x, quarters, [0, 1])


def turned(x: torch.Tensor, angle: torch.Tensor, zoom: torch.Tensor) -> torch.Tensor:
    """Turn and enlarge pictures; what comes in from outside is a reflection.

    Parameters
    ----------
    x
        (B, S, S, 3) float.
    angle
        (B,) radians, counter-clockwise: a quarter turn is `numpy.rot90`.
    zoom
        (B,) above 1 enlarges.
    """
    cos, sin, none = angle.cos() / zoom, angle.sin() / zoom, torch.zeros_like(angle)
    rows = torch.stack([cos, -sin, none, sin, cos, none], dim=1)
    grid = affine_grid(rows.view(-1, 2, 3), [len(x), 3, x.shape[1], x.shape[2]], False)
    out = grid_sample(x.permute(0, 3, 1, 2), grid, "bilinear", "reflection", False)
    return out.permute(0, 2, 3, 1)


def _blurred(x: torch.Tensor, sigma: torch.Tensor, most: float) -> torch.Tensor:
    """Blur each picture (B, S, S, 3) by a Gaussian of its own sigma (B,) in pixels."""
    radius = max(1, math.ceil(2.5 * most))
    radius = min(radius, x.shape[1] - 1)
    steps = torch.arange(-radius, radius + 1, device=x.device)
    kernel = (-0.5 * (steps / sigma.clamp_min(0.05)[:, None]) ** 2).exp()  # (B, taps)
    kernel = (kernel / kernel.sum(1, keepdim=True)).repeat_interleave(3, 0)[:, None, None]
    b, h, w, _ = x.shape
    flat = x.permute(0, 3, 1, 2).reshape(1, 3 * b, h, w)
    flat = conv2d(pad(flat, (radius, radius, 0, 0), "reflect"), kernel, groups=3 * b)
    flat = pad(flat, (0, 0, radius, radius), "reflect")
    flat = conv2d(flat, kernel.transpose(2, 3), groups=3 * b)
    blurred: torch.Tensor = flat.view(b, 3, h, w).permute(0, 2, 3, 1)
    return blurred


def _noise(x: torch.Tensor, spread: torch.Tensor, place: NDArray[np.float64]) -> torch.Tensor:
    """Return Gaussian noise like `x`: a stretch of one long list that begins anywhere."""
    n = x[0].numel()
    bank = _bank(max(_BANK, 2 * n)).to(x.device)
    starts = [int(p * (len(bank) - n)) for p in place]
    return torch.stack(
        [bank[s : s + n] * sd for s, sd in zip(starts, spread, strict=True)]
    ).view_as(x)


@cache
def _bank(n: int) -> torch.Tensor:
    """Return `n` normal numbers, always the same: drawing afresh would cost more than all else."""
    return torch.randn(n, generator=torch.Generator().manual_seed(20))


def preview(image: Pixels, recipe: Recipe, n: int, seed: int = 0, size: int = 224) -> list[Pixels]:
    """Return what a network would see of an image under a recipe.

    Parameters
    ----------
    image
        uint8 (H, W, 3) of any size.
    recipe
        Its strengths.
    n
        Number of pictures.
    seed
        The same seed gives the same draws: only their strength follows the sliders.
    size
        Side of the network's input, in pixels.

    Returns
    -------
    `n` pictures, uint8 (size, size, 3).
    """
    small = torch.from_numpy(make_view(image, size).copy()).expand(n, -1, -1, -1)
    with torch.inference_mode():
        out = changed_pixels(small, Changes.of(recipe), draw(seed, 0, range(n)))
    return list(out.round().clamp(0, 255).byte().numpy())
