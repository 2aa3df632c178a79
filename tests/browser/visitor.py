"""Somebody at the screen, for tests that go through the app from page to page."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import Any

from sqlalchemy import text

from tests.browser.conftest import ROOT, LiveApp

PICTURES = ROOT / "test-results" / "pictures"
PATIENCE = 5.0  # times that a test waits longer than an idle machine needs


class Visitor:
    """Somebody at the screen: goes to pages, presses keys, looks at what is there."""

    def __init__(self, live: LiveApp, page: Any) -> None:
        self.live, self.page = live, page
        self.elsewhere: list[str] = []
        page.on("request", self._note)

    def _note(self, request: Any) -> None:
        if not request.url.startswith((self.live.url, "data:", "blob:", "ws://127.0.0.1")):
            self.elsewhere.append(request.url)

    def go(self, name: str) -> None:
        """Follow a link of the sidebar."""
        self.page.get_by_role("link", name=name, exact=True).first.click()
        self.page.get_by_role("heading", name=name, exact=True).first.wait_for()

    def widget(self, key: str) -> Any:
        """Return the widget with this key."""
        return self.page.locator(f".st-key-{key}")

    def type_into(self, key: str, words: str) -> None:
        """Type into a text field and leave it."""
        field = self.widget(key).locator("input, textarea").first
        field.fill(words)
        field.press("Tab")

    def press_button(self, key: str) -> None:
        """Press a button as soon as it can be pressed."""
        self.page.locator(f".st-key-{key} button:not([disabled])").first.click()

    def choose(self, key: str, option: str) -> None:
        """Choose a radio or segment by its words."""
        self.widget(key).get_by_text(option, exact=True).first.click()

    def settled(self) -> None:
        """Wait until the page has run to its end."""
        self.page.locator('[data-test-script-state="notRunning"]').first.wait_for()

    def picture(self, name: str) -> None:
        """Keep a picture of the screen, once it has come to rest."""
        self.page.wait_for_load_state("networkidle")
        self.page.wait_for_timeout(500)
        PICTURES.mkdir(parents=True, exist_ok=True)
        self.page.screenshot(path=PICTURES / f"{name}.png")

    def count(self, query: str) -> int:
        """Ask the database."""
        with self.live.store.reading() as session:
            return int(session.execute(text(query)).scalar() or 0)

    def no_traceback(self) -> None:
        """Nothing on the screen may look like a program's error."""
        shown = self.page.locator("body").inner_text()
        assert not re.search(r"Traceback|Error:|Exception", shown), shown[-800:]


def wait_for(true: Callable[[], bool], seconds: float, what: str) -> None:
    """Wait for something to become true; `seconds` are those of an idle machine."""
    deadline = time.monotonic() + PATIENCE * seconds
    while not true():
        assert time.monotonic() < deadline, f"waited {seconds:.0f} s in vain: {what}"
        time.sleep(0.2)
