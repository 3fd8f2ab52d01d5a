-- Returns rooms with entries that may not be archived yet, or that have diverged from the archive.
--
-- ARGV[5]  milliseconds for which the oldest entry must have been waiting
-- ARGV[6]  the most rooms to return
-- ARGV[7…] the tags of the partitions (in a cluster only the call's own tag)
--
-- Returns for each room: room (base64url), watermark, last seq, and the ranges after the watermark that
-- the archive has, as 'first last first last …'. Atomic. A room that is returned
-- begins to wait anew: so it isn't returned to another caller for the same time.
local ctx = context()
local age_ms, limit = ARGV[5], tonumber(ARGV[6])

local reply, due = {}, int(ctx.now - age_ms)
for i = 7, #ARGV do
  local tag = ARGV[i]
  local waiting = key(tag, UNARCHIVED, '')
  local rooms = call('ZRANGEBYSCORE', waiting, '-inf', due, 'LIMIT', 0, int(limit))
  for n = 1, #rooms do
    local room = rooms[n]
    local fields = call('HMGET', key(tag, NUMBERING, room), 'a', 's', 'd', 'y')
    local watermark, seq, shared, archived = unpack(fields)
    if watermark and (shared or tonumber(watermark) < tonumber(seq)) then
      call('ZADD', waiting, int(ctx.now), room)
      reply[#reply + 1] = room
      reply[#reply + 1] = watermark
      reply[#reply + 1] = seq
      reply[#reply + 1] = archived or ''
      limit = limit - 1
    else
      call('ZREM', waiting, room)
    end
  end
  if limit <= 0 then break end
end
return reply
