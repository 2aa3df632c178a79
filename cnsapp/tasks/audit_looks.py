"""The parts of a look through the data that compare features: odd images, unknown ones, drift."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, replace
from datetime import datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cnsapp.domain import drift, outliers
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
from cnsapp.domain.outliers import Outliers
from cnsapp.domain.resampling import Floats, Ints
from cnsapp.services.audit_rows import AuditRows, read_measures
from cnsapp.services.looks_files import find_index, sign_of
from db.session import Store

Check = Callable[[], None]
ODD, UNKNOWN, DRIFT = "odd images", "unknown images", "drift"
MOST_REFERENCE = 5000  # labelled images that others are compared with
MOST_A_SIDE = 2000  # images of the test for drift
FAR_APART = 0.8  # balanced accuracy from which old and new are two kinds of images
NO_INDEX = (
    "The images are not sorted by looks yet, so that their features cannot be compared. It follows "
    "an import by itself; `looks` starts it now."
)
NO_GROUPS = " No image has a group: each counts as independent, which is too sure."
MEASURES = {
    "focus": "sharpness",
    "contrast": "contrast",
    "empty": "share of background",
    "lightness": "brightness",
    "green_red": "green to red",
    "blue_yellow": "blue to yellow",
    "spread": "spread of colours",
}


class Looks:
    """The features of the images in use, as far as they are there and of the present picture."""

    def __init__(self, store: Store, project_id: int, audit: AuditRows) -> None:
        index = find_index(store, project_id=project_id)
        self.audit = audit
        self.places: Ints = np.zeros(0, np.int64)  # of images that have features
        self.rows: NDArray[np.float32] = np.zeros((0, 1), np.float32)
        if index is None or not len(index.ids):
            return
        at = np.minimum(np.searchsorted(index.ids, audit.ids), len(index.ids) - 1)
        signs = np.array([sign_of(i.sha256, i.seen) for i in audit.images], np.int64)
        known = (index.ids[at] == audit.ids) & (index.signs[at] == signs)
        self.places, self._at, self.rows = np.flatnonzero(known), at, index.rows

    def of(self, places: Ints) -> NDArray[np.float32]:
        """Return the features (n, d) of images by place."""
        return np.asarray(self.rows[self._at[places]])


def find_odd(looks: Looks, seed: int, check: Check) -> Report:
    """Look for labelled images that are unlike all others, and new ones unlike any labelled one."""
    report, audit = Report(), looks.audit
    is_labelled = audit.labels[looks.places] >= 0
    labelled, others = looks.places[is_labelled], looks.places[~is_labelled]
    if len(labelled) < outliers.FEWEST:
        report.cannot_tell(
            ODD,
            f"{plural(len(labelled), 'labelled image')} with features; {outliers.FEWEST} are "
            "needed to say what is usual."
            if len(looks.places)
            else NO_INDEX,
        )
        return report
    reference = _some(labelled, MOST_REFERENCE, seed)
    units, few = audit.units, False
    if len(np.unique(units[labelled])) < outliers.FEWEST_UNITS:
        units, few = np.arange(len(units)), True  # too few groups to leave a whole one out
    there = looks.of(reference)

    def scored(places: Ints) -> Floats:
        found = [
            outliers.distances(looks.of(part), there, units[part], units[reference], check=check)
            for part in _parts(places)
        ]
        return np.concatenate(found) if found else np.zeros(0)

    usual = scored(labelled)
    odd = outliers.among_labelled(usual, audit.units[labelled])
    _tell_odd(report, audit, labelled, odd, len(reference))
    if len(others):
        new = outliers.unlike_labelled(scored(others), usual, audit.units[others])
        if few:  # their usual distance is that within a group: any new patient is farther
            new = replace(new, interval=None)
        _tell_unknown(report, audit, others, new, len(reference))
    return report


def _tell_odd(report: Report, audit: AuditRows, places: Ints, odd: Outliers, m: int) -> None:
    report.checked.append({"part": ODD, "name": ODD, **_figures(odd, m)})
    if not len(odd.order):
        return
    report.findings.append(
        Finding(
            kind=ODD,
            severity=MEDIUM if odd.is_more_than_chance else LOW,
            title=f"{plural(len(odd.order), 'labelled image')} unlike all others",
            sentence=(
                f"Of {plural(odd.n, 'labelled image')} {len(odd.order):,} lie far from all others "
                f"({odd.share:.1%}; about {odd.nominal:.0%} do where nothing is odd)."
                + _surplus(odd, audit)
            ),
            advice=(
                "They may show no tissue, another organ, or an artefact. Look at the first ones; "
                "exclude what does not belong here. A rare kind of tissue is odd as well: keep it."
            ),
            figures=_figures(odd, m) | {"scores": _scores(odd)},
            image_ids=_ids(audit, places[odd.order]),
            n_images=len(odd.order),
        )
    )


def _tell_unknown(report: Report, audit: AuditRows, places: Ints, new: Outliers, m: int) -> None:
    report.checked.append({"part": UNKNOWN, "name": UNKNOWN, **_figures(new, m)})
    if not len(new.order):
        return
    much = new.is_more_than_chance
    report.findings.append(
        Finding(
            kind=UNKNOWN,
            severity=(HIGH if new.share >= 0.2 else MEDIUM) if much else LOW,
            title=f"{plural(len(new.order), 'image')} unlike anything you have labelled",
            sentence=(
                f"Of {plural(new.n, 'image')} without a label {len(new.order):,} lie farther from "
                f"the labelled ones than 99 in 100 of these do ({new.share:.1%}; about "
                f"{new.nominal:.0%} would if they were alike)." + _surplus(new, audit)
            ),
            advice=(
                "What the model says of them is a guess about things that it never saw. Label "
                "some, add a class for them, or exclude them."
            ),
            figures=_figures(new, m) | {"scores": _scores(new)},
            image_ids=_ids(audit, places[new.order]),
            n_images=len(new.order),
        )
    )


def _surplus(found: Outliers, audit: AuditRows) -> str:
    if found.interval is None:
        return " There are too few groups to say whether that is more than chance."
    low, high = found.interval
    between = f"(95 % interval {low:.1%} to {high:.1%})"
    groups = "" if audit.has_groups else NO_GROUPS
    if found.is_more_than_chance:
        return f" That is clearly more than chance {between}.{groups}"
    return f" That may be chance {between}."


def _figures(found: Outliers, n_reference: int) -> dict[str, Any]:
    return {
        "n": found.n,
        "n_units": found.n_units,
        "n_flagged": len(found.order),
        "share": found.share,
        "interval": found.interval,
        "nominal": found.nominal,
        "n_reference": n_reference,
    }


def _scores(found: Outliers) -> list[float | None]:
    """Return how many times as far as the bound each listed image is."""
    scores = found.scores[found.order[:MOST_IMAGES]] / max(found.bound, 1e-9)
    return [round(float(s), 3) if np.isfinite(s) else None for s in scores]


def find_drift(
    store: Store,
    looks: Looks,
    moment: datetime | None,
    labelled_only: bool,
    seed: int,
    check: Check,
) -> Report:
    """Compare the images that were there at a moment with those that came later.

    Parameters
    ----------
    moment
        None: there is none to compare by.
    labelled_only
        Of the old images only the labelled ones count: what a model learnt from.
    """
    report, audit = Report(), looks.audit
    if moment is None:
        report.cannot_tell(DRIFT, "There is no model yet, and no day was named to compare by.")
        return report
    is_new = np.array([image.added_at > moment for image in audit.images], bool)
    wanted = is_new | (audit.labels >= 0) if labelled_only else np.ones(len(is_new), bool)
    places = looks.places[wanted[looks.places]]
    old = _some(places[~is_new[places]], MOST_A_SIDE, seed)
    new = _some(places[is_new[places]], MOST_A_SIDE, seed)
    both = np.r_[old, new]
    sides, units = is_new[both], audit.units[both]
    reason = drift.why_not(sides, units) if len(looks.places) else NO_INDEX
    if reason is not None:
        report.cannot_tell(DRIFT, reason)
        return report
    rows = looks.of(both)
    found = drift.drift(rows, sides, units, seed=seed, check=check)
    figures = {
        "since": moment.isoformat(),
        "n": found.n,
        "n_old": len(old),
        "n_new": len(new),
        "n_units_old": len(np.unique(units[~sides])),
        "n_units_new": len(np.unique(units[sides])),
        "balanced_accuracy": found.balanced_accuracy,
        "interval": found.interval,
        "chance": found.chance,
        "null_high": found.null_high,
        "p": found.p,
        "n_shuffles": found.n_shuffles,
    }
    report.checked.append({"part": DRIFT, "name": "features", **figures})
    if found.p <= LEVEL:
        far = outliers.distances(looks.of(new), looks.of(old), check=check)
        order = new[np.argsort(-far, kind="stable")]
        old_ones = "labelled images before" if labelled_only else "images before"
        report.findings.append(
            _drift_finding(figures, _ids(audit, order), len(new), audit, old_ones)
        )
    _shifts(store, report, audit, both, sides, units, seed, moment)
    return report


def _drift_finding(
    figures: dict[str, Any], image_ids: list[int], n: int, audit: AuditRows, old_ones: str
) -> Finding:
    score = figures["balanced_accuracy"]
    return Finding(
        kind=DRIFT,
        severity=HIGH if score >= FAR_APART else MEDIUM,
        title="New images differ from the old ones",
        sentence=(
            f"A simple classifier tells images that came after {figures['since'][:10]} from "
            f"the {old_ones} with a balanced accuracy of {score:.2f} (0.5 is no difference; "
            f"{p_words(figures['p'])}; n = {figures['n_old']:,} old and {figures['n_new']:,} new)."
            + ("" if audit.has_groups else NO_GROUPS)
        ),
        advice=(
            "Another scanner, stain or kind of tissue came in, so that the model's score may not "
            "hold for them. Look at those that are most unlike the old ones (listed first), label "
            "some, and train again."
        ),
        figures=figures,
        image_ids=image_ids,
        n_images=n,
    )


def _shifts(
    store: Store,
    report: Report,
    audit: AuditRows,
    both: Ints,
    sides: NDArray[np.bool_],
    units: Ints,
    seed: int,
    moment: datetime,
) -> None:
    """Compare single measures of the pictures, and tell those that moved."""
    with store.reading() as session:
        measured = read_measures(session, audit.ids[both].tolist())
    values = {
        name: np.array([_number(row.get(key)) for row in measured])
        for key, name in MEASURES.items()
    }
    for shift in drift.shifts(values, sides, units, seed=seed):
        figures = asdict(shift) | {"since": moment.isoformat()}
        report.checked.append({"part": DRIFT, "n": shift.n_old + shift.n_new, **figures})
        if shift.p_holm > LEVEL:
            continue
        order = np.argsort(values[shift.name] * (-1 if shift.higher > 0.5 else 1), kind="stable")
        mine = both[order][sides[order] & np.isfinite(values[shift.name][order])]
        word = "higher" if shift.higher > 0.5 else "lower"
        report.findings.append(
            Finding(
                kind="shift",
                severity=LOW,
                title=f"New images: {shift.name} is {word}",
                sentence=(
                    f"The median went from {shift.old:.3g} (n = {shift.n_old:,}) to "
                    f"{shift.new:.3g} (n = {shift.n_new:,}); a new image has the higher value in "
                    f"{100 * shift.higher:.0f} of 100 cases (50 is no shift; "
                    f"{p_words(shift.p_holm)}, corrected for the measures)."
                    + ("" if audit.has_groups else NO_GROUPS)
                ),
                advice="Ask what changed at the microscope or in the stain.",
                figures=figures,
                image_ids=_ids(audit, mine),
                n_images=len(mine),
            )
        )


def _number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) else float("nan")


def _some(places: Ints, most: int, seed: int) -> Ints:
    """Return at most `most` of these places, the same ones every time."""
    if len(places) <= most:
        return places
    return np.sort(np.random.default_rng(seed).choice(places, most, replace=False))


def _parts(places: Ints, size: int = 2000) -> list[Ints]:
    return [places[i : i + size] for i in range(0, len(places), size)]


def _ids(audit: AuditRows, places: Ints) -> list[int]:
    return [int(i) for i in audit.ids[places[:MOST_IMAGES]]]
