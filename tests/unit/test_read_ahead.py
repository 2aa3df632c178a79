"""Files read a few ahead: in order, errors at their place, large ones in turn."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from cnsapp.tasks import reading
from cnsapp.tasks.reading import AHEAD, read_ahead


def test_what_was_read_comes_in_order_and_an_error_at_its_place() -> None:
    gate = threading.Event()

    def read(number: int) -> int:
        if number == 0:
            gate.wait(10)  # the first ends last
        if number == 1:
            gate.set()
        if number == 3:
            raise ValueError("three")
        return number * 10

    found = []
    for number, future in read_ahead(read, range(50), lambda _n: Path("none")):
        if number == 3:
            with pytest.raises(ValueError, match="three"):
                future.result()
        else:
            found.append(future.result())
    assert found == [n * 10 for n in range(50) if n != 3]


def test_no_more_than_a_few_are_read_before_they_are_asked_for() -> None:
    taken = []

    def items() -> object:
        for number in range(1000):
            taken.append(number)
            yield number

    stream = read_ahead(lambda n: n, items(), lambda _n: Path("none"))  # type: ignore[arg-type]
    next(stream)
    assert len(taken) == AHEAD + 1
    stream.close()  # type: ignore[attr-defined]


def test_large_files_are_read_one_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "LARGE", 10)
    files = []
    for number in range(12):
        files.append(tmp_path / str(number))
        files[-1].write_bytes(b"x" * 10)
    at_once, most, lock = 0, 0, threading.Lock()

    def read(_file: Path) -> None:
        nonlocal at_once, most
        with lock:
            at_once += 1
            most = max(most, at_once)
        threading.Event().wait(0.005)
        with lock:
            at_once -= 1

    for _, future in read_ahead(read, files, lambda file: file):
        future.result()
    assert most == 1
