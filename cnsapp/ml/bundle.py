"""The model file: one safetensors file with a model's arrays and everything said about them.

A quick model's file holds its head; the backbone is the published one. A fine-tuned network's
holds every weight. The arrays are called `head.*` and
`body.*`.

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
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load, save

from cnsapp.errors import CnsError
from cnsapp.ml.backbones import Backbone
from cnsapp.ml.features import POOLING, FeatureExtractor
from cnsapp.ml.head_kinds import Head, head_from, kind_of
from cnsapp.ml.heads import LinearHead
from cnsapp.ml.preprocess import CLEAN
from cnsapp.ml.quick import QuickResult

FORMAT = "cnsapp-model"
FORMAT_VERSION = 2
OLD_FORMAT = "cnsapp-quick"  # version 1: linear heads on frozen backbones
READ = ((FORMAT, FORMAT_VERSION), (OLD_FORMAT, 1))
QUICK, NETWORK = "quick", "network"
_META_KEY = "cnsapp"
_PACKAGES = ("cnsapp", "torch", "torchvision", "timm", "numpy", "pillow")

Arrays = Mapping[str, NDArray[np.float32]]


@dataclass(frozen=True)
class Bundle:
    """A model that can be applied without the data it was trained on.

    Attributes
    ----------
    head, stages
        The head and the stages whose columns it reads.
    class_ids, class_names
        In the order of the outputs.
    features
        The extractor's spec: backbone, weights hash, preprocessing, stages, pooling. Of a
        fine-tuned network `weights` names those that it started from.
    spec_id
        The spec's short name: cached rows of the same spec fit this model; empty for a fine-tuned
        network, which no cached rows fit.
    strength, temperature, threshold, predict_views
        Regularisation C of the head (0 where it has none), calibration, confidence below which the
        decision is "unsure", views averaged at prediction.
    data_fingerprint
        Hash of the images and labels it was trained on.
    settings, versions, metrics
        What was asked for, package versions, scores: plain data.
    kind
        `quick`: a head on a frozen backbone, whose weights are found on this machine; `network`: a
        fine-tuned network, whose weights are all in the file.
    body
        Of a network: weights by name (`cnsapp.ml.network.body_arrays`); else None.
    """

    head: Head
    stages: tuple[str, ...]
    class_ids: list[int]
    class_names: list[str]
    features: dict[str, object]
    spec_id: str
    strength: float
    temperature: float
    threshold: float = 0.5
    predict_views: tuple[str, ...] = (CLEAN,)
    data_fingerprint: str = ""
    settings: dict[str, object] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    metrics: dict[str, object] = field(default_factory=dict)
    kind: str = QUICK
    body: Arrays | None = None

    @property
    def backbone_id(self) -> str:
        """Registry id of the backbone."""
        return str(self.features["backbone"])

    @property
    def architecture(self) -> str:
        """Registry id or `timm:NAME` of the layers: what is built for weights of a lab's own."""
        return str(self.features.get("architecture") or self.backbone_id)


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


def network_bundle(
    row: Backbone,
    body: Arrays,
    head: LinearHead,
    stages: Sequence[str],
    *,
    class_ids: Sequence[int],
    class_names: Sequence[str],
    started_from: str,
    image_size: int,
    temperature: float = 1.0,
    threshold: float = 0.5,
    predict_views: Sequence[str] = (CLEAN,),
    data_fingerprint: str = "",
    settings: Mapping[str, object] | None = None,
    metrics: Mapping[str, object] | None = None,
) -> Bundle:
    """Put a fine-tuned network into a file's form; no weights file is needed to use it again.

    Parameters
    ----------
    row
        Of the backbone.
    body
        All weights up to the last of `stages`, from `body_arrays(net, stages)` of the unfolded
        network (`build_backbone(..., fuse=False)`).
    head, stages
        As of a quick model.
    started_from
        Hash of the weights that it started from (`LoadedBackbone.weights_hash`).
    image_size
        Side of its input, in pixels.
    class_ids, class_names, temperature, threshold, predict_views, data_fingerprint, settings, \
    metrics
        As in `Bundle`.
    """
    return Bundle(
        head=head,
        stages=tuple(stages),
        class_ids=list(class_ids),
        class_names=list(class_names),
        features={
            "backbone": row.id,
            "architecture": row.facts.architecture or row.id,
            "weights": started_from,
            "preprocessing": replace(row.preprocessing, size=image_size).as_json(),
            "stages": list(stages),
            "pooling": POOLING,
        },
        spec_id="",
        strength=0.0,
        temperature=temperature,
        threshold=threshold,
        predict_views=tuple(predict_views),
        data_fingerprint=data_fingerprint,
        settings=dict(settings or {}),
        versions=package_versions(),
        metrics=dict(metrics or {}),
        kind=NETWORK,
        body=dict(body),
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
    data = save(_arrays(bundle), {_META_KEY: json.dumps(_meta(bundle), sort_keys=True)})
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
        form, number = meta.pop("format"), meta.pop("format_version")
        if (form, number) not in READ:
            raise CnsError(
                f"The model file {path.name} has format {form} {number}.",
                f"This version of the app reads {FORMAT} up to {FORMAT_VERSION}.",
                "Update the app.",
            )
        return _bundle(meta, load(data), old=form == OLD_FORMAT)
    except CnsError:
        raise
    except Exception as error:  # a damaged file fails in a dozen ways
        raise CnsError(
            f"{path.name} is not a model file of this app, or it is damaged.",
            f"({type(error).__name__})",
            "Restore it from a backup, or train again.",
        ) from error


def _arrays(bundle: Bundle) -> dict[str, NDArray[np.float32]]:
    """Return what is stored as numbers, by name."""
    parts: list[tuple[str, Arrays]] = [("head.", vars(bundle.head)), ("body.", bundle.body or {})]
    return {
        prefix + name: np.ascontiguousarray(value, np.float32)
        for prefix, arrays in parts
        for name, value in arrays.items()
    }


def _meta(bundle: Bundle) -> dict[str, object]:
    """Return what is stored as words: everything but the arrays."""
    meta = {k: v for k, v in vars(bundle).items() if k not in ("head", "body")}
    meta |= {"format": FORMAT, "format_version": FORMAT_VERSION, "head_kind": kind_of(bundle.head)}
    return meta


def _bundle(meta: dict[str, Any], arrays: dict[str, NDArray[np.float32]], *, old: bool) -> Bundle:
    """Put a file's words and numbers together; raises whatever a damaged file brings about."""
    meta["stages"], meta["predict_views"] = tuple(meta["stages"]), tuple(meta["predict_views"])
    if old:
        return Bundle(head=head_from("linear", arrays), **meta)
    head = head_from(meta.pop("head_kind"), _below(arrays, "head."))
    body = _below(arrays, "body.") if meta["kind"] == NETWORK else None
    if body is not None and not body:
        raise KeyError("body")
    return Bundle(head=head, body=body, **meta)


def _below(arrays: dict[str, NDArray[np.float32]], prefix: str) -> dict[str, NDArray[np.float32]]:
    return {k.removeprefix(prefix): v for k, v in arrays.items() if k.startswith(prefix)}


def _metadata(data: bytes) -> dict[str, str]:
    (length,) = struct.unpack("<Q", data[:8])
    if length > len(data):
        raise ValueError("header is longer than the file")
    header: dict[str, dict[str, str]] = json.loads(data[8 : 8 + length])
    return header["__metadata__"]
