DROP TABLE IF EXISTS hubbub_entries;
