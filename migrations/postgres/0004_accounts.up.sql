-- username_key and email_key: as they are compared. Those of a deleted account are NULL. role: 0 user,
-- 1 admin. search_key: both names in lower case. password: a PHC string, empty for an account that can't log in by a password.
CREATE TABLE IF NOT EXISTS hubbub_users (
    id UUID NOT NULL PRIMARY KEY,
    username TEXT COLLATE "C" NOT NULL,
    username_key TEXT COLLATE "C" UNIQUE,
    email TEXT COLLATE "C",
    email_key TEXT COLLATE "C" UNIQUE,
    email_verified_at BIGINT,
    display_name TEXT COLLATE "C" NOT NULL,
    avatar_url TEXT COLLATE "C",
    status TEXT COLLATE "C",
    search_key TEXT COLLATE "C" NOT NULL,
    role BIGINT NOT NULL,
    password TEXT COLLATE "C" NOT NULL,
    disabled_at BIGINT,
    deleted_at BIGINT,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL
);

-- Sessions that have not ended: the row of an ended one is deleted.
CREATE TABLE IF NOT EXISTS hubbub_sessions (
    id UUID NOT NULL PRIMARY KEY,
    user_id UUID NOT NULL,
    created_at BIGINT NOT NULL,
    last_used_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL,
    address TEXT COLLATE "C" NOT NULL,
    user_agent TEXT COLLATE "C" NOT NULL
);

CREATE INDEX IF NOT EXISTS hubbub_sessions_user ON hubbub_sessions (user_id, last_used_at);

-- Refresh tokens, by their SHA-256. used_at: when the token was first exchanged; then its successor is
-- the SHA-256 of the token and salt.
CREATE TABLE IF NOT EXISTS hubbub_refresh_tokens (
    digest BYTEA NOT NULL PRIMARY KEY,
    session_id UUID NOT NULL,
    issued_at BIGINT NOT NULL,
    used_at BIGINT,
    salt BYTEA NOT NULL
);

CREATE INDEX IF NOT EXISTS hubbub_refresh_tokens_session ON hubbub_refresh_tokens (session_id, issued_at);

-- Failed logins, by the SHA-256 of an account's name or of an address, since the time of the first.
CREATE TABLE IF NOT EXISTS hubbub_login_failures (
    subject BYTEA NOT NULL PRIMARY KEY,
    began_at BIGINT NOT NULL,
    failures BIGINT NOT NULL
);

CREATE INDEX IF NOT EXISTS hubbub_login_failures_age ON hubbub_login_failures (began_at);
