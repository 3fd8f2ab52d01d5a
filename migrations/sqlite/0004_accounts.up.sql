-- username_key and email_key: as they are compared. Those of a deleted account are NULL. role: 0 user,
-- 1 admin. search_key: both names in lower case. password: a PHC string, empty for an account that can't log in by a password.
CREATE TABLE IF NOT EXISTS hubbub_users (
    id BLOB NOT NULL PRIMARY KEY,
    username TEXT NOT NULL,
    username_key TEXT UNIQUE,
    email TEXT,
    email_key TEXT UNIQUE,
    email_verified_at INTEGER,
    display_name TEXT NOT NULL,
    avatar_url TEXT,
    status TEXT,
    search_key TEXT NOT NULL,
    role INTEGER NOT NULL,
    password TEXT NOT NULL,
    disabled_at INTEGER,
    deleted_at INTEGER,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL
) STRICT;

-- Sessions that have not ended: the row of an ended one is deleted.
CREATE TABLE IF NOT EXISTS hubbub_sessions (
    id BLOB NOT NULL PRIMARY KEY,
    user_id BLOB NOT NULL,
    created_at INTEGER NOT NULL,
    last_used_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL,
    address TEXT NOT NULL,
    user_agent TEXT NOT NULL
) STRICT;

CREATE INDEX IF NOT EXISTS hubbub_sessions_user ON hubbub_sessions (user_id, last_used_at);

-- Refresh tokens, by their SHA-256. used_at: when the token was first exchanged; then its successor is
-- the SHA-256 of the token and salt.
CREATE TABLE IF NOT EXISTS hubbub_refresh_tokens (
    digest BLOB NOT NULL PRIMARY KEY,
    session_id BLOB NOT NULL,
    issued_at INTEGER NOT NULL,
    used_at INTEGER,
    salt BLOB NOT NULL
) STRICT;

CREATE INDEX IF NOT EXISTS hubbub_refresh_tokens_session ON hubbub_refresh_tokens (session_id, issued_at);

-- Failed logins, by the SHA-256 of an account's name or of an address, since the time of the first.
CREATE TABLE IF NOT EXISTS hubbub_login_failures (
    subject BLOB NOT NULL PRIMARY KEY,
    began_at INTEGER NOT NULL,
    failures INTEGER NOT NULL
) STRICT;

CREATE INDEX IF NOT EXISTS hubbub_login_failures_age ON hubbub_login_failures (began_at);
