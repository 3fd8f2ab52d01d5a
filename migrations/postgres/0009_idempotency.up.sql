-- Answers to requests with the header Idempotency-Key, kept for 24 hours. digest: SHA-256 of scope, route and
-- key. scope: the user's id, empty for a request without a user. body_digest: keyed with a secret of the
-- server, because a body may contain a password. state: 0 reserved, 1 answered. answer, redacted: encrypted
-- bodies of responses; redacted replaces answer once the content of subject is deleted.
CREATE TABLE IF NOT EXISTS hubbub_idempotency (
    digest BYTEA NOT NULL PRIMARY KEY,
    scope TEXT COLLATE "C" NOT NULL,
    route TEXT COLLATE "C" NOT NULL,
    body_digest BYTEA NOT NULL,
    state BIGINT NOT NULL,
    status BIGINT NOT NULL,
    answer BYTEA NOT NULL,
    subject TEXT COLLATE "C",
    redacted BYTEA NOT NULL,
    created_at BIGINT NOT NULL
);

CREATE INDEX IF NOT EXISTS hubbub_idempotency_age ON hubbub_idempotency (created_at);

CREATE INDEX IF NOT EXISTS hubbub_idempotency_scope ON hubbub_idempotency (scope);

CREATE INDEX IF NOT EXISTS hubbub_idempotency_subject ON hubbub_idempotency (subject);
