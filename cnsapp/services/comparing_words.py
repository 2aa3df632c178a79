"""What a comparison of models shows, in sentences and as plain data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from cnsapp.domain.compare import LEVEL, MCNEMAR, Compared, Pair
from cnsapp.services.class_names import Output
from cnsapp.services.models import ModelView, told_apart

if TYPE_CHECKING:
    from cnsapp.services.comparing import Comparison

Part = Literal["fold", "test"]
PART_WORDS: dict[Part, str] = {"fold": "out of fold", "test": "in the locked test set"}


def in_words(comparison: Comparison, pair: Pair) -> str:
    """Return what a pair shows, in one sentence; "no difference" is said as such."""
    first, second = (comparison.names[k] for k in (pair.first, pair.second))
    if pair.difference is None:
        return f"“{first}” and “{second}”: nothing can be said, there are no images."
    if pair.p_holm is None or pair.interval is None:
        return (
            f"“{first}” and “{second}”: all images come from one group, so nothing can be said "
            "about others."
        )
    low, high = pair.interval
    spread = f"95 % interval {signed(low)} to {signed(high)}"
    if pair.shown:
        better, worse = (first, second) if pair.difference > 0 else (second, first)
        return (
            f"“{better}” is better than “{worse}”: {abs(pair.difference):.3f} in balanced accuracy "
            f"({spread} for “{first}” less “{second}”), p = {shown_p(pair.p_holm)}."
        )
    return (
        f"No difference shown between “{first}” and “{second}”: {signed(pair.difference)} in "
        f"balanced accuracy, {spread}, p = {shown_p(pair.p_holm)}. That is not the same as being "
        "equal: differences within the interval are possible."
    )


def signed(value: float) -> str:
    """Return a difference as one writes it, with its sign."""
    return f"{value:+.3f}".replace("-", "−")


def shown_p(p: float) -> str:
    """Return a p value as one writes it."""
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def comparison_json(found: Comparison) -> dict[str, Any]:
    """Return a comparison as plain data."""
    result = found.found
    return {
        "part": found.part,
        "n": result.n,
        "n_groups": result.n_groups,
        "classes": [{"id": c.class_id, "name": c.name} for c in found.classes],
        "models": [
            {
                "id": model.id,
                "name": model.name,
                "n_judged": n,
                "balanced_accuracy": score,
                "balanced_accuracy_interval": list(interval) if interval else None,
                "accuracy": accuracy,
            }
            for model, n, score, interval, accuracy in zip(
                found.models, found.n_judged, result.scores, result.intervals, result.accuracies,
                strict=True,
            )
        ],
        "pairs": [
            {
                "first": found.models[p.first].id,
                "second": found.models[p.second].id,
                "difference": p.difference,
                "interval": list(p.interval) if p.interval else None,
                "both_right": p.both,
                "only_first_right": p.only_first,
                "only_second_right": p.only_second,
                "neither_right": p.neither,
                "agreement": p.agreement,
                "test": p.test,
                "p": p.p_value,
                "p_holm": p.p_holm,
                "mcnemar_p": p.mcnemar_p,
                "difference_shown": p.shown,
                "in_words": in_words(found, p),
            }
            for p in result.pairs
        ],
        "notes": found.notes,
    }  # fmt: skip


def notes_of(
    models: Sequence[ModelView],
    classes: Sequence[Output],
    found: Compared,
    part: Part,
    n_judged: Sequence[int],
    n_common: int,
) -> list[str]:
    """Return what a reader of the figures must know, in sentences."""
    said, names = [], told_apart(models)
    if any(n != found.n for n in n_judged):
        each = ", ".join(f"{names[m.id]} {n:,}" for m, n in zip(models, n_judged, strict=True))
        said.append(
            f"Compared on the {found.n:,} images that all of them judged {PART_WORDS[part]} "
            f"(judged in all: {each}); the figures differ from those of each model alone."
        )
    if n_common > found.n:
        said.append(
            f"{n_common - found.n:,} common images are left out: excluded since, without a label "
            "today, or of a class that not all of the models know."
        )
    common = {c.class_id for c in classes}
    for model in models:
        others = [o.name for o in model.outputs if o.class_id not in common]
        if others:
            said.append(
                f"“{names[model.id]}” also knows {', '.join(others)}: such answers count as wrong "
                "here, so its task was the harder one."
            )
    said.append("Right and wrong are told by the labels of today.")
    if found.n_groups is None:
        alike = all(pair.test == MCNEMAR for pair in found.pairs)
        said.append(
            "No image has a group, so p is McNemar's exact test on the images that one model got "
            "right and the other wrong."
            if alike
            else "No image has a group, so p comes from exchanging the two models' answers image "
            "by image, each weighed by its class as in the balanced accuracy: McNemar's test would "
            "speak of plain accuracy, since the classes are of unequal size."
        )
        said.append("Where several images show one patient this finds differences too easily.")
    else:
        said.append(
            f"Images of one group belong together, so p comes from exchanging the two models' "
            f"answers group by group ({found.n_groups:,} groups); McNemar's test would take images "
            "of one patient for independent."
        )
        least = 2.0 ** (1 - (found.n_groups or 1)) * len(found.pairs)
        if least >= LEVEL:
            said.append(
                f"With {found.n_groups} groups and {len(found.pairs)} pairs p cannot fall below "
                f"{min(least, 1.0):.2f}, so no difference can be shown: compare fewer models, or "
                "label images of more groups."
            )
    if len(found.pairs) > 1:
        said.append(f"p values are corrected for all {len(found.pairs)} pairs (Holm).")
    schemes = {str(m.metrics.get("scheme") or "") for m in models} - {""}
    if part == "fold" and len(schemes) > 1:
        said.append(
            f"Their folds were cut differently ({', '.join(sorted(schemes))}): the model whose "
            "folds tear groups apart looks better than it is."
        )
    if part == "test":
        said.append(
            "A test set that chooses the model is no test set any more: choose by the folds, and "
            "report the test set once."
        )
    for model in models:
        chosen = model.settings.get("search")
        if isinstance(chosen, dict) and part == "fold":
            said.append(
                f"“{names[model.id]}” was chosen among {chosen.get('n_candidates')} candidates by "
                "these very folds: its score is slightly too good."
            )
    return said
