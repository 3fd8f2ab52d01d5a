DROP TABLE IF EXISTS hubbub_idempotency;
