"""Alembic's entry: run the migrations on the connection that `db.migrate` hands over."""

from __future__ import annotations

from alembic import context

from db.models import Base
from db.session import make_engine

config = context.config


def run() -> None:
    """Migrate on the given connection, or on one of our own (`alembic` on the command line)."""
    connection = config.attributes.get("connection")
    if connection is not None:
        _run_on(connection)
        return
    with make_engine(config.get_main_option("sqlalchemy.url") or "").connect() as own, own.begin():
        _run_on(own)


def _run_on(connection: object) -> None:
    context.configure(
        connection=connection,  # type: ignore[arg-type]
        target_metadata=Base.metadata,
        render_as_batch=True,
        compare_type=True,
    )
    with context.begin_transaction():
        context.run_migrations()


run()
