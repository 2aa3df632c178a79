"""A real server, a real worker where asked for, and a real browser."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cnsapp.bootstrap import App, open_app
from cnsapp.settings import Settings
from db.session import Store
from tests.browser.ensure_chromium import HOW, find_chromium

ROOT = Path(__file__).resolve().parents[2]
CHROMIUM_FLAGS = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
)  # fmt: skip


def free_port() -> int:
    """Return a port that nobody listens on just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class LiveApp:
    """`streamlit run app.py` on a data folder of its own; can be killed and started again."""

    def __init__(self, home: Path, *, start_worker: bool) -> None:
        self.home, self.start_worker = home, start_worker
        self.app: App = open_app(Settings(home=home, start_worker=False))
        self.store: Store = self.app.store
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.process: subprocess.Popen[bytes] | None = None
        self.log = home / "server.log"
        self.start()

    def start(self) -> None:
        """Start the server and wait until it answers."""
        roots = [str(self.home.parents[1]), str(ROOT.parent)]
        environment = {
            **os.environ,
            "CNS_HOME": str(self.home),
            "CNS_START_WORKER": "true" if self.start_worker else "false",
            "CNS_IMPORT_ROOTS": json.dumps(roots),
            "PYTHONUNBUFFERED": "1",
        }
        command = [sys.executable, "-m", "streamlit", "run", "app.py"]
        command += ["--server.port", str(self.port), "--server.address", "127.0.0.1"]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                command, cwd=ROOT, env=environment, stdout=log, stderr=subprocess.STDOUT
            )
        self._wait()

    def _wait(self) -> None:
        assert self.process is not None
        deadline = time.monotonic() + 120  # only ends a wait in vain
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                with urllib.request.urlopen(f"{self.url}/_stcore/health", timeout=1):
                    return
            except OSError:
                time.sleep(0.1)
        raise AssertionError(f"the server did not start:\n{self.log.read_text()[-2000:]}")

    def kill(self) -> None:
        """Kill the server as a power cut would."""
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(10)

    def restart(self) -> None:
        """Start again on the same address."""
        self.start()

    def stop(self) -> None:
        """End the server and its worker."""
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(15)
            except subprocess.TimeoutExpired:
                self.process.kill()
        _kill_workers_of(self.home)
        self.store.engine.dispose()


def _kill_workers_of(home: Path) -> None:
    """End workers that outlived their server, so that no test leaves a process behind."""
    import psutil

    for process in psutil.process_iter(["cmdline", "environ"]):
        try:
            ours = (process.info["environ"] or {}).get("CNS_HOME") == str(home)
            if ours and "worker" in (process.info["cmdline"] or []):
                process.kill()
        except psutil.Error:
            continue


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Return headless Chromium, or skip with how to get one."""
    program = find_chromium()
    if program is None:
        pytest.skip(HOW)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=program, args=list(CHROMIUM_FLAGS))
        yield chromium
        chromium.close()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Any:
    """Let fixtures know that their test failed."""
    report = yield
    item.stash[FAILED] = item.stash.get(FAILED, False) or report.failed
    return report


FAILED = pytest.StashKey[bool]()


@pytest.fixture
def page(browser: Any, request: pytest.FixtureRequest) -> Iterator[Any]:
    """Return a fresh page at 1440 x 900; what it showed when its test failed is kept."""
    context = browser.new_context(viewport={"width": 1440, "height": 900}, accept_downloads=True)
    context.set_default_timeout(60_000)  # only ends a wait in vain
    shown = context.new_page()
    yield shown
    if request.node.stash.get(FAILED, False):
        place = ROOT / "test-results" / "failed"
        place.mkdir(parents=True, exist_ok=True)
        shown.screenshot(path=place / f"{request.node.name}.png")
    context.close()


@pytest.fixture
def live_app(tmp_path: Path) -> Iterator[LiveApp]:
    """Return a running app without a worker."""
    live = LiveApp(tmp_path / "home", start_worker=False)
    yield live
    live.stop()


@pytest.fixture
def live_app_with_worker(tmp_path: Path) -> Iterator[LiveApp]:
    """Return a running app whose worker runs too."""
    live = LiveApp(tmp_path / "home", start_worker=True)
    yield live
    live.stop()
