-- The first five columns are those of Debezium's outbox event router; the rest is the relay's.
CREATE TABLE workflow_events_outbox (
    seq BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    id TEXT NOT NULL,
    aggregatetype TEXT NOT NULL,
    aggregateid TEXT NOT NULL,
    type TEXT NOT NULL,
    payload TEXT NOT NULL,
    topic TEXT NOT NULL,
    conn_id TEXT NOT NULL,
    environment_is_default INTEGER NOT NULL,
    size_bytes INTEGER NOT NULL,
    created_at DOUBLE PRECISION NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 0,
    next_attempt_at DOUBLE PRECISION NOT NULL DEFAULT 0,
    lease TEXT,
    last_error TEXT,
    parked_at DOUBLE PRECISION
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
    total_rows BIGINT NOT NULL,
    total_bytes BIGINT NOT NULL,
    parked_rows BIGINT NOT NULL
);
--;
INSERT INTO workflow_events_outbox_totals VALUES (1, 0, 0, 0);
--;
CREATE FUNCTION workflow_events_outbox_added() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    UPDATE workflow_events_outbox_totals SET
        total_rows = total_rows + (SELECT count(*) FROM added),
        total_bytes = total_bytes + (SELECT coalesce(sum(size_bytes), 0) FROM added)
    WHERE EXISTS (SELECT 1 FROM added);
    RETURN NULL;
END $$;
--;
CREATE FUNCTION workflow_events_outbox_removed() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    UPDATE workflow_events_outbox_totals SET
        total_rows = total_rows - (SELECT count(*) FROM removed),
        total_bytes = total_bytes - (SELECT coalesce(sum(size_bytes), 0) FROM removed),
        parked_rows = parked_rows - (SELECT count(parked_at) FROM removed)
    WHERE EXISTS (SELECT 1 FROM removed);
    RETURN NULL;
END $$;
--;
CREATE FUNCTION workflow_events_outbox_moved() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    UPDATE workflow_events_outbox_totals SET parked_rows = parked_rows
        + CASE WHEN NEW.parked_at IS NOT NULL THEN 1 ELSE 0 END
        - CASE WHEN OLD.parked_at IS NOT NULL THEN 1 ELSE 0 END;
    RETURN NULL;
END $$;
--;
CREATE TRIGGER workflow_events_outbox_added AFTER INSERT ON workflow_events_outbox
    REFERENCING NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION workflow_events_outbox_added();
--;
CREATE TRIGGER workflow_events_outbox_removed AFTER DELETE ON workflow_events_outbox
    REFERENCING OLD TABLE AS removed FOR EACH STATEMENT EXECUTE FUNCTION workflow_events_outbox_removed();
--;
CREATE TRIGGER workflow_events_outbox_moved AFTER UPDATE OF parked_at ON workflow_events_outbox
    FOR EACH ROW WHEN (OLD.parked_at IS DISTINCT FROM NEW.parked_at)
    EXECUTE FUNCTION workflow_events_outbox_moved();
--;
CREATE TABLE workflow_events_relays (
    owner TEXT PRIMARY KEY,
    host TEXT NOT NULL,
    pid INTEGER NOT NULL,
    seen_at DOUBLE PRECISION NOT NULL
);
