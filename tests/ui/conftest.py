"""The whole app in Streamlit's own test runner, on a data folder of its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from streamlit.runtime.pages_manager import PagesManager
from streamlit.testing.v1 import AppTest

from cnsapp.bootstrap import App
from cnsapp.ui import start
from tests.integration.worlds import World, add_model, make_world

ROOT = Path(__file__).resolve().parents[2]


class Screen:
    """The app in a window: goes to pages, and says what is on them."""

    def __init__(self) -> None:
        self.test: AppTest = AppTest.from_file(str(ROOT / "app.py"), default_timeout=30)

    def open(self, page: str, **params: object) -> Screen:
        """Go to a page by its file's name, with an address."""
        self.test.run()
        for name, value in params.items():
            self.test.query_params[name] = str(value)
        if page != "home":
            self.test.switch_page(f"pages/{page}.py")
        self.test.run()
        return self

    @property
    def words(self) -> str:
        """All that can be read on the page."""
        kinds = ("title", "subheader", "markdown", "caption", "info", "warning", "success", "error")
        parts = [str(element.value) for kind in kinds for element in getattr(self.test, kind)]
        parts += [element.proto.body for element in self.test.get("html")]
        return "\n".join(parts).replace("\\", "")

    @property
    def errors(self) -> list[str]:
        """The red boxes, and whatever got past the guard."""
        return [e.value for e in self.test.error] + [str(e.value) for e in self.test.exception]

    def press(self, key: str) -> Screen:
        """Press the button of that key."""
        self.test.button(key=key).click().run()
        return self

    def has(self, key: str) -> bool:
        """Return whether there is a button of that key."""
        return any(button.key == key for button in self.test.button)

    @property
    def primary(self) -> list[str]:
        """The labels of the primary buttons: one a screen."""
        return [b.label for b in self.test.button if b.proto.type == "primary"]


@pytest.fixture(autouse=True)
def run_app_py_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the test runner go through app.py for every page, as the server does (see `start`)."""
    original = PagesManager.__init__

    def framed(self: PagesManager, *args: Any, **kwargs: Any) -> None:
        original(self, *args, **kwargs)
        PagesManager.uses_pages_directory = False

    monkeypatch.setattr(PagesManager, "__init__", framed)


@pytest.fixture
def app(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[App]:
    """Return the installation that the screen shows, without a worker."""
    monkeypatch.setenv("CNS_HOME", str(home))
    monkeypatch.setenv("CNS_START_WORKER", "false")
    monkeypatch.setenv("CNS_IMPORT_ROOTS", f'["{home.parent.as_posix()}"]')
    opened = start.opened()
    yield opened
    opened.store.engine.dispose()


@pytest.fixture
def screen(app: App) -> Screen:  # noqa: ARG001 - it sets the data folder
    """Return a window on the installation."""
    return Screen()


@pytest.fixture
def world(app: App) -> World:
    """Return a project with two labelled classes and some unlabelled images."""
    return make_world(app, {"liver": 12, "colon": 12}, unlabelled=4, n_groups=3)


@pytest.fixture
def model_id(world: World) -> int:
    """Return a model of that project that is wrong twice."""
    liver, colon = world.class_ids
    said: list[Any] = []
    for k, image_id in enumerate(world.image_ids[0]):
        said.append((image_id, liver, colon if k == 0 else liver, 0.9 - 0.01 * k))
    for k, image_id in enumerate(world.image_ids[1]):
        said.append((image_id, colon, liver if k == 0 else colon, 0.8 - 0.01 * k))
    return add_model(world, said)
