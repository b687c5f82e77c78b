"""Sketches of the raw matrices of layers that a batch norm is folded into."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("measurements", sa.Column("raw_sketch", sa.LargeBinary()))


def downgrade() -> None:
    op.drop_column("measurements", "raw_sketch")
