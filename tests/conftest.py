"""Small worlds for the tests: a data folder each, and the real images where there are any."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from cnsapp.bootstrap import App, open_app
from cnsapp.settings import Settings
from db.session import Store
from tests.places import data_folder

os.environ.setdefault("HF_HUB_OFFLINE", "1")
for name in [key for key in os.environ if key.startswith("CNS_") and key != "CNS_CHROMIUM"]:
    if not name.startswith("CNS_TEST_"):
        del os.environ[name]  # a developer's own installation must not leak into a test


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Return the place of an empty data folder."""
    return tmp_path / "home"


@pytest.fixture
def app(home: Path) -> Iterator[App]:
    """Return an opened, empty installation that starts no worker of its own."""
    opened = open_app(Settings(home=home, start_worker=False))
    yield opened
    opened.store.engine.dispose()


@pytest.fixture
def store(app: App) -> Store:
    """Return the store of an empty installation."""
    return app.store


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Return the folder of real images, or skip: the product never contains or needs them."""
    folder = data_folder()
    if not folder.is_dir():
        pytest.skip(f"no real images at {folder} (CNS_TEST_DATA names another place)")
    return folder
