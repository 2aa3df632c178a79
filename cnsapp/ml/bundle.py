"""The model file: one safetensors file with the head's arrays and everything said about them.

Never a pickle. Written under a temporary name, flushed to disk, then renamed, so that a crash
leaves either the old file or the new one. The hash of the whole file goes into the database; a file
that does not match it is not loaded.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import struct
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
from safetensors.numpy import load, save

from cnsapp.errors import CnsError
from cnsapp.ml.features import FeatureExtractor
from cnsapp.ml.heads import LinearHead
from cnsapp.ml.quick import QuickResult

FORMAT = "cnsapp-quick"
FORMAT_VERSION = 1
_META_KEY = "cnsapp"
_PACKAGES = ("cnsapp", "torch", "torchvision", "timm", "numpy", "pillow")


@dataclass(frozen=True)
class Bundle:
    """A quick model that can be applied without the data it was trained on.

    Attributes
    ----------
    head, stages
        The linear head and the stages whose columns it reads.
    class_ids, class_names
        In the order of the outputs.
    features
        The extractor's spec: backbone, weights hash, preprocessing, stages, pooling.
    spec_id
        The spec's short name: cached rows of the same spec fit this model.
    strength, temperature, threshold, predict_views
        Regularisation C, calibration, confidence below which the decision is "unsure", views
        averaged at prediction.
    data_fingerprint
        Hash of the images and labels it was trained on.
    settings, versions, metrics
        What was asked for, package versions, scores: plain data.
    """

    head: LinearHead
    stages: tuple[str, ...]
    class_ids: list[int]
    class_names: list[str]
    features: dict[str, object]
    spec_id: str
    strength: float
    temperature: float
    threshold: float = 0.5
    predict_views: tuple[str, ...] = ("clean",)
    data_fingerprint: str = ""
    settings: dict[str, object] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    metrics: dict[str, object] = field(default_factory=dict)

    @property
    def backbone_id(self) -> str:
        """Registry id of the backbone."""
        return str(self.features["backbone"])


def make_bundle(
    result: QuickResult,
    extractor: FeatureExtractor,
    *,
    data_fingerprint: str = "",
    settings: Mapping[str, object] | None = None,
) -> Bundle:
    """Put a trained quick model and the extractor that made its features together."""
    return Bundle(
        head=result.head,
        stages=result.stages,
        class_ids=list(result.class_ids),
        class_names=list(result.class_names),
        features=dict(extractor.spec),
        spec_id=extractor.spec_id,
        strength=result.strength,
        temperature=result.temperature,
        threshold=result.threshold,
        predict_views=result.predict_views,
        data_fingerprint=data_fingerprint,
        settings=dict(settings or {}),
        versions=package_versions(),
        metrics=result.metrics_json(),
    )


def package_versions() -> dict[str, str]:
    """Return the versions that a result depends on, for its record."""
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def save_bundle(path: Path, bundle: Bundle) -> str:
    """Write a model file so that a crash can not leave half of it.

    Parameters
    ----------
    path
        The file; its folder is made if need be.
    bundle
        The model.

    Returns
    -------
    SHA-256 of the file (64 hexadecimal digits): keep it, and give it to `load_bundle`.

    Raises
    ------
    CnsError
        The file cannot be written (disk full, no permission).
    """
    head = bundle.head
    meta = {k: v for k, v in vars(bundle).items() if k != "head"}
    meta |= {"format": FORMAT, "format_version": FORMAT_VERSION}
    arrays = {"mean": head.mean, "std": head.std, "weight": head.weight, "bias": head.bias}
    data = save(
        {k: np.ascontiguousarray(v, np.float32) for k, v in arrays.items()},
        {_META_KEY: json.dumps(meta, sort_keys=True)},
    )
    try:
        write_atomically(path, data)
    except OSError as error:
        raise CnsError(
            f"The model file {path.name} could not be written ({error.strerror or error}).",
            "The model is not saved.",
            "Check free disk space and permissions of the data folder, then train again.",
        ) from error
    return hashlib.sha256(data).hexdigest()


def write_atomically(path: Path, data: bytes) -> None:
    """Replace a file by new bytes that are on the disk before the name points to them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.tmp-{uuid.uuid4().hex}")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    if os.name == "posix":  # the rename itself must reach the disk too
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def load_bundle(path: Path, expected_sha256: str | None = None) -> Bundle:
    """Read a model file.

    Parameters
    ----------
    path
        Written by `save_bundle`.
    expected_sha256
        From the database; None trusts the file.

    Raises
    ------
    CnsError
        The file is missing, changed since it was recorded, damaged, or of another format.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise CnsError(
            f"The model file {path.name} cannot be read ({error.strerror or error}).",
            "Without it the model cannot be used.",
            "Restore it from a backup, or train again.",
        ) from error
    if expected_sha256 is not None and hashlib.sha256(data).hexdigest() != expected_sha256:
        raise CnsError(
            f"The model file {path.name} is not the one that was saved: its checksum differs.",
            "It was changed or damaged, and its predictions can not be trusted.",
            "Restore it from a backup, or train again.",
        )
    try:
        meta = json.loads(_metadata(data)[_META_KEY])
        arrays = load(data)
        head = LinearHead(*(arrays[k] for k in ("mean", "std", "weight", "bias")))
        kind, number = meta.pop("format"), meta.pop("format_version")
    except Exception as error:  # a damaged file fails in a dozen ways
        raise CnsError(
            f"{path.name} is not a model file of this app, or it is damaged.",
            f"({type(error).__name__})",
            "Restore it from a backup, or train again.",
        ) from error
    if kind != FORMAT or number > FORMAT_VERSION:
        raise CnsError(
            f"The model file {path.name} has format {kind} {number}.",
            f"This version of the app reads {FORMAT} up to {FORMAT_VERSION}.",
            "Update the app.",
        )
    meta["stages"], meta["predict_views"] = tuple(meta["stages"]), tuple(meta["predict_views"])
    return Bundle(head=head, **meta)


def _metadata(data: bytes) -> dict[str, str]:
    (length,) = struct.unpack("<Q", data[:8])
    if length > len(data):
        raise ValueError("header is longer than the file")
    header: dict[str, dict[str, str]] = json.loads(data[8 : 8 + length])
    return header["__metadata__"]
