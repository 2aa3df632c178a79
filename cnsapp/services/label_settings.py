"""How a project labels: whose word counts, when suggestions refresh, whether they are shown."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from cnsapp.domain.consensus import ConsensusRule
from cnsapp.errors import InvalidInputError, NotFoundError
from cnsapp.services.settling import settle, to_settle
from db.models import Project
from db.session import Store

MOST_LABELS = 100_000  # between two refreshes of the suggestions


@dataclass(frozen=True)
class LabelSettings:
    """What a project has decided about labelling.

    Attributes
    ----------
    rule
        How the readings of several people make one label.
    suggest_every
        New labels after which the suggestions are made again by themselves; 0: only when asked.
    blind
        Nobody sees a model's opinion, or what others said, while labelling.
    random_share
        Share of random images in the queue, 0 to 0.5: figures from them are not skewed by choosing
        what is hard.
    """

    rule: ConsensusRule = field(default_factory=ConsensusRule)
    suggest_every: int = 25
    blind: bool = False
    random_share: float = 0.1

    def __post_init__(self) -> None:
        if not 0 <= self.suggest_every <= MOST_LABELS:
            raise InvalidInputError(
                f"New suggestions after every {self.suggest_every} labels.",
                "",
                f"Choose 1 to {MOST_LABELS:,} labels, or 0 for only when asked.",
            )
        if not 0 <= self.random_share <= 0.5:
            raise InvalidInputError(
                f"A random share of {self.random_share:g}.",
                "It is the part of the queue that is drawn at random.",
                "Choose 0 to 0.5 (half of the images).",
            )


def read_settings(store: Store, *, project_id: int) -> LabelSettings:
    """Return how a project labels; raise NotFoundError when there is no such project."""
    with store.reading() as session:
        return _of(_get(session.get(Project, project_id), project_id).settings)


def is_blind(store: Store, *, project_id: int) -> bool:
    """Return whether nobody is told what others say: also a page from before that was decided."""
    return read_settings(store, project_id=project_id).blind


def change_settings(store: Store, *, project_id: int, **changes: Any) -> LabelSettings:
    """Change some of the settings, named as in `LabelSettings`, and return them all.

    Another rule has every image that several people read decided anew, in short transactions.
    """
    with store.writing() as session:
        # locked where there are row locks: labels of the old rule end before, others begin after
        row = session.get(Project, project_id, with_for_update=True)
        project = _get(row, project_id)
        before = _of(project.settings)
        now = replace(before, **changes)
        labelling = {
            "suggest_every": now.suggest_every,
            "blind": now.blind,
            "random_share": now.random_share,
        }
        stored = {**project.settings, "labelling": labelling, "label_rule": now.rule.as_json()}
        project.settings = stored
        if now.rule != before.rule:
            to_settle(project)
    if now.rule != before.rule:
        settle(store, project_id)
    return now


def _of(stored: dict[str, Any]) -> LabelSettings:
    return LabelSettings(
        rule=ConsensusRule.from_json(stored.get("label_rule")), **stored.get("labelling", {})
    )


def _get(project: Project | None, project_id: int) -> Project:
    if project is None:
        raise NotFoundError(f"There is no project number {project_id}.")
    return project
