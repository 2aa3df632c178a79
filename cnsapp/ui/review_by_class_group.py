"""Review, one group (patient, slide): its score beside the rest, class by class, and its images."""

from __future__ import annotations

import streamlit as st

from cnsapp.domain.findings import p_words
from cnsapp.domain.resampling import wilson_interval
from cnsapp.domain.slices import MOST_SLICES, Slice
from cnsapp.services import by_class, labels
from cnsapp.services.by_class import GroupImage, GroupRow, GroupSheet
from cnsapp.ui import words
from cnsapp.ui.review_asked import Reviewed
from cnsapp.ui.review_by_class_sheet import Cell, big, cells, header, section, sheet
from cnsapp.ui.review_checks_finding import correct
from cnsapp.ui.tables import swatch, text


def draw(asked: Reviewed, group: GroupRow) -> None:
    """Draw the sheet of a group."""
    as_of = labels.high_water(asked.here.app.store)  # before the images, see `labeller`
    with st.spinner("Reading the images of the group…"):
        found = by_class.group_sheet(
            asked.here.app.store, model_id=asked.model.id, group=group.name, part=asked.part,
            truth=asked.truth,
        )  # fmt: skip
    sheet(
        header(asked, f"Group {text(found.row.name)}", [f"n = {found.row.n:,} images"]),
        _facts(found.row),
        _by_class(found),
        *_images(asked, found),
    )
    wrong = [one.image for one in found.images if not one.is_right]
    if wrong:
        correct(asked, "Correct labels of the wrong ones", wrong, as_of)


def _facts(row: GroupRow) -> str:
    s = row.compared
    right = row.n_right / row.n
    interval = wilson_interval(row.n_right, row.n)
    parts = [big("Right answers", right, interval, f"n = {row.n:,} (Wilson, of these images)")]
    if s is not None and s.difference is not None:
        parts.append(_against(s))
    else:
        parts.append(f'<div style="flex:1;min-width:15rem"><p>{text(_why_not(s))}</p></div>')
    return f'<div class="cns-facts">{"".join(parts)}</div>'


def _against(s: Slice) -> str:
    """Return how a group compares with the rest, class by class, in words."""
    off = s.difference or 0.0
    sign, how = (-1, "less") if off < 0 else (1, "more")
    told = []
    if s.difference_interval is not None:
        low, high = sorted(100 * sign * bound for bound in s.difference_interval)
        told.append(f"95 % interval {round(low)} to {round(high)}")  # never “-0”
    if s.p_holm is not None:
        told.append(f"{p_words(s.p_holm)}, corrected for all groups")
    behind = f" ({'; '.join(told)})" if told else ""
    return (
        '<div style="flex:1;min-width:15rem"><div class="cns-small cns-muted">Against the rest, '
        f"class by class</div><p><b>{text(s.verdict[:1].upper() + s.verdict[1:])}.</b> Right "
        f"{100 * abs(off):.0f} percentage points {how} often{text(behind)}.</p></div>"
    )


def _why_not(s: Slice | None) -> str:
    if s is None:
        return f"Not compared with the rest: only the {MOST_SLICES} largest groups are."
    return f"Against the rest: {s.verdict}."


def _by_class(found: GroupSheet) -> str:
    rows = "".join(
        f"<tr><td>{swatch(c.color)}{text(c.name)}</td>"
        f'<td class="num">{words.score(c.n_right / c.n)}</td><td class="num">{c.n:,}</td>'
        f'<td class="num">{_share(c.n_right_rest, c.n_rest)}</td>'
        f'<td class="num">{c.n_rest:,}</td></tr>'
        for c in found.classes
    )
    return (
        section("Class by class") + '<table class="cns"><thead><tr><th scope="col">Class</th>'
        '<th scope="col" class="num">Recall here</th><th scope="col" class="num">n</th>'
        '<th scope="col" class="num">Recall in the rest</th><th scope="col" class="num">n</th>'
        f"</tr></thead><tbody>{rows}</tbody></table>"
    )


def _share(hits: int, n: int) -> str:
    return words.score(hits / n) if n else words.NONE


def _images(asked: Reviewed, found: GroupSheet) -> list[str]:
    row, shown = found.row, found.images
    wrong, right = [i for i in shown if not i.is_right], [i for i in shown if i.is_right]
    parts = []
    n_wrong = row.n - row.n_right
    if wrong:
        parts += [
            section("Wrong answers", _counted(len(wrong), n_wrong) + ", the surest first"),
            cells(asked, [_cell(one) for one in wrong]),
        ]
    if right:
        parts += [
            section("Right answers", _counted(len(right), row.n_right) + ", the surest first"),
            cells(asked, [_cell(one) for one in right]),
        ]
    return parts


def _counted(shown: int, n: int) -> str:
    return f"{shown:,} of {words.plural(n, 'image')}" if shown < n else words.plural(n, "image")


def _cell(one: GroupImage) -> Cell:
    if one.is_right:
        caption = f"{text(one.label)} <b>{one.sure:.2f}</b>"
    else:
        caption = f"{text(one.label)}, called <b>{text(one.said)}</b> {one.sure:.2f}"
    return Cell(one.image, caption)
