-- One-time tokens that were mailed, by their SHA-256. purpose: 0 verifies the address, 1 resets the
-- password. email_key: the address that the token was sent to.
CREATE TABLE IF NOT EXISTS hubbub_account_tokens (
    digest BINARY(32) NOT NULL PRIMARY KEY,
    user_id BINARY(16) NOT NULL,
    purpose BIGINT NOT NULL,
    email_key VARBINARY(1016) NOT NULL,
    expires_at BIGINT NOT NULL,
    KEY hubbub_account_tokens_user (user_id, purpose),
    KEY hubbub_account_tokens_expiry (expires_at)
) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- Accounts that were deleted, and how far their messages have been made anonymous. pass: the passes over
-- the messages that are complete. at_room, at_seq: the position of the one that runs.
CREATE TABLE IF NOT EXISTS hubbub_account_deletions (
    user_id BINARY(16) NOT NULL PRIMARY KEY,
    requested_at BIGINT NOT NULL,
    pass BIGINT NOT NULL,
    at_room BIGINT NOT NULL,
    at_seq BIGINT NOT NULL,
    messages BIGINT NOT NULL,
    finished_at BIGINT
) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
