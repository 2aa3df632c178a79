"""What the worker keeps between jobs: the network that makes features, and how images are read."""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path

from cnsapp.bootstrap import App
from cnsapp.imaging.isolated import read_image
from cnsapp.imaging.limits import Limits
from cnsapp.imaging.rule import ReadingRule
from cnsapp.ml.bundle import load_bundle
from cnsapp.ml.device import Device, choose_device
from cnsapp.ml.features import FeatureExtractor, FeatureStore
from cnsapp.ml.predict import Predictor
from cnsapp.ml.preprocess import Pixels
from cnsapp.services.images import reading_rule
from cnsapp.services.models import ModelView, check_model_file
from cnsapp.weights_files import sign_of_weights

KEPT_MODELS = 3
KEPT_NETWORKS = 3  # for features: a search over all backbones must not fill the memory
_lock = threading.Lock()
_extractors: OrderedDict[tuple[str, str, str], FeatureExtractor] = OrderedDict()
_models: OrderedDict[tuple[str, str], LoadedModel] = OrderedDict()


@dataclass(frozen=True)
class LoadedModel:
    """A model ready to answer. Take `lock` around each use: maps hook into the same network."""

    predictor: Predictor
    lock: threading.Lock

    @property
    def size(self) -> int:
        """Side of the network's input, in pixels."""
        return self.predictor.preprocessing.size

    @property
    def threshold(self) -> float:
        """Confidence below which the decision is "unsure"."""
        return self.predictor.bundle.threshold


@dataclass(frozen=True)
class Source:
    """An image of a project as the tasks read it."""

    image_id: int
    sha256: str
    path: Path
    name: str
    seen: str = ""  # `ReadingRule.seen` by the rule that it is read with


def device_of(app: App) -> Device:
    """Return the device that the settings wish for."""
    return choose_device(app.settings.device)


def extractor_of(app: App, backbone: str) -> FeatureExtractor:
    """Return the feature network of a backbone, built once a process and file of weights."""
    device, folder = device_of(app), app.store.path("weights")
    with _lock:
        key = (backbone, device.name, sign_of_weights(backbone, folder))
        if key not in _extractors:
            for other in [k for k in _extractors if k[:2] == key[:2]]:
                del _extractors[other]  # the file was replaced
            _extractors[key] = FeatureExtractor(backbone, device, folder)
            while len(_extractors) > KEPT_NETWORKS:
                _extractors.popitem(last=False)
        _extractors.move_to_end(key)
        return _extractors[key]


def feature_store(app: App, extractor: FeatureExtractor) -> FeatureStore:
    """Return where the features of this network are kept."""
    return FeatureStore(app.store.path("features"), extractor.spec_id, extractor.layout.n_columns)


def feature_key(source: Source) -> str:
    """Return the name of an image's features: its hash, and how the rule touched its file."""
    return key_of(source.sha256, source.seen)


def key_of(sha256: str, seen: str) -> str:
    """Return the same for an image that is known by its row alone."""
    return hashlib.sha256((sha256 + seen).encode()).hexdigest() if seen else sha256


def predictor_of(app: App, model: ModelView) -> LoadedModel:
    """Return a model ready to answer; its file is compared with its checksum each time.

    Raises
    ------
    CnsError
        The file is missing or altered, or the backbone's weights are not the ones it needs.
    """
    path = check_model_file(app, model_id=model.id)
    device = device_of(app)
    key = (model.sha256, device.name)
    with _lock:
        if key not in _models:
            bundle = load_bundle(path, model.sha256)
            predictor = Predictor(bundle, device, app.store.path("weights"))
            _models[key] = LoadedModel(predictor, threading.Lock())
            while len(_models) > KEPT_MODELS:
                _models.popitem(last=False)
        _models.move_to_end(key)
        return _models[key]


def model_rule(app: App, model: ModelView) -> ReadingRule:
    """Return how images were read when the model was trained."""
    if "reading" in model.settings:
        return ReadingRule.from_json(model.settings["reading"])
    return reading_rule(app.store, project_id=model.project_id)


def read_pixels(path: Path, rule: ReadingRule, limits: Limits) -> Pixels:
    """Return the pixels that every step uses; raise UnreadableImageError with the reason."""
    return read_image(path, rule, limits).pixels
