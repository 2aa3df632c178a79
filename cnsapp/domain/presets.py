"""What a training run may be told: backbones and settings, by name, without loading any network."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cnsapp.errors import InvalidInputError

DEFAULT_BACKBONE = "efficientnet_lite0"
BACKBONES: dict[str, str] = {  # as in cnsapp.ml.backbones, which the web process never imports
    "efficientnet_lite0": "EfficientNet-Lite0 (works offline)",
    "resnet18": "ResNet-18",
    "resnet50": "ResNet-50",
    "mobilenet_v3_large": "MobileNet v3 large",
    "efficientnet_b0": "EfficientNet-B0",
    "convnext_tiny": "ConvNeXt tiny",
    "vgg16": "VGG-16",
    "densenet121": "DenseNet-121",
}


def _whole(lowest: int, highest: int) -> Any:
    def read(value: Any) -> int:
        number = int(str(value))
        if not lowest <= number <= highest:
            raise ValueError
        return number

    return read


def _share(value: Any) -> float:
    number = float(str(value))
    if not 0 <= number <= 1:
        raise ValueError
    return number


def _scheme(value: Any) -> str:
    if value not in ("by group", "by file-name blocks", "random"):
        raise ValueError
    return str(value)


# name -> (how to read it, what it takes in words)
OPTIONS: dict[str, tuple[Any, str]] = {
    "seed": (_whole(0, 2**31 - 1), "a whole number"),
    "n_folds": (_whole(2, 20), "a whole number from 2 to 20"),
    "threshold": (_share, "a number from 0 to 1: less confident predictions abstain"),
    "scheme": (_scheme, "one of: by group, by file-name blocks, random"),
    "name": (lambda value: str(value)[:200], "the name of the model"),
}


def check_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options with their values read; raise InvalidInputError for unknown ones."""
    found: dict[str, Any] = {}
    for key, value in options.items():
        if key not in OPTIONS:
            raise InvalidInputError(
                f"There is no training setting “{key}”.",
                "",
                f"Settings are: {', '.join(sorted(OPTIONS))}.",
            )
        read, takes = OPTIONS[key]
        try:
            found[key] = read(value)
        except ValueError as error:
            raise InvalidInputError(
                f"The setting {key} cannot be “{value}”.", "", f"It takes {takes}."
            ) from error
    return found
