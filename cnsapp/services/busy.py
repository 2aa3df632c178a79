"""What to say when the database does not take something in time that will be sent again."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy.exc import OperationalError

from cnsapp.errors import StoreError


@contextmanager
def in_time(waiting: str) -> Iterator[None]:
    """Turn a database that is busy or out of reach into StoreError; `waiting`: what is kept."""
    try:
        yield
    except OperationalError as error:
        raise StoreError(
            "The database is busy or out of reach.",
            f"{waiting} wait in the browser.",
            "They are sent again by themselves.",
        ) from error
