-- Actions of admins. actor: NULL for the command line. details: a JSON object.
CREATE TABLE IF NOT EXISTS hubbub_audit (
    id BIGINT NOT NULL AUTO_INCREMENT PRIMARY KEY,
    at BIGINT NOT NULL,
    actor VARBINARY(36),
    action VARBINARY(64) NOT NULL,
    target VARBINARY(64) NOT NULL,
    details VARBINARY(4096) NOT NULL
) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- Tokens of bots, by their SHA-256. scopes: the sum of 1 read, 2 send, 4 publish, 8 chats, 16 admin.
CREATE TABLE IF NOT EXISTS hubbub_bot_tokens (
    id BINARY(16) NOT NULL PRIMARY KEY,
    user_id BINARY(16) NOT NULL,
    digest BINARY(32) NOT NULL UNIQUE,
    name VARBINARY(512) NOT NULL,
    scopes BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL,
    last_used_at BIGINT,
    KEY hubbub_bot_tokens_user (user_id, id)
) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- Invitations that nobody has used, by the SHA-256 of their codes. email_key: the only address that may
-- sign up by it.
CREATE TABLE IF NOT EXISTS hubbub_invites (
    digest BINARY(32) NOT NULL PRIMARY KEY,
    email_key VARBINARY(1016),
    created_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL
) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
