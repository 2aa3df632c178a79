"""What the sections of an evaluation mean, in the words of a paper."""

from __future__ import annotations

from dataclasses import dataclass

from cnsapp.domain.slices import BETTER, WORSE
from cnsapp.services.evaluation import Evaluated
from cnsapp.ui import words

PER_CLASS = (
    "**For a paper:** give the balanced accuracy with its interval and n, and this table; accuracy "
    "alone hides rare classes."
)
CONFUSION = (
    "**For a paper:** rows are labels, so each row adds up to its n; the colour is the share of "
    "the row. Review shows the images of each cell."
)
CURVES = (
    "**For a paper:** areas judge the order of the probabilities, without any threshold. Where a "
    "class is rare, precision and recall tell more than the ROC curve."
)
CALIBRATION = (
    "**For a paper:** of the answers with confidence 0.8, eight of ten should be right. The "
    "temperature was fitted to other images than those that it is judged on."
)
SILENT = (
    "**For a paper:** say which share of images was answered at which accuracy. A threshold read "
    "off here fits these images; check it on others."
)
BY = (
    "**For a paper:** a model that is worse in one batch has learnt something about the others. "
    "Each slice is compared with the rest class by class; p is corrected for all slices."
)
SMALL_SLICES = (
    "Slices of fewer than three groups are judged by their images: what is said of them holds for "
    "these groups, not for others like them."
)


@dataclass(frozen=True)
class Mixed:
    """A confusion: places of label and prediction, how many of how many images."""

    label: int
    said: int
    n: int
    of: int
    system: str  # the same | another


def about_interval(found: Evaluated) -> str:
    """Return what the intervals are, in a sentence."""
    s = found.scores
    if s.interval_by == "group":
        few = (
            f" With {words.plural(s.n_groups or 0, 'group')} they are rough."
            if (s.n_groups or 0) < 10
            else ""
        )
        return f"95 % intervals: whole groups resampled 2,000 times.{few}"
    return (
        "95 % intervals by image (Wilson, or 2,000 resamples): no groups are known, so they are "
        "too narrow where images share a patient or a slide."
    )


def mixed_up(found: Evaluated) -> list[Mixed]:
    """Return all confusions, the largest share of a label first."""
    systems = found.system_names
    rows = [
        Mixed(
            i,
            j,
            n,
            sum(counts),
            "" if systems is None else ("the same" if systems[i] == systems[j] else "another"),
        )
        for i, counts in enumerate(found.scores.confusion)
        for j, n in enumerate(counts)
        if i != j and n
    ]
    return sorted(rows, key=lambda m: (-m.n / m.of, -m.n, m.label, m.said))


def say_slices(found: Evaluated) -> str:
    """Return what the slices show, in a sentence."""
    slices = found.slices or []
    worse = [s.value or "not noted" for s in slices if s.verdict == WORSE]
    better = [s.value or "not noted" for s in slices if s.verdict == BETTER]
    n_tested = sum(s.p_holm is not None for s in slices)
    if not n_tested:
        return "There is nothing to compare: fewer than two slices hold enough images."
    if not worse and not better:
        return (
            f"No difference shown between any of {words.plural(n_tested, 'slice')} and the rest. "
            "That is no proof that there is none."
        )
    parts = []
    if worse:
        parts.append(f"Worse than the rest: **{words.plain(', '.join(worse))}**.")
    if better:
        parts.append(f"Better than the rest: **{words.plain(', '.join(better))}**.")
    return " ".join(parts)
