-- The columns are ordered so that none needs padding, and none may be NULL, which saves the bitmap: each
-- row is some 400 bytes. send_key: empty without a key. form: what is left out of record, because other
-- columns have it.
CREATE TABLE IF NOT EXISTS hubbub_entries (
    room_no INT NOT NULL,
    epoch_no INT NOT NULL,
    seq BIGINT NOT NULL,
    at BIGINT NOT NULL,
    kind SMALLINT NOT NULL,
    form SMALLINT NOT NULL,
    id UUID NOT NULL,
    user_id TEXT COLLATE "C" NOT NULL,
    send_key BYTEA NOT NULL,
    record BYTEA NOT NULL,
    PRIMARY KEY (room_no, seq)
);

-- Ids ascend with time, so that pages are filled once and never split.
CREATE UNIQUE INDEX IF NOT EXISTS hubbub_entries_id ON hubbub_entries (id) WITH (fillfactor = 100);
