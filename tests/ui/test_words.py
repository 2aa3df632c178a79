"""How numbers, times and next steps are written."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from cnsapp.ui import frame, words
from cnsapp.ui.next_step import Standing, next_step

NOW = datetime(2026, 5, 4, 12, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (5, "just now"),
        (130, "2 min ago"),
        (7300, "2 h ago"),
        (90_000, "yesterday"),
        (400_000, "5 days ago"),
    ],
)
def test_times_are_told_as_people_tell_them(seconds: int, said: str) -> None:
    assert words.ago(NOW - timedelta(seconds=seconds), NOW) == said


def test_a_figure_carries_its_interval_and_n() -> None:
    assert words.figure(0.934, [0.91, 0.95], 1200) == "0.93 (0.91–0.95), n = 1,200"
    assert words.figure(None, None, 3) == "–, n = 3"
    assert words.figure(float("nan")) == "–"


def test_sizes_and_spans() -> None:
    assert [words.size(n) for n in (12, 1500, 15_000, 2_500_000_000)] == [
        "12 B", "1.5 kB", "15 kB", "2.5 GB",
    ]  # fmt: skip
    assert [words.duration(s) for s in (0.2, 80, 200, 4800, None)] == [
        "1 s", "80 s", "3 min", "1 h 20 min", "–",
    ]  # fmt: skip


def test_a_name_with_markdown_in_it_is_shown_letter_by_letter() -> None:
    assert frame.plain("a*b_[c](d)$") == "a\\*b\\_\\[c\\](d)\\$"
    assert frame.plain("one ` only_") == "one \\` only\\_"


def test_a_command_in_a_sentence_is_shown_as_one() -> None:
    assert frame.plain("Type `cnsapp restore_it` in_time") == "Type `cnsapp restore_it` in\\_time"


def test_the_next_step_follows_the_loop() -> None:
    at = Standing(0, 0, 0, False, False, False, 0)
    assert next_step(at).step == "images"
    at = replace(at, n_images=9, n_unlabelled=9)
    assert next_step(at).step == "label"
    at = replace(at, n_labelled=9, can_train=True)
    assert next_step(at).step == "train"
    assert next_step(replace(at, trains_now=True)).button == "Watch the training"
    at = replace(at, has_model=True)
    assert next_step(at).step == "review"
    assert next_step(replace(at, n_changed=2)).button == "Train again"
