"""Groups of images that the current model does worse on: patients, slides, batches, people."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any

import numpy as np
from sqlalchemy.orm import Session

from cnsapp.domain.findings import LEVEL, MEDIUM, MOST_IMAGES, Finding, Report, p_words, plural
from cnsapp.domain.shortcuts import batch_values
from cnsapp.domain.slices import FEWEST, REST, Slice, by_value, holm
from cnsapp.services.audit_rows import AuditRow, AuditRows
from cnsapp.services.evaluation_rows import Rows, read_rows
from cnsapp.services.evaluation_values import list_columns, read_values
from cnsapp.services.models import ModelView

PART = "worse groups"
LEFT_OUT = ("fold", "source")  # say nothing of the images
MUCH_WORSE = 0.2  # difference of recall from which it is serious
OF_AN_IMAGE: dict[str, Callable[[AuditRow], str | None]] = {
    "file type": lambda image: image.file_type or None,
    "slide": lambda image: None if image.slide_id is None else f"slide {image.slide_id}",
}

Check = Callable[[], None]


def rows_in_use(session: Session, model: ModelView, audit: AuditRows) -> Rows:
    """Return a model's out-of-fold predictions of images in use, held against today's labels."""
    rows = read_rows(session, model, "fold", "current")
    keep = np.flatnonzero(np.isin(rows.image_ids, audit.ids))
    return replace(
        rows,
        image_ids=rows.image_ids[keep],
        folds=rows.folds[keep],
        true=rows.true[keep],
        said=rows.said[keep],
        probabilities=rows.probabilities[keep],
        groups=[rows.groups[i] for i in keep],
        together=[rows.together[i] for i in keep],
    )


def find_worse_groups(session: Session, model: ModelView, audit: AuditRows, check: Check) -> Report:
    """Compare every slice of every column with the rest of the images, class by class.

    The p-values are corrected by Holm's method for all slices of all columns together. A slice of
    fewer than 10 images is not tested.
    """
    report = Report()
    rows = rows_in_use(session, model, audit)
    if len(rows.true) < 2 * FEWEST:
        report.cannot_tell(
            PART,
            f"The model “{model.name}” has {len(rows.true)} out-of-fold predictions of labelled "
            f"images; {2 * FEWEST} are needed.",
        )
        return report
    found: list[tuple[str, list[str | None], Slice]] = []
    for title, values in _columns(session, model, audit, rows):
        check()
        if len(set(values)) < 2:
            continue
        n_classes = len(model.outputs)
        slices = by_value(rows.true, rows.said, n_classes, values, rows.together, seed=0)
        found += [(title, values, s) for s in slices]
        report.checked.append(
            {"part": PART, "name": title, "n": len(values), "n_slices": len(slices),
             "n_tested": sum(s.p is not None for s in slices)}
        )  # fmt: skip
    tested = [entry for entry in found if entry[2].p is not None]
    corrected = holm([s.p for _, _, s in tested if s.p is not None])
    for (title, values, s), p in zip(tested, corrected, strict=True):
        if p < LEVEL and (s.difference or 0) < 0:
            report.findings.append(_finding(title, values, s, p, len(tested), rows, model))
    return report


def _columns(
    session: Session, model: ModelView, audit: AuditRows, rows: Rows
) -> list[tuple[str, list[str | None]]]:
    """Return title and values of every column that groups images."""
    found = [
        (column.title, read_values(session, model, column, rows))
        for column in list_columns(session, model.project_id)
        if column.name not in LEFT_OUT
    ]
    images = [audit.images[at] for at in np.searchsorted(audit.ids, rows.image_ids)]
    found.append(("import", batch_values([image.added_at for image in images])))
    return found + [(name, [of(image) for image in images]) for name, of in OF_AN_IMAGE.items()]


def _finding(
    title: str,
    values: list[str | None],
    s: Slice,
    p: float,
    n_tested: int,
    rows: Rows,
    model: ModelView,
) -> Finding:
    mine = np.array([value == s.value for value in values])
    if s.value is not None and s.value.startswith(REST):
        mine[:] = False  # many small ones together: no page to show
    wrong = rows.image_ids[mine & (rows.true != rows.said)].tolist()
    name = "nothing noted" if s.value is None else s.value
    off = -(s.difference or 0.0)
    groups = "" if s.n_groups is None else f" of {plural(s.n_groups, 'group')}"
    return Finding(
        kind="worse group",
        severity="high" if off >= MUCH_WORSE else MEDIUM,
        title=f"The model does worse on {title}: {name}",
        sentence=(
            f"On {plural(s.n, 'image')}{groups} ({title}: “{name}”) the model “{model.name}” is "
            f"right {100 * off:.0f} percentage points less often than on the rest, class by class "
            f"(accuracy {s.accuracy or 0:.2f}; {p_words(p)}, corrected for "
            f"{plural(n_tested, 'slice')})." + _whose(title, s)
        ),
        advice=(
            "Its images may be of another stain or quality, its labels may be wrong, or the model "
            "saw too few like them. Look at its wrong images; then correct labels, exclude bad "
            "pictures, or label more of this kind."
        ),
        figures=_figures(title, s, p, n_tested),
        image_ids=wrong[:MOST_IMAGES],
        n_images=len(wrong),
    )


def _whose(title: str, s: Slice) -> str:
    """Say where few groups speak for a whole column: the p-value is then of these alone."""
    if s.n_groups is None:
        return " No image has a group: each counts as independent, which is too sure."
    if s.interval_by == "group" or title == "Group":
        return ""
    return (
        f" All its images come from {plural(s.n_groups, 'group')}: what is worse may be "
        f"{'that one' if s.n_groups == 1 else 'these'}, not the {title}."
    )


def _figures(title: str, s: Slice, p: float, n_tested: int) -> dict[str, Any]:
    kept = asdict(s)
    kept.pop("verdict")
    return {"column": title, **kept, "p_holm": p, "n_tested": n_tested, "smallest_n": FEWEST}
