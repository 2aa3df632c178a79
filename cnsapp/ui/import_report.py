"""What came of an import, or would come of one, on the screen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import streamlit as st

from cnsapp.services.jobs import JobView
from cnsapp.ui import frame, words
from cnsapp.ui.tables import Column, table, text, when

LISTS = (  # of a check: the names, how many, what they are, what it means
    (
        "rows_without_file",
        "Rows of the table without a file",
        "Their labels or metadata would be lost. Check the names in the column file.",
    ),
    (
        "files_without_row",
        "Files without a row in the table",
        "They would be imported without label or metadata.",
    ),
    ("name_clashes", "Names that clash", "Nothing is overwritten; look whether that is meant."),
)


def show_report(job: JobView) -> None:
    """Draw what came of an import: counts, and every file that was skipped, with the reason."""
    result = job.result
    if result.get("dry_run"):
        _show_check(job)
        return
    skipped = list(result.get("skipped", []))
    table(
        [
            Column("Imported"),
            Column("Found", number=True),
            Column("New", number=True),
            Column("Duplicates", number=True, help="The same bytes were there already"),
            Column("Skipped", number=True),
            Column("Labelled", number=True),
        ],
        [[when(job.finished_at), *_counts(result)]],
    )
    _notes(result)
    show_skipped(skipped, str(job.id))


def _counts(result: dict[str, Any]) -> list[str]:
    values = (
        result.get("found", 0),
        result.get("imported", 0),
        result.get("duplicates", 0),
        len(result.get("skipped", [])),
        result.get("labelled", 0),
    )
    return [words.number(value) for value in values]


def _notes(result: dict[str, Any]) -> None:
    lines = []
    if result.get("slides"):
        lines.append(
            f"{words.plural(int(result['slides']), 'whole slide')}, "
            f"{words.plural(int(result.get('tiles', 0)), 'new tile')} cut from them."
        )
    lines += [frame.plain(str(note)) for note in result.get("notes", [])]
    if result.get("new_classes"):
        lines.append(f"New classes: {frame.plain(', '.join(map(str, result['new_classes'])))}.")
    if lines:
        st.caption("  \n".join(lines))


def _show_check(job: JobView) -> None:
    """Draw what an import would do, with every problem and the files behind it."""
    result, path = job.result, str(job.payload.get("path", ""))
    skipped = list(result.get("skipped", []))
    n_problems = len(skipped) + sum(int(result.get(f"n_{name}", 0)) for name, _, _ in LISTS)
    st.markdown(f"**Checked {frame.plain(path)}.** Nothing was imported.")
    table(
        [
            Column("Checked"),
            Column("Found", number=True),
            Column("Would be new", number=True),
            Column("Duplicates", number=True, help="The same bytes are there already"),
            Column("Unreadable", number=True),
            Column("Would get a label", number=True),
            Column("Groups", number=True),
            Column("Without group", number=True),
        ],
        [
            [
                when(job.finished_at),
                *_counts(result),
                words.number(result.get("n_groups", 0)),
                words.number(result.get("n_without_group", 0)),
            ]
        ],
    )
    _notes(result)
    folders = result.get("folders", [])
    if folders:
        with st.expander(f"{words.plural(len(folders), 'label')} and their files"):
            table(
                [Column("Label"), Column("Files", number=True)],
                [[text(name), words.number(n)] for name, n in folders[:100]],
            )
    if not n_problems and not result.get("stopped"):
        st.success("No problem found.")
    show_skipped(skipped, f"check_{job.id}", dry_run=True)
    for name, title, meaning in LISTS:
        n = int(result.get(f"n_{name}", 0))
        if n:
            with st.expander(f"{title}: {n:,}"):
                st.caption(meaning)
                shown = [str(item) for item in result.get(name, [])]
                st.dataframe({"name": shown}, hide_index=True, key=f"{name}_{job.id}", height=200)
                if n > len(shown):
                    st.caption(f"The first {len(shown):,} of {n:,}.")


def show_skipped(skipped: Sequence[dict[str, Any]], key: str, *, dry_run: bool = False) -> None:
    """Draw the files that were skipped, with the reasons, and offer them as a table."""
    if not skipped:
        return
    import pandas as pd

    rows = pd.DataFrame([{"file": s.get("file"), "reason": s.get("reason")} for s in skipped])
    done = "would be skipped" if dry_run else "skipped"
    st.warning(f"{words.plural(len(skipped), 'file')} {done}; the rest is not affected.")
    st.dataframe(
        rows, hide_index=True, key=f"skipped_{key}", height="content" if len(rows) < 8 else 300
    )
    st.download_button(
        "Download this list (CSV)",
        rows.to_csv(index=False).encode("utf-8-sig"),
        file_name="skipped-files.csv",
        mime="text/csv",
        key=f"skipped_csv_{key}",
        on_click="ignore",
    )
