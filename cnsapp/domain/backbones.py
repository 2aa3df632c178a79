"""The networks one can choose: what the app says of each before any of them is loaded.

`cnsapp.ml.backbones` builds them from the same rows. Nothing here loads a network or looks at a
disk; whether the weights are on this machine says `cnsapp.weights_files`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from cnsapp.errors import InvalidInputError

DEFAULT_BACKBONE = "efficientnet_lite0"
PUBLISHED = "https://download.pytorch.org/models/"
TIMM, OWN_FILE = "timm:", "file:"
LONGEST_NAME = 90
_NAME = re.compile(r"\w[\w .+-]*")
_TORCHVISION = "BSD-3-Clause (torchvision; trained on ImageNet)"


@dataclass(frozen=True)
class BackboneFacts:
    """What is known of a network without loading it.

    Attributes
    ----------
    id, title
        Name in files and commands; name on the screen.
    good_for
        One sentence: when to choose it.
    licence
        Of the weights.
    weights
        `package` (they come with the app), `file` (a file that is put in place by hand) or `none`
        (it learns from scratch).
    weights_file
        Name of that file; without an ending where it may be .safetensors or .pth.
    megabytes
        Size of that file; 0 when unknown.
    input_size
        Side of its input in pixels; 0 when only the network itself knows.
    min_size
        Smallest side in pixels that it can read.
    cost
        `light`, `medium` or `heavy`: up to 1.5 times, up to 6 times, more than 6 times the seconds
        an image of EfficientNet-Lite0 on a CPU; `unknown` for other networks.
    relu_only
        Whether every non-linearity is a ReLU: guided backpropagation and DeepLift are right only
        then.
    attention
        Whether it is a transformer.
    architecture
        For weights of a lab's own: the row or timm network that they fit.
    """

    id: str
    title: str
    good_for: str
    licence: str
    weights: str = "file"
    weights_file: str = ""
    megabytes: int = 0
    input_size: int = 224
    min_size: int = 32
    cost: str = "light"
    relu_only: bool = False
    attention: bool = False
    architecture: str = ""

    @property
    def works_offline(self) -> bool:
        """Whether it works as the app is installed, with no file to fetch."""
        return self.weights != "file"

    @property
    def url(self) -> str:
        """Where the published weights are; empty when they are not one published file."""
        published = self.weights == "file" and self.weights_file.endswith(".pth")
        return PUBLISHED + self.weights_file if published and not self.architecture else ""


FACTS: dict[str, BackboneFacts] = {
    row.id: row
    for row in (
        BackboneFacts(
            DEFAULT_BACKBONE, "EfficientNet-Lite0 (works offline)",
            "The one to begin with: quick on any PC, and its weights come with the app.",
            "Apache-2.0", "package", megabytes=19,
        ),
        BackboneFacts(
            "resnet18", "ResNet-18", "Small and plain; on a GPU the quickest to fine-tune.",
            _TORCHVISION, weights_file="resnet18-f37072fd.pth", megabytes=45, relu_only=True,
        ),
        BackboneFacts(
            "resnet50", "ResNet-50", "The usual yardstick in papers; a GPU helps.",
            _TORCHVISION, weights_file="resnet50-11ad3fa6.pth", megabytes=98, cost="medium",
            relu_only=True,
        ),
        BackboneFacts(
            "densenet121", "DenseNet-121", "Often good on stained tissue with few images.",
            _TORCHVISION, weights_file="densenet121-a639ec97.pth", megabytes=31, cost="medium",
            relu_only=True,
        ),
        BackboneFacts(
            "vgg16", "VGG-16", "Old and slow, good at textures; to compare with earlier papers.",
            _TORCHVISION, weights_file="vgg16-397923af.pth", megabytes=528, cost="heavy",
            relu_only=True,
        ),
        BackboneFacts(
            "inception_v3", "Inception v3",
            "Sees details of several sizes at once, at 299 px; known from many pathology papers.",
            "Apache-2.0 (TensorFlow-Slim, converted by torchvision; trained on ImageNet)",
            weights_file="inception_v3_google-0cc3c7bd.pth", megabytes=104, input_size=299,
            min_size=75, cost="heavy", relu_only=True,
        ),
        BackboneFacts(
            "mobilenet_v3_large", "MobileNet v3 large",
            "Separable convolutions: twice as quick as Lite0 on a PC without a GPU.",
            _TORCHVISION, weights_file="mobilenet_v3_large-5c1a4163.pth", megabytes=21,
        ),
        BackboneFacts(
            "mobilenet_v3_small", "MobileNet v3 small",
            "Separable convolutions: the quickest of all, for very many images or an old PC.",
            _TORCHVISION, weights_file="mobilenet_v3_small-047dcff4.pth", megabytes=10,
        ),
        BackboneFacts(
            "efficientnet_b0", "EfficientNet-B0", "As light as Lite0, a little more exact.",
            "Apache-2.0 (timm; trained on ImageNet)",
            weights_file="efficientnet_b0_rwightman-7f5810bc.pth", megabytes=20,
        ),
        BackboneFacts(
            "convnext_tiny", "ConvNeXt tiny",
            "A modern convolutional network; strong when fine-tuned on a GPU.",
            _TORCHVISION, weights_file="convnext_tiny-983f1562.pth", megabytes=109, cost="heavy",
        ),
        BackboneFacts(
            "vit_b_16", "ViT-B/16",
            "A transformer: relates distant places of an image; wants many images and a GPU.",
            _TORCHVISION, weights_file="vit_b_16-c867db91.pth", megabytes=330, cost="heavy",
            attention=True,
        ),
        BackboneFacts(
            "swin_t", "Swin-T",
            "A transformer that looks through windows: detail and context; a GPU helps.",
            _TORCHVISION, weights_file="swin_t-704ceda3.pth", megabytes=108, cost="heavy",
            attention=True,
        ),
        BackboneFacts(
            "small_cnn", "Small CNN, from scratch",
            "Knows nothing before it sees your images: for thousands of images unlike photographs, "
            "or to show what pretraining buys.",
            "none needed", "none", relu_only=True,
        ),
    )
}  # fmt: skip
TITLES: dict[str, str] = {row.id: row.title for row in FACTS.values()}


def split_id(backbone_id: str) -> tuple[str, str]:
    """Return kind (`row`, `timm` or `file`) and name of a backbone id.

    Raises
    ------
    InvalidInputError
        There is no such row, or the name can not be one.
    """
    for prefix, kind in ((TIMM, "timm"), (OWN_FILE, "file")):
        if backbone_id.startswith(prefix):
            name = backbone_id.removeprefix(prefix)
            if not _NAME.fullmatch(name) or len(name) > LONGEST_NAME:
                raise InvalidInputError(
                    f"“{backbone_id}” names no network.",
                    "A name has letters, digits, points and dashes, and no folders.",
                    f"Write {prefix} and the name of the file in the folder weights, "
                    "without its ending.",
                )
            return kind, name
    if backbone_id not in FACTS:
        raise InvalidInputError(
            f"There is no backbone “{backbone_id}”.",
            "",
            f"Use one of: {', '.join(FACTS)}; {TIMM}NAME for a network of timm, "
            f"{OWN_FILE}NAME for weights of your own.",
        )
    return "row", backbone_id


def timm_facts(name: str) -> BackboneFacts:
    """Return what can be said of a timm network without loading it."""
    return BackboneFacts(
        TIMM + name, f"{name} (timm)", "A network of the timm collection.",
        "as its publisher states", weights_file=name, input_size=0, min_size=1, cost="unknown",
        architecture=TIMM + name,
    )  # fmt: skip


def too_small(title: str, size: int, min_size: int) -> InvalidInputError:
    """Return the error for images that are too small for a network."""
    return InvalidInputError(
        f"Images of {size} px are smaller than {title} can read.",
        f"It needs at least {min_size} px on each side.",
        f"Set the image size to {min_size} or more, or choose another backbone.",
    )


def check_size(facts: BackboneFacts, size: int) -> None:
    """Raise InvalidInputError when an input side of `size` pixels is too small; 0 is its own."""
    if 0 < size < facts.min_size:
        raise too_small(facts.title, size, facts.min_size)


def check_pretrained(facts: BackboneFacts, preset: str) -> None:
    """Raise InvalidInputError when a quick model has nothing to read from this network."""
    if facts.weights == "none" and preset == "quick":
        raise InvalidInputError(
            f"{facts.title}, can not be the base of a quick model.",
            "A quick model reads what a pretrained network sees; this one has learnt nothing yet.",
            "Choose the preset full or best, or another backbone.",
        )
