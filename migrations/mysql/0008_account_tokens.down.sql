DROP TABLE IF EXISTS hubbub_account_deletions;
DROP TABLE IF EXISTS hubbub_account_tokens;
