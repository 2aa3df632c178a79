"""Which images a fine-tuned network learns from, is chosen by and is scored on: never the same."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cnsapp.domain.splits import BY_COLUMN, BY_GROUP, RANDOM, FoldPlan, grouped_folds
from cnsapp.domain.together import Ints, Keys

FEWEST, MOST = 2, 20  # parts among which the validation part is chosen
SHARED_VALIDATION = (
    "The images that choose the epoch come from the same groups as those that are learnt from, "
    "because there are too few groups: it may be chosen too late. The score is not touched by this."
)


@dataclass(frozen=True)
class Part:
    """The rows of one network.

    Attributes
    ----------
    fold
        The fold that is kept back from it; None when nothing is.
    train, validation, held
        Row numbers, no row in two of them: learnt from; choose epoch and temperature; scored.
    """

    fold: int | None
    train: Ints
    validation: Ints
    held: Ints

    @property
    def name(self) -> str:
        """For logs and folders."""
        return "all" if self.fold is None else f"fold-{self.fold}"

    def as_json(self) -> dict[str, Any]:
        """Return plain data."""
        rows = {k: getattr(self, k).tolist() for k in ("train", "validation", "held")}
        return {"fold": self.fold, **rows}

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Part:
        """Return the part of `as_json`."""
        rows = {k: np.array(data[k], np.int64) for k in ("train", "validation", "held")}
        return cls(data["fold"], **rows)


@dataclass(frozen=True)
class RunPlan:
    """The networks of a run; the last one is published.

    Attributes
    ----------
    parts
        One for each network that is trained, in order.
    folds
        (N,) fold of each image; -1 where it is never held out.
    scheme, n_folds
        How the folds were made, and how many of them are scored: 1 for a holdout, 0 for none.
    warnings
        What a reader of the scores must know, in plain words.
    """

    parts: list[Part]
    folds: Ints
    scheme: str
    n_folds: int
    warnings: list[str] = field(default_factory=list)


def plan_run(
    labels: NDArray[np.integer],
    groups: Sequence[str | None] | None,
    names: Sequence[str] | None,
    *,
    evaluate: str = "holdout",
    n_folds: int = 5,
    scheme: str | None = None,
    seed: int = 0,
    validation_share: float = 0.15,
    class_names: Sequence[str] | None = None,
    column: Sequence[str | None] | None = None,
    pictures: Keys | None = None,
    wished: NDArray[np.bool_] | None = None,
) -> RunPlan:
    """Plan the networks of a run.

    With `holdout` one fold is kept back wholly, and the network that is scored on it is the one
    that is published. With `folds` every fold is kept back from a network of its own, and one more
    network, which is published, learns from all images.

    Parameters
    ----------
    labels
        (N,) class index of each image. The locked test set is not among them.
    groups, names, column, pictures
        As in `grouped_folds`.
    evaluate
        `holdout` or `folds`.
    n_folds, scheme, seed
        Of the folds, as in `grouped_folds`.
    validation_share
        Part of the images not kept back that chooses epoch and temperature, 0 to 1.
    wished
        (N,) images that the user's own split puts into validation, or None.

    Raises
    ------
    InvalidInputError
        As `grouped_folds`.
    """
    y = np.asarray(labels, np.int64)
    plan = grouped_folds(
        y, groups, n_folds=n_folds, seed=seed, names=names, scheme=scheme,
        class_names=class_names, column=column, pictures=pictures,
    )  # fmt: skip
    world = _World(y, groups, names, pictures, plan.scheme, seed, validation_share, wished)
    kept_back: list[int | None] = [None]
    if plan.n_folds:
        kept_back = [fold_to_hold(y, plan)]
        if evaluate == "folds":
            kept_back = [*range(plan.n_folds), None]
    parts, warnings = [], list(plan.warnings)
    for fold in kept_back:
        held = np.flatnonzero(plan.folds == fold) if fold is not None else np.zeros(0, np.int64)
        train, validation, shared = world.divide(np.setdiff1d(np.arange(len(y)), held))
        parts.append(Part(fold, train, validation, held))
        if shared and SHARED_VALIDATION not in warnings:
            warnings.append(SHARED_VALIDATION)
    scored = sum(part.fold is not None for part in parts)
    return RunPlan(parts, plan.folds, plan.scheme, scored, warnings)


def fold_to_hold(y: Ints, plan: FoldPlan) -> int:
    """Return the fold to keep back: the first of those that score most classes also learnt."""
    best, found = -1, 0
    for fold in range(plan.n_folds):
        held = plan.folds == fold
        n = len(np.intersect1d(y[held], y[~held]))
        if n > best:
            best, found = n, fold
    return found


@dataclass(frozen=True)
class _World:
    y: Ints
    groups: Sequence[str | None] | None
    names: Sequence[str] | None
    pictures: Keys | None
    scheme: str
    seed: int
    share: float
    wished: NDArray[np.bool_] | None

    def divide(self, rows: Ints) -> tuple[Ints, Ints, bool]:
        """Return rows to learn from and rows to choose by; True when they share groups."""
        if self.wished is not None:
            mine = self.wished[rows]
            classes = len(np.unique(self.y[rows]))
            if mine.any() and len(np.unique(self.y[rows[~mine]])) == classes:
                return rows[~mine], rows[mine], False
        plan = self._folds(rows, None if self.scheme == BY_COLUMN else self.scheme)
        shared = plan.n_folds == 0
        if shared:
            plan = self._folds(rows, RANDOM, random=True)
        chosen = self._choose(rows, plan)
        if not shared:
            chosen = self._without_last_of_a_class(rows, chosen)
            if not chosen.any():
                plan, shared = self._folds(rows, RANDOM, random=True), True
                chosen = self._choose(rows, plan)
        return rows[~chosen], rows[chosen], shared

    def _folds(self, rows: Ints, scheme: str | None, random: bool = False) -> FoldPlan:
        wanted = min(max(round(1 / self.share), FEWEST), MOST)
        groups = None if random else _pick(self.groups, rows)
        if scheme == BY_GROUP and not any(groups or []):
            scheme = None
        return grouped_folds(
            self.y[rows], groups, n_folds=wanted, seed=self.seed + 1,
            names=_pick(self.names, rows), scheme=scheme,
            pictures=None if random else _pick(self.pictures, rows),
        )  # fmt: skip

    def _choose(self, rows: Ints, plan: FoldPlan) -> NDArray[np.bool_]:
        """Return the fold that leaves most classes to learn from, then knows most of them."""
        y = self.y[rows]
        best: tuple[float, ...] | None = None
        chosen = np.zeros(len(rows), bool)
        for fold in range(plan.n_folds):
            mine = plan.folds == fold
            learnt, known = np.unique(y[~mine]), np.unique(y[mine])
            value = (
                len(learnt),
                len(np.intersect1d(learnt, known)),
                -abs(float(mine.mean()) - self.share),
            )
            if best is None or value > best:
                best, chosen = value, mine
        return chosen

    def _without_last_of_a_class(self, rows: Ints, chosen: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Give whole groups back to be learnt from, where a class would have nothing there."""
        y, chosen = self.y[rows], chosen.copy()
        ties = [_pick(keys, rows) for keys in (self.groups, self.pictures)]
        back = chosen & ~np.isin(y, np.unique(y[~chosen]))
        while True:
            grown = back.copy()
            for keys in ties:
                named = {keys[i] for i in np.flatnonzero(back) if keys[i]} if keys else set()
                if keys and named:
                    grown |= chosen & np.array([key in named for key in keys])
            if (grown == back).all():
                break
            back = grown
        chosen[back] = False
        return chosen


def _pick(values: Sequence[Any] | None, rows: Ints) -> list[Any] | None:
    return None if values is None else [values[i] for i in rows]
