CREATE TABLE IF NOT EXISTS hubbub_entries (
    room_no BIGINT NOT NULL,
    seq BIGINT NOT NULL,
    at BIGINT NOT NULL,
    epoch_no BIGINT NOT NULL,
    kind BIGINT NOT NULL,
    id UUID NOT NULL,
    user_id TEXT COLLATE "C" NOT NULL,
    send_key BYTEA,
    record BYTEA NOT NULL,
    PRIMARY KEY (room_no, seq)
);

CREATE UNIQUE INDEX IF NOT EXISTS hubbub_entries_id ON hubbub_entries (id);
