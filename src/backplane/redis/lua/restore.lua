-- Shared by the scripts that restore a room of the call's partition from the archive; requires
-- log.lua.
--
-- restore:<room>  string: the token of the restore that is under way
local RESTORE = 'restore:'

local function restore_key(ctx, room) return key(ctx.tag, RESTORE, room) end
