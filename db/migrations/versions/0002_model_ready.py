"""A model is seen once its predictions are complete.

Revision ID: 0002
Revises: 0001
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add `model.ready`; the models that are there are."""
    op.add_column(
        "model", sa.Column("ready", sa.Boolean(), server_default=sa.true(), nullable=False)
    )


def downgrade() -> None:
    """Go back to the schema before."""
    op.drop_column("model", "ready")
