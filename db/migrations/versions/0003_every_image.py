"""Whole slides, where files came from, metadata, quality, duplicates, watched folders.

Revision ID: 0003
Revises: 0002
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

NEW_COLUMNS = (
    "seen", "source_path", "source_mtime_ns", "slide_id", "tile_x", "tile_y", "tile_side",
    "current_annotator",
)  # fmt: skip


def upgrade() -> None:
    """Add the tables and columns; what is there stays as it is."""
    op.create_table(
        "slide",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("project_id", sa.Integer(), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("file_name", sa.Text(), nullable=False),
        sa.Column("stored_path", sa.Text(), nullable=False),
        sa.Column("n_bytes", sa.BigInteger(), nullable=False),
        sa.Column("width", sa.Integer(), nullable=False),
        sa.Column("height", sa.Integer(), nullable=False),
        sa.Column("um_per_px", sa.Double(), nullable=True),
        sa.Column("group_key", sa.String(length=400), nullable=True),
        sa.Column("n_tiles", sa.Integer(), nullable=False),
        sa.Column("facts", sa.JSON(), nullable=False),
        sa.Column("settings", sa.JSON(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["project_id"], ["project.id"], name=op.f("fk_slide_project_id_project")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_slide")),
        sa.UniqueConstraint("project_id", "sha256", name=op.f("uq_slide_project_id_sha256")),
    )
    op.create_table(
        "watched_folder",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("project_id", sa.Integer(), nullable=False),
        sa.Column("path", sa.Text(), nullable=False),
        sa.Column("settings", sa.JSON(), nullable=False),
        sa.Column("active", sa.Boolean(), nullable=False),
        sa.Column("state", sa.JSON(), nullable=False),
        sa.Column("created_by", sa.String(length=200), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("looked_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(
            ["project_id"], ["project.id"], name=op.f("fk_watched_folder_project_id_project")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_watched_folder")),
        sa.UniqueConstraint("project_id", "path", name=op.f("uq_watched_folder_project_id_path")),
    )
    op.create_table(
        "image_event",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("project_id", sa.Integer(), nullable=False),
        sa.Column("image_id", sa.Integer(), nullable=False),
        sa.Column("kind", sa.String(length=12), nullable=False),
        sa.Column("who", sa.String(length=200), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("details", sa.JSON(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["image_id"], ["image.id"], name=op.f("fk_image_event_image_id_image")
        ),
        sa.ForeignKeyConstraint(
            ["project_id"], ["project.id"], name=op.f("fk_image_event_project_id_project")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_image_event")),
    )
    op.create_index("ix_image_event_image", "image_event", ["image_id", "id"], unique=False)
    op.create_index("ix_image_event_project", "image_event", ["project_id", "id"], unique=False)
    op.create_table(
        "image_flag",
        sa.Column("project_id", sa.Integer(), nullable=False),
        sa.Column("kind", sa.String(length=20), nullable=False),
        sa.Column("image_id", sa.Integer(), nullable=False),
        sa.Column("score", sa.Double(), nullable=False),
        sa.Column("answer", sa.String(length=12), nullable=False),
        sa.ForeignKeyConstraint(
            ["image_id"], ["image.id"], name=op.f("fk_image_flag_image_id_image")
        ),
        sa.ForeignKeyConstraint(
            ["project_id"], ["project.id"], name=op.f("fk_image_flag_project_id_project")
        ),
        sa.PrimaryKeyConstraint("project_id", "kind", "image_id", name=op.f("pk_image_flag")),
    )
    op.create_index("ix_image_flag_image", "image_flag", ["image_id"], unique=False)
    op.create_table(
        "image_meta",
        sa.Column("image_id", sa.Integer(), nullable=False),
        sa.Column("key", sa.String(length=100), nullable=False),
        sa.Column("project_id", sa.Integer(), nullable=False),
        sa.Column("value", sa.String(length=400), nullable=False),
        sa.Column("number", sa.Double(), nullable=True),
        sa.ForeignKeyConstraint(
            ["image_id"], ["image.id"], name=op.f("fk_image_meta_image_id_image")
        ),
        sa.ForeignKeyConstraint(
            ["project_id"], ["project.id"], name=op.f("fk_image_meta_project_id_project")
        ),
        sa.PrimaryKeyConstraint("image_id", "key", name=op.f("pk_image_meta")),
    )
    op.create_index(
        "ix_image_meta_number",
        "image_meta",
        ["project_id", "key", "number", "image_id"],
        unique=False,
    )
    op.create_index(
        "ix_image_meta_walk",
        "image_meta",
        ["project_id", "key", "image_id", "number"],
        unique=False,
    )
    op.create_index(
        "ix_image_meta_value",
        "image_meta",
        ["project_id", "key", "value", "image_id"],
        unique=False,
    )
    op.create_table(
        "image_quality",
        sa.Column("image_id", sa.Integer(), nullable=False),
        sa.Column("project_id", sa.Integer(), nullable=False),
        sa.Column("seen", sa.String(length=40), nullable=False),
        sa.Column("measures", sa.JSON(), nullable=False),
        sa.Column("signature", sa.LargeBinary(), nullable=True),
        sa.Column("compared", sa.Boolean(), nullable=False),
        sa.ForeignKeyConstraint(
            ["image_id"], ["image.id"], name=op.f("fk_image_quality_image_id_image")
        ),
        sa.ForeignKeyConstraint(
            ["project_id"], ["project.id"], name=op.f("fk_image_quality_project_id_project")
        ),
        sa.PrimaryKeyConstraint("image_id", name=op.f("pk_image_quality")),
    )
    op.create_index(
        "ix_image_quality_project", "image_quality", ["project_id", "image_id"], unique=False
    )
    op.create_table(
        "near_pair",
        sa.Column("image_a", sa.Integer(), nullable=False),
        sa.Column("image_b", sa.Integer(), nullable=False),
        sa.Column("project_id", sa.Integer(), nullable=False),
        sa.Column("similarity", sa.Double(), nullable=False),
        sa.Column("answer", sa.String(length=12), nullable=False),
        sa.ForeignKeyConstraint(["image_a"], ["image.id"], name=op.f("fk_near_pair_image_a_image")),
        sa.ForeignKeyConstraint(["image_b"], ["image.id"], name=op.f("fk_near_pair_image_b_image")),
        sa.ForeignKeyConstraint(
            ["project_id"], ["project.id"], name=op.f("fk_near_pair_project_id_project")
        ),
        sa.PrimaryKeyConstraint("image_a", "image_b", name=op.f("pk_near_pair")),
    )
    op.create_index(
        "ix_near_pair_project", "near_pair", ["project_id", "answer", "similarity"], unique=False
    )
    op.add_column(
        "image", sa.Column("seen", sa.String(length=40), server_default="", nullable=False)
    )
    op.add_column("image", sa.Column("source_path", sa.Text(), nullable=True))
    op.add_column("image", sa.Column("source_mtime_ns", sa.BigInteger(), nullable=True))
    # plain SQL: Alembic would copy a table of a million images to add a foreign key on SQLite
    op.execute(
        "ALTER TABLE image ADD COLUMN slide_id INTEGER "
        "CONSTRAINT fk_image_slide_id_slide REFERENCES slide (id)"
    )
    op.add_column("image", sa.Column("tile_x", sa.Integer(), nullable=True))
    op.add_column("image", sa.Column("tile_y", sa.Integer(), nullable=True))
    op.add_column("image", sa.Column("tile_side", sa.Integer(), nullable=True))
    op.create_index("ix_image_slide", "image", ["slide_id", "id"], unique=False)
    op.add_column("image", sa.Column("current_annotator", sa.String(length=200), nullable=True))
    op.execute(
        "UPDATE image SET current_annotator = "
        "(SELECT annotator FROM label_event WHERE label_event.id = image.current_event_id) "
        "WHERE current_state IN ('label', 'skip', 'unsure')"
    )
    op.create_index(
        "ix_image_annotator",
        "image",
        ["project_id", "status", "current_annotator", "id"],
        unique=False,
    )
    op.create_index(
        "ix_image_learn",
        "image",
        ["project_id", "status", "current_state", "current_class_id", "group_key"],
        unique=False,
    )


def downgrade() -> None:
    """Go back to the schema before."""
    op.drop_index("ix_image_learn", table_name="image")
    op.drop_index("ix_image_annotator", table_name="image")
    op.drop_index("ix_image_slide", table_name="image")
    op.execute("DROP VIEW current_label")  # SQLite copies the table to drop a foreign key
    with op.batch_alter_table("image") as image:
        for column in NEW_COLUMNS:
            image.drop_column(column)
    op.execute(
        "CREATE VIEW current_label AS "
        "SELECT image.id AS image_id, e.class_id AS class_id, e.annotator AS annotator, "
        "e.created_at AS created_at "
        "FROM image JOIN label_event e ON e.id = image.current_event_id WHERE e.kind = 'label'"
    )
    op.drop_table("near_pair")
    op.drop_table("image_quality")
    op.drop_table("image_meta")
    op.drop_table("image_flag")
    op.drop_table("image_event")
    op.drop_table("watched_folder")
    op.drop_table("slide")
