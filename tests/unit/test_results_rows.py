"""The table of results names what its rows were made of."""

from __future__ import annotations

from typing import Any

from benchmarks.results_table import as_markdown


def row(commit: str) -> dict[str, Any]:
    return {
        "balanced_accuracy": 0.5, "interval": [0.4, 0.6], "n": 10, "seconds": 1.0, "commit": commit,
        "below_quick": None,
    }  # fmt: skip


def table(**rows: dict[str, Any]) -> str:
    machine = {"cpu": "a cpu", "cores": 2, "device": "cpu", "versions": {"python": "3.11"}}
    one = {"set": "tiles", "folds": "5-fold", "n": 10, "n_classes": 2, "n_groups": 4, "rows": rows}
    return as_markdown(
        {"at": "2026-11-28T20:00:00", "commit": "abc", "machine": machine, "sets": [one]}
    )


def test_rows_of_several_commits_are_told_apart() -> None:
    mixed = table(majority=row("abc"), quick=row("def"))
    assert "Not all rows were computed at one commit. `abc`: majority; `def`: quick." in mixed
    assert "one commit" not in table(majority=row("abc"), quick=row("abc"))


def test_the_table_says_that_defaults_were_settled_on_these_sets() -> None:
    assert "were settled by trials that included these sets" in table(quick=row("abc"))
