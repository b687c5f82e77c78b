"""The tables. Alembic's migrations build exactly these; a test compares the two."""

from __future__ import annotations

import sqlalchemy as sa

from layerwatch.daemon.store.columns import JSON, ROW_ID, SafeText, UtcTimestamp

metadata = sa.MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

versions = sa.Table(
    "versions",
    metadata,
    sa.Column("id", ROW_ID, primary_key=True, autoincrement=True),
    sa.Column("registry", SafeText, nullable=False),
    sa.Column("model", SafeText, nullable=False),
    sa.Column("version", SafeText, nullable=False),
    sa.Column("revision", sa.Integer, nullable=False),
    sa.Column("is_current", sa.Boolean, nullable=False),
    sa.Column("fingerprint", SafeText, nullable=False),
    sa.Column("previous_fingerprint", SafeText),
    sa.Column("source_path", SafeText, nullable=False),
    sa.Column("token", SafeText),
    sa.Column("order_key", SafeText, nullable=False),
    sa.Column("sort_key", sa.LargeBinary, nullable=False),
    sa.Column("parent", SafeText),
    sa.Column("relation", SafeText),
    sa.Column("lineage_source", SafeText),
    sa.Column("lineage_confidence", sa.Double),
    sa.Column("state", SafeText, nullable=False),
    sa.Column("attempts", sa.Integer, nullable=False),
    sa.Column("not_before", UtcTimestamp),
    sa.Column("discovered_at", UtcTimestamp, nullable=False),
    sa.Column("judged_at", UtcTimestamp),
    sa.Column("verdict", SafeText),
    sa.Column("gone_at", UtcTimestamp),
    # Reports are large and rarely read: last, so that SQLite reads the other columns without them.
    sa.Column("report", SafeText),
    sa.UniqueConstraint("registry", "model", "version", "revision"),
    sa.Index("ix_versions_registry_model_sort_key", "registry", "model", "sort_key"),
    sa.Index("ix_versions_state", "state"),
    sa.Index("ix_versions_fingerprint", "fingerprint"),
    # Row numbers are handed out to other tables and to users: they are never given twice.
    sqlite_autoincrement=True,
)

# At most one row of a version is the current one.
sa.Index(
    "uq_versions_current",
    versions.c.registry,
    versions.c.model,
    versions.c.version,
    unique=True,
    sqlite_where=versions.c.is_current,
    postgresql_where=versions.c.is_current,
)

# What a registry offers now of a model: counted, and read from the newest on, without a look at the rows. It is partial
# so that no other question about a model is led here, past an index that answers it better.
_present = sa.and_(versions.c.is_current, versions.c.gone_at.is_(None))
sa.Index(
    "ix_versions_present",
    versions.c.registry,
    versions.c.model,
    versions.c.is_current,
    versions.c.gone_at,
    versions.c.sort_key,
    versions.c.id,
    versions.c.verdict,
    sqlite_where=_present,
    postgresql_where=_present,
)

# Apart from the versions: few are merges, and a column behind the reports would be slow to read.
merges = sa.Table(
    "merges",
    metadata,
    sa.Column(
        "version_id",
        ROW_ID,
        sa.ForeignKey("versions.id", ondelete="CASCADE"),
        primary_key=True,
        autoincrement=False,
    ),
    sa.Column("declaration", JSON, nullable=False),
)

# What lists show of judged versions, so that no report need be read.
version_summaries = sa.Table(
    "version_summaries",
    metadata,
    sa.Column(
        "version_id",
        ROW_ID,
        sa.ForeignKey("versions.id", ondelete="CASCADE"),
        primary_key=True,
        autoincrement=False,
    ),
    sa.Column("mean_alpha", sa.Double),
    # Empty where the report was dropped before summaries were kept.
    sa.Column("layers", sa.Integer),
    sa.Column("broken", sa.Integer),
    sa.Column("suspect", sa.Integer),
    sa.Column("undecided", sa.Integer),
    sa.Column("worst_layer", SafeText),
    sa.Column("worst_words", SafeText),
    # Large, and dropped with the report: last.
    sa.Column("numbers", JSON),
)

# One row for each model that its registry offers, with the version that stands for it.
model_summaries = sa.Table(
    "model_summaries",
    metadata,
    sa.Column("registry", SafeText, primary_key=True),
    sa.Column("model", SafeText, primary_key=True),
    sa.Column("version_id", ROW_ID, sa.ForeignKey("versions.id", ondelete="CASCADE"), nullable=False),
    sa.Column("rank", sa.Integer, nullable=False),
    sa.Column("judged_at", UtcTimestamp),
    sa.Column("versions", sa.Integer, nullable=False),
    # registry/model as searches read it, in lower case.
    sa.Column("search", SafeText, nullable=False),
    sa.Index("ix_model_summaries_rank_judged_at", "rank", "judged_at"),
    sa.Index("ix_model_summaries_judged_at", "judged_at"),
    sa.Index("ix_model_summaries_version_id", "version_id"),
)

verdict_notes = sa.Table(
    "verdict_notes",
    metadata,
    sa.Column(
        "version_id",
        ROW_ID,
        sa.ForeignKey("versions.id", ondelete="CASCADE"),
        primary_key=True,
        autoincrement=False,
    ),
    sa.Column("verdict", SafeText, nullable=False),
    sa.Column("written_at", UtcTimestamp, nullable=False),
)

# Where versions come from: what is declared, and what the weights show.
lineage_edges = sa.Table(
    "lineage_edges",
    metadata,
    sa.Column("version_id", ROW_ID, sa.ForeignKey("versions.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("position", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("parent", SafeText, nullable=False),
    # The last part of its name, by which a version that comes later is recognised as the parent.
    sa.Column("parent_name", SafeText, nullable=False),
    sa.Column("parent_version_id", ROW_ID, sa.ForeignKey("versions.id", ondelete="SET NULL")),
    sa.Column("relation", SafeText),
    sa.Column("source", SafeText, nullable=False),
    sa.Column("confidence", sa.Double, nullable=False),
    sa.Column("evidence", JSON),
    sa.Column("found_at", UtcTimestamp, nullable=False),
    sa.Index("ix_lineage_edges_parent_version_id", "parent_version_id"),
    # What authors write may be long: PostgreSQL takes 2.7 kB at most into an index that is sorted.
    sa.Index("ix_lineage_edges_parent_name", "parent_name", postgresql_using="hash"),
)

# The version in which a tensor was seen first: one row for each, however many versions share it.
tensor_origins = sa.Table(
    "tensor_origins",
    metadata,
    sa.Column("digest", SafeText, primary_key=True),
    sa.Column("version_id", ROW_ID, sa.ForeignKey("versions.id", ondelete="CASCADE"), nullable=False),
    sa.Index("ix_tensor_origins_version_id", "version_id"),
)

# All sketches of a version in a few numbers, by which near ones are found among thousands.
signatures = sa.Table(
    "signatures",
    metadata,
    sa.Column(
        "version_id",
        ROW_ID,
        sa.ForeignKey("versions.id", ondelete="CASCADE"),
        primary_key=True,
        autoincrement=False,
    ),
    sa.Column("metric_set", SafeText, nullable=False),
    sa.Column("family", SafeText, nullable=False),
    sa.Column("signature", sa.LargeBinary, nullable=False),
    sa.Index("ix_signatures_family", "family"),
)

findings = sa.Table(
    "findings",
    metadata,
    sa.Column("version_id", ROW_ID, sa.ForeignKey("versions.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("position", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("rule", SafeText, nullable=False),
    sa.Column("rule_group", SafeText, nullable=False),
    sa.Column("severity", SafeText, nullable=False),
    sa.Column("layer", SafeText),
    sa.Column("message", SafeText, nullable=False),
    sa.Column("evidence", JSON, nullable=False),
    sa.Column("strength", sa.Double),
)

contents = sa.Table(
    "contents",
    metadata,
    sa.Column("id", ROW_ID, primary_key=True, autoincrement=True),
    sa.Column("fingerprint", SafeText, nullable=False),
    sa.Column("metric_set", SafeText, nullable=False),
    sa.Column("format", SafeText, nullable=False),
    sa.Column("size_bytes", sa.BigInteger, nullable=False),
    sa.Column("skipped", JSON, nullable=False),
    sa.Column("problem_reason", SafeText),
    sa.Column("problem_detail", SafeText),
    sa.Column("measure_seconds", sa.Double, nullable=False),
    sa.Column("saved_at", UtcTimestamp, nullable=False),
    sa.UniqueConstraint("fingerprint", "metric_set"),
)

content_layers = sa.Table(
    "content_layers",
    metadata,
    sa.Column("content_id", ROW_ID, sa.ForeignKey("contents.id", ondelete="CASCADE"), primary_key=True),
    sa.Column("position", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("name", SafeText, nullable=False),
    sa.Column("kind", SafeText, nullable=False),
    sa.Column("shape", JSON, nullable=False),
    sa.Column("dtype", SafeText, nullable=False),
    sa.Column("digest", SafeText),
    sa.Column("problem_reason", SafeText),
    sa.Column("problem_detail", SafeText),
    sa.Index("ix_content_layers_digest", "digest"),
)

content_couplings = sa.Table(
    "content_couplings",
    metadata,
    sa.Column(
        "content_id",
        ROW_ID,
        sa.ForeignKey("contents.id", ondelete="CASCADE"),
        primary_key=True,
        autoincrement=False,
    ),
    sa.Column("couplings", JSON, nullable=False),
)

content_remarks = sa.Table(
    "content_remarks",
    metadata,
    sa.Column(
        "content_id",
        ROW_ID,
        sa.ForeignKey("contents.id", ondelete="CASCADE"),
        primary_key=True,
        autoincrement=False,
    ),
    sa.Column("remarks", JSON, nullable=False),
)

measurements = sa.Table(
    "measurements",
    metadata,
    sa.Column("digest", SafeText, primary_key=True),
    sa.Column("metric_set", SafeText, primary_key=True),
    sa.Column("kind", SafeText, nullable=False),
    sa.Column("shape", JSON, nullable=False),
    sa.Column("dtype", SafeText, nullable=False),
    sa.Column("scalars", JSON, nullable=False),
    sa.Column("array_shapes", JSON, nullable=False),
    sa.Column("saved_at", UtcTimestamp, nullable=False),
    # Arrays last, so that SQLite reads the numbers without them. Little-endian float32, C order.
    sa.Column("spectrum", sa.LargeBinary),
    sa.Column("folded_spectrum", sa.LargeBinary),
    sa.Column("row_norms", sa.LargeBinary),
    sa.Column("column_norms", sa.LargeBinary),
    sa.Column("sketch", sa.LargeBinary),
    sa.Column("raw_sketch", sa.LargeBinary),
)

comparisons = sa.Table(
    "comparisons",
    metadata,
    sa.Column("fingerprint", SafeText, primary_key=True),
    sa.Column("baseline_fingerprint", SafeText, primary_key=True),
    sa.Column("metric_set", SafeText, primary_key=True),
    sa.Column("saved_at", UtcTimestamp, nullable=False),
    # JSON text as the scan process sends it: numbers that are not finite come back as they were.
    sa.Column("layers", SafeText, nullable=False),
)

refs = sa.Table(
    "refs",
    metadata,
    sa.Column("registry", SafeText, primary_key=True),
    sa.Column("model", SafeText, primary_key=True),
    sa.Column("ref", SafeText, primary_key=True),
    sa.Column("version_id", ROW_ID, sa.ForeignKey("versions.id"), nullable=False),
    sa.Column("moved_at", UtcTimestamp, nullable=False),
    sa.Index("ix_refs_version_id", "version_id"),
)

baseline_events = sa.Table(
    "baseline_events",
    metadata,
    sa.Column("id", ROW_ID, primary_key=True, autoincrement=True),
    sa.Column("registry", SafeText, nullable=False),
    sa.Column("model", SafeText, nullable=False),
    sa.Column("version", SafeText, nullable=False),
    sa.Column("fingerprint", SafeText, nullable=False),
    sa.Column("kind", SafeText, nullable=False),
    sa.Column("actor", SafeText, nullable=False),
    sa.Column("reason", SafeText, nullable=False),
    sa.Column("at", UtcTimestamp, nullable=False),
    sa.Index("ix_baseline_events_registry_model", "registry", "model"),
    sqlite_autoincrement=True,
)

alert_states = sa.Table(
    "alert_states",
    metadata,
    sa.Column("registry", SafeText, primary_key=True),
    sa.Column("model", SafeText, primary_key=True),
    sa.Column("ref", SafeText, primary_key=True),
    sa.Column("rule_group", SafeText, primary_key=True),
    sa.Column("phase", SafeText, nullable=False),
    sa.Column("episode", sa.Integer, nullable=False),
    sa.Column("version", SafeText, nullable=False),
    sa.Column("fingerprint", SafeText, nullable=False),
    sa.Column("severity", SafeText, nullable=False),
    sa.Column("layers", JSON, nullable=False),
    sa.Column("started_at", UtcTimestamp, nullable=False),
    sa.Column("sequence", sa.Integer, nullable=False),
    sa.Column("changed_at", UtcTimestamp, nullable=False),
    sa.Column("reason", SafeText, nullable=False),
    sa.Column("event_id", SafeText, nullable=False),
    sa.Column("rules", JSON, nullable=False),
    sa.Column("pending", JSON, nullable=False),
    sa.Column("acknowledged_by", SafeText),
    sa.Column("acknowledged_at", UtcTimestamp),
    sa.Column("acknowledged_reason", SafeText),
    # What messages tell about it: JSON text, made when it changed.
    sa.Column("told", SafeText),
)

# One row for each change of an alert's state: what must be told, written with the state.
alert_transitions = sa.Table(
    "alert_transitions",
    metadata,
    sa.Column("id", ROW_ID, primary_key=True, autoincrement=True),
    sa.Column("event_id", SafeText, nullable=False),
    sa.Column("registry", SafeText, nullable=False),
    sa.Column("model", SafeText, nullable=False),
    sa.Column("ref", SafeText, nullable=False),
    sa.Column("rule_group", SafeText, nullable=False),
    sa.Column("sequence", sa.Integer, nullable=False),
    sa.Column("episode", sa.Integer, nullable=False),
    sa.Column("phase", SafeText, nullable=False),
    sa.Column("reason", SafeText, nullable=False),
    sa.Column("severity", SafeText, nullable=False),
    sa.Column("version", SafeText, nullable=False),
    sa.Column("at", UtcTimestamp, nullable=False),
    sa.UniqueConstraint("event_id"),
    sa.Index("ix_alert_transitions_identity_sequence", "registry", "model", "ref", "rule_group", "sequence"),
    sa.Index("ix_alert_transitions_phase_at", "phase", "at"),
    sqlite_autoincrement=True,
)

# How far each receiver was told of each alert, and whether it believes it to fire.
alert_told = sa.Table(
    "alert_told",
    metadata,
    sa.Column("receiver", SafeText, primary_key=True),
    sa.Column("registry", SafeText, primary_key=True),
    sa.Column("model", SafeText, primary_key=True),
    sa.Column("ref", SafeText, primary_key=True),
    sa.Column("rule_group", SafeText, primary_key=True),
    sa.Column("sequence", sa.Integer, nullable=False),
    sa.Column("firing", sa.Boolean, nullable=False),
    sa.Column("group_key", SafeText, nullable=False),
)

# Alerts that are told together, and when they last were.
alert_groups = sa.Table(
    "alert_groups",
    metadata,
    sa.Column("key", SafeText, primary_key=True),
    sa.Column("receiver", SafeText, nullable=False),
    sa.Column("labels", JSON, nullable=False),
    sa.Column("told_at", UtcTimestamp, nullable=False),
    sa.Column("sequence", sa.Integer, nullable=False),
)

silences = sa.Table(
    "silences",
    metadata,
    sa.Column("id", ROW_ID, primary_key=True, autoincrement=True),
    sa.Column("matchers", JSON, nullable=False),
    sa.Column("author", SafeText, nullable=False),
    sa.Column("reason", SafeText, nullable=False),
    sa.Column("created_at", UtcTimestamp, nullable=False),
    sa.Column("starts_at", UtcTimestamp, nullable=False),
    sa.Column("ends_at", UtcTimestamp, nullable=False),
    sa.Column("expired_at", UtcTimestamp),
    sa.Column("expired_by", SafeText),
    sqlite_autoincrement=True,
)

outbox = sa.Table(
    "outbox",
    metadata,
    sa.Column("id", ROW_ID, primary_key=True, autoincrement=True),
    sa.Column("event_id", SafeText, nullable=False),
    sa.Column("receiver", SafeText, nullable=False),
    sa.Column("payload", SafeText, nullable=False),
    sa.Column("created_at", UtcTimestamp, nullable=False),
    sa.Column("attempts", sa.Integer, nullable=False),
    sa.Column("next_attempt_at", UtcTimestamp, nullable=False),
    sa.Column("failed_at", UtcTimestamp),
    sa.Column("delivered_at", UtcTimestamp),
    sa.Column("dead_at", UtcTimestamp),
    sa.Column("error_reason", SafeText),
    sa.Column("error_detail", SafeText),
    # Events of one stream to one receiver are delivered in their order; none is in a stream of its own.
    sa.Column("stream", SafeText),
    sa.Column("claimed_by", SafeText),
    sa.Column("claimed_at", UtcTimestamp),
    sa.UniqueConstraint("event_id", "receiver"),
    sqlite_autoincrement=True,
)

# Few of very many rows wait: indexes of those alone stay small.
_waiting = sa.and_(outbox.c.delivered_at.is_(None), outbox.c.dead_at.is_(None))
sa.Index(
    "ix_outbox_waiting",
    outbox.c.receiver,
    outbox.c.id,
    # Behind the payload in the row: read from here.
    outbox.c.created_at,
    sqlite_where=_waiting,
    postgresql_where=_waiting,
)
sa.Index(
    "ix_outbox_retry",
    outbox.c.receiver,
    outbox.c.next_attempt_at,
    sqlite_where=_waiting,
    postgresql_where=_waiting,
)
_streams = outbox.c.stream.is_not(None)
sa.Index(
    "ix_outbox_stream",
    outbox.c.stream,
    outbox.c.receiver,
    outbox.c.id,
    sqlite_where=_streams,
    postgresql_where=_streams,
)
_claimed = outbox.c.claimed_by.is_not(None)
sa.Index(
    "ix_outbox_claimed",
    outbox.c.receiver,
    outbox.c.claimed_at,
    sqlite_where=_claimed,
    postgresql_where=_claimed,
)
_delivered = outbox.c.delivered_at.is_not(None)
sa.Index(
    "ix_outbox_delivered",
    outbox.c.receiver,
    outbox.c.delivered_at,
    sqlite_where=_delivered,
    postgresql_where=_delivered,
)
_dead = outbox.c.dead_at.is_not(None)
sa.Index("ix_outbox_dead", outbox.c.receiver, outbox.c.dead_at, sqlite_where=_dead, postgresql_where=_dead)

# Who changed what. No secret is ever a part of it.
audit_log = sa.Table(
    "audit_log",
    metadata,
    sa.Column("id", ROW_ID, primary_key=True, autoincrement=True),
    sa.Column("at", UtcTimestamp, nullable=False),
    sa.Column("actor", SafeText, nullable=False),
    sa.Column("authentication", SafeText, nullable=False),
    sa.Column("action", SafeText, nullable=False),
    sa.Column("registry", SafeText),
    sa.Column("model", SafeText),
    sa.Column("version", SafeText),
    # What else it is about: the number of a silence or an event, the id of an alert, a receiver.
    sa.Column("subject", SafeText),
    sa.Column("reason", SafeText),
    sa.Column("outcome", SafeText, nullable=False),
    sa.Index("ix_audit_log_at", "at"),
    sqlite_autoincrement=True,
)

# One row: which daemon works here. Used where a lock may be lost without its holder, on a server.
daemon_terms = sa.Table(
    "daemon_terms",
    metadata,
    sa.Column("id", ROW_ID, primary_key=True, autoincrement=True),
    sa.Column("host", SafeText, nullable=False),
    sa.Column("process", sa.BigInteger, nullable=False),
    sa.Column("began_at", UtcTimestamp, nullable=False),
    sqlite_autoincrement=True,
)
