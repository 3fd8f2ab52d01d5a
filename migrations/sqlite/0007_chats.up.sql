-- Chats. room_id: the room of its messages. kind: 0 direct, 1 group. history: the messages that a new member
-- can read: 0 all, 1 those after joining. direct_key: of a direct chat, the sorted ids of its pair.
CREATE TABLE IF NOT EXISTS hubbub_chats (
    id BLOB NOT NULL PRIMARY KEY,
    room_id TEXT NOT NULL,
    kind INTEGER NOT NULL,
    name TEXT,
    history INTEGER NOT NULL,
    direct_key TEXT UNIQUE,
    created_by BLOB NOT NULL,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL
) STRICT;

-- The members of chats. role: 0 member, 1 owner. joined_seq: the last archived number of the room when the user
-- became a member.
CREATE TABLE IF NOT EXISTS hubbub_chat_members (
    chat_id BLOB NOT NULL,
    user_id BLOB NOT NULL,
    role INTEGER NOT NULL,
    joined_at INTEGER NOT NULL,
    joined_seq INTEGER NOT NULL,
    PRIMARY KEY (chat_id, user_id)
) STRICT, WITHOUT ROWID;

CREATE INDEX IF NOT EXISTS hubbub_chat_members_user ON hubbub_chat_members (user_id, chat_id);
