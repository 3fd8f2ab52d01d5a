-- Chats. room_id: the room of its messages. kind: 0 direct, 1 group. history: the messages that a new member
-- can read: 0 all, 1 those after joining. direct_key: of a direct chat, the sorted ids of its pair.
CREATE TABLE IF NOT EXISTS hubbub_chats (
    id UUID NOT NULL PRIMARY KEY,
    room_id TEXT COLLATE "C" NOT NULL,
    kind BIGINT NOT NULL,
    name TEXT COLLATE "C",
    history BIGINT NOT NULL,
    direct_key TEXT COLLATE "C" UNIQUE,
    created_by UUID NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL
);

-- The members of chats. role: 0 member, 1 owner. joined_seq: the last archived number of the room when the user
-- became a member.
CREATE TABLE IF NOT EXISTS hubbub_chat_members (
    chat_id UUID NOT NULL,
    user_id UUID NOT NULL,
    role BIGINT NOT NULL,
    joined_at BIGINT NOT NULL,
    joined_seq BIGINT NOT NULL,
    PRIMARY KEY (chat_id, user_id)
);

CREATE INDEX IF NOT EXISTS hubbub_chat_members_user ON hubbub_chat_members (user_id, chat_id);
