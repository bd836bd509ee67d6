-- The first five columns are those of Debezium's outbox event router; the rest is the relay's.
CREATE TABLE workflow_events_outbox (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL,
    aggregatetype TEXT NOT NULL,
    aggregateid TEXT NOT NULL,
    type TEXT NOT NULL,
    payload TEXT NOT NULL,
    topic TEXT NOT NULL,
    conn_id TEXT NOT NULL,
    environment_is_default INTEGER NOT NULL,
    size_bytes INTEGER NOT NULL,
    created_at REAL NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 0,
    next_attempt_at REAL NOT NULL DEFAULT 0,
    lease TEXT,
    last_error TEXT,
    parked_at REAL
);
--;
-- An event is in it once per route. Ids are random, and so would be the pages that taking out a batch touches;
-- what happened together lies together by its run.
CREATE UNIQUE INDEX workflow_events_outbox_once ON workflow_events_outbox (aggregateid, id, conn_id, topic);
--;
CREATE INDEX workflow_events_outbox_route ON workflow_events_outbox (conn_id, topic, seq) WHERE parked_at IS NULL;
--;
-- Only what is leased or waits for its next attempt, so that looking for what blocks a key stays cheap.
CREATE INDEX workflow_events_outbox_busy ON workflow_events_outbox (aggregateid, seq)
    WHERE parked_at IS NULL AND next_attempt_at > 0;
--;
CREATE INDEX workflow_events_outbox_parked ON workflow_events_outbox (parked_at) WHERE parked_at IS NOT NULL;
--;
-- Kept by triggers: counting a million rows at every append would slow it.
CREATE TABLE workflow_events_outbox_totals (
    only_row INTEGER PRIMARY KEY CHECK (only_row = 1),
    total_rows INTEGER NOT NULL,
    total_bytes INTEGER NOT NULL,
    parked_rows INTEGER NOT NULL
);
--;
INSERT INTO workflow_events_outbox_totals VALUES (1, 0, 0, 0);
--;
CREATE TRIGGER workflow_events_outbox_added AFTER INSERT ON workflow_events_outbox BEGIN
    UPDATE workflow_events_outbox_totals
    SET total_rows = total_rows + 1, total_bytes = total_bytes + NEW.size_bytes;
END;
--;
CREATE TRIGGER workflow_events_outbox_removed AFTER DELETE ON workflow_events_outbox BEGIN
    UPDATE workflow_events_outbox_totals
    SET total_rows = total_rows - 1, total_bytes = total_bytes - OLD.size_bytes,
        parked_rows = parked_rows - (OLD.parked_at IS NOT NULL);
END;
--;
CREATE TRIGGER workflow_events_outbox_moved AFTER UPDATE OF parked_at ON workflow_events_outbox BEGIN
    UPDATE workflow_events_outbox_totals
    SET parked_rows = parked_rows + (NEW.parked_at IS NOT NULL) - (OLD.parked_at IS NOT NULL);
END;
--;
CREATE TABLE workflow_events_relays (
    owner TEXT PRIMARY KEY,
    host TEXT NOT NULL,
    pid INTEGER NOT NULL,
    seen_at REAL NOT NULL
);
