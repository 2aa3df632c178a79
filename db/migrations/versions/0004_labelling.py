"""Labelling: class changes as events, labels by person, suggestions, tags, leases, second readings.

Revision ID: 0004
Revises: 0003
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

VIEW = (
    "CREATE VIEW current_label AS "
    "SELECT image.id AS image_id, {class_id} AS class_id, e.annotator AS annotator, "
    "e.created_at AS created_at "
    "FROM image JOIN label_event e ON e.id = image.current_event_id WHERE {labelled}"
)


def upgrade() -> None:
    """Add the tables and columns; what is there stays as it is."""
    op.create_table(
        "class_event",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("project_id", sa.Integer(), nullable=False),
        sa.Column("class_id", sa.Integer(), nullable=True),
        sa.Column("kind", sa.String(length=12), nullable=False),
        sa.Column("who", sa.String(length=200), nullable=False),
        sa.Column("details", sa.JSON(), nullable=False),
        sa.Column("action", sa.String(length=80), nullable=False),
        sa.Column("target_id", sa.Integer(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["class_id"], ["label_class.id"], name=op.f("fk_class_event_class_id_label_class")
        ),
        sa.ForeignKeyConstraint(
            ["project_id"], ["project.id"], name=op.f("fk_class_event_project_id_project")
        ),
        sa.ForeignKeyConstraint(
            ["target_id"], ["class_event.id"], name=op.f("fk_class_event_target_id_class_event")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_class_event")),
    )
    op.create_index("ix_class_event_project", "class_event", ["project_id", "id"], unique=False)
    op.create_index("ix_class_event_target", "class_event", ["target_id"], unique=False)
    op.create_table(
        "suggestion_run",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("project_id", sa.Integer(), nullable=False),
        sa.Column("job_id", sa.Integer(), nullable=True),
        sa.Column("n_labels", sa.Integer(), nullable=False),
        sa.Column("n_images", sa.Integer(), nullable=False),
        sa.Column("newest_event", sa.Integer(), nullable=False),
        sa.Column("class_ids", sa.JSON(), nullable=False),
        sa.Column("figures", sa.JSON(), nullable=False),
        sa.Column("seconds", sa.Double(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["job.id"], name=op.f("fk_suggestion_run_job_id_job")),
        sa.ForeignKeyConstraint(
            ["project_id"], ["project.id"], name=op.f("fk_suggestion_run_project_id_project")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_suggestion_run")),
    )
    op.create_index(
        "ix_suggestion_run_project", "suggestion_run", ["project_id", "id"], unique=False
    )
    op.create_table(
        "annotator_label",
        sa.Column("image_id", sa.Integer(), nullable=False),
        sa.Column("annotator", sa.String(length=200), nullable=False),
        sa.Column("project_id", sa.Integer(), nullable=False),
        sa.Column("state", sa.String(length=12), nullable=False),
        sa.Column("class_id", sa.Integer(), nullable=True),
        sa.Column("source", sa.String(length=12), nullable=False),
        sa.Column("event_id", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(
            ["class_id"], ["label_class.id"], name=op.f("fk_annotator_label_class_id_label_class")
        ),
        sa.ForeignKeyConstraint(
            ["image_id"], ["image.id"], name=op.f("fk_annotator_label_image_id_image")
        ),
        sa.ForeignKeyConstraint(
            ["project_id"], ["project.id"], name=op.f("fk_annotator_label_project_id_project")
        ),
        sa.PrimaryKeyConstraint("image_id", "annotator", name=op.f("pk_annotator_label")),
    )
    op.create_index(
        "ix_annotator_label_class", "annotator_label", ["class_id", "image_id"], unique=False
    )
    op.create_index(
        "ix_annotator_label_who",
        "annotator_label",
        ["project_id", "annotator", "state", "class_id", "image_id"],
        unique=False,
    )
    op.create_table(
        "image_tag",
        sa.Column("project_id", sa.Integer(), nullable=False),
        sa.Column("tag", sa.String(length=60), nullable=False),
        sa.Column("image_id", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(
            ["image_id"], ["image.id"], name=op.f("fk_image_tag_image_id_image")
        ),
        sa.ForeignKeyConstraint(
            ["project_id"], ["project.id"], name=op.f("fk_image_tag_project_id_project")
        ),
        sa.PrimaryKeyConstraint("project_id", "tag", "image_id", name=op.f("pk_image_tag")),
    )
    op.create_index("ix_image_tag_image", "image_tag", ["image_id"], unique=False)
    op.create_table(
        "lease",
        sa.Column("image_id", sa.Integer(), nullable=False),
        sa.Column("project_id", sa.Integer(), nullable=False),
        sa.Column("holder", sa.String(length=200), nullable=False),
        sa.Column("until", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["image_id"], ["image.id"], name=op.f("fk_lease_image_id_image")),
        sa.ForeignKeyConstraint(
            ["project_id"], ["project.id"], name=op.f("fk_lease_project_id_project")
        ),
        sa.PrimaryKeyConstraint("image_id", name=op.f("pk_lease")),
    )
    op.create_index("ix_lease_project", "lease", ["project_id", "until"], unique=False)
    op.create_table(
        "second_reading",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("project_id", sa.Integer(), nullable=False),
        sa.Column("image_id", sa.Integer(), nullable=False),
        sa.Column("kind", sa.String(length=12), nullable=False),
        sa.Column("wanted_from", sa.String(length=200), nullable=True),
        sa.Column("first_event", sa.Integer(), nullable=True),
        sa.Column("done_event", sa.Integer(), nullable=True),
        sa.Column("asked_by", sa.String(length=200), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["image_id"], ["image.id"], name=op.f("fk_second_reading_image_id_image")
        ),
        sa.ForeignKeyConstraint(
            ["project_id"], ["project.id"], name=op.f("fk_second_reading_project_id_project")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_second_reading")),
    )
    op.create_index("ix_second_reading_image", "second_reading", ["image_id"], unique=False)
    op.create_index(
        "ix_second_reading_todo", "second_reading", ["project_id", "done_event", "id"], unique=False
    )
    op.create_table(
        "suggestion",
        sa.Column("image_id", sa.Integer(), nullable=False),
        sa.Column("project_id", sa.Integer(), nullable=False),
        sa.Column("run_id", sa.Integer(), nullable=False),
        sa.Column("class_id", sa.Integer(), nullable=False),
        sa.Column("confidence", sa.Double(), nullable=False),
        sa.Column("margin", sa.Double(), nullable=False),
        sa.Column("loss", sa.Double(), nullable=True),
        sa.Column("top", sa.JSON(), nullable=False),
        sa.ForeignKeyConstraint(
            ["class_id"], ["label_class.id"], name=op.f("fk_suggestion_class_id_label_class")
        ),
        sa.ForeignKeyConstraint(
            ["image_id"], ["image.id"], name=op.f("fk_suggestion_image_id_image")
        ),
        sa.ForeignKeyConstraint(
            ["project_id"], ["project.id"], name=op.f("fk_suggestion_project_id_project")
        ),
        sa.ForeignKeyConstraint(
            ["run_id"], ["suggestion_run.id"], name=op.f("fk_suggestion_run_id_suggestion_run")
        ),
        sa.PrimaryKeyConstraint("image_id", name=op.f("pk_suggestion")),
    )
    op.create_index(
        "ix_suggestion_class",
        "suggestion",
        ["project_id", "class_id", "confidence", "image_id"],
        unique=False,
    )
    op.create_index(
        "ix_suggestion_confidence",
        "suggestion",
        ["project_id", "confidence", "image_id"],
        unique=False,
    )
    op.create_index(
        "ix_suggestion_loss", "suggestion", ["project_id", "loss", "image_id"], unique=False
    )
    op.create_index(
        "ix_suggestion_margin", "suggestion", ["project_id", "margin", "image_id"], unique=False
    )
    op.add_column("image", sa.Column("current_source", sa.String(length=12), nullable=True))
    op.add_column("image", sa.Column("readers", sa.Integer(), server_default="0", nullable=False))
    op.add_column(
        "image", sa.Column("disputed", sa.Boolean(), server_default=sa.false(), nullable=False)
    )
    op.create_index(
        "ix_image_disputed", "image", ["project_id", "status", "disputed", "id"], unique=False
    )
    op.create_index(
        "ix_image_source", "image", ["project_id", "status", "current_source", "id"], unique=False
    )
    op.add_column(
        "label_class", sa.Column("description", sa.Text(), server_default="", nullable=False)
    )
    op.add_column(
        "label_class", sa.Column("active", sa.Boolean(), server_default=sa.true(), nullable=False)
    )
    # plain SQL: Alembic would copy the table to add a foreign key on SQLite
    op.execute(
        "ALTER TABLE label_class ADD COLUMN merged_into INTEGER "
        "CONSTRAINT fk_label_class_merged_into_label_class REFERENCES label_class (id)"
    )
    # a class may have been merged since an image was labelled: the view says what it is called now
    op.execute("DROP VIEW current_label")
    op.execute(
        VIEW.format(class_id="image.current_class_id", labelled="image.current_state = 'label'")
    )
    _derive()


def _derive() -> None:
    """Derive what each person says, and what follows from it, from the events there are."""
    op.execute(
        "INSERT INTO annotator_label "
        "(image_id, annotator, project_id, state, class_id, source, event_id) "
        "SELECT e.image_id, e.annotator, e.project_id, e.kind, e.class_id, e.source, e.id "
        "FROM label_event e JOIN ("
        "SELECT max(x.id) AS id FROM label_event x WHERE x.kind <> 'undo' AND NOT EXISTS "
        "(SELECT 1 FROM label_event u WHERE u.target_id = x.id AND u.kind = 'undo') "
        "GROUP BY x.image_id, x.annotator) newest ON newest.id = e.id WHERE e.kind <> 'clear'"
    )
    op.execute(
        "UPDATE image SET readers = (SELECT count(*) FROM annotator_label a "
        "WHERE a.image_id = image.id AND a.state = 'label'), "
        "current_source = (SELECT source FROM label_event e WHERE e.id = image.current_event_id) "
        "WHERE current_event_id IS NOT NULL"
    )
    op.execute(
        "UPDATE image SET disputed = (SELECT count(DISTINCT a.class_id) > 1 "
        "FROM annotator_label a WHERE a.image_id = image.id AND a.state = 'label') "
        "WHERE readers > 1"
    )


def downgrade() -> None:
    """Go back to the schema before."""
    op.execute("DROP VIEW current_label")  # SQLite copies the tables to drop columns
    op.drop_index("ix_image_disputed", table_name="image")
    op.drop_index("ix_image_source", table_name="image")
    with op.batch_alter_table("image") as image:
        for column in ("current_source", "readers", "disputed"):
            image.drop_column(column)
    with op.batch_alter_table("label_class") as label_class:
        for column in ("description", "active", "merged_into"):
            label_class.drop_column(column)
    op.execute(VIEW.format(class_id="e.class_id", labelled="e.kind = 'label'"))
    for table in (
        "suggestion", "second_reading", "lease", "image_tag", "annotator_label", "suggestion_run",
        "class_event",
    ):  # fmt: skip
        op.drop_table(table)
