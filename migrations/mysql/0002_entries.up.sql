-- InnoDB clusters a table by its key, so that the entries of a room lie together.
CREATE TABLE IF NOT EXISTS hubbub_entries (
    room_no BIGINT NOT NULL,
    seq BIGINT NOT NULL,
    at BIGINT NOT NULL,
    epoch_no BIGINT NOT NULL,
    kind BIGINT NOT NULL,
    id BINARY(16) NOT NULL,
    user_id VARBINARY(128) NOT NULL,
    send_key VARBINARY(64),
    record MEDIUMBLOB NOT NULL,
    PRIMARY KEY (room_no, seq),
    UNIQUE KEY hubbub_entries_id (id)
) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
