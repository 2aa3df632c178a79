"""The table of `benchmarks.results`, as Markdown. What it says follows from the figures."""

from __future__ import annotations

import math
from collections.abc import Mapping
from statistics import mean, stdev
from typing import Any

TITLES = {
    "majority": "always the commonest class",
    "colour_only": "colour only: six numbers, SVM",
    "handmade_svm": "colour and texture by hand, SVM",
    "handmade_logistic": "colour and texture by hand, logistic regression",
    "last_layer": "last layer, logistic regression (linear probe)",
    "shuffled_labels": "shuffled labels (must be at chance)",
    "quick": "**quick**",
    "full": "**full** (EfficientNet-Lite0)",
}
CONTROLS = ("majority", "colour_only", "handmade_svm", "handmade_logistic", "last_layer")
INTRO = """\
# How right the models are

Made by `make results`; nothing here is written by hand. The same figures as data:
[results.json](results.json).

Every image is judged by what has seen neither it nor its group, and every choice (head, strength of
regularisation, cost and width of a kernel, epoch) is made inside the training images of a fold.
Balanced accuracy is the mean of the recalls of all classes. Intervals are 95 % bootstrap intervals
(2,000 resamples of whole groups; of images where there are no groups), expanded for few groups.
“Less than quick” is the difference on the same images with its paired interval: where it includes
0, no difference is shown. The defaults of the models (which stages a head reads, the strengths it
may choose among, how far a network may move) were settled by trials that included these sets, so
expect a little less on other images.
Two patients with one picture between them are one patient under two names, or mixed up: a model
would learn from one and be scored on the other. The app looks for such pairs and makes them one; a
set that has them stands here both ways, and what falls between the two is that leak, and a patient
less.
One division into folds is one draw: below a set with groups stands what ten of them gave.
Shuffled labels keep the images of a group together; their interval is over repeated shuffles.
Seconds are those of features (once, for all images) and of all folds with their nested choices.

Colour only reads mean and spread of red, green and blue. Colour and texture by hand are 163
numbers: moments of RGB and CIE Lab, histograms of hue, saturation and value, stain densities after
colour deconvolution, local binary patterns, co-occurrence statistics and Gabor energies
(`cnsapp/ml/handmade.py` names the papers).
"""


def as_markdown(found: Mapping[str, Any]) -> str:
    """Return the whole document."""
    parts = [INTRO, _made_on(found)]
    parts += [_set(one, found["commit"]) for one in found["sets"] if one["rows"]]
    return "\n".join(parts)


def _made_on(found: Mapping[str, Any]) -> str:
    on, versions = found["machine"], found["machine"]["versions"]
    named = ", ".join(f"{name} {number}" for name, number in versions.items())
    return (
        f"{found['at'][:10]}, commit `{found['commit']}`, {on['cpu']}, {on['cores']} cores, "
        f"{on['device']}; {named}.\n"
    )


def _set(one: Mapping[str, Any], commit: str) -> str:
    rows: Mapping[str, Mapping[str, Any]] = one["rows"]
    groups = f", {one['n_groups']} groups" if one["n_groups"] else ", no groups known"
    lines = [
        f"## {one['set']}: {one['folds']}",
        "",
        f"{one['n']:,} images, {one['n_classes']} classes{groups}.",
        "",
        "| | balanced accuracy | 95 % interval | n | features, s | training, s | less than quick |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for key, title in TITLES.items():
        if key in rows:
            lines.append(_row(title, rows[key]))
    return "\n".join([*lines, "", *_sentences(one, commit), *_repeats(one.get("repeats")), ""])


def _row(title: str, row: Mapping[str, Any]) -> str:
    cells = [
        title,
        _number(row["balanced_accuracy"], 3),
        _interval(row["interval"]),
        f"{row['n']:,}",
        _number(row.get("feature_seconds"), 0),
        _number(row["seconds"], 1),
        _difference(row.get("below_quick")),
    ]
    return f"| {' | '.join(cells)} |"


def _sentences(one: Mapping[str, Any], commit: str) -> list[str]:
    rows = one["rows"]
    said = []
    for model in ("quick", "full"):
        if model not in rows:
            continue
        score = rows[model]["balanced_accuracy"]
        there = [key for key in CONTROLS if key in rows]
        higher = [key for key in there if rows[key]["balanced_accuracy"] >= score]
        unclear = [
            key
            for key in there
            if key not in higher and not _clear(rows[key].get(f"below_{model}"))
        ]
        if higher:
            said.append(f"- {model} does **not** beat: {_named(higher)}.")
        else:
            said.append(f"- {model} is above every control.")
        if unclear:
            said.append(
                f"- {model} is above, but the interval of the difference includes 0: "
                f"{_named(unclear)}."
            )
    of_commit: dict[str, list[str]] = {}
    for key, row in rows.items():
        of_commit.setdefault(str(row.get("commit", "?")), []).append(key)
    if len(of_commit) > 1:
        each = "; ".join(f"`{made}`: {', '.join(keys)}" for made, keys in of_commit.items())
        said.append(f"- Not all rows were computed at one commit. {each}.")
    elif commit not in of_commit:
        said.append(f"- These rows were computed at commit `{next(iter(of_commit))}`.")
    shuffled = rows.get("shuffled_labels")
    if shuffled:
        where = "above chance: **something leaks**" if shuffled["leaks"] else "not above chance"
        said.append(
            f"- Shuffled labels: {shuffled['balanced_accuracy']:.3f} where chance is "
            f"{shuffled['chance']:.3f}, {where}."
        )
    if not one["n_groups"]:
        said.append(
            "- No patient or slide is known here: tiles of one slide may be on both sides, and "
            "every figure may be too good."
        )
    colour = rows.get("colour_only")
    if colour and colour["balanced_accuracy"] >= 0.8:
        said.append(
            f"- Six colour numbers reach {colour['balanced_accuracy']:.2f}: the classes differ in "
            "stain, so no figure here says how a model would do on slides of another laboratory."
        )
    return said


def _repeats(scores: Mapping[str, list[float]] | None) -> list[str]:
    if not scores:
        return []
    quick = scores["quick"]
    each = "; ".join(
        f"{TITLES[key].strip('*')} {mean(found):.3f} ± {stdev(found):.3f}"
        + ("" if key == "quick" else f" (quick above in {_n_above(quick, found)})")
        for key, found in scores.items()
    )
    return [f"- Over {len(quick)} divisions into folds, mean ± standard deviation: {each}."]


def _n_above(a: list[float], b: list[float]) -> int:
    return sum(x > y for x, y in zip(a, b, strict=True))


def _named(keys: list[str]) -> str:
    return "; ".join(TITLES[key] for key in keys)


def _clear(difference: Mapping[str, Any] | None) -> bool:
    interval = (difference or {}).get("difference_interval")
    return interval is not None and interval[0] > 0


def _number(value: float | None, digits: int) -> str:
    if value is None or not math.isfinite(value):
        return "–"
    return f"{value:,.{digits}f}"


def _interval(bounds: list[float] | None) -> str:
    return "–" if bounds is None else f"{bounds[0]:.3f}–{bounds[1]:.3f}"


def _difference(found: Mapping[str, Any] | None) -> str:
    if not found or found["difference"] is None:
        return ""
    bounds = found["difference_interval"]
    spread = "" if bounds is None else f" ({bounds[0]:+.3f} to {bounds[1]:+.3f})"
    return f"{found['difference']:+.3f}{spread}"
