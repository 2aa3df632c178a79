"""What is kept by key: made once, the longest unused goes, one slow answer holds up no other."""

from __future__ import annotations

import threading

from cnsapp.services.kept import Kept


def test_an_answer_is_made_once_and_the_longest_unused_goes() -> None:
    made: list[str] = []
    kept: Kept[str] = Kept(2)

    def ask(key: str) -> str:
        return kept.get(key, lambda: made.append(key) or key.upper())  # type: ignore[func-returns-value]

    assert [ask("a"), ask("b"), ask("a")] == ["A", "B", "A"]
    ask("c")  # b was not used for longest
    assert [kept.look(key) for key in "abc"] == ["A", None, "C"]
    ask("b")
    assert made == ["a", "b", "c", "b"]
    kept.clear()
    assert kept.look("c") is None


def test_others_are_answered_while_one_is_being_made() -> None:
    kept: Kept[int] = Kept(4)
    begun, go_on = threading.Event(), threading.Event()

    def slow() -> int:
        begun.set()
        go_on.wait(60)
        return 1

    thread = threading.Thread(target=lambda: kept.get("slow", slow))
    thread.start()
    assert begun.wait(60)
    assert kept.get("quick", lambda: 2) == 2  # would hang if the lock were held
    go_on.set()
    thread.join(60)
    assert kept.look("slow") == 1
