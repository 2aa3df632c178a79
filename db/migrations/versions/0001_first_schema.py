"""The first schema: projects, classes, images, label events, jobs, models, predictions."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

CURRENT_LABEL = """
CREATE VIEW current_label AS
SELECT image.id AS image_id, e.class_id AS class_id, e.annotator AS annotator, e.created_at AS created_at
FROM image JOIN label_event e ON e.id = image.current_event_id
WHERE e.kind = 'label'
"""


def upgrade() -> None:
    op.create_table(
        "project",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("name_key", sa.String(length=200), nullable=False),
        sa.Column("settings", sa.JSON(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_project")),
        sa.UniqueConstraint("name_key", name=op.f("uq_project_name_key")),
    )
    op.create_table(
        "worker",
        sa.Column("id", sa.String(length=120), nullable=False),
        sa.Column("host", sa.String(length=200), nullable=False),
        sa.Column("pid", sa.Integer(), nullable=False),
        sa.Column("device", sa.String(length=200), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("heartbeat_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_worker")),
    )
    op.create_table(
        "job",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("project_id", sa.Integer(), nullable=True),
        sa.Column("kind", sa.String(length=20), nullable=False),
        sa.Column("state", sa.String(length=12), nullable=False),
        sa.Column("progress", sa.Double(), nullable=False),
        sa.Column("message", sa.Text(), nullable=False),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("payload", sa.JSON(), nullable=False),
        sa.Column("result", sa.JSON(), nullable=False),
        sa.Column("cancel_requested", sa.Boolean(), nullable=False),
        sa.Column("requested_by", sa.String(length=200), nullable=False),
        sa.Column("worker_id", sa.String(length=120), nullable=True),
        sa.Column("starts", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("heartbeat_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(
            ["project_id"], ["project.id"], name=op.f("fk_job_project_id_project")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_job")),
    )
    with op.batch_alter_table("job", schema=None) as batch_op:
        batch_op.create_index("ix_job_project", ["project_id", "id"], unique=False)
        batch_op.create_index("ix_job_state", ["state", "id"], unique=False)

    op.create_table(
        "label_class",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("project_id", sa.Integer(), nullable=False),
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("name_key", sa.String(length=200), nullable=False),
        sa.Column("parent", sa.String(length=200), nullable=True),
        sa.Column("color", sa.String(length=9), nullable=False),
        sa.Column("hotkey", sa.String(length=8), nullable=True),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(
            ["project_id"], ["project.id"], name=op.f("fk_label_class_project_id_project")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_label_class")),
        sa.UniqueConstraint(
            "project_id", "name_key", name=op.f("uq_label_class_project_id_name_key")
        ),
    )
    with op.batch_alter_table("label_class", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_label_class_project_id"), ["project_id"], unique=False)

    op.create_table(
        "tally",
        sa.Column("project_id", sa.Integer(), nullable=False),
        sa.Column("key", sa.String(length=40), nullable=False),
        sa.Column("n", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(
            ["project_id"], ["project.id"], name=op.f("fk_tally_project_id_project")
        ),
        sa.PrimaryKeyConstraint("project_id", "key", name=op.f("pk_tally")),
    )
    op.create_table(
        "image",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("project_id", sa.Integer(), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("file_name", sa.Text(), nullable=False),
        sa.Column("width", sa.Integer(), nullable=False),
        sa.Column("height", sa.Integer(), nullable=False),
        sa.Column("group_key", sa.String(length=400), nullable=True),
        sa.Column("status", sa.String(length=20), nullable=False),
        sa.Column("stored_path", sa.Text(), nullable=False),
        sa.Column("linked", sa.Boolean(), nullable=False),
        sa.Column("n_bytes", sa.BigInteger(), nullable=False),
        sa.Column("facts", sa.JSON(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("current_state", sa.String(length=12), nullable=False),
        sa.Column("current_class_id", sa.Integer(), nullable=True),
        sa.Column("current_event_id", sa.Integer(), nullable=True),
        sa.ForeignKeyConstraint(
            ["current_class_id"],
            ["label_class.id"],
            name=op.f("fk_image_current_class_id_label_class"),
        ),
        sa.ForeignKeyConstraint(
            ["project_id"], ["project.id"], name=op.f("fk_image_project_id_project")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_image")),
        sa.UniqueConstraint(
            "project_id", "sha256", "file_name", name=op.f("uq_image_project_id_sha256_file_name")
        ),
    )
    with op.batch_alter_table("image", schema=None) as batch_op:
        batch_op.create_index(
            "ix_image_browse",
            ["project_id", "status", "current_state", "current_class_id", "id"],
            unique=False,
        )
        batch_op.create_index(
            "ix_image_group", ["project_id", "status", "group_key", "id"], unique=False
        )
        batch_op.create_index(
            "ix_image_state",
            ["project_id", "status", "current_state", "id", "file_name"],
            unique=False,
        )
        batch_op.create_index(
            "ix_image_page", ["project_id", "status", "id", "file_name"], unique=False
        )
        batch_op.create_index("ix_image_name", ["project_id", "file_name", "id"], unique=False)
        batch_op.create_index(batch_op.f("ix_image_sha256"), ["sha256"], unique=False)

    op.create_table(
        "job_point",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("job_id", sa.Integer(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("message", sa.Text(), nullable=False),
        sa.Column("values", sa.JSON(), nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["job.id"], name=op.f("fk_job_point_job_id_job")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_job_point")),
    )
    with op.batch_alter_table("job_point", schema=None) as batch_op:
        batch_op.create_index("ix_job_point_job", ["job_id", "id"], unique=False)

    op.create_table(
        "model",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("project_id", sa.Integer(), nullable=False),
        sa.Column("job_id", sa.Integer(), nullable=True),
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("preset", sa.String(length=20), nullable=False),
        sa.Column("backbone", sa.String(length=100), nullable=False),
        sa.Column("path", sa.Text(), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("metrics", sa.JSON(), nullable=False),
        sa.Column("class_ids", sa.JSON(), nullable=False),
        sa.Column("settings", sa.JSON(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["job.id"], name=op.f("fk_model_job_id_job")),
        sa.ForeignKeyConstraint(
            ["project_id"], ["project.id"], name=op.f("fk_model_project_id_project")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_model")),
    )
    with op.batch_alter_table("model", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_model_project_id"), ["project_id"], unique=False)

    op.create_table(
        "label_event",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("project_id", sa.Integer(), nullable=False),
        sa.Column("image_id", sa.Integer(), nullable=False),
        sa.Column("class_id", sa.Integer(), nullable=True),
        sa.Column("annotator", sa.String(length=200), nullable=False),
        sa.Column("kind", sa.String(length=12), nullable=False),
        sa.Column("source", sa.String(length=12), nullable=False),
        sa.Column("client", sa.String(length=64), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("action", sa.String(length=80), nullable=False),
        sa.Column("target_id", sa.Integer(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["class_id"], ["label_class.id"], name=op.f("fk_label_event_class_id_label_class")
        ),
        sa.ForeignKeyConstraint(
            ["image_id"], ["image.id"], name=op.f("fk_label_event_image_id_image")
        ),
        sa.ForeignKeyConstraint(
            ["project_id"], ["project.id"], name=op.f("fk_label_event_project_id_project")
        ),
        sa.ForeignKeyConstraint(
            ["target_id"], ["label_event.id"], name=op.f("fk_label_event_target_id_label_event")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_label_event")),
        sa.UniqueConstraint("client", "seq", name=op.f("uq_label_event_client_seq")),
    )
    with op.batch_alter_table("label_event", schema=None) as batch_op:
        batch_op.create_index(
            "ix_label_event_annotator", ["project_id", "annotator", "id"], unique=False
        )
        batch_op.create_index("ix_label_event_image", ["image_id", "id"], unique=False)
        batch_op.create_index("ix_label_event_target", ["target_id"], unique=False)

    op.create_table(
        "prediction",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("model_id", sa.Integer(), nullable=False),
        sa.Column("image_id", sa.Integer(), nullable=False),
        sa.Column("class_id", sa.Integer(), nullable=False),
        sa.Column("probability", sa.Double(), nullable=False),
        sa.Column("fold", sa.Integer(), nullable=True),
        sa.Column("probabilities", sa.JSON(), nullable=False),
        sa.Column("label_class_id", sa.Integer(), nullable=True),
        sa.Column("event_id", sa.Integer(), nullable=True),
        sa.ForeignKeyConstraint(
            ["class_id"], ["label_class.id"], name=op.f("fk_prediction_class_id_label_class")
        ),
        sa.ForeignKeyConstraint(
            ["image_id"], ["image.id"], name=op.f("fk_prediction_image_id_image")
        ),
        sa.ForeignKeyConstraint(
            ["label_class_id"],
            ["label_class.id"],
            name=op.f("fk_prediction_label_class_id_label_class"),
        ),
        sa.ForeignKeyConstraint(
            ["model_id"], ["model.id"], name=op.f("fk_prediction_model_id_model")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_prediction")),
        sa.UniqueConstraint("model_id", "image_id", name=op.f("uq_prediction_model_id_image_id")),
    )
    with op.batch_alter_table("prediction", schema=None) as batch_op:
        batch_op.create_index(
            "ix_prediction_cell",
            ["model_id", "label_class_id", "class_id", "probability"],
            unique=False,
        )
        batch_op.create_index("ix_prediction_image", ["image_id"], unique=False)

    op.execute(CURRENT_LABEL)


def downgrade() -> None:
    op.execute("DROP VIEW current_label")
    with op.batch_alter_table("prediction", schema=None) as batch_op:
        batch_op.drop_index("ix_prediction_image")
        batch_op.drop_index("ix_prediction_cell")

    op.drop_table("prediction")
    with op.batch_alter_table("label_event", schema=None) as batch_op:
        batch_op.drop_index("ix_label_event_target")
        batch_op.drop_index("ix_label_event_image")
        batch_op.drop_index("ix_label_event_annotator")

    op.drop_table("label_event")
    with op.batch_alter_table("model", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_model_project_id"))

    op.drop_table("model")
    with op.batch_alter_table("job_point", schema=None) as batch_op:
        batch_op.drop_index("ix_job_point_job")

    op.drop_table("job_point")
    with op.batch_alter_table("image", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_image_sha256"))
        batch_op.drop_index("ix_image_name")
        batch_op.drop_index("ix_image_page")
        batch_op.drop_index("ix_image_state")
        batch_op.drop_index("ix_image_group")
        batch_op.drop_index("ix_image_browse")

    op.drop_table("image")
    op.drop_table("tally")
    with op.batch_alter_table("label_class", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_label_class_project_id"))

    op.drop_table("label_class")
    with op.batch_alter_table("job", schema=None) as batch_op:
        batch_op.drop_index("ix_job_state")
        batch_op.drop_index("ix_job_project")

    op.drop_table("job")
    op.drop_table("worker")
    op.drop_table("project")
