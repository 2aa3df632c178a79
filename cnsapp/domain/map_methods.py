"""The table of saliency methods: how each is read, what it can be told, where it is valid."""

from __future__ import annotations

from dataclasses import dataclass

DEFAULT_METHOD = "hirescam"  # why: docs/adr/0008-default-map.md
POSITIVE, SIGNED, MAGNITUDE = "positive", "signed", "magnitude"
EVERYWHERE, RELU_ONLY, RELU_ONCE = "everywhere", "relu only", "relu once"


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
        `everywhere`, `relu only` (valid only if every non-linearity is a ReLU layer) or `relu once`
        (also each of these layers must be called once, and the head be linear).
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
        "hirescam",
        "HiResCAM",
        "Like Grad-CAM, with the gradient of every place instead of their mean. Models "
        "here also read how much a map varies, which Grad-CAM averages away and this keeps.",
        settings=(_SHOW,),
        paper="Draelos and Carin, arXiv 2011.08891, 2020",
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
        "What each place adds to the difference from a plain image, layer by layer: quick, and its "
        "parts add up. Noisy; compare it with Grad-CAM.",
        where=RELU_ONCE,
        settings=(_BASELINE, _SHOW),
        paper="Shrikumar et al., ICML 2017",
    ),
)
