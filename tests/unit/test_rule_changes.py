"""What a change of the reading rule touches, and how it reads: tables worked out by hand."""

from __future__ import annotations

from typing import Any

import pytest

from cnsapp.imaging.rule import Channel, ReadingRule
from cnsapp.imaging.rule_changes import FileKind, differences

PLAIN = {"samples": "uint8", "pages": 1, "channels": 1, "alpha": False, "format": "PNG"}
BLUE = Channel(0, "#0000FF", 0, 100)
GREEN = Channel(1, "#00FF00")
DEFAULT = ReadingRule()
WINDOWED = DEFAULT.with_window("uint16", 0, 4095)


def facts(**more: Any) -> dict[str, Any]:
    return PLAIN | more


CHANGES = [
    # files, new rule, whether it touches them
    (facts(), WINDOWED, False),
    (facts(), ReadingRule(page="max", background="#000000", channels=(BLUE,)), False),
    (facts(samples="uint16"), WINDOWED, True),
    (facts(samples="float"), WINDOWED, False),
    (facts(pages=3), ReadingRule(page="max"), True),
    (facts(pages=3), ReadingRule(background="#000000"), False),
    (facts(channels=2), ReadingRule(channels=(BLUE, GREEN)), True),
    (facts(channels=2), ReadingRule(page="2"), False),
    (facts(alpha=True), ReadingRule(background="#000000"), True),
    (facts(alpha=True), ReadingRule(windows_from="percentile"), False),
]


@pytest.mark.parametrize(("file", "rule", "touched"), CHANGES)
def test_a_rule_touches_the_files_that_have_what_it_speaks_of(
    file: dict[str, Any], rule: ReadingRule, touched: bool
) -> None:
    kind = FileKind(file, DEFAULT.seen(file))
    assert kind.is_touched(rule) is touched
    assert kind.differs(DEFAULT, rule) is touched
    assert not FileKind(file, rule.seen(file)).is_touched(rule)


OLDER = [
    # what an older version noted, and whether it is read again by the default rule
    ({"format": "TIFF", "bits": 16, "pages": 1}, True),
    ({"format": "PNG", "bits": 16, "pages": 1}, True),
    ({"format": "TIFF", "bits": 8, "pages": 4}, True),
    ({"format": "TIFF", "bits": 8, "pages": 1}, False),
    ({"format": "JPEG", "bits": 8, "pages": 1}, False),
    ({}, False),
]


@pytest.mark.parametrize(("file", "touched"), OLDER)
def test_files_of_an_older_version_are_read_again_when_they_may_differ(
    file: dict[str, Any], touched: bool
) -> None:
    assert FileKind(file).is_touched(DEFAULT) is touched


def test_a_background_touches_older_files_that_may_be_transparent() -> None:
    black = ReadingRule(background="#000000")
    assert FileKind({"format": "PNG", "bits": 8}).is_touched(black)
    assert not FileKind({"format": "JPEG", "bits": 8}).is_touched(black)


SENTENCES = [
    (WINDOWED, DEFAULT, ["16-bit samples without a fixed window instead of from 0 to 4,095"]),
    (DEFAULT, DEFAULT.with_window("float", 0, 0.5),
     ["floating-point samples from 0 to 0.5 instead of without a fixed window"]),
    (DEFAULT, ReadingRule(page="max"),
     ["stacks as their maximum projection instead of their first page"]),
    (ReadingRule(page="3"), DEFAULT, ["stacks as their first page instead of their page 3"]),
    (DEFAULT, ReadingRule(channels=(BLUE, GREEN)),
     ["channels 1 blue (0 to 100), 2 green instead of the first channel in gray"]),
    (ReadingRule(channels=(BLUE,)), ReadingRule(channels=(GREEN,)),
     ["channels 2 green instead of channels 1 blue"]),
    (ReadingRule(channels=(BLUE,)), ReadingRule(channels=(Channel(0, "#0000FF", 0, 900),)),
     ["channels 1 blue (0 to 900) instead of channels 1 blue (0 to 100)"]),
    (DEFAULT, ReadingRule(background="#123456"),
     ["#123456 behind transparency instead of white"]),
    (DEFAULT, ReadingRule(windows_from="fixed"), []),
]  # fmt: skip


@pytest.mark.parametrize(("old", "new", "sentences"), SENTENCES)
def test_differences_are_said_in_words(
    old: ReadingRule, new: ReadingRule, sentences: list[str]
) -> None:
    assert differences(old, new) == sentences


def test_only_differences_that_the_files_show_are_said() -> None:
    new = ReadingRule(page="max", background="#000000").with_window("uint16", 0, 100)
    files = [FileKind(facts()), FileKind(facts(alpha=True))]
    assert differences(DEFAULT, new, files) == ["black behind transparency instead of white"]
    assert differences(DEFAULT, new, [FileKind(facts())]) == []
    older = [FileKind({"format": "TIFF", "bits": 16})]
    assert "16-bit samples from 0 to 100" in differences(DEFAULT, new, older)[0]
