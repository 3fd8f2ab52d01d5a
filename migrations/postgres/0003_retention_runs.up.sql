-- The reports of retention. finished_at is NULL while a run is under way or was interrupted.
CREATE TABLE IF NOT EXISTS hubbub_retention_runs (
    id UUID NOT NULL PRIMARY KEY,
    started_at BIGINT NOT NULL,
    finished_at BIGINT,
    cutoff BIGINT NOT NULL,
    rooms BIGINT NOT NULL,
    entries BIGINT NOT NULL,
    bytes BIGINT NOT NULL
);
