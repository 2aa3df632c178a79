"""What checks of the data are called, and their figures as bars and tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import streamlit as st

from cnsapp.domain.findings import Finding, p_words
from cnsapp.services.audit import AuditView
from cnsapp.ui import frame, words
from cnsapp.ui.tables import Bar, Column, bars, table, text

SEVERITIES = {
    "high": ("bad", "High", "Scores or labels are likely wrong."),
    "medium": ("wait", "Medium", "Look before you trust scores and labels."),
    "low": ("", "Low", "Good to know."),
}
KINDS = {
    "different labels": "Look-alikes with different labels",
    "worse group": "A group that does worse",
    "odd images": "Odd images",
    "unknown images": "Unknown images",
    "shortcut": "Shortcut",
    "inseparable": "Cannot be told apart",
    "drift": "Drift",
    "shift": "Drift, one measure",
}
PARTS = {
    "different labels": "Look-alikes with different labels",
    "worse groups": "Groups that do worse",
    "odd images": "Odd images",
    "unknown images": "Unknown images",
    "shortcuts": "Shortcuts",
    "drift": "Drift",
    "all": "All of it",
}
GRAY, ALARM = "#9AA8AB", "#1E8CA5"


def mark(finding: Finding) -> str:
    """Return severity and kind as HTML: a dot with its word, never colour alone."""
    tone, word, means = SEVERITIES[finding.severity]
    kind = KINDS.get(finding.kind, finding.kind)
    return (
        f'<div class="cns-small" title="{text(means)}"><span class="cns-dot {tone}"></span>'
        f'{word} <span class="cns-muted">· {text(kind)}</span></div>'
    )


def look_at(finding: Finding) -> str:
    """Return what the button of a finding says."""
    if finding.kind == "different labels":
        return f"See {words.plural(int(finding.figures['n_different']), 'pair')}"
    if not finding.n_images:
        return "See more"
    return f"See {words.plural(finding.n_images, 'image')}"


def small_bars(finding: Finding) -> None:
    """Draw the one figure of a card that says more as a bar; most findings need none."""
    if finding.kind == "shortcut":
        bars([shortcut_bar(finding.figures)])
    elif finding.kind == "drift":
        bars([_guessed("Old or new, by looks", finding.figures, "p")])


def shortcut_bar(figures: Mapping[str, Any], *, alarm: bool = True, bold: bool = False) -> Bar:
    """Return how well a cue tells the label, beside chance."""
    name = str(figures["name"])
    return _guessed(name[:1].upper() + name[1:], figures, "p_holm", alarm=alarm, bold=bold)


def _guessed(
    name: str, figures: Mapping[str, Any], p: str, *, alarm: bool = True, bold: bool = False
) -> Bar:
    score = figures["balanced_accuracy"]
    value = (
        f"{words.figure(score, figures.get('interval'), figures['n'])}, "
        f"chance {figures['chance']:.2f}, {p_words(figures[p])}"
    )
    return Bar(text(name), score, value, ALARM if alarm else GRAY, figures["chance"], bold)


def figures_of(finding: Finding) -> None:
    """Draw the figures of an open finding."""
    said = finding.figures
    if finding.kind == "shortcut":
        _shortcut(said)
    elif finding.kind == "worse group":
        _worse(said)
    elif finding.kind == "drift":
        bars([_guessed("Old or new, by looks", said, "p")])
        st.caption("Balanced accuracy of a classifier that tells old from new; the line is chance.")
    elif finding.kind == "inseparable":
        table(
            [Column("Class"), Column("The only value it has")],
            [[text(row["class"]), text(row["value"])] for row in said["labels"]],
        )


def _shortcut(said: Mapping[str, Any]) -> None:
    rows = [shortcut_bar(said)]
    follows = said.get("follows") or {}
    for key, name in (
        ("fits", "Model, where the cue fits the label"),
        ("against", "Model, where it speaks against it"),
    ):
        part = follows.get(key)
        if part and part["accuracy"] is not None:
            value = words.figure(part["accuracy"], part["interval"], part["n"])
            rows.append(Bar(text(name), part["accuracy"], value, GRAY))
    bars(rows)
    st.caption(
        f"The cue: balanced accuracy on groups that it did not learn from ({said['n_units']:,} "
        "independent units); the line marks chance. The model: share of right answers out of fold. "
        "95 % intervals in brackets."
    )


def _worse(said: Mapping[str, Any]) -> None:
    value = "nothing noted" if said["value"] is None else str(said["value"])
    groups = words.number(said["n_groups"])
    table(
        [
            Column(str(said["column"])),
            Column("n", number=True),
            Column("Groups", number=True),
            Column("Right", number=True, help="Share of right answers, 95 % interval"),
            Column("Less than the rest", number=True, help="Recall, class by class"),
            Column("p", number=True, help="Corrected (Holm) for all slices of all columns"),
        ],
        [[
            text(value), words.number(said["n"]), groups,
            words.figure(said["accuracy"], said["accuracy_interval"]),
            words.figure(-(said["difference"] or 0.0), _turned(said["difference_interval"])),
            text(p_words(said["p_holm"]).removeprefix("p = ")),
        ]],
    )  # fmt: skip


def _turned(bounds: Sequence[float] | None) -> list[float] | None:
    return None if bounds is None else [-bounds[1], -bounds[0]]


def untold(view: AuditView) -> None:
    """Say what could not be told, and why."""
    if not view.not_told:
        return
    with st.container(border=True, key="checks_untold", gap="small"):
        st.markdown(":material/help: **What could not be told**")
        lines = [
            f"- {frame.plain(PARTS.get(said['part'], said['part']))}: {frame.plain(said['reason'])}"
            for said in view.not_told
        ]
        st.markdown("\n".join(lines))


def everything(view: AuditView) -> None:
    """Draw all that was tested, also where nothing was found."""
    if not view.checked:
        return
    cues = [said for said in view.checked if said["part"] == "shortcuts"]
    with st.expander(f"All {words.plural(len(view.checked), 'test')} that were made"):
        if cues:
            alarms = {f.figures.get("name") for f in view.findings if f.kind == "shortcut"}
            st.markdown("**Can the label be told from this alone?**")
            order = sorted(cues, key=lambda said: -said["balanced_accuracy"])
            told = [(said, said["name"] in alarms) for said in order]
            bars([shortcut_bar(said, alarm=alarm, bold=alarm) for said, alarm in told])
            st.caption(
                "Balanced accuracy, 95 % interval, n; the line marks chance; p corrected for "
                f"{words.plural(len(cues), 'cue')}. Alarms are in bold."
            )
        rest = [said for said in view.checked if said["part"] != "shortcuts"]
        if rest:
            table(
                [Column("Test"), Column("Of"), Column("n", number=True), Column("Came to")],
                [_tested(said) for said in rest],
            )


def _tested(said: Mapping[str, Any]) -> list[str]:
    part, came = str(said["part"]), ""
    if part == "different labels":
        came = f"{words.plural(said['n_found'], 'pair')} with two labels"
    elif part == "worse groups":
        came = f"{said['n_tested']:,} of {words.plural(said['n_slices'], 'value')} tested"
    elif part in ("odd images", "unknown images"):
        came = f"{said['n_flagged']:,} far from all others ({words.percent(said['share'], 1)})"
    elif "balanced_accuracy" in said:
        came = f"{words.figure(said['balanced_accuracy'], said['interval'])}, {p_words(said['p'])}"
    elif "higher" in said:
        came = f"higher in {100 * said['higher']:.0f} of 100 new images, {p_words(said['p_holm'])}"
    of = "" if said["name"] == part else str(said["name"])
    return [text(PARTS.get(part, part)), text(of), words.number(said["n"]), text(came)]


def since_of(view: AuditView) -> datetime | None:
    """Return the moment from which images counted as new in these findings, where it is known."""
    moments = [said["since"] for said in view.checked if said.get("since")]
    return datetime.fromisoformat(moments[0]) if moments else None
