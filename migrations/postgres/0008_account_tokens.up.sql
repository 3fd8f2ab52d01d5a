-- One-time tokens that were mailed, by their SHA-256. purpose: 0 verifies the address, 1 resets the
-- password. email_key: the address that the token was sent to.
CREATE TABLE IF NOT EXISTS hubbub_account_tokens (
    digest BYTEA NOT NULL PRIMARY KEY,
    user_id UUID NOT NULL,
    purpose BIGINT NOT NULL,
    email_key TEXT COLLATE "C" NOT NULL,
    expires_at BIGINT NOT NULL
);

CREATE INDEX IF NOT EXISTS hubbub_account_tokens_user ON hubbub_account_tokens (user_id, purpose);

CREATE INDEX IF NOT EXISTS hubbub_account_tokens_expiry ON hubbub_account_tokens (expires_at);

-- Accounts that were deleted, and how far their messages have been made anonymous. pass: the passes over
-- the messages that are complete. at_room, at_seq: the position of the one that runs.
CREATE TABLE IF NOT EXISTS hubbub_account_deletions (
    user_id UUID NOT NULL PRIMARY KEY,
    requested_at BIGINT NOT NULL,
    pass BIGINT NOT NULL,
    at_room BIGINT NOT NULL,
    at_seq BIGINT NOT NULL,
    messages BIGINT NOT NULL,
    finished_at BIGINT
);
