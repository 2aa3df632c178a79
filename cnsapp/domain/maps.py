"""The kinds of saliency map there are, by name, without loading any network."""

from __future__ import annotations

from dataclasses import dataclass

from cnsapp.errors import InvalidInputError


@dataclass(frozen=True)
class MapMethod:
    """A kind of saliency map and how to read it."""

    id: str
    title: str
    note: str


METHODS = (
    MapMethod(
        "gradcam",
        "Grad-CAM",
        "Regions whose features speak for the class, as coarse as the layer they come from. It "
        "shows where the model looked, not why.",
    ),
    MapMethod(
        "integrated_gradients",
        "Integrated gradients",
        "Finer places whose pixels raise the class above a plain gray image. Slower, and edges "
        "stand out; compare it with Grad-CAM before believing a detail.",
    ),
)


def check_method(method: str) -> None:
    """Raise InvalidInputError when there is no such kind of map."""
    if method not in {m.id for m in METHODS}:
        raise InvalidInputError(
            f"There is no saliency method “{method}”.",
            "",
            f"Use one of: {', '.join(m.id for m in METHODS)}.",
        )
