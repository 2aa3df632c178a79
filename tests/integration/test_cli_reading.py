"""The command `reading`: shows, sets, waits, and refuses in words."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from cnsapp.bootstrap import App
from cnsapp.cli import main
from cnsapp.services import projects, reading
from cnsapp.services.importing import import_folder
from tests.integration import deep


class Command:
    """Runs `reading` in this process on a data folder of its own."""

    def __init__(self, app: App, project: int, capsys: pytest.CaptureFixture[str]) -> None:
        self.app, self.project, self._capsys = app, project, capsys

    def __call__(self, *options: str) -> tuple[int, str, str]:
        """Return the exit status, what it printed, and what it said on stderr."""
        self._capsys.readouterr()
        status = main(["reading", "--project", "Kidney", *options])
        printed = self._capsys.readouterr()
        return status, printed.out, printed.err

    def json(self, *options: str) -> Any:
        """Return what it printed as JSON."""
        status, printed, said = self(*options, "--json")
        assert status == 0, said
        return json.loads(printed)


@pytest.fixture
def command(
    app: App,
    home: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Command:
    """Return the command on a project of deep and stacked files."""
    monkeypatch.setenv("CNS_HOME", str(home))
    for k in range(3):
        deep.deep(tmp_path / "source" / f"deep{k}.tif", 100 * (k + 1))
    deep.stack(tmp_path / "source" / "stack.tif", (10, 200))
    project = projects.create_project(app.store, name="Kidney").id
    import_folder(app, project_id=project, path=tmp_path / "source")
    return Command(app, project, capsys)


def test_it_shows_what_is_set_and_what_files_there_are(command: Command) -> None:
    shown = command.json()
    assert shown["reading"]["windows"] == {"uint16": [0, 4095]}
    assert shown["files"] == {"images": 4, "deep": 3, "pages": 1, "channels": 0, "transparent": 0}
    _, said, _ = command()
    assert "uint16 samples: from 0 to 4,095" in said
    assert "1 stacks: their first page" in said


def test_it_sets_and_waits_until_the_images_are_read_again(command: Command) -> None:
    done = command.json(
        "--window", "uint16=percentile", "--page", "2", "--background", "#00ff00",
        "--windows-from", "percentile", "--channel", "2=#ff0000:1:5", "--channel", "1=#0000FF",
        "--wait",
    )  # fmt: skip
    assert done["reading"] == {
        "windows": {"uint16": [100, 4000]},
        "page": "2",
        "background": "#00FF00",
        "windows_from": "percentile",
        "channels": [
            {"index": 0, "color": "#0000FF", "low": None, "high": None},
            {"index": 1, "color": "#FF0000", "low": 1, "high": 5},
        ],
    }
    assert (done["images"], done["state"], done["read"], done["failed"]) == (4, "done", 4, [])
    again = command.json("--channel", "none")
    assert again["reading"]["channels"] == []
    assert (again["images"], again["job_id"]) == (0, None)


def test_what_cannot_be_used_is_refused_in_words_and_changes_nothing(command: Command) -> None:
    before = reading.get_reading(command.app.store, project_id=command.project).rule
    for option, value, words in (
        ("--window", "uint16=5:5", "has no extent"),
        ("--window", "uint17=0:1", "no kind of samples “uint17”"),
        ("--window", "uint16=a:b", "“a” in “uint16=a:b” is no number"),
        ("--window", "uint16=0", "“” in “uint16=0” is no number"),
        ("--window", "float=range", "has such samples"),
        ("--page", "last", "There is no page “last”"),
        ("--channel", "0=#FF0000", "names no channel"),
        ("--channel", "1=red", "names no channel"),
        ("--background", "green", "is no colour"),
        ("--windows-from", "median", "no way “median”"),
    ):
        status, _, said = command(option, value)
        assert status == 1
        assert words in said
        assert reading.get_reading(command.app.store, project_id=command.project).rule == before
