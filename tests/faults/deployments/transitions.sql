-- Every committed change of a run's or a task instance's state, with the process that made it: a process names
-- itself by PGAPPNAME. A change that is rolled back takes its row with it.
CREATE TABLE seen_transitions (
    id bigserial PRIMARY KEY,
    at timestamptz NOT NULL DEFAULT clock_timestamp(),
    made_by text NOT NULL DEFAULT current_setting('application_name'),
    transaction bigint NOT NULL DEFAULT txid_current(),
    dag_id text NOT NULL,
    run_id text NOT NULL,
    task_id text,
    map_index integer,
    try_number integer,
    operator text,
    previous text,
    state text,
    queued_at timestamptz,
    started_at timestamptz,
    ended_at timestamptz,
    clear_number integer,
    run_type text
);

CREATE FUNCTION see_run() RETURNS trigger AS $$
BEGIN
    INSERT INTO seen_transitions
        (dag_id, run_id, previous, state, queued_at, started_at, ended_at, clear_number, run_type)
    VALUES (NEW.dag_id, NEW.run_id, CASE WHEN TG_OP = 'UPDATE' THEN OLD.state END, NEW.state, NEW.queued_at,
            NEW.start_date, NEW.end_date, NEW.clear_number, NEW.run_type);
    RETURN NULL;
END $$ LANGUAGE plpgsql;

CREATE FUNCTION see_task() RETURNS trigger AS $$
BEGIN
    INSERT INTO seen_transitions
        (dag_id, run_id, task_id, map_index, try_number, operator, previous, state, queued_at, started_at, ended_at)
    VALUES (NEW.dag_id, NEW.run_id, NEW.task_id, NEW.map_index, NEW.try_number, NEW.operator,
            CASE WHEN TG_OP = 'UPDATE' THEN OLD.state END, NEW.state, NEW.queued_dttm, NEW.start_date, NEW.end_date);
    RETURN NULL;
END $$ LANGUAGE plpgsql;

CREATE TRIGGER see_new_run AFTER INSERT ON dag_run FOR EACH ROW EXECUTE FUNCTION see_run();
CREATE TRIGGER see_run AFTER UPDATE ON dag_run FOR EACH ROW
    WHEN ((OLD.state, OLD.start_date, OLD.end_date) IS DISTINCT FROM (NEW.state, NEW.start_date, NEW.end_date))
    EXECUTE FUNCTION see_run();
CREATE TRIGGER see_new_task AFTER INSERT ON task_instance FOR EACH ROW
    WHEN (NEW.state IS NOT NULL) EXECUTE FUNCTION see_task();
CREATE TRIGGER see_task AFTER UPDATE ON task_instance FOR EACH ROW
    WHEN ((OLD.state, OLD.start_date, OLD.end_date) IS DISTINCT FROM (NEW.state, NEW.start_date, NEW.end_date))
    EXECUTE FUNCTION see_task();
