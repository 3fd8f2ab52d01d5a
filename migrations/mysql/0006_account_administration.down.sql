DROP TABLE IF EXISTS hubbub_invites;
DROP TABLE IF EXISTS hubbub_bot_tokens;
DROP TABLE IF EXISTS hubbub_audit;
