-- Announcements and jobs that wait to be published or run; the row of one that is done is deleted.
-- room_id: where it is published, NULL for a job. payload: a JSON object. due_at, lease_until: milliseconds
-- since 1970. state: 0 waits, 1 failed. tried_since: when it was first claimed. reason: of the last attempt.
CREATE TABLE IF NOT EXISTS hubbub_outbox (
    id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    room_id TEXT,
    type TEXT NOT NULL,
    payload TEXT NOT NULL,
    dedupe_key TEXT,
    due_at INTEGER NOT NULL DEFAULT 0,
    state INTEGER NOT NULL DEFAULT 0,
    lease_until INTEGER NOT NULL DEFAULT 0,
    attempts INTEGER NOT NULL DEFAULT 0,
    tried_since INTEGER,
    reason TEXT
) STRICT;

CREATE INDEX IF NOT EXISTS hubbub_outbox_due ON hubbub_outbox (state, due_at, id);

CREATE INDEX IF NOT EXISTS hubbub_outbox_room ON hubbub_outbox (room_id, id);

CREATE INDEX IF NOT EXISTS hubbub_outbox_type ON hubbub_outbox (state, type, id);
