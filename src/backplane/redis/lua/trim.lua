-- Removes entries that retention has deleted from the archive.
--
-- ARGV[5]  room (base64url)
-- ARGV[6]  the last seq to remove, if the watermark isn't lower
--
-- Removes also forms that only removed pointers need. Returns the number of entries removed. Atomic.
-- Does nothing if the room has no watermark.
local ctx = context()
local room, cut = ARGV[5], tonumber(ARGV[6])

local watermark, has_forms = unpack(call('HMGET', key(ctx.tag, NUMBERING, room), 'a', 'f'))
watermark = tonumber(watermark or '0')
local last = math.min(cut, watermark)
if last <= 0 then return { 0 } end
if has_forms then
  while remove_forms(ctx.tag, room, last + 1) > 0 do end
end
return { call('XTRIM', key(ctx.tag, LOG, room), 'MINID', '=', int(last + 1)) }
