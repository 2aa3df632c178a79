"""From pixels to the numbers a network reads, and the views of an image that training uses.

A rectangular image is resized as a whole to a square. A centre crop would throw away tissue that
the labeller saw, and padding would add an edge that no image has; resizing distorts shapes by the
aspect ratio, but the same way in training, prediction and saliency, and every pixel takes part.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from cnsapp.errors import CnsError

Pixels = NDArray[np.uint8]

CLEAN = "clean"
TRAIN_VIEWS: tuple[str, ...] = (CLEAN, "jitter1")
"""Views computed for every image right after import and used by the quick model."""
JITTER_SCALE = 0.15
JITTER_SHIFT = 12.0
JITTER_VERSION = 1
GEOMETRY: dict[str, tuple[int, bool]] = {  # quarter turns, mirrored left and right after them
    "rot90": (1, False), "rot180": (2, False), "rot270": (3, False), "flip": (0, True),
    "flip90": (1, True), "flip180": (2, True), "flip270": (3, True),
}  # fmt: skip


@dataclass(frozen=True)
class Preprocessing:
    """How pixels become network input; stored with every model.

    Attributes
    ----------
    size
        Side of the square input, in pixels.
    mean, std
        Per-channel values in 0 to 1 that the scaled pixels are shifted and divided by.
    """

    size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def as_json(self) -> dict[str, object]:
        """Return plain data for a model file."""
        return {
            "size": self.size,
            "mean": list(self.mean),
            "std": list(self.std),
            "resize": "squash",
        }

    def normalise(self, batch: torch.Tensor) -> torch.Tensor:
        """Turn uint8 pixels (B, S, S, 3) into float32 input (B, 3, S, S), channels last."""
        mean = torch.tensor(self.mean, device=batch.device) * 255
        std = torch.tensor(self.std, device=batch.device) * 255
        return batch.float().sub_(mean).mul_(1 / std).permute(0, 3, 1, 2)  # in place: one copy


def check_pixels(image: Pixels) -> None:
    """Raise unless `image` is uint8 (H, W, 3) with at least one pixel."""
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or image.size == 0:
        raise CnsError(
            f"An image array has shape {image.shape} and type {image.dtype}.",
            "The network reads RGB images of 8 bits: (height, width, 3), uint8.",
            "Read the file through the app's image reader.",
        )


def pixels_key(image: Pixels) -> str:
    """Return a hash of the pixels, for callers that have no file hash (64 hexadecimal digits)."""
    return hashlib.sha256(np.ascontiguousarray(image).tobytes()).hexdigest()


def make_view(image: Pixels, size: int, view: str = CLEAN, key: str = "") -> Pixels:
    """Return one view of an image at network size.

    Parameters
    ----------
    image
        Pixels, uint8 (H, W, 3).
    size
        Side of the square result, in pixels.
    view
        `clean`, a name of `GEOMETRY` (turned, mirrored), or `jitterN` (N = 1, 2, ...): a random
        stain and brightness change (each channel times 0.85 to 1.15, plus -12 to 12) after a
        random quarter turn and flip.
    key
        What makes the jitter of this image its own, usually its SHA-256: the same key and view
        always give the same pixels.

    Returns
    -------
    uint8 (size, size, 3).

    Raises
    ------
    CnsError
        The array is not an RGB image, or the view is unknown.

    References
    ----------
    Tellez et al., Quantifying the effects of data augmentation and stain color normalization,
    Medical Image Analysis 2019 (stain jitter).
    """
    check_pixels(image)
    if image.shape[:2] != (size, size):
        resized = Image.fromarray(image).resize(
            (size, size), Image.Resampling.BILINEAR, reducing_gap=3.0
        )
        image = np.asarray(resized)
    if view == CLEAN:
        return image
    if view in GEOMETRY:
        return _turn(image, *GEOMETRY[view])
    if not re.fullmatch(r"jitter[1-9]\d*", view):
        raise CnsError(f"There is no view {view!r}.", "", "Use clean, rot90, flip or jitter1.")
    return _jitter(image, _generator(key, view))


def _generator(key: str, view: str) -> np.random.Generator:
    digest = hashlib.sha256(f"{JITTER_VERSION}:{view}:{key}".encode()).digest()
    return np.random.default_rng(int.from_bytes(digest[:8], "little"))


def _turn(image: Pixels, quarter_turns: int, flip: bool) -> Pixels:
    turned = np.rot90(image, quarter_turns)
    return np.ascontiguousarray(turned[:, ::-1] if flip else turned)


def _jitter(image: Pixels, generator: np.random.Generator) -> Pixels:
    image = _turn(image, int(generator.integers(4)), bool(generator.integers(2)))
    scale = 1 + generator.uniform(-JITTER_SCALE, JITTER_SCALE, 3)
    shift = generator.uniform(-JITTER_SHIFT, JITTER_SHIFT, 3)
    table = np.arange(256) * scale[:, None] + shift[:, None]  # (3, 256): a look-up a pixel
    table = np.clip(np.rint(table), 0, 255).astype(np.uint8)
    return np.asarray(Image.fromarray(image).point(table.ravel().tolist()))
