"""Element-wise comparisons of two contents."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "comparisons",
        sa.Column("fingerprint", sa.Text(), nullable=False),
        sa.Column("baseline_fingerprint", sa.Text(), nullable=False),
        sa.Column("metric_set", sa.Text(), nullable=False),
        sa.Column("saved_at", sa.BigInteger(), nullable=False),
        sa.Column("layers", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("fingerprint", "baseline_fingerprint", "metric_set", name="pk_comparisons"),
    )


def downgrade() -> None:
    op.drop_table("comparisons")
