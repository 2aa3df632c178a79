"""A model applied to new images: a stream in, one answer an image out."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from cnsapp.errors import CnsError
from cnsapp.ml.backbones import LoadedBackbone, build_backbone
from cnsapp.ml.bundle import Bundle
from cnsapp.ml.device import Device, choose_device
from cnsapp.ml.network import QuickNet, tuned_backbone
from cnsapp.ml.preprocess import Pixels, Preprocessing, make_view
from cnsapp.ml.streams import batches, run_batches

Probabilities = NDArray[np.float32]


class Predictor:
    """A model on a device, ready to answer.

    Parameters
    ----------
    bundle
        The model.
    device
        Where to run; None chooses.
    weights_dir
        Folder with weights files (`CNS_HOME/weights`).

    Raises
    ------
    CnsError
        The backbone's weights are missing, or are not those the model was trained on.
    """

    def __init__(
        self, bundle: Bundle, device: Device | None = None, weights_dir: Path | None = None
    ) -> None:
        self.bundle = bundle
        self.backbone = _backbone_of(bundle, weights_dir)
        self.device = device or choose_device()
        self.preprocessing = _preprocessing_of(bundle)
        self.net = QuickNet(self.backbone, bundle.stages, bundle.head, bundle.temperature)
        self.net = self.net.to(self.device.torch)

    def input_tensor(self, views: list[Pixels]) -> torch.Tensor:
        """Return normalised input (B, 3, S, S) of views at network size."""
        batch = torch.from_numpy(np.stack(views)).to(self.device.torch)
        return self.preprocessing.normalise(batch)

    def predict(
        self,
        images: Iterable[Pixels],
        *,
        progress: Callable[[int], None] | None = None,
        cancelled: Callable[[], bool] | None = None,
    ) -> Probabilities:
        """Return calibrated probabilities (N, K) of uint8 (H, W, 3) images of any sizes.

        A generator is read in a second thread while the network runs.
        """
        rows = []
        views = (self._views(image) for image in images)
        parts = batches(views, self._images_a_batch)
        for part in run_batches(self._run, parts, self.device, cancelled):
            rows.append(part)
            if progress is not None:
                progress(sum(map(len, rows)))
        return (
            np.concatenate(rows) if rows else np.zeros((0, len(self.bundle.class_ids)), np.float32)
        )

    @property
    def _images_a_batch(self) -> int:
        return max(1, self.device.batch_size // len(self.bundle.predict_views))

    def _views(self, image: Pixels) -> list[Pixels]:
        size = self.preprocessing.size
        clean = make_view(image, size)
        return [make_view(clean, size, view) for view in self.bundle.predict_views]

    def _run(self, batch: list[list[Pixels]]) -> Probabilities:
        """Return (B, K) for B images of V views each: softmax of the mean logits."""
        flat = [view for views in batch for view in views]
        with self.device.inference():
            logits = self.net(self.input_tensor(flat)).float()
            mean = logits.reshape(len(batch), -1, logits.shape[1]).mean(1)
            out: Probabilities = mean.softmax(1).cpu().numpy()
        return out


def _backbone_of(bundle: Bundle, weights_dir: Path | None) -> LoadedBackbone:
    """Return the backbone of a model: the published one, or the one in the file."""
    if bundle.body is None:
        backbone = build_backbone(bundle.backbone_id, weights_dir)
        _check_weights(bundle, backbone)
        return backbone
    started_from = str(bundle.features["weights"])
    try:
        return tuned_backbone(bundle.architecture, bundle.stages, bundle.body, started_from)
    except RuntimeError as error:
        raise CnsError(
            f"The weights in the model file do not fit {bundle.architecture} ({error}).",
            "Another version of the app made the file, or it is damaged.",
            "Restore it from a backup, or train again.",
        ) from error


def _check_weights(bundle: Bundle, backbone: LoadedBackbone) -> None:
    if backbone.weights_hash != bundle.features["weights"]:
        raise CnsError(
            f"The weights of {backbone.row.title} are not those this model was trained on.",
            f"They are {backbone.weights_hash}, the model needs {bundle.features['weights']}.",
            "Put the earlier weights file back, or train again.",
        )


def _preprocessing_of(bundle: Bundle) -> Preprocessing:
    stored: dict[str, object] = bundle.features["preprocessing"]  # type: ignore[assignment]
    return Preprocessing(
        int(stored["size"]),  # type: ignore[call-overload]
        tuple(stored["mean"]),  # type: ignore[arg-type]
        tuple(stored["std"]),  # type: ignore[arg-type]
    )
