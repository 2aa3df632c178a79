"""The kinds of saliency map: which are valid for which network, how they are set, how they read.

Nothing here loads a network. For networks that are known only once they are loaded, `cnsapp.ml`
looks at the layers and asks `offered` again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from cnsapp.domain.backbones import BackboneFacts
from cnsapp.domain.map_methods import (
    DEFAULT_METHOD,
    EVERYWHERE,
    MAGNITUDE,
    METHODS,
    POSITIVE,
    RELU_ONCE,
    RELU_ONLY,
    SIGNED,
    MapMethod,
    MapSetting,
)
from cnsapp.errors import InvalidInputError

UNKNOWN_COST = "unknown"  # `BackboneFacts.cost` of a network that nobody has looked at
SHARED_RELU = ("resnet18", "resnet50")  # each block calls its one ReLU layer several times


class Offer(NamedTuple):
    """A method, and in one sentence why it is not offered; empty when it is."""

    method: MapMethod
    reason: str


_BY_ID = {method.id: method for method in METHODS}


def get_method(method: str) -> MapMethod:
    """Return a kind of map; raise InvalidInputError when there is none of that name."""
    if method not in _BY_ID:
        raise InvalidInputError(
            f"There is no saliency method “{method}”.",
            "",
            f"Use one of: {', '.join(_BY_ID)}.",
        )
    return _BY_ID[method]


def check_method(method: str) -> None:
    """Raise InvalidInputError when there is no such kind of map."""
    get_method(method)


def offered(
    facts: BackboneFacts,
    head: str = "linear",
    relu_layers_only: bool | None = None,
    relu_layers_shared: bool | None = None,
) -> list[Offer]:
    """Say of every method whether it is valid for a network, and if not, why.

    Parameters
    ----------
    facts
        Of the backbone.
    head
        Kind of the head: `linear`, `kernel` or `mlp`.
    relu_layers_only, relu_layers_shared
        What a look at the loaded network found; None to go by `facts`. Networks of timm have no
        facts of this kind: until they were looked at, what needs ReLUs is not offered.

    References
    ----------
    Kokhlikyan et al., Captum, arXiv 2009.07896, 2020: its guided backpropagation and DeepLift
    change the gradients of `torch.nn.ReLU` layers and of no other non-linearity, and DeepLift needs
    layers that are called once.
    """
    found = []
    for method in METHODS:
        reason = ""
        if method.where != EVERYWHERE:
            reason = _no_relus(facts, relu_layers_only) or _wrong_head(method, head)
        if method.where == RELU_ONCE and not reason:
            reason = _shared(facts, relu_layers_shared)
        found.append(Offer(method, reason))
    return found


def _no_relus(facts: BackboneFacts, seen: bool | None) -> str:
    title, plain = facts.title.partition(" (")[0], "plain gradients under another name"
    if seen is None and facts.cost == UNKNOWN_COST:
        return "Whether it is valid for this network is known after the model's first map."
    if facts.relu_only if seen is None else seen:
        return ""
    if facts.attention:
        return f"{title} is a transformer without ReLU layers: the result would be {plain}."
    return f"{title} has other non-linearities than ReLU layers: the result would be {plain}."


def _wrong_head(method: MapMethod, head: str) -> str:
    if head == "mlp":
        return "The hidden layer of this model's head would keep its plain gradient."
    if head == "kernel" and method.where == RELU_ONCE:
        return "This model's head weighs distances, which would keep their plain gradient."
    return ""


def _shared(facts: BackboneFacts, seen: bool | None) -> str:
    known = facts.id in SHARED_RELU or facts.architecture in SHARED_RELU
    if known if seen is None else seen:
        return "Its blocks use one ReLU layer several times, which the method can not tell apart."
    return ""


def check_offered(
    method: str,
    facts: BackboneFacts,
    head: str = "linear",
    relu_layers_only: bool | None = None,
    relu_layers_shared: bool | None = None,
) -> None:
    """Raise InvalidInputError, with the reason, when a method is not valid for a network."""
    wanted = get_method(method)
    found = offered(facts, head, relu_layers_only, relu_layers_shared)
    reason = next(offer.reason for offer in found if offer.method is wanted)
    if reason:
        raise InvalidInputError(
            f"{wanted.title} is not offered for this model.",
            reason,
            f"Use one of: {', '.join(o.method.id for o in found if not o.reason)}.",
        )


def clean_settings(method: str, given: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return all settings of a method: those given, checked, and the defaults of the others.

    Parameters
    ----------
    given
        By name; numbers may come as text.

    Raises
    ------
    InvalidInputError
        A setting is unknown or out of its range.
    """
    rows = {setting.name: setting for setting in get_method(method).settings}
    for name in given or {}:
        if name not in rows:
            raise InvalidInputError(
                f"{get_method(method).title} has no setting “{name}”.",
                "",
                f"It has: {', '.join(rows) or 'none'}.",
            )
    return {name: _value(row, (given or {}).get(name, row.default)) for name, row in rows.items()}


def _value(setting: MapSetting, given: Any) -> Any:
    if setting.choices:
        if given in setting.choices:
            return given
        remedy = f"Use one of: {', '.join(setting.choices)}."
    else:
        kind = "a whole number" if setting.whole else "a number"
        remedy = f"Use {kind} from {setting.low:g} to {setting.high:g}."
        try:
            number = float(given)
        except (TypeError, ValueError):
            number = float("nan")
        if setting.low <= number <= setting.high and (not setting.whole or number % 1 == 0):
            return int(number) if setting.whole else number
    raise InvalidInputError(f"“{given}” is no value of the setting {setting.name}.", "", remedy)


def settings_sign(settings: Mapping[str, Any]) -> str:
    """Return a short text that is the same for the same settings, for the name of a map."""
    return json.dumps(dict(settings), sort_keys=True, separators=(",", ":"))


def sign_of(method: str, settings: Mapping[str, Any]) -> str:
    """Return what the colours of a map mean: `positive`, `signed` or `magnitude`."""
    if not get_method(method).has_sign:
        return MAGNITUDE
    return str(settings.get("show", POSITIVE))


def legend(sign: str, class_name: str) -> dict[str, str]:
    """Return the words at the ends of a map's scale: `low`, `middle` (may be empty), `high`."""
    if sign == SIGNED:
        return {
            "low": f"speaks against {class_name}",
            "middle": "neither",
            "high": f"speaks for {class_name}",
        }
    if sign == MAGNITUDE:
        return {
            "low": "no influence",
            "middle": "",
            "high": f"most influence on {class_name}, for or against",
        }
    return {"low": "no evidence", "middle": "", "high": f"most evidence for {class_name}"}


__all__ = [
    "DEFAULT_METHOD", "EVERYWHERE", "MAGNITUDE", "METHODS", "POSITIVE", "RELU_ONCE", "RELU_ONLY",
    "SIGNED", "MapMethod", "MapSetting", "Offer", "check_method", "check_offered",
    "clean_settings", "get_method", "legend", "offered", "settings_sign", "sign_of",
]  # fmt: skip
