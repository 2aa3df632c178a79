"""The commands of classes from outside."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.integration.test_cli import Commands


@pytest.fixture
def cns(home: Path) -> Commands:
    commands = Commands(home)
    commands.json("project", "create", "p", "--classes", "colon,liver")
    return commands


def test_classes_are_added_changed_merged_and_undone(cns: Commands, tmp_path: Path) -> None:
    p = ("--project", "p", "--annotator", "ann")
    refused = cns.run("classes", "add", "lung", *p, "--key", "u")
    assert refused.returncode == 1 and "reserved" in refused.stderr
    added = cns.json("classes", "add", "lung", *p, "--parent", "respiratory", "--key", "d1")
    assert (added["kind"], added["who"], added["counts"]) == ("added", "ann", True)
    both = cns.json("classes", "set", "lung", *p, "--color", "#123456", "--position", "1")
    assert [one["kind"] for one in both] == ["changed", "ordered"]
    assert names(cns) == ["lung", "colon", "liver"]
    refused = cns.run("classes", "rename", "colon", "LIVER", *p)
    assert refused.returncode == 1 and "same class name" in refused.stderr
    assert cns.json("classes", "rename", "colon", "LIVER", *p, "--merge")["kind"] == "merged"
    assert names(cns) == ["lung", "liver"]
    undone = cns.json("classes", "undo", *p)
    assert (undone["kind"], undone["counts"]) == ("merged", False)
    assert cns.json("classes", "redo", *p)["counts"] is True
    assert cns.json("classes", "delete", "lung", *p)["n_images"] == 0
    history = cns.json("classes", "history", "--project", "p")
    assert [one["kind"] for one in history][:2] == ["deleted", "merged"]
    out = tmp_path / "classes.json"
    assert cns.json("classes", "export", "--project", "p", "--out", out)["n"] == 1
    assert json.loads(out.read_text("utf-8"))["classes"][0]["name"] == "liver"
    plan = cns.json("classes", "import", "organ-systems", *p, "--dry-run")
    assert len(plan["added"]) == 11 and names(cns) == ["liver"]
    cns.json("classes", "import", "organ-systems", *p)
    assert len(names(cns)) == 12


def names(cns: Commands) -> list[str]:
    return [row["name"] for row in cns.json("classes", "list", "--project", "p")]
