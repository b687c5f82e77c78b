"""Alerts that are routed, grouped, silenced and acknowledged; events that are claimed and keep their order."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

ROW_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
KEPT = "registry, model, ref, rule_group, phase, episode, version, fingerprint, severity, layers, started_at, sequence"
WAITING = sa.text("delivered_at IS NULL AND dead_at IS NULL")
CLAIMED = sa.text("claimed_by IS NOT NULL")
STREAMS = sa.text("stream IS NOT NULL")
DELIVERED = sa.text("delivered_at IS NOT NULL")
DEAD = sa.text("dead_at IS NOT NULL")


def upgrade() -> None:
    # Columns that may not be empty cannot be added to rows that are there: the table is made anew.
    op.execute("CREATE TABLE alert_states_before AS SELECT * FROM alert_states")
    op.drop_table("alert_states")
    _create_states(
        sa.Column("changed_at", sa.BigInteger(), nullable=False),
        sa.Column("reason", TEXT, nullable=False),
        sa.Column("event_id", TEXT, nullable=False),
        sa.Column("rules", sa.JSON(), nullable=False),
        sa.Column("pending", sa.JSON(), nullable=False),
        sa.Column("acknowledged_by", TEXT),
        sa.Column("acknowledged_at", sa.BigInteger()),
        sa.Column("acknowledged_reason", TEXT),
        sa.Column("told", TEXT),
    )
    op.execute(
        f"INSERT INTO alert_states ({KEPT}, changed_at, reason, event_id, rules, pending) "
        f"SELECT {KEPT}, notified_at, 'first', '', '[]', '{{}}' FROM alert_states_before"
    )
    op.drop_table("alert_states_before")
    op.create_table(
        "alert_transitions",
        sa.Column("id", ROW_ID, autoincrement=True, nullable=False),
        sa.Column("event_id", TEXT, nullable=False),
        sa.Column("registry", TEXT, nullable=False),
        sa.Column("model", TEXT, nullable=False),
        sa.Column("ref", TEXT, nullable=False),
        sa.Column("rule_group", TEXT, nullable=False),
        sa.Column("sequence", sa.Integer(), nullable=False),
        sa.Column("episode", sa.Integer(), nullable=False),
        sa.Column("phase", TEXT, nullable=False),
        sa.Column("reason", TEXT, nullable=False),
        sa.Column("severity", TEXT, nullable=False),
        sa.Column("version", TEXT, nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_alert_transitions"),
        sa.UniqueConstraint("event_id", name="uq_alert_transitions_event_id"),
        sqlite_autoincrement=True,
    )
    op.create_index(
        "ix_alert_transitions_identity_sequence",
        "alert_transitions",
        ["registry", "model", "ref", "rule_group", "sequence"],
    )
    op.create_table(
        "alert_told",
        sa.Column("receiver", TEXT, nullable=False),
        sa.Column("registry", TEXT, nullable=False),
        sa.Column("model", TEXT, nullable=False),
        sa.Column("ref", TEXT, nullable=False),
        sa.Column("rule_group", TEXT, nullable=False),
        sa.Column("sequence", sa.Integer(), nullable=False),
        sa.Column("firing", sa.Boolean(), nullable=False),
        sa.Column("group_key", TEXT, nullable=False),
        sa.PrimaryKeyConstraint("receiver", "registry", "model", "ref", "rule_group", name="pk_alert_told"),
    )
    op.create_table(
        "alert_groups",
        sa.Column("key", TEXT, nullable=False),
        sa.Column("receiver", TEXT, nullable=False),
        sa.Column("labels", sa.JSON(), nullable=False),
        sa.Column("told_at", sa.BigInteger(), nullable=False),
        sa.Column("sequence", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("key", name="pk_alert_groups"),
    )
    op.create_table(
        "silences",
        sa.Column("id", ROW_ID, autoincrement=True, nullable=False),
        sa.Column("matchers", sa.JSON(), nullable=False),
        sa.Column("author", TEXT, nullable=False),
        sa.Column("reason", TEXT, nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("starts_at", sa.BigInteger(), nullable=False),
        sa.Column("ends_at", sa.BigInteger(), nullable=False),
        sa.Column("expired_at", sa.BigInteger()),
        sa.Column("expired_by", TEXT),
        sa.PrimaryKeyConstraint("id", name="pk_silences"),
        sqlite_autoincrement=True,
    )
    for column in (
        sa.Column("stream", TEXT),
        sa.Column("claimed_by", TEXT),
        sa.Column("claimed_at", sa.BigInteger()),
    ):
        op.add_column("outbox", column)
    # Events are of another form now: what fires is told once more by the first daemon of this version.
    op.execute(
        "UPDATE outbox SET dead_at = created_at, error_reason = 'unexpected', error_detail = "
        "'queued by an older layerwatch in another form; what fires is told again' "
        "WHERE delivered_at IS NULL AND dead_at IS NULL"
    )
    op.drop_index("ix_outbox_delivered_at_dead_at_next_attempt_at", "outbox")
    for name, columns, where in (
        ("ix_outbox_waiting", ["receiver", "id", "created_at"], WAITING),
        ("ix_outbox_delivered", ["receiver", "delivered_at"], DELIVERED),
        ("ix_outbox_stream", ["stream", "receiver", "id"], STREAMS),
        ("ix_outbox_retry", ["receiver", "next_attempt_at"], WAITING),
        ("ix_outbox_claimed", ["receiver", "claimed_at"], CLAIMED),
        ("ix_outbox_dead", ["receiver", "dead_at"], DEAD),
    ):
        op.create_index(name, "outbox", columns, sqlite_where=where, postgresql_where=where)


def downgrade() -> None:
    for name in ("dead", "delivered", "stream", "claimed", "retry", "waiting"):
        op.drop_index(f"ix_outbox_{name}", "outbox")
    op.create_index(
        "ix_outbox_delivered_at_dead_at_next_attempt_at",
        "outbox",
        ["delivered_at", "dead_at", "next_attempt_at"],
    )
    for column in ("claimed_at", "claimed_by", "stream"):
        op.drop_column("outbox", column)
    for table in ("silences", "alert_groups", "alert_told", "alert_transitions"):
        op.drop_table(table)
    op.execute("CREATE TABLE alert_states_after AS SELECT * FROM alert_states")
    op.drop_table("alert_states")
    _create_states(sa.Column("notified_at", sa.BigInteger(), nullable=False))
    op.execute(
        f"INSERT INTO alert_states ({KEPT}, notified_at) SELECT {KEPT}, changed_at FROM alert_states_after"
    )
    op.drop_table("alert_states_after")


def _create_states(*columns: sa.Column[Any]) -> None:
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
        sa.Column("started_at", sa.BigInteger(), nullable=False),
        sa.Column("sequence", sa.Integer(), nullable=False),
        *columns,
        sa.PrimaryKeyConstraint("registry", "model", "ref", "rule_group", name="pk_alert_states"),
    )
