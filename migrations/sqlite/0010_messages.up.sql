-- Messages that were changed. revision: of the last change. version: the seq of the last edit or deletion
-- that is published, NULL without one. edited_at: its time. deleted_thread: of a deleted reply, the id of the
-- root. reactions: a JSON array, as announced last, at reactions_seq. reactions_due_at: when they may be announced
-- next. reactions_row: the row of the outbox that will do it. pinned_seq: of the last announcement of the pin or its removal.
CREATE TABLE IF NOT EXISTS hubbub_messages (
    room_no INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    revision INTEGER NOT NULL DEFAULT 0,
    version INTEGER,
    edited_at INTEGER,
    deleted_by TEXT,
    deleted_thread TEXT,
    reactions TEXT,
    reactions_seq INTEGER,
    reactions_due_at INTEGER NOT NULL DEFAULT 0,
    reactions_row INTEGER,
    pinned_seq INTEGER,
    PRIMARY KEY (room_no, seq)
) STRICT, WITHOUT ROWID;

-- Edits, deletions, pins and removed pins. kind: 1 edited, 2 deleted, 4 pinned, 5 unpinned. at: when it was
-- made, then when it was published. change_seq: of the announcement, NULL before it. outbox_id: the row that
-- announces it. form, record: of an edit, the content before it, as in hubbub_entries; empty otherwise, and once the
-- message is deleted or has many newer versions.
CREATE TABLE IF NOT EXISTS hubbub_message_changes (
    room_no INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    revision INTEGER NOT NULL,
    kind INTEGER NOT NULL,
    form INTEGER NOT NULL,
    at INTEGER NOT NULL,
    change_seq INTEGER,
    outbox_id INTEGER NOT NULL,
    user_id TEXT NOT NULL,
    record BLOB NOT NULL,
    PRIMARY KEY (room_no, seq, revision)
) STRICT, WITHOUT ROWID;

CREATE TABLE IF NOT EXISTS hubbub_reactions (
    room_no INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    emoji TEXT NOT NULL,
    user_id TEXT NOT NULL,
    at INTEGER NOT NULL,
    PRIMARY KEY (room_no, seq, emoji, user_id)
) STRICT, WITHOUT ROWID;

CREATE TABLE IF NOT EXISTS hubbub_pins (
    room_no INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    user_id TEXT NOT NULL,
    at INTEGER NOT NULL,
    PRIMARY KEY (room_no, seq)
) STRICT, WITHOUT ROWID;

-- Replies that are not deleted. root_seq: the root of the thread; 0 if the archive does not have it.
CREATE TABLE IF NOT EXISTS hubbub_replies (
    room_no INTEGER NOT NULL,
    root_seq INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    user_id TEXT NOT NULL,
    PRIMARY KEY (room_no, root_seq, seq)
) STRICT, WITHOUT ROWID;

CREATE INDEX IF NOT EXISTS hubbub_replies_seq ON hubbub_replies (room_no, seq);

CREATE INDEX IF NOT EXISTS hubbub_replies_user ON hubbub_replies (user_id, room_no, root_seq);

-- Threads with replies that are not deleted. last_seq, last_at: the last of them. participants: a JSON array of
-- the authors of the first replies.
CREATE TABLE IF NOT EXISTS hubbub_threads (
    room_no INTEGER NOT NULL,
    root_seq INTEGER NOT NULL,
    replies INTEGER NOT NULL,
    last_seq INTEGER NOT NULL,
    last_at INTEGER NOT NULL,
    root_user_id TEXT NOT NULL,
    participants TEXT NOT NULL,
    PRIMARY KEY (room_no, root_seq)
) STRICT, WITHOUT ROWID;

CREATE INDEX IF NOT EXISTS hubbub_threads_root_user ON hubbub_threads (root_user_id, room_no, root_seq);

-- Users that messages mention which are not deleted. user_id: '@channel' for all members. author_id: of the
-- message.
CREATE TABLE IF NOT EXISTS hubbub_mentions (
    room_no INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    user_id TEXT NOT NULL,
    author_id TEXT NOT NULL,
    PRIMARY KEY (user_id, room_no, seq)
) STRICT, WITHOUT ROWID;

CREATE INDEX IF NOT EXISTS hubbub_mentions_seq ON hubbub_mentions (room_no, seq);

-- How far users have read rooms. announced_row: the last row of the outbox that announces the position.
-- announce_after: the earliest time of the next one.
CREATE TABLE IF NOT EXISTS hubbub_positions (
    room_no INTEGER NOT NULL,
    read_seq INTEGER NOT NULL,
    user_id TEXT NOT NULL,
    at INTEGER NOT NULL,
    announced_row INTEGER,
    announce_after INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (user_id, room_no)
) STRICT, WITHOUT ROWID;

CREATE INDEX IF NOT EXISTS hubbub_positions_room ON hubbub_positions (room_no, user_id);

-- How far users have read threads.
CREATE TABLE IF NOT EXISTS hubbub_thread_positions (
    room_no INTEGER NOT NULL,
    root_seq INTEGER NOT NULL,
    read_seq INTEGER NOT NULL,
    user_id TEXT NOT NULL,
    PRIMARY KEY (user_id, room_no, root_seq)
) STRICT, WITHOUT ROWID;

CREATE INDEX IF NOT EXISTS hubbub_thread_positions_root ON hubbub_thread_positions (room_no, root_seq);

-- projected_seq: hubbub_unread_blocks has the messages of a room up to it. capped_seq: of a user that has read up
-- to it, or less, so many messages are unread that they are no longer counted; -1 if there is no such number.
-- seen_seq, seen_at: at this time the room had an entry of this number, behind a number that was missing.
CREATE TABLE IF NOT EXISTS hubbub_unread_rooms (
    room_no INTEGER NOT NULL PRIMARY KEY,
    projected_seq INTEGER NOT NULL DEFAULT 0,
    capped_seq INTEGER NOT NULL DEFAULT -1,
    seen_seq INTEGER NOT NULL DEFAULT 0,
    seen_at INTEGER NOT NULL DEFAULT 0
) STRICT, WITHOUT ROWID;

-- The messages that count as unread, neither deleted nor replies, in blocks of 512 numbers. map: which numbers
-- are messages, and whose.
CREATE TABLE IF NOT EXISTS hubbub_unread_blocks (
    room_no INTEGER NOT NULL,
    block INTEGER NOT NULL,
    map BLOB NOT NULL,
    PRIMARY KEY (room_no, block)
) STRICT, WITHOUT ROWID;

-- Entries and groups that the last pass over the messages of a deleted account could not process.
CREATE TABLE IF NOT EXISTS hubbub_deletion_skips (
    user_id BLOB NOT NULL PRIMARY KEY,
    skipped INTEGER NOT NULL
) STRICT;
