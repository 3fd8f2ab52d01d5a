-- Chats. room_id: the room of its messages. kind: 0 direct, 1 group. history: the messages that a new member
-- can read: 0 all, 1 those after joining. direct_key: of a direct chat, the sorted ids of its pair.
CREATE TABLE IF NOT EXISTS hubbub_chats (
    id BINARY(16) NOT NULL PRIMARY KEY,
    room_id VARBINARY(128) NOT NULL,
    kind BIGINT NOT NULL,
    name VARBINARY(512),
    history BIGINT NOT NULL,
    direct_key VARBINARY(128) UNIQUE,
    created_by BINARY(16) NOT NULL,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL
) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- The members of chats. role: 0 member, 1 owner. joined_seq: the last archived number of the room when the user
-- became a member.
CREATE TABLE IF NOT EXISTS hubbub_chat_members (
    chat_id BINARY(16) NOT NULL,
    user_id BINARY(16) NOT NULL,
    role BIGINT NOT NULL,
    joined_at BIGINT NOT NULL,
    joined_seq BIGINT NOT NULL,
    PRIMARY KEY (chat_id, user_id),
    KEY hubbub_chat_members_user (user_id, chat_id)
) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
