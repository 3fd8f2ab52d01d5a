-- Messages that were changed. revision: of the last change. version: the seq of the last edit or deletion
-- that is published, NULL without one. edited_at: its time. deleted_thread: of a deleted reply, the id of the
-- root. reactions: a JSON array, as announced last, at reactions_seq. reactions_due_at: when they may be announced
-- next. reactions_row: the row of the outbox that will do it. pinned_seq: of the last announcement of the pin or its removal.
CREATE TABLE IF NOT EXISTS hubbub_messages (
    room_no INT NOT NULL,
    seq BIGINT NOT NULL,
    revision BIGINT NOT NULL DEFAULT 0,
    version BIGINT,
    edited_at BIGINT,
    deleted_by VARBINARY(128),
    deleted_thread VARBINARY(36),
    reactions MEDIUMBLOB,
    reactions_seq BIGINT,
    reactions_due_at BIGINT NOT NULL DEFAULT 0,
    reactions_row BIGINT,
    pinned_seq BIGINT,
    PRIMARY KEY (room_no, seq)
) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- Edits, deletions, pins and removed pins. kind: 1 edited, 2 deleted, 4 pinned, 5 unpinned. at: when it was
-- made, then when it was published. change_seq: of the announcement, NULL before it. outbox_id: the row that
-- announces it. form, record: of an edit, the content before it, as in hubbub_entries; empty otherwise, and once the
-- message is deleted or has many newer versions.
CREATE TABLE IF NOT EXISTS hubbub_message_changes (
    room_no INT NOT NULL,
    seq BIGINT NOT NULL,
    revision BIGINT NOT NULL,
    kind SMALLINT NOT NULL,
    form SMALLINT NOT NULL,
    at BIGINT NOT NULL,
    change_seq BIGINT,
    outbox_id BIGINT NOT NULL,
    user_id VARBINARY(128) NOT NULL,
    record MEDIUMBLOB NOT NULL,
    PRIMARY KEY (room_no, seq, revision)
) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

CREATE TABLE IF NOT EXISTS hubbub_reactions (
    room_no INT NOT NULL,
    seq BIGINT NOT NULL,
    emoji VARBINARY(64) NOT NULL,
    user_id VARBINARY(128) NOT NULL,
    at BIGINT NOT NULL,
    PRIMARY KEY (room_no, seq, emoji, user_id)
) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

CREATE TABLE IF NOT EXISTS hubbub_pins (
    room_no INT NOT NULL,
    seq BIGINT NOT NULL,
    user_id VARBINARY(128) NOT NULL,
    at BIGINT NOT NULL,
    PRIMARY KEY (room_no, seq)
) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- Replies that are not deleted. root_seq: the root of the thread; 0 if the archive does not have it.
CREATE TABLE IF NOT EXISTS hubbub_replies (
    room_no INT NOT NULL,
    root_seq BIGINT NOT NULL,
    seq BIGINT NOT NULL,
    user_id VARBINARY(128) NOT NULL,
    PRIMARY KEY (room_no, root_seq, seq),
    KEY hubbub_replies_seq (room_no, seq),
    KEY hubbub_replies_user (user_id, room_no, root_seq)
) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- Threads with replies that are not deleted. last_seq, last_at: the last of them. participants: a JSON array of
-- the authors of the first replies.
CREATE TABLE IF NOT EXISTS hubbub_threads (
    room_no INT NOT NULL,
    root_seq BIGINT NOT NULL,
    replies BIGINT NOT NULL,
    last_seq BIGINT NOT NULL,
    last_at BIGINT NOT NULL,
    root_user_id VARBINARY(128) NOT NULL,
    participants MEDIUMBLOB NOT NULL,
    PRIMARY KEY (room_no, root_seq),
    KEY hubbub_threads_root_user (root_user_id, room_no, root_seq)
) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- Users that messages mention which are not deleted. user_id: '@channel' for all members. author_id: of the
-- message.
CREATE TABLE IF NOT EXISTS hubbub_mentions (
    room_no INT NOT NULL,
    seq BIGINT NOT NULL,
    user_id VARBINARY(128) NOT NULL,
    author_id VARBINARY(128) NOT NULL,
    PRIMARY KEY (user_id, room_no, seq),
    KEY hubbub_mentions_seq (room_no, seq)
) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- How far users have read rooms. announced_row: the last row of the outbox that announces the position.
-- announce_after: the earliest time of the next one.
CREATE TABLE IF NOT EXISTS hubbub_positions (
    room_no INT NOT NULL,
    read_seq BIGINT NOT NULL,
    user_id VARBINARY(128) NOT NULL,
    at BIGINT NOT NULL,
    announced_row BIGINT,
    announce_after BIGINT NOT NULL DEFAULT 0,
    PRIMARY KEY (user_id, room_no),
    KEY hubbub_positions_room (room_no, user_id)
) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- How far users have read threads.
CREATE TABLE IF NOT EXISTS hubbub_thread_positions (
    room_no INT NOT NULL,
    root_seq BIGINT NOT NULL,
    read_seq BIGINT NOT NULL,
    user_id VARBINARY(128) NOT NULL,
    PRIMARY KEY (user_id, room_no, root_seq),
    KEY hubbub_thread_positions_root (room_no, root_seq)
) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- projected_seq: hubbub_unread_blocks has the messages of a room up to it. capped_seq: of a user that has read up
-- to it, or less, so many messages are unread that they are no longer counted; -1 if there is no such number.
-- seen_seq, seen_at: at this time the room had an entry of this number, behind a number that was missing.
CREATE TABLE IF NOT EXISTS hubbub_unread_rooms (
    room_no INT NOT NULL PRIMARY KEY,
    projected_seq BIGINT NOT NULL DEFAULT 0,
    capped_seq BIGINT NOT NULL DEFAULT -1,
    seen_seq BIGINT NOT NULL DEFAULT 0,
    seen_at BIGINT NOT NULL DEFAULT 0
) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- The messages that count as unread, neither deleted nor replies, in blocks of 512 numbers. map: which numbers
-- are messages, and whose.
CREATE TABLE IF NOT EXISTS hubbub_unread_blocks (
    room_no INT NOT NULL,
    block BIGINT NOT NULL,
    map MEDIUMBLOB NOT NULL,
    PRIMARY KEY (room_no, block)
) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;

-- Entries and groups that the last pass over the messages of a deleted account could not process.
CREATE TABLE IF NOT EXISTS hubbub_deletion_skips (
    user_id BINARY(16) NOT NULL PRIMARY KEY,
    skipped BIGINT NOT NULL
) ENGINE=InnoDB DEFAULT CHARACTER SET utf8mb4 COLLATE utf8mb4_bin;
