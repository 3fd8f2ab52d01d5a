DROP TABLE IF EXISTS hubbub_login_failures;
DROP TABLE IF EXISTS hubbub_refresh_tokens;
DROP TABLE IF EXISTS hubbub_sessions;
DROP TABLE IF EXISTS hubbub_users;
