"""Splits as commands: made, shown, switched, pinned; and what is wrong said in words."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from cnsapp.bootstrap import App
from cnsapp.cli import main
from cnsapp.cli_splits import read_shares
from cnsapp.errors import InvalidInputError
from tests.integration.worlds import make_world


class Commands:
    """Runs commands in this process, on the data folder of the test."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def json(self, *arguments: str) -> Any:
        assert main(["split", *arguments, "--project", "p", "--json"]) == 0
        return json.loads(self._capsys.readouterr().out)

    def failing(self, *arguments: str) -> str:
        assert main(["split", *arguments, "--project", "p"]) == 1
        return self._capsys.readouterr().err


@pytest.fixture
def split(
    app: App, home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Commands:
    """Return the commands on a project with two classes from six patients."""
    monkeypatch.setenv("CNS_HOME", str(home))
    make_world(app, {"liver": 15, "lung": 15}, unlabelled=6, n_groups=6, name="p", side=8)
    return Commands(capsys)


def test_a_split_goes_from_nothing_to_pinned_and_off(split: Commands) -> None:
    assert split.json("list") == []
    assert "No split of this project is active." in split.failing("show")
    made = split.json(
        "create", "--shares", "50/25/25", "--seed", "2", "--annotator", "Maria", "--name", "first"
    )
    assert (made["name"], made["scheme"], made["active"]) == ("first", "by group", True)
    assert made["created_by"] == "Maria" and sum(made["n"].values()) == 36
    assert [row["class"] for row in made["classes"]] == ["liver", "lung", "No label"]
    assert made["classes"][0]["n_groups"]["train"] == 3
    assert any("Small in the test set" in line for line in made["warnings"])
    assert made["uses"] == [] and made["n_uses"] == 0
    second = split.json("create", "--shares", "80/20")
    assert second["n"]["validation"] == 0
    assert split.json("activate", "1")["id"] == made["id"]
    assert [(s["id"], s["active"]) for s in split.json("list")] == [(2, False), (1, True)]
    pinned = split.json("pin", "--group", "patient 3")
    assert pinned == {"split": 1, "n_pinned": 6, "n_moved": 0}
    assert split.json("show")["n_pinned"] == 6
    assert split.json("unpin", "--group", "PATIENT 3") == {"split": 1, "n_unpinned": 6}
    assert split.json("off") == {"active": None}
    assert split.json("show", "2")["name"] == second["name"]


def test_what_is_wrong_is_said_in_words(split: Commands) -> None:
    assert "add up to 1.1, not to 1" in split.failing("create", "--shares", "60/30/20")
    assert "no column “batch”" in split.failing(
        "create", "--scheme", "by column", "--column", "batch"
    )
    split.json("create")
    assert "no group of this project" in split.failing("pin", "--group", "nobody")
    assert "no image of this project" in split.failing("pin", "nothing.png")
    assert "no split number 9" in split.failing("activate", "9")


@pytest.mark.parametrize("text", ["", "60", "a/b/c", "60/20/10/10"])
def test_shares_that_cannot_be_read_are_said(text: str) -> None:
    with pytest.raises(InvalidInputError, match="cannot be read"):
        read_shares(text)


def test_shares_are_read_as_percent() -> None:
    assert read_shares("60 / 20 / 20 %") == {"train": 0.6, "validation": 0.2, "test": 0.2}
    assert read_shares("80/20") == {"train": 0.8, "test": 0.2}
