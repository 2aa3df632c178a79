"""The sections of an evaluation: chart and table side by side, and the numbers as a file."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import streamlit as st

from cnsapp.services import evaluation_tables as tables
from cnsapp.services.evaluation import Evaluated
from cnsapp.ui import evaluation_charts as charts
from cnsapp.ui import words
from cnsapp.ui.evaluation_words import (
    BY,
    CALIBRATION,
    CONFUSION,
    CURVES,
    PER_CLASS,
    SILENT,
    SMALL_SLICES,
    mixed_up,
    say_slices,
)
from cnsapp.ui.tables import Column, swatch, table, text

MOST_MIXED = 12


def _by_class(found: Evaluated) -> None:
    st.caption(PER_CLASS)
    left, right = st.columns([5, 6], gap="large")
    with left:
        charts.recall_chart(found)
    with right:
        table(
            [
                Column("Class"),
                Column("n", number=True, help="Images with this label"),
                Column("Recall", number=True, help="Of the images labelled so, the share found"),
                Column("95 %", number=True),
                Column("Precision", number=True, help="Of those predicted so, the share right"),
                Column("95 %", number=True),
                Column("F1", number=True, help="Harmonic mean of recall and precision"),
                Column("95 %", number=True),
            ],
            [
                [
                    swatch(color) + text(name),
                    words.number(c.n),
                    *_figure(c.recall, c.recall_interval),
                    *_figure(c.precision, c.precision_interval),
                    *_figure(c.f1, c.f1_interval),
                ]
                for name, color, c in zip(
                    found.names, found.colors, found.scores.per_class, strict=True
                )
            ],
        )
        st.caption("– is undefined: no images, or too few groups for an interval. It is not zero.")
    together, systems = st.columns([5, 6], gap="large")
    rows = tables.overall(found)
    with together:
        _all_together("All classes", [f for f in rows if f.item == "all"])
    if found.system_names:
        with systems:
            _all_together("Organ systems", [f for f in rows if f.item == "systems"])
            st.caption(
                "A class without a parent in the class list is a system of its own. An answer "
                "within the right system counts as right here."
            )
    _download(found, "by class", [*tables.overall(found), *tables.by_class(found)])


def _all_together(title: str, rows: Sequence[tables.Figure]) -> None:
    table(
        [
            Column(title),
            Column("Value", number=True),
            Column("95 % interval", number=True),
            Column("n", number=True),
        ],
        [
            [
                text(f.figure[0].upper() + f.figure[1:]),
                *_figure(_number(f.value), f.interval),
                words.number(f.n),
            ]
            for f in rows
        ],
    )


def _confusion(found: Evaluated) -> None:
    st.caption(CONFUSION)
    left, right = st.columns([6, 5], gap="large")
    with left:
        charts.confusion_chart(found)
    with right:
        rows = mixed_up(found)[:MOST_MIXED]
        if not rows:
            st.caption("No image is mixed up.")
        else:
            table(
                [
                    Column("Label"),
                    Column("Predicted"),
                    Column("Images", number=True),
                    Column("of n", number=True, help="Images with this label"),
                    Column("Share", number=True, help="Of the images with this label"),
                    *([Column("Organ system")] if found.system_names else []),
                ],
                [
                    [
                        swatch(found.colors[m.label]) + text(found.names[m.label]),
                        swatch(found.colors[m.said]) + text(found.names[m.said]),
                        words.number(m.n),
                        words.number(m.of),
                        words.percent(m.n / m.of, 1),
                        *([m.system] if found.system_names else []),
                    ]
                    for m in rows
                ],
            )
        h = found.scores.systems
        if h is not None and h.n_errors:
            spread = words.interval(h.within_interval)
            st.caption(
                f"{words.number(h.n_errors_within)} of {words.plural(h.n_errors, 'error')} "
                f"({words.percent(h.within)}{', 95 % interval ' + spread if spread else ''}) stay "
                "within the organ system."
            )
    _download(found, "confusion", tables.confusion(found))


def _curves(found: Evaluated) -> None:
    st.caption(CURVES)
    if found.curves.macro_auc is None:
        st.caption("No curve can be drawn: images of at least two classes are needed.")
        return
    left, right = st.columns(2, gap="large")
    with left:
        charts.curve_chart(found, "roc")
    with right:
        charts.curve_chart(found, "pr")
    c = found.curves
    rows = [
        ["<b>Mean of the classes</b>", words.number(c.n), "",
         *_figure(c.macro_auc, c.macro_auc_interval), *_figure(c.macro_ap, c.macro_ap_interval)],
    ]  # fmt: skip
    rows += [
        [
            swatch(color) + text(name),
            words.number(one.n),
            words.number(one.n_rest),
            *_figure(one.auc, one.auc_interval),
            *_figure(one.ap, one.ap_interval),
        ]
        for name, color, one in zip(found.names, found.colors, c.per_class, strict=True)
    ]
    table(
        [
            Column("Class against the rest"),
            Column("n", number=True),
            Column("Rest", number=True),
            Column("AUC", number=True, help="Area under the ROC curve; 0.5 is chance"),
            Column("95 %", number=True),
            Column("Average precision", number=True, help="Chance is the share of the class"),
            Column("95 %", number=True),
        ],
        rows,
    )
    _download(found, "areas", tables.areas(found))
    st.download_button(
        "Points of the curves (CSV)", lambda: tables.points_csv(found), key="evaluation_points",
        file_name=_file(found, "curves"), mime="text/csv", type="tertiary", on_click="ignore",
        icon=":material/download:",
    )  # fmt: skip


def _calibration(found: Evaluated) -> None:
    st.caption(CALIBRATION)
    if not found.after.n:
        st.caption("There are no probabilities to judge.")
        return
    left, right = st.columns([6, 5], gap="large")
    with left:
        charts.reliability_chart(found.before, found.after)
    with right:
        table(
            [
                Column(""),
                Column("ECE", number=True, help="Expected calibration error: 0 is best"),
                Column("Brier score", number=True, help="Squared error, 0 (best) to 2"),
                Column("95 %", number=True),
                Column("n", number=True),
            ],
            [
                [
                    name,
                    words.number(r.ece, 3),
                    words.number(r.brier, 3),
                    words.interval(r.brier_interval) or words.NONE,
                    words.number(r.n),
                ]
                for name, r in (
                    ("Before temperature", found.before),
                    (f"After temperature ({found.temperature:.2f})", found.after),
                )
            ],
        )
        st.space("small")
        table(
            [
                Column("Confidence"),
                Column("n", number=True),
                Column("Mean", number=True, help="Mean confidence in this bin"),
                Column("Right", number=True, help="Share of right answers in this bin"),
                Column("95 %", number=True),
            ],
            [
                [
                    f"{b.low:.2f}–{b.high:.2f}",
                    words.number(b.n),
                    words.score(b.confidence),
                    *_figure(b.right, b.interval),
                ]
                for b in found.after.bins
                if b.n
            ],
        )
    _download(found, "calibration", tables.calibrated(found))


def _silent(found: Evaluated) -> None:
    st.caption(SILENT)
    a = found.abstention
    if not a.n:
        st.caption("There are no probabilities to judge.")
        return
    left, right = st.columns([6, 5], gap="large")
    with left:
        charts.risk_chart(a)
    with right:
        st.caption(f"Area under the curve (AURC) {words.number(a.aurc, 3)}: 0 is best.")
        head = [
            Column("Answered", number=True, help="Share of images that get an answer"),
            Column("n", number=True),
            Column("Accuracy", number=True, help="Share of right answers among them"),
            Column("95 %", number=True),
        ]
        table(
            [Column("Wanted accuracy"), Column("Confidence from", number=True), *head],
            [
                [words.percent(goal), *([words.NONE] * 5)]
                if row is None
                else [
                    words.percent(goal),
                    words.number(row.threshold, 3),
                    words.percent(row.coverage),
                    words.number(row.n),
                    *_figure(row.accuracy, row.interval),
                ]
                for goal, row in a.wanted
            ],
        )
        st.space("small")
        table(
            [Column("Confidence from"), *head],
            [
                [
                    f"{row.threshold:.2f}",
                    words.percent(row.coverage),
                    words.number(row.n),
                    *_figure(row.accuracy, row.interval),
                ]
                for row in a.by_threshold
            ],
        )
    _download(found, "abstaining", tables.abstaining(found))


def _slices(found: Evaluated) -> None:
    slices = found.slices or []
    st.caption(BY)
    st.markdown(say_slices(found))
    if found.scores.n_groups and any(s.interval_by == "image" for s in slices):
        st.caption(SMALL_SLICES)
    left, right = st.columns([4, 7], gap="large")
    with left:
        if any(s.balanced_accuracy is not None for s in slices):
            charts.slice_chart(slices, found.scores.balanced_accuracy)
        else:
            st.caption("No slice has 10 images of at least two classes.")
    with right:
        grouped = found.scores.n_groups is not None
        table(
            [
                Column(found.by_title or ""),
                Column("n", number=True),
                *([Column("Groups", number=True)] if grouped else []),
                Column("Balanced acc.", number=True, help="Over the classes that it holds"),
                Column("95 %", number=True),
                Column("Accuracy", number=True),
                Column("Difference", number=True, help="Recall less that of the rest, by class"),
                Column("p", number=True, help="Corrected by Holm's method"),
                Column("Said"),
            ],
            [
                [
                    text("not noted" if s.value is None else s.value),
                    words.number(s.n),
                    *([words.number(s.n_groups)] if grouped else []),
                    *_figure(s.balanced_accuracy, s.interval),
                    words.score(s.accuracy),
                    _signed(s.difference),
                    _p(s.p_holm),
                    f'<span style="white-space:nowrap">{text(s.verdict)}</span>',
                ]
                for s in slices
            ],
        )
    _download(found, f"by {found.by}", tables.sliced(found))


BY_NAME = "By group, batch, annotator"
SECTIONS: dict[str, Callable[[Evaluated], None]] = {
    "By class": _by_class,
    "Confusion": _confusion,
    "ROC and PR": _curves,
    "Calibration": _calibration,
    "When it may abstain": _silent,
    BY_NAME: _slices,
}


def _figure(value: float | None, interval: Sequence[float] | None) -> list[str]:
    return [words.score(value), words.interval(interval) or words.NONE]


def _number(value: float | int | str | None) -> float | None:
    return None if isinstance(value, str) or value is None else float(value)


def _signed(value: float | None) -> str:
    return words.NONE if value is None else f"{value:+.2f}".replace("-", "\N{MINUS SIGN}")


def _p(value: float | None) -> str:
    if value is None:
        return words.NONE
    return "&lt; 0.001" if value < 0.001 else f"{value:.3f}"


def _file(found: Evaluated, what: str) -> str:
    return f"model {found.model_id} {found.part} {what}.csv".replace("/", "-")


def _download(found: Evaluated, what: str, rows: Sequence[tables.Figure]) -> None:
    st.download_button(
        "Numbers (CSV)", lambda: tables.as_csv(rows), key=f"evaluation_csv_{what}",
        file_name=_file(found, what), mime="text/csv", type="tertiary", on_click="ignore",
        icon=":material/download:",
        help="The camera above each chart saves the figure as SVG, sharp at any size in print.",
    )  # fmt: skip
