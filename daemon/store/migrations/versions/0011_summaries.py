"""What the pages show of versions and models without reading a report.

Verdicts, worst findings and models are filled in here, from rows that are small. The numbers of layers stand in the
reports, which may be gigabytes: the daemon reads those once it runs, newest first, and nobody waits for it.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

ROW_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
AT_A_TIME = 1000

VERSIONS = """
INSERT INTO version_summaries (version_id, worst_layer, worst_words)
SELECT versions.id, worst.layer, substr(worst.message, 1, 500)
FROM versions LEFT JOIN findings AS worst
ON versions.verdict <> 'pass' AND worst.version_id = versions.id AND worst.position = (
    SELECT one.position FROM findings AS one WHERE one.version_id = versions.id
    ORDER BY CASE one.severity WHEN 'critical' THEN 0 WHEN 'warning' THEN 1 ELSE 2 END, one.position LIMIT 1
)
WHERE versions.verdict IS NOT NULL
"""

MODELS = """
SELECT newest.registry, newest.model, newest.versions,
    COALESCE(latest.id, newest.id) AS version_id,
    CASE WHEN latest.id IS NULL THEN newest.verdict ELSE latest.verdict END AS verdict,
    CASE WHEN latest.id IS NULL THEN newest.judged_at ELSE latest.judged_at END AS judged_at
FROM (
    SELECT id, registry, model, verdict, judged_at,
        COUNT(*) OVER (PARTITION BY registry, model) AS versions,
        ROW_NUMBER() OVER (
            PARTITION BY registry, model
            ORDER BY CASE WHEN verdict IS NULL THEN 1 ELSE 0 END, sort_key DESC, id DESC
        ) AS place
    FROM versions WHERE is_current AND gone_at IS NULL
) AS newest
LEFT JOIN refs ON refs.registry = newest.registry AND refs.model = newest.model AND refs.ref = 'latest'
LEFT JOIN versions AS latest ON latest.id = refs.version_id
WHERE newest.place = 1
"""

RANKS = {"fail": 4, "undecided": 3, "warn": 2, None: 1, "pass": 0}


def upgrade() -> None:
    op.create_index(
        "ix_versions_present",
        "versions",
        ["registry", "model", "is_current", "gone_at", "sort_key", "id", "verdict"],
        sqlite_where=sa.text("is_current = 1 AND gone_at IS NULL"),
        postgresql_where=sa.text("is_current AND gone_at IS NULL"),
    )
    op.create_table(
        "version_summaries",
        sa.Column("version_id", ROW_ID, autoincrement=False, nullable=False),
        sa.Column("mean_alpha", sa.Double()),
        sa.Column("layers", sa.Integer()),
        sa.Column("broken", sa.Integer()),
        sa.Column("suspect", sa.Integer()),
        sa.Column("undecided", sa.Integer()),
        sa.Column("worst_layer", TEXT),
        sa.Column("worst_words", TEXT),
        sa.Column("numbers", sa.JSON()),
        sa.ForeignKeyConstraint(
            ["version_id"], ["versions.id"], name="fk_version_summaries_version_id", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("version_id", name="pk_version_summaries"),
    )
    models = op.create_table(
        "model_summaries",
        sa.Column("registry", TEXT, nullable=False),
        sa.Column("model", TEXT, nullable=False),
        sa.Column("version_id", ROW_ID, nullable=False),
        sa.Column("rank", sa.Integer(), nullable=False),
        sa.Column("judged_at", sa.BigInteger()),
        sa.Column("versions", sa.Integer(), nullable=False),
        sa.Column("search", TEXT, nullable=False),
        sa.ForeignKeyConstraint(
            ["version_id"], ["versions.id"], name="fk_model_summaries_version_id", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("registry", "model", name="pk_model_summaries"),
    )
    op.create_index("ix_model_summaries_rank_judged_at", "model_summaries", ["rank", "judged_at"])
    op.create_index("ix_model_summaries_judged_at", "model_summaries", ["judged_at"])
    op.create_index("ix_model_summaries_version_id", "model_summaries", ["version_id"])
    op.execute(VERSIONS)
    connection = op.get_bind()
    found = connection.execute(sa.text(MODELS))
    while rows := found.fetchmany(AT_A_TIME):
        connection.execute(
            sa.insert(models),
            [
                {
                    "registry": row.registry,
                    "model": row.model,
                    "version_id": row.version_id,
                    "rank": RANKS[row.verdict],
                    "judged_at": row.judged_at,
                    "versions": row.versions,
                    "search": f"{row.registry}/{row.model}".casefold(),
                }
                for row in rows
            ],
        )


def downgrade() -> None:
    op.drop_table("model_summaries")
    op.drop_table("version_summaries")
    op.drop_index("ix_versions_present", "versions")
