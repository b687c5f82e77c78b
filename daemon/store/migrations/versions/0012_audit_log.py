"""Who changed what, and alerts by when they ended."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

ROW_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    op.create_table(
        "audit_log",
        sa.Column("id", ROW_ID, autoincrement=True, nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.Column("actor", TEXT, nullable=False),
        sa.Column("authentication", TEXT, nullable=False),
        sa.Column("action", TEXT, nullable=False),
        sa.Column("registry", TEXT),
        sa.Column("model", TEXT),
        sa.Column("version", TEXT),
        sa.Column("subject", TEXT),
        sa.Column("reason", TEXT),
        sa.Column("outcome", TEXT, nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_audit_log"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_audit_log_at", "audit_log", ["at"])
    op.create_index("ix_alert_transitions_phase_at", "alert_transitions", ["phase", "at"])


def downgrade() -> None:
    op.drop_index("ix_alert_transitions_phase_at", "alert_transitions")
    op.drop_table("audit_log")
