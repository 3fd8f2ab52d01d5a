-- Answers to requests with the header Idempotency-Key, kept for 24 hours. digest: SHA-256 of scope, route and
-- key. scope: the user's id, empty for a request without a user. body_digest: keyed with a secret of the
-- server, because a body may contain a password. state: 0 reserved, 1 answered. answer, redacted: encrypted
-- bodies of responses; redacted replaces answer once the content of subject is deleted.
CREATE TABLE IF NOT EXISTS hubbub_idempotency (
    digest BINARY(32) NOT NULL PRIMARY KEY,
    scope VARBINARY(128) NOT NULL,
    route VARBINARY(128) NOT NULL,
    body_digest BINARY(32) NOT NULL,
    state BIGINT NOT NULL,
    status BIGINT NOT NULL,
    answer MEDIUMBLOB NOT NULL,
    subject VARBINARY(128),
    redacted MEDIUMBLOB NOT NULL,
    created_at BIGINT NOT NULL,
    KEY hubbub_idempotency_age (created_at),
    KEY hubbub_idempotency_scope (scope),
    KEY hubbub_idempotency_subject (subject)
) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
