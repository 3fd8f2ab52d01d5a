-- The reports of retention. reported_at: when a run last recorded its progress. finished_at is NULL while
-- it is under way, and if it was interrupted.
CREATE TABLE IF NOT EXISTS hubbub_retention_runs (
    id BLOB NOT NULL PRIMARY KEY,
    started_at INTEGER NOT NULL,
    reported_at INTEGER NOT NULL,
    finished_at INTEGER,
    cutoff INTEGER NOT NULL,
    rooms INTEGER NOT NULL,
    entries INTEGER NOT NULL,
    bytes INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
