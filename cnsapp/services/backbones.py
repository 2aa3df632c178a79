"""Backbones: which there are, whether their weights are here, and what to do when they are not."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cnsapp.domain.backbones import FACTS, BackboneFacts, check_pretrained, check_size
from cnsapp.errors import InvalidInputError
from cnsapp.weights_files import hub_folder, own_ids, require_weights, weights_state
from db.session import Store


@dataclass(frozen=True)
class BackboneView:
    """A backbone as pages and commands show it; the sentences are shown as they are.

    Attributes
    ----------
    facts
        What it is; None when the card of a lab's own weights can not be read.
    path
        Its weights on this machine.
    looked_for
        The files that would have done.
    problem, remedy
        Why it can not be used, and what to do; empty when it can.
    """

    id: str
    facts: BackboneFacts | None
    path: Path | None
    looked_for: tuple[Path, ...]
    problem: str
    remedy: str

    @property
    def available(self) -> bool:
        """Whether it can be used on this machine."""
        return not self.problem

    @property
    def title(self) -> str:
        """Name on the screen."""
        return self.facts.title if self.facts else self.id

    def as_json(self) -> dict[str, Any]:
        """Return plain data for commands."""
        facts = self.facts
        return {
            "id": self.id,
            "title": self.title,
            "available": self.available,
            "path": str(self.path) if self.path else None,
            "looked_for": [str(path) for path in self.looked_for],
            "download": (facts.url or None) if facts else None,
            "megabytes": (facts.megabytes or None) if facts else None,
            "licence": facts.licence if facts else None,
            "input_size": (facts.input_size or None) if facts else None,
            "min_size": facts.min_size if facts else None,
            "cost": facts.cost if facts else None,
            "pretrained": facts.weights != "none" if facts else None,
            "good_for": facts.good_for if facts else None,
            "problem": self.problem or None,
            "remedy": self.remedy or None,
        }


def weights_folder(store: Store) -> Path:
    """Return the folder into which weights are put by hand; it need not exist."""
    return store.path("weights")


def list_backbones(store: Store) -> list[BackboneView]:
    """Return all backbones, those with weights of a lab's own last."""
    folder = weights_folder(store)
    return [view_backbone(store, backbone=name) for name in [*FACTS, *own_ids(folder)]]


def view_backbone(store: Store, *, backbone: str) -> BackboneView:
    """Return one backbone; a card that can not be read is its problem, not an error."""
    try:
        state = weights_state(backbone, weights_folder(store))
    except InvalidInputError as error:
        problem = " ".join(part for part in (error.what, error.why) if part)
        return BackboneView(backbone, None, None, (), problem, error.remedy)
    return BackboneView(
        backbone, state.facts, state.path, state.looked_for, state.problem, state.remedy
    )


def check_backbone(
    store: Store, *, backbone: str, preset: str = "quick", image_size: int = 0
) -> BackboneFacts:
    """Return what is known of a backbone, or say before a start why it can not be used.

    Parameters
    ----------
    backbone
        A row, `timm:NAME` or `file:NAME`.
    preset
        A quick model needs a pretrained one.
    image_size
        Wished side of the input in pixels; 0 is the backbone's own.

    Raises
    ------
    InvalidInputError
        No such backbone, no weights (says which file to put where), nothing learnt yet, or an
        image size that it can not read.
    """
    facts = require_weights(backbone, weights_folder(store)).facts
    check_pretrained(facts, preset)
    check_size(facts, image_size)
    return facts


def searched_folders(store: Store) -> list[Path]:
    """Return the folders in which weights are looked for."""
    return [weights_folder(store), hub_folder()]
