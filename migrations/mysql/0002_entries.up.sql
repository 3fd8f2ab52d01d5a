-- InnoDB clusters a table by its key, so that the entries of a room lie together. send_key: empty without
-- a key. form: what is left out of record, because other columns have it.
CREATE TABLE IF NOT EXISTS hubbub_entries (
    room_no INT NOT NULL,
    epoch_no INT NOT NULL,
    seq BIGINT NOT NULL,
    at BIGINT NOT NULL,
    kind SMALLINT NOT NULL,
    form SMALLINT NOT NULL,
    id BINARY(16) NOT NULL,
    user_id VARBINARY(128) NOT NULL,
    send_key VARBINARY(64) NOT NULL,
    record MEDIUMBLOB NOT NULL,
    PRIMARY KEY (room_no, seq),
    UNIQUE KEY hubbub_entries_id (id)
) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
