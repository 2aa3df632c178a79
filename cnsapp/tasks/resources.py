"""What the worker keeps between jobs: the network that makes features, and how images are read."""

from __future__ import annotations

import hashlib
import json
import threading
from dataclasses import dataclass
from pathlib import Path

from cnsapp.bootstrap import App
from cnsapp.imaging.limits import Limits
from cnsapp.imaging.reader import read_image
from cnsapp.imaging.window import ReadingRule
from cnsapp.ml.device import Device, choose_device
from cnsapp.ml.features import FeatureExtractor, FeatureStore
from cnsapp.ml.preprocess import Pixels

USUAL_RULE = ReadingRule()
_lock = threading.Lock()
_extractors: dict[tuple[str, str], FeatureExtractor] = {}


@dataclass(frozen=True)
class Source:
    """An image of a project as the tasks read it."""

    image_id: int
    sha256: str
    path: Path
    name: str


def device_of(app: App) -> Device:
    """Return the device that the settings wish for."""
    return choose_device(app.settings.device)


def extractor_of(app: App, backbone: str) -> FeatureExtractor:
    """Return the feature network of a backbone, built once a process."""
    device = device_of(app)
    with _lock:
        key = (backbone, device.name)
        if key not in _extractors:
            _extractors[key] = FeatureExtractor(backbone, device, app.store.path("weights"))
        return _extractors[key]


def feature_store(app: App, extractor: FeatureExtractor) -> FeatureStore:
    """Return where the features of this network are kept."""
    return FeatureStore(app.store.path("features"), extractor.spec_id, extractor.layout.n_columns)


def feature_key(sha256: str, rule: ReadingRule) -> str:
    """Return the name of an image's features: its hash, and how its samples became 8 bits."""
    if rule == USUAL_RULE:
        return sha256
    text = sha256 + json.dumps(rule.as_json(), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def read_pixels(path: Path, rule: ReadingRule, limits: Limits) -> Pixels:
    """Return the pixels that every step uses; raise UnreadableImageError with the reason."""
    return read_image(path, rule, limits).pixels
