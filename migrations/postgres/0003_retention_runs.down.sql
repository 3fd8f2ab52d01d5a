DROP TABLE IF EXISTS hubbub_retention_runs;
