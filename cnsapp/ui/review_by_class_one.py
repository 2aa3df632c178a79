"""Review, one class: its figures, its typical and its odd images, and what the model looks at."""

from __future__ import annotations

import streamlit as st

from cnsapp.domain.map_methods import DEFAULT_METHOD
from cnsapp.domain.maps import get_method
from cnsapp.services import labels, looks, typical
from cnsapp.services.by_class import ClassRow, Figures
from cnsapp.services.typical import ClassGallery, Shown
from cnsapp.ui import frame, review_by_class_maps, words
from cnsapp.ui.review_asked import Reviewed
from cnsapp.ui.review_by_class_sheet import Cell, big, cells, header, section, sheet
from cnsapp.ui.review_checks_finding import correct
from cnsapp.ui.tables import swatch, text

ROW = 8  # pictures of a row
MAPS = 2 * ROW  # typical images whose maps are made


def draw(asked: Reviewed, known: Figures, class_id: int) -> None:
    """Draw the sheet of a class."""
    row = next((r for r in known.rows if r.class_id == class_id), None)
    if row is None:
        st.info("The model does not know this class any more. Choose another one.")
        return
    as_of = labels.high_water(asked.here.app.store)  # before the images, see `labeller`
    with st.spinner("Ranking the images of the class…"):
        found = typical.class_gallery(
            asked.here.app.store, model_id=asked.model.id, class_id=class_id, n=MAPS,
            n_prototypes=ROW,
        )  # fmt: skip
    sheet(
        header(
            asked,
            swatch(row.color) + text(row.name),
            [f"n = {row.score.n:,} labelled so", f"maps: {get_method(DEFAULT_METHOD).title}"],
        ),
        facts_of(row),
        *_galleries(asked, found),
    )
    if found.odd:
        correct(
            asked, "Correct labels of the least typical ones",
            [shown.image for shown in found.odd[:ROW]], as_of,
        )  # fmt: skip
    if not found.typical:
        _offer_looks(asked, found)
        return
    review_by_class_maps.draw(asked, found)


def facts_of(row: ClassRow) -> str:
    """Return recall and precision of a class, and what it is taken for."""
    score = row.score
    groups = f" from {words.plural(score.n_groups, 'group')}" if score.n_groups else ""
    parts = [
        big("Recall: of those labelled so, found", score.recall, score.recall_interval,
            f"n = {score.n:,}{groups}"),
        big("Precision: of those called so, right", score.precision, score.precision_interval,
            f"n = {score.n_predicted:,}"),
    ]  # fmt: skip
    return f'<div class="cns-facts">{"".join(parts)}{_taken_for(row)}</div>'


def _taken_for(row: ClassRow) -> str:
    """Return what the class's images are taken for, as bars."""
    title = '<div class="cns-small cns-muted">Taken for</div>'
    if not row.taken_for:
        return f"<div>{title}<div>nothing else</div></div>"
    rows = "".join(
        f"<div>{text(name)}</div>"
        f'<div class="cns-track"><i style="width:{100 * n / max(1, row.score.n):.1f}%"></i></div>'
        f'<div class="num">{n:,} of {row.score.n:,}</div>'
        for name, n in row.taken_for[:4]
    )
    more = len(row.taken_for) - 4
    rest = ""
    if more > 0:
        said = words.plural(more, "more class", "more classes")
        rest = f'<div class="cns-small cns-muted">and {said}</div>'
    return f'<div style="flex:1">{title}<div class="cns-bars">{rows}</div>{rest}</div>'


def _galleries(asked: Reviewed, found: ClassGallery) -> list[str]:
    name = text(found.name)
    of = (
        f"Held-out images that are labelled {name} today: {found.n:,}, of which the model calls "
        f"{found.n_right:,} so."
    )
    parts = []
    if found.typical:
        said = f"Most like the others among those that the model calls rightly. {of}"
        parts += [
            section("Most typical", said),
            cells(asked, [_sure(s) for s in found.typical[:ROW]]),
        ]
    if found.prototypes:
        said = "Each stands for one kind of image within the class (k-medoids)."
        parts += [section("Its kinds", said), cells(asked, [_reason(s) for s in found.prototypes])]
    if found.odd:
        said = (
            "Far from their class, or doubted by the model that never saw them: rare kinds, "
            "artefacts or wrong labels."
        )
        parts += [section("Least typical", said), cells(asked, [_odd(s) for s in found.odd[:ROW]])]
    return parts


def _sure(shown: Shown) -> Cell:
    return Cell(shown.image, _probability(shown), shown.reason)


def _reason(shown: Shown) -> Cell:
    return Cell(shown.image, text(shown.reason.removesuffix(" images.")), shown.reason)


def _odd(shown: Shown) -> Cell:
    return Cell(shown.image, _probability(shown), shown.reason)


def _probability(shown: Shown) -> str:
    return "" if shown.probability is None else f"<b>{shown.probability:.2f}</b> for its class"


def _offer_looks(asked: Reviewed, found: ClassGallery) -> None:
    """Say what lacks, and offer to sort the images by looks where that is what lacks."""
    for note in found.notes:
        st.info(frame.plain(note))
    if found.n and not found.typical and found.n_right:
        now = looks.status(asked.here.app.store, project_id=asked.project.id)
        if now.job_id is not None:
            with st.container(border=True, key="class_looks"):
                frame.job_progress(now.job_id)
        else:
            st.button(
                "Sort the images by looks", key="class_sort", type="primary", on_click=_sort,
                args=(asked,),
            )  # fmt: skip


def _sort(asked: Reviewed) -> None:
    with frame.guard():
        looks.queue_looks(
            asked.here.app.store, project_id=asked.project.id, requested_by=asked.here.annotator
        )
