-- username_key and email_key: as they are compared. Those of a deleted account are NULL. role: 0 user,
-- 1 admin. search_key: both names in lower case. password: a PHC string, empty for an account that can't log in by a password.
CREATE TABLE IF NOT EXISTS hubbub_users (
    id BINARY(16) NOT NULL PRIMARY KEY,
    username VARBINARY(128) NOT NULL,
    username_key VARBINARY(128) UNIQUE,
    email VARBINARY(1016),
    email_key VARBINARY(1016) UNIQUE,
    email_verified_at BIGINT,
    display_name VARBINARY(512) NOT NULL,
    avatar_url VARBINARY(2048),
    status VARBINARY(512),
    search_key VARBINARY(1024) NOT NULL,
    role BIGINT NOT NULL,
    password VARBINARY(512) NOT NULL,
    disabled_at BIGINT,
    deleted_at BIGINT,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL
) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- Sessions that have not ended: the row of an ended one is deleted.
CREATE TABLE IF NOT EXISTS hubbub_sessions (
    id BINARY(16) NOT NULL PRIMARY KEY,
    user_id BINARY(16) NOT NULL,
    created_at BIGINT NOT NULL,
    last_used_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL,
    address VARBINARY(64) NOT NULL,
    user_agent VARBINARY(512) NOT NULL,
    KEY hubbub_sessions_user (user_id, last_used_at)
) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- Refresh tokens, by their SHA-256. used_at: when the token was first exchanged; then its successor is
-- the SHA-256 of the token and salt.
CREATE TABLE IF NOT EXISTS hubbub_refresh_tokens (
    digest BINARY(32) NOT NULL PRIMARY KEY,
    session_id BINARY(16) NOT NULL,
    issued_at BIGINT NOT NULL,
    used_at BIGINT,
    salt VARBINARY(32) NOT NULL,
    KEY hubbub_refresh_tokens_session (session_id, issued_at)
) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- Failed logins, by the SHA-256 of an account's name or of an address, since the time of the first.
CREATE TABLE IF NOT EXISTS hubbub_login_failures (
    subject BINARY(32) NOT NULL PRIMARY KEY,
    began_at BIGINT NOT NULL,
    failures BIGINT NOT NULL,
    KEY hubbub_login_failures_age (began_at)
) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
