"""What a training run may be told: every dial with its range, its default in each preset, and why.

One table serves the commands (`--set key=value`), the Train page and the training itself. Nothing
here loads a network.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, get_type_hints

from cnsapp.domain.backbones import DEFAULT_BACKBONE as DEFAULT_BACKBONE
from cnsapp.domain.backbones import TITLES
from cnsapp.errors import InvalidInputError

BACKBONES: dict[str, str] = TITLES  # id -> title; `timm:NAME` and `file:NAME` are others
PRESETS: dict[str, str] = {
    "quick": "A head on features that are computed once: seconds.",
    "full": "The whole network is fine-tuned from the quick head: minutes to hours.",
    "best": "As full, longer, with more views, and every image scored.",
}
FINE_TUNED = ("full", "best")  # presets that change the network itself
BASICS, HEAD, CHANGES, LEARNING, SCORING = (
    "Basics", "Quick head", "Changes to the images", "Learning", "Scoring",
)  # fmt: skip


@dataclass(frozen=True)
class Dial:
    """One setting of a run.

    Attributes
    ----------
    name, title
        In commands and files; on the screen.
    help
        What it does and when to change it, in one line.
    group
        Where it stands on the screen.
    kind
        `int`, `float`, `bool`, `choice` or `text`.
    low, high
        Range of a number, both included.
    choices
        Of a choice.
    presets
        Presets that listen to it.
    """

    name: str
    title: str
    help: str
    group: str
    kind: str
    low: float = 0.0
    high: float = 0.0
    choices: tuple[str, ...] = ()
    presets: tuple[str, ...] = ("full", "best")

    @property
    def takes(self) -> str:
        """What it takes, in words."""
        if self.kind == "choice":
            return f"one of: {', '.join(self.choices)}"
        if self.kind == "bool":
            return "true or false"
        if self.kind == "text":
            return "a text of at most 200 characters"
        what = "a whole number" if self.kind == "int" else "a number"
        return f"{what} from {self.low:,g} to {self.high:,g}"

    def read(self, value: Any) -> Any:
        """Return the value in its type; raise ValueError when it is not one of this dial."""
        if self.kind == "text":
            return str(value)[:200]
        if self.kind == "choice":
            if str(value) not in self.choices:
                raise ValueError
            return str(value)
        if self.kind == "bool":
            return _BOOLS[str(value).strip().lower()]
        number = int(str(value)) if self.kind == "int" else float(str(value))
        if not self.low <= number <= self.high:  # NaN is in no range
            raise ValueError
        return number


_BOOLS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
_ALL = ("quick", "full", "best")
_QUICK = ("quick",)

DIALS: tuple[Dial, ...] = (
    Dial("name", "Name", "What the model is called.", BASICS, "text", presets=_ALL),
    Dial("seed", "Seed", "Same data, settings and seed give the same model on a CPU.", BASICS,
         "int", 0, 2**31 - 1, presets=_ALL),
    Dial("device", "Device", "auto takes a GPU when there is one.", BASICS, "text", presets=_ALL),
    Dial("threshold", "Abstain below",
         "Predictions with less confidence than this decide “unsure”.", BASICS, "float", 0, 1,
         presets=_ALL),
    Dial("head", "Head", "auto chooses by grouped cross-validation and prefers the simplest.",
         HEAD, "choice", choices=("auto", "linear", "mlp", "kernel"), presets=_QUICK),
    Dial("epochs", "Epochs", "Times every image is seen; early stopping may end sooner.", LEARNING,
         "int", 1, 500),
    Dial("learning_rate", "Learning rate",
         "The head's, at its highest; 0 chooses. Lower it when the loss jumps.", LEARNING, "float",
         0, 1),
    Dial("body_rate", "Rate of the body",
         "The pretrained layers learn at this share of the head's rate.", LEARNING, "float", 0, 1),
    Dial("frozen_stages", "Frozen stages",
         "First stages that stay as pretrained: faster, steadier with few images; -1 chooses.",
         LEARNING, "int", -1, 20),
    Dial("batch_norms", "Batch norms",
         "fixed keeps the pretrained statistics; learn follows your images.", LEARNING, "choice",
         choices=("fixed", "learn")),
    Dial("warmup_epochs", "Warm-up", "Epochs in which the rate rises from zero.", LEARNING,
         "float", 0, 20),
    Dial("weight_decay", "Weight decay (L2)", "Pulls weights to zero; more with few images.",
         LEARNING, "float", 0, 1),
    Dial("dropout", "Dropout", "Share of the features hidden from the head at random.", LEARNING,
         "float", 0, 0.9),
    Dial("label_smoothing", "Label smoothing", "Against overconfidence when some labels are wrong.",
         LEARNING, "float", 0, 0.5),
    Dial("balance", "Unequal classes",
         "Let rare classes weigh more, or be drawn more often, or leave them as they are.",
         LEARNING, "choice", choices=("weights", "sampling", "none")),
    Dial("ema", "Averaging (EMA)", "Decay of the running average of the weights; 0 is off.",
         LEARNING, "float", 0, 0.9999),
    Dial("patience", "Patience",
         "Stop after so many epochs without a better validation score; 0 is never.", LEARNING,
         "int", 0, 100),
    Dial("start_from", "Start from", "The quick head, or a head that knows nothing.", LEARNING,
         "choice", choices=("quick", "scratch")),
    Dial("image_size", "Image size",
         "Side in pixels; 0 is the backbone's own. Larger sees finer detail, and is slower.",
         LEARNING, "int", 0, 1024),
    Dial("batch_size", "Batch size", "0 finds it; it is halved when memory runs out.", LEARNING,
         "int", 0, 1024),
    Dial("precision", "Precision", "auto takes 16 bits where they are faster.", LEARNING, "choice",
         choices=("auto", "float32", "bfloat16", "float16")),
    Dial("channels_last", "Channels last", "A memory layout that is faster almost everywhere.",
         LEARNING, "bool"),
    Dial("rotation", "Rotation", "Turn by any angle: 1 is up to a full turn.", CHANGES, "float", 0,
         1),
    Dial("flips", "Flips", "Mirror at random. Off where left and right differ.", CHANGES, "bool"),
    Dial("zoom", "Zoom", "Enlarge or shrink: 1 is up to 40 %.", CHANGES, "float", 0, 1),
    Dial("stain", "Stain", "Vary how strongly each dye took: 1 is ±50 %.", CHANGES, "float", 0, 1),
    Dial("brightness", "Brightness", "Vary brightness and contrast: 1 is ±50 %.", CHANGES, "float",
         0, 1),
    Dial("noise", "Noise", "Add Gaussian noise: 1 is a standard deviation of 20 % of the range.",
         CHANGES, "float", 0, 1),
    Dial("blur", "Blur", "Blur as if out of focus: 1 is up to 3 pixels.", CHANGES, "float", 0, 1),
    Dial("test_views", "Views at prediction",
         "Turned and mirrored copies that are averaged: 1, 2, 4 or 8. Slower, often better.",
         SCORING, "choice", choices=("1", "2", "4", "8"), presets=_ALL),
    Dial("average_with_quick", "Average with the start",
         "Weights between the quick model's and the learnt ones: half way where samples are few, "
         "unless validation images say otherwise.", SCORING, "bool"),
    Dial("evaluate", "Score by",
         "holdout keeps one fold back; folds trains one network a fold, so every image is scored.",
         SCORING, "choice", choices=("holdout", "folds")),
    Dial("n_folds", "Folds", "Parts that are held out in turn.", SCORING, "int", 2, 20,
         presets=_ALL),
    Dial("scheme", "Folds are cut", "What stays together in one fold; empty chooses.", SCORING,
         "choice", choices=("by group", "by file-name blocks", "random", "by column"),
         presets=_ALL),
    Dial("column", "Column", "With folds by column: every value is held out in turn (a batch).",
         SCORING, "text", presets=_ALL),
    Dial("validation_share", "Validation share",
         "Part of the training images that early stopping and calibration look at.", SCORING,
         "float", 0.05, 0.5),
    Dial("score_test", "Score the locked test set",
         "Look at the test set when the run ends. Every look is counted; one at the end is best.",
         SCORING, "bool", presets=_ALL),
)  # fmt: skip


@dataclass(frozen=True)
class Recipe:
    """The dials of a run, set. Names and meanings are those of `DIALS`; `scheme` "" chooses."""

    preset: str = "quick"
    name: str = ""
    seed: int = 0
    device: str = "auto"
    threshold: float = 0.5
    head: str = "auto"
    epochs: int = 12
    learning_rate: float = 0.0
    body_rate: float = 0.5
    frozen_stages: int = -1
    batch_norms: str = "fixed"
    warmup_epochs: float = 1.0
    weight_decay: float = 0.01
    dropout: float = 0.1
    label_smoothing: float = 0.05
    balance: str = "weights"
    ema: float = 0.98
    patience: int = 4
    start_from: str = "quick"
    image_size: int = 0
    batch_size: int = 0
    precision: str = "auto"
    channels_last: bool = True
    rotation: float = 1.0
    flips: bool = True
    zoom: float = 0.3
    stain: float = 0.3
    brightness: float = 0.3
    noise: float = 0.0
    blur: float = 0.0
    test_views: int = 1
    average_with_quick: bool = True
    evaluate: str = "holdout"
    n_folds: int = 5
    scheme: str = ""
    column: str = ""
    validation_share: float = 0.15
    score_test: bool = False
    given: Mapping[str, Any] = field(default_factory=dict, compare=False)  # what was asked for

    @property
    def is_fine_tuned(self) -> bool:
        """Whether the network itself is changed."""
        return self.preset in FINE_TUNED

    def as_json(self) -> dict[str, Any]:
        """Return the dials that this preset listens to, as plain data."""
        names = {dial.name for dial in DIALS if self.preset in dial.presets}
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name in names}


DEFAULTS: dict[str, dict[str, Any]] = {  # what a preset sets otherwise than `Recipe`
    "quick": {},
    "full": {"test_views": 4},
    "best": {
        "test_views": 8, "epochs": 30, "patience": 8,
        "evaluate": "folds",
    },
}  # fmt: skip

# name -> (how to read it, what it takes in words)
OPTIONS: dict[str, tuple[Any, str]] = {dial.name: (dial.read, dial.takes) for dial in DIALS}


def check_options(options: Mapping[str, Any], preset: str = "quick") -> dict[str, Any]:
    """Return the options with their values read.

    Raises
    ------
    InvalidInputError
        A setting is unknown, out of its range, or not one of this preset.
    """
    known = {dial.name: dial for dial in DIALS}
    found: dict[str, Any] = {}
    for key, value in options.items():
        dial = known.get(key)
        if dial is None:
            raise InvalidInputError(
                f"There is no training setting “{key}”.",
                "",
                f"Settings are: {', '.join(sorted(known))}.",
            )
        if preset not in dial.presets:
            raise InvalidInputError(
                f"The preset {preset} has no setting “{key}”.",
                f"It belongs to {' and '.join(dial.presets)}.",
                f"Leave it out, or train with --preset {dial.presets[0]}.",
            )
        try:
            found[key] = dial.read(value)
        except (ValueError, KeyError) as error:
            raise InvalidInputError(
                f"The setting {key} cannot be “{value}”.", "", f"It takes {dial.takes}."
            ) from error
    return found


def make_recipe(preset: str, options: Mapping[str, Any] | None = None) -> Recipe:
    """Return a preset with some dials set otherwise.

    Raises
    ------
    InvalidInputError
        No such preset or setting, or a value out of range.
    """
    if preset not in PRESETS:
        raise InvalidInputError(
            f"There is no preset “{preset}”.", "", f"Use {' or '.join(PRESETS)}."
        )
    given = check_options(options or {}, preset)
    types = get_type_hints(Recipe)
    values = {**DEFAULTS[preset], **given}
    typed = {k: types[k](v) if types[k] in (int, float, str) else v for k, v in values.items()}
    return Recipe(preset=preset, given=given, **typed)
