"""Training one can publish: splits with a locked test set, paused jobs, models with a standing.

Revision ID: 0005
Revises: 0004
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

CELL = ["model_id", "label_class_id", "class_id", "probability"]


def upgrade() -> None:
    """Add the tables and columns; what is there stays as it is."""
    op.create_table(
        "data_split",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("project_id", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("scheme", sa.String(length=40), nullable=False),
        sa.Column("seed", sa.Integer(), nullable=False),
        sa.Column("settings", sa.JSON(), nullable=False),
        sa.Column("active", sa.Boolean(), server_default=sa.true(), nullable=False),
        sa.Column("created_by", sa.String(length=200), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["project_id"], ["project.id"], name=op.f("fk_data_split_project_id_project")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_data_split")),
    )
    op.create_index("ix_data_split_project", "data_split", ["project_id", "id"], unique=False)
    op.create_table(
        "split_member",
        sa.Column("split_id", sa.Integer(), nullable=False),
        sa.Column("image_id", sa.Integer(), nullable=False),
        sa.Column("part", sa.String(length=12), nullable=False),
        sa.Column("pinned", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.Column("added_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["split_id"], ["data_split.id"], name=op.f("fk_split_member_split_id_data_split")
        ),
        sa.ForeignKeyConstraint(
            ["image_id"], ["image.id"], name=op.f("fk_split_member_image_id_image")
        ),
        sa.PrimaryKeyConstraint("split_id", "image_id", name=op.f("pk_split_member")),
    )
    op.create_index(
        "ix_split_member_part", "split_member", ["split_id", "part", "image_id"], unique=False
    )
    op.create_index("ix_split_member_image", "split_member", ["image_id"], unique=False)
    op.create_table(
        "split_use",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("split_id", sa.Integer(), nullable=False),
        sa.Column("model_id", sa.Integer(), nullable=True),
        sa.Column("job_id", sa.Integer(), nullable=True),
        sa.Column("who", sa.String(length=200), nullable=False),
        sa.Column("purpose", sa.String(length=200), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["split_id"], ["data_split.id"], name=op.f("fk_split_use_split_id_data_split")
        ),
        sa.ForeignKeyConstraint(
            ["model_id"], ["model.id"], name=op.f("fk_split_use_model_id_model")
        ),
        sa.ForeignKeyConstraint(["job_id"], ["job.id"], name=op.f("fk_split_use_job_id_job")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_split_use")),
    )
    op.create_index("ix_split_use_split", "split_use", ["split_id", "id"], unique=False)
    op.add_column(
        "job", sa.Column("paused", sa.Boolean(), server_default=sa.false(), nullable=False)
    )
    op.add_column("model", sa.Column("note", sa.Text(), server_default="", nullable=False))
    op.add_column(
        "model", sa.Column("archived", sa.Boolean(), server_default=sa.false(), nullable=False)
    )
    op.add_column("model", sa.Column("promoted_at", sa.DateTime(timezone=True), nullable=True))
    # plain SQL: Alembic would copy the table to add a foreign key on SQLite
    op.execute(
        "ALTER TABLE model ADD COLUMN split_id INTEGER "
        "CONSTRAINT fk_model_split_id_data_split REFERENCES data_split (id)"
    )
    op.add_column(
        "prediction",
        sa.Column("part", sa.String(length=12), server_default="fold", nullable=False),
    )
    op.drop_index("ix_prediction_cell", table_name="prediction")
    op.create_index("ix_prediction_cell", "prediction", [CELL[0], "part", *CELL[1:]], unique=False)


def downgrade() -> None:
    """Take them away again: splits, uses of test sets and the standing of models are lost."""
    op.drop_index("ix_prediction_cell", table_name="prediction")
    op.create_index("ix_prediction_cell", "prediction", CELL, unique=False)
    with op.batch_alter_table("prediction") as prediction:
        prediction.drop_column("part")
    with op.batch_alter_table("model") as model:
        for name in ("note", "archived", "promoted_at", "split_id"):
            model.drop_column(name)
    with op.batch_alter_table("job") as job:
        job.drop_column("paused")
    op.drop_table("split_use")
    op.drop_table("split_member")
    op.drop_table("data_split")
