"""Which daemon works on a store that several can reach."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

ROW_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    op.create_table(
        "daemon_terms",
        sa.Column("id", ROW_ID, autoincrement=True, nullable=False),
        sa.Column("host", TEXT, nullable=False),
        sa.Column("process", sa.BigInteger(), nullable=False),
        sa.Column("began_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_daemon_terms"),
        sqlite_autoincrement=True,
    )


def downgrade() -> None:
    op.drop_table("daemon_terms")
