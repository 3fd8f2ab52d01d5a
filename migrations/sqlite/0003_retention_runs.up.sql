-- The reports of retention. finished_at is NULL while a run is under way or was interrupted.
CREATE TABLE IF NOT EXISTS hubbub_retention_runs (
    id BLOB NOT NULL PRIMARY KEY,
    started_at INTEGER NOT NULL,
    finished_at INTEGER,
    cutoff INTEGER NOT NULL,
    rooms INTEGER NOT NULL,
    entries INTEGER NOT NULL,
    bytes INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
