"""What is noted of a saliency map: everything that a page says beside it."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from cnsapp.domain.maps import MAGNITUDE, POSITIVE, SIGNED, get_method, legend
from cnsapp.ml.head_kinds import kind_of
from cnsapp.ml.predict import Predictor
from cnsapp.ml.saliency import Saliency
from cnsapp.ml.saliency_network import look_at_model
from cnsapp.ml.tokens import WholeFirst
from cnsapp.services.models import ModelView
from cnsapp.tasks.maps import scale_colours

NO_EVIDENCE = (
    "No place in this image speaks for {name}: the map is empty. The model decided by what speaks "
    "against the other classes, or it is unsure."
)
ALL_AGAINST = "No place in this image speaks for {name}: the map shows what speaks against it."
NO_INFLUENCE = "No place in this image changes the answer: the map is empty."
FAINT = (
    "Hardly anything speaks for {name}: all of it together has {share:.0%} of the weight of what "
    "speaks against it. The strongest colour is the most in this image, however little that is."
)
INEXACT = 0.1  # of the change that the parts should add up to
LITTLE = 0.05  # of the weight of what speaks against the class


def facts_of(
    model: ModelView, predictor: Predictor, made: Saliency, probabilities: NDArray[np.float32]
) -> dict[str, Any]:
    """Return the facts of a map, as plain data.

    Parameters
    ----------
    probabilities
        (K,) of the deployed model for the image, with all its views.
    """
    index, predicted = made.target_index, int(probabilities.argmax())
    name, method = model.class_names[index], get_method(made.method)
    note = _empty(made, name)
    return {
        "model_id": model.id,
        "model_sha256": model.sha256,
        "class_id": model.class_ids[index],
        "class": name,
        "target_index": index,
        "probability": float(probabilities[index]),
        "predicted_class_id": model.class_ids[predicted],
        "predicted": model.class_names[predicted],
        "probabilities": [float(p) for p in probabilities],
        "class_ids": model.class_ids,
        "method": made.method,
        "title": method.title,
        "how_to_read": method.note,
        "paper": method.paper,
        "settings": made.settings,
        "layer": made.layer,
        "sign": made.sign,
        "legend": legend(made.sign, name) | {"colours": scale_colours(made.sign)},
        "scale": made.scale,
        "delta": made.delta,
        "completeness": _completeness(made),
        "cells": np.round(made.cells.astype(float), 3).tolist(),
        "ranking": made.ranking.tolist(),
        "empty": not made.raw.any(),
        "note": note,
        "notes": [text for text in (note, *_cautions(predictor, made, name)) if text],
        "faithfulness": None,
    }


def look_of(predictor: Predictor) -> dict[str, Any]:
    """Return what decides which maps are valid for a model, as plain data."""
    look = look_at_model(predictor)
    return {
        "relu_layers_only": look.relu_layers_only,
        "relu_layers_shared": look.relu_layers_shared,
        "others": list(look.others),
        "head": kind_of(predictor.bundle.head),
    }


def _empty(made: Saliency, name: str) -> str:
    if made.has_positive:
        return ""
    if made.sign == MAGNITUDE or not made.raw.any():
        return NO_INFLUENCE
    return (ALL_AGAINST if made.sign == SIGNED and made.scale > 0 else NO_EVIDENCE).format(
        name=name
    )


def _completeness(made: Saliency) -> dict[str, float] | None:
    """Return by how much the parts miss the change of the logit, that change, and the share."""
    if made.delta is None or made.change is None:
        return None
    share = abs(made.delta) / max(abs(made.change), 1e-9)
    return {"error": made.delta, "change": made.change, "share": share}


def _cautions(predictor: Predictor, made: Saliency, name: str) -> list[str]:
    found = []
    speaks_for, against = (float((s * made.raw).clip(0).sum()) for s in (1, -1))
    if made.sign == POSITIVE and 0 < speaks_for < LITTLE * against:
        found.append(FAINT.format(name=name, share=speaks_for / against))
    whole = _completeness(made)
    if whole is not None and whole["share"] > INEXACT:
        found.append(
            f"The parts miss the change of the answer by {whole['share']:.0%}: take more steps, or "
            "trust the map less."
        )
    if made.layer != "input" and any(isinstance(m, WholeFirst) for m in predictor.net.modules()):
        found.append(
            "This network can not be cut into stages: the map shows only what the model's head "
            "reads of this one."
        )
    return found
