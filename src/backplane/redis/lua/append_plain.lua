-- Put before append.lua where no archive stands behind the logs. The functions of append_archived.lua
-- are missing then, so that no call pays for creating them.
local open_archived, keep_unarchived, first_kept
