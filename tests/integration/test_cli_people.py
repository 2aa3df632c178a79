"""The commands agreement, readings and progress, as somebody types them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from cnsapp.cli import main
from cnsapp.services import labels, projects
from db.session import Store
from tests.integration.test_labels import add_images


@pytest.fixture
def ids(store: Store, home: Path, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return thirty images of a project “Kidney” that Ada has labelled."""
    monkeypatch.setenv("CNS_HOME", str(home))
    project = projects.create_project(store, name="Kidney", classes=["cortex", "medulla"])
    found = add_images(store, project.id, 30)
    say(store, project.id, "Ada", {i: k % 2 for k, i in enumerate(found)})
    return found


def say(
    store: Store, project_id: int, who: str, said: dict[int, int], source: str = "human"
) -> None:
    class_ids = [c.id for c in projects.list_classes(store, project_id=project_id)]
    events = [
        {
            "client": f"client-{who}", "seq": image_id, "image_id": image_id, "kind": "label",
            "class_id": class_ids[place], "source": source, "action": f"a-{image_id}",
        }
        for image_id, place in said.items()
    ]  # fmt: skip
    labels.record_events(store, project_id=project_id, annotator=who, events=events)


def run(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main([*words, "--project", "Kidney"]) == 0
    return capsys.readouterr().out


def told(capsys: pytest.CaptureFixture[str], *words: str) -> Any:
    return json.loads(run(capsys, *words, "--json"))


def test_readings_are_asked_for_listed_answered_and_withdrawn(
    store: Store, ids: list[int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert "Ask for second readings" in run(capsys, "agreement")
    asked = told(capsys, "readings", "ask", "--share", "1", "--evenly", "--annotator", "Ada")
    assert asked == {"asked": 30}
    say(store, 1, "Ben", {i: k % 2 if k > 5 else 0 for k, i in enumerate(ids[:26])}, "second")
    assert told(capsys, "readings", "list") == [
        {"kind": "second", "wanted_from": None, "open": 4, "done": 26}
    ]
    assert "anybody" in run(capsys, "readings", "list")
    assert told(capsys, "readings", "withdraw", "--kind", "second") == {"withdrawn": 4}
    (pair,) = told(capsys, "agreement", "--second-only")["pairs"]
    assert (pair["first"], pair["second"], pair["n"]) == ("Ada", "Ben", 26)
    assert pair["agreement"]["value"] == pytest.approx(23 / 26)
    assert "Ada, Ben" in run(capsys, "agreement")
    own = told(capsys, "readings", "ask", "--kind", "self", "--by", "Ada", "--number", "3")
    assert own == {"asked": 3}


@pytest.mark.usefixtures("ids")
def test_a_foolish_wish_is_refused_in_words(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["readings", "ask", "--project", "Kidney", "--kind", "third", "--share", "1"]) == 1
    assert "second or self" in capsys.readouterr().err


@pytest.mark.usefixtures("ids")
def test_progress_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    found = told(capsys, "progress", "--annotator", "Ada")
    assert (found["images"], found["labelled"], found["readings_left"]) == (30, 30, 0)
    assert found["per_class"] == {"cortex": 15, "medulla": 15}
    assert found["labels_for_one_point"] is None
    assert "30 of 30 images labelled" in run(capsys, "progress")
