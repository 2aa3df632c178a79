"""The only wiring: settings to an open store, for the app, the worker, commands and tests."""

from __future__ import annotations

from dataclasses import dataclass

from cnsapp.services.settling import settle_all
from cnsapp.settings import Settings, read_settings
from db.session import Store, open_store


@dataclass(frozen=True)
class App:
    """An opened installation: what every entry point hands to the services."""

    settings: Settings
    store: Store


def open_app(settings: Settings | None = None) -> App:
    """Open (and create or upgrade) the data folder and its database.

    Raises
    ------
    StoreError
        The settings, the folder or the database cannot be used; the sentence says what to do.
    """
    settings = settings or read_settings()
    store = open_store(settings.database, settings.root)
    settle_all(store)  # a change of classes that a killed process left half done
    return App(settings=settings, store=store)
