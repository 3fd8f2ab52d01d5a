-- Put before append.lua if the logs have no archive. The functions of append_archived.lua
-- are missing then, so that no call pays for creating them.
local open_archived, keep_unarchived, first_kept
