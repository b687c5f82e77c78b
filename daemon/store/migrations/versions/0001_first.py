"""The first schema."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

# A migration is frozen in time: its types are spelled out here instead of imported from today's tables.
ROW_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
TIMESTAMP = sa.BigInteger()


def upgrade() -> None:
    op.create_table(
        "alert_states",
        sa.Column("registry", TEXT, nullable=False),
        sa.Column("model", TEXT, nullable=False),
        sa.Column("ref", TEXT, nullable=False),
        sa.Column("rule_group", TEXT, nullable=False),
        sa.Column("phase", TEXT, nullable=False),
        sa.Column("episode", sa.Integer(), nullable=False),
        sa.Column("version", TEXT, nullable=False),
        sa.Column("fingerprint", TEXT, nullable=False),
        sa.Column("severity", TEXT, nullable=False),
        sa.Column("layers", sa.JSON(), nullable=False),
        sa.Column("started_at", TIMESTAMP, nullable=False),
        sa.Column("notified_at", TIMESTAMP, nullable=False),
        sa.Column("sequence", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("registry", "model", "ref", "rule_group", name="pk_alert_states"),
    )
    op.create_table(
        "baseline_events",
        sa.Column("id", ROW_ID, autoincrement=True, nullable=False),
        sa.Column("registry", TEXT, nullable=False),
        sa.Column("model", TEXT, nullable=False),
        sa.Column("version", TEXT, nullable=False),
        sa.Column("fingerprint", TEXT, nullable=False),
        sa.Column("kind", TEXT, nullable=False),
        sa.Column("actor", TEXT, nullable=False),
        sa.Column("reason", TEXT, nullable=False),
        sa.Column("at", TIMESTAMP, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_baseline_events"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_baseline_events_registry_model", "baseline_events", ["registry", "model"])
    op.create_table(
        "contents",
        sa.Column("id", ROW_ID, autoincrement=True, nullable=False),
        sa.Column("fingerprint", TEXT, nullable=False),
        sa.Column("metric_set", TEXT, nullable=False),
        sa.Column("format", TEXT, nullable=False),
        sa.Column("size_bytes", sa.BigInteger(), nullable=False),
        sa.Column("skipped", sa.JSON(), nullable=False),
        sa.Column("problem_reason", TEXT),
        sa.Column("problem_detail", TEXT),
        sa.Column("measure_seconds", sa.Double(), nullable=False),
        sa.Column("saved_at", TIMESTAMP, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_contents"),
        sa.UniqueConstraint("fingerprint", "metric_set", name="uq_contents_fingerprint_metric_set"),
    )
    op.create_table(
        "measurements",
        sa.Column("digest", TEXT, nullable=False),
        sa.Column("metric_set", TEXT, nullable=False),
        sa.Column("kind", TEXT, nullable=False),
        sa.Column("shape", sa.JSON(), nullable=False),
        sa.Column("dtype", TEXT, nullable=False),
        sa.Column("scalars", sa.JSON(), nullable=False),
        sa.Column("array_shapes", sa.JSON(), nullable=False),
        sa.Column("saved_at", TIMESTAMP, nullable=False),
        sa.Column("spectrum", sa.LargeBinary()),
        sa.Column("folded_spectrum", sa.LargeBinary()),
        sa.Column("row_norms", sa.LargeBinary()),
        sa.Column("column_norms", sa.LargeBinary()),
        sa.Column("sketch", sa.LargeBinary()),
        sa.PrimaryKeyConstraint("digest", "metric_set", name="pk_measurements"),
    )
    op.create_table(
        "outbox",
        sa.Column("id", ROW_ID, autoincrement=True, nullable=False),
        sa.Column("event_id", TEXT, nullable=False),
        sa.Column("receiver", TEXT, nullable=False),
        sa.Column("payload", TEXT, nullable=False),
        sa.Column("created_at", TIMESTAMP, nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("next_attempt_at", TIMESTAMP, nullable=False),
        sa.Column("failed_at", TIMESTAMP),
        sa.Column("delivered_at", TIMESTAMP),
        sa.Column("dead_at", TIMESTAMP),
        sa.Column("error_reason", TEXT),
        sa.Column("error_detail", TEXT),
        sa.PrimaryKeyConstraint("id", name="pk_outbox"),
        sa.UniqueConstraint("event_id", "receiver", name="uq_outbox_event_id_receiver"),
        sqlite_autoincrement=True,
    )
    op.create_index(
        "ix_outbox_delivered_at_dead_at_next_attempt_at",
        "outbox",
        ["delivered_at", "dead_at", "next_attempt_at"],
    )
    op.create_table(
        "versions",
        sa.Column("id", ROW_ID, autoincrement=True, nullable=False),
        sa.Column("registry", TEXT, nullable=False),
        sa.Column("model", TEXT, nullable=False),
        sa.Column("version", TEXT, nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("is_current", sa.Boolean(), nullable=False),
        sa.Column("fingerprint", TEXT, nullable=False),
        sa.Column("previous_fingerprint", TEXT),
        sa.Column("source_path", TEXT, nullable=False),
        sa.Column("token", TEXT),
        sa.Column("order_key", TEXT, nullable=False),
        sa.Column("sort_key", sa.LargeBinary(), nullable=False),
        sa.Column("parent", TEXT),
        sa.Column("relation", TEXT),
        sa.Column("lineage_source", TEXT),
        sa.Column("lineage_confidence", sa.Double()),
        sa.Column("state", TEXT, nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("not_before", TIMESTAMP),
        sa.Column("discovered_at", TIMESTAMP, nullable=False),
        sa.Column("judged_at", TIMESTAMP),
        sa.Column("verdict", TEXT),
        sa.Column("gone_at", TIMESTAMP),
        sa.Column("report", TEXT),
        sa.PrimaryKeyConstraint("id", name="pk_versions"),
        sa.UniqueConstraint(
            "registry", "model", "version", "revision", name="uq_versions_registry_model_version_revision"
        ),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_versions_fingerprint", "versions", ["fingerprint"])
    op.create_index("ix_versions_registry_model_sort_key", "versions", ["registry", "model", "sort_key"])
    op.create_index("ix_versions_state", "versions", ["state"])
    op.create_index(
        "uq_versions_current",
        "versions",
        ["registry", "model", "version"],
        unique=True,
        sqlite_where=sa.text("is_current"),
        postgresql_where=sa.text("is_current"),
    )
    op.create_table(
        "content_layers",
        sa.Column("content_id", ROW_ID, nullable=False),
        sa.Column("position", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("name", TEXT, nullable=False),
        sa.Column("kind", TEXT, nullable=False),
        sa.Column("shape", sa.JSON(), nullable=False),
        sa.Column("dtype", TEXT, nullable=False),
        sa.Column("digest", TEXT),
        sa.Column("problem_reason", TEXT),
        sa.Column("problem_detail", TEXT),
        sa.ForeignKeyConstraint(
            ["content_id"], ["contents.id"], name="fk_content_layers_content_id", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("content_id", "position", name="pk_content_layers"),
    )
    op.create_index("ix_content_layers_digest", "content_layers", ["digest"])
    op.create_table(
        "findings",
        sa.Column("version_id", ROW_ID, nullable=False),
        sa.Column("position", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("rule", TEXT, nullable=False),
        sa.Column("rule_group", TEXT, nullable=False),
        sa.Column("severity", TEXT, nullable=False),
        sa.Column("layer", TEXT),
        sa.Column("message", TEXT, nullable=False),
        sa.Column("evidence", sa.JSON(), nullable=False),
        sa.Column("strength", sa.Double()),
        sa.ForeignKeyConstraint(
            ["version_id"], ["versions.id"], name="fk_findings_version_id", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("version_id", "position", name="pk_findings"),
    )
    op.create_table(
        "refs",
        sa.Column("registry", TEXT, nullable=False),
        sa.Column("model", TEXT, nullable=False),
        sa.Column("ref", TEXT, nullable=False),
        sa.Column("version_id", ROW_ID, nullable=False),
        sa.Column("moved_at", TIMESTAMP, nullable=False),
        sa.ForeignKeyConstraint(["version_id"], ["versions.id"], name="fk_refs_version_id"),
        sa.PrimaryKeyConstraint("registry", "model", "ref", name="pk_refs"),
    )
    op.create_index("ix_refs_version_id", "refs", ["version_id"])


def downgrade() -> None:
    op.drop_table("refs")
    op.drop_table("findings")
    op.drop_table("content_layers")
    op.drop_table("versions")
    op.drop_table("outbox")
    op.drop_table("measurements")
    op.drop_table("contents")
    op.drop_table("baseline_events")
    op.drop_table("alert_states")
