-- One-time tokens that were mailed, by their SHA-256. purpose: 0 verifies the address, 1 resets the
-- password. email_key: the address that the token was sent to.
CREATE TABLE IF NOT EXISTS hubbub_account_tokens (
    digest BLOB NOT NULL PRIMARY KEY,
    user_id BLOB NOT NULL,
    purpose INTEGER NOT NULL,
    email_key TEXT NOT NULL,
    expires_at INTEGER NOT NULL
) STRICT;

CREATE INDEX IF NOT EXISTS hubbub_account_tokens_user ON hubbub_account_tokens (user_id, purpose);

CREATE INDEX IF NOT EXISTS hubbub_account_tokens_expiry ON hubbub_account_tokens (expires_at);

-- Accounts that were deleted, and how far their messages have been made anonymous. pass: the passes over
-- the messages that are complete. at_room, at_seq: the position of the one that runs.
CREATE TABLE IF NOT EXISTS hubbub_account_deletions (
    user_id BLOB NOT NULL PRIMARY KEY,
    requested_at INTEGER NOT NULL,
    pass INTEGER NOT NULL,
    at_room INTEGER NOT NULL,
    at_seq INTEGER NOT NULL,
    messages INTEGER NOT NULL,
    finished_at INTEGER
) STRICT;
