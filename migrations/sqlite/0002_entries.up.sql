-- Clustered by its key, so that the entries of a room lie together. send_key: empty without a key. form:
-- what is left out of record, because other columns have it.
CREATE TABLE IF NOT EXISTS hubbub_entries (
    room_no INTEGER NOT NULL,
    epoch_no INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    at INTEGER NOT NULL,
    kind INTEGER NOT NULL,
    form INTEGER NOT NULL,
    id BLOB NOT NULL,
    user_id TEXT NOT NULL,
    send_key BLOB NOT NULL,
    record BLOB NOT NULL,
    PRIMARY KEY (room_no, seq)
) STRICT, WITHOUT ROWID;

CREATE UNIQUE INDEX IF NOT EXISTS hubbub_entries_id ON hubbub_entries (id);
