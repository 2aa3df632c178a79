"""Start a worker process beside the app and start it again when it dies."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import cnsapp
from cnsapp.jobs.deaths import KILLED, note_death, oom_kills
from cnsapp.jobs.lock import WorkerLock
from cnsapp.settings import Settings

log = logging.getLogger(__name__)

POLL_SECONDS = 0.2
FIRST_WAIT, USUAL_WAIT, LONG_WAIT = 0.3, 3.0, 20.0
MANY = 10  # failures in a row after which the wait becomes long
STEADY_SECONDS = 6.0  # a worker that lived so long may be restarted at once
STOP_SECONDS = 8.0
OUTPUT_BYTES = 2_000_000


def start_worker(settings: Settings, *arguments: str) -> subprocess.Popen[bytes]:
    """Start a worker process for these settings; raise OSError when that is impossible."""
    output = settings.root / "logs" / "worker-output.log"  # what native code prints when it dies
    output.parent.mkdir(parents=True, exist_ok=True)
    fresh = output.exists() and output.stat().st_size > OUTPUT_BYTES
    command = [sys.executable, "-m", "cnsapp.jobs.worker", "--parent", str(os.getpid())]
    with output.open("wb" if fresh else "ab") as stream:
        return subprocess.Popen(
            [*command, *arguments],
            cwd=Path(cnsapp.__file__).resolve().parents[1],
            env=worker_environment(settings),
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=stream,
            # Ctrl-C is for the app, which then stops its worker in order
            start_new_session=sys.platform != "win32",
            creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),
        )


def worker_environment(settings: Settings) -> dict[str, str]:
    """Return the environment that gives a process the same settings."""
    own = settings.model_copy(update={"home": settings.root}).model_dump(mode="json")
    return dict(os.environ) | {
        f"CNS_{name.upper()}": value if isinstance(value, str) else json.dumps(value)
        for name, value in own.items()
        if value is not None
    }


def stop_worker(process: subprocess.Popen[bytes]) -> None:
    """Ask a worker to put its jobs back and end; end it hard if it does not."""
    if process.poll() is not None:
        return
    if sys.platform == "win32":
        process.send_signal(signal.CTRL_BREAK_EVENT)
    else:
        process.terminate()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def note_end(settings: Settings, process: subprocess.Popen[bytes], kills_before: int) -> None:
    """Let the next worker say how this one ended, which only its parent can see."""
    code = process.poll()
    if code is not None:
        lock = WorkerLock(settings.root, settings.device).path
        short_of_memory = code in KILLED and oom_kills() > kills_before
        note_death(lock, process.pid, code, out_of_memory=short_of_memory)


def seconds_to_wait(failures: int) -> float:
    """Return the pause before the next start, after so many workers that did not live long."""
    longest = USUAL_WAIT if failures < MANY else LONG_WAIT
    return min(FIRST_WAIT * 2.0 ** min(failures, 20), longest)


class Supervisor:
    """Keeps one worker alive. Nothing that goes wrong here reaches the web process."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="supervisor", daemon=True)

    def start(self) -> None:
        """Begin; return at once."""
        self._thread.start()

    def stop(self) -> None:
        """Stop the worker that we started; its jobs go on when the app is started again."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(STOP_SECONDS + 4)

    def _run(self) -> None:
        failures = 0
        lock = WorkerLock(self._settings.root, self._settings.device)
        while not self._stopping.is_set():
            try:
                if lock.is_held_by_another():  # left over from an app that died: let it work
                    self._stopping.wait(1.0)
                    continue
                began, kills = time.monotonic(), oom_kills()
                process = start_worker(self._settings)
                code = self._watch(process)
                note_end(self._settings, process, kills)
                if time.monotonic() - began > STEADY_SECONDS:
                    failures = 0
                if not self._stopping.is_set():
                    log.warning("the worker ended with code %s; it is started again", code)
            except Exception:
                log.exception("the worker could not be started")
            self._stopping.wait(seconds_to_wait(failures))
            failures += 1

    def _watch(self, process: subprocess.Popen[bytes]) -> int:
        while process.poll() is None:
            if self._stopping.wait(POLL_SECONDS):
                stop_worker(process)
        return process.returncode
