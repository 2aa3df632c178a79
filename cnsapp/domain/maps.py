"""The kinds of saliency map: which are valid for which network, how they are set, how they read.

Nothing here loads a network. For networks that are known only once they are loaded, `cnsapp.ml`
looks at the layers and asks `offered` again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from cnsapp.domain.backbones import BackboneFacts
from cnsapp.errors import InvalidInputError

DEFAULT_METHOD = "gradcam"
POSITIVE, SIGNED, MAGNITUDE = "positive", "signed", "magnitude"
EVERYWHERE, RELU_ONLY, NOWHERE = "everywhere", "relu only", "nowhere"
UNKNOWN_COST = "unknown"  # `BackboneFacts.cost` of a network that nobody has looked at


@dataclass(frozen=True)
class MapSetting:
    """One thing that a method can be told.

    Attributes
    ----------
    name, title, help
        In commands; on the screen; one sentence.
    default
        A number or, with `choices`, a word.
    low, high
        Smallest and largest number, both allowed.
    choices
        The words that are allowed; empty for a number.
    whole
        Whether it must be a whole number.
    """

    name: str
    title: str
    help: str
    default: float | str
    low: float = 0.0
    high: float = 0.0
    choices: tuple[str, ...] = ()
    whole: bool = True


@dataclass(frozen=True)
class MapMethod:
    """A kind of saliency map and how to read it.

    Attributes
    ----------
    id, title, note
        In files and commands; on the screen; how to read it.
    has_sign
        Whether values below zero speak against the class. If not, values only say how much the
        answer depends on a place, in whichever direction.
    where
        `everywhere`, `relu only` (valid only if every non-linearity is a ReLU layer) or `nowhere`.
    settings
        What it can be told.
    paper
        Where it was published.
    """

    id: str
    title: str
    note: str
    has_sign: bool = True
    where: str = EVERYWHERE
    settings: tuple[MapSetting, ...] = ()
    paper: str = ""


class Offer(NamedTuple):
    """A method, and in one sentence why it is not offered; empty when it is."""

    method: MapMethod
    reason: str


_SHOW = MapSetting(
    "show", "Shown", "What speaks for the class alone, or also what speaks against it.",
    POSITIVE, choices=(POSITIVE, SIGNED),
)  # fmt: skip
_BASELINE = MapSetting(
    "baseline", "Compared with",
    "What stands for “nothing there”: the network's middle colour, white glass, black or a blur.",
    "gray", choices=("gray", "white", "black", "blur"),
)  # fmt: skip

METHODS = (
    MapMethod(
        "gradcam",
        "Grad-CAM",
        "Regions whose features speak for the class, as coarse as the layer they come from. It "
        "shows where the model looked, not why.",
        settings=(_SHOW,),
        paper="Selvaraju et al., ICCV 2017",
    ),
    MapMethod(
        "integrated_gradients",
        "Integrated gradients",
        "Finer places whose pixels raise the class above a plain gray image. Slower, and edges "
        "stand out; compare it with Grad-CAM before believing a detail.",
        settings=(
            MapSetting("steps", "Steps", "Points on the path; more are more exact.", 20, 2, 200),
            _BASELINE,
            _SHOW,
        ),
        paper="Sundararajan et al., ICML 2017",
    ),
    MapMethod(
        "smoothgrad",
        "SmoothGrad",
        "How strongly the answer reacts to small changes of a place, averaged over noisy copies. "
        "It has no sign, and shows edges even where the model learnt nothing of them.",
        has_sign=False,
        settings=(
            MapSetting("samples", "Noisy copies", "More are smoother and slower.", 16, 2, 100),
            MapSetting(
                "noise",
                "Noise",
                "Standard deviation, as a share of the image's range of values.",
                0.15,
                0.01,
                1.0,
                whole=False,
            ),
        ),
        paper="Smilkov et al., arXiv 1706.03825, 2017",
    ),
    MapMethod(
        "occlusion",
        "Occlusion",
        "By how much the class falls when a window of the image is covered. Needs no gradients "
        "and is easy to explain; slow.",
        settings=(
            MapSetting(
                "window",
                "Window",
                "Side in pixels of the network's input; 0 is a seventh of it.",
                0,
                0,
                512,
            ),
            MapSetting(
                "stride", "Step", "Pixels from window to window; 0 is half a window.", 0, 0, 512
            ),
            MapSetting(
                "baseline",
                "Covered with",
                "What a covered window shows.",
                "blur",
                choices=_BASELINE.choices,
            ),
            _SHOW,
        ),
        paper="Zeiler and Fergus, ECCV 2014",
    ),
    MapMethod(
        "input_x_gradient",
        "Input x gradient",
        "The gradient times the distance from middle gray: one quick look, noisy and only true "
        "close to this image.",
        settings=(_SHOW,),
        paper="Shrikumar et al., arXiv 1605.01713, 2016",
    ),
    MapMethod(
        "guided_gradcam",
        "Guided Grad-CAM",
        "Fine structures inside the regions of Grad-CAM. The structures look the same for a model "
        "that learnt nothing, so read the region and not the drawing.",
        has_sign=False,
        where=RELU_ONLY,
        paper="Selvaraju et al., ICCV 2017",
    ),
    MapMethod(
        "guided_backprop",
        "Guided backpropagation",
        "Fine structures that excite the network. It hardly depends on the class or on what was "
        "learnt; kept to compare with earlier papers.",
        has_sign=False,
        where=RELU_ONLY,
        paper="Springenberg et al., arXiv 1412.6806, 2014",
    ),
    MapMethod(
        "deeplift",
        "DeepLift",
        "Not offered: see why.",
        where=NOWHERE,
        paper="Shrikumar et al., ICML 2017",
    ),
)
_BY_ID = {method.id: method for method in METHODS}


def get_method(method: str) -> MapMethod:
    """Return a kind of map; raise InvalidInputError when there is none of that name."""
    if method not in _BY_ID:
        raise InvalidInputError(
            f"There is no saliency method “{method}”.",
            "",
            f"Use one of: {', '.join(m.id for m in METHODS if m.where != NOWHERE)}.",
        )
    return _BY_ID[method]


def check_method(method: str) -> None:
    """Raise InvalidInputError when there is no such kind of map."""
    get_method(method)


def offered(
    facts: BackboneFacts, head: str = "linear", relu_layers_only: bool | None = None
) -> list[Offer]:
    """Say of every method whether it is valid for a network, and if not, why.

    Parameters
    ----------
    facts
        Of the backbone.
    head
        Kind of the head: `linear`, `kernel` or `mlp`.
    relu_layers_only
        What a look at the loaded network found; None to go by `facts`. Networks of timm have no
        facts of this kind: until they were looked at, what needs ReLUs is not offered.

    References
    ----------
    Kokhlikyan et al., Captum, arXiv 2009.07896, 2020: its guided backpropagation and DeepLift
    change the gradients of `torch.nn.ReLU` layers and of no others.
    """
    return [Offer(method, _reason(method, facts, head, relu_layers_only)) for method in METHODS]


def _reason(method: MapMethod, facts: BackboneFacts, head: str, relu_only: bool | None) -> str:
    if method.where == NOWHERE:
        return (
            "Models here read how much a map varies, which DeepLift can not take apart: its parts "
            "would not add up to the answer."
        )
    if method.where == EVERYWHERE:
        return ""
    if relu_only is None and facts.cost == UNKNOWN_COST:
        return "Whether it is valid for this network is known after the model's first map."
    if facts.attention:
        return (
            f"{_named(facts)} is a transformer without ReLU layers: the result would be the plain "
            "gradient under another name."
        )
    if not (facts.relu_only if relu_only is None else relu_only):
        return (
            f"{_named(facts)} has other non-linearities than ReLU layers: the result would be the "
            "plain gradient under another name."
        )
    if head == "mlp":
        return "The hidden layer of this model's head would keep its plain gradient."
    return ""


def _named(facts: BackboneFacts) -> str:
    return facts.title.partition(" (")[0]


def check_offered(
    method: str, facts: BackboneFacts, head: str = "linear", relu_layers_only: bool | None = None
) -> None:
    """Raise InvalidInputError, with the reason, when a method is not valid for a network."""
    wanted = get_method(method)
    found = offered(facts, head, relu_layers_only)
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
