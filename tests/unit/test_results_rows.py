"""The table of results names what its rows were made of."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks.results_sets import same_pictures
from benchmarks.results_table import as_markdown
from cnsapp.imaging.synthetic import ORGANS, make_tissue


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


def test_repeated_divisions_say_how_often_quick_leads() -> None:
    one = {
        "set": "tiles", "folds": "5-fold", "n": 10, "n_classes": 2, "n_groups": 4,
        "rows": {"quick": row("abc")},
        "repeats": {"last_layer": [0.4, 0.5, 0.6], "quick": [0.5, 0.5, 0.8]},
    }  # fmt: skip
    machine = {"cpu": "a cpu", "cores": 2, "device": "cpu", "versions": {"python": "3.11"}}
    said = as_markdown(
        {"at": "2026-11-28T20:00:00", "commit": "abc", "machine": machine, "sets": [one]}
    )
    assert "Over 3 divisions into folds" in said
    assert "0.500 ± 0.100 (quick above in 2)" in said and "quick 0.600 ± 0.173" in said


def test_images_that_look_the_same_share_a_number(tmp_path: Path) -> None:
    pictures = [make_tissue(organ, patient=1, number=7, size=96) for organ in list(ORGANS)[:3]]
    files = []
    for i, picture in enumerate([*pictures, np.ascontiguousarray(np.rot90(pictures[1]))]):
        files.append(tmp_path / f"{i}.png")
        Image.fromarray(picture).save(files[-1])
    first, second, third, turned = same_pictures(files)
    assert second == turned and second is not None
    assert (first, third) == (None, None)


def test_the_table_says_that_defaults_were_settled_on_these_sets() -> None:
    assert "were settled by trials that included these sets" in table(quick=row("abc"))
