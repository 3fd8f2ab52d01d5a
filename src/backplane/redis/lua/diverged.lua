-- Records that the archive has other entries than a room's log.
--
-- ARGV[5]  room (base64url)
-- ARGV[6]  the epoch of the log's entries
-- ARGV[7]  the last seq that log and archive share
--
-- Returns 1 if that was recorded: the room is restored before its next use, and counts as one with
-- entries that may not be archived. Returns 0 if the room has no numbers of that epoch after it, or
-- isn't known. Atomic. A repeat has no effect.
local ctx = context()
local room, epoch, shared = ARGV[5], ARGV[6], tonumber(ARGV[7])

local numbering = key(ctx.tag, NUMBERING, room)
local fields = call('HMGET', numbering, 'e', 's', 'd')
if not fields[1] then return { 0 } end

-- Whether the room has numbers of that epoch after `shared`: those of the current epoch, and those of
-- an earlier one up to its end.
local function concerns_log()
  if epoch == fields[1] then return shared < tonumber(fields[2]) end
  for _, past in ipairs(past_epochs(ctx.tag, room)) do
    local past_epoch, last_seq = string.match(past, '^(%S+) (%d+)')
    if past_epoch == epoch then return shared < tonumber(last_seq) end
  end
  return false
end

if not concerns_log() then return { 0 } end
call('HSET', numbering, 'd', int(math.min(shared, tonumber(fields[3] or shared))))
call('ZADD', key(ctx.tag, UNARCHIVED, ''), 'NX', int(ctx.now), room)
return { 1 }
