-- Announcements and jobs that wait to be published or run; the row of one that is done is deleted.
-- room_id: where it is published, NULL for a job. payload: a JSON object. due_at, lease_until: milliseconds
-- since 1970. state: 0 waits, 1 failed. tried_since: when it was first claimed. reason: of the last attempt.
CREATE TABLE IF NOT EXISTS hubbub_outbox (
    id BIGINT NOT NULL AUTO_INCREMENT PRIMARY KEY,
    room_id VARBINARY(128),
    type VARBINARY(128) NOT NULL,
    payload MEDIUMBLOB NOT NULL,
    dedupe_key VARBINARY(128),
    due_at BIGINT NOT NULL DEFAULT 0,
    state BIGINT NOT NULL DEFAULT 0,
    lease_until BIGINT NOT NULL DEFAULT 0,
    attempts BIGINT NOT NULL DEFAULT 0,
    tried_since BIGINT,
    reason VARBINARY(1024),
    KEY hubbub_outbox_due (state, due_at, id),
    KEY hubbub_outbox_room (room_id, id),
    KEY hubbub_outbox_type (state, type, id)
) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
