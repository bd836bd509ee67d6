"""The outbox's SQL, which SQLite and PostgreSQL read alike."""

# ruff: noqa: S608 - what is put together here are constants

from __future__ import annotations

import sqlalchemy as sa

APPEND = sa.text(
    "INSERT INTO workflow_events_outbox (id, aggregatetype, aggregateid, type, payload, topic, conn_id, "
    "environment_is_default, size_bytes, created_at) "
    "SELECT :id, :aggregatetype, :aggregateid, :type, :payload, :topic, :conn_id, "
    "CAST(:environment_is_default AS INTEGER), CAST(:size_bytes AS INTEGER), "
    "CAST(:created_at AS DOUBLE PRECISION) "
    "FROM workflow_events_outbox_totals "
    "WHERE total_rows < :max_rows AND total_bytes + :size_bytes <= :max_bytes "
    "ON CONFLICT (aggregateid, id, conn_id, topic) DO NOTHING"
)
IS_IN = sa.text(
    "SELECT payload FROM workflow_events_outbox WHERE aggregateid = :aggregateid AND id = :id "
    "AND conn_id = :conn_id AND topic = :topic"
)
DROP_OLDEST = sa.text(
    "DELETE FROM workflow_events_outbox WHERE seq IN (SELECT seq FROM workflow_events_outbox "
    "WHERE lease IS NULL ORDER BY CASE WHEN parked_at IS NULL THEN 1 ELSE 0 END, seq LIMIT :count)"
)
TOTALS = sa.text("SELECT total_rows, total_bytes, parked_rows FROM workflow_events_outbox_totals")
# A route after another in their index, which is a look-up each however many entries there are.
NEXT_ROUTE = sa.text(
    "SELECT conn_id, topic FROM workflow_events_outbox WHERE parked_at IS NULL "
    "AND (conn_id, topic) > (:conn_id, :topic) ORDER BY conn_id, topic LIMIT 1"
)
FIRST_ROUTE = sa.text(
    "SELECT conn_id, topic FROM workflow_events_outbox WHERE parked_at IS NULL "
    "ORDER BY conn_id, topic LIMIT 1"
)
OF_ROUTE = "conn_id = :conn_id AND topic = :topic AND parked_at IS NULL"
OLDEST = sa.text(f"SELECT created_at FROM workflow_events_outbox WHERE {OF_ROUTE} ORDER BY seq LIMIT 1")
# What is claimed or backs off keeps what is behind it under the same key waiting: the order of a key holds.
CLAIMABLE = (
    "SELECT seq, id, aggregateid, payload, environment_is_default, attempts FROM workflow_events_outbox AS o "
    f"WHERE {OF_ROUTE} AND next_attempt_at <= :now {{of_key}} AND NOT EXISTS ("
    "SELECT 1 FROM workflow_events_outbox AS e WHERE e.aggregateid = o.aggregateid AND e.seq < o.seq "
    "AND e.parked_at IS NULL AND e.next_attempt_at > 0 AND e.next_attempt_at > :now "
    "AND e.conn_id = o.conn_id AND e.topic = o.topic) ORDER BY seq LIMIT :count"
)
CLAIM_ANY = sa.text(CLAIMABLE.format(of_key=""))
CLAIM_KEY = sa.text(CLAIMABLE.format(of_key="AND aggregateid = :key"))
# One statement for all of a batch.
LEASE = sa.text(
    "UPDATE workflow_events_outbox SET lease = :owner, next_attempt_at = :until WHERE seq IN :seqs"
).bindparams(sa.bindparam("seqs", expanding=True))
SETTLE = sa.text("DELETE FROM workflow_events_outbox WHERE seq IN :seqs").bindparams(
    sa.bindparam("seqs", expanding=True)
)
RETRY = sa.text(
    "UPDATE workflow_events_outbox SET lease = NULL, attempts = attempts + :failed, "
    "next_attempt_at = :at, last_error = coalesce(:error, last_error) WHERE seq = :seq AND lease = :owner"
)
PARK = sa.text(
    "UPDATE workflow_events_outbox SET lease = NULL, next_attempt_at = 0, parked_at = :now, "
    "last_error = :error, attempts = attempts + 1 WHERE seq = :seq AND lease = :owner"
)
EXPIRE = sa.text(
    "UPDATE workflow_events_outbox SET lease = NULL, next_attempt_at = 0, parked_at = :now, "
    "last_error = :error WHERE seq IN (SELECT seq FROM workflow_events_outbox "
    f"WHERE {OF_ROUTE} AND created_at < :before AND next_attempt_at <= :now ORDER BY seq LIMIT :count)"
)
PARKED = sa.text(
    "SELECT seq, id, type, aggregateid, conn_id, topic, last_error, parked_at FROM workflow_events_outbox "
    "WHERE parked_at IS NOT NULL ORDER BY parked_at LIMIT :count"
)
UNPARK = "UPDATE workflow_events_outbox SET parked_at = NULL, attempts = 0 WHERE parked_at IS NOT NULL"
DISCARD = "DELETE FROM workflow_events_outbox WHERE parked_at IS NOT NULL"
BEAT = sa.text(
    "INSERT INTO workflow_events_relays (owner, host, pid, seen_at) VALUES (:owner, :host, :pid, :now) "
    "ON CONFLICT (owner) DO UPDATE SET seen_at = excluded.seen_at"
)
