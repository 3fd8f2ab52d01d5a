-- Clustered by its key, so that the entries of a room lie together.
CREATE TABLE IF NOT EXISTS hubbub_entries (
    room_no INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    at INTEGER NOT NULL,
    epoch_no INTEGER NOT NULL,
    kind INTEGER NOT NULL,
    id BLOB NOT NULL,
    user_id TEXT NOT NULL,
    send_key BLOB,
    record BLOB NOT NULL,
    PRIMARY KEY (room_no, seq)
) STRICT, WITHOUT ROWID;

CREATE UNIQUE INDEX IF NOT EXISTS hubbub_entries_id ON hubbub_entries (id);
