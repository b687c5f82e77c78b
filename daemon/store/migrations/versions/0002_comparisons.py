"""Element-wise comparisons of two contents."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    op.create_table(
        "comparisons",
        sa.Column("fingerprint", TEXT, nullable=False),
        sa.Column("baseline_fingerprint", TEXT, nullable=False),
        sa.Column("metric_set", TEXT, nullable=False),
        sa.Column("saved_at", sa.BigInteger(), nullable=False),
        sa.Column("layers", TEXT, nullable=False),
        sa.PrimaryKeyConstraint("fingerprint", "baseline_fingerprint", "metric_set", name="pk_comparisons"),
    )


def downgrade() -> None:
    op.drop_table("comparisons")
