-- The entries stay as they are: a deleted message stays deleted, without the record of its deletion, and an
-- edited one keeps its newest content, without its earlier versions. Replies are then messages of their room
-- only.
DROP TABLE IF EXISTS hubbub_deletion_skips;
DROP TABLE IF EXISTS hubbub_unread_blocks;
DROP TABLE IF EXISTS hubbub_unread_rooms;
DROP TABLE IF EXISTS hubbub_thread_positions;
DROP TABLE IF EXISTS hubbub_positions;
DROP TABLE IF EXISTS hubbub_mentions;
DROP TABLE IF EXISTS hubbub_threads;
DROP TABLE IF EXISTS hubbub_replies;
DROP TABLE IF EXISTS hubbub_pins;
DROP TABLE IF EXISTS hubbub_reactions;
DROP TABLE IF EXISTS hubbub_message_changes;
DROP TABLE IF EXISTS hubbub_messages;
