"""Which processes run."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import psutil
import pytest

from cnsapp.processes import process_alive


def test_this_process_runs_and_a_dead_one_does_not() -> None:
    assert process_alive(os.getpid())
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        assert process_alive(child.pid)
        child.kill()
        child.wait()
        assert not process_alive(child.pid)


@pytest.mark.skipif(os.name != "posix", reason="only POSIX keeps dead children")
def test_a_dead_child_that_nobody_waited_for_does_not_run() -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    deadline = time.monotonic() + 60
    while psutil.Process(child.pid).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert not process_alive(child.pid)
    child.wait()


def test_a_number_that_was_handed_out_again_is_another_process() -> None:
    began = psutil.Process().create_time()
    assert process_alive(os.getpid(), seen_at=time.time())
    assert not process_alive(os.getpid(), seen_at=began - 3600)


@pytest.mark.parametrize("pid", [0, -1, 2**31 - 1])
def test_numbers_of_no_process(pid: int) -> None:
    assert not process_alive(pid)
