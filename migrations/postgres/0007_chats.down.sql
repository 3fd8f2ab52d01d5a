DROP TABLE IF EXISTS hubbub_chat_members;
DROP TABLE IF EXISTS hubbub_chats;
