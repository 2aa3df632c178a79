"""The shortcut alarm: is the label told by what should not matter, and does the model follow it?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from sqlalchemy.orm import Session

from cnsapp.domain.findings import (
    HIGH,
    LEVEL,
    LOW,
    MEDIUM,
    MOST_IMAGES,
    Finding,
    Report,
    p_words,
    plural,
)
from cnsapp.domain.guessing import Guessed, guess
from cnsapp.domain.resampling import Ints
from cnsapp.domain.shortcuts import AGREES, DISAGREES, inseparable
from cnsapp.domain.slices import by_value, holm
from cnsapp.domain.splits import grouped_folds
from cnsapp.services.audit_groups import rows_in_use
from cnsapp.services.audit_rows import AuditRows
from cnsapp.services.models import ModelView
from cnsapp.tasks.audit_cues import PIXELS, Cue, read_cues
from cnsapp.tasks.audit_sample import FEWEST_OF_CLASS, Sample
from db.session import Store

Check = Callable[[], None]
PART = "shortcuts"
N_FOLDS = 5
STRONG, CLEAR = 0.5, 0.2  # part of the way from chance to always right
COLOUR_ADVICE = (
    "Tissues differ in colour by nature, so look at how far the model goes beyond it (the colour-"
    "only control beside its score). If stain or scanner go with the label, collect each class "
    "under several of them, or train with stain jitter."
)
ADVICE = (
    "The model may read how the images were made, not the tissue, and fail where that differs. "
    "Collect each class under several of these values, score the model with folds by this column, "
    "or make the images alike before the import. If it is the label by another name, ignore this."
)


def find_shortcuts(
    store: Store,
    project_id: int,
    audit: AuditRows,
    model: ModelView | None,
    seed: int,
    check: Check,
) -> Report:
    """Guess the label from each cue, and say which do it better than chance.

    The p-values are corrected by Holm's method for the number of cues.
    """
    report, sample = Report(), Sample(audit, seed)
    images = [audit.images[at] for at in sample.places]
    cues = read_cues(store, project_id, images, sample.labels, check) if images else []
    for cue in cues:
        _tell_inseparable(report, audit, sample, cue)
    reason = sample.why_not(audit.has_groups)
    if reason is not None:
        report.cannot_tell(PART, reason)
        return report
    tested: list[tuple[Cue, Ints, Guessed]] = []
    for cue in cues:
        check()
        if cue.cells is None and cue.numbers is None:
            continue
        keep = sample.of_classes_that_can_be_guessed(cue)
        found = _guess(cue, keep, sample, audit, seed, check)
        if found is None:
            report.cannot_tell(
                PART, f"{cue.name[:1].upper()}{cue.name[1:]} is known of too few images: "
                f"{FEWEST_OF_CLASS} of two groups are needed in two classes."
            )  # fmt: skip
            continue
        tested.append((cue, keep, found))
    with store.reading() as session:
        told = _Followed(session, model, audit)
    corrected = holm([found.p for _, _, found in tested])
    alarms = []
    for (cue, keep, found), p in zip(tested, corrected, strict=True):
        figures = _figures(cue, found, p, len(tested), sample)
        report.checked.append({"part": PART, **figures})
        if p <= LEVEL:
            said = _classes_of(sample, keep)[found.predicted]
            alarms.append((cue, figures, *told.by(sample.places[keep], said)))
    _correct_against([follows for _, _, follows, _ in alarms])
    report.findings += [_finding(*alarm, audit) for alarm in alarms]
    return report


def _correct_against(followed: Sequence[dict[str, Any] | None]) -> None:
    """Note the p-values of "the model errs against the cue" as corrected for all alarms."""
    against = [
        f["against"] for f in followed if f and f["against"] and f["against"]["p"] is not None
    ]
    for figures, p in zip(against, holm([a["p"] for a in against]), strict=True):
        figures["p_holm"] = p


def _classes_of(sample: Sample, keep: Ints) -> Ints:
    found: Ints = np.unique(sample.classes[sample.labels[keep]])
    return found


def _guess(
    cue: Cue, keep: Ints, sample: Sample, audit: AuditRows, seed: int, check: Check
) -> Guessed | None:
    """Return how well the label is guessed from a cue; None where too few images have it."""
    _, labels, counts = np.unique(sample.labels[keep], return_inverse=True, return_counts=True)
    if len(counts) < 2:
        return None
    units = audit.units[sample.places[keep]]
    plan = grouped_folds(labels, [f"u{u}" for u in units], n_folds=N_FOLDS, seed=seed)
    if plan.n_folds < 2:
        return None
    answers = cue.answers(keep, plan.folds, len(counts))
    return guess(answers, labels.astype(np.int64), units, seed=seed, check=check)


def _figures(
    cue: Cue, found: Guessed, p_holm: float, n_tested: int, sample: Sample
) -> dict[str, Any]:
    return {
        "name": cue.name,
        "n": found.n,
        "n_of": sample.n_labelled,
        "n_units": found.n_units,
        "n_classes": found.n_classes,
        "balanced_accuracy": found.balanced_accuracy,
        "interval": found.interval,
        "chance": found.chance,
        "null_high": found.null_high,
        "p": found.p,
        "p_holm": p_holm,
        "n_tested": n_tested,
        "n_shuffles": found.n_shuffles,
        "skill": found.skill,
    }


class _Followed:
    """Whether the model's errors follow a cue."""

    def __init__(self, session: Session, model: ModelView | None, audit: AuditRows) -> None:
        self._audit, self._rows = audit, None
        if model is not None:
            self._rows = rows_in_use(session, model, audit)
            self._class_ids = np.array([o.class_id for o in model.outputs], np.int64)

    def by(self, places: Ints, said: Ints) -> tuple[dict[str, Any] | None, list[int]]:
        """Compare the model where the cue fits the label with where it does not.

        Parameters
        ----------
        places
            (n,) images that the cue was asked about.
        said
            (n,) class ids that it said, out of fold.

        Returns
        -------
        Figures, or None without a model; and the images that the model gets wrong just as the cue
        does.
        """
        rows = self._rows
        if rows is None or not len(rows.true):
            return None, []
        cue = dict(zip(self._audit.ids[places].tolist(), said.tolist(), strict=True))
        mine = np.array([i in cue for i in rows.image_ids.tolist()], bool)
        if not mine.any():
            return None, []
        ids = rows.image_ids[mine]
        of_cue = np.array([cue[i] for i in ids.tolist()], np.int64)
        true, answer = rows.true[mine], rows.said[mine]
        fits = of_cue == self._class_ids[true]
        values = [AGREES if fit else DISAGREES for fit in fits]
        together = [rows.together[i] for i in np.flatnonzero(mine)]
        slices = by_value(true, answer, len(self._class_ids), values, together, seed=0)
        misled = (answer != true) & (self._class_ids[answer] == of_cue)
        kept = {
            s.value: {"n": s.n, "accuracy": s.accuracy, "interval": s.accuracy_interval,
                      "difference": s.difference, "difference_interval": s.difference_interval,
                      "p": s.p}
            for s in slices
        }  # fmt: skip
        figures = {
            "n_wrong": int((answer != true).sum()),
            "n_wrong_as_the_cue": int(misled.sum()),
            "fits": kept.get(AGREES),
            "against": kept.get(DISAGREES),
        }
        return figures, ids[misled].tolist()


def _finding(
    cue: Cue,
    figures: dict[str, Any],
    follows: dict[str, Any] | None,
    wrong: list[int],
    audit: AuditRows,
) -> Finding:
    skill = figures["skill"]
    severity = HIGH if skill >= STRONG else MEDIUM if skill >= CLEAR else LOW
    if cue.name in PIXELS[:1] and severity == HIGH:
        severity = MEDIUM  # tissues differ in colour by nature
    groups = "" if audit.has_groups else " No image has a group: each counts as independent."
    return Finding(
        kind="shortcut",
        severity=severity,
        title=f"The label can be told from {cue.name}",
        sentence=(
            f"The label can be told from {cue.name} (balanced accuracy "
            f"{figures['balanced_accuracy']:.2f}, chance {figures['chance']:.2f}, n = "
            f"{figures['n']:,}; {p_words(figures['p_holm'])}, corrected for "
            f"{plural(figures['n_tested'], 'cue')})." + groups + _follow_words(follows)
        ),
        advice=COLOUR_ADVICE if cue.name in PIXELS[:1] else ADVICE,
        figures=figures | {"follows": follows},
        image_ids=wrong[:MOST_IMAGES],
        n_images=len(wrong),
    )


def _follow_words(follows: dict[str, Any] | None) -> str:
    if not follows or not follows["fits"] or not follows["against"]:
        return ""
    fits, against = follows["fits"], follows["against"]
    p = against.get("p_holm")
    verdict = "which may be chance"
    if p is not None and p < LEVEL and (against["difference"] or 0) < 0:
        verdict = "so its errors follow this"
    return (
        f" The model is right in {fits['accuracy']:.0%} where this fits the label (n = "
        f"{fits['n']:,}) and in {against['accuracy']:.0%} where it speaks against it (n = "
        f"{against['n']:,}), {verdict}."
    )


def _tell_inseparable(report: Report, audit: AuditRows, sample: Sample, cue: Cue) -> None:
    """Say which labels a value stands for alone: no model and no score can tell the two apart."""
    if cue.texts is None:
        return
    sizes = np.bincount(sample.labels)
    tied = [t for t in inseparable(sample.labels, cue.texts) if sizes[t[0]] >= FEWEST_OF_CLASS]
    if not tied:
        return
    what = cue.name.removesuffix(" alone")
    names = [audit.class_names.get(int(sample.classes[c]), "") for c, _ in tied]
    mine = np.isin(sample.labels, [c for c, _ in tied])
    ids = audit.ids[sample.places[mine]].tolist()
    shown = ", ".join(f"“{n}” ({v})" for n, (_, v) in list(zip(names, tied, strict=True))[:5])
    more = f" and {len(tied) - 5} more" if len(tied) > 5 else ""
    looked_at = " that was looked at" if len(sample.places) < sample.n_labelled else ""
    report.findings.append(
        Finding(
            kind="inseparable",
            severity=HIGH if len(tied) == len(sample.classes) else MEDIUM,
            title=f"Label and {what} cannot be told apart",
            sentence=(
                f"Every image of {shown}{more}{looked_at} has one value of {what} that no other "
                f"class has (n = {len(ids):,} of {len(sample.places):,}): nothing in these images "
                "shows whether a model learns the tissue or that."
            ),
            advice=(
                "Add images of these classes with other values, or of other classes with these. "
                "Until then no score of these classes can be trusted for other images. If it is "
                "the label by another name, ignore this."
            ),
            figures={
                "name": what,
                "n": len(ids),
                "n_of": len(sample.places),
                "labels": [
                    {"class_id": int(sample.classes[c]), "class": name, "value": value}
                    for name, (c, value) in zip(names, tied, strict=True)
                ],
            },
            image_ids=ids[:MOST_IMAGES],
            n_images=len(ids),
        )
    )
