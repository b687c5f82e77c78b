"""Where versions come from, and what is needed to find it in their weights."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

ROW_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    op.create_table(
        "lineage_edges",
        sa.Column("version_id", ROW_ID, nullable=False),
        sa.Column("position", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("parent", TEXT, nullable=False),
        sa.Column("parent_name", TEXT, nullable=False),
        sa.Column("parent_version_id", ROW_ID),
        sa.Column("relation", TEXT),
        sa.Column("source", TEXT, nullable=False),
        sa.Column("confidence", sa.Double(), nullable=False),
        sa.Column("evidence", sa.JSON()),
        sa.Column("found_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(
            ["version_id"], ["versions.id"], name="fk_lineage_edges_version_id", ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["parent_version_id"],
            ["versions.id"],
            name="fk_lineage_edges_parent_version_id",
            ondelete="SET NULL",
        ),
        sa.PrimaryKeyConstraint("version_id", "position", name="pk_lineage_edges"),
    )
    op.create_index("ix_lineage_edges_parent_version_id", "lineage_edges", ["parent_version_id"])
    op.create_index("ix_lineage_edges_parent_name", "lineage_edges", ["parent_name"], postgresql_using="hash")
    op.create_table(
        "tensor_origins",
        sa.Column("digest", TEXT, nullable=False),
        sa.Column("version_id", ROW_ID, nullable=False),
        sa.ForeignKeyConstraint(
            ["version_id"], ["versions.id"], name="fk_tensor_origins_version_id", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("digest", name="pk_tensor_origins"),
    )
    op.create_index("ix_tensor_origins_version_id", "tensor_origins", ["version_id"])
    op.create_table(
        "signatures",
        sa.Column("version_id", ROW_ID, autoincrement=False, nullable=False),
        sa.Column("metric_set", TEXT, nullable=False),
        sa.Column("family", TEXT, nullable=False),
        sa.Column("signature", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(
            ["version_id"], ["versions.id"], name="fk_signatures_version_id", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("version_id", name="pk_signatures"),
    )
    op.create_index("ix_signatures_family", "signatures", ["family"])


def downgrade() -> None:
    op.drop_table("signatures")
    op.drop_table("tensor_origins")
    op.drop_table("lineage_edges")
