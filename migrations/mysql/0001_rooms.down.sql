DROP TABLE IF EXISTS hubbub_runs;
DROP TABLE IF EXISTS hubbub_gaps;
DROP TABLE IF EXISTS hubbub_epochs;
DROP TABLE IF EXISTS hubbub_rooms;
DROP TABLE IF EXISTS hubbub_meta;
