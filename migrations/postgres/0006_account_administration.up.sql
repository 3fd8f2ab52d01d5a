-- Actions of admins. actor: NULL for the command line. details: a JSON object.
CREATE TABLE IF NOT EXISTS hubbub_audit (
    id BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    at BIGINT NOT NULL,
    actor TEXT COLLATE "C",
    action TEXT COLLATE "C" NOT NULL,
    target TEXT COLLATE "C" NOT NULL,
    details TEXT COLLATE "C" NOT NULL
);

-- Tokens of bots, by their SHA-256. scopes: the sum of 1 read, 2 send, 4 publish, 8 chats, 16 admin.
CREATE TABLE IF NOT EXISTS hubbub_bot_tokens (
    id UUID NOT NULL PRIMARY KEY,
    user_id UUID NOT NULL,
    digest BYTEA NOT NULL UNIQUE,
    name TEXT COLLATE "C" NOT NULL,
    scopes BIGINT NOT NULL,
    created_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL,
    last_used_at BIGINT
);

CREATE INDEX IF NOT EXISTS hubbub_bot_tokens_user ON hubbub_bot_tokens (user_id, id);

-- Invitations that nobody has used, by the SHA-256 of their codes. email_key: the only address that may
-- sign up by it.
CREATE TABLE IF NOT EXISTS hubbub_invites (
    digest BYTEA NOT NULL PRIMARY KEY,
    email_key TEXT COLLATE "C",
    created_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL
);
