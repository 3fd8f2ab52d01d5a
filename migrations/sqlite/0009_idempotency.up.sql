-- Answers to requests with the header Idempotency-Key, kept for 24 hours. digest: SHA-256 of scope, route and
-- key. scope: the user's id, empty for a request without a user. body_digest: keyed with a secret of the
-- server, because a body may contain a password. state: 0 reserved, 1 answered. answer, redacted: encrypted
-- bodies of responses; redacted replaces answer once the content of subject is deleted.
CREATE TABLE IF NOT EXISTS hubbub_idempotency (
    digest BLOB NOT NULL PRIMARY KEY,
    scope TEXT NOT NULL,
    route TEXT NOT NULL,
    body_digest BLOB NOT NULL,
    state INTEGER NOT NULL,
    status INTEGER NOT NULL,
    answer BLOB NOT NULL,
    subject TEXT,
    redacted BLOB NOT NULL,
    created_at INTEGER NOT NULL
) STRICT;

CREATE INDEX IF NOT EXISTS hubbub_idempotency_age ON hubbub_idempotency (created_at);

CREATE INDEX IF NOT EXISTS hubbub_idempotency_scope ON hubbub_idempotency (scope);

CREATE INDEX IF NOT EXISTS hubbub_idempotency_subject ON hubbub_idempotency (subject);
