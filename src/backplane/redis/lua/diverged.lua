-- Records that the archive has other entries than a room's log.
--
-- ARGV[5]  room (base64url)
-- ARGV[6]  the epoch of the log's entries
-- ARGV[7]  the last seq that log and archive share
--
-- Returns 1 if that was recorded: the room is restored before its next use. Returns 0 if the room
-- is in another epoch or isn't known. Atomic. A repeat has no effect.
local ctx = context()
local room, epoch, shared = ARGV[5], ARGV[6], tonumber(ARGV[7])

local numbering = key(ctx.tag, NUMBERING, room)
local fields = call('HMGET', numbering, 'e', 'd')
if fields[1] ~= epoch then return { 0 } end
call('HSET', numbering, 'd', int(math.min(shared, tonumber(fields[2] or shared))))
return { 1 }
