DROP TABLE IF EXISTS hubbub_outbox;
