-- Actions of admins. actor: NULL for the command line. details: a JSON object.
CREATE TABLE IF NOT EXISTS hubbub_audit (
    id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT,
    at INTEGER NOT NULL,
    actor TEXT,
    action TEXT NOT NULL,
    target TEXT NOT NULL,
    details TEXT NOT NULL
) STRICT;

-- Tokens of bots, by their SHA-256. scopes: the sum of 1 read, 2 send, 4 publish, 8 chats, 16 admin.
CREATE TABLE IF NOT EXISTS hubbub_bot_tokens (
    id BLOB NOT NULL PRIMARY KEY,
    user_id BLOB NOT NULL,
    digest BLOB NOT NULL UNIQUE,
    name TEXT NOT NULL,
    scopes INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL,
    last_used_at INTEGER
) STRICT;

CREATE INDEX IF NOT EXISTS hubbub_bot_tokens_user ON hubbub_bot_tokens (user_id, id);

-- Invitations that nobody has used, by the SHA-256 of their codes. email_key: the only address that may
-- sign up by it.
CREATE TABLE IF NOT EXISTS hubbub_invites (
    digest BLOB NOT NULL PRIMARY KEY,
    email_key TEXT,
    created_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL
) STRICT;
