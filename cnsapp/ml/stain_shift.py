"""The same images, stained or lit otherwise: how a model would fare in another laboratory.

The changes are those of the dials "stain" and "brightness" of training (`cnsapp.ml.augment`), so
strength 1 is +-50 % of every dye, or of brightness and contrast. A network that was trained with
them has practised for this test; the curve then says how well, not how far beyond it holds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from cnsapp.domain.metrics import evaluate
from cnsapp.ml.augment import Changes, changed_pixels, draw
from cnsapp.ml.preprocess import Pixels

Ints = NDArray[np.int64]

STAIN, BRIGHTNESS = "stain", "brightness"
KINDS = (STAIN, BRIGHTNESS)
STRENGTHS = (0.0, 0.25, 0.5, 0.75, 1.0)
MOST_IMAGES = 300
VERSION = 1
_SEED = 6


@dataclass(frozen=True)
class Shift:
    """A change of all images by one strength."""

    kind: str
    strength: float

    @property
    def view(self) -> str:
        """What features of images so changed are kept under."""
        return f"shift{VERSION}-{self.kind}-{self.strength:g}"


SHIFTS = tuple(Shift(kind, strength) for kind in KINDS for strength in STRENGTHS if strength)
"""All changes but none at all."""


def shifted(images: Sequence[Pixels], keys: Sequence[str], shift: Shift) -> list[Pixels]:
    """Return images under a shift.

    Parameters
    ----------
    images
        uint8 (S, S, 3), all of one size.
    keys
        Names of the images in hexadecimal digits (their SHA-256): an image is changed the same way
        every time, and in the same direction at every strength.
    shift
        What changes, and how strongly.

    Returns
    -------
    uint8 (S, S, 3) each; at strength 0 the very same pixels.
    """
    rows = [int(key[:15], 16) for key in keys]
    changes = (
        Changes(stain=shift.strength) if shift.kind == STAIN else Changes(brightness=shift.strength)
    )
    with torch.inference_mode():
        out = changed_pixels(torch.from_numpy(np.stack(images)), changes, draw(_SEED, 0, rows))
    return list(out.round().clamp(0, 255).byte().numpy())


def curve(
    labels: Ints,
    answers: dict[Shift, Ints],
    unchanged: Ints,
    n_classes: int,
    groups: Sequence[str | None] | None,
    seed: int = 0,
) -> dict[str, Any]:
    """Score the answers under each shift.

    Parameters
    ----------
    labels
        (N,) class indices.
    answers
        (N,) predicted class indices under each of `SHIFTS`.
    unchanged
        (N,) what the model says of the images as they are.
    groups
        Group of each image, or None.

    Returns
    -------
    Plain data: n, n_groups, interval_by, strengths, and for each kind of shift its points
    `{"strength", "balanced_accuracy", "interval"}`.
    """
    plain = evaluate(labels, unchanged, n_classes, groups, seed)
    curves: dict[str, list[dict[str, Any]]] = {}
    for kind in KINDS:
        points = []
        for strength in STRENGTHS:
            found = (
                evaluate(labels, answers[Shift(kind, strength)], n_classes, groups, seed)
                if strength
                else plain
            )
            points.append(
                {
                    "strength": strength,
                    "balanced_accuracy": found.balanced_accuracy,
                    "interval": list(found.interval) if found.interval else None,
                }
            )
        curves[kind] = points
    return {
        "n": plain.n,
        "n_groups": plain.n_groups,
        "interval_by": plain.interval_by,
        "strengths": list(STRENGTHS),
        "curves": curves,
    }
