"""Read files in processes of their own, so that a bad file takes nothing down but itself.

A damaged or hostile file can crash a native decoder, hang it, or make it fill the memory. So files
are decoded by a few child processes (`reading_process`), each one file at a time. One that crashes,
takes too long or too much memory is ended; its file is refused in words, a fresh process takes its
place, and nobody else notices. `isolated` holds the pool that a whole process shares.
"""

from __future__ import annotations

import logging
import math
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

import cnsapp
from cnsapp.errors import StoreError, UnreadableImageError
from cnsapp.imaging.limits import Limits
from cnsapp.imaging.reader import DEFAULT_LIMITS, DEFAULT_RULE
from cnsapp.imaging.reading_process import TOO_MUCH, Answer, memory_bound, too_much_memory
from cnsapp.imaging.rule import ReadingRule
from cnsapp.imaging.wire import WireClosedError, error_from_json, receive, send

if sys.platform == "linux":
    import fcntl

log = logging.getLogger(__name__)

START_SECONDS = 60.0
WATCH_SECONDS = 0.25  # between two looks whether somebody's time is over
ALARM = -getattr(signal, "SIGALRM", 0) or None  # exit code of a process that saw its own end
PIPE_BYTES = 1 << 20  # Linux: fewer changes between the two processes for a large picture
SLOW_BYTES = 100_000_000  # a file of so many bytes gets the time of two
COMPLAINTS = 2000  # characters of what a crashed process printed that the log keeps
# one file at a time: one heap, no threads for linear algebra. Arrays of a usual tile are taken from
# what the last one left (new pages cost a tenth of reading it), those of a scan are given back.
LIGHT = {
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_THRESHOLD_": "20000000",
    "MALLOC_TRIM_THRESHOLD_": "64000000",
}


class Readers:
    """A few reading processes, started when they are needed and shared by all threads.

    Parameters
    ----------
    n
        Largest number of processes; None: as many as there are cores, 2 to 4.
    """

    def __init__(self, n: int | None = None) -> None:
        self._free = threading.BoundedSemaphore(n or max(2, min(4, os.cpu_count() or 1)))
        self._lock = threading.Lock()
        self._living: list[_Reader] = []
        self._idle: list[_Reader] = []

    def call(
        self,
        operation: str,
        path: Path,
        *,
        rule: ReadingRule = DEFAULT_RULE,
        limits: Limits = DEFAULT_LIMITS,
        **arguments: Any,
    ) -> Answer:
        """Run one of `reading_process.OPERATIONS` on a file and return its answer.

        Parameters
        ----------
        operation
            Its name there.
        arguments
            What it takes beside path, rule and limits: plain data and absolute paths.

        Raises
        ------
        UnreadableImageError
            The file cannot be read, or reading it crashed, took too long or too much memory.
        CnsError, OSError
            What else the operation raised.
        StoreError
            No process can be started.
        """
        request = {
            "operation": operation,
            "path": Path(os.path.abspath(path)),
            "rule": rule.as_json(),
            "limits": asdict(limits),
            "arguments": arguments,
            "seconds": _seconds(path, limits),
        }
        with self._free:
            answer = self._ask(request)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def close(self) -> None:
        """End the processes that wait; those at work end with this process at the latest."""
        with self._lock:
            idle, self._idle = self._idle, []
        for reader in idle:
            self._end(reader)

    def process_ids(self) -> list[int]:
        """Return the processes that there are, at work or waiting."""
        with self._lock:
            return [reader.process.pid for reader in self._living]

    def _ask(self, request: dict[str, Any]) -> Answer | Exception:
        try:
            return self._ask_one(self._find_idle() or self._start(), request)
        except _EndedError as ended:
            if ended.is_sure:
                return ended.refusal
        try:  # an earlier file may have done the harm, or the process had just ended by itself
            return self._ask_one(self._start(), request)
        except _EndedError as ended:
            return ended.refusal

    def _ask_one(self, reader: _Reader, request: dict[str, Any]) -> Answer | Exception:
        try:
            return reader.ask(request)
        finally:
            if reader.is_usable():
                with self._lock:
                    self._idle.append(reader)
            else:
                self._end(reader)

    def _find_idle(self) -> _Reader | None:
        while True:
            with self._lock:
                if not self._idle:
                    return None
                reader = self._idle.pop()  # the last one in, so that the others may end
            if reader.is_usable():
                return reader
            self._end(reader)

    def _start(self) -> _Reader:
        reader = _Reader()
        with self._lock:
            self._living.append(reader)
            if len(self._living) == 1:
                threading.Thread(target=self._watch, name="reading-times", daemon=True).start()
        try:
            reader.wait_ready()
        except BaseException:
            self._end(reader)
            raise
        return reader

    def _end(self, reader: _Reader) -> None:
        with self._lock:
            self._living.remove(reader)
        reader.end()

    def _watch(self) -> None:
        """End the processes whose time is over, as long as there are any."""
        while True:
            time.sleep(WATCH_SECONDS)
            with self._lock:
                living = list(self._living)
                if not living:
                    return
            for reader in living:
                reader.stop_if_late(time.monotonic())


class _EndedError(Exception):
    """A reading process ended without an answer."""

    def __init__(self, refusal: UnreadableImageError, is_sure: bool) -> None:
        self.refusal = refusal
        self.is_sure = is_sure  # that this file was the reason
        super().__init__(str(refusal))


class _Reader:
    """One reading process, used by one thread at a time."""

    def __init__(self) -> None:
        self.served = 0
        self._worn = False
        self._late = False
        self._deadline = math.inf
        self._complaints = tempfile.TemporaryFile()  # noqa: SIM115 - closed by end()
        try:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "cnsapp.imaging.reading_process"],
                cwd=Path(cnsapp.__file__).resolve().parents[1],
                env=dict(os.environ) | LIGHT,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._complaints,
                bufsize=0,
                start_new_session=sys.platform != "win32",  # Ctrl-C is for the app
                creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0),
            )
        except OSError as error:
            self._complaints.close()
            raise _cannot_start(str(error)) from error
        self._requests, self._answers = (
            cast(Any, self.process.stdin),
            cast(Any, self.process.stdout),
        )
        _widen(self._answers)

    def wait_ready(self) -> None:
        """Return when it can be asked; raise StoreError when it cannot start."""
        self._deadline = time.monotonic() + START_SECONDS
        try:
            receive(self._answers)
        except WireClosedError as error:
            self._worn = True
            raise _cannot_start(self.end().strip().rpartition("\n")[2]) from error
        finally:
            self._deadline = math.inf

    def is_usable(self) -> bool:
        """Return whether it can be asked once more."""
        return not self._worn and not self._late and self.process.poll() is None

    def ask(self, request: dict[str, Any]) -> Answer | Exception:
        """Return the answer, or the error that came of it; raise _EndedError without one."""
        seconds = float(request["seconds"])
        self._deadline = time.monotonic() + seconds
        try:
            send(self._requests, request)
            message, array = receive(self._answers)
        except WireClosedError as error:
            raise self._ended(request, seconds) from error
        except BaseException:  # interrupted: what is still in the pipe belongs to nobody
            self._worn = True
            raise
        finally:
            self._deadline = math.inf
        self.served += 1
        self._worn = bool(message["worn"])
        if message["error"]:
            return error_from_json(message["error"])
        return Answer(message["facts"], array)

    def end(self) -> str:
        """End the process, if it is there; return the last of what it printed."""
        self.process.kill()
        self.process.wait()
        if self._complaints.closed:
            return ""
        for stream in (self._requests, self._answers):
            stream.close()
        with self._complaints as kept:
            kept.seek(max(0, kept.seek(0, os.SEEK_END) - COMPLAINTS))
            return kept.read().decode(errors="replace")

    def stop_if_late(self, now: float) -> None:
        """End the process when its time is over, so that the thread that waits for it goes on."""
        if now > self._deadline:
            self._late = True
            self.process.kill()

    def _ended(self, request: dict[str, Any], seconds: float) -> _EndedError:
        self._worn = True
        try:
            code = self.process.wait(5)
        except subprocess.TimeoutExpired:  # it closed its pipes, or sent nonsense
            self.process.kill()
            code = self.process.wait()
        log.info("a reading process ended with code %s at %s", code, request["path"])
        if code == TOO_MUCH:
            bound = memory_bound(Limits(**request["limits"]))
            return _EndedError(too_much_memory(bound), is_sure=True)
        if self._late or code == ALARM:
            return _EndedError(_too_slow(seconds), is_sure=True)
        return _EndedError(_crashed(code), is_sure=self.served == 0)


def _widen(pipe: Any) -> None:
    if sys.platform == "linux":
        try:
            fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        except OSError:  # this user's pipes hold much already: it stays as it is
            pass


def _seconds(path: Path, limits: Limits) -> float:
    try:
        return limits.read_seconds * (1 + path.stat().st_size / SLOW_BYTES)
    except OSError:  # the operation will say why
        return limits.read_seconds


def _too_slow(seconds: float) -> UnreadableImageError:
    return UnreadableImageError(
        f"Decoding the file took longer than {seconds:,.0f} s and was stopped.",
        "Damaged and hostile files can keep a decoder busy without end.",
        "Raise CNS_READ_SECONDS if it is an honest large image.",
    )


def _crashed(code: int) -> UnreadableImageError:
    if hasattr(signal, "SIGKILL") and code == -signal.SIGKILL:
        return UnreadableImageError(
            "The system stopped the decoding of the file, most likely for want of memory.",
            "",
            "Close other programs, or cut the image into tiles.",
        )
    return UnreadableImageError(
        "The decoder crashed on the file.",
        "It is damaged, or made to do harm.",
        "Copy it again from where it came from, or save it as PNG or plain TIFF.",
    )


def _cannot_start(said: str) -> StoreError:
    return StoreError(
        f"The process that decodes images cannot be started ({said or 'it said nothing'}).",
        "No image can be read without it.",
        "Restart the computer if it is short of memory; otherwise install the app again.",
    )
