"""Review, all classes: the figures of each, and a row of its most typical images."""

from __future__ import annotations

from cnsapp.errors import CnsError
from cnsapp.services import by_class, typical
from cnsapp.services.by_class import ClassRow, Figures
from cnsapp.ui import words
from cnsapp.ui.review_asked import Reviewed
from cnsapp.ui.review_by_class_sheet import Cell, cells, header, sheet
from cnsapp.ui.tables import swatch, text

ROW = 8


def draw(asked: Reviewed) -> None:
    """Draw the sheet of all classes."""
    known = by_class.figures(
        asked.here.app.store, model_id=asked.model.id, part=asked.part, truth=asked.truth
    )
    parts = [header(asked, "All classes", [_total(known)])]
    notes: list[str] = []
    for row in known.rows:
        parts.append(_class(asked, row, notes))
    parts += [f'<p class="cns-small cns-muted">{text(note)}</p>' for note in dict.fromkeys(notes)]
    if known.n_elsewhere:
        parts.append(
            f'<p class="cns-small cns-muted">{words.plural(known.n_elsewhere, "image")} left out: '
            "no label now, or one that the model does not know.</p>"
        )
    sheet(*parts)


def _total(known: Figures) -> str:
    scores = known.scores
    groups = f" from {words.plural(scores.n_groups, 'group')}" if scores.n_groups else ""
    return (
        f"balanced accuracy {words.figure(scores.balanced_accuracy, scores.interval, scores.n)}"
        + groups
    )


def _class(asked: Reviewed, row: ClassRow, notes: list[str]) -> str:
    score, shown = row.score, ""
    try:
        found = typical.class_gallery(
            asked.here.app.store, model_id=asked.model.id, class_id=row.class_id, n=ROW,
            n_prototypes=1,
        )  # fmt: skip
        shown = cells(asked, [Cell(one.image, title=one.reason) for one in found.typical])
        notes += found.notes
    except CnsError as error:
        notes.append(str(error))
    taken = ", ".join(f"{text(name)} {n:,}" for name, n in row.taken_for[:3]) or "nothing else"
    facts = [
        f"recall {words.figure(score.recall, score.recall_interval, score.n)}",
        f"precision {words.figure(score.precision, score.precision_interval, score.n_predicted)}",
    ]
    return (
        f'<div class="cns-class">{swatch(row.color)}<b>{text(row.name)}</b> '
        f'<span class="cns-small">{text(" · ".join(facts))} · taken for {taken}</span>{shown}</div>'
    )
