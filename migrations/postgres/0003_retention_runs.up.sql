-- The reports of retention. reported_at: when a run last recorded its progress. finished_at is NULL while
-- it is under way, and if it was interrupted.
CREATE TABLE IF NOT EXISTS hubbub_retention_runs (
    id UUID NOT NULL PRIMARY KEY,
    started_at BIGINT NOT NULL,
    reported_at BIGINT NOT NULL,
    finished_at BIGINT,
    cutoff BIGINT NOT NULL,
    rooms BIGINT NOT NULL,
    entries BIGINT NOT NULL,
    bytes BIGINT NOT NULL
);
